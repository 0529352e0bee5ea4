// What of the health checker is pure: its config, its schedule, what it reads from the
// state.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "healthcheck/config.h"
#include "healthcheck/schedule.h"
#include "healthcheck/targets.h"
#include "lib/key.h"

static const struct hck_schedule_options plan = {.interval_ms = 5000,
						 .recheck_ms = 1000,
						 .down_interval_ms = 30000,
						 .jitter_percent = 20,
						 .rise = 2};

static void the_table_of_keys_holds(void **state)
{
	char why[256] = "";
	(void)state;
	if (sp_conf_check_table(&hck_config_table, why, sizeof(why)))
		fail_msg("%s", why);
}

static void a_control_that_is_no_url_is_an_error_with_its_line(void **state)
{
	static const char text[] = "control:\n  folder: /tmp/x\ncontrols:\n  - 1.2.3.4\n";
	struct sp_conf_errors errs = {0};
	(void)state;
	assert_null(
		sp_conf_parse(&hck_config_table, "f", NULL, text, strlen(text), &errs));
	assert_non_null(strstr(errs.text[0], "1.2.3.4"));
}

static void intervals_are_spread_and_first_probes_fall_anywhere_in_one(void **state)
{
	struct hck_schedule s = {0};
	(void)state;
	assert_int_equal(hck_schedule_first_ms(&plan, 0), 0);
	assert_int_equal(hck_schedule_first_ms(&plan, UINT32_MAX), 4999);
	assert_int_equal(hck_schedule_delay_ms(&s, &plan, 0), 4000);
	assert_int_equal(hck_schedule_delay_ms(&s, &plan, UINT32_MAX), 6000);
}

static void after_a_failure_it_looks_each_second_until_it_has_risen(void **state)
{
	struct hck_schedule s = {0};
	(void)state;
	hck_schedule_result(&s, &plan, false);
	assert_in_range(hck_schedule_delay_ms(&s, &plan, 7), 875, 1000);
	hck_schedule_result(&s, &plan, true);
	assert_in_range(hck_schedule_delay_ms(&s, &plan, 7), 875, 1000);
	hck_schedule_result(&s, &plan, true);
	assert_in_range(hck_schedule_delay_ms(&s, &plan, 7), 4000, 6000);
}

static void what_is_long_down_is_looked_at_ever_more_seldom(void **state)
{
	struct hck_schedule s = {0};
	uint32_t before = 0;
	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		hck_schedule_result(&s, &plan, false);
		uint32_t now = hck_schedule_delay_ms(&s, &plan, UINT32_MAX);
		assert_true(now >= before && now <= 30000);
		assert_true(i >= HCK_SCHEDULE_LONG || now == 1000);
		before = now;
	}
	assert_int_equal(before, 30000);
	hck_schedule_result(&s, &plan, true); // and when it answers, at once again
	assert_true(hck_schedule_delay_ms(&s, &plan, UINT32_MAX) <= 1000);
}

static void a_short_interval_has_a_shorter_recheck(void **state)
{
	struct hck_schedule_options quick = plan;
	struct hck_schedule s = {0};
	(void)state;
	quick.interval_ms = 1000;
	hck_schedule_result(&s, &quick, false);
	assert_true(hck_schedule_delay_ms(&s, &quick, UINT32_MAX) <= 500);
}

// ---- targets ----

static void put(struct sp_state *s, const char *key, const char *json)
{
	assert_int_equal(sp_state_put_text(s, key, json, strlen(json)), 0);
}

static struct sp_state *sample(void)
{
	uint8_t key[32];
	char text[SP_KEY_TEXT_MAX], json[256];
	struct sp_state *s;
	assert_int_equal(sp_state_new(&s), 0);
	memset(key, 5, sizeof(key));
	snprintf(json, sizeof(json), "{\"static\":\"%s\"}",
		 sp_key_format(SP_KEY_WORKER, false, key, text));
	put(s, "identity/fra1/0", json);
	put(s, "node/fra1/0",
	    "{\"region\":\"eu\",\"weight\":100,\"egress\":[\"192.0.2.7\"],\"carriers\":["
	    "{\"kind\":\"tls\",\"address\":\"fra1.example:443\",\"server_name\":"
	    "\"www.example\"},{\"kind\":\"tcp\",\"address\":\"192.0.2.7:8443\"},"
	    "{\"kind\":\"smoke\",\"address\":\"192.0.2.7:1\"}]}");
	put(s, "node/new1/0",
	    "{\"region\":\"eu\",\"carriers\":[{\"kind\":\"tcp\",\"address\":"
	    "\"192.0.2.8:1\"}]}");
	put(s, "fleet",
	    "{\"name\":\"x\",\"probe\":{\"url\":\"http://192.0.2.1:8080/v1/probe\","
	    "\"external\":[\"https://www.example/\",\"gopher://x\"],"
	    "\"controls\":[\"http://192.0.2.3/\"],\"interval_ms\":1000}}");
	return s;
}

static void every_carrier_of_enrolled_workers_is_a_target(void **state)
{
	struct sp_state *s = sample();
	struct hck_targets t;
	(void)state;
	assert_int_equal(hck_targets_read(s, &t), 0);
	assert_int_equal(t.n, 2);
	assert_int_equal(t.skipped, 2); // a kind nobody knows; a node not enrolled
	assert_string_equal(t.v[0].carrier_text, "tls fra1.example:443");
	assert_string_equal(t.v[0].carrier.server_name, "www.example");
	assert_string_equal(t.v[1].node, "fra1/0");
	assert_string_equal(t.v[1].region, "eu");
	assert_int_equal(t.v[1].index, 1);
	assert_int_equal(t.v[1].n_egress, 1);
	assert_int_equal(t.v[1].public_key[31], 5);
	assert_int_equal(t.plan.n_external, 1);
	assert_string_equal(t.plan.external[0], "https://www.example/");
	assert_int_equal(t.plan.interval_ms, 1000);
	assert_int_equal(t.plan.deadline_ms, 0);
	hck_targets_done(&t);
	sp_state_free(s);
}

static void nonces_go_beside_the_first_endpoint_unless_said_otherwise(void **state)
{
	static const struct {
		const char *fleet, *url;
	} of[] = {
		{"{\"endpoints\":[\"https://a.example/x/v1/config\",\"http://b/v1/"
		 "config\"]}",
		 "https://a.example/x/v1/probe"},
		{"{\"endpoints\":[\"https://a.example/v1/config\"],\"probe\":{\"url\":"
		 "\"http://192.0.2.1/v1/probe\"}}",
		 "http://192.0.2.1/v1/probe"},
		{"{\"endpoints\":[\"https://a.example/v1/config\"],\"probe\":{\"url\":"
		 "\"none\"}}",
		 ""},
		{"{\"endpoints\":[\"https://a.example/else\"]}", ""},
		{"{}", ""},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
		struct hck_targets t;
		struct sp_state *s = sample();
		put(s, "fleet", of[i].fleet);
		assert_int_equal(hck_targets_read(s, &t), 0);
		assert_string_equal(t.plan.url, of[i].url);
		hck_targets_done(&t);
		sp_state_free(s);
	}
}

static void a_change_of_address_key_or_name_is_another_target(void **state)
{
	struct sp_state *s = sample();
	struct hck_targets a, b;
	(void)state;
	assert_int_equal(hck_targets_read(s, &a), 0);
	assert_int_equal(hck_targets_read(s, &b), 0);
	assert_true(hck_target_same(&a.v[0], &b.v[0]));
	assert_false(hck_target_same(&a.v[0], &b.v[1]));
	b.v[0].public_key[0] ^= 1;
	assert_false(hck_target_same(&a.v[0], &b.v[0]));
	b.v[1].egress[0].v4[3]++;
	assert_false(hck_target_same(&a.v[1], &b.v[1]));
	hck_targets_done(&a);
	hck_targets_done(&b);
	sp_state_free(s);
}

static void urls_name_host_and_port(void **state)
{
	static const struct {
		const char *url, *target;
	} good[] = {{"http://a.example", "a.example:80"},
		    {"https://a.example/x:1", "a.example:443"},
		    {"http://127.0.0.1:81/v1?x", "127.0.0.1:81"},
		    {"https://[2001:db8::1]/", "[2001:db8::1]:443"},
		    {"https://[2001:db8::1]:1/", "[2001:db8::1]:1"}};
	static const char *const bad[] = {"",        "a.example",     "ftp://a",
					  "http://", "http://u:p@a/", "http://a:99999/"};
	char text[SP_TARGET_TEXT_MAX];
	struct sp_target t;
	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(hck_url_target(good[i].url, &t), 0);
		assert_string_equal(sp_target_format(&t, text, sizeof(text)),
				    good[i].target);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_not_equal(hck_url_target(bad[i], &t), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_table_of_keys_holds),
		cmocka_unit_test(a_control_that_is_no_url_is_an_error_with_its_line),
		cmocka_unit_test(
			intervals_are_spread_and_first_probes_fall_anywhere_in_one),
		cmocka_unit_test(after_a_failure_it_looks_each_second_until_it_has_risen),
		cmocka_unit_test(what_is_long_down_is_looked_at_ever_more_seldom),
		cmocka_unit_test(a_short_interval_has_a_shorter_recheck),
		cmocka_unit_test(every_carrier_of_enrolled_workers_is_a_target),
		cmocka_unit_test(
			nonces_go_beside_the_first_endpoint_unless_said_otherwise),
		cmocka_unit_test(a_change_of_address_key_or_name_is_another_target),
		cmocka_unit_test(urls_name_host_and_port),
	};
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
