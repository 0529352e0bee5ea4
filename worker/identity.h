// What the files that the local config names hold: keys, TLS certificate, the signed
// config and the exit policy in it. Loaded and checked as a whole, so that a reload takes
// all of it or nothing. Blocking I/O. Not here: the YAML itself (config.h).
#ifndef WRK_IDENTITY_H
#define WRK_IDENTITY_H

#include "lib/carrier.h"
#include "lib/fleet.h"
#include "lib/policy.h"
#include "lib/signed.h"
#include "worker/config.h"

struct wrk_identity {
	uint8_t static_secret[32];
	uint8_t route_key[32];
	struct sp_signed_keys trusted;
	struct sp_fleet_worker *fleet; // NULL: not known yet (control.folder)
	struct sp_policy *policy;
	struct sp_tls *tls; // NULL: no tls listener
};

// 0 and *ret; SP_E_CONFIG, and `why` (cap >= SP_WHY_MAX) names the key, the file, what is
// wrong and the remedy.
int wrk_identity_load(const struct wrk_config *cfg, struct wrk_identity *ret, char *why,
		      size_t cap) SP_MUST_CHECK;
// The signed config is in force: its revision is written to state_dir, if there is one,
// and no older one loads from then on. That the disk is full is a warning.
void wrk_identity_hold(const struct wrk_config *cfg, const struct wrk_identity *id);
// The exit policy that a config's rules make. 0 and *ret; SP_E_CONFIG and `why`.
int wrk_identity_policy(const struct sp_fleet_worker *f, struct sp_policy **ret,
			char *why, size_t cap) SP_MUST_CHECK;
void wrk_identity_done(struct wrk_identity *id); // wipes; a zeroed struct is fine
// From the config, else made from the static public key (sp_fleet_home_id); not 0.
uint64_t wrk_identity_home_id(const struct wrk_config *cfg, const uint8_t *static_public);

#endif
