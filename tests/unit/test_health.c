// Health of a fleet: reports of vantages in, events and what is offered out. Results are
// told with their age, so that several come at once.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "controller/health.h"
#include "controller/vantagepass.h"
#include "lib/key.h"

static struct {
	struct sp_loop *loop;
	struct con_events *events;
	struct con_health *health;
	struct sp_state *state;
	struct con_health_listener listener;
	unsigned changes;
	uint64_t ended_ms;
} x;

static void put(const char *key, const char *json)
{
	assert_int_equal(sp_state_put_text(x.state, key, json, strlen(json)), 0);
}

static void on_changed(void *ctx)
{
	(void)ctx;
	x.changes++;
}

static int setup(void **state)
{
	char key[64], json[256], text[SP_KEY_TEXT_MAX];
	uint8_t device[32] = {9};
	struct con_health_options o = {0};
	(void)state;
	memset(&x, 0, sizeof(x));
	assert_int_equal(sp_loop_new(&x.loop), 0);
	assert_int_equal(con_events_new(x.loop, &x.events), 0);
	assert_int_equal(sp_state_new(&x.state), 0);
	put("fleet", "{\"name\":\"t\",\"health\":{\"cycle_ms\":20}}");
	for (int i = 0; i < 5; i++) {
		snprintf(key, sizeof(key), "node/n%d/0", i);
		snprintf(json, sizeof(json),
			 "{\"region\":\"eu\",\"carriers\":[{\"kind\":\"tcp\",\"address\":"
			 "\"192.0.2.%d:1\"}]}",
			 i);
		put(key, json);
		snprintf(key, sizeof(key), "identity/n%d/0", i);
		put(key, "{}");
	}
	snprintf(json, sizeof(json), "{\"region\":\"eu\",\"device\":\"%s\"}",
		 sp_key_format(SP_KEY_DEVICE, false, device, text));
	put("vantage/a", json);
	put("vantage/b", "{\"region\":\"us\"}");
	o.loop = x.loop;
	o.events = x.events;
	assert_int_equal(con_health_new(&o, &x.health), 0);
	con_health_set_state(x.health, x.state, 7);
	x.listener.changed = on_changed;
	con_health_listen(x.health, &x.listener);
	x.ended_ms = 1;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	con_health_unlisten(&x.listener);
	con_health_free(x.health);
	con_events_free(x.events);
	sp_state_free(x.state);
	sp_loop_free(x.loop);
	return 0;
}

static void turn(uint32_t ms)
{
	uint64_t end = sp_loop_refresh(x.loop) + 1000ull * ms;
	while (sp_loop_refresh(x.loop) < end)
		assert_int_equal(sp_loop_turn(x.loop, true), 0);
}

struct told {
	const char *node;
	bool ok;
	uint32_t age_ms;
	uint64_t sequence, ended_ms;
};

static void tell(const char *vantage, struct told t)
{
	static const uint32_t us[] = {10, 100, 0, 400, 300, 50, 60};
	char carrier[64], handshake[] = "handshake", top[] = "top", timeout[] = "timeout",
			  none[] = "none";
	Sallyport__Fleet__ProbeReport r = SALLYPORT__FLEET__PROBE_REPORT__INIT;
	Sallyport__Fleet__Probe p = SALLYPORT__FLEET__PROBE__INIT, *list = &p;
	Sallyport__Fleet__Position at = SALLYPORT__FLEET__POSITION__INIT;
	snprintf(carrier, sizeof(carrier), "tcp 192.0.2.%c:1", t.node[1]);
	at.sequence = t.sequence ? t.sequence : 7;
	p.node = (char *)(uintptr_t)t.node;
	p.carrier = carrier;
	p.ok = t.ok;
	p.rung = t.ok ? top : handshake;
	p.reason = t.ok ? none : timeout;
	p.rung_us = (uint32_t *)(uintptr_t)us;
	p.n_rung_us = t.ok ? 7 : 3;
	p.age_ms = t.age_ms;
	p.ended_ms = t.ended_ms ? t.ended_ms : ++x.ended_ms;
	r.applied = &at;
	r.controls_ok = true;
	r.n_probes = 1;
	r.probes = &list;
	con_health_report(x.health, vantage, &r);
}

// Three results from both vantages, 10 ms apart.
static void tell_all(const char *node, bool ok)
{
	for (int i = 3; i > 0; i--) {
		tell("a", (struct told){.node = node, .ok = ok, .age_ms = 10u * i});
		tell("b", (struct told){.node = node, .ok = ok, .age_ms = 10u * i - 5});
	}
}

static void tell_fleet(bool first_ok)
{
	char node[8];
	turn(40); // what is told is later than anything before
	for (int i = 0; i < 5; i++) {
		snprintf(node, sizeof(node), "n%d/0", i);
		tell_all(node, i || first_ok);
	}
	turn(60);
}

static bool offered(const char *node, const char *region)
{
	unsigned percent = 0;
	return con_health_offered(x.health, node, region, &percent) && percent;
}

static unsigned count_events(const char *kind, const char *about, const char *has)
{
	struct con_events_filter want = {.kind = kind};
	json_t *list = con_events_list(x.events, 0, 1000, false, &want), *v;
	unsigned n = 0;
	size_t i;
	json_array_foreach(list, i, v)
	{
		const char *a = json_string_value(json_object_get(v, "about"));
		const char *text = json_string_value(json_object_get(v, "text"));
		n += strcmp(a, about) == 0 && strstr(text, has);
	}
	json_decref(list);
	return n;
}

static void a_dead_node_is_an_event_with_its_rung_and_is_offered_no_more(void **state)
{
	(void)state;
	tell_fleet(true);
	assert_true(offered("n0/0", ""));
	assert_int_equal(count_events("node-healthy", "n0/0", ""), 1);
	unsigned before = x.changes;
	tell_fleet(false);
	assert_false(offered("n0/0", ""));
	assert_true(offered("n1/0", "eu"));
	assert_true(con_health_is_down(x.health, "n0/0"));
	assert_true(x.changes > before);
	assert_int_equal(count_events("node-down", "n0/0", "rung handshake"), 1);
	assert_int_equal(count_events("node-down", "n0/0", "reason timeout"), 1);
	assert_int_equal(count_events("node-down", "n0/0", "a,b"), 1);
	json_t *o = con_health_json(x.health, NULL);
	json_t *n = json_array_get(json_object_get(o, "nodes"), 0);
	assert_string_equal(json_string_value(json_object_get(n, "health")), "down");
	json_decref(o);
}

static void results_of_an_older_config_or_told_twice_do_not_count(void **state)
{
	(void)state;
	tell_fleet(true);
	for (int i = 8; i > 0; i--) {
		tell("a",
		     (struct told){.node = "n0/0", .age_ms = 100u * i, .sequence = 6});
		tell("b",
		     (struct told){.node = "n0/0", .age_ms = 100u * i, .sequence = 6});
	}
	turn(60);
	assert_true(offered("n0/0", ""));
	for (int i = 8; i > 0; i--) {
		tell("a",
		     (struct told){.node = "n0/0", .age_ms = 20u * i, .ended_ms = 99999});
		tell("b",
		     (struct told){.node = "n0/0", .age_ms = 20u * i, .ended_ms = 99999});
	}
	turn(60);
	assert_true(offered("n0/0", ""));
}

static void leases_and_workers_that_drain_are_not_offered(void **state)
{
	static const char lease[] = "{\"kind\":\"cordon\",\"until\":99999999999}";
	static const char over[] = "{\"kind\":\"cordon\",\"until\":1}";
	Sallyport__Fleet__Telemetry t = SALLYPORT__FLEET__TELEMETRY__INIT;
	(void)state;
	tell_fleet(true);
	con_health_set(x.health, "lease/n3", lease, strlen(lease), 8);
	con_health_settle(x.health);
	turn(60);
	assert_false(offered("n3/0", ""));
	con_health_set(x.health, "lease/n3", over, strlen(over), 9);
	con_health_settle(x.health);
	t.draining = true;
	con_health_worker(x.health, "n4/0", 5, &t);
	turn(60);
	assert_true(offered("n3/0", ""));
	assert_false(offered("n4/0", ""));
}

static void nodes_and_vantages_come_and_go_with_the_state(void **state)
{
	(void)state;
	tell_fleet(true);
	con_health_set(x.health, "identity/n0/0", NULL, 0, 8);
	con_health_set(x.health, "vantage/b", NULL, 0, 8);
	con_health_settle(x.health);
	assert_false(offered("n0/0", ""));
	tell_fleet(true); // of those gone too
	json_t *o = con_health_json(x.health, NULL);
	assert_int_equal(json_array_size(json_object_get(o, "nodes")), 4);
	assert_int_equal(json_array_size(json_object_get(o, "vantages")), 1);
	json_decref(o);
}

static const json_t *view_of(const json_t *health, const char *vantage)
{
	json_t *n = json_array_get(json_object_get(health, "nodes"), 0), *v;
	size_t i;
	json_array_foreach(json_object_get(n, "views"), i, v)
	{
		if (!strcmp(json_string_value(json_object_get(v, "vantage")), vantage))
			return v;
	}
	return NULL;
}

static void what_each_vantage_sees_is_told_with_rung_reason_and_times(void **state)
{
	(void)state;
	tell_fleet(true);
	turn(20);
	tell("b", (struct told){.node = "n0/0", .age_ms = 1});
	json_t *o = con_health_json(x.health, "n0");
	assert_int_equal(json_array_size(json_object_get(o, "nodes")), 1);
	const json_t *a = view_of(o, "a"), *b = view_of(o, "b");
	assert_true(json_is_true(json_object_get(a, "ok")));
	assert_int_equal(json_integer_value(json_object_get(a, "row")), 3);
	json_t *us = json_object_get(a, "rungs_ms");
	assert_int_equal(json_object_size(us), 7);
	assert_true(json_real_value(json_object_get(us, "handshake")) == 0.4);
	assert_true(json_is_false(json_object_get(b, "ok")));
	assert_int_equal(json_integer_value(json_object_get(b, "row")), 1);
	assert_string_equal(json_string_value(json_object_get(b, "rung")), "handshake");
	assert_string_equal(json_string_value(json_object_get(b, "reason")), "timeout");
	assert_int_equal(json_object_size(json_object_get(b, "rungs_ms")), 3);
	json_decref(o);
	con_health_set(x.health, "identity/n0/0", NULL, 0, 8);
	o = con_health_json(x.health, "n0/0");
	assert_int_equal(json_array_size(json_object_get(o, "nodes")), 0);
	json_decref(o);
	o = con_health_json(x.health, "nobody");
	assert_int_equal(json_array_size(json_object_get(o, "nodes")), 0);
	json_decref(o);
	o = con_health_vantages(x.health);
	json_t *first = json_array_get(o, 0);
	assert_int_equal(json_integer_value(json_object_get(first, "sees")), 4);
	assert_string_equal(json_string_value(json_object_get(first, "region")), "eu");
	json_decref(o);
}

static void latency_is_what_it_takes_to_a_session(void **state)
{
	(void)state;
	tell_fleet(true);
	assert_int_equal(con_health_latency_us(x.health, "n1/0", "eu"), 810);
	assert_int_equal(con_health_latency_us(x.health, "nobody/0", "eu"), 0);
}

static void a_vantage_gets_a_pass_for_the_key_it_enrolled_with_only(void **state)
{
	uint8_t sign_public[32], sign_secret[64], device[32] = {9}, other[32] = {8};
	uint8_t blob[SP_PASS_BLOB_MAX];
	struct sp_signed_keys keys = {0};
	struct sp_pass pass;
	(void)state;
	crypto_sign_keypair(sign_public, sign_secret);
	assert_int_equal(sp_signed_keys_add(&keys, sign_public), 0);
	int n = con_vantage_pass(x.state, "a", device, sign_secret, 1000000, blob);
	assert_true(n > 0);
	assert_int_equal(sp_pass_open(&keys, blob, (size_t)n, &pass), 0);
	assert_string_equal(pass.user, "vantage:a");
	assert_int_equal(pass.expires_s, 1000000 + CON_VANTAGE_PASS_S);
	assert_memory_equal(pass.device, device, 32);
	assert_int_equal(con_vantage_pass(x.state, "a", other, sign_secret, 1, blob),
			 SP_E_KEY);
	assert_true(con_vantage_pass(x.state, "c", device, sign_secret, 1, blob) < 0);
	assert_true(con_vantage_pass(x.state, "b", device, sign_secret, 1, blob) < 0);
}

static void metrics_show_one_state_of_each_node(void **state)
{
	struct sp_metrics_writer w;
	struct evbuffer *out = evbuffer_new();
	(void)state;
	tell_fleet(true);
	tell_fleet(false);
	sp_metrics_begin(&w, out, false);
	con_health_metrics(x.health, &w);
	sp_metrics_end(&w);
	evbuffer_add(out, "", 1);
	const char *text = (const char *)evbuffer_pullup(out, -1);
	assert_non_null(strstr(text, "sallyport_controller_node_state{node=\"n0/0\","
				     "region=\"eu\",state=\"down\"} 1\n"));
	assert_non_null(strstr(text, "sallyport_controller_node_state{node=\"n0/0\","
				     "region=\"eu\",state=\"healthy\"} 0\n"));
	assert_non_null(strstr(
		text, "sallyport_controller_probes_total{rung=\"handshake\"} 6\n"));
	assert_non_null(
		strstr(text, "sallyport_controller_probes_total{rung=\"top\"} 54\n"));
	assert_non_null(strstr(text, "sallyport_controller_demotions_total{rung="
				     "\"handshake\",reason=\"timeout\"} 1\n"));
	evbuffer_free(out);
}

static void demotions_of_very_many_at_once_all_count(void **state)
{
	enum { NODES = 600, DEAD = 280 };
	static const char json[] = "{\"region\":\"eu\",\"carriers\":[{\"kind\":\"tcp\","
				   "\"address\":\"192.0.2.9:1\"}]}";
	struct sp_metrics_writer w;
	struct evbuffer *out = evbuffer_new();
	char key[64], node[32];
	(void)state;
	put("fleet", "{\"name\":\"t\",\"health\":{\"cycle_ms\":20,\"cap_percent\":100}}");
	for (int i = 0; i < NODES; i++) {
		snprintf(key, sizeof(key), "node/x9-%d/0", i);
		put(key, json);
		snprintf(key, sizeof(key), "identity/x9-%d/0", i);
		put(key, "{}");
	}
	con_health_set_state(x.health, x.state, 7);
	for (int round = 0; round < 2; round++) {
		turn(40);
		for (int i = 0; i < NODES; i++) {
			snprintf(node, sizeof(node), "x9-%d/0", i);
			tell_all(node, !round || i >= DEAD);
		}
		turn(60);
	}
	assert_false(offered("x9-279/0", ""));
	assert_true(offered("x9-280/0", ""));
	assert_int_equal(count_events("nodes-changed", "", "24 further nodes"), 1);
	sp_metrics_begin(&w, out, false);
	con_health_metrics(x.health, &w);
	sp_metrics_end(&w);
	evbuffer_add(out, "", 1);
	assert_non_null(strstr((const char *)evbuffer_pullup(out, -1),
			       "sallyport_controller_demotions_total{rung="
			       "\"handshake\",reason=\"timeout\"} 280\n"));
	evbuffer_free(out);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_dead_node_is_an_event_with_its_rung_and_is_offered_no_more),
		TEST(results_of_an_older_config_or_told_twice_do_not_count),
		TEST(leases_and_workers_that_drain_are_not_offered),
		TEST(nodes_and_vantages_come_and_go_with_the_state),
		TEST(what_each_vantage_sees_is_told_with_rung_reason_and_times),
		TEST(latency_is_what_it_takes_to_a_session),
		TEST(a_vantage_gets_a_pass_for_the_key_it_enrolled_with_only),
		TEST(metrics_show_one_state_of_each_node),
		TEST(demotions_of_very_many_at_once_all_count),
	};
	if (sodium_init() < 0)
		return 1;
	sp_log_setup(SP_LOG_ERROR, SP_LOG_LOGFMT, 2);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
