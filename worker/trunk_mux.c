#include "worker/trunk_mux.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "lib/wire.h"

#define BUCKETS    256
#define QUANTUM    8192 // of a pipe before the next has its turn
#define QUICK_US   200000
#define FRAME_MIN  64 // room for any frame without bytes
#define OPEN_ROOM  (WRK_MUX_FIRST_MAX + FRAME_MIN)
#define PIPE_BYTES (WRK_MUX_SEND_MAX + WRK_MUX_WINDOW_MIN) // reserved at the opening
#define BURST_S    5

enum frame_type {
	FRAME_PAD = 0x00,
	FRAME_PING = 0x01,
	FRAME_PONG = 0x02,
	FRAME_CLOSE = 0x1b,
	FRAME_REKEY = 0x1d,
	FRAME_RELAY_OPEN = 0x20,
	FRAME_RELAY_DATA = 0x21,
	FRAME_RELAY_CREDIT = 0x22,
	FRAME_RELAY_FIN = 0x23,
	FRAME_RELAY_CLOSE = 0x24,
};

// Bytes in order; memory only while there are any.
struct ring {
	uint8_t *p;
	uint32_t cap, first, fill;
};

struct wrk_pipe {
	struct wrk_mux *mux; // NULL: the trunk is gone
	uint64_t id;
	void (*ready)(void *ctx);
	void *ctx;
	// from the peer
	struct ring rx;
	uint64_t received, consumed, granted;
	uint32_t window; // reserved in the pool
	uint32_t goal;   // granted ahead; below `window` while that shrinks
	uint32_t low;    // least that stood in rx since mark_us
	uint64_t mark;   // consumed, when this look at the window began
	uint64_t mark_us;
	bool rx_fin;
	// to the peer
	struct ring tx;
	uint64_t sent, credit;
	struct wrk_mux_source source; // until OPEN is sent
	uint8_t *first_bytes;
	uint32_t first_len;
	bool open_due, credit_due, fin, fin_sent, close_due, blocked;
	bool owned, closed;    // by its owner; by the peer, or the trunk is gone
	enum sp_reason reason; // of `closed`, or to be sent
	bool in_turn;
	uint32_t left; // of its quantum, when a record ended in the middle of it; else 0
	TAILQ_ENTRY(wrk_pipe) turn;
	LIST_ENTRY(wrk_pipe) chain;
};
TAILQ_HEAD(pipe_turns, wrk_pipe);
LIST_HEAD(pipe_chain, wrk_pipe);

struct refusal {
	uint64_t id;
	enum sp_reason reason;
};

struct wrk_mux {
	struct wrk_mux_options opt;
	struct pipe_chain bucket[BUCKETS];
	struct pipe_turns turns; // that have something to send
	uint32_t pipes;
	uint64_t next_id, peer_id; // of the next one here; the highest of the peer
	struct refusal refusals[WRK_MUX_REFUSALS];
	uint32_t n_refusals;
	uint64_t tokens_us; // of the peer's opens: a bucket, counted in time
	uint64_t tokens_at_us;
	bool ping_due, pong_due, failed;
	const char *error;
};

static uint64_t now_us(const struct wrk_mux *m)
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
static bool ring_put(struct ring *r, const uint8_t *buf, uint32_t len)
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

static void wake(struct wrk_mux *m)
{
	if (!m->failed)
		m->opt.ops->wake(m->opt.ctx);
}

// In line for a turn if it has something to send.
static void queue(struct wrk_pipe *p)
{
	struct wrk_mux *m = p->mux;
	if (!m || p->in_turn || !has_frames(p))
		return;
	p->in_turn = true;
	TAILQ_INSERT_TAIL(&m->turns, p, turn);
	wake(m);
}

// The rest of its turn comes first in the next record.
static void queue_first(struct wrk_pipe *p)
{
	p->in_turn = true;
	TAILQ_INSERT_HEAD(&p->mux->turns, p, turn);
}

static void tell(struct wrk_pipe *p)
{
	if (p->owned && p->ready)
		p->ready(p->ctx);
}

// ---- birth and death of pipes ----

static struct pipe_chain *chain_of(struct wrk_mux *m, uint64_t id)
{
	return &m->bucket[(id >> 1) % BUCKETS];
}

static struct wrk_pipe *find(struct wrk_mux *m, uint64_t id)
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
static struct wrk_pipe *pipe_new(struct wrk_mux *m, uint64_t id)
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
	p->mark_us = now_us(m);
	p->owned = true;
	LIST_INSERT_HEAD(chain_of(m, id), p, chain);
	m->pipes++;
	return p;
}

// Out of the mux, which may be on its way out itself.
static void unlink_pipe(struct wrk_pipe *p)
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

static void pipe_free(struct wrk_pipe *p)
{
	if (p->mux) {
		p->mux->opt.counters->closed[p->reason]++;
		unlink_pipe(p);
	}
	ring_done(&p->rx);
	ring_done(&p->tx);
	free(p->first_bytes);
	free(p);
}

// Nothing more will come or go, but what was received can be read.
static void pipe_closed(struct wrk_pipe *p, enum sp_reason reason)
{
	p->closed = true;
	p->reason = reason;
	ring_done(&p->tx);
	if (p->owned)
		tell(p);
	else
		pipe_free(p);
}

// Its owner let go and everything was said.
static bool is_over(const struct wrk_pipe *p)
{
	return !p->owned && (p->closed || (p->fin_sent && p->rx_fin));
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
	m->tokens_us = BURST_S * UINT64_C(1000000);
	TAILQ_INIT(&m->turns);
	*ret = m;
	return 0;
}

void wrk_mux_free(struct wrk_mux *m)
{
	if (!m)
		return;
	m->failed = true;
	for (size_t i = 0; i < BUCKETS; i++) {
		struct wrk_pipe *p;
		while ((p = LIST_FIRST(&m->bucket[i]))) {
			m->opt.counters->closed[p->closed ? p->reason
							  : SP_REASON_CARRIER_RESET]++;
			unlink_pipe(p);
			if (p->closed && p->owned)
				continue;
			pipe_closed(p, SP_REASON_CARRIER_RESET);
		}
	}
	free(m);
}

// ---- windows ----

// A whole window was read since the last look.
static void fit_window(struct wrk_pipe *p)
{
	struct wrk_mux *m = p->mux;
	uint64_t now = now_us(m);
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
	queue(p);
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
	p = copy ? pipe_new(m, m->next_id) : NULL;
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
	queue(p);
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
	if (!ring_put(&p->tx, buf, (uint32_t)len))
		return -ENOMEM;
	queue(p);
	return (ssize_t)len;
}

int wrk_pipe_end(struct wrk_pipe *p)
{
	if (p->closed)
		return -ECONNRESET;
	p->fin = true;
	queue(p);
	return 0;
}

void wrk_pipe_close(struct wrk_pipe *p, enum sp_reason reason)
{
	p->owned = false;
	p->ready = NULL;
	ring_done(&p->rx);
	if (!p->mux || is_over(p)) {
		pipe_free(p);
		return;
	}
	if (p->closed || (p->fin && p->rx_fin))
		return; // goes when the rest was sent
	p->reason = reason;
	p->close_due = true;
	ring_done(&p->tx);
	queue(p);
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
		tell(p);
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
		pipe_free(p);
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
	if (!is_over(p))
		return true;
	p->reason = SP_REASON_CLOSED;
	pipe_free(p);
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
			queue(p);
	}
	assert(!w.err);
	return sp_writer_len(&w);
}

void wrk_mux_ping(struct wrk_mux *m)
{
	m->ping_due = true;
	wake(m);
}

// ---- input ----

static int fail(struct wrk_mux *m, const char *error)
{
	m->error = error;
	m->failed = true;
	return SP_E_PROTOCOL;
}

// The peer's ids are those that this end does not give.
static bool is_peers(const struct wrk_mux *m, uint64_t id)
{
	return (id & 1) != (m->next_id & 1);
}

// Whether there has ever been such a pipe.
static bool was_known(const struct wrk_mux *m, uint64_t id)
{
	return id && (is_peers(m, id) ? id <= m->peer_id : id < m->next_id);
}

static bool take_token(struct wrk_mux *m)
{
	uint64_t now = now_us(m), cost = 1000000 / m->opt.opens_per_second;
	m->tokens_us += now - m->tokens_at_us;
	m->tokens_at_us = now;
	if (m->tokens_us > BURST_S * UINT64_C(1000000))
		m->tokens_us = BURST_S * UINT64_C(1000000);
	if (m->tokens_us < cost)
		return false;
	m->tokens_us -= cost;
	return true;
}

static int refuse(struct wrk_mux *m, uint64_t id, enum sp_reason reason)
{
	m->opt.counters->refused[reason]++;
	if (m->n_refusals == WRK_MUX_REFUSALS)
		return fail(m, "opens more than it lets itself be refused");
	m->refusals[m->n_refusals++] = (struct refusal){id, reason};
	wake(m);
	return 0;
}

// What an opened pipe begins with. False: no memory.
static bool take_first(struct wrk_pipe *p, const uint8_t *first, size_t len)
{
	p->received = len;
	p->granted = WRK_MUX_FIRST_MAX;
	p->mux->opt.counters->bytes_rx += len;
	return ring_put(&p->rx, first, (uint32_t)len);
}

static int on_open(struct wrk_mux *m, uint64_t id, struct sp_reader *r)
{
	struct wrk_mux_source source;
	uint64_t credit = sp_get_varint(r);
	uint8_t hops = sp_get_u8(r);
	source.family = sp_get_u8(r);
	sp_get_copy(r, source.net, sizeof(source.net));
	uint64_t len = sp_get_varint(r);
	if (r->err || len > WRK_MUX_FIRST_MAX || !len)
		return fail(m, "a carrier that does not parse");
	const uint8_t *first = sp_get_bytes(r, (size_t)len);
	if (r->err)
		return fail(m, "a carrier that does not parse");
	if (!is_peers(m, id) || id <= m->peer_id)
		return fail(m, "a carrier's id that does not rise");
	m->peer_id = id;
	if (!take_token(m))
		return refuse(m, id, SP_REASON_RATE_LIMIT);
	if (hops != WRK_MUX_HOPS)
		return refuse(m, id, SP_REASON_UNREACHABLE);
	struct wrk_pipe *p = m->pipes < m->opt.max_pipes ? pipe_new(m, id) : NULL;
	if (!p)
		return refuse(m, id, SP_REASON_PRESSURE);
	p->credit = credit;
	enum sp_reason why = take_first(p, first, (size_t)len)
				     ? m->opt.ops->opened(m->opt.ctx, p, &source)
				     : SP_REASON_NO_MEMORY;
	if (why != SP_REASON_NONE) {
		unlink_pipe(p);
		pipe_free(p);
		return refuse(m, id, why);
	}
	m->opt.counters->accepted++;
	p->credit_due = true;
	queue(p);
	return 0;
}

static int on_data(struct wrk_mux *m, uint64_t id, struct sp_reader *r)
{
	uint64_t len = sp_get_varint(r);
	const uint8_t *data = sp_get_bytes(r, (size_t)len);
	struct wrk_pipe *p = find(m, id);
	if (r->err)
		return fail(m, "data that does not parse");
	if (!p || p->closed)
		return 0; // it was closed meanwhile
	if (p->rx_fin)
		return fail(m, "data behind the end");
	if (len > p->granted - p->received)
		return fail(m, "more data than it has credit for");
	p->received += len;
	m->opt.counters->bytes_rx += len;
	if (!len || !p->owned)
		return 0;
	if (!ring_put(&p->rx, data, (uint32_t)len))
		return fail(m, "no memory");
	tell(p);
	return 0;
}

static int on_credit(struct wrk_mux *m, uint64_t id, struct sp_reader *r)
{
	uint64_t credit = sp_get_varint(r);
	struct wrk_pipe *p = find(m, id);
	if (r->err)
		return fail(m, "credit that does not parse");
	if (!p || p->closed)
		return 0;
	if (credit < p->credit)
		return fail(m, "credit that falls");
	p->credit = credit;
	queue(p);
	return 0;
}

static int on_fin(struct wrk_mux *m, uint64_t id)
{
	struct wrk_pipe *p = find(m, id);
	if (!p || p->closed)
		return 0;
	if (p->rx_fin)
		return fail(m, "an end behind the end");
	p->rx_fin = true;
	if (!is_over(p)) {
		tell(p);
	} else {
		p->reason = SP_REASON_CLOSED;
		pipe_free(p);
	}
	return 0;
}

static int on_close(struct wrk_mux *m, uint64_t id, struct sp_reader *r)
{
	enum sp_reason reason = sp_reason_from_wire(sp_get_u16(r));
	struct wrk_pipe *p = find(m, id);
	if (r->err)
		return fail(m, "a close that does not parse");
	if (!p || p->closed)
		return 0;
	pipe_closed(p, reason == SP_REASON_NONE ? SP_REASON_CLOSED : reason);
	return 0;
}

static int on_pipe_frame(struct wrk_mux *m, uint8_t type, struct sp_reader *r)
{
	uint64_t id = sp_get_varint(r);
	if (r->err)
		return fail(m, "a frame that does not parse");
	if (type == FRAME_RELAY_OPEN)
		return on_open(m, id, r);
	if (!was_known(m, id))
		return fail(m, "an id that was never opened");
	if (type == FRAME_RELAY_DATA)
		return on_data(m, id, r);
	if (type == FRAME_RELAY_CREDIT)
		return on_credit(m, id, r);
	if (type == FRAME_RELAY_FIN)
		return on_fin(m, id);
	return on_close(m, id, r);
}

int wrk_mux_input(struct wrk_mux *m, const uint8_t *plain, size_t len, bool *ret_rekey)
{
	struct sp_reader r;
	int err = 0;
	sp_reader_init(&r, plain, len);
	*ret_rekey = false;
	if (m->failed)
		return SP_E_PROTOCOL;
	while (!err && sp_reader_left(&r)) {
		uint8_t type = sp_get_u8(&r);
		if (type == FRAME_PING) {
			m->pong_due = true;
			wake(m);
		} else if (type == FRAME_CLOSE) {
			m->failed = true;
			return SP_E_CLOSED;
		} else if (type == FRAME_REKEY) {
			if (sp_reader_left(&r))
				return fail(m, "a frame behind a change of keys");
			*ret_rekey = true;
		} else if (type >= FRAME_RELAY_OPEN && type <= FRAME_RELAY_CLOSE) {
			err = on_pipe_frame(m, type, &r);
		} else if (type != FRAME_PAD && type != FRAME_PONG) {
			err = fail(m, "an unknown frame");
		}
	}
	return err;
}

const char *wrk_mux_error(const struct wrk_mux *m)
{
	return m->error;
}

uint32_t wrk_mux_pipes(const struct wrk_mux *m)
{
	return m->pipes;
}
