// The entry's side of relaying: takes carriers of clients whose home is another worker,
// and passes opaque bytes between each and a pipe on the trunk to that home. What passes
// is ciphertext between client and home; this worker has no key to it. Not here: trunks
// (worker/trunk.h), the judgement of the flight (lib/handshake.h), the home's side
// (worker/relayed.h).
//
// As long as nothing of the home has reached the client, a failure is told to it in the
// form of an answer (PROTOCOL.md section 4): status 2 with the reason, or status 1 if the
// home did not want the flight. After that its carrier is reset: it resumes elsewhere.
#ifndef WRK_RELAY_H
#define WRK_RELAY_H

#include "lib/carrier.h"
#include "lib/loop.h"
#include "worker/trunk.h"

struct wrk_relays;

struct wrk_relays_limits {
	uint32_t carriers;   // relayed at once; 0: none are
	uint32_t per_source; // of one client address (the /64 of IPv6)
	uint32_t wait_ms;    // for the trunk
	uint32_t idle_ms;    // without a byte either way
};
struct wrk_relays_counters {
	uint64_t taken;                        // flights for other homes
	uint64_t relayed;                      // that got a pipe
	uint64_t refused[SP_REASON__LAST + 1]; // told to the client, status 1 and 2
	uint64_t ended[SP_REASON__LAST + 1];   // that had got a pipe
	uint64_t bytes_to_home, bytes_to_client;
	uint32_t live, waiting;
};

struct wrk_relays_options {
	struct sp_loop *loop;
	struct wrk_trunks *trunks; // outlives it
	struct wrk_relays_limits limits;
};
// 0 and *ret; -ENOMEM.
int wrk_relays_new(const struct wrk_relays_options *opt,
		   struct wrk_relays **ret) SP_MUST_CHECK;
void wrk_relays_free(struct wrk_relays *r); // resets all; NULL is fine
void wrk_relays_set_limits(struct wrk_relays *r, const struct wrk_relays_limits *limits);

// For the op `relay` of struct sp_link_worker_ops; the carrier becomes the callee's.
void wrk_relays_take(struct wrk_relays *r, struct sp_carrier *c, uint64_t home_id,
		     const uint8_t *flight, size_t len);

const struct wrk_relays_counters *wrk_relays_counters(const struct wrk_relays *r);

#endif
