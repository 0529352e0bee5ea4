#include "lib/proof.h"

#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "lib/text.h"

#define CONTEXT "sallyport probe proof v1"

_Static_assert(SP_PROOF_TEXT_MAX == SP_BASE64_CAP(crypto_sign_BYTES), "a signature");

bool sp_proof_is_nonce(const char *text)
{
	return strspn(text, "0123456789abcdef") == SP_PROOF_NONCE_LEN &&
	       !text[SP_PROOF_NONCE_LEN];
}

// What is signed; no other signature of ours begins like it. Returns its length.
static size_t message(const char *nonce, const char *peer, char *buf, size_t cap)
{
	int n = snprintf(buf, cap, CONTEXT "\n%.*s\n%.*s\n", SP_PROOF_NONCE_LEN, nonce,
			 SP_PROOF_PEER_MAX - 1, peer);
	return (size_t)n;
}

char *sp_proof_make(const uint8_t *secret, const char *nonce, const char *peer, char *ret)
{
	char text[sizeof(CONTEXT) + SP_PROOF_NONCE_LEN + SP_PROOF_PEER_MAX + 4];
	uint8_t sig[crypto_sign_BYTES];
	size_t len = message(nonce, peer, text, sizeof(text));
	crypto_sign_detached(sig, NULL, (const uint8_t *)text, len, secret);
	return sp_base64_encode(sig, sizeof(sig), ret, SP_PROOF_TEXT_MAX);
}

int sp_proof_check(const struct sp_signed_keys *keys, const char *nonce, const char *peer,
		   const char *proof)
{
	char text[sizeof(CONTEXT) + SP_PROOF_NONCE_LEN + SP_PROOF_PEER_MAX + 4];
	uint8_t sig[crypto_sign_BYTES];
	size_t sig_len;
	if (!sp_proof_is_nonce(nonce) || strlen(peer) >= SP_PROOF_PEER_MAX ||
	    sp_base64_decode(proof, strlen(proof), sig, sizeof(sig), &sig_len) ||
	    sig_len != sizeof(sig))
		return SP_E_MALFORMED;
	size_t len = message(nonce, peer, text, sizeof(text));
	for (unsigned i = 0; i < keys->n; i++)
		if (crypto_sign_verify_detached(sig, (const uint8_t *)text, len,
						keys->key[i].public_key) == 0)
			return 0;
	return SP_E_SIGNATURE;
}
