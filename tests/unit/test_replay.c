// The set of seen ephemerals, and its adoption from memory that another process left.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/replay.h"

#define HORIZON SP_REPLAY_HORIZON_MS

static struct sp_replay *make_set(uint32_t capacity)
{
	size_t bytes = sp_replay_bytes(capacity);
	struct sp_replay *r = NULL;

	assert_int_equal(sp_replay_format(malloc(bytes), bytes, capacity, &r), 0);
	return r;
}

static const uint8_t *key(uint32_t n)
{
	static uint8_t k[32];

	memcpy(k, &n, sizeof(n));
	return k;
}

static void a_key_is_seen_for_exactly_the_horizon(void **state)
{
	struct sp_replay *r = make_set(8);

	(void)state;
	assert_false(sp_replay_seen(r, key(1), 1000));
	assert_int_equal(sp_replay_add(r, key(1), 1000), 0);
	assert_int_equal(sp_replay_add(r, key(1), 1000), SP_E_REPLAY);
	assert_true(sp_replay_seen(r, key(1), 1000 + HORIZON));
	assert_int_equal(sp_replay_add(r, key(1), 1000 + HORIZON), SP_E_REPLAY);
	assert_false(sp_replay_seen(r, key(1), 1001 + HORIZON));
	assert_int_equal(sp_replay_add(r, key(1), 1001 + HORIZON), 0);
	assert_int_equal(sp_replay_count(r), 1);
	free(r);
}

static void a_full_set_refuses_until_its_oldest_ages(void **state)
{
	struct sp_replay *r = make_set(5);

	(void)state;
	for (uint32_t i = 0; i < 5; i++)
		assert_int_equal(sp_replay_add(r, key(i), 100 * i), 0);
	assert_int_equal(sp_replay_add(r, key(9), HORIZON), SP_E_LIMIT);
	assert_int_equal(sp_replay_add(r, key(9), HORIZON + 1), 0);
	assert_int_equal(sp_replay_add(r, key(10), HORIZON + 1), SP_E_LIMIT);
	for (uint32_t i = 1; i < 5; i++)
		assert_int_equal(sp_replay_add(r, key(i), HORIZON + 1), SP_E_REPLAY);
	free(r);
}

static void it_agrees_with_a_plain_list_over_a_long_random_run(void **state)
{
	enum { KEYS = 400 };
	struct sp_replay *r = make_set(100);
	uint64_t now = 5000000, added[KEYS] = {0};
	uint32_t live;

	(void)state;
	for (int i = 0; i < 200000; i++) {
		uint32_t k = randombytes_uniform(KEYS);
		bool seen = added[k] && now - added[k] <= HORIZON;
		int want, got;

		now += randombytes_uniform(4000);
		seen = added[k] && now - added[k] <= HORIZON;
		live = 0;
		for (int j = 0; j < KEYS; j++)
			live += added[j] && now - added[j] <= HORIZON;
		want = seen ? SP_E_REPLAY : live < 100 ? 0 : SP_E_LIMIT;
		assert_int_equal(sp_replay_seen(r, key(k), now), seen);
		got = sp_replay_add(r, key(k), now);
		assert_int_equal(got, want);
		if (!got)
			added[k] = now;
	}
	free(r);
}

static void a_clock_that_steps_back_forgets_nothing_within_the_horizon(void **state)
{
	struct sp_replay *r = make_set(8);

	(void)state;
	assert_int_equal(sp_replay_add(r, key(1), 1000000), 0);
	assert_true(sp_replay_seen(r, key(1), 1000000 - HORIZON));
	assert_int_equal(sp_replay_add(r, key(2), 1000000 - HORIZON), 0);
	assert_true(sp_replay_seen(r, key(2), 1000000));
	assert_true(sp_replay_seen(r, key(1), 1000000));
	free(r);
}

static void a_clock_far_back_does_not_block_the_set(void **state)
{
	struct sp_replay *r = make_set(4);

	(void)state;
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(sp_replay_add(r, key(i), 9000000), 0);
	assert_int_equal(sp_replay_add(r, key(7), 1000), 0);
	free(r);
}

static void an_adopted_set_knows_what_it_knew(void **state)
{
	size_t bytes = sp_replay_bytes(50);
	struct sp_replay *r = make_set(50), *again = NULL;
	void *copy = malloc(bytes);

	(void)state;
	for (uint32_t i = 0; i < 80; i++) // the ring goes round
		assert_int_equal(sp_replay_add(r, key(i), i < 40 ? 0 : HORIZON + 1), 0);
	memcpy(copy, r, bytes); // at another address
	assert_int_equal(sp_replay_adopt(copy, bytes, &again), 0);
	assert_int_equal(sp_replay_count(again), 40);
	for (uint32_t i = 0; i < 80; i++)
		assert_int_equal(sp_replay_seen(again, key(i), HORIZON + 1), i >= 40);
	for (uint32_t i = 40; i < 80;
	     i++) // and its chains hold when they are taken apart
		assert_int_equal(sp_replay_add(again, key(i), 3 * HORIZON), 0);
	free(copy);
	free(r);
}

static void damaged_memory_is_not_adopted_or_does_no_harm(void **state)
{
	size_t bytes = sp_replay_bytes(6);
	struct sp_replay *r = make_set(6), *again;
	uint8_t *copy = malloc(bytes);
	int adopted = 0;

	(void)state;
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(sp_replay_add(r, key(i), 0), 0);
	for (int i = 0; i < 50000; i++) {
		memcpy(copy, r, bytes);
		for (int n = 0; n < 3; n++)
			copy[randombytes_uniform((uint32_t)bytes)] ^=
				(uint8_t)(1 + randombytes_uniform(255));
		if (sp_replay_adopt(copy, bytes, &again))
			continue;
		adopted++;
		for (uint32_t k = 100; k < 110; k++)
			if (sp_replay_add(again, key(k), k * HORIZON))
				continue;
	}
	assert_true(adopted > 0);
	for (size_t len = 0; len < bytes; len++) {
		memcpy(copy, r, bytes);
		assert_int_equal(sp_replay_adopt(copy, len, &again), SP_E_MALFORMED);
	}
	free(copy);
	free(r);
}

static void sizes_out_of_range_are_refused(void **state)
{
	struct sp_replay *r;
	uint64_t mem[64];

	(void)state;
	assert_int_equal(sp_replay_bytes(0), 0);
	assert_int_equal(sp_replay_bytes((1u << 24) + 1), 0);
	assert_int_equal(sp_replay_format(mem, sizeof(mem), 0, &r), -22);
	assert_int_equal(sp_replay_format(mem, sp_replay_bytes(4) - 1, 4, &r), -22);
	assert_int_equal(sp_replay_format((uint8_t *)mem + 4, 400, 4, &r), -22);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_is_seen_for_exactly_the_horizon),
		cmocka_unit_test(a_full_set_refuses_until_its_oldest_ages),
		cmocka_unit_test(it_agrees_with_a_plain_list_over_a_long_random_run),
		cmocka_unit_test(
			a_clock_that_steps_back_forgets_nothing_within_the_horizon),
		cmocka_unit_test(a_clock_far_back_does_not_block_the_set),
		cmocka_unit_test(an_adopted_set_knows_what_it_knew),
		cmocka_unit_test(damaged_memory_is_not_adopted_or_does_no_harm),
		cmocka_unit_test(sizes_out_of_range_are_refused),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
