#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/arena_internal.h"

#ifndef ARENA_GAP // a test makes images of another layout
#define ARENA_GAP 0
#endif

static int stack_init(struct free_stack *st, uint32_t total, uint32_t *top)
{
	st->items = calloc(total ? total : 1, sizeof(*st->items));
	st->total = total;
	st->top = top;
	return st->items ? 0 : -ENOMEM;
}

static uint32_t stack_pop(struct free_stack *st)
{
	if (st->n)
		return st->items[--st->n];
	if (*st->top < st->total)
		return (*st->top)++; // before it is used: whoever adopts looks below
	return SP_ARENA_NONE;
}

void arena_push(struct free_stack *st, uint32_t index)
{
	assert(index < *st->top && st->n < *st->top);
	st->items[st->n++] = index;
}

static uint32_t stack_left(const struct free_stack *st)
{
	return st->n + (st->total - *st->top);
}

static uint64_t page_up(uint64_t v)
{
	return (v + SP_CHUNK_BYTES - 1) & ~(uint64_t)(SP_CHUNK_BYTES - 1);
}

void arena_layout(struct arena_header *h, const struct sp_arena_options *opt)
{
	static const uint32_t rec_bytes[ARENA_TABLES] = {
		sizeof(struct sp_session_rec), sizeof(struct sp_stream_rec),
		sizeof(struct sp_flow_rec), sizeof(struct arena_claim)};
	uint64_t at = page_up(sizeof(*h));
	*h = (struct arena_header){
		.version = SP_ARENA_VERSION,
		.oldest = SP_ARENA_VERSION - 1,
		.program_bytes = opt->program_bytes,
		.n = {opt->max_sessions, opt->max_streams, opt->max_flows,
		      (uint32_t)(opt->memory_bytes / SP_CHUNK_BYTES) +
			      SP_ARENA_PROMISED * opt->max_streams},
		.memory_bytes = opt->memory_bytes,
		.off_program = at,
	};
	at = page_up(at + opt->program_bytes);
	for (int i = 0; i < ARENA_TABLES; i++) {
		h->off[i] = at;
		at = page_up(at + (uint64_t)h->n[i] * rec_bytes[i]);
	}
	memcpy(h->rec_bytes, rec_bytes, sizeof(rec_bytes));
	h->off_bytes = at + ARENA_GAP;
	h->size = h->off_bytes + (uint64_t)h->n[T_CHUNKS] * SP_CHUNK_BYTES;
}

int arena_handle(void *base, struct sp_arena **ret)
{
	struct arena_header *h = base;
	struct sp_arena *a = calloc(1, sizeof(*a));
	uint64_t size = h->size;
	if (!a) {
		munmap(base, size);
		return -ENOMEM;
	}
	TAILQ_INIT(&a->starved);
	// Plaintext and secrets do not belong into a core dump.
	(void)madvise(base, size, MADV_DONTDUMP);
	a->base = base;
	a->hdr = h;
	a->size = size;
	a->sessions = (struct sp_session_rec *)(a->base + h->off[T_SESSIONS]);
	a->streams = (struct sp_stream_rec *)(a->base + h->off[T_STREAMS]);
	a->flows = (struct sp_flow_rec *)(a->base + h->off[T_FLOWS]);
	a->claims = (struct arena_claim *)(a->base + h->off[T_CHUNKS]);
	a->chunks = a->base + h->off_bytes;
	a->credit_max = h->memory_bytes / 2;
	for (int i = 0; i < ARENA_TABLES; i++)
		if (stack_init(&a->free[i], h->n[i], &h->top[i])) {
			sp_arena_leave(a);
			return -ENOMEM;
		}
	*ret = a;
	return 0;
}

static int format(void *base, const struct arena_header *h, struct sp_arena **ret)
{
	struct arena_header *at = base;
	if (base == MAP_FAILED)
		return -ENOMEM;
	*at = *h;
	sp_arena_fence();
	at->magic = ARENA_MAGIC;
	return arena_handle(base, ret);
}

int sp_arena_new(const struct sp_arena_options *opt, struct sp_arena **ret)
{
	struct arena_header h;
	arena_layout(&h, opt);
	return format(mmap(NULL, h.size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
		      &h, ret);
}

int sp_arena_create(int fd, uint64_t offset, const struct sp_arena_options *opt,
		    struct sp_arena **ret)
{
	struct arena_header h;
	arena_layout(&h, opt);
	// Whatever lay there is gone: shorter first, then holes of zeros.
	if (ftruncate(fd, (off_t)offset) || ftruncate(fd, (off_t)(offset + h.size)))
		return -errno;
	return format(mmap(NULL, h.size, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_NORESERVE, fd, (off_t)offset),
		      &h, ret);
}

int sp_arena_lock(struct sp_arena *a)
{
	return mlock2(a->base, a->size, MLOCK_ONFAULT) ? -errno : 0;
}

void sp_arena_leave(struct sp_arena *a)
{
	if (!a)
		return;
	munmap(a->base, a->size);
	for (int i = 0; i < ARENA_TABLES; i++)
		free(a->free[i].items);
	free(a);
}

void sp_arena_free(struct sp_arena *a)
{
	if (!a)
		return;
	const struct arena_header *h = a->hdr;
	a->hdr->magic = 0;
	sodium_memzero(a->base + h->off_program, h->program_bytes);
	sodium_memzero(a->sessions, h->top[T_SESSIONS] * sizeof(*a->sessions));
	sodium_memzero(a->flows, h->top[T_FLOWS] * sizeof(*a->flows));
	sodium_memzero(a->chunks, (size_t)h->top[T_CHUNKS] * SP_CHUNK_BYTES);
	sp_arena_leave(a);
}

void *sp_arena_program(struct sp_arena *a, uint32_t *ret_bytes)
{
	*ret_bytes = a->hdr->program_bytes;
	return a->base + a->hdr->off_program;
}

// ---- records ----

uint32_t sp_arena_session_alloc(struct sp_arena *a)
{
	uint32_t i = stack_pop(&a->free[T_SESSIONS]);
	if (i != SP_ARENA_NONE)
		memset(&a->sessions[i], 0, sizeof(a->sessions[i]));
	return i;
}

void sp_arena_session_release(struct sp_arena *a, uint32_t index)
{
	a->sessions[index].state = SP_REC_FREE;
	sp_arena_fence();
	sodium_memzero(&a->sessions[index], sizeof(a->sessions[index]));
	arena_push(&a->free[T_SESSIONS], index);
}

struct sp_session_rec *sp_arena_session(struct sp_arena *a, uint32_t index)
{
	assert(index < a->hdr->n[T_SESSIONS]);
	return &a->sessions[index];
}

uint32_t sp_arena_stream_alloc(struct sp_arena *a)
{
	uint32_t i = stack_pop(&a->free[T_STREAMS]);
	if (i == SP_ARENA_NONE)
		return i;
	struct sp_stream_rec *r = &a->streams[i];
	memset(r, 0, sizeof(*r));
	r->fd[0] = r->fd[1] = SP_STREAM_DESC_NONE;
	r->first = r->last = SP_ARENA_NONE;
	a->unclaimed += SP_ARENA_PROMISED;
	return i;
}

void sp_arena_stream_release(struct sp_arena *a, uint32_t index)
{
	assert(a->streams[index].chunks == 0);
	a->streams[index].rec_state = SP_REC_FREE;
	sp_arena_fence();
	memset(&a->streams[index], 0, sizeof(a->streams[index]));
	a->unclaimed -= SP_ARENA_PROMISED;
	arena_push(&a->free[T_STREAMS], index);
}

struct sp_stream_rec *sp_arena_stream(struct sp_arena *a, uint32_t index)
{
	assert(index < a->hdr->n[T_STREAMS]);
	return &a->streams[index];
}

uint32_t sp_arena_flow_alloc(struct sp_arena *a)
{
	uint32_t i = stack_pop(&a->free[T_FLOWS]);
	if (i == SP_ARENA_NONE)
		return i;
	memset(&a->flows[i], 0, sizeof(a->flows[i]));
	a->flows[i].fd = SP_STREAM_DESC_NONE;
	return i;
}

void sp_arena_flow_release(struct sp_arena *a, uint32_t index)
{
	a->flows[index].rec_state = SP_REC_FREE;
	sp_arena_fence();
	sodium_memzero(&a->flows[index], sizeof(a->flows[index]));
	arena_push(&a->free[T_FLOWS], index);
}

struct sp_flow_rec *sp_arena_flow(struct sp_arena *a, uint32_t index)
{
	assert(index < a->hdr->n[T_FLOWS]);
	return &a->flows[index];
}

uint32_t sp_arena_session_purge(struct sp_arena *a, uint32_t index)
{
	uint32_t n = 0;
	a->sessions[index].state = SP_REC_FREE;
	sp_arena_fence();
	for (uint32_t i = 0; i < a->hdr->top[T_STREAMS]; i++) {
		struct sp_stream_rec *r = &a->streams[i];
		if (r->rec_state != SP_REC_LIVE || r->session != index)
			continue;
		for (bool first = true; r->chunks; r->chunks--, first = false) {
			uint32_t c = r->first;
			r->first = a->claims[c].next;
			sp_arena_chunk_release(a, c, first);
		}
		sp_arena_stream_release(a, i);
		n++;
	}
	for (uint32_t i = 0; i < a->hdr->top[T_FLOWS]; i++)
		if (a->flows[i].rec_state == SP_REC_LIVE &&
		    a->flows[i].session == index) {
			sp_arena_flow_release(a, i);
			n++;
		}
	sp_arena_session_release(a, index);
	return n;
}

// ---- whom this process works for ----

void sp_arena_set_mark(struct sp_arena *a, _Atomic uint64_t *mark)
{
	a->mark = mark;
}

uint64_t sp_arena_work_for(struct sp_arena *a, uint32_t session)
{
	if (!a->mark)
		return 0;
	uint64_t before = atomic_load_explicit(a->mark, memory_order_relaxed);
	atomic_store_explicit(a->mark, a->sessions[session].incarnation,
			      memory_order_relaxed);
	return before;
}

void sp_arena_work_was(struct sp_arena *a, uint64_t before)
{
	if (a->mark)
		atomic_store_explicit(a->mark, before, memory_order_relaxed);
}

uint32_t sp_arena_session_top(const struct sp_arena *a)
{
	return a->hdr->top[T_SESSIONS];
}

uint32_t sp_arena_stream_top(const struct sp_arena *a)
{
	return a->hdr->top[T_STREAMS];
}

uint32_t sp_arena_flow_top(const struct sp_arena *a)
{
	return a->hdr->top[T_FLOWS];
}

// ---- chunks ----

uint32_t sp_arena_chunks_spare(const struct sp_arena *a)
{
	uint32_t left = stack_left(&a->free[T_CHUNKS]);
	// Chunks promised to record slots not in use yet belong to the guarantees too.
	uint64_t promised = a->unclaimed +
			    (uint64_t)SP_ARENA_PROMISED * stack_left(&a->free[T_STREAMS]);
	return left > promised ? left - (uint32_t)promised : 0;
}

uint32_t sp_arena_chunks_pool(const struct sp_arena *a)
{
	return a->hdr->n[T_CHUNKS] - SP_ARENA_PROMISED * a->hdr->n[T_STREAMS];
}

uint32_t sp_arena_chunk_alloc(struct sp_arena *a, bool promised)
{
	if (!promised && sp_arena_chunks_spare(a) == 0)
		return SP_ARENA_NONE;
	assert(!promised || a->unclaimed > 0);
	uint32_t i = stack_pop(&a->free[T_CHUNKS]);
	assert(i != SP_ARENA_NONE);
	if (a->clean > a->free[T_CHUNKS].n)
		a->clean = a->free[T_CHUNKS].n;
	a->unclaimed -= promised;
	a->claims[i].next = SP_ARENA_NONE;
	a->claims[i].stream = SP_ARENA_NONE;
	return i;
}

void sp_arena_chunk_release(struct sp_arena *a, uint32_t chunk, bool promised)
{
	a->unclaimed += promised;
	arena_push(&a->free[T_CHUNKS], chunk);
}

uint32_t sp_arena_wipe(struct sp_arena *a, uint32_t max)
{
	const struct free_stack *st = &a->free[T_CHUNKS];
	uint32_t n = 0;
	for (; a->clean < st->n && n < max; n++)
		sodium_memzero(sp_arena_chunk(a, st->items[a->clean++]), SP_CHUNK_BYTES);
	return n;
}

uint8_t *sp_arena_chunk(struct sp_arena *a, uint32_t chunk)
{
	return a->chunks + (size_t)chunk * SP_CHUNK_BYTES;
}

uint32_t sp_arena_chunk_next(const struct sp_arena *a, uint32_t chunk)
{
	return a->claims[chunk].next;
}

void sp_arena_chunk_set_next(struct sp_arena *a, uint32_t chunk, uint32_t next)
{
	sp_arena_fence();
	a->claims[chunk].next = next;
}

void sp_arena_chunk_claim(struct sp_arena *a, uint32_t chunk, uint32_t stream,
			  uint64_t at)
{
	sp_arena_fence();
	a->claims[chunk].stream = stream;
	a->claims[chunk].at = at;
	sp_arena_fence();
}

uint64_t sp_arena_chunk_at(const struct sp_arena *a, uint32_t chunk)
{
	return a->claims[chunk].at;
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
