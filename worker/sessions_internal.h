// What the files of the session table share (sessions*.c); nobody else includes this.
#ifndef WRK_SESSIONS_INTERNAL_H
#define WRK_SESSIONS_INTERNAL_H

#include <sys/queue.h>

#include <sodium.h>

#include "lib/log.h"
#include "worker/directory.h"
#include "worker/sessions.h"
#include "worker/users.h"

struct tier {
	TAILQ_ENTRY(tier) link;
	struct wrk_tally tally;
	uint32_t sessions;
};

enum place { ATTACHED, DETACHED, ENDING, PLACES };

struct wrk_session {
	struct wrk_sessions *t;
	struct sp_session *engine;
	struct sp_session_rec *rec;
	struct wrk_user *user;
	struct tier *tier;
	enum place place;
	enum sp_reason end_reason; // to be ended with, at the next sweep
	bool streams_gone;         // detached: reset already
	uint64_t since_us;         // in this place
	struct wrk_exit_session exit;
	struct wrk_directory_session dir;
	TAILQ_ENTRY(wrk_session) list;
	LIST_ENTRY(wrk_session) chain;
};
TAILQ_HEAD(session_list, wrk_session);
LIST_HEAD(session_chain, wrk_session);

struct wrk_sessions {
	struct wrk_sessions_options opt;
	struct wrk_sessions_counters n;
	struct wrk_directory *directory;    // or NULL
	struct session_list places[PLACES]; // each by time of entry
	uint32_t count;
	struct session_chain *by_id;
	struct wrk_users *users;
	size_t mask; // of by_id
	uint8_t hash_key[crypto_shorthash_KEYBYTES];
	TAILQ_HEAD(, tier) tiers;
	struct sp_session_stats gone; // of sessions that were freed
	struct event *sweep;
	uint64_t checked_us;
	uint32_t sweeps; // since quotas were looked at
	struct sp_ratelimit pressure_log;
	bool draining;
	uint64_t drain_ms;
};

// sessions.c
struct wrk_session *session_find(const struct wrk_sessions *t, const uint8_t *id);
// Tells the client that it is over; the rest at the sweep. Not for the engine's
// callbacks: those set end_reason.
void session_end(struct wrk_session *s, enum sp_reason reason);
enum sp_reason session_judge_pass(const struct wrk_sessions *t,
				  const struct sp_pass *pass);
// `moved`: it comes from another home, where its client's other session of here may have
// been until now: twice the user's share is room for it.
enum sp_reason session_check_room(struct wrk_sessions *t, const struct sp_pass *pass,
				  bool moved);
// `record`: of the directory, or NULL.
enum sp_reason session_make(struct wrk_sessions *t, const struct sp_pass *pass,
			    const uint8_t *id,
			    const Sallyport__Fleet__SessionRecord *record,
			    struct wrk_session **ret);
// The session of a record that another process left, without its streams. NULL: no
// memory, and the record is gone.
struct wrk_session *session_of_record(struct wrk_sessions *t, uint32_t record);

// At once, and its client is told nothing: one that is detached, or was told.
void session_free(struct wrk_session *s, enum sp_reason reason);

// sessions_detached.c
// What is due of detached sessions at this time; at each sweep.
void sessions_sweep_detached(struct wrk_sessions *t);

// sessions_stats.c
void session_add_stats(struct sp_session_stats *sum, const struct sp_session_stats *s);

// sessions_directory.c
// Makes the session that is not here, for a first contact; NONE and *ret NULL: later.
enum sp_reason session_arrive(struct wrk_sessions *t, struct sp_link *l,
			      const struct sp_hs_accept *who, const struct sp_attach *at,
			      struct wrk_session **ret);

#endif
