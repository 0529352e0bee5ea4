// What a receiver of a chaos stream finds in bytes that are not those that were due.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/chaos/flows.h"

#define ID    4242u
#define BYTES 4096u

static uint8_t sent[BYTES], came[2 * BYTES];

static int fresh(void **state)
{
	(void)state;
	content_fill(ID, CONTENT_DOWN, 0, sent, BYTES);
	memcpy(came, sent, BYTES);
	return 0;
}

static struct content_track taken(const uint8_t *buf, size_t len, size_t piece)
{
	struct content_track t;

	content_track_init(&t, ID, CONTENT_DOWN);
	for (size_t at = 0, n; at < len; at += n) {
		n = piece < len - at ? piece : len - at;
		(void)content_track_take(&t, buf + at, n);
	}
	assert_int_equal(t.bytes, len);
	return t;
}

static void assert_run(const struct content_track *t, unsigned i, int64_t id,
		       uint64_t from, uint64_t to)
{
	assert_true(i < t->n_runs);
	assert_int_equal(t->runs[i].id, id);
	assert_int_equal(t->runs[i].from, from);
	assert_int_equal(t->runs[i].to, to);
}

static void bytes_in_their_order_are_one_run_however_they_are_cut(void **state)
{
	(void)state;
	for (size_t piece = 1; piece < 100; piece += 7) {
		struct content_track t = taken(came, BYTES, piece);
		assert_true(content_track_good(&t));
		assert_run(&t, 0, ID, 0, BYTES);
	}
}

static void content_at_an_offset_is_the_same_however_it_is_asked_for(void **state)
{
	uint8_t one;

	(void)state;
	for (uint64_t at = 0; at < 200; at++) {
		content_fill(ID, CONTENT_DOWN, at, &one, 1);
		assert_int_equal(one, sent[at]);
	}
}

static void lost_bytes_are_told_with_their_place(void **state)
{
	(void)state;
	memmove(came + 1001, came + 1500, BYTES - 1500);
	struct content_track t = taken(came, BYTES - 499, BYTES);
	assert_false(content_track_good(&t));
	assert_int_equal(t.n_runs, 2);
	assert_run(&t, 0, ID, 0, 1001);
	assert_run(&t, 1, ID, 1500, BYTES);
}

static void doubled_bytes_are_told_with_their_place(void **state)
{
	(void)state;
	memcpy(came + 2000, sent + 1800, BYTES - 1800);
	struct content_track t = taken(came, BYTES + 200, BYTES);
	assert_int_equal(t.n_runs, 2);
	assert_run(&t, 0, ID, 0, 2000);
	assert_run(&t, 1, ID, 1800, BYTES);
}

static void one_wrong_bit_is_one_wrong_byte(void **state)
{
	(void)state;
	came[777] ^= 16;
	struct content_track t = taken(came, BYTES, BYTES);
	assert_int_equal(t.n_runs, 3);
	assert_run(&t, 0, ID, 0, 777);
	assert_run(&t, 1, CONTENT_FOREIGN_NONE, 0, 1);
	assert_run(&t, 2, ID, 778, BYTES);
}

static void another_streams_bytes_say_whose_they_are(void **state)
{
	(void)state;
	content_fill(ID + 1, CONTENT_DOWN, 5003, came + 1024, 512);
	struct content_track t = taken(came, BYTES, BYTES);
	assert_int_equal(t.n_runs, 3);
	assert_run(&t, 1, ID + 1, 5003, 5003 + 512);
	assert_run(&t, 2, ID, 1536, BYTES);
}

static void the_other_directions_bytes_are_not_taken_for_ones_own(void **state)
{
	(void)state;
	content_fill(ID, CONTENT_UP, 0, came, BYTES);
	struct content_track t = taken(came, BYTES, BYTES);
	assert_false(content_track_good(&t));
	assert_run(&t, 1, ID, 0, BYTES);
	assert_int_equal(t.runs[1].dir, CONTENT_UP);
}

static void a_stream_that_begins_wrong_is_not_good(void **state)
{
	(void)state;
	struct content_track t = taken(came + 8, BYTES - 8, BYTES);
	assert_false(content_track_good(&t));
}

static void more_runs_than_are_kept_are_counted(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2 * CONTENT_RUNS; i++)
		came[i * 60] ^= 1;
	struct content_track t = taken(came, BYTES, BYTES);
	assert_true(t.n_runs > CONTENT_RUNS);
	assert_false(content_track_good(&t));
}

static void a_plan_comes_out_as_it_went_in(void **state)
{
	struct flow_plan p = {.id = ID,
			      .kind = 3,
			      .flags = FLOW_UP_AFTER_DOWN,
			      .interval_ms = 100,
			      .up_total = 1ull << 38,
			      .down_total = 77,
			      .unit = 9,
			      .rate = 12500,
			      .pause_every = 1000,
			      .pause_ms = 50,
			      .attempt = 1},
			 q = {0};
	uint8_t header[FLOW_HEADER_BYTES];

	(void)state;
	flow_plan_pack(&p, header);
	assert_true(flow_plan_parse(header, &q));
	assert_memory_equal(&p, &q, sizeof(p));
	header[0] ^= 1;
	assert_false(flow_plan_parse(header, &q));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(
			bytes_in_their_order_are_one_run_however_they_are_cut, fresh),
		cmocka_unit_test_setup(
			content_at_an_offset_is_the_same_however_it_is_asked_for, fresh),
		cmocka_unit_test_setup(lost_bytes_are_told_with_their_place, fresh),
		cmocka_unit_test_setup(doubled_bytes_are_told_with_their_place, fresh),
		cmocka_unit_test_setup(one_wrong_bit_is_one_wrong_byte, fresh),
		cmocka_unit_test_setup(another_streams_bytes_say_whose_they_are, fresh),
		cmocka_unit_test_setup(
			the_other_directions_bytes_are_not_taken_for_ones_own, fresh),
		cmocka_unit_test_setup(a_stream_that_begins_wrong_is_not_good, fresh),
		cmocka_unit_test_setup(more_runs_than_are_kept_are_counted, fresh),
		cmocka_unit_test(a_plan_comes_out_as_it_went_in),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
