// Proofs of probes: what a controller's endpoint answers to a nonce, so that a health
// checker knows that its request went through an exit to us, and from which address, and
// that nobody on the way answered in our place. An Ed25519 signature by the key that
// signs the fleet's revisions. Pure. Not here: HTTP (controller/endpoint.c, lib/fetch.h).
#ifndef SP_PROOF_H
#define SP_PROOF_H

#include <stdbool.h>

#include "lib/signed.h"

#define SP_PROOF_NONCE_BYTES 16
#define SP_PROOF_NONCE_LEN   (2 * SP_PROOF_NONCE_BYTES) // its text, lower-case hex
#define SP_PROOF_TEXT_MAX    89                         // base64 of a signature, and NUL
#define SP_PROOF_PEER_MAX    64                         // text of an address, with NUL

// Headers of the answer: the proof, and the address that the request came from.
#define SP_PROOF_HEADER "Sallyport-Probe"
#define SP_PROOF_PEER   "Sallyport-Peer"

// Whether the text is a nonce: SP_PROOF_NONCE_LEN lower-case hexadecimal digits.
bool sp_proof_is_nonce(const char *text);
// Proof over `nonce` and `peer` (text of an address without port) to ret
// (SP_PROOF_TEXT_MAX). `secret`: SP_SIGNED_SECRET_BYTES. Returns ret.
char *sp_proof_make(const uint8_t *secret, const char *nonce, const char *peer,
		    char *ret);
// 0; SP_E_MALFORMED: not the form of one; SP_E_SIGNATURE: none of the keys made it for
// this nonce and peer.
int sp_proof_check(const struct sp_signed_keys *keys, const char *nonce, const char *peer,
		   const char *proof) SP_MUST_CHECK;

#endif
