// Targets: text, wire and socket addresses; which host names are valid.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/addr.h"

static void text_forms_are_read_and_written(void **state)
{
	static const struct {
		const char *text, *canonical;
		uint8_t kind;
		uint16_t port;
	} v[] = {
		{"192.0.2.1:443", "192.0.2.1:443", SP_TARGET_IPV4, 443},
		{"0.0.0.0:0", "0.0.0.0:0", SP_TARGET_IPV4, 0},
		{"[2001:DB8:0::1]:65535", "[2001:db8::1]:65535", SP_TARGET_IPV6, 65535},
		{"[::]:1", "[::]:1", SP_TARGET_IPV6, 1},
		{"host.example:80", "host.example:80", SP_TARGET_NAME, 80},
		{"host.example.:80", "host.example:80", SP_TARGET_NAME, 80},
		{"_dmarc.a-b.example:53", "_dmarc.a-b.example:53", SP_TARGET_NAME, 53},
		{"localhost:00080", "localhost:80", SP_TARGET_NAME, 80},
	};
	char text[SP_TARGET_TEXT_MAX];
	struct sp_target t;

	(void)state;
	for (unsigned i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		assert_int_equal(sp_target_parse(v[i].text, &t), 0);
		assert_int_equal(t.kind, v[i].kind);
		assert_int_equal(t.port, v[i].port);
		assert_string_equal(sp_target_format(&t, text, sizeof(text)),
				    v[i].canonical);
	}
}

static void other_text_is_refused_and_changes_nothing(void **state)
{
	static const char *const bad[] = {
		"",
		":80",
		"host",
		"host:",
		"host:65536",
		"host:-1",
		"host:+1",
		"host: 1",
		"host:1x",
		"host:000080",
		"1.2.3:80",
		"1.2.3.4.5:80",
		"256.1.1.1:80",
		"::1:80",
		"[::1]",
		"[::1]80",
		"[1.2.3.4]:80",
		"[host]:80",
		"[::1:80",
		"[]:80",
		"a..b:80",
		".a:80",
		"a b:80",
		"\xc3\xa4.de:80",
		"a/b:80",
		"[fe80::1%lo]:80",
		"host:80:80",
		"1:80",
	};
	struct sp_target t = {.port = 77};

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(sp_target_parse(bad[i], &t), SP_E_MALFORMED);
		assert_int_equal(t.port, 77);
	}
}

static void names_are_valid_up_to_their_limits(void **state)
{
	char name[300];

	(void)state;
	memset(name, 'a', sizeof(name));
	assert_true(sp_name_is_valid(name, 63));
	assert_false(sp_name_is_valid(name, 64));
	for (unsigned i = 63; i < sizeof(name); i += 64)
		name[i] = '.';
	assert_true(sp_name_is_valid(name, 253));
	assert_false(sp_name_is_valid(name, 254));
	assert_true(sp_name_is_valid("a.", 2));
	assert_false(sp_name_is_valid(".", 1));
	assert_false(sp_name_is_valid("", 0));
	assert_false(sp_name_is_valid("a..", 3));
	assert_false(sp_name_is_valid("a\0b", 3));
}

static size_t encoded(const char *text, uint8_t *buf, size_t cap)
{
	struct sp_target t, again;
	struct sp_writer w;
	struct sp_reader r;

	assert_int_equal(sp_target_parse(text, &t), 0);
	sp_writer_init(&w, buf, cap);
	sp_target_put(&w, &t);
	assert_int_equal(w.err, 0);
	sp_reader_init(&r, buf, sp_writer_len(&w));
	sp_target_get(&r, &again);
	assert_int_equal(sp_reader_finish(&r), 0);
	assert_true(sp_target_equal(&t, &again));
	return sp_writer_len(&w);
}

static void the_wire_form_is_kind_address_port(void **state)
{
	uint8_t buf[300];

	(void)state;
	assert_int_equal(encoded("192.0.2.1:443", buf, sizeof(buf)), 7);
	assert_memory_equal(buf, "\x01\xc0\x00\x02\x01\x01\xbb", 7);
	assert_int_equal(encoded("[2001:db8::1]:53", buf, sizeof(buf)), 19);
	assert_memory_equal(buf, "\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\x35",
			    19);
	assert_int_equal(encoded("ab.de:80", buf, sizeof(buf)), 9);
	assert_memory_equal(buf,
			    "\x03\x05"
			    "ab.de\x00\x50",
			    9);
}

static void every_truncation_of_the_wire_form_is_refused(void **state)
{
	static const char *const texts[] = {"192.0.2.1:443", "[2001:db8::1]:53",
					    "ab.de:80"};
	struct sp_target t;
	struct sp_reader r;
	uint8_t buf[300];

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		size_t len = encoded(texts[i], buf, sizeof(buf));
		for (size_t cut = 0; cut < len; cut++) {
			sp_reader_init(&r, buf, cut);
			sp_target_get(&r, &t);
			assert_int_equal(r.err, SP_E_TRUNCATED);
		}
	}
}

static void hostile_wire_forms_are_refused(void **state)
{
	static const char *const bad[] = {
		"\x02\x01\x01\x01\x01\x00\x50", // unknown kind
		"\x03\x00\x00\x50\x00\x00\x00", // empty name
		"\x03\x03"
		"a b\x00\x50", // a space
		"\x03\x03"
		"a\0b\x00\x50", // NUL inside
		"\x03\x03"
		"a\nb\x00\x50",
		"\x03\x03"
		"..a\x00\x50",
	};
	struct sp_target t;
	struct sp_reader r;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		sp_reader_init(&r, bad[i], 7);
		sp_target_get(&r, &t);
		assert_int_equal(r.err, SP_E_MALFORMED);
	}
}

static void a_name_on_the_wire_that_is_an_address_is_refused(void **state)
{
	static const char *const bad[] = {"127.0.0.1", "::1", "127.1", "1"};
	struct sp_target t;
	struct sp_reader r;
	struct sp_writer w;
	uint8_t buf[32];

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		sp_writer_init(&w, buf, sizeof(buf));
		sp_put_u8(&w, SP_TARGET_NAME);
		sp_put_u8(&w, (uint8_t)strlen(bad[i]));
		sp_put_bytes(&w, bad[i], strlen(bad[i]));
		sp_put_u16(&w, 80);
		sp_reader_init(&r, buf, sp_writer_len(&w));
		sp_target_get(&r, &t);
		assert_int_equal(r.err, SP_E_MALFORMED);
	}
}

static void a_final_dot_on_the_wire_makes_no_other_name(void **state)
{
	struct sp_target t;
	struct sp_reader r;

	(void)state;
	sp_reader_init(&r,
		       "\x03\x02"
		       "a.\x00\x50",
		       6);
	sp_target_get(&r, &t);
	assert_int_equal(sp_reader_finish(&r), 0);
	assert_string_equal(t.name, "a");
}

static void socket_addresses_go_there_and_back(void **state)
{
	static const char *const texts[] = {"192.0.2.1:443", "[2001:db8::1]:53"};
	struct sockaddr_storage ss;
	struct sp_target t, again;
	socklen_t len;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(sp_target_parse(texts[i], &t), 0);
		assert_int_equal(sp_target_to_sockaddr(&t, &ss, &len), 0);
		assert_int_equal(len, i ? sizeof(struct sockaddr_in6)
					: sizeof(struct sockaddr_in));
		sp_target_from_sockaddr((struct sockaddr *)&ss, &again);
		assert_true(sp_target_equal(&t, &again));
	}
	assert_int_equal(sp_target_parse("host:1", &t), 0);
	assert_int_equal(sp_target_to_sockaddr(&t, &ss, &len), SP_E_MALFORMED);
}

static void a_v4_mapped_address_is_ipv4_so_that_no_policy_misses_it(void **state)
{
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(80)};
	struct sockaddr other = {.sa_family = AF_UNIX};
	char text[SP_TARGET_TEXT_MAX];
	struct sp_target t;

	(void)state;
	inet_pton(AF_INET6, "::ffff:10.0.0.1", &in6.sin6_addr);
	sp_target_from_sockaddr((struct sockaddr *)&in6, &t);
	assert_string_equal(sp_target_format(&t, text, sizeof(text)), "10.0.0.1:80");
	sp_target_from_sockaddr(&other, &t);
	assert_string_equal(sp_target_format(&t, text, sizeof(text)), "0.0.0.0:0");
}

static void targets_differ_by_kind_address_and_port(void **state)
{
	static const char *const texts[] = {
		"192.0.2.1:443", "192.0.2.1:444", "192.0.2.2:443", "[::1]:443",
		"[::2]:443",     "a:443",         "b:443"};
	struct sp_target a, b;

	(void)state;
	for (unsigned i = 0; i < 7; i++) {
		for (unsigned j = 0; j < 7; j++) {
			assert_int_equal(sp_target_parse(texts[i], &a), 0);
			assert_int_equal(sp_target_parse(texts[j], &b), 0);
			assert_int_equal(sp_target_equal(&a, &b), i == j);
		}
	}
}

int main(void)
{
#define T(f) cmocka_unit_test(f)
	static const struct CMUnitTest tests[] = {
		T(text_forms_are_read_and_written),
		T(other_text_is_refused_and_changes_nothing),
		T(names_are_valid_up_to_their_limits),
		T(the_wire_form_is_kind_address_port),
		T(every_truncation_of_the_wire_form_is_refused),
		T(hostile_wire_forms_are_refused),
		T(a_name_on_the_wire_that_is_an_address_is_refused),
		T(a_final_dot_on_the_wire_makes_no_other_name),
		T(socket_addresses_go_there_and_back),
		T(a_v4_mapped_address_is_ipv4_so_that_no_policy_misses_it),
		T(targets_differ_by_kind_address_and_port),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
