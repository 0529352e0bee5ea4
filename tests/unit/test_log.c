// Log lines and the rate limiter.
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/log.h"

static char line[SP_LOG_LINE_MAX];

#define FMT(format, ...)                                                                 \
	sp_log_format_line(line, sizeof(line), format, 1767225600123, SP_LOG_WARN,       \
			   "exit", __VA_ARGS__)
#define HEAD "time=2026-01-01T00:00:00.123Z level=warn comp=exit "

static void a_line_has_time_level_component_message_and_fields(void **state)
{
	(void)state;
	size_t len =
		FMT(SP_LOG_LOGFMT, "stream refused\nreason=%s port=%u", "policy", 25u);
	assert_string_equal(line, HEAD "msg=\"stream refused\" reason=policy port=25");
	assert_int_equal(len, strlen(line));
}

static void a_line_without_fields_ends_with_the_message(void **state)
{
	(void)state;
	FMT(SP_LOG_LOGFMT, "ready\n");
	assert_string_equal(line, HEAD "msg=ready");
}

static void a_value_can_be_made_of_several_conversions(void **state)
{
	(void)state;
	FMT(SP_LOG_LOGFMT, "m\naddress=%s:%u share=%d%%", "::1", 80u, 50);
	assert_string_equal(line, HEAD "msg=m address=::1:80 share=50%");
}

static void every_conversion_takes_its_own_argument(void **state)
{
	(void)state;
	FMT(SP_LOG_LOGFMT,
	    "m\na=%hhu b=%hu c=%ld d=%llu e=%zu f=%" PRIu64 " g=%x h=%c i=%.2f j=%.*s "
	    "k=%.3s l=%jd m=%i n=%zd o=%lx",
	    (unsigned char)255, (unsigned short)65535, -5L, 1ull << 63, (size_t)7,
	    UINT64_MAX, 0xbeefu, 'z', 2.5, 2, "abc", "abcdef", (intmax_t)-9, -3,
	    (ssize_t)-1, 0xfful);
	assert_string_equal(line, HEAD
			    "msg=m a=255 b=65535 c=-5 d=9223372036854775808 e=7 "
			    "f=18446744073709551615 g=beef h=z i=2.50 j=ab k=abc l=-9 "
			    "m=-3 n=-1 o=ff");
}

static void hostile_bytes_forge_no_field_and_no_line(void **state)
{
	(void)state;
	FMT(SP_LOG_LOGFMT, "m\nname=%s next=%d",
	    "a\" level=error\n\x1b[2J\\\xc2\x9b=", 1);
	assert_string_equal(line, HEAD "msg=m name=\"a\\\" level=error\\n\\x1b[2J\\\\"
				       "\\xc2\\x9b=\" next=1");
}

static void an_empty_and_a_missing_string_are_shown_as_such(void **state)
{
	const char *volatile none = NULL;
	(void)state;
	FMT(SP_LOG_LOGFMT, "m\na=%s b=%s", "", none);
	assert_string_equal(line, HEAD "msg=m a=\"\" b=(null)");
}

static void json_lines_parse_and_keep_numbers_as_numbers(void **state)
{
	(void)state;
	FMT(SP_LOG_JSON, "m\nname=%s port=%u load=%.2f nan=%f both=%d/%d",
	    "a\"\n\x01\xff\\", 443u, 0.25, (double)NAN, 1, 2);
	json_t *j = json_loads(line, 0, NULL);
	assert_non_null(j);
	assert_string_equal(json_string_value(json_object_get(j, "level")), "warn");
	assert_string_equal(json_string_value(json_object_get(j, "name")),
			    "a\"\n\x01\xc3\xbf\\");
	assert_int_equal(json_integer_value(json_object_get(j, "port")), 443);
	assert_true(json_is_real(json_object_get(j, "load")));
	assert_string_equal(json_string_value(json_object_get(j, "nan")), "nan");
	assert_string_equal(json_string_value(json_object_get(j, "both")), "1/2");
	json_decref(j);
}

// Every byte value in a value: JSON holds, logfmt stays printable ASCII.
static void every_byte_value_is_quoted_safely(void **state)
{
	char all[256];
	(void)state;
	for (unsigned i = 0; i < 255; i++)
		all[i] = (char)(i + 1);
	all[255] = '\0';
	FMT(SP_LOG_LOGFMT, "m\na=%s", all);
	for (const char *p = line; *p; p++)
		assert_in_range(*p, 0x20, 0x7e);
	FMT(SP_LOG_JSON, "m\na=%s", all);
	json_t *j = json_loads(line, 0, NULL);
	assert_non_null(j);
	json_decref(j);
}

static void a_long_value_is_cut_and_a_field_that_does_not_fit_is_left_out(void **state)
{
	static char big[5000];
	(void)state;
	memset(big, '\x01', sizeof(big) - 1);
	for (unsigned cap = 64; cap < SP_LOG_LINE_MAX; cap += 7) {
		char *buf = malloc(cap);
		size_t len = sp_log_format_line(buf, cap, SP_LOG_JSON, 0, SP_LOG_INFO,
						"c", "m\na=%s b=%s c=%d", big, big, 7);
		json_t *j = json_loads(buf, 0, NULL);
		assert_true(len < cap);
		assert_non_null(j);
		json_decref(j);
		free(buf);
	}
	memset(big, 'x', sizeof(big) - 1);
	FMT(SP_LOG_LOGFMT, "m\na=%s z=%d", big, 7);
	assert_int_equal(strlen(line),
			 strlen(HEAD "msg=m a=") + SP_LOG_VALUE_MAX + strlen(" z=7"));
}

static size_t written(int level_is, char *buf, size_t cap)
{
	int p[2];
	assert_int_equal(pipe(p), 0);
	sp_log_setup((enum sp_log_level)level_is, SP_LOG_LOGFMT, p[1]);
	sp_debug("c", "low");
	sp_warn("c", "high", "n=%d", 3);
	close(p[1]);
	ssize_t n = read(p[0], buf, cap - 1);
	close(p[0]);
	sp_log_setup(SP_LOG_INFO, SP_LOG_LOGFMT, 2);
	buf[n < 0 ? 0 : n] = '\0';
	return (size_t)n;
}

static void lines_below_the_level_are_not_written(void **state)
{
	(void)state;
	written(SP_LOG_DEBUG, line, sizeof(line));
	assert_non_null(strstr(line, "msg=low\n"));
	assert_non_null(strstr(line, "msg=high n=3\n"));
	written(SP_LOG_INFO, line, sizeof(line));
	assert_null(strstr(line, "msg=low"));
	assert_non_null(strstr(line, "msg=high n=3\n"));
	written(SP_LOG_ERROR, line, sizeof(line));
	assert_string_equal(line, "");
}

static void lines_to_the_journal_begin_with_their_priority(void **state)
{
	char env[64], got[256] = "";
	struct stat st;
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	assert_int_equal(fstat(p[1], &st), 0);
	snprintf(env, sizeof(env), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	setenv("JOURNAL_STREAM", env, 1);
	sp_log_setup(SP_LOG_INFO, SP_LOG_LOGFMT, p[1]);
	sp_error("c", "bad");
	setenv("JOURNAL_STREAM", "1:1", 1);
	sp_log_setup(SP_LOG_INFO, SP_LOG_LOGFMT, p[1]);
	sp_error("c", "worse");
	unsetenv("JOURNAL_STREAM");
	assert_true(read(p[0], got, sizeof(got) - 1) > 0);
	assert_memory_equal(got, "<3>time=", 8);
	assert_non_null(strstr(got, "\ntime="));
	close(p[0]);
	close(p[1]);
	sp_log_setup(SP_LOG_INFO, SP_LOG_LOGFMT, 2);
}

static void a_sink_that_fails_is_counted(void **state)
{
	uint64_t before = sp_log_lost();
	(void)state;
	sp_log_setup(SP_LOG_INFO, SP_LOG_LOGFMT, -1);
	sp_info("c", "gone");
	sp_log_setup(SP_LOG_INFO, SP_LOG_LOGFMT, 2);
	assert_int_equal(sp_log_lost(), before + 1);
}

static void level_words_are_read_and_others_refused(void **state)
{
	enum sp_log_level l = SP_LOG_INFO;
	(void)state;
	assert_int_equal(sp_log_level_parse("error", &l), 0);
	assert_int_equal(l, SP_LOG_ERROR);
	assert_int_equal(sp_log_level_parse("loud", &l), SP_E_MALFORMED);
	assert_int_equal(l, SP_LOG_ERROR);
}

static void the_limiter_lets_a_burst_through_then_its_rate(void **state)
{
	struct sp_ratelimit rl = {.per_second = 10, .burst = 5};
	unsigned passed = 0;

	(void)state;
	for (unsigned i = 0; i < 100; i++)
		passed += sp_ratelimit_ok(&rl, 0);
	assert_int_equal(passed, 5);
	assert_int_equal(sp_ratelimit_take_suppressed(&rl), 95);
	assert_int_equal(sp_ratelimit_take_suppressed(&rl), 0);
	for (uint64_t now = 1; now <= 10000; now++)
		passed += sp_ratelimit_ok(&rl, now);
	assert_int_equal(passed, 105);
}

static void
the_limiter_holds_after_a_long_silence_and_a_clock_that_goes_back(void **state)
{
	struct sp_ratelimit rl = {.per_second = UINT32_MAX, .burst = 2};

	(void)state;
	assert_true(sp_ratelimit_ok(&rl, 1000));
	assert_true(sp_ratelimit_ok(&rl, 5));
	assert_false(sp_ratelimit_ok(&rl, 5));
	assert_true(sp_ratelimit_ok(&rl, UINT64_MAX));
	assert_true(sp_ratelimit_ok(&rl, UINT64_MAX));
	assert_false(sp_ratelimit_ok(&rl, UINT64_MAX));
}

static void a_limited_line_tells_how_many_were_suppressed(void **state)
{
	struct sp_ratelimit rl = {.per_second = 1, .burst = 1};
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	sp_log_setup(SP_LOG_INFO, SP_LOG_LOGFMT, p[1]);
	for (unsigned i = 0; i < 4; i++)
		sp_warn_limited(&rl, 10, "c", "refused", "reason=%s", "policy");
	sp_warn_limited(&rl, 1010, "c", "refused", "reason=%s", "policy");
	close(p[1]);
	ssize_t n = read(p[0], line, sizeof(line) - 1);
	assert_true(n > 0);
	line[n] = '\0';
	close(p[0]);
	sp_log_setup(SP_LOG_INFO, SP_LOG_LOGFMT, 2);
	char *second = strchr(line, '\n') + 1;
	assert_non_null(strstr(line, "reason=policy suppressed=0\n"));
	assert_non_null(strstr(second, "reason=policy suppressed=3\n"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_has_time_level_component_message_and_fields),
		cmocka_unit_test(a_line_without_fields_ends_with_the_message),
		cmocka_unit_test(a_value_can_be_made_of_several_conversions),
		cmocka_unit_test(every_conversion_takes_its_own_argument),
		cmocka_unit_test(hostile_bytes_forge_no_field_and_no_line),
		cmocka_unit_test(an_empty_and_a_missing_string_are_shown_as_such),
		cmocka_unit_test(json_lines_parse_and_keep_numbers_as_numbers),
		cmocka_unit_test(every_byte_value_is_quoted_safely),
		cmocka_unit_test(
			a_long_value_is_cut_and_a_field_that_does_not_fit_is_left_out),
		cmocka_unit_test(lines_below_the_level_are_not_written),
		cmocka_unit_test(lines_to_the_journal_begin_with_their_priority),
		cmocka_unit_test(a_sink_that_fails_is_counted),
		cmocka_unit_test(level_words_are_read_and_others_refused),
		cmocka_unit_test(the_limiter_lets_a_burst_through_then_its_rate),
		cmocka_unit_test(
			the_limiter_holds_after_a_long_silence_and_a_clock_that_goes_back),
		cmocka_unit_test(a_limited_line_tells_how_many_were_suppressed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
