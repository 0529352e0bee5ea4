// What exit.c, exit_stream.c and exit_flow.c share; nobody else includes this.
#ifndef WRK_EXIT_INTERNAL_H
#define WRK_EXIT_INTERNAL_H

#include <sys/queue.h>
#include <sys/socket.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "worker/exit.h"

#define EXIT_SWEEP_MS     20
#define EXIT_HEADROOM     98304 // bytes that can be had when something new begins
#define EXIT_WIPE_CHUNKS  256   // of memory that is free, in a sweep: 50 MB a second
#define EXIT_READ_BYTES   65536 // of one stream in its turn
#define EXIT_TURN_STREAMS 64    // streams that go on reading in one turn of the loop
#define EXIT_FLOW_QUEUE   8     // datagrams of a flow whose name is being resolved
#define EXIT_FLOW_BATCH   16    // datagrams read at once
#define EXIT_FLOW_BATCHES 2     // batches of one flow in its turn

enum exit_stream_state {
	XS_DIALLING,
	XS_OPEN,     // has a socket
	XS_HALF,     // socket closed: all is read and written, the client takes the rest
	XS_DRAINING, // reset by the destination; ends once the client has what was
		     // readable
};

struct exit_stream {
	struct sp_stream *st;
	struct wrk_exit *x;
	struct wrk_exit_session *session;
	struct wrk_dial *dial; // XS_DIALLING
	struct event ev;       // XS_OPEN
	int fd;                // XS_OPEN
	uint32_t record;       // index in the arena
	uint8_t state;         // enum exit_stream_state
	bool readable;         // the socket may have more
	bool source_fin;       // the destination ended its direction
	bool sink_fin;         // the client did
	bool broken;      // an error was told; what is readable still goes to the client
	bool redialled;   // a second try after descriptors ran out
	bool queued;      // in x->ready
	uint16_t reason;  // XS_DRAINING
	uint64_t last_us; // last traffic
	struct sp_target *again;   // XS_DIALLING: for a second try, owned
	bool down_waits, up_waits; // for the session's pace
	TAILQ_ENTRY(exit_stream) ready, idle, sibling, down_wait, up_wait;
};
TAILQ_HEAD(exit_stream_list, exit_stream);

struct exit_packet {
	STAILQ_ENTRY(exit_packet) next;
	size_t len;
	uint8_t data[];
};

struct exit_batch;

struct exit_flow {
	struct sp_flow *fl;
	struct wrk_exit *x;
	struct wrk_exit_session *session;
	struct wrk_dial *dial; // while the name is being resolved
	struct event ev;
	int fd;          // -1: not yet
	uint32_t record; // index in the arena, or SP_ARENA_NONE
	bool dns, answered;
	bool reopened; // a second try after descriptors ran out
	unsigned npackets;
	STAILQ_HEAD(, exit_packet) packets;
	uint64_t last_us;
	TAILQ_ENTRY(exit_flow) lru, dns_link;
};
TAILQ_HEAD(exit_flow_list, exit_flow);

struct wrk_exit {
	struct wrk_exit_options opt;
	struct wrk_exit_counters n;
	struct exit_stream_list ready;    // have more to read than one turn gives
	struct exit_stream_list idle;     // all that live, by last traffic
	struct exit_stream_list draining; // linked by `idle`
	struct exit_flow_list lru;        // all flows, by last traffic
	struct exit_flow_list answered;   // DNS flows, by their answer
	TAILQ_HEAD(, wrk_exit_session) paced;
	struct exit_stream *busy; // in socket_event; NULL once it is freed
	struct sp_deferred turn;
	struct event *sweep;
	struct exit_batch *batch; // for reading datagrams
};

static inline uint64_t exit_now(const struct wrk_exit *x)
{
	return sp_loop_now_us(x->opt.loop);
}
void exit_want_turn(struct wrk_exit *x);
// Room for one more socket, if need be by giving up the stalest flow. False: none.
bool exit_make_room(struct wrk_exit *x);

// Whether so much memory is left that carriers and what is old can go on after something
// new has begun.
bool exit_has_memory(void);

// exit_pace.c
// How many of `want` bytes may pass now.
size_t exit_pace_room(struct wrk_pace *p, size_t want, uint64_t now_us);
static inline void exit_pace_take(struct wrk_pace *p, size_t len)
{
	if (p->rate_bps)
		p->tokens -= (int64_t)len;
}
// A datagram of `len` bytes: may it pass? Takes it then.
bool exit_pace_dgram(struct wrk_pace *p, size_t len, uint64_t now_us);
void exit_pace_wait_down(struct exit_stream *s);
void exit_pace_wait_up(struct exit_stream *s);
void exit_pace_forget(struct exit_stream *s);
void exit_pace_sweep(struct wrk_exit *x);

// exit_stream.c
void exit_stream_resume_source(struct exit_stream *s); // may read again
void exit_stream_resume_sink(struct exit_stream *s);   // may write again
// A stream whose dial is long over: with its socket `fd`, or -1: only what it was read of
// is left. Takes `fd` in every case. 0; -ENOMEM: the stream is reset.
int exit_stream_take(struct wrk_exit_session *es, struct sp_stream *st, int fd);
void exit_stream_turn(struct wrk_exit *x);
void exit_stream_sweep(struct wrk_exit *x);
// exit_flow.c
struct exit_batch *exit_batch_new(void);
void exit_flow_sweep(struct wrk_exit *x);

#endif
