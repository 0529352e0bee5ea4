#include "controller/enrol.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "lib/derive.h"
#include "lib/key.h"
#include "lib/text.h"

const char *con_enrol_word(enum con_enrol_verdict v)
{
	static const char *const words[] = {"ok",   "again",   "malformed", "unknown",
					    "used", "expired", "key",       "gone"};
	return v < CON_ENROL_VERDICTS ? words[v] : "?";
}

const char *con_enrol_reason(enum con_enrol_verdict v)
{
	static const char *const texts[] = {
		"",
		"",
		"not a token, or not the keys that belong to one",
		"this token is not known here; sallyportctl enroll makes a new one",
		"this token was used already; sallyportctl enroll makes a new one",
		"this token has expired; sallyportctl enroll makes a new one",
		"another node has this key; remove the key files and enroll again",
		"the fleet has no such node any more; apply it, then enroll again",
	};
	return v < CON_ENROL_VERDICTS ? texts[v] : "?";
}

static void token_key(const char *node, bool worker, char *ret)
{
	snprintf(ret, SP_STATE_KEY_MAX + 1, "enrol/%s/%s", worker ? "worker" : "vantage",
		 node);
}

static void hash_text(const uint8_t *secret, char *ret, size_t cap)
{
	uint8_t hash[32];
	crypto_generichash(hash, sizeof(hash), secret, SP_ENROLTOKEN_SECRET_BYTES, NULL,
			   0);
	sp_hex_encode(hash, sizeof(hash), ret, cap);
}

static int put(struct sp_changes *c, const char *key, json_t *o)
{
	int err = o ? sp_changes_add(c, key, o) : -ENOMEM;
	json_decref(o);
	return err;
}

// ---- making ----

// `region`: of a vantage, NULL: a worker.
static bool is_declared(const struct sp_state *state, const char *node,
			const char *region)
{
	char key[SP_STATE_KEY_MAX + 1];
	snprintf(key, sizeof(key), "%s/%s", region ? "region" : "node",
		 region ? region : node);
	return sp_state_get(state, key, NULL) != NULL;
}

static int check_node(const struct sp_state *state, const char *node, const char *region,
		      bool again)
{
	char key[SP_STATE_KEY_MAX + 1];
	bool worker = !region;
	if (strlen(node) >= SP_ENROLTOKEN_NAME_MAX ||
	    (worker ? !sp_worker_name_is_valid(node) : !sp_fleet_name_is_valid(node)))
		return SP_E_MALFORMED;
	if (!is_declared(state, node, region))
		return -ENOENT;
	snprintf(key, sizeof(key), "%s/%s", worker ? "identity" : "vantage", node);
	return sp_state_get(state, key, NULL) && !again ? -EEXIST : 0;
}

int con_enrol_make(const struct sp_state *state, const char *node, const char *region,
		   uint64_t expires_s, bool again, struct sp_enroltoken *t,
		   struct sp_changes *changes)
{
	char key[SP_STATE_KEY_MAX + 1], hash[65];
	int err = check_node(state, node, region, again);
	if (err)
		return err;
	snprintf(t->node, sizeof(t->node), "%s", node);
	randombytes_buf(t->secret, sizeof(t->secret));
	hash_text(t->secret, hash, sizeof(hash));
	token_key(node, !region, key);
	json_t *o =
		json_pack("{s:s, s:I}", "hash", hash, "expires", (json_int_t)expires_s);
	if (o && region && json_object_set_new(o, "region", json_string(region)))
		err = -ENOMEM;
	return err ? err : put(changes, key, o);
}

// ---- judging ----

// Whether a key under `prefix` has this text as its member, but for `self`.
static bool is_taken(const struct sp_state *state, const char *prefix, const char *member,
		     const char *text, const char *self)
{
	struct sp_state_entry e;
	bool taken = false;
	for (size_t at = 0; !taken && sp_state_next(state, prefix, &at, &e);) {
		if (!strstr(e.json, text) || strcmp(e.key, self) == 0)
			continue;
		json_t *o = json_loadb(e.json, e.json_len, 0, NULL);
		const char *v = json_string_value(json_object_get(o, member));
		taken = v && strcmp(v, text) == 0;
		json_decref(o);
	}
	return taken;
}

static bool keys_are_free(const struct sp_state *state, const char *control,
			  const char *own, bool worker, const char *self)
{
	return !is_taken(state, "identity/", "control", control, self) &&
	       !is_taken(state, "vantage/", "control", control, self) &&
	       !is_taken(state, worker ? "identity/" : "vantage/",
			 worker ? "static" : "device", own, self);
}

struct holder { // of a valid token
	bool worker;
	char control[SP_KEY_TEXT_MAX], own[SP_KEY_TEXT_MAX];
	char key[SP_STATE_KEY_MAX + 1]; // of what it becomes
};

static void fill_holder(const struct con_enrol_claim *claim,
			const struct sp_enroltoken *t, struct holder *ret)
{
	ret->worker = sp_enroltoken_is_worker(t);
	sp_key_format(SP_KEY_CONTROL, false, claim->control_key, ret->control);
	sp_key_format(ret->worker ? SP_KEY_WORKER : SP_KEY_DEVICE, false, claim->own_key,
		      ret->own);
	snprintf(ret->key, sizeof(ret->key), "%s/%s",
		 ret->worker ? "identity" : "vantage", t->node);
}

// Whether the token was used by this very holder.
static bool is_same(const struct sp_state *state, const struct holder *x)
{
	json_t *o = sp_state_get_object(state, x->key);
	const char *control = json_string_value(json_object_get(o, "control"));
	const char *own =
		json_string_value(json_object_get(o, x->worker ? "static" : "device"));
	bool same = control && own && strcmp(control, x->control) == 0 &&
		    strcmp(own, x->own) == 0;
	json_decref(o);
	return same;
}

static enum con_enrol_verdict take(const struct sp_state *state,
				   const struct con_enrol_claim *claim,
				   const struct sp_enroltoken *t, const struct holder *x,
				   uint64_t now_s, json_t *entry,
				   struct sp_changes *changes)
{
	char home[17], key[SP_STATE_KEY_MAX + 1];
	const char *region = json_string_value(json_object_get(entry, "region"));
	json_t *o;
	if ((!x->worker && !region) ||
	    !is_declared(state, t->node, x->worker ? NULL : region))
		return CON_ENROL_GONE;
	if (!keys_are_free(state, x->control, x->own, x->worker, x->key))
		return CON_ENROL_KEY;
	snprintf(home, sizeof(home), "%016llx",
		 (unsigned long long)sp_fleet_home_id(claim->own_key));
	if (x->worker)
		o = json_pack("{s:s, s:s, s:s, s:I}", "static", x->own, "control",
			      x->control, "home_id", home, "enrolled", (json_int_t)now_s);
	else
		o = json_pack("{s:s, s:s, s:s, s:I}", "device", x->own, "control",
			      x->control, "region", region, "enrolled",
			      (json_int_t)now_s);
	if (put(changes, x->key, o))
		return CON_ENROL_MALFORMED;
	token_key(t->node, x->worker, key);
	if (json_object_set_new(entry, "used", json_true()) ||
	    sp_changes_add(changes, key, entry))
		return CON_ENROL_MALFORMED;
	return CON_ENROL_OK;
}

// `entry`: what is known of the token; NULL: nothing, at the same cost.
static bool is_secret(const json_t *entry, const uint8_t *secret)
{
	char hash[65], none[65];
	const char *want = json_string_value(json_object_get(entry, "hash"));
	hash_text(secret, hash, sizeof(hash));
	memset(none, 'x', sizeof(none));
	bool known = want && strlen(want) == 64;
	return sodium_memcmp(known ? want : none, hash, 64) == 0 && known;
}

enum con_enrol_verdict con_enrol_judge(const struct sp_state *state,
				       const struct con_enrol_claim *claim,
				       uint64_t now_s, struct sp_enroltoken *ret,
				       struct sp_changes *changes)
{
	char why[160], key[SP_STATE_KEY_MAX + 1];
	enum con_enrol_verdict v;
	struct holder x;
	if (sp_enroltoken_parse(claim->token, strlen(claim->token), ret, why,
				sizeof(why)))
		return CON_ENROL_MALFORMED;
	fill_holder(claim, ret, &x);
	token_key(ret->node, x.worker, key);
	json_t *entry = sp_state_get_object(state, key);
	if (!is_secret(entry, ret->secret))
		v = CON_ENROL_UNKNOWN;
	else if (json_is_true(json_object_get(entry, "used")))
		v = is_same(state, &x) ? CON_ENROL_AGAIN : CON_ENROL_USED;
	else if ((uint64_t)json_integer_value(json_object_get(entry, "expires")) <= now_s)
		v = CON_ENROL_EXPIRED;
	else
		v = take(state, claim, ret, &x, now_s, entry, changes);
	json_decref(entry);
	sodium_memzero(ret->secret, sizeof(ret->secret));
	if (v)
		sp_changes_done(changes);
	return v;
}
