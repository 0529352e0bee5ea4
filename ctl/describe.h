// What our files say, as JSON records for ctl_out. Pure. Never a secret. Not here: files,
// signatures.
#ifndef CTL_DESCRIBE_H
#define CTL_DESCRIBE_H

#include <jansson.h>

#include "lib/key.h"
#include "lib/pass.h"
#include "lib/signed.h"

// Each returns a new record, or NULL: no memory.

// `key`: the public half, for the route key (which has none) the secret, of which only a
// hash is told. `secret`: what the file holds.
json_t *ctl_describe_key(enum sp_key_kind kind, bool secret, const uint8_t *key);
// `checked`: the signature was verified.
json_t *ctl_describe_pass(const struct sp_signed_view *view, const struct sp_pass *pass,
			  uint64_t now_s, bool checked);
// `view` NULL: not signed. `canonical`: what sp_fleet_*_print gave.
json_t *ctl_describe_config(enum sp_signed_kind kind, const struct sp_signed_view *view,
			    const char *canonical, bool checked);

#endif
