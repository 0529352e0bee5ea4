// base64, hex, distance of words, and key lines.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/key.h"
#include "lib/text.h"

static void base64_gives_the_vectors_of_rfc_4648(void **state)
{
	static const char *const v[][2] = {
		{"", ""},
		{"f", "Zg=="},
		{"fo", "Zm8="},
		{"foo", "Zm9v"},
		{"foob", "Zm9vYg=="},
		{"fooba", "Zm9vYmE="},
		{"foobar", "Zm9vYmFy"},
	};
	char text[16];
	uint8_t bytes[16];
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		sp_base64_encode(v[i][0], strlen(v[i][0]), text, sizeof(text));
		assert_string_equal(text, v[i][1]);
		assert_int_equal(
			sp_base64_decode(text, strlen(text), bytes, sizeof(bytes), &len),
			0);
		assert_int_equal(len, strlen(v[i][0]));
		assert_memory_equal(bytes, v[i][0], len);
	}
}

static void base64_that_is_not_canonical_is_refused(void **state)
{
	static const char *const bad[] = {
		"Zg=",     "Zg",   "Zh==",    "Zm9=",      "Zg==Zg==",
		"=AAA",    "Z===", "====",    " Zg==",     "Zg==\n",
		"Zm9\xf6", "Zm-_", "A\xb2==", "\xda\xe7=="};
	uint8_t bytes[16];
	size_t len = 77;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(sp_base64_decode(bad[i], strlen(bad[i]), bytes,
						  sizeof(bytes), &len),
				 SP_E_MALFORMED);
	assert_int_equal(sp_base64_decode("Zm9v", 4, bytes, 2, &len), SP_E_LIMIT);
	assert_int_equal(len, 77);
}

static void hex_goes_there_and_back_and_refuses_the_rest(void **state)
{
	static const char *const bad[] = {"0001fe", "0001fexx", "0001fe7f0",
					  "0001fe\xb7\xe6"};
	const uint8_t bytes[4] = {0, 1, 0xfe, 0x7f};
	uint8_t got[4];
	char text[9];

	(void)state;
	assert_string_equal(sp_hex_encode(bytes, 4, text, sizeof(text)), "0001fe7f");
	assert_int_equal(sp_hex_decode("0001FE7f", 8, got, 4), 0);
	assert_memory_equal(got, bytes, 4);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(sp_hex_decode(bad[i], strlen(bad[i]), got, 4),
				 SP_E_MALFORMED);
}

static void the_distance_of_words_counts_edits_and_swaps(void **state)
{
	char longer[80];

	(void)state;
	assert_int_equal(sp_text_distance("listen", "listen"), 0);
	assert_int_equal(sp_text_distance("", "abc"), 3);
	assert_int_equal(sp_text_distance("lsiten", "listen"), 1);
	assert_int_equal(sp_text_distance("certificat", "certificate"), 1);
	assert_int_equal(sp_text_distance("kitten", "sitting"), 3);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(sp_text_distance(longer, "x"), 64);
}

static void every_kind_of_key_survives_its_text_form(void **state)
{
	uint8_t key[SP_KEY_BYTES_MAX], got[SP_KEY_BYTES_MAX];
	char text[SP_KEY_TEXT_MAX], padded[SP_KEY_TEXT_MAX + 8], why[128];

	(void)state;
	for (unsigned i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)(i * 7 + 1);
	for (int k = SP_KEY_SIGNING; k <= SP_KEY_ROUTE; k++) {
		for (int secret = k == SP_KEY_ROUTE; secret < 2; secret++) {
			sp_key_format((enum sp_key_kind)k, secret, key, text);
			snprintf(padded, sizeof(padded), " %s\r\n", text);
			memset(got, 0, sizeof(got));
			assert_int_equal(sp_key_parse((enum sp_key_kind)k, secret, padded,
						      strlen(padded), got, why,
						      sizeof(why)),
					 0);
			assert_memory_equal(got, key,
					    sp_key_bytes((enum sp_key_kind)k, secret));
		}
	}
}

static void expect_refusal(bool secret, const char *text, const char *want)
{
	uint8_t got[SP_KEY_BYTES_MAX] = {42};
	char why[160];

	assert_int_equal(sp_key_parse(SP_KEY_WORKER, secret, text, strlen(text), got, why,
				      sizeof(why)),
			 SP_E_MALFORMED);
	assert_string_equal(why, want);
	assert_int_equal(got[0], 42);
}

static void a_wrong_key_is_refused_by_what_it_is(void **state)
{
	uint8_t key[SP_KEY_BYTES_MAX] = {1};
	char text[SP_KEY_TEXT_MAX];

	(void)state;
	expect_refusal(true, sp_key_format(SP_KEY_WORKER, false, key, text),
		       "this is a public worker key; a secret worker key is needed");
	expect_refusal(false, sp_key_format(SP_KEY_SIGNING, true, key, text),
		       "this is a secret signing key; a public worker key is needed");
	sp_key_format(SP_KEY_WORKER, true, key, text);
	text[30] = '!';
	expect_refusal(true, text, "the secret worker key is damaged");
	text[40] = '\0';
	expect_refusal(true, text, "the secret worker key is damaged");
	expect_refusal(true, "-----BEGIN PRIVATE KEY-----",
		       "not a key; a line sallyport-worker-secret:... is needed");
	expect_refusal(true, "",
		       "not a key; a line sallyport-worker-secret:... is needed");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(base64_gives_the_vectors_of_rfc_4648),
		cmocka_unit_test(base64_that_is_not_canonical_is_refused),
		cmocka_unit_test(hex_goes_there_and_back_and_refuses_the_rest),
		cmocka_unit_test(the_distance_of_words_counts_edits_and_swaps),
		cmocka_unit_test(every_kind_of_key_survives_its_text_form),
		cmocka_unit_test(a_wrong_key_is_refused_by_what_it_is),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
