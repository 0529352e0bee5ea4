// Keys in files and configs: one line of text that names the kind,
//   sallyport-<kind>-<public|secret>:<base64>
// so that a key in the wrong place is told apart from a damaged one. Not here: making
// keys, using them.
#ifndef SP_KEY_H
#define SP_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

// PROTOCOL.md section 2.
enum sp_key_kind {
	SP_KEY_SIGNING, // Ed25519: public 32 bytes, secret 64 (libsodium's form)
	SP_KEY_WORKER,  // X25519: 32 and 32
	SP_KEY_DEVICE,  // X25519: 32 and 32
	SP_KEY_ROUTE,   // secret only, 32
	SP_KEY_CONTROL, // CURVE25519 of the control plane's links: 32 and 32
};

#define SP_KEY_BYTES_MAX 64
#define SP_KEY_TEXT_MAX  128 // longest text with its NUL

const char *sp_key_kind_word(enum sp_key_kind kind); // "signing" ...
size_t sp_key_bytes(enum sp_key_kind kind, bool secret);

// Text without newline to `buf` of SP_KEY_TEXT_MAX. `key`: sp_key_bytes bytes. Returns
// buf.
char *sp_key_format(enum sp_key_kind kind, bool secret, const uint8_t *key, char *buf);
// One key and nothing else but white space around it, to `ret` (sp_key_bytes bytes). 0;
// SP_E_MALFORMED: no such key, and `why` says what is there instead in one clause without
// showing it.
int sp_key_parse(enum sp_key_kind kind, bool secret, const char *text, size_t len,
		 uint8_t *ret, char *why, size_t cap) SP_MUST_CHECK;

// Reads a key file; a secret one must be private (lib/file.h). 0; as sp_key_parse and
// sp_file_read; `why` names the file.
int sp_key_load(const char *path, enum sp_key_kind kind, bool secret, uint8_t *ret,
		char *why, size_t cap) SP_MUST_CHECK;
// Writes a new key file, mode 0600 for a secret and 0644 for a public key; never replaces
// one. 0; -EEXIST, -errno and `why`.
int sp_key_save(const char *path, enum sp_key_kind kind, bool secret, const uint8_t *key,
		char *why, size_t cap) SP_MUST_CHECK;

#endif
