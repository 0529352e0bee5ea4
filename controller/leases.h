// Leases: nodes that an operator has taken out for a time, by state lease/NAME. A
// cordoned node gets no new clients; a draining one is also told to send its clients
// away. And what ends by itself: leases, tokens, revocations and enrolments that are over
// are taken out of the state, and users whose time ended are revoked, since the passes
// that are out there hold for a while. Not here: what workers and the endpoint make of a
// lease.
//
// Of one region, and of the fleet, at most max(1, 30 %) may be out at once, and never the
// last node.
#ifndef CON_LEASES_H
#define CON_LEASES_H

#include "controller/api.h"
#include "controller/fleet.h"

#define CON_LEASE_PERCENT   30
#define CON_LEASE_DEFAULT_S 3600
#define CON_LEASE_MAX_S     (30 * 86400)
#define CON_LEASE_REASON    200   // bytes
#define CON_ENROL_KEEP_S    86400 // of an enrolment that expired or was used

// Whether `node` may be taken out now, by what the state says of its region and of the
// fleet. 0; -ENOENT: no such node; SP_E_LIMIT: `why` says the cap and who is out. Pure.
int con_lease_allowed(const struct sp_state *state, const char *node, uint64_t now_s,
		      char *why, size_t cap) SP_MUST_CHECK;
// Adds to `c` the end of everything that is over at now_s: leases, and with `all` tokens,
// revocations too, and enrolments that have been over for a while. 0; -ENOMEM. Pure.
int con_leases_over(const struct sp_state *state, uint64_t now_s, bool all,
		    struct sp_changes *c) SP_MUST_CHECK;
// Adds to `c` revocations of all users whose time ended and who are not revoked since.
// *ret_next_s: when another one's ends, UINT64_MAX: never. 0; -ENOMEM. Pure.
int con_leases_users_over(const struct sp_state *state, uint64_t now_s,
			  uint64_t *ret_next_s, struct sp_changes *c) SP_MUST_CHECK;

struct con_leases;
// Registers its routes and begins to look for what is over, each second. 0 and *ret;
// -ENOMEM.
int con_leases_new(struct sp_loop *loop, struct con_fleet *fleet, struct con_api *api,
		   struct con_leases **ret) SP_MUST_CHECK;
// After the fleet. NULL is fine.
void con_leases_free(struct con_leases *l);

#endif
