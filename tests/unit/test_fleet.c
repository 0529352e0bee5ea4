#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/fleet.h"
#include "lib/key.h"

static char signing[SP_KEY_TEXT_MAX], worker_key[SP_KEY_TEXT_MAX];
static char why[SP_FLEET_WHY_MAX];

static int setup(void **state)
{
	uint8_t pk[32], sk[64];
	(void)state;
	if (sodium_init() < 0)
		return -1;
	crypto_sign_keypair(pk, sk);
	sp_key_format(SP_KEY_SIGNING, false, pk, signing);
	crypto_box_keypair(pk, sk);
	sp_key_format(SP_KEY_WORKER, false, pk, worker_key);
	return 0;
}

// Replaces the first `from` in `text` of 8192 bytes by `to`. False: it is not there.
static bool replace(char *text, const char *from, const char *to)
{
	char rest[8192];
	char *at = strstr(text, from);
	if (!at)
		return false;
	size_t room = 8192 - (size_t)(at - text);
	strcpy(rest, at + strlen(from));
	assert_true(strlen(rest) + strlen(to) < room);
	strcpy(at, to);
	strcat(at, rest);
	return true;
}

// The template with SIGN and WORK replaced by keys, and first `from` by `to`.
static char *fill(const char *template, const char *from, const char *to)
{
	static char text[8192];
	strcpy(text, template);
	if (from)
		assert_true(replace(text, from, to));
	replace(text, "SIGN", signing);
	replace(text, "WORK", worker_key);
	return text;
}

static const char worker_config[] =
	"{\"format\": 1, \"revision\": {\"epoch\": 2, \"sequence\": 7}, \"issued\": 100,"
	" \"expires\": 200, \"group\": \"eu\","
	" \"tiers\": {\"free\": {\"max_streams\": 10}, \"paid\": {\"rate_bps\": "
	"5000000}},"
	" \"exit_policy\": [\"allow 127.0.0.0/8\", \"deny *:25\"],"
	" \"pass_keys\": [\"SIGN\"],"
	" \"revoked\": [\"ffffffffffffffffffffffffffffffff\","
	" \"00000000000000000000000000000001\"]}";

static const char client_config[] =
	"{\"format\": 1, \"revision\": {\"epoch\": 1, \"sequence\": 3}, \"exits\": ["
	"{\"name\": \"one\", \"region\": \"de\", \"home_id\": 11, \"public_key\": "
	"\"WORK\","
	" \"carriers\": [{\"kind\": \"tls\", \"address\": \"[::1]:443\", "
	"\"server_name\": "
	"\"www.example\", \"pin_sha256\": "
	"\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"},"
	" {\"kind\": \"tcp\", \"address\": \"192.0.2.1:80\"}]}]}";

static int parse_worker(const char *json)
{
	struct sp_fleet_worker *f;
	int err = sp_fleet_worker_parse(json, strlen(json), &f, why, sizeof(why));
	if (!err)
		sp_fleet_worker_free(f);
	return err;
}

static int parse_client(const char *json)
{
	struct sp_fleet_client *f;
	int err = sp_fleet_client_parse(json, strlen(json), &f, why, sizeof(why));
	if (!err)
		sp_fleet_client_free(f);
	return err;
}

static void a_worker_config_is_read_whole(void **state)
{
	(void)state;
	struct sp_fleet_worker *f;
	const char *json = fill(worker_config, NULL, NULL);
	uint8_t serial[16] = {[15] = 1};
	assert_int_equal(sp_fleet_worker_parse(json, strlen(json), &f, why, sizeof(why)),
			 0);
	assert_int_equal(f->revision.epoch, 2);
	assert_int_equal(f->revision.sequence, 7);
	assert_int_equal(f->expires_s, 200);
	assert_int_equal(f->n_rules, 2);
	assert_string_equal(f->rules[1], "deny *:25");
	assert_int_equal(sp_fleet_find_tier(f, "free")->max_streams, 10);
	assert_int_equal(sp_fleet_find_tier(f, "paid")->rate_bps, 5000000);
	assert_null(sp_fleet_find_tier(f, "other"));
	assert_int_equal(f->pass_keys.n, 1);
	assert_true(sp_fleet_is_revoked(f, serial));
	serial[15] = 2;
	assert_false(sp_fleet_is_revoked(f, serial));
	sp_fleet_worker_free(f);
}

static void groups_decide_who_is_admitted(void **state)
{
	(void)state;
	struct sp_fleet_worker f = {.group = "eu"};
	struct sp_pass pass = {.groups_n = 1, .groups = {"us"}};
	assert_false(sp_fleet_admits(&f, &pass));
	strcpy(pass.groups[0], "eu");
	assert_true(sp_fleet_admits(&f, &pass));
	pass.groups_n = 0;
	assert_true(sp_fleet_admits(&f, &pass));
	strcpy(pass.groups[0], "us");
	pass.groups_n = 1;
	f.group[0] = '\0';
	assert_true(sp_fleet_admits(&f, &pass));
}

static void a_client_config_is_read_whole(void **state)
{
	(void)state;
	struct sp_fleet_client *f;
	const char *json = fill(client_config, NULL, NULL);
	assert_int_equal(sp_fleet_client_parse(json, strlen(json), &f, why, sizeof(why)),
			 0);
	assert_int_equal(f->n_exits, 1);
	assert_int_equal(f->exits[0].home_id, 11);
	assert_int_equal(f->exits[0].n_carriers, 2);
	assert_int_equal(f->exits[0].carriers[0].address.port, 443);
	assert_true(f->exits[0].carriers[0].pinned);
	assert_int_equal(f->exits[0].carriers[0].pin[1], 0x11);
	assert_string_equal(f->exits[0].carriers[0].server_name, "www.example");
	assert_int_equal(f->exits[0].carriers[1].kind, SP_CARRIER_TCP);
	sp_fleet_client_free(f);
}

static void every_error_names_its_place(void **state)
{
	(void)state;
	static const struct {
		bool client;
		const char *from, *to, *text;
	} cases[] = {
		{false, "\"format\": 1", "\"format\": 2", "format is 2"},
		{false, "\"format\": 1,", "", "\"format\" is missing"},
		{false, "\"epoch\": 2", "\"epoch\": -1", "revision.epoch: found -1"},
		{false, "\"epoch\": 2", "\"epoch\": \"x\"",
		 "revision.epoch: found a text"},
		{false, "\"group\"", "\"gruop\"", "unknown key \"gruop\""},
		{false, "\"expires\": 200", "\"expires\": 100", "not later than issued"},
		{false, "{\"max_streams\": 10}", "{\"max_stream\": 10}",
		 "tiers.free: unknown key \"max_stream\""},
		{false, "\"deny *:25\"", "5", "exit_policy[1]: want a rule"},
		{false, "\"SIGN\"", "\"nonsense\"", "pass_keys[0]: "},
		{false, "\"SIGN\"", "", "pass_keys is empty"},
		{false, "\"ffff", "\"fff", "revoked[0]: want a pass's serial"},
		{false, "\"issued\"", "\"format\"", "duplicate"},
		{true, "\"tls\"", "\"udp\"", "exits[0].carriers[0]: kind is \"udp\""},
		{true, "[::1]:443", "::1:443",
		 "exits[0].carriers[0]: address is \"::1:443\""},
		{true, "192.0.2.1:80", "192.0.2.1", "exits[0].carriers[1]: address"},
		{true, "0011", "001", "pin_sha256: want 64"},
		{true, "\"kind\": \"tcp\"", "\"kind\": \"tcp\", \"server_name\": \"a\"",
		 "are for kind \"tls\""},
		{true, "\"home_id\": 11,", "", "exits[0]: key \"home_id\" is missing"},
		{true, "WORK", "SIGN", "exits[0]: public_key: "},
		{true, "\"exits\": [", "\"exits\": [[", "line 1, column"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *json = fill(cases[i].client ? client_config : worker_config,
					cases[i].from, cases[i].to);
		int err = cases[i].client ? parse_client(json) : parse_worker(json);
		if (!err || !strstr(why, cases[i].text))
			fail_msg("case %zu: error %d, \"%s\" does not say \"%s\"", i, err,
				 why, cases[i].text);
	}
}

static void two_exits_may_not_share_a_name_or_a_home(void **state)
{
	(void)state;
	char json[4096];
	for (int same_name = 0; same_name < 2; same_name++) {
		snprintf(json, sizeof(json),
			 "{\"format\": 1, \"revision\": {\"epoch\": 1, \"sequence\": 3}, "
			 "\"exits\": ["
			 "{\"name\": \"a\", \"home_id\": 1, \"public_key\": \"%s\", "
			 "\"carriers\": "
			 "[{\"kind\": \"tcp\", \"address\": \"192.0.2.1:80\"}]},"
			 "{\"name\": \"%s\", \"home_id\": %d, \"public_key\": \"%s\", "
			 "\"carriers\": "
			 "[{\"kind\": \"tcp\", \"address\": \"192.0.2.1:80\"}]}]}",
			 worker_key, same_name ? "a" : "b", same_name ? 2 : 1,
			 worker_key);
		assert_int_equal(parse_client(json), SP_E_CONFIG);
		assert_non_null(
			strstr(why, "exits[1]: has the name or home_id of exits[0]"));
	}
}

static void revisions_are_compared_by_epoch_then_sequence(void **state)
{
	(void)state;
	struct sp_fleet_revision a = {1, 9}, b = {2, 1}, c = {2, 2};
	assert_true(sp_fleet_revision_compare(&a, &b) < 0);
	assert_true(sp_fleet_revision_compare(&c, &b) > 0);
	assert_int_equal(sp_fleet_revision_compare(&b, &b), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_worker_config_is_read_whole),
		cmocka_unit_test(groups_decide_who_is_admitted),
		cmocka_unit_test(a_client_config_is_read_whole),
		cmocka_unit_test(every_error_names_its_place),
		cmocka_unit_test(two_exits_may_not_share_a_name_or_a_home),
		cmocka_unit_test(revisions_are_compared_by_epoch_then_sequence),
	};
	return cmocka_run_group_tests_name("fleet", tests, setup, NULL);
}
