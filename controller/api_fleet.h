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

// ---- lists: never more than was asked for ----

#define CON_PAGE_DEFAULT 1000
#define CON_PAGE_MAX     100000

// One page of a list in the order of names: ?limit=N, and ?after=NAME for the next.
struct con_api_page {
	struct con_api_call *call;
	const char *after; // NULL: from the beginning
	uint64_t limit;
	json_t *list;
	char *last; // name of the last one taken
	bool more, failed;
};
// False: the query does not hold, and the call was answered.
bool con_api_page_begin(struct con_api_call *call, struct con_api_page *p) SP_MUST_CHECK;
// Whether an object with that name is to be made for the page at all; NULL: any is.
bool con_api_page_wants(const struct con_api_page *p, const char *name);
// Whether the text member `key` of it is what the query's parameter says, if it says any.
bool con_api_page_fits(const struct con_api_page *p, const json_t *object,
		       const char *parameter, const char *key);
// Takes the object (NULL: no memory). False: no more are wanted.
bool con_api_page_add(struct con_api_page *p, const char *name, json_t *object);
// Ends the call: {LIST: […], "total": how many there are without filters, "next": the
// name to go on after, if there are more}.
void con_api_page_answer(struct con_api_page *p, const char *list, size_t total);

// {"epoch", "sequence", "hash"}; NULL: no memory.
json_t *con_api_position(const struct sp_position *at);
// Commits, and answers {"changed", "position"} and the members of `extra` (taken; may be
// NULL), or the problem. Takes what `changes` holds.
void con_api_commit(struct con_fleet *fleet, struct con_api_call *call,
		    struct sp_changes *changes, json_t *extra);

#endif
