// Probes: a carrier, an attach and streams of their own, up a ladder of rungs, each
// timed; one ends at the top or names the rung it fell from. The real protocol, many at
// once in one loop, each with its own deadline. Not here: when to probe, what HTTP or TLS
// through a stream has to say (the program's `stream`), what follows from it.
#ifndef SP_PROBE_H
#define SP_PROBE_H

#include "lib/carrier.h"
#include "lib/fleet.h"
#include "lib/loop.h"
#include "lib/reason.h"

enum sp_rung {
	SP_RUNG_RESOLVE,   // the worker's name
	SP_RUNG_CONNECT,   // TCP
	SP_RUNG_CARRIER,   // TLS
	SP_RUNG_HANDSHAKE, // its answer to the first flight is authentic
	SP_RUNG_SESSION,   // it serves this device
	SP_RUNG_STREAM,    // it reached the target
	SP_RUNG_HTTP,      // which answered as expected
	SP_RUNG_EGRESS,    // from the address expected
	SP_RUNG_EXTERNAL,  // and something else, outside, proved who it is by TLS
	SP_RUNGS,
};
const char *sp_rung_word(enum sp_rung rung); // "resolve" ...; SP_RUNGS: "top"

struct sp_probe;
struct sp_probe_result {
	enum sp_rung reached;   // rungs below this were climbed
	enum sp_rung top;       // where the ladder ends (one above the last)
	uint32_t us[SP_RUNGS];  // of each rung climbed
	enum sp_reason reason;  // why it fell; NONE: it did not
	char detail[160];       // and in words, or ""
	unsigned http_status;   // of the built-in request; 0: none came
	struct sp_target exit;  // address of the worker; kind 0: not resolved
	struct sp_target bound; // its address towards the target; kind 0: not known
	int64_t skew_ms;        // its clock minus ours
	uint64_t boot_id;       // of the worker; 0: no answer came
};

// What probes of one loop share.
struct sp_probe_env;
struct sp_probe_env_options {
	struct sp_loop *loop;
	uint32_t max_seats; // sessions
};
int sp_probe_env_new(const struct sp_probe_env_options *opt,
		     struct sp_probe_env **ret) SP_MUST_CHECK; // 0; -ENOMEM
// Ends probes without a word; seats must be gone. NULL is fine.
void sp_probe_env_free(struct sp_probe_env *env);

// A seat: the session that the probes of one worker and carrier have in turn, so that
// each finds it there again and workers do not fill up with sessions of probes.
struct sp_probe_seat;
int sp_probe_seat_new(struct sp_probe_env *env,
		      struct sp_probe_seat **ret) SP_MUST_CHECK; // 0; -ENOMEM
void sp_probe_seat_free(struct sp_probe_seat *seat); // its probe ends. NULL is fine

struct sp_probe_who { // which device probes; outlives the probe
	uint8_t device_secret[32];
	uint8_t device_public[32];
	uint8_t pass[SP_PASS_BLOB_MAX]; // signed blob
	size_t pass_len;
};

struct sp_probe_options {
	const struct sp_fleet_carrier *carrier; // copied
	struct sp_tls *tls;                     // of a tls carrier; outlives the probe
	const uint8_t *worker_public;           // 32 bytes; copied
	const struct sp_probe_who *who;
	const struct sp_target *target; // NULL: no stream; copied
	enum sp_rung top;               // not climbed any more; with no target: STREAM
	const char *path;               // built-in request: outlives the probe
	unsigned expect;                // HTTP status; 0: any from 200 to 399
	uint32_t rung_ms;               // for each rung; 0: only the deadline
	uint32_t deadline_ms;           // for all; 0: only the rungs
	bool fine; // tell handshake from session to 0.5 ms, at the cost of polls
	// Instead of the built-in request: the stream is open; who connects to the
	// abstract Unix socket of this name, once and from this process, has it. (libcurl
	// does that; a connected socket it does not take.) Goes on with sp_probe_climb,
	// _fall and _open.
	void (*stream)(void *ctx, struct sp_probe *p, const char *name);
	// From the loop, exactly once; the probe is no more.
	void (*done)(void *ctx, const struct sp_probe_result *res);
	void *ctx;
};
// 0 and *ret; -EBUSY: the seat has a probe that is not done; -ENOMEM, SP_E_LIMIT.
int sp_probe_start(struct sp_probe_seat *seat, const struct sp_probe_options *opt,
		   struct sp_probe **ret) SP_MUST_CHECK;
// `done` will not be called. Not after it was.
void sp_probe_cancel(struct sp_probe *p);

// For whoever was given a stream. All do nothing once the probe is over.
enum sp_rung sp_probe_rung(const struct sp_probe *p); // to be climbed now
void sp_probe_climb(struct sp_probe *p);              // it was; at the top: the end
void sp_probe_fall(struct sp_probe *p, enum sp_reason reason, const char *detail);
// Another stream, for the rung that is to be climbed now; `stream` is called again.
void sp_probe_open(struct sp_probe *p, const struct sp_target *target);

// Blocking, with a loop of its own. `done`, `stream` and `ctx` are not looked at. 0: *ret
// holds, whatever it found; -ENOMEM.
int sp_probe_run(const struct sp_probe_options *opt,
		 struct sp_probe_result *ret) SP_MUST_CHECK;

#endif
