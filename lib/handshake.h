// The first flight and its answer (PROTOCOL.md section 4), both ends. Pure: bytes and a
// time in, bytes and a verdict out; no I/O, no malloc but in signature checks; randomness
// from libsodium. Not here: reading from carriers, cover site, sessions, whom to admit.
//
// Padding. A client's flight is lengthened by a uniformly random 0..767 bytes, an answer
// by 0..511, so that neither has a length of its own.
#ifndef SP_HANDSHAKE_H
#define SP_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lib/aead.h"
#include "lib/err.h"
#include "lib/noise.h"
#include "lib/pass.h"
#include "lib/reason.h"
#include "lib/signed.h"
#include "lib/ticket.h"

#define SP_HS_VERSION_MIN 1 // what this program speaks
#define SP_HS_VERSION_MAX 1
#define SP_HS_FLIGHT_MAX  8192  // client's first flight, whole
#define SP_HS_ANSWER_MAX  1024  // room for a worker's answer of our own making
#define SP_HS_FRAMES_MAX  6144  // frames in a resume flight
#define SP_HS_TICKET_MAX  512   // a ticket, opaque to the client
#define SP_HS_TICKETS     2     // tickets of one carrier
#define SP_HS_CLOCK_MS    90000 // how far a first contact's clock may be off

enum sp_hs_kind { SP_HS_FIRST_CONTACT = 0, SP_HS_RESUME = 1, SP_HS_TRUNK = 2 };

// What both ends have after the handshake. Wipe after use.
struct sp_hs_keys {
	uint8_t tx_key[32]; // of this end
	uint8_t rx_key[32];
	uint8_t ticket_psk[SP_HS_TICKETS][32]; // psk_i of the i-th ticket
	enum sp_suite suite;
	uint8_t version;
};
void sp_hs_keys_wipe(struct sp_hs_keys *keys);

// ---- client ----

struct sp_hs_client { // between flight and answer; wipe with _done
	struct sp_noise noise;
	unsigned suites;
	uint8_t kind;
};

struct sp_hs_client_options {
	const uint8_t *worker_public; // 32 bytes
	unsigned suites;              // sp_aead_suites()
	// First contact (ticket NULL):
	const uint8_t *device_secret; // 32 bytes
	const uint8_t *device_public; // 32 bytes
	const uint8_t *pass;          // signed blob
	size_t pass_len;
	uint64_t now_ms; // Unix time
	// A worker dials another one: as a first contact, without a pass; device_secret
	// and device_public are its static key.
	bool trunk;
	// Resume (ticket set):
	const uint8_t *ticket;
	size_t ticket_len;
	const uint8_t *ticket_psk; // 32 bytes
	const uint8_t *frames;     // begins with ATTACH
	size_t frames_len;         // <= SP_HS_FRAMES_MAX
};
// Writes the first flight to `buf` (cap >= SP_HS_FLIGHT_MAX gives room for all padding).
// Its length; SP_E_LIMIT: does not fit in `cap` or in a flight; SP_E_CRYPTO; -EINVAL. On
// an error *c needs no _done.
int sp_hs_client_start(struct sp_hs_client *c, const struct sp_hs_client_options *opt,
		       uint8_t *buf, size_t cap) SP_MUST_CHECK;

struct sp_hs_result {
	struct sp_hs_keys keys; // only if refuse is NONE
	enum sp_reason refuse;  // NONE: go on; TICKET: go on with a first contact (status
				// 1); else why the worker refuses this client
	bool entry; // status 2: an entry says so, which cannot relay to the home
	uint64_t boot_id, home_id; // not for TICKET, not of an entry
	uint64_t time_ms;          // the worker's clock, likewise
};
// Reads the answer at `in`. Bytes used (> 0) and *ret; SP_E_AGAIN: more is needed;
// SP_E_MALFORMED, SP_E_AUTH, SP_E_VERSION, SP_E_CRYPTO: not an answer of this worker.
int sp_hs_client_finish(struct sp_hs_client *c, const uint8_t *in, size_t len,
			struct sp_hs_result *ret) SP_MUST_CHECK;
void sp_hs_client_done(struct sp_hs_client *c);

// ---- worker ----

struct sp_replay;
struct sp_budget;

// Fill everything above the line, then call _init. Wipe with _done.
struct sp_hs_worker_keys {
	uint8_t static_secret[32];
	uint8_t route_key[32];
	uint8_t boot_key[32];
	uint64_t home_id;
	uint64_t boot_id;
	unsigned suites;               // sp_aead_suites(); must have CHACHA20POLY1305
	uint32_t ticket_lifetime_s;    // from its issue
	struct sp_signed_keys trusted; // who signs passes
	// made by _init
	uint8_t static_public[32];
	uint8_t mac1_key[32];
};
int sp_hs_worker_keys_init(struct sp_hs_worker_keys *keys) SP_MUST_CHECK; // 0; -EINVAL
void sp_hs_worker_keys_done(struct sp_hs_worker_keys *keys);

// Who is there; small, kept as long as the carrier.
struct sp_hs_accept {
	enum sp_hs_kind kind;
	uint8_t device[32]; // public key: of the device, proven (first contact) or as the
			    // ticket says; of the worker, proven (trunk)
	uint8_t session[16];     // resume only: the ticket's session; ATTACH must name it
	uint64_t pass_expires_s; // of the pass, or as the ticket says
	uint64_t ticket_issued_s; // resume only
	struct sp_pass pass;      // first contact only
};

enum sp_hs_verdict {
	SP_HS_STRANGER,    // never answer it; `why` says what was wrong
	SP_HS_TICKET_GONE, // send sp_hs_worker_ticket_gone, close
	SP_HS_RELAY,       // a resume at another home, that of w->hint; nothing of the
			   // flight but mac1 and the hint was judged
	SP_HS_ACCEPTED,    // authentic; `refuse` may already say no; send
			   // sp_hs_worker_answer
};

// One judgement: large, used from _judge to _answer, then _done; then free for the next.
struct sp_hs_worker {
	enum sp_hs_verdict verdict;
	enum sp_reason why;    // STRANGER: MAC, MALFORMED, VERSION, HANDSHAKE, REPLAY,
			       // CLOCK, PASS_INVALID, DEVICE, TICKET, BUDGET, MEMBER
	enum sp_reason refuse; // ACCEPTED: NONE, PASS_EXPIRED or PASS_EARLY
	size_t consumed;       // bytes of the flight; what follows is not the flight's
	struct sp_ticket_hint hint; // resume: whose home it is
	const uint8_t *pass_blob;   // first contact; points into this struct
	size_t pass_blob_len;
	const uint8_t *frames; // resume; points into this struct
	size_t frames_len;
	// private
	struct sp_noise noise;
	enum sp_suite suite;
	uint8_t version;
	uint8_t plain[SP_HS_FLIGHT_MAX];
};

struct sp_hs_judge {
	const struct sp_hs_worker_keys *keys;
	struct sp_replay *replay;      // first contacts are entered here
	struct sp_budget *budget;      // or NULL; asked after mac1 and before any DH
	const struct sockaddr *source; // for the budget
	uint64_t now_ms;               // Unix time
	uint64_t mono_ms;              // monotonic, for the budget
	// Whether this static key (32 bytes) is a worker's of the fleet, which may dial a
	// trunk; NULL: no key is.
	bool (*is_member)(void *ctx, const uint8_t *key);
	void *member_ctx;
};
// Judges the `len` bytes read so far; `buf` stays as it is. 0: w->verdict holds, and for
// ACCEPTED *ret_who; SP_E_AGAIN: a flight that is not whole yet (on `tls` that is a
// stranger's). Order: length, mac1 (constant time), version, budget, replay, DH, clock,
// signature of the pass, device, replay set, time of the pass.
int sp_hs_worker_judge(struct sp_hs_worker *w, const struct sp_hs_judge *in,
		       const uint8_t *buf, size_t len,
		       struct sp_hs_accept *ret_who) SP_MUST_CHECK;
// The answer to an ACCEPTED flight; w->refuse is sent if `refuse` is NONE. Its length in
// `buf` (cap >= SP_HS_ANSWER_MAX); if none refuses, *ret_keys are the carrier's.
// SP_E_LIMIT, SP_E_CRYPTO.
int sp_hs_worker_answer(struct sp_hs_worker *w, const struct sp_hs_worker_keys *keys,
			enum sp_reason refuse, uint64_t now_ms, uint8_t *buf, size_t cap,
			struct sp_hs_keys *ret_keys) SP_MUST_CHECK;
// The answer for TICKET_GONE, and instead of _answer for a resume whose session is
// unknown. Its length; SP_E_LIMIT.
int sp_hs_worker_ticket_gone(uint8_t *buf, size_t cap) SP_MUST_CHECK;
// Makes mac1 of a whole flight (`len` bytes) anew for the worker of this public key: for
// an entry that relays it.
void sp_hs_flight_readdress(const uint8_t *worker_public, uint8_t *flight, size_t len);
// The answer of an entry to a resume at another home that it cannot relay to: why. Says
// nothing of the ticket, which holds. Its length; SP_E_LIMIT.
int sp_hs_entry_refuses(enum sp_reason why, uint8_t *buf, size_t cap) SP_MUST_CHECK;
void sp_hs_worker_done(struct sp_hs_worker *w); // wipes; a zeroed struct is fine
void sp_hs_accept_wipe(struct sp_hs_accept *who);

#endif
