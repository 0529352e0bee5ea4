// The event loop: a thin context around one libevent base, with the time of the turn,
// timers on a microsecond clock, signals, work at the end of the turn, and the list of
// objects that are freed then. One thread. Not here: sockets, protocols, global state.
//
// A turn: wait for events, run their callbacks, run what was deferred, reap. Nothing
// frees an object inside its own callback: mark it, unlink it, give it to sp_loop_reap.
#ifndef SP_LOOP_H
#define SP_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "lib/err.h"

#define SP_LOOP_NEVER UINT64_MAX

struct sp_loop;

// Makes the base (epoll). 0 and *ret; -ENOMEM; -ENOSYS: no epoll.
int sp_loop_new(struct sp_loop **ret) SP_MUST_CHECK;
// Reaps, then frees. Whatever has events in it must be gone. NULL is fine.
void sp_loop_free(struct sp_loop *loop);

// For event_assign, bufferevents, evhttp. Borrowed.
struct event_base *sp_loop_base(struct sp_loop *loop);

// Turns until sp_loop_stop. 0: stopped; -EDEADLK: nothing is left that could ever happen;
// -EIO: the base failed.
int sp_loop_run(struct sp_loop *loop) SP_MUST_CHECK;
// One turn; `block`: wait until something happens. 0; -EDEADLK and -EIO as above.
int sp_loop_turn(struct sp_loop *loop, bool block) SP_MUST_CHECK;
// Ends sp_loop_run after this turn.
void sp_loop_stop(struct sp_loop *loop);

// ---- time ----

// CLOCK_MONOTONIC, read at the first call in a turn and the same until its end.
uint64_t sp_loop_now_us(struct sp_loop *loop);
uint64_t sp_loop_now_ms(struct sp_loop *loop);
// Wall clock, Unix ms, read now.
uint64_t sp_loop_unix_ms(struct sp_loop *loop);
// Where the last value of sp_loop_now_us stands, for engines that take a pointer to the
// time. It does not move by itself: an event callback calls sp_loop_now_us before it
// enters such an engine. (Timers of this module have done so.)
const uint64_t *sp_loop_clock_us(struct sp_loop *loop);
// Reads the clock again in the middle of a long turn. Returns the time in us.
uint64_t sp_loop_refresh(struct sp_loop *loop);

// ---- timers: embedded, one shot, at a time of sp_loop_now_us ----

struct sp_timer {
	struct event ev;
	struct sp_loop *loop;
	uint64_t at_us;    // SP_LOOP_NEVER: not set
	uint64_t armed_us; // what the base knows; it may be earlier than at_us
	void (*fire)(void *ctx);
	void *ctx;
};
void sp_timer_init(struct sp_timer *t, struct sp_loop *loop, void (*fire)(void *ctx),
		   void *ctx);
// Fires once, at `at_us` or as soon after it as the loop gets there; SP_LOOP_NEVER: not.
// Replaces the time set before; costs nothing when the time moves into the future.
void sp_timer_set(struct sp_timer *t, uint64_t at_us);
// Works on a zeroed struct and twice.
void sp_timer_done(struct sp_timer *t);

// ---- the end of the turn ----

struct sp_deferred {
	struct sp_deferred *next;
	struct sp_deferred **prev; // not NULL: listed
	void (*run)(struct sp_deferred *d);
};
// Runs d->run after this turn's callbacks, in no stated order, before anything is reaped;
// d->run may free the object that holds `d`. Listed already:
// nothing. What is deferred meanwhile runs in the next turn, which then does not block.
void sp_loop_defer(struct sp_loop *loop, struct sp_deferred *d);
// Unlists. Not listed: nothing.
void sp_loop_defer_cancel(struct sp_deferred *d);

// At the end of the turn, after everything deferred, calls d->run, which frees the object
// that holds `d`. Listed already: nothing. Do not give the same sp_deferred to both.
void sp_loop_reap(struct sp_loop *loop, struct sp_deferred *d);

// ---- signals ----

// `on_signal` is called from the loop with SIGTERM, SIGINT or SIGHUP; SIGPIPE is ignored.
// One loop of a process can have them. 0; -ENOMEM.
int sp_loop_signals(struct sp_loop *loop, void (*on_signal)(void *ctx, int signo),
		    void *ctx) SP_MUST_CHECK;

#endif
