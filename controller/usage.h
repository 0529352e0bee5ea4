// What users have used: for each boot of each worker the highest total reported, their
// sum, and what a quota leaves. Pure: no I/O, no clock. Not here: where it is kept
// (controller/usage_spool.h, controller/usage_store.h), who may report.
//
// Reports are absolute totals of one boot, so whatever is lost, doubled, late or out of
// order, the highest holds. A boot that has ended is *closed*: its totals go into each
// user's base, and the boot is remembered, so that a late report of it counts nothing.
// Limits: CON_USAGE_BOOTS_OPEN boots of one worker at once, beyond which a new one is
// refused (the worker reports again); CON_USAGE_BOOTS_CLOSED are remembered per worker,
// then the oldest is forgotten.
#ifndef CON_USAGE_H
#define CON_USAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define CON_USAGE_USER_MAX     64 // bytes of a user's name
#define CON_USAGE_WORKER_MAX   80 // and of a worker's
#define CON_USAGE_BOOTS_OPEN   64
#define CON_USAGE_BOOTS_CLOSED 4096

struct con_usage;

struct con_usage_sum {
	uint64_t up, down; // bytes
};

// At most `max_users` users. 0 and *ret; -ENOMEM.
int con_usage_new(size_t max_users, struct con_usage **ret) SP_MUST_CHECK;
void con_usage_free(struct con_usage *u); // NULL is fine

// A total of `user` at that boot. 1: something rose; 0: nothing new; SP_E_CLOSED: the
// boot has ended; SP_E_LIMIT: too many users or boots; SP_E_MALFORMED: a name that is
// none; -ENOMEM. Nothing changed on errors.
int con_usage_add(struct con_usage *u, const char *worker, uint64_t boot,
		  const char *user, const struct con_usage_sum *sum) SP_MUST_CHECK;
// The boot has ended, and everything of it has been added. 1: closed; 0: it was; errors
// as above.
int con_usage_close(struct con_usage *u, const char *worker, uint64_t boot) SP_MUST_CHECK;

// Everything of one user. False and zeros: never heard of.
bool con_usage_get(const struct con_usage *u, const char *user,
		   struct con_usage_sum *ret);
// The period (of `period_s` seconds, counted from 1970; 0: one that never ends) of now_s
// begins for this user if it has not: what was used until now counts no more. 1: it
// began; 0: it had; errors as above.
int con_usage_roll(struct con_usage *u, const char *user, uint64_t period_s,
		   uint64_t now_s) SP_MUST_CHECK;
// Bytes left of `quota` in the current period; negative: over.
int64_t con_usage_left(const struct con_usage *u, const char *user, uint64_t quota);

// ---- for what keeps it ----

// Puts back what _each said. 0; errors as above. Whatever is higher holds.
int con_usage_set_base(struct con_usage *u, const char *user,
		       const struct con_usage_sum *base) SP_MUST_CHECK;
int con_usage_set_period(struct con_usage *u, const char *user, uint64_t period,
			 uint64_t mark) SP_MUST_CHECK;

struct con_usage_visitor {                                            // any may be NULL
	void (*closed)(void *ctx, const char *worker, uint64_t boot); // oldest first
	void (*user)(void *ctx, const char *user, const struct con_usage_sum *base,
		     uint64_t period, uint64_t mark);
	void (*entry)(void *ctx, const char *user, const char *worker, uint64_t boot,
		      const struct con_usage_sum *sum);
};
// Closed boots first, then each user followed by its entries.
void con_usage_each(const struct con_usage *u, const struct con_usage_visitor *v,
		    void *ctx);
// One user and its entries. False: there is none.
bool con_usage_one(const struct con_usage *u, const char *user,
		   const struct con_usage_visitor *v, void *ctx);
size_t con_usage_users(const struct con_usage *u);
// A user that changed since it was last taken here; borrowed. NULL: none.
const char *con_usage_take_changed(struct con_usage *u);
void con_usage_change_all(struct con_usage *u); // as if every user had

#endif
