// The controller's end of the bus: who is heard, and as whom.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/hub_world.h"

// ---- hello ----

static void a_worker_is_welcomed_with_the_head_and_the_route_key(void **state)
{
	struct world w;
	struct end e;
	(void)state;
	setup(&w);
	begin(&w, &e, "worker:fra1/0");
	assert_int_equal(e.head, 1);
	assert_int_equal(e.route_key_len, 32);
	assert_memory_equal(e.route_key, w.route_key, 32);
	const struct con_hub_peer *p = peer(&e);
	assert_true(p->connected);
	assert_int_equal(p->boot, e.boot);
	assert_string_equal(p->program, "sallyport-worker ?test");
	assert_string_equal(p->bound, "tcp 127.0.0.1:1, tcp 127.0.0.1:1");
	assert_string_equal(p->address, "127.0.0.1");
	assert_int_equal(con_hub_connected(w.hub, "worker:"), 1);
	assert_int_equal(w.events[CON_HUB_UP], 1);
	assert_int_equal(w.links, 1);
	leave(&e);
	teardown(&w);
}

static void a_vantage_gets_no_route_key(void **state)
{
	struct world w;
	struct end e;
	(void)state;
	setup(&w);
	begin(&w, &e, "vantage:ams");
	assert_int_equal(e.route_key_len, 0);
	leave(&e);
	teardown(&w);
}

static void a_version_that_is_not_ours_is_refused_with_the_reason(void **state)
{
	struct world w;
	struct end e;
	(void)state;
	setup(&w);
	make_end(&w, &e, "worker:fra1/0");
	e.quiet = true;
	join(&e);
	WAIT(&w, e.ups);
	say_hello_of(&e, 2);
	WAIT(&w, e.refused);
	assert_string_equal(e.reason, "version 2 to 2, here 1");
	assert_int_equal(w.events[CON_HUB_NO_VERSION], 1);
	assert_false(peer(&e)->connected);
	leave(&e);
	teardown(&w);
}

static void who_has_not_said_hello_is_not_heard(void **state)
{
	struct world w;
	struct end e;
	Sallyport__Fleet__SessionDrop m = SALLYPORT__FLEET__SESSION_DROP__INIT;
	(void)state;
	setup(&w);
	make_end(&w, &e, "worker:fra1/0");
	e.quiet = true;
	join(&e);
	WAIT(&w, e.ups);
	say(&e, TO_(SESSION_DROP), &m, 1);
	WAIT(&w, e.refused);
	assert_string_equal(e.reason, "say hello first");
	assert_int_equal(w.calls, 0);
	say_hello(&e);
	say(&e, TO_(SESSION_DROP), &m, 2);
	WAIT(&w, w.calls);
	leave(&e);
	teardown(&w);
}

static void a_static_key_that_was_not_enrolled_is_an_event(void **state)
{
	struct world w;
	struct end e;
	(void)state;
	setup(&w);
	make_end(&w, &e, "worker:fra1/0");
	e.static_key[0] ^= 1;
	join(&e);
	WAIT(&w, e.welcomes);
	assert_int_equal(w.events[CON_HUB_STATIC_KEY], 1);
	leave(&e);
	teardown(&w);
}

// ---- who is who ----

static void a_call_is_of_the_key_it_came_by_and_its_answer_finds_back(void **state)
{
	struct world w;
	struct end a, b;
	Sallyport__Fleet__UsageReport m = SALLYPORT__FLEET__USAGE_REPORT__INIT;
	Sallyport__Fleet__FromController r = SALLYPORT__FLEET__FROM_CONTROLLER__INIT;
	Sallyport__Fleet__UsageAnswer answer = SALLYPORT__FLEET__USAGE_ANSWER__INIT;
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	begin(&w, &b, "worker:fra2/0");
	m.boot = a.boot; // another's boot proves nothing
	say(&b, TO_(USAGE), &m, 42);
	WAIT(&w, w.calls);
	assert_string_equal(w.call.name, "worker:fra2/0");
	assert_memory_equal(w.call.key, b.keys.public_key, 32);
	assert_int_equal(w.call.call, 42);
	r.body_case = FROM_(USAGE);
	r.usage = &answer;
	assert_int_equal(con_hub_answer(w.hub, &w.call, &r), 0);
	WAIT(&w, b.answers);
	assert_int_equal(a.answers, 0);
	leave(&a);
	leave(&b);
	teardown(&w);
}

static void telemetry_is_taken_of_the_boot_that_said_hello_only(void **state)
{
	struct world w;
	struct end a;
	Sallyport__Fleet__Telemetry m = SALLYPORT__FLEET__TELEMETRY__INIT;
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	m.boot = a.boot + 1;
	say(&a, TO_(TELEMETRY), &m, 0);
	WAIT(&w, w.events[CON_HUB_MALFORMED]);
	assert_int_equal(w.telemetries, 0);
	m.boot = a.boot;
	m.sessions = 12;
	say(&a, TO_(TELEMETRY), &m, 0);
	WAIT(&w, w.telemetries);
	assert_int_equal(peer(&a)->telemetry.sessions, 12);
	leave(&a);
	teardown(&w);
}

static void each_kind_of_peer_may_ask_for_its_own_only(void **state)
{
	struct world w;
	struct end worker, vantage;
	Sallyport__Fleet__ProbeReport probe = SALLYPORT__FLEET__PROBE_REPORT__INIT;
	Sallyport__Fleet__SessionAdopt adopt = SALLYPORT__FLEET__SESSION_ADOPT__INIT;
	(void)state;
	setup(&w);
	begin(&w, &worker, "worker:fra1/0");
	begin(&w, &vantage, "vantage:ams");
	say(&worker, TO_(PROBE), &probe, 1);
	say(&vantage, TO_(SESSION_ADOPT), &adopt, 1);
	WAIT(&w, worker.refused && vantage.refused);
	assert_int_equal(w.calls, 0);
	say(&vantage, TO_(PROBE), &probe, 1);
	WAIT(&w, w.calls);
	assert_string_equal(w.call.name, "vantage:ams");
	leave(&worker);
	leave(&vantage);
	teardown(&w);
}

static void a_key_can_be_of_one_peer_only(void **state)
{
	struct world w;
	struct end a;
	struct sp_bus_keys other = make_keys();
	(void)state;
	setup(&w);
	make_end(&w, &a, "worker:fra1/0");
	assert_int_equal(con_hub_allow(w.hub, "worker:fra2/0", a.keys.public_key, NULL),
			 -EEXIST);
	assert_int_equal(con_hub_allow(w.hub, "worker:fra1/0", a.keys.public_key, NULL),
			 0);
	assert_true(con_hub_knows(w.hub, a.keys.public_key));
	assert_int_equal(con_hub_allow(w.hub, "worker:fra1/0", other.public_key, NULL),
			 0);
	assert_false(con_hub_knows(w.hub, a.keys.public_key));
	assert_true(con_hub_knows(w.hub, other.public_key));
	size_t at = 0;
	assert_non_null(con_hub_next(w.hub, &at));
	assert_null(con_hub_next(w.hub, &at));
	teardown(&w);
}

static void a_peer_whose_key_is_removed_is_cut_off_and_the_others_come_back(void **state)
{
	struct world w;
	struct end a, b;
	Sallyport__Fleet__SessionDrop m = SALLYPORT__FLEET__SESSION_DROP__INIT;
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	begin(&w, &b, "worker:fra2/0");
	con_hub_forbid(w.hub, "worker:fra1/0");
	say(&a, TO_(SESSION_DROP), &m, 1);
	WAIT(&w, b.welcomes == 2 && strcmp(a.why, "refused") == 0);
	assert_int_equal(w.calls, 0);
	assert_int_equal(a.welcomes, 1);
	assert_int_equal(w.events[CON_HUB_CUT], 1);
	unsigned heard = a.digests + a.published;
	WAIT_TO_HEAR(&w, &b);
	publish(&w);
	WAIT(&w, b.published);
	assert_int_equal(a.digests + a.published, heard);
	leave(&a);
	leave(&b);
	teardown(&w);
}

// A worker copied with its keys: the one that was there first is refused.
static void of_two_that_live_with_one_key_the_older_is_refused(void **state)
{
	struct world w;
	struct end a, copy;
	Sallyport__Fleet__SessionDrop m = SALLYPORT__FLEET__SESSION_DROP__INIT;
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	copy = a;
	copy.welcomes = copy.refused = 0;
	copy.boot = a.boot + 1;
	join(&copy);
	WAIT(&w, copy.welcomes == 1);
	assert_int_equal(peer(&a)->boot, copy.boot);
	assert_int_equal(w.links, 2);
	// What the older says just behind the change may have been on its way.
	say(&a, TO_(SESSION_DROP), &m, 1);
	WAIT(&w, hub_by_name(w.hub, a.name) && w.hub->n_of.other_route == 1);
	assert_int_equal(w.events[CON_HUB_DUPLICATE], 0);
	hub_by_name(w.hub, a.name)->took_over_us -= 3000000;
	say(&a, TO_(SESSION_DROP), &m, 1);
	WAIT(&w, a.refused == 1);
	assert_int_equal(w.events[CON_HUB_DUPLICATE], 1);
	assert_string_equal(w.event_name, "worker:fra1/0");
	say_hello(&a);
	WAIT(&w, a.refused == 2);
	assert_int_equal(a.welcomes, 1);
	assert_int_equal(peer(&a)->boot, copy.boot);
	say(&copy, TO_(SESSION_DROP), &m, 7);
	WAIT(&w, w.calls == 1);
	// when the newer has been silent, the older may be back
	hub_by_name(w.hub, a.name)->seen_us -= CON_HUB_SILENCE_MS * 1000;
	say_hello(&a);
	WAIT(&w, a.welcomes == 2);
	leave(&a);
	leave(&copy);
	teardown(&w);
}

static void a_reconnect_of_the_same_boot_is_no_news(void **state)
{
	struct world w;
	struct end a;
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	sp_bus_client_free(a.c);
	join(&a);
	WAIT(&w, a.welcomes == 2);
	assert_int_equal(w.links, 1);
	assert_int_equal(w.events[CON_HUB_DUPLICATE], 0);
	leave(&a);
	teardown(&w);
}

static void a_silent_peer_is_lost_and_its_next_word_brings_it_back(void **state)
{
	struct world w;
	struct end a;
	Sallyport__Fleet__Telemetry m = SALLYPORT__FLEET__TELEMETRY__INIT;
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	hub_by_name(w.hub, a.name)->seen_us -= CON_HUB_SILENCE_MS * 1000;
	WAIT(&w, w.events[CON_HUB_LOST] == 1);
	assert_false(peer(&a)->connected);
	assert_int_equal(w.links, 2);
	m.boot = a.boot;
	say(&a, TO_(TELEMETRY), &m, 0);
	WAIT(&w, peer(&a)->connected);
	assert_int_equal(w.events[CON_HUB_UP], 2);
	leave(&a);
	teardown(&w);
}

// ---- bad input ----

static void garbage_is_counted_and_costs_nobody_the_link(void **state)
{
	struct world w;
	struct end a;
	uint8_t junk[200];
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	memset(junk, 0xff, sizeof(junk));
	for (int i = 0; i < 20; i++)
		assert_int_equal(sp_bus_client_send(a.c, junk, sizeof(junk)), 0);
	Sallyport__Fleet__Ack bad = SALLYPORT__FLEET__ACK__INIT;
	Sallyport__Fleet__Position at = SALLYPORT__FLEET__POSITION__INIT;
	at.sequence = 3;
	at.hash = (ProtobufCBinaryData){7, junk}; // not 32 bytes
	bad.position = &at;
	say(&a, TO_(ACK), &bad, 0);
	WAIT(&w, w.hub->n_of.malformed == 21);
	// one peer's mistakes do not fill the log
	assert_in_range(w.events[CON_HUB_MALFORMED], 1, 6);
	fetch(&a);
	WAIT(&w, is_at_head(&a));
	leave(&a);
	teardown(&w);
}

static void a_flood_of_one_is_dropped_and_another_is_served(void **state)
{
	struct world w;
	struct end a, b;
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	begin(&w, &b, "worker:fra2/0");
	struct hub_peer *p = hub_by_name(w.hub, a.name);
	uint8_t *junk = calloc(1, 900000);
	for (int i = 0; i < 30; i++)
		assert_int_equal(sp_bus_client_send(a.c, junk, 900000), 0);
	WAIT(&w, w.hub->n_of.flooded);
	assert_true(p->tokens < 1000);
	fetch(&b);
	WAIT(&w, is_at_head(&b));
	assert_true(w.events[CON_HUB_FLOOD] >= 1);
	free(junk);
	leave(&a);
	leave(&b);
	teardown(&w);
}

#define T(name) cmocka_unit_test(name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_worker_is_welcomed_with_the_head_and_the_route_key),
		T(a_vantage_gets_no_route_key),
		T(a_version_that_is_not_ours_is_refused_with_the_reason),
		T(who_has_not_said_hello_is_not_heard),
		T(a_static_key_that_was_not_enrolled_is_an_event),
		T(a_call_is_of_the_key_it_came_by_and_its_answer_finds_back),
		T(telemetry_is_taken_of_the_boot_that_said_hello_only),
		T(each_kind_of_peer_may_ask_for_its_own_only),
		T(a_key_can_be_of_one_peer_only),
		T(a_peer_whose_key_is_removed_is_cut_off_and_the_others_come_back),
		T(of_two_that_live_with_one_key_the_older_is_refused),
		T(a_reconnect_of_the_same_boot_is_no_news),
		T(a_silent_peer_is_lost_and_its_next_word_brings_it_back),
		T(garbage_is_counted_and_costs_nobody_the_link),
		T(a_flood_of_one_is_dropped_and_another_is_served),
	};
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("hub", tests, NULL, NULL);
}
