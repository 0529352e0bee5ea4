// Users' totals as a service: takes workers' reports, keeps them on the controller's disk
// before it says so, copies them to Redis, and answers what a quota leaves. Redis is a
// copy for a controller whose disk is lost: emptied, frozen or gone it costs nothing, and
// is filled again. Not here: the sums (controller/usage.h), the file
// (controller/usage_spool.h), who is a worker (the bus).
//
// Limits: CON_USAGE_STORE_REPORTS reports wait for the disk, a further one is answered
// "not stored" and comes again; CON_USAGE_STORE_USERS users of one report are looked at.
#ifndef CON_USAGE_STORE_H
#define CON_USAGE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "controller/redis.h"
#include "controller/usage.h"
#include "controller/usage_spool.h"
#include "lib/loop.h"
#include "proto/fleet.pb-c.h"

#define CON_USAGE_STORE_REPORTS  8192
#define CON_USAGE_STORE_USERS    65536
#define CON_USAGE_STORE_SYNC_MS  100    // reports of so long share one fdatasync
#define CON_USAGE_STORE_COPY_MS  500    // users that changed go to Redis
#define CON_USAGE_STORE_AGAIN_MS 600000 // all users do

struct con_usage_store;

struct con_usage_quota {
	uint64_t bytes, period_s; // period_s 0: for ever
};

struct con_usage_store_options {
	struct sp_loop *loop;
	const char *path;  // of the file; copied
	const char *fleet; // copied
	size_t max_users;
	struct con_redis *redis; // NULL: no copies
	// The user's quota; false: none.
	bool (*quota)(void *ctx, const char *user, struct con_usage_quota *ret);
	void *ctx;
};

struct con_usage_store_counters {
	uint64_t reports, totals, rose; // reports, users' totals in them, that rose
	uint64_t late, refused;         // totals of boots that ended; over a limit
	uint64_t closed;                // boots
	uint64_t not_stored;            // answers
	uint64_t copies, copy_failures, newer; // users; newer: Redis knows of more
	uint64_t loaded;                       // users, from Redis
};

// Reads the file. 0, *ret and *ret_fresh: there was no file, so what Redis knows is worth
// a con_usage_store_load; or an error and a clause in `why`.
int con_usage_store_new(const struct con_usage_store_options *opt,
			struct con_usage_store **ret, bool *ret_fresh, char *why,
			size_t cap) SP_MUST_CHECK;
// After Redis was closed, which ends every command. Reports that wait are not answered.
// NULL is fine.
void con_usage_store_free(struct con_usage_store *s);

typedef void (*con_usage_store_answer)(void *ctx, const Sallyport__Fleet__UsageAnswer *m);
// Called once: when the totals are on the disk, or cannot be; not after _free.
void con_usage_store_report(struct con_usage_store *s, const char *worker,
			    const Sallyport__Fleet__UsageReport *m,
			    con_usage_store_answer done, void *ctx);
// Takes what Redis knows of these users; reports are not stored until it is done. `done`
// is called once. False: Redis did not say; reports are not stored until a later call
// succeeds.
void con_usage_store_load(struct con_usage_store *s, const char *const *users, size_t n,
			  void (*done)(void *ctx, bool good), void *ctx);
// Redis is there (again): every user is copied.
void con_usage_store_redis_up(struct con_usage_store *s);

const struct con_usage *con_usage_store_table(const struct con_usage_store *s);
const struct con_usage_spool_counters *
con_usage_store_spool(const struct con_usage_store *s);
const struct con_usage_store_counters *
con_usage_store_counters(const struct con_usage_store *s);

#endif
