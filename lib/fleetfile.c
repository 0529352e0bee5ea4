#include "lib/fleetfile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/conf.h"
#include "lib/fleet_json.h"
#include "lib/idmap.h"
#include "lib/policy.h"
#include "lib/text.h"
#include "lib/yaml.h"

#define NODES_MAX   20000
#define USERS_MAX   1000000
#define REGIONS_MAX 1024
#define EGRESS_MAX  64
#define URLS_MAX    16

static const char *const owned[] = {"fleet",   "keys",  "policy", "tier/",
				    "region/", "node/", "user/",  NULL};

// A file that is being read.
struct file {
	struct fleet_cursor c;
	json_t *root;
	struct sp_state *state;
	// Addresses and groups seen: text -> where, as JSON objects, which are hash maps.
	json_t *advertised, *bound, *groups;
};

bool sp_fleetfile_owns(const char *key)
{
	for (const char *const *o = owned; *o; o++) {
		size_t len = strlen(*o);
		if (strncmp(key, *o, len) == 0 && ((*o)[len - 1] == '/' || !key[len]))
			return strcmp(key, "keys") != 0; // the controller's own
	}
	return false;
}

// ---- helpers over the cursor ----

static void put(struct file *f, const char *key, json_t *o)
{
	int err = o ? sp_state_put(f->state, key, o) : -ENOMEM;
	if (err)
		fleet_fail(&f->c, err, NULL, "%s", sp_strerror(err));
	json_decref(o);
}

// Copies a member as it is, if it is there.
static void keep(json_t *to, const json_t *from, const char *key)
{
	json_t *v = json_object_get(from, key);
	if (v && json_object_set(to, key, v))
		abort(); // both are objects, the key is UTF-8
}

static int64_t get_amount(struct file *f, const json_t *o, const char *key,
			  enum sp_conf_type type)
{
	char why[240];
	int64_t v = 0;
	json_t *m = json_object_get(o, key);
	if (!m || f->c.err)
		return 0;
	if (json_is_integer(m) && type == SP_CONF_SIZE && json_integer_value(m) >= 0)
		return json_integer_value(m);
	const char *text = json_string_value(m);
	if (!text)
		fleet_fail(&f->c, SP_E_CONFIG, key, "found %s; want %s",
			   fleet_type_word(m),
			   type == SP_CONF_SIZE ? "a size such as 10G"
						: "a duration such as 30d");
	else if (sp_conf_amount(type, text, &v, why, sizeof(why)))
		fleet_fail(&f->c, SP_E_CONFIG, key, "%s", why);
	return v;
}

// "2027-01-31" or "2027-01-31T12:00:00Z", or Unix seconds.
static int64_t get_time(struct file *f, const json_t *o, const char *key)
{
	struct tm tm = {0};
	json_t *m = json_object_get(o, key);
	const char *text = json_string_value(m);
	if (!m || f->c.err)
		return 0;
	if (json_is_integer(m) && json_integer_value(m) > 0)
		return json_integer_value(m);
	const char *end = text ? strptime(text, "%Y-%m-%d", &tm) : NULL;
	if (end && *end)
		end = strptime(end, "T%H:%M:%SZ", &tm);
	if (end && !*end)
		return timegm(&tm);
	fleet_fail(&f->c, SP_E_CONFIG, key,
		   "want a time such as 2027-01-31 or 2027-01-31T12:00:00Z (UTC)");
	return 0;
}

// A list of texts, each an address "HOST:PORT", or a host alone, or a URL.
enum text_kind { HOSTS, URLS };

static json_t *get_texts(struct file *f, const json_t *o, const char *key, size_t max,
			 enum text_kind kind)
{
	json_t *v, *list = fleet_get_list(&f->c, o, key, 0, max, false);
	struct sp_target t;
	size_t i;
	json_array_foreach(list, i, v)
	{
		const char *s = json_string_value(v);
		size_t mark = fleet_enter_index(&f->c, key, i);
		if (!s)
			fleet_fail(&f->c, SP_E_CONFIG, NULL, "found %s; want a text",
				   fleet_type_word(v));
		else if (kind == URLS && strncmp(s, "https://", 8) != 0 &&
			 strncmp(s, "http://", 7) != 0)
			fleet_fail(&f->c, SP_E_CONFIG, NULL,
				   "found \"%.80s\"; want a URL, https://…", s);
		else if (kind == HOSTS && (sp_target_set_host(&t, s, strlen(s), 0) ||
					   t.kind == SP_TARGET_NAME))
			fleet_fail(&f->c, SP_E_CONFIG, NULL,
				   "found \"%.80s\"; want an address", s);
		fleet_leave(&f->c, mark);
	}
	return list;
}

// The entry is new under `key` in `seen`, a map from names to places, or it is an error.
static void note_new(struct file *f, json_t *seen, const char *text, const char *key,
		     const char *what)
{
	json_t *before = json_object_get(seen, text);
	if (before)
		fleet_fail(&f->c, SP_E_CONFIG, key,
			   "%s is %s at %s already; want another", text, what,
			   json_string_value(before));
	else if (!f->c.err && json_object_set_new(seen, text, json_string(f->c.path)))
		fleet_fail(&f->c, -ENOMEM, NULL, "out of memory");
}

static bool has(const struct file *f, const char *kind, const char *name)
{
	char key[SP_STATE_KEY_MAX + 1];
	snprintf(key, sizeof(key), "%s/%s", kind, name);
	return sp_state_get(f->state, key, NULL);
}

// "is eu" and the like: the first ones of a kind, to buf. Returns it.
static const char *names_of(struct file *f, const char *kind, char *buf, size_t cap)
{
	struct sp_state_entry e;
	char prefix[32];
	size_t at = 0, n = 0;
	unsigned k = 0;
	snprintf(prefix, sizeof(prefix), "%s/", kind);
	n = (size_t)snprintf(buf, cap, "is");
	while (k < 4 && n < cap && sp_state_next(f->state, prefix, &at, &e))
		n += (size_t)snprintf(buf + n, cap - n, "%s %.20s", k++ ? "," : "",
				      e.key + strlen(prefix));
	if (!k)
		snprintf(buf, cap, "is none");
	else if (n < cap && sp_state_next(f->state, prefix, &at, &e))
		snprintf(buf + n, cap - n, ", ...");
	return buf;
}

// Names what is nearest to a name that is not there, or some that are.
static void unknown(struct file *f, const char *key, const char *kind, const char *name)
{
	struct sp_state_entry e;
	char prefix[32], list[112];
	const char *near = NULL;
	size_t at = 0;
	unsigned best = 3;
	snprintf(prefix, sizeof(prefix), "%s/", kind);
	while (sp_state_next(f->state, prefix, &at, &e)) {
		unsigned d = sp_text_distance(name, e.key + strlen(prefix));
		if (d < best) {
			best = d;
			near = e.key + strlen(prefix);
		}
	}
	if (near)
		fleet_fail(&f->c, SP_E_CONFIG, key, "no %s \"%s\"; is it \"%s\"?", kind,
			   name, near);
	else
		fleet_fail(&f->c, SP_E_CONFIG, key,
			   "no %s \"%s\"; declare it in %ss, where there %s", kind, name,
			   kind, names_of(f, kind, list, sizeof(list)));
}

// ---- the parts ----

// Calls `each` with every entry of a list of objects.
static void for_each(struct file *f, const char *key, size_t max, bool required,
		     const char *const *keys, void (*each)(struct file *f, json_t *o))
{
	json_t *o, *list = fleet_get_list(&f->c, f->root, key, required, max, required);
	size_t i;
	json_array_foreach(list, i, o)
	{
		size_t mark = fleet_enter_index(&f->c, key, i);
		if (fleet_check_keys(&f->c, o, keys))
			each(f, o);
		fleet_leave(&f->c, mark);
		if (f->c.err)
			return;
	}
}

// The entry's own name, not taken yet, and its key.
static bool new_name(struct file *f, const json_t *o, const char *kind, char *ret_key)
{
	char name[SP_FLEET_NAME_MAX + 1];
	fleet_get_name(&f->c, o, "name", true, name);
	if (!f->c.err && has(f, kind, name))
		fleet_fail(&f->c, SP_E_CONFIG, "name",
			   "%s \"%s\" stands above already; rename or remove one", kind,
			   name);
	snprintf(ret_key, SP_STATE_KEY_MAX + 1, "%s/%s", kind, name);
	return !f->c.err;
}

static void read_region(struct file *f, json_t *o)
{
	char key[SP_STATE_KEY_MAX + 1];
	if (new_name(f, o, "region", key))
		put(f, key, json_object());
}

static void read_tier(struct file *f, json_t *o)
{
	char key[SP_STATE_KEY_MAX + 1];
	json_t *v, *list, *t = json_object();
	size_t i;
	if (!t || !new_name(f, o, "tier", key)) {
		json_decref(t);
		return;
	}
	(void)fleet_get_uint(&f->c, o, "max_sessions", 65535, false);
	(void)fleet_get_uint(&f->c, o, "max_streams", 1 << 20, false);
	(void)fleet_get_uint(&f->c, o, "max_flows", 1 << 20, false);
	list = fleet_get_list(&f->c, o, "groups", 0, SP_PASS_GROUPS_MAX, false);
	json_array_foreach(list, i, v)
	{
		const char *name = json_string_value(v);
		size_t mark = fleet_enter_index(&f->c, "groups", i);
		if (!name || !json_object_get(f->groups, name))
			fleet_fail(&f->c, SP_E_CONFIG, NULL,
				   "no node is in group \"%s\"; name one that is",
				   name ? name : fleet_type_word(v));
		fleet_leave(&f->c, mark);
	}
	static const char *const plain[] = {"max_sessions", "max_streams", "max_flows",
					    "groups", NULL};
	for (const char *const *p = plain; *p; p++)
		keep(t, o, *p);
	int64_t rate = get_amount(f, o, "rate", SP_CONF_SIZE);
	int64_t quota = get_amount(f, o, "quota", SP_CONF_SIZE);
	int64_t period = get_amount(f, o, "quota_period", SP_CONF_DURATION);
	if (period % 1000)
		fleet_fail(&f->c, SP_E_CONFIG, "quota_period", "want whole seconds");
	if ((rate && json_object_set_new(t, "rate_bps", json_integer(rate))) ||
	    (quota && json_object_set_new(t, "quota_bytes", json_integer(quota))) ||
	    (period &&
	     json_object_set_new(t, "quota_period_s", json_integer(period / 1000))))
		fleet_fail(&f->c, -ENOMEM, NULL, "out of memory");
	put(f, key, t);
}

static void read_user(struct file *f, json_t *o)
{
	char key[SP_STATE_KEY_MAX + 1], tier[SP_FLEET_NAME_MAX + 1];
	json_t *disabled = json_object_get(o, "disabled"), *u;
	if (!new_name(f, o, "user", key))
		return;
	fleet_get_name(&f->c, o, "tier", true, tier);
	if (!f->c.err && !has(f, "tier", tier))
		unknown(f, "tier", "tier", tier);
	if (disabled && !json_is_boolean(disabled))
		fleet_fail(&f->c, SP_E_CONFIG, "disabled", "want true or false");
	uint64_t devices = fleet_get_uint(&f->c, o, "max_devices", 10000, false);
	int64_t expires = get_time(f, o, "expires");
	int64_t quota = get_amount(f, o, "quota", SP_CONF_SIZE);
	if (f->c.err)
		return;
	u = json_pack("{s:s, s:I}", "tier", tier, "max_devices",
		      (json_int_t)(devices ? devices : 5));
	if (!u || (expires && json_object_set_new(u, "expires", json_integer(expires))) ||
	    (quota && json_object_set_new(u, "quota_bytes", json_integer(quota))) ||
	    (json_is_true(disabled) && json_object_set_new(u, "disabled", json_true())))
		fleet_fail(&f->c, -ENOMEM, NULL, "out of memory");
	put(f, key, u);
}

// ---- nodes ----

static bool is_any(const struct sp_target *t)
{
	static const uint8_t zero[16];
	return (t->kind == SP_TARGET_IPV4 && memcmp(t->v4, zero, 4) == 0) ||
	       (t->kind == SP_TARGET_IPV6 && memcmp(t->v6, zero, 16) == 0);
}

// The form in which the same address is the same text: names in small letters, IPv4 as
// such where it is written in IPv6.
static void fold(struct sp_target *t)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	if (t->kind == SP_TARGET_NAME) {
		for (char *p = t->name; *p; p++)
			*p = *p >= 'A' && *p <= 'Z' ? (char)(*p + 'a' - 'A') : *p;
	} else if (t->kind == SP_TARGET_IPV6 && !memcmp(t->v6, mapped, sizeof(mapped))) {
		uint8_t v4[4];
		memcpy(v4, t->v6 + 12, sizeof(v4));
		memcpy(t->v4, v4, sizeof(v4));
		t->kind = SP_TARGET_IPV4;
	}
}

static bool get_address(struct file *f, const json_t *o, const char *key, bool required,
			bool may_be_name, struct sp_target *ret)
{
	const char *text =
		fleet_get_text(&f->c, o, key, SP_TARGET_TEXT_MAX - 1, required);
	ret->kind = 0;
	if (!*text)
		return false;
	if (sp_target_parse(text, ret) || ret->port == 0 ||
	    (ret->kind == SP_TARGET_NAME && !may_be_name)) {
		fleet_fail(&f->c, SP_E_CONFIG, key,
			   "found \"%.80s\"; want %s and a port, such as %s", text,
			   may_be_name ? "a name or address" : "an address",
			   may_be_name ? "192.0.2.1:443" : "0.0.0.0:443");
		return false;
	}
	fold(ret);
	return true;
}

// Two workers of a node share its addresses, so a port may be bound once in a family: by
// addresses, or by all of them at once.
static void check_bound(struct file *f, const char *node, const struct sp_target *t)
{
	char text[SP_TARGET_TEXT_MAX], key[SP_TARGET_TEXT_MAX + SP_FLEET_NAME_MAX + 16];
	char all[SP_FLEET_NAME_MAX + 32], some[SP_FLEET_NAME_MAX + 32];
	int family = t->kind == SP_TARGET_IPV4 ? 4 : 6;
	sp_target_format(t, text, sizeof(text));
	snprintf(all, sizeof(all), "%s all%d:%u", node, family, t->port);
	snprintf(some, sizeof(some), "%s some%d:%u", node, family, t->port);
	snprintf(key, sizeof(key), "%s %s", node, text);
	json_t *other = json_object_get(f->bound, is_any(t) ? some : all);
	if (other)
		fleet_fail(&f->c, SP_E_CONFIG, "listen",
			   "%s overlaps what is bound at %s; want another port", text,
			   json_string_value(other));
	note_new(f, f->bound, key, "listen", "bound");
	if (!f->c.err &&
	    json_object_set_new(f->bound, is_any(t) ? all : some, json_string(f->c.path)))
		fleet_fail(&f->c, -ENOMEM, NULL, "out of memory");
}

static void read_carrier(struct file *f, const char *node, const json_t *o)
{
	static const char *const keys[] = {"kind",        "address",    "listen",
					   "server_name", "pin_sha256", "ca_file",
					   NULL};
	char text[SP_TARGET_TEXT_MAX];
	struct sp_target t;
	if (!fleet_check_keys(&f->c, o, keys))
		return;
	const char *kind = fleet_get_text(&f->c, o, "kind", 16, true);
	bool tls = strcmp(kind, "tls") == 0;
	if (!f->c.err && !tls && strcmp(kind, "tcp") != 0)
		fleet_fail(&f->c, SP_E_CONFIG, "kind", "found \"%s\"; want tls or tcp",
			   kind);
	if (get_address(f, o, "address", true, true, &t))
		note_new(f, f->advertised, sp_target_format(&t, text, sizeof(text)),
			 "address", "advertised");
	if (get_address(f, o, "listen", false, false, &t))
		check_bound(f, node, &t);
	const char *name = fleet_get_text(&f->c, o, "server_name", SP_NAME_MAX, false);
	const char *pin = fleet_get_text(&f->c, o, "pin_sha256", 64, false);
	const char *ca = fleet_get_text(&f->c, o, "ca_file", SP_FLEET_PATH_MAX, false);
	uint8_t hash[32];
	if (*pin && sp_hex_decode(pin, strlen(pin), hash, sizeof(hash)))
		fleet_fail(&f->c, SP_E_CONFIG, "pin_sha256",
			   "want 64 hexadecimal digits");
	if (!tls && (*name || *pin || *ca))
		fleet_fail(&f->c, SP_E_CONFIG,
			   *name  ? "server_name"
			   : *pin ? "pin_sha256"
				  : "ca_file",
			   "belongs to tls; remove it or change kind");
	if (*pin && *ca)
		fleet_fail(&f->c, SP_E_CONFIG, "ca_file",
			   "stands beside pin_sha256; keep one of the two");
}

static void read_carriers(struct file *f, const char *node, const json_t *o)
{
	json_t *v, *list = fleet_get_list(&f->c, o, "carriers", 1, SP_FLEET_CARRIERS_MAX,
					  true);
	size_t i;
	json_array_foreach(list, i, v)
	{
		size_t mark = fleet_enter_index(&f->c, "carriers", i);
		read_carrier(f, node, v);
		fleet_leave(&f->c, mark);
	}
}

static void read_node(struct file *f, json_t *o)
{
	char name[SP_FLEET_NAME_MAX + 1], region[SP_FLEET_NAME_MAX + 1],
		group[SP_FLEET_NAME_MAX + 1], key[SP_STATE_KEY_MAX + 1];
	fleet_get_name(&f->c, o, "name", true, name);
	uint64_t worker = fleet_get_uint(&f->c, o, "worker", 255, false);
	snprintf(key, sizeof(key), "node/%s/%u", name, (unsigned)worker);
	if (!f->c.err && sp_state_get(f->state, key, NULL))
		fleet_fail(&f->c, SP_E_CONFIG, "name",
			   "worker %u of node \"%s\" stands above already; rename it or "
			   "give it another worker number",
			   (unsigned)worker, name);
	fleet_get_name(&f->c, o, "region", true, region);
	if (!f->c.err && !has(f, "region", region))
		unknown(f, "region", "region", region);
	fleet_get_name(&f->c, o, "group", false, group);
	uint64_t weight = json_object_get(o, "weight")
				  ? fleet_get_uint(&f->c, o, "weight", 10000, false)
				  : 100;
	json_t *egress = get_texts(f, o, "egress", EGRESS_MAX, HOSTS);
	read_carriers(f, name, o);
	if (f->c.err)
		return;
	json_t *n =
		json_pack("{s:s, s:I, s:O}", "region", region, "weight",
			  (json_int_t)weight, "carriers", json_object_get(o, "carriers"));
	if (!n || (*group && (json_object_set_new(n, "group", json_string(group)) ||
			      json_object_set_new(f->groups, group, json_true()))))
		fleet_fail(&f->c, -ENOMEM, NULL, "out of memory");
	else if (egress)
		keep(n, o, "egress");
	put(f, key, n);
}

// ---- the whole ----

static void read_policy(struct file *f)
{
	char why[SP_POLICY_ERROR_MAX];
	struct sp_policy *p = NULL;
	json_t *v, *list = fleet_get_list(&f->c, f->root, "exit_policy", 0,
					  SP_FLEET_RULES_MAX, false);
	size_t i;
	if (sp_policy_new(&p))
		fleet_fail(&f->c, -ENOMEM, NULL, "out of memory");
	json_array_foreach(list, i, v)
	{
		const char *rule = json_string_value(v);
		size_t mark = fleet_enter_index(&f->c, "exit_policy", i);
		if (!rule || strlen(rule) > SP_FLEET_RULE_MAX)
			fleet_fail(&f->c, SP_E_CONFIG, NULL,
				   "want a rule such as \"deny 10.0.0.0/8\"");
		else if (p && sp_policy_add(p, rule, why, sizeof(why)))
			fleet_fail(&f->c, SP_E_CONFIG, NULL, "%s", why);
		fleet_leave(&f->c, mark);
	}
	sp_policy_free(p);
	put(f, "policy",
	    list ? json_pack("{s:O}", "rules", list) : json_pack("{s:[]}", "rules"));
}

// A duration or a number of `least` to `most` (ms); a duration KEY is kept as KEY_ms.
struct option {
	const char *key;
	bool duration;
	int64_t least, most;
	const char *want;
};

static void keep_option(struct file *f, json_t *to, const json_t *o,
			const struct option *p)
{
	char name[32];
	if (!json_object_get(o, p->key) || f->c.err)
		return;
	int64_t v = p->duration
			    ? get_amount(f, o, p->key, SP_CONF_DURATION)
			    : (int64_t)fleet_get_uint(&f->c, o, p->key, INT32_MAX, false);
	if (!f->c.err && (v < p->least || v > p->most))
		fleet_fail(&f->c, SP_E_CONFIG, p->key, "want %s", p->want);
	snprintf(name, sizeof(name), "%s%s", p->key, p->duration ? "_ms" : "");
	if (json_object_set_new(to, name, json_integer(v)))
		fleet_fail(&f->c, -ENOMEM, NULL, "out of memory");
}

static void read_probe(struct file *f, json_t *fleet)
{
	static const char *const keys[] = {"url",      "external", "controls",
					   "interval", "deadline", NULL};
	static const struct option options[] = {
		{"interval", true, 100, 3600000, "100ms to 1h"},
		{"deadline", true, 50, 60000, "50ms to 60s"},
	};
	json_t *o = fleet_get_object(&f->c, f->root, "probe", 0, SIZE_MAX, false);
	if (!o || !fleet_check_keys(&f->c, o, keys))
		return;
	size_t mark = fleet_enter(&f->c, "probe");
	json_t *p = json_object();
	const char *url = fleet_get_text(&f->c, o, "url", SP_FLEET_PATH_MAX, false);
	if (*url && strncmp(url, "http", 4) != 0 && strcmp(url, "none") != 0)
		fleet_fail(&f->c, SP_E_CONFIG, "url", "want a URL, http://…, or none");
	(void)get_texts(f, o, "external", URLS_MAX, URLS);
	(void)get_texts(f, o, "controls", URLS_MAX, URLS);
	keep(p, o, "url");
	keep(p, o, "external");
	keep(p, o, "controls");
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		keep_option(f, p, o, &options[i]);
	if (json_object_set_new(fleet, "probe", p))
		fleet_fail(&f->c, -ENOMEM, NULL, "out of memory");
	fleet_leave(&f->c, mark);
}

// Options of the verdict, within the bounds that it has itself.
static void read_health(struct file *f, json_t *fleet)
{
	static const struct option options[] = {
		{"fall", false, 1, 8, "1 to 8"},
		{"rise", false, 1, 8, "1 to 8"},
		{"quorum", false, 0, 32, "1 to 32 vantages; 0: more than half"},
		{"cap_percent", false, 0, 100, "0 to 100"},
		{"panic_percent", false, 0, 100, "0 to 100"},
		{"hold_down", true, 0, 86400000, "0s to 1d"},
		{"hold_down_max", true, 0, 86400000, "0s to 1d"},
		{"slow_start", true, 0, 86400000, "0s to 1d"},
		{"cycle", true, 10, 60000, "10ms to 60s"},
	};
	enum { N = sizeof(options) / sizeof(options[0]) };
	const char *keys[N + 1] = {NULL};
	for (size_t i = 0; i < N; i++)
		keys[i] = options[i].key;
	json_t *o = fleet_get_object(&f->c, f->root, "health", 0, SIZE_MAX, false);
	if (!o || !fleet_check_keys(&f->c, o, keys))
		return;
	size_t mark = fleet_enter(&f->c, "health");
	json_t *h = json_object();
	for (size_t i = 0; i < N; i++)
		keep_option(f, h, o, &options[i]);
	fleet_leave(&f->c, mark);
	if (json_object_set_new(fleet, "health", h))
		fleet_fail(&f->c, -ENOMEM, NULL, "out of memory");
}

static void read_fleet(struct file *f)
{
	char name[SP_FLEET_NAME_MAX + 1];
	struct sp_target t;
	json_t *o = json_object();
	fleet_get_name(&f->c, f->root, "fleet", true, name);
	(void)get_texts(f, f->root, "endpoints", URLS_MAX, URLS);
	(void)get_address(f, f->root, "cover", false, false, &t);
	int64_t refresh = get_amount(f, f->root, "refresh", SP_CONF_DURATION);
	if (refresh && (refresh < 1000 || refresh > 86400000))
		fleet_fail(&f->c, SP_E_CONFIG, "refresh", "want 1s to 1d");
	keep(o, f->root, "endpoints");
	keep(o, f->root, "cover");
	if (json_object_set_new(o, "name", json_string(name)) ||
	    json_object_set_new(o, "refresh_s",
				json_integer(refresh ? refresh / 1000 : 60)))
		fleet_fail(&f->c, -ENOMEM, NULL, "out of memory");
	read_probe(f, o);
	read_health(f, o);
	put(f, "fleet", o);
}

static void read_all(struct file *f)
{
	static const char *const keys[] = {
		"fleet", "endpoints", "cover", "refresh", "regions",     "tiers",
		"nodes", "users",     "probe", "health",  "exit_policy", NULL};
	static const char *const region[] = {"name", NULL};
	static const char *const tier[] = {"name",         "max_sessions", "max_streams",
					   "max_flows",    "rate",         "quota",
					   "quota_period", "groups",       NULL};
	static const char *const node[] = {"name",   "worker", "region",   "group",
					   "weight", "egress", "carriers", NULL};
	static const char *const user[] = {"name",     "tier",        "expires", "quota",
					   "disabled", "max_devices", NULL};
	if (!fleet_check_keys(&f->c, f->root, keys))
		return;
	read_fleet(f);
	read_policy(f);
	for_each(f, "regions", REGIONS_MAX, false, region, read_region);
	for_each(f, "nodes", NODES_MAX, false, node, read_node);
	for_each(f, "tiers", SP_FLEET_TIERS_MAX - 1, true, tier, read_tier);
	for_each(f, "users", USERS_MAX, false, user, read_user);
}

int sp_fleetfile_parse(const char *name, const char *text, size_t len,
		       struct sp_state **ret, char *why, size_t cap)
{
	char clause[SP_FLEET_WHY_MAX], yaml_why[256] = "";
	struct file f = {.c = {.why = clause, .cap = sizeof(clause)}};
	unsigned line = 1;
	if (len > SP_FLEETFILE_MAX) {
		snprintf(why, cap, "%s: %zu bytes; want at most %u", name, len,
			 SP_FLEETFILE_MAX);
		return SP_E_LIMIT;
	}
	f.root = sp_yaml_load(text, len, &line, yaml_why, sizeof(yaml_why));
	if (!f.root) {
		snprintf(why, cap, "%s:%u: %s", name, line, yaml_why);
		return SP_E_CONFIG;
	}
	f.advertised = json_object();
	f.bound = json_object();
	f.groups = json_object();
	int err = f.advertised && f.bound && f.groups ? sp_state_new(&f.state) : -ENOMEM;
	if (!err) {
		read_all(&f);
		err = f.c.err;
	}
	if (err && cap) { // the clause begins with the place
		char place[SP_YAML_PATH_MAX];
		snprintf(place, sizeof(place), "%.*s", (int)strcspn(clause, ": "),
			 clause);
		snprintf(why, cap, "%s:%u: %s", name, sp_yaml_line(text, len, place),
			 clause);
	}
	json_decref(f.root);
	json_decref(f.advertised);
	json_decref(f.bound);
	json_decref(f.groups);
	if (err)
		sp_state_free(f.state);
	else
		*ret = f.state;
	return err;
}

int sp_fleetfile_diff(const struct sp_state *state, const struct sp_state *declared,
		      struct sp_changes *ret)
{
	int err = 0;
	for (const char *const *o = owned; *o && !err; o++)
		if (strcmp(*o, "keys") != 0)
			err = sp_changes_diff(state, declared, *o, ret);
	if (err)
		sp_changes_done(ret);
	return err;
}
