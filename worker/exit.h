// The exit: destination sockets of streams (exit_stream.c) and datagram flows
// (exit_flow.c) of all sessions of this worker, with what they share: counters, reading
// turns, idle lists, one sweep. Not here: sessions, carriers, the exit policy and DNS
// (worker/dial.h, worker/resolve.h).
//
// Nothing here has a timer of its own: one sweep every 20 ms looks at the heads of lists
// that are ordered by time.
#ifndef WRK_EXIT_H
#define WRK_EXIT_H

#include <stdint.h>
#include <sys/queue.h>

#include "lib/arena.h"
#include "lib/loop.h"
#include "lib/metrics.h"
#include "lib/session.h"
#include "lib/session_clock.h"
#include "worker/dial.h"

struct wrk_exit;

// Traffic of one tier; the only label that says anything about whose bytes they are.
struct wrk_tally {
	char tier[33];
	uint64_t bytes_to_client, bytes_from_client; // streams
	uint64_t dgrams_to_client, dgrams_from_client;
	uint64_t dgram_bytes_to_client, dgram_bytes_from_client;
};

// Bytes of one user, of streams and datagrams; may lie in shared memory
// (worker/counters.h).
struct wrk_usage {
	uint64_t up, down;
};

// A rate, kept by a bucket of a tenth of a second's bytes and at least 64 KiB.
struct wrk_pace {
	uint64_t rate_bps; // bytes a second; 0: no limit
	int64_t tokens;    // bytes; datagrams may take it below 0
	uint64_t filled_us;
};

// A session's place at the exit; embedded in the session's object. The engine's
// stream_open and flow_open find it by the session's ctx.
struct wrk_exit_session {
	struct wrk_exit *x;
	struct wrk_tally *tally;
	struct wrk_usage *const *usage; // where the place to count at the moment is
	struct wrk_usage own, *own_at;  // nobody else's: that of a session without one
	uint32_t adopting; // the record of the flow that is opened next, or SP_ARENA_NONE
	TAILQ_HEAD(, exit_stream) streams;
	struct wrk_pace down, up;                     // to the client, from it
	TAILQ_HEAD(, exit_stream) down_wait, up_wait; // for their pace
	TAILQ_ENTRY(wrk_exit_session) paced;          // one of the two is not empty
	bool is_paced;
};

struct wrk_exit_counters {
	struct sp_histogram dial_seconds; // of dials that succeeded
	uint64_t streams_asked, streams_opened;
	uint64_t
		streams_ended[SP_REASON__LAST + 1]; // by this worker, destination or peer
	uint64_t flows_asked, flows_opened;
	uint64_t flows_ended[SP_REASON__LAST + 1];
	uint64_t flows_evicted;  // for want of descriptors or room
	uint64_t icmp_errors;    // on flows; ignored
	uint64_t dgrams_dropped; // not sent: full queue, full socket, or too long
	uint64_t no_descriptors; // times that max_sockets or the process's limit was met
	uint32_t streams, flows; // live
	uint32_t sockets;        // of both, dials included
	uint32_t draining;       // reset by the destination, last bytes on their way
};

struct wrk_exit_options {
	struct sp_loop *loop;
	struct sp_session_clock *clock;
	struct sp_arena *arena;
	struct wrk_dialer *dialer;
	uint32_t max_flows;      // of the worker; beyond, the stalest idle one goes
	uint32_t max_sockets;    // of streams, dials and flows; beyond, a flow gives way
	uint32_t stream_idle_ms; // a stream without traffic is reset (2 h)
	uint32_t flow_dns_ms;    // a flow to port 53 ends so long after its answer (5 s)
};
// 0 and *ret; -ENOMEM. What the options point to outlives it.
int wrk_exit_new(const struct wrk_exit_options *opt, struct wrk_exit **ret) SP_MUST_CHECK;
// Every session must be freed before. NULL is fine.
void wrk_exit_free(struct wrk_exit *x);
void wrk_exit_set_limits(struct wrk_exit *x, uint32_t max_flows, uint32_t stream_idle_ms);
const struct wrk_exit_counters *wrk_exit_counters(const struct wrk_exit *x);

// `tally` outlives the session.
void wrk_exit_session_init(struct wrk_exit_session *es, struct wrk_exit *x,
			   struct wrk_tally *tally);
// Counts there from now on; `*usage` may change, `usage` outlives the session.
void wrk_exit_session_set_usage(struct wrk_exit_session *es,
				struct wrk_usage *const *usage);
// Call when its streams and flows are gone.
void wrk_exit_session_done(struct wrk_exit_session *es);
// The most bytes a second of the session, each way; 0: no limit. Streams are slowed,
// never cut; datagrams beyond it are dropped.
void wrk_exit_session_set_rate(struct wrk_exit_session *es, uint64_t rate_bps);
// Resets every stream of the session; its flows stay.
void wrk_exit_session_reset(struct wrk_exit_session *es, enum sp_reason reason);

// For the engine's operations of the same names (lib/session.h). The session must be
// freed before `es` goes.
void wrk_exit_stream_open(struct wrk_exit_session *es, struct sp_stream *st,
			  const struct sp_target *target);
size_t wrk_exit_stream_sink(struct sp_stream *st, const uint8_t *buf, size_t len);
void wrk_exit_stream_sink_fin(struct sp_stream *st);
void wrk_exit_stream_source_ready(struct sp_stream *st);
void wrk_exit_stream_closed(struct sp_stream *st, enum sp_reason reason);

void wrk_exit_flow_open(struct wrk_exit_session *es, struct sp_flow *fl,
			const struct sp_target *target);
void wrk_exit_flow_data(struct sp_flow *fl, const uint8_t *buf, size_t len);
void wrk_exit_flow_closed(struct sp_flow *fl, enum sp_reason reason);

// What became of a stream's record that another process left.
enum wrk_exit_taken { WRK_EXIT_GOES_ON, WRK_EXIT_REDIAL, WRK_EXIT_LOST };
// Takes over a stream of `engine`, or a datagram flow, by its record: descriptors below
// `n_owned` whose mark in `owned` is set are somebody's already; what is taken is marked.
// A descriptor that is not taken stays open and unmarked. *repaired gets the bytes that
// the kernel knew of and the record did not.
enum wrk_exit_taken wrk_exit_adopt_stream(struct wrk_exit_session *es,
					  struct sp_session *engine, uint32_t record,
					  bool *owned, int n_owned, uint64_t *repaired);
enum wrk_exit_taken wrk_exit_adopt_flow(struct wrk_exit_session *es,
					struct sp_session *engine, uint32_t record,
					bool *owned, int n_owned);

// Closes the stalest idle flow to free a descriptor. False: there is none.
bool wrk_exit_evict_flow(struct wrk_exit *x);

#endif
