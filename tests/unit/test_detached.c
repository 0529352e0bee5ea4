// What becomes of sessions without a carrier, by a clock that the test moves: a whole
// worker and client engines in this process.
#include <sys/syscall.h>
#include <time.h>

#include "tests/unit/worker_world.h"

#define HOUR 3600

// ---- time ----

static int64_t ahead_s;

// For this program and every library in it.
int clock_gettime(clockid_t id, struct timespec *ret)
{
	if (syscall(SYS_clock_gettime, id, ret))
		return -1;
	if (id == CLOCK_MONOTONIC || id == CLOCK_REALTIME || id == CLOCK_BOOTTIME)
		ret->tv_sec += ahead_s;
	return 0;
}

// Some sweeps of the table.
static void sweeps(void)
{
	uint64_t until = sp_loop_refresh(x.w->loop) + 350000;
	UNTIL(sp_loop_refresh(x.w->loop) >= until);
}

// So far ahead of `since_s`, a value of ahead_s.
static void at_time(int64_t since_s, int64_t s)
{
	ahead_s = since_s + s;
	sweeps();
}

// ---- the world ----

#define N 5
static struct device many[N];

static int set_up_limits(const char *limits)
{
	ahead_s = 0;
	memset(many, 0, sizeof(many));
	return start(limits);
}

static int set_up(void **state)
{
	(void)state;
	return set_up_limits("limits:\n  sessions_per_user: 16\n");
}

static int set_up_tight(void **state)
{
	(void)state;
	return set_up_limits("limits:\n  memory: 1M\n  streams: 64\n");
}

static int tear_down(void **state)
{
	for (int i = 0; i < N; i++)
		free_device(&many[i]);
	return teardown(state);
}

// A session that lasts longer than any limit here, with a stream and a ticket.
static int lasting(struct device *d, const char *user, struct sp_stream **ret)
{
	make_device(d, user, 100 * HOUR);
	dial(d, false);
	UNTIL(d->ups == 1 && d->ticket_len);
	return join_stream(d, ret);
}

static void detach(struct device *d)
{
	uint32_t before = sessions()->detached;
	sp_link_close(d->link, SP_REASON_CANCELLED);
	UNTIL(sessions()->detached == before + 1);
}

// As much as the worker takes of a destination whose client is not there.
static size_t fill(int fd)
{
	static const char bytes[16384];
	uint64_t quiet_us = 0, now = 0;
	size_t sum = 0;
	do {
		ssize_t n = send(fd, bytes, sizeof(bytes), 0);
		now = sp_loop_refresh(x.w->loop);
		if (n > 0)
			sum += (size_t)n;
		if (n > 0 || !quiet_us)
			quiet_us = now;
		struct timeval ms = {.tv_usec = 1000};
		event_base_loopexit(sp_loop_base(x.w->loop), &ms);
		assert_int_equal(sp_loop_turn(x.w->loop, false), 0);
	} while (now < quiet_us + 30000);
	return sum;
}

// The next word that this destination hears: false: it is reset or ended.
static bool is_open(int fd)
{
	char c;
	return recv(fd, &c, 1, 0) < 0 && errno == EAGAIN;
}

static void resume(struct device *d)
{
	int before = d->ups;
	d->ticket_len = d->ticket_len ? d->ticket_len : 1;
	dial(d, true);
	UNTIL(d->ups > before);
}

// ---- claims ----

static void streams_wait_ten_minutes_for_their_client_and_no_longer(void **state)
{
	struct device *d = &many[0], *e = &many[1];
	struct sp_stream *st;
	(void)state;
	int fd = lasting(d, "alice", &st), other = lasting(e, "bob", &st);
	detach(d);
	detach(e);
	at_time(0, 10 * 60 - 5);
	assert_true(is_open(fd) && is_open(other));
	assert_int_equal(sessions()->stale, 0);
	resume(e); // in time: nothing is lost
	assert_int_equal(send(other, "hello", 5, 0), 5);
	UNTIL(e->got == 5);
	at_time(0, 10 * 60 + 1);
	UNTIL(!is_open(fd));
	assert_int_equal(sessions()->stale, 1);
	assert_int_equal(sessions()->detached, 1); // it is still known
	resume(d);
	UNTIL(d->closed == 1);
	assert_false(d->fresh);
	assert_int_equal(d->close_why, SP_REASON_STALE);
	assert_int_equal(e->closed, 0);
	close(fd);
	close(other);
}

static void a_session_is_known_for_25_hours_and_no_longer(void **state)
{
	struct device *d = &many[0], *e = &many[1];
	struct sp_stream *st;
	(void)state;
	close(lasting(d, "alice", &st));
	close(lasting(e, "bob", &st));
	detach(d);
	detach(e);
	at_time(0, 25 * HOUR - 60);
	assert_int_equal(sessions()->detached, 2);
	resume(d);
	assert_false(d->fresh);
	at_time(0, 25 * HOUR + 1);
	assert_int_equal(sessions()->ended[SP_REASON_STALE], 1);
	assert_int_equal(sessions()->detached, 0);
	dial(e, true);
	UNTIL(e->downs == 2);
	assert_int_equal(e->down_why, SP_REASON_TICKET); // says who it is in full
	dial(e, false);
	UNTIL(e->ups == 2);
	assert_true(e->fresh);
}

static void each_detachment_has_its_whole_time(void **state)
{
	struct device *d = &many[0];
	struct sp_stream *st;
	(void)state;
	int fd = lasting(d, "alice", &st);
	for (int i = 0; i < 4; i++) {
		detach(d);
		at_time(ahead_s, 9 * 60);
		assert_true(is_open(fd));
		resume(d);
	}
	assert_int_equal(sessions()->stale, 0);
	close(fd);
}

static int poor_fd;
#define STREAMS 4 // of each, with 64 KB of credit: a quarter of the pool

// The last ones of all get what is left.
static void fill_all(int (*fd)[STREAMS])
{
	for (int i = 0; i < N; i++)
		for (int k = 0; k < STREAMS; k++)
			fill(fd[i][k]);
	uint32_t pool = sp_arena_chunks_pool(x.w->arena);
	assert_true(sp_arena_chunks_spare(x.w->arena) < pool / 8);
}

// `poor`, if any, comes when all credit is granted, and goes first.
static void make_short(int (*fd)[STREAMS], struct device *poor)
{
	struct sp_stream *st;
	char user[8];
	for (int i = 0; i < N; i++) {
		snprintf(user, sizeof(user), "u%d", i);
		fd[i][0] = lasting(&many[i], user, &st);
		for (int k = 1; k < STREAMS; k++)
			fd[i][k] = join_stream(&many[i], &st);
	}
	if (poor) {
		poor_fd = lasting(poor, "poor", &st);
		detach(poor);
	}
	for (int i = 0; i < N; i++)
		detach(&many[i]);
	fill_all(fd);
}

static bool are_open(const int *fd)
{
	int n = 0;
	for (int k = 0; k < STREAMS; k++)
		n += is_open(fd[k]);
	assert_true(n == 0 || n == STREAMS);
	return n;
}

static void close_all(int (*fd)[STREAMS])
{
	for (int i = 0; i < N; i++)
		for (int k = 0; k < STREAMS; k++)
			close(fd[i][k]);
}

static void when_memory_is_short_the_stalest_gives_up_and_the_others_stay(void **state)
{
	int fd[N][STREAMS];
	(void)state;
	make_short(fd, NULL);
	assert_true(wrk_sessions_detached_bytes(x.w->sessions) > 500000);
	at_time(ahead_s, WRK_SESSIONS_GRACE_MS / 1000);
	UNTIL(sessions()->pressed > 0);
	sweeps();
	assert_int_equal(sessions()->pressed, 1); // which is enough
	UNTIL(!is_open(fd[0][0]));
	assert_false(are_open(fd[0]));
	for (int i = 1; i < N; i++)
		assert_true(are_open(fd[i]));
	assert_int_equal(sessions()->detached, N);
	assert_int_equal(sessions()->stale, 0);
	resume(&many[0]);
	UNTIL(many[0].closed == STREAMS);
	assert_false(many[0].fresh);
	assert_int_equal(many[0].close_why, SP_REASON_PRESSURE);
	resume(&many[1]);
	UNTIL(many[1].got > 100000);
	assert_int_equal(many[1].closed, 0);
	close_all(fd);
}

static void who_lost_its_carrier_just_now_gives_up_nothing_for_memory(void **state)
{
	int fd[N][STREAMS];
	(void)state;
	make_short(fd, NULL);
	for (int i = 0; i < N; i++) // all come and go: nobody is stale
		resume(&many[i]);
	for (int i = 0; i < N; i++)
		detach(&many[i]);
	fill_all(fd);
	uint64_t before = sessions()->pressed;
	sweeps();
	assert_int_equal(sessions()->pressed, before);
	for (int i = 0; i < N; i++)
		assert_true(are_open(fd[i]));
	at_time(ahead_s, WRK_SESSIONS_GRACE_MS / 1000 + 1);
	assert_int_equal(sessions()->pressed, before + 1);
	close_all(fd);
}

static void who_has_nothing_is_left_alone_when_memory_is_short(void **state)
{
	struct device *poor = &x.d[0];
	int fd[N][STREAMS];
	(void)state;
	make_short(fd, poor);
	at_time(ahead_s, WRK_SESSIONS_GRACE_MS / 1000);
	UNTIL(sessions()->pressed == 1);
	UNTIL(!is_open(fd[0][0]));
	assert_true(is_open(poor_fd)); // though the stalest of all
	resume(poor);
	assert_int_equal(send(poor_fd, "hello", 5, 0), 5);
	UNTIL(poor->got == 5);
	close(poor_fd);
	close_all(fd);
}

int main(void)
{
#define T(name, set_up_) cmocka_unit_test_setup_teardown(name, set_up_, tear_down)
	const struct CMUnitTest tests[] = {
		T(streams_wait_ten_minutes_for_their_client_and_no_longer, set_up),
		T(a_session_is_known_for_25_hours_and_no_longer, set_up),
		T(each_detachment_has_its_whole_time, set_up),
		T(when_memory_is_short_the_stalest_gives_up_and_the_others_stay,
		  set_up_tight),
		T(who_lost_its_carrier_just_now_gives_up_nothing_for_memory,
		  set_up_tight),
		T(who_has_nothing_is_left_alone_when_memory_is_short, set_up_tight),
	};
	return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
