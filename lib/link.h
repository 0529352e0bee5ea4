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
// No callback frees: after `down` the link goes at the end of the loop turn.
#ifndef SP_LINK_H
#define SP_LINK_H

#include "lib/carrier.h"
#include "lib/handshake.h"
#include "lib/loop.h"
#include "lib/session.h"

struct sp_link;

// Per process: buffers, keys, limits and counters that all links share.
struct sp_link_env;
struct sp_link_counters {
	uint64_t opened, established, closed;
	uint64_t bytes_rx, bytes_tx; // on the carrier
	uint64_t records_rx, records_tx;
	uint64_t strangers[128]; // worker: by enum sp_reason
	uint64_t ended[128];     // by enum sp_reason
	uint32_t half_open;      // not established yet
};

struct sp_link_env_options {
	struct sp_loop *loop;
	uint32_t max_half_open; // worker: beyond it the oldest half-open one is closed
	uint32_t handshake_ms;  // first flight must be whole by then (10 s)
	const struct sp_hs_worker_keys *worker_keys; // worker only; outlives the env
	struct sp_replay *replay;                    // worker only
	struct sp_budget *budget;                    // worker only: handshakes per source
};
int sp_link_env_new(const struct sp_link_env_options *opt,
		    struct sp_link_env **ret) SP_MUST_CHECK;
void sp_link_env_free(struct sp_link_env *env); // closes every link first
const struct sp_link_counters *sp_link_env_counters(const struct sp_link_env *env);

// ---- client ----

struct sp_link_client_ops {
	// The handshake is done and the engine's `attached` was called: the link is in
	// use.
	void (*up)(void *ctx, struct sp_link *l);
	// Exactly once, last call. reason TICKET: go on with a first contact.
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
	uint32_t timeout_ms;       // connect and handshake together
	struct sp_session *session;
	unsigned slot;
	const struct sp_link_client_ops *ops;
	void *ctx;
};
// Starts; everything else comes by ops. What `d` points to is copied. 0 and *ret, or an
// error (then no callback comes).
int sp_link_dial(struct sp_link_env *env, const struct sp_link_dial *d,
		 struct sp_link **ret) SP_MUST_CHECK;
// For the engine's `ticket` op: the secret that goes with ticket number `index`. 32
// bytes.
void sp_link_ticket_psk(const struct sp_link *l, unsigned index, uint8_t *ret_psk);
int64_t sp_link_clock_skew_ms(const struct sp_link *l); // worker's clock minus ours
uint64_t sp_link_boot_id(const struct sp_link *l);
uint64_t sp_link_home_id(const struct sp_link *l);

// ---- worker ----

struct sp_link_worker_ops {
	// An authenticated client. Before message 2 is sent: NONE, or why it is refused.
	// `pass` is NULL for a resume.
	enum sp_reason (*admit)(void *ctx, struct sp_link *l,
				const struct sp_hs_accept *who);
	// ATTACH arrived. Finds or makes the session; NONE and *ret_session, *ret_fresh;
	// or the reason of the CLOSE. The link then attaches the session and adds tickets
	// made by `make_ticket`.
	enum sp_reason (*attach)(void *ctx, struct sp_link *l,
				 const struct sp_hs_accept *who,
				 const struct sp_attach *at,
				 struct sp_session **ret_session, bool *ret_fresh);
	// Seals ticket for `session` with this secret. Length, or a negative error.
	int (*make_ticket)(void *ctx, struct sp_session *session, const uint8_t *psk,
			   uint8_t *buf, size_t cap, uint32_t *ret_lifetime_s);
	// Not one of ours. The carrier, with the `len` bytes read so far, becomes the
	// callee's (cover site), or with tcp: NULL carrier, the link itself discards.
	void (*stranger)(void *ctx, struct sp_carrier *c, enum sp_reason why,
			 const uint8_t *buf, size_t len);
	// tls only: nothing has come for a second; connect the cover site now. Optional.
	void (*down)(void *ctx, struct sp_link *l, enum sp_reason reason);
};
// Takes over the accepted descriptor in every case.
int sp_link_accept(struct sp_link_env *env, struct sp_carrier *c,
		   const struct sp_link_worker_ops *ops, void *ctx,
		   struct sp_link **ret) SP_MUST_CHECK;

// ---- both ----

// Ends the link: CLOSE(reason) if established, then an orderly close. `down` is called.
void sp_link_close(struct sp_link *l, enum sp_reason reason);
struct sp_session *sp_link_session(const struct sp_link *l); // NULL before ATTACH
unsigned sp_link_slot(const struct sp_link *l);
void *sp_link_ctx(const struct sp_link *l);
const struct sp_carrier *sp_link_carrier(const struct sp_link *l);

#endif
