// Proofs of probes: who made one, for what, and what is none.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/proof.h"

#define NONCE "00112233445566778899aabbccddeeff"

static uint8_t secret[SP_SIGNED_SECRET_BYTES];
static struct sp_signed_keys keys;

static int setup(void **state)
{
	uint8_t public_key[32];
	(void)state;
	crypto_sign_keypair(public_key, secret);
	return sodium_init() < 0 || sp_signed_keys_add(&keys, public_key);
}

static void a_proof_holds_for_its_nonce_and_peer_only(void **state)
{
	char proof[SP_PROOF_TEXT_MAX];
	(void)state;
	sp_proof_make(secret, NONCE, "192.0.2.7", proof);
	assert_int_equal(sp_proof_check(&keys, NONCE, "192.0.2.7", proof), 0);
	assert_int_equal(sp_proof_check(&keys, NONCE, "192.0.2.8", proof),
			 SP_E_SIGNATURE);
	assert_int_equal(sp_proof_check(&keys, "10112233445566778899aabbccddeeff",
					"192.0.2.7", proof),
			 SP_E_SIGNATURE);
}

static void a_proof_by_another_key_is_none(void **state)
{
	uint8_t public_key[32], other[SP_SIGNED_SECRET_BYTES];
	char proof[SP_PROOF_TEXT_MAX];
	(void)state;
	crypto_sign_keypair(public_key, other);
	sp_proof_make(other, NONCE, "192.0.2.7", proof);
	assert_int_equal(sp_proof_check(&keys, NONCE, "192.0.2.7", proof),
			 SP_E_SIGNATURE);
}

static void what_has_not_the_form_is_refused(void **state)
{
	char proof[SP_PROOF_TEXT_MAX];
	(void)state;
	assert_true(sp_proof_is_nonce(NONCE));
	assert_false(sp_proof_is_nonce("00112233445566778899AABBCCDDEEFF"));
	assert_false(sp_proof_is_nonce(NONCE "0"));
	assert_false(sp_proof_is_nonce(""));
	sp_proof_make(secret, NONCE, "192.0.2.7", proof);
	assert_int_equal(sp_proof_check(&keys, "", "192.0.2.7", proof), SP_E_MALFORMED);
	assert_int_equal(sp_proof_check(&keys, NONCE, "192.0.2.7", ""), SP_E_MALFORMED);
	proof[10] = '!';
	assert_int_equal(sp_proof_check(&keys, NONCE, "192.0.2.7", proof),
			 SP_E_MALFORMED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_proof_holds_for_its_nonce_and_peer_only),
		cmocka_unit_test(a_proof_by_another_key_is_none),
		cmocka_unit_test(what_has_not_the_form_is_refused),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
