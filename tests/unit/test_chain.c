// The chain of exits in virtual time: which exit is used, what is dialled and when.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "client/chain.h"

// A small world: each exit answers a dial after `rtt_ms`, or never, or with a refusal.
enum behaviour { ANSWERS, SILENT, REFUSES };
struct world {
	struct cli_chain c;
	struct cli_chain_todo last; // the last decision that moved
	uint64_t now;
	enum behaviour how[CLI_CHAIN_MAX];
	uint64_t rtt_ms[CLI_CHAIN_MAX];
	uint64_t done_at[CLI_CHAIN_MAX]; // of the dial under way, or 0
	unsigned dials[CLI_CHAIN_MAX], closes[CLI_CHAIN_MAX], moves;
};

static void world_init(struct world *w, unsigned n)
{
	struct cli_chain_options opt;
	memset(w, 0, sizeof(*w));
	cli_chain_options_default(&opt);
	opt.seed = 7;
	w->now = 1000;
	for (unsigned e = 0; e < n; e++)
		w->rtt_ms[e] = 20;
	assert_int_equal(cli_chain_init(&w->c, n, &opt, w->now), 0);
}

static void decide(struct world *w)
{
	struct cli_chain_todo todo;
	cli_chain_decide(&w->c, w->now, &todo);
	for (unsigned e = 0; e < w->c.n; e++) {
		if (todo.dial & (1u << e)) {
			w->dials[e]++;
			w->done_at[e] = w->how[e] == SILENT ? w->now + 10000
							    : w->now + w->rtt_ms[e];
		}
		if (todo.close & (1u << e))
			w->closes[e]++;
	}
	if (todo.moved) {
		w->moves++;
		w->last = todo;
	}
}

static void finish_dials(struct world *w)
{
	for (unsigned e = 0; e < w->c.n; e++) {
		if (!w->done_at[e] || w->done_at[e] > w->now)
			continue;
		w->done_at[e] = 0;
		if (w->how[e] == ANSWERS)
			cli_chain_up(&w->c, e, w->now);
		else
			cli_chain_dial_failed(&w->c, e, false, false, w->now);
	}
}

// Lets `ms` pass, jumping from event to event; more than a thousand events a second would
// be a loop without rest.
static void pass(struct world *w, uint64_t ms)
{
	uint64_t end = w->now + ms, events = 0;
	for (;;) {
		finish_dials(w);
		decide(w);
		uint64_t at = cli_chain_deadline(&w->c, w->now);
		for (unsigned e = 0; e < w->c.n; e++)
			if (w->done_at[e] && w->done_at[e] < at)
				at = w->done_at[e];
		assert_true(++events <= 1000 + ms);
		if (at > end)
			break;
		if (at > w->now)
			w->now = at;
	}
	w->now = end;
}

static void the_start_warms_the_first_exit_and_one_standby(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 4);
	pass(&w, 2000);
	assert_int_equal(w.c.use, 0);
	assert_true(cli_chain_is_healthy(&w.c, 0) && cli_chain_is_healthy(&w.c, 1));
	assert_int_equal(w.dials[0] + w.dials[1], 2);
	assert_int_equal(w.dials[2] + w.dials[3], 0);
	assert_int_equal(w.moves, 0);
}

static void a_dead_first_exit_costs_a_start_its_failure_only(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 2);
	w.how[0] = REFUSES;
	pass(&w, 49 + 22);
	assert_int_equal(w.c.use, 1);

	world_init(&w, 2);
	w.how[0] = SILENT;
	pass(&w, 349);
	assert_int_equal(w.c.use, 0);
	pass(&w, 2);
	assert_int_equal(w.c.use, 1);
}

static void a_slow_first_exit_is_waited_for(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 2);
	w.rtt_ms[0] = 300;
	pass(&w, 1000);
	assert_int_equal(w.c.use, 0);
	assert_int_equal(w.moves, 0);
}

static void a_lost_carrier_is_redialled_at_once_and_its_exit_stays_in_use(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 2);
	pass(&w, 3000);
	cli_chain_lost(&w.c, 0, false, w.now);
	pass(&w, 21);
	assert_true(cli_chain_is_healthy(&w.c, 0));
	assert_int_equal(w.dials[0], 2);
	assert_int_equal(w.moves, 0);
}

static void a_killed_exit_is_left_when_its_redial_is_refused(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 3);
	pass(&w, 3000);
	w.how[0] = REFUSES;
	cli_chain_lost(&w.c, 0, false, w.now);
	pass(&w, 21);
	assert_int_equal(w.c.use, 1);
	assert_int_equal(w.last.from, 0);
	assert_false(w.last.from_healthy);
	pass(&w, 1000);
	assert_true(cli_chain_is_healthy(&w.c, 2)); // the next standby
}

static void a_silent_exit_is_left_failover_ms_after_its_stall(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 2);
	pass(&w, 3000);
	w.how[0] = SILENT;
	cli_chain_stalled(&w.c, 0, w.now);
	pass(&w, 1);
	assert_int_equal(w.dials[0], 2); // beside the carrier it has
	pass(&w, 348);
	assert_int_equal(w.c.use, 0);
	pass(&w, 2);
	assert_int_equal(w.c.use, 1);
}

static void a_stall_that_a_second_carrier_cures_moves_nothing(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 2);
	pass(&w, 3000);
	cli_chain_stalled(&w.c, 0, w.now);
	pass(&w, 300);
	assert_true(cli_chain_is_healthy(&w.c, 0));
	assert_int_equal(w.moves, 0);

	w.how[0] = SILENT;
	cli_chain_stalled(&w.c, 0, w.now);
	pass(&w, 100);
	cli_chain_recovered(&w.c, 0, w.now); // the old carrier spoke again
	pass(&w, 2000);
	assert_int_equal(w.moves, 0);
}

static void a_better_exit_is_gone_back_to_after_its_hold_down(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 2);
	pass(&w, 3000);
	w.how[0] = REFUSES;
	cli_chain_lost(&w.c, 0, false, w.now);
	pass(&w, 10000);
	assert_int_equal(w.c.use, 1);
	w.how[0] = ANSWERS;
	for (uint64_t t = 0; !cli_chain_is_healthy(&w.c, 0); t++) {
		assert_true(t < 5100);
		pass(&w, 1);
	}
	pass(&w, 29990);
	assert_int_equal(w.c.use, 1);
	pass(&w, 20);
	assert_int_equal(w.c.use, 0);
	assert_true(w.last.from_healthy);
}

static void a_flapping_exit_does_not_get_its_streams_back(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 2);
	w.how[0] = REFUSES;
	pass(&w, 3000);
	w.how[0] = ANSWERS;
	for (int i = 0; i < 20; i++) {
		pass(&w, 20000);
		assert_int_equal(w.c.use, 1);
		cli_chain_lost(&w.c, 0, false, w.now);
	}
	assert_int_equal(w.moves, 1);
}

static void goaway_moves_new_streams_at_once(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 2);
	pass(&w, 3000);
	cli_chain_goaway(&w.c, 0, w.now);
	pass(&w, 0);
	assert_int_equal(w.c.use, 1);
	assert_true(w.c.exit[0].up); // its streams go on
}

static void failures_back_off_to_five_seconds_with_jitter(void **state)
{
	struct world w;
	uint64_t first, seen = 0, last_at, same = 0, before = 0;

	(void)state;
	world_init(&w, 1);
	w.how[0] = REFUSES;
	w.rtt_ms[0] = 0;
	first = last_at = w.now;
	for (unsigned n = 1; n < 30; n++) {
		while (w.dials[0] < n)
			pass(&w, 1);
		uint64_t gap = w.now - last_at;
		last_at = w.now;
		if (n > 1)
			assert_true(gap >= 49 && gap <= 5002);
		same += gap == before;
		before = gap;
		seen = gap > seen ? gap : seen;
	}
	assert_true(seen > 4000);
	assert_true(same < 8);
	assert_true(last_at - first > 60000);
}

static void a_carrier_that_is_cut_again_and_again_is_redialled_at_once(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 2);
	pass(&w, 1000);
	for (unsigned i = 0; i < 50; i++) {
		cli_chain_lost(&w.c, 0, false, w.now);
		pass(&w, 21);
		assert_true(cli_chain_is_healthy(&w.c, 0));
		pass(&w, 260);
	}
	for (unsigned i = 0; i < 50; i++) { // even sooner, but something was carried
		cli_chain_lost(&w.c, 0, true, w.now);
		pass(&w, 21);
		assert_true(cli_chain_is_healthy(&w.c, 0));
	}
	assert_int_equal(w.moves, 0);
}

static void carriers_that_die_young_count_as_failures(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 1);
	for (int i = 0; i < 200; i++) { // accepts, then resets
		pass(&w, 1);
		if (w.c.exit[0].up)
			cli_chain_lost(&w.c, 0, false, w.now);
	}
	assert_true(w.dials[0] < 8);
}

static void a_refusal_waits_and_a_stale_ticket_does_not(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 1);
	w.how[0] = SILENT;
	pass(&w, 10);
	w.done_at[0] = 0;
	cli_chain_dial_failed(&w.c, 0, false, true, w.now);
	pass(&w, 0);
	assert_int_equal(w.dials[0], 2);
	assert_int_equal(w.c.exit[0].fails, 0);
	w.done_at[0] = 0;
	cli_chain_dial_failed(&w.c, 0, true, false, w.now);
	pass(&w, 3000);
	assert_int_equal(w.dials[0], 2);
	pass(&w, 2100);
	assert_int_equal(w.dials[0], 3);
}

static void it_is_hopeless_only_while_every_exit_refuses(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 2);
	w.how[0] = w.how[1] = SILENT;
	pass(&w, 100);
	w.done_at[0] = w.done_at[1] = 0;
	cli_chain_dial_failed(&w.c, 0, true, false, w.now);
	assert_false(cli_chain_is_hopeless(&w.c));
	cli_chain_dial_failed(&w.c, 1, true, false, w.now);
	assert_true(cli_chain_is_hopeless(&w.c));
	w.how[1] = ANSWERS;
	pass(&w, 6000);
	assert_int_equal(w.c.use, 1);
	assert_false(cli_chain_is_hopeless(&w.c));
}

static void a_spare_carrier_is_given_up_only_when_idle_and_unwanted(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 3);
	w.how[0] = REFUSES;
	pass(&w, 3000);
	assert_int_equal(w.c.use, 1);
	assert_true(w.c.exit[2].up);
	cli_chain_busy(&w.c, 2, true);
	w.how[0] = ANSWERS;
	pass(&w, 40000);
	assert_int_equal(w.c.use, 0);
	pass(&w, 40000);
	assert_true(w.c.exit[2].up);
	cli_chain_busy(&w.c, 2, false);
	pass(&w, 29000);
	assert_true(w.c.exit[2].up);
	pass(&w, 2000);
	assert_false(w.c.exit[2].up);
	assert_int_equal(w.closes[2], 1);
}

static void a_changed_network_is_tried_at_once(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 2);
	w.how[0] = w.how[1] = REFUSES;
	pass(&w, 60000);
	w.how[0] = w.how[1] = ANSWERS;
	cli_chain_network_changed(&w.c, w.now);
	pass(&w, 50);
	assert_true(cli_chain_is_healthy(&w.c, 0) || w.done_at[0]);
}

// Whatever happens in whatever order: there is always something that will happen, new
// streams never stay on a dead exit while another has been healthy, no loop without rest.
static void any_history_ends_on_a_healthy_exit(void **state)
{
	uint64_t r = 42;

	(void)state;
	for (unsigned run = 0; run < 300; run++) {
		struct world w;
		world_init(&w, 1 + run % 5);
		for (unsigned step = 0; step < 60; step++) {
			r = r * 6364136223846793005u + 1442695040888963407u;
			unsigned e = (unsigned)(r >> 33) % w.c.n;
			switch ((r >> 40) % 7) {
			case 0:
				cli_chain_lost(&w.c, e, false, w.now);
				break;
			case 1:
				cli_chain_stalled(&w.c, e, w.now);
				break;
			case 2:
				cli_chain_goaway(&w.c, e, w.now);
				break;
			case 3:
				cli_chain_busy(&w.c, e, (r >> 50) & 1);
				break;
			default:
				w.how[e] = (enum behaviour)((r >> 50) % 3);
			}
			pass(&w, (r >> 52) % 700);
		}
		unsigned alive = (unsigned)(r >> 33) % w.c.n;
		for (unsigned e = 0; e < w.c.n; e++) {
			w.how[e] = e == alive ? ANSWERS : REFUSES;
			cli_chain_lost(&w.c, e, false, w.now);
		}
		pass(&w, 16000);
		if (!cli_chain_is_healthy(&w.c, w.c.use) || w.c.use != alive)
			print_error("run %u\n", run);
		assert_int_equal(w.c.use, alive);
		assert_true(cli_chain_is_healthy(&w.c, alive));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_start_warms_the_first_exit_and_one_standby),
		cmocka_unit_test(a_dead_first_exit_costs_a_start_its_failure_only),
		cmocka_unit_test(a_slow_first_exit_is_waited_for),
		cmocka_unit_test(
			a_lost_carrier_is_redialled_at_once_and_its_exit_stays_in_use),
		cmocka_unit_test(a_killed_exit_is_left_when_its_redial_is_refused),
		cmocka_unit_test(a_silent_exit_is_left_failover_ms_after_its_stall),
		cmocka_unit_test(a_stall_that_a_second_carrier_cures_moves_nothing),
		cmocka_unit_test(a_better_exit_is_gone_back_to_after_its_hold_down),
		cmocka_unit_test(a_flapping_exit_does_not_get_its_streams_back),
		cmocka_unit_test(goaway_moves_new_streams_at_once),
		cmocka_unit_test(failures_back_off_to_five_seconds_with_jitter),
		cmocka_unit_test(
			a_carrier_that_is_cut_again_and_again_is_redialled_at_once),
		cmocka_unit_test(carriers_that_die_young_count_as_failures),
		cmocka_unit_test(a_refusal_waits_and_a_stale_ticket_does_not),
		cmocka_unit_test(it_is_hopeless_only_while_every_exit_refuses),
		cmocka_unit_test(a_spare_carrier_is_given_up_only_when_idle_and_unwanted),
		cmocka_unit_test(a_changed_network_is_tried_at_once),
		cmocka_unit_test(any_history_ends_on_a_healthy_exit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
