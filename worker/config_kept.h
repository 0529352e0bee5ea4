// The config in force, in a file without a name that outlives the exit: the next exit
// goes on with it whatever was written to the config file since, which only a reload or
// an upgrade takes. Not here: what the config's files hold.
#ifndef WRK_CONFIG_KEPT_H
#define WRK_CONFIG_KEPT_H

#include "lib/err.h"
#include "worker/config.h"
#include "worker/keeper.h"

// In place of what was kept before, in one step. 0; -errno: the old one stays.
int wrk_config_keep(struct wrk_kept *k, const struct wrk_config *cfg) SP_MUST_CHECK;
// As the last exit kept it; free with sp_conf_free. NULL: nothing is kept, or it does not
// hold for this program.
struct wrk_config *wrk_config_kept(struct wrk_kept *k, const char *path);

#endif
