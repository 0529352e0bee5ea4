// What an application wrote first: which bytes let a dial be redone elsewhere.
#include <openssl/ssl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/untouched.h"
#include "lib/wire.h"

struct hello {
	uint8_t buf[20000];
	size_t len;
};

// A ClientHello; `ext` >= 0: with an extension of that type behind another one.
static void make(struct hello *h, int ext, size_t padding)
{
	static const uint8_t bytes[20000] = {0};
	struct sp_writer w;
	size_t exts = 4 + (ext >= 0 ? 4 + 4 : 0) + (padding ? 4 + padding : 0);
	size_t body = 2 + 32 + 1 + 32 + 2 + 4 + 2 + 2 + exts;
	sp_writer_init(&w, h->buf, sizeof(h->buf));
	sp_put_u8(&w, 22);
	sp_put_u16(&w, 0x0301);
	sp_put_u16(&w, (uint16_t)(body + 4));
	sp_put_u8(&w, 1);
	sp_put_u8(&w, 0);
	sp_put_u16(&w, (uint16_t)body);
	sp_put_u16(&w, 0x0303);
	sp_put_bytes(&w, bytes, 32);
	sp_put_u8(&w, 32);
	sp_put_bytes(&w, bytes, 32);
	sp_put_u16(&w, 4);
	sp_put_u32(&w, 0x13011302);
	sp_put_u16(&w, 0x0100); // one compression method: none
	sp_put_u16(&w, (uint16_t)exts);
	sp_put_u32(&w, 23u << 16); // extended_master_secret
	if (padding) {
		sp_put_u16(&w, 21);
		sp_put_u16(&w, (uint16_t)padding);
		sp_put_bytes(&w, bytes, padding);
	}
	if (ext >= 0) {
		sp_put_u16(&w, (uint16_t)ext);
		sp_put_u16(&w, 4);
		sp_put_u32(&w, 0);
	}
	assert_int_equal(w.err, 0);
	h->len = sp_writer_len(&w);
}

static void one_whole_hello_and_nothing_else_is_a_hello(void **state)
{
	struct hello h;
	(void)state;
	for (int more = 0; more < 2; more++) {
		make(&h, more ? 43 : -1, more ? 300 : 0);
		assert_true(cli_untouched_is_hello(h.buf, h.len));
		for (size_t n = 0; n < h.len; n++)
			assert_false(cli_untouched_is_hello(h.buf, n));
		h.buf[h.len] = 0;
		assert_false(cli_untouched_is_hello(h.buf, h.len + 1));
	}
}

static void a_hello_with_early_data_is_none(void **state)
{
	struct hello h;
	(void)state;
	make(&h, 42, 0);
	assert_false(cli_untouched_is_hello(h.buf, h.len));
	make(&h, 42, 100);
	assert_false(cli_untouched_is_hello(h.buf, h.len));
	make(&h, 41, 0); // a resumption without it is
	assert_true(cli_untouched_is_hello(h.buf, h.len));
}

static void a_length_that_is_wrong_anywhere_makes_it_none(void **state)
{
	static const size_t lengths[] = {4, 8, 43, 77, 82, 85, 89};
	struct hello h;
	(void)state;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
		for (int by = -1; by <= 1; by += 2) {
			make(&h, -1, 0);
			assert_true(lengths[i] < h.len);
			h.buf[lengths[i]] = (uint8_t)(h.buf[lengths[i]] + by);
			assert_false(cli_untouched_is_hello(h.buf, h.len));
		}
}

static void what_openssl_says_first_is_a_hello(void **state)
{
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	(void)state;
	for (int i = 0; i < 2; i++) {
		uint8_t buf[4096];
		SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
		assert_int_equal(SSL_CTX_set_max_proto_version(ctx, versions[i]), 1);
		SSL *ssl = SSL_new(ctx);
		BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
		SSL_set_bio(ssl, in, out);
		SSL_set_tlsext_host_name(ssl, "example.org");
		assert_int_equal(SSL_connect(ssl), -1);
		int n = BIO_read(out, buf, sizeof(buf));
		assert_true(n > 100);
		assert_true(cli_untouched_is_hello(buf, (size_t)n));
		SSL_free(ssl);
		SSL_CTX_free(ctx);
	}
}

static void a_dial_may_be_redone_until_anything_but_a_hello_is_written(void **state)
{
	struct cli_untouched_budget b = {.max = 100000};
	struct cli_untouched k = {0};
	struct hello h;
	(void)state;
	assert_true(cli_untouched_may_redo(&k));
	make(&h, -1, 0);
	struct iovec first[2] = {{h.buf, 10}, {h.buf + 10, 30}};
	struct iovec rest = {h.buf + 40, h.len - 40};
	cli_untouched_write(&k, &b, first, 40);
	assert_false(cli_untouched_may_redo(&k));
	cli_untouched_write(&k, &b, &rest, rest.iov_len);
	assert_true(cli_untouched_may_redo(&k));
	assert_int_equal(k.len, h.len);
	assert_memory_equal(k.bytes, h.buf, h.len);
	assert_int_equal(b.bytes, h.len);
	cli_untouched_write(&k, &b, first, 1);
	assert_false(cli_untouched_may_redo(&k));
	cli_untouched_touch(&k, &b);
	assert_int_equal(b.bytes, 0);
	assert_false(cli_untouched_may_redo(&k));
	cli_untouched_write(&k, &b, first, 10);
	assert_int_equal(k.len, 0);
}

static void a_plain_request_is_not_even_kept(void **state)
{
	char request[] = "GET / HTTP/1.1\r\n\r\n";
	struct cli_untouched_budget b = {.max = 100000};
	struct cli_untouched k = {0};
	struct iovec iov = {request, sizeof(request) - 1};
	(void)state;
	cli_untouched_write(&k, &b, &iov, iov.iov_len);
	assert_true(k.touched);
	assert_null(k.bytes);
	assert_false(cli_untouched_may_redo(&k));
}

static void no_more_is_kept_than_16_kb_a_stream_and_the_budget_of_all(void **state)
{
	struct hello h;
	struct cli_untouched_budget b = {.max = 20000};
	struct cli_untouched k[3] = {{0}};
	(void)state;
	make(&h, -1, 16200);
	struct iovec iov = {h.buf, h.len};
	assert_true(h.len <= CLI_UNTOUCHED_MAX);
	cli_untouched_write(&k[0], &b, &iov, h.len);
	assert_true(cli_untouched_may_redo(&k[0]));
	cli_untouched_write(&k[1], &b, &iov, h.len);
	assert_true(k[1].touched);
	assert_int_equal(b.refused, 1);
	cli_untouched_touch(&k[0], &b);
	make(&h, -1, 16400);
	iov.iov_len = h.len;
	assert_true(h.len > CLI_UNTOUCHED_MAX);
	cli_untouched_write(&k[2], &b, &iov, h.len);
	assert_true(k[2].touched);
	assert_int_equal(b.bytes, 0);
	assert_int_equal(b.refused, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_whole_hello_and_nothing_else_is_a_hello),
		cmocka_unit_test(a_hello_with_early_data_is_none),
		cmocka_unit_test(a_length_that_is_wrong_anywhere_makes_it_none),
		cmocka_unit_test(what_openssl_says_first_is_a_hello),
		cmocka_unit_test(
			a_dial_may_be_redone_until_anything_but_a_hello_is_written),
		cmocka_unit_test(a_plain_request_is_not_even_kept),
		cmocka_unit_test(
			no_more_is_kept_than_16_kb_a_stream_and_the_budget_of_all),
	};
	return cmocka_run_group_tests_name("untouched", tests, NULL, NULL);
}
