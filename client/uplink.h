// The way out: one session per exit in use, its links, dials, tickets; the chain's
// decisions carried out. Whoever proxies opens streams and flows here and never sees a
// link. There is no direct path: with no exit up, streams wait. Not here: the decisions
// (client/chain.h), applications' sockets (client/app_stream.h, client/app_udp.h).
#ifndef CLI_UPLINK_H
#define CLI_UPLINK_H

#include "client/chain.h"
#include "client/exits.h"
#include "lib/arena.h"
#include "lib/conf.h"
#include "lib/link.h"
#include "lib/loop.h"
#include "lib/metrics.h"
#include "lib/session.h"
#include "lib/session_clock.h"

struct cli_uplink;

struct cli_uplink_identity { // who this device is
	uint8_t device_secret[32];
	uint8_t device_public[32];
	uint8_t pass[SP_PASS_BLOB_MAX]; // signed blob
	size_t pass_len;
};

struct cli_uplink_ops {
	// Exits have been left or given up, or it is hopeless: streams that are not
	// opened yet and for which cli_uplink_should_leave says so are to be opened anew,
	// or all are to fail (cli_uplink_hopeless).
	void (*rehome)(void *ctx);
};

struct cli_relay_options {
	bool use;          // reach a home that is away through another exit
	bool new_flows;    // and open new streams and flows there, not elsewhere
	uint32_t after_ms; // how long a home may be away without having refused
	const struct sp_conf_strings *entries; // names, the best first; or none: any
};

enum cli_spare { CLI_SPARE_AUTO, CLI_SPARE_ON, CLI_SPARE_OFF };

struct cli_uplink_options {
	struct sp_loop *loop;
	struct sp_session_clock *clock;
	struct sp_link_env *env;
	struct sp_arena *arena;
	struct cli_exits *exits;                    // becomes the uplink's
	const struct cli_uplink_identity *identity; // copied
	struct cli_chain_options chain;
	struct cli_relay_options relay;
	enum cli_spare spare; // auto: on tls
	struct sp_session_limits limits;
	uint32_t dial_timeout_ms;
	uint32_t stale_ms; // a session without a carrier for so long loses its streams
	uint32_t park_ms;  // the same, while another exit serves
	// stream_* and flow_* of the applications' side; the rest is the uplink's.
	struct sp_session_ops session_ops;
	const struct cli_uplink_ops *ops;
	void *ctx; // of ops
};
// 0 and *ret; -ENOMEM. Dialling begins with the first turn of the loop.
int cli_uplink_new(const struct cli_uplink_options *opt,
		   struct cli_uplink **ret) SP_MUST_CHECK;
// Ends every stream and flow with SHUTDOWN, closes links. NULL is fine.
void cli_uplink_free(struct cli_uplink *u);
// New exits (become the uplink's; NULL: as before) and identity. Sessions with exits that
// stay go on; streams of exits that are gone are reset.
void cli_uplink_reload(struct cli_uplink *u, struct cli_exits *exits,
		       const struct cli_uplink_identity *identity);
// This machine's network changed, or it slept: carriers may be dead without knowing it.
// Another one is dialled beside each, and what is down at once.
void cli_uplink_network_changed(struct cli_uplink *u);
const struct cli_exits *cli_uplink_exits(const struct cli_uplink *u);

// On the exit in use. 0 and *ret; SP_E_LIMIT, -ENOMEM; SP_E_CLOSED.
int cli_uplink_open_stream(struct cli_uplink *u, const struct sp_target *target,
			   void *user, struct sp_stream **ret) SP_MUST_CHECK;
int cli_uplink_open_flow(struct cli_uplink *u, const struct sp_target *target, void *user,
			 struct sp_flow **ret) SP_MUST_CHECK;
// Whether the session's exit is given up for now while the one in use works: what can
// move (streams not opened yet, flows) should be opened anew.
bool cli_uplink_should_leave(const struct cli_uplink *u, const struct sp_session *s);
// The same for flows, which wait a little while the session may be adopted with them.
bool cli_uplink_flow_should_leave(const struct cli_uplink *u, const struct sp_session *s);
// The same for streams that are open and untouched: not while the home may be reached by
// way of another exit.
bool cli_uplink_may_redo(const struct cli_uplink *u, const struct sp_session *s);
// Why no exit serves this client, if none does; NONE: streams may be opened, or may wait.
enum sp_reason cli_uplink_hopeless(const struct cli_uplink *u);
// Call after using a stream or flow outside of the engine's calls: its timers may have
// changed.
void cli_uplink_touch(struct cli_uplink *u, struct sp_session *s);

struct cli_uplink_exit_info {
	const char *name;
	const char *state; // "healthy", "connecting", "stalled", "draining", "waiting",
			   // "idle"
	bool in_use, healthy;
	const char *carrier;              // kind of the carrier in use, or ""
	char address[SP_TARGET_TEXT_MAX]; // of the carrier in use or tried last
	bool has_session;
	uint8_t session[SP_SESSION_ID_BYTES]; // its id
	const char *via;                      // exit that relays to it; "": none does
	const char *came; // "adopted" or "fresh": how it last came here from another
			  // home; "" if it did not
	bool spare;       // a second carrier is ready to take over
	unsigned tickets;
	uint64_t dials, dial_failures, stalls, home_losses, sessions_ended;
	uint64_t state_since_ms;  // time of sp_loop_now_ms
	enum sp_reason last_down; // why the last carrier went, NONE: none did
	uint64_t last_down_ms;
	struct sp_session_stats stats; // sums over all sessions with this exit
};
unsigned cli_uplink_n(const struct cli_uplink *u);
void cli_uplink_exit_info(const struct cli_uplink *u, unsigned e,
			  struct cli_uplink_exit_info *ret);
uint64_t cli_uplink_moves(const struct cli_uplink *u); // changes of the exit in use

enum cli_lost {
	CLI_LOST_ADOPTED,   // a member that knows its home to be dead has the session
	CLI_LOST_RESTARTED, // the home itself has no memory of it
	CLI_LOST_TIMEOUT,   // nobody knew anything for park_ms
	CLI_LOST_AWAY,      // no exit served for stale_ms
	CLI_LOST__N,
};
const char *cli_lost_word(enum cli_lost by); // metric label

struct cli_uplink_moved {         // sessions whose home was lost
	uint64_t adopted, fresh;  // went on under their id: with their record, without
	uint64_t asked;           // dials that asked for that
	uint64_t streams_lost;    // that waited for a home in vain
	uint64_t streams_resumed; // that were parked, and whose home came back
	uint64_t lost_by[CLI_LOST__N]; // streams_lost, by what ended them
	uint32_t parked;               // streams that wait now
};
const struct cli_uplink_moved *cli_uplink_moved(const struct cli_uplink *u);

// Why a session had to be resumed. X(NAME, "word")
#define CLI_RESUME_CAUSES(X)                                                             \
	X(RESET, "reset")       /* the carrier ended */                                  \
	X(SILENCE, "silence")   /* it fell silent */                                     \
	X(NETWORK, "network")   /* the network changed */                                \
	X(ROTATION, "rotation") /* carriers freeze after some bytes */                   \
	X(RESTART, "restart")   /* the home lives another life */                        \
	X(RELAY, "relay")       /* through another exit */                               \
	X(DIRECT, "direct")     /* back from there */
enum cli_resume_cause {
#define X(name, word) CLI_RESUME_##name,
	CLI_RESUME_CAUSES(X)
#undef X
		CLI_RESUME__N
};
const char *cli_resume_cause_word(enum cli_resume_cause cause);

struct cli_uplink_resumes {
	uint64_t by[CLI_RESUME__N];
	uint64_t relay_dials, relay_failures;
	uint64_t spare_dials, takeovers; // carriers that lived and were gone on with
	struct sp_histogram pauses;      // seconds that streams stood still
	uint64_t network_changes;
	uint64_t relay_ms; // spent on relays, by sessions whose time there is over
};
const struct cli_uplink_resumes *cli_uplink_resumes(const struct cli_uplink *u);

#endif
