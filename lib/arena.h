// The arena: one contiguous region with what of a session and its streams must outlive
// the process-local engine: session records, stream records, and the chunks that hold
// bytes the peer has not taken yet. Records hold indices, never pointers, so a later
// process can map the region anywhere and adopt it. Not here: queues, timers, credit,
// carriers.
//
// `struct sp_arena` is this process's handle: free lists and counts, which are rebuilt by
// marking from the records when another process takes the region over (_adopt). So stores
// are ordered: a process may be killed after any of them, and what lies here then must be
// whole. A record is LIVE last and FREE first; a chunk says whose it is and where it
// stands before anything points to it. Single-threaded.
#ifndef SP_ARENA_H
#define SP_ARENA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "lib/addr.h"
#include "lib/err.h"

#define SP_CHUNK_BYTES 4096
#define SP_ARENA_NONE  UINT32_MAX
#ifndef SP_ARENA_VERSION // a test makes images of other versions
#define SP_ARENA_VERSION 3
#endif

enum sp_rec_state { SP_REC_FREE = 0, SP_REC_LIVE = 1 };

// Of a pass, what outlives the process that checked it.
struct sp_session_pass {
	uint8_t serial[16];
	char tier[33];
	uint32_t max_sessions, max_streams, max_flows;
	uint64_t rate_bps;
	uint64_t not_before_s, expires_s; // Unix seconds
};

struct sp_session_rec {
	uint8_t state;   // enum sp_rec_state
	uint8_t pass_at; // which of `pass` holds: the other is written, then this
	uint8_t adopted; // made from a record of the directory
	uint8_t id[16];
	uint8_t device_key[32];
	char user[65];
	uint32_t epoch;          // highest accepted or used
	uint64_t incarnation;    // drawn by the home when it made the session
	uint64_t highest_stream; // highest stream id opened
	struct sp_session_pass pass[2];
};

enum sp_stream_state {
	SP_STREAM_DIALLING = 1, // OPEN sent or received, not answered
	SP_STREAM_OPEN = 2,
	SP_STREAM_DONE = 3,  // both directions complete; the peer may not know yet
	SP_STREAM_RESET = 4, // reset by this end; the peer may not know yet
};

#define SP_STREAM_TX_FIN    1 // the source ended: the direction ends at `head`
#define SP_STREAM_RX_FIN    2 // the peer's direction ends at `rx_final`
#define SP_STREAM_BROKEN    4 // the destination reset it: ends once `head` is acked
#define SP_STREAM_DESC_NONE (-1)

struct sp_stream_rec {
	uint8_t rec_state; // enum sp_rec_state
	uint8_t state;     // enum sp_stream_state
	uint8_t bits;      // SP_STREAM_*
	uint16_t reason;   // why it was reset
	uint32_t session;  // index of the session's record
	uint64_t id;
	int32_t fd[2];   // descriptors (two while dialling) or SP_STREAM_DESC_NONE
	uint32_t first;  // chunks of the ring towards the peer, or SP_ARENA_NONE
	uint32_t last;   // these three follow from `first`
	uint32_t chunks; // how many
	uint64_t base;   // stream offset of the first chunk's first byte
	uint64_t credit; // granted by the peer
	uint64_t acked;  // taken by the peer; end of the direction counts as one
	uint64_t head;   // bytes from the source so far
	uint64_t taken;  // bytes our sink took; end of the direction counts as one
	uint64_t rx_final;
	uint64_t credit_given; // highest offset granted to the peer
};

// A datagram flow of a worker: its socket keeps its address over a crash.
struct sp_flow_rec {
	uint8_t rec_state; // enum sp_rec_state
	uint32_t session;  // index of the session's record
	int32_t fd;
	uint64_t id;
	struct sp_target target;
};

struct sp_arena_options {
	uint32_t max_sessions;
	uint32_t max_streams;   // records, all sessions
	uint64_t memory_bytes;  // of chunks; SP_ARENA_PROMISED a stream record are added
				// to it (address space: untouched they cost nothing)
	uint32_t max_flows;     // records of datagram flows; 0: none are kept
	uint32_t program_bytes; // for the program's own use, zeros at first
};

struct sp_arena;
struct sp_starved {
	TAILQ_ENTRY(sp_starved) link;
	bool listed;
	void (*wake)(struct sp_starved *self); // memory is free again
};

// Maps and formats a region of zeros; untouched pages cost nothing. 0 and *ret; -ENOMEM.
int sp_arena_new(const struct sp_arena_options *opt, struct sp_arena **ret) SP_MUST_CHECK;
// The same in the file `fd` (a memfd) from `offset` (of whole pages) on, which grows as
// needed and outlives this process. 0 and *ret; -ENOMEM, -errno.
int sp_arena_create(int fd, uint64_t offset, const struct sp_arena_options *opt,
		    struct sp_arena **ret) SP_MUST_CHECK;

// What adopting met with.
struct sp_arena_found {
	uint32_t sessions, streams, flows; // whole
	uint32_t lost; // records of any kind that could not be and are gone
};
// Takes over what another process left in the file. Every field is checked against its
// range; a record that cannot be is wiped, alone. Sizes are those it was created with. 0
// and *ret; SP_E_MALFORMED, SP_E_VERSION: nothing of it can be used; -ENOMEM, -errno.
int sp_arena_adopt(int fd, uint64_t offset, struct sp_arena **ret,
		   struct sp_arena_found *found) SP_MUST_CHECK;
// Makes a region of this image's version, with at least these sizes, of a region at
// `from` of the version before or after it, or of other sizes: behind all that is in the
// file, and the old one is not touched. The copy is to be adopted. `program_bytes` may
// differ: the rest is zeros. 0 and *ret_at, where it is; SP_E_VERSION, SP_E_MALFORMED,
// -errno.
int sp_arena_convert(int fd, uint64_t from, const struct sp_arena_options *opt,
		     uint64_t *ret_at) SP_MUST_CHECK;
// As it was made.
void sp_arena_sizes(const struct sp_arena *a, struct sp_arena_options *ret);
void sp_arena_free(struct sp_arena *a); // wipes what was in use; NULL is fine
// Its pages stay out of swap as they come to be used. 0; -errno: the process may not lock
// so much (RLIMIT_MEMLOCK).
int sp_arena_lock(struct sp_arena *a) SP_MUST_CHECK;
// Lets go without wiping: another process goes on with it.
void sp_arena_leave(struct sp_arena *a);
void *sp_arena_program(struct sp_arena *a, uint32_t *ret_bytes);

// Records: an index, or SP_ARENA_NONE if all are taken. The record is zeroed, and its
// descriptors and chunks are none; it counts once its state is LIVE, which the caller
// sets with sp_arena_live when it is filled in. Freeing wipes it.
uint32_t sp_arena_session_alloc(struct sp_arena *a);
void sp_arena_session_release(struct sp_arena *a, uint32_t index);
struct sp_session_rec *sp_arena_session(struct sp_arena *a, uint32_t index);
uint32_t sp_arena_stream_alloc(struct sp_arena *a);
void sp_arena_stream_release(struct sp_arena *a,
			     uint32_t index); // its ring must be empty
struct sp_stream_rec *sp_arena_stream(struct sp_arena *a, uint32_t index);
uint32_t sp_arena_flow_alloc(struct sp_arena *a);
void sp_arena_flow_release(struct sp_arena *a, uint32_t index);
struct sp_flow_rec *sp_arena_flow(struct sp_arena *a, uint32_t index);
// Records below these have been used since the region was made.
uint32_t sp_arena_session_top(const struct sp_arena *a);
uint32_t sp_arena_stream_top(const struct sp_arena *a);
uint32_t sp_arena_flow_top(const struct sp_arena *a);

// What was stored before is stored before what comes: for a process killed in between.
static inline void sp_arena_fence(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}
static inline void sp_arena_live(uint8_t *state)
{
	sp_arena_fence();
	*(volatile uint8_t *)state = SP_REC_LIVE;
	sp_arena_fence();
}
static inline const struct sp_session_pass *
sp_session_rec_pass(const struct sp_session_rec *r)
{
	return &r->pass[r->pass_at & 1];
}

// The session's record goes with its streams, their chunks and its flows; nothing in this
// process may point to them. Descriptors stay open. Returns how many streams and flows.
uint32_t sp_arena_session_purge(struct sp_arena *a, uint32_t index);

// Where this process says for which session it works, for whoever finds it dead: its
// record's incarnation, or 0. NULL (the default): nowhere. Outlives the handle.
void sp_arena_set_mark(struct sp_arena *a, _Atomic uint64_t *mark);
// Says so until sp_arena_work_was is given what this returns: what was said before.
uint64_t sp_arena_work_for(struct sp_arena *a, uint32_t session);
void sp_arena_work_was(struct sp_arena *a, uint64_t before);

// Chunks of SP_CHUNK_BYTES, linked by `next`. Some are promised: SP_ARENA_PROMISED to
// each live stream record (one for its ring, two for what its sink has not taken, since
// 4096 bytes may lie across a border), and what credit was granted. `promised` draws on
// that, which the caller keeps count of, and never fails; else SP_ARENA_NONE: no memory.
#define SP_ARENA_PROMISED 3
uint32_t sp_arena_chunk_alloc(struct sp_arena *a, bool promised);
// `promised` as at the allocation: the promise holds again.
void sp_arena_chunk_release(struct sp_arena *a, uint32_t chunk, bool promised);
uint8_t *sp_arena_chunk(struct sp_arena *a, uint32_t chunk);
// Wipes chunks that are free, at most `max`; returns how many. Not at each release: what
// is used again at once needs no zeros. Call it now and then; 0: nothing was left to do.
uint32_t sp_arena_wipe(struct sp_arena *a, uint32_t max);
uint32_t sp_arena_chunk_next(const struct sp_arena *a, uint32_t chunk);
void sp_arena_chunk_set_next(struct sp_arena *a, uint32_t chunk, uint32_t next);
// Before it is linked into a ring: whose it is, and the stream offset of its first byte.
void sp_arena_chunk_claim(struct sp_arena *a, uint32_t chunk, uint32_t stream,
			  uint64_t at);
uint64_t sp_arena_chunk_at(const struct sp_arena *a, uint32_t chunk);

// Chunks beyond all promises that can still be had, and the size of that pool.
uint32_t sp_arena_chunks_spare(const struct sp_arena *a);
uint32_t sp_arena_chunks_pool(const struct sp_arena *a);
// Credit granted beyond the guarantees, for the whole process: at most half the pool, and
// only what is spare, for it becomes a promise. Takes whole chunks, up to `want` bytes,
// and returns how many bytes were given; give back with _return.
uint64_t sp_arena_credit_take(struct sp_arena *a, uint64_t want);
void sp_arena_credit_return(struct sp_arena *a, uint64_t bytes);
uint64_t sp_arena_credit_left(const struct sp_arena *a);

// Whoever found no memory waits here and is woken, a few at a time, by _feed.
void sp_arena_starve(struct sp_arena *a, struct sp_starved *st);
void sp_arena_unstarve(struct sp_arena *a, struct sp_starved *st); // not listed: nothing
// Wakes waiters while an eighth of the pool is spare (at most 64 a call).
void sp_arena_feed(struct sp_arena *a);

#endif
