// The session engine: streams and datagram flows over carriers that come and go; the same
// code at both ends. Pure: no sockets, no clock, no I/O; bytes and a time go in, bytes,
// calls of `struct sp_session_ops` and the next deadline come out. No malloc in the data
// path. The wire format is proto/PROTOCOL.md, sections 6 and 7.
//
// Invariants. Per stream and direction the sender holds every byte from `taken` (what the
// receiver's sink has) to `head` (what came from the source); bytes move on only by the
// receiver's word. What must survive a crash lies in the arena's records (lib/arena.h);
// everything in here can be rebuilt from them.
//
// Re-entrancy: ops may call sp_stream_* and sp_flow_* of the object they are called for
// and sp_session_open*, but never sp_session_input, _output, _tick, _attach, _detach or
// _free. Times are microseconds of one monotonic clock.
#ifndef SP_SESSION_H
#define SP_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "lib/addr.h"
#include "lib/err.h"
#include "lib/reason.h"

#define SP_SESSION_ID_BYTES 16
#define SP_SLOTS            8
#define SP_RECORD_PLAIN_MAX 16366 // plaintext of one record (PROTOCOL.md section 5)
#define SP_DATAGRAM_MAX     16000 // payload of one datagram

struct sp_arena;
struct sp_session;
struct sp_stream;
struct sp_flow;

enum sp_role { SP_ROLE_CLIENT, SP_ROLE_WORKER };

// What the program does for the engine. `ctx` is sp_session_options.ctx.
struct sp_session_ops {
	// Worker: dial `target` for a new stream; answer later or at once with
	// sp_stream_opened or sp_stream_reset.
	void (*stream_open)(void *ctx, struct sp_stream *st,
			    const struct sp_target *target);
	// Client: the exit reached the destination; `bound` is the exit's address.
	void (*stream_opened)(void *ctx, struct sp_stream *st,
			      const struct sp_target *bound);
	// Hand bytes to the sink (destination socket, application socket). Returns how
	// many were taken, 0..len; fewer than len means "blocked": the engine keeps the
	// rest and tries again at sp_stream_sink_ready. A failed sink calls
	// sp_stream_reset and returns 0.
	size_t (*stream_sink)(void *ctx, struct sp_stream *st, const uint8_t *buf,
			      size_t len);
	// All bytes were taken and the peer ended its direction: shutdown(SHUT_WR).
	void (*stream_sink_fin)(void *ctx, struct sp_stream *st);
	// Room has appeared after sp_stream_reserve gave none: read the source again.
	void (*stream_source_ready)(void *ctx, struct sp_stream *st);
	// The stream is over: reason CLOSED after both ends of both directions, else a
	// reset by the peer or the engine. Not called for the program's own
	// sp_stream_reset. `st` must not be used after this returns.
	void (*stream_closed)(void *ctx, struct sp_stream *st, enum sp_reason reason);

	// Worker: a new datagram flow. Client: not called.
	void (*flow_open)(void *ctx, struct sp_flow *fl, const struct sp_target *target);
	void (*flow_data)(void *ctx, struct sp_flow *fl, const uint8_t *buf, size_t len);
	// Ended by the peer or the engine (eviction); not after the program's
	// sp_flow_close.
	void (*flow_closed)(void *ctx, struct sp_flow *fl, enum sp_reason reason);

	// Client: a carrier is in use (fresh: at a home that knew no session of this id;
	// sp_session_is_adopted says whether it has its record).
	void (*attached)(void *ctx, unsigned slot, bool fresh);
	// Client: a TICKET frame; `index` counts them on this slot's carrier.
	void (*ticket)(void *ctx, unsigned slot, unsigned index, uint32_t lifetime_s,
		       const uint8_t *ticket, size_t len);
	// Client: the carrier in `slot` is silent although something is due from it;
	// called once per silence. Open another in another slot.
	void (*stalled)(void *ctx, unsigned slot);
	void (*goaway)(void *ctx, enum sp_reason reason, uint64_t deadline_ms);
	// Client: the worker ended the session. Worker: never called.
	void (*ended)(void *ctx, enum sp_reason reason);
	// Worker, may be NULL: the client goes on with a carrier that was attached before
	// (sp_session_reattach).
	void (*reattached)(void *ctx, unsigned slot);
	// Worker: a PASS frame. The program verifies it and sets the new limits.
	void (*pass)(void *ctx, const uint8_t *blob, size_t len);
};

// How the engine reaches the carrier in a slot; given at attach, called with `link`.
struct sp_slot_ops {
	// sp_session_output would give something now. Called once until output was
	// called.
	void (*wake)(void *link);
	// The engine wants this carrier closed (superseded, protocol error, session
	// freed). The engine has already detached it. Flush what sp_session_output gives
	// for it first: nothing; the CLOSE frame is sent by the caller's own last record.
	void (*close)(void *link, enum sp_reason reason);
};

struct sp_session_limits {
	uint32_t max_streams; // live streams; an OPEN beyond is reset STREAM_LIMIT
	uint32_t max_flows;   // live datagram flows; beyond, the stalest idle goes
	uint32_t stream_window_bytes;  // most credit a stream gets (4 MiB)
	uint32_t session_window_bytes; // sum of credit over the guaranteed 4 KiB (32 MiB)
	uint32_t datagram_budget_bytes; // queued datagrams of the session (512 KiB)
	uint32_t flow_idle_ms;          // a flow without traffic is closed (30 s)
};
void sp_session_limits_default(struct sp_session_limits *ret);

struct sp_session_options {
	enum sp_role role;
	struct sp_arena *arena; // outlives the session
	uint8_t id[SP_SESSION_ID_BYTES];
	struct sp_session_limits limits;
	const struct sp_session_ops *ops; // outlives the session
	void *ctx;
	// Worker: made from a record of the directory; ATTACHED says so.
	bool adopted;
	// The program's current time (its loop keeps it), read by calls that take no
	// time.
	const uint64_t *clock_us;
};

// Makes a session with no carrier. 0 and *ret; -ENOMEM; SP_E_LIMIT: no record is free.
int sp_session_new(const struct sp_session_options *opt, uint64_t now_us,
		   struct sp_session **ret) SP_MUST_CHECK;
// Worker: the session of record `record`, which another process left, without its
// streams; id and `adopted` of the options are taken from there. 0 and *ret; -ENOMEM.
int sp_session_adopt(const struct sp_session_options *opt, uint32_t record,
		     uint64_t now_us, struct sp_session **ret) SP_MUST_CHECK;
// What is true of a stream's socket, as far as the record may lag behind it.
struct sp_stream_found {
	uint64_t head;  // bytes that were read from the destination
	uint64_t taken; // bytes that it took; the end of the direction counts as one
	struct sp_target bound;
};
// Worker: a stream of record `record`, not before the session has its limits. One that
// was being dialled asks for its dial by stream_open once the client said OPEN again. 0
// and *ret; SP_E_MALFORMED, -ENOMEM: the client will hear that it was reset, `user` does
// not.
int sp_stream_adopt(struct sp_session *s, uint32_t record,
		    const struct sp_stream_found *found, void *user,
		    struct sp_stream **ret) SP_MUST_CHECK;
// Frees the session, its streams and flows: stream_closed and flow_closed are called with
// `reason` for each, slot_ops.close for each carrier. NULL is fine.
void sp_session_free(struct sp_session *s, enum sp_reason reason);
// Index of the session's record in the arena, where the program keeps device key and
// pass.
uint32_t sp_session_record(const struct sp_session *s);
const uint8_t *sp_session_id(const struct sp_session *s); // 16 bytes
void sp_session_set_limits(struct sp_session *s, const struct sp_session_limits *limits);

// ---- carriers ----

// Client: joins a new carrier in `slot` (0..7), raising the epoch; what sp_session_output
// gives for the slot begins with ATTACH and RESUME. An older carrier of the slot is
// closed.
void sp_session_attach_client(struct sp_session *s, unsigned slot,
			      const struct sp_slot_ops *ops, void *link, uint64_t now_us);
// Client: what ATTACH says besides, of SP_ATTACH_*; call directly after _attach_client.
#define SP_ATTACH_MOVED  1 // it had another home: the worker asks the directory
#define SP_ATTACH_PARKED 2 // with MOVED: streams wait there, do not make it anew
#define SP_ATTACH_SPARE  4 // in reserve; not by _attach_flags
void sp_session_attach_flags(struct sp_session *s, unsigned slot, uint8_t flags);
// Client: joins a carrier in reserve; what carries the session goes on doing so. It is
// used from sp_session_reattach on.
void sp_session_attach_spare(struct sp_session *s, unsigned slot,
			     const struct sp_slot_ops *ops, void *link, uint64_t now_us);
// Client: goes on with the carrier in `slot`, which was attached before and is not in use
// any more or was not yet: raises the epoch and says ATTACH and RESUME on it again. One
// round trip, and `attached` is called again. 0; SP_E_STALE: there is none, or it is not
// through with its last ATTACH (dial another).
int sp_session_reattach(struct sp_session *s, unsigned slot,
			uint64_t now_us) SP_MUST_CHECK;
// Client, resume with a ticket: the frames for the first flight (ATTACH, then RESUME as
// far as they fit), to be called once, directly after _attach_client; output goes on from
// there. Returns their length, at most cap; cap >= 64.
size_t sp_session_hello(struct sp_session *s, unsigned slot, uint8_t *buf, size_t cap,
			uint64_t now_us);

struct sp_attach { // the ATTACH frame
	uint8_t session[SP_SESSION_ID_BYTES];
	uint32_t epoch;
	uint8_t slot;
	uint8_t flags; // SP_ATTACH_*
};
// Worker: reads the ATTACH frame that begins the plaintext of a carrier's first record or
// of a resume flight. Returns its length; SP_E_MALFORMED, SP_E_TRUNCATED.
int sp_attach_parse(const uint8_t *buf, size_t len, struct sp_attach *ret) SP_MUST_CHECK;
// Worker: joins the carrier. `fresh`: the session was made for it. 0; SP_E_STALE: the
// epoch does not rise (nothing changed; close the carrier with STALE_EPOCH). Afterwards
// hand what stands behind ATTACH to sp_session_input (first contact: the rest of the
// first record, even if nothing is left of it) or to sp_session_input_hello (resume: the
// rest of the frames in the first flight).
int sp_session_attach_worker(struct sp_session *s, const struct sp_attach *at, bool fresh,
			     const struct sp_slot_ops *ops, void *link,
			     uint64_t now_us) SP_MUST_CHECK;
// Worker: a ticket for the carrier in `slot`, sent right after ATTACHED; at most 2, len
// <= 512; call directly after _attach_worker.
int sp_session_add_ticket(struct sp_session *s, unsigned slot, uint32_t lifetime_s,
			  const uint8_t *ticket, size_t len) SP_MUST_CHECK;
// The carrier in `slot` died. Does nothing if the slot is empty or holds another link.
void sp_session_detach(struct sp_session *s, unsigned slot, const void *link,
		       uint64_t now_us);

// One opened record from the carrier in `slot`. 0; or a negative error, and the carrier
// must be closed: SP_E_PROTOCOL or SP_E_MALFORMED -> CLOSE(protocol); SP_E_CLOSED: the
// peer sent CLOSE, *ret_reason says why; SP_E_STALE: an ATTACH whose epoch does not
// rise. With *ret_rekey true the next record comes under
// the next key.
int sp_session_input(struct sp_session *s, unsigned slot, const uint8_t *plain,
		     size_t len, uint64_t now_us, bool *ret_rekey,
		     enum sp_reason *ret_reason) SP_MUST_CHECK;

// Worker: the frames of a resume's first flight behind ATTACH, which are not a record. 0;
// SP_E_PROTOCOL, SP_E_MALFORMED: close the carrier.
int sp_session_input_hello(struct sp_session *s, unsigned slot, const uint8_t *frames,
			   size_t len, uint64_t now_us) SP_MUST_CHECK;

// What goes into one record. Segments point into `head` or into replay memory and are
// valid until the next call into the engine.
#define SP_GATHER_SEGMENTS 24
struct sp_gather {
	struct iovec iov[SP_GATHER_SEGMENTS];
	int n;        // segments used
	size_t bytes; // their sum
	size_t head_used;
	uint8_t head[SP_RECORD_PLAIN_MAX]; // frame headers and small payloads
};
// Fills `g` with up to max_plain (512..SP_RECORD_PLAIN_MAX) bytes of frames for the
// carrier in `slot`; a datagram, ticket or pass that is larger waits for a larger record.
// Returns g->bytes; 0: nothing to send. What it gave counts as sent.
size_t sp_session_output(struct sp_session *s, unsigned slot, size_t max_plain,
			 struct sp_gather *g, uint64_t now_us);

// When sp_session_tick must be called next; UINT64_MAX: never.
uint64_t sp_session_deadline(const struct sp_session *s);
void sp_session_tick(struct sp_session *s, uint64_t now_us);

// ---- streams ----

// Client: a new stream. `user` is the program's. 0 and *ret; SP_E_LIMIT; -ENOMEM.
int sp_session_open(struct sp_session *s, const struct sp_target *target, void *user,
		    struct sp_stream **ret) SP_MUST_CHECK;
// Worker: the dial succeeded.
void sp_stream_opened(struct sp_stream *st, const struct sp_target *bound);
// Ends the stream both ways and tells the peer; `st` must not be used afterwards.
void sp_stream_reset(struct sp_stream *st, enum sp_reason reason);
void sp_stream_set_user(struct sp_stream *st, void *user);
void *sp_stream_user(const struct sp_stream *st);
uint64_t sp_stream_id(const struct sp_stream *st);
bool sp_stream_is_open(const struct sp_stream *st); // OPENED was received or sent
struct sp_session *sp_stream_session(const struct sp_stream *st);
void *sp_stream_ctx(const struct sp_stream *st); // the session's ctx
// Index of the stream's record in the arena (descriptors are journaled there).
uint32_t sp_stream_record(const struct sp_stream *st);

// Source side. Reserve up to `max` bytes of replay memory as at most `iovcnt` segments
// (<= 16 of <= 4096 bytes); read the source right into them with one readv/recvmsg;
// commit what came, before any other call about the session: what is not committed by
// then is given back. Worker: after sp_stream_opened. Returns the number of segments, 0:
// no room now (stream_source_ready will tell).
int sp_stream_reserve(struct sp_stream *st, size_t max, struct iovec *iov, int iovcnt);
void sp_stream_commit(struct sp_stream *st, size_t len);
// The source ended its direction (recv gave 0).
void sp_stream_source_fin(struct sp_stream *st);
// Sink side: it can take bytes again; stream_sink is called as far as it takes them. Not
// from inside stream_sink.
void sp_stream_sink_ready(struct sp_stream *st);

// ---- datagram flows ----

// Client: a new flow. 0 and *ret; -ENOMEM. At the limit the stalest idle flow is closed.
int sp_session_open_flow(struct sp_session *s, const struct sp_target *target, void *user,
			 struct sp_flow **ret) SP_MUST_CHECK;
// Queues one datagram for the peer. 0; -EMSGSIZE: over SP_DATAGRAM_MAX; SP_E_LIMIT:
// dropped (counted), or another flow's oldest was dropped instead and 0 returned.
int sp_flow_send(struct sp_flow *fl, const uint8_t *buf, size_t len);
// Ends the flow and tells the peer; `fl` must not be used afterwards.
void sp_flow_close(struct sp_flow *fl, enum sp_reason reason);
void sp_flow_set_user(struct sp_flow *fl, void *user);
void *sp_flow_user(const struct sp_flow *fl);
struct sp_session *sp_flow_session(const struct sp_flow *fl);
void *sp_flow_ctx(const struct sp_flow *fl);
uint64_t sp_flow_id(const struct sp_flow *fl);
const struct sp_target *sp_flow_target(const struct sp_flow *fl);
// Worker: makes a flow that an earlier home of the session had; flow_open is called. Does
// nothing if the flow is there. 0; SP_E_LIMIT: that would be too many; -ENOMEM.
int sp_session_restore_flow(struct sp_session *s, uint64_t id,
			    const struct sp_target *target) SP_MUST_CHECK;
// Calls `each` for every live flow, the one idle longest first. `each` must not use the
// session.
void sp_session_each_flow(const struct sp_session *s,
			  void (*each)(void *ctx, const struct sp_flow *fl), void *ctx);
// Changes whenever a flow comes or goes.
uint64_t sp_session_flow_changes(const struct sp_session *s);

// ---- whole session ----

// Client: ends every stream that a home has spoken of with `reason`; those that no home
// knows yet are opened at the next one. Not from the engine's calls.
void sp_session_lose_streams(struct sp_session *s, enum sp_reason reason);

// Worker: GOAWAY, now and on every later carrier.
void sp_session_goaway(struct sp_session *s, enum sp_reason reason, uint64_t deadline_ms);
// Worker: no more. The client that heard of it learns that with its next carrier.
void sp_session_stay(struct sp_session *s);
// Worker: sends END on every carrier; free the session when they are flushed or after 1
// s.
void sp_session_end(struct sp_session *s, enum sp_reason reason);
// Client: sends a renewed pass.
int sp_session_send_pass(struct sp_session *s, const uint8_t *blob,
			 size_t len) SP_MUST_CHECK;

struct sp_session_stats {
	uint64_t bytes_tx, bytes_rx;      // stream payload, first transmission / taken
	uint64_t bytes_resent, bytes_dup; // sent again after a cut / received again
	uint64_t dgrams_tx, dgrams_rx;    // datagrams
	uint64_t dgram_bytes_tx, dgram_bytes_rx;
	uint64_t dgrams_dropped; // over the budget or too old
	uint64_t records_tx, records_rx;
	uint32_t streams, flows;  // live
	uint32_t streams_refused; // over the limit
	uint32_t flows_evicted;
	uint32_t attaches, resumes;
	uint32_t carriers;          // attached now
	uint64_t detached_since_us; // 0 while a carrier is attached
	uint64_t last_rx_us;   // when a record last came on any carrier that is attached
	uint32_t srtt_us;      // of the carrier in use; 0 unknown
	uint32_t replay_bytes; // held for the peer
};
void sp_session_stats(const struct sp_session *s, struct sp_session_stats *ret);
// Bytes of memory for stream bytes that it has beyond what its streams are promised, held
// for the peer or granted to it: what others get if all its streams are reset.
uint64_t sp_session_pool_bytes(const struct sp_session *s);
unsigned sp_session_free_slot(const struct sp_session *s); // SP_SLOTS if none
int sp_session_active_slot(const struct sp_session *s);    // -1 if none
uint32_t sp_session_epoch(const struct sp_session *s);
// Client: whether the carrier in `slot` is at a home that took the session over from
// another one by its record in the directory.
bool sp_session_is_adopted(const struct sp_session *s, unsigned slot);

#endif
