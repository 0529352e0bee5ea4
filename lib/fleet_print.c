#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/fleet.h"
#include "lib/key.h"
#include "lib/text.h"

// json_*_new of jansson take NULL and hand it on, so a lack of memory shows at the end:
// json_object_set_new fails and `ok` becomes false.
static void put(bool *ok, json_t *o, const char *key, json_t *v)
{
	*ok &= json_object_set_new(o, key, v) == 0;
}

static void append(bool *ok, json_t *list, json_t *v)
{
	*ok &= json_array_append_new(list, v) == 0;
}

static void put_number(bool *ok, json_t *o, const char *key, uint64_t v)
{
	if (v)
		put(ok, o, key, json_integer((json_int_t)v));
}

static void put_text(bool *ok, json_t *o, const char *key, const char *text)
{
	if (text && *text)
		put(ok, o, key, json_string(text));
}

static json_t *head(bool *ok, const struct sp_fleet_revision *revision, uint64_t issued_s,
		    uint64_t expires_s)
{
	json_t *o = json_object();
	put(ok, o, "format", json_integer(SP_FLEET_FORMAT));
	put(ok, o, "revision",
	    json_pack("{s:I,s:I}", "epoch", (json_int_t)revision->epoch, "sequence",
		      (json_int_t)revision->sequence));
	put_number(ok, o, "issued", issued_s);
	put_number(ok, o, "expires", expires_s);
	return o;
}

// Takes `o`.
static char *finish(bool ok, json_t *o)
{
	char *text = NULL, *json = ok ? json_dumps(o, JSON_INDENT(2)) : NULL;
	json_decref(o);
	if (json && asprintf(&text, "%s\n", json) < 0)
		text = NULL;
	free(json);
	return text;
}

static json_t *tier(bool *ok, const struct sp_fleet_tier *t)
{
	json_t *o = json_object();
	put_number(ok, o, "max_sessions", t->max_sessions);
	put_number(ok, o, "max_streams", t->max_streams);
	put_number(ok, o, "max_flows", t->max_flows);
	put_number(ok, o, "rate_bps", t->rate_bps);
	if (t->n_groups) {
		json_t *groups = json_array();
		for (unsigned i = 0; i < t->n_groups; i++)
			append(ok, groups, json_string(t->groups[i]));
		put(ok, o, "groups", groups);
	}
	return o;
}

static json_t *hex_list(bool *ok, const void *bytes, size_t n, size_t size)
{
	char text[2 * SP_PASS_DEVICE_BYTES + 1];
	json_t *list = json_array();
	for (size_t i = 0; i < n; i++)
		append(ok, list,
		       json_string(sp_hex_encode((const uint8_t *)bytes + i * size, size,
						 text, sizeof(text))));
	return list;
}

static void put_revoked(bool *ok, json_t *o, const struct sp_fleet_worker *f)
{
	json_t *users = f->n_revoked_users ? json_array() : NULL;
	for (size_t i = 0; i < f->n_revoked_users; i++)
		append(ok, users,
		       json_pack("{s:s,s:I}", "name", f->revoked_users[i].name, "before",
				 (json_int_t)f->revoked_users[i].before_s));
	put(ok, o, "revoked",
	    hex_list(ok, f->revoked, f->n_revoked, sizeof(*f->revoked)));
	if (f->n_revoked_devices)
		put(ok, o, "revoked_devices",
		    hex_list(ok, f->revoked_devices, f->n_revoked_devices,
			     sizeof(*f->revoked_devices)));
	if (users)
		put(ok, o, "revoked_users", users);
}

static json_t *carrier(bool *ok, const struct sp_fleet_carrier *c)
{
	char text[SP_TARGET_TEXT_MAX];
	json_t *o = json_object();
	put_text(ok, o, "kind", sp_carrier_kind_word(c->kind));
	put_text(ok, o, "address", sp_target_format(&c->address, text, sizeof(text)));
	put_text(ok, o, "server_name", c->server_name);
	if (c->pinned)
		put_text(ok, o, "pin_sha256",
			 sp_hex_encode(c->pin, sizeof(c->pin), text, sizeof(text)));
	put_text(ok, o, "ca_file", c->ca_file);
	return o;
}

static json_t *member(bool *ok, const struct sp_fleet_member *m)
{
	char text[SP_KEY_TEXT_MAX];
	json_t *o = json_object(), *carriers = json_array();
	put_text(ok, o, "name", m->name);
	snprintf(text, sizeof(text), "%016llx", (unsigned long long)m->home_id);
	put_text(ok, o, "home_id", text);
	put_text(ok, o, "public_key",
		 sp_key_format(SP_KEY_WORKER, false, m->public_key, text));
	for (size_t i = 0; i < m->n_carriers; i++)
		append(ok, carriers, carrier(ok, &m->carriers[i]));
	put(ok, o, "carriers", carriers);
	return o;
}

static void put_members(bool *ok, json_t *o, const struct sp_fleet_members *m)
{
	json_t *list = m->n ? json_array() : NULL;
	for (size_t i = 0; i < m->n; i++)
		append(ok, list, member(ok, &m->v[i]));
	if (list)
		put(ok, o, "members", list);
}

char *sp_fleet_worker_print(const struct sp_fleet_worker *f)
{
	bool ok = true;
	char text[SP_KEY_TEXT_MAX];
	json_t *o = head(&ok, &f->revision, f->issued_s, f->expires_s);
	json_t *tiers = json_object(), *rules = json_array(), *keys = json_array();

	put_text(&ok, o, "group", f->group);
	for (size_t i = 0; i < f->n_tiers; i++)
		put(&ok, tiers, f->tiers[i].name, tier(&ok, &f->tiers[i]));
	put(&ok, o, "tiers", tiers);
	for (size_t i = 0; i < f->n_rules; i++)
		append(&ok, rules, json_string(f->rules[i]));
	put(&ok, o, "exit_policy", rules);
	for (unsigned i = 0; i < f->pass_keys.n; i++)
		append(&ok, keys,
		       json_string(sp_key_format(SP_KEY_SIGNING, false,
						 f->pass_keys.key[i].public_key, text)));
	put(&ok, o, "pass_keys", keys);
	if (f->cover.kind) {
		char cover[SP_TARGET_TEXT_MAX];
		put_text(&ok, o, "cover",
			 sp_target_format(&f->cover, cover, sizeof(cover)));
	}
	put_revoked(&ok, o, f);
	put_members(&ok, o, &f->members);
	return finish(ok, o);
}

static json_t *exit_node(bool *ok, const struct sp_fleet_exit *x)
{
	char text[SP_KEY_TEXT_MAX];
	json_t *o = json_object(), *carriers = json_array();
	put_text(ok, o, "name", x->name);
	put_text(ok, o, "region", x->region);
	put_number(ok, o, "weight", x->weight);
	snprintf(text, sizeof(text), "%016llx", (unsigned long long)x->home_id);
	put_text(ok, o, "home_id", text);
	put_text(ok, o, "public_key",
		 sp_key_format(SP_KEY_WORKER, false, x->public_key, text));
	for (size_t i = 0; i < x->n_carriers; i++)
		append(ok, carriers, carrier(ok, &x->carriers[i]));
	put(ok, o, "carriers", carriers);
	return o;
}

static void put_endpoint(bool *ok, json_t *o, const struct sp_fleet_client *f)
{
	char text[SP_BASE64_CAP(SP_PASS_BLOB_MAX)];
	put_number(ok, o, "server_time", f->server_time_s);
	put_number(ok, o, "refresh_s", f->refresh_s);
	if (f->n_endpoints) {
		json_t *list = json_array();
		for (size_t i = 0; i < f->n_endpoints; i++)
			append(ok, list, json_string(f->endpoints[i]));
		put(ok, o, "endpoints", list);
	}
	if (f->pass_len)
		put(ok, o, "pass",
		    json_string(
			    sp_base64_encode(f->pass, f->pass_len, text, sizeof(text))));
	if (*f->pass_refused)
		put_text(ok, o, "pass_refused", f->pass_refused);
}

char *sp_fleet_client_print(const struct sp_fleet_client *f)
{
	bool ok = true;
	json_t *o = head(&ok, &f->revision, f->issued_s, f->expires_s);
	json_t *exits = json_array();
	for (size_t i = 0; i < f->n_exits; i++)
		append(&ok, exits, exit_node(&ok, &f->exits[i]));
	put(&ok, o, "exits", exits);
	put_endpoint(&ok, o, f);
	return finish(ok, o);
}
