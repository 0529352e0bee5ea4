// Signed blobs: Ed25519 over exact bytes, as binary (passes on the wire) and as a text
// file (configs): PROTOCOL.md section 8. Pure: no I/O, no clock; malloc of one copy of
// the body while signing or verifying. Not here: what a body means (lib/pass.h and the
// configs).
#ifndef SP_SIGNED_H
#define SP_SIGNED_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define SP_SIGNED_BODY_MAX     (1u << 20)
#define SP_SIGNED_SNAPSHOT_MAX (16u << 20) // of that kind: the whole of a large fleet
#define SP_SIGNED_OVERHEAD     81          // what the binary form adds to the body
#define SP_SIGNED_LINE_MAX     160         // most that the text form adds to the body
#define SP_SIGNED_PUBLIC_BYTES 32
#define SP_SIGNED_SECRET_BYTES 64 // libsodium's form: seed, then public key
#define SP_SIGNED_KEY_ID_BYTES 8
#define SP_SIGNED_KEYS_MAX     8

enum sp_signed_kind {
	SP_SIGNED_PASS = 1,
	SP_SIGNED_WORKER_CONFIG = 2,
	SP_SIGNED_CLIENT_CONFIG = 3,
	SP_SIGNED_REVISION = 4, // text form only, as the next
	SP_SIGNED_SNAPSHOT = 5,
};
// "pass", "worker-config", "client-config", "revision", "snapshot", as in the text form;
// "unknown".
const char *sp_signed_kind_word(enum sp_signed_kind kind);

// The public keys that are trusted; embed, zero to begin with.
struct sp_signed_keys {
	unsigned n;
	struct {
		uint8_t id[SP_SIGNED_KEY_ID_BYTES];
		uint8_t public_key[SP_SIGNED_PUBLIC_BYTES];
	} key[SP_SIGNED_KEYS_MAX];
};

// First 8 bytes of H(public key) to `ret_id`.
void sp_signed_key_id(const uint8_t *public_key, uint8_t *ret_id);
// Adds a 32-byte public key; one that is there already is fine. 0; SP_E_LIMIT: full;
// SP_E_MALFORMED: not a valid point, or another key has the same id.
int sp_signed_keys_add(struct sp_signed_keys *keys,
		       const uint8_t *public_key) SP_MUST_CHECK;

// Binary form of `body` signed with the 64-byte `secret`, to `out`. Returns its length,
// body_len + SP_SIGNED_OVERHEAD; SP_E_LIMIT: body too long, or over `cap`; -ENOMEM.
int sp_signed_seal(enum sp_signed_kind kind, const uint8_t *secret, const void *body,
		   size_t body_len, uint8_t *out, size_t cap) SP_MUST_CHECK;
// The same as a text file: one line, then the exact body. `out` gets no final NUL.
int sp_signed_seal_text(enum sp_signed_kind kind, const uint8_t *secret, const void *body,
			size_t body_len, char *out, size_t cap) SP_MUST_CHECK;

struct sp_signed_view {
	const uint8_t *body; // points into the input
	size_t body_len;
	uint8_t key_id[SP_SIGNED_KEY_ID_BYTES];
	enum sp_signed_kind kind;
};
// Verifies the binary form, which must be all of `buf`. 0 and *ret; SP_E_MALFORMED: not a
// signed blob, or of another kind than `kind`; SP_E_KEY: its key is not in `keys`;
// SP_E_SIGNATURE: the signature is wrong; -ENOMEM.
int sp_signed_open(const struct sp_signed_keys *keys, enum sp_signed_kind kind,
		   const void *buf, size_t len, struct sp_signed_view *ret) SP_MUST_CHECK;
// The same for the text form.
int sp_signed_open_text(const struct sp_signed_keys *keys, enum sp_signed_kind kind,
			const void *buf, size_t len,
			struct sp_signed_view *ret) SP_MUST_CHECK;
// Reads either form without verifying anything: for printing, and to find the key that is
// missing. 0 and *ret; SP_E_MALFORMED.
int sp_signed_peek(const void *buf, size_t len, struct sp_signed_view *ret) SP_MUST_CHECK;

#endif
