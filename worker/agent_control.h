// How a worker follows the fleet's config: takes revisions and snapshots from
// controllers, checks and stages them, has the exit apply them, acknowledges or refuses,
// and keeps the last good ones. Without sockets: what goes out goes through the
// callbacks. Not here: the disk (lib/replica_store.h), the sockets and the exit's link
// (worker/agent.c).
//
// What is newer is checked as a whole: signatures, the chain from what is here, the state
// hash, the config derived for this worker. Several revisions at once become one config.
// Refused, by us or by the exit: the position stays, a nack says why, and it is tried
// again only when there is something newer or AGT_CONTROL_RETRY_MS later.
#ifndef AGT_CONTROL_H
#define AGT_CONTROL_H

#include <stdbool.h>

#include "lib/loop.h"
#include "lib/replica.h"
#include "proto/fleet.pb-c.h"

#define AGT_CONTROL_JITTER_MS 300   // before missing revisions are asked for
#define AGT_CONTROL_APPLY_MS  5000  // the exit's time to answer
#define AGT_CONTROL_ANSWER_MS 5000  // a controller's
#define AGT_CONTROL_RETRY_MS  30000 // what was refused

struct agt_control;

struct agt_control_ops {
	// To a controller. 0, or an error: nothing was sent.
	int (*send)(void *ctx, Sallyport__Fleet__ToController *m);
	// To the exit; agt_control_result follows with this call. 0, or an error.
	int (*offer)(void *ctx, uint64_t call, const char *json, size_t len,
		     const struct sp_position *position);
	// The workers of the fleet (lib/derive.h), after a config was applied, if they
	// changed. 0, or an error: it is tried again.
	int (*members)(void *ctx, const char *json, size_t len);
	// The lease on this worker's node, whenever it may have changed.
	void (*lease)(void *ctx, bool drain, uint64_t until_ms);
};

struct agt_control_options {
	struct sp_loop *loop;
	const char *folder;         // of the store
	const char *worker;         // "NODE/N"
	struct sp_signed_keys keys; // who may sign
	const struct agt_control_ops *ops;
	void *ctx;
};

struct agt_control_counters {
	uint64_t applied, refused; // configs by the exit, or before
	uint64_t invalid;          // texts that are no revision of this fleet, or a fork
	uint64_t gaps;             // revisions that came before those they follow
	uint64_t fetches;
	uint64_t old;       // revisions that are here already
	uint64_t differing; // digests at our position with another state
};

// Takes what is on disk. 0 and *ret; -ENOMEM.
int agt_control_new(const struct agt_control_options *opt,
		    struct agt_control **ret) SP_MUST_CHECK;
void agt_control_free(struct agt_control *c); // NULL is fine
// Offers the last known good config to the exit, if there is one.
void agt_control_begin(struct agt_control *c);

// A controller is there; its head, from Welcome.
void agt_control_up(struct agt_control *c, const Sallyport__Fleet__Position *head);
void agt_control_down(struct agt_control *c);
void agt_control_on_published(struct agt_control *c, char topic, const void *data,
			      size_t len);
void agt_control_on_revisions(struct agt_control *c,
			      const Sallyport__Fleet__Revisions *m);
void agt_control_on_snapshot(struct agt_control *c, const Sallyport__Fleet__Snapshot *m);
// What the exit said to an offer; "" : applied.
void agt_control_result(struct agt_control *c, uint64_t call, const char *reason);

const struct sp_position *agt_control_position(const struct agt_control *c);
// To a message that is sent in this turn.
void agt_control_put_position(const struct sp_position *p,
			      Sallyport__Fleet__Position *ret);
bool agt_control_has_config(const struct agt_control *c); // one that the exit applied
const struct agt_control_counters *agt_control_counters(const struct agt_control *c);
uint64_t agt_control_disk_errors(const struct agt_control *c);
uint64_t agt_control_disk_bytes(const struct agt_control *c);

#endif
