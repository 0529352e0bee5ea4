// Adopting an arena that a dead process left, after damage: the first byte picks random
// bytes over its start (odd) or changes to a real one, three bytes each: `where:2
// what:1`, one bit flipped or one byte stored. A region that is refused is refused whole;
// of one that is taken, no chunk belongs to two rings, no stream to a session that is not
// there, a session that was not touched keeps its streams, and what is freed is all there
// is.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/arena_internal.h"
#include "lib/session.h"

#define SESSIONS 3
#define STREAMS  6
#define CHUNKS   12 // of the pool

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct sp_arena_options options = {
	.max_sessions = SESSIONS,
	.max_streams = STREAMS,
	.memory_bytes = CHUNKS * SP_CHUNK_BYTES,
	.max_flows = SESSIONS,
	.program_bytes = 64,
};

static void on_closed(void *ctx, struct sp_stream *st, enum sp_reason reason)
{
	(void)ctx, (void)st, (void)reason;
}

static const struct sp_session_ops ops = {.stream_closed = on_closed};
static uint64_t clock_us = 1000000;

static void check(bool holds)
{
	if (!holds)
		__builtin_trap();
}

// Two chunks, the second half full; the bytes say whose they are.
static void make_stream(struct sp_arena *a, uint32_t session, uint64_t id)
{
	uint32_t i = sp_arena_stream_alloc(a);
	struct sp_stream_rec *r = sp_arena_stream(a, i);
	r->session = session;
	r->id = id;
	r->state = SP_STREAM_OPEN;
	r->credit_given = 4096;
	r->credit = r->head = 6144;
	for (uint32_t k = 0; k < 2; k++) {
		uint32_t c = sp_arena_chunk_alloc(a, k == 0);
		check(c != SP_ARENA_NONE);
		memset(sp_arena_chunk(a, c), (int)session + 1, SP_CHUNK_BYTES);
		sp_arena_chunk_claim(a, c, i, r->base + k * SP_CHUNK_BYTES);
		if (k)
			sp_arena_chunk_set_next(a, r->last, c);
		else
			r->first = c;
		r->last = c;
		r->chunks++;
	}
	sp_arena_live(&r->rec_state);
}

static void make_session(struct sp_arena *a)
{
	uint32_t i = sp_arena_session_alloc(a), f = sp_arena_flow_alloc(a);
	struct sp_session_rec *r = sp_arena_session(a, i);
	struct sp_flow_rec *fr = sp_arena_flow(a, f);
	memset(r->id, (int)i + 1, sizeof(r->id));
	r->incarnation = i + 1;
	sp_arena_live(&r->state);
	make_stream(a, i, 1);
	make_stream(a, i, 2);
	fr->session = i;
	fr->id = 1;
	fr->target.kind = SP_TARGET_IPV4;
	sp_arena_live(&fr->rec_state);
}

// Returns whether nothing but bytes of streams was changed.
static bool damage(uint8_t *p, size_t bytes, const uint8_t *data, size_t size)
{
	size_t records = ((const struct arena_header *)p)->off_bytes;
	bool harmless = true;
	if (size && (data[0] & 1)) {
		memcpy(p, data + 1, size - 1 < bytes ? size - 1 : bytes);
		return false;
	}
	for (size_t i = 1; i + 2 < size; i += 3) {
		size_t at = ((size_t)data[i] << 8 | data[i + 1]) % bytes;
		if (data[0] & 2)
			p[at] = data[i + 2];
		else
			p[at] ^= (uint8_t)(1u << (data[i + 2] % 8));
		harmless = harmless && at >= records;
	}
	return harmless;
}

// What every arena that was taken over satisfies, whatever lay there.
static void check_owners(struct sp_arena *a, const struct sp_arena_found *found)
{
	uint32_t streams = 0, sessions = 0, flows = 0;
	uint8_t *owned = calloc(a->hdr->n[T_CHUNKS] + 1, 1);
	check(owned != NULL);
	for (uint32_t i = 0; i < sp_arena_session_top(a); i++)
		sessions += sp_arena_session(a, i)->state == SP_REC_LIVE;
	for (uint32_t i = 0; i < sp_arena_stream_top(a); i++) {
		const struct sp_stream_rec *r = sp_arena_stream(a, i);
		if (r->rec_state != SP_REC_LIVE)
			continue;
		streams++;
		check(r->session < sp_arena_session_top(a) &&
		      sp_arena_session(a, r->session)->state == SP_REC_LIVE);
		check(r->acked >= r->head || r->state != SP_STREAM_OPEN ||
		      r->head <= r->base + (uint64_t)r->chunks * SP_CHUNK_BYTES);
		uint32_t c = r->first;
		for (uint32_t k = 0; k < r->chunks; k++) {
			check(c < a->hdr->n[T_CHUNKS] && !owned[c]);
			owned[c] = 1;
			check(a->claims[c].stream == i);
			c = sp_arena_chunk_next(a, c);
		}
		check(c == SP_ARENA_NONE);
	}
	for (uint32_t i = 0; i < sp_arena_flow_top(a); i++)
		flows += sp_arena_flow(a, i)->rec_state == SP_REC_LIVE;
	check(sessions == found->sessions && streams == found->streams &&
	      flows == found->flows);
	// What is free is nobody's, and free once.
	for (uint32_t i = 0; i < a->free[T_CHUNKS].n; i++)
		check(!owned[a->free[T_CHUNKS].items[i]]++);
	free(owned);
}

// Engines go on with it, as far as their bytes are believed.
static void go_on(struct sp_arena *a)
{
	struct sp_session *s[SESSIONS] = {NULL};
	struct sp_session_options o = {
		.role = SP_ROLE_WORKER, .arena = a, .ops = &ops, .clock_us = &clock_us};
	sp_session_limits_default(&o.limits);
	for (uint32_t i = 0; i < sp_arena_session_top(a) && i < SESSIONS; i++)
		if (sp_arena_session(a, i)->state == SP_REC_LIVE)
			check(sp_session_adopt(&o, i, clock_us, &s[i]) == 0);
	for (uint32_t i = 0; i < sp_arena_stream_top(a); i++) {
		struct sp_stream_rec *r = sp_arena_stream(a, i);
		struct sp_stream_found f = {.head = r->head, .taken = r->taken};
		struct sp_stream *st;
		if (r->rec_state == SP_REC_LIVE &&
		    sp_stream_adopt(s[r->session], i, &f, NULL, &st) == 0 &&
		    r->state == SP_STREAM_OPEN && !(r->bits & SP_STREAM_TX_FIN))
			sp_stream_source_fin(st);
	}
	for (uint32_t i = 0; i < SESSIONS; i++)
		sp_session_free(s[i], SP_REASON_SHUTDOWN);
	for (uint32_t i = 0; i < sp_arena_flow_top(a); i++)
		if (sp_arena_flow(a, i)->rec_state == SP_REC_LIVE)
			sp_arena_flow_release(a, i);
	check(sp_arena_chunks_spare(a) == sp_arena_chunks_pool(a));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sp_arena *a;
	struct sp_arena_found found;
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (sodium_init() < 0 || fd < 0 || sp_arena_create(fd, 0, &options, &a))
		return 0;
	for (int i = 0; i < SESSIONS; i++)
		make_session(a);
	bool harmless = damage(a->base, a->size, data, size);
	sp_arena_leave(a);
	if (sp_arena_adopt(fd, 0, &a, &found) == 0) {
		check(!harmless || (found.sessions == SESSIONS && found.lost == 0 &&
				    found.streams == STREAMS && found.flows == SESSIONS));
		check_owners(a, &found);
		go_on(a);
		sp_arena_free(a);
	} else {
		check(!harmless);
	}
	close(fd);
	return 0;
}
