#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/fleet.h"
#include "lib/fleet_json.h"
#include "lib/key.h"
#include "lib/text.h"

static void get_tls(struct fleet_cursor *c, const json_t *o, struct sp_fleet_carrier *ret)
{
	const char *name = fleet_get_text(c, o, "server_name", SP_NAME_MAX, false);
	const char *pin = fleet_get_text(c, o, "pin_sha256", 64, false);
	const char *ca = fleet_get_text(c, o, "ca_file", SP_FLEET_PATH_MAX, false);
	if (*name && !sp_name_is_valid(name, strlen(name)))
		fleet_fail(c, SP_E_CONFIG, "server_name",
			   "found \"%s\"; want a host name", name);
	strcpy(ret->server_name, name);
	ret->pinned = *pin != '\0';
	if (ret->pinned && sp_hex_decode(pin, strlen(pin), ret->pin, sizeof(ret->pin)))
		fleet_fail(c, SP_E_CONFIG, "pin_sha256",
			   "want the SHA-256 of the certificate, 64 hexadecimal digits");
	if (*ca && ret->pinned)
		fleet_fail(
			c, SP_E_CONFIG, "ca_file",
			"a pin is all that is checked; want pin_sha256 or ca_file, not "
			"both");
	if (ret->kind != SP_CARRIER_TLS && (*name || *ca || ret->pinned))
		fleet_fail(c, SP_E_CONFIG, NULL,
			   "found server_name, pin_sha256 or ca_file; they are for kind "
			   "\"tls\"");
	if (!c->err && *ca && !(ret->ca_file = strdup(ca)))
		fleet_fail(c, -ENOMEM, NULL, "out of memory");
}

static void get_carrier(struct fleet_cursor *c, const json_t *o,
			struct sp_fleet_carrier *ret)
{
	static const char *const keys[] = {"kind",       "address", "server_name",
					   "pin_sha256", "ca_file", NULL};
	if (!fleet_check_keys(c, o, keys))
		return;
	const char *kind = fleet_get_text(c, o, "kind", 32, true);
	if (!c->err && sp_carrier_kind_parse(kind, &ret->kind))
		fleet_fail(c, SP_E_CONFIG, "kind",
			   "found \"%s\"; want \"tls\" or \"tcp\"", kind);
	const char *address =
		fleet_get_text(c, o, "address", SP_TARGET_TEXT_MAX - 1, true);
	if (!c->err &&
	    (sp_target_parse(address, &ret->address) || ret->address.port == 0))
		fleet_fail(c, SP_E_CONFIG, "address",
			   "found \"%.100s\"; want HOST:PORT or [IPV6]:PORT", address);
	get_tls(c, o, ret);
}

static void get_home_id(struct fleet_cursor *c, const json_t *o, struct sp_fleet_exit *x)
{
	uint8_t id[8];
	const char *text = fleet_get_text(c, o, "home_id", 16, false);
	x->home_id = 0;
	if (*text && !sp_hex_decode(text, strlen(text), id, sizeof(id)))
		for (size_t i = 0; i < sizeof(id); i++)
			x->home_id = x->home_id << 8 | id[i];
	else if (!*text && !c->err)
		x->home_id = sp_fleet_home_id(x->public_key);
	if (x->home_id == 0)
		fleet_fail(c, SP_E_CONFIG, "home_id",
			   "want 16 hexadecimal digits, not all zero, or no such key");
}

void fleet_get_exit(struct fleet_cursor *c, const json_t *o, struct sp_fleet_exit *x)
{
	static const char *const keys[] = {"name",       "region",   "weight", "home_id",
					   "public_key", "carriers", NULL};
	char wrong[160];
	json_t *v;
	size_t i;
	if (!fleet_check_keys(c, o, keys))
		return;
	fleet_get_name(c, o, "name", true, x->name);
	fleet_get_name(c, o, "region", false, x->region);
	x->weight = (uint32_t)fleet_get_uint(c, o, "weight", 10000, false);
	const char *key = fleet_get_text(c, o, "public_key", SP_KEY_TEXT_MAX, true);
	if (!c->err && sp_key_parse(SP_KEY_WORKER, false, key, strlen(key), x->public_key,
				    wrong, sizeof(wrong)))
		fleet_fail(c, SP_E_CONFIG, "public_key", "%s", wrong);
	get_home_id(c, o, x);
	json_t *list = fleet_get_list(c, o, "carriers", 1, SP_FLEET_CARRIERS_MAX, true);
	json_array_foreach(list, i, v)
	{
		size_t mark = fleet_enter_index(c, "carriers", i);
		get_carrier(c, v, &x->carriers[x->n_carriers++]);
		fleet_leave(c, mark);
	}
}

static void check_unique(struct fleet_cursor *c, const struct sp_fleet_client *f,
			 size_t n)
{
	const struct sp_fleet_exit *x = &f->exits[n];
	for (size_t i = 0; i < n; i++) {
		const struct sp_fleet_exit *y = &f->exits[i];
		const char *same = strcmp(y->name, x->name) == 0 ? "name"
				   : memcmp(y->public_key, x->public_key, 32) == 0
					   ? "public_key"
				   : y->home_id == x->home_id ? "home_id"
							      : NULL;
		if (same)
			fleet_fail(c, SP_E_CONFIG, same,
				   "found that of exits[%zu]; want one of its own", i);
	}
}

static void get_exits(struct fleet_cursor *c, const json_t *o, struct sp_fleet_client *f)
{
	json_t *v, *list = fleet_get_list(c, o, "exits", 1, SP_FLEET_EXITS_MAX, true);
	size_t i;
	if (!list ||
	    !(f->exits = fleet_alloc(c, json_array_size(list), sizeof(*f->exits))))
		return;
	json_array_foreach(list, i, v)
	{
		size_t mark = fleet_enter_index(c, "exits", i);
		fleet_get_exit(c, v, &f->exits[f->n_exits++]);
		if (!c->err)
			check_unique(c, f, i);
		fleet_leave(c, mark);
		if (c->err)
			return;
	}
}

static void get_endpoints(struct fleet_cursor *c, const json_t *o,
			  struct sp_fleet_client *f)
{
	json_t *v, *list = fleet_get_list(c, o, "endpoints", 0, SP_FLEET_ENDPOINTS_MAX,
					  false);
	size_t i;
	if (!list ||
	    !(f->endpoints = fleet_alloc(c, json_array_size(list), sizeof(char *))))
		return;
	json_array_foreach(list, i, v)
	{
		const char *url = json_string_value(v);
		size_t mark = fleet_enter_index(c, "endpoints", i);
		if (!url || strlen(url) > SP_FLEET_URL_MAX || !fleet_is_plain(url) ||
		    (strncmp(url, "https://", 8) != 0 && strncmp(url, "http://", 7) != 0))
			fleet_fail(c, SP_E_CONFIG, NULL, "want a URL of at most %d bytes",
				   SP_FLEET_URL_MAX);
		else if (!(f->endpoints[f->n_endpoints++] = strdup(url)))
			fleet_fail(c, -ENOMEM, NULL, "out of memory");
		fleet_leave(c, mark);
	}
}

static void get_pass(struct fleet_cursor *c, const json_t *o, struct sp_fleet_client *f)
{
	const char *text =
		fleet_get_text(c, o, "pass", SP_BASE64_LEN(SP_PASS_BLOB_MAX), false);
	if (!*text || c->err || !(f->pass = fleet_alloc(c, 1, SP_PASS_BLOB_MAX)))
		return;
	if (sp_base64_decode(text, strlen(text), f->pass, SP_PASS_BLOB_MAX, &f->pass_len))
		fleet_fail(c, SP_E_CONFIG, "pass", "want a signed pass in base64");
}

int sp_fleet_client_parse(const void *json, size_t len, struct sp_fleet_client **ret,
			  char *why, size_t cap)
{
	static const char *const keys[] = {"format",       "revision",  "issued",
					   "expires",      "exits",     "server_time",
					   "refresh_s",    "endpoints", "pass",
					   "pass_refused", NULL};
	struct fleet_cursor c = {.why = why, .cap = cap};
	struct sp_fleet_client *f = fleet_alloc(&c, 1, sizeof(*f));
	json_t *o = f ? fleet_load(&c, json, len, keys) : NULL;
	if (o) {
		fleet_get_head(&c, o, &f->revision, &f->issued_s, &f->expires_s);
		f->server_time_s = fleet_get_uint(&c, o, "server_time", INT64_MAX, false);
		f->refresh_s = (uint32_t)fleet_get_uint(&c, o, "refresh_s", 86400, false);
		get_endpoints(&c, o, f);
		get_pass(&c, o, f);
		fleet_get_name(&c, o, "pass_refused", false, f->pass_refused);
		if (f->pass_len && *f->pass_refused)
			fleet_fail(&c, SP_E_CONFIG, "pass_refused",
				   "stands beside a pass; want one of the two");
		get_exits(&c, o, f);
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
	for (size_t i = 0; i < f->n_endpoints; i++)
		free(f->endpoints[i]);
	free(f->endpoints);
	free(f->pass);
	free(f->exits);
	free(f);
}
