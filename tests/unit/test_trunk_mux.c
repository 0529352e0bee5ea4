// Pipes over one trunk: order and bytes, credit, turns, memory, and peers that break
// rules.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/wire.h"
#include "worker/trunk_mux.h"

#define PIPES 64
#define PLAIN 16000

static uint64_t clock_us;

// The linker's --wrap: all that asks for memory asks here.
static bool no_memory;
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
	return no_memory ? NULL : __real_malloc(size);
}

struct side {
	struct wrk_mux *mux;
	struct wrk_mux_pool pool;
	struct wrk_mux_counters n;
	struct wrk_pipe *opened[PIPES];
	unsigned n_opened;
	enum sp_reason refuse;
	struct wrk_mux_source source;
	unsigned wakes;
};

static unsigned readies;

static void on_ready(void *ctx)
{
	(void)ctx;
	readies++;
}

static enum sp_reason on_opened(void *ctx, struct wrk_pipe *p,
				const struct wrk_mux_source *source)
{
	struct side *s = ctx;
	if (s->refuse)
		return s->refuse;
	assert_true(s->n_opened < PIPES);
	s->source = *source;
	s->opened[s->n_opened++] = p;
	wrk_pipe_attach(p, on_ready, s);
	return SP_REASON_NONE;
}

static void on_wake(void *ctx)
{
	((struct side *)ctx)->wakes++;
}

static const struct wrk_mux_ops ops = {.opened = on_opened, .wake = on_wake};

static void side_init(struct side *s, bool dialled, uint64_t memory, uint32_t max_pipes)
{
	struct wrk_mux_options o = {
		.dialled = dialled,
		.clock_us = &clock_us,
		.pool = &s->pool,
		.counters = &s->n,
		.max_pipes = max_pipes,
		.window_max = 1 << 20,
		.opens_per_second = 1000,
		.ops = &ops,
		.ctx = s,
	};
	memset(s, 0, sizeof(*s));
	s->pool.limit = memory;
	assert_int_equal(wrk_mux_new(&o, &s->mux), 0);
}

struct world {
	struct side a, b; // a dialled
};

static struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));
	clock_us = 1000000;
	side_init(&w->a, true, 64 << 20, PIPES);
	side_init(&w->b, false, 64 << 20, PIPES);
	return w;
}

static void world_free(struct world *w)
{
	wrk_mux_free(w->a.mux);
	wrk_mux_free(w->b.mux);
	assert_int_equal(w->a.n.closed[SP_REASON_NONE], 0); // each end has its reason
	assert_int_equal(w->b.n.closed[SP_REASON_NONE], 0);
	assert_int_equal(w->a.pool.used, 0);
	assert_int_equal(w->b.pool.used, 0);
	free(w);
}

// One record; false: nothing was there.
static bool carry(struct side *from, struct side *to)
{
	uint8_t plain[PLAIN];
	bool rekey;
	size_t n = wrk_mux_output(from->mux, plain, sizeof(plain));
	if (!n)
		return false;
	assert_int_equal(wrk_mux_input(to->mux, plain, n, &rekey), 0);
	return true;
}

static void settle(struct world *w)
{
	while (carry(&w->a, &w->b) || carry(&w->b, &w->a))
		;
}

static const struct wrk_mux_source nobody = {4, {192, 0, 2, 1}};

static struct wrk_pipe *open_pipe(struct world *w, const char *first)
{
	struct wrk_pipe *p;
	assert_int_equal(wrk_pipe_open(w->a.mux, &nobody, (const uint8_t *)first,
				       strlen(first), &p),
			 0);
	wrk_pipe_attach(p, on_ready, NULL);
	return p;
}

static void expect_read(struct wrk_pipe *p, const char *text)
{
	uint8_t buf[100];
	ssize_t n = wrk_pipe_read(p, buf, sizeof(buf));
	assert_int_equal(n, strlen(text));
	assert_memory_equal(buf, text, (size_t)n);
}

static void put(struct wrk_pipe *p, const char *text)
{
	assert_int_equal(wrk_pipe_write(p, (const uint8_t *)text, strlen(text)),
			 strlen(text));
}

static void a_pipe_carries_its_first_bytes_and_the_rest_both_ways(void **state)
{
	struct world *w = world_new();
	struct wrk_pipe *p = open_pipe(w, "first"), *q;
	uint8_t buf[8];
	(void)state;
	put(p, " more");
	settle(w);
	assert_int_equal(w->b.n_opened, 1);
	assert_memory_equal(&w->b.source, &nobody, sizeof(nobody));
	q = w->b.opened[0];
	expect_read(q, "first more");
	assert_int_equal(wrk_pipe_read(q, buf, sizeof(buf)), -EAGAIN);
	put(q, "answer");
	settle(w);
	expect_read(p, "answer");
	assert_int_equal(wrk_pipe_end(p), 0);
	settle(w);
	assert_int_equal(wrk_pipe_read(q, buf, sizeof(buf)), 0);
	assert_int_equal(wrk_pipe_write(p, buf, 1), -EPIPE);
	put(q, "last");
	assert_int_equal(wrk_pipe_end(q), 0);
	wrk_pipe_close(q, SP_REASON_CLOSED); // what was written still goes
	settle(w);
	expect_read(p, "last");
	assert_int_equal(wrk_pipe_read(p, buf, sizeof(buf)), 0);
	wrk_pipe_close(p, SP_REASON_CLOSED);
	settle(w);
	assert_int_equal(wrk_mux_pipes(w->a.mux), 0);
	assert_int_equal(wrk_mux_pipes(w->b.mux), 0);
	world_free(w);
}

static void a_close_tells_its_reason_behind_what_was_read(void **state)
{
	struct world *w = world_new();
	struct wrk_pipe *p = open_pipe(w, "x"), *q;
	uint8_t buf[8];
	(void)state;
	settle(w);
	q = w->b.opened[0];
	put(q, "said");
	settle(w);
	wrk_pipe_close(q, SP_REASON_GONE);
	settle(w);
	expect_read(p, "said");
	assert_int_equal(wrk_pipe_read(p, buf, sizeof(buf)), -ECONNRESET);
	assert_int_equal(wrk_pipe_reason(p), SP_REASON_GONE);
	wrk_pipe_close(p, SP_REASON_CLOSED);
	world_free(w);
}

static void a_pipe_closed_before_it_was_sent_is_never_heard_of(void **state)
{
	struct world *w = world_new();
	(void)state;
	wrk_pipe_close(open_pipe(w, "x"), SP_REASON_CANCELLED);
	settle(w);
	assert_int_equal(w->b.n_opened, 0);
	assert_int_equal(wrk_mux_pipes(w->a.mux), 0);
	world_free(w);
}

static void a_refused_pipe_says_why(void **state)
{
	struct world *w = world_new();
	struct wrk_pipe *p;
	(void)state;
	w->b.refuse = SP_REASON_NO_MEMORY;
	p = open_pipe(w, "x");
	settle(w);
	assert_int_equal(wrk_pipe_reason(p), SP_REASON_NO_MEMORY);
	assert_int_equal(w->b.n.refused[SP_REASON_NO_MEMORY], 1);
	assert_int_equal(wrk_mux_pipes(w->b.mux), 0);
	wrk_pipe_close(p, SP_REASON_CLOSED);
	world_free(w);
}

static size_t fill(struct world *w, struct wrk_pipe *p)
{
	static const uint8_t data[4096] = {7};
	size_t sent = 0;
	ssize_t n;
	for (;;) {
		while ((n = wrk_pipe_write(p, data, sizeof(data))) > 0)
			sent += (size_t)n;
		assert_int_equal(n, -EAGAIN);
		if (!carry(&w->a, &w->b) && !carry(&w->b, &w->a))
			return sent;
	}
}

static size_t drain(struct wrk_pipe *p)
{
	uint8_t buf[5000];
	size_t got = 0;
	ssize_t n;
	while ((n = wrk_pipe_read(p, buf, sizeof(buf))) > 0)
		got += (size_t)n;
	return got;
}

static void a_pipe_that_nobody_reads_holds_up_no_other(void **state)
{
	struct world *w = world_new();
	struct wrk_pipe *slow = open_pipe(w, "s"), *fast = open_pipe(w, "f");
	(void)state;
	size_t stuck = fill(w, slow);
	// The window at the reader and what waits at the writer.
	assert_true(stuck <= WRK_MUX_WINDOW_MIN + WRK_MUX_SEND_MAX);
	for (int i = 0; i < 1000; i++) {
		put(fast, "quick");
		settle(w);
		if (!i)
			expect_read(w->b.opened[1], "fquick");
		else
			expect_read(w->b.opened[1], "quick");
	}
	assert_int_equal(drain(w->b.opened[0]), WRK_MUX_WINDOW_MIN);
	settle(w);
	assert_int_equal(drain(w->b.opened[0]), stuck + 1 - WRK_MUX_WINDOW_MIN);
	wrk_pipe_close(slow, SP_REASON_CLOSED);
	wrk_pipe_close(fast, SP_REASON_CLOSED);
	settle(w);
	for (int i = 0; i < 2; i++)
		wrk_pipe_close(w->b.opened[i], SP_REASON_CLOSED);
	settle(w);
	world_free(w);
}

static void
a_window_grows_for_a_reader_that_waits_and_shrinks_for_one_that_lags(void **state)
{
	struct world *w = world_new();
	struct wrk_pipe *p = open_pipe(w, "g");
	uint8_t buf[1000];
	uint64_t grown;
	(void)state;
	for (int i = 0; i < 100; i++) {
		fill(w, p);
		drain(w->b.opened[0]);
		clock_us += 20000;
	}
	grown = w->b.pool.used;
	assert_int_equal(grown, WRK_MUX_SEND_MAX + (1 << 20));
	fill(w, p);
	for (int i = 0; i < 40000; i++) { // always behind
		assert_true(wrk_pipe_read(w->b.opened[0], buf, sizeof(buf)) > 0);
		clock_us += 1000;
		if (i % 8 == 0)
			fill(w, p);
	}
	assert_true(w->b.pool.used < grown / 4);
	wrk_pipe_close(p, SP_REASON_CLOSED);
	settle(w);
	wrk_pipe_close(w->b.opened[0], SP_REASON_CLOSED);
	world_free(w);
}

static void pipes_take_turns(void **state)
{
	struct world *w = world_new();
	static const uint8_t data[20000];
	struct wrk_pipe *p[8];
	uint64_t least = UINT64_MAX, most = 0;
	(void)state;
	for (int i = 0; i < 8; i++)
		p[i] = open_pipe(w, "t");
	settle(w);
	for (int i = 0; i < 8; i++)
		assert_int_equal(wrk_pipe_write(p[i], data, sizeof(data)), sizeof(data));
	for (int i = 0; i < 5; i++)
		assert_true(carry(&w->a, &w->b));
	for (int i = 0; i < 8; i++) {
		uint64_t got = wrk_pipe_received(w->b.opened[i]);
		least = got < least ? got : least;
		most = got > most ? got : most;
	}
	assert_true(least > 1 && most - least <= 8192);
	for (int i = 0; i < 8; i++) {
		wrk_pipe_close(p[i], SP_REASON_CLOSED);
		wrk_pipe_close(w->b.opened[i], SP_REASON_CLOSED);
	}
	world_free(w);
}

static void beyond_memory_or_number_a_pipe_is_refused(void **state)
{
	struct world *w = world_new();
	struct wrk_pipe *p[PIPES], *q;
	(void)state;
	w->b.pool.limit = 3 * (WRK_MUX_SEND_MAX + WRK_MUX_WINDOW_MIN);
	for (int i = 0; i < PIPES; i++)
		p[i] = open_pipe(w, "m");
	assert_int_equal(wrk_pipe_open(w->a.mux, &nobody, (uint8_t *)"m", 1, &q),
			 SP_E_LIMIT);
	settle(w);
	assert_int_equal(w->b.n_opened, 3);
	assert_int_equal(w->b.n.refused[SP_REASON_PRESSURE], PIPES - 3);
	for (int i = 0; i < PIPES; i++)
		wrk_pipe_close(p[i], SP_REASON_CLOSED);
	for (int i = 0; i < 3; i++)
		wrk_pipe_close(w->b.opened[i], SP_REASON_CLOSED);
	world_free(w);
}

static void without_memory_for_its_bytes_a_pipe_ends_and_no_other(void **state)
{
	struct world *w = world_new();
	struct wrk_pipe *p = open_pipe(w, "x"), *other = open_pipe(w, "o");
	uint8_t buf[8];
	(void)state;
	settle(w);
	expect_read(w->b.opened[0], "x"); // its ring is given back
	put(p, "lost");
	put(other, "ther"); // finds room behind the first byte
	no_memory = true;
	settle(w);
	no_memory = false;
	struct wrk_pipe *q = w->b.opened[0];
	assert_int_equal(wrk_pipe_read(q, buf, sizeof(buf)), -ECONNRESET);
	assert_int_equal(wrk_pipe_reason(q), SP_REASON_NO_MEMORY);
	assert_int_equal(wrk_pipe_read(p, buf, sizeof(buf)), -ECONNRESET);
	assert_int_equal(wrk_pipe_reason(p), SP_REASON_NO_MEMORY);
	assert_int_equal(wrk_pipe_reason(other), SP_REASON_NONE);
	expect_read(w->b.opened[1], "other");
	put(w->b.opened[1], "back");
	settle(w);
	expect_read(other, "back");
	wrk_pipe_close(p, SP_REASON_CLOSED);
	wrk_pipe_close(q, SP_REASON_CLOSED);
	assert_int_equal(w->b.n.closed[SP_REASON_NO_MEMORY], 1);
	wrk_pipe_close(other, SP_REASON_CLOSED);
	wrk_pipe_close(w->b.opened[1], SP_REASON_CLOSED);
	settle(w);
	world_free(w);
}

static void a_pipe_whose_owner_goes_first_still_tells_that_memory_ended(void **state)
{
	struct world *w = world_new();
	struct wrk_pipe *p = open_pipe(w, "x");
	static const uint8_t byte[1];
	(void)state;
	settle(w);
	no_memory = true;
	assert_int_equal(wrk_pipe_write(w->b.opened[0], byte, 1), -ECONNRESET);
	no_memory = false;
	assert_int_equal(wrk_pipe_reason(w->b.opened[0]), SP_REASON_NO_MEMORY);
	wrk_pipe_close(w->b.opened[0], SP_REASON_CANCELLED); // before it is sent
	assert_int_equal(wrk_mux_pipes(w->b.mux), 1);
	settle(w);
	assert_int_equal(wrk_mux_pipes(w->b.mux), 0);
	assert_int_equal(wrk_pipe_reason(p), SP_REASON_NO_MEMORY);
	wrk_pipe_close(p, SP_REASON_CLOSED);
	world_free(w);
}

static void too_many_opens_in_a_second_are_refused(void **state)
{
	struct world *w = world_new();
	unsigned refused = 0;
	(void)state;
	for (int i = 0; i < 6000; i++) { // burst 5,000
		struct wrk_pipe *p = open_pipe(w, "r");
		settle(w);
		refused += wrk_pipe_reason(p) == SP_REASON_RATE_LIMIT;
		wrk_pipe_close(p, SP_REASON_CLOSED);
		settle(w);
		if (w->b.n_opened)
			wrk_pipe_close(w->b.opened[--w->b.n_opened], SP_REASON_CLOSED);
	}
	assert_int_equal(refused, 1000);
	world_free(w);
}

static void pipes_outlive_their_trunk_as_reset_ones(void **state)
{
	struct world *w = world_new();
	struct wrk_pipe *p = open_pipe(w, "x"), *q;
	uint8_t buf[8];
	(void)state;
	settle(w);
	q = w->b.opened[0];
	put(q, "left");
	settle(w);
	readies = 0;
	wrk_mux_free(w->a.mux);
	w->a.mux = NULL;
	assert_int_equal(readies, 1);
	expect_read(p, "left");
	assert_int_equal(wrk_pipe_read(p, buf, sizeof(buf)), -ECONNRESET);
	assert_int_equal(wrk_pipe_write(p, buf, 1), -ECONNRESET);
	assert_int_equal(wrk_pipe_reason(p), SP_REASON_CARRIER_RESET);
	wrk_pipe_close(p, SP_REASON_CLOSED);
	wrk_pipe_close(q, SP_REASON_CLOSED);
	world_free(w);
}

// ---- a hostile peer ----

struct hostile {
	const char *what;
	const char *bytes;
	size_t len;
};
// 40 50 00 ...: ids are varints; b knows pipe 1 (a's), opened with 1 byte.
#define FRAMES(text) text, sizeof(text) - 1
static const struct hostile rows[] = {
	{"an unknown frame", FRAMES("\x55")},
	{"a frame that does not parse", FRAMES("\x21")},
	{"an id that was never opened", FRAMES("\x21\x03\x01x")},
	{"an id that was never opened", FRAMES("\x22\x02\x01")},
	{"an id that was never opened", FRAMES("\x23\x00")},
	{"an id that was never opened", FRAMES("\x24\x09\x00\x01")},
	{"data that does not parse", FRAMES("\x21\x01\x40")},
	{"data that does not parse", FRAMES("\x21\x01\x10short")},
	{"credit that falls", FRAMES("\x22\x01\x00")},
	{"an end behind the end", FRAMES("\x23\x01\x23\x01")},
	{"data behind the end", FRAMES("\x23\x01\x21\x01\x01x")},
	{"a frame behind a change of keys", FRAMES("\x1d\x00")},
	{"a carrier's id that does not rise", FRAMES("\x20\x01\x00\x01\x04"
						     "ABCDEFGH\x01"
						     "x")},
	{"a carrier's id that does not rise", FRAMES("\x20\x02\x00\x01\x04"
						     "ABCDEFGH\x01"
						     "x")},
	{"a carrier that does not parse", FRAMES("\x20\x03\x00\x01\x04"
						 "ABCDEFGH\x00")},
	{"a carrier that does not parse", FRAMES("\x20\x03\x00\x01\x04"
						 "ABCDEFGH\x7f\xff")},
	{"a carrier that does not parse", FRAMES("\x20\x03\x00\x01\x04"
						 "ABC")},
};

static void a_peer_that_breaks_the_rules_loses_its_trunk(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct world *w = world_new();
		struct wrk_pipe *p = open_pipe(w, "x");
		bool rekey;
		settle(w);
		int err = wrk_mux_input(w->b.mux, (const uint8_t *)rows[i].bytes,
					rows[i].len, &rekey);
		if (err != SP_E_PROTOCOL ||
		    strcmp(wrk_mux_error(w->b.mux), rows[i].what) != 0)
			fail_msg("row %zu: %d %s", i, err, wrk_mux_error(w->b.mux));
		assert_int_equal(wrk_mux_input(w->b.mux, (uint8_t *)"", 0, &rekey),
				 SP_E_PROTOCOL);
		wrk_pipe_close(p, SP_REASON_CLOSED);
		wrk_pipe_close(w->b.opened[0], SP_REASON_CLOSED);
		world_free(w);
	}
}

static void a_byte_over_its_credit_ends_the_trunk_and_none_less(void **state)
{
	struct world *w = world_new();
	struct wrk_pipe *p = open_pipe(w, "x");
	uint8_t frame[16] = {0x21, 1, 0x40, 8, 1, 2, 3, 4, 5, 6, 7, 8};
	uint8_t big[9000] = {0x21, 1};
	struct sp_writer wr;
	bool rekey;
	(void)state;
	settle(w);
	// 1 byte of 32 KB was used: 32 KB - 1 - 8 in large pieces, then 8, then 1.
	size_t left = WRK_MUX_WINDOW_MIN - 1 - 8;
	while (left) {
		size_t n = left < 8000 ? left : 8000;
		sp_writer_init(&wr, big + 2, 8);
		sp_put_varint(&wr, n);
		assert_int_equal(
			wrk_mux_input(w->b.mux, big, 2 + sp_writer_len(&wr) + n, &rekey),
			0);
		left -= n;
	}
	assert_int_equal(wrk_mux_input(w->b.mux, frame, 12, &rekey), 0);
	frame[3] = 1;
	assert_int_equal(wrk_mux_input(w->b.mux, frame, 5, &rekey), SP_E_PROTOCOL);
	assert_string_equal(wrk_mux_error(w->b.mux), "more data than it has credit for");
	wrk_pipe_close(p, SP_REASON_CLOSED);
	wrk_pipe_close(w->b.opened[0], SP_REASON_CLOSED);
	world_free(w);
}

static void more_hops_than_one_are_refused(void **state)
{
	struct world *w = world_new();
	static const uint8_t open[] = "\x20\x01\x00\x02\x04"
				      "ABCDEFGH\x01"
				      "x";
	bool rekey;
	(void)state;
	assert_int_equal(wrk_mux_input(w->b.mux, open, sizeof(open) - 1, &rekey), 0);
	assert_int_equal(w->b.n_opened, 0);
	assert_int_equal(w->b.n.refused[SP_REASON_UNREACHABLE], 1);
	world_free(w);
}

static void opens_without_end_that_read_no_refusal_end_the_trunk(void **state)
{
	struct world *w = world_new();
	bool rekey;
	int err = 0;
	unsigned i;
	(void)state;
	w->b.refuse = SP_REASON_PRESSURE;
	for (i = 0; !err && i < 2000; i++) {
		uint8_t open[40];
		struct sp_writer wr;
		sp_writer_init(&wr, open, sizeof(open));
		sp_put_u8(&wr, 0x20);
		sp_put_varint(&wr, 2 * i + 1);
		sp_put_bytes(&wr,
			     "\x00\x01\x04"
			     "ABCDEFGH\x01"
			     "x",
			     13);
		err = wrk_mux_input(w->b.mux, open, sp_writer_len(&wr), &rekey);
	}
	assert_int_equal(err, SP_E_PROTOCOL);
	assert_int_equal(i, WRK_MUX_REFUSALS + 1);
	world_free(w);
}

// ---- simulation ----

struct flow {
	struct wrk_pipe *end[2];
	uint64_t written[2], read[2];
	bool ended[2], over[2];
};

static uint8_t pattern(unsigned flow, int way, uint64_t at)
{
	return (uint8_t)((at * 2654435761u >> 7) + flow * 31 + (unsigned)way);
}

static void sim_write(struct flow *f, unsigned id, int way, uint64_t total)
{
	uint8_t buf[3000];
	size_t len = 1 + (size_t)rand() % sizeof(buf);
	ssize_t n;
	if (f->written[way] + len > total)
		len = (size_t)(total - f->written[way]);
	for (size_t i = 0; i < len; i++)
		buf[i] = pattern(id, way, f->written[way] + i);
	if (!len) {
		if (!f->ended[way])
			assert_int_equal(wrk_pipe_end(f->end[way]), 0);
		f->ended[way] = true;
		return;
	}
	n = wrk_pipe_write(f->end[way], buf, len);
	assert_true(n > 0 || n == -EAGAIN);
	if (n > 0)
		f->written[way] += (uint64_t)n;
}

static void sim_read(struct flow *f, unsigned id, int way, uint64_t total)
{
	uint8_t buf[5000];
	ssize_t n = wrk_pipe_read(f->end[!way], buf, 1 + (size_t)rand() % sizeof(buf));
	assert_true(n >= 0 || n == -EAGAIN);
	for (ssize_t i = 0; i < n; i++)
		assert_int_equal(buf[i], pattern(id, way, f->read[way] + (uint64_t)i));
	if (n > 0)
		f->read[way] += (uint64_t)n;
	if (n == 0) {
		assert_int_equal(f->read[way], total);
		f->over[way] = true;
	}
}

static void sim_run(unsigned seed)
{
	enum { FLOWS = 12 };
	struct world *w = world_new();
	struct flow flow[FLOWS] = {0};
	uint64_t total[FLOWS][2];
	unsigned left = FLOWS, turns = 0;
	srand(seed);
	for (unsigned i = 0; i < FLOWS; i++) {
		uint8_t first = pattern(i, 0, 0);
		for (int way = 0; way < 2; way++)
			total[i][way] = 1 + (uint64_t)rand() % (i ? 60000 : 600000);
		assert_int_equal(
			wrk_pipe_open(w->a.mux, &nobody, &first, 1, &flow[i].end[0]), 0);
		flow[i].written[0] = 1;
		wrk_pipe_attach(flow[i].end[0], on_ready, NULL);
	}
	settle(w);
	for (unsigned i = 0; i < FLOWS; i++)
		flow[i].end[1] = w->b.opened[i];
	while (left) {
		struct flow *f = &flow[(unsigned)rand() % FLOWS];
		unsigned id = (unsigned)(f - flow);
		int way = rand() % 2;
		if (++turns > 20000000)
			fail_msg("seed %u: no end", seed);
		clock_us += (uint64_t)rand() % 200;
		if (rand() % 3 == 0)
			(void)carry(&w->a, &w->b);
		if (rand() % 3 == 0)
			(void)carry(&w->b, &w->a);
		if (!f->end[0])
			continue;
		if (!f->ended[way])
			sim_write(f, id, way, total[id][way]);
		if (!f->over[!way] && rand() % (id % 4 + 1) == 0)
			sim_read(f, id, !way, total[id][!way]);
		if (!f->over[0] || !f->over[1])
			continue;
		for (int e = 0; e < 2; e++)
			wrk_pipe_close(f->end[e], SP_REASON_CLOSED);
		f->end[0] = NULL;
		left--;
	}
	settle(w);
	assert_int_equal(wrk_mux_pipes(w->a.mux), 0);
	assert_int_equal(wrk_mux_pipes(w->b.mux), 0);
	world_free(w);
}

static void in_random_turns_no_byte_is_lost_doubled_or_moved(void **state)
{
	const char *seeds = getenv("SIM_SEEDS");
	unsigned n = seeds ? (unsigned)atoi(seeds) : 200;
	(void)state;
	for (unsigned seed = 1; seed <= n; seed++)
		sim_run(seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pipe_carries_its_first_bytes_and_the_rest_both_ways),
		cmocka_unit_test(a_close_tells_its_reason_behind_what_was_read),
		cmocka_unit_test(a_pipe_closed_before_it_was_sent_is_never_heard_of),
		cmocka_unit_test(a_refused_pipe_says_why),
		cmocka_unit_test(a_pipe_that_nobody_reads_holds_up_no_other),
		cmocka_unit_test(
			a_window_grows_for_a_reader_that_waits_and_shrinks_for_one_that_lags),
		cmocka_unit_test(pipes_take_turns),
		cmocka_unit_test(beyond_memory_or_number_a_pipe_is_refused),
		cmocka_unit_test(without_memory_for_its_bytes_a_pipe_ends_and_no_other),
		cmocka_unit_test(
			a_pipe_whose_owner_goes_first_still_tells_that_memory_ended),
		cmocka_unit_test(too_many_opens_in_a_second_are_refused),
		cmocka_unit_test(pipes_outlive_their_trunk_as_reset_ones),
		cmocka_unit_test(a_peer_that_breaks_the_rules_loses_its_trunk),
		cmocka_unit_test(a_byte_over_its_credit_ends_the_trunk_and_none_less),
		cmocka_unit_test(more_hops_than_one_are_refused),
		cmocka_unit_test(opens_without_end_that_read_no_refusal_end_the_trunk),
		cmocka_unit_test(in_random_turns_no_byte_is_lost_doubled_or_moved),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
