// What the simulation of session engines runs on: pairs of sessions whose programs read,
// write, block, reset and open streams from inside callbacks as real ones do, and
// carriers that lose, hold back, cut and double what they carry. Programs are strict: a
// source that found no room reads again only when it is told, a sink is asked again only
// if it blocked. The schedule and what must hold are in test_session_sim.c.
#ifndef TESTS_UNIT_SIM_H
#define TESTS_UNIT_SIM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/arena.h"
#include "lib/frame.h"
#include "lib/session.h"

#define MAX_PAIRS    3
#define MAX_STREAMS  24
#define MAX_CARRIERS 12
#define MAX_FLOWS    6
#define PIPE_BYTES   (1 << 18)

static uint64_t rng_state;
static bool tracing; // SIM_TRACE is set

static uint32_t rnd(uint32_t n)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return n ? (uint32_t)((rng_state * UINT64_C(2685821657736338717)) >> 33) % n : 0;
}

static bool chance(uint32_t percent)
{
	return rnd(100) < percent;
}

static uint8_t pattern(uint64_t id, int side, uint64_t offset)
{
	return (uint8_t)((offset * 167 + id * 31 + (uint64_t)side * 101) ^ (offset >> 8));
}

// One end of one stream as its program sees it.
struct end {
	struct sp_stream *st;
	uint64_t to_send, sent; // source
	bool fin_sent;
	bool blocked; // the source found no room and waits to be told
	uint64_t got; // sink
	bool sink_blocked;
	bool got_fin;
	bool closed;
	enum sp_reason reason;
	bool open;
	uint64_t dial_at; // worker: answers the dial then
};

struct pipe {
	uint8_t *buf;
	size_t r, w; // bytes read and written
};

struct carrier {
	bool used, frozen, cut;
	bool open[2]; // the end still holds it; 0 client, 1 worker
	bool attached;
	bool wake[2];
	unsigned slot;
	struct pipe pipe[2]; // [0]: client to worker
	uint8_t hello[256];
	size_t hello_len;
	uint64_t ready_at; // handshake done
};

struct sim;
struct pair;

struct side { // ctx of a session's ops
	struct pair *p;
	int side;
};

struct pair { // a client's session and what its home has of it
	struct sim *m;
	struct side sides[2];
	struct sp_session *s[2];
	struct sp_session_limits limits[2];
	struct carrier c[MAX_CARRIERS];
	struct end e[2][MAX_STREAMS + 1]; // by stream id
	struct sp_flow *flow[2][MAX_FLOWS];
	int n_streams, opened;
	bool lossy_home, home_lost;
	bool hog; // no sink of it takes anything until the other pairs are done
	bool dial_wanted;
	uint32_t sink_block; // percent
	uint32_t resets;     // percent of a percent, of callbacks that reset their stream
	uint64_t resets_asked;
	uint64_t dgrams[2]; // arrived since the trouble ended
	uint32_t pass_sent, pass_got;
	bool goaway_sent, goaway_got;
	bool end_sent, ended; // END
	uint64_t refused;
};

struct sim {
	uint64_t now;
	struct sp_arena *arena[2];
	struct pair p[MAX_PAIRS];
	int n_pairs;
	bool calm; // no more trouble
	uint64_t reattaches, spares;
};

// ---- programs ----

static struct end *end_of(struct side *sd, struct sp_stream *st)
{
	uint64_t id = sp_stream_id(st);
	assert_true(id >= 1 && id <= MAX_STREAMS);
	return &sd->p->e[sd->side][id];
}

static void end_reset(struct side *sd, struct end *e)
{
	struct sp_stream *st = e->st;
	e->closed = true;
	e->reason = SP_REASON_APP_RESET;
	e->st = NULL;
	sd->p->resets_asked++;
	sp_stream_reset(st, SP_REASON_APP_RESET);
}

// A program that gives up in the middle of a callback.
static bool gives_up(struct side *sd, struct end *e)
{
	if (sd->p->m->calm || rnd(10000) >= sd->p->resets)
		return false;
	end_reset(sd, e);
	return true;
}

static void pump_source(struct side *sd, struct end *e)
{
	struct iovec iov[16];
	while (e->st && !e->closed && !e->blocked && e->sent < e->to_send) {
		size_t want = 1 + rnd(9000);
		if (want > e->to_send - e->sent)
			want = (size_t)(e->to_send - e->sent);
		int n = sp_stream_reserve(e->st, want, iov, 1 + (int)rnd(16));
		if (n == 0) {
			e->blocked = true;
			return;
		}
		size_t len = 0;
		for (int i = 0; i < n; i++) {
			uint8_t *p = iov[i].iov_base;
			for (size_t k = 0; k < iov[i].iov_len; k++, len++)
				p[k] = pattern(sp_stream_id(e->st), sd->side,
					       e->sent + len);
		}
		if (len && chance(20))
			len = rnd((uint32_t)len + 1); // a short read
		sp_stream_commit(e->st, len);
		e->sent += len;
		if (len == 0 || chance(10))
			return;
	}
	if (e->st && !e->closed && e->sent == e->to_send && !e->fin_sent) {
		e->fin_sent = true;
		sp_stream_source_fin(e->st);
	}
}

static void open_stream(struct pair *p)
{
	struct sp_target t = {.kind = SP_TARGET_NAME, .port = 80};
	strcpy(t.name, "destination.example");
	struct end *e = &p->e[0][p->opened + 1];
	if (p->opened == p->n_streams || !p->s[0] ||
	    sp_session_open(p->s[0], &t, NULL, &e->st))
		return;
	p->opened++;
	assert_int_equal(sp_stream_id(e->st), p->opened);
}

static void on_open(void *ctx, struct sp_stream *st, const struct sp_target *target)
{
	struct side *sd = ctx;
	struct end *e = end_of(sd, st);
	assert_int_equal(target->port, 80);
	assert_null(e->st);
	if (e->closed) { // a new home gets an OPEN that was long on its way
		assert_true(sd->p->lossy_home);
		*e = (struct end){.to_send = e->to_send};
	}
	e->st = st;
	e->dial_at = sd->p->m->now + rnd(30000);
	(void)gives_up(sd, e);
}

static void on_opened(void *ctx, struct sp_stream *st, const struct sp_target *bound)
{
	struct side *sd = ctx;
	struct end *e = end_of(sd, st);
	(void)bound;
	assert_false(e->open);
	e->open = true;
	(void)gives_up(sd, e);
}

static size_t on_sink(void *ctx, struct sp_stream *st, const uint8_t *buf, size_t len)
{
	struct side *sd = ctx;
	struct end *e = end_of(sd, st);
	assert_false(e->closed);
	assert_false(e->got_fin);
	assert_true(e->open || sd->side == 1); // no byte before OPENED
	size_t all = len;
	if (sd->p->hog || !e->open)
		len = 0;
	else if (chance(sd->p->sink_block))
		len = chance(50) ? 0 : rnd((uint32_t)len + 1);
	e->sink_blocked = len < all;
	for (size_t i = 0; i < len; i++)
		if (buf[i] != pattern(sp_stream_id(st), !sd->side, e->got + i))
			fail_msg("stream %d: wrong byte at %llu", (int)sp_stream_id(st),
				 (unsigned long long)(e->got + i));
	e->got += len;
	(void)gives_up(sd, e);
	return len;
}

static void on_sink_fin(void *ctx, struct sp_stream *st)
{
	struct side *sd = ctx;
	struct end *e = end_of(sd, st);
	assert_false(e->got_fin);
	e->got_fin = true;
	(void)gives_up(sd, e);
}

static void on_source_ready(void *ctx, struct sp_stream *st)
{
	struct side *sd = ctx;
	struct end *e = end_of(sd, st);
	assert_true(e->blocked);
	e->blocked = false;
	if (!gives_up(sd, e) && chance(50))
		pump_source(sd, e);
}

static void on_closed(void *ctx, struct sp_stream *st, enum sp_reason reason)
{
	struct side *sd = ctx;
	struct end *e = end_of(sd, st);
	assert_false(e->closed);
	if (chance(20)) // too late, and harmless
		sp_stream_reset(st, SP_REASON_APP_RESET);
	e->closed = true;
	e->reason = reason;
	e->st = NULL;
	if (sd->side == 0 && chance(20))
		open_stream(sd->p);
}

// ---- datagrams ----

static void send_dgram(struct sp_flow *fl)
{
	static uint8_t d[SP_DATAGRAM_MAX];
	size_t len = chance(5) ? 4000 + rnd(sizeof(d) - 4000) : rnd(200);
	for (size_t k = 0; k < len; k++)
		d[k] = (uint8_t)(len + k);
	int err = sp_flow_send(fl, d, len);
	assert_true(err == 0 || err == SP_E_LIMIT);
}

static void open_flow(struct pair *p)
{
	struct sp_target t = {.kind = SP_TARGET_IPV4, .port = chance(50) ? 53 : 5000};
	int i = (int)rnd(MAX_FLOWS);
	struct sp_flow *fl;
	if (p->flow[0][i] || !p->s[0] || sp_session_open_flow(p->s[0], &t, NULL, &fl))
		return;
	p->flow[0][i] = fl;
}

static void on_flow_open(void *ctx, struct sp_flow *fl, const struct sp_target *target)
{
	struct side *sd = ctx;
	assert_true(target->port == 53 || target->port == 5000);
	for (int i = 0; i < MAX_FLOWS; i++)
		if (!sd->p->flow[sd->side][i]) {
			sd->p->flow[sd->side][i] = fl;
			return;
		}
	sp_flow_close(fl, SP_REASON_NO_DESCRIPTORS);
}

static void flow_forget(struct side *sd, const struct sp_flow *fl)
{
	for (int i = 0; i < MAX_FLOWS; i++)
		if (sd->p->flow[sd->side][i] == fl)
			sd->p->flow[sd->side][i] = NULL;
}

static void on_flow_data(void *ctx, struct sp_flow *fl, const uint8_t *buf, size_t len)
{
	struct side *sd = ctx;
	assert_true(len <= SP_DATAGRAM_MAX);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(buf[i], (uint8_t)(len + i));
	sd->p->dgrams[sd->side] += sd->p->m->calm;
	if (sd->side == 1 && chance(50))
		send_dgram(fl); // the answer
	if (!sd->p->m->calm && chance(2)) {
		flow_forget(sd, fl);
		sp_flow_close(fl, SP_REASON_CANCELLED);
	}
}

static void on_flow_closed(void *ctx, struct sp_flow *fl, enum sp_reason reason)
{
	struct side *sd = ctx;
	(void)reason;
	flow_forget(sd, fl);
	if (chance(20)) // too late, and harmless
		sp_flow_close(fl, SP_REASON_CANCELLED);
	if (sd->side == 0 && chance(20))
		open_flow(sd->p);
}

// ---- the session's own calls ----

static void on_attached(void *ctx, unsigned slot, bool fresh)
{
	struct side *sd = ctx;
	(void)slot;
	if (fresh)
		sd->p->home_lost = true;
}

static void on_ticket(void *ctx, unsigned slot, unsigned index, uint32_t lifetime_s,
		      const uint8_t *ticket, size_t len)
{
	(void)ctx;
	(void)slot;
	assert_true(index < 2);
	assert_int_equal(lifetime_s, 60);
	assert_int_equal(len, 300);
	assert_int_equal(ticket[299], 't');
}

static void on_stalled(void *ctx, unsigned slot)
{
	(void)slot;
	((struct side *)ctx)->p->dial_wanted = true;
}

static void on_goaway(void *ctx, enum sp_reason reason, uint64_t deadline_ms)
{
	struct pair *p = ((struct side *)ctx)->p;
	assert_true(p->goaway_sent);
	assert_int_equal(reason, SP_REASON_DRAINING);
	assert_int_equal(deadline_ms, 30000);
	p->goaway_got = true;
}

static void on_ended(void *ctx, enum sp_reason reason)
{
	struct pair *p = ((struct side *)ctx)->p;
	assert_true(p->end_sent);
	assert_int_equal(reason, SP_REASON_REVOKED);
	p->ended = true;
}

static void on_pass(void *ctx, const uint8_t *blob, size_t len)
{
	struct pair *p = ((struct side *)ctx)->p;
	uint32_t n;
	assert_true(len >= sizeof(n));
	memcpy(&n, blob, sizeof(n));
	assert_true(n <= p->pass_sent);
	if (n > p->pass_got)
		p->pass_got = n;
}

static const struct sp_session_ops ops = {
	.stream_open = on_open,
	.stream_opened = on_opened,
	.stream_sink = on_sink,
	.stream_sink_fin = on_sink_fin,
	.stream_source_ready = on_source_ready,
	.stream_closed = on_closed,
	.flow_open = on_flow_open,
	.flow_data = on_flow_data,
	.flow_closed = on_flow_closed,
	.attached = on_attached,
	.ticket = on_ticket,
	.stalled = on_stalled,
	.goaway = on_goaway,
	.ended = on_ended,
	.pass = on_pass,
};

// ---- carriers ----

static void wake_client(void *link)
{
	((struct carrier *)link)->wake[0] = true;
}

static void wake_worker(void *link)
{
	((struct carrier *)link)->wake[1] = true;
}

static void close_client(void *link, enum sp_reason reason)
{
	(void)reason;
	((struct carrier *)link)->open[0] = false;
}

static void close_worker(void *link, enum sp_reason reason)
{
	(void)reason;
	((struct carrier *)link)->open[1] = false;
}

static const struct sp_slot_ops slot_ops[2] = {
	{.wake = wake_client, .close = close_client},
	{.wake = wake_worker, .close = close_worker},
};

static void new_session(struct pair *p, int side)
{
	struct sp_session_options o = {
		.role = side ? SP_ROLE_WORKER : SP_ROLE_CLIENT,
		.arena = p->m->arena[side],
		.limits = p->limits[side],
		.ops = &ops,
		.ctx = &p->sides[side],
		.clock_us = &p->m->now,
	};
	memset(o.id, 7, sizeof(o.id));
	assert_int_equal(sp_session_new(&o, p->m->now, &p->s[side]), 0);
}

static void carrier_close(struct pair *p, struct carrier *c, int side)
{
	if (!c->open[side])
		return;
	c->open[side] = false;
	if (p->s[side])
		sp_session_detach(p->s[side], c->slot, c, p->m->now);
}

// Both ends hear of it, the worker perhaps never on its own.
static void carrier_cut(struct pair *p, struct carrier *c)
{
	c->cut = true;
	// Bytes on the way up to the place of the cut still arrive.
	for (int d = 0; d < 2; d++) {
		size_t left = c->pipe[d].w - c->pipe[d].r;
		c->pipe[d].w = c->pipe[d].r + rnd((uint32_t)left + 1);
	}
	if (chance(70))
		carrier_close(p, c, 0);
	if (chance(50))
		carrier_close(p, c, 1);
}

static struct carrier *carrier_new(struct pair *p)
{
	struct carrier *c = p->c;
	while (c < p->c + MAX_CARRIERS && c->used && (c->open[0] || c->open[1]))
		c++;
	if (c == p->c + MAX_CARRIERS) {
		c = &p->c[rnd(MAX_CARRIERS)];
		carrier_close(p, c, 0);
		carrier_close(p, c, 1);
	}
	struct carrier old = *c;
	*c = (struct carrier){.used = true, .open = {true, true}};
	for (int d = 0; d < 2; d++) {
		c->pipe[d].buf = old.used ? old.pipe[d].buf : malloc(PIPE_BYTES);
		assert_non_null(c->pipe[d].buf);
	}
	return c;
}

static void dial(struct pair *p, bool spare)
{
	unsigned slot = sp_session_free_slot(p->s[0]);
	if (slot == SP_SLOTS || chance(30))
		slot = rnd(SP_SLOTS);
	struct carrier *c = carrier_new(p);
	uint64_t now = p->m->now;
	c->slot = slot;
	c->ready_at = now + rnd(40000);
	if (spare) {
		sp_session_attach_spare(p->s[0], slot, &slot_ops[0], c, now);
		p->m->spares++;
	} else {
		sp_session_attach_client(p->s[0], slot, &slot_ops[0], c, now);
	}
	if (chance(50))
		c->hello_len = sp_session_hello(p->s[0], slot, c->hello,
						64 + rnd(sizeof(c->hello) - 64), now);
	p->dial_wanted &= spare;
}

// Goes on with a carrier that lives instead, if there is one.
static bool reattach(struct pair *p)
{
	unsigned first = rnd(MAX_CARRIERS);
	for (unsigned i = 0; i < MAX_CARRIERS; i++) {
		struct carrier *c = &p->c[(first + i) % MAX_CARRIERS];
		if (!c->used || !c->open[0] ||
		    sp_session_reattach(p->s[0], c->slot, p->m->now))
			continue;
		p->m->reattaches++;
		p->dial_wanted = false;
		return true;
	}
	return false;
}

static void pipe_put(struct pipe *p, const uint8_t *buf, size_t len)
{
	memmove(p->buf, p->buf + p->r, p->w - p->r);
	p->w -= p->r;
	p->r = 0;
	assert_true(p->w + len <= PIPE_BYTES);
	memcpy(p->buf + p->w, buf, len);
	p->w += len;
}

static bool repeatable(enum sp_frame_type t)
{
	return t == SP_FRAME_DATA || t == SP_FRAME_DATA_FIN || t == SP_FRAME_WINDOW ||
	       t == SP_FRAME_OPEN || t == SP_FRAME_OPENED || t == SP_FRAME_RESET ||
	       t == SP_FRAME_FLOW || t == SP_FRAME_FLOW_CLOSE || t == SP_FRAME_SEEN;
}

// Writes one frame of `plain` twice now and then: all that may be repeated is idempotent.
static size_t double_frames(const uint8_t *plain, size_t len, uint8_t *out, size_t cap)
{
	struct sp_reader r;
	size_t n = 0;
	sp_reader_init(&r, plain, len);
	while (sp_reader_left(&r)) {
		struct sp_frame f;
		const uint8_t *start = r.p;
		assert_int_equal(sp_frame_get(&r, &f), 0);
		size_t fl = (size_t)(r.p - start);
		for (int k = repeatable(f.type) && chance(10) ? 2 : 1;
		     k > 0 && n + fl <= cap; k--) {
			memcpy(out + n, start, fl);
			n += fl;
		}
	}
	return n;
}

static void produce(struct pair *p, struct carrier *c, int side)
{
	static struct sp_gather g;
	static uint8_t flat[65536], doubled[60000];
	if (!c->open[side] || !p->s[side])
		return;
	c->wake[side] = false;
	for (int i = 0; i < 4 && c->pipe[side].w - c->pipe[side].r < 100000; i++) {
		size_t max = chance(50) ? SP_RECORD_PLAIN_MAX : 512 + rnd(8000);
		size_t n = sp_session_output(p->s[side], c->slot, max, &g, p->m->now);
		if (n == 0)
			return;
		assert_true(n <= max);
		size_t at = 0;
		for (int k = 0; k < g.n; k++) {
			memcpy(flat + at, g.iov[k].iov_base, g.iov[k].iov_len);
			at += g.iov[k].iov_len;
		}
		assert_int_equal(at, n);
		size_t len = double_frames(flat, n, doubled + 2, sizeof(doubled) - 2);
		doubled[0] = (uint8_t)(len >> 8);
		doubled[1] = (uint8_t)len;
		if (!c->cut) // else it goes nowhere, as into a dead path
			pipe_put(&c->pipe[side], doubled, len + 2);
	}
	c->wake[side] = true;
}

static int worker_first(struct pair *p, struct carrier *c, const uint8_t *rec, size_t len,
			bool hello)
{
	static const uint8_t ticket[300] = {[299] = 't'};
	struct sp_attach at;
	bool rekey;
	enum sp_reason why;
	uint64_t now = p->m->now;
	int n = sp_attach_parse(rec, len, &at);
	assert_true(n > 0);
	assert_int_equal(at.slot, c->slot);
	bool fresh = !p->s[1];
	if (fresh)
		new_session(p, 1);
	int err = sp_session_attach_worker(p->s[1], &at, fresh, &slot_ops[1], c, now);
	if (err)
		return err;
	c->attached = true;
	for (int i = 0; i < 2; i++)
		assert_int_equal(sp_session_add_ticket(p->s[1], c->slot, 60, ticket,
						       sizeof(ticket)),
				 0);
	rec += n;
	len -= (size_t)n;
	if (hello)
		return sp_session_input_hello(p->s[1], c->slot, rec, len, now);
	return sp_session_input(p->s[1], c->slot, rec, len, now, &rekey, &why);
}

// What a record says, for whoever looks into a failure.
static void print_record(const uint8_t *rec, size_t len)
{
	struct sp_reader r;
	sp_reader_init(&r, rec, len);
	for (struct sp_frame f = {0}; sp_reader_left(&r) && !sp_frame_get(&r, &f);
	     f = (struct sp_frame){0})
		print_message("frame %02x id %d offset %d len %d taken %d credit %d\n",
			      (unsigned)f.type, (int)f.id, (int)f.offset, (int)f.len,
			      (int)f.taken, (int)f.credit);
}

static void deliver_record(struct pair *p, struct carrier *c, int to, const uint8_t *rec,
			   size_t len)
{
	if (tracing) {
		print_message("%d us: record to side %d on slot %u of carrier %d\n",
			      (int)p->m->now, to, c->slot, (int)(c - p->c));
		print_record(rec, len);
	}
	enum sp_reason why = SP_REASON_NONE;
	bool rekey;
	int err;
	if (to == 1 && !c->attached)
		err = worker_first(p, c, rec, len, false);
	else
		err = sp_session_input(p->s[to], c->slot, rec, len, p->m->now, &rekey,
				       &why);
	// Neither end says what the other may not hear, and what was granted is there.
	if (err && err != SP_E_CLOSED && err != SP_E_STALE) {
		print_record(rec, len);
		fail_msg("side %d: error %d, reason %d", to, err, why);
	}
	if (err)
		carrier_close(p, c, to);
}

// Delivers some bytes of one direction; whole records reach the engine.
static void deliver(struct pair *p, struct carrier *c, int from)
{
	int to = !from;
	struct pipe *q = &c->pipe[from];
	if (c->frozen || !c->open[to] || !p->s[0] || p->m->now < c->ready_at)
		return;
	if (from == 0 && c->hello_len && !c->attached) {
		if (worker_first(p, c, c->hello, c->hello_len, true)) {
			c->open[1] = false;
			return;
		}
	}
	size_t avail = q->w - q->r;
	size_t upto = q->r + (chance(60) ? avail : rnd((uint32_t)avail + 1));
	while (upto - q->r >= 2 && c->open[to]) {
		size_t len = (size_t)q->buf[q->r] << 8 | q->buf[q->r + 1];
		if (upto - q->r < 2 + len)
			break;
		const uint8_t *rec = q->buf + q->r + 2;
		q->r += 2 + len;
		deliver_record(p, c, to, rec, len);
	}
	// The end of the pipe: cut, or closed by the other side with all bytes delivered.
	if ((c->cut || !c->open[from]) && c->open[to] &&
	    (chance(20) || (q->w - q->r < 2 && chance(50))))
		carrier_close(p, c, to);
}

#endif
