// Two exits, a real Redis, a directory and usage totals in one process: the exit that is
// a session's home is killed, and what its user used, has left and is doing goes on at
// the other one. In the place of agents and bus stands a function call.
#include "controller/directory.h"
#include "controller/usage_store.h"
#include "tests/unit/redis_world.h"
#include "tests/unit/worker_world.h"
#include "worker/sessions_internal.h"

enum { A, B };

static struct home {
	const char *name;
	uint64_t boot;
	struct wrk_worker *w;
	struct wrk_directory *directory;
	struct wrk_counters *counters;
	uint64_t calls;
	bool dead; // its loop is not turned any more
} h[2];

static struct worker_world first; // A's; the world in use is B's, and the client's
static struct con_directory *directory;
static struct con_usage_store *usage;
static struct con_usage_quota quota;
static bool limited;
static char usage_path[128];

// ---- turning ----

static void turn(struct sp_loop *loop)
{
	struct timeval ms = {.tv_usec = 500};
	event_base_loopexit(sp_loop_base(loop), &ms);
	assert_int_equal(sp_loop_turn(loop, false), 0);
}

#define WAIT(cond)                                                                       \
	do {                                                                             \
		uint64_t end_ = sp_loop_refresh(x.w->loop) + 10000000;                   \
		while (!(cond)) {                                                        \
			turn(x.w->loop);                                                 \
			if (!h[A].dead)                                                  \
				turn(h[A].w->loop);                                      \
			if (sp_loop_refresh(x.w->loop) > end_)                           \
				fail_msg("never: %s", #cond);                            \
		}                                                                        \
	} while (0)

// ---- agents and bus ----

struct asked {
	struct home *h;
	uint64_t call;
};

static void on_answer(void *ctx, const Sallyport__Fleet__SessionAnswer *m)
{
	struct asked *q = ctx;
	if (!q->h->dead)
		wrk_directory_on_answer(q->h->directory, q->call, m);
	free(q);
}

static int to_directory(void *link, const Sallyport__Local__FromExit *m)
{
	struct asked *q = malloc(sizeof(*q));
	assert_non_null(q);
	*q = (struct asked){link, m->call};
	switch ((int)m->body_case) {
	case SALLYPORT__LOCAL__FROM_EXIT__BODY_SESSION_PUT:
		con_directory_put(directory, q->h->name, m->session_put, on_answer, q);
		break;
	case SALLYPORT__LOCAL__FROM_EXIT__BODY_SESSION_ADOPT:
		con_directory_adopt(directory, q->h->name, m->session_adopt, on_answer,
				    q);
		break;
	default:
		con_directory_drop(directory, q->h->name, m->session_drop, on_answer, q);
	}
	return 0;
}

static uint64_t next_call(void *link)
{
	return ++((struct home *)link)->calls;
}

static enum con_directory_home home_state(void *ctx, const char *worker, uint64_t boot,
					  const struct con_directory_lease *lease)
{
	(void)ctx;
	(void)lease;
	for (int i = 0; i < 2; i++)
		if (!strcmp(h[i].name, worker) && h[i].boot == boot && !h[i].dead)
			return CON_HOME_ALIVE;
	return CON_HOME_SILENT;
}

static bool quota_of(void *ctx, const char *user, struct con_usage_quota *ret)
{
	(void)ctx;
	(void)user;
	*ret = quota;
	return limited;
}

static bool quota_left(void *ctx, const char *user, int64_t *ret_left)
{
	(void)ctx;
	*ret_left = con_usage_left(con_usage_store_table(usage), user, quota.bytes);
	return limited;
}

static void on_event(void *ctx, enum con_directory_event what, const char *worker,
		     const char *from, const char *user, const uint8_t *id)
{
	(void)ctx;
	(void)worker;
	(void)from;
	(void)user;
	(void)id;
	assert_int_equal(what, CON_DIRECTORY_ADOPTED);
}

static void on_stored(void *ctx, const Sallyport__Fleet__UsageAnswer *m)
{
	*(int *)ctx = m->stored ? 1 : -1;
}

// What the agent of that exit reads in its counters, also when the exit is dead.
static void report(int i, const char *user, bool final)
{
	Sallyport__Fleet__UsageReport m = SALLYPORT__FLEET__USAGE_REPORT__INIT;
	Sallyport__Fleet__Usage t = SALLYPORT__FLEET__USAGE__INIT, *list = &t;
	struct wrk_account *a = wrk_counters_find(h[i].counters, user);
	int stored = 0;
	t.user = (char *)(uintptr_t)user;
	t.bytes_up = a ? a->usage->up : 0;
	t.bytes_down = a ? a->usage->down : 0;
	m.boot = h[i].boot;
	m.final = final;
	m.n_users = 1;
	m.users = &list;
	con_usage_store_report(usage, h[i].name, &m, on_stored, &stored);
	WAIT(stored);
	assert_int_equal(stored, 1);
}

// ---- the world ----

static void home_new(int i, const char *name, uint64_t boot)
{
	struct wrk_counters_options co = {.users = 16, .boot = boot};
	struct wrk_directory_options o = {
		.loop = x.w->loop,
		.boot = boot,
		.transport = {to_directory, next_call, &h[i]},
		.ops = &wrk_sessions_directory_ops,
		.ctx = x.w->sessions,
	};
	h[i] = (struct home){.name = name, .boot = boot, .w = x.w};
	assert_int_equal(wrk_counters_new(&co, &h[i].counters), 0);
	x.w->sessions->opt.counters = h[i].counters;
	assert_int_equal(wrk_directory_new(&o, &h[i].directory), 0);
	wrk_sessions_set_directory(x.w->sessions, h[i].directory);
}

static int setup_two(void **state)
{
	static const struct con_directory_ops ops = {home_state, quota_left, on_event};
	struct con_directory_options o = {.fleet = "test", .ops = &ops};
	struct con_usage_store_options so = {
		.fleet = "test", .max_users = 100, .quota = quota_of};
	char why[512];
	bool fresh;
	limited = false;
	assert_int_equal(setup(state), 0);
	home_new(A, "ams/0", 1001);
	first = x;
	assert_int_equal(setup(state), 0);
	home_new(B, "fra/0", 2002);
	redis_world_new(x.w->loop);
	o.loop = so.loop = x.w->loop;
	o.redis = so.redis = redis.r;
	snprintf(usage_path, sizeof(usage_path), "%s/usage", x.dir);
	so.path = usage_path;
	assert_int_equal(con_directory_new(&o, &directory), 0);
	assert_int_equal(con_usage_store_new(&so, &usage, &fresh, why, sizeof(why)), 0);
	return 0;
}

static void home_free(int i)
{
	wrk_sessions_free(h[i].w->sessions);
	h[i].w->sessions = NULL;
	wrk_directory_free(h[i].directory);
	wrk_counters_free(h[i].counters);
}

static int teardown_two(void **state)
{
	sp_link_env_free(x.env);
	x.env = NULL;
	for (int i = 0; i < 2; i++) {
		sp_link_env_free(h[i].w->links);
		h[i].w->links = NULL;
	}
	redis_disconnect();
	con_usage_store_free(usage);
	con_directory_free(directory);
	redis_world_free();
	unlink(usage_path);
	home_free(A);
	home_free(B);
	struct worker_world b = x;
	x = first;
	(void)teardown(state);
	x = b;
	return teardown(state);
}

static void dial_first(struct device *d)
{
	uint16_t port = x.port;
	uint8_t pub[32];
	memcpy(pub, x.worker_pub, 32);
	x.port = first.port;
	memcpy(x.worker_pub, first.worker_pub, 32);
	dial(d, false);
	x.port = port;
	memcpy(x.worker_pub, pub, 32);
}

// A stream over which `down` bytes come and `up` go; all of them arrive.
static int use(struct device *d, size_t down, size_t up)
{
	int before = d->opened, fd;
	size_t want = d->got + down, sent = 0, came = 0;
	static char bytes[65536];
	struct sp_stream *st = open_stream(d);
	struct iovec iov;
	WAIT(d->opened > before);
	WAIT((fd = accept4(x.listener, NULL, NULL, SOCK_NONBLOCK)) >= 0);
	assert_int_equal(sp_stream_reserve(st, up, &iov, 1), 1);
	assert_true(up && iov.iov_len >= up);
	sp_stream_commit(st, up);
	sp_session_clock_touch(x.clock, d->session);
	while (sent < down || d->got < want || came < up) {
		size_t n = down - sent < sizeof(bytes) ? down - sent : sizeof(bytes);
		ssize_t k = n ? send(fd, bytes, n, MSG_DONTWAIT) : 0;
		sent += k > 0 ? (size_t)k : 0;
		k = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
		came += k > 0 ? (size_t)k : 0;
		turn(x.w->loop);
		if (!h[A].dead)
			turn(h[A].w->loop);
		if (d->ended || d->closed)
			break;
	}
	return fd;
}

static void kill_first(struct device *d)
{
	h[A].dead = true;
	sp_link_close(d->link, SP_REASON_CANCELLED);
	WAIT(d->downs);
}

static void check(const char *user, uint64_t up, uint64_t down)
{
	struct con_usage_sum sum;
	con_usage_get(con_usage_store_table(usage), user, &sum);
	assert_int_equal(sum.up, up);
	assert_int_equal(sum.down, down);
}

static bool has_record(void)
{
	redisReply *r = redis_ask("DBSIZE");
	bool yes = r->integer >= 1;
	freeReplyObject(r);
	return yes;
}

static struct device *session_at_first(void)
{
	struct device *d = &x.d[0];
	make_device(d, "alice", 3600);
	dial_first(d);
	WAIT(d->ups == 1);
	WAIT(has_record());
	return d;
}

// ---- claims ----

static void a_killed_homes_session_is_adopted_and_usage_stays_exact(void **state)
{
	struct device *d = session_at_first();
	(void)state;
	close(use(d, 300000, 1000));
	report(A, "alice", false);
	close(use(d, 50000, 500)); // not reported when it dies
	kill_first(d);
	d->attach_flags = SP_ATTACH_MOVED | SP_ATTACH_PARKED;
	dial(d, false);
	WAIT(d->ups == 2);
	assert_true(sp_session_is_adopted(d->session, d->slot));
	assert_int_equal(sessions()->adopted, 1);
	d->closed = 0; // those of the dead home
	close(use(d, 200000, 2000));
	report(B, "alice", false);
	report(A, "alice", true); // its counters outlived it
	report(A, "alice", true);
	report(B, "alice", false);
	check("alice", 3500, 550000);
}

static void
with_an_emptied_redis_it_is_fresh_and_usage_is_exact_all_the_same(void **state)
{
	struct device *d = session_at_first();
	(void)state;
	close(use(d, 100000, 100));
	report(A, "alice", false);
	kill_first(d);
	freeReplyObject(redis_ask("FLUSHALL"));
	d->attach_flags = SP_ATTACH_MOVED;
	dial(d, false);
	WAIT(d->ups == 2);
	assert_false(sp_session_is_adopted(d->session, d->slot));
	d->closed = 0;
	close(use(d, 100000, 100));
	report(B, "alice", false);
	report(A, "alice", true);
	check("alice", 200, 200000);
	WAIT(has_record()); // and it can be adopted again
}

static void while_the_home_lives_a_parked_session_stays_there(void **state)
{
	struct device *d = session_at_first();
	(void)state;
	sp_link_close(d->link, SP_REASON_CANCELLED);
	WAIT(d->downs == 1);
	d->attach_flags = SP_ATTACH_MOVED | SP_ATTACH_PARKED;
	dial(d, false);
	WAIT(d->downs == 2);
	assert_int_equal(d->down_why, SP_REASON_NOT_ADOPTED);
	d->attach_flags = SP_ATTACH_MOVED; // nothing waits there any more
	dial(d, false);
	WAIT(d->ups == 2);
	assert_true(sp_session_is_adopted(d->session, d->slot));
	// The old home hears of it and lets go.
	WAIT(wrk_sessions_counters(h[A].w->sessions)->ended[SP_REASON_HOME_LOST] == 1);
}

static void what_is_left_of_a_quota_moves_with_the_session(void **state)
{
	struct device *d = session_at_first();
	(void)state;
	limited = true;
	quota = (struct con_usage_quota){.bytes = 500000};
	close(use(d, 300000, 1000));
	report(A, "alice", false);
	kill_first(d);
	d->attach_flags = SP_ATTACH_MOVED | SP_ATTACH_PARKED;
	dial(d, false);
	WAIT(d->ups == 2);
	d->closed = 0;
	close(use(d, 150000, 1000)); // 48,000 left
	assert_int_equal(d->ended, 0);
	int fd = use(d, 10000000, 1000);
	WAIT(d->ended);
	assert_int_equal(d->end_why, SP_REASON_QUOTA);
	close(fd);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup_two, teardown_two)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_killed_homes_session_is_adopted_and_usage_stays_exact),
		T(with_an_emptied_redis_it_is_fresh_and_usage_is_exact_all_the_same),
		T(while_the_home_lives_a_parked_session_stays_there),
		T(what_is_left_of_a_quota_moves_with_the_session),
	};
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("failover", tests, NULL, NULL);
}
