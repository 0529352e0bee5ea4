// Links over in-memory carriers: first contact, resume, partial reads and writes, cuts at
// every byte, refusals, closing.
#include "tests/unit/link_world.h"

static void a_first_contact_gives_a_session_that_carries_streams(void **state)
{
	struct link_world *w = world_new();
	struct sp_link_dial d = world_dial(w);

	(void)state;
	world_connect_mem(w, &d, NULL, NULL);
	assert_true(world_until(w, w->ups == 1));
	assert_true(w->fresh);
	assert_int_equal(w->admits, 1);
	assert_int_equal(w->n_tickets, 2);
	assert_int_equal(sp_link_home_id(w->client_link), 7);
	assert_int_equal(sp_link_boot_id(w->client_link), 8);
	world_open(w, 3000000, 5000000);
	assert_true(world_until(w, world_done(w)));
	world_check_bulk(w, 3000000, 5000000);
	assert_int_equal(sp_link_env_counters(w->worker_env)->established, 1);
	assert_int_equal(sp_link_env_counters(w->worker_env)->half_open, 0);
	assert_int_equal(sp_link_env_counters(w->client_env)->live, 1);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_first_contact_gives_a_session_that_carries_streams),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
