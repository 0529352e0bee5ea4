// Replay memory of a stream: the ring towards the peer and the queue towards the sink,
// both chains of arena chunks.
//
// Ring: chunk k of the chain holds stream offsets base + k * SP_CHUNK_BYTES onwards;
// bytes [acked, head) are held; chunks beyond `head` are reserved for a read under way.
// An empty ring holds no chunk, so an idle stream costs nothing here.
#include <assert.h>
#include <string.h>

#include "lib/session_internal.h"

static struct sp_arena *arena_of(const struct sp_stream *st)
{
	return st->s->opt.arena;
}

static uint64_t ring_end(const struct sp_stream_rec *r)
{
	return r->base + (uint64_t)r->chunks * SP_CHUNK_BYTES;
}

// The first chunk is promised. Of the others a session has at most its limit, and no more
// than it leaves to the rest: one that is not acknowledged anything cannot take it all.
static uint32_t ring_alloc(struct sp_stream *st)
{
	struct sp_session *s = st->s;
	struct sp_arena *a = arena_of(st);
	if (st->rec->chunks == 0)
		return sp_arena_chunk_alloc(a, true);
	if (s->ring_chunks >= s->opt.limits.session_window_bytes / SP_CHUNK_BYTES ||
	    s->ring_chunks >= sp_arena_chunks_spare(a))
		return SP_ARENA_NONE;
	s->ring_chunks++;
	return sp_arena_chunk_alloc(a, false);
}

// Counts a chunk off the ring.
static void ring_release(struct sp_stream *st, uint32_t chunk)
{
	struct sp_stream_rec *r = st->rec;
	bool promised = --r->chunks == 0;
	st->s->ring_chunks -= !promised;
	sp_arena_chunk_release(arena_of(st), chunk, promised);
}

static bool ring_extend(struct sp_stream *st)
{
	struct sp_stream_rec *r = st->rec;
	uint32_t c = ring_alloc(st);
	if (c == SP_ARENA_NONE)
		return false;
	sp_arena_chunk_claim(arena_of(st), c, st->index,
			     r->chunks ? ring_end(r) : r->head);
	if (r->chunks == 0) {
		r->base = r->head;
		r->first = c;
		st->cur_chunk = c;
		st->cur_start = r->base;
	} else {
		sp_arena_chunk_set_next(arena_of(st), r->last, c);
	}
	r->last = c;
	r->chunks++;
	return true;
}

// The chunk that holds stream offset `offset`, which lies in the ring; *ret_start gets
// the offset of its first byte.
static uint32_t ring_find(const struct sp_stream *st, uint64_t offset,
			  uint64_t *ret_start)
{
	const struct sp_stream_rec *r = st->rec;
	uint64_t start = ring_end(r) - SP_CHUNK_BYTES;
	if (offset >= start) { // the usual case: the head
		*ret_start = start;
		return r->last;
	}
	uint32_t c = r->first;
	for (start = r->base; offset - start >= SP_CHUNK_BYTES; start += SP_CHUNK_BYTES)
		c = sp_arena_chunk_next(arena_of(st), c);
	*ret_start = start;
	return c;
}

int ring_reserve(struct sp_stream *st, size_t max, struct iovec *iov, int iovcnt)
{
	struct sp_stream_rec *r = st->rec;
	if (max == 0 || iovcnt <= 0)
		return 0;
	if (r->chunks == 0 && !ring_extend(st))
		return 0;
	uint64_t start, at = r->head;
	if (at == ring_end(r) && !ring_extend(st))
		return 0;
	uint32_t c = ring_find(st, at, &start);
	int n = 0;
	while (max && n < iovcnt) {
		size_t skip = (size_t)(at - start), len = SP_CHUNK_BYTES - skip;
		if (len > max)
			len = max;
		iov[n++] = (struct iovec){sp_arena_chunk(arena_of(st), c) + skip, len};
		max -= len;
		at += len;
		if (max == 0 || n == iovcnt || (c == r->last && !ring_extend(st)))
			break;
		c = sp_arena_chunk_next(arena_of(st), c);
		start += SP_CHUNK_BYTES;
	}
	return n;
}

void ring_trim(struct sp_stream *st)
{
	struct sp_stream_rec *r = st->rec;
	if (r->chunks == 0)
		return;
	if (r->head == r->acked || r->head == r->base) {
		if (r->head == r->acked)
			ring_clear(st);
		return;
	}
	uint32_t keep =
		(uint32_t)((r->head - r->base + SP_CHUNK_BYTES - 1) / SP_CHUNK_BYTES);
	if (keep == r->chunks)
		return;
	uint64_t start;
	uint32_t last = r->first;
	for (start = r->base; keep > 1; keep--, start += SP_CHUNK_BYTES)
		last = sp_arena_chunk_next(arena_of(st), last);
	uint32_t c = sp_arena_chunk_next(arena_of(st), last);
	sp_arena_chunk_set_next(arena_of(st), last, SP_ARENA_NONE);
	r->last = last;
	while (c != SP_ARENA_NONE) {
		uint32_t next = sp_arena_chunk_next(arena_of(st), c);
		ring_release(st, c);
		c = next;
	}
}

void ring_commit(struct sp_stream *st, size_t len)
{
	assert(len <= ring_end(st->rec) - st->rec->head || len == 0);
	sp_arena_fence(); // the bytes before the word that they are there
	st->rec->head += len;
	ring_trim(st);
}

void ring_ack(struct sp_stream *st, uint64_t acked)
{
	struct sp_stream_rec *r = st->rec;
	r->acked = acked;
	while (r->chunks > 1 && acked >= r->base + SP_CHUNK_BYTES) {
		uint32_t c = r->first;
		r->first = sp_arena_chunk_next(arena_of(st), c);
		sp_arena_fence();
		r->base += SP_CHUNK_BYTES;
		if (st->cur_chunk == c) {
			st->cur_chunk = r->first;
			st->cur_start = r->base;
		}
		ring_release(st, c);
	}
	if (acked >= r->head)
		ring_clear(st);
}

void ring_clear(struct sp_stream *st)
{
	struct sp_stream_rec *r = st->rec;
	uint32_t c = r->first;
	while (r->chunks) {
		uint32_t next = sp_arena_chunk_next(arena_of(st), c);
		ring_release(st, c);
		c = next;
	}
	r->first = r->last = SP_ARENA_NONE;
	st->cur_chunk = SP_ARENA_NONE;
	r->base = r->head;
	sp_arena_fence();
}

void ring_seek(struct sp_stream *st, uint64_t offset)
{
	struct sp_stream_rec *r = st->rec;
	st->snd_nxt = offset;
	if (r->chunks == 0)
		return;
	if (offset > r->head)
		offset = r->head;
	if (offset == ring_end(r)) { // behind the last byte: ring_next steps on by itself
		st->cur_chunk = r->last;
		st->cur_start = ring_end(r) - SP_CHUNK_BYTES;
		return;
	}
	st->cur_chunk = ring_find(st, offset, &st->cur_start);
}

size_t ring_next(struct sp_stream *st, size_t max, uint8_t **ret)
{
	const struct sp_stream_rec *r = st->rec;
	if (st->snd_nxt >= r->head || max == 0)
		return 0;
	if (st->snd_nxt - st->cur_start == SP_CHUNK_BYTES) {
		st->cur_chunk = sp_arena_chunk_next(arena_of(st), st->cur_chunk);
		st->cur_start += SP_CHUNK_BYTES;
	}
	size_t skip = (size_t)(st->snd_nxt - st->cur_start);
	size_t len = SP_CHUNK_BYTES - skip;
	if (len > r->head - st->snd_nxt)
		len = (size_t)(r->head - st->snd_nxt);
	if (len > max)
		len = max;
	*ret = sp_arena_chunk(arena_of(st), st->cur_chunk) + skip;
	st->snd_nxt += len;
	return len;
}

// What was granted as credit was promised as chunks, so there is memory for it.
static void rxq_extend(struct sp_stream *st)
{
	struct rx_queue *q = &st->rx;
	struct sp_arena *a = arena_of(st);
	uint32_t c = sp_arena_chunk_alloc(a, true);
	if (q->first == SP_ARENA_NONE) {
		q->first = c;
		q->skip = 0;
	} else {
		sp_arena_chunk_set_next(a, q->last, c);
	}
	q->last = c;
	q->fill = 0;
}

void rxq_append(struct sp_stream *st, const uint8_t *buf, size_t len)
{
	struct rx_queue *q = &st->rx;
	assert(q->bytes + len <= st->window);
	while (len) {
		if (q->first == SP_ARENA_NONE || q->fill == SP_CHUNK_BYTES)
			rxq_extend(st);
		size_t n = SP_CHUNK_BYTES - q->fill;
		if (n > len)
			n = len;
		memcpy(sp_arena_chunk(arena_of(st), q->last) + q->fill, buf, n);
		q->fill += (uint32_t)n;
		q->bytes += (uint32_t)n;
		st->rcv_next += n;
		buf += n;
		len -= n;
	}
}

size_t rxq_peek(const struct sp_stream *st, const uint8_t **ret)
{
	const struct rx_queue *q = &st->rx;
	if (q->bytes == 0)
		return 0;
	*ret = sp_arena_chunk(arena_of(st), q->first) + q->skip;
	return (q->first == q->last ? q->fill : SP_CHUNK_BYTES) - q->skip;
}

void rxq_consume(struct sp_stream *st, size_t len)
{
	struct rx_queue *q = &st->rx;
	struct sp_arena *a = arena_of(st);
	assert(len <= q->bytes);
	q->bytes -= (uint32_t)len;
	q->skip += (uint32_t)len;
	if (q->bytes == 0) {
		rxq_clear(st);
	} else if (q->skip == SP_CHUNK_BYTES) {
		uint32_t c = q->first;
		q->first = sp_arena_chunk_next(a, c);
		q->skip = 0;
		sp_arena_chunk_release(a, c, true);
	}
}

void rxq_clear(struct sp_stream *st)
{
	struct rx_queue *q = &st->rx;
	uint32_t c = q->first;
	while (c != SP_ARENA_NONE) {
		uint32_t next = c == q->last ? SP_ARENA_NONE
					     : sp_arena_chunk_next(arena_of(st), c);
		sp_arena_chunk_release(arena_of(st), c, true);
		c = next;
	}
	*q = (struct rx_queue){.first = SP_ARENA_NONE, .last = SP_ARENA_NONE};
}
