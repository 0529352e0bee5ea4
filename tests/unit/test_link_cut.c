// Links over carriers that give little, stop, or are cut at any byte.
#include "tests/unit/link_world.h"

#define UNTIL(w, condition) assert_true(world_until(w, condition))

static void any_size_of_reads_and_writes_gives_the_same_bytes(void **state)
{
	static const struct sp_carrier_script scripts[] = {
		{.read_max = 1, .again_each = 3},
		{.write_max = 1, .again_each = 2},
		{.read_max = 7, .write_max = 5, .queue_bytes = 11},
		{.queue_bytes = 1},
		{.read_max = 4095, .write_max = 16385, .again_each = 2},
		{.queue_bytes = 40000},
	};

	(void)state;
	for (size_t c = 0; c < 6; c++)
		for (size_t s = 0; s < 6; s++) {
			struct link_world *w = world_new();
			struct sp_link_dial d = world_dial(w);
			uint64_t up = c < 4 ? 2000 : 300000, down = s < 4 ? 2000 : 300000;
			world_connect_mem(w, &d, &scripts[c], &scripts[s]);
			UNTIL(w, w->ups == 1);
			world_open(w, up, down);
			UNTIL(w, world_done(w));
			world_check_bulk(w, up, down);
			assert_int_equal(w->client_downs + w->worker_downs, 0);
			world_free(w);
		}
}

static void a_flight_in_two_parts_is_welcome_on_tcp(void **state)
{
	struct link_world *w = world_new();
	uint8_t flight[SP_HS_FLIGHT_MAX], answer[SP_HS_ANSWER_MAX];
	size_t len = world_flight(w, flight);
	unsigned n = 0;

	(void)state;
	for (size_t cut = 1; cut < len; cut++) {
		struct sp_carrier *c;
		ssize_t got = -EAGAIN;
		len = world_flight(w, flight); // its length varies by padding
		if (cut >= len)
			break;
		c = world_raw_client(w);
		assert_int_equal(sp_carrier_write(c, flight, cut), cut);
		world_turn(w);
		assert_int_equal(sp_carrier_read(c, answer, sizeof(answer)), -EAGAIN);
		assert_int_equal(sp_carrier_write(c, flight + cut, len - cut), len - cut);
		UNTIL(w, (got = sp_carrier_read(c, answer, sizeof(answer))) != -EAGAIN);
		assert_true(got > 50);
		assert_int_equal(w->admits, ++n);
		sp_carrier_free(c);
	}
	assert_true(n > 300);
	world_free(w);
}

static void a_flight_cut_at_any_byte_leaves_nothing_behind(void **state)
{
	struct link_world *w = world_with(10000, 100000);
	uint8_t flight[SP_HS_FLIGHT_MAX];
	size_t len = world_flight(w, flight);

	(void)state;
	for (size_t cut = 0; cut < len; cut++) {
		struct sp_carrier *c = world_raw_client(w);
		if (cut)
			assert_int_equal(sp_carrier_write(c, flight, cut), cut);
		world_turn(w);
		if (cut % 2)
			sp_carrier_reset(c);
		else
			sp_carrier_free(c);
		world_turn(w);
	}
	UNTIL(w, sp_link_env_counters(w->worker_env)->closed == len);
	assert_int_equal(sp_link_env_counters(w->worker_env)->half_open, 0);
	assert_int_equal(sp_link_env_counters(w->worker_env)->lingering, 0);
	assert_int_equal(w->worker_downs, len);
	assert_int_equal(w->admits, 0);
	// and it was good
	struct sp_carrier *c = world_raw_client(w);
	assert_int_equal(sp_carrier_write(c, flight, len), len);
	UNTIL(w, w->admits == 1);
	sp_carrier_free(c);
	world_free(w);
}

// Cuts the client's or the worker's direction after `at` bytes, again and again further
// on, until the streams are done; nothing is lost or doubled.
static void run_with_cuts(uint64_t client_at, uint64_t worker_at, uint64_t bytes,
			  bool first_contact)
{
	struct link_world *w = world_new();
	struct sp_carrier_script c = {.cut_at = client_at, .queue_bytes = 20000};
	struct sp_carrier_script s = {.cut_at = worker_at, .queue_bytes = 20000};
	unsigned dials = 0;
	bool opened = false;

	UNTIL(w, ({
		      if (!w->client_link) {
			      struct sp_link_dial d = world_redial(w);
			      if (first_contact)
				      d.ticket = NULL;
			      world_connect_mem(w, &d, &c, &s);
			      dials++;
			      c.cut_at += c.cut_at ? 2500 : 0; // else never through
			      s.cut_at += s.cut_at ? 2500 : 0;
		      }
		      if (!opened && w->ups) {
			      world_open(w, bytes, bytes);
			      opened = true;
		      }
		      opened &&world_done(w);
	      }));
	world_check_bulk(w, bytes, bytes);
	assert_true(dials > 1);
	world_free(w);
}

static void a_cut_at_any_byte_of_the_clients_direction_loses_nothing(void **state)
{
	(void)state;
	for (uint64_t at = 1; at < 6000; at += 41)
		run_with_cuts(at, 0, 30000, false);
}

static void a_cut_at_any_byte_of_the_workers_direction_loses_nothing(void **state)
{
	(void)state;
	for (uint64_t at = 1; at < 6000; at += 43)
		run_with_cuts(0, at, 30000, false);
}

static void cuts_with_first_contacts_alone_lose_nothing(void **state)
{
	(void)state;
	for (uint64_t at = 1; at < 9000; at += 397)
		run_with_cuts(at, at + 100, 60000, true);
}

// The client's ATTACH arrived but nothing came back: the worker holds an epoch the client
// never heard of, and the next one must still be higher.
static void a_resume_whose_answer_is_lost_is_followed_by_another(void **state)
{
	struct link_world *w = world_new();
	struct sp_carrier_script cut = {.cut_at = 1};
	struct sp_link_dial d = world_dial(w);

	(void)state;
	world_connect_mem(w, &d, NULL, NULL);
	UNTIL(w, w->ups == 1 && w->worker_link);
	world_open(w, 2000000, 2000000);
	UNTIL(w, w->client_bulk.got > 100000);
	d = world_redial(w);
	world_connect_mem(w, &d, NULL, &cut);
	UNTIL(w, w->client_downs == 2); // the old one was superseded
	assert_int_equal(w->admits, 2);
	assert_int_equal(w->ups, 1);
	d = world_redial(w);
	world_connect_mem(w, &d, NULL, NULL);
	UNTIL(w, w->ups == 2);
	UNTIL(w, world_done(w));
	world_check_bulk(w, 2000000, 2000000);
	world_free(w);
}

static void what_is_behind_a_close_is_still_read(void **state)
{
	struct sp_carrier_script slow = {.read_max = 100, .queue_bytes = 300};

	(void)state;
	struct link_world *w = world_new();
	struct sp_link_dial d = world_dial(w);
	world_connect_mem(w, &d, &slow, &slow);
	UNTIL(w, w->ups == 1 && w->worker_link);
	world_open(w, 500000, 500000);
	UNTIL(w, w->client_bulk.got > 100000);
	// Both directions are full of records; the CLOSE stands behind them.
	sp_link_close(w->client_link, SP_REASON_QUOTA);
	UNTIL(w, w->client_downs == 1 && w->worker_downs == 1);
	assert_int_equal(w->worker_reason, SP_REASON_QUOTA);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_size_of_reads_and_writes_gives_the_same_bytes),
		cmocka_unit_test(a_flight_in_two_parts_is_welcome_on_tcp),
		cmocka_unit_test(a_flight_cut_at_any_byte_leaves_nothing_behind),
		cmocka_unit_test(
			a_cut_at_any_byte_of_the_clients_direction_loses_nothing),
		cmocka_unit_test(
			a_cut_at_any_byte_of_the_workers_direction_loses_nothing),
		cmocka_unit_test(cuts_with_first_contacts_alone_lose_nothing),
		cmocka_unit_test(a_resume_whose_answer_is_lost_is_followed_by_another),
		cmocka_unit_test(what_is_behind_a_close_is_still_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
