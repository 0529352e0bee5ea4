#include "lib/fleet.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/key.h"
#include "lib/text.h"

// Where in the document we are, and the first error.
struct cursor {
	char path[96];
	char *why;
	size_t cap;
	int err;
};

__attribute__((format(printf, 3, 4))) static void fail(struct cursor *c, int err,
						       const char *format, ...)
{
	if (c->err)
		return;
	c->err = err;
	int n = snprintf(c->why, c->cap, "%s: ", c->path[0] ? c->path : "document");
	if (n < 0 || (size_t)n >= c->cap)
		return;
	va_list ap;
	va_start(ap, format);
	vsnprintf(c->why + n, c->cap - (size_t)n, format, ap);
	va_end(ap);
}

// Appends ".key" or "[index]" to the path; returns what to cut it back to.
__attribute__((format(printf, 2, 3))) static size_t enter(struct cursor *c,
							  const char *format, ...)
{
	size_t len = strlen(c->path);
	va_list ap;
	va_start(ap, format);
	vsnprintf(c->path + len, sizeof(c->path) - len, format, ap);
	va_end(ap);
	return len;
}

static void leave(struct cursor *c, size_t len)
{
	c->path[len] = '\0';
}

static const char *type_word(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "a list";
	case JSON_STRING:
		return "a text";
	case JSON_INTEGER:
		return "an integer";
	case JSON_REAL:
		return "a fraction";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	case JSON_NULL:
		return "null";
	}
	return "something else";
}

// `keys` is one text of the allowed keys, each between spaces. False: not an object.
static bool check_keys(struct cursor *c, const json_t *o, const char *keys)
{
	const char *key;
	json_t *v;
	if (!json_is_object(o)) {
		fail(c, SP_E_CONFIG, "found %s; want an object", type_word(o));
		return false;
	}
	json_object_foreach((json_t *)o, key, v)
	{
		char word[40];
		snprintf(word, sizeof(word), " %.36s ", key);
		if (strchr(key, ' ') || !strstr(keys, word))
			fail(c, SP_E_CONFIG, "unknown key \"%.32s\"; known are%s", key,
			     keys);
	}
	return !c->err;
}

static json_t *member(struct cursor *c, const json_t *o, const char *key, json_type type,
		      const char *want, bool required)
{
	json_t *v = c->err ? NULL : json_object_get(o, key);
	if (!v) {
		if (required)
			fail(c, SP_E_CONFIG, "key \"%s\" is missing; want %s", key, want);
		return NULL;
	}
	if (json_typeof(v) == type)
		return v;
	size_t at = enter(c, "%s%s", c->path[0] ? "." : "", key);
	fail(c, SP_E_CONFIG, "found %s; want %s", type_word(v), want);
	leave(c, at);
	return NULL;
}

static uint64_t get_uint(struct cursor *c, const json_t *o, const char *key, uint64_t max,
			 bool required)
{
	json_t *v = member(c, o, key, JSON_INTEGER, "an integer", required);
	json_int_t i = v ? json_integer_value(v) : 0;
	if (i < 0 || (uint64_t)i > max) {
		size_t at = enter(c, "%s%s", c->path[0] ? "." : "", key);
		fail(c, SP_E_CONFIG, "found %lld; want 0 to %llu", (long long)i,
		     (unsigned long long)max);
		leave(c, at);
		return 0;
	}
	return (uint64_t)i;
}

static const char *get_text(struct cursor *c, const json_t *o, const char *key,
			    size_t max, bool required)
{
	json_t *v = member(c, o, key, JSON_STRING, "a text", required);
	if (!v)
		return "";
	const char *s = json_string_value(v);
	size_t len = json_string_length(v);
	bool plain = strlen(s) == len;
	for (size_t i = 0; i < len; i++)
		plain &= (unsigned char)s[i] >= 0x20 && s[i] != 0x7f;
	if (plain && len <= max && (len || !required))
		return s;
	size_t at = enter(c, "%s%s", c->path[0] ? "." : "", key);
	fail(c, SP_E_CONFIG, "want a text of %d to %zu bytes without control characters",
	     required ? 1 : 0, max);
	leave(c, at);
	return "";
}

// A list of at most `max` entries. NULL: absent or wrong.
static json_t *get_list(struct cursor *c, const json_t *o, const char *key, size_t max,
			bool required)
{
	json_t *v = member(c, o, key, JSON_ARRAY, "a list", required);
	if (v && json_array_size(v) > max) {
		fail(c, SP_E_LIMIT, "%s has %zu entries; at most %zu are allowed", key,
		     json_array_size(v), max);
		return NULL;
	}
	return v;
}

static void *list_alloc(struct cursor *c, size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);
	if (!p)
		fail(c, -ENOMEM, "out of memory");
	return p;
}

static json_t *load(struct cursor *c, const void *text, size_t len)
{
	json_error_t e;
	if (len > SP_SIGNED_BODY_MAX) {
		fail(c, SP_E_LIMIT, "%zu bytes; at most %u are allowed", len,
		     SP_SIGNED_BODY_MAX);
		return NULL;
	}
	json_t *v = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
	if (!v)
		fail(c, SP_E_CONFIG, "line %d, column %d: %s", e.line, e.column, e.text);
	return v;
}

static void get_revision(struct cursor *c, const json_t *o, struct sp_fleet_revision *ret)
{
	json_t *v = member(c, o, "revision", JSON_OBJECT, "an object", true);
	if (!v)
		return;
	size_t at = enter(c, "revision");
	if (check_keys(c, v, " epoch sequence ")) {
		ret->epoch = (uint32_t)get_uint(c, v, "epoch", UINT32_MAX, true);
		ret->sequence = get_uint(c, v, "sequence", INT64_MAX, true);
	}
	leave(c, at);
}

static void get_head(struct cursor *c, const json_t *o,
		     struct sp_fleet_revision *revision, uint64_t *issued,
		     uint64_t *expires)
{
	uint64_t format = get_uint(c, o, "format", INT64_MAX, true);
	if (format != SP_FLEET_FORMAT)
		fail(c, SP_E_VERSION, "format is %llu; this program reads %d",
		     (unsigned long long)format, SP_FLEET_FORMAT);
	get_revision(c, o, revision);
	*issued = get_uint(c, o, "issued", INT64_MAX, false);
	*expires = get_uint(c, o, "expires", INT64_MAX, false);
	if (*expires && *expires <= *issued)
		fail(c, SP_E_CONFIG, "expires is not later than issued");
}

int sp_fleet_revision_compare(const struct sp_fleet_revision *a,
			      const struct sp_fleet_revision *b)
{
	if (a->epoch != b->epoch)
		return a->epoch < b->epoch ? -1 : 1;
	if (a->sequence != b->sequence)
		return a->sequence < b->sequence ? -1 : 1;
	return 0;
}

// ---- worker config ----

static void get_tiers(struct cursor *c, const json_t *o, struct sp_fleet_worker *f)
{
	const char *name;
	json_t *t, *tiers = member(c, o, "tiers", JSON_OBJECT, "an object", true);
	if (!tiers)
		return;
	if (json_object_size(tiers) == 0 ||
	    json_object_size(tiers) > SP_FLEET_TIERS_MAX) {
		fail(c, SP_E_LIMIT, "tiers has %zu entries; want 1 to %d",
		     json_object_size(tiers), SP_FLEET_TIERS_MAX);
		return;
	}
	f->tiers = list_alloc(c, json_object_size(tiers), sizeof(*f->tiers));
	json_object_foreach(tiers, name, t)
	{
		if (c->err)
			return;
		struct sp_fleet_tier *tier = &f->tiers[f->n_tiers++];
		size_t at = enter(c, "tiers.%.32s", name);
		if (!*name || strlen(name) > SP_FLEET_NAME_MAX)
			fail(c, SP_E_CONFIG, "a tier's name has 1 to %d bytes",
			     SP_FLEET_NAME_MAX);
		else if (check_keys(c, t,
				    " max_sessions max_streams max_flows rate_bps ")) {
			strcpy(tier->name, name);
			tier->max_sessions =
				(uint32_t)get_uint(c, t, "max_sessions", 65535, false);
			tier->max_streams =
				(uint32_t)get_uint(c, t, "max_streams", 1 << 20, false);
			tier->max_flows =
				(uint32_t)get_uint(c, t, "max_flows", 1 << 20, false);
			tier->rate_bps = get_uint(c, t, "rate_bps", INT64_MAX, false);
		}
		leave(c, at);
	}
}

static void get_rules(struct cursor *c, const json_t *o, struct sp_fleet_worker *f)
{
	json_t *v, *list = get_list(c, o, "exit_policy", SP_FLEET_RULES_MAX, false);
	size_t i;
	if (!list)
		return;
	f->rules = list_alloc(c, json_array_size(list), sizeof(*f->rules));
	json_array_foreach(list, i, v)
	{
		if (c->err)
			return;
		size_t at = enter(c, "exit_policy[%zu]", i);
		if (!json_is_string(v) || json_string_length(v) > 100)
			fail(c, SP_E_CONFIG,
			     "want a rule such as \"allow 10.0.0.0/8:443\"");
		else if (!(f->rules[f->n_rules++] = strdup(json_string_value(v))))
			fail(c, -ENOMEM, "out of memory");
		leave(c, at);
	}
}

static void get_pass_keys(struct cursor *c, const json_t *o, struct sp_fleet_worker *f)
{
	json_t *v, *list = get_list(c, o, "pass_keys", SP_SIGNED_KEYS_MAX, true);
	size_t i;
	if (list && json_array_size(list) == 0)
		fail(c, SP_E_CONFIG,
		     "pass_keys is empty; want the public signing key of passes");
	json_array_foreach(list, i, v)
	{
		char why[160] = "found something that is not a text";
		uint8_t key[SP_SIGNED_PUBLIC_BYTES];
		size_t at = enter(c, "pass_keys[%zu]", i);
		if (!json_is_string(v) ||
		    sp_key_parse(SP_KEY_SIGNING, false, json_string_value(v),
				 json_string_length(v), key, why, sizeof(why)))
			fail(c, SP_E_CONFIG, "%s", why);
		else if (sp_signed_keys_add(&f->pass_keys, key))
			fail(c, SP_E_CONFIG, "not a valid Ed25519 public key");
		leave(c, at);
	}
}

static int compare_serial(const void *a, const void *b)
{
	return memcmp(a, b, 16);
}

static void get_revoked(struct cursor *c, const json_t *o, struct sp_fleet_worker *f)
{
	json_t *v, *list = get_list(c, o, "revoked", SP_FLEET_REVOKED_MAX, false);
	size_t i;
	if (!list)
		return;
	f->revoked = list_alloc(c, json_array_size(list), sizeof(*f->revoked));
	json_array_foreach(list, i, v)
	{
		if (c->err)
			return;
		if (!json_is_string(v) ||
		    sp_hex_decode(json_string_value(v), json_string_length(v),
				  f->revoked[f->n_revoked++], 16)) {
			size_t at = enter(c, "revoked[%zu]", i);
			fail(c, SP_E_CONFIG,
			     "want a pass's serial, 32 hexadecimal digits");
			leave(c, at);
		}
	}
	if (!c->err)
		qsort(f->revoked, f->n_revoked, sizeof(*f->revoked), compare_serial);
}

int sp_fleet_worker_parse(const void *json, size_t len, struct sp_fleet_worker **ret,
			  char *why, size_t cap)
{
	struct cursor c = {.why = why, .cap = cap};
	struct sp_fleet_worker *f = list_alloc(&c, 1, sizeof(*f));
	json_t *o = f ? load(&c, json, len) : NULL;
	if (o &&
	    check_keys(
		    &c, o,
		    " format revision issued expires group tiers exit_policy pass_keys "
		    "revoked ")) {
		get_head(&c, o, &f->revision, &f->issued_s, &f->expires_s);
		strcpy(f->group, get_text(&c, o, "group", SP_FLEET_NAME_MAX, false));
		get_tiers(&c, o, f);
		get_rules(&c, o, f);
		get_pass_keys(&c, o, f);
		get_revoked(&c, o, f);
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

bool sp_fleet_is_revoked(const struct sp_fleet_worker *f, const uint8_t *serial)
{
	return f->n_revoked && bsearch(serial, f->revoked, f->n_revoked,
				       sizeof(*f->revoked), compare_serial);
}

bool sp_fleet_admits(const struct sp_fleet_worker *f, const struct sp_pass *pass)
{
	return f->group[0] == '\0' || pass->groups_n == 0 ||
	       sp_pass_has_group(pass, f->group);
}

// ---- client config ----

static void get_carrier(struct cursor *c, const json_t *o, struct sp_fleet_carrier *ret)
{
	if (!check_keys(c, o, " kind address server_name pin_sha256 ca_file "))
		return;
	if (sp_carrier_kind_parse(get_text(c, o, "kind", 16, true), &ret->kind))
		fail(c, SP_E_CONFIG, "kind is \"%s\"; want \"tls\" or \"tcp\"",
		     get_text(c, o, "kind", 16, true));
	const char *address = get_text(c, o, "address", SP_TARGET_TEXT_MAX - 1, true);
	if (!c->err &&
	    (sp_target_parse(address, &ret->address) || ret->address.port == 0))
		fail(c, SP_E_CONFIG, "address is \"%s\"; want HOST:PORT or [IPV6]:PORT",
		     address);
	const char *name = get_text(c, o, "server_name", SP_NAME_MAX, false);
	if (*name && !sp_name_is_valid(name, strlen(name)))
		fail(c, SP_E_CONFIG, "server_name \"%s\" is not a host name", name);
	strcpy(ret->server_name, name);
	const char *pin = get_text(c, o, "pin_sha256", 64, false);
	ret->pinned = *pin != '\0';
	if (ret->pinned && sp_hex_decode(pin, strlen(pin), ret->pin, sizeof(ret->pin)))
		fail(c, SP_E_CONFIG, "pin_sha256: want 64 hexadecimal digits");
	const char *ca = get_text(c, o, "ca_file", 4095, false);
	if (*ca && ret->pinned)
		fail(c, SP_E_CONFIG, "pin_sha256 and ca_file exclude each other");
	if (ret->kind != SP_CARRIER_TLS && (*name || *ca || ret->pinned))
		fail(c, SP_E_CONFIG,
		     "server_name, pin_sha256 and ca_file are for kind \"tls\"");
	if (!c->err && *ca && !(ret->ca_file = strdup(ca)))
		fail(c, -ENOMEM, "out of memory");
}

static void get_exit(struct cursor *c, const json_t *o, struct sp_fleet_exit *ret)
{
	char why[160];
	json_t *v;
	size_t i;
	if (!check_keys(c, o, " name region home_id public_key carriers "))
		return;
	strcpy(ret->name, get_text(c, o, "name", SP_FLEET_NAME_MAX, true));
	strcpy(ret->region, get_text(c, o, "region", SP_FLEET_NAME_MAX, false));
	ret->home_id = get_uint(c, o, "home_id", INT64_MAX, true);
	const char *key = get_text(c, o, "public_key", SP_KEY_TEXT_MAX, true);
	if (!c->err && sp_key_parse(SP_KEY_WORKER, false, key, strlen(key),
				    ret->public_key, why, sizeof(why)))
		fail(c, SP_E_CONFIG, "public_key: %s", why);
	json_t *list = get_list(c, o, "carriers", SP_FLEET_CARRIERS_MAX, true);
	if (list && json_array_size(list) == 0)
		fail(c, SP_E_CONFIG, "carriers is empty; an exit needs one");
	json_array_foreach(list, i, v)
	{
		size_t at = enter(c, ".carriers[%zu]", i);
		if (!c->err)
			get_carrier(c, v, &ret->carriers[ret->n_carriers++]);
		leave(c, at);
	}
}

static void check_unique(struct cursor *c, const struct sp_fleet_client *f, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(f->exits[i].name, f->exits[n].name) == 0 ||
		    f->exits[i].home_id == f->exits[n].home_id)
			fail(c, SP_E_CONFIG, "has the name or home_id of exits[%zu]", i);
}

int sp_fleet_client_parse(const void *json, size_t len, struct sp_fleet_client **ret,
			  char *why, size_t cap)
{
	struct cursor c = {.why = why, .cap = cap};
	struct sp_fleet_client *f = list_alloc(&c, 1, sizeof(*f));
	json_t *o = f ? load(&c, json, len) : NULL, *v;
	size_t i;
	if (o && check_keys(&c, o, " format revision issued expires exits ")) {
		get_head(&c, o, &f->revision, &f->issued_s, &f->expires_s);
		json_t *list = get_list(&c, o, "exits", SP_FLEET_EXITS_MAX, true);
		if (list && json_array_size(list) == 0)
			fail(&c, SP_E_CONFIG, "exits is empty; a client needs one");
		if (list)
			f->exits =
				list_alloc(&c, json_array_size(list), sizeof(*f->exits));
		json_array_foreach(list, i, v)
		{
			if (c.err)
				break;
			size_t at = enter(&c, "exits[%zu]", i);
			get_exit(&c, v, &f->exits[f->n_exits]);
			check_unique(&c, f, f->n_exits++);
			leave(&c, at);
		}
	}
	json_decref(o);
	if (c.err) {
		sp_fleet_client_free(f);
		return c.err;
	}
	*ret = f;
	return 0;
}

void sp_fleet_client_free(struct sp_fleet_client *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < f->n_exits; i++)
		for (size_t k = 0; k < f->exits[i].n_carriers; k++)
			free(f->exits[i].carriers[k].ca_file);
	free(f->exits);
	free(f);
}
