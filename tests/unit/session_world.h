// A client and a worker engine in virtual time, for tests of the engine: programs that
// note what they see, and carriers that hand records over at once. Included by one test
// program each; what it does not use is not an error.
#ifndef SESSION_WORLD_H
#define SESSION_WORLD_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/arena.h"
#include "lib/frame.h"
#include "lib/session.h"

#pragma GCC diagnostic ignored "-Wunused-function"

#define MS 1000ull

struct world {
	uint64_t now;
	struct sp_arena *arena[2];
	struct sp_session *s[2];
	bool wake[2];
	int closes[2];
	enum sp_reason close_reason[2];
	// what the programs saw
	struct sp_stream *opened_at_worker;
	int opens, opened, stalls, sink_fins, closed, source_ready;
	enum sp_reason closed_reason;
	size_t sunk[2];
	bool block;     // sinks take nothing,
	size_t dribble; // or so many bytes more
	bool only_x;    // stream 1 has no other byte
	bool gives_up;  // the next source that is told, in favour of another
	struct sp_flow *flow_at_worker;
	int flow_closed, dgrams;
	bool flow_again; // open another when told of an end
	struct sp_flow *flow_opened_again;
	enum sp_reason flow_reason;
	bool fresh;
	uint16_t ports[64]; // of datagrams in order of arrival
	bool auto_open;
	enum sp_reason ended, goaway;
	unsigned passes; // that came
	uint8_t pass;    // the first byte of the last one
};

static struct world w;
static struct sp_gather g;
static int side_of[2] = {0, 1};

static int side(void *ctx)
{
	return *(int *)ctx;
}

static void on_open(void *ctx, struct sp_stream *st, const struct sp_target *target)
{
	(void)ctx;
	(void)target;
	w.opens++;
	w.opened_at_worker = st;
	if (w.auto_open)
		sp_stream_opened(st,
				 &(struct sp_target){.kind = SP_TARGET_IPV4, .port = 1});
}

static void on_opened(void *ctx, struct sp_stream *st, const struct sp_target *bound)
{
	(void)ctx;
	(void)st;
	(void)bound;
	w.opened++;
}

static size_t on_sink(void *ctx, struct sp_stream *st, const uint8_t *buf, size_t len)
{
	for (size_t i = 0; w.only_x && sp_stream_id(st) == 1 && i < len; i++)
		assert_int_equal(buf[i], 'x');
	if (w.block) {
		len = w.dribble < len ? w.dribble : len;
		w.dribble -= len;
	}
	w.sunk[side(ctx)] += len;
	return len;
}

static void on_sink_fin(void *ctx, struct sp_stream *st)
{
	(void)ctx;
	(void)st;
	w.sink_fins++;
}

static void on_source_ready(void *ctx, struct sp_stream *st)
{
	(void)ctx;
	w.source_ready++;
	if (!w.gives_up)
		return;
	w.gives_up = false;
	sp_stream_reset(st, SP_REASON_APP_RESET);
	for (int i = 0; i < 200; i++) { // what was its memory becomes another's
		uint32_t c = sp_arena_chunk_alloc(w.arena[0], false);
		memset(sp_arena_chunk(w.arena[0], c), 'y', SP_CHUNK_BYTES);
	}
}

static void on_closed(void *ctx, struct sp_stream *st, enum sp_reason reason)
{
	(void)ctx;
	w.closed++;
	w.closed_reason = reason;
	sp_stream_reset(st, SP_REASON_APP_RESET); // nothing is left to reset
}

static void on_flow_open(void *ctx, struct sp_flow *fl, const struct sp_target *target)
{
	(void)ctx;
	(void)target;
	w.flow_at_worker = fl;
}

static void on_flow_data(void *ctx, struct sp_flow *fl, const uint8_t *buf, size_t len)
{
	(void)ctx;
	(void)buf;
	(void)len;
	if (w.dgrams < 64)
		w.ports[w.dgrams] = sp_flow_target(fl)->port;
	w.dgrams++;
}

static void on_flow_closed(void *ctx, struct sp_flow *fl, enum sp_reason reason)
{
	(void)ctx;
	w.flow_closed++;
	w.flow_reason = reason;
	sp_flow_close(fl, SP_REASON_CANCELLED); // nothing is left to close
	assert_int_equal(sp_flow_send(fl, (const uint8_t *)"a", 1), SP_E_CLOSED);
	if (w.flow_again) {
		struct sp_target t = {.kind = SP_TARGET_IPV4, .port = 7000};
		w.flow_again = false;
		assert_int_equal(
			sp_session_open_flow(w.s[0], &t, NULL, &w.flow_opened_again), 0);
	}
}

static void on_attached(void *ctx, unsigned slot, bool fresh)
{
	(void)ctx;
	(void)slot;
	w.fresh = fresh;
}

static void on_ticket(void *ctx, unsigned slot, unsigned index, uint32_t lifetime_s,
		      const uint8_t *ticket, size_t len)
{
	(void)ctx;
	(void)slot;
	(void)index;
	(void)lifetime_s;
	(void)ticket;
	(void)len;
}

static void on_stalled(void *ctx, unsigned slot)
{
	(void)ctx;
	(void)slot;
	w.stalls++;
}

static void on_goaway(void *ctx, enum sp_reason reason, uint64_t deadline_ms)
{
	(void)ctx;
	(void)deadline_ms;
	w.goaway = reason;
}

static void on_ended(void *ctx, enum sp_reason reason)
{
	(void)ctx;
	w.ended = reason;
}

static void on_pass(void *ctx, const uint8_t *blob, size_t len)
{
	(void)ctx;
	w.passes++;
	w.pass = len ? blob[0] : 0;
}

static const struct sp_session_ops ops = {
	.stream_open = on_open,
	.stream_opened = on_opened,
	.stream_sink = on_sink,
	.stream_sink_fin = on_sink_fin,
	.stream_source_ready = on_source_ready,
	.stream_closed = on_closed,
	.flow_open = on_flow_open,
	.flow_data = on_flow_data,
	.flow_closed = on_flow_closed,
	.attached = on_attached,
	.ticket = on_ticket,
	.stalled = on_stalled,
	.goaway = on_goaway,
	.ended = on_ended,
	.pass = on_pass,
};

static void link_wake(void *link)
{
	w.wake[*(int *)link] = true;
}

static void link_close(void *link, enum sp_reason reason)
{
	w.closes[*(int *)link]++;
	w.close_reason[*(int *)link] = reason;
}

static const struct sp_slot_ops slot_ops = {link_wake, link_close};

static size_t flatten(uint8_t *buf)
{
	size_t n = 0;
	for (int i = 0; i < g.n; i++) {
		memcpy(buf + n, g.iov[i].iov_base, g.iov[i].iov_len);
		n += g.iov[i].iov_len;
	}
	return n;
}

// Moves one record of at most `max` bytes if there is one. Returns its length.
static size_t pass_small(int from, unsigned slot, size_t max)
{
	static uint8_t rec[SP_RECORD_PLAIN_MAX];
	bool rekey;
	enum sp_reason why;
	if (sp_session_output(w.s[from], slot, max, &g, w.now) == 0)
		return 0;
	size_t n = flatten(rec);
	assert_int_equal(sp_session_input(w.s[!from], slot, rec, n, w.now, &rekey, &why),
			 0);
	return n;
}

static size_t pass_record(int from, unsigned slot)
{
	return pass_small(from, slot, SP_RECORD_PLAIN_MAX);
}

static void settle(unsigned slot)
{
	for (int quiet = 0; quiet < 2;) {
		size_t n = pass_record(0, slot) + pass_record(1, slot);
		quiet = n ? 0 : quiet + 1;
	}
}

// Lets `us` pass with both ends ticking and talking over `slot`.
static void elapse(uint64_t us, unsigned slot)
{
	for (uint64_t end = w.now + us; w.now < end;) {
		w.now += MS;
		for (int i = 0; i < 2; i++)
			if (w.now >= sp_session_deadline(w.s[i]))
				sp_session_tick(w.s[i], w.now);
		settle(slot);
	}
}

static void attach(unsigned slot)
{
	static uint8_t rec[SP_RECORD_PLAIN_MAX];
	struct sp_attach at;
	bool rekey;
	enum sp_reason why;
	sp_session_attach_client(w.s[0], slot, &slot_ops, &side_of[0], w.now);
	assert_true(sp_session_output(w.s[0], slot, SP_RECORD_PLAIN_MAX, &g, w.now) > 0);
	size_t n = flatten(rec);
	int used = sp_attach_parse(rec, n, &at);
	assert_true(used > 0);
	assert_int_equal(sp_session_attach_worker(w.s[1], &at, false, &slot_ops,
						  &side_of[1], w.now),
			 0);
	assert_int_equal(sp_session_input(w.s[1], slot, rec + used, n - (size_t)used,
					  w.now, &rekey, &why),
			 0);
	settle(slot);
}

static int make_world(uint64_t workers_memory)
{
	memset(&w, 0, sizeof(w));
	w.now = 1000 * MS;
	w.auto_open = true;
	for (int i = 0; i < 2; i++) {
		struct sp_arena_options ao = {.max_sessions = 2,
					      .max_streams = 4096,
					      .memory_bytes =
						      i ? workers_memory : 16 << 20};
		struct sp_session_options o = {.role = i ? SP_ROLE_WORKER
							 : SP_ROLE_CLIENT,
					       .ops = &ops,
					       .ctx = &side_of[i],
					       .clock_us = &w.now};
		assert_int_equal(sp_arena_new(&ao, &w.arena[i]), 0);
		o.arena = w.arena[i];
		sp_session_limits_default(&o.limits);
		o.limits.max_streams = 100;
		o.limits.max_flows = 10;
		assert_int_equal(sp_session_new(&o, w.now, &w.s[i]), 0);
	}
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return make_world(16 << 20);
}

static int setup_with_little_memory_at_the_worker(void **state)
{
	(void)state;
	return make_world(1 << 20);
}

static int teardown(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		sp_session_free(w.s[i], SP_REASON_SHUTDOWN);
		sp_arena_free(w.arena[i]);
	}
	return 0;
}

static struct sp_stream *open_stream(void)
{
	struct sp_target t = {.kind = SP_TARGET_IPV4, .port = 80};
	struct sp_stream *st;
	assert_int_equal(sp_session_open(w.s[0], &t, NULL, &st), 0);
	settle(0);
	return st;
}

static struct sp_flow *open_flow(uint16_t port)
{
	struct sp_target t = {.kind = SP_TARGET_IPV4, .port = port};
	struct sp_flow *fl;
	assert_int_equal(sp_session_open_flow(w.s[0], &t, NULL, &fl), 0);
	return fl;
}

static size_t push(struct sp_stream *st, size_t len)
{
	size_t done = 0;
	struct iovec iov[16];
	while (done < len) {
		int n = sp_stream_reserve(st, len - done, iov, 16);
		size_t got = 0;
		for (int i = 0; i < n; i++) {
			memset(iov[i].iov_base, 'x', iov[i].iov_len);
			got += iov[i].iov_len;
		}
		if (got == 0)
			break;
		sp_stream_commit(st, got);
		done += got;
	}
	return done;
}

// Takes one frame for `to` on slot 0; returns what the engine says.
static int give(int to, const uint8_t *frames, size_t len)
{
	bool rekey;
	enum sp_reason why;
	return sp_session_input(w.s[to], 0, frames, len, w.now, &rekey, &why);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define L(f)                                                                             \
	cmocka_unit_test_setup_teardown(f, setup_with_little_memory_at_the_worker,       \
					teardown)

#endif
