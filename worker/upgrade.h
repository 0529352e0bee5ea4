// Who asks the exit for a reload or an upgrade, and what it does about it: SIGHUP, or a
// command of the same user over a socket in the abstract namespace, which waits for the
// outcome. The installed image must pass its own --check before anything is stopped. Not
// here: what a reload can take in place (reload.c), the trial (worker/keeper_upgrade.h).
#ifndef WRK_UPGRADER_H
#define WRK_UPGRADER_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/err.h"

#define WRK_ASK_NAME_MAX 64
#define WRK_ASK_TEXT_MAX 1024
#define WRK_CHECK_MS     5000 // for the new image's --check

struct wrk_worker;
struct wrk_upgrader;

// Takes what an upgrade left for this exit, before descriptors are swept. 0 and
// w->upgrader; -ENOMEM. That nobody can reach it is a warning.
int wrk_upgrader_new(struct wrk_worker *w) SP_MUST_CHECK;
// Logs what came of the last upgrade, and tells who asked for it.
void wrk_upgrader_tell(struct wrk_worker *w);
void wrk_upgrader_free(struct wrk_worker *w);
// SIGHUP. While a reload is under way it is remembered: however many came, there is one
// more reload when that one was refused. A new image reads the config anew as it is.
void wrk_upgrader_reload(struct wrk_worker *w);
// Whether the exit is to end at once, with all that lives left as it is.
bool wrk_upgrader_leaves(const struct wrk_worker *w);

// The command: asks the worker with this config for `what` ("reload" or "upgrade") and
// prints what came of it. Returns the exit status.
int wrk_ask(const char *config_path, const char *what);
// The name of the socket of the worker with this config. False: no such file.
bool wrk_ask_name(const char *config_path, char *ret, size_t cap);

#endif
