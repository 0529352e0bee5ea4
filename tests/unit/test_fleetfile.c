// The fleet file: what it becomes, what is wrong with it and where; what workers get.
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
#include "lib/fleetfile.h"
#include "lib/yaml.h"

#define HEAD "fleet: demo\nregions: [{name: eu}, {name: us}]\n"
#define TIER "tiers: [{name: free}]\n"

static const char whole[] =
	"fleet: demo\n"
	"endpoints: [\"https://config.example/v1\"]\n"
	"cover: 127.0.0.1:8080\n"
	"refresh: 2m\n"
	"regions:\n"
	"- name: eu\n"
	"- name: us\n"
	"exit_policy: [\"deny *:6881-6889\"]\n"
	"probe: {url: \"http://192.0.2.9/v1/probe\", interval: 1s}\n"
	"health: {fall: 3, hold_down: 30s, cap_percent: 30}\n"
	"nodes:\n"
	"- name: fra1\n"
	"  region: eu\n"
	"  group: fast\n"
	"  weight: 50\n"
	"  egress: [192.0.2.1, \"2001:db8::1\"]\n"
	"  carriers:\n"
	"  - {kind: tls, address: \"192.0.2.1:443\", listen: \"0.0.0.0:443\", "
	"server_name: www.example.org}\n"
	"- name: fra1\n"
	"  worker: 1\n"
	"  region: eu\n"
	"  carriers: [{kind: tls, address: \"192.0.2.1:444\", listen: \"0.0.0.0:444\"}]\n"
	"- name: nyc1\n"
	"  region: us\n"
	"  carriers: [{kind: tcp, address: \"192.0.2.3:80\", listen: \"0.0.0.0:443\"}]\n"
	"tiers:\n"
	"- {name: free, max_sessions: 2, rate: 1M, quota: 10G, quota_period: 30d}\n"
	"- {name: paid, groups: [fast]}\n"
	"users:\n"
	"- {name: alice, tier: paid, expires: 2027-01-31}\n"
	"- {name: bob, tier: free, quota: 1G, disabled: true, max_devices: 1}\n";

static struct sp_state *must_parse(const char *text)
{
	char why[SP_FLEETFILE_WHY_MAX] = "";
	struct sp_state *s = NULL;
	if (sp_fleetfile_parse("f.yaml", text, strlen(text), &s, why, sizeof(why)))
		fail_msg("%s", why);
	return s;
}

static void expect_error(const char *text, const char *want)
{
	char why[SP_FLEETFILE_WHY_MAX] = "";
	struct sp_state *s = NULL;
	assert_int_not_equal(
		sp_fleetfile_parse("f.yaml", text, strlen(text), &s, why, sizeof(why)),
		0);
	assert_string_equal(why, want);
	assert_null(s);
}

static void a_whole_file_becomes_entries(void **state)
{
	static const struct {
		const char *key, *json;
	} want[] = {
		{"fleet",
		 "{\"cover\":\"127.0.0.1:8080\",\"endpoints\":[\"https://config.example/"
		 "v1\"],\"health\":{\"cap_percent\":30,\"fall\":3,\"hold_down_ms\":30000}"
		 ",\"name\":\"demo\",\"probe\":{\"interval_ms\":1000,\"url\":\"http://"
		 "192.0.2.9/v1/probe\"},\"refresh_s\":120}"},
		{"node/fra1/0",
		 "{\"carriers\":[{\"address\":\"192.0.2.1:443\",\"kind\":\"tls\","
		 "\"listen\":\"0.0.0.0:443\",\"server_name\":\"www.example.org\"}],"
		 "\"egress\":[\"192.0.2.1\",\"2001:db8::1\"],\"group\":\"fast\","
		 "\"region\":\"eu\",\"weight\":50}"},
		{"node/fra1/1",
		 "{\"carriers\":[{\"address\":\"192.0.2.1:444\",\"kind\":\"tls\","
		 "\"listen\":\"0.0.0.0:444\"}],\"region\":\"eu\",\"weight\":100}"},
		{"policy", "{\"rules\":[\"deny *:6881-6889\"]}"},
		{"region/us", "{}"},
		{"tier/free", "{\"max_sessions\":2,\"quota_bytes\":10737418240,"
			      "\"quota_period_s\":2592000,\"rate_bps\":1048576}"},
		{"tier/paid", "{\"groups\":[\"fast\"]}"},
		{"user/alice",
		 "{\"expires\":1801353600,\"max_devices\":5,\"tier\":\"paid\"}"},
		{"user/bob", "{\"disabled\":true,\"max_devices\":1,\"quota_bytes\":"
			     "1073741824,\"tier\":\"free\"}"},
	};
	struct sp_state *s = must_parse(whole);
	(void)state;
	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++)
		assert_string_equal(sp_state_get(s, want[i].key, NULL), want[i].json);
	assert_int_equal(sp_state_count(s, ""), 11);
	sp_state_free(s);
}

static void what_a_verdict_or_a_probe_cannot_be_told_is_refused(void **state)
{
	static const struct {
		const char *part, *why;
	} bad[] = {
		{"health: {fall: 9}", "f.yaml:1: health.fall: want 1 to 8"},
		{"health: {rise: 0}", "f.yaml:1: health.rise: want 1 to 8"},
		{"health: {quorum: 33}",
		 "f.yaml:1: health.quorum: want 1 to 32 vantages; 0: more than half"},
		{"health: {panic_percent: 101}",
		 "f.yaml:1: health.panic_percent: want 0 to 100"},
		{"health: {hold_down: 2d}", "f.yaml:1: health.hold_down: want 0s to 1d"},
		{"health: {cycle: 1ms}", "f.yaml:1: health.cycle: want 10ms to 60s"},
		{"probe: {interval: 1ms}", "f.yaml:1: probe.interval: want 100ms to 1h"},
		{"probe: {deadline: 2m}", "f.yaml:1: probe.deadline: want 50ms to 60s"},
		{"probe: {url: x}", "f.yaml:1: probe.url: want a URL, http://…, or none"},
	};
	char text[sizeof(whole) + 64];
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(text, sizeof(text), "{fleet: a, %s}", bad[i].part);
		expect_error(text, bad[i].why);
	}
}

static void mistakes_are_told_with_line_place_and_remedy(void **state)
{
	(void)state;
	expect_error("fleet: [\n", "f.yaml:2: not YAML: did not find expected node "
				   "content");
	expect_error("fleet: a\nfleet: b\n",
		     "f.yaml:2: fleet: stands here twice; remove one");
	expect_error("fleet: a\nregion: []\n",
		     "f.yaml:2: region: unknown key; is it \"regions\"?");
	expect_error(HEAD, "f.yaml:1: tiers: missing; want a list");
	expect_error(HEAD TIER "users:\n- name: a\n  tier: fre\n",
		     "f.yaml:6: users[0].tier: no tier \"fre\"; is it \"free\"?");
	expect_error(HEAD TIER "users: [{name: a, tier: free}, {name: a, tier: free}]\n",
		     "f.yaml:4: users[1].name: user \"a\" stands above already; rename "
		     "or remove one");
	expect_error(HEAD TIER "nodes:\n- name: n\n  region: ue\n  carriers: []\n",
		     "f.yaml:6: nodes[0].region: no region \"ue\"; is it \"eu\"?");
	expect_error(HEAD TIER "nodes:\n- {name: n, region: eu, carriers: []}\n",
		     "f.yaml:5: nodes[0].carriers: found 0 entries; want 1 to 8");
	expect_error(HEAD TIER "nodes:\n- name: n\n  region: eu\n  carriers:\n"
			       "  - kind: quic\n    address: a:1\n",
		     "f.yaml:8: nodes[0].carriers[0].kind: found \"quic\"; want tls or "
		     "tcp");
	expect_error(HEAD TIER "exit_policy:\n- deny nonsense\n",
		     "f.yaml:5: exit_policy[0]: not an address, a network or '*'; host "
		     "names do not stand in rules");
	expect_error(HEAD "tiers: [{name: a, groups: [fast]}]\n",
		     "f.yaml:3: tiers[0].groups[0]: no node is in group \"fast\"; name "
		     "one that is");
	expect_error(HEAD "tiers: [{name: a, rate: fast}]\n",
		     "f.yaml:3: tiers[0].rate: \"fast\" is not a number; give a size in "
		     "bytes such "
		     "as 1500, 64K or 4M");
	expect_error(HEAD TIER "users: [{name: a, tier: free, expires: soon}]\n",
		     "f.yaml:4: users[0].expires: want a time such as 2027-01-31 or "
		     "2027-01-31T12:00:00Z (UTC)");
}

#define NODE(name_, carriers_)                                                           \
	"- {name: " name_ ", region: eu, carriers: [" carriers_ "]}\n"
#define TLS(address_, listen_)                                                           \
	"{kind: tls, address: \"" address_ "\", listen: \"" listen_ "\"}"

static void addresses_that_overlap_are_refused(void **state)
{
	(void)state;
	expect_error(HEAD TIER "nodes:\n" NODE("a", TLS("1.2.3.4:443", "0.0.0.0:443"))
			     NODE("b", TLS("1.2.3.4:443", "0.0.0.0:443")),
		     "f.yaml:6: nodes[1].carriers[0].address: 1.2.3.4:443 is advertised "
		     "at nodes[0].carriers[0] already; want another");
	expect_error(HEAD TIER
		     "nodes:\n" NODE("a", TLS("1.2.3.4:443", "0.0.0.0:443") ", " TLS(
						  "1.2.3.4:444", "10.0.0.1:443")),
		     "f.yaml:5: nodes[0].carriers[1].listen: 10.0.0.1:443 overlaps what "
		     "is bound at nodes[0].carriers[0]; want another port");
	// in whichever order
	expect_error(HEAD TIER
		     "nodes:\n" NODE("a", TLS("1.2.3.4:443", "10.0.0.1:443") ", " TLS(
						  "1.2.3.4:444", "0.0.0.0:443")),
		     "f.yaml:5: nodes[0].carriers[1].listen: 0.0.0.0:443 overlaps what "
		     "is bound at nodes[0].carriers[0]; want another port");
	// however it is written
	expect_error(HEAD TIER
		     "nodes:\n" NODE("a", TLS("Host.example:443", "0.0.0.0:443"))
			     NODE("b", TLS("host.example:443", "0.0.0.0:443")),
		     "f.yaml:6: nodes[1].carriers[0].address: host.example:443 is "
		     "advertised at nodes[0].carriers[0] already; want another");
	expect_error(HEAD TIER "nodes:\n" NODE("a", TLS("1.2.3.4:443", "0.0.0.0:443"))
			     NODE("b", TLS("[::ffff:1.2.3.4]:443", "0.0.0.0:443")),
		     "f.yaml:6: nodes[1].carriers[0].address: 1.2.3.4:443 is advertised "
		     "at nodes[0].carriers[0] already; want another");
	// two hosts may bind the same
	sp_state_free(must_parse(HEAD TIER
				 "nodes:\n" NODE("a", TLS("1.2.3.4:443", "0.0.0.0:443"))
					 NODE("b", TLS("1.2.3.5:443", "0.0.0.0:443"))));
	// and one host both families
	sp_state_free(must_parse(HEAD TIER "nodes:\n" NODE(
		"a", TLS("1.2.3.4:443", "0.0.0.0:443") ", " TLS("[2001:db8::1]:443",
								"[::]:443"))));
}

static void apply_leaves_alone_what_is_not_declared(void **state)
{
	struct sp_state *now = must_parse(whole), *next = must_parse(HEAD TIER);
	struct sp_changes c = {0};
	(void)state;
	assert_int_equal(sp_state_put_text(now, "identity/fra1/0", "{}", 2), 0);
	assert_int_equal(sp_state_put_text(now, "keys", "{}", 2), 0);
	assert_int_equal(sp_state_put_text(now, "token/x", "{}", 2), 0);
	assert_int_equal(sp_fleetfile_diff(now, next, &c), 0);
	assert_int_equal(sp_state_apply(now, &c), 0);
	assert_non_null(sp_state_get(now, "identity/fra1/0", NULL));
	assert_non_null(sp_state_get(now, "keys", NULL));
	assert_non_null(sp_state_get(now, "token/x", NULL));
	assert_int_equal(sp_state_count(now, "node/"), 0);
	assert_int_equal(sp_state_count(now, "user/"), 0);
	sp_changes_done(&c);
	sp_state_free(now);
	sp_state_free(next);
}

static void a_worker_gets_what_concerns_it(void **state)
{
	static const struct sp_position at = {3, 14, {0}};
	char why[SP_FLEET_WHY_MAX] = "", *json;
	size_t len;
	struct sp_fleet_worker *f;
	struct sp_state *s = must_parse(whole);
	json_t *o = json_pack("{s:[s]}", "pass",
			      "sallyport-signing-public:"
			      "5GJ6ruEoKRWpfn9Z2Regy47FwE052Bv2ytZZ+OcxyLA=");
	(void)state;
	assert_int_equal(sp_state_put(s, "keys", o), 0);
	json_decref(o);
	assert_int_equal(sp_state_put_text(s, "revoked/user/bob", "{\"before\":77}", 13),
			 0);
	assert_int_equal(sp_state_put_text(s,
					   "revoked/serial/"
					   "4493879619766989ffbad914069b90bc",
					   "{}", 2),
			 0);
	assert_int_equal(sp_derive_check(s, why, sizeof(why)), 0);
	assert_int_equal(
		sp_derive_worker(s, "fra1/0", &at, 1000, &json, &len, why, sizeof(why)),
		0);
	assert_null(strstr(json, "alice"));
	assert_null(strstr(json, "nyc1"));
	if (sp_fleet_worker_parse(json, len, &f, why, sizeof(why)))
		fail_msg("%s", why);
	assert_string_equal(f->group, "fast");
	assert_int_equal(f->revision.epoch, 3);
	assert_int_equal(f->revision.sequence, 14);
	assert_int_equal(f->n_tiers, 3); // and that of health checkers
	assert_non_null(sp_fleet_find_tier(f, SP_DERIVE_VANTAGE_TIER));
	assert_int_equal(f->tiers[1].rate_bps, 1048576);
	assert_int_equal(f->n_rules, 1);
	assert_int_equal(f->n_revoked, 1);
	assert_int_equal(f->n_revoked_users, 1);
	assert_int_equal(f->revoked_users[0].before_s, 77);
	assert_int_equal(f->cover.port, 8080);
	assert_int_equal(
		sp_derive_worker(s, "fra2/0", &at, 1000, &json, &len, why, sizeof(why)),
		SP_E_CONFIG);
	sp_fleet_worker_free(f);
	free(json);
	sp_state_free(s);
}

static void a_state_that_a_worker_would_refuse_is_refused(void **state)
{
	char why[SP_FLEET_WHY_MAX] = "";
	struct sp_state *s = must_parse(whole); // without keys for passes
	(void)state;
	assert_int_not_equal(sp_derive_check(s, why, sizeof(why)), 0);
	assert_string_equal(why, "the config of worker fra1/0: pass_keys: found 0 "
				 "entries; want 1 to 8");
	sp_state_free(s);
}

// Whether a worker's config is another with this entry in the state.
static bool changes_a_config(const char *key, const char *json)
{
	static const struct sp_position at = {1, 1, {0}};
	char why[SP_FLEET_WHY_MAX], *before, *after;
	size_t len;
	struct sp_state *s = must_parse(whole);
	assert_int_equal(
		sp_derive_worker(s, "fra1/0", &at, 1, &before, &len, why, sizeof(why)),
		0);
	assert_int_equal(sp_state_put_text(s, key, json, strlen(json)), 0);
	assert_int_equal(
		sp_derive_worker(s, "fra1/0", &at, 1, &after, &len, why, sizeof(why)), 0);
	bool changed = strcmp(before, after) != 0;
	free(before);
	free(after);
	sp_state_free(s);
	return changed;
}

static void whatever_changes_a_workers_config_is_known_to(void **state)
{
	static const struct {
		const char *key, *json;
	} all[] = {
		{"fleet", "{\"cover\":{\"address\":\"127.0.0.1\"}}"},
		{"keys", "{\"pass\":[\"x\"]}"},
		{"policy", "{\"rules\":[]}"},
		{"tier/free", "{\"max_sessions\":9}"},
		{"node/fra1/0", "{\"group\":\"slow\"}"},
		{"revoked/user/bob", "{\"before\":77}"},
		{"region/eu", "{\"x\":1}"},
		{"lease/fra1", "{\"until\":1}"},
		{"identity/fra1/0", "{\"static\":\"x\"}"},
		{"user/bob", "{\"tier\":\"paid\"}"},
		{"token/1", "{\"user\":\"bob\"}"},
		{"enrol/worker/fra1/0", "{\"hash\":\"x\"}"},
		{"vantage/v", "{\"region\":\"eu\"}"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (changes_a_config(all[i].key, all[i].json) !=
		    sp_derive_depends_on(all[i].key))
			fail_msg("%s", all[i].key);
}

static void names_of_workers_have_one_form(void **state)
{
	static const char *const bad[] = {"",      "a",     "a/",    "/0",
					  "a/x",   "a/256", "a/00",  "a/1/2",
					  "a b/0", "a/-1",  "a/1000"};
	char node[SP_FLEET_NAME_MAX + 1];
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(sp_worker_name_is_valid(bad[i]));
	assert_true(sp_worker_name_is_valid("fra-1.x/255"));
	assert_string_equal(sp_worker_node("fra-1.x/255", node), "fra-1.x");
}

#define T(name) cmocka_unit_test(name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_whole_file_becomes_entries),
		T(what_a_verdict_or_a_probe_cannot_be_told_is_refused),
		T(mistakes_are_told_with_line_place_and_remedy),
		T(addresses_that_overlap_are_refused),
		T(apply_leaves_alone_what_is_not_declared),
		T(a_worker_gets_what_concerns_it),
		T(a_state_that_a_worker_would_refuse_is_refused),
		T(whatever_changes_a_workers_config_is_known_to),
		T(names_of_workers_have_one_form),
	};
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("fleetfile", tests, NULL, NULL);
}
