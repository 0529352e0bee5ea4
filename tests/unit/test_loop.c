// The loop: its time, timers, end of turn, signals.
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/loop.h"

struct trace {
	struct sp_loop *loop;
	char text[64];
	uint64_t at_us;
	unsigned count;
	int signo;
};

static void note(struct trace *t, char c)
{
	t->text[strlen(t->text)] = c;
}

struct object {
	struct sp_deferred d;
	struct trace *trace;
	struct object *also;
	char name;
};

static void free_object(struct sp_deferred *d)
{
	struct object *o = (struct object *)d;
	note(o->trace, o->name);
	if (o->also)
		sp_loop_reap(o->trace->loop, &o->also->d);
	free(o);
}

static struct object *new_object(struct trace *t, char name)
{
	struct object *o = calloc(1, sizeof(*o));
	o->trace = t;
	o->name = name;
	o->d.run = free_object;
	return o;
}

static int setup(void **state)
{
	struct trace *t = calloc(1, sizeof(*t));
	*state = t;
	return sp_loop_new(&t->loop);
}

static int teardown(void **state)
{
	struct trace *t = *state;
	sp_loop_free(t->loop);
	free(t);
	return 0;
}

static void an_object_reaped_twice_is_freed_once_at_the_end_of_the_turn(void **state)
{
	struct trace *t = *state;
	struct object *o = new_object(t, 'a');

	sp_loop_reap(t->loop, &o->d);
	sp_loop_reap(t->loop, &o->d);
	assert_string_equal(t->text, "");
	assert_int_equal(sp_loop_turn(t->loop, true), 0);
	assert_string_equal(t->text, "a");
}

static void what_a_reaped_object_gives_to_reap_goes_in_the_same_turn(void **state)
{
	struct trace *t = *state;
	struct object *o = new_object(t, 'a');

	o->also = new_object(t, 'b');
	sp_loop_reap(t->loop, &o->d);
	assert_int_equal(sp_loop_turn(t->loop, true), 0);
	assert_string_equal(t->text, "ab");
}

static void freeing_the_loop_reaps_what_is_listed(void **state)
{
	struct trace t = {0};

	(void)state;
	assert_int_equal(sp_loop_new(&t.loop), 0);
	sp_loop_reap(t.loop, &new_object(&t, 'a')->d);
	sp_loop_free(t.loop);
	assert_string_equal(t.text, "a");
}

struct again {
	struct sp_deferred d;
	struct trace *trace;
	unsigned left;
};

static void run_again(struct sp_deferred *d)
{
	struct again *a = (struct again *)d;
	note(a->trace, 'r');
	if (--a->left)
		sp_loop_defer(a->trace->loop, d);
}

static void what_defers_itself_runs_once_a_turn_without_blocking(void **state)
{
	struct trace *t = *state;
	struct again a = {.d.run = run_again, .trace = t, .left = 3};

	sp_loop_defer(t->loop, &a.d);
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(sp_loop_turn(t->loop, true), 0);
		assert_int_equal(strlen(t->text), i);
	}
	assert_int_equal(sp_loop_turn(t->loop, true), -EDEADLK);
}

static void deferred_work_runs_before_the_reaping_and_can_be_cancelled(void **state)
{
	struct trace *t = *state;
	struct again a = {.d.run = run_again, .trace = t, .left = 1};
	struct again b = a;

	sp_loop_reap(t->loop, &new_object(t, 'x')->d);
	sp_loop_defer(t->loop, &a.d);
	sp_loop_defer(t->loop, &b.d);
	sp_loop_defer_cancel(&a.d);
	sp_loop_defer_cancel(&a.d);
	assert_int_equal(sp_loop_turn(t->loop, true), 0);
	assert_string_equal(t->text, "rx");
}

static void on_fire(void *ctx)
{
	struct trace *t = ctx;
	t->count++;
	t->at_us = sp_loop_now_us(t->loop);
	sp_loop_stop(t->loop);
}

static void a_timer_fires_once_and_never_early(void **state)
{
	struct trace *t = *state;
	struct sp_timer timer;

	sp_timer_init(&timer, t->loop, on_fire, t);
	for (unsigned i = 0; i < 20; i++) {
		uint64_t at = sp_loop_now_us(t->loop) + 100 + 200 * i;
		sp_timer_set(&timer, at);
		assert_int_equal(sp_loop_run(t->loop), 0);
		assert_int_equal(t->count, i + 1);
		assert_true(t->at_us >= at);
	}
	assert_int_equal(sp_loop_turn(t->loop, true), -EDEADLK);
	sp_timer_done(&timer);
	sp_timer_done(&timer);
}

static void a_timer_moved_later_fires_at_the_later_time(void **state)
{
	struct trace *t = *state;
	struct sp_timer timer;
	uint64_t now = sp_loop_now_us(t->loop);

	sp_timer_init(&timer, t->loop, on_fire, t);
	sp_timer_set(&timer, now + 1000);
	sp_timer_set(&timer, now + 8000);
	assert_int_equal(sp_loop_run(t->loop), 0);
	assert_int_equal(t->count, 1);
	assert_true(t->at_us >= now + 8000);
	sp_timer_done(&timer);
}

static void a_timer_moved_earlier_does_not_wait_for_the_later_time(void **state)
{
	struct trace *t = *state;
	struct sp_timer timer;
	uint64_t now = sp_loop_now_us(t->loop);

	sp_timer_init(&timer, t->loop, on_fire, t);
	sp_timer_set(&timer, now + 60000000);
	sp_timer_set(&timer, now + 1000);
	assert_int_equal(sp_loop_run(t->loop), 0);
	assert_true(t->at_us < now + 60000000);
	sp_timer_done(&timer);
}

static void a_timer_that_is_unset_does_not_fire(void **state)
{
	struct trace *t = *state;
	struct sp_timer timer;

	sp_timer_init(&timer, t->loop, on_fire, t);
	sp_timer_set(&timer, sp_loop_now_us(t->loop));
	sp_timer_set(&timer, SP_LOOP_NEVER);
	assert_int_equal(sp_loop_turn(t->loop, true), 0);
	assert_int_equal(sp_loop_turn(t->loop, true), -EDEADLK);
	assert_int_equal(t->count, 0);
	sp_timer_done(&timer);
}

static void the_time_stands_still_within_a_turn_and_moves_between_turns(void **state)
{
	struct trace *t = *state;
	struct timespec ms = {0, 1000000};
	uint64_t before = sp_loop_now_us(t->loop);

	nanosleep(&ms, NULL);
	assert_int_equal(sp_loop_now_us(t->loop), before);
	assert_true(sp_loop_refresh(t->loop) >= before + 1000);
	before = *sp_loop_clock_us(t->loop);
	nanosleep(&ms, NULL);
	assert_int_equal(sp_loop_turn(t->loop, false), 0);
	assert_true(sp_loop_now_us(t->loop) >= before + 1000);
	assert_int_equal(*sp_loop_clock_us(t->loop), sp_loop_now_us(t->loop));
	assert_int_equal(sp_loop_now_ms(t->loop), sp_loop_now_us(t->loop) / 1000);
}

static void on_signal(void *ctx, int signo)
{
	struct trace *t = ctx;
	t->signo = signo;
	sp_loop_stop(t->loop);
}

static void signals_arrive_in_the_loop_and_a_broken_pipe_kills_nobody(void **state)
{
	static const int signos[] = {SIGTERM, SIGHUP, SIGINT};
	struct trace *t = *state;

	assert_int_equal(sp_loop_signals(t->loop, on_signal, t), 0);
	for (unsigned i = 0; i < 3; i++) {
		kill(getpid(), signos[i]);
		assert_int_equal(sp_loop_run(t->loop), 0);
		assert_int_equal(t->signo, signos[i]);
	}
	kill(getpid(), SIGPIPE);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	static const struct CMUnitTest tests[] = {
		T(an_object_reaped_twice_is_freed_once_at_the_end_of_the_turn),
		T(what_a_reaped_object_gives_to_reap_goes_in_the_same_turn),
		cmocka_unit_test(freeing_the_loop_reaps_what_is_listed),
		T(what_defers_itself_runs_once_a_turn_without_blocking),
		T(deferred_work_runs_before_the_reaping_and_can_be_cancelled),
		T(a_timer_fires_once_and_never_early),
		T(a_timer_moved_later_fires_at_the_later_time),
		T(a_timer_moved_earlier_does_not_wait_for_the_later_time),
		T(a_timer_that_is_unset_does_not_fire),
		T(the_time_stands_still_within_a_turn_and_moves_between_turns),
		T(signals_arrive_in_the_loop_and_a_broken_pipe_kills_nobody),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
