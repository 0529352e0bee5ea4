// The insides of a controller's fleet, for controller/fleet*.c alone.
#ifndef CON_FLEET_INTERNAL_H
#define CON_FLEET_INTERNAL_H

#include "controller/fleet.h"
#include "controller/journal.h"

#define CON_FLEET_HEAD_TEXT_MAX 128
#define CON_FLEET_PREFIX_MAX    64

// A revision that is signed and perhaps written, with all that belongs to it.
struct con_fleet_record {
	char *text, *private;
	size_t len;
	struct sp_position position;
	uint8_t previous[SP_REVISION_HASH_BYTES];
};

struct con_fleet_commit { // one that waits or is under way
	TAILQ_ENTRY(con_fleet_commit) queue;
	struct sp_changes changes;
	char author[SP_REVISION_AUTHOR_MAX + 1];
	con_fleet_done *done; // NULL: told already
	void *ctx;
	uint64_t until_us;
	unsigned tries;
};

enum con_fleet_sync {
	CON_SYNC_AWAY,    // no connection
	CON_SYNC_LOOKING, // finding out what Redis holds
	CON_SYNC_DONE,
};

struct con_fleet {
	struct sp_loop *loop;
	char name[CON_FLEET_PREFIX_MAX];
	uint8_t secret[SP_SIGNED_SECRET_BYTES];
	struct sp_signed_keys keys;
	char *journal_path;
	struct con_journal *journal;
	struct con_redis *redis;
	void (*event)(void *ctx, enum con_fleet_event what, const char *text);
	void *ctx;
	LIST_HEAD(, con_fleet_listener) listeners;

	struct sp_state *state;
	struct sp_position head;
	struct con_fleet_record window[CON_FLEET_WINDOW]; // by sequence
	char *snapshot;                                   // of head; NULL: not made yet
	size_t snapshot_len;

	TAILQ_HEAD(, con_fleet_commit) queue;
	unsigned queued;
	// The first of the queue is under way: this record is in the journal and not yet
	// known to be in Redis.
	bool pending;
	struct con_fleet_record next;
	struct sp_state *next_state;
	struct sp_timer patience, beat;
	struct sp_deferred go_on;

	// fleet_sync.c
	enum con_fleet_sync sync;
	uint32_t serial;   // of the sync under way: answers of an older one count nothing
	char writer[33];   // who may write in Redis: this connection
	bool distrusted;   // and told
	bool heard;        // of Redis, good or bad, since the start
	bool unclaimed;    // Redis refused something: the next beat begins with `writer`
	char trouble[160]; // why it is not synced, told; "": there is no connection
	bool idle;         // not synced, and nothing is asked: the next beat looks
	struct con_fleet_counters counters;
};

void con_fleet_tell(struct con_fleet *f, enum con_fleet_event what, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void con_fleet_record_done(struct con_fleet_record *r);
// The record counts from now on: state, window, listeners. Takes over both.
void con_fleet_accept(struct con_fleet *f, struct con_fleet_record *r,
		      struct sp_state *state);
// The pending record counts, and whoever waits for it is told.
void con_fleet_accept_pending(struct con_fleet *f);
// It will not: taken out of the journal. `again`: the commit is tried anew.
void con_fleet_drop_pending(struct con_fleet *f, bool again, int err, const char *why);
// There is trouble with Redis that may last: who waits is told sooner.
void con_fleet_hurry(struct con_fleet *f);
// Goes on with the queue, at the end of the turn.
void con_fleet_go_on(struct con_fleet *f);
// Signs changes on `state` (which has them) after `before`. 0 and *ret.
int con_fleet_sign(struct con_fleet *f, const struct sp_position *before, uint32_t epoch,
		   const char *author, const struct sp_changes *changes,
		   const struct sp_state *state,
		   struct con_fleet_record *ret) SP_MUST_CHECK;
int con_fleet_write(struct con_fleet *f, const struct con_fleet_record *r) SP_MUST_CHECK;
// Verifies a revision that follows `before` on `state` and folds it. 0, *ret_state and
// *ret (its texts are copies).
int con_fleet_fold(const struct con_fleet *f, const struct sp_position *before,
		   const struct sp_state *state, const char *text, size_t len,
		   const char *private, size_t private_len, struct con_fleet_record *ret,
		   struct sp_state **ret_state) SP_MUST_CHECK;
// A base: the public and the private half of a whole state, both signed.
int con_fleet_make_base(const struct con_fleet *f, const struct sp_state *state,
			const struct sp_position *at, char **ret_text, size_t *ret_len,
			char **ret_private, size_t *ret_private_len) SP_MUST_CHECK;
int con_fleet_open_base(const struct con_fleet *f, const char *text, size_t len,
			const char *private, size_t private_len,
			struct sp_state **ret_state,
			struct sp_position *ret_at) SP_MUST_CHECK;
// The state was replaced by a base from elsewhere.
void con_fleet_replace(struct con_fleet *f, struct sp_state *state,
		       const struct sp_position *at);

// fleet_sync.c
int con_sync_start(struct con_fleet *f, const char *address,
		   const char *password) SP_MUST_CHECK;
void con_sync_stop(struct con_fleet *f);
// Appends the pending record in Redis.
void con_sync_append(struct con_fleet *f);

#endif
