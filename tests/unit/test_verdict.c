#include "tests/unit/verdict_world.h"

static const struct con_node_change *last_change(struct world *w, unsigned node)
{
	for (unsigned i = w->n_changes; i-- > 0;)
		if (w->change[i].node == node)
			return &w->change[i];
	fail_msg("node %u never changed", node);
	return NULL;
}

static void set_options(struct world *w, void (*edit)(struct con_verdict_options *o))
{
	struct con_verdict_options o;
	con_verdict_options_default(&o);
	edit(&o);
	assert_int_equal(con_verdict_set_options(w->v, &o), 0);
}

static void kill_nodes(struct world *w, unsigned from, unsigned to)
{
	for (unsigned n = from; n < to; n++)
		w->dead[n] = true;
}

static unsigned count(struct world *w, enum con_node_state state)
{
	struct con_verdict_status s;
	con_verdict_status(w->v, &s);
	return s.nodes[state];
}

static bool in_panic(struct world *w)
{
	struct con_verdict_status s;
	con_verdict_status(w->v, &s);
	return s.panic;
}

static void
all_are_healthy_after_the_first_probes_and_unknown_but_offered_before(void **st)
{
	(void)st;
	struct world w;
	w_begin(&w, 1, 3, 6, 2);
	w_step(&w);
	for (unsigned n = 0; n < 6; n++)
		assert_true(w_offered(&w, n, "r0"));
	assert_int_equal(w_state(&w, 0), CON_NODE_UNKNOWN);
	w_run(&w, 2000);
	assert_int_equal(count(&w, CON_NODE_HEALTHY), 6);
	w_end(&w);
}

static void a_demotion_names_rung_reason_and_who_saw_it(void **st)
{
	(void)st;
	struct world w;
	w_begin(&w, 2, 3, 6, 2);
	w_run(&w, 5000);
	w.dead[1] = true;
	assert_true(w_until(&w, 1, false, 5000) < 3000);
	const struct con_node_change *c = last_change(&w, 1);
	assert_int_equal(c->to, CON_NODE_DOWN);
	assert_int_equal(c->cause, CON_CAUSE_DEAD);
	assert_string_equal(c->rung, "connect");
	assert_string_equal(c->reason, "refused");
	assert_true(__builtin_popcount(c->vantages) >= 2);
	w_end(&w);
}

static void no_more_than_the_cap_of_a_region_is_demoted(void **st)
{
	(void)st;
	struct world w;
	w_begin(&w, 3, 3, 20, 1);
	w_run(&w, 5000);
	kill_nodes(&w, 0, 9); // 45 %: under half, so no panic and nobody is astray
	w_run(&w, 30000);
	assert_int_equal(count(&w, CON_NODE_DOWN), 6);
	assert_int_equal(count(&w, CON_NODE_DEGRADED), 3);
	assert_false(in_panic(&w));
	for (unsigned n = 0; n < 9; n++)
		if (w_state(&w, n) == CON_NODE_DEGRADED) {
			assert_int_equal(last_change(&w, n)->cause, CON_CAUSE_CAPPED);
			assert_true(w_offered(&w, n, ""));
		}
	w_end(&w);
}

static void one_of_a_small_region_may_go_but_never_the_last(void **st)
{
	(void)st;
	struct world w;
	w_begin(&w, 4, 3, 6, 3); // two a region
	w_run(&w, 5000);
	w.dead[0] = true;
	w_run(&w, 5000);
	assert_int_equal(w_state(&w, 0), CON_NODE_DOWN);
	w.dead[3] = true; // the other one of r0
	w_run(&w, 10000);
	assert_int_equal(w_state(&w, 3), CON_NODE_DEGRADED);
	assert_int_equal(last_change(&w, 3)->cause, CON_CAUSE_CAPPED);
	assert_true(w_offered(&w, 3, "r0"));
	w.dead[0] = false; // comes back: now the other may go
	w_run(&w, 40000);
	assert_true(w_offered(&w, 0, "r0"));
	assert_int_equal(w_state(&w, 3), CON_NODE_DOWN);
	w_end(&w);
}

static void when_more_than_half_of_the_fleet_dies_all_are_offered(void **st)
{
	(void)st;
	struct world w;
	w_begin(&w, 5, 3, 20, 2);
	w_run(&w, 5000);
	kill_nodes(&w, 0, 12);
	w_run(&w, 5000);
	assert_true(in_panic(&w));
	for (unsigned n = 0; n < 20; n++)
		assert_true(w_offered(&w, n, "r0"));
	for (unsigned n = 0; n < 12; n++)
		w.dead[n] = false;
	w_run(&w, 60000);
	assert_false(in_panic(&w));
	for (unsigned n = 0; n < 20; n++)
		assert_true(w_offered(&w, n, ""));
	w_end(&w);
}

static void a_fleet_that_dies_one_by_one_ends_in_panic_and_offers_all(void **st)
{
	(void)st;
	struct world w;
	w_begin(&w, 6, 3, 10, 1);
	w_run(&w, 5000);
	for (unsigned n = 0; n < 10; n++) {
		w.dead[n] = true;
		w_run(&w, 5000);
	}
	assert_true(in_panic(&w));
	for (unsigned n = 0; n < 10; n++)
		assert_true(w_offered(&w, n, ""));
	w_end(&w);
}

static void edit_short_hold(struct con_verdict_options *o)
{
	o->hold_ms = 10000;
	o->hold_max_ms = 35000;
	o->forget_ms = 1000000;
	o->slow_start_ms = 20000;
}

static void hold_down_grows_with_flaps_to_its_bound(void **st)
{
	(void)st;
	static const uint64_t least[] = {10000, 20000, 30000, 35000, 35000};
	struct world w;
	w_begin(&w, 7, 3, 6, 1);
	set_options(&w, edit_short_hold);
	w_run(&w, 5000);
	for (unsigned flap = 0; flap < 5; flap++) {
		struct con_node_view view;
		w.dead[1] = true;
		assert_true(w_until(&w, 1, false, 5000) < 3000);
		uint64_t fell = w.now_ms;
		w.dead[1] = false;
		w_run(&w, 4000);
		assert_int_equal(w_state(&w, 1), CON_NODE_QUARANTINED);
		w_until(&w, 1, true, 100000);
		assert_in_range(w.now_ms - fell, least[flap] - 200, least[flap] + 500);
		assert_true(con_verdict_node(w.v, 1, &view));
		assert_int_equal(view.flaps, flap + 1);
	}
	assert_int_equal(w.demotions, 5);
	w_end(&w);
}

static void a_demotion_long_ago_is_no_flap(void **st)
{
	(void)st;
	struct con_node_view view;
	struct world w;
	w_begin(&w, 8, 3, 6, 1);
	for (unsigned i = 0; i < 2; i++) {
		w_run(&w, 5000);
		w.dead[1] = true;
		w_run(&w, 5000);
		w.dead[1] = false;
		w_run(&w, 610000);
	}
	assert_true(con_verdict_node(w.v, 1, &view));
	assert_int_equal(view.demotions, 2);
	assert_int_equal(view.flaps, 1);
	w_end(&w);
}

static void a_held_down_node_is_offered_at_once_if_its_region_has_no_other(void **st)
{
	(void)st;
	struct world w;
	w_begin(&w, 9, 3, 8, 4); // r0: 0 and 4
	w_run(&w, 5000);
	w.dead[0] = true;
	w_run(&w, 5000);
	assert_int_equal(w_state(&w, 0), CON_NODE_DOWN);
	w.dead[4] = true;
	w_run(&w, 5000);
	w.dead[0] = false;
	assert_true(w_until(&w, 0, true, 20000) < 5000);
	w_end(&w);
}

static void a_node_that_returns_starts_slowly(void **st)
{
	(void)st;
	unsigned percent = 0, before = 0;
	struct world w;
	w_begin(&w, 10, 3, 6, 1);
	set_options(&w, edit_short_hold);
	w_run(&w, 5000);
	w.dead[1] = true;
	w_run(&w, 5000);
	w.dead[1] = false;
	w_until(&w, 1, true, 60000);
	assert_true(con_verdict_offered(w.v, 1, "", w.now_ms, &percent));
	assert_int_equal(percent, 10);
	for (unsigned s = 0; s < 20; s++) {
		before = percent;
		w_run(&w, 1000);
		assert_true(con_verdict_offered(w.v, 1, "", w.now_ms, &percent));
		assert_true(percent >= before);
	}
	assert_int_equal(percent, 100);
	w_end(&w);
}

static void tell(struct world *w, unsigned vantage, unsigned node, bool ok)
{
	struct con_probe_result r = {.ok = ok,
				     .began_ms = w->now_ms - 1,
				     .ended_ms = w->now_ms,
				     .rung = ok ? "top" : "connect",
				     .reason = ok ? "none" : "refused"};
	w->now_ms += 10;
	con_verdict_heard(w->v, vantage, true, w->now_ms);
	assert_int_equal(con_verdict_result(w->v, vantage, node, &r), 0);
	(void)con_verdict_cycle(w->v, w->now_ms, w->change, W_CHANGES);
}

// Until `n` vantages have failed for 3 s; ms it took from now, 20000: it did not.
static uint64_t until_unreached(struct world *w, unsigned node, unsigned n)
{
	uint64_t began = w->now_ms;
	while (w->now_ms < began + 20000 &&
	       con_verdict_unreached(w->v, node, 3000, w->now_ms) < n)
		w_step(w);
	return w->now_ms - began;
}

static void a_dead_node_is_unreached_3_s_after_the_first_probes_that_failed(void **st)
{
	(void)st;
	uint64_t sum = 0, most = 0;
	for (uint64_t seed = 0; seed < 40; seed++) {
		struct world w;
		w_begin(&w, 100 + seed, 3, 6, 2);
		w.fail_ms = 500;
		w.plan.recheck_ms = 500;
		w_run(&w, 5000 + seed * 37);
		assert_int_equal(con_verdict_unreached(w.v, 1, 3000, w.now_ms), 0);
		w.dead[1] = true;
		uint64_t took = until_unreached(&w, 1, 2);
		assert_true(took >= 3000 && took < 5200);
		sum += took;
		most = took > most ? took : most;
		w.dead[1] = false;
		w_run(&w, 3000);
		assert_int_equal(con_verdict_unreached(w.v, 1, 3000, w.now_ms), 0);
		w_end(&w);
	}
	print_message("unreached after %u ms on average, at most %u\n",
		      (unsigned)(sum / 40), (unsigned)most);
}

static void a_node_that_answers_but_does_not_serve_is_not_unreached(void **st)
{
	(void)st;
	struct world w;
	w_begin(&w, 300, 3, 6, 2);
	w_run(&w, 5000);
	for (unsigned i = 0; i < 60; i++)
		for (unsigned a = 0; a < 3; a++) {
			struct con_probe_result r = {.answered = a == 2,
						     .began_ms = w.now_ms - 90,
						     .ended_ms = w.now_ms,
						     .rung = a == 2 ? "http" : "connect",
						     .reason = "timeout"};
			con_verdict_heard(w.v, a, true, w.now_ms);
			(void)!con_verdict_result(w.v, a, 1, &r);
			w.now_ms += 100;
			assert_int_equal(con_verdict_unreached(w.v, 1, 3000, w.now_ms),
					 0);
			(void)con_verdict_cycle(w.v, w.now_ms, w.change, W_CHANGES);
		}
	assert_false(w_offered(&w, 1, "")); // though nobody is sent there
	w_end(&w);
}

static void a_node_frozen_for_less_or_blocked_for_some_is_never_unreached(void **st)
{
	(void)st;
	for (uint64_t seed = 0; seed < 40; seed++) {
		struct world w;
		w_begin(&w, 200 + seed, 5, 6, 2);
		w.fail_ms = 500;
		w_run(&w, 5000 + seed * 37);
		w.blocked[0][1] = w.blocked[1][1] = true; // for ever
		for (unsigned i = 0; i < 4; i++) {
			w.dead[1] = true;
			uint64_t end = w.now_ms + 2900;
			while (w.now_ms < end) {
				w_step(&w);
				assert_true(con_verdict_unreached(w.v, 1, 3000,
								  w.now_ms) < 3);
			}
			w.dead[1] = false;
			w_run(&w, 2500);
			assert_int_equal(con_verdict_unreached(w.v, 1, 3000, w.now_ms),
					 0);
		}
		w_end(&w);
	}
}

static void whoever_tells_first_demotes_nobody_before_the_others_have_looked(void **st)
{
	(void)st;
	struct world w;
	for (unsigned again = 0; again < 2; again++) { // after a start, after a change
		if (again)
			con_verdict_forget(w.v, 0, w.now_ms);
		else
			w_begin(&w, 23, 3, 4, 1);
		w.now_ms += 10;
		for (unsigned i = 0; i < 3 && again; i++)
			con_verdict_heard(w.v, i, true, w.now_ms);
		for (unsigned n = 1; n < 4; n++)
			tell(&w, 0, n, true);
		for (unsigned i = 0; i < 20; i++)
			tell(&w, 0, 0, false);
		assert_true(w_offered(&w, 0, ""));
		tell(&w, 1, 0, true);
		for (unsigned i = 0; i < 20; i++)
			tell(&w, 0, 0, false);
		assert_true(w_offered(&w, 0, ""));
		tell(&w, 2, 0, true);
		tell(&w, 2, 0, true);
		tell(&w, 1, 0, true);
		w.now_ms += 20000;
	}
	w_end(&w);
}

static void one_that_never_speaks_is_not_waited_for_for_long(void **st)
{
	(void)st;
	struct world w;
	w_begin(&w, 24, 3, 6, 2);
	w.habit[2] = W_ABSENT;
	w.dead[0] = true;
	w_run(&w, 9000);
	assert_true(w_offered(&w, 0, ""));
	w_run(&w, 3000);
	assert_false(w_offered(&w, 0, ""));
	w_end(&w);
}

static void blocked_from_one_vantage_is_not_dead(void **st)
{
	(void)st;
	struct world w;
	w_begin(&w, 11, 3, 9, 3);
	w_run(&w, 5000);
	w.blocked[1][0] = true; // v1 is the one in r1
	w_run(&w, 10000);
	assert_int_equal(w.demotions, 0);
	assert_int_equal(w_state(&w, 0), CON_NODE_DEGRADED);
	assert_int_equal(last_change(&w, 0)->cause, CON_CAUSE_BLOCKED);
	assert_int_equal(last_change(&w, 0)->vantages, 2);
	assert_false(w_offered(&w, 0, "r1"));
	assert_true(w_offered(&w, 0, "r0"));
	assert_true(w_offered(&w, 0, "r2"));
	assert_true(w_offered(&w, 0, ""));
	w.blocked[1][0] = false;
	w_run(&w, 70000);
	assert_true(w_offered(&w, 0, "r1"));
	assert_int_equal(w_state(&w, 0), CON_NODE_HEALTHY);
	w_end(&w);
}

static void a_node_blocked_from_one_place_is_found_dead_by_the_others(void **st)
{
	(void)st;
	struct world w;
	w_begin(&w, 12, 3, 9, 3);
	w_run(&w, 5000);
	w.blocked[1][0] = true;
	w_run(&w, 20000);
	w.dead[0] = true;
	assert_true(w_until(&w, 0, false, 20000) < 5000);
	w_end(&w);
}

static void a_vantage_that_fails_its_controls_has_no_vote(void **st)
{
	(void)st;
	struct con_verdict_status s;
	struct world w;
	w_begin(&w, 13, 1, 6, 2);
	w_run(&w, 5000);
	w.controls_ok[0] = false;
	w_run(&w, 1100);
	w.dead[0] = true; // only this one sees it
	w_run(&w, 60000);
	con_verdict_status(w.v, &s);
	assert_int_equal(s.cut_off, 1);
	assert_true(s.blind);
	assert_int_equal(w.demotions, 0);
	w.controls_ok[0] = true;
	for (unsigned n = 0; n < 6; n++) { // as the health checker does then
		w.probe[0][n].plan = (struct hck_schedule){0};
		w.probe[0][n].next_ms =
			w.now_ms + hck_schedule_first_ms(&w.plan, w_random(&w));
	}
	assert_true(w_until(&w, 0, false, 10000) < 5000);
	w_end(&w);
}

static void a_vantage_that_fails_more_than_half_of_the_fleet_has_no_vote(void **st)
{
	(void)st;
	struct con_verdict_status s;
	struct world w;
	w_begin(&w, 14, 3, 6, 2);
	w_run(&w, 5000);
	w.habit[2] = W_CUT_OFF;
	w_run(&w, 3000);
	con_verdict_status(w.v, &s);
	assert_int_equal(s.astray, 4);
	assert_int_equal(s.voters, 3);
	assert_false(s.panic);
	assert_int_equal(w.demotions, 0);
	w_end(&w);
}

static void silence_of_all_vantages_changes_nothing_and_is_said(void **st)
{
	(void)st;
	struct con_verdict_status s;
	struct world w;
	w_begin(&w, 15, 2, 6, 2);
	w_run(&w, 5000);
	w.habit[0] = w.habit[1] = W_ABSENT;
	unsigned before = w.n_changes;
	w_run(&w, 200000);
	con_verdict_status(w.v, &s);
	assert_true(s.blind);
	assert_int_equal(s.silent, 3);
	assert_int_equal(w.n_changes, before);
	w_end(&w);
}

static void a_draining_node_is_not_offered_and_its_state_comes_back(void **st)
{
	(void)st;
	struct world w;
	w_begin(&w, 16, 3, 6, 2);
	w_run(&w, 5000);
	con_verdict_set_draining(w.v, 2, true);
	w_run(&w, 200);
	assert_int_equal(w_state(&w, 2), CON_NODE_DRAINING);
	assert_false(w_offered(&w, 2, ""));
	assert_int_equal(last_change(&w, 2)->cause, CON_CAUSE_LEASE);
	con_verdict_set_draining(w.v, 2, false);
	w_run(&w, 300);
	assert_int_equal(w_state(&w, 2), CON_NODE_HEALTHY);
	w_end(&w);
}

// Refused because it drained, by probes that come ever more slowly.
static void what_a_draining_node_refused_does_not_count_after_it(void **st)
{
	(void)st;
	struct world w;
	struct con_sight_view s;
	w_begin(&w, 16, 2, 6, 2);
	w_run(&w, 5000);
	con_verdict_set_draining(w.v, 2, true);
	con_verdict_set_draining(w.v, 3, true);
	w_run(&w, 200);
	for (unsigned i = 0; i < 24; i++) {
		struct con_probe_result r = {.began_ms = w.now_ms,
					     .ended_ms = w.now_ms + 1 + i,
					     .rung = "handshake",
					     .reason = "draining"};
		assert_int_equal(con_verdict_result(w.v, i % 2, 2, &r), 0);
		r.reason = "timeout"; // and this one died meanwhile
		assert_int_equal(con_verdict_result(w.v, i % 2, 3, &r), 0);
	}
	con_verdict_set_draining(w.v, 2, false);
	con_verdict_set_draining(w.v, 3, false);
	assert_false(con_verdict_sight(w.v, 2, 0, 0, w.now_ms, &s));
	assert_true(con_verdict_sight(w.v, 3, 0, 0, w.now_ms, &s));
	w.dead[3] = true;
	w_run(&w, 3000);
	assert_int_equal(w_state(&w, 2), CON_NODE_HEALTHY);
	assert_int_equal(w_state(&w, 3), CON_NODE_DOWN);
	for (unsigned i = 0; i < w.n_changes; i++)
		if (w.change[i].node == 2) {
			assert_int_not_equal(w.change[i].to, CON_NODE_DEGRADED);
			assert_int_not_equal(w.change[i].to, CON_NODE_DOWN);
		}
	w_end(&w);
}

static struct con_probe_result failure(struct world *w, uint64_t began_ms)
{
	return (struct con_probe_result){.began_ms = began_ms,
					 .ended_ms = w->now_ms,
					 .rung = "handshake",
					 .reason = "timeout"};
}

static void results_from_before_a_nodes_change_do_not_count(void **st)
{
	(void)st;
	struct world w;
	unsigned at;
	w_begin(&w, 17, 1, 3, 1);
	w_run(&w, 5000);
	w.habit[0] = W_ABSENT; // from here by hand
	assert_int_equal(con_verdict_add_vantage(w.v, "v0", "r0", &at), 0);
	for (unsigned i = 0; i < 20; i++) {
		struct con_probe_result r = failure(&w, w.now_ms);
		w.now_ms += 400;
		r.ended_ms = w.now_ms;
		assert_int_equal(con_verdict_result(w.v, 0, 0, &r), 0);
		con_verdict_heard(w.v, 0, true, w.now_ms);
		if (i % 2) { // it changes over and over: that is honoured each 10 s
			struct con_probe_result old = failure(&w, w.now_ms - 1);
			bool fresh = i == 1;
			con_verdict_forget(w.v, 0, w.now_ms);
			old.ended_ms = w.now_ms + 1;
			assert_int_equal(con_verdict_result(w.v, 0, 0, &old),
					 fresh ? SP_E_STALE : 0);
		}
		struct con_node_change c[4];
		w.demotions += con_verdict_cycle(w.v, w.now_ms, c, 4) &&
			       c[0].to == CON_NODE_DOWN;
		if (i < 3)
			assert_int_equal(w.demotions, 0);
	}
	assert_int_equal(w.demotions, 1);
	w_end(&w);
}

static void results_out_of_order_unknown_or_of_no_carrier_are_refused(void **st)
{
	(void)st;
	struct world w;
	w_begin(&w, 18, 1, 2, 1);
	w_run(&w, 3000);
	struct con_probe_result r = failure(&w, w.now_ms - 5);
	r.ended_ms = w.now_ms - 2500;
	assert_int_equal(con_verdict_result(w.v, 0, 0, &r), SP_E_STALE);
	r.ended_ms = w.now_ms;
	assert_int_equal(con_verdict_result(w.v, 0, 7, &r), -ENOENT);
	assert_int_equal(con_verdict_result(w.v, 3, 0, &r), -ENOENT);
	assert_int_equal(con_verdict_result(w.v, 99, 0, &r), -ENOENT);
	r.carrier = 1;
	assert_int_equal(con_verdict_result(w.v, 0, 0, &r), -EINVAL);
	w_end(&w);
}

static void one_bad_carrier_of_two_degrades_and_does_not_demote(void **st)
{
	(void)st;
	struct con_node_view view;
	struct world w;
	unsigned at;
	w_begin(&w, 19, 2, 3, 1);
	assert_int_equal(con_verdict_add_node(w.v, "n0/0", "r0", 2, w.now_ms, &at), 0);
	for (unsigned i = 0; i < 40; i++) {
		w_run(&w, 500);
		for (unsigned a = 0; a < 2; a++) {
			struct con_probe_result r = failure(&w, w.now_ms);
			r.carrier = 1;
			assert_int_equal(con_verdict_result(w.v, a, 0, &r), 0);
		}
	}
	assert_true(con_verdict_node(w.v, 0, &view));
	assert_int_equal(view.state, CON_NODE_DEGRADED);
	assert_int_equal(view.cause, CON_CAUSE_CARRIER);
	assert_int_equal(view.bad_carriers, 2);
	assert_true(w_offered(&w, 0, ""));
	assert_int_equal(w.demotions, 0);
	w_end(&w);
}

static void what_sessions_meet_votes_but_never_alone(void **st)
{
	(void)st;
	struct world w;
	w_begin(&w, 20, 3, 6, 1);
	w_run(&w, 5000);
	for (unsigned i = 0; i < 20; i++) {
		con_verdict_passive(w.v, 0, 0, 50, w.now_ms);
		w_run(&w, 1000);
	}
	assert_int_equal(w.demotions, 0);
	w.habit[1] = w.habit[2] = W_ABSENT; // one vantage is left, and theirs
	w_run(&w, 10000);
	w.dead[0] = true;
	uint64_t began = w.now_ms;
	while (w_offered(&w, 0, "") && w.now_ms < began + 20000) {
		con_verdict_passive(w.v, 0, 0, 1, w.now_ms);
		w_run(&w, 20);
	}
	uint64_t with = w.now_ms - began;
	w.dead[1] = true; // the same without
	w_until(&w, 1, false, 20000);
	assert_true(with < 3500);
	w_end(&w);
}

static void a_node_with_few_failed_sessions_gets_no_vote_against_it(void **st)
{
	(void)st;
	struct world w;
	w_begin(&w, 21, 3, 6, 1);
	w_run(&w, 5000);
	w.habit[0] = W_LIES;
	w.lies_about = 1;
	for (unsigned i = 0; i < 200; i++) {
		con_verdict_passive(w.v, 0, 80, 20, w.now_ms);
		w_run(&w, 100);
	}
	assert_int_equal(w.demotions, 0);
	w_end(&w);
}

static void a_flapping_node_is_offered_for_ever_smaller_parts_of_the_time(void **st)
{
	(void)st;
	struct world w;
	uint64_t offered = 0;
	w_begin(&w, 22, 3, 6, 1);
	w_run(&w, 5000);
	for (unsigned i = 0; i < 600; i++) { // up 6 s, down 6 s, for two hours
		w.dead[1] = i % 2;
		w.n_changes = 0;
		for (unsigned k = 0; k < 60; k++) {
			w_run(&w, 100);
			offered += w_offered(&w, 1, "");
		}
	}
	assert_true(offered * 10 < UINT64_C(600) * 60); // a tenth, though half well
	assert_true(w.demotions < 60);
	w_end(&w);
}

static void latency_is_that_of_the_clients_region_where_it_is_known(void **st)
{
	(void)st;
	struct world w;
	w_begin(&w, 23, 2, 2, 2);
	for (unsigned a = 0; a < 2; a++) {
		struct con_probe_result r = failure(&w, w.now_ms);
		r.ok = true;
		r.latency_us = a ? 90000 : 10000;
		assert_int_equal(con_verdict_result(w.v, a, 0, &r), 0);
	}
	assert_int_equal(con_verdict_latency_us(w.v, 0, "r0"), 10000);
	assert_int_equal(con_verdict_latency_us(w.v, 0, "r1"), 90000);
	assert_int_equal(con_verdict_latency_us(w.v, 0, "elsewhere"), 50000);
	assert_int_equal(con_verdict_latency_us(w.v, 1, "r0"), 0);
	w_end(&w);
}

static void limits_and_names_are_kept(void **st)
{
	(void)st;
	struct world w;
	struct con_verdict_options o;
	unsigned at;
	char name[CON_VERDICT_NAME_MAX + 2];
	w_begin(&w, 24, 5, 2, 1);
	for (unsigned i = 5; i < CON_VANTAGES_MAX; i++) {
		snprintf(name, sizeof(name), "w%u", i);
		assert_int_equal(con_verdict_add_vantage(w.v, name, "", &at), 0);
	}
	assert_int_equal(con_verdict_add_vantage(w.v, "more", "", &at), SP_E_LIMIT);
	con_verdict_remove_vantage(w.v, 3);
	assert_int_equal(con_verdict_add_vantage(w.v, "more", "", &at), 0);
	assert_int_equal(at, 3);
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(con_verdict_add_node(w.v, name, "", 1, 0, &at), SP_E_LIMIT);
	assert_int_equal(con_verdict_add_node(w.v, "x/0", "", 9, 0, &at), SP_E_LIMIT);
	con_verdict_remove_node(w.v, 0);
	assert_int_equal(con_verdict_find_node(w.v, "n0/0"), -ENOENT);
	assert_int_equal(con_verdict_add_node(w.v, "x/0", "r9", 1, 0, &at), 0);
	assert_int_equal(at, 0);
	con_verdict_options_default(&o);
	o.fall = 0;
	assert_int_equal(con_verdict_set_options(w.v, &o), -EINVAL);
	o.fall = CON_VERDICT_STREAK_MAX + 1;
	assert_int_equal(con_verdict_set_options(w.v, &o), -EINVAL);
	w_end(&w);
}

static void nodes_are_found_by_name_while_others_come_and_go(void **st)
{
	(void)st;
	struct con_verdict_options o;
	struct con_verdict *v;
	char name[32];
	unsigned at[300];
	con_verdict_options_default(&o);
	assert_int_equal(con_verdict_new(&o, &v), 0);
	for (unsigned turn = 0; turn < 3; turn++) {
		for (unsigned i = 0; i < 300; i++) {
			snprintf(name, sizeof(name), "n%u/0", i);
			assert_int_equal(con_verdict_add_node(v, name, "r", 1, 1, &at[i]),
					 0);
		}
		for (unsigned i = turn; i < 300; i += 3)
			con_verdict_remove_node(v, at[i]);
		for (unsigned i = 0; i < 300; i++) {
			snprintf(name, sizeof(name), "n%u/0", i);
			assert_int_equal(con_verdict_find_node(v, name),
					 i % 3 == turn ? -ENOENT : (int)at[i]);
		}
	}
	con_verdict_free(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			all_are_healthy_after_the_first_probes_and_unknown_but_offered_before),
		cmocka_unit_test(a_demotion_names_rung_reason_and_who_saw_it),
		cmocka_unit_test(no_more_than_the_cap_of_a_region_is_demoted),
		cmocka_unit_test(one_of_a_small_region_may_go_but_never_the_last),
		cmocka_unit_test(when_more_than_half_of_the_fleet_dies_all_are_offered),
		cmocka_unit_test(
			a_fleet_that_dies_one_by_one_ends_in_panic_and_offers_all),
		cmocka_unit_test(hold_down_grows_with_flaps_to_its_bound),
		cmocka_unit_test(a_demotion_long_ago_is_no_flap),
		cmocka_unit_test(
			a_held_down_node_is_offered_at_once_if_its_region_has_no_other),
		cmocka_unit_test(a_node_that_returns_starts_slowly),
		cmocka_unit_test(
			a_dead_node_is_unreached_3_s_after_the_first_probes_that_failed),
		cmocka_unit_test(a_node_that_answers_but_does_not_serve_is_not_unreached),
		cmocka_unit_test(
			a_node_frozen_for_less_or_blocked_for_some_is_never_unreached),
		cmocka_unit_test(
			whoever_tells_first_demotes_nobody_before_the_others_have_looked),
		cmocka_unit_test(one_that_never_speaks_is_not_waited_for_for_long),
		cmocka_unit_test(blocked_from_one_vantage_is_not_dead),
		cmocka_unit_test(
			a_node_blocked_from_one_place_is_found_dead_by_the_others),
		cmocka_unit_test(a_vantage_that_fails_its_controls_has_no_vote),
		cmocka_unit_test(
			a_vantage_that_fails_more_than_half_of_the_fleet_has_no_vote),
		cmocka_unit_test(silence_of_all_vantages_changes_nothing_and_is_said),
		cmocka_unit_test(a_draining_node_is_not_offered_and_its_state_comes_back),
		cmocka_unit_test(what_a_draining_node_refused_does_not_count_after_it),
		cmocka_unit_test(results_from_before_a_nodes_change_do_not_count),
		cmocka_unit_test(
			results_out_of_order_unknown_or_of_no_carrier_are_refused),
		cmocka_unit_test(one_bad_carrier_of_two_degrades_and_does_not_demote),
		cmocka_unit_test(what_sessions_meet_votes_but_never_alone),
		cmocka_unit_test(a_node_with_few_failed_sessions_gets_no_vote_against_it),
		cmocka_unit_test(
			a_flapping_node_is_offered_for_ever_smaller_parts_of_the_time),
		cmocka_unit_test(latency_is_that_of_the_clients_region_where_it_is_known),
		cmocka_unit_test(limits_and_names_are_kept),
		cmocka_unit_test(nodes_are_found_by_name_while_others_come_and_go),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
