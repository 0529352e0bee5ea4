// The engine's rules one by one, in virtual time; test_session_sim.c does the wild part.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/arena.h"
#include "lib/frame.h"
#include "lib/session.h"

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
	(void)blob;
	(void)len;
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
		struct sp_arena_options ao = {2, 4096, i ? workers_memory : 16 << 20};
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

static void a_blocked_sink_stops_the_source_at_the_credit(void **state)
{
	(void)state;
	attach(0);
	struct sp_stream *st = open_stream();
	w.block = true;
	size_t sent = push(st, 10 << 20);
	settle(0);
	sent += push(st, 10 << 20);
	assert_int_equal(sent, 65536);
	assert_int_equal(sp_stream_reserve(st, 1, &(struct iovec){0}, 1), 0);
	w.block = false;
	sp_stream_sink_ready(w.opened_at_worker);
	settle(0);
	assert_int_equal(w.sunk[1], 65536);
	assert_true(w.source_ready > 0);
	assert_true(push(st, 10 << 20) >= 65536);
}

static void the_window_grows_to_its_limit_under_a_fast_reader(void **state)
{
	(void)state;
	attach(0);
	struct sp_stream *st = open_stream();
	for (int i = 0; i < 400; i++) {
		push(st, 1 << 20);
		settle(0);
		w.now += MS / 4;
	}
	w.block = true; // what still goes is what was granted
	size_t granted = 0, n;
	while ((n = push(st, 1 << 20)) > 0) {
		granted += n;
		settle(0);
	}
	assert_in_range(granted, (4 << 20) - 262144, 4 << 20);
}

static void a_source_is_read_little_ahead_of_what_was_sent(void **state)
{
	(void)state;
	attach(0);
	struct sp_stream *st = open_stream();
	for (int i = 0; i < 400; i++) {
		push(st, 1 << 20);
		settle(0);
		w.now += MS / 4;
	}
	assert_int_equal(push(st, 10 << 20), 262144);
	w.source_ready = 0;
	settle(0);
	assert_int_equal(w.source_ready, 1);
}

static void a_source_that_gives_up_when_told_does_not_change_a_record(void **state)
{
	(void)state;
	attach(0);
	struct sp_stream *st = open_stream();
	w.only_x = true;
	for (int i = 0; i < 400; i++) {
		push(st, 1 << 20);
		settle(0);
		w.now += MS / 4;
	}
	assert_int_equal(push(st, 10 << 20), 262144);
	w.gives_up = true;
	settle(0);
	assert_false(w.gives_up);
	assert_int_equal(w.closed, 1);
}

static void a_stream_beyond_its_credit_is_a_protocol_error(void **state)
{
	(void)state;
	uint8_t rec[8192];
	struct sp_writer wr;
	bool rekey;
	enum sp_reason why;
	attach(0);
	w.auto_open = false; // only the implicit credit of 4096
	open_stream();
	sp_writer_init(&wr, rec, sizeof(rec));
	sp_frame_put_data(&wr, false, 1, 0, 4097);
	memset(wr.p, 0, 4097);
	size_t n = sp_writer_len(&wr) + 4097;
	assert_int_equal(sp_session_input(w.s[1], 0, rec, n, w.now, &rekey, &why),
			 SP_E_PROTOCOL);
	sp_writer_init(&wr, rec, sizeof(rec));
	sp_frame_put_data(&wr, false, 1, 0, 4096);
	n = sp_writer_len(&wr) + 4096;
	assert_int_equal(sp_session_input(w.s[1], 0, rec, n, w.now, &rekey, &why), 0);
}

static void a_gap_is_a_protocol_error(void **state)
{
	(void)state;
	uint8_t rec[64];
	struct sp_writer wr;
	bool rekey;
	enum sp_reason why;
	attach(0);
	open_stream();
	sp_writer_init(&wr, rec, sizeof(rec));
	sp_frame_put_data(&wr, false, 1, 1, 0);
	assert_int_equal(
		sp_session_input(w.s[1], 0, rec, sp_writer_len(&wr), w.now, &rekey, &why),
		SP_E_PROTOCOL);
	assert_int_equal(why, SP_REASON_PROTOCOL);
}

static uint32_t spare(int i)
{
	return sp_arena_chunks_spare(w.arena[i]);
}

// Forty streams of which the clients' sinks take nothing, so that the worker has to keep
// all it may.
static void hog(struct sp_stream *ret[40])
{
	w.block = true;
	for (int i = 0; i < 40; i++) {
		open_stream();
		ret[i] = w.opened_at_worker;
	}
	for (int i = 0; i < 40; i++) {
		push(ret[i], 1 << 20);
		settle(0);
	}
}

static void a_session_that_takes_nothing_leaves_memory_to_the_others(void **state)
{
	(void)state;
	struct sp_stream *st[40];
	attach(0);
	hog(st);
	assert_true(spare(1) >= sp_arena_chunks_pool(w.arena[1]) / 3);
}

static void for_credit_that_was_granted_there_is_memory(void **state)
{
	(void)state;
	struct sp_stream *st[40], *up[10];
	attach(0);
	for (int i = 0; i < 10; i++)
		up[i] = open_stream();
	hog(st);
	while (sp_arena_chunk_alloc(w.arena[1], false) != SP_ARENA_NONE)
		; // others have all the rest
	size_t sent = 0;
	for (int i = 0; i < 10; i++)
		sent += push(up[i], 1 << 20);
	assert_true(sent >= 200000);
	settle(0); // the worker's sinks take nothing either
	struct sp_session_stats stats;
	sp_session_stats(w.s[1], &stats);
	assert_int_equal(stats.bytes_dup, 0);
}

static void a_sink_that_takes_bytes_one_by_one_needs_no_more_memory(void **state)
{
	(void)state;
	attach(0);
	w.auto_open = false; // the implicit credit alone
	struct sp_stream *st = open_stream();
	while (sp_arena_chunk_alloc(w.arena[1], false) != SP_ARENA_NONE)
		;
	w.block = true;
	for (int i = 0; i < 100; i++) {
		push(st, 4096);
		settle(0);
		w.dribble = 100;
		sp_stream_sink_ready(w.opened_at_worker);
		elapse(30 * MS, 0);
	}
	assert_in_range(w.sunk[1], 9000, 10000);
}

static void a_source_without_memory_is_told_when_its_ring_is_empty(void **state)
{
	(void)state;
	attach(0);
	open_stream();
	while (sp_arena_chunk_alloc(w.arena[1], false) != SP_ARENA_NONE)
		; // others have it, and keep it
	for (int i = 1; i <= 10; i++) {
		assert_int_equal(push(w.opened_at_worker, 1 << 20), 4096);
		elapse(100 * MS, 0);
		assert_int_equal(w.source_ready, i);
	}
	assert_int_equal(w.sunk[0], 40960);
}

static void credit_that_comes_with_opened_wakes_the_source(void **state)
{
	(void)state;
	attach(0);
	w.auto_open = false;
	struct sp_stream *st = open_stream();
	w.block = true;
	assert_int_equal(push(st, 1 << 20), 4096);
	settle(0);
	assert_int_equal(w.source_ready, 0);
	sp_stream_opened(w.opened_at_worker, &(struct sp_target){.kind = SP_TARGET_IPV4});
	settle(0);
	assert_int_equal(w.source_ready, 1);
	assert_int_equal(push(st, 1 << 20), 65536 - 4096);
}

static void each_direction_ends_by_itself(void **state)
{
	(void)state;
	attach(0);
	struct sp_stream *st = open_stream();
	push(st, 10);
	sp_stream_source_fin(st);
	settle(0);
	assert_int_equal(w.sunk[1], 10);
	assert_int_equal(w.sink_fins, 1);
	assert_int_equal(w.closed, 0);
	push(w.opened_at_worker, 100000);
	settle(0);
	assert_true(w.sunk[0] >= 65536);
	sp_stream_source_fin(w.opened_at_worker);
	settle(0);
	elapse(100 * MS, 0);
	assert_int_equal(w.closed, 2);
	assert_int_equal(w.closed_reason, SP_REASON_CLOSED);
	struct sp_session_stats stats;
	sp_session_stats(w.s[1], &stats);
	assert_int_equal(stats.streams, 0);
	assert_int_equal(stats.replay_bytes, 0);
}

static void an_idle_stream_holds_no_replay_memory(void **state)
{
	(void)state;
	struct sp_session_stats stats;
	attach(0);
	open_stream();
	push(w.opened_at_worker, 3);
	settle(0);
	elapse(60 * MS, 0);
	sp_session_stats(w.s[1], &stats);
	assert_int_equal(w.sunk[0], 3);
	assert_int_equal(stats.replay_bytes, 0);
}

static void a_report_is_due_within_25_ms(void **state)
{
	(void)state;
	attach(0);
	elapse(100 * MS, 0);
	struct sp_target t = {.kind = SP_TARGET_IPV4, .port = 80};
	struct sp_stream *st;
	w.auto_open = false; // the worker has nothing to say but the report
	assert_int_equal(sp_session_open(w.s[0], &t, NULL, &st), 0);
	assert_true(pass_record(0, 0) > 0);
	assert_int_equal(pass_record(1, 0), 0);
	assert_int_equal(sp_session_deadline(w.s[1]), w.now + 25 * MS);
	w.now += 25 * MS;
	sp_session_tick(w.s[1], w.now);
	assert_true(pass_record(1, 0) > 0);
}

static void silence_while_a_report_is_due_is_a_stall_after_400_ms(void **state)
{
	(void)state;
	attach(0);
	elapse(200 * MS, 0);
	open_stream();
	elapse(200 * MS, 0);
	struct sp_target t = {.kind = SP_TARGET_IPV4, .port = 80};
	struct sp_stream *st;
	uint64_t since = w.now;
	assert_int_equal(sp_session_open(w.s[0], &t, NULL, &st), 0);
	assert_true(sp_session_output(w.s[0], 0, SP_RECORD_PLAIN_MAX, &g, w.now) >
		    0); // lost
	while (!w.stalls && w.now < since + 2000 * MS) {
		w.now += MS;
		if (w.now >= sp_session_deadline(w.s[0]))
			sp_session_tick(w.s[0], w.now);
		(void)sp_session_output(w.s[0], 0, SP_RECORD_PLAIN_MAX, &g, w.now);
	}
	assert_int_equal(w.stalls, 1);
	assert_in_range(w.now - since, 400 * MS, 420 * MS);
}

static void a_silent_download_is_noticed_within_700_ms(void **state)
{
	(void)state;
	attach(0);
	open_stream();
	elapse(300 * MS, 0);
	push(w.opened_at_worker, 1000);
	settle(0);
	uint64_t since = w.now; // nothing gets through from here on
	while (!w.stalls && w.now < since + 2000 * MS) {
		w.now += MS;
		if (w.now >= sp_session_deadline(w.s[0]))
			sp_session_tick(w.s[0], w.now);
		(void)sp_session_output(w.s[0], 0, SP_RECORD_PLAIN_MAX, &g, w.now);
	}
	assert_int_equal(w.stalls, 1);
	assert_in_range(w.now - since, 400 * MS, 700 * MS);
}

static void an_epoch_that_does_not_rise_is_refused(void **state)
{
	(void)state;
	attach(0);
	struct sp_attach at = {.epoch = sp_session_epoch(w.s[1]), .slot = 1};
	assert_int_equal(sp_session_attach_worker(w.s[1], &at, false, &slot_ops,
						  &side_of[1], w.now),
			 SP_E_STALE);
	at.epoch--;
	assert_int_equal(sp_session_attach_worker(w.s[1], &at, false, &slot_ops,
						  &side_of[1], w.now),
			 SP_E_STALE);
	assert_int_equal(w.closes[1], 0);
}

static void only_the_carrier_of_the_same_slot_is_superseded(void **state)
{
	(void)state;
	attach(0);
	attach(1);
	assert_int_equal(w.closes[0] + w.closes[1], 0);
	attach(0);
	assert_int_equal(w.closes[0], 1);
	assert_int_equal(w.closes[1], 1);
	assert_int_equal(w.close_reason[1], SP_REASON_SUPERSEDED);
}

static void what_was_lost_with_a_carrier_is_sent_again(void **state)
{
	(void)state;
	struct sp_session_stats stats;
	attach(0);
	struct sp_stream *st = open_stream();
	push(st, 5000);
	assert_true(sp_session_output(w.s[0], 0, SP_RECORD_PLAIN_MAX, &g, w.now) >
		    0); // lost
	sp_session_detach(w.s[0], 0, &side_of[0], w.now);
	sp_session_detach(w.s[1], 0, &side_of[1], w.now);
	assert_int_equal(sp_session_active_slot(w.s[0]), -1);
	attach(3);
	assert_int_equal(w.sunk[1], 5000);
	sp_session_stats(w.s[0], &stats);
	assert_int_equal(stats.bytes_resent, 5000);
	assert_int_equal(stats.resumes, 1);
}

static void a_resume_lists_only_what_changed(void **state)
{
	(void)state;
	attach(0);
	for (int i = 0; i < 100; i++)
		open_stream();
	elapse(200 * MS, 0);
	sp_session_detach(w.s[0], 0, &side_of[0], w.now);
	sp_session_detach(w.s[1], 0, &side_of[1], w.now);
	sp_session_attach_client(w.s[0], 0, &slot_ops, &side_of[0], w.now);
	uint8_t hello[4096];
	// ATTACH 23 bytes, RESUME with an empty list 4.
	assert_int_equal(sp_session_hello(w.s[0], 0, hello, sizeof(hello), w.now), 27);
}

static void
a_home_without_memory_ends_what_was_open_and_opens_the_rest_again(void **state)
{
	(void)state;
	attach(0);
	open_stream();
	w.auto_open = false;
	open_stream(); // asked for, not answered
	struct sp_session_options o = {.role = SP_ROLE_WORKER,
				       .arena = w.arena[1],
				       .ops = &ops,
				       .ctx = &side_of[1],
				       .clock_us = &w.now};
	sp_session_limits_default(&o.limits);
	sp_session_detach(w.s[0], 0, &side_of[0], w.now);
	w.closed = 0;
	sp_session_free(w.s[1], SP_REASON_STALE);
	assert_int_equal(w.closed, 2);
	assert_int_equal(sp_session_new(&o, w.now, &w.s[1]), 0);
	w.closed = w.opens = w.opened = 0;
	w.auto_open = true;
	attach(0);
	assert_true(w.fresh);
	assert_int_equal(w.closed, 1);
	assert_int_equal(w.closed_reason, SP_REASON_HOME_LOST);
	assert_int_equal(w.opens, 1);
	assert_int_equal(w.opened, 1);
}

static void a_stream_over_the_limit_is_refused_and_the_others_live(void **state)
{
	(void)state;
	struct sp_session_limits lim;
	attach(0);
	sp_session_limits_default(&lim);
	lim.max_streams = 3;
	sp_session_set_limits(w.s[1], &lim);
	for (int i = 0; i < 4; i++)
		open_stream();
	assert_int_equal(w.opened, 3);
	assert_int_equal(w.closed, 1);
	assert_int_equal(w.closed_reason, SP_REASON_STREAM_LIMIT);
}

// Takes one frame for `to` on slot 0; returns what the engine says.
static int give(int to, const uint8_t *frames, size_t len)
{
	bool rekey;
	enum sp_reason why;
	return sp_session_input(w.s[to], 0, frames, len, w.now, &rekey, &why);
}

static void no_data_overtakes_the_control_frames_that_announce_it(void **state)
{
	(void)state;
	struct sp_stream *st[60];
	struct sp_target t = {.kind = SP_TARGET_NAME, .port = 80, .name = "a.example"};
	uint8_t d[40] = {0};
	attach(0);
	for (int i = 0; i < 60; i++) { // more than one small record can announce
		assert_int_equal(sp_session_open(w.s[0], &t, NULL, &st[i]), 0);
		assert_true(push(st[i], 10) == 10);
	}
	assert_int_equal(sp_flow_send(open_flow(53), d, sizeof(d)), 0);
	while (pass_small(0, 0, 512) > 0)
		;
	assert_int_equal(w.opens, 60);
	assert_int_equal(w.sunk[1], 600);
	assert_int_equal(w.dgrams, 1);
	assert_int_equal(w.flow_closed, 0);
	while (pass_small(1, 0, 512) > 0)
		;
	assert_int_equal(w.opened, 60);
	assert_int_equal(w.closed, 0);
}

static void data_before_opened_is_a_protocol_error(void **state)
{
	(void)state;
	uint8_t rec[64] = {0};
	struct sp_writer wr;
	attach(0);
	w.auto_open = false;
	open_stream();
	sp_writer_init(&wr, rec, sizeof(rec));
	sp_frame_put_data(&wr, false, 1, 0, 5);
	assert_int_equal(give(0, rec, sp_writer_len(&wr) + 5), SP_E_PROTOCOL);
}

static void an_open_of_an_id_that_is_gone_is_answered(void **state)
{
	(void)state;
	attach(0);
	struct sp_stream *st = open_stream();
	sp_stream_reset(st, SP_REASON_APP_RESET);
	settle(0);
	assert_int_equal(w.closed_reason, SP_REASON_APP_RESET);
	uint8_t rec[64];
	struct sp_writer wr;
	bool rekey;
	enum sp_reason why;
	struct sp_target t = {.kind = SP_TARGET_IPV4, .port = 80};
	sp_writer_init(&wr, rec, sizeof(rec));
	sp_frame_put_open(&wr, 1, 65536, 0, &t);
	assert_int_equal(
		sp_session_input(w.s[1], 0, rec, sp_writer_len(&wr), w.now, &rekey, &why),
		0);
	assert_int_equal(w.opens, 1);
	assert_true(sp_session_output(w.s[1], 0, SP_RECORD_PLAIN_MAX, &g, w.now) > 0);
	size_t n = flatten(rec);
	struct sp_reader r;
	struct sp_frame f = {.type = SP_FRAME_PAD};
	sp_reader_init(&r, rec, n);
	while (sp_reader_left(&r) && f.type != SP_FRAME_RESET)
		assert_int_equal(sp_frame_get(&r, &f), 0);
	assert_int_equal(f.type, SP_FRAME_RESET);
	assert_int_equal(f.reason, SP_REASON_GONE);
}

static void the_stalest_flow_goes_and_never_the_newest(void **state)
{
	(void)state;
	struct sp_flow *fl[11];
	attach(0);
	for (int i = 0; i < 10; i++) {
		fl[i] = open_flow((uint16_t)(1000 + i));
		w.now += MS;
	}
	assert_int_equal(sp_flow_send(fl[0], (const uint8_t *)"a", 1), 0); // fresh again
	fl[10] = open_flow(2000);
	assert_int_equal(w.flow_closed, 1);
	assert_int_equal(w.flow_reason, SP_REASON_FLOW_LIMIT);
	assert_int_equal(sp_flow_send(fl[10], (const uint8_t *)"a", 1), 0);
	assert_int_equal(sp_flow_send(fl[0], (const uint8_t *)"a", 1), 0);
	settle(0);
	assert_int_equal(w.dgrams, 3);
}

static void dns_goes_before_other_datagrams_and_bulk(void **state)
{
	(void)state;
	attach(0);
	struct sp_stream *st = open_stream();
	struct sp_flow *bulk = open_flow(5000), *dns = open_flow(53);
	push(st, 65536);
	uint8_t d[1000] = {0};
	for (int i = 0; i < 20; i++)
		assert_int_equal(sp_flow_send(bulk, d, sizeof(d)), 0);
	assert_int_equal(sp_flow_send(dns, d, 40), 0);
	settle(0);
	assert_int_equal(w.dgrams, 21);
	assert_int_equal(w.ports[0], 53);
}

static void streams_and_datagrams_share_half_and_half(void **state)
{
	(void)state;
	attach(0);
	struct sp_stream *st = open_stream();
	struct sp_flow *bulk = open_flow(5000);
	uint8_t d[1200] = {0};
	settle(0);
	push(st, 65536);
	for (int i = 0; i < 100; i++)
		assert_int_equal(sp_flow_send(bulk, d, sizeof(d)), 0);
	size_t stream0 = w.sunk[1];
	for (int i = 0; i < 4; i++)
		assert_true(pass_record(0, 0) > 0);
	size_t streams = w.sunk[1] - stream0, dgrams = (size_t)w.dgrams * sizeof(d);
	assert_in_range(streams, dgrams * 7 / 10, dgrams * 13 / 10);
}

static void a_flood_of_datagrams_is_bounded_and_costs_the_fattest(void **state)
{
	(void)state;
	attach(0);
	struct sp_flow *fat = open_flow(5000), *thin = open_flow(5001);
	uint8_t d[1000] = {0};
	assert_int_equal(sp_flow_send(thin, d, 10), 0);
	for (int i = 0; i < 2000; i++)
		assert_int_equal(sp_flow_send(fat, d, sizeof(d)), 0);
	settle(0);
	struct sp_session_stats stats;
	sp_session_stats(w.s[0], &stats);
	assert_in_range(stats.dgrams_tx, 500, 525);
	assert_int_equal(stats.dgrams_dropped, 2001 - stats.dgrams_tx);
	bool thin_arrived = false;
	for (int i = 0; i < 64; i++)
		thin_arrived |= w.ports[i] == 5001;
	assert_true(thin_arrived);
}

static void empty_datagrams_are_bounded_too(void **state)
{
	(void)state;
	struct sp_session_stats stats;
	attach(0);
	struct sp_flow *fl = open_flow(5000);
	for (int i = 0; i < 100000; i++)
		assert_int_equal(sp_flow_send(fl, (const uint8_t *)"", 0), 0);
	sp_session_stats(w.s[0], &stats);
	assert_in_range(stats.dgrams_dropped, 80000, 100000);
}

static void a_large_datagram_is_not_starved_by_streams(void **state)
{
	(void)state;
	static uint8_t d[SP_DATAGRAM_MAX];
	attach(0);
	struct sp_stream *st = open_stream();
	struct sp_flow *fl = open_flow(5000);
	settle(0);
	for (int i = 0; i < 3; i++) {
		size_t len = i == 0 ? 5000 : i == 1 ? 12000 : sizeof(d);
		push(st, 65536);
		assert_int_equal(sp_flow_send(fl, d, len), 0);
		assert_true(pass_record(0, 0) > 0);
		assert_true(pass_record(0, 0) > 0);
		assert_int_equal(w.dgrams, i + 1);
	}
}

static void a_datagram_over_the_limit_is_not_taken(void **state)
{
	(void)state;
	static uint8_t rec[SP_RECORD_PLAIN_MAX];
	struct sp_writer wr;
	attach(0);
	open_flow(5000);
	settle(0);
	sp_writer_init(&wr, rec, sizeof(rec));
	sp_frame_put_dgram(&wr, 1, SP_DATAGRAM_MAX + 1);
	assert_int_equal(give(1, rec, sp_writer_len(&wr) + SP_DATAGRAM_MAX + 1),
			 SP_E_MALFORMED);
	assert_int_equal(w.dgrams, 0);
}

static void a_program_may_close_and_open_flows_while_it_is_told_of_an_end(void **state)
{
	(void)state;
	attach(0);
	for (int i = 0; i < 10; i++)
		open_flow(5000);
	w.flow_again = true;
	struct sp_flow *fl = open_flow(6000);
	assert_int_equal(w.flow_closed, 1);
	settle(0);
	assert_int_equal(sp_flow_send(fl, (const uint8_t *)"a", 1), 0);
	assert_int_equal(sp_flow_send(w.flow_opened_again, (const uint8_t *)"b", 1), 0);
	settle(0);
	assert_int_equal(w.dgrams, 2);
	assert_true((w.ports[0] == 6000 && w.ports[1] == 7000) ||
		    (w.ports[0] == 7000 && w.ports[1] == 6000));
}

static void old_datagrams_are_dropped_but_dns_waits_a_second(void **state)
{
	(void)state;
	attach(0);
	struct sp_flow *other = open_flow(5000), *dns = open_flow(53);
	settle(0);
	assert_int_equal(sp_flow_send(other, (const uint8_t *)"a", 1), 0);
	assert_int_equal(sp_flow_send(dns, (const uint8_t *)"a", 1), 0);
	w.now += 900 * MS;
	settle(0);
	assert_int_equal(w.dgrams, 1);
	assert_int_equal(w.ports[0], 53);
}

static void a_datagram_over_the_limit_is_refused(void **state)
{
	(void)state;
	static uint8_t d[SP_DATAGRAM_MAX + 1];
	attach(0);
	struct sp_flow *fl = open_flow(5000);
	assert_int_equal(sp_flow_send(fl, d, SP_DATAGRAM_MAX + 1), -EMSGSIZE);
	assert_int_equal(sp_flow_send(fl, d, SP_DATAGRAM_MAX), 0);
	settle(0);
	assert_int_equal(w.dgrams, 1);
}

static void idle_flows_end_at_both_ends(void **state)
{
	(void)state;
	attach(0);
	struct sp_flow *fl = open_flow(5000);
	assert_int_equal(sp_flow_send(fl, (const uint8_t *)"a", 1), 0);
	settle(0);
	assert_non_null(w.flow_at_worker);
	elapse(31000 * MS, 0);
	assert_true(w.flow_closed >= 2);
	struct sp_session_stats stats;
	sp_session_stats(w.s[1], &stats);
	assert_int_equal(stats.flows, 0);
}

static void goaway_and_end_reach_the_client(void **state)
{
	(void)state;
	attach(0);
	sp_session_goaway(w.s[1], SP_REASON_DRAINING, 1000);
	settle(0);
	assert_int_equal(w.goaway, SP_REASON_DRAINING);
	sp_session_end(w.s[1], SP_REASON_PASS_EXPIRED);
	settle(0);
	assert_int_equal(w.ended, SP_REASON_PASS_EXPIRED);
}

static void an_end_that_was_lost_is_told_to_the_next_carrier(void **state)
{
	(void)state;
	attach(0);
	sp_session_end(w.s[1], SP_REASON_REVOKED);
	assert_true(sp_session_output(w.s[1], 0, SP_RECORD_PLAIN_MAX, &g, w.now) >
		    0); // lost
	sp_session_detach(w.s[0], 0, &side_of[0], w.now);
	attach(1);
	assert_int_equal(w.ended, SP_REASON_REVOKED);
}

static void what_only_the_other_role_may_say_is_a_protocol_error(void **state)
{
	(void)state;
	static const uint8_t to_worker[][8] = {
		{1, SP_FRAME_END}, {1, SP_FRAME_GOAWAY}, {1, SP_FRAME_TICKET}};
	bool rekey;
	enum sp_reason why;
	attach(0);
	for (size_t i = 0; i < 3; i++) {
		uint8_t rec[16] = {to_worker[i][1]};
		size_t len = i == 0 ? 3 : i == 1 ? 4 : 6;
		assert_int_equal(
			sp_session_input(w.s[1], 0, rec, len, w.now, &rekey, &why),
			SP_E_PROTOCOL);
	}
	uint8_t open[16] = {SP_FRAME_OPEN, 9, 0, 0, 1, 127, 0, 0, 1, 0, 80};
	assert_int_equal(sp_session_input(w.s[0], 0, open, 11, w.now, &rekey, &why),
			 SP_E_PROTOCOL);
}

static void a_frame_behind_rekey_is_a_protocol_error(void **state)
{
	(void)state;
	bool rekey;
	enum sp_reason why;
	attach(0);
	assert_int_equal(sp_session_input(w.s[1], 0, (const uint8_t *)"\x01\x1d", 2,
					  w.now, &rekey, &why),
			 0);
	assert_true(rekey);
	assert_int_equal(sp_session_input(w.s[1], 0, (const uint8_t *)"\x1d\x01", 2,
					  w.now, &rekey, &why),
			 SP_E_PROTOCOL);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define L(f)                                                                             \
	cmocka_unit_test_setup_teardown(f, setup_with_little_memory_at_the_worker,       \
					teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_blocked_sink_stops_the_source_at_the_credit),
		T(the_window_grows_to_its_limit_under_a_fast_reader),
		T(a_source_is_read_little_ahead_of_what_was_sent),
		T(a_source_that_gives_up_when_told_does_not_change_a_record),
		T(a_stream_beyond_its_credit_is_a_protocol_error),
		T(a_gap_is_a_protocol_error),
		L(a_session_that_takes_nothing_leaves_memory_to_the_others),
		L(for_credit_that_was_granted_there_is_memory),
		L(a_sink_that_takes_bytes_one_by_one_needs_no_more_memory),
		L(a_source_without_memory_is_told_when_its_ring_is_empty),
		T(credit_that_comes_with_opened_wakes_the_source),
		T(each_direction_ends_by_itself),
		T(an_idle_stream_holds_no_replay_memory),
		T(a_report_is_due_within_25_ms),
		T(silence_while_a_report_is_due_is_a_stall_after_400_ms),
		T(a_silent_download_is_noticed_within_700_ms),
		T(an_epoch_that_does_not_rise_is_refused),
		T(only_the_carrier_of_the_same_slot_is_superseded),
		T(what_was_lost_with_a_carrier_is_sent_again),
		T(a_resume_lists_only_what_changed),
		T(a_home_without_memory_ends_what_was_open_and_opens_the_rest_again),
		T(a_stream_over_the_limit_is_refused_and_the_others_live),
		T(no_data_overtakes_the_control_frames_that_announce_it),
		T(data_before_opened_is_a_protocol_error),
		T(an_open_of_an_id_that_is_gone_is_answered),
		T(the_stalest_flow_goes_and_never_the_newest),
		T(dns_goes_before_other_datagrams_and_bulk),
		T(streams_and_datagrams_share_half_and_half),
		T(a_flood_of_datagrams_is_bounded_and_costs_the_fattest),
		T(empty_datagrams_are_bounded_too),
		T(a_large_datagram_is_not_starved_by_streams),
		T(a_datagram_over_the_limit_is_not_taken),
		T(a_program_may_close_and_open_flows_while_it_is_told_of_an_end),
		T(old_datagrams_are_dropped_but_dns_waits_a_second),
		T(a_datagram_over_the_limit_is_refused),
		T(idle_flows_end_at_both_ends),
		T(goaway_and_end_reach_the_client),
		T(an_end_that_was_lost_is_told_to_the_next_carrier),
		T(what_only_the_other_role_may_say_is_a_protocol_error),
		T(a_frame_behind_rekey_is_a_protocol_error),
	};
	return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
