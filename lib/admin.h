// The private listener of a program: /metrics, /livez, /readyz over HTTP/1.x. One request
// a connection, GET and HEAD only. For a private address; there is no authentication. Not
// here: what is counted, what readiness means: the program's callbacks.
//
// Not evhttp: it has no limit of connections and no deadline for a whole request.
#ifndef SP_ADMIN_H
#define SP_ADMIN_H

#include "lib/addr.h"
#include "lib/err.h"
#include "lib/loop.h"
#include "lib/metrics.h"

#define SP_ADMIN_CONNECTIONS_MAX 64    // beyond it the oldest is closed
#define SP_ADMIN_HEAD_MAX        8192  // bytes of a request's head; more: 431
#define SP_ADMIN_TIMEOUT_MS      10000 // of a connection, whatever it does

struct sp_admin;
struct sp_ready;

struct sp_admin_ops {
	// Writes the program's families; process and end are added.
	void (*metrics)(void *ctx, struct sp_metrics_writer *w);
	// Calls sp_ready_check for each condition.
	void (*ready)(void *ctx, struct sp_ready *r);
	uint32_t timeout_ms; // 0: SP_ADMIN_TIMEOUT_MS
};

// One condition of readiness: all must be true for 200, else /readyz is 503. `detail`:
// one clause without secrets, may be NULL. The text lists what failed; ?verbose lists
// all.
void sp_ready_check(struct sp_ready *r, const char *name, bool ok, const char *detail);

// Listens on `addr` (port 0: any). `ops` and `ctx` outlive it. 0 and *ret; -errno of the
// socket; SP_E_MALFORMED: a name, not an address; -ENOMEM.
int sp_admin_new(struct sp_loop *loop, const struct sp_target *addr,
		 const struct sp_admin_ops *ops, void *ctx,
		 struct sp_admin **ret) SP_MUST_CHECK;
// Closes listener and connections; not from inside a callback. NULL is fine.
void sp_admin_free(struct sp_admin *a);
// Where it listens.
void sp_admin_address(const struct sp_admin *a, struct sp_target *ret);

#endif
