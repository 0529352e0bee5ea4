// Dials: from a target to a connected socket. Resolves, asks the exit policy about every
// address, tries the allowed ones as RFC 8305 says (families interleaved, IPv6 first, the
// next after 250 ms or a failure), holds at most two descriptors meanwhile. Not here:
// what becomes of the socket.
//
// `journal` is called before connect() so that a crash cannot leave a connection nobody
// knows of: (place 0 or 1, descriptor), and (place, -1) before that descriptor is closed.
// When a dial succeeds its descriptor is in place 0; if it was in place 1 it is first
// written to place 0 and then taken from place 1, so both may name it for a moment.
//
// `done` is called exactly once, from the event loop and never from within wrk_dial_tcp
// or wrk_dial_udp, unless the dial is cancelled. `journal` may also be called from within
// wrk_dial_cancel and wrk_dialer_free; it must not call into this module.
#ifndef WRK_DIAL_H
#define WRK_DIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/policy.h"
#include "lib/reason.h"
#include "worker/resolve.h"
#include "worker/socket.h"

#define WRK_DIAL_PLACES   2
#define WRK_DIAL_SLICE_MS 40

struct wrk_dialer;
struct wrk_dial;

struct wrk_dialer_options {
	struct event_base *base;
	struct wrk_resolve *resolve;
	const struct sp_policy *policy;
	struct wrk_socket_options socket;
	uint32_t deadline_ms;         // of a dial, resolving included (10,000)
	uint32_t attempt_delay_ms;    // RFC 8305 section 5 (250)
	uint32_t resolution_delay_ms; // A came, AAAA not yet: RFC 8305 section 3 (50)
	uint32_t attempt_min_ms; // an attempt keeps its place so long while addresses are
				 // left; then it gives way (2,500)
	uint32_t max_attempts;   // addresses tried in one dial, at most 255 (8)
	uint32_t max_dials;      // under way; beyond, refused (8,192)
	// Of each WRK_DIAL_SLICE_MS so much at most is spent in connect(): its search for
	// a free port takes long when thousands go to one destination, and whoever is
	// adopted after a crash may be as many (20,000).
	uint32_t connect_us;
};
void wrk_dialer_options_default(struct wrk_dialer_options *ret); // pointers are NULL

// base, resolve and policy outlive it. 0 and *ret; -EINVAL: a NULL or a zero; -ENOMEM.
int wrk_dialer_new(const struct wrk_dialer_options *opt,
		   struct wrk_dialer **ret) SP_MUST_CHECK;
// Dials under way are cancelled. Not inside a callback. NULL is fine.
void wrk_dialer_free(struct wrk_dialer *d);
// For addresses that are judged from now on; the old one may be freed afterwards.
void wrk_dialer_set_policy(struct wrk_dialer *d, const struct sp_policy *policy);

struct wrk_dial_ops {
	void (*journal)(void *ctx, unsigned place, int fd); // may be NULL
	// fd >= 0: connected and now the caller's; reason is NONE, `bound` its own
	// address. fd -1: `reason` says why, `bound` is NULL. The handle is dead.
	//   resolve-failed, resolve-timeout, no-address: of the name
	//   policy: no address was allowed
	//   refused, unreachable, timeout, peer-reset: of the addresses tried, the one
	//     that says most, in this order: refused, peer-reset, timeout, unreachable
	//   no-descriptors, no-memory, busy, internal: of this host
	void (*done)(void *ctx, int fd, enum sp_reason reason,
		     const struct sp_target *bound);
};

// Dials `target` (copied). `ops` is static. 0 and *ret; SP_E_LIMIT: max_dials, or a limit
// of the resolver, is reached; SP_E_MALFORMED: its name is no host name; -ENOMEM. After
// an error nothing is called.
int wrk_dial_tcp(struct wrk_dialer *d, const struct sp_target *target,
		 const struct wrk_dial_ops *ops, void *ctx,
		 struct wrk_dial **ret) SP_MUST_CHECK;
// The same for a connected UDP socket: the first allowed address to which there is a
// route.
int wrk_dial_udp(struct wrk_dialer *d, const struct sp_target *target,
		 const struct wrk_dial_ops *ops, void *ctx,
		 struct wrk_dial **ret) SP_MUST_CHECK;
// Closes what it holds; `done` is not called. Not after `done`. NULL is fine.
void wrk_dial_cancel(struct wrk_dial *d);

struct wrk_dialer_stats {
	uint64_t started, refused;            // refused: SP_E_LIMIT
	uint64_t attempts;                    // calls of connect
	uint64_t ended[SP_REASON__LAST + 1];  // by reason; NONE: succeeded
	uint64_t policy[SP_POLICY__LAST + 1]; // verdicts, one per address
	uint32_t dials;                       // under way now
};
const struct wrk_dialer_stats *wrk_dialer_stats(const struct wrk_dialer *d);

#endif
