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

#define DEVICE "0909090909090909090909090909090909090909090909090909090909090909"

static const char worker_config[] =
	"{\"format\": 1, \"revision\": {\"epoch\": 2, \"sequence\": 7}, \"issued\": 100,"
	" \"expires\": 200, \"group\": \"eu\","
	" \"tiers\": {\"free\": {\"max_streams\": 10}, \"paid\": {\"rate_bps\": "
	"5000000}},"
	" \"exit_policy\": [\"allow 127.0.0.0/8\", \"deny *:25\"],"
	" \"pass_keys\": [\"SIGN\"],"
	" \"cover\": \"127.0.0.1:8080\","
	" \"revoked\": [\"ffffffffffffffffffffffffffffffff\","
	" \"00000000000000000000000000000001\"],"
	" \"revoked_devices\": [\"" DEVICE "\"],"
	" \"revoked_users\": [{\"name\": \"bob\", \"before\": 50},"
	" {\"name\": \"alice\", \"before\": 60}, {\"name\": \"bob\", \"before\": "
	"70}]}";

static bool is_revoked(const struct sp_fleet_worker *f, uint8_t serial, uint8_t device,
		       const char *user, uint64_t not_before_s)
{
	uint8_t s[16] = {[15] = serial}, d[32];
	memset(d, device, sizeof(d));
	const struct sp_fleet_holder who = {s, d, user, not_before_s};
	return sp_fleet_is_revoked(f, &who);
}

static const char client_config[] =
	"{\"format\": 1, \"revision\": {\"epoch\": 1, \"sequence\": 3}, \"exits\": ["
	"{\"name\": \"one\", \"region\": \"de\", \"home_id\": \"000000000000000b\", "
	"\"public_key\": "
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
	assert_int_equal(f->cover.port, 8080);
	assert_true(is_revoked(f, 1, 0, "eve", 0));
	assert_false(is_revoked(f, 2, 0, "eve", 0));
	sp_fleet_worker_free(f);
}

static void a_revoked_device_has_no_pass_that_holds(void **state)
{
	(void)state;
	struct sp_fleet_worker *f;
	const char *json = fill(worker_config, NULL, NULL);
	assert_int_equal(sp_fleet_worker_parse(json, strlen(json), &f, why, sizeof(why)),
			 0);
	assert_true(is_revoked(f, 2, 9, "eve", UINT64_MAX));
	assert_false(is_revoked(f, 2, 8, "eve", UINT64_MAX));
	sp_fleet_worker_free(f);
}

static void a_revoked_user_may_come_back_with_a_later_pass(void **state)
{
	(void)state;
	struct sp_fleet_worker *f;
	const char *json = fill(worker_config, NULL, NULL);
	assert_int_equal(sp_fleet_worker_parse(json, strlen(json), &f, why, sizeof(why)),
			 0);
	assert_int_equal(f->n_revoked_users, 2);
	assert_true(is_revoked(f, 2, 0, "alice", 59));
	assert_false(is_revoked(f, 2, 0, "alice", 60));
	assert_true(is_revoked(f, 2, 0, "bob", 69)); // named twice: the later time
	assert_false(is_revoked(f, 2, 0, "bob", 70));
	assert_false(is_revoked(f, 2, 0, "bo", 0));
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

static void the_groups_of_a_tier_bind_its_passes(void **state)
{
	(void)state;
	struct sp_fleet_tier tier = {.name = "free", .n_groups = 1, .groups = {"us"}};
	struct sp_fleet_worker f = {.group = "eu", .tiers = &tier, .n_tiers = 1};
	struct sp_pass pass = {.tier = "free"};
	assert_false(sp_fleet_admits(&f, &pass));
	pass.groups_n = 1;
	strcpy(pass.groups[0], "eu");
	assert_false(sp_fleet_admits(&f, &pass));
	strcpy(tier.groups[0], "eu");
	assert_true(sp_fleet_admits(&f, &pass));
	strcpy(pass.tier, "paid");
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
		{false, "\"format\": 1", "\"format\": 2", "format: found 2; this"},
		{false, "\"format\": 1", "\"format\": 2, \"new\": 1", "format: found 2"},
		{false, "\"format\": 1,", "", "format: missing; want an integer"},
		{false, "\"epoch\": 2", "\"epoch\": -1", "revision.epoch: found -1"},
		{false, "\"epoch\": 2", "\"epoch\": 4294967296",
		 "revision.epoch: found 4294967296; want 0 to 4294967295"},
		{false, "\"epoch\": 2", "\"epoch\": 2.5",
		 "revision.epoch: found a fraction"},
		{false, "\"epoch\": 2", "\"epoch\": \"x\"",
		 "revision.epoch: found a text; want an integer"},
		{false, "\"sequence\": 7", "\"sequence\": 99999999999999999999",
		 "document: line 1, column"},
		{false, "\"group\"", "\"gruop\"", "gruop: unknown key; is it \"group\"?"},
		{false, "\"group\"", "\"colour\\n\"", "colour?: unknown key; known are"},
		{false, "\"eu\"", "\"e u\"", "group: found \"e u\"; want letters"},
		{false, "\"eu\"", "\"\"", "group: found 0 bytes; want 1 to 32"},
		{false, "\"eu\"", "\"e\\u0007\"", "group: found bytes that are not"},
		{false, "\"expires\": 200", "\"expires\": 100",
		 "expires: found 100; want a time later"},
		{false, "{\"max_streams\": 10}", "{\"max_stream\": 10}",
		 "tiers.free.max_stream: unknown key; is it \"max_streams\"?"},
		{false, "{\"max_streams\": 10}", "7",
		 "tiers.free: found an integer; want"},
		{false, "\"free\"", "\"fr ee\"", "tiers.fr?ee: a tier's name is"},
		{false, "{\"max_streams\": 10}", "{\"groups\": [\"a\", \"\"]}",
		 "tiers.free.groups[1]: want a name"},
		{false, "\"deny *:25\"", "5", "exit_policy[1]: want a rule"},
		{false, "\"deny *:25\"", "\"deny *:smtp\"",
		 "exit_policy[1]: found \"deny *:smtp\": a port is a number"},
		{false, "\"SIGN\"", "\"nonsense\"", "pass_keys[0]: not a key"},
		{false, "\"SIGN\"", "\"WORK\"",
		 "pass_keys[0]: this is a public worker key; a public signing key"},
		{false, "\"SIGN\"", "7", "pass_keys[0]: want the text of a public"},
		{false, "\"SIGN\"", "", "pass_keys: found 0 entries; want 1 to 8"},
		{false, "\"ffff", "\"fff", "revoked[0]: want the serial"},
		{false, "[\"0909", "[\"09",
		 "revoked_devices[0]: want the public key of a device, 64"},
		{false, "\"before\": 60", "\"befor\": 60",
		 "revoked_users[1].befor: unknown key; is it \"before\"?"},
		{false, "\"name\": \"alice\", ", "",
		 "revoked_users[1].name: missing; want a text"},
		{false, "127.0.0.1:8080", "www.example:80",
		 "cover: found \"www.example:80\"; want ADDRESS:PORT"},
		{false, "127.0.0.1:8080", "127.0.0.1:0", "cover: found"},
		{false, "\"issued\"", "\"format\"", "document: line 1, column"},
		{false, "{\"format", "[{\"format", "document: line 1, column"},
		{true, "\"tls\"", "\"udp\"", "exits[0].carriers[0].kind: found \"udp\""},
		{true, "[::1]:443", "::1:443",
		 "exits[0].carriers[0].address: found \"::1:443\""},
		{true, "192.0.2.1:80", "192.0.2.1",
		 "exits[0].carriers[1].address: found"},
		{true, "0011", "001",
		 "exits[0].carriers[0].pin_sha256: want the SHA-256"},
		{true, "\"pin_sha", "\"ca_file\": \"x\", \"pin_sha",
		 "exits[0].carriers[0].ca_file: a pin is all"},
		{true, "\"kind\": \"tcp\"", "\"kind\": \"tcp\", \"server_name\": \"a\"",
		 "exits[0].carriers[1]: found server_name, pin_sha256 or ca_file; they"},
		{true, "www.example", "www..example",
		 "exits[0].carriers[0].server_name: found \"www..example\""},
		{true, "0b\"", "b\"", "exits[0].home_id: want 16 hexadecimal digits"},
		{true, "0b\"", "00\"", "exits[0].home_id: want 16 hexadecimal digits"},
		{true, "WORK", "SIGN", "exits[0].public_key: this is a public signing"},
		{true, "\"exits\": [", "\"exits\": [[", "document: line 1, column"},
		{true, "\"exits\": [", "\"exits\": [7, ", "exits[0]: found an integer"},
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

static void two_exits_may_not_share_name_key_or_home(void **state)
{
	static const struct {
		const char *name, *home_id, *text;
	} cases[] = {
		{"a", "2", "exits[1].name: found that of exits[0]"},
		{"b", "2", "exits[1].public_key: found that of exits[0]"},
		{"b", "1", "exits[1].home_id: found that of exits[0]"},
	};
	char json[4096], other[SP_KEY_TEXT_MAX];
	uint8_t pk[32], sk[32];
	(void)state;
	crypto_box_keypair(pk, sk);
	sp_key_format(SP_KEY_WORKER, false, pk, other);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(json, sizeof(json),
			 "{\"format\": 1, \"revision\": {\"epoch\": 1, \"sequence\": 3}, "
			 "\"exits\": ["
			 "{\"name\": \"a\", \"home_id\": \"0000000000000001\", "
			 "\"public_key\": \"%s\", \"carriers\": "
			 "[{\"kind\": \"tcp\", \"address\": \"192.0.2.1:80\"}]},"
			 "{\"name\": \"%s\", \"home_id\": \"000000000000000%s\", "
			 "\"public_key\": \"%s\", \"carriers\": "
			 "[{\"kind\": \"tcp\", \"address\": \"192.0.2.1:80\"}]}]}",
			 worker_key, cases[i].name, cases[i].home_id,
			 i == 1 ? worker_key : other);
		assert_int_equal(parse_client(json), SP_E_CONFIG);
		if (!strstr(why, cases[i].text))
			fail_msg("\"%s\" does not say \"%s\"", why, cases[i].text);
	}
}

static void a_home_id_that_is_not_given_follows_from_the_key(void **state)
{
	(void)state;
	struct sp_fleet_client *f;
	const char *json = fill(client_config, "\"home_id\": \"000000000000000b\",", "");
	uint8_t hash[32];
	assert_int_equal(sp_fleet_client_parse(json, strlen(json), &f, why, sizeof(why)),
			 0);
	crypto_generichash(hash, 32, f->exits[0].public_key, 32, NULL, 0);
	uint64_t want = 0;
	for (int i = 0; i < 8; i++)
		want = want << 8 | hash[i];
	assert_true(f->exits[0].home_id == want);
	sp_fleet_client_free(f);
}

static void revoked_serials_are_kept_once(void **state)
{
	(void)state;
	struct sp_fleet_worker *f;
	const char *json = fill(worker_config, "\"ffffffffffffffffffffffffffffffff\"",
				"\"00000000000000000000000000000001\", "
				"\"000000000000000000000000000000FE\"");
	assert_int_equal(sp_fleet_worker_parse(json, strlen(json), &f, why, sizeof(why)),
			 0);
	assert_int_equal(f->n_revoked, 2);
	assert_true(is_revoked(f, 0xfe, 0, "eve", 0));
	sp_fleet_worker_free(f);
}

static void too_many_entries_are_a_limit(void **state)
{
	(void)state;
	char many[4096] = "\"SIGN\"";
	for (int i = 0; i < SP_SIGNED_KEYS_MAX; i++)
		strcat(many, ", \"SIGN\"");
	assert_int_equal(parse_worker(fill(worker_config, "\"SIGN\"", many)), SP_E_LIMIT);
	assert_non_null(strstr(why, "pass_keys: found 9 entries; want 1 to 8"));
	char *big = calloc(1, SP_SIGNED_BODY_MAX + 2);
	memset(big, ' ', SP_SIGNED_BODY_MAX + 1);
	assert_int_equal(parse_worker(big), SP_E_LIMIT);
	free(big);
}

// The text of `json` printed; free().
static char *printed(bool client, const char *json)
{
	char *text;
	if (client) {
		struct sp_fleet_client *f;
		assert_int_equal(
			sp_fleet_client_parse(json, strlen(json), &f, why, sizeof(why)),
			0);
		text = sp_fleet_client_print(f);
		sp_fleet_client_free(f);
	} else {
		struct sp_fleet_worker *f;
		assert_int_equal(
			sp_fleet_worker_parse(json, strlen(json), &f, why, sizeof(why)),
			0);
		text = sp_fleet_worker_print(f);
		sp_fleet_worker_free(f);
	}
	assert_non_null(text);
	return text;
}

static void what_is_printed_parses_and_prints_as_itself(void **state)
{
	static const char *const kept[2][12] = {
		{"\"epoch\": 2", "\"sequence\": 7", "\"issued\": 100", "\"expires\": 200",
		 "\"group\": \"eu\"", "\"max_streams\": 10", "\"rate_bps\": 5000000",
		 "\"allow 127.0.0.0/8\"", "\"deny *:25\"",
		 "sallyport-signing-public:", "\"ffffffffffffffffffffffffffffffff\""},
		{"\"sequence\": 3", "\"one\"", "\"de\"", "\"000000000000000b\"",
		 "sallyport-worker-public:", "\"tls\"", "\"[::1]:443\"",
		 "\"www.example\"", "\"tcp\"", "\"192.0.2.1:80\"",
		 "\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\""}};
	(void)state;
	for (int client = 0; client < 2; client++) {
		char *one = printed(
			client, fill(client ? client_config : worker_config, NULL, NULL));
		char *two = printed(client, one);
		assert_string_equal(one, two);
		for (int i = 0; kept[client][i]; i++)
			if (!strstr(one, kept[client][i]))
				fail_msg("%s is lost in %s", kept[client][i], one);
		free(one);
		free(two);
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
		cmocka_unit_test(the_groups_of_a_tier_bind_its_passes),
		cmocka_unit_test(a_client_config_is_read_whole),
		cmocka_unit_test(every_error_names_its_place),
		cmocka_unit_test(two_exits_may_not_share_name_key_or_home),
		cmocka_unit_test(a_home_id_that_is_not_given_follows_from_the_key),
		cmocka_unit_test(revoked_serials_are_kept_once),
		cmocka_unit_test(a_revoked_device_has_no_pass_that_holds),
		cmocka_unit_test(a_revoked_user_may_come_back_with_a_later_pass),
		cmocka_unit_test(too_many_entries_are_a_limit),
		cmocka_unit_test(what_is_printed_parses_and_prints_as_itself),
		cmocka_unit_test(revisions_are_compared_by_epoch_then_sequence),
	};
	return cmocka_run_group_tests_name("fleet", tests, setup, NULL);
}
