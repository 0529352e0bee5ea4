// Takes a session over from what lies in the arena after every single store of the
// process that served it: that process is single-stepped, and after each instruction that
// changed the arena a copy of it is adopted.
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/arena_internal.h"
#include "lib/session_internal.h"

#define STREAMS 3
#define STEPS   4000000 // more instructions than the script needs

// What the kernel of the destinations' sockets would know.
struct truth {
	uint64_t read[STREAMS + 1];
	uint64_t written[STREAMS + 1];
	uint64_t acked[STREAMS + 1]; // the client said so
	bool over[STREAMS + 1];      // reset, or about to be
	bool made[STREAMS + 1];      // the stream is there, and was not yet before
};

static const struct sp_arena_options small = {
	.max_sessions = 2,
	.max_streams = STREAMS,
	.memory_bytes = 8 * SP_CHUNK_BYTES,
	.max_flows = 2,
	.program_bytes = 64,
};

#define SPAN 32768
static uint8_t pattern[STREAMS + 1][SPAN];

static void make_pattern(void)
{
	for (unsigned id = 0; id <= STREAMS; id++)
		for (unsigned i = 0; i < SPAN; i++)
			pattern[id][i] = (uint8_t)(i * 7 + i / 251 + id * 31);
}

// ---- the program of the session: nothing of it matters here ----

static void on_open(void *ctx, struct sp_stream *st, const struct sp_target *t)
{
	(void)ctx, (void)st, (void)t;
}

static size_t on_sink(void *ctx, struct sp_stream *st, const uint8_t *buf, size_t len)
{
	struct truth *t = ctx;
	(void)buf;
	if (t)
		t->written[sp_stream_id(st)] += len;
	return len;
}

static void on_stream(void *ctx, struct sp_stream *st)
{
	(void)ctx, (void)st;
}

static void on_closed(void *ctx, struct sp_stream *st, enum sp_reason reason)
{
	(void)ctx, (void)st, (void)reason;
}

static const struct sp_session_ops ops = {
	.stream_open = on_open,
	.stream_sink = on_sink,
	.stream_sink_fin = on_stream,
	.stream_source_ready = on_stream,
	.stream_closed = on_closed,
};

static uint64_t clock_us = 1000000;

static struct sp_session_options options(struct sp_arena *a, struct truth *t)
{
	struct sp_session_options o = {
		.role = SP_ROLE_WORKER,
		.arena = a,
		.ops = &ops,
		.ctx = t,
		.clock_us = &clock_us,
	};
	sp_session_limits_default(&o.limits);
	memset(o.id, 7, sizeof(o.id));
	return o;
}

// ---- the script ----

// The destination has `want` bytes: read as the exit does it.
static void receive(struct sp_stream *st, struct truth *t, size_t want)
{
	struct iovec iov[4];
	uint64_t id = sp_stream_id(st), at = t->read[id];
	int n = sp_stream_reserve(st, want, iov, 4);
	size_t got = 0;
	for (int i = 0; i < n; got += iov[i++].iov_len)
		memcpy(iov[i].iov_base, pattern[id] + at + got, iov[i].iov_len);
	t->read[id] += got;
	sp_stream_commit(st, got);
}

static void client_took(struct sp_stream *st, struct truth *t, uint64_t n)
{
	uint64_t id = sp_stream_id(st);
	t->acked[id] += n;
	if (stream_peer_taken(st, t->acked[id], t->acked[id] + 60000))
		abort();
}

static void data(struct sp_session *s, struct sp_stream *st, size_t len, bool fin)
{
	static uint8_t buf[5000];
	struct sp_frame f = {.type = fin ? SP_FRAME_DATA_FIN : SP_FRAME_DATA,
			     .id = sp_stream_id(st),
			     .offset = st->rcv_next,
			     .data = buf,
			     .len = len};
	(void)s;
	if (stream_data(st, &f))
		abort();
}

static struct sp_stream *make(struct sp_session *s, struct truth *t, uint64_t id)
{
	int err;
	struct sp_stream *st = stream_new(s, id, &err);
	if (!st)
		abort();
	t->made[id] = true;
	sp_stream_opened(st, &(struct sp_target){.kind = SP_TARGET_IPV4});
	client_took(st, t, 0);
	return st;
}

static void script(struct sp_session *s, struct truth *t)
{
	struct sp_stream *a = make(s, t, 1), *b = make(s, t, 2);
	receive(a, t, 100);
	receive(a, t, 9000); // over chunks
	client_took(a, t, 50);
	receive(b, t, 4096); // a chunk, exactly
	client_took(a, t, 5000);
	client_took(a, t, 4050); // all of it
	receive(a, t, 300);
	data(s, b, 3000, false);
	receive(b, t, 1);
	client_took(b, t, 4097);
	sp_stream_source_fin(b);
	data(s, b, 10, true);
	t->over[1] = true;
	sp_stream_reset(a, SP_REASON_PEER_RESET);
	struct sp_stream *c = make(s, t, 3); // in chunks that others had
	receive(c, t, 12000);
	client_took(c, t, 8192);
	t->over[2] = true;
	client_took(b, t, 1); // its end: all is over
	receive(c, t, 8000);
	client_took(c, t, 12000 - 8192);
}

// ---- adopting ----

static void check_stream(struct sp_session *s, const struct truth *t, uint32_t i)
{
	struct sp_stream_rec *r = sp_arena_stream(s->opt.arena, i);
	struct sp_stream_found found = {.head = t->read[r->id], .taken = r->taken};
	struct sp_stream *st;
	uint64_t id = r->id;
	assert_in_range(id, 1, STREAMS);
	if (t->written[id] > r->taken)
		found.taken = t->written[id];
	assert_int_equal(sp_stream_adopt(s, i, &found, NULL, &st), 0);
	if (st->finished)
		return;
	// Every byte that the client has not said to have is there.
	assert_true(r->acked <= t->acked[id]);
	assert_true(t->over[id] || r->head == t->read[id]);
	uint8_t *p;
	size_t n;
	ring_seek(st, r->acked);
	for (uint64_t at = r->acked; (n = ring_next(st, 100000, &p)) > 0; at += n)
		assert_memory_equal(p, pattern[id] + at, n);
	assert_true(st->snd_nxt == r->head || r->acked > r->head);
}

static void adopt(int fd, const struct truth *t)
{
	struct sp_arena *a;
	struct sp_arena_found found;
	struct sp_session *s;
	unsigned streams = 0;
	assert_int_equal(sp_arena_adopt(fd, 0, &a, &found), 0);
	assert_int_equal(found.lost, 0);
	assert_int_equal(found.sessions, 1);
	struct sp_session_options o = options(a, NULL);
	assert_int_equal(sp_session_adopt(&o, 0, clock_us, &s), 0);
	for (uint32_t i = 0; i < sp_arena_stream_top(a); i++)
		if (sp_arena_stream(a, i)->rec_state == SP_REC_LIVE) {
			check_stream(s, t, i);
			streams++;
		}
	unsigned expected = 0;
	for (int id = 1; id <= STREAMS; id++)
		expected += t->made[id] && !t->over[id];
	assert_true(streams >= expected);
	sp_session_free(s, SP_REASON_SHUTDOWN);
	// Nothing is lost of the memory: all chunks are free again.
	assert_int_equal(sp_arena_chunks_spare(a), sp_arena_chunks_pool(a));
	sp_arena_free(a);
}

static int copy_of(const void *from, size_t bytes)
{
	int fd = memfd_create("copy", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, from, bytes), (ssize_t)bytes);
	return fd;
}

static void child(int fd, struct truth *t)
{
	struct sp_arena *a;
	struct sp_session *s;
	if (sp_arena_create(fd, 0, &small, &a))
		_exit(2);
	struct sp_session_options o = options(a, t);
	if (sp_session_new(&o, clock_us, &s))
		_exit(3);
	sp_arena_live(&s->rec->state);
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		_exit(77);
	raise(SIGSTOP);
	script(s, t);
	_exit(0);
}

static void whoever_takes_over_after_any_store_finds_every_byte(void **state)
{
	struct truth *t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status, fd = memfd_create("arena", MFD_CLOEXEC);
	(void)state;
	assert_true(fd >= 0 && t != MAP_FAILED);
	pid_t pid = fork();
	if (pid == 0)
		child(fd, t);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		print_message("no ptrace here\n");
		skip();
	}
	assert_true(WIFSTOPPED(status));
	size_t bytes = (size_t)lseek(fd, 0, SEEK_END);
	uint8_t *now = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	uint8_t *was = malloc(bytes);
	unsigned stores = 0;
	assert_true(now != MAP_FAILED && was);
	// The bytes themselves are written before anything says so: records matter.
	size_t records = ((const struct arena_header *)now)->off_bytes;
	memcpy(was, now, records);
	for (unsigned i = 0; i < STEPS; i++) {
		assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (!WIFSTOPPED(status))
			break;
		if (memcmp(was, now, records) == 0)
			continue;
		memcpy(was, now, bytes);
		int copy = copy_of(was, bytes);
		adopt(copy, t);
		close(copy);
		stores++;
	}
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	print_message("%u stores\n", stores);
	assert_true(stores > 100);
	free(was);
	munmap(now, bytes);
	munmap(t, sizeof(*t));
	close(fd);
}

// The first process's own memory of a session, whose records another one has.
static void abandon(struct sp_session *s)
{
	struct sp_stream *st;
	sp_idmap_done(&s->streams);
	sp_idmap_done(&s->flows);
	while ((st = TAILQ_FIRST(&s->all))) {
		TAILQ_REMOVE(&s->all, st, all);
		free(st);
	}
	free(s);
}

// Random damage costs records, never the process or the other sessions' bytes.
static void a_damaged_arena_is_adopted_without_harm(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed <= 3000; seed++) {
		struct truth t = {0};
		struct sp_arena *a;
		struct sp_arena_found found;
		struct sp_session *s;
		uint64_t rng = seed * UINT64_C(0x9e3779b97f4a7c15);
		int fd = memfd_create("arena", MFD_CLOEXEC);
		assert_int_equal(sp_arena_create(fd, 0, &small, &a), 0);
		struct sp_session_options o = options(a, &t);
		assert_int_equal(sp_session_new(&o, clock_us, &s), 0);
		sp_arena_live(&s->rec->state);
		receive(make(s, &t, 1), &t, 9000);
		receive(make(s, &t, 2), &t, 5000);
		size_t bytes = (size_t)lseek(fd, 0, SEEK_END);
		uint8_t *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		assert_true(p != MAP_FAILED);
		for (unsigned k = 0; k < 1 + seed % 40; k++) {
			rng = rng * UINT64_C(6364136223846793005) + 1442695040888963407u;
			// Mostly where the records are.
			size_t span = seed % 3 ? 28672 : bytes;
			p[(rng >> 33) % (span < bytes ? span : bytes)] ^=
				(uint8_t)(1u << (rng >> 28 & 7));
		}
		struct sp_arena *b;
		if (sp_arena_adopt(fd, 0, &b, &found) == 0) {
			struct sp_session_options ob = options(b, NULL);
			struct sp_session *next = NULL;
			if (sp_arena_session_top(b) &&
			    sp_arena_session(b, 0)->state == SP_REC_LIVE)
				assert_int_equal(
					sp_session_adopt(&ob, 0, clock_us, &next), 0);
			for (uint32_t i = 0; next && i < sp_arena_stream_top(b); i++) {
				struct sp_stream_rec *r = sp_arena_stream(b, i);
				struct sp_stream_found f = {r->head, r->taken, {0}};
				struct sp_stream *st;
				if (r->rec_state == SP_REC_LIVE && r->session == 0 &&
				    sp_stream_adopt(next, i, &f, NULL, &st) == 0)
					sp_stream_source_fin(st);
			}
			sp_session_free(next, SP_REASON_SHUTDOWN);
			sp_arena_leave(b);
		}
		munmap(p, bytes);
		sp_arena_leave(a); // its session is damaged and is let go
		close(fd);
		abandon(s);
	}
}

static struct sp_session *one_of_two(struct sp_arena *a, uint8_t id)
{
	struct sp_session_options o = options(a, NULL);
	struct sp_session *s;
	memset(o.id, id, sizeof(o.id));
	assert_int_equal(sp_session_new(&o, clock_us, &s), 0);
	sp_arena_live(&s->rec->state);
	return s;
}

// A stream to which so much beyond the guarantee was granted.
static void granted(struct sp_session *s, uint64_t id, unsigned chunks)
{
	int err;
	struct sp_stream *st = stream_new(s, id, &err);
	assert_non_null(st);
	st->rec->state = SP_STREAM_OPEN;
	st->rec->credit_given = CREDIT_IMPLICIT + chunks * SP_CHUNK_BYTES;
}

// What a session is granted depends on what is left to the others then. The process that
// takes over meets the streams in another order, and all that was granted has to hold.
static void
credit_that_was_granted_holds_in_whatever_order_streams_are_adopted(void **state)
{
	const struct sp_arena_options room = {.max_sessions = 2,
					      .max_streams = 8,
					      .memory_bytes = 128 * SP_CHUNK_BYTES};
	int fd = memfd_create("arena", MFD_CLOEXEC);
	struct sp_arena_found found;
	struct sp_session *before[2], *after[2];
	struct sp_arena *a, *b;
	(void)state;
	assert_int_equal(sp_arena_create(fd, 0, &room, &a), 0);
	for (uint8_t i = 0; i < 2; i++)
		before[i] = one_of_two(a, i);
	// 64 can be had. The second session was granted 15, 15 and 4 before the first.
	granted(before[0], 1, 15);
	granted(before[0], 2, 2);
	granted(before[1], 3, 15);
	granted(before[1], 4, 15);
	granted(before[1], 5, 4);
	assert_int_equal(sp_arena_adopt(fd, 0, &b, &found), 0);
	assert_int_equal(found.sessions, 2);
	assert_int_equal(found.streams, 5);
	for (uint32_t i = 0; i < 2; i++) {
		struct sp_session_options o = options(b, NULL);
		assert_int_equal(sp_session_adopt(&o, i, clock_us, &after[i]), 0);
	}
	for (uint32_t i = 0; i < 5; i++) {
		const struct sp_stream_rec *r = sp_arena_stream(b, i);
		struct sp_stream_found none = {0};
		struct sp_stream *st;
		assert_int_equal(sp_stream_adopt(after[r->session], i, &none, NULL, &st),
				 0);
		assert_true(st->window >= r->credit_given);
	}
	for (uint32_t i = 0; i < 2; i++)
		sp_session_free(after[i], SP_REASON_SHUTDOWN);
	sp_arena_leave(b);
	for (uint32_t i = 0; i < 2; i++)
		abandon(before[i]);
	sp_arena_leave(a);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whoever_takes_over_after_any_store_finds_every_byte),
		cmocka_unit_test(a_damaged_arena_is_adopted_without_harm),
		cmocka_unit_test(
			credit_that_was_granted_holds_in_whatever_order_streams_are_adopted),
	};
	if (sodium_init() < 0)
		return 1;
	make_pattern();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
