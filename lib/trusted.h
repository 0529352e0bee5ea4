// The signing keys that a config trusts: a list of which each entry is a key's text or a
// file with one. Reads files. Not here: what the keys sign (lib/signed.h), keys alone
// (lib/key.h).
#ifndef SP_TRUSTED_H
#define SP_TRUSTED_H

#include "lib/conf.h"
#include "lib/signed.h"

// Adds the keys of `list` to `ret`. `name`: the list's key in the config; `want`: what an
// entry should be, for people. 0; SP_E_CONFIG, and `why` names the list, the entry, what
// is wrong and the remedy; keys before that entry are in `ret` then.
int sp_trusted_load(const char *name, const char *want,
		    const struct sp_conf_strings *list, struct sp_signed_keys *ret,
		    char *why, size_t cap) SP_MUST_CHECK;

#endif
