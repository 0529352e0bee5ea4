#include "lib/derive.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

bool sp_worker_name_is_valid(const char *worker)
{
	char name[SP_FLEET_NAME_MAX + 1];
	const char *slash = strchr(worker, '/');
	size_t len = slash ? (size_t)(slash - worker) : 0;
	if (!slash || len == 0 || len > SP_FLEET_NAME_MAX)
		return false;
	size_t digits = strspn(slash + 1, "0123456789");
	memcpy(name, worker, len);
	name[len] = '\0';
	return sp_fleet_name_is_valid(name) && digits && digits <= 3 &&
	       !slash[1 + digits] && atoi(slash + 1) <= 255 &&
	       (slash[1] != '0' || digits == 1);
}

char *sp_worker_node(const char *worker, char *ret)
{
	snprintf(ret, SP_FLEET_NAME_MAX + 1, "%.*s", (int)strcspn(worker, "/"), worker);
	return ret;
}

// What is being made; `bad` is sticky.
struct derivation {
	const struct sp_state *state;
	json_t *out;
	bool bad;
};

static void set(struct derivation *d, const char *key, json_t *v)
{
	d->bad |= json_object_set_new(d->out, key, v) != 0;
}

static void add_tiers(struct derivation *d)
{
	static const char *const keys[] = {"max_sessions", "max_streams", "max_flows",
					   "rate_bps",     "groups",      NULL};
	struct sp_state_entry e;
	json_t *tiers = json_object();
	d->bad |= json_object_set_new(tiers, SP_DERIVE_VANTAGE_TIER, json_object()) != 0;
	for (size_t at = 0; sp_state_next(d->state, "tier/", &at, &e);) {
		json_t *from = json_loadb(e.json, e.json_len, 0, NULL);
		json_t *to = json_object();
		for (const char *const *k = keys; *k; k++)
			if (json_object_get(from, *k))
				d->bad |= json_object_set(to, *k,
							  json_object_get(from, *k)) != 0;
		d->bad |= json_object_set_new(tiers, e.key + strlen("tier/"), to) != 0;
		json_decref(from);
	}
	set(d, "tiers", tiers);
}

// A list below `key` of the object at `from`, or an empty one.
static void add_list(struct derivation *d, const char *name, const char *from,
		     const char *key)
{
	json_t *o = sp_state_get_object(d->state, from);
	json_t *list = json_object_get(o, key);
	set(d, name, list ? json_incref(list) : json_array());
	json_decref(o);
}

static void add_revoked(struct derivation *d)
{
	json_t *serials = json_array(), *devices = json_array(), *users = json_array();
	struct sp_state_entry e;
	for (size_t at = 0; sp_state_next(d->state, "revoked/", &at, &e);) {
		const char *kind = e.key + strlen("revoked/");
		const char *slash = strchr(kind, '/'), *id = slash ? slash + 1 : "";
		if (strncmp(kind, "serial/", 7) == 0) {
			d->bad |= json_array_append_new(serials, json_string(id)) != 0;
		} else if (strncmp(kind, "device/", 7) == 0) {
			d->bad |= json_array_append_new(devices, json_string(id)) != 0;
		} else if (strncmp(kind, "user/", 5) == 0) {
			json_t *o = json_loadb(e.json, e.json_len, 0, NULL);
			json_t *before = json_object_get(o, "before");
			json_t *u = json_pack("{s:s, s:I}", "name", id, "before",
					      json_integer_value(before));
			d->bad |= json_array_append_new(users, u) != 0;
			json_decref(o);
		}
	}
	set(d, "revoked", serials);
	set(d, "revoked_devices", devices);
	set(d, "revoked_users", users);
}

int sp_derive_worker(const struct sp_state *state, const char *worker,
		     const struct sp_position *position, uint64_t issued_s, char **ret,
		     size_t *ret_len, char *why, size_t cap)
{
	char key[SP_STATE_KEY_MAX + 1];
	struct derivation d = {.state = state, .out = json_object()};
	snprintf(key, sizeof(key), "node/%s", worker);
	json_t *node = sp_state_get_object(state, key);
	json_t *fleet = sp_state_get_object(state, "fleet");
	if (!node) {
		snprintf(why, cap, "the fleet has no worker %s", worker);
		json_decref(d.out);
		json_decref(fleet);
		return SP_E_CONFIG;
	}
	set(&d, "format", json_integer(SP_FLEET_FORMAT));
	set(&d, "revision",
	    json_pack("{s:I, s:I}", "epoch", (json_int_t)position->epoch, "sequence",
		      (json_int_t)position->sequence));
	set(&d, "issued", json_integer((json_int_t)issued_s));
	json_t *group = json_object_get(node, "group");
	if (group)
		set(&d, "group", json_incref(group));
	json_t *cover = json_object_get(fleet, "cover");
	if (cover)
		set(&d, "cover", json_incref(cover));
	add_tiers(&d);
	add_list(&d, "exit_policy", "policy", "rules");
	add_list(&d, "pass_keys", "keys", "pass");
	add_revoked(&d);
	*ret = d.bad ? NULL : json_dumps(d.out, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(node);
	json_decref(fleet);
	json_decref(d.out);
	if (!*ret) {
		snprintf(why, cap, "out of memory");
		return -ENOMEM;
	}
	*ret_len = strlen(*ret);
	return 0;
}

// ---- members ----

// A carrier as others dial it: not where it is bound.
static json_t *member_carriers(const json_t *carriers)
{
	static const char *const keys[] = {"kind",       "address", "server_name",
					   "pin_sha256", "ca_file", NULL};
	json_t *from, *list = json_array();
	size_t i;
	json_array_foreach(carriers, i, from)
	{
		json_t *to = json_object();
		for (const char *const *k = keys; *k; k++)
			if (json_object_get(from, *k))
				json_object_set(to, *k, json_object_get(from, *k));
		json_array_append_new(list, to);
	}
	return list;
}

// "NODE" or "NODE.N", as far as there is room: it is for logs.
static void member_name(const char *worker, char *ret)
{
	char node[SP_FLEET_NAME_MAX + 1];
	const char *n = strchr(worker, '/') + 1;
	int room = SP_FLEET_NAME_MAX - 1 - (int)strlen(n);
	sp_worker_node(worker, node);
	if (!strcmp(n, "0"))
		strcpy(ret, node);
	else
		snprintf(ret, SP_FLEET_NAME_MAX + 1, "%.*s.%s", room, node, n);
}

// NULL: it has not enrolled, or there is no memory.
static json_t *member(const struct sp_state *state, const char *worker,
		      const struct sp_state_entry *e)
{
	char key[SP_STATE_KEY_MAX + 1], name[SP_FLEET_NAME_MAX + 1];
	snprintf(key, sizeof(key), "identity/%s", worker);
	json_t *identity = sp_state_get_object(state, key);
	json_t *public_key = json_object_get(identity, "static");
	json_t *home = json_object_get(identity, "home_id");
	json_t *node = json_loadb(e->json, e->json_len, 0, NULL), *m = NULL;
	if (public_key && node && sp_worker_name_is_valid(worker)) {
		member_name(worker, name);
		m = json_pack("{s:s, s:O, s:o}", "name", name, "public_key", public_key,
			      "carriers",
			      member_carriers(json_object_get(node, "carriers")));
		if (m && home)
			(void)!json_object_set(m, "home_id", home);
	}
	json_decref(identity);
	json_decref(node);
	return m;
}

int sp_derive_members(const struct sp_state *state, char **ret, size_t *ret_len)
{
	struct sp_state_entry e;
	json_t *list = json_array(), *m;
	json_t *o = json_pack("{s:i, s:o}", "format", SP_FLEET_FORMAT, "members", list);
	for (size_t at = 0; o && sp_state_next(state, "node/", &at, &e);)
		if ((m = member(state, e.key + strlen("node/"), &e)))
			json_array_append_new(list, m);
	*ret = o ? json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(o);
	if (!*ret)
		return -ENOMEM;
	*ret_len = strlen(*ret);
	return 0;
}

void sp_derive_members_hash(const struct sp_state *state, uint8_t *ret)
{
	static const char *const kinds[] = {"node/", "identity/"};
	crypto_generichash_state st;
	struct sp_state_entry e;
	crypto_generichash_init(&st, NULL, 0, 32);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		for (size_t at = 0; sp_state_next(state, kinds[i], &at, &e);) {
			crypto_generichash_update(&st, (const uint8_t *)e.key,
						  strlen(e.key) + 1);
			crypto_generichash_update(&st, (const uint8_t *)e.json,
						  e.json_len);
		}
	crypto_generichash_final(&st, ret, 32);
}

static int check_one(const struct sp_state *state, const char *worker, char *why,
		     size_t cap)
{
	static const struct sp_position first = {1, 1, {0}};
	char *json, clause[SP_FLEET_WHY_MAX] = "";
	size_t len;
	struct sp_fleet_worker *f = NULL;
	int err = sp_derive_worker(state, worker, &first, 1, &json, &len, why, cap);
	if (err)
		return err;
	err = sp_fleet_worker_parse(json, len, &f, clause, sizeof(clause));
	if (err && cap)
		snprintf(why, cap, "the config of worker %s: %s", worker, clause);
	sp_fleet_worker_free(f);
	free(json);
	return err;
}

int sp_derive_check(const struct sp_state *state, char *why, size_t cap)
{
	struct sp_state_entry e;
	int err = 0;
	// Workers of one group have the same config.
	json_t *seen = json_object();
	if (!seen)
		return -ENOMEM;
	for (size_t at = 0; !err && sp_state_next(state, "node/", &at, &e);) {
		json_t *o = json_loadb(e.json, e.json_len, 0, NULL);
		const char *group = json_string_value(json_object_get(o, "group"));
		if (!json_object_get(seen, group ? group : "")) {
			err = check_one(state, e.key + strlen("node/"), why, cap);
			if (!err &&
			    json_object_set_new(seen, group ? group : "", json_true()))
				err = -ENOMEM;
		}
		json_decref(o);
	}
	json_decref(seen);
	return err;
}

bool sp_derive_depends_on(const char *key)
{
	static const char *const whole[] = {"fleet", "keys", "policy", NULL};
	static const char *const kinds[] = {"node/", "tier/", "revoked/", NULL};
	for (const char *const *k = whole; *k; k++)
		if (strcmp(key, *k) == 0)
			return true;
	for (const char *const *k = kinds; *k; k++)
		if (strncmp(key, *k, strlen(*k)) == 0)
			return true;
	return false;
}
