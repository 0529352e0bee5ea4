// Handshake budgets: rates, bursts, what counts as one source, bounded memory.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/budget.h"

static struct sp_budget *make(uint32_t sources, uint32_t per_minute, uint32_t burst,
			      uint32_t all_per_second, uint32_t all_burst)
{
	struct sp_budget_options opt = {sources, per_minute, burst, all_per_second,
					all_burst};
	struct sp_budget *b = NULL;

	assert_int_equal(sp_budget_new(&opt, &b), 0);
	return b;
}

static int take4(struct sp_budget *b, uint32_t addr, uint64_t now_ms)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(addr)}};

	return sp_budget_take(b, (const struct sockaddr *)&sa, now_ms);
}

static int take6(struct sp_budget *b, const char *text, uint64_t now_ms)
{
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6};

	assert_int_equal(inet_pton(AF_INET6, text, &sa.sin6_addr), 1);
	return sp_budget_take(b, (const struct sockaddr *)&sa, now_ms);
}

static void a_source_has_its_burst_and_then_its_rate(void **state)
{
	struct sp_budget *b = make(64, 60, 20, 1000, 1000);

	(void)state;
	for (int i = 0; i < 20; i++)
		assert_int_equal(take4(b, 1, 777), 0);
	assert_int_equal(take4(b, 1, 777), SP_E_LIMIT);
	assert_int_equal(take4(b, 1, 1776), SP_E_LIMIT);
	assert_int_equal(take4(b, 1, 1777), 0); // one a second
	assert_int_equal(take4(b, 1, 1777), SP_E_LIMIT);
	assert_int_equal(take4(b, 2, 1777), 0); // another is not touched
	for (int i = 0; i < 20; i++) // full again after its burst's worth of time
		assert_int_equal(take4(b, 1, 21777), 0);
	assert_int_equal(take4(b, 1, 21777), SP_E_LIMIT);
	sp_budget_free(b);
}

static void a_slash_64_is_one_source_and_a_mapped_address_is_ipv4(void **state)
{
	struct sp_budget *b = make(64, 60, 1, 1000, 1000);

	(void)state;
	assert_int_equal(take6(b, "2001:db8:1:2::1", 0), 0);
	assert_int_equal(take6(b, "2001:db8:1:2:ffff::9", 0), SP_E_LIMIT);
	assert_int_equal(take6(b, "2001:db8:1:3::1", 0), 0);
	assert_int_equal(take4(b, 0x0a000001, 0), 0);
	assert_int_equal(take6(b, "::ffff:10.0.0.1", 0), SP_E_LIMIT);
	sp_budget_free(b);
}

static void families_without_addresses_share_one_bucket(void **state)
{
	struct sp_budget *b = make(64, 60, 1, 1000, 1000);
	struct sockaddr sa = {.sa_family = AF_UNIX};

	(void)state;
	assert_int_equal(sp_budget_take(b, &sa, 0), 0);
	assert_int_equal(sp_budget_take(b, &sa, 0), SP_E_LIMIT);
	sp_budget_free(b);
}

static void all_sources_together_have_a_budget(void **state)
{
	struct sp_budget *b = make(4096, 60, 20, 10, 50);

	(void)state;
	for (uint32_t i = 0; i < 50; i++)
		assert_int_equal(take4(b, i, 0), 0);
	assert_int_equal(take4(b, 99, 0), SP_E_LIMIT);
	assert_int_equal(take4(b, 99, 99), SP_E_LIMIT);
	assert_int_equal(take4(b, 99, 100), 0); // ten a second
	sp_budget_free(b);
}

static void a_refused_source_takes_nothing_from_the_others(void **state)
{
	struct sp_budget *b = make(64, 60, 1, 10, 50);

	(void)state;
	assert_int_equal(take4(b, 1, 0), 0);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(take4(b, 1, 0), SP_E_LIMIT);
	for (uint32_t i = 2; i < 51; i++)
		assert_int_equal(take4(b, i, 0), 0);
	sp_budget_free(b);
}

static void with_the_table_full_the_stalest_source_goes(void **state)
{
	struct sp_budget *b = make(8, 60, 1, 100000, 100000); // one set of eight

	(void)state;
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(take4(b, i, i), 0);
	assert_int_equal(take4(b, 100, 10), 0); // takes the place of source 0
	for (uint32_t i = 1; i < 8; i++)
		assert_int_equal(take4(b, i, 10), SP_E_LIMIT);
	assert_int_equal(take4(b, 0, 10), 0); // which was forgotten
	sp_budget_free(b);
}

static void a_flood_of_sources_is_held_by_the_budget_over_all(void **state)
{
	struct sp_budget *b = make(64, 60, 20, 500, 1000);
	unsigned granted = 0;

	(void)state;
	for (uint64_t ms = 0; ms < 10000; ms++)
		for (int i = 0; i < 10; i++)
			granted += !take4(b, randombytes_random(), ms);
	assert_in_range(granted, 1000 + 4990, 1000 + 5000);
	sp_budget_free(b);
}

static void impossible_options_are_refused(void **state)
{
	struct sp_budget_options opt, bad;
	struct sp_budget *b;

	(void)state;
	sp_budget_options_default(&opt);
	assert_int_equal(sp_budget_new(&opt, &b), 0);
	sp_budget_free(b);
	sp_budget_free(NULL);
	bad = opt;
	bad.sources = 0;
	assert_int_equal(sp_budget_new(&bad, &b), -22);
	bad = opt;
	bad.sources = (1u << 20) + 1;
	assert_int_equal(sp_budget_new(&bad, &b), -22);
	bad = opt;
	bad.per_minute = 0;
	assert_int_equal(sp_budget_new(&bad, &b), -22);
	bad = opt;
	bad.all_burst = 0;
	assert_int_equal(sp_budget_new(&bad, &b), -22);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_source_has_its_burst_and_then_its_rate),
		cmocka_unit_test(a_slash_64_is_one_source_and_a_mapped_address_is_ipv4),
		cmocka_unit_test(families_without_addresses_share_one_bucket),
		cmocka_unit_test(all_sources_together_have_a_budget),
		cmocka_unit_test(a_refused_source_takes_nothing_from_the_others),
		cmocka_unit_test(with_the_table_full_the_stalest_source_goes),
		cmocka_unit_test(a_flood_of_sources_is_held_by_the_budget_over_all),
		cmocka_unit_test(impossible_options_are_refused),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
