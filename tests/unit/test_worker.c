// The whole worker, made from files in a fresh folder, in this process; a client engine
// dials it through real links. One loop drives both.
#include "tests/unit/worker_world.h"

// ---- claims ----

static void a_client_gets_a_session_and_a_stream(void **state)
{
	struct device *d = &x.d[0];
	struct sp_stream *st;
	(void)state;
	up(d, "alice");
	assert_true(d->fresh);
	int fd = join_stream(d, &st);
	assert_int_equal(send(fd, "hello", 5, 0), 5);
	UNTIL(d->got == 5);
	close(fd);
	UNTIL(d->fin);
	sp_stream_source_fin(st);
	UNTIL(d->closed);
	assert_int_equal(d->close_why, SP_REASON_CLOSED);
	assert_int_equal(sessions()->made, 1);
}

static void a_stream_survives_its_carrier_by_a_ticket(void **state)
{
	struct device *d = &x.d[0];
	struct sp_stream *st;
	(void)state;
	up(d, "alice");
	UNTIL(d->ticket_len);
	int fd = join_stream(d, &st);
	sp_link_close(d->link, SP_REASON_CANCELLED);
	UNTIL(d->downs == 1);
	UNTIL(sessions()->detached == 1);
	assert_int_equal(send(fd, "meanwhile", 9, 0), 9);
	d->slot = 1;
	dial(d, true);
	UNTIL(d->ups == 2);
	assert_false(d->fresh);
	UNTIL(d->got == 9);
	assert_int_equal(sessions()->resumed, 1);
	assert_int_equal(sessions()->made, 1);
	close(fd);
}

static void another_device_cannot_take_a_session_over(void **state)
{
	struct device *d = &x.d[0], *thief = &x.d[1];
	(void)state;
	up(d, "alice");
	make_device(thief, "alice", 3600);
	// the thief knows the session's id and says a higher epoch
	struct sp_arena_options ao = {
		.max_sessions = 4, .max_streams = 16, .memory_bytes = 1 << 20};
	struct sp_session_options so = {
		.role = SP_ROLE_CLIENT,
		.ops = &client_ops,
		.ctx = thief,
		.clock_us = sp_loop_clock_us(x.w->loop),
	};
	sp_session_clock_remove(x.clock, thief->session);
	sp_session_free(thief->session, SP_REASON_NONE);
	sp_arena_free(thief->arena);
	assert_int_equal(sp_arena_new(&ao, &thief->arena), 0);
	so.arena = thief->arena;
	memcpy(so.id, sp_session_id(d->session), sizeof(so.id));
	sp_session_limits_default(&so.limits);
	assert_int_equal(sp_session_new(&so, 0, &thief->session), 0);
	assert_int_equal(sp_session_clock_add(x.clock, thief->session), 0);
	for (int i = 0; i < 3; i++) { // epochs 1, 2, 3
		dial(thief, false);
		UNTIL(thief->downs == i + 1);
		assert_int_equal(thief->down_why, SP_REASON_NOT_YOURS);
	}
	assert_int_equal(thief->ups, 0);
	assert_int_equal(d->downs, 0);
	assert_int_equal(sessions()->refused[SP_REASON_NOT_YOURS], 3);
}

static void an_expired_or_revoked_pass_is_refused(void **state)
{
	struct device *d = &x.d[0];
	(void)state;
	make_device(d, "alice", 3600);
	struct sp_pass old = {.not_before_s = 1000,
			      .expires_s = 2000,
			      .user = "alice",
			      .tier = "standard",
			      .max_sessions = 1};
	memcpy(old.device, d->pub, sizeof(old.device));
	int n = sp_pass_sign(&old, x.sign_secret, d->pass, sizeof(d->pass));
	d->pass_len = (size_t)n;
	dial(d, false);
	UNTIL(d->downs == 1);
	assert_int_equal(d->down_why, SP_REASON_PASS_EXPIRED);
	make_pass(d, "alice", 3600);
	char more[128], hex[33];
	sodium_bin2hex(hex, sizeof(hex), d->serial, sizeof(d->serial));
	snprintf(more, sizeof(more), ", \"revoked\": [\"%s\"]", hex);
	sign_config(2, more);
	reload();
	assert_int_equal(x.w->reloads_ok, 1);
	dial(d, false);
	UNTIL(d->downs == 2);
	assert_int_equal(d->down_why, SP_REASON_REVOKED);
	assert_int_equal(sessions()->made, 0);
}

static void a_revoked_pass_ends_its_live_session(void **state)
{
	struct device *d = &x.d[0];
	struct sp_stream *st;
	char more[128], hex[33], c;
	(void)state;
	up(d, "alice");
	int fd = join_stream(d, &st);
	sodium_bin2hex(hex, sizeof(hex), d->serial, sizeof(d->serial));
	snprintf(more, sizeof(more), ", \"revoked\": [\"%s\"]", hex);
	sign_config(2, more);
	reload();
	UNTIL(d->ended == 1);
	assert_int_equal(d->end_why, SP_REASON_REVOKED);
	UNTIL(sessions()->ended[SP_REASON_REVOKED] == 1);
	UNTIL(recv(fd, &c, 1, 0) <= 0 && errno != EAGAIN);
	assert_int_equal(sessions()->attached + sessions()->ending, 0);
	close(fd);
}

static void a_session_ends_with_its_pass(void **state)
{
	struct device *d = &x.d[0];
	(void)state;
	make_device(d, "alice", 3600);
	struct sp_pass p = {.not_before_s = 1,
			    .user = "alice",
			    .tier = "standard",
			    .max_sessions = 1,
			    .max_streams = 1,
			    .max_flows = 1};
	// two more seconds within the tolerance of clocks
	p.expires_s = sp_loop_unix_ms(x.w->loop) / 1000 - SP_PASS_SKEW_S + 2;
	memcpy(p.device, d->pub, sizeof(p.device));
	d->pass_len = (size_t)sp_pass_sign(&p, x.sign_secret, d->pass, sizeof(d->pass));
	dial(d, false);
	UNTIL(d->ups == 1);
	UNTIL(d->ended == 1);
	assert_int_equal(d->end_why, SP_REASON_PASS_EXPIRED);
}

static void a_renewed_pass_counts_and_a_stolen_one_does_not(void **state)
{
	struct device *d = &x.d[0], other;
	(void)state;
	up(d, "alice");
	make_pass(d, "alice", 7200);
	assert_int_equal(sp_session_send_pass(d->session, d->pass, d->pass_len), 0);
	UNTIL(sessions()->passes_renewed == 1);
	memset(&other, 0, sizeof(other));
	crypto_box_keypair(other.pub, other.secret);
	make_pass(&other, "alice", 7200); // of another device
	assert_int_equal(sp_session_send_pass(d->session, other.pass, other.pass_len), 0);
	UNTIL(sessions()->passes_rejected == 1);
	make_pass(d, "mallory", 7200); // of another user
	assert_int_equal(sp_session_send_pass(d->session, d->pass, d->pass_len), 0);
	UNTIL(sessions()->passes_rejected == 2);
	assert_int_equal(d->downs, 0);
}

static void an_attached_session_is_never_given_up_for_a_new_one(void **state)
{
	struct device *a = &x.d[0], *b = &x.d[1];
	(void)state;
	up(a, "alice");
	make_device(b, "bob", 3600);
	dial(b, false);
	UNTIL(b->downs == 1);
	assert_int_equal(b->down_why, SP_REASON_SESSION_LIMIT);
	assert_int_equal(a->downs, 0);
}

static void a_detached_session_makes_room(void **state)
{
	struct device *a = &x.d[0], *b = &x.d[1];
	(void)state;
	up(a, "alice");
	sp_link_close(a->link, SP_REASON_CANCELLED);
	UNTIL(sessions()->detached == 1);
	up(b, "bob");
	assert_int_equal(sessions()->evicted, 1);
	assert_int_equal(sessions()->ended[SP_REASON_SESSION_LIMIT], 1);
	assert_int_equal(wrk_sessions_users(x.w->sessions), 1);
}

static void a_stale_sessions_streams_go_and_it_stays(void **state)
{
	struct device *d = &x.d[0];
	struct sp_stream *st;
	char c;
	(void)state;
	up(d, "alice");
	UNTIL(d->ticket_len);
	int fd = join_stream(d, &st);
	sp_link_close(d->link, SP_REASON_CANCELLED);
	UNTIL(recv(fd, &c, 1, 0) <= 0 && errno != EAGAIN);
	assert_int_equal(sessions()->detached, 1);
	dial(d, true);
	UNTIL(d->ups == 2);
	assert_false(d->fresh);
	UNTIL(d->closed == 1);
	assert_int_equal(d->close_why, SP_REASON_STALE);
	close(fd);
}

static void opens_beyond_the_users_rate_are_refused(void **state)
{
	struct device *d = &x.d[0];
	(void)state;
	up(d, "alice");
	for (int i = 0; i < 7; i++) // five seconds' worth of burst, and two
		open_stream(d);
	UNTIL(d->opened + d->closed == 7);
	assert_int_equal(d->opened, 5);
	assert_int_equal(d->close_why, SP_REASON_RATE_LIMIT);
	assert_int_equal(sessions()->streams_rate_limited, 2);
}

static void the_exit_policy_of_the_signed_config_holds(void **state)
{
	struct device *d = &x.d[0];
	(void)state;
	up(d, "alice");
	sign_config(2, "");
	reload();
	open_stream(d);
	UNTIL(d->closed == 1);
	assert_int_equal(d->close_why, SP_REASON_POLICY);
}

static size_t got_in(struct device *d, int fd, uint64_t us)
{
	static const char bytes[65536] = {0};
	uint64_t end = sp_loop_refresh(x.w->loop) + us;
	size_t before = d->got;
	while (sp_loop_refresh(x.w->loop) < end) {
		struct timeval ms = {.tv_usec = 1000};
		while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
			;
		event_base_loopexit(sp_loop_base(x.w->loop), &ms);
		assert_int_equal(sp_loop_turn(x.w->loop, false), 0);
	}
	return d->got - before;
}

static void another_rate_of_the_tier_holds_for_a_stream_that_flows(void **state)
{
	struct device *d = &x.d[0];
	struct sp_stream *st;
	const char *policy = ", \"exit_policy\": [\"allow 127.0.0.0/8\"]";
	(void)state;
	up(d, "alice");
	int fd = join_stream(d, &st);
	size_t free_of_it = got_in(d, fd, 300000);
	assert_true(free_of_it > 1000000);
	sign_tiers(2, "{\"standard\": {\"rate_bps\": 500000}}", policy);
	reload();
	(void)got_in(d, fd, 200000); // what was under way, and the bucket
	size_t paced = got_in(d, fd, 1000000);
	assert_true(paced > 200000 && paced < 800000);
	sign_tiers(3, "{\"standard\": {}}", policy);
	reload();
	assert_true(got_in(d, fd, 300000) > 1000000);
	assert_int_equal(d->closed, 0);
	close(fd);
}

static void a_bad_reload_changes_nothing(void **state)
{
	(void)state;
	sp_log_setup(SP_LOG_ERROR, SP_LOG_LOGFMT, open("/dev/null", O_WRONLY));
	struct wrk_config *before = x.w->cfg;
	write_yaml("limits:\n  sessions: lots\n");
	reload();
	write_yaml("");
	sign_config(0, ""); // older
	reload();
	put("worker.signed", "nonsense", 8);
	reload();
	assert_ptr_equal(x.w->cfg, before);
	assert_int_equal(x.w->id.fleet->revision.sequence, 1);
	assert_int_equal(x.w->reloads_failed, 3);
	sign_config(7, "");
	reload();
	assert_int_equal(x.w->reloads_ok, 1);
	assert_int_equal(x.w->id.fleet->revision.sequence, 7);
	sp_log_setup(SP_LOG_ERROR, SP_LOG_LOGFMT, 2);
}

static void a_draining_worker_serves_its_sessions_and_takes_no_new_ones(void **state)
{
	struct device *a = &x.d[0], *b = &x.d[1];
	struct sp_stream *st;
	char why[64];
	(void)state;
	up(a, "alice");
	UNTIL(a->ticket_len);
	int fd = join_stream(a, &st);
	assert_true(wrk_worker_ready(x.w, why, sizeof(why)));
	raise(SIGTERM);
	UNTIL(a->goaway == SP_REASON_DRAINING);
	assert_false(wrk_worker_ready(x.w, why, sizeof(why)));
	assert_string_equal(why, "draining");
	make_device(b, "bob", 3600);
	dial(b, false);
	UNTIL(b->downs == 1);
	assert_int_equal(b->down_why, SP_REASON_DRAINING);
	sp_link_close(a->link, SP_REASON_CANCELLED);
	UNTIL(sessions()->detached == 1);
	dial(a, true);
	UNTIL(a->ups == 2);
	assert_int_equal(send(fd, "rest", 4, 0), 4);
	UNTIL(a->got == 4);
	close(fd);
}

static void after_a_lease_the_sessions_from_before_stay_again(void **state)
{
	struct device *a = &x.d[0];
	(void)state;
	up(a, "alice");
	UNTIL(a->ticket_len);
	wrk_worker_lease(x.w, true, 1000);
	UNTIL(a->goaway == SP_REASON_DRAINING);
	for (int i = 0; i < 2; i++) { // detached while it is said, then taken back
		a->goaway = SP_REASON_NONE;
		sp_link_close(a->link, SP_REASON_CANCELLED);
		UNTIL(sessions()->detached == 1);
		if (i == 1)
			wrk_worker_lease(x.w, false, 0);
		dial(a, true);
		UNTIL(a->ups == 2 + i);
		if (i == 0)
			UNTIL(a->goaway == SP_REASON_DRAINING);
	}
	struct sp_stream *st;
	int fd = join_stream(a, &st); // a round trip later
	assert_int_equal(a->goaway, SP_REASON_NONE);
	close(fd);
}

#define T(f)     cmocka_unit_test_setup_teardown(f, setup, teardown)
#define SMALL(f) cmocka_unit_test_setup_teardown(f, setup_small, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_client_gets_a_session_and_a_stream),
		T(a_stream_survives_its_carrier_by_a_ticket),
		T(another_device_cannot_take_a_session_over),
		T(an_expired_or_revoked_pass_is_refused),
		T(a_revoked_pass_ends_its_live_session),
		T(a_session_ends_with_its_pass),
		T(a_renewed_pass_counts_and_a_stolen_one_does_not),
		SMALL(an_attached_session_is_never_given_up_for_a_new_one),
		SMALL(a_detached_session_makes_room),
		SMALL(a_stale_sessions_streams_go_and_it_stays),
		SMALL(opens_beyond_the_users_rate_are_refused),
		T(the_exit_policy_of_the_signed_config_holds),
		T(another_rate_of_the_tier_holds_for_a_stream_that_flows),
		T(a_bad_reload_changes_nothing),
		T(after_a_lease_the_sessions_from_before_stay_again),
		T(a_draining_worker_serves_its_sessions_and_takes_no_new_ones),
	};
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
