// The directory of sessions against a real Redis: who may write what, who may adopt, what
// is counted, and what is said when Redis is not there.
#include <sodium.h>

#include "controller/directory.h"
#include "tests/unit/redis_world.h"

#define STORED      SALLYPORT__FLEET__SESSION_RESULT__SESSION_STORED
#define ADOPTED     SALLYPORT__FLEET__SESSION_RESULT__SESSION_ADOPTED
#define FRESH       SALLYPORT__FLEET__SESSION_RESULT__SESSION_FRESH
#define REFUSED     SALLYPORT__FLEET__SESSION_RESULT__SESSION_REFUSED
#define UNAVAILABLE SALLYPORT__FLEET__SESSION_RESULT__SESSION_UNAVAILABLE

static struct {
	struct sp_loop *loop;
	struct con_directory *d;
	enum con_directory_home home; // what is said of any
	struct con_directory_lease lease;
	unsigned events[3];
	bool limited;
} x;

static enum con_directory_home home(void *ctx, const char *worker, uint64_t boot,
				    const struct con_directory_lease *lease)
{
	(void)ctx;
	x.lease = *lease;
	(void)boot;
	assert_string_equal(worker, "ams/0");
	return x.home;
}

static bool quota(void *ctx, const char *user, int64_t *ret_left)
{
	(void)ctx;
	assert_string_equal(user, "eva");
	*ret_left = 12345;
	return x.limited;
}

static void on_event(void *ctx, enum con_directory_event what, const char *worker,
		     const char *from, const char *user, const uint8_t *id)
{
	(void)ctx;
	(void)worker;
	(void)from;
	(void)user;
	(void)id;
	x.events[what]++;
}

static const struct con_directory_ops ops = {home, quota, on_event};

static int setup(void **state)
{
	struct con_directory_options o = {.fleet = "test", .ops = &ops};
	(void)state;
	memset(&x, 0, sizeof(x));
	assert_int_equal(sp_loop_new(&x.loop), 0);
	redis_world_new(x.loop);
	o.loop = x.loop;
	o.redis = redis.r;
	assert_int_equal(con_directory_new(&o, &x.d), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	redis_world_free();
	con_directory_free(x.d);
	sp_loop_free(x.loop);
	return 0;
}

static const struct con_directory_counters *n(void)
{
	return con_directory_counters(x.d);
}

// ---- calls that wait ----

struct result {
	bool here;
	Sallyport__Fleet__SessionResult result;
	size_t refused, over;
	char reason[32];
	Sallyport__Fleet__SessionRecord *record;
};

static void on_answer(void *ctx, const Sallyport__Fleet__SessionAnswer *m)
{
	struct result *r = ctx;
	uint8_t buf[CON_DIRECTORY_RECORD_MAX];
	assert_false(r->here);
	r->here = true;
	r->result = m->result;
	r->refused = m->n_refused;
	r->over = m->n_over;
	snprintf(r->reason, sizeof(r->reason), "%s", m->reason);
	if (m->record)
		r->record = sallyport__fleet__session_record__unpack(
			NULL, sallyport__fleet__session_record__pack(m->record, buf),
			buf);
}

static void result_free(struct result *r)
{
	sallyport__fleet__session_record__free_unpacked(r->record, NULL);
}

struct who {
	uint8_t id[16], device[32];
	const char *user;
};

static struct who someone(uint8_t number, uint8_t device)
{
	struct who w = {.user = "eva"};
	memset(w.id, number, sizeof(w.id));
	memset(w.device, device, sizeof(w.device));
	return w;
}

static struct result put_with(const char *worker, uint64_t boot, struct who w,
			      uint32_t epoch, bool live, uint32_t max)
{
	Sallyport__Fleet__SessionPut m = SALLYPORT__FLEET__SESSION_PUT__INIT;
	Sallyport__Fleet__SessionRecord r = SALLYPORT__FLEET__SESSION_RECORD__INIT,
					*list = &r;
	Sallyport__Fleet__FlowRecord f = SALLYPORT__FLEET__FLOW_RECORD__INIT, *flows = &f;
	struct result got = {0};
	r.id = (ProtobufCBinaryData){16, w.id};
	r.device = (ProtobufCBinaryData){32, w.device};
	r.user = (char *)(uintptr_t)w.user;
	r.tier = (char *)(uintptr_t) "standard";
	r.home = (char *)(uintptr_t) "whatever it says";
	r.epoch = epoch;
	r.boot = boot;
	r.live = live;
	r.max_sessions = max;
	f.id = 9;
	f.target = (ProtobufCBinaryData){7, (uint8_t *)(uintptr_t) "\1\1\2\3\4\0\65"};
	r.n_flows = 1;
	r.flows = &flows;
	m.n_records = 1;
	m.records = &list;
	con_directory_put(x.d, worker, &m, on_answer, &got);
	REDIS_UNTIL(got.here);
	return got;
}

static struct result put(const char *worker, uint64_t boot, struct who w, uint32_t epoch)
{
	return put_with(worker, boot, w, epoch, true, 10);
}

static struct result adopt(const char *worker, uint64_t boot, struct who w,
			   uint32_t epoch, bool left)
{
	Sallyport__Fleet__SessionAdopt m = SALLYPORT__FLEET__SESSION_ADOPT__INIT;
	struct result got = {0};
	m.id = (ProtobufCBinaryData){16, w.id};
	m.device = (ProtobufCBinaryData){32, w.device};
	m.user = (char *)(uintptr_t)w.user;
	m.epoch = epoch;
	m.boot = boot;
	m.left = left;
	con_directory_adopt(x.d, worker, &m, on_answer, &got);
	REDIS_UNTIL(got.here);
	return got;
}

static struct result drop(const char *worker, struct who w)
{
	Sallyport__Fleet__SessionDrop m = SALLYPORT__FLEET__SESSION_DROP__INIT;
	ProtobufCBinaryData id = {16, w.id};
	struct result got = {0};
	m.n_ids = 1;
	m.ids = &id;
	con_directory_drop(x.d, worker, &m, on_answer, &got);
	REDIS_UNTIL(got.here);
	return got;
}

#define KEY_1 "sp:{test}:s:01010101010101010101010101010101"

static bool epoch_is(const char *text)
{
	redisReply *r = redis_ask("HGET %s e", KEY_1);
	bool same = r->type == REDIS_REPLY_STRING && !strcmp(r->str, text);
	freeReplyObject(r);
	return same;
}

// ---- claims ----

static void a_record_is_kept_for_25_hours_and_given_to_who_adopts_it(void **state)
{
	struct who w = someone(1, 1);
	(void)state;
	x.home = CON_HOME_SILENT;
	x.limited = true;
	assert_int_equal(put("ams/0", 7, w, 3).result, STORED);
	long long ttl = redis_number("TTL %s", KEY_1);
	assert_true(ttl > 89990 && ttl <= 90000);
	struct result r = adopt("fra/0", 8, w, 4, false);
	assert_int_equal(r.result, ADOPTED);
	assert_non_null(r.record);
	assert_memory_equal(r.record->id.data, w.id, 16);
	assert_memory_equal(r.record->device.data, w.device, 32);
	assert_string_equal(r.record->user, "eva");
	assert_string_equal(r.record->tier, "standard");
	assert_string_equal(r.record->home, "ams/0"); // by its key, not its word
	assert_int_equal(r.record->boot, 7);
	assert_int_equal(r.record->epoch, 3);
	assert_int_equal(r.record->n_flows, 1);
	assert_int_equal(r.record->flows[0]->id, 9);
	assert_int_equal(r.record->flows[0]->target.len, 7);
	assert_true(r.record->quota_limited);
	assert_int_equal(r.record->quota_left, 12345);
	assert_int_equal(x.events[CON_DIRECTORY_ADOPTED], 1);
	result_free(&r);
}

static void only_its_home_writes_a_record(void **state)
{
	struct who w = someone(1, 1);
	(void)state;
	x.home = CON_HOME_SILENT;
	assert_int_equal(put("ams/0", 7, w, 3).refused, 0);
	assert_int_equal(put("fra/0", 8, w, 9).refused, 1);
	assert_int_equal(n()->refused_home, 1);
	assert_int_equal(drop("fra/0", w).result, STORED);
	assert_int_equal(redis_number("EXISTS %s", KEY_1), 1);
	struct result r = adopt("fra/0", 8, w, 4, false);
	result_free(&r);
	// From now on it is the other's, whatever the old home says and when.
	assert_int_equal(put("ams/0", 7, w, 3).refused, 1);
	assert_int_equal(put("ams/0", 7, w, 99).refused, 1);
	assert_int_equal(drop("ams/0", w).result, STORED);
	assert_int_equal(redis_number("EXISTS %s", KEY_1), 1);
	assert_int_equal(put("fra/0", 8, w, 4).refused, 0);
	assert_int_equal(drop("fra/0", w).result, STORED);
	assert_int_equal(redis_number("EXISTS %s", KEY_1), 0);
}

static void a_late_put_of_an_earlier_boot_or_epoch_changes_nothing(void **state)
{
	struct who w = someone(1, 1);
	(void)state;
	assert_int_equal(put("ams/0", 7, w, 5).result, STORED);
	assert_int_equal(put("ams/0", 7, w, 4).refused, 0);
	assert_int_equal(n()->old, 1);
	assert_int_equal(put("ams/0", 6, w, 5).refused, 1); // another boot, no new attach
	assert_int_equal(put("ams/0", 8, w, 6).refused, 0);
	assert_int_equal(put("ams/0", 7, w, 5).refused, 1);
	redisReply *r = redis_ask("HMGET %s b e", KEY_1);
	assert_string_equal(r->element[0]->str, "8");
	assert_string_equal(r->element[1]->str, "6");
	freeReplyObject(r);
}

static void a_session_of_another_device_or_user_is_never_given(void **state)
{
	struct who w = someone(1, 1), thief = someone(1, 2), other = someone(1, 1);
	(void)state;
	x.home = CON_HOME_SILENT;
	other.user = "tom";
	assert_int_equal(put("ams/0", 7, w, 3).result, STORED);
	for (int left = 0; left < 2; left++) {
		struct result r = adopt("fra/0", 8, thief, 100, left);
		assert_int_equal(r.result, REFUSED);
		assert_string_equal(r.reason, "not-yours");
		assert_null(r.record);
		r = adopt("fra/0", 8, other, 100, left);
		assert_int_equal(r.result, REFUSED);
		assert_string_equal(r.reason, "not-yours");
	}
	assert_int_equal(x.events[CON_DIRECTORY_OTHER_DEVICE], 2);
	assert_int_equal(x.events[CON_DIRECTORY_OTHER_USER], 2);
	assert_int_equal(put("ams/0", 7, thief, 4).refused, 1); // not even its home
	assert_int_equal(x.events[CON_DIRECTORY_OTHER_DEVICE], 3);
	redisReply *r = redis_ask("HGET %s e", KEY_1);
	assert_string_equal(r->str, "3");
	freeReplyObject(r);
}

static void tell(const char *worker, uint64_t boot, uint64_t age_ms)
{
	struct con_directory_heard heard[2] = {{"fra/0", 99, 0}, {worker, boot, age_ms}};
	uint64_t before = n()->lease_writes;
	con_directory_leases(x.d, heard, 2);
	assert_int_equal(n()->lease_writes, before + 1);
}

static void what_any_controller_heard_of_a_home_is_known_when_it_is_judged(void **state)
{
	struct who w = someone(1, 1);
	(void)state;
	assert_int_equal(put("ams/0", 7, w, 3).result, STORED);
	struct result r = adopt("fra/0", 8, w, 4, false);
	assert_int_equal(r.result, REFUSED);
	assert_false(x.lease.known);
	tell("ams/0", 7, 1500);
	r = adopt("fra/0", 8, w, 4, false);
	assert_int_equal(r.result, REFUSED);
	assert_true(x.lease.known);
	assert_int_equal(x.lease.boot, 7);
	assert_in_range(x.lease.age_ms, 1500, 11500);
	tell("ams/0", UINT64_MAX, 0);
	x.home = CON_HOME_RESTARTED;
	r = adopt("fra/0", 8, w, 4, false);
	assert_int_equal(r.result, ADOPTED);
	assert_true(x.lease.boot == UINT64_MAX);
	assert_int_equal(n()->evidence[CON_HOME_RESTARTED], 1);
	assert_int_equal(n()->evidence[CON_HOME_SILENT], 0);
	result_free(&r);
}

static void a_home_that_lives_keeps_its_session_unless_the_client_left_it(void **state)
{
	struct who w = someone(1, 1);
	(void)state;
	assert_int_equal(put("ams/0", 7, w, 3).result, STORED);
	static const enum con_directory_home lives[] = {CON_HOME_ALIVE, CON_HOME_UNKNOWN};
	for (int i = 0; i < 2; i++) {
		x.home = lives[i];
		struct result r = adopt("fra/0", 8, w, 4, false);
		assert_int_equal(r.result, REFUSED);
		assert_string_equal(r.reason, "not-adopted");
	}
	struct result r = adopt("fra/0", 8, w, 4, true);
	assert_int_equal(r.result, ADOPTED);
	result_free(&r);
}

static void an_epoch_must_rise_and_a_repeated_question_is_answered_again(void **state)
{
	struct who w = someone(1, 1);
	(void)state;
	x.home = CON_HOME_SILENT;
	assert_int_equal(put("ams/0", 7, w, 3).result, STORED);
	assert_string_equal(adopt("fra/0", 8, w, 3, false).reason, "stale-epoch");
	assert_string_equal(adopt("fra/0", 8, w, 2, true).reason, "stale-epoch");
	for (int i = 0; i < 2; i++) { // the answer was lost
		struct result r = adopt("fra/0", 8, w, 4, false);
		assert_int_equal(r.result, ADOPTED);
		result_free(&r);
	}
	assert_string_equal(adopt("nyc/0", 8, w, 4, true).reason, "stale-epoch");
}

// Two exits ask at once: one gets it, the other hears that its epoch is stale.
static void of_two_that_adopt_at_once_one_gets_it(void **state)
{
	struct who w = someone(1, 1);
	struct result a = {0}, b = {0};
	Sallyport__Fleet__SessionAdopt m = SALLYPORT__FLEET__SESSION_ADOPT__INIT;
	(void)state;
	x.home = CON_HOME_SILENT;
	assert_int_equal(put("ams/0", 7, w, 3).result, STORED);
	m.id = (ProtobufCBinaryData){16, w.id};
	m.device = (ProtobufCBinaryData){32, w.device};
	m.user = (char *)(uintptr_t)w.user;
	m.epoch = 5;
	m.boot = 8;
	m.left = true;
	con_directory_adopt(x.d, "fra/0", &m, on_answer, &a);
	m.epoch = 4;
	con_directory_adopt(x.d, "nyc/0", &m, on_answer, &b);
	REDIS_UNTIL(a.here && b.here);
	assert_int_equal(a.result, ADOPTED);
	assert_int_equal(b.result, REFUSED);
	assert_string_equal(b.reason, "stale-epoch");
	assert_int_equal(n()->conflicts, 1);
	result_free(&a);
}

static void an_emptied_redis_means_fresh_and_fills_again(void **state)
{
	struct who w = someone(1, 1);
	(void)state;
	x.home = CON_HOME_SILENT;
	assert_int_equal(put("ams/0", 7, w, 3).result, STORED);
	freeReplyObject(redis_ask("FLUSHALL"));
	assert_int_equal(adopt("fra/0", 8, w, 4, false).result, FRESH);
	assert_int_equal(put("fra/0", 8, w, 4).result, STORED);
	struct result r = adopt("nyc/0", 9, w, 5, true);
	assert_int_equal(r.result, ADOPTED);
	result_free(&r);
}

static void a_frozen_redis_is_unavailable_within_the_deadline(void **state)
{
	struct who w = someone(1, 1);
	(void)state;
	x.home = CON_HOME_SILENT;
	assert_int_equal(put("ams/0", 7, w, 3).result, STORED);
	kill(redis.pid, SIGSTOP);
	uint64_t start = sp_loop_refresh(x.loop);
	assert_int_equal(adopt("fra/0", 8, w, 4, false).result, UNAVAILABLE);
	assert_int_equal(put("ams/0", 7, w, 5).result, UNAVAILABLE);
	uint64_t took = sp_loop_refresh(x.loop) - start;
	assert_true(took < 4 * CON_DIRECTORY_DEADLINE_MS * 1000);
	assert_true(n()->unavailable >= 2);
	kill(redis.pid, SIGCONT);
	REDIS_UNTIL(epoch_is("5")); // what came too late was done all the same
	struct result a = adopt("fra/0", 8, w, 6, false);
	assert_int_equal(a.result, ADOPTED);
	result_free(&a);
}

static void without_redis_every_answer_is_unavailable_at_once(void **state)
{
	struct who w = someone(1, 1);
	(void)state;
	redis_kill();
	REDIS_UNTIL(!con_redis_is_up(redis.r));
	uint64_t start = sp_loop_refresh(x.loop);
	assert_int_equal(adopt("fra/0", 8, w, 4, false).result, UNAVAILABLE);
	assert_int_equal(put("ams/0", 7, w, 5).result, UNAVAILABLE);
	assert_int_equal(drop("ams/0", w).result, UNAVAILABLE);
	assert_true(sp_loop_refresh(x.loop) - start < 50000);
	redis_start();
	REDIS_UNTIL(con_redis_is_up(redis.r));
	assert_int_equal(put("ams/0", 7, w, 5).result, STORED);
}

static void a_user_has_so_many_devices_at_once_and_a_standby_is_none(void **state)
{
	(void)state;
	for (uint8_t i = 1; i <= 3; i++)
		assert_int_equal(put_with("ams/0", 7, someone(i, i), 1, true, 3).over, 0);
	// A second session of a device, elsewhere: its standby, or where it moved.
	assert_int_equal(put_with("fra/0", 8, someone(11, 1), 1, true, 3).over, 0);
	// A fourth device is too much, and leaves no record.
	assert_int_equal(put_with("fra/0", 8, someone(4, 4), 1, true, 3).over, 1);
	assert_int_equal(redis_number("EXISTS %s", "sp:{test}:s:04040404040404040404"
						   "040404040404"),
			 0);
	// Not until one of them is gone.
	assert_int_equal(put_with("ams/0", 7, someone(3, 3), 1, false, 3).over, 0);
	assert_int_equal(put_with("fra/0", 8, someone(4, 4), 1, true, 3).over, 0);
	assert_int_equal(put_with("ams/0", 7, someone(3, 3), 1, true, 3).over, 1);
	assert_int_equal(drop("ams/0", someone(2, 2)).result, STORED);
	assert_int_equal(put_with("ams/0", 7, someone(3, 3), 1, true, 3).over, 0);
	struct who other = someone(5, 5);
	other.user = "tom";
	assert_int_equal(put_with("ams/0", 7, other, 1, true, 3).over, 0);
	// Of whom nothing is heard, nothing is counted.
	long long ttl = redis_number("TTL %s", "sp:{test}:l:eva");
	assert_true(ttl > 170 && ttl <= CON_DIRECTORY_LIVE_S);
	freeReplyObject(redis_ask("ZADD %s 1 %s", "sp:{test}:l:eva",
				  "x234567890123456y234567890123456"));
	assert_int_equal(put_with("ams/0", 7, someone(3, 3), 1, true, 3).over, 0);
	freeReplyObject(redis_ask("DEL %s", "sp:{test}:l:eva"));
	freeReplyObject(redis_ask("ZADD %s 1 %s", "sp:{test}:l:eva",
				  "x234567890123456y234567890123456"));
	assert_int_equal(put_with("ams/0", 7, someone(3, 3), 1, true, 1).over, 0);
}

static void what_is_no_record_is_counted_and_left_out(void **state)
{
	struct who w = someone(1, 1);
	char longest[100];
	(void)state;
	memset(longest, 'x', sizeof(longest) - 1);
	longest[99] = 0;
	w.user = longest;
	assert_int_equal(put("ams/0", 7, w, 3).result, STORED);
	w.user = "";
	assert_int_equal(put("ams/0", 7, w, 3).result, STORED);
	w.user = "eva";
	assert_int_equal(put("ams/0", 7, w, 0).result, STORED);
	assert_int_equal(adopt("fra/0", 7, w, 0, false).result, UNAVAILABLE);
	assert_int_equal(n()->malformed, 4);
	assert_int_equal(redis_number("EXISTS %s", KEY_1), 0);
	// Nor is what somebody else wrote into Redis.
	freeReplyObject(redis_ask("HSET %s d %b h ams/0 b 1 e 1 u eva r junk", KEY_1,
				  w.device, (size_t)32));
	x.home = CON_HOME_SILENT;
	assert_int_equal(adopt("fra/0", 7, w, 4, false).result, UNAVAILABLE);
	freeReplyObject(redis_ask("HSET %s e %s", KEY_1, "-5x"));
	assert_int_equal(adopt("fra/0", 7, w, 4, false).result, UNAVAILABLE);
	assert_int_equal(n()->malformed, 6);
	freeReplyObject(redis_ask("DEL %s", KEY_1));
	freeReplyObject(redis_ask("SET %s text", KEY_1));
	assert_int_equal(adopt("fra/0", 7, w, 4, false).result, UNAVAILABLE);
	assert_int_equal(put("ams/0", 7, w, 3).result, UNAVAILABLE);
}

static void more_calls_than_the_limit_are_unavailable(void **state)
{
	enum { CALLS = CON_DIRECTORY_CALLS_MAX + 50 };
	static struct result got[CALLS];
	struct who w = someone(1, 1);
	Sallyport__Fleet__SessionAdopt m = SALLYPORT__FLEET__SESSION_ADOPT__INIT;
	unsigned here = 0, unavailable = 0;
	(void)state;
	memset(got, 0, sizeof(got));
	m.id = (ProtobufCBinaryData){16, w.id};
	m.device = (ProtobufCBinaryData){32, w.device};
	m.user = (char *)(uintptr_t)w.user;
	m.epoch = 1;
	for (int i = 0; i < CALLS; i++)
		con_directory_adopt(x.d, "fra/0", &m, on_answer, &got[i]);
	REDIS_UNTIL(n()->calls == 0);
	for (int i = 0; i < CALLS; i++) {
		here += got[i].here;
		unavailable += got[i].result == UNAVAILABLE;
	}
	assert_int_equal(here, CALLS);
	assert_true(unavailable >= 50);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_record_is_kept_for_25_hours_and_given_to_who_adopts_it),
		T(only_its_home_writes_a_record),
		T(a_late_put_of_an_earlier_boot_or_epoch_changes_nothing),
		T(a_session_of_another_device_or_user_is_never_given),
		T(a_home_that_lives_keeps_its_session_unless_the_client_left_it),
		T(what_any_controller_heard_of_a_home_is_known_when_it_is_judged),
		T(an_epoch_must_rise_and_a_repeated_question_is_answered_again),
		T(of_two_that_adopt_at_once_one_gets_it),
		T(an_emptied_redis_means_fresh_and_fills_again),
		T(a_frozen_redis_is_unavailable_within_the_deadline),
		T(without_redis_every_answer_is_unavailable_at_once),
		T(a_user_has_so_many_devices_at_once_and_a_standby_is_none),
		T(what_is_no_record_is_counted_and_left_out),
		T(more_calls_than_the_limit_are_unavailable),
	};
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("directory", tests, NULL, NULL);
}
