// SOCKS5: greetings, requests, replies and UDP headers, in every split of the stream.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "client/socks5.h"

#define FEED(p, s, ev) cli_socks5_feed(p, (const uint8_t *)(s), sizeof(s) - 1, ev)

// Feeds `len` bytes in pieces of `step`; returns how many were used up to the first event
// that is not MORE.
static size_t feed(struct cli_socks5 *p, const char *buf, size_t len, size_t step,
		   enum cli_socks5_event *ret)
{
	size_t used = 0;
	*ret = CLI_SOCKS5_MORE;
	while (used < len && *ret == CLI_SOCKS5_MORE) {
		size_t n = len - used < step ? len - used : step;
		size_t took = cli_socks5_feed(p, (const uint8_t *)buf + used, n, ret);
		assert_true(took <= n && (*ret != CLI_SOCKS5_MORE || took == n));
		used += took;
	}
	return used;
}

static enum cli_socks5_event ask(struct cli_socks5 *p, const char *request, size_t len,
				 size_t step)
{
	enum cli_socks5_event ev;
	cli_socks5_init(p);
	assert_int_equal(feed(p, "\5\2\2\0", 4, step, &ev), 4);
	assert_int_equal(ev, CLI_SOCKS5_METHOD);
	(void)feed(p, request, len, step, &ev);
	return ev;
}

static void a_request_reads_the_same_in_any_split(void **state)
{
	static const char v4[] = "\5\1\0\1\1\2\3\4\0\120surplus";
	static const char v6[] = "\5\1\0\4\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1\1\273";
	static const char name[] = "\5\3\0\3\13example.com\0\65";
	struct cli_socks5 p;
	char text[SP_TARGET_TEXT_MAX];

	(void)state;
	for (size_t step = 1; step <= sizeof(v6); step++) {
		assert_int_equal(ask(&p, v4, sizeof(v4) - 1, step), CLI_SOCKS5_REQUEST);
		assert_int_equal(p.command, CLI_SOCKS5_CONNECT);
		assert_string_equal(sp_target_format(&p.target, text, sizeof(text)),
				    "1.2.3.4:80");
		assert_int_equal(ask(&p, v6, sizeof(v6) - 1, step), CLI_SOCKS5_REQUEST);
		assert_string_equal(sp_target_format(&p.target, text, sizeof(text)),
				    "[2001:db8::1]:443");
		assert_int_equal(ask(&p, name, sizeof(name) - 1, step),
				 CLI_SOCKS5_REQUEST);
		assert_int_equal(p.command, CLI_SOCKS5_UDP_ASSOCIATE);
		assert_string_equal(sp_target_format(&p.target, text, sizeof(text)),
				    "example.com:53");
	}
}

static void bytes_behind_a_request_are_left_to_the_application(void **state)
{
	struct cli_socks5 p;
	enum cli_socks5_event ev;

	(void)state;
	cli_socks5_init(&p);
	assert_int_equal(FEED(&p, "\5\1\0\5\1\0\1\1\2\3\4\0\120GET", &ev), 3);
	assert_int_equal(ev, CLI_SOCKS5_METHOD);
	assert_int_equal(FEED(&p, "\5\1\0\1\1\2\3\4\0\120GET", &ev), 10);
	assert_int_equal(ev, CLI_SOCKS5_REQUEST);
}

static void a_greeting_without_no_authentication_is_refused(void **state)
{
	struct cli_socks5 p;
	enum cli_socks5_event ev;

	(void)state;
	cli_socks5_init(&p);
	assert_int_equal(FEED(&p, "\5\2\1\2", &ev), 4);
	assert_int_equal(ev, CLI_SOCKS5_NO_METHOD);
	cli_socks5_init(&p);
	assert_int_equal(FEED(&p, "\5\0", &ev), 2);
	assert_int_equal(ev, CLI_SOCKS5_NO_METHOD);
}

static void another_protocol_is_seen_at_its_first_byte(void **state)
{
	struct cli_socks5 p;
	enum cli_socks5_event ev;

	(void)state;
	cli_socks5_init(&p);
	assert_int_equal(FEED(&p, "\4\1", &ev), 1);
	assert_int_equal(ev, CLI_SOCKS5_NOT_SOCKS);
	cli_socks5_init(&p);
	assert_int_equal(FEED(&p, "G", &ev), 1);
	assert_int_equal(ev, CLI_SOCKS5_NOT_SOCKS);
	assert_int_equal(ask(&p, "\4", 1, 1), CLI_SOCKS5_NOT_SOCKS);
}

static void bad_requests_get_the_code_of_what_is_wrong(void **state)
{
	struct cli_socks5 p;

	(void)state;
	assert_int_equal(ask(&p, "\5\11\0\1\1\2\3\4\0\1", 10, 99), CLI_SOCKS5_REFUSE);
	assert_int_equal(p.code, CLI_SOCKS5_COMMAND);
	assert_int_equal(ask(&p, "\5\1\0\2", 4, 99), CLI_SOCKS5_REFUSE);
	assert_int_equal(p.code, CLI_SOCKS5_ADDRESS_TYPE);
	assert_int_equal(ask(&p, "\5\1\0\3\0\0\1", 7, 99), CLI_SOCKS5_REFUSE);
	assert_int_equal(p.code, CLI_SOCKS5_GENERAL);
	assert_int_equal(ask(&p, "\5\1\0\3\3a b\0\1", 10, 99), CLI_SOCKS5_REFUSE);
	assert_int_equal(p.code, CLI_SOCKS5_GENERAL);
	assert_int_equal(ask(&p, "\5\1\0\1\1\2\3\4\0\0", 10, 99), CLI_SOCKS5_REFUSE);
	assert_int_equal(p.code, CLI_SOCKS5_GENERAL);
}

static void the_longest_name_fits_and_one_more_does_not(void **state)
{
	char request[4 + 1 + 255 + 2] = "\5\1\0\3";
	struct cli_socks5 p;

	(void)state;
	for (size_t len = 253; len <= 255; len++) {
		memset(request + 5, 'a', 255);
		for (size_t i = 50; i < 253; i += 50)
			request[5 + i] = '.';
		request[4] = (char)len;
		request[5 + len] = 0;
		request[6 + len] = 80;
		assert_int_equal(ask(&p, request, 7 + len, 7),
				 len <= 253 ? CLI_SOCKS5_REQUEST : CLI_SOCKS5_REFUSE);
	}
}

static void a_name_that_is_an_address_becomes_one(void **state)
{
	struct cli_socks5 p;

	(void)state;
	assert_int_equal(ask(&p, "\5\1\0\3\3::1\0\120", 10, 99), CLI_SOCKS5_REQUEST);
	assert_int_equal(p.target.kind, SP_TARGET_IPV6);
}

static void a_reply_carries_code_and_bound_address(void **state)
{
	uint8_t buf[CLI_SOCKS5_REPLY_MAX];
	struct sp_target t;

	(void)state;
	assert_int_equal(sp_target_parse("1.2.3.4:80", &t), 0);
	assert_int_equal(cli_socks5_reply(CLI_SOCKS5_OK, &t, buf), 10);
	assert_memory_equal(buf, "\5\0\0\1\1\2\3\4\0\120", 10);
	assert_int_equal(sp_target_parse("[::1]:80", &t), 0);
	assert_int_equal(cli_socks5_reply(CLI_SOCKS5_OK, &t, buf), 22);
	assert_int_equal(cli_socks5_reply(CLI_SOCKS5_REFUSED, NULL, buf), 10);
	assert_memory_equal(buf, "\5\5\0\1\0\0\0\0\0\0", 10);
}

static void reasons_become_the_nearest_code(void **state)
{
	(void)state;
	assert_int_equal(cli_socks5_code(SP_REASON_POLICY), CLI_SOCKS5_NOT_ALLOWED);
	assert_int_equal(cli_socks5_code(SP_REASON_REFUSED), CLI_SOCKS5_REFUSED);
	assert_int_equal(cli_socks5_code(SP_REASON_TIMEOUT), CLI_SOCKS5_TTL_EXPIRED);
	assert_int_equal(cli_socks5_code(SP_REASON_RESOLVE_FAILED),
			 CLI_SOCKS5_HOST_UNREACHABLE);
	for (int r = 1; r <= SP_REASON__LAST; r++)
		assert_int_not_equal(cli_socks5_code((enum sp_reason)r), CLI_SOCKS5_OK);
}

static void a_udp_header_reads_as_it_was_written(void **state)
{
	static const char *const targets[] = {"1.2.3.4:53", "[2001:db8::7]:443",
					      "a.example:1"};
	uint8_t buf[CLI_SOCKS5_HEADER_MAX + 4];

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct sp_target t, back;
		assert_int_equal(sp_target_parse(targets[i], &t), 0);
		size_t n = cli_socks5_udp_header(&t, buf);
		assert_int_equal(cli_socks5_udp_parse(buf, n + 4, &back), n);
		assert_true(sp_target_equal(&t, &back));
		for (size_t cut = 0; cut < n; cut++)
			assert_int_equal(cli_socks5_udp_parse(buf, cut, &back),
					 SP_E_TRUNCATED);
		buf[2] = 1;
		assert_int_equal(cli_socks5_udp_parse(buf, n, &back), SP_E_PROTOCOL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_reads_the_same_in_any_split),
		cmocka_unit_test(bytes_behind_a_request_are_left_to_the_application),
		cmocka_unit_test(a_greeting_without_no_authentication_is_refused),
		cmocka_unit_test(another_protocol_is_seen_at_its_first_byte),
		cmocka_unit_test(bad_requests_get_the_code_of_what_is_wrong),
		cmocka_unit_test(the_longest_name_fits_and_one_more_does_not),
		cmocka_unit_test(a_name_that_is_an_address_becomes_one),
		cmocka_unit_test(a_reply_carries_code_and_bound_address),
		cmocka_unit_test(reasons_become_the_nearest_code),
		cmocka_unit_test(a_udp_header_reads_as_it_was_written),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
