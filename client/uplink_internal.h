// What the files of the uplink share (uplink*.c); nobody else includes this.
#ifndef CLI_UPLINK_INTERNAL_H
#define CLI_UPLINK_INTERNAL_H

#include <sys/queue.h>

#include "client/lookup.h"
#include "client/uplink.h"

#define TICKETS_KEPT 4

struct exit;

// One dial, and then one link.
struct attempt {
	TAILQ_ENTRY(attempt) entry;
	struct exit *exit;
	struct cli_lookup *lookup; // while the name is looked up
	struct sp_link *link;      // from then on
	unsigned slot;
	unsigned carrier; // index in the exit's config
	bool resume;      // with a ticket
	bool up;          // the engine said attached
	bool ending;      // we closed it: its end is no news
	struct sockaddr_storage addr;
};
TAILQ_HEAD(attempt_list, attempt);

struct kept_ticket {
	uint16_t len;
	uint64_t boot_id;
	uint64_t expires_us;
	uint8_t psk[32];
	uint8_t bytes[SP_HS_TICKET_MAX];
};

struct exit {
	struct cli_uplink *u;
	unsigned index;             // in the chain
	struct cli_exit is;         // what the config says
	struct sp_session *session; // or NULL
	struct attempt_list attempts;
	unsigned carrier; // to try next
	unsigned address; // of the name's addresses to try next
	unsigned n_tickets;
	struct kept_ticket ticket[TICKETS_KEPT]; // the newest last
	bool attached_once;                      // this session was attached before
	bool over;                               // END came: free the session
	enum sp_reason over_reason;
	int64_t skew_ms;
	uint64_t boot_id;
	uint64_t detached_since_us; // 0: attached
	uint64_t up_bytes;          // carried when the carrier came up
	uint64_t stall_records;     // records_rx when it stalled
	struct cli_uplink_exit_info info;
	struct sp_session_stats gone; // sums of sessions that were freed
};

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
	struct sp_timer timer;
	struct sp_deferred decide;
	uint64_t moves;
	bool closing;
};

static inline uint64_t uplink_now_ms(const struct cli_uplink *u)
{
	return sp_loop_now_ms(u->opt.loop);
}

// uplink.c
void uplink_kick(struct cli_uplink *u); // decide at the end of this turn

// uplink_exit.c
int exit_new(struct cli_uplink *u, const struct cli_exit *conf, struct exit **ret);
void exit_free(struct exit *x, enum sp_reason reason);
int exit_need_session(struct exit *x);
void exit_drop_session(struct exit *x, enum sp_reason reason);
void exit_close_links(struct exit *x, const struct attempt *but, enum sp_reason reason);
struct attempt *exit_link_in_use(const struct exit *x); // up and active, or NULL
uint64_t exit_bytes(const struct exit *x); // stream bytes of the session, both ways
void exit_stats(const struct exit *x, struct sp_session_stats *ret);
void exit_set_ops(struct sp_session_ops *ops); // the uplink's part of them

// uplink_dial.c
void exit_dial(struct exit *x);
void exit_forget_tickets(struct exit *x);
void exit_keep_ticket(struct exit *x, struct attempt *a, unsigned index,
		      uint32_t lifetime_s, const uint8_t *ticket, size_t len);
void attempt_free(struct attempt *a);

#endif
