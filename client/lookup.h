// Names of exits to addresses, by the system's resolver settings and hosts file. Not
// here: names of destinations, which travel to the exit and are never looked up locally.
#ifndef CLI_LOOKUP_H
#define CLI_LOOKUP_H

#include <sys/socket.h>

#include "lib/addr.h"
#include "lib/loop.h"

#define CLI_LOOKUP_MAX 8

struct cli_lookup;
struct cli_lookup_result {
	int err;    // 0; -ENOENT: no such name or no address; -ETIMEDOUT; -EIO
	unsigned n; // addresses, in the order to try them
	struct sockaddr_storage addr[CLI_LOOKUP_MAX];
	socklen_t addr_len[CLI_LOOKUP_MAX];
};
typedef void cli_lookup_done(void *ctx, const struct cli_lookup_result *res);

// Starts; `done` is called once, from the loop, unless cancelled before. An address needs
// no look-up and is given back as it is, likewise from the loop. 0 and *ret; -ENOMEM.
int cli_lookup_start(struct sp_loop *loop, const struct sp_target *target,
		     cli_lookup_done *done, void *ctx,
		     struct cli_lookup **ret) SP_MUST_CHECK;
// `done` will not be called. Not after it was called. NULL is fine.
void cli_lookup_cancel(struct cli_lookup *l);

#endif
