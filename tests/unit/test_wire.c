// Bounds-checked reader and writer, and the texts of errors.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/wire.h"

static void integers_are_big_endian_both_ways(void **state)
{
	static const uint8_t bytes[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
					0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f};
	uint8_t again[15];
	struct sp_reader r;
	struct sp_writer w;

	(void)state;
	sp_reader_init(&r, bytes, sizeof(bytes));
	sp_writer_init(&w, again, sizeof(again));
	uint8_t a = sp_get_u8(&r);
	uint16_t b = sp_get_u16(&r);
	uint32_t c = sp_get_u32(&r);
	uint64_t d = sp_get_u64(&r);
	assert_int_equal(a, 0x01);
	assert_int_equal(b, 0x0203);
	assert_int_equal(c, 0x04050607);
	assert_true(d == UINT64_C(0x08090a0b0c0d0e0f));
	assert_int_equal(sp_reader_finish(&r), 0);
	sp_put_u8(&w, a);
	sp_put_u16(&w, b);
	sp_put_u32(&w, c);
	sp_put_u64(&w, d);
	assert_int_equal(w.err, 0);
	assert_int_equal(sp_writer_room(&w), 0);
	assert_memory_equal(again, bytes, sizeof(bytes));
}

static void varints_give_the_examples_of_rfc_9000(void **state)
{
	static const struct {
		uint64_t value;
		size_t len;
		uint8_t bytes[8];
	} v[] = {
		{37, 1, {0x25}},
		{15293, 2, {0x7b, 0xbd}},
		{494878333, 4, {0x9d, 0x7f, 0x3e, 0x7d}},
		{UINT64_C(151288809941952652),
		 8,
		 {0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c}},
	};
	uint8_t buf[8];

	(void)state;
	for (unsigned i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		struct sp_reader r;
		struct sp_writer w;
		sp_reader_init(&r, v[i].bytes, v[i].len);
		assert_true(sp_get_varint(&r) == v[i].value);
		assert_int_equal(sp_reader_finish(&r), 0);
		sp_writer_init(&w, buf, sizeof(buf));
		sp_put_varint(&w, v[i].value);
		assert_int_equal(sp_writer_len(&w), v[i].len);
		assert_int_equal(sp_varint_len(v[i].value), v[i].len);
		assert_memory_equal(buf, v[i].bytes, v[i].len);
	}
}

static void varints_hold_at_the_borders_of_their_lengths(void **state)
{
	static const uint64_t borders[] = {0,     63,         64,         16383,
					   16384, 1073741823, 1073741824, SP_VARINT_MAX};
	static const size_t lens[] = {1, 1, 2, 2, 4, 4, 8, 8};
	uint8_t buf[8];

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		struct sp_reader r;
		struct sp_writer w;
		sp_writer_init(&w, buf, sizeof(buf));
		sp_put_varint(&w, borders[i]);
		assert_int_equal(sp_writer_len(&w), lens[i]);
		sp_reader_init(&r, buf, lens[i]);
		assert_true(sp_get_varint(&r) == borders[i]);
		// One byte less is truncated, not another number.
		sp_reader_init(&r, buf, lens[i] - 1);
		assert_true(sp_get_varint(&r) == 0);
		assert_int_equal(r.err, SP_E_TRUNCATED);
	}
}

static void a_varint_that_is_too_large_is_not_written(void **state)
{
	uint8_t buf[8] = {1, 2, 3};
	struct sp_writer w;

	(void)state;
	sp_writer_init(&w, buf, sizeof(buf));
	sp_put_varint(&w, SP_VARINT_MAX + 1);
	assert_int_equal(w.err, SP_E_LIMIT);
	assert_int_equal(sp_writer_len(&w), 0);
	assert_int_equal(buf[0], 1);
}

static void the_first_error_of_a_reader_sticks(void **state)
{
	const uint8_t bytes[] = {1, 2, 3};
	uint8_t copy[4] = {9, 9, 9, 9};
	struct sp_reader r;

	(void)state;
	sp_reader_init(&r, bytes, sizeof(bytes));
	assert_int_equal(sp_get_u8(&r), 1);
	assert_int_equal(sp_get_u32(&r), 0);
	assert_int_equal(r.err, SP_E_TRUNCATED);
	assert_int_equal(sp_get_u8(&r), 0);
	assert_null(sp_get_bytes(&r, 0));
	sp_get_copy(&r, copy, sizeof(copy));
	assert_memory_equal(copy, "\0\0\0\0", 4);
	assert_int_equal(sp_reader_left(&r), 0);
	assert_int_equal(sp_reader_finish(&r), SP_E_TRUNCATED);
}

static void bytes_left_over_are_malformed(void **state)
{
	struct sp_reader r;

	(void)state;
	sp_reader_init(&r, "ab", 2);
	assert_int_equal(sp_get_u8(&r), 'a');
	assert_int_equal(sp_reader_left(&r), 1);
	assert_int_equal(sp_reader_finish(&r), SP_E_MALFORMED);
}

static void lengths_beyond_the_input_do_not_overflow(void **state)
{
	struct sp_reader r;

	(void)state;
	sp_reader_init(&r, "ab", 2);
	assert_null(sp_get_bytes(&r, SIZE_MAX));
	assert_int_equal(r.err, SP_E_TRUNCATED);
}

static void what_does_not_fit_is_not_written_and_the_error_sticks(void **state)
{
	uint8_t buf[4] = {7, 7, 7, 7};
	struct sp_writer w;

	(void)state;
	sp_writer_init(&w, buf, 3);
	sp_put_u16(&w, 0x0102);
	sp_put_u16(&w, 0x0304);
	assert_int_equal(w.err, SP_E_LIMIT);
	sp_put_u8(&w, 5);
	sp_put_bytes(&w, "x", 1);
	assert_int_equal(sp_writer_len(&w), 2);
	assert_int_equal(sp_writer_room(&w), 0);
	assert_memory_equal(buf, "\1\2\7\7", 4);
}

static void nothing_can_be_written_to_and_read_from_nothing(void **state)
{
	struct sp_writer w;
	struct sp_reader r;

	(void)state;
	sp_writer_init(&w, NULL, 0);
	sp_put_bytes(&w, NULL, 0);
	assert_int_equal(w.err, 0);
	sp_reader_init(&r, NULL, 0);
	assert_int_equal(sp_reader_finish(&r), 0);
	assert_true(sp_get_varint(&r) == 0);
	assert_int_equal(r.err, SP_E_TRUNCATED);
}

static void every_error_has_a_text_of_its_own(void **state)
{
	(void)state;
	for (int a = SP_E_KEY; a <= SP_E_TRUNCATED; a++) {
		assert_null(strstr(sp_strerror(a), "Unknown"));
		for (int b = SP_E_KEY; b < a; b++)
			assert_string_not_equal(sp_strerror(a), sp_strerror(b));
	}
	assert_string_equal(sp_strerror(-2), "No such file or directory");
	assert_string_equal(sp_strerror(0), "Success");
}

int main(void)
{
#define T(f) cmocka_unit_test(f)
	static const struct CMUnitTest tests[] = {
		T(integers_are_big_endian_both_ways),
		T(varints_give_the_examples_of_rfc_9000),
		T(varints_hold_at_the_borders_of_their_lengths),
		T(a_varint_that_is_too_large_is_not_written),
		T(the_first_error_of_a_reader_sticks),
		T(bytes_left_over_are_malformed),
		T(lengths_beyond_the_input_do_not_overflow),
		T(what_does_not_fit_is_not_written_and_the_error_sticks),
		T(nothing_can_be_written_to_and_read_from_nothing),
		T(every_error_has_a_text_of_its_own),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
