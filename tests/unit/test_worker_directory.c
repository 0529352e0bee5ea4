// What a worker says to the directory and what it makes of the answers: a whole worker,
// real clients, and in the agent's place a directory that answers as each test wants.
#include "lib/wire.h"
#include "tests/unit/worker_world.h"
#include "worker/sessions_internal.h"

static struct {
	struct wrk_directory *d;
	uint64_t calls;
	bool down; // no agent
	unsigned puts, drops, adopts;
	Sallyport__Fleet__SessionRecord *put;  // the last record said
	Sallyport__Fleet__SessionAdopt *adopt; // the last question
	uint64_t put_call, adopt_call;
	uint8_t dropped[16];
} fake;

static int send_to_agent(void *link, const Sallyport__Local__FromExit *m)
{
	uint8_t buf[65536];
	(void)link;
	if (fake.down)
		return -ENOTCONN;
	size_t len = sallyport__local__from_exit__pack(m, buf);
	assert_true(len < sizeof(buf));
	Sallyport__Local__FromExit *c =
		sallyport__local__from_exit__unpack(NULL, len, buf);
	assert_non_null(c);
	switch ((int)c->body_case) {
	case SALLYPORT__LOCAL__FROM_EXIT__BODY_SESSION_PUT:
		fake.puts += (unsigned)c->session_put->n_records;
		fake.put_call = c->call;
		sallyport__fleet__session_record__free_unpacked(fake.put, NULL);
		fake.put = c->session_put->records[c->session_put->n_records - 1];
		c->session_put->n_records--;
		break;
	case SALLYPORT__LOCAL__FROM_EXIT__BODY_SESSION_ADOPT:
		fake.adopts++;
		fake.adopt_call = c->call;
		sallyport__fleet__session_adopt__free_unpacked(fake.adopt, NULL);
		fake.adopt = c->session_adopt;
		c->session_adopt = NULL;
		c->body_case = 0;
		break;
	case SALLYPORT__LOCAL__FROM_EXIT__BODY_SESSION_DROP:
		fake.drops++;
		memcpy(fake.dropped, c->session_drop->ids[0].data, 16);
		break;
	default:
		fail_msg("message %d", c->body_case);
	}
	sallyport__local__from_exit__free_unpacked(c, NULL);
	return 0;
}

static uint64_t next_call(void *link)
{
	(void)link;
	return ++fake.calls;
}

static void answer(uint64_t call, Sallyport__Fleet__SessionResult result,
		   Sallyport__Fleet__SessionRecord *rec, const char *reason)
{
	Sallyport__Fleet__SessionAnswer a = SALLYPORT__FLEET__SESSION_ANSWER__INIT;
	a.result = result;
	a.record = rec;
	a.reason = (char *)(uintptr_t)reason;
	wrk_directory_on_answer(fake.d, call, &a);
}

static int setup_directory(void **state)
{
	int err = setup(state);
	struct wrk_directory_options o = {
		.loop = x.w->loop,
		.boot = 77,
		.transport = {send_to_agent, next_call, NULL},
		.ops = &wrk_sessions_directory_ops,
		.ctx = x.w->sessions,
	};
	memset(&fake, 0, sizeof(fake));
	assert_int_equal(wrk_directory_new(&o, &fake.d), 0);
	wrk_sessions_set_directory(x.w->sessions, fake.d);
	return err;
}

static int teardown_directory(void **state)
{
	wrk_sessions_set_directory(x.w->sessions, NULL);
	wrk_directory_free(fake.d);
	sallyport__fleet__session_record__free_unpacked(fake.put, NULL);
	sallyport__fleet__session_adopt__free_unpacked(fake.adopt, NULL);
	return teardown(state);
}

static const struct wrk_directory_counters *said(void)
{
	return wrk_directory_counters(fake.d);
}

// A client whose session had a home before.
static void arrive(struct device *d, const char *user, uint8_t flags)
{
	make_device(d, user, 3600);
	d->attach_flags = flags;
	dial(d, false);
}

struct record { // of a session of `d` at another home
	Sallyport__Fleet__SessionRecord rec;
	Sallyport__Fleet__FlowRecord flow[2], *flows[2];
	uint8_t target[2][32];
};

static void make_record(const struct device *d, struct record *r)
{
	memset(r, 0, sizeof(*r));
	sallyport__fleet__session_record__init(&r->rec);
	r->rec.id = (ProtobufCBinaryData){
		16, (uint8_t *)(uintptr_t)sp_session_id(d->session)};
	r->rec.device = (ProtobufCBinaryData){32, (uint8_t *)(uintptr_t)d->pub};
	r->rec.user = (char *)(uintptr_t) "alice";
	r->rec.tier = (char *)(uintptr_t) "standard";
	for (int i = 0; i < 2; i++) {
		struct sp_target t = {.kind = SP_TARGET_IPV4,
				      .v4 = {127, 0, 0, 1},
				      .port = (uint16_t)(5000 + i)};
		struct sp_writer w;
		sp_writer_init(&w, r->target[i], sizeof(r->target[i]));
		sp_target_put(&w, &t);
		sallyport__fleet__flow_record__init(&r->flow[i]);
		r->flow[i].id = (uint32_t)(i + 1);
		r->flow[i].target =
			(ProtobufCBinaryData){sp_writer_len(&w), r->target[i]};
		r->flows[i] = &r->flow[i];
	}
	r->rec.n_flows = 2;
	r->rec.flows = r->flows;
}

// ---- claims ----

static void a_new_session_is_put_at_once_and_dropped_at_its_end(void **state)
{
	struct device *d = &x.d[0];
	(void)state;
	up(d, "alice");
	UNTIL(fake.puts == 1);
	assert_int_equal(fake.adopts, 0); // it never was elsewhere
	assert_memory_equal(fake.put->id.data, sp_session_id(d->session), 16);
	assert_memory_equal(fake.put->device.data, d->pub, 32);
	assert_memory_equal(fake.put->serial.data, d->serial, 16);
	assert_string_equal(fake.put->user, "alice");
	assert_string_equal(fake.put->tier, "standard");
	assert_int_equal(fake.put->boot, 77);
	assert_int_equal(fake.put->max_sessions, 4);
	answer(fake.put_call, SALLYPORT__FLEET__SESSION_RESULT__SESSION_STORED, NULL, "");
	char revoke[128], hex[33];
	sodium_bin2hex(hex, sizeof(hex), d->serial, 16);
	snprintf(revoke, sizeof(revoke), ", \"revoked\": [\"%s\"]", hex);
	sign_config(2, revoke);
	reload();
	UNTIL(d->ended == 1 && fake.drops == 1);
	assert_memory_equal(fake.dropped, sp_session_id(d->session), 16);
}

static void a_changed_session_is_put_within_a_second(void **state)
{
	struct device *d = &x.d[0];
	struct sp_target t = {.kind = SP_TARGET_IPV4, .v4 = {127, 0, 0, 1}, .port = 5353};
	struct sp_flow *fl;
	(void)state;
	up(d, "alice");
	UNTIL(fake.puts >= 1 && fake.put->live);
	answer(fake.put_call, SALLYPORT__FLEET__SESSION_RESULT__SESSION_STORED, NULL, "");
	unsigned puts = fake.puts;
	uint64_t before = sp_loop_refresh(x.w->loop);
	assert_int_equal(sp_session_open_flow(d->session, &t, NULL, &fl), 0);
	assert_int_equal(sp_flow_send(fl, (const uint8_t *)"x", 1), 0);
	UNTIL(fake.puts > puts && fake.put->n_flows == 1);
	assert_true(sp_loop_refresh(x.w->loop) - before < 1500000);
	assert_int_equal(fake.put->flows[0]->id, 1);
	puts = fake.puts;
	sp_link_close(d->link, SP_REASON_CANCELLED);
	UNTIL(fake.puts > puts && !fake.put->live);
}

static void what_could_not_be_said_is_said_when_an_agent_is_there(void **state)
{
	(void)state;
	fake.down = true;
	up(&x.d[0], "alice");
	up(&x.d[1], "bob");
	assert_int_equal(fake.puts, 0);
	fake.down = false;
	wrk_directory_up(fake.d);
	UNTIL(fake.puts == 2);
	// Redis was not there: once more.
	answer(fake.put_call, SALLYPORT__FLEET__SESSION_RESULT__SESSION_UNAVAILABLE, NULL,
	       "");
	UNTIL(fake.puts == 4);
	assert_true(said()->put_failures >= 2);
}

static void a_session_from_a_dead_home_is_made_with_its_record(void **state)
{
	struct device *d = &x.d[0];
	struct record r;
	(void)state;
	arrive(d, "alice", SP_ATTACH_MOVED | SP_ATTACH_PARKED);
	UNTIL(fake.adopts == 1);
	assert_int_equal(d->ups, 0);
	assert_memory_equal(fake.adopt->id.data, sp_session_id(d->session), 16);
	assert_memory_equal(fake.adopt->device.data, d->pub, 32);
	assert_string_equal(fake.adopt->user, "alice");
	assert_int_equal(fake.adopt->epoch, sp_session_epoch(d->session));
	assert_false(fake.adopt->left);
	make_record(d, &r);
	answer(fake.adopt_call, SALLYPORT__FLEET__SESSION_RESULT__SESSION_ADOPTED, &r.rec,
	       "");
	UNTIL(d->ups == 1);
	assert_true(d->fresh); // its streams are not here
	assert_true(sp_session_is_adopted(d->session, 0));
	assert_int_equal(sessions()->adopted, 1);
	assert_int_equal(wrk_exit_counters(x.w->exit)->flows, 2);
	UNTIL(fake.puts == 1 && fake.put->n_flows == 2);
	struct sp_stream *st;
	int fd = join_stream(d, &st);
	close(fd);
}

static void a_newer_pass_in_the_record_holds(void **state)
{
	struct device *d = &x.d[0];
	struct record r;
	uint8_t serial[16] = {42};
	(void)state;
	arrive(d, "alice", SP_ATTACH_MOVED);
	UNTIL(fake.adopts == 1);
	assert_true(fake.adopt->left);
	make_record(d, &r);
	r.rec.serial = (ProtobufCBinaryData){16, serial};
	r.rec.expires_s = sp_loop_unix_ms(x.w->loop) / 1000 + 7200;
	r.rec.max_streams = 3;
	r.rec.max_flows = 5;
	answer(fake.adopt_call, SALLYPORT__FLEET__SESSION_RESULT__SESSION_ADOPTED, &r.rec,
	       "");
	UNTIL(fake.puts == 1);
	assert_memory_equal(fake.put->serial.data, serial, 16);
	assert_int_equal(fake.put->max_streams, 3);
	assert_int_equal(fake.put->expires_s, r.rec.expires_s);
}

static void what_the_record_leaves_of_the_quota_holds(void **state)
{
	struct device *d = &x.d[0];
	struct record r;
	struct wrk_counters_options o = {.users = 16, .boot = 77};
	struct wrk_counters *counters;
	struct sp_stream *st;
	(void)state;
	assert_int_equal(wrk_counters_new(&o, &counters), 0);
	x.w->sessions->opt.counters = counters;
	arrive(d, "alice", SP_ATTACH_MOVED);
	UNTIL(fake.adopts == 1);
	make_record(d, &r);
	r.rec.quota_limited = true;
	r.rec.quota_left = 1000;
	answer(fake.adopt_call, SALLYPORT__FLEET__SESSION_RESULT__SESSION_ADOPTED, &r.rec,
	       "");
	UNTIL(d->ups == 1);
	int fd = join_stream(d, &st);
	static const char bytes[999] = {0};
	assert_int_equal(send(fd, bytes, 900, 0), 900);
	UNTIL(d->got == 900);
	assert_int_equal(d->ended, 0);
	assert_int_equal(send(fd, bytes, 100, 0), 100);
	uint64_t before = sp_loop_refresh(x.w->loop);
	UNTIL(d->ended == 1);
	assert_int_equal(d->end_why, SP_REASON_QUOTA);
	assert_true(sp_loop_refresh(x.w->loop) - before < 1000000);
	UNTIL(sessions()->ending == 0);
	x.w->sessions->opt.counters = NULL;
	wrk_counters_free(counters);
	close(fd);
}

static void without_a_record_a_session_is_made_anew_unless_it_is_parked(void **state)
{
	struct device *a = &x.d[0], *b = &x.d[1];
	(void)state;
	arrive(a, "alice", SP_ATTACH_MOVED);
	UNTIL(fake.adopts == 1);
	answer(fake.adopt_call, SALLYPORT__FLEET__SESSION_RESULT__SESSION_FRESH, NULL,
	       "");
	UNTIL(a->ups == 1);
	assert_false(sp_session_is_adopted(a->session, 0));
	arrive(b, "bob", SP_ATTACH_MOVED | SP_ATTACH_PARKED);
	UNTIL(fake.adopts == 2);
	answer(fake.adopt_call, SALLYPORT__FLEET__SESSION_RESULT__SESSION_FRESH, NULL,
	       "");
	UNTIL(b->downs == 1);
	assert_int_equal(b->down_why, SP_REASON_NOT_ADOPTED);
	assert_int_equal(sessions()->made, 1);
}

static void refuse_as_not_adopted(void)
{
	answer(fake.adopt_call, SALLYPORT__FLEET__SESSION_RESULT__SESSION_REFUSED, NULL,
	       "not-adopted");
}

static void
a_parked_session_is_asked_for_again_until_its_home_is_known_to_be_dead(void **state)
{
	struct device *d = &x.d[0];
	struct record r;
	(void)state;
	arrive(d, "alice", SP_ATTACH_MOVED | SP_ATTACH_PARKED);
	UNTIL(fake.adopts == 1);
	refuse_as_not_adopted();
	UNTIL(fake.adopts == 2);
	refuse_as_not_adopted();
	assert_int_equal(d->downs, 0);
	UNTIL(fake.adopts == 3);
	make_record(d, &r);
	answer(fake.adopt_call, SALLYPORT__FLEET__SESSION_RESULT__SESSION_ADOPTED, &r.rec,
	       "");
	UNTIL(d->ups == 1);
	assert_true(sp_session_is_adopted(d->session, 0));
	assert_int_equal(said()->asked, 1);
	assert_int_equal(said()->asked_again, 2);
}

static void it_is_refused_after_a_second_and_at_once_if_nothing_waits(void **state)
{
	struct device *d = &x.d[0], *e = &x.d[1];
	unsigned asked = 0;
	(void)state;
	uint64_t began = sp_loop_refresh(x.w->loop);
	arrive(d, "alice", SP_ATTACH_MOVED | SP_ATTACH_PARKED);
	while (!d->downs) {
		UNTIL(fake.adopts > asked || d->downs);
		if (fake.adopts > asked) {
			asked = fake.adopts;
			refuse_as_not_adopted();
		}
	}
	uint64_t took = sp_loop_refresh(x.w->loop) - began;
	assert_int_equal(d->down_why, SP_REASON_NOT_ADOPTED);
	assert_true(took > 500000 && took < 5000000);
	assert_in_range(asked, 2, 5);
	arrive(e, "bob", SP_ATTACH_MOVED);
	UNTIL(fake.adopts == asked + 1);
	refuse_as_not_adopted();
	UNTIL(e->downs == 1);
	assert_int_equal(fake.adopts, asked + 1);
}

static void an_answer_is_waited_for_a_quarter_of_a_second_and_no_longer(void **state)
{
	struct device *d = &x.d[0];
	(void)state;
	arrive(d, "alice", SP_ATTACH_MOVED);
	UNTIL(fake.adopts == 1);
	uint64_t asked = sp_loop_refresh(x.w->loop);
	UNTIL(d->ups == 1);
	uint64_t took = sp_loop_refresh(x.w->loop) - asked;
	assert_true(took > 200000 && took < 1000000);
	assert_int_equal(said()->unavailable, 1);
	answer(fake.adopt_call, SALLYPORT__FLEET__SESSION_RESULT__SESSION_REFUSED, NULL,
	       "not-yours"); // too late
	assert_int_equal(said()->answers_unknown, 1);
	UNTIL(fake.puts >= 1);
}

static void without_an_agent_nothing_is_waited_for(void **state)
{
	struct device *d = &x.d[0];
	(void)state;
	fake.down = true;
	arrive(d, "alice", SP_ATTACH_MOVED);
	UNTIL(d->ups == 1);
	assert_int_equal(said()->asked, 0);
	assert_int_equal(said()->unavailable, 1);
}

static void a_refusal_reaches_the_client_with_its_reason(void **state)
{
	static const struct {
		Sallyport__Fleet__SessionResult result;
		const char *word;
		enum sp_reason why;
	} refusals[] = {
		{SALLYPORT__FLEET__SESSION_RESULT__SESSION_REFUSED, "not-yours",
		 SP_REASON_NOT_YOURS},
		{SALLYPORT__FLEET__SESSION_RESULT__SESSION_REFUSED, "stale-epoch",
		 SP_REASON_STALE_EPOCH},
		{SALLYPORT__FLEET__SESSION_RESULT__SESSION_REFUSED, "not-adopted",
		 SP_REASON_NOT_ADOPTED},
		{SALLYPORT__FLEET__SESSION_RESULT__SESSION_LIMIT, "",
		 SP_REASON_SESSION_LIMIT},
	};
	struct device *d = &x.d[0];
	(void)state;
	make_device(d, "alice", 3600);
	d->attach_flags = SP_ATTACH_MOVED;
	for (unsigned i = 0; i < 4; i++) {
		dial(d, false);
		UNTIL(fake.adopts == i + 1);
		answer(fake.adopt_call, refusals[i].result, NULL, refusals[i].word);
		UNTIL(d->downs == (int)i + 1);
		assert_int_equal(d->down_why, refusals[i].why);
	}
	assert_int_equal(sessions()->made, 0);
}

// The directory is not believed blindly: what it gives must be of this session, device
// and user.
static void a_record_of_somebody_else_is_not_taken(void **state)
{
	struct device *d = &x.d[0];
	struct record r;
	uint8_t other[32] = {1};
	(void)state;
	make_device(d, "alice", 3600);
	d->attach_flags = SP_ATTACH_MOVED;
	for (int i = 0; i < 4; i++) {
		make_record(d, &r);
		if (i == 0)
			r.rec.id.data = other;
		else if (i == 1)
			r.rec.device.data = other;
		else if (i == 2)
			r.rec.user = (char *)(uintptr_t) "bob";
		else
			r.rec.epoch = 1000;
		dial(d, false);
		UNTIL(fake.adopts == (unsigned)i + 1);
		answer(fake.adopt_call, SALLYPORT__FLEET__SESSION_RESULT__SESSION_ADOPTED,
		       &r.rec, "");
		UNTIL(d->downs == i + 1);
		assert_int_equal(d->down_why,
				 i < 3 ? SP_REASON_NOT_YOURS : SP_REASON_STALE_EPOCH);
	}
	// One that is no record at all is no answer.
	make_record(d, &r);
	r.rec.device.len = 31;
	dial(d, false);
	UNTIL(fake.adopts == 5);
	answer(fake.adopt_call, SALLYPORT__FLEET__SESSION_RESULT__SESSION_ADOPTED, &r.rec,
	       "");
	UNTIL(d->ups == 1);
	assert_int_equal(said()->answers_malformed, 1);
	assert_int_equal(sessions()->adopted, 0);
}

static void refuse_put(const struct device *d, bool over)
{
	Sallyport__Fleet__SessionAnswer a = SALLYPORT__FLEET__SESSION_ANSWER__INIT;
	ProtobufCBinaryData id = {16, (uint8_t *)(uintptr_t)sp_session_id(d->session)};
	a.result = SALLYPORT__FLEET__SESSION_RESULT__SESSION_STORED;
	if (over) {
		a.n_over = 1;
		a.over = &id;
	} else {
		a.n_refused = 1;
		a.refused = &id;
	}
	wrk_directory_on_answer(fake.d, fake.put_call, &a);
}

static void a_session_that_went_elsewhere_ends_here_once_its_client_is_gone(void **state)
{
	struct device *d = &x.d[0];
	(void)state;
	up(d, "alice");
	UNTIL(fake.puts == 1);
	// Its client is here: it stays, and its record is asked for.
	refuse_put(d, false);
	UNTIL(fake.adopts == 1);
	assert_true(fake.adopt->left);
	assert_int_equal(sessions()->attached, 1);
	answer(fake.adopt_call, SALLYPORT__FLEET__SESSION_RESULT__SESSION_FRESH, NULL,
	       "");
	UNTIL(fake.puts == 2);
	sp_link_close(d->link, SP_REASON_CANCELLED);
	UNTIL(fake.puts == 3);
	refuse_put(d, false);
	assert_int_equal(sessions()->detached, 0);
	assert_int_equal(sessions()->ended[SP_REASON_HOME_LOST], 1);
}

static void a_session_over_the_fleets_limit_ends(void **state)
{
	struct device *d = &x.d[0];
	(void)state;
	up(d, "alice");
	UNTIL(fake.puts == 1);
	refuse_put(d, true);
	UNTIL(d->ended == 1);
	assert_int_equal(d->end_why, SP_REASON_SESSION_LIMIT);
}

static void a_client_that_leaves_while_it_waits_is_forgotten(void **state)
{
	struct device *d = &x.d[0];
	struct record r;
	(void)state;
	arrive(d, "alice", SP_ATTACH_MOVED);
	UNTIL(fake.adopts == 1);
	sp_link_close(d->link, SP_REASON_CANCELLED);
	UNTIL(d->downs == 1);
	make_record(d, &r);
	answer(fake.adopt_call, SALLYPORT__FLEET__SESSION_RESULT__SESSION_ADOPTED, &r.rec,
	       "");
	UNTIL(sp_link_env_counters(x.w->links)->half_open == 0);
}

static void a_stopped_worker_leaves_its_records(void **state)
{
	(void)state;
	up(&x.d[0], "alice");
	UNTIL(fake.puts == 1);
	sp_link_close(x.d[0].link, SP_REASON_CANCELLED);
	UNTIL(sessions()->detached == 1);
	wrk_sessions_free(x.w->sessions);
	x.w->sessions = NULL;
	assert_int_equal(fake.drops, 0);
	struct wrk_sessions_options o = {.loop = x.w->loop,
					 .clock = x.w->clock,
					 .arena = x.w->arena,
					 .exit = x.w->exit,
					 .keys = &x.w->keys,
					 .fleet = x.w->id.fleet};
	wrk_worker_session_limits(x.w->cfg, &o.limits);
	assert_int_equal(wrk_sessions_new(&o, &x.w->sessions), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup_directory, teardown_directory)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_new_session_is_put_at_once_and_dropped_at_its_end),
		T(a_changed_session_is_put_within_a_second),
		T(what_could_not_be_said_is_said_when_an_agent_is_there),
		T(a_session_from_a_dead_home_is_made_with_its_record),
		T(a_newer_pass_in_the_record_holds),
		T(what_the_record_leaves_of_the_quota_holds),
		T(without_a_record_a_session_is_made_anew_unless_it_is_parked),
		T(a_parked_session_is_asked_for_again_until_its_home_is_known_to_be_dead),
		T(it_is_refused_after_a_second_and_at_once_if_nothing_waits),
		T(an_answer_is_waited_for_a_quarter_of_a_second_and_no_longer),
		T(without_an_agent_nothing_is_waited_for),
		T(a_refusal_reaches_the_client_with_its_reason),
		T(a_record_of_somebody_else_is_not_taken),
		T(a_session_that_went_elsewhere_ends_here_once_its_client_is_gone),
		T(a_session_over_the_fleets_limit_ends),
		T(a_client_that_leaves_while_it_waits_is_forgotten),
		T(a_stopped_worker_leaves_its_records),
	};
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("worker_directory", tests, NULL, NULL);
}
