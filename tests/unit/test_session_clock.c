// The session clock: engines are ticked at their deadlines and no longer than they are
// known to it.
#include "tests/unit/link_world.h"

static void count_closed(void *ctx, struct sp_flow *fl, enum sp_reason reason)
{
	(void)fl;
	assert_int_equal(reason, SP_REASON_IDLE);
	++*(unsigned *)ctx;
}

struct fixture {
	struct sp_loop *loop;
	struct sp_session_clock *clock;
	struct sp_arena *arena;
	struct sp_session_ops ops;
	struct sp_session *s[2];
	unsigned closed[2];
};

// Two sessions whose flows end after 30 ms without traffic.
static void setup(struct fixture *f)
{
	struct sp_arena_options arena = {
		.max_sessions = 2, .max_streams = 4, .memory_bytes = 1 << 20};
	struct sp_session_options opt = {.role = SP_ROLE_CLIENT};
	struct sp_target target;
	struct sp_flow *fl;

	memset(f, 0, sizeof(*f));
	assert_int_equal(sp_loop_new(&f->loop), 0);
	assert_int_equal(sp_session_clock_new(f->loop, &f->clock), 0);
	assert_int_equal(sp_arena_new(&arena, &f->arena), 0);
	assert_int_equal(sp_target_parse("192.0.2.1:7", &target), 0);
	f->ops = world_client_session;
	f->ops.flow_closed = count_closed;
	opt.arena = f->arena;
	opt.ops = &f->ops;
	opt.clock_us = sp_loop_clock_us(f->loop);
	sp_session_limits_default(&opt.limits);
	opt.limits.flow_idle_ms = 30;
	for (int i = 0; i < 2; i++) {
		opt.ctx = &f->closed[i];
		assert_int_equal(sp_session_new(&opt, sp_loop_now_us(f->loop), &f->s[i]),
				 0);
		assert_int_equal(sp_session_clock_add(f->clock, f->s[i]), 0);
		assert_int_equal(sp_session_open_flow(f->s[i], &target, NULL, &fl), 0);
	}
}

static void teardown(struct fixture *f)
{
	sp_session_clock_free(f->clock);
	for (int i = 0; i < 2; i++)
		sp_session_free(f->s[i], SP_REASON_IDLE);
	sp_arena_free(f->arena);
	sp_loop_free(f->loop);
}

static void turn_for(struct fixture *f, uint64_t us)
{
	struct sp_timer t;
	uint64_t until = sp_loop_refresh(f->loop) + us;

	sp_timer_init(&t, f->loop, world_tick, NULL);
	sp_timer_set(&t, until);
	while (sp_loop_refresh(f->loop) < until)
		assert_int_equal(sp_loop_turn(f->loop, true), 0);
	sp_timer_done(&t);
}

static void a_session_is_ticked_at_its_deadline(void **state)
{
	struct fixture f;

	(void)state;
	setup(&f);
	sp_session_clock_touch(f.clock, f.s[0]);
	sp_session_clock_touch(f.clock, f.s[1]);
	assert_true(sp_session_deadline(f.s[0]) != UINT64_MAX);
	turn_for(&f, 15000);
	assert_int_equal(f.closed[0], 0);
	turn_for(&f, 60000);
	assert_int_equal(f.closed[0], 1);
	assert_int_equal(f.closed[1], 1);
	teardown(&f);
}

static void a_removed_session_is_not_ticked(void **state)
{
	struct fixture f;

	(void)state;
	setup(&f);
	sp_session_clock_touch(f.clock, f.s[0]);
	sp_session_clock_touch(f.clock, f.s[1]);
	sp_session_clock_remove(f.clock, f.s[0]);
	sp_session_clock_remove(f.clock, f.s[0]);
	sp_session_clock_touch(f.clock, f.s[0]);
	turn_for(&f, 80000);
	assert_int_equal(f.closed[0], 0);
	assert_int_equal(f.closed[1], 1);
	teardown(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_session_is_ticked_at_its_deadline),
		cmocka_unit_test(a_removed_session_is_not_ticked),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
