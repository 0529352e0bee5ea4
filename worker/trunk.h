// Trunks: one authenticated link between this worker and each other one that relays to it
// or that it relays to. Dials on demand, accepts from members alone, keeps them alive,
// finds dead ones, closes idle ones. On each lies a multiplexer (worker/trunk_mux.h). Not
// here: who relays what (worker/relay.h, worker/relayed.h).
//
// A pair may hold two trunks for a while, when both dialled at once: carriers go on where
// they began, new ones go where the worker of the lower home id dialled, and the other
// trunk closes when it is empty.
#ifndef WRK_TRUNK_H
#define WRK_TRUNK_H

#include <sys/queue.h>

#include "lib/carrier.h"
#include "lib/fleet.h"
#include "lib/handshake.h"
#include "lib/loop.h"
#include "worker/resolve.h"
#include "worker/trunk_mux.h"

struct wrk_trunks;

struct wrk_trunks_limits {
	uint32_t carriers;         // of one trunk
	uint32_t opens_per_second; // of one trunk
	uint32_t window_bytes;     // of one carrier each way, at most
	uint64_t memory_bytes;     // of all carriers
	uint32_t idle_ms;          // a trunk without a carrier closes after
};

struct wrk_trunks_counters {
	uint64_t dialled, accepted; // trunks that came up
	uint64_t dials;             // attempts
	uint64_t dials_failed[SP_REASON__LAST + 1];
	uint64_t ended[SP_REASON__LAST + 1];    // trunks that had come up
	uint64_t misbehaved;                    // of those, for breaking the rules
	uint64_t bytes_rx, bytes_tx;            // on the wire
	uint64_t unproved[SP_REASON__LAST + 1]; // accepted, ended without a record
	uint32_t up, dialling, proving;
	struct wrk_mux_counters mux;
	uint64_t memory; // reserved now
};

struct wrk_trunks_options {
	struct sp_loop *loop;
	const struct sp_hs_worker_keys *keys; // outlive it
	struct wrk_resolve *resolve;          // outlives it; NULL: names are not dialled
	struct wrk_trunks_limits limits;
	// Another worker relays a carrier to this home: as in struct wrk_mux_ops.
	enum sp_reason (*opened)(void *ctx, struct wrk_pipe *p,
				 const struct wrk_mux_source *source);
	void *ctx;
};
// 0 and *ret; -ENOMEM.
int wrk_trunks_new(const struct wrk_trunks_options *opt,
		   struct wrk_trunks **ret) SP_MUST_CHECK;
// Ends every trunk. Pipes are reset and stay their owners'. NULL is fine.
void wrk_trunks_free(struct wrk_trunks *t);
// Limits hold for trunks that come up from now on.
void wrk_trunks_set_limits(struct wrk_trunks *t, const struct wrk_trunks_limits *limits);

// Who the other workers are; copied. Whoever is not among them loses its trunk. This
// worker itself may be one and is left out. 0; -ENOMEM: the old ones stay.
int wrk_trunks_set_members(struct wrk_trunks *t,
			   const struct sp_fleet_members *m) SP_MUST_CHECK;
uint32_t wrk_trunks_members(const struct wrk_trunks *t); // how many, without this one
// For struct sp_link_env_options; ctx is the struct wrk_trunks.
bool wrk_trunks_is_member(void *ctx, const uint8_t *key);
// The public key of a member, or NULL.
const uint8_t *wrk_trunks_key(const struct wrk_trunks *t, uint64_t home_id);

// For the op `trunk` of struct sp_link_worker_ops: a member dialled. The carrier becomes
// the callee's. The trunk counts for nothing, and ends no other, until a first record of
// the member opens: the flight alone may be a recorded one.
void wrk_trunks_accept(struct wrk_trunks *t, struct sp_carrier *c, const uint8_t *member,
		       const struct sp_hs_keys *keys, const uint8_t *answer, size_t len);

// Who waits for a trunk; embedded, zeroed.
struct wrk_trunk_call {
	// Once, from the loop: a trunk, or why there is none.
	void (*done)(void *ctx, struct wrk_mux *mux, enum sp_reason why);
	void *ctx;
	bool waits;
	TAILQ_ENTRY(wrk_trunk_call) entry;
	void *member; // whose list
};
// The trunk to a home. NONE and *ret; NONE and *ret NULL: it is dialled, `call` will be
// told; else why there is none: no member has this id (GONE), or it cannot be reached.
enum sp_reason wrk_trunks_find(struct wrk_trunks *t, uint64_t home_id,
			       struct wrk_trunk_call *call, struct wrk_mux **ret);
void wrk_trunks_cancel(struct wrk_trunk_call *call); // not waiting: nothing

const struct wrk_trunks_counters *wrk_trunks_counters(struct wrk_trunks *t);

#endif
