// The fleet's directory of sessions, in Redis: what a worker needs to take over a session
// whose home is dead, and how many devices of a user are in use at once. Every change is
// compare-and-set in a script; every command has a deadline; nothing here waits, and
// without Redis every answer is "unavailable", which workers can do without.
//
// Rules. A record belongs to its home: another worker's put or drop is refused. Adoption
// wants the device key and user of the record, an epoch that rises, and a home whose
// death is known by evidence (enum con_directory_home), or that the client has left for
// good. A record of another device is never given or changed, and the attempt is an
// event.
//
// Kept, below "sp:{FLEET}:" (docs/directory.md): s:ID, a hash, for CON_DIRECTORY_TTL_S
// from the last put; l:USER, a sorted set of live sessions, for CON_DIRECTORY_LIVE_S from
// the last put of one that had a carrier; w, a hash of all controllers together: which
// boot of each worker was heard of last, and when, by Redis's clock (the *leases*).
//
// Not here: the connection to Redis, who is a worker (the bus), usage.
#ifndef CON_DIRECTORY_H
#define CON_DIRECTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "controller/redis.h"
#include "lib/loop.h"
#include "proto/fleet.pb-c.h"

#define CON_DIRECTORY_TTL_S       90000 // 25 h
#define CON_DIRECTORY_LIVE_S      180
#define CON_DIRECTORY_DEADLINE_MS 80   // of a command; adoption takes two
#define CON_DIRECTORY_RECORDS_MAX 64   // of one put; drops likewise
#define CON_DIRECTORY_RECORD_MAX  8192 // bytes of a packed record
#define CON_DIRECTORY_CALLS_MAX   1024 // under way; a further one is unavailable

#define CON_DIRECTORY_LEASE_MS 3000 // a worker unheard of for so long has none

enum con_directory_home {
	CON_HOME_ALIVE,
	CON_HOME_UNKNOWN,   // its death is not proven
	CON_HOME_SILENT,    // its lease is gone, and two peers could not reach it so long
	CON_HOME_RESTARTED, // another boot of it runs
	CON_HOME_REMOVED,   // it is of the fleet no more
	CON_HOME__N,
};
static inline bool con_directory_is_dead(enum con_directory_home h)
{
	return h >= CON_HOME_SILENT;
}
const char *con_directory_home_word(enum con_directory_home h); // metric label
// What any controller heard of the home last.
struct con_directory_lease {
	bool known;
	uint64_t boot;
	uint64_t age_ms;
};

enum con_directory_event {
	CON_DIRECTORY_OTHER_DEVICE, // a claim on a record of another device
	CON_DIRECTORY_OTHER_USER,   // or of another user
	CON_DIRECTORY_ADOPTED,
};

struct con_directory_ops {
	enum con_directory_home (*home)(void *ctx, const char *worker, uint64_t boot,
					const struct con_directory_lease *lease);
	// What is left for a user; false: no limit.
	bool (*quota)(void *ctx, const char *user, int64_t *ret_left);
	// `home` is the record's.
	void (*event)(void *ctx, enum con_directory_event what, const char *worker,
		      const char *home, const char *user, const uint8_t *id);
};

struct con_directory_options {
	struct sp_loop *loop;
	const char *fleet; // copied
	struct con_redis *redis;
	const struct con_directory_ops *ops;
	void *ctx; // of ops
};

struct con_directory_counters {
	uint64_t puts, stored, refused_home, refused_device, old, over;
	uint64_t drops, dropped;
	uint64_t adopts, adopted, fresh, not_yours, alive, stale;
	uint64_t evidence[CON_HOME__N]; // adopted by it; [ALIVE]: left by their clients
	uint64_t leases, lease_writes;  // told; commands
	uint64_t unavailable;           // commands: not sent, too late, or failed
	uint64_t conflicts;             // adoptions that were raced
	uint64_t malformed;             // records that are none, from workers or Redis
	uint32_t calls;                 // under way
};

struct con_directory;

// 0 and *ret; -ENOMEM.
int con_directory_new(const struct con_directory_options *opt,
		      struct con_directory **ret) SP_MUST_CHECK;
// Close Redis first, which ends every command: no call may be under way. NULL is fine.
void con_directory_free(struct con_directory *d);

// The answer is borrowed; for a drop it may be ignored. Called exactly once, perhaps
// before the call returns.
typedef void (*con_directory_answer)(void *ctx, const Sallyport__Fleet__SessionAnswer *m);

// `worker`: "NAME/N", who its key says it is, not what the message says.
void con_directory_put(struct con_directory *d, const char *worker,
		       const Sallyport__Fleet__SessionPut *m, con_directory_answer done,
		       void *ctx);
void con_directory_drop(struct con_directory *d, const char *worker,
			const Sallyport__Fleet__SessionDrop *m, con_directory_answer done,
			void *ctx);
void con_directory_adopt(struct con_directory *d, const char *worker,
			 const Sallyport__Fleet__SessionAdopt *m,
			 con_directory_answer done, void *ctx);

// Workers that were heard of so long ago: told to the other controllers. At most
// CON_DIRECTORY_LEASES_MAX; nobody is told whether it worked, the next comes soon.
#define CON_DIRECTORY_LEASES_MAX 256
struct con_directory_heard {
	const char *worker; // borrowed
	uint64_t boot;
	uint64_t age_ms;
};
void con_directory_leases(struct con_directory *d, const struct con_directory_heard *list,
			  size_t n);

const struct con_directory_counters *
con_directory_counters(const struct con_directory *d);

#endif
