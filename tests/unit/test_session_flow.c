// The engine's rules one by one, in virtual time: datagram flows, the end of sessions,
// and what a peer may not say.
#include "session_world.h"

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

static void a_goaway_is_said_on_later_carriers_until_it_is_taken_back(void **state)
{
	(void)state;
	attach(0);
	sp_session_goaway(w.s[1], SP_REASON_DRAINING, 1000);
	settle(0);
	w.goaway = SP_REASON_NONE;
	sp_session_detach(w.s[0], 0, &side_of[0], w.now);
	attach(1);
	settle(1);
	assert_int_equal(w.goaway, SP_REASON_DRAINING);
	w.goaway = SP_REASON_NONE;
	sp_session_stay(w.s[1]);
	sp_session_detach(w.s[0], 1, &side_of[0], w.now);
	attach(0);
	settle(0);
	assert_int_equal(w.goaway, SP_REASON_NONE);
	sp_session_goaway(w.s[1], SP_REASON_DRAINING, 1000); // and taken back unsent
	sp_session_stay(w.s[1]);
	settle(0);
	assert_int_equal(w.goaway, SP_REASON_NONE);
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

static void a_flood_of_passes_is_a_protocol_error(void **state)
{
	(void)state;
	static const uint8_t frame[] = {SP_FRAME_PASS, 1, 'p'};
	attach(0);
	for (int i = 0; i < 8; i++)
		assert_int_equal(give(1, frame, sizeof(frame)), 0);
	assert_int_equal(give(1, frame, sizeof(frame)), SP_E_PROTOCOL);
	w.now += 10000 * MS;
	assert_int_equal(give(1, frame, sizeof(frame)), 0);
	assert_int_equal(give(1, frame, sizeof(frame)), SP_E_PROTOCOL);
}

static void passes_renewed_often_cost_no_carrier_and_the_last_one_arrives(void **state)
{
	(void)state;
	attach(0);
	for (uint8_t i = 1; i <= 100; i++) {
		assert_int_equal(sp_session_send_pass(w.s[0], &i, 1), 0);
		elapse(10 * MS, 0);
	}
	assert_in_range(w.passes, 1, 8);
	elapse(11000 * MS, 0);
	assert_int_equal(w.pass, 100);
	assert_in_range(w.passes, 2, 8);
	unsigned before = w.passes;
	elapse(60000 * MS, 0);
	assert_int_equal(w.passes, before);
	assert_true(sp_session_deadline(w.s[0]) > w.now);
}

static void limits_that_the_worker_raises_hold_from_the_next_attach(void **state)
{
	(void)state;
	struct sp_session_limits lim;
	struct sp_target t = {.kind = SP_TARGET_IPV4, .port = 80};
	struct sp_stream *st;
	sp_session_limits_default(&lim);
	lim.max_streams = 1;
	sp_session_set_limits(w.s[1], &lim);
	attach(0);
	open_stream();
	assert_int_equal(sp_session_open(w.s[0], &t, NULL, &st), SP_E_LIMIT);
	lim.max_streams = 2;
	sp_session_set_limits(w.s[1], &lim);
	attach(0);
	open_stream();
	assert_int_equal(sp_session_open(w.s[0], &t, NULL, &st), SP_E_LIMIT);
}

static void a_position_told_again_makes_nothing_be_sent_again(void **state)
{
	(void)state;
	struct sp_attach at = {.epoch = 2, .slot = 0};
	struct sp_session_stats stats;
	static const uint8_t list[] = {SP_FRAME_RESUME, 0, 1, 1, 0, 0, 0};
	attach(0);
	open_stream();
	assert_int_equal(push(w.opened_at_worker, 60000), 60000);
	w.block = true;
	settle(0);
	assert_int_equal(sp_session_attach_worker(w.s[1], &at, false, &slot_ops,
						  &side_of[1], w.now),
			 0);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(give(1, list, sizeof(list)), 0);
		while (sp_session_output(w.s[1], 0, SP_RECORD_PLAIN_MAX, &g, w.now) > 0)
			;
	}
	sp_session_stats(w.s[1], &stats);
	assert_int_equal(stats.bytes_resent, 60000);
}

static void tickets_go_in_small_records_too(void **state)
{
	(void)state;
	struct sp_attach at = {.epoch = 1, .slot = 0};
	static const uint8_t ticket[400] = {0};
	static uint8_t rec[SP_RECORD_PLAIN_MAX];
	int tickets = 0, resumes = 0;
	size_t n;
	assert_int_equal(sp_session_attach_worker(w.s[1], &at, false, &slot_ops,
						  &side_of[1], w.now),
			 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			sp_session_add_ticket(w.s[1], 0, 60, ticket, sizeof(ticket)), 0);
	while ((n = sp_session_output(w.s[1], 0, 512, &g, w.now)) > 0) {
		struct sp_frame f;
		struct sp_reader r;
		sp_reader_init(&r, rec, flatten(rec));
		while (sp_reader_left(&r)) {
			assert_int_equal(sp_frame_get(&r, &f), 0);
			tickets += f.type == SP_FRAME_TICKET;
			resumes += f.type == SP_FRAME_RESUME;
		}
	}
	assert_int_equal(tickets, 2);
	assert_int_equal(resumes, 1);
}

static void memory_of_a_freed_session_wakes_those_who_wait(void **state)
{
	(void)state;
	struct sp_session_options o = {.role = SP_ROLE_WORKER,
				       .arena = w.arena[1],
				       .ops = &ops,
				       .ctx = &side_of[1],
				       .clock_us = &w.now};
	struct sp_session *other;
	uint32_t c[4096], n = 0;
	sp_session_limits_default(&o.limits);
	attach(0);
	open_stream();
	assert_int_equal(sp_session_new(&o, w.now, &other), 0);
	while ((c[n] = sp_arena_chunk_alloc(w.arena[1], false)) != SP_ARENA_NONE)
		n++; // the other session's, say
	push(w.opened_at_worker, 1 << 20);
	assert_int_equal(w.source_ready, 0);
	while (n)
		sp_arena_chunk_release(w.arena[1], c[--n], false);
	sp_session_free(other, SP_REASON_STALE);
	assert_int_equal(w.source_ready, 1);
}

static void streams_nobody_heard_of_leave_nothing_behind(void **state)
{
	(void)state;
	struct sp_target t = {.kind = SP_TARGET_IPV4, .port = 80};
	struct sp_stream *st;
	for (int i = 0; i < 10000; i++) { // no carrier, and applications give up
		assert_int_equal(sp_session_open(w.s[0], &t, NULL, &st), 0);
		assert_int_equal(push(st, 10), 10);
		sp_stream_reset(st, SP_REASON_APP_RESET);
	}
	attach(0);
	assert_int_equal(w.opens, 0);
	open_stream();
	assert_int_equal(w.opened, 1);
}

static void a_worker_that_speaks_of_a_stream_before_its_open_errs(void **state)
{
	(void)state;
	static const uint8_t frames[][8] = {
		{SP_FRAME_OPENED, 1, 0, 1, 127, 0, 0, 1},
		{SP_FRAME_DATA, 1, 0, 0},
		{SP_FRAME_WINDOW, 1, 0, 0},
		{SP_FRAME_RESET, 1, 0, 1},
	};
	struct sp_target t = {.kind = SP_TARGET_IPV4, .port = 80};
	struct sp_stream *st;
	uint8_t rec[16] = {0};
	attach(0);
	assert_int_equal(sp_session_open(w.s[0], &t, NULL, &st), 0);
	for (size_t i = 0; i < 4; i++) {
		memcpy(rec, frames[i], 8);
		assert_int_equal(give(0, rec, i ? 4 : 10), SP_E_PROTOCOL);
	}
	assert_int_equal(w.opened + w.closed, 0);
}

static void datagrams_of_flows_that_are_gone_do_not_end_the_carrier(void **state)
{
	(void)state;
	uint8_t frames[6] = {SP_FRAME_DGRAM, 1, 0, SP_FRAME_DGRAM, 2, 0};
	attach(0);
	for (int i = 0; i < 20000; i++)
		assert_int_equal(give(1, frames, sizeof(frames)), 0);
}

static void the_answer_about_an_id_that_is_gone_survives_its_carrier(void **state)
{
	(void)state;
	static const uint8_t opened[] = {SP_FRAME_OPENED, 1, 0, 1, 127, 0, 0, 1, 0, 80};
	static uint8_t rec[SP_RECORD_PLAIN_MAX];
	int resets = 0;
	attach(0);
	sp_stream_reset(open_stream(), SP_REASON_APP_RESET);
	elapse(100 * MS, 0);
	assert_int_equal(give(0, opened, sizeof(opened)), 0);
	assert_true(sp_session_output(w.s[0], 0, SP_RECORD_PLAIN_MAX, &g, w.now) >
		    0); // lost
	sp_session_attach_client(w.s[0], 1, &slot_ops, &side_of[0], w.now);
	while (sp_session_output(w.s[0], 1, SP_RECORD_PLAIN_MAX, &g, w.now) > 0) {
		struct sp_frame f;
		struct sp_reader r;
		sp_reader_init(&r, rec, flatten(rec));
		while (sp_reader_left(&r)) {
			assert_int_equal(sp_frame_get(&r, &f), 0);
			resets += f.type == SP_FRAME_RESET && f.id == 1 &&
				  f.reason == SP_REASON_GONE;
		}
	}
	assert_int_equal(resets, 1);
	attach(1); // it goes once, if it is reported
	elapse(100 * MS, 1);
	sp_session_attach_client(w.s[0], 1, &slot_ops, &side_of[0], w.now);
	uint8_t hello[64];
	assert_true(sp_session_hello(w.s[0], 1, hello, sizeof(hello), w.now) > 0);
	assert_int_equal(sp_session_output(w.s[0], 1, SP_RECORD_PLAIN_MAX, &g, w.now), 4);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
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
		T(a_goaway_is_said_on_later_carriers_until_it_is_taken_back),
		T(an_end_that_was_lost_is_told_to_the_next_carrier),
		T(a_flood_of_passes_is_a_protocol_error),
		T(passes_renewed_often_cost_no_carrier_and_the_last_one_arrives),
		T(limits_that_the_worker_raises_hold_from_the_next_attach),
		T(a_position_told_again_makes_nothing_be_sent_again),
		T(tickets_go_in_small_records_too),
		T(memory_of_a_freed_session_wakes_those_who_wait),
		T(streams_nobody_heard_of_leave_nothing_behind),
		T(a_worker_that_speaks_of_a_stream_before_its_open_errs),
		T(datagrams_of_flows_that_are_gone_do_not_end_the_carrier),
		T(the_answer_about_an_id_that_is_gone_survives_its_carrier),
		T(what_only_the_other_role_may_say_is_a_protocol_error),
		T(a_frame_behind_rekey_is_a_protocol_error),
	};
	return cmocka_run_group_tests_name("session_flow", tests, NULL, NULL);
}
