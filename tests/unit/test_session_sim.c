// Seeded schedules of session engines in virtual time: carriers are cut at any byte,
// frozen, revived late and superseded; frames are doubled; credit and memory are tiny and
// shared by several sessions, one of which may take nothing at all; streams are
// half-closed, and reset by both ends from inside callbacks; sessions are ended, homes
// lose their memory. Every stream's bytes must arrive exactly once and in order, nobody
// may hear what the protocol forbids, and everything must end once the trouble does.
//
// SIM_SEEDS=n runs n schedules (default below), SIM_SEED=x only that one; SIM_FROM=x
// begins at x; SIM_TRACE=1 prints every frame that arrives.
#include "tests/unit/sim.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define DEFAULT_SEEDS 4000
#else
#define DEFAULT_SEEDS 100000
#endif
#define STEPS_MAX 20000 // without trouble everything is done by then

// ---- trouble ----

static void lose_home(struct pair *p)
{
	sp_session_free(p->s[1], SP_REASON_STALE);
	p->s[1] = NULL;
	for (int i = 1; i <= MAX_STREAMS; i++) // a new home knows none of them
		if (!(p->e[1][i].got_fin && p->e[0][i].got_fin))
			p->e[1][i] = (struct end){.to_send = p->e[1][i].to_send};
}

static void send_pass(struct pair *p)
{
	uint8_t blob[700] = {0};
	p->pass_sent++;
	memcpy(blob, &p->pass_sent, sizeof(p->pass_sent));
	assert_int_equal(
		sp_session_send_pass(p->s[0], blob, sizeof(p->pass_sent) + rnd(600)), 0);
}

static void reset_some_stream(struct pair *p)
{
	int side = (int)rnd(2);
	struct end *e = &p->e[side][1 + rnd(MAX_STREAMS)];
	if (e->st && !e->closed && chance(20))
		end_reset(&p->sides[side], e);
}

static void trouble(struct pair *p)
{
	struct carrier *c = &p->c[rnd(MAX_CARRIERS)];
	for (int i = 0; i < 3 && !c->open[0] && !c->open[1]; i++)
		c = &p->c[rnd(MAX_CARRIERS)];
	switch (rnd(40)) {
	case 0:
		if (c->used && !c->cut)
			carrier_cut(p, c);
		return;
	case 1:
		c->frozen = true;
		return;
	case 2:
	case 3:
		c->frozen = false;
		return;
	case 4:
		p->dial_wanted = true;
		return;
	case 11:
		if (sp_session_active_slot(p->s[0]) >= 0 && chance(50))
			dial(p, true);
		return;
	case 10:
		if (chance(30))
			(void)reattach(p);
		return;
	case 5:
		reset_some_stream(p);
		return;
	case 6:
		if (p->lossy_home && p->s[1] && chance(5))
			lose_home(p);
		return;
	case 7:
		if (chance(5) && p->pass_sent < 3)
			send_pass(p);
		return;
	case 8:
		if (p->s[1] && !p->lossy_home && chance(3)) {
			p->goaway_sent = true;
			sp_session_goaway(p->s[1], SP_REASON_DRAINING, 30000);
		}
		return;
	case 9:
		if (p->s[1] && !p->lossy_home && chance(1)) {
			p->end_sent = true;
			sp_session_end(p->s[1], SP_REASON_REVOKED);
		}
		return;
	default:
		return;
	}
}

// ---- what programs do by themselves ----

static void run_end(struct side *sd, struct end *e)
{
	if (sd->side == 1 && e->st && !e->open && sd->p->m->now >= e->dial_at) {
		struct sp_target b = {.kind = SP_TARGET_IPV4, .port = 9};
		e->open = true;
		sp_stream_opened(e->st, &b);
	}
	if (e->st && (e->open || sd->side == 0) && chance(50))
		pump_source(sd, e);
	if (e->st && e->sink_blocked && e->open && !sd->p->hog && chance(50)) {
		e->sink_blocked = false;
		sp_stream_sink_ready(e->st);
	}
}

static void programs(struct pair *p)
{
	if (chance(p->m->calm ? 100 : 20))
		open_stream(p);
	for (int side = 0; side < 2; side++)
		for (int i = 1; i <= p->opened; i++)
			run_end(&p->sides[side], &p->e[side][i]);
	if (chance(10))
		open_flow(p);
	for (int side = 0; side < 2; side++) {
		struct sp_flow *fl = p->flow[side][rnd(MAX_FLOWS)];
		if (fl && chance(10))
			send_dgram(fl);
	}
}

// Both programs let go of a session that was ended.
static void bury(struct pair *p)
{
	for (int side = 0; side < 2; side++) {
		sp_session_free(p->s[side], SP_REASON_REVOKED);
		p->s[side] = NULL;
		for (int i = 0; i < MAX_CARRIERS; i++)
			assert_false(p->c[i].open[side] && p->c[i].attached);
		for (int i = 0; i < MAX_FLOWS; i++)
			assert_null(p->flow[side][i]);
		for (int i = 1; i <= MAX_STREAMS; i++)
			assert_null(p->e[side][i].st);
	}
}

static bool pair_done(const struct pair *p)
{
	if (p->ended)
		return true;
	if (p->opened < p->n_streams || p->end_sent)
		return false;
	for (int i = 1; i <= p->n_streams; i++)
		if (!p->e[0][i].closed || p->e[1][i].st)
			return false;
	return p->dgrams[0] && p->dgrams[1] && p->pass_got == p->pass_sent &&
	       p->goaway_got == p->goaway_sent;
}

static bool all_done(struct sim *m)
{
	bool others = true;
	for (int i = 0; i < m->n_pairs; i++)
		others &= m->p[i].hog || pair_done(&m->p[i]);
	if (!others)
		return false;
	for (int i = 0; i < m->n_pairs; i++) {
		if (!m->p[i].hog)
			continue;
		m->p[i].hog = false; // now it takes what it has
		return false;
	}
	return true;
}

// ---- schedule ----

static void step_pair(struct pair *p)
{
	struct sim *m = p->m;
	if (!p->s[0])
		return;
	programs(p);
	if (!m->calm)
		trouble(p);
	for (int i = 0; i < MAX_CARRIERS; i++) // a dial that is not answered in time
		if (p->c[i].open[0] && !p->c[i].attached &&
		    m->now > p->c[i].ready_at + 500000)
			carrier_close(p, &p->c[i], 0);
	bool attached = sp_session_active_slot(p->s[0]) >= 0;
	if ((!attached || p->dial_wanted) && chance(20) && !(chance(50) && reattach(p)))
		dial(p, false);
	for (int i = 0; i < MAX_CARRIERS; i++) {
		struct carrier *c = &p->c[i];
		for (int side = 0; side < 2; side++) {
			if (c->wake[side] && chance(80))
				produce(p, c, side);
			if (c->used && chance(70))
				deliver(p, c, side);
		}
	}
	if (p->ended)
		bury(p);
}

static void step(struct sim *m)
{
	for (int i = 0; i < m->n_pairs; i++)
		step_pair(&m->p[i]);
	m->now += 200 + rnd(3000);
	for (int i = 0; i < m->n_pairs; i++)
		for (int side = 0; side < 2; side++) {
			struct sp_session *s = m->p[i].s[side];
			if (s && m->now >= sp_session_deadline(s))
				sp_session_tick(s, m->now);
		}
}

static void setup_pair(struct sim *m, struct pair *p)
{
	p->m = m;
	p->n_streams = 1 + (int)rnd(chance(80) ? 5 : MAX_STREAMS);
	p->lossy_home = chance(10);
	p->sink_block = rnd(70);
	p->resets = chance(50) ? 0 : rnd(40);
	uint32_t size = chance(70) ? 3000 : 60000;
	for (int i = 1; i <= MAX_STREAMS; i++) {
		p->e[0][i].to_send = chance(20) ? 0 : rnd(size);
		p->e[1][i].to_send = chance(20) ? 0 : rnd(size);
	}
	for (int side = 0; side < 2; side++) {
		struct sp_session_limits *lim = &p->limits[side];
		sp_session_limits_default(lim);
		if (chance(30))
			lim->stream_window_bytes = 4096 + rnd(20000);
		if (chance(30))
			lim->session_window_bytes = rnd(100000);
		if (chance(30))
			lim->max_flows = 1 + rnd(4);
		if (chance(20))
			lim->datagram_budget_bytes = 20000 + rnd(20000);
		p->sides[side] = (struct side){p, side};
	}
	new_session(p, 0);
}

static void setup(struct sim *m, uint64_t seed)
{
	memset(m, 0, sizeof(*m));
	rng_state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	for (int i = 0; i < 8; i++)
		(void)rnd(2);
	m->now = 1000000;
	m->n_pairs = chance(75) ? 1 : 2 + (int)rnd(MAX_PAIRS - 1);
	for (int side = 0; side < 2; side++) {
		uint32_t memory = chance(60) ? 4 << 20 : rnd(chance(50) ? 60000 : 300000);
		struct sp_arena_options ao = {.max_sessions = 4,
					      .max_streams = 64 * MAX_PAIRS,
					      .memory_bytes = memory};
		assert_int_equal(sp_arena_new(&ao, &m->arena[side]), 0);
	}
	for (int i = 0; i < m->n_pairs; i++)
		setup_pair(m, &m->p[i]);
	if (m->n_pairs > 1)
		m->p[0].hog = chance(50);
}

static struct sp_session_stats total;
static uint64_t reattaches, spares;

static void teardown_pair(struct pair *p)
{
	for (int side = 0; side < 2; side++) {
		struct sp_session_stats st = {0};
		if (p->s[side])
			sp_session_stats(p->s[side], &st);
		total.bytes_rx += st.bytes_rx;
		total.bytes_resent += st.bytes_resent;
		total.bytes_dup += st.bytes_dup;
		total.attaches += st.attaches;
		total.resumes += st.resumes;
		total.dgrams_rx += st.dgrams_rx;
		sp_session_free(p->s[side], SP_REASON_SHUTDOWN);
	}
	for (int i = 0; i < MAX_CARRIERS; i++) {
		free(p->c[i].pipe[0].buf);
		free(p->c[i].pipe[1].buf);
	}
}

static void teardown(struct sim *m)
{
	reattaches += m->reattaches;
	spares += m->spares;
	for (int i = 0; i < m->n_pairs; i++)
		teardown_pair(&m->p[i]);
	for (int side = 0; side < 2; side++) {
		// Every chunk and every byte of credit is back.
		struct sp_arena *a = m->arena[side];
		assert_int_equal(sp_arena_chunks_spare(a), sp_arena_chunks_pool(a));
		sp_arena_free(a);
	}
}

// ---- what must hold ----

static void check_stream(const struct pair *p, int i)
{
	const struct end *c = &p->e[0][i], *w = &p->e[1][i];
	bool reset = p->resets_asked || p->home_lost || p->ended;
	assert_true(c->got <= w->sent || p->lossy_home);
	if (!reset)
		assert_int_equal(c->reason, SP_REASON_CLOSED);
	if (c->reason != SP_REASON_CLOSED)
		return;
	assert_true(c->got_fin);
	if (p->lossy_home)
		return;
	assert_int_equal(c->got, w->to_send);
	assert_int_equal(w->got, c->to_send);
	assert_true(w->got_fin);
	// Its program may have reset it when only the client's last word was missing.
	assert_true(w->reason == SP_REASON_CLOSED || w->reason == SP_REASON_APP_RESET ||
		    p->ended || !w->closed);
}

static void print_pair(const struct pair *p)
{
	print_message("pair: opened %d/%d hog %d ended %d/%d pass %u/%u goaway %d/%d "
		      "dgrams %d %d active %d %d\n",
		      p->opened, p->n_streams, p->hog, p->ended, p->end_sent, p->pass_got,
		      p->pass_sent, p->goaway_got, p->goaway_sent, (int)p->dgrams[0],
		      (int)p->dgrams[1], p->s[0] ? sp_session_active_slot(p->s[0]) : -2,
		      p->s[1] ? sp_session_active_slot(p->s[1]) : -2);
	for (int i = 1; i <= p->n_streams; i++)
		for (int side = 0; side < 2; side++) {
			const struct end *e = &p->e[side][i];
			print_message("stream %d side %d: st %d closed %d sent %d/%d "
				      "blocked %d got %d fin %d sink blocked %d\n",
				      i, side, e->st != NULL, e->closed, (int)e->sent,
				      (int)e->to_send, e->blocked, (int)e->got,
				      e->got_fin, e->sink_blocked);
		}
	for (int i = 0; i < MAX_CARRIERS; i++) {
		const struct carrier *c = &p->c[i];
		if (c->open[0] || c->open[1])
			print_message("carrier %d slot %u open %d/%d cut %d frozen %d "
				      "attached %d queued %d/%d wake %d/%d\n",
				      i, c->slot, c->open[0], c->open[1], c->cut,
				      c->frozen, c->attached,
				      (int)(c->pipe[0].w - c->pipe[0].r),
				      (int)(c->pipe[1].w - c->pipe[1].r), c->wake[0],
				      c->wake[1]);
	}
}

static void run(uint64_t seed)
{
	static struct sim m;
	setup(&m, seed);
	int steps = 0, end = 50 + (int)rnd(400);
	for (; steps < end; steps++)
		step(&m);
	m.calm = true;
	for (int k = 0; k < m.n_pairs; k++) {
		m.p[k].sink_block = 20;
		for (int i = 0; i < MAX_CARRIERS; i++)
			if (m.p[k].c[i].frozen && chance(50))
				m.p[k].c[i].frozen = false;
	}
	for (end += STEPS_MAX; !all_done(&m) && steps < end; steps++)
		step(&m);
	if (steps == end) {
		for (int k = 0; k < m.n_pairs; k++)
			print_pair(&m.p[k]);
		fail_msg("deadlock: not done after %d steps", steps);
	}
	for (int k = 0; k < m.n_pairs; k++)
		for (int i = 1; i <= m.p[k].opened; i++)
			check_stream(&m.p[k], i);
	teardown(&m);
}

static uint64_t current_seed;

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	return text ? strtoull(text, NULL, 10) : otherwise;
}

static void bytes_arrive_once_and_in_order_whatever_happens_to_carriers(void **state)
{
	(void)state;
	current_seed = number("SIM_SEED", 0);
	tracing = getenv("SIM_TRACE");
	if (current_seed) {
		run(current_seed);
		return;
	}
	uint64_t n = number("SIM_SEEDS", DEFAULT_SEEDS), from = number("SIM_FROM", 1);
	for (current_seed = from; current_seed < from + n; current_seed++)
		run(current_seed);
	print_message(
		"%llu schedules: %llu attaches, %llu on carriers that lived, %llu "
		"spares, %llu "
		"resumes, %llu bytes, %llu sent again, %llu received again, %llu "
		"datagrams\n",
		(unsigned long long)n, (unsigned long long)total.attaches,
		(unsigned long long)reattaches, (unsigned long long)spares,
		(unsigned long long)total.resumes, (unsigned long long)total.bytes_rx,
		(unsigned long long)total.bytes_resent,
		(unsigned long long)total.bytes_dup, (unsigned long long)total.dgrams_rx);
	// The trouble was real.
	assert_true(n < 1000 || (total.resumes > n && total.bytes_resent > n * 100 &&
				 reattaches > n / 2 && spares > n / 2));
}

static int say_seed(void **state)
{
	(void)state;
	print_message("to run the last one again: SIM_SEED=%llu\n",
		      (unsigned long long)current_seed);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(
			bytes_arrive_once_and_in_order_whatever_happens_to_carriers,
			say_seed),
	};
	return cmocka_run_group_tests_name("session_sim", tests, NULL, NULL);
}
