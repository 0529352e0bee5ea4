#include "lib/fleet.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/fleet_json.h"
#include "lib/key.h"
#include "lib/policy.h"
#include "lib/text.h"

int sp_fleet_revision_compare(const struct sp_fleet_revision *a,
			      const struct sp_fleet_revision *b)
{
	if (a->epoch != b->epoch)
		return a->epoch < b->epoch ? -1 : 1;
	if (a->sequence != b->sequence)
		return a->sequence < b->sequence ? -1 : 1;
	return 0;
}

bool sp_fleet_name_is_valid(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
				      "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t len = strspn(name, allowed);
	return len && len <= SP_FLEET_NAME_MAX && !name[len];
}

uint64_t sp_fleet_home_id(const uint8_t *public_key)
{
	uint8_t id[SP_SIGNED_KEY_ID_BYTES];
	uint64_t v = 0;
	sp_signed_key_id(public_key, id); // the same function of 32 bytes
	for (size_t i = 0; i < sizeof(id); i++)
		v = v << 8 | id[i];
	return v ? v : 1;
}

static void get_groups(struct fleet_cursor *c, const json_t *o, struct sp_fleet_tier *t)
{
	json_t *v, *list = fleet_get_list(c, o, "groups", 0, SP_PASS_GROUPS_MAX, false);
	size_t i;
	json_array_foreach(list, i, v)
	{
		const char *s = json_string_value(v);
		size_t mark = fleet_enter_index(c, "groups", i);
		if (!s || !sp_fleet_name_is_valid(s))
			fleet_fail(c, SP_E_CONFIG, NULL,
				   "want a name of 1 to %d letters, digits, '.', '_' and "
				   "'-'",
				   SP_FLEET_NAME_MAX);
		else
			strcpy(t->groups[t->n_groups++], s);
		fleet_leave(c, mark);
	}
}

static void get_tier(struct fleet_cursor *c, const char *name, const json_t *o,
		     struct sp_fleet_tier *t)
{
	static const char *const keys[] = {"max_sessions", "max_streams", "max_flows",
					   "rate_bps",     "groups",      NULL};
	if (!sp_fleet_name_is_valid(name)) {
		fleet_fail(c, SP_E_CONFIG, NULL,
			   "a tier's name is 1 to %d letters, digits, '.', '_' and '-'",
			   SP_FLEET_NAME_MAX);
		return;
	}
	strcpy(t->name, name);
	if (!fleet_check_keys(c, o, keys))
		return;
	t->max_sessions = (uint32_t)fleet_get_uint(c, o, "max_sessions", 65535, false);
	t->max_streams = (uint32_t)fleet_get_uint(c, o, "max_streams", 1 << 20, false);
	t->max_flows = (uint32_t)fleet_get_uint(c, o, "max_flows", 1 << 20, false);
	t->rate_bps = fleet_get_uint(c, o, "rate_bps", INT64_MAX, false);
	get_groups(c, o, t);
}

static int compare_tier(const void *a, const void *b)
{
	return strcmp(((const struct sp_fleet_tier *)a)->name,
		      ((const struct sp_fleet_tier *)b)->name);
}

static void get_tiers(struct fleet_cursor *c, const json_t *o, struct sp_fleet_worker *f)
{
	const char *name;
	json_t *t, *tiers = fleet_get_object(c, o, "tiers", 1, SP_FLEET_TIERS_MAX, true);
	if (!tiers ||
	    !(f->tiers = fleet_alloc(c, json_object_size(tiers), sizeof(*f->tiers))))
		return;
	size_t at = fleet_enter(c, "tiers");
	json_object_foreach(tiers, name, t)
	{
		size_t mark = fleet_enter(c, name);
		get_tier(c, name, t, &f->tiers[f->n_tiers++]);
		fleet_leave(c, mark);
	}
	fleet_leave(c, at);
	qsort(f->tiers, f->n_tiers, sizeof(*f->tiers), compare_tier);
}

// The rules are kept as texts; that they compile is checked here.
static void get_rules(struct fleet_cursor *c, const json_t *o, struct sp_fleet_worker *f)
{
	char wrong[SP_POLICY_ERROR_MAX];
	struct sp_policy *policy;
	json_t *v,
		*list = fleet_get_list(c, o, "exit_policy", 0, SP_FLEET_RULES_MAX, false);
	size_t i;
	if (!list ||
	    !(f->rules = fleet_alloc(c, json_array_size(list), sizeof(*f->rules))))
		return;
	if (sp_policy_new(&policy)) {
		fleet_fail(c, -ENOMEM, NULL, "out of memory");
		return;
	}
	json_array_foreach(list, i, v)
	{
		const char *s = json_string_value(v);
		size_t mark = fleet_enter_index(c, "exit_policy", i);
		if (!s || json_string_length(v) > SP_FLEET_RULE_MAX || !fleet_is_plain(s))
			fleet_fail(c, SP_E_CONFIG, NULL,
				   "want a rule of at most %d bytes, such as \"allow "
				   "10.0.0.0/8:443\"",
				   SP_FLEET_RULE_MAX);
		else if (sp_policy_add(policy, s, wrong, sizeof(wrong)))
			fleet_fail(c, SP_E_CONFIG, NULL, "found \"%s\": %s", s, wrong);
		else if (!(f->rules[f->n_rules++] = strdup(s)))
			fleet_fail(c, -ENOMEM, NULL, "out of memory");
		fleet_leave(c, mark);
		if (c->err)
			break;
	}
	sp_policy_free(policy);
}

static void get_pass_keys(struct fleet_cursor *c, const json_t *o,
			  struct sp_fleet_worker *f)
{
	json_t *v, *list = fleet_get_list(c, o, "pass_keys", 1, SP_SIGNED_KEYS_MAX, true);
	size_t i;
	json_array_foreach(list, i, v)
	{
		char wrong[160] = "want the text of a public signing key";
		uint8_t key[SP_SIGNED_PUBLIC_BYTES];
		size_t mark = fleet_enter_index(c, "pass_keys", i);
		if (!json_is_string(v) ||
		    sp_key_parse(SP_KEY_SIGNING, false, json_string_value(v),
				 json_string_length(v), key, wrong, sizeof(wrong)))
			fleet_fail(c, SP_E_CONFIG, NULL, "%s", wrong);
		else if (sp_signed_keys_add(&f->pass_keys, key))
			fleet_fail(c, SP_E_CONFIG, NULL,
				   "not the public half of an Ed25519 key");
		fleet_leave(c, mark);
	}
}

// An address, since nobody should have to resolve a name to meet a stranger.
static void get_cover(struct fleet_cursor *c, const json_t *o, struct sp_target *ret)
{
	const char *s = fleet_get_text(c, o, "cover", SP_TARGET_TEXT_MAX, false);
	if (!*s)
		return;
	if (sp_target_parse(s, ret) || ret->kind == SP_TARGET_NAME || !ret->port)
		fleet_fail(c, SP_E_CONFIG, "cover",
			   "found \"%s\"; want ADDRESS:PORT or [IPV6]:PORT", s);
}

int sp_fleet_worker_parse(const void *json, size_t len, struct sp_fleet_worker **ret,
			  char *why, size_t cap)
{
	static const char *const keys[] = {
		"format",          "revision",      "issued",    "expires", "group",
		"tiers",           "exit_policy",   "pass_keys", "cover",   "revoked",
		"revoked_devices", "revoked_users", "members",   NULL};
	struct fleet_cursor c = {.why = why, .cap = cap};
	struct sp_fleet_worker *f = fleet_alloc(&c, 1, sizeof(*f));
	json_t *o = f ? fleet_load(&c, json, len, keys) : NULL;
	if (o) {
		fleet_get_head(&c, o, &f->revision, &f->issued_s, &f->expires_s);
		fleet_get_name(&c, o, "group", false, f->group);
		get_tiers(&c, o, f);
		get_rules(&c, o, f);
		get_pass_keys(&c, o, f);
		get_cover(&c, o, &f->cover);
		fleet_get_revoked(&c, o, f);
		fleet_get_members(&c, o, false, &f->members);
	}
	json_decref(o);
	if (c.err) {
		sp_fleet_worker_free(f);
		return c.err;
	}
	*ret = f;
	return 0;
}

void sp_fleet_worker_free(struct sp_fleet_worker *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < f->n_rules; i++)
		free(f->rules[i]);
	free(f->rules);
	free(f->tiers);
	free(f->revoked);
	free(f->revoked_devices);
	free(f->revoked_users);
	sp_fleet_members_done(&f->members);
	free(f);
}

const struct sp_fleet_tier *sp_fleet_find_tier(const struct sp_fleet_worker *f,
					       const char *name)
{
	for (size_t i = 0; i < f->n_tiers; i++)
		if (strcmp(f->tiers[i].name, name) == 0)
			return &f->tiers[i];
	return NULL;
}

bool sp_fleet_admits(const struct sp_fleet_worker *f, const struct sp_pass *pass)
{
	const struct sp_fleet_tier *tier = sp_fleet_find_tier(f, pass->tier);
	if (f->group[0] == '\0')
		return true;
	if (pass->groups_n && !sp_pass_has_group(pass, f->group))
		return false;
	if (!tier || !tier->n_groups)
		return true;
	for (unsigned i = 0; i < tier->n_groups; i++)
		if (strcmp(tier->groups[i], f->group) == 0)
			return true;
	return false;
}
