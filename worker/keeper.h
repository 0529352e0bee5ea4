// The keeper: the process that holds the worker's sockets over the end of its exit. It
// makes the exit by a clone that shares the table of descriptors and not the memory, so a
// socket is the keeper's, too, from the instant it is made, at no cost. When the exit
// dies, or hangs, the keeper executes itself anew, which closes what is close-on-exec
// (carriers, timers) and keeps the rest (destinations, listeners, the arena), and makes
// another exit, which takes them over. It reads nothing from outside and initialises no
// library. Not here: what is taken over (lib/arena.h, worker/sessions_adopt.c).
//
// execve un-shares the table: a keeper has exactly one exit.
#ifndef WRK_KEEPER_H
#define WRK_KEEPER_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WRK_LIFE_MAGIC   UINT64_C(0x314546494c505353) // "SSPLIFE1"
#define WRK_LIFE_VERSION 2
#define WRK_LIFE_BYTES   4096 // at the start of the file, then the arena
#define WRK_LIFE_REFUSED 2048 // of them, from here on (worker/quarantine.h)
#define WRK_TICK_MS      50   // the exit counts one so often at least
#define WRK_CRASHES      8

enum wrk_life_phase { WRK_LIFE_STARTING, WRK_LIFE_RUNNING, WRK_LIFE_STOPPING };

// What keeper and exit tell one another, in shared memory.
struct wrk_life {
	uint64_t magic;
	uint32_t version;
	_Atomic uint32_t phase; // enum wrk_life_phase; the exit's
	_Atomic uint64_t ticks; // the exit's
	_Atomic uint64_t mark;  // incarnation of the session that is worked for, or 0
	uint32_t lives;         // exit processes so far, this one included
	uint64_t ended_ms;      // CLOCK_BOOTTIME: when the last one was found dead, or 0
	struct {
		uint64_t at_ms; // CLOCK_BOOTTIME
		uint64_t mark;
	} crash[WRK_CRASHES]; // by its own fault; the newest is at n_crashes - 1
	uint64_t n_crashes;   // modulo WRK_CRASHES
	uint64_t killed;      // from outside
	uint64_t hung;        // of the crashes
	uint64_t stopped;     // hung by a stop from outside: no crashes
};

// The exit's side of it.
struct wrk_kept {
	struct wrk_life *life;
	int fd;            // the file of life and arena
	bool trial;        // of a new image (worker/keeper_upgrade.h)
	bool heir;         // an earlier exit's arena and sockets are there
	uint64_t began_us; // CLOCK_BOOTTIME: when this process began
	uint64_t arena_at; // in the file
	bool *taken; // by descriptor: not inherited, or somebody's by now; until _sweep
	int n_taken;
};

// Becomes the keeper; in the exit, and only there, it returns. 0 and *ret, which lasts as
// long as the process; -errno: there is no keeper, this process is as it was, and `why`
// (cap > 0) says what is missing.
int wrk_keeper_run(char **argv, struct wrk_kept *ret, char *why, size_t cap);
// Signals that a new exit has blocked until it handles them.
void wrk_kept_signals(sigset_t *ret);
// Inherited descriptors that nobody took are closed, streams with a reset. How many. The
// last use of `taken`, which is freed.
int wrk_kept_sweep(struct wrk_kept *k);
// How many crashes of the last `within_ms` had this mark (0: any).
unsigned wrk_life_crashes(const struct wrk_life *l, uint64_t mark, uint64_t within_ms);

#endif
