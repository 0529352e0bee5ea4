#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "controller/events.h"

static struct sp_loop *loop;
static struct con_events *events;

static int set_up(void **state)
{
	(void)state;
	sp_log_setup(SP_LOG_ERROR, SP_LOG_LOGFMT, 2);
	return sp_loop_new(&loop) || con_events_new(loop, &events);
}

static int tear_down(void **state)
{
	(void)state;
	con_events_free(events);
	sp_loop_free(loop);
	return 0;
}

static json_int_t number(const json_t *list, size_t i, const char *key)
{
	return json_integer_value(json_object_get(json_array_get(list, i), key));
}

static const char *text(const json_t *list, size_t i, const char *key)
{
	return json_string_value(json_object_get(json_array_get(list, i), key));
}

static void an_event_says_where_the_chain_stood(void **state)
{
	struct sp_position head = {.epoch = 3, .sequence = 41};
	(void)state;
	con_events_add(events, SP_LOG_INFO, "early", "", "before any head");
	con_events_set_head(events, &head);
	con_events_add(events, SP_LOG_WARN, "node-down", "fra1", "rung=%s", "handshake");
	json_t *list = con_events_list(events, 0, 10, false, NULL);
	assert_int_equal(json_array_size(list), 2);
	assert_int_equal(number(list, 0, "sequence"), 0);
	assert_int_equal(number(list, 1, "number"), 2);
	assert_int_equal(number(list, 1, "epoch"), 3);
	assert_int_equal(number(list, 1, "sequence"), 41);
	assert_string_equal(text(list, 1, "kind"), "node-down");
	assert_string_equal(text(list, 1, "about"), "fra1");
	assert_string_equal(text(list, 1, "text"), "rung=handshake");
	assert_string_equal(text(list, 1, "level"), "warn");
	json_decref(list);
}

static size_t count_about(const char *thing)
{
	struct con_events_filter want = {.about = thing};
	json_t *list = con_events_list(events, 0, 100, true, &want);
	size_t n = json_array_size(list);
	json_decref(list);
	return n;
}

static void a_nodes_events_are_those_of_its_workers_and_links_too(void **state)
{
	static const char *const about[] = {"fra1",          "fra1/0",  "worker:fra1/0",
					    "worker/fra1/0", "fra10/0", "vantage:fra1x",
					    "xfra1",         ""};
	(void)state;
	for (size_t i = 0; i < sizeof(about) / sizeof(about[0]); i++)
		con_events_add(events, SP_LOG_DEBUG, "x", about[i], "x");
	assert_int_equal(count_about("fra1"), 4);
	assert_int_equal(count_about("fra1/0"), 3);
	assert_int_equal(count_about("worker:fra1/0"), 1);
	assert_int_equal(count_about("fra"), 0);
}

static void events_from_before_a_time_are_left_out(void **state)
{
	struct con_events_filter want = {.since_ms = sp_loop_unix_ms(loop)};
	(void)state;
	con_events_add(events, SP_LOG_DEBUG, "x", "", "x");
	json_t *list = con_events_list(events, 0, 100, true, &want);
	assert_int_equal(json_array_size(list), 1);
	json_decref(list);
	want.since_ms = sp_loop_unix_ms(loop) + 60000;
	list = con_events_list(events, 0, 100, true, &want);
	assert_int_equal(json_array_size(list), 0);
	json_decref(list);
}

static void the_oldest_make_room_and_numbers_go_on(void **state)
{
	(void)state;
	for (int i = 1; i <= CON_EVENTS_MAX + 10; i++)
		con_events_add(events, SP_LOG_DEBUG, i % 2 ? "odd" : "even", "", "%d", i);
	assert_int_equal(con_events_last(events), CON_EVENTS_MAX + 10);
	json_t *all = con_events_list(events, 0, SIZE_MAX, false, NULL);
	assert_int_equal(json_array_size(all), CON_EVENTS_MAX);
	assert_int_equal(number(all, 0, "number"), 11);
	json_t *some = con_events_list(events, CON_EVENTS_MAX, 3, false, NULL);
	assert_int_equal(json_array_size(some), 3);
	assert_int_equal(number(some, 0, "number"), CON_EVENTS_MAX + 1);
	struct con_events_filter odd = {.kind = "odd"};
	json_t *last = con_events_list(events, 0, 3, true, &odd);
	assert_int_equal(json_array_size(last), 3);
	assert_string_equal(text(last, 2, "text"), "4105");
	assert_string_equal(text(last, 0, "text"), "4101");
	json_t *none = con_events_list(events, CON_EVENTS_MAX + 10, 3, false, NULL);
	assert_int_equal(json_array_size(none), 0);
	json_decref(all);
	json_decref(some);
	json_decref(last);
	json_decref(none);
}

static void hostile_bytes_become_question_marks(void **state)
{
	(void)state;
	con_events_add(events, SP_LOG_DEBUG, "nack", "a\x1b[2J", "%s", "\xff\xfe\n");
	json_t *list = con_events_list(events, 0, 1, false, NULL);
	assert_string_equal(text(list, 0, "about"), "a?[2J");
	assert_string_equal(text(list, 0, "text"), "???");
	json_decref(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_event_says_where_the_chain_stood,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_nodes_events_are_those_of_its_workers_and_links_too, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(events_from_before_a_time_are_left_out,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_oldest_make_room_and_numbers_go_on,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(hostile_bytes_become_question_marks,
						set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
