// Tells when this machine's network changed: an address or a route came or went
// (rtnetlink), or the machine woke from sleep or its clock was set (a timer that is
// cancelled then). Costs nothing while nothing happens. Not here: what is done about it.
#ifndef CLI_NETWATCH_H
#define CLI_NETWATCH_H

#include "lib/err.h"
#include "lib/loop.h"

struct cli_netwatch;

// What happens within a tenth of a second is told once, by `changed` from the loop, and
// no more than once in 2 s: what comes sooner is told then. 0 and *ret; -ENOMEM; -errno:
// this system has no such sockets (the client works without).
int cli_netwatch_new(struct sp_loop *loop, void (*changed)(void *ctx), void *ctx,
		     struct cli_netwatch **ret) SP_MUST_CHECK;
void cli_netwatch_free(struct cli_netwatch *w); // NULL is fine

#endif
