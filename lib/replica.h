// A copy of the fleet's public state somewhere: takes signed revisions in order, or a
// signed snapshot, and never goes back. What comes is staged first, so that whoever holds
// it can refuse what it cannot use and stay where it was. Pure: no I/O, no clock. Not
// here: fetching, storing, what the state means.
#ifndef SP_REPLICA_H
#define SP_REPLICA_H

#include "lib/revision.h"

struct sp_replica { // zero to begin with, keys set; read it, change it by functions
	struct sp_signed_keys keys;  // who may sign
	struct sp_state *state;      // NULL: has none yet
	struct sp_position position; // of the state
};
void sp_replica_done(struct sp_replica *r); // frees the state

struct sp_staged { // what would be; zero to begin with
	struct sp_state *state;
	struct sp_position position;
};
void sp_staged_done(struct sp_staged *s);

// Both: 0 and *ret: take it or drop it; SP_E_STALE: not newer than what is here, nothing
// to do; SP_E_AGAIN (revision only): it follows something that is not here, fetch;
// else it is refused: errors of sp_revision_open and sp_snapshot_open, SP_E_PROTOCOL: its
// state hash is another than what its changes lead to.
int sp_replica_stage_revision(const struct sp_replica *r, const void *text, size_t len,
			      struct sp_staged *ret) SP_MUST_CHECK;
int sp_replica_stage_snapshot(const struct sp_replica *r, const void *text, size_t len,
			      struct sp_staged *ret) SP_MUST_CHECK;
// Makes it the state; `s` is zero again.
void sp_replica_take(struct sp_replica *r, struct sp_staged *s);

#endif
