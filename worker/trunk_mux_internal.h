// What the files of the multiplexer share (trunk_mux*.c); nobody else includes this.
#ifndef WRK_TRUNK_MUX_INTERNAL_H
#define WRK_TRUNK_MUX_INTERNAL_H

#include <sys/queue.h>

#include "worker/trunk_mux.h"

#define MUX_BUCKETS 256
#define MUX_BURST_S 5 // of the peer's opens

enum frame_type {
	FRAME_PAD = 0x00,
	FRAME_PING = 0x01,
	FRAME_PONG = 0x02,
	FRAME_CLOSE = 0x1b,
	FRAME_REKEY = 0x1d,
	FRAME_RELAY_OPEN = 0x20,
	FRAME_RELAY_DATA = 0x21,
	FRAME_RELAY_CREDIT = 0x22,
	FRAME_RELAY_FIN = 0x23,
	FRAME_RELAY_CLOSE = 0x24,
};

// Bytes in order; memory only while there are any.
struct ring {
	uint8_t *p;
	uint32_t cap, first, fill;
};

struct wrk_pipe {
	struct wrk_mux *mux; // NULL: the trunk is gone
	uint64_t id;
	void (*ready)(void *ctx);
	void *ctx;
	// from the peer
	struct ring rx;
	uint64_t received, consumed, granted;
	uint32_t window; // reserved in the pool
	uint32_t goal;   // granted ahead; below `window` while that shrinks
	uint32_t low;    // least that stood in rx since mark_us
	uint64_t mark;   // consumed, when this look at the window began
	uint64_t mark_us;
	bool rx_fin;
	// to the peer
	struct ring tx;
	uint64_t sent, credit;
	struct wrk_mux_source source; // until OPEN is sent
	uint8_t *first_bytes;
	uint32_t first_len;
	bool open_due, credit_due, fin, fin_sent, close_due, blocked;
	bool owned, closed;    // by its owner; by the peer, or the trunk is gone
	enum sp_reason reason; // of `closed`, or to be sent
	bool in_turn;
	uint32_t left; // of its quantum, when a record ended in the middle of it; else 0
	TAILQ_ENTRY(wrk_pipe) turn;
	LIST_ENTRY(wrk_pipe) chain;
};
TAILQ_HEAD(pipe_turns, wrk_pipe);
LIST_HEAD(pipe_chain, wrk_pipe);

struct refusal {
	uint64_t id;
	enum sp_reason reason;
};

struct wrk_mux {
	struct wrk_mux_options opt;
	struct pipe_chain bucket[MUX_BUCKETS];
	struct pipe_turns turns; // that have something to send
	uint32_t pipes;
	uint64_t next_id, peer_id; // of the next one here; the highest of the peer
	struct refusal refusals[WRK_MUX_REFUSALS];
	uint32_t n_refusals;
	uint64_t tokens_us; // of the peer's opens: a bucket, counted in time
	uint64_t tokens_at_us;
	bool ping_due, pong_due, failed;
	const char *error;
};

uint64_t mux_now_us(const struct wrk_mux *m);
bool mux_ring_put(struct ring *r, const uint8_t *buf, uint32_t len); // false: no memory
void mux_wake(struct wrk_mux *m);
// In line for a turn if it has something to send.
void mux_queue(struct wrk_pipe *p);
void mux_tell(struct wrk_pipe *p); // its owner: reading or writing may go on
struct wrk_pipe *mux_find(struct wrk_mux *m, uint64_t id);
struct wrk_pipe *mux_pipe_new(struct wrk_mux *m, uint64_t id); // NULL: no memory
void mux_unlink_pipe(struct wrk_pipe *p);
void mux_pipe_free(struct wrk_pipe *p);
// By the peer, or with the trunk.
void mux_pipe_closed(struct wrk_pipe *p, enum sp_reason reason);
// By this end, which has no memory for it: both the owner and the peer are told.
void mux_pipe_starved(struct wrk_pipe *p);
// Its owner let go and everything was said.
bool mux_is_over(const struct wrk_pipe *p);

#endif
