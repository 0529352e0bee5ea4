// An upgrade: the exit ends in order, and the keeper runs the installed image on trial,
// in a process of its own with descriptors and arena of this one. The keeper stays as the
// guard meanwhile: if the new image cannot be executed, ends, or has not taken over in
// WRK_TRIAL_MS, it is killed and the guard's own image goes on. Here: what guard, trial
// and exits tell one another in shared memory, and the exit's side of a trial. Not here:
// who asks for an upgrade and how it is checked beforehand (worker/upgrade.h).
//
// Fields are only appended: an image knows those of older ones, and others ignore what
// it adds.
#ifndef WRK_KEEPER_UPGRADE_H
#define WRK_KEEPER_UPGRADE_H

#include "worker/keeper.h"

#define WRK_UPGRADE_AT    512 // in the page of struct wrk_life
#define WRK_UPGRADE_WHY   256
#define WRK_UPGRADE_IMAGE 960
#define WRK_STALL_BOUNDS  10
#ifdef __SANITIZE_ADDRESS__
#define WRK_TRIAL_MS 8000
#else
#define WRK_TRIAL_MS 2000
#endif

enum wrk_upgrade_state {
	WRK_UPGRADE_NONE,
	WRK_UPGRADE_ASKED,    // by the exit, which ends for it
	WRK_UPGRADE_TRIAL,    // by the guard: the new image may begin
	WRK_UPGRADE_TICKING,  // by the new exit: it has taken over
	WRK_UPGRADE_ACCEPTED, // by the guard
	WRK_UPGRADE_TAKEN,    // by the new keeper: the guard leaves
};

enum wrk_upgrade_outcome {
	WRK_UPGRADE_NOTHING,
	WRK_UPGRADE_DONE,
	WRK_UPGRADE_ROLLED_BACK,
};

struct wrk_upgrade {
	_Atomic uint32_t state; // enum wrk_upgrade_state
	uint32_t untold;        // enum wrk_upgrade_outcome, for who asked and the log
	int32_t asked_by;       // 1 + descriptor; 0: by a signal
	int32_t guard;          // process
	int32_t keeper;         // process that holds the worker, since the last upgrade
	int32_t anchor; // process that the service manager knows, where it can know no
			// other; 0: none
	int32_t exec_errno;
	int32_t config;  // 1 + descriptor (worker/config_kept.h); 0: none
	int32_t fleet;   // likewise
	int32_t members; // likewise
	uint64_t n_done, n_rolled_back;
	uint64_t stall_us;                     // from one exit's end to the next one
	uint64_t stalls[WRK_STALL_BOUNDS + 1]; // of upgrades, by wrk_stall_bounds
	uint64_t stalls_us;                    // their sum
	uint64_t arena_at;                     // in the file; 0: behind the page of life
	char why[WRK_UPGRADE_WHY];             // of a rollback
	char image[WRK_UPGRADE_IMAGE];         // path of the installed program
};

_Static_assert(sizeof(struct wrk_life) <= WRK_UPGRADE_AT, "they overlap");
_Static_assert(WRK_UPGRADE_AT + sizeof(struct wrk_upgrade) <= WRK_LIFE_REFUSED,
	       "too long");

extern const double wrk_stall_bounds[WRK_STALL_BOUNDS]; // seconds

struct wrk_upgrade *wrk_upgrade_of(struct wrk_life *l);
// Whether this exit's image is on trial.
bool wrk_trial_is(const struct wrk_kept *k);
// Why the trial fails, for the guard; the first reason stays.
void wrk_trial_object(const struct wrk_kept *k, const char *why);
// The new exit has taken over and is ready to serve: returns when the worker is this
// image's. Nothing that an older image cannot read is written before.
void wrk_trial_settle(struct wrk_kept *k);

#endif
