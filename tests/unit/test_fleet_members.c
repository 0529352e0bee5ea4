// Lists of workers: of a signed config, and derived of the fleet's state.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/derive.h"
#include "lib/fleet.h"
#include "lib/key.h"

static char why[SP_FLEET_WHY_MAX];

static const char *key_of(uint8_t n, char *text)
{
	uint8_t key[32];
	memset(key, n, sizeof(key));
	return sp_key_format(SP_KEY_WORKER, false, key, text);
}

static char *one(const char *name, uint8_t n, const char *more, char *buf, size_t cap)
{
	char key[SP_KEY_TEXT_MAX];
	snprintf(buf, cap,
		 "{\"name\":\"%s\",\"public_key\":\"%s\",\"carriers\":[{\"kind\":"
		 "\"tls\",\"address\":\"192.0.2.%u:443\",\"ca_file\":\"/a\"}]%s}",
		 name, key_of(n, key), n, more);
	return buf;
}

static int parse(const char *list, struct sp_fleet_members *ret)
{
	char text[4096];
	snprintf(text, sizeof(text), "{\"format\":1,\"members\":[%s]}", list);
	return sp_fleet_members_parse(text, strlen(text), ret, why, sizeof(why));
}

static void members_are_sorted_by_home_id(void **state)
{
	struct sp_fleet_members m;
	char a[512], b[512], list[1100];
	(void)state;
	one("last", 1, ",\"home_id\":\"ff00000000000000\"", a, sizeof(a));
	one("first", 2, ",\"home_id\":\"0000000000000001\"", b, sizeof(b));
	snprintf(list, sizeof(list), "%s,%s", a, b);
	assert_int_equal(parse(list, &m), 0);
	assert_int_equal(m.n, 2);
	assert_string_equal(m.v[0].name, "first");
	assert_int_equal(m.v[0].home_id, 1);
	assert_int_equal(m.v[0].public_key[31], 2);
	assert_int_equal(m.v[1].n_carriers, 1);
	assert_string_equal(m.v[1].carriers[0].ca_file, "/a");
	sp_fleet_members_done(&m);
	assert_int_equal(parse("", &m), 0);
	assert_int_equal(m.n, 0);
	sp_fleet_members_done(&m);
}

static void two_members_of_one_home_id_are_refused(void **state)
{
	struct sp_fleet_members m;
	char a[512], b[512], list[1100];
	(void)state;
	one("x", 1, "", a, sizeof(a));
	one("y", 1, "", b, sizeof(b));
	snprintf(list, sizeof(list), "%s,%s", a, b);
	assert_int_equal(parse(list, &m), SP_E_CONFIG);
	assert_non_null(strstr(why, "one home_id"));
}

static void errors_name_their_place(void **state)
{
	struct sp_fleet_members m;
	char a[512], list[1100];
	(void)state;
	one("x", 1, "", a, sizeof(a));
	snprintf(list, sizeof(list), "%s,{\"name\":\"y\"}", a);
	assert_int_equal(parse(list, &m), SP_E_CONFIG);
	assert_non_null(strstr(why, "members[1]"));
	assert_int_equal(parse("7", &m), SP_E_CONFIG);
}

static void a_worker_config_with_members_prints_as_itself(void **state)
{
	char a[512], text[4096], key[SP_KEY_TEXT_MAX];
	uint8_t pk[32], sk[64];
	struct sp_fleet_worker *f;
	(void)state;
	crypto_sign_keypair(pk, sk);
	snprintf(text, sizeof(text),
		 "{\"format\":1,\"revision\":{\"epoch\":1,\"sequence\":1},\"tiers\":{"
		 "\"t\":"
		 "{}},\"pass_keys\":[\"%s\"],\"members\":[%s]}",
		 sp_key_format(SP_KEY_SIGNING, false, pk, key),
		 one("x", 3, "", a, sizeof(a)));
	if (sp_fleet_worker_parse(text, strlen(text), &f, why, sizeof(why)))
		fail_msg("%s", why);
	assert_int_equal(f->members.n, 1);
	char *first = sp_fleet_worker_print(f), *second;
	sp_fleet_worker_free(f);
	assert_non_null(strstr(first, "\"members\""));
	assert_int_equal(
		sp_fleet_worker_parse(first, strlen(first), &f, why, sizeof(why)), 0);
	second = sp_fleet_worker_print(f);
	assert_string_equal(first, second);
	sp_fleet_worker_free(f);
	free(first);
	free(second);
}

static void put(struct sp_state *s, const char *key, const char *json)
{
	assert_int_equal(sp_state_put_text(s, key, json, strlen(json)), 0);
}

static void enrol(struct sp_state *s, const char *worker, uint8_t n)
{
	char key[SP_STATE_KEY_MAX], json[512], text[SP_KEY_TEXT_MAX];
	snprintf(key, sizeof(key), "identity/%s", worker);
	snprintf(json, sizeof(json),
		 "{\"static\":\"%s\",\"control\":\"x\",\"home_id\":\"%016x\"}",
		 key_of(n, text), n);
	put(s, key, json);
}

#define CARRIERS                                                                         \
	"{\"carriers\":[{\"kind\":\"tcp\",\"address\":\"192.0.2.9:1\",\"bind\":"         \
	"\"0.0.0.0:1\"}],\"weight\":3,\"egress\":[\"192.0.2.9\"]}"

static void members_are_derived_of_who_is_declared_and_enrolled(void **state)
{
	struct sp_fleet_members m;
	uint8_t hash[32], other[32];
	struct sp_state *s;
	char *json;
	size_t len;
	(void)state;
	assert_int_equal(sp_state_new(&s), 0);
	put(s, "node/fra1/0", CARRIERS);
	put(s, "node/fra1/1", CARRIERS);
	put(s, "node/only-declared/0", CARRIERS);
	enrol(s, "fra1/0", 5);
	enrol(s, "fra1/1", 4);
	enrol(s, "only-enrolled/0", 7);
	assert_int_equal(sp_derive_members(s, &json, &len), 0);
	if (sp_fleet_members_parse(json, len, &m, why, sizeof(why)))
		fail_msg("%s in %s", why, json);
	assert_int_equal(m.n, 2);
	assert_string_equal(m.v[0].name, "fra1.1");
	assert_string_equal(m.v[1].name, "fra1");
	assert_int_equal(m.v[1].home_id, 5);
	assert_null(strstr(json, "bind"));
	sp_fleet_members_done(&m);
	free(json);
	sp_derive_members_hash(s, hash);
	put(s, "tier/gold", "{}");
	sp_derive_members_hash(s, other);
	assert_memory_equal(hash, other, 32);
	assert_true(sp_state_delete(s, "identity/fra1/1"));
	sp_derive_members_hash(s, other);
	assert_memory_not_equal(hash, other, 32);
	sp_state_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(members_are_sorted_by_home_id),
		cmocka_unit_test(two_members_of_one_home_id_are_refused),
		cmocka_unit_test(errors_name_their_place),
		cmocka_unit_test(a_worker_config_with_members_prints_as_itself),
		cmocka_unit_test(members_are_derived_of_who_is_declared_and_enrolled),
	};
	return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
