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
		cmocka_unit_test(a_killed_node_is_out_within_3_s_at_1_s_intervals),
		cmocka_unit_test(
			a_node_that_falls_silent_is_out_within_3_s_with_a_deadline_of_500_ms),
		cmocka_unit_test(a_liar_or_a_flatterer_only_delays_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
