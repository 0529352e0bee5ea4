// Enrolment tokens: who may join with which, and what becomes of the state.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "controller/enrol.h"
#include "lib/key.h"

#define NOW 1000

struct world {
	struct sp_state *state;
	struct sp_enroltoken t;
	char token[SP_ENROLTOKEN_TEXT_MAX];
	uint8_t control[32], own[32];
	struct con_enrol_claim claim;
	struct sp_enroltoken who; // of the last judgement
};

static void put(struct world *w, const char *key, const char *json)
{
	assert_int_equal(sp_state_put_text(w->state, key, json, strlen(json)), 0);
}

static void setup(struct world *w)
{
	*w = (struct world){.t = {.enrol = "tcp://192.0.2.1:3",
				  .router = "tcp://192.0.2.1:2",
				  .publisher = "tcp://192.0.2.1:1"}};
	assert_int_equal(sp_state_new(&w->state), 0);
	put(w, "region/eu", "{}");
	put(w, "node/fra1/0", "{}");
	put(w, "node/fra2/0", "{}");
	randombytes_buf(w->control, 32);
	randombytes_buf(w->own, 32);
	w->claim = (struct con_enrol_claim){w->token, w->control, w->own};
}

static void teardown(struct world *w)
{
	sp_state_free(w->state);
}

static void apply(struct world *w, struct sp_changes *c)
{
	assert_int_equal(sp_state_apply(w->state, c), 0);
	sp_changes_done(c);
}

static int make(struct world *w, const char *node, const char *region, bool again)
{
	struct sp_changes c = {0};
	int err = con_enrol_make(w->state, node, region, NOW + 600, again, &w->t, &c);
	if (err)
		return err;
	assert_int_equal(sp_enroltoken_format(&w->t, w->token), 0);
	apply(w, &c);
	return 0;
}

// Judges, and does what an accepted one leads to.
static enum con_enrol_verdict join_at(struct world *w, uint64_t now_s)
{
	struct sp_changes c = {0};
	enum con_enrol_verdict v =
		con_enrol_judge(w->state, &w->claim, now_s, &w->who, &c);
	if (v) {
		assert_int_equal(c.n, 0);
		assert_null(c.v);
	} else {
		assert_true(c.n > 0);
		apply(w, &c);
	}
	return v;
}

static enum con_enrol_verdict join(struct world *w)
{
	return join_at(w, NOW);
}

static void assert_member(struct world *w, const char *key, const char *member,
			  const char *want)
{
	json_t *o = sp_state_get_object(w->state, key);
	assert_non_null(o);
	assert_string_equal(json_string_value(json_object_get(o, member)), want);
	json_decref(o);
}

static void a_worker_with_a_token_becomes_an_identity_with_its_keys(void **state)
{
	struct world w;
	char text[SP_KEY_TEXT_MAX];
	(void)state;
	setup(&w);
	assert_int_equal(make(&w, "fra1/0", NULL, false), 0);
	assert_int_equal(join(&w), CON_ENROL_OK);
	assert_string_equal(w.who.node, "fra1/0");
	assert_true(sodium_is_zero(w.who.secret, sizeof(w.who.secret)));
	assert_member(&w, "identity/fra1/0", "control",
		      sp_key_format(SP_KEY_CONTROL, false, w.control, text));
	assert_member(&w, "identity/fra1/0", "static",
		      sp_key_format(SP_KEY_WORKER, false, w.own, text));
	teardown(&w);
}

static void a_vantage_gets_the_region_of_its_token(void **state)
{
	struct world w;
	char text[SP_KEY_TEXT_MAX];
	(void)state;
	setup(&w);
	assert_int_equal(make(&w, "ams", "mars", false), -ENOENT);
	assert_int_equal(make(&w, "ams", "eu", false), 0);
	assert_int_equal(join(&w), CON_ENROL_OK);
	assert_member(&w, "vantage/ams", "region", "eu");
	assert_member(&w, "vantage/ams", "device",
		      sp_key_format(SP_KEY_DEVICE, false, w.own, text));
	assert_null(sp_state_get(w.state, "identity/ams", NULL));
	teardown(&w);
}

static void the_state_holds_no_secret(void **state)
{
	struct world w;
	struct sp_state_entry e;
	char hex[65], base64[64];
	(void)state;
	setup(&w);
	assert_int_equal(make(&w, "fra1/0", NULL, false), 0);
	sodium_bin2hex(hex, sizeof(hex), w.t.secret, 32);
	sodium_bin2base64(base64, sizeof(base64), w.t.secret, 32,
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	for (size_t at = 0; sp_state_next(w.state, "", &at, &e);) {
		assert_null(strstr(e.json, hex));
		assert_null(strstr(e.json, base64));
	}
	assert_true(sp_state_key_is_private("enrol/worker/fra1/0"));
	teardown(&w);
}

static void a_token_is_for_one_holder_who_may_ask_again(void **state)
{
	struct world w;
	uint8_t other[32];
	(void)state;
	setup(&w);
	assert_int_equal(make(&w, "fra1/0", NULL, false), 0);
	assert_int_equal(join(&w), CON_ENROL_OK);
	assert_int_equal(join(&w), CON_ENROL_AGAIN); // the answer was lost
	assert_false(con_enrol_is_refused(CON_ENROL_AGAIN));
	randombytes_buf(other, sizeof(other));
	w.claim.own_key = other;
	assert_int_equal(join(&w), CON_ENROL_USED);
	w.claim.own_key = w.own;
	w.claim.control_key = other;
	assert_int_equal(join(&w), CON_ENROL_USED);
	assert_true(con_enrol_is_refused(CON_ENROL_USED));
	teardown(&w);
}

static void a_token_ends_at_its_time(void **state)
{
	struct world w;
	(void)state;
	setup(&w);
	assert_int_equal(make(&w, "fra1/0", NULL, false), 0);
	assert_int_equal(join_at(&w, NOW + 600), CON_ENROL_EXPIRED);
	assert_null(sp_state_get(w.state, "identity/fra1/0", NULL));
	assert_int_equal(join_at(&w, NOW + 599), CON_ENROL_OK);
	teardown(&w);
}

static void a_wrong_secret_and_a_token_never_made_look_the_same(void **state)
{
	struct world w;
	(void)state;
	setup(&w);
	assert_int_equal(make(&w, "fra1/0", NULL, false), 0);
	struct sp_enroltoken t = w.t;
	for (size_t bit = 0; bit < 256; bit += 17) {
		t = w.t;
		t.secret[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		assert_int_equal(sp_enroltoken_format(&t, w.token), 0);
		assert_int_equal(join(&w), CON_ENROL_UNKNOWN);
	}
	t = w.t;
	strcpy(t.node, "fra2/0"); // for which none was made
	assert_int_equal(sp_enroltoken_format(&t, w.token), 0);
	assert_int_equal(join(&w), CON_ENROL_UNKNOWN);
	strcpy(t.node, "fra1"); // nor as a vantage
	assert_int_equal(sp_enroltoken_format(&t, w.token), 0);
	assert_int_equal(join(&w), CON_ENROL_UNKNOWN);
	w.claim.token = "sallyport-enrol:nonsense";
	assert_int_equal(join(&w), CON_ENROL_MALFORMED);
	assert_null(sp_state_get(w.state, "identity/fra1/0", NULL));
	teardown(&w);
}

static void a_newer_token_voids_the_older(void **state)
{
	struct world w;
	char older[SP_ENROLTOKEN_TEXT_MAX];
	(void)state;
	setup(&w);
	assert_int_equal(make(&w, "fra1/0", NULL, false), 0);
	strcpy(older, w.token);
	assert_int_equal(make(&w, "fra1/0", NULL, false), 0);
	w.claim.token = older;
	assert_int_equal(join(&w), CON_ENROL_UNKNOWN);
	w.claim.token = w.token;
	assert_int_equal(join(&w), CON_ENROL_OK);
	teardown(&w);
}

static void an_enrolled_node_is_replaced_on_demand_only(void **state)
{
	struct world w;
	char text[SP_KEY_TEXT_MAX];
	(void)state;
	setup(&w);
	assert_int_equal(make(&w, "fra1/0", NULL, false), 0);
	assert_int_equal(join(&w), CON_ENROL_OK);
	assert_int_equal(make(&w, "fra1/0", NULL, false), -EEXIST);
	assert_int_equal(make(&w, "fra1/0", NULL, true), 0);
	randombytes_buf(w.control, 32);
	assert_int_equal(join(&w), CON_ENROL_OK);
	assert_member(&w, "identity/fra1/0", "control",
		      sp_key_format(SP_KEY_CONTROL, false, w.control, text));
	teardown(&w);
}

static void a_key_of_another_node_is_refused(void **state)
{
	struct world w;
	uint8_t fresh[32];
	(void)state;
	setup(&w);
	assert_int_equal(make(&w, "fra1/0", NULL, false), 0);
	assert_int_equal(join(&w), CON_ENROL_OK);
	assert_int_equal(make(&w, "fra2/0", NULL, false), 0);
	assert_int_equal(join(&w), CON_ENROL_KEY); // both keys are fra1/0's
	randombytes_buf(fresh, sizeof(fresh));
	w.claim.control_key = fresh;
	assert_int_equal(join(&w), CON_ENROL_KEY); // the static key still is
	w.claim.own_key = fresh;
	assert_int_equal(join(&w), CON_ENROL_OK);
	// a vantage's control key counts, too
	assert_int_equal(make(&w, "ams", "eu", false), 0);
	assert_int_equal(join(&w), CON_ENROL_KEY);
	teardown(&w);
}

static void only_what_the_fleet_file_has_may_join(void **state)
{
	struct world w;
	(void)state;
	setup(&w);
	assert_int_equal(make(&w, "par1/0", NULL, false), -ENOENT);
	assert_int_equal(make(&w, "fra1", NULL, false), SP_E_MALFORMED);
	assert_int_equal(make(&w, "fra1/x", NULL, false), SP_E_MALFORMED);
	assert_int_equal(make(&w, "a/0", "eu", false), SP_E_MALFORMED);
	assert_int_equal(make(&w, "fra1/0", NULL, false), 0);
	assert_true(sp_state_delete(w.state, "node/fra1/0")); // meanwhile
	assert_int_equal(join(&w), CON_ENROL_GONE);
	teardown(&w);
}

static void every_refusal_has_a_word_and_a_remedy(void **state)
{
	(void)state;
	for (int v = 0; v < CON_ENROL_VERDICTS; v++) {
		enum con_enrol_verdict x = (enum con_enrol_verdict)v;
		assert_true(strlen(con_enrol_word(x)) > 1);
		for (int u = 0; u < v; u++)
			assert_string_not_equal(
				con_enrol_word(x),
				con_enrol_word((enum con_enrol_verdict)u));
		assert_int_equal(strlen(con_enrol_reason(x)) > 10,
				 con_enrol_is_refused(x));
	}
}

#define T(name) cmocka_unit_test(name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_worker_with_a_token_becomes_an_identity_with_its_keys),
		T(a_vantage_gets_the_region_of_its_token),
		T(the_state_holds_no_secret),
		T(a_token_is_for_one_holder_who_may_ask_again),
		T(a_token_ends_at_its_time),
		T(a_wrong_secret_and_a_token_never_made_look_the_same),
		T(a_newer_token_voids_the_older),
		T(an_enrolled_node_is_replaced_on_demand_only),
		T(a_key_of_another_node_is_refused),
		T(only_what_the_fleet_file_has_may_join),
		T(every_refusal_has_a_word_and_a_remedy),
	};
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("controller_enrol", tests, NULL, NULL);
}
