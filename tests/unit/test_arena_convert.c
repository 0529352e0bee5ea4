#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/arena_internal.h"

#define BEFORE 4096 // what lies in front of a region, as in a worker

// The layout of version 2, written down once more: what images of that version left.
struct header_2 {
	uint64_t magic;
	uint32_t version, program_bytes, n[4], top[4];
	uint64_t off[4], off_program, off_bytes, size, memory_bytes;
};
struct session_2 {
	uint8_t state, pass_at, adopted, id[16], device_key[32];
	char user[65];
	uint32_t epoch;
	uint64_t incarnation, highest_stream;
	struct {
		uint8_t serial[16];
		char tier[33];
		uint32_t max_sessions, max_streams, max_flows;
		uint64_t rate_bps, not_before_s, expires_s;
	} pass[2];
};
struct stream_2 {
	uint8_t rec_state, state, bits;
	uint16_t reason;
	uint32_t session;
	uint64_t id;
	int32_t fd[2];
	uint32_t first, last, chunks;
	uint64_t base, credit, acked, head, taken, rx_final, credit_given;
};
struct claim_2 {
	uint32_t next, stream;
	uint64_t at;
};

#define SESSIONS 4
#define STREAMS  5
#define FLOWS    2
#define CHUNKS   23 // 8, and 3 a stream

// Of records that are `tail` bytes longer than those of version 2.
static int region(uint32_t version, uint32_t oldest, uint32_t tail, struct header_2 *ret)
{
	const uint32_t rec[] = {312 + tail, 104 + tail, 288 + tail, 16 + tail};
	struct header_2 h = {
		.magic = ARENA_MAGIC,
		.version = version,
		.program_bytes = 100,
		.n = {SESSIONS, STREAMS, FLOWS, CHUNKS},
		.top = {2, 2, 0, 3},
		.off_program = 4096,
		.memory_bytes = 8 * 4096,
	};
	uint64_t at = 2 * 4096;
	for (int i = 0; i < 4; i++) {
		h.off[i] = at;
		at = (at + (uint64_t)h.n[i] * rec[i] + 4095) & ~UINT64_C(4095);
	}
	h.off_bytes = at;
	h.size = at + CHUNKS * 4096;
	int fd = memfd_create("old", MFD_CLOEXEC);
	assert_true(fd >= 0 && ftruncate(fd, (off_t)(BEFORE + h.size)) == 0);
	assert_int_equal(pwrite(fd, &h, sizeof(h), BEFORE), sizeof(h));
	if (version > 2) {
		assert_int_equal(pwrite(fd, &oldest, 4, BEFORE + sizeof(h)), 4);
		assert_int_equal(pwrite(fd, rec, 16, BEFORE + sizeof(h) + 4), 16);
	}
	*ret = h;
	return fd;
}

static void put(int fd, uint64_t at, const void *data, size_t len)
{
	assert_int_equal(pwrite(fd, data, len, (off_t)(BEFORE + at)), (ssize_t)len);
}

static uint8_t byte_of(uint64_t offset)
{
	return (uint8_t)(offset * 7 + offset / 4096);
}

// One session, and one stream with 5000 bytes that the client has not taken, in chunks 2
// and 0.
static int filled(uint32_t version, uint32_t oldest, uint32_t tail)
{
	struct header_2 h;
	int fd = region(version, oldest, tail, &h);
	struct session_2 s = {.state = 1, .epoch = 77, .incarnation = 4711};
	struct stream_2 st = {
		.rec_state = 1,
		.state = SP_STREAM_OPEN,
		.session = 1,
		.id = 9,
		.fd = {12, -1},
		.first = 2,
		.last = 0,
		.chunks = 2,
		.base = 8192,
		.acked = 8200,
		.head = 13200,
		.taken = 42,
		.credit = 65536,
		.credit_given = 65536,
	};
	const struct claim_2 claims[] = {{UINT32_MAX, 0, 12288}, {7, 4, 0}, {0, 0, 8192}};
	uint8_t chunk[4096];
	strcpy(s.user, "anna");
	strcpy(s.pass[0].tier, "standard");
	put(fd, h.off_program, "for the program", 16);
	put(fd, h.off[0] + 312 + tail, &s, sizeof(s)); // the second record
	put(fd, h.off[1], &st, sizeof(st));
	for (unsigned i = 0; i < 3; i++) {
		put(fd, h.off[3] + i * (16 + tail), &claims[i], sizeof(claims[i]));
		for (unsigned k = 0; k < 4096; k++)
			chunk[k] = byte_of(claims[i].at + k);
		put(fd, h.off_bytes + i * 4096, chunk, 4096);
	}
	return fd;
}

static const struct sp_arena_options same = {
	.max_sessions = SESSIONS,
	.max_streams = STREAMS,
	.max_flows = FLOWS,
	.memory_bytes = 8 * 4096,
	.program_bytes = 100,
};

static void check_stream(struct sp_arena *a)
{
	const struct sp_stream_rec *r = sp_arena_stream(a, 0);
	assert_int_equal(r->rec_state, SP_REC_LIVE);
	assert_int_equal(r->id, 9);
	assert_int_equal(r->fd[0], 12);
	assert_int_equal(r->taken, 42);
	assert_int_equal(r->chunks, 2);
	uint32_t c = r->first;
	for (uint64_t at = r->acked; at < r->head; at++) {
		if (at == r->base + 4096)
			c = sp_arena_chunk_next(a, c);
		assert_int_equal(sp_arena_chunk(a, c)[at % 4096], byte_of(at));
	}
}

static void adopt_and_check(int fd, uint64_t at)
{
	struct sp_arena *a;
	struct sp_arena_found found;
	uint32_t bytes;
	assert_int_equal(sp_arena_adopt(fd, at, &a, &found), 0);
	assert_int_equal(found.sessions, 1);
	assert_int_equal(found.streams, 1);
	assert_int_equal(found.lost, 0);
	assert_string_equal(sp_arena_program(a, &bytes), "for the program");
	const struct sp_session_rec *s = sp_arena_session(a, 1);
	assert_string_equal(s->user, "anna");
	assert_int_equal(s->epoch, 77);
	assert_int_equal(s->incarnation, 4711);
	check_stream(a);
	sp_arena_leave(a);
}

static void *all_of(int fd, size_t *ret_len)
{
	*ret_len = (size_t)lseek(fd, 0, SEEK_END);
	void *copy = malloc(*ret_len);
	assert_non_null(copy);
	assert_int_equal(pread(fd, copy, *ret_len, 0), (ssize_t)*ret_len);
	return copy;
}

static void convert_and_check(uint32_t version, uint32_t oldest, uint32_t tail)
{
	int fd = filled(version, oldest, tail);
	size_t len, now;
	uint64_t at = 0;
	void *before = all_of(fd, &len);
	assert_int_equal(sp_arena_convert(fd, BEFORE, &same, &at), 0);
	assert_true(at >= len);
	void *after = all_of(fd, &now);
	assert_memory_equal(before, after, len); // whoever made it can go on with it
	adopt_and_check(fd, at);
	free(before);
	free(after);
	close(fd);
}

static void an_arena_of_version_2_is_taken_over_whole(void **state)
{
	struct sp_arena *a;
	struct sp_arena_found found;
	int fd = filled(2, 0, 0);
	(void)state;
	assert_int_equal(sizeof(struct session_2), 312);
	assert_int_equal(sp_arena_adopt(fd, BEFORE, &a, &found), SP_E_VERSION);
	close(fd);
	convert_and_check(2, 0, 0);
}

static void an_arena_of_the_next_version_with_longer_records_is_taken_over(void **state)
{
	(void)state;
	convert_and_check(SP_ARENA_VERSION + 1, SP_ARENA_VERSION, 64);
}

static void other_versions_are_refused_and_left_alone(void **state)
{
	static const uint32_t versions[][2] = {
		{1, 0},
		{0, 0},
		{SP_ARENA_VERSION + 2, SP_ARENA_VERSION},
		{SP_ARENA_VERSION + 1, SP_ARENA_VERSION + 1}, // and says so
		{UINT32_MAX, 0}};
	(void)state;
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
		int fd = filled(versions[i][0], versions[i][1], 0);
		size_t len, now;
		uint64_t at = 1;
		void *before = all_of(fd, &len);
		assert_int_equal(sp_arena_convert(fd, BEFORE, &same, &at), SP_E_VERSION);
		void *after = all_of(fd, &now);
		assert_int_equal(len, now);
		assert_memory_equal(before, after, len);
		assert_int_equal(at, 1);
		free(before);
		free(after);
		close(fd);
	}
}

static void sizes_grow_and_never_below_what_is_in_use(void **state)
{
	struct sp_arena_options more = same, less = same, has;
	struct sp_arena_found found;
	struct sp_arena *a;
	uint64_t at;
	int fd = filled(2, 0, 0);
	(void)state;
	more.max_sessions = 100;
	more.max_streams = 200;
	more.memory_bytes = 1 << 20;
	assert_int_equal(sp_arena_convert(fd, BEFORE, &more, &at), 0);
	assert_int_equal(sp_arena_adopt(fd, at, &a, &found), 0);
	sp_arena_sizes(a, &has);
	assert_int_equal(has.max_sessions, 100);
	assert_int_equal(has.max_streams, 200);
	assert_int_equal(has.memory_bytes, 1 << 20);
	check_stream(a);
	assert_int_equal(sp_arena_chunks_pool(a), 256);
	sp_arena_leave(a);
	less.max_sessions = less.max_streams = 1;
	less.memory_bytes = 0;
	assert_int_equal(sp_arena_convert(fd, at, &less, &at), 0);
	assert_int_equal(sp_arena_adopt(fd, at, &a, &found), 0);
	sp_arena_sizes(a, &has);
	assert_int_equal(has.max_sessions, 2); // the second record is in use
	check_stream(a);
	sp_arena_leave(a);
	close(fd);
}

static void damaged_headers_and_records_do_no_harm(void **state)
{
	uint32_t seed = 1;
	(void)state;
	for (int round = 0; round < 2000; round++) {
		int fd =
			filled(round % 2 ? 2 : SP_ARENA_VERSION + 1, SP_ARENA_VERSION, 8);
		struct sp_arena_found found;
		struct sp_arena *a;
		uint64_t at;
		struct stat st;
		assert_int_equal(fstat(fd, &st), 0);
		for (int k = 0; k < 4; k++) {
			seed = seed * 1664525 + 1013904223;
			// mostly the header; else anywhere
			off_t where =
				BEFORE + (k % 2 ? (seed >> 8) % 128
						: (seed >> 8) % (st.st_size - BEFORE));
			uint8_t v = (uint8_t)(seed >> 3);
			assert_int_equal(pwrite(fd, &v, 1, where), 1);
		}
		if (sp_arena_convert(fd, BEFORE, &same, &at) == 0 &&
		    sp_arena_adopt(fd, at, &a, &found) == 0)
			sp_arena_leave(a);
		close(fd);
	}
}

static void a_file_too_short_is_refused(void **state)
{
	uint64_t at;
	int fd = filled(2, 0, 0);
	(void)state;
	assert_int_equal(ftruncate(fd, BEFORE + 4095), 0);
	assert_int_equal(sp_arena_convert(fd, BEFORE, &same, &at), SP_E_MALFORMED);
	assert_int_equal(ftruncate(fd, BEFORE + 3 * 4096), 0);
	assert_int_equal(sp_arena_convert(fd, BEFORE, &same, &at), SP_E_MALFORMED);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_arena_of_version_2_is_taken_over_whole),
		cmocka_unit_test(
			an_arena_of_the_next_version_with_longer_records_is_taken_over),
		cmocka_unit_test(other_versions_are_refused_and_left_alone),
		cmocka_unit_test(sizes_grow_and_never_below_what_is_in_use),
		cmocka_unit_test(damaged_headers_and_records_do_no_harm),
		cmocka_unit_test(a_file_too_short_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
