// Asking the fleet's config endpoints for exits and pass: long polls over HTTP, one at a
// time, jittered; the next URL on failure. What comes is verified, written to the state
// folder (the last good config, from which the next start goes on when nobody answers),
// and only then taken. It goes to the endpoint directly, not through an exit: it is what
// tells of exits. Not in the path of any byte. Not here: what exits and passes mean
// (client/identity.h), dialling.
#ifndef CLI_POLL_H
#define CLI_POLL_H

#include "client/config.h"
#include "lib/fetch.h"
#include "lib/fleet.h"
#include "lib/loop.h"

#define CLI_POLL_WAIT_S       50    // how long an endpoint may hold an answer back
#define CLI_POLL_MARGIN_MS    10000 // and how much later it is given up
#define CLI_POLL_RETRY_MS     500   // after a failure; doubles to
#define CLI_POLL_RETRY_MAX_MS 30000

struct cli_poll;

struct cli_poll_options {
	struct sp_loop *loop;
	const struct cli_config *cfg;      // borrowed
	const struct sp_signed_keys *keys; // who may sign configs; borrowed
	const uint8_t *device_public;      // copied
	// A new config is in the state folder, or, since its disk did not take it, at
	// `path`, for as long as no other comes (else NULL). 0: taken; an error and
	// `why`: it was not, and counts as a failure.
	int (*fresh)(void *ctx, const char *path, char *why, size_t cap);
	void *ctx;
};

struct cli_poll_info {
	const char *endpoint; // asked last, or now
	bool asking;
	bool failed; // the last one did; `why` says why
	char why[256];
	uint64_t polls, not_modified, fresh, failures, refused;
	uint64_t good_ms; // of sp_loop_now_ms: when an endpoint last answered; 0: never
	uint64_t next_ms; // when it is asked again; 0: it is being asked
	int64_t skew_s;   // the endpoint's clock minus ours
};

// Begins to ask at once. 0 and *ret; -ENOMEM; SP_E_CONFIG: the token file, `why` names
// the key.
int cli_poll_new(const struct cli_poll_options *opt, struct cli_poll **ret, char *why,
		 size_t cap) SP_MUST_CHECK;
void cli_poll_free(struct cli_poll *p); // NULL is fine
void cli_poll_now(struct cli_poll *p);  // the network changed: no back-off
void cli_poll_info(const struct cli_poll *p, struct cli_poll_info *ret);

// Asks, in a loop of its own, until the first config is in the state folder: for a start
// without one. Each failure is logged. 0; or an error with a clause in `why`:
// SP_E_CONFIG; -EINTR: a signal; -errno.
int cli_poll_first(const struct cli_config *cfg, const struct sp_signed_keys *keys,
		   const uint8_t *device_public, char *why, size_t cap) SP_MUST_CHECK;
// Where the last good config lies: in the state folder, or cfg->last. Returns buf.
const char *cli_poll_path(const struct cli_config *cfg, char *buf, size_t cap);

#endif
