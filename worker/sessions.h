// The table of sessions of this home: who may have one, by id and by user, attached,
// detached and ending. It answers what links ask (lib/link.h) and gives the engine its
// exit. Not here: carriers, destination sockets (worker/exit.h), the checks of a first
// flight (lib/handshake.h).
//
// A session's life:
//   attached --- its carrier in use went ---> detached --- ATTACH ---> attached
//   detached for stale_ms: its streams are reset (stale), the session stays;
//   memory is short: likewise (pressure), the stalest first, of those that hold some and
//   have been detached for WRK_SESSIONS_GRACE_MS;
//   detached for keep_s, or the stalest when the table or its user's share is full:
//   freed; any, when its pass expires or is revoked, or its user's quota is
//   used up: END on its carriers, freed within a
//   second.
#ifndef WRK_SESSIONS_H
#define WRK_SESSIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/arena.h"
#include "lib/fleet.h"
#include "lib/link.h"
#include "lib/loop.h"
#include "worker/counters.h"
#include "worker/directory.h"
#include "worker/exit.h"
#include "worker/quarantine.h"

// So long a client that lost its carrier, or whose worker was made anew, has in any case
// to come back before its streams are given up for memory.
#define WRK_SESSIONS_GRACE_MS 5000

struct wrk_sessions;

struct wrk_sessions_limits {
	uint32_t sessions;            // of the worker
	uint32_t sessions_per_user;   // at most, whatever the pass says
	uint32_t streams_per_session; // likewise
	uint32_t flows_per_session;   // likewise
	uint32_t stream_window_bytes; // credit of a stream
	uint32_t session_window_bytes;
	uint32_t datagram_budget_bytes; // queued towards the client
	uint32_t flow_idle_ms;
	uint32_t opens_per_second; // of a user; the burst is five times that
	uint32_t stale_ms;         // detached so long: streams are reset
	uint32_t keep_s;           // detached so long: forgotten
};

struct wrk_sessions_counters {
	uint64_t made, adopted, resumed, ended[SP_REASON__LAST + 1];
	uint64_t refused[SP_REASON__LAST + 1]; // admissions and attaches
	uint64_t passes_renewed, passes_rejected;
	uint64_t evicted;              // detached ones that made room
	uint64_t stale, pressed;       // detached ones whose streams were given up
	uint64_t streams_rate_limited; // more OPENs of a user than allowed
	uint32_t attached, detached, ending;
};

struct wrk_sessions_options {
	struct sp_loop *loop;
	struct sp_session_clock *clock;
	struct sp_arena *arena;
	struct wrk_exit *exit;
	const struct sp_hs_worker_keys *keys; // for tickets and renewed passes
	struct wrk_sessions_limits limits;
	const struct sp_fleet_worker *fleet;     // NULL: nobody is admitted
	struct wrk_counters *counters;           // users' totals and quotas; NULL: none
	const struct wrk_quarantine *quarantine; // ids refused; NULL: none
};
// 0 and *ret; -ENOMEM. What the options point to outlives it.
int wrk_sessions_new(const struct wrk_sessions_options *opt,
		     struct wrk_sessions **ret) SP_MUST_CHECK;
// Frees every session with SHUTDOWN. NULL is fine.
void wrk_sessions_free(struct wrk_sessions *t);
// New limits and a new signed config, which apply to live sessions too: revoked ones end.
// `fleet` replaces the old one, which may then be freed.
void wrk_sessions_reload(struct wrk_sessions *t, const struct wrk_sessions_limits *limits,
			 const struct sp_fleet_worker *fleet);
// Says sessions to `d`, made with wrk_sessions_directory_ops and this table as its ctx,
// and asks it for those that come from elsewhere. NULL (the default): to nobody.
void wrk_sessions_set_directory(struct wrk_sessions *t, struct wrk_directory *d);
extern const struct wrk_directory_ops wrk_sessions_directory_ops;
struct wrk_sessions_found {
	uint32_t sessions, streams, flows; // go on
	uint32_t redial;                   // of the streams: their dial was under way
	uint32_t lost;                     // could not be; their clients will hear it
	uint64_t repaired_bytes;           // read or written, and not on record yet
};
// Takes over what another process left in the arena: sessions, streams and flows with
// their sockets. Once, before there are carriers. `owned` as in wrk_exit_adopt_stream.
void wrk_sessions_adopt(struct wrk_sessions *t, bool *owned, int n_owned,
			struct wrk_sessions_found *ret);
// From now on only sessions that exist are served; their clients are told GOAWAY.
void wrk_sessions_drain(struct wrk_sessions *t, uint64_t deadline_ms);
// New sessions are welcome again.
void wrk_sessions_undrain(struct wrk_sessions *t);
uint32_t wrk_sessions_users(const struct wrk_sessions *t); // who have sessions
uint32_t wrk_sessions_live_streams(const struct wrk_sessions *t);

// For sp_link_worker_ops; ctx is the struct wrk_sessions.
enum sp_reason wrk_sessions_admit(void *ctx, struct sp_link *l,
				  const struct sp_hs_accept *who);
enum sp_reason wrk_sessions_attach(void *ctx, struct sp_link *l,
				   const struct sp_hs_accept *who,
				   const struct sp_attach *at,
				   struct sp_session **ret_session, bool *ret_fresh);
int wrk_sessions_make_ticket(void *ctx, struct sp_session *session, const uint8_t *psk,
			     uint8_t *buf, size_t cap, uint32_t *ret_lifetime_s);
// The link's carrier is gone.
void wrk_sessions_down(void *ctx, struct sp_link *l, enum sp_reason reason);

const struct wrk_sessions_counters *wrk_sessions_counters(const struct wrk_sessions *t);
// Sum over all sessions, those that are gone included.
void wrk_sessions_stats(const struct wrk_sessions *t, struct sp_session_stats *ret);
// Stream bytes held for detached sessions.
uint64_t wrk_sessions_detached_bytes(const struct wrk_sessions *t);
// Calls `each` for every tier seen since the start.
void wrk_sessions_tiers(const struct wrk_sessions *t,
			void (*each)(void *ctx, const struct wrk_tally *tally,
				     uint32_t sessions),
			void *ctx);

#endif
