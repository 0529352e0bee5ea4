// Heads of requests: what is read, and that what could be read in two ways is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "controller/http_parse.h"

static char text[16384];
static struct con_http_head head;

static int parse(const char *request)
{
	snprintf(text, sizeof(text) - 1, "%s", request);
	return con_http_parse(text, strlen(text), &head);
}

static void a_request_is_taken_apart(void **state)
{
	char v[8];
	(void)state;
	assert_int_equal(parse("GET /v1/config?wait=50&region=eu HTTP/1.1\r\n"
			       "HOST: a\r\nAuthorization:  Bearer x y \r\n"
			       "X: \xc3\xa4\t1"),
			 0);
	assert_int_equal(head.method, CON_HTTP_GET);
	assert_string_equal(head.path, "/v1/config");
	assert_string_equal(con_http_field(&head, "authorization"), "Bearer x y");
	assert_string_equal(con_http_field(&head, "x"), "\xc3\xa4\t1");
	assert_null(con_http_field(&head, "y"));
	assert_true(con_http_parameter(&head, "wait", v, sizeof(v)));
	assert_string_equal(v, "50");
	assert_true(con_http_parameter(&head, "region", v, sizeof(v)));
	assert_string_equal(v, "eu");
	assert_false(con_http_parameter(&head, "egion", v, sizeof(v)));
	assert_false(con_http_parameter(&head, "wait", v, 2));
	assert_false(head.close || head.has_body);
}

static void paths_are_not_decoded_or_cleaned(void **state)
{
	(void)state;
	assert_int_equal(parse("GET /v1/../v1/%63onfig HTTP/1.1\r\nHost: a"), 0);
	assert_string_equal(head.path, "/v1/../v1/%63onfig");
	assert_int_equal(parse("GET //v1/config HTTP/1.1\r\nHost: a"), 0);
	assert_string_equal(head.path, "//v1/config");
	assert_int_equal(parse("GET http://a/v1/config HTTP/1.1\r\nHost: a"), 0);
	assert_string_equal(head.path, "http://a/v1/config");
}

static void ends_and_bodies_are_seen(void **state)
{
	(void)state;
	assert_int_equal(parse("GET / HTTP/1.0"), 0);
	assert_true(head.close);
	assert_int_equal(parse("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close "), 0);
	assert_true(head.close);
	assert_int_equal(parse("GET / HTTP/1.1\r\nHost: a\r\nConnection: closed"), 0);
	assert_false(head.close);
	assert_int_equal(parse("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00"), 0);
	assert_false(head.has_body);
	assert_int_equal(head.method, CON_HTTP_OTHER);
	assert_int_equal(parse("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 10"), 0);
	assert_true(head.has_body);
	assert_int_equal(parse("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x"), 0);
	assert_true(head.has_body);
}

static void a_field_that_stands_twice_is_none(void **state)
{
	(void)state;
	assert_int_equal(parse("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\n"
			       "authorization: Bearer b"),
			 0);
	assert_null(con_http_field(&head, "authorization"));
}

static void what_is_ambiguous_or_wrong_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"GET",
		"GET /",
		"GET  / HTTP/1.1\r\nHost: a",
		"GET / HTTP/1.1 \r\nHost: a",
		"GET / HTTP/1.1\nHost: a",
		"GET / HTTP/1.1\r\nHost: a\nX: b",
		"GET / HTTP/1.1\r\nHost: a\rX: b",
		"GET / HTTP/1.1\r\nHost: a\r\n folded",
		"GET / HTTP/1.1\r\nHost : a",
		"GET / HTTP/1.1\r\n: a",
		"GET / HTTP/1.1\r\nHost",
		"GET / HTTP/1.1",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: a",
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1",
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1",
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length:",
		"GET / HTTP/1.1\r\nHost: a\r\nX: \x01",
		"GET /\x7f HTTP/1.1\r\nHost: a",
		"GET /\xc3\xa4 HTTP/1.1\r\nHost: a",
		"G(T / HTTP/1.1\r\nHost: a",
		"GET / HTTP/1.10\r\nHost: a",
		"GET / http/1.1\r\nHost: a",
	};
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (parse(bad[i]) != 400)
			fail_msg("taken: %s", bad[i]);
	assert_int_equal(parse("GET / HTTP/2.0\r\nHost: a"), 505);
}

static void a_zero_byte_is_refused(void **state)
{
	static const char nul[] = "GET / HTTP/1.1\r\nHost: a\0b";
	(void)state;
	memcpy(text, nul, sizeof(nul));
	assert_int_equal(con_http_parse(text, sizeof(nul) - 1, &head), 400);
}

static void too_many_fields_are_refused(void **state)
{
	static char many[8192];
	(void)state;
	size_t n = (size_t)sprintf(many, "GET / HTTP/1.1\r\nHost: a");
	for (int i = 1; i < CON_HTTP_FIELDS_MAX; i++)
		n += (size_t)sprintf(many + n, "\r\nX: 1");
	assert_int_equal(parse(many), 0);
	sprintf(many + n, "\r\nX: 1");
	assert_int_equal(parse(many), 431);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_is_taken_apart),
		cmocka_unit_test(paths_are_not_decoded_or_cleaned),
		cmocka_unit_test(ends_and_bodies_are_seen),
		cmocka_unit_test(a_field_that_stands_twice_is_none),
		cmocka_unit_test(what_is_ambiguous_or_wrong_is_refused),
		cmocka_unit_test(a_zero_byte_is_refused),
		cmocka_unit_test(too_many_fields_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
