// What the files that the local config names hold: device key, pass, trusted keys, the
// exits. Loaded and checked as a whole, so that a reload takes all of it or nothing.
// Blocking I/O. Not here: the YAML itself (config.h).
#ifndef CLI_IDENTITY_H
#define CLI_IDENTITY_H

#include "client/config.h"
#include "client/exits.h"
#include "client/uplink.h"

struct cli_identity {
	struct cli_uplink_identity device;
	struct sp_pass pass;
	struct sp_signed_keys trusted;
	struct cli_exits *exits;
};

// 0 and *ret; SP_E_CONFIG, and `why` (cap >= SP_WHY_MAX) names the key, the file, what is
// wrong and the remedy. The revision of the exits must not be older than the one held in
// the state folder; a newer one is noted there if `hold`. Where endpoints tell pass and
// exits and none did yet: with `hold` they are asked until one does (or the errors of
// cli_poll_first), without -ENOENT.
int cli_identity_load(const struct cli_config *cfg, bool hold, struct cli_identity *ret,
		      char *why, size_t cap) SP_MUST_CHECK;
void cli_identity_done(struct cli_identity *id); // wipes; a zeroed struct is fine

#endif
