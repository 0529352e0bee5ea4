// One probe: a carrier, a session and a stream of its own, up a ladder of rungs, each
// timed; it ends at the top or names the rung it fell from. Uses the real protocol and
// nothing of a running client. Not here: printing, which exits.
#ifndef CLI_PROBE_H
#define CLI_PROBE_H

#include "client/exits.h"
#include "client/uplink.h"
#include "lib/loop.h"

enum cli_rung {
	CLI_RUNG_RESOLVE,   // the exit's name
	CLI_RUNG_CONNECT,   // TCP
	CLI_RUNG_CARRIER,   // TLS
	CLI_RUNG_HANDSHAKE, // the exit's answer to the first flight is authentic
	CLI_RUNG_SESSION,   // it serves this device
	CLI_RUNG_STREAM,    // it reached the target
	CLI_RUNG_HTTP,      // which answered as expected
	CLI_RUNGS,
};
const char *cli_rung_word(enum cli_rung rung); // "resolve" ...

struct cli_probe_options {
	const struct cli_exit *exit;
	unsigned carrier; // which of the exit's
	const struct cli_uplink_identity *identity;
	const struct sp_target *target; // NULL: no stream
	const char *path;               // of the HTTP request
	unsigned expect;                // HTTP status; 0: any from 200 to 399
	uint32_t timeout_ms;            // of each rung
};

struct cli_probe_result {
	enum cli_rung reached;            // rungs below this were climbed
	enum cli_rung top;                // where the ladder ends (one above the last)
	double ms[CLI_RUNGS];             // of each rung climbed
	enum sp_reason reason;            // why it fell; NONE: it did not
	char detail[160];                 // and in words, or ""
	unsigned http_status;             // 0: none came
	char address[SP_TARGET_TEXT_MAX]; // of the exit
	char bound[SP_TARGET_TEXT_MAX];   // the exit's address towards the target
	int64_t skew_ms;                  // the exit's clock minus ours
};

// Blocking: runs a loop of its own. 0: *ret holds, whatever it found; -ENOMEM.
int cli_probe_run(const struct cli_probe_options *opt,
		  struct cli_probe_result *ret) SP_MUST_CHECK;

#endif
