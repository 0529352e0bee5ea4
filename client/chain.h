// The decisions about the chain of exits: which one new streams use, which to dial and
// when, which carriers to give up. Pure: no I/O, no clock, no malloc; events and a time
// go in, what to do and the next deadline come out. Not here: sessions, links, streams
// (client/uplink.h).
//
// An exit is healthy while a carrier to it is up, is not stalled, and it has not said
// GOAWAY.
//   use       The first exit of the chain that is healthy. It is left for the next
//             healthy one when it has been unhealthy for failover_ms, or at once if a
//             dial failed meanwhile or it says GOAWAY; with no healthy one it stays in
//             use and new streams wait. A better exit is gone back to once it has been
//             healthy for hold_down_ms.
//   dial      The exit in use, all before it, the next one as a warm standby (and the one
//             after that if it does not come up within failover_ms), and any that still
//             carries streams. A carrier that is lost is redialled at once; failures
//             back off exponentially with jitter. A stalled exit is dialled beside the
//             carrier it has.
//   give up   A carrier that nothing of this has wanted for hold_down_ms.
#ifndef CLI_CHAIN_H
#define CLI_CHAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"

#define CLI_CHAIN_MAX   32
#define CLI_CHAIN_NEVER UINT64_MAX

struct cli_chain_options {
	uint32_t failover_ms;    // 350
	uint32_t hold_down_ms;   // 30,000
	uint32_t stagger_ms;     // between the first dials: 50
	uint32_t backoff_min_ms; // 50
	uint32_t backoff_max_ms; // 5,000
	// A carrier that lives for less is young: 250. The third young death in a row and
	// every further one count as failed dials.
	uint32_t stable_ms;
	uint64_t seed; // of the jitter
};
void cli_chain_options_default(struct cli_chain_options *ret);

struct cli_chain_exit {
	bool up;       // a carrier is attached
	bool stalled;  // and silent
	bool draining; // and said GOAWAY
	bool dialling; // a dial is under way
	bool busy;     // carries streams or flows
	bool wanted;
	bool refused;   // the exit's last word was that it does not serve this client
	bool tried;     // a dial failed since it was last healthy
	uint32_t fails; // dials failed in a row, for the back-off
	uint32_t young; // carriers in a row that died young
	uint64_t dial_at_ms;
	uint64_t up_since_ms;
	uint64_t healthy_since_ms;   // if it is
	uint64_t unhealthy_since_ms; // if it is not
	uint64_t wanted_since_ms;    // if it is
	uint64_t unwanted_since_ms;  // if it is not
};

struct cli_chain { // embed; read it, change it only through the functions
	struct cli_chain_options opt;
	unsigned n;
	unsigned use; // index of the exit for new streams
	uint64_t random;
	struct cli_chain_exit exit[CLI_CHAIN_MAX];
};

// n exits (1..CLI_CHAIN_MAX), none of them dialled yet. 0; SP_E_LIMIT.
int cli_chain_init(struct cli_chain *c, unsigned n, const struct cli_chain_options *opt,
		   uint64_t now_ms) SP_MUST_CHECK;

// ---- what happened to exit `e` ----

void cli_chain_up(struct cli_chain *c, unsigned e, uint64_t now_ms); // a dial succeeded
// The only carrier went (one that was up). `useful`: it had carried something worth the
// dial, so that its death is not counted as young.
void cli_chain_lost(struct cli_chain *c, unsigned e, bool useful, uint64_t now_ms);
// The dial under way failed. `refused`: the exit answered and does not serve this client:
// the longest back-off at once. `again`: not a failure, dial anew now (a ticket that was
// too old).
void cli_chain_dial_failed(struct cli_chain *c, unsigned e, bool refused, bool again,
			   uint64_t now_ms);
void cli_chain_stalled(struct cli_chain *c, unsigned e, uint64_t now_ms);
void cli_chain_recovered(struct cli_chain *c, unsigned e, uint64_t now_ms); // spoke again
void cli_chain_goaway(struct cli_chain *c, unsigned e, uint64_t now_ms);
// Its session was ended by the exit, its carrier with it.
void cli_chain_ended(struct cli_chain *c, unsigned e, uint64_t now_ms);
// Whether streams or flows are left on it.
void cli_chain_busy(struct cli_chain *c, unsigned e, bool busy);
// The network changed: forget the back-offs, dial what is down now.
void cli_chain_network_changed(struct cli_chain *c, uint64_t now_ms);
// Another chain of n exits (1..CLI_CHAIN_MAX): old_of[e] is where the e-th stood before,
// -1: it is new. What is known of those that stay is kept, also which is in use.
void cli_chain_rebuild(struct cli_chain *c, unsigned n, const int *old_of,
		       uint64_t now_ms);

// ---- what to do ----

struct cli_chain_todo {
	uint32_t dial;  // bit per exit: start a dial now (it counts as under way)
	uint32_t close; // bit per exit: give up its carrier (it counts as closed)
	bool moved;     // c->use changed, from `from`
	unsigned from;
	bool from_healthy; // it moved although the old one works: streams stay there
};
// Decides everything that is due. Call after events and at the deadline.
void cli_chain_decide(struct cli_chain *c, uint64_t now_ms, struct cli_chain_todo *ret);
// When _decide must be called though nothing happened; CLI_CHAIN_NEVER.
uint64_t cli_chain_deadline(const struct cli_chain *c, uint64_t now_ms);

bool cli_chain_is_healthy(const struct cli_chain *c, unsigned e);
// Every exit refuses this client: waiting is of no use.
bool cli_chain_is_hopeless(const struct cli_chain *c);
// Not healthy, and not waited for any longer.
bool cli_chain_is_given_up(const struct cli_chain *c, unsigned e, uint64_t now_ms);

#endif
