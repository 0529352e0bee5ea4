// What arena.c and arena_adopt.c share; nobody else includes this.
#ifndef SP_ARENA_INTERNAL_H
#define SP_ARENA_INTERNAL_H

#include "lib/arena.h"

#define ARENA_MAGIC UINT64_C(0x32414e4552415053) // "SPARENA2"

// A table of the region: `n` records of which those below `top` were ever used.
enum arena_table { T_SESSIONS, T_STREAMS, T_FLOWS, T_CHUNKS, ARENA_TABLES };

// What lies at the start of the region; all but `top` stays as it was made. Fields are
// only appended, here and to records, and zeros say that they are not known: so the
// images of two versions in a row can use one another's regions (arena_convert.c).
struct arena_header {
	uint64_t magic; // written last
	uint32_t version;
	uint32_t program_bytes;
	uint32_t n[ARENA_TABLES];
	uint32_t top[ARENA_TABLES];
	uint64_t off[ARENA_TABLES]; // of chunks: their claims
	uint64_t off_program, off_bytes, size, memory_bytes;
	// since version 3
	uint32_t oldest; // version that can make use of it
	uint32_t rec_bytes[ARENA_TABLES];
};

// Whose a chunk is and where in the stream; counts when it is reached from a record.
struct arena_claim {
	uint32_t next;
	uint32_t stream;
	uint64_t at; // stream offset of its first byte
};

// A stack of free indices; grows from `top` so that untouched pages stay untouched.
struct free_stack {
	uint32_t *items;
	uint32_t n;
	uint32_t *top; // in the header
	uint32_t total;
};

struct sp_arena {
	uint8_t *base;
	struct arena_header *hdr;
	struct sp_session_rec *sessions;
	struct sp_stream_rec *streams;
	struct sp_flow_rec *flows;
	struct arena_claim *claims;
	uint8_t *chunks;
	struct free_stack free[ARENA_TABLES];
	uint64_t size;      // of the region
	uint64_t unclaimed; // promised chunks not drawn yet
	uint64_t credit_max, credit_used;
	TAILQ_HEAD(starved_list, sp_starved) starved;
	_Atomic uint64_t *mark; // or NULL
	uint32_t clean; // free chunks at the bottom of their stack that hold zeros
};

void arena_layout(struct arena_header *h, const struct sp_arena_options *opt);
// The handle of a region whose header holds, with empty stacks. 0 and *ret; -ENOMEM; then
// the mapping is gone.
int arena_handle(void *base, struct sp_arena **ret);
void arena_push(struct free_stack *st, uint32_t index);

#endif
