// Carriers that fall silent after some bytes: what is taken for a limit and what is not.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/freeze.h"

static void two_like_silences_make_a_budget_of_half_of_the_smaller(void **state)
{
	struct cli_freeze f = {0};
	(void)state;
	assert_int_equal(cli_freeze_budget(&f, 0), 0);
	assert_false(cli_freeze_silent(&f, 15000, 1000));
	assert_int_equal(cli_freeze_budget(&f, 1000), 0);
	assert_true(cli_freeze_silent(&f, 14000, 2000));
	assert_int_equal(cli_freeze_budget(&f, 2000), 7000);
	assert_false(cli_freeze_silent(&f, 12000, 3000)); // no news, but a smaller one
	assert_int_equal(cli_freeze_budget(&f, 3000), 6000);
}

static void silences_that_differ_are_no_limit(void **state)
{
	struct cli_freeze f = {0};
	(void)state;
	assert_false(cli_freeze_silent(&f, 3000, 0));
	assert_false(cli_freeze_silent(&f, 15000, 0));
	assert_false(cli_freeze_silent(&f, 100000, 0));
	assert_false(cli_freeze_silent(&f, 20000, 0));
	assert_int_equal(cli_freeze_budget(&f, 0), 0);
	assert_true(cli_freeze_silent(&f, 21000, 0)); // like the last one
}

static void a_carrier_that_carried_hardly_anything_or_much_breaks_the_row(void **state)
{
	static const uint64_t breaks[] = {0, CLI_FREEZE_MIN_BYTES - 1,
					  CLI_FREEZE_MAX_BYTES + 1, UINT64_MAX};
	(void)state;
	for (size_t i = 0; i < sizeof(breaks) / sizeof(*breaks); i++) {
		struct cli_freeze f = {0};
		assert_false(cli_freeze_silent(&f, 15000, 0));
		assert_false(cli_freeze_silent(&f, breaks[i], 0));
		assert_false(cli_freeze_silent(&f, 15000, 0));
		assert_int_equal(cli_freeze_budget(&f, 0), 0);
	}
}

static void a_limit_is_disproved_by_four_times_its_bytes(void **state)
{
	struct cli_freeze f = {0};
	(void)state;
	(void)cli_freeze_silent(&f, 15000, 0);
	(void)cli_freeze_silent(&f, 15000, 0);
	cli_freeze_carried(&f, 60000);
	assert_int_equal(cli_freeze_budget(&f, 0), 7500);
	cli_freeze_carried(&f, 60001);
	assert_int_equal(cli_freeze_budget(&f, 0), 0);
}

static void a_limit_is_found_out_anew_after_its_time(void **state)
{
	struct cli_freeze f = {0};
	(void)state;
	(void)cli_freeze_silent(&f, 15000, 0);
	(void)cli_freeze_silent(&f, 15000, 1000);
	assert_int_equal(cli_freeze_budget(&f, 1000 + CLI_FREEZE_KEPT_MS - 1), 7500);
	assert_int_equal(cli_freeze_budget(&f, 1000 + CLI_FREEZE_KEPT_MS), 0);
	assert_true(
		cli_freeze_silent(&f, 15000, 2000 + CLI_FREEZE_KEPT_MS)); // still there
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_like_silences_make_a_budget_of_half_of_the_smaller),
		cmocka_unit_test(silences_that_differ_are_no_limit),
		cmocka_unit_test(
			a_carrier_that_carried_hardly_anything_or_much_breaks_the_row),
		cmocka_unit_test(a_limit_is_disproved_by_four_times_its_bytes),
		cmocka_unit_test(a_limit_is_found_out_anew_after_its_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
