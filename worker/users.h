// Users that have sessions here: how many, and how fast they open streams. In memory only
// while they have one. Not here: sessions, accounting.
#ifndef WRK_USERS_H
#define WRK_USERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "lib/err.h"
#include "lib/pass.h"

struct wrk_account;

struct wrk_user {
	LIST_ENTRY(wrk_user) chain;
	uint32_t sessions;
	uint64_t credit_us; // for OPENs: time saved up, at most the burst
	uint64_t filled_us;
	struct wrk_account *account; // where its bytes are counted; NULL: nowhere
	char name[SP_PASS_USER_MAX + 1];
};

struct wrk_users;

// A table for about `expected` users. 0 and *ret; -ENOMEM.
int wrk_users_new(size_t expected, struct wrk_users **ret) SP_MUST_CHECK;
void wrk_users_free(struct wrk_users *t); // NULL is fine; no user may have sessions
uint32_t wrk_users_count(const struct wrk_users *t);

struct wrk_user *wrk_users_find(const struct wrk_users *t, const char *name); // or NULL
// Finds or makes; then count its session, or give it back with _put. NULL: no memory.
struct wrk_user *wrk_users_get(struct wrk_users *t, const char *name, uint64_t now_us);
// Frees the user if it has no session.
void wrk_users_put(struct wrk_users *t, struct wrk_user *u);

// Takes one OPEN: `per_second` (not 0), with five seconds' worth of burst. False: too
// many.
bool wrk_user_may_open(struct wrk_user *u, uint32_t per_second, uint64_t now_us);

#endif
