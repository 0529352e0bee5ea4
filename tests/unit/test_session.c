// The engine's rules one by one, in virtual time: streams, credit, memory, carriers;
// test_session_sim.c does the wild part.
#include "session_world.h"

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

static void a_reservation_that_is_not_committed_is_given_back(void **state)
{
	(void)state;
	struct iovec iov[16];
	struct sp_stream *st[2];
	struct sp_session_stats stats;
	attach(0);
	for (int i = 0; i < 2; i++)
		st[i] = open_stream();
	for (int i = 0; i < 4; i++)
		assert_int_equal(sp_stream_reserve(st[i % 2], 65536, iov, 16), 16);
	sp_session_stats(w.s[0], &stats);
	assert_int_equal(stats.replay_bytes, 65536);
	(void)pass_record(0, 0);
	sp_session_stats(w.s[0], &stats);
	assert_int_equal(stats.replay_bytes, 0);
	assert_int_equal(sp_stream_reserve(st[0], 65536, iov, 16), 16);
	sp_stream_source_fin(st[0]);
	sp_session_stats(w.s[0], &stats);
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

static void a_client_that_slept_for_a_day_asks_at_once_and_is_not_patient(void **state)
{
	(void)state;
	attach(0);
	struct sp_stream *st = open_stream();
	for (int hours = 1; hours <= 24; hours += 23) {
		int stalls = w.stalls;
		w.now += (uint64_t)hours * 3600 * 1000 * MS; // its carrier died meanwhile
		sp_session_tick(w.s[0], w.now);
		// Nothing comes of what it asks.
		(void)sp_session_output(w.s[0], hours > 1, 512, &g, w.now);
		w.now += 401 * MS;
		sp_session_tick(w.s[0], w.now);
		assert_int_equal(w.stalls, stalls + 1);
		attach(1 + (hours > 1));
		push(st, 100);
		settle(1 + (hours > 1));
	}
	assert_int_equal(w.sunk[1], 200);
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

// Reports and whatever else is on its way on `slot`, from side `from`.
static void to_peer(int from, unsigned slot)
{
	while (pass_record(from, slot))
		;
}

static void a_spare_carrier_takes_over_in_one_round_trip(void **state)
{
	(void)state;
	attach(1);
	attach(0);
	struct sp_stream *st = open_stream();
	push(st, 3000);
	// What is on its way when the carrier in use dies is lost.
	assert_true(sp_session_output(w.s[0], 0, SP_RECORD_PLAIN_MAX, &g, w.now) > 0);
	sp_session_detach(w.s[0], 0, &side_of[0], w.now);
	sp_session_detach(w.s[1], 0, &side_of[1], w.now);
	assert_int_equal(sp_session_active_slot(w.s[0]), -1);
	assert_int_equal(sp_session_reattach(w.s[0], 1, w.now), 0);
	// It is not through with that one yet.
	assert_int_equal(sp_session_reattach(w.s[0], 1, w.now), SP_E_STALE);
	to_peer(0, 1); // there
	assert_int_equal(sp_session_active_slot(w.s[1]), 1);
	to_peer(1, 1); // and back
	to_peer(0, 1); // the bytes
	assert_int_equal(w.sunk[1], 3000);
	assert_int_equal(w.closes[0] + w.closes[1], 0);
	settle(1);
	assert_int_equal(sp_session_epoch(w.s[0]), sp_session_epoch(w.s[1]));
	assert_int_equal(sp_session_reattach(w.s[0], 1, w.now), 0);
	assert_int_equal(sp_session_reattach(w.s[0], 0, w.now), SP_E_STALE); // empty
}

static void
a_spare_carries_nothing_and_changes_nothing_until_it_is_reattached(void **state)
{
	static uint8_t rec[SP_RECORD_PLAIN_MAX];
	struct sp_attach at;
	bool rekey;
	enum sp_reason why;
	(void)state;
	attach(0);
	struct sp_stream *st = open_stream();
	push(st, 2000);
	sp_session_attach_spare(w.s[0], 5, &slot_ops, &side_of[0], w.now);
	assert_int_equal(sp_session_active_slot(w.s[0]), 0);
	assert_true(sp_session_output(w.s[0], 5, SP_RECORD_PLAIN_MAX, &g, w.now) > 0);
	size_t n = flatten(rec);
	int used = sp_attach_parse(rec, n, &at);
	assert_true(used > 0);
	assert_int_equal(at.flags, SP_ATTACH_SPARE);
	assert_int_equal(sp_session_attach_worker(w.s[1], &at, false, &slot_ops,
						  &side_of[1], w.now),
			 0);
	assert_int_equal(sp_session_input(w.s[1], 5, rec + used, n - (size_t)used, w.now,
					  &rekey, &why),
			 0);
	assert_int_equal(sp_session_active_slot(w.s[1]), 0);
	settle(5);
	assert_int_equal(w.sunk[1], 0); // not one byte on it
	assert_true(pass_small(0, 0, 1000) > 0);
	assert_true(w.sunk[1] > 0 && w.sunk[1] < 2000); // the other goes on as it was
	sp_session_detach(w.s[0], 0, &side_of[0], w.now);
	settle(5);
	assert_int_equal(sp_session_active_slot(w.s[0]), -1);
	assert_int_equal(sp_session_reattach(w.s[0], 5, w.now), 0);
	settle(5);
	assert_int_equal(w.sunk[1], 2000);
	assert_int_equal(sp_session_active_slot(w.s[1]), 5);
}

static int give_attach(const uint8_t *id, uint32_t epoch, uint8_t slot, uint8_t flags,
		       enum sp_reason *ret_why)
{
	uint8_t rec[64];
	struct sp_writer wr;
	bool rekey;
	sp_writer_init(&wr, rec, sizeof(rec));
	sp_frame_put_attach(&wr, id, epoch, slot, flags);
	return sp_session_input(w.s[1], 0, rec, sp_writer_len(&wr), w.now, &rekey,
				ret_why);
}

static void an_attach_said_again_is_of_the_same_session_and_slot_and_rises(void **state)
{
	uint8_t other[SP_SESSION_ID_BYTES] = {9};
	enum sp_reason why;
	(void)state;
	attach(0);
	uint32_t epoch = sp_session_epoch(w.s[1]);
	const uint8_t *id = sp_session_id(w.s[1]);
	assert_int_equal(give_attach(other, epoch + 1, 0, 0, &why), SP_E_PROTOCOL);
	assert_int_equal(give_attach(id, epoch + 1, 1, 0, &why), SP_E_PROTOCOL);
	assert_int_equal(give_attach(id, epoch + 1, 0, 1, &why), SP_E_PROTOCOL);
	assert_int_equal(give_attach(id, epoch, 0, 0, &why), SP_E_STALE);
	assert_int_equal(why, SP_REASON_STALE_EPOCH);
	assert_int_equal(sp_session_epoch(w.s[1]), epoch);
	assert_int_equal(give_attach(id, epoch + 1, 0, 0, &why), 0);
	// Once more before either has said its RESUME.
	assert_int_equal(give_attach(id, epoch + 2, 0, 0, &why), SP_E_PROTOCOL);
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
		T(a_reservation_that_is_not_committed_is_given_back),
		T(an_idle_stream_holds_no_replay_memory),
		T(a_report_is_due_within_25_ms),
		T(silence_while_a_report_is_due_is_a_stall_after_400_ms),
		T(a_silent_download_is_noticed_within_700_ms),
		T(a_client_that_slept_for_a_day_asks_at_once_and_is_not_patient),
		T(an_epoch_that_does_not_rise_is_refused),
		T(a_spare_carrier_takes_over_in_one_round_trip),
		T(a_spare_carries_nothing_and_changes_nothing_until_it_is_reattached),
		T(an_attach_said_again_is_of_the_same_session_and_slot_and_rises),
		T(only_the_carrier_of_the_same_slot_is_superseded),
		T(what_was_lost_with_a_carrier_is_sent_again),
		T(a_resume_lists_only_what_changed),
		T(a_home_without_memory_ends_what_was_open_and_opens_the_rest_again),
		T(a_stream_over_the_limit_is_refused_and_the_others_live),
		T(no_data_overtakes_the_control_frames_that_announce_it),
		T(data_before_opened_is_a_protocol_error),
		T(an_open_of_an_id_that_is_gone_is_answered),
	};
	return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
