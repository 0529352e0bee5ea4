// The operator API's routes about the fleet as a whole: status, apply, diff, rollback,
// revisions, events, and lists of nodes and users. Not here: leases (leases.h),
// revocations and tokens (api_access.h).
#ifndef CON_API_FLEET_H
#define CON_API_FLEET_H

#include "controller/api.h"
#include "controller/events.h"
#include "controller/fleet.h"

struct con_api_fleet { // the caller's, outlives the API
	struct con_api *api;
	struct con_fleet *fleet;
	struct con_events *events;
	struct sp_loop *loop;
	struct sp_signed_keys pass_keys; // what state "keys" must say: who signs passes
	uint64_t started_ms;
};

// Registers its routes with `f` as their context. 0; -ENOMEM.
int con_api_fleet_add(struct con_api_fleet *f) SP_MUST_CHECK;
// api_list.c: the lists.
int con_api_list_add(struct con_api_fleet *f) SP_MUST_CHECK;

// {"epoch", "sequence", "hash"}; NULL: no memory.
json_t *con_api_position(const struct sp_position *at);
// Commits, and answers {"changed", "position"} and the members of `extra` (taken; may be
// NULL), or the problem. Takes what `changes` holds.
void con_api_commit(struct con_fleet *fleet, struct con_api_call *call,
		    struct sp_changes *changes, json_t *extra);

#endif
