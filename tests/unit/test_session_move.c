// One client's session and three homes, in virtual time with fixed seeds: the client goes
// from home to home and back, at random, with carriers to several of them at once, while
// the homes it left live on and still hold the session; some take it over with its flows,
// some make it anew, some refuse. What must hold: what an application reads or writes on
// one stream comes from and goes to one home only, in order and without a gap; a stream
// that a home has spoken of ends when the session goes elsewhere; flows go on.
//
// MOVE_SEEDS=n runs n schedules, MOVE_SEED=x only that one.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/arena.h"
#include "lib/session.h"

#define HOMES    3
#define STREAMS  6
#define CARRIERS 10
#define RECORDS  400
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SEEDS 1500
#else
#define SEEDS 20000
#endif

static uint64_t rng;

static uint32_t rnd(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)((rng * UINT64_C(2685821657736338717)) >> 33) % n;
}

static bool chance(uint32_t percent)
{
	return rnd(100) < percent;
}

struct record {
	size_t len;
	uint8_t *bytes;
};

struct carrier {
	bool used, cut, attached;
	bool open[2]; // 0: the client still holds it; 1: the home does
	unsigned home, slot;
	struct record q[2][RECORDS]; // [0]: to the home
	unsigned r[2], w[2];
};

struct dest { // what one home's destination of one stream saw
	struct sp_stream *st;
	uint64_t got, sent, to_send;
};

struct app {
	struct sp_stream *st;
	uint64_t got, sent, to_send;
	int home; // that answered: known from its bytes; -1
	bool closed;
	enum sp_reason reason;
};

struct home {
	struct world *w;
	int index;
	struct sp_session *s;
	struct sp_arena *arena;
	struct dest d[STREAMS + 1];
	bool whole[STREAMS + 1];    // a destination got all there was
	uint64_t down[STREAMS + 1]; // and had so much to say
	struct sp_flow *flow;
	unsigned dgrams;
};

struct world {
	uint64_t now;
	struct sp_arena *arena;
	struct sp_session *s;
	struct home home[HOMES];
	uint64_t reattaches;
	struct carrier c[CARRIERS];
	struct app a[STREAMS + 1];
	struct sp_flow *flow;
	int opened;
	bool calm;
	int at; // home of the newest ATTACHED
	unsigned moves, adopted, fresh;
	bool flow_is_restored; // the record's flow table is known
};

static struct world w;

static uint8_t pattern(int who, uint64_t id, uint64_t offset)
{
	// The upper two bits say who wrote it: a home, or 3: the client.
	return (uint8_t)((who << 6) | ((offset * 37 + id * 11 + (offset >> 6)) & 0x3f));
}

static void pump(struct sp_stream *st, int who, uint64_t *sent, uint64_t to_send)
{
	struct iovec iov[4];
	while (*sent < to_send) {
		size_t want = 1 + rnd(3000), len = 0;
		if (want > to_send - *sent)
			want = (size_t)(to_send - *sent);
		int n = sp_stream_reserve(st, want, iov, 4);
		if (n == 0)
			return;
		for (int i = 0; i < n; i++)
			for (size_t k = 0; k < iov[i].iov_len; k++, len++)
				((uint8_t *)iov[i].iov_base)[k] =
					pattern(who, sp_stream_id(st), *sent + len);
		sp_stream_commit(st, len);
		*sent += len;
	}
	sp_stream_source_fin(st);
}

// ---- the homes' programs ----

static void h_open(void *ctx, struct sp_stream *st, const struct sp_target *target)
{
	struct home *h = ctx;
	struct sp_target bound = {.kind = SP_TARGET_IPV4, .port = 9};
	struct dest *d = &h->d[sp_stream_id(st)];
	(void)target;
	*d = (struct dest){.st = st, .to_send = rnd(9000)};
	sp_stream_opened(st, &bound);
}

static size_t h_sink(void *ctx, struct sp_stream *st, const uint8_t *buf, size_t len)
{
	struct home *h = ctx;
	struct dest *d = &h->d[sp_stream_id(st)];
	assert_ptr_equal(d->st, st);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(buf[i], pattern(3, sp_stream_id(st), d->got + i));
	d->got += len;
	return len;
}

static void h_fin(void *ctx, struct sp_stream *st)
{
	struct home *h = ctx;
	uint64_t id = sp_stream_id(st);
	h->whole[id] = h->d[id].got == w.a[id].to_send;
	h->down[id] = h->d[id].to_send;
}

static void h_ready(void *ctx, struct sp_stream *st)
{
	(void)ctx;
	(void)st;
}

static void h_closed(void *ctx, struct sp_stream *st, enum sp_reason reason)
{
	(void)reason;
	((struct home *)ctx)->d[sp_stream_id(st)].st = NULL;
}

static void h_flow_open(void *ctx, struct sp_flow *fl, const struct sp_target *target)
{
	struct home *h = ctx;
	assert_int_equal(target->port, 53);
	assert_null(h->flow);
	h->flow = fl;
}

static void h_flow_data(void *ctx, struct sp_flow *fl, const uint8_t *buf, size_t len)
{
	struct home *h = ctx;
	assert_ptr_equal(h->flow, fl);
	assert_int_equal(len, 4);
	h->dgrams++;
	assert_int_equal(sp_flow_send(fl, buf, len), 0);
}

static void h_flow_closed(void *ctx, struct sp_flow *fl, enum sp_reason reason)
{
	(void)fl;
	(void)reason;
	((struct home *)ctx)->flow = NULL;
}

static const struct sp_session_ops home_ops = {
	.stream_open = h_open,
	.stream_sink = h_sink,
	.stream_sink_fin = h_fin,
	.stream_source_ready = h_ready,
	.stream_closed = h_closed,
	.flow_open = h_flow_open,
	.flow_data = h_flow_data,
	.flow_closed = h_flow_closed,
};

// ---- the client's program ----

static void c_opened(void *ctx, struct sp_stream *st, const struct sp_target *bound)
{
	(void)ctx;
	(void)st;
	(void)bound;
}

static size_t c_sink(void *ctx, struct sp_stream *st, const uint8_t *buf, size_t len)
{
	struct app *a = &w.a[sp_stream_id(st)];
	(void)ctx;
	for (size_t i = 0; i < len; i++) {
		if (a->home < 0)
			a->home = buf[i] >> 6;
		assert_int_equal(buf[i], pattern(a->home, sp_stream_id(st), a->got + i));
	}
	a->got += len;
	return len;
}

static void c_nothing(void *ctx, struct sp_stream *st)
{
	(void)ctx;
	(void)st;
}

static void c_closed(void *ctx, struct sp_stream *st, enum sp_reason reason)
{
	struct app *a = &w.a[sp_stream_id(st)];
	(void)ctx;
	a->closed = true;
	a->reason = reason;
	a->st = NULL;
}

static void c_flow_data(void *ctx, struct sp_flow *fl, const uint8_t *buf, size_t len)
{
	(void)ctx;
	(void)buf;
	assert_ptr_equal(fl, w.flow);
	assert_int_equal(len, 4);
}

static void c_flow_closed(void *ctx, struct sp_flow *fl, enum sp_reason reason)
{
	(void)ctx;
	(void)fl;
	assert_int_equal(reason, SP_REASON_SHUTDOWN);
}

static void c_attached(void *ctx, unsigned slot, bool fresh)
{
	(void)ctx;
	for (int i = 0; i < CARRIERS; i++)
		if (w.c[i].open[0] && w.c[i].attached && w.c[i].slot == slot)
			w.at = (int)w.c[i].home;
	w.moves += fresh;
	w.adopted += fresh && sp_session_is_adopted(w.s, slot);
	w.fresh += fresh && !sp_session_is_adopted(w.s, slot);
}

static void c_ticket(void *ctx, unsigned slot, unsigned index, uint32_t lifetime_s,
		     const uint8_t *ticket, size_t len)
{
	(void)ctx;
	(void)slot;
	(void)index;
	(void)lifetime_s;
	(void)ticket;
	(void)len;
}

static void c_stalled(void *ctx, unsigned slot)
{
	(void)ctx;
	(void)slot;
}

static const struct sp_session_ops client_ops = {
	.stream_opened = c_opened,
	.stream_sink = c_sink,
	.stream_sink_fin = c_nothing,
	.stream_source_ready = c_nothing,
	.stream_closed = c_closed,
	.flow_data = c_flow_data,
	.flow_closed = c_flow_closed,
	.attached = c_attached,
	.ticket = c_ticket,
	.stalled = c_stalled,
};

// ---- carriers ----

static void wake(void *link)
{
	(void)link;
}

static void close_client(void *link, enum sp_reason reason)
{
	(void)reason;
	((struct carrier *)link)->open[0] = false;
}

static void close_home(void *link, enum sp_reason reason)
{
	(void)reason;
	((struct carrier *)link)->open[1] = false;
}

static const struct sp_slot_ops slot_ops[2] = {{.wake = wake, .close = close_client},
					       {.wake = wake, .close = close_home}};

static struct sp_session *session(struct carrier *c, int side)
{
	return side ? w.home[c->home].s : w.s;
}

static void carrier_close(struct carrier *c, int side)
{
	if (!c->open[side])
		return;
	c->open[side] = false;
	if (session(c, side) && (side == 0 || c->attached))
		sp_session_detach(session(c, side), c->slot, c, w.now);
}

static void carrier_wipe(struct carrier *c)
{
	carrier_close(c, 0);
	carrier_close(c, 1);
	for (int d = 0; d < 2; d++)
		for (unsigned i = c->r[d]; i < c->w[d]; i++)
			free(c->q[d][i % RECORDS].bytes);
	memset(c, 0, sizeof(*c));
}

static void dial(unsigned home)
{
	struct carrier *c = &w.c[rnd(CARRIERS)];
	carrier_wipe(c);
	c->used = c->open[0] = c->open[1] = true;
	c->home = home;
	c->slot = rnd(SP_SLOTS);
	if (!w.calm && sp_session_active_slot(w.s) >= 0 && chance(20)) {
		sp_session_attach_spare(w.s, c->slot, &slot_ops[0], c, w.now);
		return;
	}
	sp_session_attach_client(w.s, c->slot, &slot_ops[0], c, w.now);
	sp_session_attach_flags(w.s, c->slot, chance(50) ? SP_ATTACH_MOVED : 0);
}

// Goes on with a carrier that lives, at whichever home.
static bool reattach(void)
{
	for (int i = 0; i < CARRIERS; i++)
		if (w.c[i].open[0] && !sp_session_reattach(w.s, w.c[i].slot, w.now)) {
			w.reattaches++;
			return true;
		}
	return false;
}

static void make_session(struct home *h, const uint8_t *id, bool adopted)
{
	struct sp_session_options o = {.role = SP_ROLE_WORKER,
				       .arena = h->arena,
				       .ops = &home_ops,
				       .ctx = h,
				       .clock_us = &w.now,
				       .adopted = adopted};
	struct sp_target t = {.kind = SP_TARGET_IPV4, .port = 53};
	memcpy(o.id, id, sizeof(o.id));
	sp_session_limits_default(&o.limits);
	assert_int_equal(sp_session_new(&o, w.now, &h->s), 0);
	memset(h->d, 0, sizeof(h->d));
	h->flow = NULL;
	if (adopted)
		assert_int_equal(sp_session_restore_flow(h->s, 1, &t), 0);
}

// ATTACH at a home. False: the carrier is closed.
static bool home_attach(struct carrier *c, const uint8_t *rec, size_t len)
{
	struct home *h = &w.home[c->home];
	enum sp_reason why;
	struct sp_attach at;
	bool rekey, fresh = !h->s;
	int n = sp_attach_parse(rec, len, &at);
	assert_true(n > 0);
	if (fresh && !w.calm && chance(20))
		return false; // refused
	if (fresh)
		make_session(h, at.session, (at.flags & SP_ATTACH_MOVED) && chance(70));
	if (sp_session_attach_worker(h->s, &at, fresh, &slot_ops[1], c, w.now))
		return false;
	c->attached = true;
	return sp_session_input(h->s, c->slot, rec + n, len - (size_t)n, w.now, &rekey,
				&why) == 0;
}

static void produce(struct carrier *c, int side)
{
	static struct sp_gather g;
	struct sp_session *s = session(c, side);
	while (c->open[side] && s && (side == 0 || c->attached) &&
	       c->w[side] - c->r[side] < RECORDS) {
		size_t n = sp_session_output(s, c->slot, 512 + rnd(4000), &g, w.now);
		struct record *rec = &c->q[side][c->w[side] % RECORDS];
		if (!n)
			return;
		*rec = (struct record){.bytes = malloc(n)};
		assert_non_null(rec->bytes);
		for (int i = 0; i < g.n; i++) {
			memcpy(rec->bytes + rec->len, g.iov[i].iov_base,
			       g.iov[i].iov_len);
			rec->len += g.iov[i].iov_len;
		}
		c->w[side]++;
	}
}

static void deliver(struct carrier *c, int to)
{
	int from = !to;
	for (unsigned n = rnd(4); n && c->open[to] && c->r[from] != c->w[from]; n--) {
		struct record rec = c->q[from][c->r[from]++ % RECORDS];
		enum sp_reason why = SP_REASON_NONE;
		bool rekey, good;
		if (to == 1 && !c->attached) {
			good = home_attach(c, rec.bytes, rec.len);
		} else {
			int err = sp_session_input(session(c, to), c->slot, rec.bytes,
						   rec.len, w.now, &rekey, &why);
			good = err == 0;
			if (err && err != SP_E_CLOSED && err != SP_E_STALE)
				fail_msg("side %d: error %d", to, err);
		}
		free(rec.bytes);
		if (!good)
			carrier_close(c, to);
	}
	if (c->open[to] && (c->cut || !c->open[from]) &&
	    (c->cut ? chance(20) : c->r[from] == c->w[from]))
		carrier_close(c, to);
}

// ---- schedule ----

static void open_stream(void)
{
	struct sp_target t = {.kind = SP_TARGET_IPV4, .port = 80};
	struct app *a = &w.a[w.opened + 1];
	if (w.opened == STREAMS || sp_session_open(w.s, &t, NULL, &a->st))
		return;
	w.opened++;
	a->home = -1;
	a->to_send = rnd(9000);
}

static void programs(void)
{
	uint8_t d[4] = {1, 2, 3, 4};
	struct sp_target t = {.kind = SP_TARGET_IPV4, .port = 53};
	if (chance(20))
		open_stream();
	if (!w.flow)
		assert_int_equal(sp_session_open_flow(w.s, &t, NULL, &w.flow), 0);
	if (chance(20))
		(void)!sp_flow_send(w.flow, d, sizeof(d));
	for (int i = 1; i <= w.opened; i++)
		if (w.a[i].st && chance(50))
			pump(w.a[i].st, 3, &w.a[i].sent, w.a[i].to_send);
	for (int k = 0; k < HOMES; k++)
		for (int i = 1; w.home[k].s && i <= STREAMS; i++) {
			struct dest *x = &w.home[k].d[i];
			if (x->st && chance(50))
				pump(x->st, k, &x->sent, x->to_send);
		}
}

static void lose(struct home *h)
{
	sp_session_free(h->s, SP_REASON_STALE);
	h->s = NULL;
}

static void trouble(void)
{
	struct carrier *c = &w.c[rnd(CARRIERS)];
	switch (rnd(30)) {
	case 0:
		if (c->used)
			c->cut = true;
		return;
	case 1:
	case 2:
		dial(rnd(HOMES));
		return;
	case 4:
		(void)reattach();
		return;
	case 3:
		if (w.home[rnd(HOMES)].s && chance(20))
			lose(&w.home[rnd(HOMES)]);
		return;
	default:
		return;
	}
}

static void step(void)
{
	programs();
	if (!w.calm)
		trouble();
	if (sp_session_active_slot(w.s) < 0 && chance(30) && !(chance(50) && reattach()))
		dial(w.calm ? 0 : rnd(HOMES));
	for (int i = 0; i < CARRIERS; i++)
		for (int side = 0; side < 2 && w.c[i].used; side++) {
			produce(&w.c[i], side);
			deliver(&w.c[i], !side);
		}
	w.now += 500 + rnd(3000);
	sp_session_tick(w.s, w.now);
	for (int k = 0; k < HOMES; k++)
		if (w.home[k].s)
			sp_session_tick(w.home[k].s, w.now);
}

static bool done(unsigned dgrams)
{
	if (w.opened < STREAMS || w.home[0].dgrams <= dgrams)
		return false;
	for (int i = 1; i <= STREAMS; i++)
		if (!w.a[i].closed)
			return false;
	return true;
}

static void check(void)
{
	for (int i = 1; i <= STREAMS; i++) {
		const struct app *a = &w.a[i];
		if (a->reason != SP_REASON_CLOSED) {
			assert_true(a->reason == SP_REASON_HOME_LOST ||
				    a->reason == SP_REASON_GONE);
			continue;
		}
		// All of it went to and came from the one home.
		bool found = false;
		for (int k = 0; k < HOMES; k++)
			found |= (a->home == k || a->home < 0) && w.home[k].whole[i] &&
				 w.home[k].down[i] == a->got;
		assert_true(found);
	}
}

static struct {
	uint64_t moves, adopted, fresh, reattaches;
} total;
static uint64_t seed;

static void run(void)
{
	struct sp_session_options o = {.role = SP_ROLE_CLIENT,
				       .ops = &client_ops,
				       .clock_us = &w.now,
				       .id = "one session 16b"};
	struct sp_arena_options ao = {
		.max_sessions = 4, .max_streams = 64, .memory_bytes = 4 << 20};
	memset(&w, 0, sizeof(w));
	rng = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	w.now = 1000000;
	w.at = -1;
	assert_int_equal(sp_arena_new(&ao, &w.arena), 0);
	for (int k = 0; k < HOMES; k++) {
		w.home[k].w = &w;
		w.home[k].index = k;
		assert_int_equal(sp_arena_new(&ao, &w.home[k].arena), 0);
	}
	sp_session_limits_default(&o.limits);
	o.limits.flow_idle_ms = 600000;
	o.arena = w.arena;
	assert_int_equal(sp_session_new(&o, w.now, &w.s), 0);
	for (uint32_t n = 50 + rnd(300); n; n--)
		step();
	w.calm = true;
	dial(0);
	unsigned dgrams = w.home[0].dgrams;
	int n = 0;
	while (!done(dgrams) && n++ < 20000)
		step();
	assert_true(n < 20000);
	check();
	total.moves += w.moves;
	total.adopted += w.adopted;
	total.fresh += w.fresh;
	total.reattaches += w.reattaches;
	sp_session_free(w.s, SP_REASON_SHUTDOWN);
	w.s = NULL;
	for (int i = 0; i < CARRIERS; i++)
		carrier_wipe(&w.c[i]);
	for (int k = 0; k < HOMES; k++) {
		lose(&w.home[k]);
		sp_arena_free(w.home[k].arena);
	}
	sp_arena_free(w.arena);
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	return text ? strtoull(text, NULL, 10) : otherwise;
}

static void a_stream_is_served_by_one_home_only_wherever_its_session_goes(void **state)
{
	uint64_t n = number("MOVE_SEEDS", SEEDS), only = number("MOVE_SEED", 0);
	(void)state;
	for (seed = only ? only : 1; seed <= (only ? only : n); seed++) {
		run();
	}
	print_message("%llu schedules: %llu attaches on living carriers, %llu moves, "
		      "%llu adopted, %llu fresh\n",
		      (unsigned long long)n, (unsigned long long)total.reattaches,
		      (unsigned long long)total.moves, (unsigned long long)total.adopted,
		      (unsigned long long)total.fresh);
	assert_true(only || (total.moves > 3 * n && total.adopted > n / 4 &&
			     total.reattaches > n));
}

static int say_seed(void **state)
{
	(void)state;
	print_message("to run the last one again: MOVE_SEED=%llu\n",
		      (unsigned long long)seed);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(
			a_stream_is_served_by_one_home_only_wherever_its_session_goes,
			say_seed),
	};
	return cmocka_run_group_tests_name("session_move", tests, NULL, NULL);
}
