// Keys made and written: a secret file and its public half beside it. Not here: reading
// them (ctl/io.h).
#ifndef CTL_KEYS_H
#define CTL_KEYS_H

#include "ctl/cli.h"
#include "lib/key.h"

struct ctl_keypair {
	enum sp_key_kind kind;
	uint8_t secret[SP_KEY_BYTES_MAX];
	uint8_t public_key[32]; // the route key has none: the secret
};
// A new one, from the kernel's random source. Wipe it when done.
void ctl_keypair_make(enum sp_key_kind kind, struct ctl_keypair *ret);
// Writes the secret to `path`, mode 0600, and the public half to where
// ctl_public_path says, 0644. 0, or an exit code and said; nothing is written if one of
// them is there and `replace` is false.
int ctl_keypair_write(const struct ctl_call *call, const struct ctl_keypair *k,
		      const char *path, bool replace) SP_MUST_CHECK;
// "a.key" gives "a.pub", anything else "anything.pub". free().
char *ctl_public_path(const char *path);
// The public half of a secret (of sp_key_bytes bytes) to `ret` (32 bytes); of a route key
// the secret itself, for its fingerprint.
void ctl_public_of(enum sp_key_kind kind, const uint8_t *secret, uint8_t *ret);

#endif
