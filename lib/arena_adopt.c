// Taking over a region that another process left, perhaps in the middle of a store. The
// records say what is used; free lists and counts follow from them. What no correct
// process can have written costs the record it stands in and nothing else.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <sodium.h>

#include "lib/arena_internal.h"

struct adopt {
	struct sp_arena *a;
	struct sp_arena_found *found;
	uint8_t *used; // a bit for each chunk
};

static bool test_and_set(uint8_t *bits, uint32_t i)
{
	bool was = bits[i / 8] & (1u << (i % 8));
	bits[i / 8] |= (uint8_t)(1u << (i % 8));
	return was;
}

// ---- the header ----

static int check_header(const struct arena_header *h, uint64_t bytes)
{
	struct sp_arena_options opt = {
		.max_sessions = h->n[T_SESSIONS],
		.max_streams = h->n[T_STREAMS],
		.max_flows = h->n[T_FLOWS],
		.memory_bytes = h->memory_bytes,
		.program_bytes = h->program_bytes,
	};
	struct arena_header want;
	if (h->magic != ARENA_MAGIC)
		return SP_E_MALFORMED;
	if (h->version != SP_ARENA_VERSION)
		return SP_E_VERSION;
	// Bounded, so that sums below do not overflow.
	if (h->memory_bytes > UINT64_C(1) << 43 || h->n[T_STREAMS] > 1u << 28 ||
	    h->n[T_SESSIONS] > 1u << 28 || h->n[T_FLOWS] > 1u << 28)
		return SP_E_MALFORMED;
	arena_layout(&want, &opt);
	if (want.size > bytes ||
	    memcmp(want.rec_bytes, h->rec_bytes, sizeof(want.rec_bytes)) != 0 ||
	    memcmp(want.n, h->n, sizeof(want.n)) != 0 ||
	    memcmp(want.off, h->off, sizeof(want.off)) != 0 ||
	    want.off_program != h->off_program || want.off_bytes != h->off_bytes ||
	    want.size != h->size)
		return SP_E_MALFORMED;
	for (int i = 0; i < ARENA_TABLES; i++)
		if (h->top[i] > h->n[i])
			return SP_E_MALFORMED;
	return 0;
}

// ---- records ----

// A string that ends, of `cap` bytes.
static bool is_text(const char *s, size_t cap)
{
	return memchr(s, '\0', cap) != NULL;
}

static bool session_holds(const struct sp_session_rec *r)
{
	const struct sp_session_pass *p = &r->pass[r->pass_at & 1];
	return r->pass_at <= 1 && r->adopted <= 1 && r->incarnation != 0 &&
	       is_text(r->user, sizeof(r->user)) && is_text(p->tier, sizeof(p->tier));
}

// Of a free record nothing is left, whatever a process died in the middle of.
static void adopt_session(struct adopt *ad, uint32_t i)
{
	struct sp_session_rec *r = &ad->a->sessions[i];
	if (r->state == SP_REC_LIVE && session_holds(r)) {
		ad->found->sessions++;
		return;
	}
	ad->found->lost += r->state != SP_REC_FREE;
	sodium_memzero(r, sizeof(*r));
	arena_push(&ad->a->free[T_SESSIONS], i);
}

static bool is_live_session(const struct sp_arena *a, uint32_t i)
{
	return i < a->hdr->top[T_SESSIONS] && a->sessions[i].state == SP_REC_LIVE;
}

static bool is_descriptor(int32_t fd)
{
	return fd >= SP_STREAM_DESC_NONE;
}

static bool stream_holds(const struct sp_arena *a, const struct sp_stream_rec *r)
{
	const uint64_t most = UINT64_C(1) << 62; // offsets are varints
	bool rx_fin = r->bits & SP_STREAM_RX_FIN, tx_fin = r->bits & SP_STREAM_TX_FIN;
	return r->rec_state == SP_REC_LIVE && is_live_session(a, r->session) &&
	       r->id != 0 && r->state >= SP_STREAM_DIALLING &&
	       r->state <= SP_STREAM_RESET && r->bits < 2 * SP_STREAM_BROKEN &&
	       is_descriptor(r->fd[0]) && is_descriptor(r->fd[1]) && r->head < most &&
	       r->credit < most && r->credit_given < most &&
	       r->acked <= r->head + tx_fin && r->taken <= r->credit_given + 1 &&
	       (!rx_fin || r->taken <= r->rx_final + 1);
}

// The ring's chunks, in the order of the chain; where it stops being one it ends. What
// was acknowledged needs none.
static void adopt_ring(struct adopt *ad, uint32_t i)
{
	struct sp_arena *a = ad->a;
	struct sp_stream_rec *r = &a->streams[i];
	uint32_t c = r->first;
	r->chunks = 0;
	r->last = SP_ARENA_NONE;
	while (c < a->hdr->top[T_CHUNKS]) {
		const struct arena_claim *cl = &a->claims[c];
		uint64_t want = r->base + (uint64_t)r->chunks * SP_CHUNK_BYTES;
		if (cl->stream != i || (r->chunks && cl->at != want) ||
		    test_and_set(ad->used, c))
			break;
		if (r->chunks++ == 0)
			r->base = cl->at;
		r->last = c;
		c = cl->next;
	}
	if (r->chunks)
		a->claims[r->last].next = SP_ARENA_NONE;
	else
		r->first = SP_ARENA_NONE;
}

static void release_ring(struct adopt *ad, struct sp_stream_rec *r)
{
	uint32_t c = r->first;
	for (; r->chunks; r->chunks--) {
		ad->used[c / 8] &= (uint8_t) ~(1u << (c % 8));
		c = ad->a->claims[c].next;
	}
	r->first = r->last = SP_ARENA_NONE;
	r->base = r->head;
}

// All bytes that the peer has not taken must be there.
static bool ring_holds(const struct sp_stream_rec *r)
{
	if (r->acked >= r->head)
		return true;
	return r->chunks && r->base <= r->acked &&
	       r->head <= r->base + (uint64_t)r->chunks * SP_CHUNK_BYTES;
}

static void adopt_stream(struct adopt *ad, uint32_t i)
{
	struct sp_arena *a = ad->a;
	struct sp_stream_rec *r = &a->streams[i];
	bool was = r->rec_state != SP_REC_FREE;
	if (stream_holds(a, r)) {
		bool over = r->state == SP_STREAM_DONE || r->state == SP_STREAM_RESET;
		adopt_ring(ad, i);
		// A chunk from before what is held: the ring was being let go.
		if (over || (r->acked >= r->head && r->base > r->head))
			release_ring(ad, r);
		if (over || ring_holds(r)) {
			a->unclaimed += SP_ARENA_PROMISED - (r->chunks != 0);
			ad->found->streams++;
			return;
		}
		release_ring(ad, r);
	}
	ad->found->lost += was;
	memset(r, 0, sizeof(*r));
	arena_push(&a->free[T_STREAMS], i);
}

static void adopt_flow(struct adopt *ad, uint32_t i)
{
	struct sp_arena *a = ad->a;
	struct sp_flow_rec *r = &a->flows[i];
	uint8_t kind = r->target.kind;
	bool good = r->rec_state == SP_REC_LIVE && is_live_session(a, r->session) &&
		    r->id != 0 && is_descriptor(r->fd) &&
		    (kind == SP_TARGET_IPV4 || kind == SP_TARGET_IPV6 ||
		     (kind == SP_TARGET_NAME &&
		      is_text(r->target.name, sizeof(r->target.name))));
	if (good) {
		ad->found->flows++;
		return;
	}
	ad->found->lost += r->rec_state != SP_REC_FREE;
	sodium_memzero(r, sizeof(*r));
	arena_push(&a->free[T_FLOWS], i);
}

static void adopt_all(struct adopt *ad)
{
	struct sp_arena *a = ad->a;
	const uint32_t *top = a->hdr->top;
	// Backwards, so that low indices are used again first.
	for (uint32_t i = top[T_SESSIONS]; i-- > 0;)
		adopt_session(ad, i);
	for (uint32_t i = top[T_STREAMS]; i-- > 0;)
		adopt_stream(ad, i);
	for (uint32_t i = top[T_FLOWS]; i-- > 0;)
		adopt_flow(ad, i);
	for (uint32_t i = top[T_CHUNKS]; i-- > 0;)
		if (!(ad->used[i / 8] & (1u << (i % 8))))
			arena_push(&a->free[T_CHUNKS], i);
}

int sp_arena_adopt(int fd, uint64_t offset, struct sp_arena **ret,
		   struct sp_arena_found *found)
{
	struct stat st;
	struct adopt ad = {.found = found};
	*found = (struct sp_arena_found){0};
	if (fstat(fd, &st))
		return -errno;
	if ((uint64_t)st.st_size < offset + sizeof(struct arena_header))
		return SP_E_MALFORMED;
	uint64_t bytes = (uint64_t)st.st_size - offset;
	void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			  fd, (off_t)offset);
	if (base == MAP_FAILED)
		return -errno;
	struct arena_header *h = base;
	int err = check_header(h, bytes);
	if (err) {
		munmap(base, bytes);
		return err;
	}
	if (bytes > h->size)
		munmap((char *)base + h->size, bytes - h->size);
	err = arena_handle(base, &ad.a);
	if (err)
		return err;
	ad.used = calloc(h->top[T_CHUNKS] / 8 + 1, 1);
	if (!ad.used) {
		sp_arena_leave(ad.a);
		return -ENOMEM;
	}
	adopt_all(&ad);
	free(ad.used);
	*ret = ad.a;
	return 0;
}
