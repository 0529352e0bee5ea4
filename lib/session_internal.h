// What the files of the session engine share (session*.c); nobody else includes this.
#ifndef SP_SESSION_INTERNAL_H
#define SP_SESSION_INTERNAL_H

#include <sys/queue.h>

#include "lib/arena.h"
#include "lib/frame.h"
#include "lib/idmap.h"
#include "lib/session.h"

// PROTOCOL.md section 7: Reports, Silence, Credit.
#define REPORT_DUE_US    25000
#define STALL_MIN_US     400000
#define PING_FIRST_US    250000
#define PING_MAX_US      15000000
#define PING_IDLE_US     25000000 // nothing live: keep address translators awake
#define CREDIT_IMPLICIT  4096
#define CREDIT_FIRST     65536
// Taken bytes are told at a quarter of the window, at most after so many.
#define WINDOW_STEP      262144
// So far ahead of what was sent a source is read.
#define UNSENT_MAX       262144
// Older datagrams are dropped, those of DNS after a second.
#define DGRAM_AGE_US     100000
#define DGRAM_AGE_DNS_US 1000000
#define GONE_MAX         16384    // answers to ids we do not have, waiting
#define PASS_EACH_US     10000000 // a carrier may have a PASS each 10 s,
#define PASS_BURST       8        // and so many at once
#define PASS_BURST_SENT  4        // what a client does: some may be slow on their way
#define TICKETS_MAX      2
#define TICKET_BYTES_MAX 512
#define FAT_BUCKETS      20

// Control frames a stream or flow wants to send.
#define WANT_OPEN   1
#define WANT_OPENED 2
#define WANT_WINDOW 4
#define WANT_RESET  8
#define WANT_FLOW   16

// Where the last control frame of a stream or flow went, to know whether it was
// reported.
struct ctl_state {
	uint8_t want;       // WANT_*: to be sent
	uint8_t unreported; // WANT_*: sent last in the record below
	uint8_t slot;
	bool listed; // in the session's control list
	uint32_t epoch;
	uint64_t record;
	TAILQ_ENTRY(ctl_state) link;
	bool is_flow;
};
TAILQ_HEAD(ctl_list, ctl_state);

// Received bytes that the sink has not taken: a chain of chunks.
struct rx_queue {
	uint32_t first, last; // SP_ARENA_NONE when empty
	uint32_t skip;        // bytes of the first chunk already taken
	uint32_t fill;        // bytes in the last chunk
	uint32_t bytes;
};

// What ATTACHED says.
#define SP_ATTACHED_FRESH   0
#define SP_ATTACHED_RESUMED 1
#define SP_ATTACHED_ADOPTED 2

enum sched_place { SCHED_NONE, SCHED_NEW, SCHED_OLD };

struct sp_stream {
	struct ctl_state ctl; // first: found from the control list
	struct sp_session *s;
	struct sp_stream_rec *rec;
	void *user;
	uint32_t index;
	uint32_t sync_epoch; // epoch of the carrier on which positions were last agreed
	uint64_t home;       // client: incarnation of the home that spoke of it, or 0
	uint8_t sched;       // enum sched_place
	uint8_t open_flags;
	bool dirty;       // in the list of streams whose `taken` is not told yet
	bool in_resume;   // to be listed in a RESUME
	bool source_wait; // the source found no room
	bool sent_some;   // bytes went since: in the list of sources to look at
	bool finished;    // in the list of those that wait for a report only
	bool user_gone;   // the program knows it no more
	bool open_sent;   // client: on some carrier, once
	bool unasked;     // worker: the dial was lost with a process; OPEN asks anew
	uint64_t id;
	// towards the peer
	uint64_t snd_nxt; // next offset to send; the end of the direction counts as one
	uint64_t snd_max; // highest ever sent
	uint32_t cur_chunk;
	uint64_t cur_start; // stream offset of cur_chunk's first byte
	// from the peer
	uint64_t rcv_next;
	uint64_t taken_sent; // in the last WINDOW sent
	struct rx_queue rx;
	uint32_t window;
	uint64_t window_extra; // beyond the guarantee, from session and arena: chunks
	uint64_t tune_us;      // start of the measured period
	uint64_t tune_taken;
	struct sp_starved starved;
	struct sp_target target; // client: for OPEN; worker: the bound address for OPENED
	TAILQ_ENTRY(sp_stream)
	all, sched_link, dirty_link, resume_link, finished_link, sent_link;
};
TAILQ_HEAD(stream_list, sp_stream);

struct packet {
	STAILQ_ENTRY(packet) next;
	uint64_t queued_us;
	uint32_t len;
	uint8_t data[];
};

struct sp_flow {
	struct ctl_state ctl; // first
	struct sp_session *s;
	void *user;
	uint64_t id;
	uint64_t last_us; // last traffic
	uint32_t queued;  // bytes, with overhead
	uint32_t npackets;
	int8_t fat; // bucket by queued bytes, -1: empty
	bool dns;
	bool ended; // unlinked; the program is being told
	int32_t deficit;
	STAILQ_HEAD(packet_list, packet) packets;
	struct sp_target target;
	TAILQ_ENTRY(sp_flow) lru, sched_link, fat_link;
};
TAILQ_HEAD(flow_list, sp_flow);

enum slot_phase {
	PHASE_EMPTY,
	PHASE_HELLO,  // ATTACH or ATTACHED to be sent
	PHASE_RESUME, // our list to be sent
	PHASE_RUN,
};

struct pending_ticket {
	uint32_t lifetime_s;
	uint16_t len;
	uint8_t bytes[TICKET_BYTES_MAX];
};

struct slot {
	enum slot_phase phase;
	const struct sp_slot_ops *ops;
	void *link;
	uint32_t epoch;
	uint64_t home;    // client: incarnation that ATTACHED named
	uint8_t flags;    // client: of ATTACH
	bool fresh;       // worker: what ATTACHED says
	bool adopted;     // client: what ATTACHED said
	bool peer_agreed; // the peer's last RESUME came
	bool attached;    // client: ATTACHED came
	bool spare;       // attached to be reattached later: carries nothing
	bool again;       // client: ATTACH was said again, ATTACHED is due
	bool woken;
	bool ping;
	bool ending; // END to be sent
	bool goaway; // GOAWAY to be sent
	bool pass;   // PASS to be sent
	bool stall_told;
	uint8_t tickets_rx;
	uint8_t n_tickets, tickets_tx;
	struct pending_ticket *tickets;
	// records
	uint64_t tx_records, rx_records;
	uint64_t tx_wanting;  // number of records up to the last one that wants a report
	uint64_t tx_reported; // records the peer has processed
	uint64_t rx_told;     // rx_records in our last SEEN
	bool report_due;      // records that want a report came since
	uint64_t report_at_us;
	uint64_t last_rx_us, last_rx_traffic_us;
	uint64_t waiting_since_us; // a report is due from the peer since; 0: none is
	uint64_t probe_record, probe_us; // round-trip sample under way; probe_us 0: none
	uint32_t srtt_us, rttvar_us;
	uint64_t pass_paid_us;  // PASSes that came, or went, are paid for up to this time
	uint64_t ping_after_us; // interval until the next PING
	uint64_t ping_at_us;
};

// RESETs and FLOW_CLOSEs for what is not there, kept until they are reported: [first,
// next) were sent on the primary carrier, [next, end) wait.
struct gone {
	uint64_t id;
	uint64_t record; // that carried it
	uint16_t reason;
	bool is_flow;
};
struct gone_list {
	struct gone *items;
	uint32_t cap, first, next, end;
};

struct sp_session {
	struct sp_session_options opt;
	struct sp_session_rec *rec;
	uint32_t index;
	uint64_t now_us; // of the call under way
	struct slot slots[SP_SLOTS];
	uint32_t home_epoch; // client: highest epoch of a carrier attached at this home
	int primary;         // slot of the attached carrier with the highest epoch, or -1
	struct sp_idmap streams, flows;
	struct stream_list all, sched_new, sched_old, dirty, resume, finished, sent_some;
	struct ctl_list ctl;
	struct flow_list lru, flows_active, flows_dns, fat[FAT_BUCKETS];
	uint32_t n_live, n_finished, n_flows;
	uint64_t flow_changes;
	uint32_t dgram_bytes;        // queued, with overhead
	uint64_t credit_extra;       // granted beyond the guarantees
	uint32_t ring_chunks;        // of all rings, beyond the first of each
	struct sp_stream *reserving; // has chunks for a read under way
	int64_t balance;             // > 0: datagrams are owed bytes against streams
	uint64_t dirty_at_us;        // when what was taken must be told
	struct gone_list gone;
	uint64_t next_stream, next_flow;           // client
	uint64_t peer_max_streams, peer_max_flows; // client: what ATTACHED said
	uint8_t *pass;
	size_t pass_len;
	enum sp_reason goaway_reason;
	uint64_t goaway_deadline_ms;
	enum sp_reason end_reason;
	bool goaway, dead;
	uint64_t detached_since_us;
	struct sp_session_stats stats;
};

static inline uint32_t least(uint64_t a, uint32_t b)
{
	return a < b ? (uint32_t)a : b;
}

static inline uint32_t max_streams(const struct sp_session *s)
{
	return least(s->peer_max_streams, s->opt.limits.max_streams);
}

static inline uint32_t max_flows(const struct sp_session *s)
{
	return least(s->peer_max_flows, s->opt.limits.max_flows);
}

static inline struct slot *primary_slot(struct sp_session *s)
{
	return s->primary < 0 ? NULL : &s->slots[s->primary];
}

static inline void session_refresh(struct sp_session *s)
{
	if (*s->opt.clock_us > s->now_us)
		s->now_us = *s->opt.clock_us;
}

// session.c
// With the record `index`, which is filled in already. NULL: no memory.
struct sp_session *session_with_record(const struct sp_session_options *opt,
				       uint32_t index, uint64_t now_us);
void session_wake(struct sp_session *s); // the primary carrier
void slot_wake(struct slot *sl);
// When the next PASS may be sent on it.
uint64_t slot_pass_at(const struct slot *sl);
int session_gone(struct sp_session *s, uint64_t id, bool is_flow, enum sp_reason reason);
void gone_reported(struct gone_list *g, uint64_t records); // forgets those before
void ctl_want(struct sp_session *s, struct ctl_state *c, uint8_t want);
void ctl_drop(struct sp_session *s, struct ctl_state *c);
bool ctl_reported(const struct sp_session *s, const struct ctl_state *c);
void ctl_sent(struct ctl_state *c, const struct slot *sl, unsigned slot, uint8_t what);

// session_attach.c
int attach_peer_resume(struct sp_session *s, struct slot *sl, const struct sp_frame *f);
int attach_result(struct sp_session *s, unsigned slot, const struct sp_frame *f,
		  enum sp_reason *ret_closed);
int attach_again(struct sp_session *s, unsigned slot, const struct sp_frame *f);
size_t attach_put_hello(struct sp_session *s, unsigned slot, struct sp_writer *w);

// session_stream.c
struct sp_stream *stream_new(struct sp_session *s, uint64_t id, int *ret_err);
// For a record that is filled in. NULL: no memory.
struct sp_stream *stream_make(struct sp_session *s, uint32_t index);
void stream_destroy(struct sp_stream *st); // unlinks everywhere and frees
void stream_end(struct sp_stream *st, enum sp_reason reason);   // tells the program
void stream_reset(struct sp_stream *st, enum sp_reason reason); // tells the peer
void stream_check_done(struct sp_stream *st);
void stream_activate(
	struct sp_stream *st); // into the schedule if it has something to send
void stream_unschedule(struct sp_stream *st);
void session_unreserve(struct sp_session *s); // a read that was not committed
int stream_peer_taken(struct sp_stream *st, uint64_t taken, uint64_t credit);
int stream_data(struct sp_stream *st, const struct sp_frame *f);
// After bytes were sent or taken or credit came: wakes the source once a good part of the
// room is back.
void stream_source_recheck(struct sp_stream *st);
void stream_first_credit(struct sp_stream *st);
void stream_settle_window(struct sp_stream *st, uint64_t *ret_credit);
bool stream_listable(const struct sp_stream *st);
size_t stream_sendable(const struct sp_stream *st); // bytes; the end counts as one
bool stream_set_window(struct sp_stream *st, uint64_t want); // false: got less

// session_ring.c: the ring of a stream towards the peer, in chunks of the arena
int ring_reserve(struct sp_stream *st, size_t max, struct iovec *iov, int iovcnt);
void ring_commit(struct sp_stream *st, size_t len);
void ring_ack(struct sp_stream *st, uint64_t acked); // frees what lies below
void ring_clear(struct sp_stream *st);
void ring_trim(struct sp_stream *st); // gives back chunks that lie wholly beyond the head
void ring_seek(struct sp_stream *st, uint64_t offset); // moves the send cursor
// One contiguous piece at the send cursor, at most `max` bytes; moves the cursor behind
// it.
size_t ring_next(struct sp_stream *st, size_t max, uint8_t **ret);
// The queue towards the sink.
void rxq_append(struct sp_stream *st, const uint8_t *buf, size_t len);
size_t rxq_peek(const struct sp_stream *st, const uint8_t **ret);
void rxq_consume(struct sp_stream *st, size_t len);
void rxq_clear(struct sp_stream *st);

// session_output.c
void output_confirm(struct sp_session *s); // after a report: lets finished streams go

// session_flow.c
void flow_end(struct sp_flow *fl, enum sp_reason reason);
int flow_frame(struct sp_session *s, const struct sp_frame *f);
void flow_touch(struct sp_flow *fl);
void flow_sweep(struct sp_session *s);
uint64_t flow_deadline(const struct sp_session *s);
bool flow_has_output(const struct sp_session *s, bool dns);
// Puts datagrams of one class while they fit. Returns bytes put.
size_t flow_output(struct sp_session *s, bool dns, struct sp_writer *w, size_t quantum);

#endif
