// Usage totals: the pure table, its file on disk, and a seeded simulation of workers,
// agents, a network and a controller that all go wrong.
//
// USAGE_SEED=x runs only that seed; USAGE_SEEDS=n that many (default below).
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "controller/usage.h"
#include "controller/usage_spool.h"

static char dir[] = "/tmp/sp-usage-XXXXXX";
static char path[64];

static int setup(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/usage", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir);
}

static struct con_usage *table(void)
{
	struct con_usage *u;
	assert_int_equal(con_usage_new(1000, &u), 0);
	return u;
}

static int add(struct con_usage *u, const char *worker, uint64_t boot, const char *user,
	       uint64_t up, uint64_t down)
{
	return con_usage_add(u, worker, boot, user, &(struct con_usage_sum){up, down});
}

static void check(const struct con_usage *u, const char *user, uint64_t up, uint64_t down)
{
	struct con_usage_sum sum;
	con_usage_get(u, user, &sum);
	assert_int_equal(sum.up, up);
	assert_int_equal(sum.down, down);
}

static struct con_usage_spool *spool(struct con_usage *u, uint64_t rewrite_bytes,
				     int expect_fresh) // -1: either
{
	struct con_usage_spool *s;
	char why[512];
	bool fresh;
	assert_int_equal(con_usage_spool_open(u, path, rewrite_bytes, &s, &fresh, why,
					      sizeof(why)),
			 0);
	assert_true(expect_fresh < 0 || fresh == expect_fresh);
	return s;
}

// ---- the table ----

static void the_highest_total_of_a_boot_holds_and_boots_add_up(void **state)
{
	struct con_usage *u = table();
	(void)state;
	assert_int_equal(add(u, "a/0", 1, "eva", 10, 100), 1);
	assert_int_equal(add(u, "a/0", 1, "eva", 10, 100), 0);
	assert_int_equal(add(u, "a/0", 1, "eva", 9, 120), 1);
	assert_int_equal(add(u, "a/0", 2, "eva", 1, 1), 1);
	assert_int_equal(add(u, "b/0", 1, "eva", 2, 2), 1);
	assert_int_equal(add(u, "b/0", 1, "tom", 7, 7), 1);
	check(u, "eva", 13, 123);
	check(u, "tom", 7, 7);
	check(u, "nobody", 0, 0);
	con_usage_free(u);
}

static void a_closed_boot_counts_once_and_no_more(void **state)
{
	struct con_usage *u = table();
	(void)state;
	assert_int_equal(add(u, "a/0", 1, "eva", 10, 100), 1);
	assert_int_equal(con_usage_close(u, "a/0", 1), 1);
	assert_int_equal(con_usage_close(u, "a/0", 1), 0);
	assert_int_equal(add(u, "a/0", 1, "eva", 50, 500), SP_E_CLOSED);
	assert_int_equal(add(u, "a/0", 1, "tom", 50, 500), SP_E_CLOSED);
	check(u, "eva", 10, 100);
	check(u, "tom", 0, 0);
	con_usage_free(u);
}

static void a_quota_counts_from_the_start_of_its_period(void **state)
{
	struct con_usage *u = table();
	(void)state;
	assert_int_equal(con_usage_left(u, "eva", 1000), 1000);
	assert_int_equal(con_usage_roll(u, "eva", 3600, 7200), 1);
	assert_int_equal(add(u, "a/0", 1, "eva", 300, 300), 1);
	assert_int_equal(con_usage_left(u, "eva", 1000), 400);
	assert_int_equal(con_usage_roll(u, "eva", 3600, 10799), 0);
	assert_int_equal(add(u, "a/0", 1, "eva", 300, 900), 1);
	assert_int_equal(con_usage_left(u, "eva", 1000), -200);
	assert_int_equal(con_usage_roll(u, "eva", 3600, 10800), 1);
	assert_int_equal(con_usage_left(u, "eva", 1000), 1000);
	assert_int_equal(con_usage_close(u, "a/0", 1), 1);
	assert_int_equal(con_usage_left(u, "eva", 1000), 1000);
	assert_int_equal(con_usage_left(u, "eva", UINT64_MAX), INT64_MAX);
	con_usage_free(u);
}

static void what_is_over_a_limit_is_refused_and_changes_nothing(void **state)
{
	struct con_usage *u;
	char name[CON_USAGE_USER_MAX + 2];
	(void)state;
	assert_int_equal(con_usage_new(1, &u), 0);
	assert_int_equal(add(u, "a/0", 1, "eva", 1, 1), 1);
	assert_int_equal(add(u, "a/0", 1, "tom", 1, 1), SP_E_LIMIT);
	for (uint64_t b = 2; b <= CON_USAGE_BOOTS_OPEN; b++)
		assert_int_equal(add(u, "a/0", b, "eva", 1, 1), 1);
	assert_int_equal(add(u, "a/0", 99999, "eva", 1, 1), SP_E_LIMIT);
	assert_int_equal(add(u, "b/0", 99999, "eva", 1, 1), 1);
	assert_int_equal(con_usage_close(u, "a/0", 1), 1);
	assert_int_equal(add(u, "a/0", 99999, "eva", 1, 1), 1);
	check(u, "eva", CON_USAGE_BOOTS_OPEN + 2, CON_USAGE_BOOTS_OPEN + 2);
	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = 0;
	assert_int_equal(add(u, "a/0", 2, name, 1, 1), SP_E_MALFORMED);
	assert_int_equal(add(u, "a/0", 2, "", 1, 1), SP_E_MALFORMED);
	assert_int_equal(add(u, "a/0", 2, "line\nfeed", 1, 1), SP_E_MALFORMED);
	for (uint64_t b = 0; b < 2 * CON_USAGE_BOOTS_CLOSED; b++)
		assert_int_equal(con_usage_close(u, "c/0", b), 1);
	con_usage_free(u);
}

// ---- the file ----

static void totals_come_back_from_the_file(void **state)
{
	struct con_usage *u = table();
	struct con_usage_spool *s = spool(u, 1 << 20, true);
	struct con_usage_sum sum = {5, 6};
	(void)state;
	assert_int_equal(con_usage_roll(u, "a b%c", 100, 1000), 1);
	assert_int_equal(con_usage_add(u, "w/0", 1, "a b%c", &sum), 1);
	con_usage_spool_entry(s, "a b%c", "w/0", 1, &sum);
	assert_int_equal(con_usage_close(u, "w/0", 1), 1);
	con_usage_spool_closed(s, "w/0", 1);
	assert_int_equal(add(u, "w/0", 2, "a b%c", 1, 1), 1);
	con_usage_spool_entry(s, "a b%c", "w/0", 2, &(struct con_usage_sum){1, 1});
	assert_int_equal(con_usage_roll(u, "a b%c", 100, 1100), 1);
	con_usage_spool_user(s, "a b%c");
	assert_int_equal(con_usage_spool_sync(s), 0);
	con_usage_spool_close(s);
	con_usage_free(u);
	u = table();
	s = spool(u, 1 << 20, false);
	check(u, "a b%c", 6, 7);
	assert_int_equal(con_usage_left(u, "a b%c", 100), 100);
	assert_int_equal(add(u, "w/0", 1, "a b%c", 9, 9), SP_E_CLOSED);
	con_usage_spool_close(s);
	con_usage_free(u);
	unlink(path);
}

static void a_file_that_is_none_is_refused_and_left_alone(void **state)
{
	struct con_usage *u = table();
	struct con_usage_spool *s;
	char why[512];
	struct stat st;
	bool fresh;
	(void)state;
	int fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, "something else\n", 15), 15);
	close(fd);
	assert_int_equal(
		con_usage_spool_open(u, path, 1000, &s, &fresh, why, sizeof(why)),
		SP_E_MALFORMED);
	assert_non_null(strstr(why, path));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 15);
	con_usage_free(u);
	unlink(path);
}

static void a_broken_line_is_left_out_and_a_torn_one_cut_off(void **state)
{
	struct con_usage *u = table();
	struct con_usage_spool *s = spool(u, 1 << 20, true);
	struct stat st;
	(void)state;
	for (uint64_t b = 1; b <= 3; b++) {
		struct con_usage_sum sum = {b, b};
		assert_int_equal(con_usage_add(u, "w/0", b, "eva", &sum), 1);
		con_usage_spool_entry(s, "eva", "w/0", b, &sum);
	}
	assert_int_equal(con_usage_spool_sync(s), 0);
	con_usage_spool_close(s);
	con_usage_free(u);
	assert_int_equal(stat(path, &st), 0);
	int fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "#", 1, 18 + 24), 1); // in the first line
	assert_int_equal(ftruncate(fd, st.st_size - 3), 0);
	close(fd);
	u = table();
	s = spool(u, 1 << 20, false);
	check(u, "eva", 2, 2);
	assert_int_equal(con_usage_spool_counters(s)->lines_broken, 1);
	assert_int_equal(con_usage_spool_counters(s)->lines_read, 2);
	con_usage_spool_close(s);
	con_usage_free(u);
	unlink(path);
}

static void a_disk_that_fails_is_said_and_nothing_is_forgotten(void **state)
{
	struct con_usage *u = table();
	struct con_usage_spool *s = spool(u, 1 << 20, true);
	struct con_usage_sum sum = {3, 4};
	(void)state;
	assert_int_equal(con_usage_add(u, "w/0", 1, "eva", &sum), 1);
	con_usage_spool_entry(s, "eva", "w/0", 1, &sum);
	// The folder is gone: the append fails, and so does writing it anew.
	char moved[80];
	snprintf(moved, sizeof(moved), "%s.moved", dir);
	struct con_usage_spool *two;
	char why[512];
	bool fresh;
	con_usage_spool_close(s);
	unlink(path);
	s = spool(u, 0, true); // writes anew at each sync
	con_usage_spool_entry(s, "eva", "w/0", 1, &sum);
	assert_int_equal(rename(dir, moved), 0);
	assert_int_equal(con_usage_spool_sync(s), -ENOENT);
	assert_int_equal(con_usage_spool_sync(s), -ENOENT);
	assert_int_equal(con_usage_spool_counters(s)->sync_failures, 2);
	assert_int_equal(rename(moved, dir), 0);
	assert_int_equal(con_usage_spool_sync(s), 0);
	con_usage_spool_close(s);
	struct con_usage *v = table();
	assert_int_equal(
		con_usage_spool_open(v, path, 1000, &two, &fresh, why, sizeof(why)), 0);
	check(v, "eva", 3, 4);
	con_usage_spool_close(two);
	con_usage_free(u);
	con_usage_free(v);
	unlink(path);
}

// ---- the simulation ----

#define WORKERS    4
#define USERS      8
#define BOOTS      400 // of all workers, in one run
#define INFLIGHT   300
#define DELIVERIES 100000

static uint64_t rng, seed;

static uint32_t rnd(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)((rng * UINT64_C(2685821657736338717)) >> 33) % n;
}

struct boot { // a segment of counters; outlives the worker and its agent
	int worker;
	uint64_t id;
	struct con_usage_sum used[USERS];
	bool over;    // the worker restarted
	bool deleted; // the agent was told that it is stored
};

struct report {
	int boot;
	bool final;
	struct con_usage_sum used[USERS];
	bool has[USERS]; // an agent may say only what changed
};

struct world {
	struct boot boot[BOOTS];
	int n_boots, live[WORKERS];
	struct report net[INFLIGHT];
	int n_net;
	struct con_usage *u;
	struct con_usage_spool *s;
	int acks[INFLIGHT], n_acks; // boots whose final report waits for the disk
	uint64_t delivered, restarts, crashes, torn, closed, late, rewrites;
};

static struct world w;

static const char *worker_name(int i)
{
	static const char *names[WORKERS] = {"ams/0", "ams/1", "fra/0", "nyc east/0"};
	return names[i];
}

static const char *user_name(int i)
{
	static char name[16];
	snprintf(name, sizeof(name), "user %d%%", i);
	return name;
}

static void boot_new(int worker)
{
	assert_true(w.n_boots < BOOTS);
	w.live[worker] = w.n_boots;
	w.boot[w.n_boots] = (struct boot){.worker = worker, .id = rng};
	(void)rnd(2);
	w.n_boots++;
}

static void controller_start(bool first)
{
	w.u = table();
	w.s = spool(w.u, 20000 + rnd(60000), first ? 1 : -1);
}

// kill -9, and perhaps a power cut: what was not synced is gone or torn.
static void controller_crash(void)
{
	w.crashes++;
	w.rewrites += con_usage_spool_counters(w.s)->rewrites;
	con_usage_spool_close(w.s);
	con_usage_free(w.u);
	if (rnd(2)) { // some of what was being written made it
		int fd = open(path, O_WRONLY | O_APPEND);
		assert_int_equal(write(fd, "u ams/0 00000000000000", 1 + rnd(22)) > 0, 1);
		close(fd);
		w.torn++;
	}
	w.n_acks = 0; // nobody will say them
	controller_start(false);
}

static void send_report(int boot, bool final)
{
	struct boot *b = &w.boot[boot];
	if (b->deleted || w.n_net == INFLIGHT)
		return;
	struct report *r = &w.net[w.n_net++];
	*r = (struct report){.boot = boot, .final = final};
	for (int i = 0; i < USERS; i++) {
		r->has[i] = final || rnd(2);
		r->used[i] = b->used[i];
	}
}

static void deliver(int i)
{
	struct report r = w.net[i];
	struct boot *b = &w.boot[r.boot];
	const char *worker = worker_name(b->worker);
	if (rnd(4)) // else it comes again, later
		w.net[i] = w.net[--w.n_net];
	w.delivered++;
	for (int k = 0; k < USERS; k++) {
		if (!r.has[k])
			continue;
		int n = con_usage_add(w.u, worker, b->id, user_name(k), &r.used[k]);
		if (n == SP_E_CLOSED) {
			w.late++;
			break;
		}
		assert_true(n >= 0);
		if (n)
			con_usage_spool_entry(w.s, user_name(k), worker, b->id,
					      &r.used[k]);
	}
	if (!r.final)
		return;
	int n = con_usage_close(w.u, worker, b->id);
	assert_true(n >= 0);
	if (n)
		con_usage_spool_closed(w.s, worker, b->id);
	w.closed += (uint64_t)n;
	if (w.n_acks < INFLIGHT)
		w.acks[w.n_acks++] = r.boot;
}

static void sync_and_answer(void)
{
	assert_int_equal(con_usage_spool_sync(w.s), 0);
	for (int i = 0; i < w.n_acks; i++)
		if (rnd(3)) // else the answer is lost; the agent says it again
			w.boot[w.acks[i]].deleted = true;
	w.n_acks = 0;
}

static void one_event(void)
{
	uint32_t what = rnd(1000);
	int worker = (int)rnd(WORKERS);
	struct boot *live = &w.boot[w.live[worker]];
	if (what < 300) {
		struct con_usage_sum *s = &live->used[rnd(USERS)];
		s->up += rnd(1000);
		s->down += rnd(100000);
	} else if (what < 450) {
		send_report(w.live[worker], false);
	} else if (what < 980) {
		if (w.n_net)
			deliver((int)rnd((uint32_t)w.n_net));
	} else if (what < 985) {
		if (w.n_net) // lost
			w.n_net--;
	} else if (what < 996) {
		sync_and_answer();
	} else if (what < 997) {
		controller_crash();
	} else if (what < 998 && w.n_boots < BOOTS) {
		live->over = true;
		w.restarts++;
		boot_new(worker);
	} else {
		for (int i = 0; i < w.n_boots; i++)
			if (w.boot[i].over)
				send_report(i, true);
	}
}

static void quiesce(void)
{
	for (int i = 0; i < w.n_boots; i++)
		if (i != w.live[w.boot[i].worker])
			assert_true(w.boot[i].over);
	for (int round = 0; round < 3; round++) {
		w.n_net = 0;
		for (int i = 0; i < w.n_boots; i++) {
			send_report(i, w.boot[i].over);
			while (w.n_net)
				deliver(0);
		}
		for (int i = 0; i < WORKERS; i++) {
			struct boot *b = &w.boot[w.live[i]];
			for (int k = 0; k < USERS; k++) {
				int n = con_usage_add(w.u, worker_name(i), b->id,
						      user_name(k), &b->used[k]);
				assert_true(n >= 0);
				con_usage_spool_entry(w.s, user_name(k), worker_name(i),
						      b->id, &b->used[k]);
			}
		}
		sync_and_answer();
	}
}

static void exact(void)
{
	for (int k = 0; k < USERS; k++) {
		uint64_t up = 0, down = 0;
		for (int i = 0; i < w.n_boots; i++) {
			up += w.boot[i].used[k].up;
			down += w.boot[i].used[k].down;
		}
		check(w.u, user_name(k), up, down);
	}
}

static void run(void)
{
	memset(&w, 0, sizeof(w));
	rng = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	for (int i = 0; i < WORKERS; i++)
		boot_new(i);
	controller_start(true);
	while (w.delivered < DELIVERIES)
		one_event();
	quiesce();
	exact();
	controller_crash(); // and from the disk alone
	exact();
	print_message("seed %d: %d reports delivered, %d boots, %d closed, %d late, "
		      "%d crashes of the controller (%d torn), %d rewrites\n",
		      (int)seed, (int)w.delivered, w.n_boots, (int)w.closed, (int)w.late,
		      (int)w.crashes, (int)w.torn, (int)w.rewrites);
	assert_true(w.crashes > 20 && w.restarts > 20 && w.late > 100 && w.rewrites > 20);
	con_usage_spool_close(w.s);
	con_usage_free(w.u);
	unlink(path);
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	return text ? strtoull(text, NULL, 10) : otherwise;
}

static void totals_are_exact_after_any_loss_repetition_and_restart(void **state)
{
	uint64_t only = number("USAGE_SEED", 0), n = number("USAGE_SEEDS", 3);
	(void)state;
	for (seed = only ? only : 1; seed <= (only ? only : n); seed++)
		run();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_highest_total_of_a_boot_holds_and_boots_add_up),
		cmocka_unit_test(a_closed_boot_counts_once_and_no_more),
		cmocka_unit_test(a_quota_counts_from_the_start_of_its_period),
		cmocka_unit_test(what_is_over_a_limit_is_refused_and_changes_nothing),
		cmocka_unit_test(totals_come_back_from_the_file),
		cmocka_unit_test(a_file_that_is_none_is_refused_and_left_alone),
		cmocka_unit_test(a_broken_line_is_left_out_and_a_torn_one_cut_off),
		cmocka_unit_test(a_disk_that_fails_is_said_and_nothing_is_forgotten),
		cmocka_unit_test(totals_are_exact_after_any_loss_repetition_and_restart),
	};
	return cmocka_run_group_tests_name("usage", tests, setup, teardown);
}
