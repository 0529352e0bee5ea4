// The fleet as the controller holds it: state, chain of revisions, and the one way by
// which it changes. A change is tried on a copy by the workers' own parser, signed,
// written to the journal (on the disk), appended in Redis if Redis stands where we do,
// and only then counts: listeners hear of it, who asked is answered. One at a time, in
// order. Not here: publishing (a listener), what objects mean (lib/fleetfile.h).
//
// Redis may be away, empty, or older than we are. Away: changes wait, then fail; what was
// written to the journal meanwhile is appended once Redis is back. Empty or older: it is
// seeded anew from here, and the epoch rises. Newer: what it has is taken, if it was
// signed and follows. A read that fails or is empty changes nothing here, ever.
#ifndef CON_FLEET_H
#define CON_FLEET_H

#include <sys/queue.h>

#include "controller/redis.h"
#include "lib/revision.h"

#define CON_FLEET_QUEUE_MAX  256  // changes that wait; a further one is refused
#define CON_FLEET_WINDOW     1024 // revisions held in memory, for those who miss some
#define CON_FLEET_COMMIT_MS  5000 // until an answer, whatever Redis does
#define CON_FLEET_TROUBLE_MS 1000 // the same, if Redis answers, but nothing to go on with

struct con_fleet;

// What happened, while a listener hears of it.
struct con_fleet_change {
	const char *text; // the signed revision
	size_t len;
	const struct sp_revision *revision; // its public changes
	const struct sp_changes *private;   // and the others
	const struct sp_state *before, *after;
};
struct con_fleet_listener { // embed
	LIST_ENTRY(con_fleet_listener) chain;
	// Must not commit or free the fleet; it may defer.
	void (*changed)(void *ctx, const struct con_fleet_change *c);
	void *ctx;
};

enum con_fleet_event {
	CON_FLEET_SYNCED,   // Redis and the journal are at the same place
	CON_FLEET_AWAY,     // Redis cannot be reached; `text` says why
	CON_FLEET_SEEDED,   // Redis was empty or older and has been filled anew
	CON_FLEET_FOLLOWED, // Redis had revisions that were not here
	CON_FLEET_DISTRUST, // what Redis holds is not signed or does not follow
	CON_FLEET_JOURNAL,  // the journal could not be written
	CON_FLEET_CUT,      // a torn record was cut off the journal at the start
};

struct con_fleet_options {
	struct sp_loop *loop;
	const char *name;      // of the fleet, part of Redis's keys; copied
	const char *journal;   // path
	const uint8_t *secret; // Ed25519, 64 bytes; copied, wiped at the end
	const struct sp_signed_keys *trusted; // other controllers' keys; or NULL
	const char *redis;                    // address, see controller/redis.h
	const char *redis_password;           // or NULL
	void (*event)(void *ctx, enum con_fleet_event what, const char *text);
	void *ctx;
};

struct con_fleet_counters {
	uint64_t commits, unchanged, refused, conflicts, timeouts;
	uint64_t seeded, followed, journal_errors;
	uint64_t compactions;
};

// Reads the journal, begins to connect to Redis. 0 and *ret; an error, `why` says which.
int con_fleet_new(const struct con_fleet_options *opt, struct con_fleet **ret, char *why,
		  size_t cap) SP_MUST_CHECK;
void con_fleet_free(struct con_fleet *f); // changes that wait fail; NULL is fine

const struct sp_state *con_fleet_state(const struct con_fleet *f); // until it changes
const struct sp_position *con_fleet_head(const struct con_fleet *f);
// Who may sign revisions here: our own key and the trusted ones.
const struct sp_signed_keys *con_fleet_keys(const struct con_fleet *f);
const uint8_t *con_fleet_public_key(const struct con_fleet *f); // ours, 32 bytes
const uint8_t *con_fleet_secret(const struct con_fleet *f);     // 64 bytes, to sign by
bool con_fleet_is_synced(const struct con_fleet *f);
// Whether Redis has answered, or was found to be away, since the start.
bool con_fleet_has_heard(const struct con_fleet *f);
struct con_redis *con_fleet_redis(const struct con_fleet *f);
const char *con_fleet_name(const struct con_fleet *f);
const struct con_fleet_counters *con_fleet_counters(const struct con_fleet *f);
uint64_t con_fleet_journal_bytes(const struct con_fleet *f);

// The revision with that sequence, if it is still in memory; borrowed. NULL: it is not.
const char *con_fleet_revision(const struct con_fleet *f, uint64_t sequence,
			       size_t *ret_len);
// A snapshot of the state as it is, made once per revision; borrowed until the state
// changes. 0; SP_E_LIMIT, -ENOMEM.
int con_fleet_snapshot(struct con_fleet *f, const char **ret,
		       size_t *ret_len) SP_MUST_CHECK;
// The state a revision led to, folded anew from the journal. 0 and *ret (sp_state_free);
// -ENOENT: older than the journal goes back; errors of reading.
int con_fleet_state_at(const struct con_fleet *f, uint64_t sequence,
		       struct sp_state **ret) SP_MUST_CHECK;

void con_fleet_listen(struct con_fleet *f, struct con_fleet_listener *l);
void con_fleet_unlisten(struct con_fleet_listener *l); // of an unlisted one: nothing

// How a commit ended. err 0: *at is where the change stands (the head, if it changed
// nothing). SP_E_CONFIG: a worker would refuse it; -ENOTCONN: Redis is away;
// -ETIMEDOUT: nobody knows yet; -ENOSPC and others: the journal; `why` for people.
typedef void con_fleet_done(void *ctx, int err, const char *why,
			    const struct sp_position *at);
// Takes over what `changes` holds. `done` is called once, later or at once. 0;
// -EAGAIN: the queue is full, `done` is not called.
int con_fleet_commit(struct con_fleet *f, struct sp_changes *changes, const char *author,
		     con_fleet_done *done, void *ctx) SP_MUST_CHECK;

#endif
