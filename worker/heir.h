// What a new exit takes over from the one before: the arena, sessions with their streams
// and flows, and the descriptors that are left; and what is known of all such times.
// Steps of the worker's start (worker/worker.c). Not here: how a record or a socket is
// judged (lib/arena.h, worker/sessions.h, worker/exit.h).
#ifndef WRK_HEIR_H
#define WRK_HEIR_H

#include <stdint.h>

#include "lib/err.h"
#include "worker/keeper.h"

#define WRK_LIFE_TAKEN   3712 // in the page of struct wrk_life
#define WRK_TAKEN_BOUNDS 12

struct wrk_worker;

// Of all takings over of this keeper and those before it; outlives each process.
struct wrk_taken {
	uint64_t magic;
	uint64_t repaired_bytes, lost, orphans;
	uint64_t seconds[WRK_TAKEN_BOUNDS + 1]; // how often, by wrk_taken_bounds
	uint64_t sum_us;
};
extern const double wrk_taken_bounds[WRK_TAKEN_BOUNDS]; // seconds
// What lies there; made if nothing does.
struct wrk_taken *wrk_taken_of(struct wrk_life *life);

// The arena: the last process's, or a new one. 0; -errno, SP_E_VERSION.
int wrk_heir_arena(struct wrk_worker *w) SP_MUST_CHECK;
// Sessions, streams and flows go on; descriptors that nobody knows are closed when the
// ports had theirs, by _settle. 0.
int wrk_heir_take(struct wrk_worker *w) SP_MUST_CHECK;
// All is taken over: from here on the next exit takes this region. With a keeper only.
void wrk_heir_settle(struct wrk_worker *w);

#endif
