// The Noise state machine against published vectors, and what it refuses.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/noise.h"
#include "tests/unit/vectors/noise.h"

struct bytes {
	uint8_t b[256];
	size_t len;
};

static struct bytes unhex(const char *hex)
{
	struct bytes r = {.len = 0};

	assert_int_equal(
		sodium_hex2bin(r.b, sizeof(r.b), hex, strlen(hex), NULL, &r.len, NULL),
		0);
	return r;
}

static void transport(const uint8_t *key, uint64_t n, const struct bytes *payload,
		      struct bytes *ret)
{
	unsigned long long len;
	uint8_t nonce[12] = {0};

	nonce[4] = (uint8_t)n;
	crypto_aead_chacha20poly1305_ietf_encrypt(ret->b, &len, payload->b, payload->len,
						  NULL, 0, NULL, nonce, key);
	ret->len = len;
}

static void start_vector(const struct noise_vector *v, struct sp_noise *ini,
			 struct sp_noise *rsp)
{
	struct bytes prologue = unhex(v->prologue), ei = unhex(v->init_ephemeral),
		     er = unhex(v->resp_ephemeral), psk = unhex(v->psk ? v->psk : ""),
		     si = unhex(v->init_static ? v->init_static : ""),
		     sr = unhex(v->resp_static ? v->resp_static : "");
	uint8_t si_pub[32], sr_pub[32];
	struct sp_noise_keys ki = {.static_secret = si.b, .static_public = si_pub};
	struct sp_noise_keys kr = {.static_secret = sr.b, .static_public = sr_pub};

	ki.psk = kr.psk = psk.b;
	ki.remote_static = sr_pub;
	crypto_scalarmult_base(si_pub, si.b);
	crypto_scalarmult_base(sr_pub, sr.b);
	if (v->resp_static_public)
		assert_memory_equal(sr_pub, unhex(v->resp_static_public).b, 32);
	assert_int_equal(sp_noise_init(ini, v->pattern, SP_NOISE_INITIATOR, prologue.b,
				       prologue.len, &ki),
			 0);
	assert_int_equal(sp_noise_init(rsp, v->pattern, SP_NOISE_RESPONDER, prologue.b,
				       prologue.len, &kr),
			 0);
	sp_noise_set_ephemeral(ini, ei.b);
	sp_noise_set_ephemeral(rsp, er.b);
}

static void run_vector(const struct noise_vector *v)
{
	struct sp_noise side[2];
	struct bytes want, payload, got;
	uint8_t msg[512], plain[512], key[2][32], key2[2][32];
	int len;

	start_vector(v, &side[0], &side[1]);
	for (unsigned i = 0; i < 2; i++) {
		want = unhex(v->message[i].ciphertext);
		payload = unhex(v->message[i].payload);
		assert_int_equal(sp_noise_overhead(&side[i]), want.len - payload.len);
		len = sp_noise_write(&side[i], payload.b, payload.len, msg, sizeof(msg));
		assert_int_equal(len, want.len);
		assert_memory_equal(msg, want.b, want.len);
		len = sp_noise_read(&side[!i], msg, (size_t)len, plain, sizeof(plain));
		assert_int_equal(len, payload.len);
		assert_memory_equal(plain, payload.b, payload.len);
	}
	for (unsigned i = 0; i < 2; i++) {
		assert_true(sp_noise_is_complete(&side[i]));
		assert_memory_equal(sp_noise_hash(&side[i]), unhex(v->hash).b, 32);
	}
	sp_noise_split(&side[0], key[0], key[1]);
	sp_noise_split(&side[1], key2[0], key2[1]);
	assert_memory_equal(key, key2, sizeof(key));
	for (unsigned i = 0; i < 4; i++) {
		payload = unhex(v->message[2 + i].payload);
		want = unhex(v->message[2 + i].ciphertext);
		transport(key[i % 2], i / 2, &payload, &got);
		assert_int_equal(got.len, want.len);
		assert_memory_equal(got.b, want.b, want.len);
	}
}

static void ik_gives_the_bytes_of_the_published_vector(void **state)
{
	(void)state;
	assert_int_equal(noise_vectors[0].pattern, SP_NOISE_IK);
	run_vector(&noise_vectors[0]);
}

static void nnpsk0_gives_the_bytes_of_the_published_vector(void **state)
{
	(void)state;
	assert_int_equal(noise_vectors[1].pattern, SP_NOISE_NNPSK0);
	run_vector(&noise_vectors[1]);
}

static void any_changed_byte_of_either_message_is_refused(void **state)
{
	struct sp_noise ini, rsp;
	uint8_t msg[512], bad[512], out[512];
	int len, err;

	(void)state;
	for (unsigned v = 0; v < 2; v++) {
		for (int which = 0; which < 2; which++) {
			for (int at = 0;; at++) {
				start_vector(&noise_vectors[v], &ini, &rsp);
				len = sp_noise_write(&ini, "abc", 3, msg, sizeof(msg));
				if (which == 1) {
					assert_int_equal(sp_noise_read(&rsp, msg,
								       (size_t)len, out,
								       sizeof(out)),
							 3);
					len = sp_noise_write(&rsp, "defg", 4, msg,
							     sizeof(msg));
				}
				if (at == len)
					break;
				memcpy(bad, msg, (size_t)len);
				bad[at] ^= 0x20;
				err = sp_noise_read(which ? &ini : &rsp, bad, (size_t)len,
						    out, sizeof(out));
				assert_int_equal(err, SP_E_AUTH);
				// and the state is dead, even for the true message
				err = sp_noise_read(which ? &ini : &rsp, msg, (size_t)len,
						    out, sizeof(out));
				assert_int_equal(err, SP_E_PROTOCOL);
			}
		}
	}
}

static void every_truncation_is_refused(void **state)
{
	struct sp_noise ini, rsp;
	uint8_t msg[512], out[512];
	int len, err;

	(void)state;
	for (unsigned v = 0; v < 2; v++) {
		for (int cut = 0;; cut++) {
			start_vector(&noise_vectors[v], &ini, &rsp);
			len = sp_noise_write(&ini, "abc", 3, msg, sizeof(msg));
			if (cut == len)
				break;
			err = sp_noise_read(&rsp, msg, (size_t)cut, out, sizeof(out));
			assert_true(err == SP_E_AUTH || err == SP_E_TRUNCATED);
		}
	}
}

static void low_order_points_are_refused(void **state)
{
	// The points of order 1, 2, 4 and 8 in libsodium's documentation of X25519.
	static const char *const points[] = {
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	};
	struct sp_noise ini, rsp;
	uint8_t msg[512], out[512];

	(void)state;
	for (unsigned i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
		start_vector(&noise_vectors[0], &ini, &rsp);
		memcpy(msg, unhex(points[i]).b, 32);
		memset(msg + 32, 0, 100);
		assert_int_equal(sp_noise_read(&rsp, msg, 132, out, sizeof(out)),
				 SP_E_CRYPTO);
	}
}

static void a_wrong_psk_or_prologue_is_refused(void **state)
{
	struct sp_noise ini, rsp;
	uint8_t psk[32] = {1}, msg[128], out[128];
	struct sp_noise_keys keys = {.psk = psk};
	int len;

	(void)state;
	for (int what = 0; what < 3; what++) {
		psk[0] = 1;
		assert_int_equal(sp_noise_init(&ini, SP_NOISE_NNPSK0, SP_NOISE_INITIATOR,
					       "p", 1, &keys),
				 0);
		psk[0] = what == 1 ? 2 : 1;
		assert_int_equal(sp_noise_init(&rsp, SP_NOISE_NNPSK0, SP_NOISE_RESPONDER,
					       what == 2 ? "q" : "p", 1, &keys),
				 0);
		len = sp_noise_write(&ini, NULL, 0, msg, sizeof(msg));
		assert_int_equal(len, 48);
		assert_int_equal(sp_noise_read(&rsp, msg, 48, out, sizeof(out)),
				 what ? SP_E_AUTH : 0);
	}
}

static void each_side_speaks_only_in_its_turn(void **state)
{
	struct sp_noise ini, rsp;
	uint8_t msg[256], out[256];
	int len;

	(void)state;
	start_vector(&noise_vectors[0], &ini, &rsp);
	assert_int_equal(sp_noise_write(&rsp, NULL, 0, msg, sizeof(msg)), SP_E_PROTOCOL);
	assert_int_equal(sp_noise_read(&ini, msg, 100, out, sizeof(out)), SP_E_PROTOCOL);
	len = sp_noise_write(&ini, NULL, 0, msg, sizeof(msg));
	assert_int_equal(sp_noise_write(&ini, NULL, 0, msg, sizeof(msg)), SP_E_PROTOCOL);
	assert_int_equal(sp_noise_read(&rsp, msg, (size_t)len, out, sizeof(out)), 0);
	len = sp_noise_write(&rsp, NULL, 0, msg, sizeof(msg));
	assert_int_equal(sp_noise_read(&ini, msg, (size_t)len, out, sizeof(out)), 0);
	assert_int_equal(sp_noise_write(&ini, NULL, 0, msg, sizeof(msg)), SP_E_PROTOCOL);
	assert_int_equal(sp_noise_write(&rsp, NULL, 0, msg, sizeof(msg)), SP_E_PROTOCOL);
}

static void a_buffer_too_small_changes_nothing(void **state)
{
	struct sp_noise ini, rsp, before;
	uint8_t msg[256];

	(void)state;
	start_vector(&noise_vectors[0], &ini, &rsp);
	before = ini;
	assert_int_equal(sp_noise_write(&ini, "abc", 3, msg, 98), SP_E_LIMIT);
	assert_memory_equal(&before, &ini, sizeof(ini));
	assert_int_equal(sp_noise_write(&ini, "abc", 3, msg, 99), 99);
}

static void done_leaves_no_key_behind(void **state)
{
	struct sp_noise ini, rsp;

	(void)state;
	start_vector(&noise_vectors[0], &ini, &rsp);
	sp_noise_done(&ini);
	assert_true(sodium_is_zero(ini.s_secret, 32) &&
		    sodium_is_zero(ini.e_secret, 32) && sodium_is_zero(ini.ck, 32) &&
		    sodium_is_zero(ini.k, 32));
	assert_int_equal(sp_noise_write(&ini, NULL, 0, (uint8_t[128]){0}, 128),
			 SP_E_PROTOCOL);
}

static void missing_keys_are_an_error(void **state)
{
	struct sp_noise ns;
	uint8_t k[32] = {9};
	struct sp_noise_keys none = {0},
			     no_remote = {.static_secret = k, .static_public = k};

	(void)state;
	assert_int_equal(
		sp_noise_init(&ns, SP_NOISE_IK, SP_NOISE_RESPONDER, "", 0, &none), -22);
	assert_int_equal(
		sp_noise_init(&ns, SP_NOISE_IK, SP_NOISE_INITIATOR, "", 0, &no_remote),
		-22);
	assert_int_equal(
		sp_noise_init(&ns, SP_NOISE_NNPSK0, SP_NOISE_INITIATOR, "", 0, &none),
		-22);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ik_gives_the_bytes_of_the_published_vector),
		cmocka_unit_test(nnpsk0_gives_the_bytes_of_the_published_vector),
		cmocka_unit_test(any_changed_byte_of_either_message_is_refused),
		cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(low_order_points_are_refused),
		cmocka_unit_test(a_wrong_psk_or_prologue_is_refused),
		cmocka_unit_test(each_side_speaks_only_in_its_turn),
		cmocka_unit_test(a_buffer_too_small_changes_nothing),
		cmocka_unit_test(done_leaves_no_key_behind),
		cmocka_unit_test(missing_keys_are_an_error),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
