// Usage as a service, against a real Redis and a real file: what is answered when, what
// outlives which loss.
#include <sys/resource.h>
#include <sys/stat.h>

#include <sodium.h>

#include "controller/usage_store.h"
#include "tests/unit/redis_world.h"

static struct {
	struct sp_loop *loop;
	char dir[64], path[96];
	struct con_usage_store *s;
	struct con_usage_quota quota;
	bool limited;
} x;

static bool quota(void *ctx, const char *user, struct con_usage_quota *ret)
{
	(void)ctx;
	*ret = x.quota;
	return x.limited && !strcmp(user, "eva");
}

static void start(bool expect_fresh)
{
	struct con_usage_store_options o = {
		.loop = x.loop,
		.path = x.path,
		.fleet = "test",
		.max_users = 1000,
		.redis = redis.r,
		.quota = quota,
	};
	char why[512];
	bool fresh;
	assert_int_equal(con_usage_store_new(&o, &x.s, &fresh, why, sizeof(why)), 0);
	assert_int_equal(fresh, expect_fresh);
}

static void stop(void)
{
	redis_disconnect();
	con_usage_store_free(x.s);
	x.s = NULL;
	if (redis.pid > 0)
		redis_connect();
}

static int setup(void **state)
{
	(void)state;
	memset(&x, 0, sizeof(x));
	strcpy(x.dir, "/tmp/sp-usage-XXXXXX");
	assert_non_null(mkdtemp(x.dir));
	snprintf(x.path, sizeof(x.path), "%s/usage", x.dir);
	assert_int_equal(sp_loop_new(&x.loop), 0);
	redis_world_new(x.loop);
	start(true);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	redis_disconnect();
	con_usage_store_free(x.s);
	redis_world_free();
	sp_loop_free(x.loop);
	unlink(x.path);
	rmdir(x.dir);
	return 0;
}

static const struct con_usage_store_counters *n(void)
{
	return con_usage_store_counters(x.s);
}

struct result {
	int here;
	bool stored, limited;
	uint64_t boot;
	int64_t left;
	size_t users;
};

static void on_answer(void *ctx, const Sallyport__Fleet__UsageAnswer *m)
{
	struct result *r = ctx;
	r->here++;
	r->stored = m->stored;
	r->boot = m->boot;
	r->users = m->n_users;
	if (m->n_users) {
		r->limited = m->users[0]->limited;
		r->left = m->users[0]->bytes;
	}
}

static void report(const char *worker, uint64_t boot, const char *user, uint64_t up,
		   uint64_t down, bool final, struct result *ret)
{
	Sallyport__Fleet__UsageReport m = SALLYPORT__FLEET__USAGE_REPORT__INIT;
	Sallyport__Fleet__Usage u = SALLYPORT__FLEET__USAGE__INIT, *list = &u;
	*ret = (struct result){0};
	u.user = (char *)(uintptr_t)user;
	u.bytes_up = up;
	u.bytes_down = down;
	m.boot = boot;
	m.final = final;
	m.n_users = 1;
	m.users = &list;
	con_usage_store_report(x.s, worker, &m, on_answer, ret);
}

static struct result say(const char *worker, uint64_t boot, const char *user, uint64_t up,
			 uint64_t down, bool final)
{
	static struct result r;
	report(worker, boot, user, up, down, final, &r);
	REDIS_UNTIL(r.here);
	return r;
}

static void check(const char *user, uint64_t up, uint64_t down)
{
	struct con_usage_sum sum;
	con_usage_get(con_usage_store_table(x.s), user, &sum);
	assert_int_equal(sum.up, up);
	assert_int_equal(sum.down, down);
}

static bool in_redis(const char *user, const char *field, const char *value)
{
	redisReply *r = redis_ask("HGET sp:{test}:u:%s %s", user, field);
	bool same = r->type == REDIS_REPLY_STRING && !strcmp(r->str, value);
	freeReplyObject(r);
	return same;
}

static void on_loaded(void *ctx, bool good)
{
	*(int *)ctx = good ? 1 : -1;
}

static void load(const char *user, bool expect)
{
	int done = 0;
	const char *users[] = {user, "nobody ever"};
	con_usage_store_load(x.s, users, 2, on_loaded, &done);
	REDIS_UNTIL(done);
	assert_int_equal(done, expect ? 1 : -1);
}

// ---- claims ----

static void a_report_is_answered_once_it_is_on_the_disk(void **state)
{
	struct result r;
	struct stat st;
	(void)state;
	report("ams/0", 7, "eva", 10, 20, false, &r);
	assert_int_equal(r.here, 0); // not yet
	REDIS_UNTIL(r.here);
	assert_true(r.stored);
	assert_int_equal(r.boot, 7);
	assert_false(r.limited);
	assert_int_equal(stat(x.path, &st), 0);
	assert_true(st.st_size > 40);
	stop();
	start(false);
	check("eva", 10, 20);
}

static void the_answer_says_what_the_quota_leaves(void **state)
{
	(void)state;
	x.limited = true;
	x.quota.bytes = 1000;
	struct result r = say("ams/0", 7, "eva", 100, 200, false);
	assert_true(r.limited);
	assert_int_equal(r.left, 700);
	assert_int_equal(say("fra/0", 1, "eva", 500, 0, false).left, 200);
	assert_int_equal(say("ams/0", 7, "eva", 100, 700, false).left, -300);
	assert_false(say("ams/0", 7, "tom", 1, 1, false).limited);
	x.quota.bytes = 5000;
	assert_int_equal(say("ams/0", 7, "eva", 100, 700, false).left, 3700);
	// A period of which nothing is used yet; it outlives a restart.
	x.quota.period_s = 1000000000;
	assert_int_equal(say("ams/0", 7, "eva", 101, 700, false).left, 4999);
	stop();
	start(false);
	assert_int_equal(say("ams/0", 7, "eva", 101, 700, false).left, 4999);
}

static void redis_has_a_copy_and_may_lose_it(void **state)
{
	(void)state;
	say("ams/0", 7, "eva", 1, 2, false);
	REDIS_UNTIL(in_redis("eva", "e0000000000000007|ams/0", "1:2"));
	say("ams/0", 7, "eva", 3, 4, true);
	REDIS_UNTIL(in_redis("eva", "b", "3:4"));
	redisReply *r = redis_ask("ZCARD sp:{test}:ub");
	assert_int_equal(r->integer, 1);
	freeReplyObject(r);
	freeReplyObject(redis_ask("FLUSHALL"));
	con_usage_store_redis_up(x.s);
	REDIS_UNTIL(in_redis("eva", "b", "3:4"));
	check("eva", 3, 4);
}

static void a_lost_disk_is_filled_from_redis_and_counts_nothing_twice(void **state)
{
	(void)state;
	say("ams/0", 7, "eva", 3, 4, true);
	say("ams/0", 8, "eva", 10, 20, false);
	REDIS_UNTIL(in_redis("eva", "b", "3:4") &&
		    in_redis("eva", "e0000000000000008|ams/0", "10:20"));
	stop();
	unlink(x.path);
	start(true);
	load("eva", true);
	assert_int_equal(n()->loaded, 1);
	check("eva", 13, 24);
	// The final report of the first boot comes again, late.
	assert_true(say("ams/0", 7, "eva", 3, 4, true).stored);
	check("eva", 13, 24);
	assert_true(say("ams/0", 8, "eva", 11, 21, false).stored);
	check("eva", 14, 25);
	stop();
	start(false); // and it is on the new disk
	check("eva", 14, 25);
	say("ams/0", 7, "eva", 3, 4, false);
	check("eva", 14, 25);
}

static void while_redis_is_asked_nothing_is_stored(void **state)
{
	(void)state;
	stop();
	unlink(x.path);
	start(true);
	kill(redis.pid, SIGSTOP);
	int done = 0;
	const char *users[] = {"eva"};
	con_usage_store_load(x.s, users, 1, on_loaded, &done);
	assert_false(say("ams/0", 7, "eva", 3, 4, true).stored);
	check("eva", 0, 0);
	REDIS_UNTIL(done);
	assert_int_equal(done, -1);
	assert_false(say("ams/0", 7, "eva", 3, 4, true).stored);
	kill(redis.pid, SIGCONT);
	REDIS_UNTIL(con_redis_is_up(redis.r));
	load("eva", true);
	assert_true(say("ams/0", 7, "eva", 3, 4, true).stored);
	check("eva", 3, 4);
}

static void a_redis_that_is_frozen_or_gone_delays_no_answer(void **state)
{
	(void)state;
	kill(redis.pid, SIGSTOP);
	uint64_t before = sp_loop_refresh(x.loop);
	for (uint64_t i = 1; i <= 5; i++)
		assert_true(say("ams/0", 7, "eva", i, i, false).stored);
	assert_true(sp_loop_refresh(x.loop) - before < 1500000);
	kill(redis.pid, SIGCONT);
	redis_kill();
	REDIS_UNTIL(!con_redis_is_up(redis.r));
	assert_true(say("ams/0", 7, "eva", 9, 9, true).stored);
	check("eva", 9, 9);
	redis_start();
	REDIS_UNTIL(con_redis_is_up(redis.r));
	con_usage_store_redis_up(x.s);
	REDIS_UNTIL(in_redis("eva", "b", "9:9"));
}

static void a_redis_that_knows_more_is_not_overwritten(void **state)
{
	(void)state;
	freeReplyObject(redis_ask("HSET sp:{test}:u:eva b 1000:1000"));
	say("ams/0", 7, "eva", 1, 2, false);
	REDIS_UNTIL(n()->newer == 1);
	assert_true(in_redis("eva", "b", "1000:1000"));
	check("eva", 1, 2);
}

// RLIMIT_FSIZE stands for a full disk: no file may grow.
static void a_full_disk_is_said_in_the_answer_and_nothing_is_forgotten(void **state)
{
	struct rlimit old, full;
	(void)state;
	assert_true(say("ams/0", 7, "eva", 1, 1, false).stored);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	full = old;
	full.rlim_cur = 60;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
	struct result r = say("ams/0", 7, "eva", 2, 2, true);
	struct result again = say("ams/0", 7, "eva", 2, 2, true);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_false(r.stored);
	assert_false(again.stored);
	assert_true(n()->not_stored >= 2);
	assert_true(say("ams/0", 7, "eva", 2, 2, true).stored);
	stop();
	start(false);
	check("eva", 2, 2);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_report_is_answered_once_it_is_on_the_disk),
		T(the_answer_says_what_the_quota_leaves),
		T(redis_has_a_copy_and_may_lose_it),
		T(a_lost_disk_is_filled_from_redis_and_counts_nothing_twice),
		T(while_redis_is_asked_nothing_is_stored),
		T(a_redis_that_is_frozen_or_gone_delays_no_answer),
		T(a_redis_that_knows_more_is_not_overwritten),
		T(a_full_disk_is_said_in_the_answer_and_nothing_is_forgotten),
	};
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("usage_store", tests, NULL, NULL);
}
