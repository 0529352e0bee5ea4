// What the files of the uplink share (uplink*.c); nobody else includes this.
//
// A *stay* is a session and the exit that is its home. Each exit of the chain has one
// main stay, for what is opened there; others are its *guests*: they came with streams
// when a session moved in, and go when nothing is left of them. Exits that left the
// config linger in `leaving` while one of their stays has work. The chain hears of main
// stays only.
#ifndef CLI_UPLINK_INTERNAL_H
#define CLI_UPLINK_INTERNAL_H

#include <sys/queue.h>

#include "client/freeze.h"
#include "client/uplink.h"
#include "lib/lookup.h"

#define TICKETS_KEPT 4
#define GUESTS_MAX   8 // of all exits; beyond, the oldest guest goes

struct exit;
struct stay;

struct kept_ticket {
	uint16_t len;
	uint64_t boot_id;
	uint64_t expires_us;
	uint8_t psk[32];
	uint8_t bytes[SP_HS_TICKET_MAX];
};

// One dial, and then one link.
struct attempt {
	TAILQ_ENTRY(attempt) entry;
	struct stay *stay;        // NULL: it is gone
	struct exit *exit;        // home: the stay's own, or one it asks to move to
	struct exit *via;         // dialled instead, to relay to it; NULL: none
	struct sp_lookup *lookup; // while the name is looked up
	struct sp_link *link;     // from then on
	unsigned slot;
	unsigned carrier; // index in the exit's config
	bool resume;      // with a ticket:
	struct kept_ticket ticket;
	enum cli_resume_cause cause;
	bool up;     // the engine said attached
	bool spare;  // in reserve (uplink_spare.c)
	bool again;  // ATTACH was said again on it; its answer is due
	bool ending; // we closed it: its end is no news
	struct sockaddr_storage addr;
};
TAILQ_HEAD(attempt_list, attempt);

// How a stay is doing with entries, while its home cannot be reached directly.
struct relay {
	uint64_t dial_at_ms; // not before
	unsigned fails;      // relayed dials in a row
	uint64_t away_ms;    // the home is away since; 0: it is not
	uint64_t since_ms;   // on a relay; 0: it is not
	uint64_t idle_ms;    // on a relay with nothing to carry since; 0: it is not
	bool silent;         // the relayed carrier is
};

struct spare {
	uint64_t wanted_ms, unwanted_ms; // since; 0: it is not
	uint64_t dial_at_ms;             // not before
	unsigned fails;                  // dials that failed, spares that died, in a row
	bool instead;                    // the carrier in use is silent: take over
};

struct stay {
	TAILQ_ENTRY(stay) entry; // of a guest
	struct cli_uplink *u;
	struct exit *exit;
	struct sp_session *session; // or NULL
	struct attempt_list attempts;
	unsigned n_tickets;
	struct kept_ticket ticket[TICKETS_KEPT]; // the newest last
	bool attached_once;                      // this session was attached before
	bool over;                               // END came: free the session
	enum sp_reason over_reason;
	uint64_t boot_id;
	uint64_t detached_since_us; // 0: attached
	uint64_t up_bytes;          // carried when the carrier came up
	uint64_t stall_records;     // records_rx when it stalled
	uint64_t left_since_ms;     // another exit serves instead; 0: none does
	// asking to move
	uint64_t ask_at_ms, asked_ms;
	unsigned asks, answers;
	uint32_t streams;      // at the last decision: what an ATTACHED may end
	struct exit *moved_to; // attached there, to be moved at the next decision
	bool adopted;          // with its record
	struct sp_session_stats before; // what it counted at earlier homes
	enum cli_resume_cause cause;    // of its next resume
	uint64_t paused_since_us;       // its streams stand still; 0: they do not
	struct relay relay;
	struct spare spare;
};
TAILQ_HEAD(stay_list, stay);

struct exit {
	struct cli_uplink *u;
	TAILQ_ENTRY(exit) entry; // of leaving ones
	unsigned index;          // in the chain; CLI_CHAIN_MAX: left the config
	struct cli_exit is;      // what the config says
	struct stay *main;
	struct stay_list guests;
	struct cli_freeze freeze;
	uint64_t look_at_ms; // of one that left the config: when it is dialled again
	uint64_t succeed_ms; // when a successor was last dialled
	unsigned carrier;    // to try next
	unsigned address;    // of the name's addresses to try next
	int64_t skew_ms;
	struct cli_uplink_exit_info info;
	struct sp_session_stats gone; // sums of sessions that were freed
};
TAILQ_HEAD(exit_list, exit);

struct old_exits { // replaced configs, until nothing can point into them
	struct old_exits *next;
	struct cli_exits *exits;
	uint64_t since_us;
};

struct cli_uplink {
	struct cli_uplink_options opt; // session_ops completed
	struct cli_uplink_identity identity;
	struct cli_exits *exits;
	struct old_exits *old;
	struct cli_chain chain;
	struct exit *exit[CLI_CHAIN_MAX];
	struct exit_list leaving;
	struct stay *mover; // asks to move to the exit in use; NULL: none does
	unsigned n_guests;
	struct sp_timer timer;
	struct sp_deferred decide;
	uint64_t moves;
	struct cli_uplink_moved moved;
	struct cli_uplink_resumes resumes;
	bool closing;
};

static inline uint64_t uplink_now_ms(const struct cli_uplink *u)
{
	return sp_loop_now_ms(u->opt.loop);
}

// Whether the chain hears of it.
static inline bool stay_is_main(const struct stay *y)
{
	return y->exit->main == y && y->exit->index < CLI_CHAIN_MAX;
}

static inline bool attempt_is_main(const struct attempt *a)
{
	return !a->via && !a->spare && a->exit == a->stay->exit && stay_is_main(a->stay);
}

// Whose listener it dials.
static inline struct exit *attempt_at(const struct attempt *a)
{
	return a->via ? a->via : a->exit;
}

// uplink.c
void uplink_kick(struct cli_uplink *u); // decide at the end of this turn

// uplink_exit.c
int exit_new(struct cli_uplink *u, const struct cli_exit *conf, struct exit **ret);
void exit_free(struct exit *x, enum sp_reason reason);
void exit_stats(const struct exit *x, struct sp_session_stats *ret);
struct stay *stay_new(struct exit *x);
void stay_free(struct stay *y, enum sp_reason reason); // not from the engine's calls
int stay_need_session(struct stay *y);
void stay_drop_session(struct stay *y, enum sp_reason reason);
// All attempts but `but`; those to `x` only, if it is not NULL.
void stay_close_links(struct stay *y, const struct attempt *but, const struct exit *x,
		      enum sp_reason reason);
struct attempt *stay_link_in_use(const struct stay *y); // up and active, or NULL
// What was counted until now counts as the present home's, and no more for the next.
void stay_count_here(struct stay *y);
uint64_t stay_bytes(const struct stay *y);     // stream bytes of the session, both ways
void stay_set_ops(struct sp_session_ops *ops); // the uplink's part of them

// uplink_dial.c
// The stay's session at `x`: its home, or an exit that is asked to take it over.
void stay_dial(struct stay *y, struct exit *x);
// Where carriers freeze after some bytes: dials the next one beside the one in use when
// its budget is used up. When to call again, ms; CLI_CHAIN_NEVER.
uint64_t stay_succeed(struct stay *y);
void stay_forget_tickets(struct stay *y);
void stay_keep_ticket(struct stay *y, struct attempt *a, unsigned index,
		      uint32_t lifetime_s, const uint8_t *ticket, size_t len);
void attempt_free(struct attempt *a);
void attempt_close(struct attempt *a, enum sp_reason reason); // may free it
// The home of the stay's session, through `via`.
void stay_dial_relayed(struct stay *y, struct exit *via);
void stay_dial_spare(struct stay *y);

// uplink_pause.c
void pause_init(struct cli_uplink *u);
void pause_begin(struct stay *y, uint64_t since_us);
void pause_end(struct stay *y);

// uplink_spare.c
// No carrier is in use: goes on with one that lives; what cannot be gone on with is
// closed. False: there is none.
bool spare_take_over(struct stay *y);
// If the carrier in use is silent, a spare takes its place.
void spare_act(struct stay *y);
void spare_failed(struct stay *y);
bool spare_is_ready(const struct stay *y);
uint64_t spare_decide(struct stay *y, uint64_t now_ms); // when to call again, ms

// uplink_relay.c
bool relay_is_up(const struct stay *y); // the carrier in use is a relayed one
// It is on a relay or may soon be: its session stays at its home for now.
bool relay_holds(const struct stay *y, uint64_t now_ms);
// The last ticket is for a relayed dial: the home knows its client by the pass as well.
bool relay_wants_ticket(const struct stay *y);
void relay_up(struct attempt *a);
void relay_failed(struct attempt *a, enum sp_reason reason);
void relay_over(struct stay *y); // it is at its home directly, or is no more
void relay_decide(struct cli_uplink *u, uint64_t now_ms);
uint64_t relay_deadline(const struct cli_uplink *u, uint64_t now_ms);
// `x` goes: no attempt may go through it any more.
void relay_exit_gone(struct cli_uplink *u, const struct exit *x, enum sp_reason reason);

// uplink_move.c
// Whether what can move should: the exit does not serve, and the one in use does.
bool stay_is_left(const struct stay *y, uint64_t now_ms);
bool stay_is_asking(const struct stay *y, uint64_t now_ms); // and may be answered soon
// An ATTACHED came, of which `lost` says by what its streams ended; CLI_LOST__N: they go
// on.
void move_attached(struct stay *y, enum cli_lost lost);
// The exit in use changed, because `from` was given up.
void move_begin(struct cli_uplink *u, struct exit *from);
// It left the config; `in_use`: it was the exit in use. It may be freed.
void move_leave(struct cli_uplink *u, struct exit *x, bool in_use);
void move_decide(struct cli_uplink *u, uint64_t now_ms);
uint64_t move_deadline(const struct cli_uplink *u); // ms; CLI_CHAIN_NEVER

#endif
