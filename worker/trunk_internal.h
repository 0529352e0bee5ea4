// What the files of trunks share (trunk.c, trunk_link.c); nobody else includes this.
#ifndef WRK_TRUNK_INTERNAL_H
#define WRK_TRUNK_INTERNAL_H

#include <event2/event.h>
#include <event2/event_struct.h>

#include "lib/log.h"
#include "lib/record.h"
#include "worker/trunk.h"

#define TRUNK_IN_BYTES  (256 << 10)
#define TRUNK_OUT_BYTES (64 << 10) // sealed at once
#define TRUNK_PROVING   4          // of one member; one more ends the oldest

enum trunk_state {
	TRUNK_RESOLVE, // the name of its address
	TRUNK_CONNECT, // connect, TLS
	TRUNK_ANSWER,  // of the peer, to the first flight
	TRUNK_PROOF,   // accepted, without a record yet: its flight may be a recorded one
	TRUNK_UP,
};

TAILQ_HEAD(trunk_calls, wrk_trunk_call);
TAILQ_HEAD(trunk_list, wrk_trunk);

struct trunk_member {
	struct wrk_trunks *trunks;
	char name[SP_FLEET_NAME_MAX + 1];
	uint64_t home_id;
	uint8_t public_key[32];
	struct sp_fleet_carrier *carriers;
	size_t n_carriers, next; // next: to be dialled
	struct wrk_trunk *dialled, *accepted;
	struct trunk_list proving; // accepted and not proved, the oldest first
	uint32_t n_proving;
	struct trunk_calls calls; // that wait for a trunk
	uint32_t backoff_ms;
	uint64_t retry_us;   // no dial before that
	enum sp_reason last; // of the dial that failed
	bool kept;           // while members change
};

struct trunk_dial {                // a copy of what is dialled
	struct sp_carrier_dial to; // with the TLS context, which is the trunk's
	char server_name[SP_NAME_MAX + 1];
	uint16_t port;
	struct sp_hs_client hs;
};

struct wrk_trunk {
	struct trunk_member *member; // NULL: it ended
	struct wrk_trunks *trunks;
	enum trunk_state state;
	bool dialled, was_up, has_event, can_read, can_write, want_output;
	struct sp_carrier *carrier;
	struct sp_tls *tls; // dialled on tls
	struct event ev;
	struct sp_deferred work, reap;
	struct sp_timer timer;
	struct trunk_dial *dial;   // until the answer
	struct wrk_lookup *lookup; // RESOLVE
	struct sp_record_tx tx;
	struct sp_record_rx rx;
	struct wrk_mux *mux;  // UP
	uint8_t *rbuf, *wbuf; // an incomplete record; what the socket did not take
	uint32_t rlen, woff, wlen;
	uint32_t idle_ms;
	struct sp_carrier_rate rate;
	uint64_t deadline_us;                 // until UP
	uint64_t heard_us, asked_us, used_us; // asked: a PING that is unanswered, or 0
	const char *error;                    // static; ""
	enum sp_reason reason;          // to end with, at the next work; NONE: it lives
	TAILQ_ENTRY(wrk_trunk) proving; // PROOF
};

struct wrk_trunks {
	struct wrk_trunks_options opt;
	struct wrk_trunks_counters n;
	struct wrk_mux_pool pool;
	struct trunk_member **members; // by home id
	size_t n_members;
	struct sp_ratelimit log;
	uint8_t in[TRUNK_IN_BYTES];
	uint8_t out[TRUNK_OUT_BYTES + SP_RECORD_MAX];
};

// trunk_link.c
int trunk_dial(struct trunk_member *m, const struct sp_fleet_carrier *c,
	       struct wrk_trunk **ret) SP_MUST_CHECK;
// Takes the carrier in every case. 0: it waits for its proof; -ENOMEM.
int trunk_accept(struct trunk_member *m, struct sp_carrier *c,
		 const struct sp_hs_keys *keys, const uint8_t *answer,
		 size_t len) SP_MUST_CHECK;
// Ends it now: says CLOSE if it can, resets its pipes, leaves its member. trunk_went is
// called; memory goes at the end of the turn.
void trunk_end(struct wrk_trunk *k, enum sp_reason why);

// trunk.c
void trunk_came_up(struct wrk_trunk *k);
// A first record opened: the dialler has the keys, and lost the trunk it dialled before.
void trunk_proved(struct wrk_trunk *k);
void trunk_went(struct wrk_trunk *k, enum sp_reason why);
uint32_t trunk_idle_ms(const struct wrk_trunk *k); // without carriers it lives so long

#endif
