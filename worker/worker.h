// The exit process as a whole: makes the roles, joins them, and carries out what signals
// ask for. The struct is the one context that is passed down; role modules do not see it,
// metrics.c reads it. Not here: command line (main.c), reload (reload.c).
#ifndef WRK_WORKER_H
#define WRK_WORKER_H

#include "lib/admin.h"
#include "lib/budget.h"
#include "lib/handshake.h"
#include "lib/link.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/notify.h"
#include "lib/replay.h"
#include "worker/agent_link.h"
#include "worker/control.h"
#include "worker/cover.h"
#include "worker/dial.h"
#include "worker/exit.h"
#include "worker/identity.h"
#include "worker/keeper.h"
#include "worker/listener.h"
#include "worker/quarantine.h"
#include "worker/relay.h"
#include "worker/resolve.h"
#include "worker/segments.h"
#include "worker/sessions.h"
#include "worker/trunk.h"
#include "worker/upgrade.h"

#define WRK_PORTS_MAX     32
#define WRK_REPLAY_KEYS   131072 // first contacts within 180 s
#define WRK_TICKET_LIFE_S 90000  // 25 h

struct wrk_worker;

struct wrk_port {
	struct wrk_worker *w;
	struct wrk_listener *listener;
	struct sp_target at; // as in the config
	enum sp_carrier_kind kind;
};

struct wrk_retired_tls { // carriers may still use it
	struct wrk_retired_tls *next;
	struct sp_tls *tls;
};

// What outlives the process besides sessions; in the arena.
struct wrk_lasting {
	uint64_t boot_id;
	uint8_t boot_key[32];
	uint32_t n_ports;
	struct {
		struct sp_target at; // as in the config
		uint8_t kind;        // enum sp_carrier_kind
		int32_t fd;
	} port[WRK_PORTS_MAX];
	uint64_t replay[]; // first contacts of late
};

struct wrk_worker {
	const char *config_path;
	struct wrk_kept *kept; // NULL: nothing outlives this process
	struct wrk_lasting *lasting;
	struct wrk_quarantine *quarantine; // NULL with `kept`
	bool heir;                         // the arena is another process's
	struct wrk_sessions_found found;
	uint32_t orphans;     // descriptors that nobody knew
	uint32_t quarantined; // sessions, by this process
	// From the end of the other process until all was taken over, or 0; of that,
	// until this process began, and what adopting took.
	uint64_t took_over_us, exec_us, adopt_us;
	struct wrk_config *cfg;
	struct wrk_identity id;
	struct wrk_retired_tls *retired;
	struct sp_loop *loop;
	struct sp_hs_worker_keys keys; // trusted changes at a reload
	struct sp_replay *replay;
	struct sp_budget *budget;
	struct sp_arena *arena;
	struct sp_session_clock *clock;
	struct wrk_resolve *resolve;
	struct wrk_dialer *dialer;
	struct wrk_exit *exit;
	struct wrk_sessions *sessions;
	struct sp_link_env *links;
	struct wrk_cover *cover;
	struct wrk_trunks *trunks;
	struct wrk_relays *relays;
	struct sp_fleet_members members; // with control.folder: as the agent said
	struct wrk_port ports[WRK_PORTS_MAX];
	unsigned n_ports;
	// With control.folder, else NULL.
	struct wrk_segments *segments;
	struct wrk_counters *counters;
	struct wrk_agent_link *agent;
	struct wrk_control *control;
	struct sp_admin *admin;
	struct wrk_upgrader *upgrader;
	struct sp_watchdog watchdog;
	struct sp_timer drain, tick;
	uint64_t drain_until_us;
	uint64_t started_unix_ms;
	struct sp_ratelimit strangers_log;
	// seen by metrics
	bool draining; // the process is about to end
	bool leased;   // drained by the control plane, until it says otherwise
	bool crashing; // drained because it crashed often
	uint64_t reloads_ok, reloads_failed, config_applied_s;
};

// Starts everything; takes over `cfg` and `id` (which is zeroed) in every case. `kept`
// (NULL: none) outlives the worker; what lies there is taken over. 0 and *ret; an error,
// which was logged.
int wrk_worker_new(const char *config_path, struct wrk_config *cfg,
		   struct wrk_identity *id, struct wrk_kept *kept,
		   struct wrk_worker **ret) SP_MUST_CHECK;
// Until a signal ends it. 0; -EIO, -EDEADLK.
int wrk_worker_run(struct wrk_worker *w) SP_MUST_CHECK;
void wrk_worker_free(struct wrk_worker *w); // NULL is fine

// No new sessions, for whichever of the reasons.
static inline bool wrk_worker_drains(const struct wrk_worker *w)
{
	return w->draining || w->leased || w->crashing;
}
// True while new sessions are welcome; else `why` (64) says what is wrong.
bool wrk_worker_ready(struct wrk_worker *w, char *why, size_t cap);
// What the config says, in the form of the session table.
void wrk_worker_session_limits(const struct wrk_config *cfg,
			       struct wrk_sessions_limits *ret);
// The site's address from the signed config (NULL: none yet), else from the local one. 0;
// SP_E_CONFIG: a name.
int wrk_worker_cover_options(const struct wrk_config *cfg,
			     const struct sp_fleet_worker *fleet, struct sp_loop *loop,
			     struct wrk_cover_options *ret) SP_MUST_CHECK;
// Who may sign passes: the signed config's word, else who signs configs.
const struct sp_signed_keys *wrk_worker_pass_keys(const struct wrk_identity *id);

// What serves carriers that another worker relays to this home.
extern const struct sp_link_worker_ops wrk_worker_relayed_ops;

// relaying.c: trunks and relays, as the config has them. 0; -ENOMEM.
int wrk_relaying_open(struct wrk_worker *w) SP_MUST_CHECK;
void wrk_relaying_free(struct wrk_worker *w);
// Limits of `cfg`; without control.folder also the members of `fleet` (NULL: none).
void wrk_relaying_apply(struct wrk_worker *w, const struct wrk_config *cfg,
			const struct sp_fleet_worker *fleet);
// The members of an enrolled worker's fleet, in the form of sp_fleet_members_parse. 0;
// its errors, with `why` (SP_WHY_MAX): then the old ones stay.
int wrk_relaying_take_members(struct wrk_worker *w, const void *json, size_t len,
			      char *why, size_t cap) SP_MUST_CHECK;

// Drained by the control plane (until `deadline_ms`, Unix) or no more.
void wrk_worker_lease(struct wrk_worker *w, bool drain, uint64_t deadline_ms);

// reload.c. The config in force is what the next exit begins with.
void wrk_worker_keep_config(struct wrk_worker *w);
enum wrk_reload {
	WRK_RELOAD_DONE,    // in place
	WRK_RELOAD_REFUSED, // and nothing has changed
	WRK_RELOAD_UPGRADE, // only a new process can take it; nothing has changed
};
// reload.c. Takes the new files as a whole, or keeps the old and says why, in the log and
// in `why` (cap >= SP_WHY_MAX). `upgrade`: by a new process in any case; `is_new`:
// another program is installed than runs, which may know more of the config.
enum wrk_reload wrk_worker_reload(struct wrk_worker *w, bool upgrade, bool is_new,
				  char *why, size_t cap);
// The body of a worker config (lib/fleet.h) replaces the one in force, for live sessions
// too. 0 and *ret; SP_E_STALE: older than that; errors of sp_fleet_worker_parse and
// wrk_identity_policy; then the old stays and `why` (SP_WHY_MAX) says what is wrong.
int wrk_worker_take_fleet(struct wrk_worker *w, const void *json, size_t len,
			  struct sp_fleet_revision *ret, char *why,
			  size_t cap) SP_MUST_CHECK;

#endif
