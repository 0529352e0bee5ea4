// HTTP CONNECT: heads in every split of the stream, refusals, answers.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/httpconnect.h"

static size_t feed(struct cli_http *p, const char *buf, size_t len, size_t step,
		   enum cli_http_event *ret)
{
	size_t used = 0;
	cli_http_init(p);
	*ret = CLI_HTTP_MORE;
	while (used < len && *ret == CLI_HTTP_MORE) {
		size_t n = len - used < step ? len - used : step;
		size_t took = cli_http_feed(p, buf + used, n, ret);
		assert_true(took <= n && (*ret != CLI_HTTP_MORE || took == n));
		used += took;
	}
	return used;
}

static unsigned status_of(const char *head)
{
	struct cli_http p;
	enum cli_http_event ev;
	(void)feed(&p, head, strlen(head), 3, &ev);
	if (ev == CLI_HTTP_REQUEST)
		return 200;
	return ev == CLI_HTTP_REFUSE ? p.status : 0;
}

static void a_connect_reads_the_same_in_any_split(void **state)
{
	static const char head[] = "\r\nCONNECT [2001:db8::1]:443 HTTP/1.1\r\n"
				   "Host: x\r\nUser-Agent: a b\r\n\r\n";
	static const char rest[] = "surplus";
	char all[sizeof(head) + sizeof(rest)], text[SP_TARGET_TEXT_MAX];
	struct cli_http p;
	enum cli_http_event ev;

	(void)state;
	snprintf(all, sizeof(all), "%s%s", head, rest);
	for (size_t step = 1; step < sizeof(all); step++) {
		assert_int_equal(feed(&p, all, strlen(all), step, &ev), strlen(head));
		assert_int_equal(ev, CLI_HTTP_REQUEST);
		assert_string_equal(sp_target_format(&p.target, text, sizeof(text)),
				    "[2001:db8::1]:443");
	}
}

static void a_head_that_is_not_whole_waits(void **state)
{
	static const char head[] = "CONNECT a.example:1 HTTP/1.0\nA: b\n\n";
	struct cli_http p;
	enum cli_http_event ev;

	(void)state;
	for (size_t cut = 0; cut < sizeof(head) - 2; cut++) {
		assert_int_equal(feed(&p, head, cut, 5, &ev), cut);
		assert_int_equal(ev, CLI_HTTP_MORE);
	}
	assert_int_equal(status_of(head), 200); // bare line feeds are lines too
}

static void other_methods_are_refused(void **state)
{
	(void)state;
	assert_int_equal(status_of("GET http://a.example/ HTTP/1.1\r\n"), 405);
	assert_int_equal(status_of("BREW / HTTP/1.1\r\n"), 501);
	assert_int_equal(status_of("connect a.example:1 HTTP/1.1\r\n"), 501);
}

static void malformed_heads_are_refused(void **state)
{
	(void)state;
	assert_int_equal(status_of(" CONNECT a:1 HTTP/1.1\r\n"), 400);
	assert_int_equal(status_of("CONNECT a:1\r\n"), 400);
	assert_int_equal(status_of("CONNECT a HTTP/1.1\r\n"), 400);
	assert_int_equal(status_of("CONNECT a:0 HTTP/1.1\r\n"), 400);
	assert_int_equal(status_of("CONNECT a:65536 HTTP/1.1\r\n"), 400);
	assert_int_equal(status_of("CONNECT :1 HTTP/1.1\r\n"), 400);
	assert_int_equal(status_of("CONNECT a:1 HTTP/1.1 x\r\n"), 400);
	assert_int_equal(status_of("CONNECT a:1 HTTP/2\r\n"), 505);
	assert_int_equal(status_of("CONNECT a:1 HTTP/1.1\rX\n"), 400);
	assert_int_equal(status_of("CONNECT a:1 HTTP/1.1\r\n\tfolded\r\n"), 400);
	assert_int_equal(status_of("CONNECT a:1 HTTP/1.1\r\nA : b\r\n"), 400);
	assert_int_equal(status_of("CONNECT a:1 HTTP/1.1\r\nA: \1\r\n"), 400);
}

static void a_body_in_front_of_the_tunnel_is_refused(void **state)
{
	(void)state;
	assert_int_equal(
		status_of("CONNECT a:1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
		400);
	assert_int_equal(status_of("CONNECT a:1 HTTP/1.1\r\ncontent-length: 4\r\n\r\n"),
			 400);
	assert_int_equal(status_of("CONNECT a:1 HTTP/1.1\r\ncontent-length:\r\n\r\n"),
			 400);
	assert_int_equal(status_of("CONNECT a:1 HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
			 200);
}

static void each_limit_has_its_status(void **state)
{
	char *head = malloc(2 * CLI_HTTP_HEAD_MAX);
	int n;

	(void)state;
	n = sprintf(head, "CONNECT %0*d:1 HTTP/1.1\r\n", CLI_HTTP_LINE_MAX, 7);
	assert_true(n > CLI_HTTP_LINE_MAX);
	assert_int_equal(status_of(head), 414);

	n = sprintf(head, "CONNECT a:1 HTTP/1.1\r\n");
	for (int i = 0; i < CLI_HTTP_HEADERS; i++)
		n += sprintf(head + n, "a:b\r\n");
	strcpy(head + n, "\r\n");
	assert_int_equal(status_of(head), 200);
	strcpy(head + n, "a:b\r\n\r\n");
	assert_int_equal(status_of(head), 431);

	n = sprintf(head, "CONNECT a:1 HTTP/1.1\r\nCookie: ");
	memset(head + n, 'x', 2 * CLI_HTTP_HEAD_MAX - (size_t)n);
	strcpy(head + CLI_HTTP_HEAD_MAX - 4, "\r\n\r\n");
	assert_int_equal(status_of(head), 200);
	strcpy(head + CLI_HTTP_HEAD_MAX - 4, "x\r\n\r\n");
	assert_int_equal(status_of(head), 431);
	free(head);
}

static void a_failure_names_its_reason_and_its_length(void **state)
{
	char buf[CLI_HTTP_ANSWER_MAX + 1];

	(void)state;
	assert_int_equal(cli_http_status(SP_REASON_TIMEOUT), 504);
	assert_int_equal(cli_http_status(SP_REASON_POLICY), 403);
	assert_int_equal(cli_http_status(SP_REASON_REFUSED), 502);
	for (int r = 1; r <= SP_REASON__LAST; r++) {
		size_t n = cli_http_failed((enum sp_reason)r, buf);
		assert_true(n < CLI_HTTP_ANSWER_MAX);
		buf[n] = '\0';
		const char *body = strstr(buf, "\r\n\r\n") + 4;
		const char *length = strstr(buf, "Content-Length: ");
		assert_int_equal(atoi(length + 16), strlen(body));
		assert_ptr_equal(strstr(body, sp_reason_word((enum sp_reason)r)), body);
		assert_true(atoi(buf + 9) >= 403);
	}
	buf[cli_http_bad(405, buf)] = '\0';
	assert_non_null(strstr(buf, "\r\nAllow: CONNECT\r\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_connect_reads_the_same_in_any_split),
		cmocka_unit_test(a_head_that_is_not_whole_waits),
		cmocka_unit_test(other_methods_are_refused),
		cmocka_unit_test(malformed_heads_are_refused),
		cmocka_unit_test(a_body_in_front_of_the_tunnel_is_refused),
		cmocka_unit_test(each_limit_has_its_status),
		cmocka_unit_test(a_failure_names_its_reason_and_its_length),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
