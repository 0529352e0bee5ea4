// The proof that a 204 for a probe came from a controller: the endpoint that answers
// /v1/probe/NONCE and the judge of probe reports calculate the same. Pure.
#ifndef CON_PROBEPROOF_H
#define CON_PROBEPROOF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CON_PROBE_KEY_BYTES  32
#define CON_PROBE_NONCE_MAX  64 // characters of a nonce: letters and digits
#define CON_PROBE_PROOF_TEXT 65 // 32 bytes in hex, with the NUL

// The key, from the controller's signing key (64 bytes). Wipe it.
void con_probe_key(const uint8_t *signing_secret, uint8_t *ret);
bool con_probe_nonce_is_valid(const char *nonce);
// Keyed BLAKE2b-256 of the nonce's text, in hex, to `ret` of CON_PROBE_PROOF_TEXT: value
// of the header Sallyport-Probe. Returns ret.
char *con_probe_proof(const uint8_t *key, const char *nonce, char *ret);
// In constant time. False also if the nonce is not valid.
bool con_probe_proof_holds(const uint8_t *key, const char *nonce, const char *proof);

#endif
