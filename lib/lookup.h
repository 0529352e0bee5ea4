// Names of workers to addresses, by the system's resolver settings and hosts file. Not
// here: names of destinations, which travel to the exit and are never looked up locally.
#ifndef SP_LOOKUP_H
#define SP_LOOKUP_H

#include <sys/socket.h>

#include "lib/addr.h"
#include "lib/loop.h"

#define SP_LOOKUP_MAX 8

struct sp_lookup;
struct sp_lookup_result {
	int err;    // 0; -ENOENT: no such name or no address; -ETIMEDOUT; -EIO
	unsigned n; // addresses, in the order to try them
	struct sockaddr_storage addr[SP_LOOKUP_MAX];
	socklen_t addr_len[SP_LOOKUP_MAX];
};
typedef void sp_lookup_done(void *ctx, const struct sp_lookup_result *res);

// Starts; `done` is called once, from the loop, unless cancelled before. An address needs
// no look-up and is given back as it is, likewise from the loop. 0 and *ret; -ENOMEM.
int sp_lookup_start(struct sp_loop *loop, const struct sp_target *target,
		    sp_lookup_done *done, void *ctx,
		    struct sp_lookup **ret) SP_MUST_CHECK;
// `done` will not be called. Not after it was called. NULL is fine.
void sp_lookup_cancel(struct sp_lookup *l);

#endif
