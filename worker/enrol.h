// `sallyport-worker enroll`: joins the fleet with keys that are made here and never
// leave. Not here: the exchange (lib/enrol.h), what is kept of it (lib/enrolled.h).
#ifndef WRK_ENROL_H
#define WRK_ENROL_H

#include "worker/config.h"

// Fills control.folder: static.key, agent/control.key, route.key, fleet.json. Keys that a
// failed attempt left are used again; nothing is ever replaced. `token` is the text that
// sallyportctl enroll printed. 0; SP_E_AUTH: a controller refused it; -EEXIST: enrolled
// already; errors of sp_enrol_run, -errno; `why` (SP_WHY_MAX) says it with the remedy.
int wrk_enrol(const struct wrk_config *cfg, const char *token, char *why,
	      size_t cap) SP_MUST_CHECK;

#endif
