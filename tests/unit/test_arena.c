#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/arena.h"
#include "lib/idmap.h"

static struct sp_arena *small(uint32_t streams, uint64_t memory)
{
	struct sp_arena *a;
	struct sp_arena_options o = {
		.max_sessions = 2, .max_streams = streams, .memory_bytes = memory};
	assert_int_equal(sp_arena_new(&o, &a), 0);
	return a;
}

static void records_run_out_and_come_back(void **state)
{
	(void)state;
	struct sp_arena *a = small(2, 0);
	uint32_t x = sp_arena_stream_alloc(a), y = sp_arena_stream_alloc(a);
	assert_int_not_equal(x, SP_ARENA_NONE);
	assert_int_not_equal(y, x);
	assert_int_equal(sp_arena_stream_alloc(a), SP_ARENA_NONE);
	sp_arena_stream(a, x)->id = 77;
	sp_arena_stream_release(a, x);
	assert_int_equal(sp_arena_stream_alloc(a), x);
	assert_int_equal(sp_arena_stream(a, x)->id, 0);
	assert_int_equal(sp_arena_stream(a, x)->fd[0], SP_STREAM_DESC_NONE);
	sp_arena_free(a);
}

static void a_freed_session_record_is_wiped(void **state)
{
	(void)state;
	struct sp_arena *a = small(1, 0);
	uint32_t i = sp_arena_session_alloc(a);
	struct sp_session_rec *r = sp_arena_session(a, i), zero;
	memset(&zero, 0, sizeof(zero));
	memset(r, 0x5a, sizeof(*r));
	sp_arena_session_release(a, i);
	assert_memory_equal(r, &zero, sizeof(zero));
	sp_arena_free(a);
}

static bool is_zero(struct sp_arena *a, uint32_t chunk)
{
	const uint8_t *p = sp_arena_chunk(a, chunk);
	return p[0] == 0 && memcmp(p, p + 1, SP_CHUNK_BYTES - 1) == 0;
}

static void chunks_that_stay_free_are_wiped_and_those_in_use_are_not(void **state)
{
	(void)state;
	struct sp_arena *a = small(1, 8 * SP_CHUNK_BYTES);
	uint32_t c[6];
	for (int i = 0; i < 6; i++) {
		c[i] = sp_arena_chunk_alloc(a, false);
		memset(sp_arena_chunk(a, c[i]), 0x5a, SP_CHUNK_BYTES);
	}
	assert_int_equal(sp_arena_wipe(a, 100), 0);
	for (int i = 0; i < 4; i++)
		sp_arena_chunk_release(a, c[i], false);
	assert_int_equal(sp_arena_wipe(a, 3), 3); // the one that comes next is last
	assert_true(is_zero(a, c[0]) && is_zero(a, c[1]) && is_zero(a, c[2]));
	assert_false(is_zero(a, c[3]));
	// Taken while clean, used and back: dirty again.
	assert_int_equal(sp_arena_chunk_alloc(a, false), c[3]);
	assert_int_equal(sp_arena_chunk_alloc(a, false), c[2]);
	memset(sp_arena_chunk(a, c[2]), 0x5a, SP_CHUNK_BYTES);
	sp_arena_chunk_release(a, c[2], false);
	assert_int_equal(sp_arena_wipe(a, 100), 1);
	assert_true(is_zero(a, c[2]));
	assert_false(is_zero(a, c[3]) || is_zero(a, c[4]) || is_zero(a, c[5]));
	assert_int_equal(sp_arena_wipe(a, 100), 0);
	sp_arena_free(a);
}

static void what_is_promised_to_a_stream_is_there_when_the_pool_is_empty(void **state)
{
	(void)state;
	struct sp_arena *a = small(3, 2 * SP_CHUNK_BYTES);
	for (int i = 0; i < 3; i++)
		assert_int_not_equal(sp_arena_stream_alloc(a), SP_ARENA_NONE);
	assert_int_equal(sp_arena_chunks_spare(a), 2);
	assert_int_not_equal(sp_arena_chunk_alloc(a, false), SP_ARENA_NONE);
	assert_int_not_equal(sp_arena_chunk_alloc(a, false), SP_ARENA_NONE);
	assert_int_equal(sp_arena_chunk_alloc(a, false), SP_ARENA_NONE);
	uint32_t last = SP_ARENA_NONE;
	for (int i = 0; i < 3 * SP_ARENA_PROMISED; i++) {
		last = sp_arena_chunk_alloc(a, true);
		assert_int_not_equal(last, SP_ARENA_NONE);
	}
	sp_arena_chunk_release(a, last, true);
	assert_int_equal(sp_arena_chunk_alloc(a, false), SP_ARENA_NONE);
	assert_int_equal(sp_arena_chunk_alloc(a, true), last);
	sp_arena_free(a);
}

static void credit_is_whole_chunks_and_at_most_half_the_pool(void **state)
{
	(void)state;
	struct sp_arena *a = small(1, 24 * SP_CHUNK_BYTES);
	assert_int_equal(sp_arena_credit_take(a, 30000), 28672);
	assert_int_equal(sp_arena_credit_left(a), 5 * SP_CHUNK_BYTES);
	assert_int_equal(sp_arena_credit_take(a, 30000), 20480);
	assert_int_equal(sp_arena_credit_take(a, 4096), 0);
	sp_arena_credit_return(a, 49152);
	assert_int_equal(sp_arena_credit_take(a, 4096), 4096);
	sp_arena_free(a);
}

static void credit_is_a_promise_of_chunks(void **state)
{
	(void)state;
	struct sp_arena *a = small(1, 16 * SP_CHUNK_BYTES);
	assert_int_equal(sp_arena_credit_take(a, 4 * SP_CHUNK_BYTES), 16384);
	for (int i = 0; i < 12; i++)
		assert_int_not_equal(sp_arena_chunk_alloc(a, false), SP_ARENA_NONE);
	assert_int_equal(sp_arena_chunk_alloc(a, false), SP_ARENA_NONE);
	assert_int_equal(sp_arena_credit_take(a, 4096), 0); // nothing is spare
	for (int i = 0; i < 4; i++)
		assert_int_not_equal(sp_arena_chunk_alloc(a, true), SP_ARENA_NONE);
	sp_arena_free(a);
}

static int woken;

static void wake(struct sp_starved *self)
{
	(void)self;
	woken++;
}

static void the_starved_are_woken_when_an_eighth_is_spare(void **state)
{
	(void)state;
	struct sp_arena *a = small(1, 16 * SP_CHUNK_BYTES);
	uint32_t c[16];
	struct sp_starved s = {.wake = wake};
	for (int i = 0; i < 16; i++)
		c[i] = sp_arena_chunk_alloc(a, false);
	sp_arena_starve(a, &s);
	sp_arena_starve(a, &s); // twice is once
	sp_arena_chunk_release(a, c[0], false);
	sp_arena_feed(a);
	assert_int_equal(woken, 0);
	sp_arena_chunk_release(a, c[1], false);
	sp_arena_feed(a);
	assert_int_equal(woken, 1);
	sp_arena_feed(a);
	assert_int_equal(woken, 1);
	sp_arena_free(a);
}

static void an_idmap_agrees_with_an_array_over_random_work(void **state)
{
	(void)state;
	struct sp_idmap m;
	static void *want[512];
	uint32_t x = 12345;
	sp_idmap_init(&m);
	for (int i = 0; i < 200000; i++) {
		x = x * 1664525 + 1013904223;
		uint32_t id = (x >> 8) % 512;
		if (want[id]) {
			assert_ptr_equal(sp_idmap_get(&m, id * 64ull), want[id]);
			sp_idmap_remove(&m, id * 64ull);
			want[id] = NULL;
		} else {
			assert_null(sp_idmap_get(&m, id * 64ull));
			want[id] = &want[(x >> 16) % 512];
			assert_int_equal(sp_idmap_put(&m, id * 64ull, want[id]), 0);
		}
	}
	for (uint32_t id = 0; id < 512; id++)
		assert_ptr_equal(sp_idmap_get(&m, id * 64ull), want[id]);
	sp_idmap_done(&m);
}

// Where `id` stands when it is alone in the table.
static uint32_t place_of(struct sp_idmap *m, uint64_t id)
{
	uint32_t i = 0;
	assert_int_equal(sp_idmap_put(m, id, m), 0);
	while (!m->slots[i].value)
		i++;
	sp_idmap_remove(m, id);
	return i;
}

static void ids_that_collide_in_one_idmap_do_not_in_another(void **state)
{
	(void)state;
	struct sp_idmap a, b;
	sp_idmap_init(&a);
	sp_idmap_init(&b);
	for (uint64_t id = 0; id < 100; id++) {
		assert_int_equal(sp_idmap_put(&a, id, &a), 0);
		assert_int_equal(sp_idmap_put(&b, id, &b), 0);
	}
	for (uint64_t id = 0; id < 100; id++) {
		sp_idmap_remove(&a, id);
		sp_idmap_remove(&b, id);
	}
	int found = 0, same = 0;
	uint32_t at_a = place_of(&a, 0), at_b = place_of(&b, 0);
	for (uint64_t id = 1; found < 64; id++)
		if (place_of(&a, id) == at_a) {
			found++;
			same += place_of(&b, id) == at_b;
		}
	assert_in_range(same, 0, 16);
	sp_idmap_done(&a);
	sp_idmap_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_run_out_and_come_back),
		cmocka_unit_test(a_freed_session_record_is_wiped),
		cmocka_unit_test(
			chunks_that_stay_free_are_wiped_and_those_in_use_are_not),
		cmocka_unit_test(
			what_is_promised_to_a_stream_is_there_when_the_pool_is_empty),
		cmocka_unit_test(credit_is_whole_chunks_and_at_most_half_the_pool),
		cmocka_unit_test(credit_is_a_promise_of_chunks),
		cmocka_unit_test(the_starved_are_woken_when_an_eighth_is_spare),
		cmocka_unit_test(ids_that_collide_in_one_idmap_do_not_in_another),
		cmocka_unit_test(an_idmap_agrees_with_an_array_over_random_work),
	};
	return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
