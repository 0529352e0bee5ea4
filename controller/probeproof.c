#include "controller/probeproof.h"

#include <string.h>

#include <sodium.h>

#include "lib/text.h"

void con_probe_key(const uint8_t *signing_secret, uint8_t *ret)
{
	static const uint8_t what[] = "sallyport probe proof v1";
	crypto_generichash(ret, CON_PROBE_KEY_BYTES, what, sizeof(what) - 1,
			   signing_secret, 32); // the seed: the secret half
}

bool con_probe_nonce_is_valid(const char *nonce)
{
	size_t len = strlen(nonce);
	return len > 0 && len <= CON_PROBE_NONCE_MAX &&
	       strspn(nonce, "0123456789abcdefghijklmnopqrstuvwxyz"
			     "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == len;
}

char *con_probe_proof(const uint8_t *key, const char *nonce, char *ret)
{
	uint8_t hash[32];
	crypto_generichash(hash, sizeof(hash), (const uint8_t *)nonce, strlen(nonce), key,
			   CON_PROBE_KEY_BYTES);
	return sp_hex_encode(hash, sizeof(hash), ret, CON_PROBE_PROOF_TEXT);
}

bool con_probe_proof_holds(const uint8_t *key, const char *nonce, const char *proof)
{
	char want[CON_PROBE_PROOF_TEXT];
	return con_probe_nonce_is_valid(nonce) && strlen(proof) == sizeof(want) - 1 &&
	       sodium_memcmp(con_probe_proof(key, nonce, want), proof,
			     sizeof(want) - 1) == 0;
}
