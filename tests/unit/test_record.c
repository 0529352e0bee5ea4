// The record layer, its ciphers checked against libsodium's.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/record.h"

static const enum sp_suite suites[] = {SP_SUITE_AES256GCM, SP_SUITE_CHACHA20POLY1305};
static const uint8_t test_key[32] = {7, 7, 7, 1, 2, 3};

static struct iovec seg(const void *p, size_t len)
{
	return (struct iovec){(void *)(uintptr_t)p, len};
}

// What the record should be, by libsodium and by the words of PROTOCOL.md section 5.
static size_t expected(enum sp_suite suite, const uint8_t *key, uint64_t n,
		       const uint8_t *plain, size_t len, uint8_t *out)
{
	uint8_t nonce[12] = {0};
	unsigned long long clen;

	out[0] = (uint8_t)((len + 16) >> 8);
	out[1] = (uint8_t)(len + 16);
	for (unsigned i = 0; i < 8; i++) {
		if (suite == SP_SUITE_AES256GCM)
			nonce[11 - i] = (uint8_t)(n >> (8 * i));
		else
			nonce[4 + i] = (uint8_t)(n >> (8 * i));
	}
	if (suite == SP_SUITE_AES256GCM)
		crypto_aead_aes256gcm_encrypt(out + 2, &clen, plain, len, out, 2, NULL,
					      nonce, key);
	else
		crypto_aead_chacha20poly1305_ietf_encrypt(out + 2, &clen, plain, len, out,
							  2, NULL, nonce, key);
	return 2 + clen;
}

static bool can_check(enum sp_suite suite)
{
	return suite != SP_SUITE_AES256GCM || crypto_aead_aes256gcm_is_available();
}

static void records_are_what_an_independent_cipher_gives(void **state)
{
	static const size_t sizes[] = {1,    2,    15,    16,
				       17,   255,  1400,  4096,
				       4108, 8192, 16365, SP_RECORD_PLAIN_MAX};
	static uint8_t plain[SP_RECORD_PLAIN_MAX], want[SP_RECORD_MAX],
		got[SP_RECORD_MAX];
	struct sp_record_tx tx;

	(void)state;
	randombytes_buf(plain, sizeof(plain));
	for (unsigned s = 0; s < 2; s++) {
		if (!can_check(suites[s]))
			continue;
		assert_int_equal(sp_record_tx_init(&tx, suites[s], test_key, 0), 0);
		tx.n = 0x0102030405060708;
		for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			struct iovec iov = seg(plain, sizes[i]);
			size_t len = expected(suites[s], test_key, tx.n, plain, sizes[i],
					      want);

			assert_int_equal(
				sp_record_tx_seal(&tx, &iov, 1, got, sizeof(got)), len);
			assert_memory_equal(got, want, len);
		}
		sp_record_tx_done(&tx);
	}
}

static void segments_give_the_same_record_as_one_piece(void **state)
{
	static uint8_t plain[SP_RECORD_PLAIN_MAX], want[SP_RECORD_MAX],
		got[SP_RECORD_MAX];
	struct sp_record_tx one, many;

	(void)state;
	randombytes_buf(plain, sizeof(plain));
	for (unsigned s = 0; s < 2; s++) {
		assert_int_equal(sp_record_tx_init(&one, suites[s], test_key, 0), 0);
		assert_int_equal(sp_record_tx_init(&many, suites[s], test_key, 0), 0);
		for (unsigned round = 0; round < 300; round++) {
			struct iovec whole = seg(plain, 0), iov[24];
			size_t at = 0;
			int n = 0;

			while (n < 24 && at < sizeof(plain)) {
				size_t len = randombytes_uniform(2)
						     ? randombytes_uniform(20)
						     : randombytes_uniform(5000);

				if (len > sizeof(plain) - at)
					len = sizeof(plain) - at;
				iov[n++] = seg(plain + at, len);
				at += len;
			}
			if (!at)
				continue;
			whole.iov_len = at;
			assert_int_equal(
				sp_record_tx_seal(&one, &whole, 1, want, sizeof(want)),
				at + SP_RECORD_OVERHEAD);
			assert_int_equal(
				sp_record_tx_seal(&many, iov, n, got, sizeof(got)),
				at + SP_RECORD_OVERHEAD);
			assert_memory_equal(got, want, at + SP_RECORD_OVERHEAD);
		}
		sp_record_tx_done(&one);
		sp_record_tx_done(&many);
	}
}

static void records_open_in_order_across_rekeys(void **state)
{
	uint8_t plain[600], rec[700], *p;
	struct sp_record_tx tx;
	struct sp_record_rx rx;
	size_t len;
	int size;

	(void)state;
	for (unsigned s = 0; s < 2; s++) {
		assert_int_equal(sp_record_tx_init(&tx, suites[s], test_key, 0), 0);
		assert_int_equal(sp_record_rx_init(&rx, suites[s], test_key), 0);
		for (unsigned i = 0; i < 100; i++) {
			struct iovec iov = seg(plain, 1 + i * 5);

			randombytes_buf(plain, sizeof(plain));
			size = sp_record_tx_seal(&tx, &iov, 1, rec, sizeof(rec));
			assert_int_equal(sp_record_peek(rec, (size_t)size), size);
			assert_int_equal(
				sp_record_rx_open(&rx, rec, (size_t)size, &p, &len), 0);
			assert_int_equal(len, iov.iov_len);
			assert_memory_equal(p, plain, len);
			if (i % 10 == 9) {
				assert_int_equal(sp_record_tx_rekey(&tx, 0), 0);
				assert_int_equal(sp_record_rx_rekey(&rx), 0);
			}
		}
		assert_int_equal(tx.n, 100);
		assert_int_equal(rx.n, 100);
		assert_int_equal(tx.bytes, rx.bytes);
		assert_int_equal(tx.rekeys, 10);
		sp_record_tx_done(&tx);
		sp_record_rx_done(&rx);
	}
}

static void the_next_key_is_that_of_the_protocol_and_n_goes_on(void **state)
{
	uint8_t zeros[32] = {0}, next[48], nonce[12], want[100], got[100];
	struct sp_record_tx tx;
	struct iovec iov = seg("hello", 5);
	unsigned long long clen;
	size_t len;

	(void)state;
	memset(nonce, 0xff, sizeof(nonce));
	memset(nonce, 0, 4);
	for (unsigned s = 0; s < 2; s++) {
		if (!can_check(suites[s]))
			continue;
		if (suites[s] == SP_SUITE_AES256GCM)
			crypto_aead_aes256gcm_encrypt(next, &clen, zeros, 32, NULL, 0,
						      NULL, nonce, test_key);
		else
			crypto_aead_chacha20poly1305_ietf_encrypt(
				next, &clen, zeros, 32, NULL, 0, NULL, nonce, test_key);
		assert_int_equal(sp_record_tx_init(&tx, suites[s], test_key, 0), 0);
		assert_int_equal(sp_record_tx_seal(&tx, &iov, 1, got, sizeof(got)), 23);
		assert_int_equal(sp_record_tx_rekey(&tx, 0), 0);
		assert_int_equal(sp_record_tx_seal(&tx, &iov, 1, got, sizeof(got)), 23);
		len = expected(suites[s], next, 1, (const uint8_t *)"hello", 5, want);
		assert_memory_equal(got, want, len);
		sp_record_tx_done(&tx);
	}
}

static void any_changed_byte_ends_the_direction(void **state)
{
	uint8_t rec[64], bad[64], *p;
	struct sp_record_tx tx;
	struct sp_record_rx rx;
	struct iovec iov = seg("0123456789", 10);
	size_t len;
	int size;

	(void)state;
	for (unsigned s = 0; s < 2; s++) {
		assert_int_equal(sp_record_tx_init(&tx, suites[s], test_key, 0), 0);
		size = sp_record_tx_seal(&tx, &iov, 1, rec, sizeof(rec));
		for (int at = 2; at < size; at++) {
			assert_int_equal(sp_record_rx_init(&rx, suites[s], test_key), 0);
			memcpy(bad, rec, sizeof(rec));
			bad[at] ^= 1;
			assert_int_equal(
				sp_record_rx_open(&rx, bad, (size_t)size, &p, &len),
				SP_E_AUTH);
			memcpy(bad, rec, sizeof(rec));
			assert_int_equal(
				sp_record_rx_open(&rx, bad, (size_t)size, &p, &len),
				SP_E_CLOSED);
			sp_record_rx_done(&rx);
		}
		sp_record_tx_done(&tx);
	}
}

static void a_changed_length_is_refused_although_the_bytes_are_there(void **state)
{
	uint8_t rec[64], *p;
	struct sp_record_tx tx;
	struct sp_record_rx rx;
	struct iovec iov = seg("0123456789", 10);
	size_t len;
	int size;

	(void)state;
	assert_int_equal(sp_record_tx_init(&tx, suites[0], test_key, 0), 0);
	size = sp_record_tx_seal(&tx, &iov, 1, rec, sizeof(rec));
	rec[1]--;
	assert_int_equal(sp_record_peek(rec, sizeof(rec)), size - 1);
	assert_int_equal(sp_record_rx_init(&rx, suites[0], test_key), 0);
	assert_int_equal(sp_record_rx_open(&rx, rec, (size_t)size - 1, &p, &len),
			 SP_E_AUTH);
	sp_record_rx_done(&rx);
	sp_record_tx_done(&tx);
}

static void a_replayed_dropped_or_swapped_record_is_refused(void **state)
{
	uint8_t rec[3][64], copy[64], *p;
	struct sp_record_tx tx;
	struct sp_record_rx rx;
	struct iovec iov = seg("0123456789", 10);
	static const int orders[][2] = {{0, 0}, {0, 2}, {1, 0}};
	size_t len;

	(void)state;
	assert_int_equal(sp_record_tx_init(&tx, suites[1], test_key, 0), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(sp_record_tx_seal(&tx, &iov, 1, rec[i], 64), 28);
	for (unsigned o = 0; o < 3; o++) {
		int err = 0;

		assert_int_equal(sp_record_rx_init(&rx, suites[1], test_key), 0);
		for (int i = 0; i < 2 && !err; i++) {
			memcpy(copy, rec[orders[o][i]], 64);
			err = sp_record_rx_open(&rx, copy, 28, &p, &len);
		}
		assert_int_equal(err, SP_E_AUTH);
		sp_record_rx_done(&rx);
	}
	sp_record_tx_done(&tx);
}

static void peek_tells_incomplete_from_impossible(void **state)
{
	static uint8_t buf[SP_RECORD_MAX + 1];

	(void)state;
	for (unsigned len = 0; len <= 0xffff; len++) {
		int want = (int)len + 2;

		buf[0] = (uint8_t)(len >> 8);
		buf[1] = (uint8_t)len;
		if (len < 17 || len > 16382)
			want = SP_E_MALFORMED;
		assert_int_equal(sp_record_peek(buf, sizeof(buf)), want);
		if (want > 0) {
			assert_int_equal(sp_record_peek(buf, len + 1), SP_E_AGAIN);
			assert_int_equal(sp_record_peek(buf, len + 2), want);
		}
	}
	assert_int_equal(sp_record_peek(buf, 0), SP_E_AGAIN);
	assert_int_equal(sp_record_peek(buf, 1), SP_E_AGAIN);
	buf[0] = 0xff;
	assert_int_equal(sp_record_peek(buf, 2), SP_E_MALFORMED);
}

static void sizes_out_of_range_are_refused_without_harm(void **state)
{
	static uint8_t plain[SP_RECORD_PLAIN_MAX + 1], out[SP_RECORD_MAX + 16];
	struct sp_record_tx tx;
	struct iovec none = seg(plain, 0), over = seg(plain, SP_RECORD_PLAIN_MAX + 1);
	struct iovec wrap[2] = {seg(plain, SIZE_MAX), seg(plain, 2)};
	struct iovec fits = seg(plain, 10);

	(void)state;
	assert_int_equal(sp_record_tx_init(&tx, suites[0], test_key, 0), 0);
	assert_int_equal(sp_record_tx_seal(&tx, &none, 1, out, sizeof(out)), SP_E_LIMIT);
	assert_int_equal(sp_record_tx_seal(&tx, &none, 0, out, sizeof(out)), SP_E_LIMIT);
	assert_int_equal(sp_record_tx_seal(&tx, &over, 1, out, sizeof(out)), SP_E_LIMIT);
	assert_int_equal(sp_record_tx_seal(&tx, wrap, 2, out, sizeof(out)), SP_E_LIMIT);
	assert_int_equal(sp_record_tx_seal(&tx, &fits, 1, out, 27), SP_E_LIMIT);
	assert_int_equal(tx.n, 0);
	assert_int_equal(sp_record_tx_seal(&tx, &fits, 1, out, 28), 28);
	sp_record_tx_done(&tx);
}

static void a_rekey_is_due_after_a_gibibyte_or_two_minutes(void **state)
{
	uint8_t out[64];
	struct sp_record_tx tx;
	struct iovec iov = seg("0123456789", 10);

	(void)state;
	assert_int_equal(sp_record_tx_init(&tx, suites[0], test_key, 1000), 0);
	assert_false(sp_record_tx_rekey_due(&tx, 900));
	assert_false(sp_record_tx_rekey_due(&tx, 120999));
	assert_true(sp_record_tx_rekey_due(&tx, 121000));
	assert_int_equal(sp_record_tx_rekey(&tx, 121000), 0);
	assert_false(sp_record_tx_rekey_due(&tx, 121000));
	tx.key_bytes = (1u << 30) - 10;
	assert_false(sp_record_tx_rekey_due(&tx, 121000));
	assert_int_equal(sp_record_tx_seal(&tx, &iov, 1, out, sizeof(out)), 28);
	assert_true(sp_record_tx_rekey_due(&tx, 121000));
	sp_record_tx_done(&tx);
}

static void the_number_of_the_rekey_nonce_is_never_used(void **state)
{
	uint8_t out[64], *p;
	struct sp_record_tx tx;
	struct sp_record_rx rx;
	struct iovec iov = seg("0123456789", 10);
	size_t len;

	(void)state;
	assert_int_equal(sp_record_tx_init(&tx, suites[0], test_key, 0), 0);
	assert_int_equal(sp_record_rx_init(&rx, suites[0], test_key), 0);
	tx.n = rx.n = UINT64_MAX - 2;
	assert_int_equal(sp_record_tx_seal(&tx, &iov, 1, out, sizeof(out)), 28);
	assert_int_equal(sp_record_rx_open(&rx, out, 28, &p, &len), 0);
	assert_int_equal(sp_record_tx_seal(&tx, &iov, 1, out, sizeof(out)), SP_E_CLOSED);
	assert_int_equal(sp_record_rx_open(&rx, out, 28, &p, &len), SP_E_CLOSED);
	sp_record_tx_done(&tx);
	sp_record_rx_done(&rx);
}

static void after_done_nothing_is_sealed_or_opened(void **state)
{
	uint8_t out[64], *p;
	struct sp_record_tx tx = {0};
	struct sp_record_rx rx = {0};
	struct iovec iov = seg("0123456789", 10);
	size_t len;

	(void)state;
	sp_record_tx_done(&tx);
	sp_record_rx_done(&rx);
	assert_int_equal(sp_record_tx_init(&tx, suites[0], test_key, 0), 0);
	assert_int_equal(sp_record_tx_seal(&tx, &iov, 1, out, sizeof(out)), 28);
	sp_record_tx_done(&tx);
	sp_record_tx_done(&tx);
	assert_int_equal(sp_record_tx_seal(&tx, &iov, 1, out, sizeof(out)), SP_E_CLOSED);
	assert_int_equal(sp_record_tx_rekey(&tx, 0), SP_E_CRYPTO);
	assert_int_equal(sp_record_rx_open(&rx, out, 28, &p, &len), SP_E_CLOSED);
	assert_int_equal(sp_record_rx_rekey(&rx), SP_E_CRYPTO);
}

static void the_suite_is_aes_where_both_have_it(void **state)
{
	(void)state;
	assert_int_equal(sp_aead_pick(3, 3), SP_SUITE_AES256GCM);
	assert_int_equal(sp_aead_pick(2, 3), SP_SUITE_CHACHA20POLY1305);
	assert_int_equal(sp_aead_pick(3, 2), SP_SUITE_CHACHA20POLY1305);
	assert_int_equal(sp_aead_pick(1, 2), 0);
	assert_int_equal(sp_aead_pick(3, 0xfc), 0);
	assert_true(sp_aead_suites() & SP_SUITE_CHACHA20POLY1305);
	if (crypto_aead_aes256gcm_is_available())
		assert_true(sp_aead_suites() & SP_SUITE_AES256GCM);
}

static void an_unknown_suite_is_refused(void **state)
{
	struct sp_record_tx tx;

	(void)state;
	assert_int_equal(sp_record_tx_init(&tx, (enum sp_suite)3, test_key, 0), -22);
	assert_int_equal(sp_record_tx_init(&tx, (enum sp_suite)0, test_key, 0), -22);
	sp_record_tx_done(&tx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_are_what_an_independent_cipher_gives),
		cmocka_unit_test(segments_give_the_same_record_as_one_piece),
		cmocka_unit_test(records_open_in_order_across_rekeys),
		cmocka_unit_test(the_next_key_is_that_of_the_protocol_and_n_goes_on),
		cmocka_unit_test(any_changed_byte_ends_the_direction),
		cmocka_unit_test(
			a_changed_length_is_refused_although_the_bytes_are_there),
		cmocka_unit_test(a_replayed_dropped_or_swapped_record_is_refused),
		cmocka_unit_test(peek_tells_incomplete_from_impossible),
		cmocka_unit_test(sizes_out_of_range_are_refused_without_harm),
		cmocka_unit_test(a_rekey_is_due_after_a_gibibyte_or_two_minutes),
		cmocka_unit_test(the_number_of_the_rekey_nonce_is_never_used),
		cmocka_unit_test(after_done_nothing_is_sealed_or_opened),
		cmocka_unit_test(the_suite_is_aes_where_both_have_it),
		cmocka_unit_test(an_unknown_suite_is_refused),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
