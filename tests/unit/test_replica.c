// The fleet's state, its signed revisions and snapshots, and replicas that follow them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/replica.h"

#define CHAIN 60

struct signer {
	uint8_t secret[64];
	struct sp_signed_keys keys;
};

static struct signer make_signer(uint8_t byte)
{
	uint8_t seed[32] = {byte}, public_key[32];
	struct signer s = {0};
	crypto_sign_seed_keypair(public_key, s.secret, seed);
	assert_int_equal(sp_signed_keys_add(&s.keys, public_key), 0);
	return s;
}

static void add(struct sp_changes *c, const char *key, const char *json)
{
	json_t *o = json ? json_loads(json, 0, NULL) : NULL;
	assert_int_equal(sp_changes_add(c, key, o), 0);
	json_decref(o);
}

// A chain of signed revisions as a controller would make them.
struct chain {
	struct signer signer;
	struct sp_state *state;
	struct sp_position at;
	unsigned n;
	char *text[CHAIN], *private[CHAIN];
	size_t len[CHAIN];
};

static void chain_init(struct chain *c)
{
	*c = (struct chain){.signer = make_signer(1)};
	assert_int_equal(sp_state_new(&c->state), 0);
}

static void chain_add(struct chain *c, const struct sp_changes *changes, uint32_t epoch)
{
	assert_int_equal(sp_state_apply(c->state, changes), 0);
	assert_int_equal(sp_revision_sign(&c->at, epoch, 1000 + c->n, "tests", changes,
					  c->state, c->signer.secret, &c->text[c->n],
					  &c->len[c->n], &c->private[c->n], &c -> at),
			 0);
	c->n++;
}

static void chain_done(struct chain *c)
{
	for (unsigned i = 0; i < c->n; i++) {
		free(c->text[i]);
		free(c->private[i]);
	}
	sp_state_free(c->state);
}

static int take(struct sp_replica *r, const struct chain *c, unsigned i)
{
	struct sp_staged s = {0};
	int err = sp_replica_stage_revision(r, c->text[i], c->len[i], &s);
	if (!err)
		sp_replica_take(r, &s);
	return err;
}

static void entries_are_sorted_canonical_and_counted(void **state)
{
	struct sp_state *s;
	struct sp_state_entry e;
	size_t at = 0;
	(void)state;
	assert_int_equal(sp_state_new(&s), 0);
	assert_int_equal(
		sp_state_put_text(s, "tier/b", "{ \"z\":1, \"a\" : [1, 2] }", 23), 0);
	assert_int_equal(sp_state_put_text(s, "tier/a", "{}", 2), 0);
	assert_int_equal(sp_state_put_text(s, "tiers", "{}", 2), 0);
	assert_int_equal(sp_state_put_text(s, "policy", "{}", 2), 0);
	assert_string_equal(sp_state_get(s, "tier/b", NULL), "{\"a\":[1,2],\"z\":1}");
	assert_true(sp_state_next(s, "tier/", &at, &e));
	assert_string_equal(e.key, "tier/a");
	assert_true(sp_state_next(s, "tier/", &at, &e));
	assert_string_equal(e.key, "tier/b");
	assert_false(sp_state_next(s, "tier/", &at, &e));
	assert_int_equal(sp_state_count(s, ""), 4);
	assert_int_equal(sp_state_count(s, "tier/"), 2);
	assert_true(sp_state_delete(s, "tier/a"));
	assert_false(sp_state_delete(s, "tier/a"));
	assert_null(sp_state_get(s, "tier/a", NULL));
	sp_state_free(s);
}

static void bad_keys_and_values_are_refused(void **state)
{
	static const char *const keys[] = {"",    "/a", "a/",        "a//b", "a b",
					   "a\n", "ä",  "a/b/c/d/e", "a\"b"};
	char longest[SP_STATE_KEY_MAX + 2];
	struct sp_state *s;
	(void)state;
	assert_int_equal(sp_state_new(&s), 0);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		assert_int_equal(sp_state_put_text(s, keys[i], "{}", 2), SP_E_MALFORMED);
	memset(longest, 'k', sizeof(longest));
	longest[SP_STATE_KEY_MAX + 1] = '\0';
	assert_int_equal(sp_state_put_text(s, longest, "{}", 2), SP_E_MALFORMED);
	longest[SP_STATE_KEY_MAX] = '\0';
	assert_int_equal(sp_state_put_text(s, longest, "{}", 2), 0);
	assert_int_equal(sp_state_put_text(s, "k", "[]", 2), SP_E_MALFORMED);
	assert_int_equal(sp_state_put_text(s, "k", "{\"a\":1,\"a\":2}", 13),
			 SP_E_MALFORMED);
	assert_int_equal(sp_state_put_text(s, "k", "{", 1), SP_E_MALFORMED);
	char *big = malloc(SP_STATE_VALUE_MAX + 2);
	int n = snprintf(big, SP_STATE_VALUE_MAX + 2, "{\"a\":\"%0*d\"}",
			 SP_STATE_VALUE_MAX - 8, 0);
	assert_int_equal(n, SP_STATE_VALUE_MAX);
	assert_int_equal(sp_state_put_text(s, "k", big, SP_STATE_VALUE_MAX), 0);
	snprintf(big, SP_STATE_VALUE_MAX + 2, "{\"a\":\"%0*d\"}", SP_STATE_VALUE_MAX - 7,
		 0);
	assert_int_equal(sp_state_put_text(s, "k", big, SP_STATE_VALUE_MAX + 1),
			 SP_E_LIMIT);
	free(big);
	assert_int_equal(sp_state_count(s, ""), 2);
	sp_state_free(s);
}

static void the_hash_is_of_the_content_not_of_the_way(void **state)
{
	struct sp_state *a, *b;
	(void)state;
	assert_int_equal(sp_state_new(&a), 0);
	assert_int_equal(sp_state_new(&b), 0);
	assert_int_equal(sp_state_put_text(a, "x", "{\"v\":1}", 7), 0);
	assert_int_equal(sp_state_put_text(a, "y", "{\"v\":2}", 7), 0);
	assert_int_equal(sp_state_put_text(b, "y", "{\"v\":9}", 7), 0);
	assert_int_equal(sp_state_put_text(b, "y", "{\"v\":2}", 7), 0);
	assert_int_equal(sp_state_put_text(b, "z", "{}", 2), 0);
	assert_int_equal(sp_state_put_text(b, "x", "{\"v\":1}", 7), 0);
	assert_memory_not_equal(sp_state_hash(a), sp_state_hash(b), 32);
	assert_true(sp_state_delete(b, "z"));
	assert_memory_equal(sp_state_hash(a), sp_state_hash(b), 32);
	assert_true(sp_state_equal(a, b));
	// private entries are not in it
	assert_int_equal(sp_state_put_text(b, "user/u", "{}", 2), 0);
	assert_memory_equal(sp_state_hash(a), sp_state_hash(b), 32);
	assert_false(sp_state_equal(a, b));
	sp_state_free(a);
	sp_state_free(b);
}

static void a_copy_does_not_change_with_the_original(void **state)
{
	struct sp_state *a, *b;
	(void)state;
	assert_int_equal(sp_state_new(&a), 0);
	assert_int_equal(sp_state_put_text(a, "x", "{\"v\":1}", 7), 0);
	assert_int_equal(sp_state_clone(a, &b), 0);
	assert_int_equal(sp_state_put_text(a, "x", "{\"v\":2}", 7), 0);
	assert_string_equal(sp_state_get(b, "x", NULL), "{\"v\":1}");
	sp_state_free(a);
	assert_string_equal(sp_state_get(b, "x", NULL), "{\"v\":1}");
	sp_state_free(b);
}

static uint32_t dice;
static unsigned roll(unsigned n)
{
	dice = dice * 1664525 + 1013904223;
	return (dice >> 12) % n;
}

static void random_changes(struct sp_state *s, struct sp_changes *c)
{
	static const char *const kinds[] = {"tier/", "node/", "user/", "token/"};
	char key[32], json[32];
	for (unsigned i = roll(6); i-- > 0;) {
		snprintf(key, sizeof(key), "%s%u", kinds[roll(4)], roll(12));
		snprintf(json, sizeof(json), "{\"v\":%u}", roll(1000));
		add(c, key, roll(3) ? json : NULL);
	}
	(void)s;
}

static void a_difference_turns_one_state_into_the_other(void **state)
{
	(void)state;
	for (dice = 1; dice < 300; dice++) {
		uint32_t seed = dice;
		struct sp_state *a, *b;
		struct sp_changes c = {0}, d = {0};
		assert_int_equal(sp_state_new(&a), 0);
		for (int i = 0; i < 10; i++)
			random_changes(a, &c);
		assert_int_equal(sp_state_apply(a, &c), 0);
		assert_int_equal(sp_state_clone(a, &b), 0);
		sp_changes_done(&c);
		for (int i = 0; i < 5; i++)
			random_changes(b, &c);
		assert_int_equal(sp_state_apply(b, &c), 0);
		assert_int_equal(sp_changes_diff(a, b, "", &d), 0);
		assert_int_equal(sp_state_apply(a, &d), 0);
		assert_true(sp_state_equal(a, b));
		assert_memory_equal(sp_state_hash(a), sp_state_hash(b), 32);
		sp_changes_done(&c);
		sp_changes_done(&d);
		sp_state_free(a);
		sp_state_free(b);
		dice = seed;
	}
}

static void a_replica_follows_the_chain_and_never_sees_what_is_private(void **state)
{
	struct chain c;
	struct sp_state_entry e;
	(void)state;
	dice = 77;
	chain_init(&c);
	struct sp_replica r = {.keys = c.signer.keys};
	for (unsigned i = 0; i < CHAIN; i++) {
		struct sp_changes ch = {0};
		random_changes(c.state, &ch);
		chain_add(&c, &ch, 1 + i / 20); // epochs rise on the way
		assert_int_equal(take(&r, &c, i), 0);
		assert_memory_equal(sp_state_hash(r.state), sp_state_hash(c.state), 32);
		assert_true(sp_position_same(&r.position, &c.at));
		assert_int_equal(take(&r, &c, i), SP_E_STALE);
		sp_changes_done(&ch);
	}
	for (size_t at = 0; sp_state_next(r.state, "", &at, &e);)
		assert_false(sp_state_key_is_private(e.key));
	assert_true(sp_state_count(c.state, "user/") > 0);
	sp_replica_done(&r);
	chain_done(&c);
}

static void a_gap_is_told_and_a_snapshot_closes_it(void **state)
{
	struct chain c;
	struct sp_staged s = {0};
	char *snap;
	size_t len;
	(void)state;
	dice = 5;
	chain_init(&c);
	for (unsigned i = 0; i < 10; i++) {
		struct sp_changes ch = {0};
		random_changes(c.state, &ch);
		chain_add(&c, &ch, 1);
		sp_changes_done(&ch);
	}
	struct sp_replica r = {.keys = c.signer.keys};
	assert_int_equal(take(&r, &c, 3), SP_E_AGAIN);
	assert_int_equal(take(&r, &c, 0), 0);
	assert_int_equal(take(&r, &c, 2), SP_E_AGAIN);
	assert_int_equal(
		sp_snapshot_sign(&c.at, 5, c.state, c.signer.secret, &snap, &len), 0);
	assert_null(strstr(snap, "user/"));
	assert_int_equal(sp_replica_stage_snapshot(&r, snap, len, &s), 0);
	assert_int_equal(r.position.sequence, 1); // staged is not taken
	sp_replica_take(&r, &s);
	assert_true(sp_position_same(&r.position, &c.at));
	assert_memory_equal(sp_state_hash(r.state), sp_state_hash(c.state), 32);
	assert_int_equal(sp_replica_stage_snapshot(&r, snap, len, &s), SP_E_STALE);
	struct sp_changes ch = {0};
	random_changes(c.state, &ch);
	chain_add(&c, &ch, 2);
	assert_int_equal(take(&r, &c, 10), 0);
	sp_changes_done(&ch);
	free(snap);
	sp_replica_done(&r);
	chain_done(&c);
}

static void whoever_has_no_key_changes_nothing(void **state)
{
	struct chain c, enemy;
	struct sp_staged s = {0};
	struct sp_changes ch = {0};
	(void)state;
	chain_init(&c);
	chain_init(&enemy);
	enemy.signer = make_signer(66);
	add(&ch, "tier/a", "{\"v\":1}");
	chain_add(&c, &ch, 1);
	chain_add(&enemy, &ch, 9);
	struct sp_replica r = {.keys = c.signer.keys};
	assert_int_equal(take(&r, &enemy, 0), SP_E_KEY);
	for (size_t i = 0; i < c.len[0]; i++) {
		c.text[0][i] ^= 1;
		assert_int_not_equal(
			sp_replica_stage_revision(&r, c.text[0], c.len[0], &s), 0);
		c.text[0][i] ^= 1;
		assert_int_not_equal(sp_replica_stage_revision(&r, c.text[0], i, &s), 0);
	}
	assert_null(r.state);
	assert_int_equal(take(&r, &c, 0), 0);
	sp_changes_done(&ch);
	sp_replica_done(&r);
	chain_done(&c);
	chain_done(&enemy);
}

static void a_fork_of_the_chain_is_not_followed(void **state)
{
	struct chain a, b;
	struct sp_changes x = {0}, y = {0};
	(void)state;
	chain_init(&a);
	chain_init(&b);
	add(&x, "tier/a", "{\"v\":1}");
	add(&y, "tier/a", "{\"v\":2}");
	chain_add(&a, &x, 1);
	chain_add(&b, &y, 1);
	chain_add(&b, &x, 1);
	struct sp_replica r = {.keys = a.signer.keys};
	assert_int_equal(take(&r, &a, 0), 0);
	assert_int_equal(take(&r, &b, 0), SP_E_STALE);
	assert_int_equal(take(&r, &b, 1), SP_E_AGAIN); // its previous is another
	sp_changes_done(&x);
	sp_changes_done(&y);
	sp_replica_done(&r);
	chain_done(&a);
	chain_done(&b);
}

static void private_changes_open_only_beside_their_revision(void **state)
{
	struct chain c;
	struct sp_revision rev;
	struct sp_changes ch = {0}, got = {0};
	(void)state;
	chain_init(&c);
	add(&ch, "user/u", "{\"tier\":\"a\"}");
	add(&ch, "tier/a", "{}");
	chain_add(&c, &ch, 1);
	assert_non_null(c.private[0]);
	assert_null(strstr(c.text[0], "user/u"));
	assert_int_equal(sp_revision_open(&c.signer.keys, c.text[0], c.len[0], &rev), 0);
	assert_int_equal(rev.changes.n, 1);
	assert_int_equal(
		sp_revision_open_private(&rev, c.private[0], strlen(c.private[0]), &got),
		0);
	assert_int_equal(got.n, 1);
	assert_string_equal(got.v[0].key, "user/u");
	sp_changes_done(&got);
	c.private[0][3] ^= 1;
	assert_int_equal(
		sp_revision_open_private(&rev, c.private[0], strlen(c.private[0]), &got),
		SP_E_SIGNATURE);
	sp_revision_done(&rev);
	sp_changes_done(&ch);
	chain_done(&c);
}

#define T(name) cmocka_unit_test(name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(entries_are_sorted_canonical_and_counted),
		T(bad_keys_and_values_are_refused),
		T(the_hash_is_of_the_content_not_of_the_way),
		T(a_copy_does_not_change_with_the_original),
		T(a_difference_turns_one_state_into_the_other),
		T(a_replica_follows_the_chain_and_never_sees_what_is_private),
		T(a_gap_is_told_and_a_snapshot_closes_it),
		T(whoever_has_no_key_changes_nothing),
		T(a_fork_of_the_chain_is_not_followed),
		T(private_changes_open_only_beside_their_revision),
	};
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("replica", tests, NULL, NULL);
}
