// What keeper.c and keeper_upgrade.c share; nobody else includes this.
#ifndef WRK_KEEPER_INTERNAL_H
#define WRK_KEEPER_INTERNAL_H

#include <signal.h>
#include <sys/types.h>

#include "worker/keeper.h"
#include "worker/keeper_upgrade.h"

#define KEEPER_ENV "SALLYPORT_KEPT" // the descriptor, for the next image of the keeper

struct keeper {
	char **argv;
	struct wrk_life *life;
	struct wrk_upgrade *up;
	int fd;
	pid_t exit;
	uint64_t ticks;
	unsigned still; // looks since the last tick
	bool stopping;  // asked to end
	bool hung;
	bool stopped; // hung, but by a stop from outside: no fault of its own
	bool trial;   // the guard has not left the worker to this image yet
	pid_t guard;  // of the trial
	bool tied;    // ends with the process that the service manager knows
};

uint64_t keeper_now_ms(void);
void keeper_say(const char *level, const char *text, int signo, int status);
// The very image that runs now, whatever was installed since.
_Noreturn void keeper_execute_again(const struct keeper *k);

// kept.c

// Places in the table of descriptors: all that are open lie below. -errno.
int keeper_table_size(void);
// What a new exit finds open. 0; -errno.
int keeper_list_inherited(struct wrk_kept *k);

// keeper_rights.c: whether all that a keeper needs can be had. 0; -errno, and `why` names
// what is missing and the remedy.
int keeper_rights(char *why, size_t cap);

// keeper_upgrade.c

// A new keeper of this file: finds out whether it is on trial. The first one notes its
// own image.
void keeper_upgrade_begin(struct keeper *k);
// The exit has ended. True: it did so for an upgrade.
bool keeper_upgrade_is_asked(struct keeper *k, int status);
// Runs the installed image on trial. The worker is the trial's afterwards, or this
// image's again.
_Noreturn void keeper_upgrade(struct keeper *k);
// The exit of a trial has ended: so does its keeper.
_Noreturn void keeper_trial_ended(struct keeper *k, int status);
// At each look: whether the guard accepted this image.
void keeper_trial_look(struct keeper *k);
// At each look: ends with the process that the service manager knows, once that is the
// parent.
void keeper_tie(struct keeper *k);

#endif
