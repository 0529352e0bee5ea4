// Enrolment tokens as text.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/enroltoken.h"

static struct sp_enroltoken sample(void)
{
	struct sp_enroltoken t = {.node = "fra1/0",
				  .enrol = "tcp://192.0.2.1:7203",
				  .router = "tcp://192.0.2.1:7202",
				  .publisher = "tcp://[2001:db8::1]:7201"};
	memset(t.controller_key, 7, sizeof(t.controller_key));
	memset(t.secret, 9, sizeof(t.secret));
	return t;
}

static void what_is_written_is_read(void **state)
{
	struct sp_enroltoken t = sample(), got;
	char text[SP_ENROLTOKEN_TEXT_MAX], padded[SP_ENROLTOKEN_TEXT_MAX + 4], why[128];
	(void)state;
	assert_int_equal(sp_enroltoken_format(&t, text), 0);
	assert_int_equal(strncmp(text, "sallyport-enrol:", 16), 0);
	snprintf(padded, sizeof(padded), " %s\n", text);
	assert_int_equal(
		sp_enroltoken_parse(padded, strlen(padded), &got, why, sizeof(why)), 0);
	assert_memory_equal(&t, &got, sizeof(t));
	assert_true(sp_enroltoken_is_worker(&got));
}

static void a_cut_or_changed_token_is_refused_without_showing_it(void **state)
{
	struct sp_enroltoken t = sample(), got = {.node = "untouched"};
	char text[SP_ENROLTOKEN_TEXT_MAX], why[128];
	(void)state;
	assert_int_equal(sp_enroltoken_format(&t, text), 0);
	for (size_t n = 0; n < strlen(text); n++) {
		assert_int_equal(sp_enroltoken_parse(text, n, &got, why, sizeof(why)),
				 SP_E_MALFORMED);
		assert_null(strstr(why, "eyJ"));
	}
	assert_string_equal(got.node, "untouched");
	text[3] = 'x';
	assert_int_equal(sp_enroltoken_parse(text, strlen(text), &got, why, sizeof(why)),
			 SP_E_MALFORMED);
	assert_non_null(strstr(why, "sallyport-enrol:"));
}

static int parse_with(struct sp_enroltoken t)
{
	struct sp_enroltoken got;
	char text[SP_ENROLTOKEN_TEXT_MAX], why[128];
	assert_int_equal(sp_enroltoken_format(&t, text), 0);
	return sp_enroltoken_parse(text, strlen(text), &got, why, sizeof(why));
}

static void names_and_endpoints_that_are_none_are_refused(void **state)
{
	struct sp_enroltoken t = sample();
	(void)state;
	assert_int_equal(parse_with(t), 0);
	strcpy(t.node, "a/0/1");
	assert_int_equal(parse_with(t), SP_E_MALFORMED);
	strcpy(t.node, "a b");
	assert_int_equal(parse_with(t), SP_E_MALFORMED);
	strcpy(t.node, "");
	assert_int_equal(parse_with(t), SP_E_MALFORMED);
	strcpy(t.node, "vantage-1");
	assert_int_equal(parse_with(t), 0);
	strcpy(t.router, "tcp://a b");
	assert_int_equal(parse_with(t), SP_E_MALFORMED);
}

static void a_token_of_the_longest_names_still_fits(void **state)
{
	struct sp_enroltoken t = sample();
	char text[SP_ENROLTOKEN_TEXT_MAX];
	(void)state;
	memset(t.node, 'n', sizeof(t.node) - 1);
	memset(t.enrol, 'e', sizeof(t.enrol) - 1);
	memset(t.router, 'r', sizeof(t.router) - 1);
	memset(t.publisher, 'p', sizeof(t.publisher) - 1);
	assert_int_equal(sp_enroltoken_format(&t, text), 0);
	assert_int_equal(parse_with(t), 0);
}

#define T(name) cmocka_unit_test(name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_is_written_is_read),
		T(a_cut_or_changed_token_is_refused_without_showing_it),
		T(names_and_endpoints_that_are_none_are_refused),
		T(a_token_of_the_longest_names_still_fits),
	};
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("enroltoken", tests, NULL, NULL);
}
