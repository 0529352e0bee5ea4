#include "healthcheck/targets.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/key.h"
#include "lib/text.h"

static bool copy(char *to, size_t cap, const char *from)
{
	if (!from || strlen(from) >= cap)
		return false;
	strcpy(to, from);
	return true;
}

static const char *text_of(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

// ---- carriers ----

// The node's part that all of its carriers have. False: nothing to probe there.
static bool read_node(const struct sp_state *state, const char *node, const json_t *o,
		      struct hck_target *t)
{
	char key[SP_STATE_KEY_MAX + 1], why[128];
	snprintf(key, sizeof(key), "identity/%s", node);
	json_t *id = sp_state_get_object(state, key);
	const char *text = text_of(id, "static");
	bool ok = text && copy(t->node, sizeof(t->node), node) &&
		  copy(t->region, sizeof(t->region), text_of(o, "region")) &&
		  !sp_key_parse(SP_KEY_WORKER, false, text, strlen(text), t->public_key,
				why, sizeof(why));
	json_decref(id);
	json_t *v;
	size_t i;
	json_array_foreach(json_object_get(o, "egress"), i, v)
	{
		const char *host = json_string_value(v);
		if (host && t->n_egress < HCK_EGRESS_MAX &&
		    !sp_target_set_host(&t->egress[t->n_egress], host, strlen(host), 0))
			t->n_egress++;
	}
	return ok;
}

static bool read_carrier(const json_t *o, struct hck_target *t)
{
	struct sp_fleet_carrier *c = &t->carrier;
	const char *kind = text_of(o, "kind"), *address = text_of(o, "address");
	const char *pin = text_of(o, "pin_sha256"), *ca = text_of(o, "ca_file");
	const char *name = text_of(o, "server_name");
	char text[SP_TARGET_TEXT_MAX];
	if (!kind || sp_carrier_kind_parse(kind, &c->kind) || !address ||
	    sp_target_parse(address, &c->address) || c->address.port == 0 ||
	    (name && !copy(c->server_name, sizeof(c->server_name), name)))
		return false;
	if (pin && sp_hex_decode(pin, strlen(pin), c->pin, sizeof(c->pin)))
		return false;
	c->pinned = pin != NULL;
	if (ca && !(c->ca_file = strdup(ca)))
		return false;
	snprintf(t->carrier_text, sizeof(t->carrier_text), "%s %s",
		 sp_carrier_kind_word(c->kind),
		 sp_target_format(&c->address, text, sizeof(text)));
	return true;
}

static int read_nodes(const struct sp_state *state, struct hck_targets *ret)
{
	struct sp_state_entry e;
	size_t cap = 0;
	for (size_t at = 0; sp_state_next(state, "node/", &at, &e);) {
		struct hck_target node = {0};
		json_t *o = json_loadb(e.json, e.json_len, 0, NULL), *v;
		size_t i;
		bool ok = o && read_node(state, e.key + strlen("node/"), o, &node);
		json_array_foreach(json_object_get(o, "carriers"), i, v)
		{
			if (ret->n == cap) {
				size_t more = cap ? 2 * cap : 16;
				void *grown = realloc(ret->v, more * sizeof(ret->v[0]));
				if (!grown) {
					json_decref(o);
					return -ENOMEM;
				}
				ret->v = grown;
				cap = more;
			}
			struct hck_target *t = &ret->v[ret->n];
			*t = node;
			t->index = (unsigned)i;
			if (ok && i < SP_FLEET_CARRIERS_MAX && read_carrier(v, t))
				ret->n++;
			else
				ret->skipped++;
		}
		json_decref(o);
	}
	return 0;
}

// ---- the plan ----

static unsigned read_urls(const json_t *o, const char *key, char urls[][HCK_URL_MAX])
{
	struct sp_target t;
	unsigned n = 0;
	json_t *v;
	size_t i;
	json_array_foreach(json_object_get(o, key), i, v)
	{
		const char *url = json_string_value(v);
		if (n < HCK_URLS_MAX && url && !hck_url_target(url, &t) &&
		    copy(urls[n], HCK_URL_MAX, url))
			n++;
	}
	return n;
}

static uint32_t read_ms(const json_t *o, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(o, key));
	return v > 0 && v <= 86400000 ? (uint32_t)v : 0;
}

// Where a controller proves itself, if nothing else is said: beside the first endpoint.
static void default_url(const json_t *fleet, char ret[HCK_URL_MAX])
{
	static const char config[] = "/config", probe[] = "/probe";
	char urls[HCK_URLS_MAX][HCK_URL_MAX];
	if (!read_urls(fleet, "endpoints", urls))
		return;
	size_t n = strlen(urls[0]), tail = sizeof(config) - 1;
	if (n > tail && strcmp(urls[0] + n - tail, config) == 0) {
		memcpy(urls[0] + n - tail, probe, sizeof(probe));
		memcpy(ret, urls[0], HCK_URL_MAX);
	}
}

static void read_plan(const struct sp_state *state, struct hck_probe_plan *ret)
{
	struct sp_target t;
	json_t *fleet = sp_state_get_object(state, "fleet");
	json_t *o = json_object_get(fleet, "probe");
	const char *url = text_of(o, "url");
	if (url && (hck_url_target(url, &t) || !copy(ret->url, sizeof(ret->url), url)))
		*ret->url = '\0';
	if (!url)
		default_url(fleet, ret->url);
	ret->n_external = read_urls(o, "external", ret->external);
	ret->n_controls = read_urls(o, "controls", ret->controls);
	ret->interval_ms = read_ms(o, "interval_ms");
	ret->deadline_ms = read_ms(o, "deadline_ms");
	json_decref(fleet);
}

int hck_targets_read(const struct sp_state *state, struct hck_targets *ret)
{
	struct hck_targets t = {0};
	int err = read_nodes(state, &t);
	if (err) {
		hck_targets_done(&t);
		return err;
	}
	read_plan(state, &t.plan);
	*ret = t;
	return 0;
}

void hck_targets_done(struct hck_targets *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->v[i].carrier.ca_file);
	free(t->v);
	*t = (struct hck_targets){0};
}

bool hck_target_same(const struct hck_target *a, const struct hck_target *b)
{
	const struct sp_fleet_carrier *x = &a->carrier, *y = &b->carrier;
	bool egress = a->n_egress == b->n_egress;
	for (unsigned i = 0; egress && i < a->n_egress; i++)
		egress = sp_target_equal(&a->egress[i], &b->egress[i]);
	return egress && strcmp(a->node, b->node) == 0 &&
	       strcmp(a->region, b->region) == 0 && a->index == b->index &&
	       strcmp(a->carrier_text, b->carrier_text) == 0 &&
	       strcmp(x->server_name, y->server_name) == 0 && x->pinned == y->pinned &&
	       memcmp(x->pin, y->pin, sizeof(x->pin)) == 0 &&
	       !x->ca_file == !y->ca_file &&
	       (!x->ca_file || strcmp(x->ca_file, y->ca_file) == 0) &&
	       memcmp(a->public_key, b->public_key, sizeof(a->public_key)) == 0;
}

int hck_url_target(const char *url, struct sp_target *ret)
{
	char host[SP_TARGET_TEXT_MAX], with_port[SP_TARGET_TEXT_MAX + 8];
	bool tls = strncmp(url, "https://", 8) == 0;
	if (!tls && strncmp(url, "http://", 7) != 0)
		return SP_E_MALFORMED;
	const char *at = url + (tls ? 8 : 7);
	size_t len = strcspn(at, "/?#");
	if (len == 0 || len >= sizeof(host) || memchr(at, '@', len))
		return SP_E_MALFORMED;
	memcpy(host, at, len);
	host[len] = '\0';
	const char *colon = strrchr(host, ':'), *bracket = strchr(host, ']');
	if (colon && (!bracket || colon > bracket))
		return sp_target_parse(host, ret);
	snprintf(with_port, sizeof(with_port), "%s:%d", host, tls ? 443 : 80);
	return sp_target_parse(with_port, ret);
}
