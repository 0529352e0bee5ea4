// Signed blobs and passes: what opens, and what every damage is told as.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/pass.h"
#include "lib/signed.h"

struct signer {
	uint8_t public_key[32], secret[64];
	struct sp_signed_keys keys;
};

static struct signer make_signer(uint8_t seed_byte)
{
	uint8_t seed[32] = {seed_byte};
	struct signer s = {0};

	crypto_sign_seed_keypair(s.public_key, s.secret, seed);
	assert_int_equal(sp_signed_keys_add(&s.keys, s.public_key), 0);
	return s;
}

static struct sp_pass make_pass(void)
{
	struct sp_pass p = {
		.not_before_s = 1000000,
		.expires_s = 1090000,
		.user = "user-17",
		.tier = "gold",
		.max_sessions = 5,
		.max_streams = 4096,
		.max_flows = 2048,
		.rate_bps = UINT64_C(125000000),
		.groups_n = 2,
		.groups = {"eu", "us-west"},
	};

	memset(p.serial, 0xaa, sizeof(p.serial));
	memset(p.device, 0xbb, sizeof(p.device));
	return p;
}

static void the_binary_form_is_laid_out_as_the_protocol_says(void **state)
{
	struct signer s = make_signer(1);
	uint8_t blob[200], id[8], message[64];
	const char *context = "sallyport signed blob v1";
	int len;

	(void)state;
	len = sp_signed_seal(SP_SIGNED_CLIENT_CONFIG, s.secret, "hello", 5, blob,
			     sizeof(blob));
	assert_int_equal(len, 5 + SP_SIGNED_OVERHEAD);
	assert_memory_equal(blob, "SPB1\x03", 5);
	sp_signed_key_id(s.public_key, id);
	assert_memory_equal(blob + 5, id, 8);
	assert_memory_equal(blob + 13, "\0\0\0\5hello", 9);
	memcpy(message, context, 24);
	memcpy(message + 24, "\x03hello", 6);
	assert_int_equal(
		crypto_sign_verify_detached(blob + 22, message, 30, s.public_key), 0);
}

static void the_text_form_is_one_line_and_the_exact_body(void **state)
{
	struct signer s = make_signer(1);
	const char *body = "a: 1\n\nb: 2", *start = "sallyport-signed 1 worker-config ";
	struct sp_signed_view view;
	char text[256];
	int len;

	(void)state;
	len = sp_signed_seal_text(SP_SIGNED_WORKER_CONFIG, s.secret, body, strlen(body),
				  text, sizeof(text));
	assert_true(len > 0);
	assert_memory_equal(text, start, strlen(start));
	assert_memory_equal(strchr(text, '\n') + 1, body, strlen(body));
	assert_int_equal(sp_signed_open_text(&s.keys, SP_SIGNED_WORKER_CONFIG, text,
					     (size_t)len, &view),
			 0);
	assert_int_equal(view.body_len, strlen(body));
	assert_memory_equal(view.body, body, view.body_len);
}

static void both_forms_give_an_empty_body_back(void **state)
{
	struct signer s = make_signer(1);
	struct sp_signed_view view;
	uint8_t buf[256];
	int len;

	(void)state;
	len = sp_signed_seal(SP_SIGNED_PASS, s.secret, NULL, 0, buf, sizeof(buf));
	assert_int_equal(sp_signed_open(&s.keys, SP_SIGNED_PASS, buf, (size_t)len, &view),
			 0);
	assert_int_equal(view.body_len, 0);
	len = sp_signed_seal_text(SP_SIGNED_PASS, s.secret, NULL, 0, (char *)buf,
				  sizeof(buf));
	assert_int_equal(
		sp_signed_open_text(&s.keys, SP_SIGNED_PASS, buf, (size_t)len, &view), 0);
	assert_int_equal(view.body_len, 0);
}

// Every byte changed, in turn, each by some bits: never accepted, and never a wrong
// reason.
static void damage(const struct sp_signed_keys *keys, const uint8_t *blob, size_t len,
		   bool text)
{
	struct sp_signed_view view;
	uint8_t *bad = malloc(len);
	int err;

	for (size_t at = 0; at < len; at++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			memcpy(bad, blob, len);
			bad[at] ^= (uint8_t)(1u << bit);
			if (text)
				err = sp_signed_open_text(keys, SP_SIGNED_PASS, bad, len,
							  &view);
			else
				err = sp_signed_open(keys, SP_SIGNED_PASS, bad, len,
						     &view);
			assert_true(err == SP_E_MALFORMED || err == SP_E_KEY ||
				    err == SP_E_SIGNATURE);
		}
	}
	free(bad);
}

static void no_changed_bit_is_accepted(void **state)
{
	struct signer s = make_signer(1);
	uint8_t buf[300];
	int len;

	(void)state;
	len = sp_signed_seal(SP_SIGNED_PASS, s.secret, "some body", 9, buf, sizeof(buf));
	damage(&s.keys, buf, (size_t)len, false);
	len = sp_signed_seal_text(SP_SIGNED_PASS, s.secret, "some body", 9, (char *)buf,
				  sizeof(buf));
	damage(&s.keys, buf, (size_t)len, true);
}

static void no_truncation_or_appendix_of_the_binary_form_is_accepted(void **state)
{
	struct signer s = make_signer(1);
	struct sp_signed_view view;
	uint8_t buf[300];
	int len;

	(void)state;
	len = sp_signed_seal(SP_SIGNED_PASS, s.secret, "some body", 9, buf, sizeof(buf));
	for (int cut = 0; cut < len; cut++)
		assert_int_equal(
			sp_signed_open(&s.keys, SP_SIGNED_PASS, buf, (size_t)cut, &view),
			SP_E_MALFORMED);
	buf[len] = 0;
	assert_int_equal(
		sp_signed_open(&s.keys, SP_SIGNED_PASS, buf, (size_t)len + 1, &view),
		SP_E_MALFORMED);
}

static void a_truncated_text_is_refused(void **state)
{
	struct signer s = make_signer(1);
	struct sp_signed_view view;
	char *exact, buf[300];
	int len, err;

	(void)state;
	len = sp_signed_seal_text(SP_SIGNED_PASS, s.secret, "some body", 9, buf,
				  sizeof(buf));
	for (int cut = 0; cut < len; cut++) {
		exact = malloc((size_t)cut + 1);
		memcpy(exact, buf, (size_t)cut);
		err = sp_signed_open_text(&s.keys, SP_SIGNED_PASS, exact, (size_t)cut,
					  &view);
		assert_int_equal(err, cut < len - 9 ? SP_E_MALFORMED : SP_E_SIGNATURE);
		free(exact);
	}
}

static void unknown_key_bad_signature_and_other_kind_are_told_apart(void **state)
{
	struct signer s = make_signer(1), other = make_signer(2);
	struct sp_signed_view view;
	uint8_t buf[300];
	int len;

	(void)state;
	len = sp_signed_seal(SP_SIGNED_PASS, s.secret, "some body", 9, buf, sizeof(buf));
	assert_int_equal(
		sp_signed_open(&other.keys, SP_SIGNED_PASS, buf, (size_t)len, &view),
		SP_E_KEY);
	assert_int_equal(
		sp_signed_open(&s.keys, SP_SIGNED_CLIENT_CONFIG, buf, (size_t)len, &view),
		SP_E_MALFORMED);
	buf[18] ^= 1;
	assert_int_equal(sp_signed_open(&s.keys, SP_SIGNED_PASS, buf, (size_t)len, &view),
			 SP_E_SIGNATURE);
}

static void a_signature_of_one_kind_is_not_one_of_another(void **state)
{
	struct signer s = make_signer(1);
	struct sp_signed_view view;
	uint8_t buf[300];
	int len;

	(void)state;
	len = sp_signed_seal(SP_SIGNED_PASS, s.secret, "some body", 9, buf, sizeof(buf));
	buf[4] = SP_SIGNED_CLIENT_CONFIG;
	assert_int_equal(
		sp_signed_open(&s.keys, SP_SIGNED_CLIENT_CONFIG, buf, (size_t)len, &view),
		SP_E_SIGNATURE);
}

static void a_key_set_takes_eight_points_and_nothing_else(void **state)
{
	struct sp_signed_keys keys = {0};
	uint8_t pub[32], secret[64], junk[32] = {1};

	(void)state;
	assert_int_equal(sp_signed_keys_add(&keys, junk), SP_E_MALFORMED);
	for (int i = 0; i < SP_SIGNED_KEYS_MAX; i++) {
		crypto_sign_keypair(pub, secret);
		assert_int_equal(sp_signed_keys_add(&keys, pub), 0);
		assert_int_equal(sp_signed_keys_add(&keys, pub), 0);
		assert_int_equal(keys.n, i + 1);
	}
	crypto_sign_keypair(pub, secret);
	assert_int_equal(sp_signed_keys_add(&keys, pub), SP_E_LIMIT);
}

static void peek_reads_both_forms_without_keys(void **state)
{
	struct signer s = make_signer(1);
	struct sp_signed_view view;
	uint8_t buf[300], id[8];
	int len;

	(void)state;
	sp_signed_key_id(s.public_key, id);
	len = sp_signed_seal(SP_SIGNED_PASS, s.secret, "some body", 9, buf, sizeof(buf));
	assert_int_equal(sp_signed_peek(buf, (size_t)len, &view), 0);
	assert_memory_equal(view.key_id, id, 8);
	len = sp_signed_seal_text(SP_SIGNED_CLIENT_CONFIG, s.secret, "some body", 9,
				  (char *)buf, sizeof(buf));
	assert_int_equal(sp_signed_peek(buf, (size_t)len, &view), 0);
	assert_int_equal(view.kind, SP_SIGNED_CLIENT_CONFIG);
	assert_int_equal(sp_signed_peek("nothing\n", 8, &view), SP_E_MALFORMED);
}

static void a_buffer_too_small_or_a_body_too_large_is_refused(void **state)
{
	struct signer s = make_signer(1);
	uint8_t *big = calloc(1, SP_SIGNED_BODY_MAX + 1), buf[90];

	(void)state;
	assert_int_equal(
		sp_signed_seal(SP_SIGNED_PASS, s.secret, "some body", 9, buf, 89),
		SP_E_LIMIT);
	assert_int_equal(
		sp_signed_seal(SP_SIGNED_PASS, s.secret, "some body", 9, buf, 90), 90);
	assert_int_equal(sp_signed_seal_text(SP_SIGNED_PASS, s.secret, "some body", 9,
					     (char *)buf, sizeof(buf)),
			 SP_E_LIMIT);
	assert_int_equal(sp_signed_seal(SP_SIGNED_PASS, s.secret, big,
					SP_SIGNED_BODY_MAX + 1, big, SIZE_MAX),
			 SP_E_LIMIT);
	free(big);
}

static void a_pass_comes_back_as_it_was_signed(void **state)
{
	struct signer s = make_signer(1);
	struct sp_pass in = make_pass(), out;
	uint8_t blob[SP_PASS_BLOB_MAX];
	int len;

	(void)state;
	memset(&out, 0x55, sizeof(out));
	len = sp_pass_sign(&in, s.secret, blob, sizeof(blob));
	assert_true(len > 0);
	assert_int_equal(sp_pass_open(&s.keys, blob, (size_t)len, &out), 0);
	assert_memory_equal(&in, &out, sizeof(in));
	assert_true(sp_pass_has_group(&out, "us-west"));
	assert_false(sp_pass_has_group(&out, "us"));
}

static void the_largest_pass_fits_its_stated_size(void **state)
{
	struct sp_pass in = make_pass(), out;
	uint8_t body[SP_PASS_BODY_MAX];

	(void)state;
	memset(in.user, 'u', SP_PASS_USER_MAX);
	memset(in.tier, 't', SP_PASS_WORD_MAX);
	in.groups_n = SP_PASS_GROUPS_MAX;
	for (unsigned i = 0; i < SP_PASS_GROUPS_MAX; i++)
		memset(in.groups[i], 'a' + (int)i, SP_PASS_WORD_MAX);
	assert_int_equal(sp_pass_encode(&in, body, sizeof(body)), SP_PASS_BODY_MAX);
	assert_int_equal(sp_pass_encode(&in, body, sizeof(body) - 1), SP_E_LIMIT);
	assert_int_equal(sp_pass_parse(body, sizeof(body), &out), 0);
	assert_memory_equal(&in, &out, sizeof(in));
}

static void a_pass_cut_short_lengthened_or_of_another_version_is_refused(void **state)
{
	struct sp_pass in = make_pass(), out;
	uint8_t body[SP_PASS_BODY_MAX];
	int len = sp_pass_encode(&in, body, sizeof(body));

	(void)state;
	for (int cut = 0; cut < len; cut++)
		assert_int_equal(sp_pass_parse(body, (size_t)cut, &out), SP_E_TRUNCATED);
	body[len] = 0;
	assert_int_equal(sp_pass_parse(body, (size_t)len + 1, &out), SP_E_MALFORMED);
	body[0] = 2;
	assert_int_equal(sp_pass_parse(body, (size_t)len, &out), SP_E_VERSION);
}

static void a_pass_with_texts_that_may_not_be_is_neither_made_nor_read(void **state)
{
	struct sp_pass good = make_pass(), bad, out;
	uint8_t body[SP_PASS_BODY_MAX];
	int len;

	(void)state;
	bad = good;
	bad.user[0] = 0;
	assert_int_equal(sp_pass_encode(&bad, body, sizeof(body)), SP_E_MALFORMED);
	bad = good;
	bad.tier[1] = '\n';
	assert_int_equal(sp_pass_encode(&bad, body, sizeof(body)), SP_E_MALFORMED);
	bad = good;
	memset(bad.groups[1], 'x', sizeof(bad.groups[1]));
	assert_int_equal(sp_pass_encode(&bad, body, sizeof(body)), SP_E_MALFORMED);
	bad = good;
	bad.expires_s = bad.not_before_s;
	assert_int_equal(sp_pass_encode(&bad, body, sizeof(body)), SP_E_MALFORMED);
	bad = good;
	bad.groups_n = SP_PASS_GROUPS_MAX + 1;
	assert_int_equal(sp_pass_encode(&bad, body, sizeof(body)), SP_E_MALFORMED);

	len = sp_pass_encode(&good, body, sizeof(body));
	body[66] = 0; // a NUL in the user's name
	assert_int_equal(sp_pass_parse(body, (size_t)len, &out), SP_E_MALFORMED);
}

static void a_pass_is_judged_by_the_clock_with_its_tolerance(void **state)
{
	struct sp_pass p = make_pass(); // 1000000 to 1090000
	static const struct {
		uint64_t now, expires;
		enum sp_reason want;
	} cases[] = {
		{999909, 1090000, SP_REASON_PASS_EARLY},
		{999910, 1090000, SP_REASON_NONE},
		{1089999, 1090000, SP_REASON_NONE},
		{1090089, 1090000, SP_REASON_NONE},
		{1090090, 1090000, SP_REASON_PASS_EXPIRED},
		{0, 1090000, SP_REASON_PASS_EARLY},
		{UINT64_MAX, 1090000, SP_REASON_PASS_EXPIRED},
		{UINT64_MAX - 1, UINT64_MAX, SP_REASON_NONE},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		p.expires_s = cases[i].expires;
		assert_int_equal(sp_pass_judge_time(&p, cases[i].now, 90), cases[i].want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_binary_form_is_laid_out_as_the_protocol_says),
		cmocka_unit_test(the_text_form_is_one_line_and_the_exact_body),
		cmocka_unit_test(both_forms_give_an_empty_body_back),
		cmocka_unit_test(no_changed_bit_is_accepted),
		cmocka_unit_test(
			no_truncation_or_appendix_of_the_binary_form_is_accepted),
		cmocka_unit_test(a_truncated_text_is_refused),
		cmocka_unit_test(unknown_key_bad_signature_and_other_kind_are_told_apart),
		cmocka_unit_test(a_signature_of_one_kind_is_not_one_of_another),
		cmocka_unit_test(a_key_set_takes_eight_points_and_nothing_else),
		cmocka_unit_test(peek_reads_both_forms_without_keys),
		cmocka_unit_test(a_buffer_too_small_or_a_body_too_large_is_refused),
		cmocka_unit_test(a_pass_comes_back_as_it_was_signed),
		cmocka_unit_test(the_largest_pass_fits_its_stated_size),
		cmocka_unit_test(
			a_pass_cut_short_lengthened_or_of_another_version_is_refused),
		cmocka_unit_test(
			a_pass_with_texts_that_may_not_be_is_neither_made_nor_read),
		cmocka_unit_test(a_pass_is_judged_by_the_clock_with_its_tolerance),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
