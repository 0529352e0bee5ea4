// A fleet, its vantages and the verdict in virtual time: probes as the health checker
// schedules them, lost at random, seen through vantages that lie or are cut off. For the
// tests of the verdict.
#ifndef TESTS_VERDICT_WORLD_H
#define TESTS_VERDICT_WORLD_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "controller/verdict.h"
#include "healthcheck/schedule.h"

enum { W_VANTAGES = 5, W_NODES = 24, W_CHANGES = 512 };
enum w_habit {
	W_HONEST,
	W_LIES,     // about the first nodes: always failures
	W_WAVERS,   // likewise, with a success now and then, so that nobody refutes it
	W_HURRIES,  // likewise, ten times as often as it should
	W_CUT_OFF,  // all fails
	W_FLATTERS, // all is well
	W_ABSENT,
};

struct world {
	uint64_t now_ms, rng;
	unsigned n_nodes, n_vantages;
	unsigned loss_percent;
	uint32_t fail_ms; // what a failing probe takes
	uint32_t bus_ms;  // at most, from a result to the controller
	struct hck_schedule_options plan;
	struct con_verdict *v;
	enum w_habit habit[W_VANTAGES];
	bool controls_ok[W_VANTAGES];
	unsigned lies_about; // the first so many nodes
	bool dead[W_NODES];
	bool blocked[W_VANTAGES][W_NODES];
	struct w_probe {
		struct hck_schedule plan;
		uint64_t next_ms;
		unsigned lies; // in a row, of one that wavers
		// under way or on the bus
		bool busy, ok;
		uint64_t began_ms, ended_ms, arrives_ms;
	} probe[W_VANTAGES][W_NODES];
	uint64_t heard_ms[W_VANTAGES], cycle_ms;
	unsigned n_changes, demotions;
	struct con_node_change change[W_CHANGES];
	uint64_t change_ms[W_CHANGES];
};

static inline uint32_t w_random(struct world *w)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return (uint32_t)(w->rng >> 16);
}

static inline bool w_chance(struct world *w, unsigned percent)
{
	return w_random(w) % 10000 < percent * 100;
}

// `regions`: of each node in turn; vantage i is in region i modulo regions.
static inline void w_begin(struct world *w, uint64_t seed, unsigned vantages,
			   unsigned nodes, unsigned regions)
{
	struct con_verdict_options opt;
	unsigned at;
	memset(w, 0, sizeof(*w));
	w->rng = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
	for (int i = 0; i < 8; i++)
		(void)w_random(w);
	w->now_ms = 1000000;
	w->n_nodes = nodes;
	w->n_vantages = vantages;
	w->fail_ms = 1;
	w->bus_ms = 20;
	w->plan = (struct hck_schedule_options){.interval_ms = 1000,
						.recheck_ms = 1000,
						.down_interval_ms = 30000,
						.jitter_percent = 20,
						.rise = 2};
	con_verdict_options_default(&opt);
	assert_int_equal(con_verdict_new(&opt, &w->v), 0);
	for (unsigned i = 0; i < vantages; i++) {
		char name[16], region[16];
		snprintf(name, sizeof(name), "v%u", i);
		snprintf(region, sizeof(region), "r%u", i % regions);
		assert_int_equal(con_verdict_add_vantage(w->v, name, region, &at), 0);
		assert_int_equal(at, i);
		w->controls_ok[i] = true;
	}
	for (unsigned i = 0; i < nodes; i++) {
		char name[16], region[16];
		snprintf(name, sizeof(name), "n%u/0", i);
		snprintf(region, sizeof(region), "r%u", i % regions);
		assert_int_equal(
			con_verdict_add_node(w->v, name, region, 1, w->now_ms, &at), 0);
		assert_int_equal(at, i);
	}
	for (unsigned a = 0; a < vantages; a++)
		for (unsigned n = 0; n < nodes; n++)
			w->probe[a][n].next_ms =
				w->now_ms + hck_schedule_first_ms(&w->plan, w_random(w));
}

static inline bool w_sees(struct world *w, unsigned a, unsigned n)
{
	bool lost = w_chance(w, w->loss_percent);
	switch (w->habit[a]) {
	case W_LIES:
		if (n < w->lies_about)
			return false;
		break;
	case W_WAVERS:
	case W_HURRIES:
		if (n < w->lies_about) {
			unsigned most = w->habit[a] == W_HURRIES ? 20 : 5;
			unsigned *lies = &w->probe[a][n].lies;
			*lies = *lies < most ? *lies + 1 : 0;
			return *lies == 0;
		}
		break;
	case W_FLATTERS:
		return true;
	case W_CUT_OFF:
		return false;
	case W_HONEST:
	case W_ABSENT:
		break;
	}
	return !lost && !w->dead[n] && !w->blocked[a][n];
}

static inline void w_step_probe(struct world *w, unsigned a, unsigned n)
{
	struct w_probe *p = &w->probe[a][n];
	if (!p->busy && w->now_ms >= p->next_ms) {
		p->busy = true;
		p->ok = w_sees(w, a, n);
		p->began_ms = w->now_ms;
		p->ended_ms = w->now_ms + (p->ok ? 1 : w->fail_ms);
		p->arrives_ms = p->ended_ms + w_random(w) % (w->bus_ms + 1);
	}
	if (p->busy && w->now_ms >= p->arrives_ms) {
		struct con_probe_result r = {.ok = p->ok,
					     .began_ms = p->began_ms,
					     .ended_ms = p->ended_ms,
					     .rung = p->ok ? "external" : "connect",
					     .reason = p->ok ? "none" : "refused"};
		int err = con_verdict_result(w->v, a, n, &r);
		assert_true(err == 0 || err == SP_E_STALE);
		hck_schedule_result(&p->plan, &w->plan, p->ok);
		p->next_ms = p->began_ms +
			     hck_schedule_delay_ms(&p->plan, &w->plan, w_random(w));
		if (w->habit[a] == W_HURRIES && n < w->lies_about)
			p->next_ms = p->began_ms + 100;
		p->busy = false;
	}
}

// One more millisecond; a cycle each 100 ms, as the controller has it.
static inline void w_step(struct world *w)
{
	w->now_ms++;
	for (unsigned a = 0; a < w->n_vantages; a++) {
		if (w->habit[a] == W_ABSENT)
			continue;
		for (unsigned n = 0; n < w->n_nodes; n++)
			if (w->now_ms >= w->probe[a][n].next_ms || w->probe[a][n].busy)
				w_step_probe(w, a, n);
		if (w->now_ms >= w->heard_ms[a] + 1000) {
			w->heard_ms[a] = w->now_ms;
			con_verdict_heard(w->v, a, w->controls_ok[a], w->now_ms);
		}
	}
	if (w->now_ms < w->cycle_ms + 100)
		return;
	w->cycle_ms = w->now_ms;
	unsigned room = W_CHANGES - w->n_changes;
	size_t found = con_verdict_cycle(w->v, w->now_ms, w->change + w->n_changes, room);
	assert_true(found <= room);
	for (size_t i = 0; i < found; i++) {
		w->demotions += w->change[w->n_changes].to == CON_NODE_DOWN &&
				w->change[w->n_changes].from != CON_NODE_QUARANTINED;
		w->change_ms[w->n_changes++] = w->now_ms;
	}
}

static inline void w_run(struct world *w, uint64_t ms)
{
	for (uint64_t end = w->now_ms + ms; w->now_ms < end;)
		w_step(w);
}

static inline bool w_offered(struct world *w, unsigned n, const char *region)
{
	unsigned percent = 0;
	bool offered = con_verdict_offered(w->v, n, region, w->now_ms, &percent);
	assert_true(!offered || (percent > 0 && percent <= 100));
	return offered;
}

// Until the node is (not) offered to whoever; ms it took, or `most`.
static inline uint64_t w_until(struct world *w, unsigned n, bool offered, uint64_t most)
{
	uint64_t began = w->now_ms;
	while (w->now_ms < began + most && w_offered(w, n, "") != offered)
		w_step(w);
	return w->now_ms - began;
}

static inline enum con_node_state w_state(struct world *w, unsigned n)
{
	struct con_node_view view;
	assert_true(con_verdict_node(w->v, n, &view));
	return view.state;
}

static inline void w_end(struct world *w)
{
	con_verdict_free(w->v);
}

#endif
