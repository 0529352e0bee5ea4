// Many relayed carriers over one trunk: frames in and out, a pipe with an id and a window
// of its own for each carrier, taken in turn, so that one that nobody reads delays no
// other. Pure: no sockets; the clock is a pointer. What is in a pipe is opaque
// (PROTOCOL.md section 12). Not here: records and links (worker/trunk.h), who relays what
// (worker/relay.h, worker/relayed.h).
//
// A pipe is a carrier's worth of bytes each way. What its peer may send is granted as an
// absolute offset, and there is memory for all that is granted: it is taken from a pool
// that all trunks share. A window begins at WRK_MUX_WINDOW_MIN, doubles when a whole one
// was read within 200 ms and its reader waited for more, and halves when a whole one was
// read and half of it stood there all the time.
#ifndef WRK_TRUNK_MUX_H
#define WRK_TRUNK_MUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/err.h"
#include "lib/reason.h"

#define WRK_MUX_WINDOW_MIN 32768
#define WRK_MUX_SEND_MAX   32768 // a pipe's bytes that wait to be sent
#define WRK_MUX_FIRST_MAX  8192  // what an OPEN may bring; needs no credit
#define WRK_MUX_HOPS       1     // trunks that a carrier may cross
#define WRK_MUX_REFUSALS   256   // that wait to be sent; one more ends the trunk

struct wrk_mux;
struct wrk_pipe;

// Shared by the trunks of a process: bytes.
struct wrk_mux_pool {
	uint64_t limit, used;
};

// Where a client comes from, as far as its home's budgets tell them apart.
struct wrk_mux_source {
	uint8_t family; // 0 unknown, 4, 6
	uint8_t net[8]; // IPv4 address and zeros; the /64 of IPv6
};

struct wrk_mux_counters {
	uint64_t opened, accepted;             // by this end; by the peer
	uint64_t refused[SP_REASON__LAST + 1]; // of the peer's
	uint64_t closed[SP_REASON__LAST + 1];  // pipes
	uint64_t bytes_rx, bytes_tx;           // of pipes
};

struct wrk_mux_ops {
	// The peer opens a pipe, whose first bytes can be read. NONE: it is wanted, and
	// wrk_pipe_attach was called; else why not: the pipe is gone then.
	enum sp_reason (*opened)(void *ctx, struct wrk_pipe *p,
				 const struct wrk_mux_source *source);
	// There is something to send: only note it.
	void (*wake)(void *ctx);
};
struct wrk_mux_options {
	bool dialled; // this end made the trunk: its ids are odd
	const uint64_t *clock_us;
	struct wrk_mux_pool *pool;
	struct wrk_mux_counters *counters; // shared
	uint32_t max_pipes;                // both ends' together
	uint32_t window_max;               // bytes, >= WRK_MUX_WINDOW_MIN
	uint32_t opens_per_second;         // of the peer; five seconds' worth of burst
	const struct wrk_mux_ops *ops;
	void *ctx;
};
// 0 and *ret; -ENOMEM.
int wrk_mux_new(const struct wrk_mux_options *opt, struct wrk_mux **ret) SP_MUST_CHECK;
// Pipes that their owners have not closed are reset (their `ready` is called) and live on
// without it. NULL is fine.
void wrk_mux_free(struct wrk_mux *m);

// The plaintext of one record. 0, and *ret_rekey: the next one has another key;
// SP_E_CLOSED: the peer ends the trunk; SP_E_PROTOCOL: it broke the rules, and
// wrk_mux_error says which. After an error the trunk must end.
int wrk_mux_input(struct wrk_mux *m, const uint8_t *plain, size_t len,
		  bool *ret_rekey) SP_MUST_CHECK;
// Frames for one record of at most `cap` bytes (>= 9000). Their length; 0: nothing.
size_t wrk_mux_output(struct wrk_mux *m, uint8_t *buf, size_t cap);
void wrk_mux_ping(struct wrk_mux *m);               // the next output has a PING
const char *wrk_mux_error(const struct wrk_mux *m); // static; "" : none
uint32_t wrk_mux_pipes(const struct wrk_mux *m);    // that live

// ---- pipes ----

// `ready`: reading or writing may go on, or it was closed. Only note it.
// Opens one; `first` (at most WRK_MUX_FIRST_MAX bytes) is copied. 0 and *ret; SP_E_LIMIT:
// too many, or `len`; -ENOMEM: no memory in the pool either.
int wrk_pipe_open(struct wrk_mux *m, const struct wrk_mux_source *source,
		  const uint8_t *first, size_t len, struct wrk_pipe **ret) SP_MUST_CHECK;
void wrk_pipe_attach(struct wrk_pipe *p, void (*ready)(void *ctx), void *ctx);
// Bytes (> 0); 0: the peer ended its direction; -EAGAIN; -ECONNRESET: it is closed
// (wrk_pipe_reason), or the trunk is gone.
ssize_t wrk_pipe_read(struct wrk_pipe *p, uint8_t *buf, size_t cap) SP_MUST_CHECK;
// Bytes taken (> 0); -EAGAIN; -EPIPE after wrk_pipe_end; -ECONNRESET. len > 0.
ssize_t wrk_pipe_write(struct wrk_pipe *p, const uint8_t *buf, size_t len) SP_MUST_CHECK;
// This end's direction ends after what was written. 0; -ECONNRESET.
int wrk_pipe_end(struct wrk_pipe *p) SP_MUST_CHECK;
// Gives the pipe back: its owner's last call. If both directions have ended what was
// written is still sent; else the peer hears `reason`, and what was written is dropped.
void wrk_pipe_close(struct wrk_pipe *p, enum sp_reason reason);
// Why the peer closed it; CARRIER_RESET: the trunk is gone; NO_MEMORY: this end had none
// for its bytes; NONE: it is open.
enum sp_reason wrk_pipe_reason(const struct wrk_pipe *p);
uint64_t wrk_pipe_received(const struct wrk_pipe *p); // bytes from the peer, in all

#endif
