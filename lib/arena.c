#include "lib/arena.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <sodium.h>

// What lies at the start of the region.
struct arena_header {
	char magic[8];
	uint32_t version;
	uint32_t n_sessions, n_streams, n_chunks;
	uint64_t off_sessions, off_streams, off_next, off_chunks, size;
};

// A stack of free indices; grows from `fresh` so that untouched pages stay untouched.
struct free_stack {
	uint32_t *items;
	uint32_t n;
	uint32_t fresh; // indices >= fresh were never used
	uint32_t total;
};

struct sp_arena {
	uint8_t *base;
	struct arena_header *hdr;
	struct sp_session_rec *sessions;
	struct sp_stream_rec *streams;
	uint32_t *next;
	uint8_t *chunks;
	struct free_stack free_sessions, free_streams, free_chunks;
	uint32_t unclaimed; // promised chunks not drawn yet
	uint64_t credit_max, credit_used;
	TAILQ_HEAD(starved_list, sp_starved) starved;
};

static int stack_init(struct free_stack *st, uint32_t total)
{
	st->items = calloc(total ? total : 1, sizeof(*st->items));
	st->total = total;
	return st->items ? 0 : -ENOMEM;
}

static uint32_t stack_pop(struct free_stack *st)
{
	if (st->n)
		return st->items[--st->n];
	if (st->fresh < st->total)
		return st->fresh++;
	return SP_ARENA_NONE;
}

static void stack_push(struct free_stack *st, uint32_t index)
{
	assert(index < st->fresh && st->n < st->fresh);
	st->items[st->n++] = index;
}

static uint32_t stack_left(const struct free_stack *st)
{
	return st->n + (st->total - st->fresh);
}

static uint64_t page_up(uint64_t v)
{
	return (v + SP_CHUNK_BYTES - 1) & ~(uint64_t)(SP_CHUNK_BYTES - 1);
}

static void layout(struct arena_header *h, const struct sp_arena_options *opt)
{
	memcpy(h->magic, "SPARENA", 8);
	h->version = SP_ARENA_VERSION;
	h->n_sessions = opt->max_sessions;
	h->n_streams = opt->max_streams;
	h->n_chunks = (uint32_t)(opt->memory_bytes / SP_CHUNK_BYTES) +
		      SP_ARENA_PROMISED * opt->max_streams;
	h->off_sessions = page_up(sizeof(*h));
	h->off_streams =
		page_up(h->off_sessions + h->n_sessions * sizeof(struct sp_session_rec));
	h->off_next =
		page_up(h->off_streams + h->n_streams * sizeof(struct sp_stream_rec));
	h->off_chunks = page_up(h->off_next + h->n_chunks * sizeof(uint32_t));
	h->size = h->off_chunks + (uint64_t)h->n_chunks * SP_CHUNK_BYTES;
}

int sp_arena_new(const struct sp_arena_options *opt, struct sp_arena **ret)
{
	struct arena_header h = {0};
	layout(&h, opt);
	struct sp_arena *a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	TAILQ_INIT(&a->starved);
	a->base = mmap(NULL, h.size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (a->base == MAP_FAILED) {
		a->base = NULL;
		goto nomem;
	}
	// Plaintext and secrets do not belong into a core dump.
	(void)madvise(a->base, h.size, MADV_DONTDUMP);
	a->hdr = (struct arena_header *)a->base;
	*a->hdr = h;
	a->sessions = (struct sp_session_rec *)(a->base + h.off_sessions);
	a->streams = (struct sp_stream_rec *)(a->base + h.off_streams);
	a->next = (uint32_t *)(a->base + h.off_next);
	a->chunks = a->base + h.off_chunks;
	a->credit_max = opt->memory_bytes / 2;
	if (stack_init(&a->free_sessions, h.n_sessions) ||
	    stack_init(&a->free_streams, h.n_streams) ||
	    stack_init(&a->free_chunks, h.n_chunks))
		goto nomem;
	*ret = a;
	return 0;
nomem:
	sp_arena_free(a);
	return -ENOMEM;
}

void sp_arena_free(struct sp_arena *a)
{
	if (!a)
		return;
	if (a->base) {
		sodium_memzero(a->sessions,
			       a->free_sessions.fresh * sizeof(struct sp_session_rec));
		sodium_memzero(a->chunks, (size_t)a->free_chunks.fresh * SP_CHUNK_BYTES);
		munmap(a->base, a->hdr->size);
	}
	free(a->free_sessions.items);
	free(a->free_streams.items);
	free(a->free_chunks.items);
	free(a);
}

uint32_t sp_arena_session_alloc(struct sp_arena *a)
{
	uint32_t i = stack_pop(&a->free_sessions);
	if (i == SP_ARENA_NONE)
		return i;
	memset(&a->sessions[i], 0, sizeof(a->sessions[i]));
	a->sessions[i].state = SP_REC_LIVE;
	return i;
}

void sp_arena_session_release(struct sp_arena *a, uint32_t index)
{
	sodium_memzero(&a->sessions[index], sizeof(a->sessions[index]));
	stack_push(&a->free_sessions, index);
}

struct sp_session_rec *sp_arena_session(struct sp_arena *a, uint32_t index)
{
	assert(index < a->hdr->n_sessions);
	return &a->sessions[index];
}

uint32_t sp_arena_stream_alloc(struct sp_arena *a)
{
	uint32_t i = stack_pop(&a->free_streams);
	if (i == SP_ARENA_NONE)
		return i;
	struct sp_stream_rec *r = &a->streams[i];
	memset(r, 0, sizeof(*r));
	r->fd[0] = r->fd[1] = SP_STREAM_DESC_NONE;
	r->first = r->last = SP_ARENA_NONE;
	r->rec_state = SP_REC_LIVE;
	a->unclaimed += SP_ARENA_PROMISED;
	return i;
}

void sp_arena_stream_release(struct sp_arena *a, uint32_t index)
{
	assert(a->streams[index].chunks == 0);
	sodium_memzero(&a->streams[index], sizeof(a->streams[index]));
	a->unclaimed -= SP_ARENA_PROMISED;
	stack_push(&a->free_streams, index);
}

struct sp_stream_rec *sp_arena_stream(struct sp_arena *a, uint32_t index)
{
	assert(index < a->hdr->n_streams);
	return &a->streams[index];
}

uint32_t sp_arena_chunks_spare(const struct sp_arena *a)
{
	uint32_t left = stack_left(&a->free_chunks);
	// Chunks promised to record slots not in use yet belong to the guarantees too.
	uint64_t promised =
		a->unclaimed + (uint64_t)SP_ARENA_PROMISED * stack_left(&a->free_streams);
	return left > promised ? left - (uint32_t)promised : 0;
}

uint32_t sp_arena_chunks_pool(const struct sp_arena *a)
{
	return a->hdr->n_chunks - SP_ARENA_PROMISED * a->hdr->n_streams;
}

uint32_t sp_arena_chunk_alloc(struct sp_arena *a, bool promised)
{
	if (!promised && sp_arena_chunks_spare(a) == 0)
		return SP_ARENA_NONE;
	assert(!promised || a->unclaimed > 0);
	uint32_t i = stack_pop(&a->free_chunks);
	assert(i != SP_ARENA_NONE);
	a->unclaimed -= promised;
	a->next[i] = SP_ARENA_NONE;
	return i;
}

void sp_arena_chunk_release(struct sp_arena *a, uint32_t chunk, bool promised)
{
	a->unclaimed += promised;
	stack_push(&a->free_chunks, chunk);
}

uint8_t *sp_arena_chunk(struct sp_arena *a, uint32_t chunk)
{
	return a->chunks + (size_t)chunk * SP_CHUNK_BYTES;
}

uint32_t sp_arena_chunk_next(const struct sp_arena *a, uint32_t chunk)
{
	return a->next[chunk];
}

void sp_arena_chunk_set_next(struct sp_arena *a, uint32_t chunk, uint32_t next)
{
	a->next[chunk] = next;
}

uint64_t sp_arena_credit_left(const struct sp_arena *a)
{
	return a->credit_max - a->credit_used;
}

uint64_t sp_arena_credit_take(struct sp_arena *a, uint64_t want)
{
	uint64_t left = sp_arena_credit_left(a);
	uint64_t chunks = (want < left ? want : left) / SP_CHUNK_BYTES;
	uint32_t spare = sp_arena_chunks_spare(a);
	if (chunks > spare)
		chunks = spare;
	a->credit_used += chunks * SP_CHUNK_BYTES;
	a->unclaimed += (uint32_t)chunks;
	return chunks * SP_CHUNK_BYTES;
}

void sp_arena_credit_return(struct sp_arena *a, uint64_t bytes)
{
	assert(bytes <= a->credit_used && bytes % SP_CHUNK_BYTES == 0);
	assert(a->unclaimed >= bytes / SP_CHUNK_BYTES);
	a->credit_used -= bytes;
	a->unclaimed -= (uint32_t)(bytes / SP_CHUNK_BYTES);
}

void sp_arena_starve(struct sp_arena *a, struct sp_starved *st)
{
	if (st->listed)
		return;
	st->listed = true;
	TAILQ_INSERT_TAIL(&a->starved, st, link);
}

void sp_arena_unstarve(struct sp_arena *a, struct sp_starved *st)
{
	if (!st->listed)
		return;
	st->listed = false;
	TAILQ_REMOVE(&a->starved, st, link);
}

void sp_arena_feed(struct sp_arena *a)
{
	for (int i = 0; i < 64 && !TAILQ_EMPTY(&a->starved); i++) {
		uint32_t spare = sp_arena_chunks_spare(a);
		if (spare == 0 || spare < sp_arena_chunks_pool(a) / 8)
			return;
		struct sp_starved *st = TAILQ_FIRST(&a->starved);
		sp_arena_unstarve(a, st);
		st->wake(st);
	}
}
