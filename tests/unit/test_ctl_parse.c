#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ctl/jsonline.h"
#include "ctl/parse.h"

static void durations_have_a_number_and_a_unit(void **state)
{
	static const struct {
		const char *text;
		uint64_t want; // 0: refused
	} cases[] = {
		{"1s", 1},
		{"90m", 5400},
		{"25h", 90000},
		{"30d", 2592000},
		{"2w", 1209600},
		{"3650d", 315360000},
		{"3651d", 0},
		{"0s", 0},
		{"25", 0},
		{"h", 0},
		{"", 0},
		{"1h30m", 0},
		{"-1h", 0},
		{" 1h", 0},
		{"1 h", 0},
		{"1H", 0},
		{"18446744073709551617s", 0},
		{"99999999999999999999999h", 0},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t s = 7;
		int err = ctl_parse_duration(cases[i].text, &s);
		if (!cases[i].want != !!err || s != (err ? 7 : cases[i].want))
			fail_msg("\"%s\" gives %d, %lu", cases[i].text, err,
				 (unsigned long)s);
	}
}

static void times_are_dates_or_seconds(void **state)
{
	static const struct {
		const char *text;
		int64_t want; // -1: refused
	} cases[] = {
		{"0", 0},
		{"1700000000", 1700000000},
		{"1970-01-01T00:00:00Z", 0},
		{"2024-02-29T12:34:56Z", 1709210096},
		{"2023-02-29T12:34:56Z", -1},
		{"2024-13-01T00:00:00Z", -1},
		{"2024-01-01T24:00:00Z", -1},
		{"2024-01-01 00:00:00Z", -1},
		{"2024-01-01T00:00:00", -1},
		{"2024-01-01T00:00:00Zx", -1},
		{"+024-01-01T00:00:00Z", -1},
		{"1969-12-31T23:59:59Z", -1},
		{"tomorrow", -1},
		{"", -1},
		{"999999999999", -1},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t t = 7;
		int err = ctl_parse_time(cases[i].text, &t);
		if ((cases[i].want < 0) != !!err ||
		    t != (err ? 7 : (uint64_t)cases[i].want))
			fail_msg("\"%s\" gives %d, %lu", cases[i].text, err,
				 (unsigned long)t);
	}
}

static void numbers_stay_within_their_bounds(void **state)
{
	uint64_t n = 7;
	(void)state;
	assert_int_equal(ctl_parse_number("0", 9, false, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(ctl_parse_number("9", 9, false, &n), 0);
	assert_int_equal(n, 9);
	assert_int_not_equal(ctl_parse_number("10", 9, false, &n), 0);
	assert_int_not_equal(ctl_parse_number("5K", 9000, false, &n), 0);
	assert_int_equal(ctl_parse_number("5K", 9000, true, &n), 0);
	assert_int_equal(n, 5120);
	assert_int_equal(ctl_parse_number("2M", INT64_MAX, true, &n), 0);
	assert_int_equal(n, 2 << 20);
	assert_int_equal(ctl_parse_number("1G", INT64_MAX, true, &n), 0);
	assert_int_equal(n, 1 << 30);
	assert_int_not_equal(ctl_parse_number("9K", 9000, true, &n), 0);
	assert_int_not_equal(ctl_parse_number("1KK", 9000, true, &n), 0);
	assert_int_not_equal(ctl_parse_number("", 9, true, &n), 0);
	assert_int_not_equal(ctl_parse_number("-1", 9, true, &n), 0);
	assert_int_equal(ctl_parse_number("18446744073709551615", UINT64_MAX, false, &n),
			 0);
	assert_true(n == UINT64_MAX);
	assert_int_not_equal(
		ctl_parse_number("18446744073709551616", UINT64_MAX, false, &n), 0);
}

static void times_are_told_as_dates_and_distances(void **state)
{
	char buf[CTL_TIME_CAP];
	(void)state;
	assert_string_equal(ctl_format_time(1709210096, buf), "2024-02-29T12:34:56Z");
	assert_string_equal(ctl_format_time(UINT64_MAX, buf), "18446744073709551615");
	assert_string_equal(ctl_format_distance(1000, 1000, buf), "in 0 s");
	assert_string_equal(ctl_format_distance(1000, 1059, buf), "59 s ago");
	assert_string_equal(ctl_format_distance(4600, 1000, buf), "in 1 h 0 min");
	assert_string_equal(ctl_format_distance(1000 + 25 * 3600 - 60, 1000, buf),
			    "in 24 h 59 min");
	assert_string_equal(ctl_format_distance(1000 + 3 * 86400, 1000, buf),
			    "in 3 days");
}

static void a_list_of_items_gives_each_once(void **state)
{
	char text[] = "free,a=1,b=,=c,d=e=f";
	static const char *const want[][2] = {
		{NULL, "free"}, {"a", "1"}, {"b", ""}, {"", "c"}, {"d", "e=f"}};
	char *at = text, *key, *value;
	(void)state;
	for (size_t i = 0; i < 5; i++) {
		assert_true(ctl_parse_item(&at, &key, &value));
		if (want[i][0])
			assert_string_equal(key, want[i][0]);
		else
			assert_null(key);
		assert_string_equal(value, want[i][1]);
	}
	assert_false(ctl_parse_item(&at, &key, &value));
}

static void a_member_of_json_is_found_by_its_path(void **state)
{
	static const char text[] = "\n{ \"format\": 1,\n"
				   "  \"a.b\": {\"c\": [\"}\", {}]},\n"
				   "  \"tiers\": {\n"
				   "    \"d\": {\"max\": -1.5e3, \"\\\"x\": null},\n"
				   "    \"default\": {\"max\": true,\n"
				   "      \"most\": 2 } },\n"
				   "  \"exits\": [ {},\n"
				   "   [[\"y\"], 3],\n"
				   "   {\"name\": \"a\",\n"
				   "    \"tiers\": 5}],\n"
				   "  \"most\":\n  7 }\n";
	static const struct {
		const char *path;
		size_t want;
	} cases[] = {
		{"format: wrong", 2},
		{"a.b.c", 3},
		{"tiers", 4},
		{"tiers.d", 5},
		{"tiers.default: x.y", 6},
		{"tiers.default.max", 6},
		{"tiers.default.most", 7},
		{"tiers.default.missing: add it", 6},
		{"exits[0]", 8},
		{"exits[1][1]", 9},
		{"exits[2].tiers: x", 11},
		{"exits[7].name", 8},
		{"most", 12},
		{"document: of an older format", 2},
		{"", 2},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t n = ctl_json_line(text, sizeof(text) - 1, cases[i].path);
		if (n != cases[i].want)
			fail_msg("%s stands in line %zu", cases[i].path, n);
	}
	for (size_t len = 0; len < sizeof(text); len++) // whatever it is, it ends
		assert_in_range(ctl_json_line(text, len, "exits[2].tiers"), 1, 14);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(durations_have_a_number_and_a_unit),
		cmocka_unit_test(times_are_dates_or_seconds),
		cmocka_unit_test(numbers_stay_within_their_bounds),
		cmocka_unit_test(times_are_told_as_dates_and_distances),
		cmocka_unit_test(a_list_of_items_gives_each_once),
		cmocka_unit_test(a_member_of_json_is_found_by_its_path),
	};
	return cmocka_run_group_tests_name("ctl_parse", tests, NULL, NULL);
}
