// Applications' TCP connections after the proxy's request was read: each is one stream.
// Bytes go from the socket right into the engine's replay memory and from the engine
// right into the socket; the engine's credit is the only back-pressure. Half-close goes
// both ways; a stream that is reset becomes a RST. Not here: what was asked for and in
// which protocol (client/proxy.h).
//
//   connecting --- the exit reached the destination ---> open ---> closed
//   connecting --- its exit is given up, or cannot take it ---> connecting on another
//   connecting --- refused, or connect_timeout_ms ---> answered with the reason, closed
//   open ------ its exit is given up, and nothing came back on one TLS ClientHello, or it
//               is lost before a byte went either way ---> connecting on another
// The application sees nothing of the last: what it wrote is written again.
#ifndef CLI_APP_STREAM_H
#define CLI_APP_STREAM_H

#include "client/linger.h"
#include "client/uplink.h"
#include "lib/addr.h"
#include "lib/loop.h"
#include "lib/session.h"

#define CLI_ANSWER_MAX 512

// How a proxy protocol answers.
struct cli_answers {
	// The stream stands; `bound` is the exit's address. Length written to `buf`.
	size_t (*ok)(const struct sp_target *bound, uint8_t buf[CLI_ANSWER_MAX]);
	size_t (*failed)(enum sp_reason reason, uint8_t buf[CLI_ANSWER_MAX]);
};

struct cli_streams;
struct cli_streams_counters {
	uint64_t opened, reset;
	uint64_t failed[SP_REASON__LAST + 1]; // not opened, by reason
	uint64_t broken[SP_REASON__LAST + 1]; // open, and reset, by reason
	uint64_t moved;                       // opened anew on another exit
	uint64_t redone_unanswered;           // of these: that were not open yet
	uint64_t redone_hello, redone_idle;   // or were, but untouched
	uint64_t redo_failed;                 // of these: the other exit could not
	uint64_t not_kept; // hellos that could not be redone, for want of memory
	uint32_t connecting, open;
};

struct cli_streams_options {
	struct sp_loop *loop;
	struct cli_linger *linger;
	uint32_t connect_timeout_ms;
	void (*closed)(void *ctx); // one is less; may be NULL
	void *ctx;
};
// 0 and *ret; -ENOMEM.
int cli_streams_new(const struct cli_streams_options *opt,
		    struct cli_streams **ret) SP_MUST_CHECK;
void cli_streams_free(struct cli_streams *t); // resets what is left; NULL is fine
// Before anything else, once: where streams are opened.
void cli_streams_set_uplink(struct cli_streams *t, struct cli_uplink *u);
// Sets the stream_* of the engine's calls.
void cli_streams_set_ops(struct sp_session_ops *ops);

// Opens a stream to `target` for the connection `fd`, which becomes the callee's in every
// case; errors are answered there.
void cli_streams_add(struct cli_streams *t, int fd, const struct sp_target *target,
		     const struct cli_answers *answers);
// Streams that are not open yet, or untouched (client/untouched.h), leave exits that are
// given up, or fail if no exit serves us (cli_uplink_ops.rehome).
void cli_streams_rehome(struct cli_streams *t);
// Ends every connection; the exits are told.
void cli_streams_reset_all(struct cli_streams *t);
const struct cli_streams_counters *cli_streams_counters(const struct cli_streams *t);

#endif
