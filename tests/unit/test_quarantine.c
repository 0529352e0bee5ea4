#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "lib/arena_internal.h"
#include "worker/quarantine.h"

#define SESSIONS 3

struct world {
	_Alignas(8) uint8_t page[WRK_LIFE_BYTES];
	struct wrk_life *life;
	struct wrk_quarantine *q;
	struct sp_arena *a;
};

static uint64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

// A stream of two chunks and a flow of session `i`.
static void fill(struct sp_arena *a, uint32_t i)
{
	uint32_t s = sp_arena_stream_alloc(a), f = sp_arena_flow_alloc(a);
	struct sp_stream_rec *r = sp_arena_stream(a, s);
	r->session = i;
	r->id = 1;
	r->state = SP_STREAM_OPEN;
	r->first = sp_arena_chunk_alloc(a, true);
	r->last = sp_arena_chunk_alloc(a, false);
	sp_arena_chunk_set_next(a, r->first, r->last);
	r->chunks = 2;
	sp_arena_live(&r->rec_state);
	sp_arena_flow(a, f)->session = i;
	sp_arena_live(&sp_arena_flow(a, f)->rec_state);
}

static int setup(void **state)
{
	static const struct sp_arena_options small = {
		.max_sessions = SESSIONS,
		.max_streams = SESSIONS,
		.memory_bytes = 64 * SP_CHUNK_BYTES,
		.max_flows = SESSIONS,
	};
	struct world *w = calloc(1, sizeof(*w));
	assert_non_null(w);
	w->life = (struct wrk_life *)w->page;
	w->q = wrk_quarantine_of(w->life);
	assert_int_equal(sp_arena_new(&small, &w->a), 0);
	for (uint32_t i = 0; i < SESSIONS; i++) {
		assert_int_equal(sp_arena_session_alloc(w->a), i);
		struct sp_session_rec *r = sp_arena_session(w->a, i);
		memset(r->id, (int)i + 1, sizeof(r->id));
		r->incarnation = 100 + i;
		strcpy(r->user, "user");
		sp_arena_live(&r->state);
		fill(w->a, i);
	}
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	sp_arena_free(w->a);
	free(w);
	return 0;
}

static void crash(struct world *w, uint64_t mark, uint64_t ago_ms)
{
	unsigned at = w->life->n_crashes++ % WRK_CRASHES;
	w->life->crash[at].at_ms = now_ms() - ago_ms;
	w->life->crash[at].mark = mark;
}

static uint32_t judge(struct world *w)
{
	return wrk_quarantine_judge(w->q, w->life, w->a);
}

static void a_session_with_two_crashes_in_a_minute_goes_alone(void **state)
{
	struct world *w = *state;
	const uint8_t *id = sp_arena_session(w->a, 1)->id;
	uint8_t was[16];
	uint32_t spare = sp_arena_chunks_spare(w->a);
	memcpy(was, id, sizeof(was));
	crash(w, 101, 59000);
	assert_int_equal(judge(w), 0);
	assert_false(wrk_quarantine_holds(w->q, was));
	crash(w, 101, 0);
	assert_int_equal(judge(w), 1);
	assert_true(wrk_quarantine_holds(w->q, was));
	assert_int_equal(sp_arena_session(w->a, 1)->state, SP_REC_FREE);
	// What was its own is free, and nothing else.
	assert_int_equal(sp_arena_chunks_spare(w->a), spare + 1);
	for (uint32_t i = 0; i < SESSIONS; i++) {
		assert_int_equal(sp_arena_stream(w->a, i)->rec_state, i != 1);
		assert_int_equal(sp_arena_flow(w->a, i)->rec_state, i != 1);
		assert_int_equal(sp_arena_session(w->a, i)->state, i != 1);
	}
	assert_int_equal(judge(w), 0);
	assert_int_equal(w->q->sessions, 1);
}

static void crashes_of_others_and_of_long_ago_do_not_count(void **state)
{
	struct world *w = *state;
	crash(w, 100, 61000);
	crash(w, 100, 0);
	crash(w, 101, 0);
	crash(w, 0, 0);
	assert_int_equal(judge(w), 0);
	assert_false(wrk_quarantine_drains(w->q));
}

static void a_new_session_in_the_same_record_is_another_one(void **state)
{
	struct world *w = *state;
	crash(w, 100, 0);
	crash(w, 100, 0);
	sp_arena_session(w->a, 0)->incarnation = 7;
	assert_int_equal(judge(w), 0);
}

static void five_crashes_in_a_minute_drain(void **state)
{
	struct world *w = *state;
	for (int i = 0; i < 4; i++)
		crash(w, 0, 1000);
	judge(w);
	assert_false(wrk_quarantine_drains(w->q));
	crash(w, 5, 0);
	assert_int_equal(judge(w), 0);
	assert_true(wrk_quarantine_drains(w->q));
	w->q->drained_until_ms = now_ms() - 1;
	assert_false(wrk_quarantine_drains(w->q));
}

static void among_many_crashes_one_is_enough(void **state)
{
	struct world *w = *state;
	crash(w, 100, 0);
	crash(w, 101, 0);
	assert_int_equal(judge(w), 0);
	for (int i = 0; i < 3; i++)
		crash(w, 0, 0);
	assert_int_equal(judge(w), 2);
	assert_int_equal(sp_arena_session(w->a, 2)->state, SP_REC_LIVE);
}

static void what_is_refused_outlives_the_process_and_ends_in_time(void **state)
{
	struct world *w = *state;
	uint8_t id[16];
	memcpy(id, sp_arena_session(w->a, 2)->id, sizeof(id));
	crash(w, 102, 0);
	crash(w, 102, 0);
	assert_int_equal(judge(w), 1);
	assert_ptr_equal(wrk_quarantine_of(w->life), w->q);
	assert_true(wrk_quarantine_holds(w->q, id));
	w->q->refused[0].until_ms = now_ms();
	assert_false(wrk_quarantine_holds(w->q, id));
	assert_false(wrk_quarantine_holds(NULL, id));
	w->q->magic = 0; // nothing that was made by this
	wrk_quarantine_of(w->life);
	assert_int_equal(w->q->sessions, 0);
}

static void the_mark_is_of_the_session_and_nests(void **state)
{
	struct world *w = *state;
	sp_arena_set_mark(w->a, &w->life->mark);
	uint64_t outer = sp_arena_work_for(w->a, 0);
	assert_int_equal(w->life->mark, 100);
	uint64_t inner = sp_arena_work_for(w->a, 2);
	assert_int_equal(w->life->mark, 102);
	sp_arena_work_was(w->a, inner);
	assert_int_equal(w->life->mark, 100);
	sp_arena_work_was(w->a, outer);
	assert_int_equal(w->life->mark, 0);
	sp_arena_set_mark(w->a, NULL);
	sp_arena_work_was(w->a, sp_arena_work_for(w->a, 1));
	assert_int_equal(w->life->mark, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_session_with_two_crashes_in_a_minute_goes_alone),
		T(crashes_of_others_and_of_long_ago_do_not_count),
		T(a_new_session_in_the_same_record_is_another_one),
		T(five_crashes_in_a_minute_drain),
		T(among_many_crashes_one_is_enough),
		T(what_is_refused_outlives_the_process_and_ends_in_time),
		T(the_mark_is_of_the_session_and_nests),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
