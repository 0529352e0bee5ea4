// The verdict in virtual time, over many seeds: what loses no node, what finds a dead one
// and how fast. SP_SEEDS=N runs more; a failure prints its seed.
#include "tests/unit/verdict_world.h"

static unsigned seeds(unsigned usual)
{
	const char *text = getenv("SP_SEEDS");
	return text ? (unsigned)strtoul(text, NULL, 10) : usual;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static void lost_probes_a_liar_and_one_cut_off_demote_nobody(unsigned vantages,
							     unsigned lies_about,
							     bool controls_ok)
{
	struct world w;
	for (unsigned seed = 1; seed <= seeds(40); seed++) {
		w_begin(&w, seed, vantages, 10, 3);
		w.loss_percent = 5;
		w.fail_ms = 500;
		w.habit[0] = W_LIES;
		w.lies_about = lies_about;
		w_run(&w, 60000);
		w.habit[1] = W_CUT_OFF;
		w.controls_ok[1] = controls_ok;
		w_run(&w, 540000);
		if (w.demotions)
			print_message("seed %u: %u demotions\n", seed, w.demotions);
		assert_int_equal(w.demotions, 0);
		for (unsigned n = 0; n < w.n_nodes; n++)
			assert_true(w_offered(&w, n, ""));
		w_end(&w);
	}
}

static void
three_vantages_one_lying_one_cut_off_demote_nobody_in_ten_minutes(void **state)
{
	(void)state;
	lost_probes_a_liar_and_one_cut_off_demote_nobody(3, 4, false);
}

static void
a_vantage_that_is_cut_off_but_reaches_its_controls_demotes_nobody(void **state)
{
	(void)state;
	lost_probes_a_liar_and_one_cut_off_demote_nobody(4, 4, true);
}

static void five_vantages_one_lying_about_all_demote_nobody(void **state)
{
	(void)state;
	lost_probes_a_liar_and_one_cut_off_demote_nobody(5, 10, false);
}

// Worse liars: one that says "well" now and then, so that nobody refutes it for long; and
// one that does so and tells ten results for every one of the others.
static void a_vantage_that_wavers_or_hurries_demotes_nobody(void **state)
{
	static const enum w_habit habits[] = {W_WAVERS, W_HURRIES};
	(void)state;
	for (unsigned k = 0; k < 4; k++)
		for (unsigned seed = 1; seed <= seeds(8); seed++) {
			struct world w;
			w_begin(&w, seed, 3 + k / 2, 10, 3);
			w.loss_percent = 5;
			w.fail_ms = k % 2 ? 1 : 500;
			w.habit[0] = habits[k % 2];
			w.lies_about = 4;
			w.habit[1] = W_CUT_OFF;
			w.controls_ok[1] = false;
			for (unsigned i = 0; i < 60; i++, w.n_changes = 0)
				w_run(&w, 10000);
			if (w.demotions)
				print_message("habit %u seed %u: %u demotions\n", k % 2,
					      seed, w.demotions);
			assert_int_equal(w.demotions, 0);
			w_end(&w);
		}
}

static uint64_t hold_of(struct world *w, unsigned n, unsigned *ret_flaps)
{
	struct con_node_view view;
	assert_true(con_verdict_node(w->v, n, &view));
	*ret_flaps = view.flaps;
	return view.held_until_ms;
}

// Hours in which the liar lies of others all the time, the cable of another vantage is
// cut and mended, 5 % is lost; and one node that really dies each few minutes.
static void in_many_hours_only_what_flaps_is_demoted_for_ever_longer(void **state)
{
	enum { FLAPS = 9, STEP_MS = 1000, HOURS = 6 };
	(void)state;
	for (unsigned seed = 1; seed <= seeds(1); seed++) {
		struct world w;
		unsigned flaps = 0, falls = 0;
		uint64_t held = 0, longest = 0;
		w_begin(&w, seed, 3, 10, 3);
		w.loss_percent = 5;
		w.fail_ms = 500;
		w.habit[0] = W_LIES;
		for (unsigned s = 0; s < HOURS * 3600; s++, w.n_changes = 0) {
			if (w_random(&w) % 30 == 0)
				w.lies_about = w_random(&w) % 5;
			if (w_random(&w) % 60 == 0) {
				bool cut = w.habit[1] != W_CUT_OFF;
				w.habit[1] = cut ? W_CUT_OFF : W_HONEST;
				w.controls_ok[1] = !cut;
			}
			w.dead[FLAPS] = s % 150 < 25 && s < (HOURS - 1) * 3600;
			w_run(&w, STEP_MS);
			for (unsigned i = 0; i < w.n_changes; i++) {
				if (w.change[i].to != CON_NODE_DOWN)
					continue;
				if (w.change[i].node != FLAPS)
					fail_msg("seed %u: node %u fell after %u s", seed,
						 w.change[i].node, s);
				falls++;
				held = hold_of(&w, FLAPS, &flaps) - w.change_ms[i];
				assert_true(held <= 300000);
				if (flaps > 1 && falls < 9)
					assert_true(held > longest);
				longest = held > longest ? held : longest;
			}
		}
		assert_true(falls > 100);
		assert_int_equal(longest, 300000);
		assert_true(w_offered(&w, FLAPS, "")); // an hour after its last
		w_end(&w);
	}
}

// A node dies at a random instant; ms until it is not offered, over seeds.
static void measure(const char *what, unsigned vantages, uint32_t fail_ms, unsigned loss,
		    enum w_habit third, uint64_t limit)
{
	unsigned n = seeds(2000);
	uint64_t *took = calloc(n, sizeof(*took));
	struct world w;
	for (unsigned seed = 1; seed <= n; seed++) {
		w_begin(&w, seed, vantages, 5, 2);
		w.loss_percent = loss;
		w.fail_ms = fail_ms;
		if (vantages > 2)
			w.habit[2] = third;
		w.lies_about = 1;
		w_run(&w, 12000 + w_random(&w) % 2000);
		unsigned victim = 1 + w_random(&w) % 4; // node 4 is the third of r0
		w.dead[victim] = true;
		took[seed - 1] = w_until(&w, victim, false, 20000);
		w_end(&w);
	}
	qsort(took, n, sizeof(*took), compare);
	uint64_t p50 = took[n / 2], p99 = took[(uint64_t)n * 99 / 100], max = took[n - 1];
	print_message("%s: p50 %lu p99 %lu max %lu ms over %u seeds\n", what,
		      (unsigned long)p50, (unsigned long)p99, (unsigned long)max, n);
	free(took);
	assert_true(p99 <= limit);
}

static void a_killed_node_is_out_within_3_s_at_1_s_intervals(void **state)
{
	(void)state;
	measure("killed, 3 vantages", 3, 1, 0, W_HONEST, 3000);
	measure("killed, 3 vantages, 5 % loss", 3, 1, 5, W_HONEST, 3000);
	measure("killed, 1 vantage", 1, 1, 0, W_HONEST, 3000);
	measure("killed, 5 vantages", 5, 1, 0, W_HONEST, 3000);
}

static void
a_node_that_falls_silent_is_out_within_3_s_with_a_deadline_of_500_ms(void **state)
{
	(void)state;
	measure("silent, 3 vantages", 3, 500, 0, W_HONEST, 3000);
	measure("silent, 3 vantages, 5 % loss", 3, 500, 5, W_HONEST, 3000);
}

static void a_liar_or_a_flatterer_only_delays_it(void **state)
{
	(void)state;
	measure("killed, one of 3 lies", 3, 1, 0, W_LIES, 5000);
	measure("killed, one of 3 says all is well", 3, 1, 0, W_FLATTERS, 10000);
	measure("killed, one of 3 is absent", 3, 1, 0, W_ABSENT, 5000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			three_vantages_one_lying_one_cut_off_demote_nobody_in_ten_minutes),
		cmocka_unit_test(
			a_vantage_that_is_cut_off_but_reaches_its_controls_demotes_nobody),
		cmocka_unit_test(five_vantages_one_lying_about_all_demote_nobody),
		cmocka_unit_test(a_vantage_that_wavers_or_hurries_demotes_nobody),
		cmocka_unit_test(
			in_many_hours_only_what_flaps_is_demoted_for_ever_longer),
		cmocka_unit_test(a_killed_node_is_out_within_3_s_at_1_s_intervals),
		cmocka_unit_test(
			a_node_that_falls_silent_is_out_within_3_s_with_a_deadline_of_500_ms),
		cmocka_unit_test(a_liar_or_a_flatterer_only_delays_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
