// Users' totals on their way to a controller that loses, forgets and repeats.
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/log.h"
#include "worker/agent_usage.h"

#define USERS 400

struct total {
	char name[16];
	uint64_t up, down;
};

static struct {
	struct sp_loop *loop;
	struct agt_usage *u;
	struct wrk_counters *c;
	struct total known[USERS]; // what the controller has of this boot
	unsigned n_known;
	// of the report that came last
	uint64_t call, boot;
	bool final;
	unsigned rows, reports, quotas, dones;
	uint64_t done_boot, quota_total;
	bool quota_limited;
	char quota_user[80];
} x;

static struct total *known(const char *name)
{
	for (unsigned i = 0; i < x.n_known; i++)
		if (!strcmp(x.known[i].name, name))
			return &x.known[i];
	assert_true(x.n_known < USERS);
	snprintf(x.known[x.n_known].name, sizeof(x.known[0].name), "%s", name);
	return &x.known[x.n_known++];
}

static int on_report(void *ctx, uint64_t call, Sallyport__Fleet__UsageReport *m)
{
	(void)ctx;
	x.reports++;
	x.call = call;
	x.boot = m->boot;
	x.final = m->final;
	x.rows = (unsigned)m->n_users;
	for (size_t i = 0; i < m->n_users; i++) {
		struct total *t = known(m->users[i]->user);
		if (m->users[i]->bytes_up > t->up)
			t->up = m->users[i]->bytes_up;
		if (m->users[i]->bytes_down > t->down)
			t->down = m->users[i]->bytes_down;
	}
	return 0;
}

static void on_quota(void *ctx, Sallyport__Local__Quota *m)
{
	(void)ctx;
	x.quotas++;
	assert_int_equal(m->n_users, 1);
	snprintf(x.quota_user, sizeof(x.quota_user), "%s", m->users[0]->user);
	x.quota_limited = m->users[0]->limited;
	x.quota_total = m->users[0]->total;
}

static void on_done(void *ctx, uint64_t boot)
{
	(void)ctx;
	x.dones++;
	x.done_boot = boot;
}

static const struct agt_usage_ops ops = {on_report, on_quota, on_done};

static int setup(void **state)
{
	struct wrk_counters_options o = {.users = 1024, .boot = 7};
	(void)state;
	memset(&x, 0, sizeof(x));
	sp_log_setup(SP_LOG_ERROR, SP_LOG_LOGFMT,
		     open("/dev/null", O_WRONLY | O_CLOEXEC));
	if (sodium_init() < 0)
		return -1;
	assert_int_equal(sp_loop_new(&x.loop), 0);
	assert_int_equal(wrk_counters_new(&o, &x.c), 0);
	assert_int_equal(agt_usage_new(x.loop, &ops, NULL, &x.u), 0);
	agt_usage_add(x.u, 7, false, fcntl(wrk_counters_fd(x.c), F_DUPFD_CLOEXEC, 3));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	agt_usage_free(x.u);
	wrk_counters_free(x.c);
	sp_loop_free(x.loop);
	return 0;
}

#define UNTIL(condition)                                                                 \
	do {                                                                             \
		uint64_t until_ = sp_loop_now_us(x.loop) + 10000000;                     \
		while (!(condition)) {                                                   \
			assert_true(sp_loop_now_us(x.loop) < until_);                    \
			assert_int_equal(sp_loop_turn(x.loop, true), 0);                 \
		}                                                                        \
	} while (0)

static struct wrk_account *user(const char *name)
{
	struct wrk_account *a = wrk_counters_account(x.c, name);
	assert_non_null(a);
	return a;
}

static void answer(uint64_t call, bool stored)
{
	Sallyport__Fleet__UsageAnswer m = SALLYPORT__FLEET__USAGE_ANSWER__INIT;
	m.boot = x.boot;
	m.stored = stored;
	agt_usage_on_answer(x.u, call, &m);
}

static void answer_left(const char *name, bool limited, int64_t bytes)
{
	Sallyport__Fleet__UsageAnswer m = SALLYPORT__FLEET__USAGE_ANSWER__INIT;
	Sallyport__Fleet__QuotaLeft left = SALLYPORT__FLEET__QUOTA_LEFT__INIT,
				    *list = &left;
	left.user = (char *)(uintptr_t)name;
	left.limited = limited;
	left.bytes = bytes;
	m.boot = x.boot;
	m.stored = true;
	m.n_users = 1;
	m.users = &list;
	agt_usage_on_answer(x.u, x.call, &m);
}

static void only_what_changed_is_reported_again(void **state)
{
	(void)state;
	user("alice")->usage->up = 5;
	user("bob")->usage->down = 6;
	agt_usage_set_up(x.u, true);
	UNTIL(x.reports == 1);
	assert_int_equal(x.rows, 2);
	answer(x.call, true);
	user("bob")->usage->down = 7;
	UNTIL(x.reports == 2);
	assert_int_equal(x.rows, 1);
	assert_int_equal(known("bob")->down, 7);
	assert_int_equal(known("alice")->up, 5);
}

static void what_was_not_stored_is_reported_again(void **state)
{
	(void)state;
	user("alice")->usage->up = 5;
	agt_usage_set_up(x.u, true);
	UNTIL(x.reports == 1);
	answer(x.call, false);
	UNTIL(x.reports == 2);
	assert_int_equal(x.rows, 1);
	answer(x.call + 1, true); // of another call
	assert_int_equal(agt_usage_counters(x.u)->acknowledged, 0);
	agt_usage_set_up(x.u, false); // the link went, and with it the answer
	agt_usage_set_up(x.u, true);
	UNTIL(x.reports == 3);
	assert_int_equal(x.rows, 1);
}

static void what_is_left_counts_from_what_was_reported(void **state)
{
	(void)state;
	struct wrk_account *a = user("alice");
	a->usage->up = 100;
	a->usage->down = 50;
	agt_usage_set_up(x.u, true);
	UNTIL(x.reports == 1);
	a->usage->down = 80; // after the report
	answer_left("alice", true, 40);
	assert_string_equal(x.quota_user, "alice");
	assert_true(x.quota_limited);
	assert_int_equal(x.quota_total, 190);
	UNTIL(x.reports == 2);
	answer_left("alice", true, -500); // more than all of it
	assert_int_equal(x.quota_total, 0);
	a->usage->down = 81;
	UNTIL(x.reports == 3);
	answer_left("mallory", true, 1); // was not asked for
	assert_int_equal(x.quotas, 2);
}

static void final_totals_are_reported_until_they_are_stored(void **state)
{
	(void)state;
	user("alice")->usage->up = 5;
	agt_usage_set_up(x.u, true);
	UNTIL(x.reports == 1);
	assert_false(x.final);
	answer(x.call, true);
	user("alice")->usage->up = 9;
	agt_usage_end(x.u);
	UNTIL(x.reports == 2);
	assert_true(x.final);
	assert_int_equal(known("alice")->up, 9);
	assert_int_equal(agt_usage_waiting(x.u), 1);
	answer(x.call, false);
	assert_int_equal(x.dones, 0);
	UNTIL(x.reports == 3);
	answer(x.call, true);
	assert_int_equal(x.dones, 1);
	assert_int_equal(x.done_boot, 7);
	assert_int_equal(agt_usage_waiting(x.u), 0);
}

static void a_boot_without_users_ends_too(void **state)
{
	(void)state;
	agt_usage_set_up(x.u, true);
	agt_usage_end(x.u);
	UNTIL(x.reports == 1);
	assert_true(x.final);
	assert_int_equal(x.rows, 0);
	answer(x.call, true);
	assert_int_equal(x.dones, 1);
}

static void many_users_go_in_several_reports(void **state)
{
	char name[16];
	(void)state;
	for (int i = 0; i < USERS; i++) {
		snprintf(name, sizeof(name), "u%d", i);
		user(name)->usage->up = 1;
	}
	agt_usage_set_up(x.u, true);
	UNTIL(x.reports == 1);
	assert_int_equal(x.rows, AGT_USAGE_CHUNK);
	answer(x.call, true); // the rest follows at once
	assert_int_equal(x.reports, 2);
	assert_int_equal(x.rows, USERS - AGT_USAGE_CHUNK);
	answer(x.call, true);
	assert_int_equal(x.n_known, USERS);
}

// Whatever is lost, totals become exact, and at no time are they too high.
static void totals_become_exact_over_a_lossy_link(void **state)
{
	static struct total truth[USERS];
	uint8_t seed[randombytes_SEEDBYTES] = {42};
	static uint8_t dice[4000 * 4];
	(void)state;
	randombytes_buf_deterministic(dice, sizeof(dice), seed);
	for (unsigned i = 0; i < 4000; i++) {
		const uint8_t *d = dice + 4 * i;
		unsigned who = d[0] % USERS, before = x.reports;
		char name[16];
		snprintf(name, sizeof(name), "u%u", who);
		user(name)->usage->up = truth[who].up += d[1];
		user(name)->usage->down = truth[who].down += 3u * d[1];
		// A link that comes and goes is a report at once.
		agt_usage_set_up(x.u, false);
		agt_usage_set_up(x.u, true);
		if (x.reports == before)
			continue;
		if (d[2] < 100)
			answer(x.call, true);
		else if (d[2] < 150)
			answer(x.call, false);
		else if (d[2] < 200)
			answer(x.call - d[3] % 4, true); // an old one
	}
	agt_usage_end(x.u);
	agt_usage_set_up(x.u, false);
	agt_usage_set_up(x.u, true);
	while (!x.dones)
		answer(x.call, true);
	for (unsigned i = 0; i < USERS; i++) {
		char name[16];
		snprintf(name, sizeof(name), "u%u", i);
		assert_true(known(name)->up == truth[i].up);
		assert_true(known(name)->down == truth[i].down);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(only_what_changed_is_reported_again),
		TEST(what_was_not_stored_is_reported_again),
		TEST(what_is_left_counts_from_what_was_reported),
		TEST(final_totals_are_reported_until_they_are_stored),
		TEST(a_boot_without_users_ends_too),
		TEST(many_users_go_in_several_reports),
		TEST(totals_become_exact_over_a_lossy_link),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
