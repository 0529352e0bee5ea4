// The configs in force, in files without names that outlive the exit: the next exit goes
// on with them. What was written to the local file since, only a reload or an upgrade
// takes; what the control plane says is there before the next agent is. Not here: keys,
// and the certificate.
#ifndef WRK_CONFIG_KEPT_H
#define WRK_CONFIG_KEPT_H

#include "lib/err.h"
#include "worker/config.h"
#include "worker/identity.h"
#include "worker/keeper.h"

// In place of what was kept before, in one step. 0; -errno: the old one stays.
int wrk_config_keep(struct wrk_kept *k, const struct wrk_config *cfg) SP_MUST_CHECK;
// As the last exit kept it; free with sp_conf_free. NULL: nothing is kept, or it does not
// hold for this program.
struct wrk_config *wrk_config_kept(struct wrk_kept *k, const char *path);

// The same of what the control plane said: a worker config (lib/fleet.h) and its policy,
// in the place of what *id has. Without one *id stays as it is.
int wrk_fleet_keep(struct wrk_kept *k, const void *json, size_t len) SP_MUST_CHECK;
void wrk_fleet_kept(struct wrk_kept *k, struct wrk_identity *id);

// The same of who the other workers are (lib/fleet.h), empty without.
int wrk_members_keep(struct wrk_kept *k, const void *json, size_t len) SP_MUST_CHECK;
void wrk_members_kept(struct wrk_kept *k, struct sp_fleet_members *ret);

#endif
