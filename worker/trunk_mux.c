#include "worker/trunk_mux.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire.h"
#include "worker/trunk_mux_internal.h"

#define QUANTUM    8192 // of a pipe before the next has its turn
#define QUICK_US   200000
#define FRAME_MIN  64 // room for any frame without bytes
#define OPEN_ROOM  (WRK_MUX_FIRST_MAX + FRAME_MIN)
#define PIPE_BYTES (WRK_MUX_SEND_MAX + WRK_MUX_WINDOW_MIN) // reserved at the opening

uint64_t mux_now_us(const struct wrk_mux *m)
{
	return *m->opt.clock_us;
}

// ---- rings ----

static void ring_done(struct ring *r)
{
	free(r->p);
	*r = (struct ring){0};
}

static bool ring_grow(struct ring *r, uint32_t need)
{
	uint32_t cap = r->cap ? r->cap : 4096, head;
	uint8_t *p;
	while (cap < need)
		cap *= 2;
	if (cap == r->cap)
		return true;
	p = malloc(cap);
	if (!p)
		return false;
	head = r->cap - r->first;
	if (head > r->fill)
		head = r->fill;
	if (r->fill) {
		memcpy(p, r->p + r->first, head);
		memcpy(p + head, r->p, r->fill - head);
	}
	free(r->p);
	*r = (struct ring){.p = p, .cap = cap, .fill = r->fill};
	return true;
}

// The caller sees to limits. False: no memory.
bool mux_ring_put(struct ring *r, const uint8_t *buf, uint32_t len)
{
	uint32_t at, head;
	if (!ring_grow(r, r->fill + len))
		return false;
	at = (r->first + r->fill) & (r->cap - 1);
	head = r->cap - at < len ? r->cap - at : len;
	memcpy(r->p + at, buf, head);
	memcpy(r->p, buf + head, len - head);
	r->fill += len;
	return true;
}

// At most `cap` bytes; how many.
static uint32_t ring_get(struct ring *r, uint8_t *buf, size_t cap)
{
	uint32_t len = r->fill < cap ? r->fill : (uint32_t)cap;
	uint32_t head = r->cap - r->first < len ? r->cap - r->first : len;
	if (!len)
		return 0;
	memcpy(buf, r->p + r->first, head);
	memcpy(buf + head, r->p, len - head);
	r->first = (r->first + len) & (r->cap - 1);
	r->fill -= len;
	if (!r->fill)
		ring_done(r);
	return len;
}

// ---- turns ----

static bool has_frames(const struct wrk_pipe *p)
{
	if (p->open_due || p->close_due || (p->credit_due && !p->closed))
		return true;
	if (p->closed)
		return false;
	return (p->tx.fill && p->sent < p->credit) ||
	       (p->fin && !p->fin_sent && !p->tx.fill);
}

void mux_wake(struct wrk_mux *m)
{
	if (!m->failed)
		m->opt.ops->wake(m->opt.ctx);
}

// In line for a turn if it has something to send.
void mux_queue(struct wrk_pipe *p)
{
	struct wrk_mux *m = p->mux;
	if (!m || p->in_turn || !has_frames(p))
		return;
	p->in_turn = true;
	TAILQ_INSERT_TAIL(&m->turns, p, turn);
	mux_wake(m);
}

// The rest of its turn comes first in the next record.
static void queue_first(struct wrk_pipe *p)
{
	p->in_turn = true;
	TAILQ_INSERT_HEAD(&p->mux->turns, p, turn);
}

void mux_tell(struct wrk_pipe *p)
{
	if (p->owned && p->ready)
		p->ready(p->ctx);
}

// ---- birth and death of pipes ----

static struct pipe_chain *chain_of(struct wrk_mux *m, uint64_t id)
{
	return &m->bucket[(id >> 1) % MUX_BUCKETS];
}

struct wrk_pipe *mux_find(struct wrk_mux *m, uint64_t id)
{
	struct wrk_pipe *p;
	LIST_FOREACH(p, chain_of(m, id), chain)
	if (p->id == id)
		return p;
	return NULL;
}

static bool reserve(struct wrk_mux *m, uint64_t bytes)
{
	struct wrk_mux_pool *pool = m->opt.pool;
	if (pool->used + bytes > pool->limit)
		return false;
	pool->used += bytes;
	return true;
}

// NULL: the pool or the memory has no more.
struct wrk_pipe *mux_pipe_new(struct wrk_mux *m, uint64_t id)
{
	struct wrk_pipe *p;
	if (!reserve(m, PIPE_BYTES))
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p) {
		m->opt.pool->used -= PIPE_BYTES;
		return NULL;
	}
	p->mux = m;
	p->id = id;
	p->window = p->goal = WRK_MUX_WINDOW_MIN;
	p->mark_us = mux_now_us(m);
	p->owned = true;
	LIST_INSERT_HEAD(chain_of(m, id), p, chain);
	m->pipes++;
	return p;
}

// Out of the mux, which may be on its way out itself.
void mux_unlink_pipe(struct wrk_pipe *p)
{
	struct wrk_mux *m = p->mux;
	if (p->in_turn)
		TAILQ_REMOVE(&m->turns, p, turn);
	p->in_turn = false;
	LIST_REMOVE(p, chain);
	m->pipes--;
	m->opt.pool->used -= WRK_MUX_SEND_MAX + p->window;
	p->mux = NULL;
}

void mux_pipe_free(struct wrk_pipe *p)
{
	if (p->mux) {
		p->mux->opt.counters->closed[p->reason]++;
		mux_unlink_pipe(p);
	}
	ring_done(&p->rx);
	ring_done(&p->tx);
	free(p->first_bytes);
	free(p);
}

// Nothing more will come or go, but what was received can be read.
void mux_pipe_closed(struct wrk_pipe *p, enum sp_reason reason)
{
	p->closed = true;
	p->reason = reason;
	ring_done(&p->tx);
	if (p->owned)
		mux_tell(p);
	else
		mux_pipe_free(p);
}

void mux_pipe_starved(struct wrk_pipe *p)
{
	p->close_due = true;
	mux_queue(p);
	mux_pipe_closed(p, SP_REASON_NO_MEMORY);
}

// Its owner let go and everything was said.
bool mux_is_over(const struct wrk_pipe *p)
{
	if (p->owned)
		return false;
	return p->closed ? !p->close_due : p->fin_sent && p->rx_fin;
}

int wrk_mux_new(const struct wrk_mux_options *opt, struct wrk_mux **ret)
{
	struct wrk_mux *m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	assert(opt->window_max >= WRK_MUX_WINDOW_MIN && opt->opens_per_second);
	m->opt = *opt;
	m->next_id = opt->dialled ? 1 : 2;
	m->error = "";
	m->tokens_at_us = *opt->clock_us;
	m->tokens_us = MUX_BURST_S * UINT64_C(1000000);
	TAILQ_INIT(&m->turns);
	*ret = m;
	return 0;
}

void wrk_mux_free(struct wrk_mux *m)
{
	if (!m)
		return;
	m->failed = true;
	for (size_t i = 0; i < MUX_BUCKETS; i++) {
		struct wrk_pipe *p;
		while ((p = LIST_FIRST(&m->bucket[i]))) {
			m->opt.counters->closed[p->closed ? p->reason
							  : SP_REASON_CARRIER_RESET]++;
			mux_unlink_pipe(p);
			if (p->closed && p->owned)
				continue;
			mux_pipe_closed(p, SP_REASON_CARRIER_RESET);
		}
	}
	free(m);
}

// ---- windows ----

// A whole window was read since the last look.
static void fit_window(struct wrk_pipe *p)
{
	struct wrk_mux *m = p->mux;
	uint64_t now = mux_now_us(m);
	bool quick = now - p->mark_us <= QUICK_US;
	if (quick && !p->low && p->window < m->opt.window_max) {
		uint32_t more = p->window;
		if (p->window + more > m->opt.window_max)
			more = m->opt.window_max - p->window;
		if (reserve(m, more))
			p->window += more;
		p->goal = p->window;
	} else if (p->low >= p->window / 2 && p->window > WRK_MUX_WINDOW_MIN) {
		p->goal = p->window / 2 > WRK_MUX_WINDOW_MIN ? p->window / 2
							     : WRK_MUX_WINDOW_MIN;
	}
	p->mark = p->consumed;
	p->mark_us = now;
	p->low = p->rx.fill;
}

// What was granted may be asked for: memory goes back when that has come.
static void shrink_window(struct wrk_pipe *p)
{
	if (p->goal == p->window || p->granted > p->consumed + p->goal)
		return;
	p->mux->opt.pool->used -= p->window - p->goal;
	p->window = p->goal;
}

static void consumed(struct wrk_pipe *p, uint32_t n)
{
	p->consumed += n;
	if (p->rx.fill < p->low)
		p->low = p->rx.fill;
	if (!p->mux || p->closed || p->rx_fin)
		return;
	if (p->consumed - p->mark >= p->window)
		fit_window(p);
	shrink_window(p);
	if (p->consumed + p->goal >= p->granted + p->goal / 4)
		p->credit_due = true;
	mux_queue(p);
}

// ---- the owner's side ----

int wrk_pipe_open(struct wrk_mux *m, const struct wrk_mux_source *source,
		  const uint8_t *first, size_t len, struct wrk_pipe **ret)
{
	struct wrk_pipe *p;
	uint8_t *copy;
	if (len > WRK_MUX_FIRST_MAX || !len || m->pipes >= m->opt.max_pipes)
		return SP_E_LIMIT;
	copy = malloc(len);
	p = copy ? mux_pipe_new(m, m->next_id) : NULL;
	if (!p) {
		free(copy);
		return -ENOMEM;
	}
	memcpy(copy, first, len);
	m->next_id += 2;
	p->source = *source;
	p->first_bytes = copy;
	p->first_len = (uint32_t)len;
	p->open_due = true;
	p->granted = p->window;
	m->opt.counters->opened++;
	mux_queue(p);
	*ret = p;
	return 0;
}

void wrk_pipe_attach(struct wrk_pipe *p, void (*ready)(void *ctx), void *ctx)
{
	p->ready = ready;
	p->ctx = ctx;
}

ssize_t wrk_pipe_read(struct wrk_pipe *p, uint8_t *buf, size_t cap)
{
	uint32_t n = ring_get(&p->rx, buf, cap);
	if (n) {
		consumed(p, n);
		return (ssize_t)n;
	}
	if (p->rx_fin)
		return 0;
	return p->closed ? -ECONNRESET : -EAGAIN;
}

ssize_t wrk_pipe_write(struct wrk_pipe *p, const uint8_t *buf, size_t len)
{
	uint32_t room = WRK_MUX_SEND_MAX - p->tx.fill;
	if (p->closed)
		return -ECONNRESET;
	if (p->fin)
		return -EPIPE;
	if (!room) {
		p->blocked = true;
		return -EAGAIN;
	}
	if (len > room)
		len = room;
	if (!mux_ring_put(&p->tx, buf, (uint32_t)len)) {
		mux_pipe_starved(p);
		return -ECONNRESET;
	}
	mux_queue(p);
	return (ssize_t)len;
}

int wrk_pipe_end(struct wrk_pipe *p)
{
	if (p->closed)
		return -ECONNRESET;
	p->fin = true;
	mux_queue(p);
	return 0;
}

void wrk_pipe_close(struct wrk_pipe *p, enum sp_reason reason)
{
	p->owned = false;
	p->ready = NULL;
	ring_done(&p->rx);
	if (!p->mux || mux_is_over(p)) {
		if (!p->closed)
			p->reason = SP_REASON_CLOSED;
		mux_pipe_free(p);
		return;
	}
	if (p->closed || (p->fin && p->rx_fin))
		return; // goes when the rest was sent
	p->reason = reason;
	p->close_due = true;
	ring_done(&p->tx);
	mux_queue(p);
}

enum sp_reason wrk_pipe_reason(const struct wrk_pipe *p)
{
	return p->closed ? p->reason : SP_REASON_NONE;
}

uint64_t wrk_pipe_received(const struct wrk_pipe *p)
{
	return p->received;
}

// ---- output ----

static void put_head(struct sp_writer *w, enum frame_type type, uint64_t id)
{
	sp_put_u8(w, (uint8_t)type);
	sp_put_varint(w, id);
}

static void put_open(struct wrk_pipe *p, struct sp_writer *w)
{
	put_head(w, FRAME_RELAY_OPEN, p->id);
	sp_put_varint(w, p->granted);
	sp_put_u8(w, WRK_MUX_HOPS);
	sp_put_u8(w, p->source.family);
	sp_put_bytes(w, p->source.net, sizeof(p->source.net));
	sp_put_varint(w, p->first_len);
	sp_put_bytes(w, p->first_bytes, p->first_len);
	p->sent = p->first_len;
	if (p->credit < WRK_MUX_FIRST_MAX)
		p->credit = WRK_MUX_FIRST_MAX;
	p->mux->opt.counters->bytes_tx += p->first_len;
	free(p->first_bytes);
	p->first_bytes = NULL;
	p->open_due = false;
}

static void put_close(struct sp_writer *w, uint64_t id, enum sp_reason reason)
{
	put_head(w, FRAME_RELAY_CLOSE, id);
	sp_put_u16(w, sp_reason_to_wire(reason));
}

static void put_data(struct wrk_pipe *p, struct sp_writer *w)
{
	uint64_t n = p->credit - p->sent;
	size_t room = sp_writer_room(w) - FRAME_MIN;
	if (n > p->tx.fill)
		n = p->tx.fill;
	uint32_t most = p->left ? p->left : QUANTUM;
	if (n > most)
		n = most;
	p->left = n > room ? most - (uint32_t)room : 0;
	if (n > room)
		n = room;
	put_head(w, FRAME_RELAY_DATA, p->id);
	sp_put_varint(w, n);
	assert(sp_writer_room(w) >= n);
	(void)ring_get(&p->tx, w->p, (size_t)n);
	w->p += n;
	p->sent += n;
	p->mux->opt.counters->bytes_tx += n;
	if (p->blocked && p->tx.fill <= WRK_MUX_SEND_MAX / 2) {
		p->blocked = false;
		mux_tell(p);
	}
}

static void put_credit(struct wrk_pipe *p, struct sp_writer *w)
{
	if (p->granted < p->consumed + p->goal)
		p->granted = p->consumed + p->goal;
	put_head(w, FRAME_RELAY_CREDIT, p->id);
	sp_put_varint(w, p->granted);
	p->credit_due = false;
}

// A pipe's turn. False: it was freed.
static bool put_pipe(struct wrk_pipe *p, struct sp_writer *w)
{
	if (p->close_due) {
		if (!p->open_due) // else nobody knows of it
			put_close(w, p->id, p->reason);
		p->open_due = p->close_due = false;
		if (p->owned)
			return true;
		mux_pipe_free(p);
		return false;
	}
	if (p->open_due)
		put_open(p, w);
	if (p->closed)
		return true;
	if (p->credit_due)
		put_credit(p, w);
	if (p->tx.fill && p->sent < p->credit && sp_writer_room(w) > 2 * FRAME_MIN)
		put_data(p, w);
	if (p->fin && !p->fin_sent && !p->tx.fill && sp_writer_room(w) > FRAME_MIN) {
		put_head(w, FRAME_RELAY_FIN, p->id);
		p->fin_sent = true;
	}
	if (!mux_is_over(p))
		return true;
	p->reason = SP_REASON_CLOSED;
	mux_pipe_free(p);
	return false;
}

static void put_refusals(struct wrk_mux *m, struct sp_writer *w)
{
	while (m->n_refusals && sp_writer_room(w) > FRAME_MIN) {
		const struct refusal *r = &m->refusals[--m->n_refusals];
		put_close(w, r->id, r->reason);
	}
}

size_t wrk_mux_output(struct wrk_mux *m, uint8_t *buf, size_t cap)
{
	struct sp_writer w;
	struct wrk_pipe *p;
	sp_writer_init(&w, buf, cap);
	if (m->failed)
		return 0;
	if (m->pong_due)
		sp_put_u8(&w, FRAME_PONG);
	if (m->ping_due)
		sp_put_u8(&w, FRAME_PING);
	m->ping_due = m->pong_due = false;
	put_refusals(m, &w);
	while ((p = TAILQ_FIRST(&m->turns)) &&
	       sp_writer_room(&w) > (p->open_due ? OPEN_ROOM : 2 * FRAME_MIN)) {
		TAILQ_REMOVE(&m->turns, p, turn);
		p->in_turn = false;
		if (!put_pipe(p, &w))
			continue;
		if (p->left && has_frames(p))
			queue_first(p);
		else
			mux_queue(p);
	}
	assert(!w.err);
	return sp_writer_len(&w);
}

void wrk_mux_ping(struct wrk_mux *m)
{
	m->ping_due = true;
	mux_wake(m);
}

const char *wrk_mux_error(const struct wrk_mux *m)
{
	return m->error;
}

uint32_t wrk_mux_pipes(const struct wrk_mux *m)
{
	return m->pipes;
}
