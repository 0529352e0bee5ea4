// A link: one carrier connection from connect or accept to its end: the byte pipe
// (lib/carrier.h), the first flight (lib/handshake.h), the records (lib/record.h) and the
// place in a session (lib/session.h). Not here: which exit to dial, which session an
// ATTACH belongs to, the cover site. Used by worker, client and (later) trunks and
// probes.
//
// One read gives many records, each opened in place and handed to the session; output is
// sealed straight into the send buffer. Buffers are per process, a link holds one of its
// own only while a record is incomplete or the socket is full.
//
// Callbacks. `admit`, `attach`, `make_ticket`, `silent` and `up` come while bytes of the
// link are being read; `down` and `stranger` come from the loop alone, never from inside
// a call of the program, so a program may close links from anywhere. After `down` the
// link must not be used; what is left to send, the shutdown and the drain go on without
// it.
#ifndef SP_LINK_H
#define SP_LINK_H

#include "lib/carrier.h"
#include "lib/handshake.h"
#include "lib/loop.h"
#include "lib/session.h"
#include "lib/session_clock.h"

struct sp_link;

// Per process: buffers, keys, limits and counters that all links share.
struct sp_link_env;
struct sp_link_counters {
	uint64_t opened, established, closed;
	uint64_t bytes_rx, bytes_tx; // on the carrier
	uint64_t records_rx, records_tx;
	uint64_t strangers[SP_REASON__LAST + 1]; // worker
	uint64_t ended[SP_REASON__LAST + 1];     // every link, once
	uint32_t half_open;                      // not established yet
	uint32_t live;                           // established, `down` not called yet
	uint32_t lingering;                      // ended, on their way out
};

struct sp_link_env_options {
	struct sp_loop *loop;
	struct sp_session_clock *clock; // touched for every session that links serve
	uint32_t max_half_open; // worker: beyond it the oldest half-open one is closed;
				// of as many that have ended, the first
	uint32_t handshake_ms; // worker: tcp: a first flight must be whole by then; both:
			       // from there to ATTACH (10 s)
	const struct sp_hs_worker_keys *worker_keys; // worker only; outlives the env
	struct sp_replay *replay;                    // worker only
	struct sp_budget *budget;                    // worker only: handshakes per source
	// Worker only: whose trunks are let in; NULL: nobody's (lib/handshake.h).
	bool (*is_member)(void *ctx, const uint8_t *key);
	void *member_ctx;
};
// 0 and *ret; -ENOMEM.
int sp_link_env_new(const struct sp_link_env_options *opt,
		    struct sp_link_env **ret) SP_MUST_CHECK;
// Closes every link first (SHUTDOWN, `down` is called). NULL is fine.
void sp_link_env_free(struct sp_link_env *env);
const struct sp_link_counters *sp_link_env_counters(const struct sp_link_env *env);

// ---- client ----

struct sp_link_client_ops {
	// The handshake is done and the engine's `attached` was called: the link is in
	// use.
	void (*up)(void *ctx, struct sp_link *l);
	// Exactly once, last call; the session is detached already. Reason TICKET: go on
	// with a first contact.
	void (*down)(void *ctx, struct sp_link *l, enum sp_reason reason);
};

struct sp_link_dial {
	struct sp_carrier_dial carrier; // kind, address, TLS name and trust
	const uint8_t *worker_public;   // 32 bytes
	const uint8_t *device_secret;   // 32 bytes
	const uint8_t *device_public;   // 32 bytes
	const uint8_t *pass;            // signed blob, for a first contact
	size_t pass_len;
	const uint8_t *ticket; // or NULL: first contact
	size_t ticket_len;
	const uint8_t *ticket_psk; // 32 bytes
	int64_t clock_skew_ms; // added to our clock in a first contact; what an earlier
			       // link's sp_link_clock_skew_ms said
	uint32_t timeout_ms;   // from now until `up`
	struct sp_session *session;
	unsigned slot;
	uint8_t attach_flags; // SP_ATTACH_*
	const struct sp_link_client_ops *ops;
	void *ctx;
};
// Starts; everything else comes by ops. What `d` points to is copied, but not the
// carrier's TLS context. The session is attached when the first flight is sent (resume)
// or answered (first contact). 0 and *ret, or an error (then no callback comes): those
// of sp_carrier_connect; SP_E_LIMIT: ticket or pass too long; SP_E_CLOSED: the env is
// being freed.
int sp_link_dial(struct sp_link_env *env, const struct sp_link_dial *d,
		 struct sp_link **ret) SP_MUST_CHECK;
// For the engine's `ticket` op: the secret that goes with ticket number `index` (0, 1).
// 32 bytes. 0; -EINVAL: no such ticket.
int sp_link_ticket_psk(const struct sp_link *l, unsigned index,
		       uint8_t *ret_psk) SP_MUST_CHECK;
// What the answer said; zeros before it came.
int64_t sp_link_clock_skew_ms(const struct sp_link *l); // worker's clock minus ours
uint64_t sp_link_boot_id(const struct sp_link *l);
uint64_t sp_link_home_id(const struct sp_link *l);
// A ticket that was not used: its flight did not go out, or an entry said that it cannot
// pass it on. It is as good as before.
bool sp_link_ticket_holds(const struct sp_link *l);

// ---- worker ----

struct sp_link_worker_ops {
	// An authenticated client, also one whose pass does not hold at this time and who
	// is refused for it anyway. Before message 2 is sent: NONE, or why it is refused.
	// TICKET: the session of a resume is gone; the client goes on with a first
	// contact.
	enum sp_reason (*admit)(void *ctx, struct sp_link *l,
				const struct sp_hs_accept *who);
	// ATTACH arrived. Finds or makes the session; NONE and *ret_session, *ret_fresh;
	// or the reason of the CLOSE. The link then attaches the session (that may say
	// STALE_EPOCH: `down` comes with it) and adds tickets made by `make_ticket`.
	// NONE and *ret_session NULL, for a first contact only: somebody else is asked;
	// the link reads nothing more until sp_link_attach_again, which asks anew, or
	// until its time for ATTACH is over.
	enum sp_reason (*attach)(void *ctx, struct sp_link *l,
				 const struct sp_hs_accept *who,
				 const struct sp_attach *at,
				 struct sp_session **ret_session, bool *ret_fresh);
	// Seals a ticket for `session` with this secret (32 bytes). Length, or a negative
	// error: no ticket.
	int (*make_ticket)(void *ctx, struct sp_session *session, const uint8_t *psk,
			   uint8_t *buf, size_t cap, uint32_t *ret_lifetime_s);
	// Not one of ours; instead of `down`. On a tls port the carrier, with the `len`
	// bytes read so far, becomes the callee's (cover site); a carrier whose first
	// bytes were not TLS has kind TCP then, and none was read. Its TLS handshake may
	// not be done. `waiting` is what `silent` gave, the callee's again. On tcp (and
	// if this is NULL) the link reads and discards by itself; then `c` is NULL, and
	// this only tells.
	void (*stranger)(void *ctx, struct sp_carrier *c, enum sp_reason why,
			 const uint8_t *buf, size_t len, void *waiting);
	// tls, may be NULL: nothing whole has come for a second. Connect the cover site
	// now, so that its own timers run; returns a handle for it, or NULL. Once the
	// cover site sends or ends, call sp_link_estrange.
	void *(*silent)(void *ctx, struct sp_link *l);
	// The link has ended or is one of ours after all: that connection is not needed.
	void (*silent_over)(void *ctx, void *waiting);
	// May be NULL: a resume that belongs to another home, as its ticket says. The
	// carrier becomes the callee's, which relays the `len` bytes of the flight (valid
	// during the call) and what follows; instead of `down`. NULL: the client hears
	// that this entry cannot.
	void (*relay)(void *ctx, struct sp_carrier *c, uint64_t home_id,
		      const uint8_t *flight, size_t len);
	// May be NULL: another worker of the fleet, which has proven to hold the secret
	// of `member` (32 bytes), dialled a trunk. The carrier becomes the callee's,
	// which sends the answer (`len` bytes, valid during the call) and goes on in
	// records under `keys`, which it wipes nothing of; instead of `down`. NULL:
	// strangers.
	void (*trunk)(void *ctx, struct sp_carrier *c, const uint8_t *member,
		      const struct sp_hs_keys *keys, const uint8_t *answer, size_t len);
	// Exactly once, last call, for a link that was accepted, was not given away and
	// did not become a stranger's. The session (if any) is detached already;
	// sp_link_session still says which it was (also after STALE_EPOCH), NULL if it
	// superseded or freed the link.
	void (*down)(void *ctx, struct sp_link *l, enum sp_reason reason);
};
// The carrier becomes the link's in every case. 0 and *ret; -ENOMEM.
int sp_link_accept(struct sp_link_env *env, struct sp_carrier *c,
		   const struct sp_link_worker_ops *ops, void *ctx,
		   struct sp_link **ret) SP_MUST_CHECK;
// Calls `attach` again, later in this turn of the loop, if the link waits for it.
void sp_link_attach_again(struct sp_link *l);
// For the holder of a `silent` handle: makes the link a stranger's (`stranger` is called
// from the loop) unless it has been judged already.
void sp_link_estrange(struct sp_link *l);

// ---- both ----

// Ends the link: CLOSE(reason) if established, then an orderly close. `down` is called,
// later. Closing twice does nothing.
void sp_link_close(struct sp_link *l, enum sp_reason reason);
struct sp_session *sp_link_session(const struct sp_link *l); // NULL before ATTACH
unsigned sp_link_slot(const struct sp_link *l);
void *sp_link_ctx(const struct sp_link *l);
const struct sp_carrier *sp_link_carrier(const struct sp_link *l);

#endif
