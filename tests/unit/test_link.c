// Links over in-memory carriers: who gets in and who does not, how links end.
#include "lib/link_internal.h"
#include "tests/unit/link_world.h"

#define UNTIL(w, condition) assert_true(world_until(w, condition))

static void establish(struct link_world *w)
{
	struct sp_link_dial d = world_redial(w);
	unsigned ups = w->ups;

	world_connect_mem(w, &d, NULL, NULL);
	UNTIL(w, w->ups == ups + 1 && w->worker_link);
}

// ---- in ----

static void a_first_contact_gives_a_session_that_carries_streams(void **state)
{
	struct link_world *w = world_new();

	(void)state;
	establish(w);
	assert_true(w->fresh);
	assert_int_equal(w->admits, 1);
	assert_int_equal(w->n_tickets, 2);
	assert_int_equal(sp_link_home_id(w->client_link), 7);
	assert_int_equal(sp_link_boot_id(w->client_link), 8);
	world_open(w, 3000000, 5000000);
	UNTIL(w, world_done(w));
	world_check_bulk(w, 3000000, 5000000);
	assert_int_equal(sp_link_env_counters(w->worker_env)->established, 1);
	assert_int_equal(sp_link_env_counters(w->worker_env)->half_open, 0);
	assert_int_equal(sp_link_env_counters(w->client_env)->live, 1);
	world_free(w);
}

static void a_ticket_resumes_the_session_and_its_stream(void **state)
{
	struct link_world *w = world_new();

	(void)state;
	establish(w);
	world_open(w, 3000000, 3000000);
	UNTIL(w, w->client_bulk.got > 100000);
	sp_link_close(w->client_link, SP_REASON_CANCELLED);
	UNTIL(w, !w->client_link && !w->worker_link);
	establish(w);
	assert_false(w->fresh);
	assert_int_equal(w->admits, 2);
	UNTIL(w, world_done(w));
	world_check_bulk(w, 3000000, 3000000);
	world_free(w);
}

// ---- somebody else is asked who has the session ----

static void attach_that_waits(struct link_world *w)
{
	struct sp_link_dial d = world_redial(w);

	w->attach_waits = true;
	d.attach_flags = SP_ATTACH_MOVED | SP_ATTACH_PARKED;
	world_connect_mem(w, &d, NULL, NULL);
	world_open(w, 300000, 300000); // goes out behind ATTACH, at once
	UNTIL(w, w->waiting_link);
	assert_int_equal(w->attach_flags, SP_ATTACH_MOVED | SP_ATTACH_PARKED);
}

static void an_attach_may_wait_and_nothing_sent_meanwhile_is_lost(void **state)
{
	struct link_world *w = world_new();

	(void)state;
	attach_that_waits(w);
	sp_link_attach_again(w->waiting_link); // not known yet
	UNTIL(w, w->waits == 2);
	assert_int_equal(w->ups, 0);
	w->attach_waits = false;
	sp_link_attach_again(w->waiting_link);
	UNTIL(w, w->ups == 1 && world_done(w));
	world_check_bulk(w, 300000, 300000);
	assert_int_equal(w->waits, 2);
	world_free(w);
}

static void an_attach_that_waited_may_be_refused(void **state)
{
	struct link_world *w = world_new();

	(void)state;
	attach_that_waits(w);
	w->attach_says = SP_REASON_NOT_ADOPTED;
	sp_link_attach_again(w->waiting_link);
	UNTIL(w, w->client_downs == 1 && w->worker_downs == 1);
	assert_int_equal(w->client_reason, SP_REASON_NOT_ADOPTED);
	assert_null(w->worker);
	world_free(w);
}

static void an_attach_that_waits_for_ever_is_closed(void **state)
{
	struct link_world *w = world_new();

	(void)state;
	attach_that_waits(w);
	UNTIL(w, w->worker_downs == 1 && w->client_downs == 1);
	assert_null(w->waiting_link);
	assert_int_equal(sp_link_env_counters(w->worker_env)->half_open, 0);
	world_free(w);
}

// Out of tickets, the same device takes its session back with a first contact.
static void a_first_contact_reclaims_a_session(void **state)
{
	struct link_world *w = world_new();

	(void)state;
	establish(w);
	world_open(w, 3000000, 3000000);
	UNTIL(w, w->client_bulk.got > 100000);
	sp_link_close(w->client_link, SP_REASON_CANCELLED);
	UNTIL(w, !w->client_link && !w->worker_link);
	w->n_tickets = 0;
	establish(w);
	assert_false(w->fresh);
	UNTIL(w, world_done(w));
	world_check_bulk(w, 3000000, 3000000);
	world_free(w);
}

static void a_newer_carrier_takes_the_slot(void **state)
{
	struct link_world *w = world_new();
	struct sp_link *old;

	(void)state;
	establish(w);
	old = w->client_link;
	world_open(w, 2000000, 2000000);
	UNTIL(w, w->client_bulk.got > 100000);
	establish(w);
	assert_ptr_not_equal(old, w->client_link);
	UNTIL(w, w->client_downs == 1 && w->worker_downs == 1);
	assert_int_equal(w->client_reason, SP_REASON_SUPERSEDED);
	UNTIL(w, world_done(w));
	world_check_bulk(w, 2000000, 2000000);
	UNTIL(w, sp_link_env_counters(w->worker_env)->lingering == 0);
	world_free(w);
}

static void the_worlds_clock_difference_is_told(void **state)
{
	struct link_world *w = world_new();
	struct sp_link_dial d = world_dial(w);

	(void)state;
	d.clock_skew_ms = -400000; // as if ours were that far behind
	world_connect_mem(w, &d, NULL, NULL);
	UNTIL(w, w->strangers == 1);
	assert_int_equal(w->stranger_why, SP_REASON_CLOCK);
	sp_link_close(w->client_link, SP_REASON_CANCELLED);
	UNTIL(w, w->client_downs == 1);
	establish(w);
	assert_true(llabs(sp_link_clock_skew_ms(w->client_link)) < 1000);
	world_free(w);
}

// ---- not in ----

static void who_is_not_admitted_hears_why(void **state)
{
	struct link_world *w = world_new();
	struct sp_link_dial d = world_dial(w);

	(void)state;
	w->admit_says = SP_REASON_REVOKED;
	world_connect_mem(w, &d, NULL, NULL);
	UNTIL(w, w->client_downs == 1 && w->worker_downs == 1);
	assert_int_equal(w->client_reason, SP_REASON_REVOKED);
	assert_int_equal(w->worker_reason, SP_REASON_REVOKED);
	assert_int_equal(w->ups, 0);
	assert_null(w->worker);
	UNTIL(w, sp_link_env_counters(w->worker_env)->closed == 1);
	world_free(w);
}

static void a_refused_attach_is_closed_with_its_reason(void **state)
{
	struct link_world *w = world_new();
	struct sp_link_dial d = world_dial(w);

	(void)state;
	w->attach_says = SP_REASON_SESSION_LIMIT;
	world_connect_mem(w, &d, NULL, NULL);
	UNTIL(w, w->client_downs == 1 && w->worker_downs == 1);
	assert_int_equal(w->client_reason, SP_REASON_SESSION_LIMIT);
	assert_int_equal(w->ups, 0);
	assert_int_equal(sp_session_active_slot(w->client), -1);
	world_free(w);
}

static void an_epoch_that_does_not_rise_is_stale(void **state)
{
	struct link_world *w = world_new();
	struct sp_link_dial d;

	(void)state;
	establish(w);
	// Another worker record that has seen a higher epoch.
	sp_arena_session(w->arena, sp_session_record(w->worker))->epoch = 1000;
	w->n_tickets = 0;
	d = world_redial(w);
	d.slot = 1;
	world_connect_mem(w, &d, NULL, NULL);
	UNTIL(w, w->client_downs == 1);
	assert_int_equal(w->client_reason, SP_REASON_STALE_EPOCH);
	assert_ptr_equal(w->down_session, w->worker);
	assert_int_equal(w->ups, 1);
	world_free(w);
}

static void a_ticket_of_an_earlier_start_is_told_so(void **state)
{
	struct link_world *w = world_new();
	struct sp_link_dial d;

	(void)state;
	establish(w);
	randombytes_buf(w->keys.boot_key, sizeof(w->keys.boot_key));
	d = world_redial(w);
	d.slot = 1;
	world_connect_mem(w, &d, NULL, NULL);
	UNTIL(w, w->client_reason == SP_REASON_TICKET);
	assert_int_equal(w->worker_reason, SP_REASON_TICKET);
	w->n_tickets = 0;
	establish(w);
	world_free(w);
}

static void a_resume_of_a_session_that_is_gone_is_told_so(void **state)
{
	struct link_world *w = world_new();
	struct sp_link_dial d;

	(void)state;
	establish(w);
	w->admit_says = SP_REASON_TICKET;
	d = world_redial(w);
	d.slot = 1;
	world_connect_mem(w, &d, NULL, NULL);
	UNTIL(w, w->client_reason == SP_REASON_TICKET);
	assert_int_equal(w->worker_reason, SP_REASON_TICKET);
	world_free(w);
}

static void a_worker_with_another_key_is_not_believed(void **state)
{
	struct link_world *w = world_with(300, 100);
	struct sp_link_dial d = world_dial(w);
	uint8_t other[32];

	(void)state;
	randombytes_buf(other, sizeof(other));
	d.worker_public = other;
	world_connect_mem(w, &d, NULL, NULL);
	UNTIL(w, w->client_downs == 1);
	assert_int_equal(w->client_reason, SP_REASON_CLOSED); // after the timer, silence
	assert_int_equal(w->stranger_why, SP_REASON_MAC);
	assert_int_equal(w->worker_downs, 0);
	world_free(w);
}

static void an_answer_that_is_none_ends_the_dial(void **state)
{
	struct link_world *w = world_new();
	struct sp_link_dial d = world_dial(w);
	struct sp_carrier *c[2];
	uint8_t junk[600];

	(void)state;
	memset(junk, 1, sizeof(junk)); // a length of 257, then rubbish
	assert_int_equal(sp_carrier_mem_pair(NULL, NULL, c), 0);
	d.carrier.ready = c[0];
	assert_int_equal(sp_link_dial(w->client_env, &d, &w->client_link), 0);
	assert_int_equal(sp_carrier_write(c[1], junk, sizeof(junk)), sizeof(junk));
	UNTIL(w, w->client_downs == 1);
	assert_int_equal(w->client_reason, SP_REASON_HANDSHAKE);
	sp_carrier_free(c[1]);
	world_free(w);
}

static void a_dial_without_answer_times_out(void **state)
{
	struct link_world *w = world_new();
	struct sp_link_dial d = world_dial(w);
	struct sp_carrier *c[2];

	(void)state;
	assert_int_equal(sp_carrier_mem_pair(NULL, NULL, c), 0);
	d.carrier.ready = c[0];
	d.timeout_ms = 50;
	assert_int_equal(sp_link_dial(w->client_env, &d, &w->client_link), 0);
	UNTIL(w, w->client_downs == 1);
	assert_int_equal(w->client_reason, SP_REASON_TIMEOUT);
	sp_carrier_free(c[1]);
	world_free(w);
}

static void more_handshakes_than_the_budget_are_strangers(void **state)
{
	struct link_world *w = world_new();
	struct sp_budget_options budget;
	uint8_t flight[SP_HS_FLIGHT_MAX];
	struct sp_carrier *c[6];

	(void)state;
	sp_link_env_free(w->client_env);
	sp_link_env_free(w->worker_env);
	sp_budget_free(w->budget);
	sp_budget_options_default(&budget);
	budget.burst = 4;
	assert_int_equal(sp_budget_new(&budget, &w->budget), 0);
	world_envs(w, 10000, 100);
	for (int i = 0; i < 6; i++) {
		size_t len = world_flight(w, flight);
		c[i] = world_raw_client(w);
		assert_int_equal(sp_carrier_write(c[i], flight, len), len);
		UNTIL(w, w->admits + w->strangers == (unsigned)i + 1);
	}
	assert_int_equal(w->admits, 4);
	assert_int_equal(w->stranger_why, SP_REASON_BUDGET);
	assert_int_equal(sp_link_env_counters(w->worker_env)->strangers[SP_REASON_BUDGET],
			 2);
	for (int i = 0; i < 6; i++)
		sp_carrier_free(c[i]);
	world_free(w);
}

static void beyond_the_limit_the_oldest_half_open_goes(void **state)
{
	struct link_world *w = world_with(10000, 5);
	struct sp_carrier *c[12];
	uint8_t byte;

	(void)state;
	for (int i = 0; i < 12; i++) {
		c[i] = world_raw_client(w);
		UNTIL(w, (world_turn(w),
			  sp_link_env_counters(w->worker_env)->half_open <= 5));
	}
	for (int i = 0; i < 12; i++)
		assert_int_equal(sp_carrier_read(c[i], &byte, 1), i < 7 ? 0 : -EAGAIN);
	assert_int_equal(w->worker_downs, 7);
	assert_int_equal(w->worker_reason, SP_REASON_PRESSURE);
	for (int i = 0; i < 12; i++)
		sp_carrier_free(c[i]);
	world_free(w);
}

static void those_sent_away_do_not_pile_up(void **state)
{
	struct link_world *w = world_with(10000, 5);
	const struct sp_link_counters *n = sp_link_env_counters(w->worker_env);
	struct sp_carrier *c[40];

	(void)state;
	for (unsigned i = 0; i < 40; i++) { // nobody answers the FIN
		c[i] = world_raw_client(w);
		UNTIL(w, n->opened == i + 1);
		world_turn(w);
		assert_in_range(n->lingering, 0, 6);
	}
	assert_int_equal(n->half_open, 5);
	assert_int_equal(n->closed, 40 - n->half_open - n->lingering);
	for (unsigned i = 0; i < 40; i++)
		sp_carrier_free(c[i]);
	world_free(w);
}

// ---- strangers on tcp ----

struct stranger {
	struct sp_carrier *c;
	uint64_t ended_us;
	ssize_t got;
};

// Silence, a piece of a flight, a whole one that is wrong, a replay, noise: nothing comes
// back, and the end comes at the same time for all.
static void strangers_on_tcp_all_end_at_the_same_time_unanswered(void **state)
{
	struct link_world *w = world_with(300, 100);
	uint8_t flight[SP_HS_FLIGHT_MAX], buf[64], noise[9000];
	size_t len = world_flight(w, flight), left = 6;
	struct sp_carrier *first = world_raw_client(w);
	struct stranger s[6] = {0};
	uint64_t start, first_us = 0, last_us = 0;

	(void)state;
	memset(noise, 0xff, sizeof(noise));
	assert_int_equal(sp_carrier_write(first, flight, len), len);
	UNTIL(w, w->admits == 1);
	start = sp_loop_refresh(w->loop);
	for (int i = 0; i < 6; i++)
		s[i].c = world_raw_client(w);
	(void)!sp_carrier_write(s[1].c, flight, 1);
	(void)!sp_carrier_write(s[2].c, flight, len - 1);
	(void)!sp_carrier_write(s[3].c, flight, len); // a replay
	flight[0] ^= 1;
	(void)!sp_carrier_write(s[4].c, flight, len);
	(void)!sp_carrier_write(s[5].c, noise, sizeof(noise));
	UNTIL(w, ({
		      for (int i = 0; i < 6; i++) {
			      if (s[i].ended_us)
				      continue;
			      s[i].got = sp_carrier_read(s[i].c, buf, sizeof(buf));
			      if (s[i].got == -EAGAIN)
				      continue;
			      s[i].ended_us = sp_loop_now_us(w->loop);
			      left--;
		      }
		      left == 0;
	      }));
	for (int i = 0; i < 6; i++) {
		assert_int_equal(s[i].got, 0); // FIN, not a byte before it, no reset
		if (!first_us || s[i].ended_us < first_us)
			first_us = s[i].ended_us;
		if (s[i].ended_us > last_us)
			last_us = s[i].ended_us;
		// and it still reads
		assert_true(sp_carrier_write(s[i].c, noise, 100) > 0);
		sp_carrier_free(s[i].c);
	}
	assert_true(first_us - start >= 300000);
	assert_true(last_us - first_us < 30000);
	sp_carrier_free(first);
	world_free(w);
}

static void noise_of_every_length_is_never_answered(void **state)
{
	struct link_world *w = world_with(10000, 1000);
	uint8_t noise[400], byte;

	(void)state;
	for (size_t len = 0; len < sizeof(noise); len++) {
		struct sp_carrier *c = world_raw_client(w);
		randombytes_buf(noise, sizeof(noise));
		if (len)
			assert_int_equal(sp_carrier_write(c, noise, len), len);
		world_turn(w);
		world_turn(w);
		assert_int_equal(sp_carrier_read(c, &byte, 1), -EAGAIN);
		assert_int_equal(sp_carrier_shutdown(c), 0);
		UNTIL(w, sp_carrier_read(c, &byte, 1) == 0); // FIN answers FIN
		sp_carrier_free(c);
	}
	UNTIL(w, sp_link_env_counters(w->worker_env)->half_open == 0);
	assert_int_equal(w->admits, 0);
	world_free(w);
}

// ---- out ----

static void a_close_reaches_the_other_side_with_its_reason(void **state)
{
	struct link_world *w = world_new();

	(void)state;
	establish(w);
	sp_link_close(w->client_link, SP_REASON_IDLE);
	sp_link_close(w->client_link, SP_REASON_QUOTA); // the first counts
	assert_int_equal(w->client_downs, 0);           // not from inside the call
	UNTIL(w, w->client_downs == 1 && w->worker_downs == 1);
	assert_int_equal(w->client_reason, SP_REASON_IDLE);
	assert_int_equal(w->worker_reason, SP_REASON_IDLE);
	establish(w);
	sp_link_close(w->worker_link, SP_REASON_SHUTDOWN);
	UNTIL(w, w->client_downs == 2 && w->worker_downs == 2);
	assert_int_equal(w->client_reason, SP_REASON_SHUTDOWN);
	UNTIL(w, sp_link_env_counters(w->client_env)->closed == 2 &&
			 sp_link_env_counters(w->worker_env)->closed == 2);
	world_free(w);
}

static void a_stalled_carrier_is_closed_without_telling_that(void **state)
{
	struct link_world *w = world_new();

	(void)state;
	establish(w);
	sp_link_close(w->client_link, SP_REASON_STALL); // such numbers never travel
	UNTIL(w, w->client_downs == 1 && w->worker_downs == 1);
	assert_int_equal(w->client_reason, SP_REASON_STALL);
	assert_int_equal(w->worker_reason, SP_REASON_CANCELLED);
	world_free(w);
}

static void a_link_may_be_closed_from_its_own_callbacks(void **state)
{
	struct link_world *w = world_new();

	(void)state;
	w->close_at_up = true;
	establish(w);
	UNTIL(w, w->client_downs == 1 && w->worker_downs == 1);
	assert_int_equal(w->worker_reason, SP_REASON_CANCELLED);
	assert_ptr_equal(w->down_session, w->worker);
	assert_int_equal(sp_session_active_slot(w->worker), -1);
	world_free(w);
}

static void freeing_a_session_closes_its_links(void **state)
{
	struct link_world *w = world_new();

	(void)state;
	establish(w);
	sp_session_clock_remove(w->clock, w->worker);
	sp_session_free(w->worker, SP_REASON_REVOKED);
	w->worker = NULL;
	UNTIL(w, w->client_downs == 1 && w->worker_downs == 1);
	assert_int_equal(w->client_reason, SP_REASON_REVOKED);
	world_free(w);
}

static void freeing_an_env_tells_every_link(void **state)
{
	struct link_world *w = world_new();
	struct sp_carrier *raw;

	(void)state;
	establish(w);
	raw = world_raw_client(w); // half-open
	sp_link_env_free(w->worker_env);
	w->worker_env = NULL;
	assert_int_equal(w->worker_downs, 2);
	assert_int_equal(w->worker_reason, SP_REASON_SHUTDOWN);
	UNTIL(w, w->client_downs == 1);
	assert_int_equal(w->client_reason, SP_REASON_SHUTDOWN);
	sp_carrier_free(raw);
	world_free(w);
}

static void a_damaged_record_ends_the_carrier_alone(void **state)
{
	struct link_world *w = world_new();

	(void)state;
	establish(w);
	world_open(w, 500000, 500000);
	UNTIL(w, w->client_bulk.got > 100000);
	w->client_link->tx.n++; // as if a record had been lost
	UNTIL(w, w->worker_downs == 1 && w->client_downs == 1);
	assert_int_equal(w->worker_reason, SP_REASON_RECORD);
	assert_int_equal(w->client_reason, SP_REASON_RECORD);
	establish(w);
	assert_false(w->fresh);
	UNTIL(w, world_done(w));
	world_check_bulk(w, 500000, 500000);
	world_free(w);
}

static void an_old_key_is_replaced_in_both_directions(void **state)
{
	struct link_world *w = world_new();
	struct sp_link *c, *s;

	(void)state;
	establish(w);
	c = w->client_link;
	s = w->worker_link;
	world_open(w, 2000000, 2000000);
	for (unsigned i = 1; i <= 3; i++) {
		c->tx.key_bytes = s->tx.key_bytes = SP_RECORD_REKEY_BYTES;
		UNTIL(w, c->rx.rekeys >= i && s->rx.rekeys >= i);
	}
	UNTIL(w, world_done(w));
	world_check_bulk(w, 2000000, 2000000);
	assert_int_equal(w->client_downs + w->worker_downs, 0);
	world_free(w);
}

// ---- in between ----

static void reports_come_without_traffic(void **state)
{
	struct link_world *w = world_new();
	struct sp_session_stats stats;

	(void)state;
	establish(w);
	// Only the clock makes the worker report the client's ATTACH.
	UNTIL(w, (sp_session_stats(w->client, &stats), stats.srtt_us > 0));
	world_free(w);
}

static void a_carrier_begins_with_records_of_one_packet(void **state)
{
	struct link_world *w = world_new();
	const struct sp_link_counters *n = sp_link_env_counters(w->worker_env);

	(void)state;
	establish(w);
	uint64_t before = n->records_tx;
	world_open(w, 0, 3000000);
	UNTIL(w, w->client_bulk.got >= 24 * 1024);
	assert_true(n->records_tx - before >= 18);
	UNTIL(w, world_done(w));
	world_check_bulk(w, 0, 3000000);
	assert_true(n->records_tx - before < 18 + 3000000 / 8192);
	world_free(w);
}

static void one_link_does_not_starve_another(void **state)
{
	struct link_world *w = world_new();
	uint64_t reads;

	(void)state;
	establish(w);
	world_open(w, 200000000, 0);
	UNTIL(w, w->worker_bulk.got > 1000000);
	// However much waits, a turn moves a bounded part of it.
	for (int i = 0; i < 50; i++) {
		reads = sp_link_env_counters(w->worker_env)->bytes_rx;
		world_turn(w);
		reads = sp_link_env_counters(w->worker_env)->bytes_rx - reads;
		assert_true(reads <= LINK_TURN_BYTES + LINK_IN_BYTES);
	}
	world_free(w);
}

static void nothing_is_kept_for_an_idle_link(void **state)
{
	struct link_world *w = world_new();

	(void)state;
	establish(w);
	world_open(w, 1000000, 1000000);
	UNTIL(w, world_done(w));
	UNTIL(w, !w->client_link->wbuf.p && !w->worker_link->wbuf.p);
	assert_null(w->client_link->rbuf.p);
	assert_null(w->worker_link->rbuf.p);
	assert_null(w->worker_link->accept);
	assert_null(w->client_link->dial);
	world_free(w);
}

// The timer of the end is due before the link's work was done.
static void the_program_hears_of_an_end_even_if_the_process_was_stopped_then(void **state)
{
	struct link_world *w = world_new();
	struct sp_link *l;

	(void)state;
	establish(w);
	l = w->client_link;
	sp_link_close(l, SP_REASON_CANCELLED);
	l->deadline_us = 1;
	sp_timer_set(&w->client_env->timer, 1);
	UNTIL(w, !w->client_link);
	assert_int_equal(sp_session_active_slot(w->client), -1);
	UNTIL(w, !w->worker_link);
	establish(w);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_first_contact_gives_a_session_that_carries_streams),
		cmocka_unit_test(a_ticket_resumes_the_session_and_its_stream),
		cmocka_unit_test(a_first_contact_reclaims_a_session),
		cmocka_unit_test(a_newer_carrier_takes_the_slot),
		cmocka_unit_test(the_worlds_clock_difference_is_told),
		cmocka_unit_test(who_is_not_admitted_hears_why),
		cmocka_unit_test(a_refused_attach_is_closed_with_its_reason),
		cmocka_unit_test(an_attach_may_wait_and_nothing_sent_meanwhile_is_lost),
		cmocka_unit_test(an_attach_that_waited_may_be_refused),
		cmocka_unit_test(an_attach_that_waits_for_ever_is_closed),
		cmocka_unit_test(an_epoch_that_does_not_rise_is_stale),
		cmocka_unit_test(a_ticket_of_an_earlier_start_is_told_so),
		cmocka_unit_test(a_resume_of_a_session_that_is_gone_is_told_so),
		cmocka_unit_test(a_worker_with_another_key_is_not_believed),
		cmocka_unit_test(an_answer_that_is_none_ends_the_dial),
		cmocka_unit_test(a_dial_without_answer_times_out),
		cmocka_unit_test(more_handshakes_than_the_budget_are_strangers),
		cmocka_unit_test(beyond_the_limit_the_oldest_half_open_goes),
		cmocka_unit_test(those_sent_away_do_not_pile_up),
		cmocka_unit_test(strangers_on_tcp_all_end_at_the_same_time_unanswered),
		cmocka_unit_test(noise_of_every_length_is_never_answered),
		cmocka_unit_test(a_close_reaches_the_other_side_with_its_reason),
		cmocka_unit_test(a_stalled_carrier_is_closed_without_telling_that),
		cmocka_unit_test(a_link_may_be_closed_from_its_own_callbacks),
		cmocka_unit_test(freeing_a_session_closes_its_links),
		cmocka_unit_test(freeing_an_env_tells_every_link),
		cmocka_unit_test(a_damaged_record_ends_the_carrier_alone),
		cmocka_unit_test(an_old_key_is_replaced_in_both_directions),
		cmocka_unit_test(reports_come_without_traffic),
		cmocka_unit_test(a_carrier_begins_with_records_of_one_packet),
		cmocka_unit_test(one_link_does_not_starve_another),
		cmocka_unit_test(nothing_is_kept_for_an_idle_link),
		cmocka_unit_test(
			the_program_hears_of_an_end_even_if_the_process_was_stopped_then),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
