// A region that an image of the version before or after this one made, or one of other
// sizes, as a region of this image's own: a copy behind it. The old one is only read, so
// that its image can go on with it. Not here: whether its records hold (arena_adopt.c).
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/arena_internal.h"

#define MAX_RECORDS   (1u << 28)
#define MAX_REC_BYTES 4096
#define MAX_MEMORY    (UINT64_C(1) << 43)

// Version 2 did not say them.
static const uint32_t rec_bytes_2[ARENA_TABLES] = {312, 104, 288, 16};

static const uint32_t *rec_bytes(const struct arena_header *h)
{
	return h->version == 2 ? rec_bytes_2 : h->rec_bytes;
}

static bool lies_within(const struct arena_header *h, uint64_t at, uint64_t bytes)
{
	return at >= SP_CHUNK_BYTES && at <= h->size && bytes <= h->size - at &&
	       at % sizeof(uint64_t) == 0;
}

static bool is_known(const struct arena_header *h)
{
	if (h->version <= SP_ARENA_VERSION)
		return h->version + 1 >= SP_ARENA_VERSION;
	return h->version == SP_ARENA_VERSION + 1 && h->oldest <= SP_ARENA_VERSION;
}

static int check_foreign(const struct arena_header *h, uint64_t bytes)
{
	if (h->magic != ARENA_MAGIC)
		return SP_E_MALFORMED;
	if (!is_known(h))
		return SP_E_VERSION;
	const uint32_t *rec = rec_bytes(h);
	if (h->size > bytes || h->memory_bytes > MAX_MEMORY ||
	    !lies_within(h, h->off_program, h->program_bytes))
		return SP_E_MALFORMED;
	for (int i = 0; i < ARENA_TABLES; i++)
		if (h->n[i] > MAX_RECORDS || h->top[i] > h->n[i] ||
		    rec[i] < rec_bytes_2[i] || rec[i] > MAX_REC_BYTES ||
		    !lies_within(h, h->off[i], (uint64_t)h->n[i] * rec[i]))
			return SP_E_MALFORMED;
	if (!lies_within(h, h->off_bytes, (uint64_t)h->n[T_CHUNKS] * SP_CHUNK_BYTES))
		return SP_E_MALFORMED;
	return 0;
}

// What is asked for, and room for all that is in use, under the same numbers.
static void fit(const struct arena_header *h, struct sp_arena_options *opt)
{
	if (opt->max_sessions < h->top[T_SESSIONS])
		opt->max_sessions = h->top[T_SESSIONS];
	if (opt->max_streams < h->top[T_STREAMS])
		opt->max_streams = h->top[T_STREAMS];
	if (opt->max_flows < h->top[T_FLOWS])
		opt->max_flows = h->top[T_FLOWS];
	uint64_t promised = (uint64_t)SP_ARENA_PROMISED * opt->max_streams;
	uint64_t pool = h->top[T_CHUNKS] > promised ? h->top[T_CHUNKS] - promised : 0;
	if (opt->memory_bytes < pool * SP_CHUNK_BYTES)
		opt->memory_bytes = pool * SP_CHUNK_BYTES;
}

// Fields are only appended: what one of the two does not know is left out, or zero.
static void copy_table(uint8_t *to, const struct arena_header *th, const uint8_t *from,
		       const struct arena_header *fh, enum arena_table i)
{
	uint32_t has = rec_bytes(fh)[i], wants = th->rec_bytes[i];
	uint32_t bytes = has < wants ? has : wants;
	for (uint32_t k = 0; k < fh->top[i]; k++)
		memcpy(to + th->off[i] + (uint64_t)k * wants,
		       from + fh->off[i] + (uint64_t)k * has, bytes);
}

// Bytes of chunks that a stream's record may reach; what is free is not worth its pages.
static void copy_chunks(uint8_t *to, const struct arena_header *th, const uint8_t *from,
			const struct arena_header *fh)
{
	const struct arena_claim *claims =
		(const struct arena_claim *)(to + th->off[T_CHUNKS]);
	const struct sp_stream_rec *streams =
		(const struct sp_stream_rec *)(to + th->off[T_STREAMS]);
	for (uint32_t c = 0; c < fh->top[T_CHUNKS]; c++) {
		uint32_t of = claims[c].stream;
		if (of < fh->top[T_STREAMS] && streams[of].rec_state == SP_REC_LIVE)
			memcpy(to + th->off_bytes + (uint64_t)c * SP_CHUNK_BYTES,
			       from + fh->off_bytes + (uint64_t)c * SP_CHUNK_BYTES,
			       SP_CHUNK_BYTES);
	}
}

static void copy_all(uint8_t *to, struct arena_header *th, const uint8_t *from,
		     const struct arena_header *fh)
{
	struct arena_header *at = (struct arena_header *)to;
	uint32_t program = fh->program_bytes < th->program_bytes ? fh->program_bytes
								 : th->program_bytes;
	memcpy(th->top, fh->top, sizeof(th->top));
	*at = *th;
	memcpy(to + th->off_program, from + fh->off_program, program);
	for (int i = 0; i < ARENA_TABLES; i++)
		copy_table(to, th, from, fh, (enum arena_table)i);
	copy_chunks(to, th, from, fh);
	sp_arena_fence();
	at->magic = ARENA_MAGIC;
}

static int convert(int fd, const uint8_t *from, uint64_t bytes, uint64_t file_bytes,
		   const struct sp_arena_options *opt, uint64_t *ret_at)
{
	// As it was when it was checked, whoever else has the file.
	struct arena_header fh = *(const struct arena_header *)from, th;
	struct sp_arena_options o = *opt;
	uint64_t at = (file_bytes + SP_CHUNK_BYTES - 1) & ~(uint64_t)(SP_CHUNK_BYTES - 1);
	int err = check_foreign(&fh, bytes);
	if (err)
		return err;
	fit(&fh, &o);
	arena_layout(&th, &o);
	if (ftruncate(fd, (off_t)(at + th.size)))
		return -errno;
	uint8_t *to = mmap(NULL, th.size, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_NORESERVE, fd, (off_t)at);
	if (to == MAP_FAILED) {
		err = -errno;
		(void)!ftruncate(fd, (off_t)file_bytes);
		return err;
	}
	copy_all(to, &th, from, &fh);
	munmap(to, th.size);
	*ret_at = at;
	return 0;
}

int sp_arena_convert(int fd, uint64_t from, const struct sp_arena_options *opt,
		     uint64_t *ret_at)
{
	struct stat st;
	if (fstat(fd, &st))
		return -errno;
	if ((uint64_t)st.st_size < from + SP_CHUNK_BYTES)
		return SP_E_MALFORMED;
	uint64_t bytes = (uint64_t)st.st_size - from;
	uint8_t *map =
		mmap(NULL, bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, (off_t)from);
	if (map == MAP_FAILED)
		return -errno;
	int err = convert(fd, map, bytes, (uint64_t)st.st_size, opt, ret_at);
	munmap(map, bytes);
	return err;
}

void sp_arena_sizes(const struct sp_arena *a, struct sp_arena_options *ret)
{
	const struct arena_header *h = a->hdr;
	*ret = (struct sp_arena_options){
		.max_sessions = h->n[T_SESSIONS],
		.max_streams = h->n[T_STREAMS],
		.memory_bytes = h->memory_bytes,
		.max_flows = h->n[T_FLOWS],
		.program_bytes = h->program_bytes,
	};
}
