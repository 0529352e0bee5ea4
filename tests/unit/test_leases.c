// What operators' verbs put into the state: leases and their cap, tokens, and the end of
// what is over.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "controller/drains.h"
#include "controller/leases.h"
#include "controller/tokens.h"

static struct sp_state *state;

static int set_up(void **s)
{
	(void)s;
	return sodium_init() < 0 || sp_state_new(&state);
}

static int tear_down(void **s)
{
	(void)s;
	sp_state_free(state);
	return 0;
}

static void put(const char *key, const char *json)
{
	assert_int_equal(sp_state_put_text(state, key, json, strlen(json)), 0);
}

static void put_nodes(const char *region, unsigned n)
{
	char key[64], json[64];
	for (unsigned i = 0; i < n; i++) {
		snprintf(key, sizeof(key), "node/%s%u/0", region, i);
		snprintf(json, sizeof(json), "{\"region\":\"%s\"}", region);
		put(key, json);
	}
}

static int allowed(const char *node)
{
	char why[512];
	return con_lease_allowed(state, node, 1000, why, sizeof(why));
}

static void a_third_of_a_region_may_be_out_and_no_more(void **s)
{
	(void)s;
	put_nodes("eu", 10);
	put_nodes("us", 10);
	put("lease/us1", "{\"kind\":\"drain\",\"until\":2000}");
	put("lease/eu1", "{\"kind\":\"drain\",\"until\":2000}");
	put("lease/eu2", "{\"kind\":\"cordon\",\"until\":2000}");
	assert_int_equal(allowed("eu3"), 0);
	put("lease/eu3", "{\"kind\":\"drain\",\"until\":2000}");
	assert_int_equal(allowed("eu4"), SP_E_LIMIT);
	assert_int_equal(allowed("eu3"), 0); // it is out: renewed
	assert_int_equal(allowed("us2"), 0);
	assert_int_equal(allowed("nowhere"), -ENOENT);
}

static void a_third_of_the_fleet_may_be_out_and_no_more(void **s)
{
	char why[512];
	(void)s;
	put_nodes("eu", 2);
	put_nodes("us", 2);
	put_nodes("ap", 3);
	assert_int_equal(allowed("eu0"), 0);
	put("lease/ap1", "{\"kind\":\"cordon\",\"until\":2000}");
	assert_int_equal(allowed("eu0"), 0); // 2 of 7
	put("lease/us1", "{\"kind\":\"drain\",\"until\":2000}");
	assert_int_equal(con_lease_allowed(state, "eu0", 1000, why, sizeof(why)),
			 SP_E_LIMIT);
	assert_non_null(
		strstr(why, "2 of 7 nodes of the fleet are out already (ap1, us1)"));
	assert_int_equal(con_lease_allowed(state, "ap0", 1000, why, sizeof(why)),
			 SP_E_LIMIT); // the nearer one is said
	assert_non_null(strstr(why, "1 of 3 nodes in region ap is out already (ap1)"));
	assert_int_equal(allowed("us1"), 0); // renewed
}

static void a_refusal_names_some_of_those_that_are_out(void **s)
{
	char why[512], key[64];
	(void)s;
	put_nodes("eu", 20);
	for (unsigned i = 0; i < 6; i++) {
		snprintf(key, sizeof(key), "lease/eu%u", i);
		put(key, "{\"kind\":\"drain\",\"until\":2000}");
	}
	assert_int_equal(con_lease_allowed(state, "eu7", 1000, why, sizeof(why)),
			 SP_E_LIMIT);
	assert_non_null(strstr(why, "6 of 20 nodes in region eu are out already "
				    "(eu0, eu1, eu2, ...)"));
}

static void a_node_is_empty_when_all_its_workers_said_so(void **s)
{
	struct con_hub_peer a = {.connected = true, .boot = 7}, b = a;
	struct con_drain_view v = {0};
	(void)s;
	sallyport__fleet__telemetry__init(&a.telemetry);
	a.telemetry.boot = 7;
	a.telemetry.draining = a.telemetry.empty = true;
	b.telemetry = a.telemetry;
	con_drain_add(&v, &a);
	assert_true(v.empty);
	con_drain_add(&v, &b);
	assert_true(v.empty);
	con_drain_add(&v, NULL); // never here
	assert_false(v.empty);
	assert_int_equal(v.unheard, 1);
	con_drain_add(&v, &a);
	assert_false(v.empty); // one that follows does not make up for it

	v = (struct con_drain_view){0};
	b.telemetry.empty = false;
	b.telemetry.streams = 3;
	con_drain_add(&v, &b);
	con_drain_add(&v, &a);
	assert_false(v.empty);
	assert_int_equal(v.streams, 3);

	v = (struct con_drain_view){0};
	a.connected = false;
	con_drain_add(&v, &a);
	assert_false(v.empty);
	a.connected = true;
	a.telemetry.boot = 6; // of the boot before
	v = (struct con_drain_view){0};
	con_drain_add(&v, &a);
	assert_false(v.empty);
	assert_int_equal(v.unheard, 1);
}

static void a_lease_that_is_over_does_not_count(void **s)
{
	(void)s;
	put_nodes("eu", 2);
	put("lease/eu0", "{\"kind\":\"drain\",\"until\":1000}");
	assert_int_equal(allowed("eu1"), 0);
	put("lease/eu0", "{\"kind\":\"drain\",\"until\":1001}");
	assert_int_equal(allowed("eu1"), SP_E_LIMIT);
}

static void the_last_node_of_a_region_is_never_let_out(void **s)
{
	(void)s;
	put_nodes("eu", 1);
	assert_int_equal(allowed("eu0"), SP_E_LIMIT);
}

static void workers_of_one_node_count_as_one(void **s)
{
	(void)s;
	put("node/a/0", "{\"region\":\"eu\"}");
	put("node/a/1", "{\"region\":\"eu\"}");
	assert_int_equal(allowed("a"), SP_E_LIMIT);
	put("node/b/0", "{\"region\":\"eu\"}");
	assert_int_equal(allowed("a"), 0);
}

static void what_is_over_goes_and_nothing_else(void **s)
{
	struct sp_changes c = {0};
	(void)s;
	put("lease/a", "{\"kind\":\"drain\",\"until\":1000}");
	put("lease/b", "{\"kind\":\"drain\",\"until\":1001}");
	put("token/old", "{\"user\":\"u\",\"expires\":999}");
	put("token/ever", "{\"user\":\"u\"}");
	put("revoked/user/u", "{\"before\":1,\"until\":1000}");
	put("enrol/a/0", "{\"expires\":1002}");
	assert_int_equal(con_leases_over(state, 1000, false, &c), 0);
	assert_int_equal(c.n, 1);
	assert_string_equal(c.v[0].key, "lease/a");
	sp_changes_done(&c);
	assert_int_equal(con_leases_over(state, 1000, true, &c), 0);
	assert_int_equal(c.n, 3);
	for (size_t i = 0; i < c.n; i++)
		assert_null(c.v[i].json);
	assert_string_equal(c.v[1].key, "token/old");
	assert_string_equal(c.v[2].key, "revoked/user/u");
	sp_changes_done(&c);
}

static void a_user_whose_time_ended_is_revoked_once(void **s)
{
	struct sp_changes c = {0};
	uint64_t next;
	(void)s;
	put("user/ever", "{\"tier\":\"t\"}");
	put("user/now", "{\"expires\":1000,\"tier\":\"t\"}");
	put("user/soon", "{\"expires\":1001,\"tier\":\"t\"}");
	put("user/later", "{\"expires\":2000,\"tier\":\"t\"}");
	assert_int_equal(con_leases_users_over(state, 999, &next, &c), 0);
	assert_int_equal(c.n, 0);
	assert_int_equal(next, 1000);
	assert_int_equal(con_leases_users_over(state, 1000, &next, &c), 0);
	assert_int_equal(c.n, 1);
	assert_string_equal(c.v[0].key, "revoked/user/now");
	assert_int_equal(next, 1001);
	sp_changes_done(&c);
	put("revoked/user/now", "{\"before\":1000,\"until\":99999}");
	put("revoked/user/soon", "{\"before\":900,\"until\":99999}"); // of before
	assert_int_equal(con_leases_users_over(state, 1001, &next, &c), 0);
	assert_int_equal(c.n, 1);
	assert_string_equal(c.v[0].key, "revoked/user/soon");
	assert_int_equal(next, 2000);
	sp_changes_done(&c);
	assert_int_equal(con_leases_users_over(state, 1000000, &next, &c), 0);
	assert_int_equal(c.n, 0); // no pass of then holds any more
	assert_true(next == UINT64_MAX);
}

static void a_late_enrolment_is_known_for_a_day_and_then_forgotten(void **s)
{
	struct sp_changes c = {0};
	(void)s;
	put("enrol/worker/a/0", "{\"expires\":1000}");
	assert_int_equal(con_leases_over(state, 1000 + CON_ENROL_KEEP_S - 1, true, &c),
			 0);
	assert_int_equal(c.n, 0);
	assert_int_equal(con_leases_over(state, 1000 + CON_ENROL_KEEP_S, true, &c), 0);
	assert_int_equal(c.n, 1);
	assert_string_equal(c.v[0].key, "enrol/worker/a/0");
	sp_changes_done(&c);
}

static void a_token_is_found_until_it_expires_and_is_kept_hashed(void **s)
{
	struct sp_changes c = {0};
	char text[CON_TOKEN_TEXT_MAX], id[CON_TOKEN_ID_MAX], found[CON_TOKEN_ID_MAX],
		user[SP_PASS_USER_MAX + 1] = "";
	(void)s;
	assert_int_equal(con_token_make("ann", 100, 200, &c, text, id), 0);
	assert_null(strstr(c.v[0].json, text));
	assert_int_equal(sp_state_apply(state, &c), 0);
	sp_changes_done(&c);
	assert_true(con_token_find(state, text, 199, user, found));
	assert_string_equal(user, "ann");
	assert_string_equal(found, id);
	assert_false(con_token_find(state, text, 200, user, NULL));
	text[10] ^= 1;
	assert_false(con_token_find(state, text, 150, user, NULL));
	assert_false(con_token_find(state, "", 150, user, NULL));
	assert_int_equal(con_token_make("no/name", 1, 2, &c, text, id), SP_E_MALFORMED);
}

static void a_token_whose_id_alone_fits_is_nobodys(void **s)
{
	struct sp_changes c = {0};
	char text[CON_TOKEN_TEXT_MAX], id[CON_TOKEN_ID_MAX], user[SP_PASS_USER_MAX + 1],
		key[64];
	(void)s;
	assert_int_equal(con_token_make("ann", 100, 0, &c, text, id), 0);
	sp_changes_done(&c);
	snprintf(key, sizeof(key), "token/%s", id);
	put(key, "{\"user\":\"ann\",\"hash\":\"00000000000000000000000000000000"
		 "00000000000000000000000000000000\"}");
	assert_false(con_token_find(state, text, 150, user, NULL));
	put(key, "{\"user\":\"ann\"}");
	assert_false(con_token_find(state, text, 150, user, NULL));
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_third_of_a_region_may_be_out_and_no_more),
		T(a_third_of_the_fleet_may_be_out_and_no_more),
		T(a_refusal_names_some_of_those_that_are_out),
		T(a_node_is_empty_when_all_its_workers_said_so),
		T(a_lease_that_is_over_does_not_count),
		T(the_last_node_of_a_region_is_never_let_out),
		T(workers_of_one_node_count_as_one),
		T(what_is_over_goes_and_nothing_else),
		T(a_user_whose_time_ended_is_revoked_once),
		T(a_late_enrolment_is_known_for_a_day_and_then_forgotten),
		T(a_token_is_found_until_it_expires_and_is_kept_hashed),
		T(a_token_whose_id_alone_fits_is_nobodys),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
