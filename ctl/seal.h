// Signing a config's exact bytes to a file. Not here: whether it should be signed.
#ifndef CTL_SEAL_H
#define CTL_SEAL_H

#include "ctl/cli.h"
#include "lib/signed.h"

// The text form of `body` signed by the 64-byte `secret`, to `path`. 0, or an exit code
// and said.
int ctl_seal(const struct ctl_call *call, enum sp_signed_kind kind, const uint8_t *secret,
	     const void *body, size_t body_len, const char *path,
	     bool replace) SP_MUST_CHECK;

#endif
