// The controller's end of the bus: revisions, digests, snapshots, acks.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <event2/buffer.h>

#include "tests/unit/hub_world.h"

// ---- revisions ----

static void what_is_published_comes_with_a_digest_and_acks_are_timed(void **state)
{
	struct world w;
	struct end a;
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	fetch(&a);
	WAIT(&w, is_at_head(&a));
	assert_int_equal(a.snapshots, 1); // who has nothing gets the whole
	publish(&w);
	WAIT(&w, a.published == 1 && a.head == 2);
	assert_true(is_at_head(&a));
	ack(&a, &a.replica.position, sp_state_hash(a.replica.state));
	WAIT(&w, w.hub->n_of.acks == 1);
	assert_int_equal(
		w.hub->ack_seconds.counts[0] + w.hub->ack_seconds.counts[1] +
			w.hub->ack_seconds.counts[2] + w.hub->ack_seconds.counts[3] +
			w.hub->ack_seconds.counts[4] + w.hub->ack_seconds.counts[5],
		1);
	assert_true(w.hub->ack_seconds.sum > 0);
	assert_true(sp_position_same(&peer(&a)->applied, &w.head));
	ack(&a, &a.replica.position, w.route_key);
	WAIT(&w, w.events[CON_HUB_STATE] == 1);
	leave(&a);
	teardown(&w);
}

static void digests_go_on_without_news(void **state)
{
	struct world w;
	struct end a;
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	WAIT(&w, a.digests >= 3);
	assert_int_equal(a.head, 1);
	leave(&a);
	teardown(&w);
}

static void a_gap_is_filled_by_the_missing_revisions(void **state)
{
	struct world w;
	struct end a;
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	fetch(&a);
	WAIT(&w, is_at_head(&a));
	for (int i = 0; i < 5; i++)
		revise(&w, 0);
	con_hub_set_head(w.hub, &w.head, sp_state_hash(w.state)); // nobody was told
	fetch(&a);
	WAIT(&w, is_at_head(&a));
	assert_int_equal(a.deltas, 5);
	assert_int_equal(a.snapshots, 1);
	fetch(&a); // nothing is missing: that is an answer too
	WAIT(&w, a.revisions == 2);
	assert_int_equal(a.deltas, 5);
	leave(&a);
	teardown(&w);
}

static void a_gap_beyond_what_is_at_hand_is_filled_by_a_snapshot(void **state)
{
	struct world w;
	struct end a, b;
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	begin(&w, &b, "worker:fra2/0");
	fetch(&a);
	fetch(&b);
	WAIT(&w, is_at_head(&a) && is_at_head(&b));
	while (w.head.sequence < 1100)
		revise(&w, 0);
	con_hub_set_head(w.hub, &w.head, sp_state_hash(w.state));
	hub_by_name(w.hub, a.name)->snapshot_us = 0; // the last was long ago
	fetch(&a);
	WAIT(&w, is_at_head(&a));
	assert_int_equal(a.snapshots, 2);
	// few, but not all of them are kept
	for (int i = 0; i < 3; i++)
		revise(&w, 0);
	w.forgotten = w.head.sequence - 1;
	con_hub_set_head(w.hub, &w.head, sp_state_hash(w.state));
	hub_by_name(w.hub, a.name)->snapshot_us = 0;
	fetch(&a);
	WAIT(&w, is_at_head(&a));
	assert_int_equal(a.snapshots, 3);
	assert_int_equal(a.deltas, 0);
	leave(&a);
	leave(&b);
	teardown(&w);
}

static void missing_revisions_that_are_too_long_become_a_snapshot(void **state)
{
	struct world w;
	struct end a;
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	fetch(&a);
	WAIT(&w, is_at_head(&a));
	for (int i = 0; i < 30; i++)
		revise(&w, 50000);
	con_hub_set_head(w.hub, &w.head, sp_state_hash(w.state));
	hub_by_name(w.hub, a.name)->snapshot_us = 0;
	fetch(&a);
	WAIT(&w, is_at_head(&a));
	assert_int_equal(a.snapshots, 2);
	leave(&a);
	teardown(&w);
}

static void a_numbered_fetch_gets_its_number_back_and_one_a_second(void **state)
{
	struct world w;
	struct end a;
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	fetch_from(&a, &a.replica.position, true, 9);
	WAIT(&w, a.snapshots == 1);
	fetch_from(&a, &a.replica.position, true, 0);
	WAIT(&w, a.refused == 1);
	assert_string_equal(a.reason, "one snapshot a second");
	leave(&a);
	teardown(&w);
}

static void a_place_in_another_history_is_an_event_and_gets_a_snapshot(void **state)
{
	struct world w;
	struct end a;
	struct sp_position at;
	(void)state;
	setup(&w);
	for (int i = 0; i < 3; i++)
		revise(&w, 0);
	con_hub_set_head(w.hub, &w.head, sp_state_hash(w.state));
	begin(&w, &a, "worker:fra1/0");
	at = w.head;
	at.sequence = 2;
	ack(&a, &at, w.route_key);
	WAIT(&w, w.events[CON_HUB_FORK] == 1);
	fetch_from(&a, &at, false, 0);
	WAIT(&w, a.snapshots == 1);
	assert_int_equal(a.revisions, 0);
	leave(&a);
	teardown(&w);
}

static void a_peer_ahead_of_us_is_told_of_and_not_set_back(void **state)
{
	struct world w;
	struct end a;
	struct sp_position at;
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	at = w.head;
	at.sequence += 10;
	ack(&a, &at, w.route_key);
	fetch_from(&a, &at, false, 0);
	WAIT(&w, w.aheads == 1 && a.refused == 1);
	assert_string_equal(a.reason, "this controller is behind");
	assert_int_equal(a.snapshots + a.revisions, 0);
	assert_int_equal(w.hub->ack_seconds.sum, 0);
	leave(&a);
	teardown(&w);
}

static void without_a_head_nothing_is_published(void **state)
{
	struct world w;
	struct end a;
	(void)state;
	setup_at(&w, 0);
	make_end(&w, &a, "worker:fra1/0");
	join(&a);
	WAIT(&w, a.welcomes);
	fetch(&a);
	WAIT(&w, a.refused);
	assert_string_equal(a.reason, "there is no revision yet");
	uint64_t until = sp_loop_refresh(w.loop) + 1500000;
	WAIT(&w, sp_loop_refresh(w.loop) > until);
	assert_int_equal(a.digests, 0);
	w.no_snapshot = true;
	revise(&w, 0);
	con_hub_set_head(w.hub, &w.head, sp_state_hash(w.state));
	fetch(&a);
	WAIT(&w, a.refused == 2);
	assert_int_equal(w.events[CON_HUB_SNAPSHOT], 1);
	leave(&a);
	teardown(&w);
}

// Hostile reasons, too: a scrape stays small.
static void nacks_are_counted_by_the_key_that_they_name(void **state)
{
	struct world w;
	struct end a;
	Sallyport__Fleet__Ack m = SALLYPORT__FLEET__ACK__INIT;
	Sallyport__Fleet__Position at, refused;
	struct evbuffer *out = evbuffer_new();
	struct sp_metrics_writer mw;
	char reason[64];
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	fetch(&a);
	WAIT(&w, is_at_head(&a));
	hub_position_put(&a.replica.position, &at);
	hub_position_put(&w.head, &refused);
	m.position = &at;
	m.refused = &refused;
	m.reason = reason;
	for (int i = 0; i < 64; i++) {
		snprintf(reason, sizeof(reason), "%s",
			 i < 2 ? "exit_policy[3]: no such net" : "no key at all");
		if (i >= 40)
			snprintf(reason, sizeof(reason), "key%c%c: x", 'a' + i % 26, '_');
		say(&a, TO_(ACK), &m, 0);
	}
	WAIT(&w, w.hub->n_of.nacks == 64);
	sp_metrics_begin(&mw, out, false);
	con_hub_metrics(w.hub, &mw);
	evbuffer_add(out, "", 1);
	const char *text = (const char *)evbuffer_pullup(out, -1);
	assert_non_null(strstr(text, "_nacks_total{about=\"exit_policy\"} 2\n"));
	assert_non_null(strstr(text, "_nacks_total{about=\"-\"} 48\n"));
	unsigned n = 0;
	for (const char *p = text; (p = strstr(p, "_nacks_total{")); p++)
		n++;
	assert_int_equal(n, HUB_NACK_WORDS);
	evbuffer_free(out);
	leave(&a);
	teardown(&w);
}

static void a_nack_is_kept_with_its_reason(void **state)
{
	struct world w;
	struct end a;
	Sallyport__Fleet__Ack m = SALLYPORT__FLEET__ACK__INIT;
	Sallyport__Fleet__Position at, refused;
	char reason[] = "rule 3: no such net\n";
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	fetch(&a);
	WAIT(&w, is_at_head(&a));
	struct sp_position old = a.replica.position;
	publish(&w);
	hub_position_put(&old, &at);
	hub_position_put(&w.head, &refused);
	m.position = &at;
	m.refused = &refused;
	m.reason = reason;
	say(&a, TO_(ACK), &m, 0);
	WAIT(&w, w.events[CON_HUB_NACK] == 1);
	assert_string_equal(w.event_text, "1.2: rule 3: no such net?");
	assert_true(sp_position_same(&peer(&a)->applied, &old));
	assert_true(sp_position_same(&peer(&a)->nacked, &w.head));
	assert_string_equal(peer(&a)->reason, "rule 3: no such net?");
	leave(&a);
	teardown(&w);
}

// ---- many ----

static void a_herd_is_served_one_snapshot_in_turn_and_news_go_first(void **state)
{
	struct world w;
	struct end *all = calloc(HERD, sizeof(*all));
	const size_t at_head_limit = 20u << 20;
	unsigned welcomed = 0, done = 0;
	(void)state;
	setup_at(&w, at_head_limit);
	for (int i = 0; i < 7; i++) // a state of about 350 KB
		revise(&w, 50000);
	con_hub_set_head(w.hub, &w.head, sp_state_hash(w.state));
	for (unsigned i = 0; i < HERD; i++) {
		char name[32];
		snprintf(name, sizeof(name), "worker:n%u/0", i);
		make_end(&w, &all[i], name);
		join(&all[i]);
	}
	WAIT(&w, (welcomed = con_hub_connected(w.hub, "worker:")) == HERD);
	for (unsigned i = 0; i < HERD; i++)
		WAIT(&w, all[i].welcomes && all[i].digests);
	uint64_t began = sp_loop_refresh(w.loop);
	for (unsigned i = 0; i < HERD; i++)
		fetch(&all[i]);
	WAIT(&w, w.hub->n_of.answers[ANSWER_SNAPSHOT] >= 10);
	assert_true(w.hub->n_fetches > HERD / 2); // the others wait
	uint64_t now = sp_loop_refresh(w.loop);
	for (unsigned i = 0; i < HERD; i++)
		all[i].published_at_us = now;
	publish(&w);
	for (unsigned i = 0; i < HERD; i++)
		WAIT(&w, all[i].published);
	assert_true(w.hub->n_fetches > 0); // news did not wait for the queue
	for (unsigned i = 0; i < HERD; i++)
		all[i].published_at_us = 0;
	for (unsigned i = 0; i < HERD; i++) {
		WAIT(&w, all[i].snapshots == 1);
		if (!is_at_head(&all[i])) // its snapshot was of before
			fetch(&all[i]);
		WAIT(&w, is_at_head(&all[i]));
		done++;
	}
	double seconds = (double)(sp_loop_refresh(w.loop) - began) / 1e6;
	double mb = (double)w.hub->n_of.fetch_bytes / (1 << 20);
	assert_true(mb / seconds < 20 * 1.3); // at the stated rate, and a first 20 ms
	assert_int_equal(done, HERD);
	assert_int_equal(w.hub->n_of.snapshots_made, 2); // one a revision
	for (unsigned i = 0; i < HERD; i++)
		leave(&all[i]);
	free(all);
	teardown(&w);
}

static void the_metrics_say_what_happened(void **state)
{
	struct world w;
	struct end a, b;
	struct sp_metrics_writer mw;
	struct evbuffer *out = evbuffer_new();
	(void)state;
	setup(&w);
	begin(&w, &a, "worker:fra1/0");
	begin(&w, &b, "vantage:ams");
	fetch(&a);
	WAIT(&w, is_at_head(&a));
	ack(&a, &a.replica.position, sp_state_hash(a.replica.state));
	WAIT(&w, w.hub->n_of.acks == 1);
	sp_metrics_begin(&mw, out, false);
	con_hub_metrics(w.hub, &mw);
	evbuffer_add(out, "", 1);
	const char *text = (const char *)evbuffer_pullup(out, -1);
	assert_non_null(strstr(text, "\nsallyport_controller_peers{kind=\"worker\","
				     "state=\"connected\"} 1\n"));
	assert_non_null(
		strstr(text, "\nsallyport_controller_peers_current{kind=\"worker\"} 1"));
	assert_non_null(
		strstr(text, "\nsallyport_controller_peers_current{kind=\"vantage\"} 0"));
	assert_non_null(
		strstr(text, "\nsallyport_controller_acks_total{result=\"ack\"} 1\n"));
	assert_non_null(strstr(
		text, "\nsallyport_controller_fetches_total{answer=\"snapshot\"} 1\n"));
	assert_non_null(strstr(text, "event=\"peer-up\"} 2\n"));
	evbuffer_free(out);
	leave(&a);
	leave(&b);
	teardown(&w);
}

#define T(name) cmocka_unit_test(name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_is_published_comes_with_a_digest_and_acks_are_timed),
		T(digests_go_on_without_news),
		T(a_gap_is_filled_by_the_missing_revisions),
		T(a_gap_beyond_what_is_at_hand_is_filled_by_a_snapshot),
		T(missing_revisions_that_are_too_long_become_a_snapshot),
		T(a_numbered_fetch_gets_its_number_back_and_one_a_second),
		T(a_place_in_another_history_is_an_event_and_gets_a_snapshot),
		T(a_peer_ahead_of_us_is_told_of_and_not_set_back),
		T(without_a_head_nothing_is_published),
		T(a_nack_is_kept_with_its_reason),
		T(nacks_are_counted_by_the_key_that_they_name),
		T(a_herd_is_served_one_snapshot_in_turn_and_news_go_first),
		T(the_metrics_say_what_happened),
	};
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("hub_revisions", tests, NULL, NULL);
}
