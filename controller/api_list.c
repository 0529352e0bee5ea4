// The lists of the operator API: status, nodes, users, revisions, events, raw state.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controller/api_fleet.h"
#include "lib/derive.h"
#include "lib/text.h"
#include "lib/version.h"

#define REVISIONS_DEFAULT 50
#define EVENTS_DEFAULT    100

static bool set(json_t *o, const char *key, json_t *v)
{
	return json_object_set_new(o, key, v) == 0;
}

static void status(void *ctx, struct con_api_call *call)
{
	struct con_api_fleet *f = ctx;
	const struct sp_state *s = con_fleet_state(f->fleet);
	const struct con_fleet_counters *c = con_fleet_counters(f->fleet);
	char hash[2 * SP_STATE_HASH_BYTES + 1];
	sp_hex_encode(sp_state_hash(s), SP_STATE_HASH_BYTES, hash, sizeof(hash));
	json_t *o = json_pack(
		"{s:s, s:s, s:o, s:s, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
		"fleet", con_fleet_name(f->fleet), "version", sp_version(), "position",
		con_api_position(con_fleet_head(f->fleet)), "state", hash, "synced",
		con_fleet_is_synced(f->fleet), "redis_heard",
		con_fleet_has_heard(f->fleet), "started_ms", (json_int_t)f->started_ms,
		"nodes", (json_int_t)sp_state_count(s, "node/"), "users",
		(json_int_t)sp_state_count(s, "user/"), "commits", (json_int_t)c->commits,
		"refused", (json_int_t)c->refused, "seeded", (json_int_t)c->seeded,
		"journal_bytes", (json_int_t)con_fleet_journal_bytes(f->fleet));
	if (o)
		con_api_fill(f->api, "status", "", o);
	con_api_answer(call, 200, o);
}

// An entry with its name, as an object. NULL: no memory.
static json_t *entry_object(const struct sp_state_entry *e, const char *prefix)
{
	json_t *o = json_loadb(e->json, e->json_len, 0, NULL);
	if (o && set(o, "name", json_string(e->key + strlen(prefix))))
		return o;
	json_decref(o);
	return NULL;
}

static json_t *lease_of(const struct sp_state *s, const char *worker)
{
	char key[SP_STATE_KEY_MAX + 1], node[SP_FLEET_NAME_MAX + 1];
	snprintf(key, sizeof(key), "lease/%s", sp_worker_node(worker, node));
	return sp_state_get_object(s, key);
}

static json_t *node_object(struct con_api_fleet *f, const struct sp_state_entry *e)
{
	const struct sp_state *s = con_fleet_state(f->fleet);
	const char *worker = e->key + strlen("node/");
	char key[SP_STATE_KEY_MAX + 1];
	json_t *o = entry_object(e, "node/");
	if (!o)
		return NULL;
	snprintf(key, sizeof(key), "identity/%s", worker);
	json_t *lease = lease_of(s, worker);
	if (!set(o, "enrolled", json_boolean(sp_state_get(s, key, NULL) != NULL)) ||
	    (lease && json_object_set(o, "lease", lease))) {
		json_decref(o);
		o = NULL;
	} else {
		con_api_fill(f->api, "node", worker, o);
	}
	json_decref(lease);
	return o;
}

static json_t *user_object(struct con_api_fleet *f, const struct sp_state_entry *e)
{
	json_t *o = entry_object(e, "user/");
	if (o)
		con_api_fill(f->api, "user", e->key + strlen("user/"), o);
	return o;
}

struct listed {
	const char *prefix, *name;
	json_t *(*describe)(struct con_api_fleet *f, const struct sp_state_entry *e);
	struct {
		const char *parameter, *key; // filters: texts that must be the same
	} filters[4];
};

static bool fits(const struct con_api_page *p, const struct listed *l, const json_t *o)
{
	for (size_t i = 0; i < 4 && l->filters[i].parameter; i++)
		if (!con_api_page_fits(p, o, l->filters[i].parameter, l->filters[i].key))
			return false;
	return true;
}

static void list(struct con_api_fleet *f, struct con_api_call *call,
		 const struct listed *l)
{
	const struct sp_state *s = con_fleet_state(f->fleet);
	const char *prefix = l->prefix ? l->prefix : con_api_query(call, "prefix");
	struct con_api_page page;
	struct sp_state_entry e;
	size_t at = 0;
	if (!prefix)
		prefix = "";
	if (!con_api_page_begin(call, &page))
		return;
	while (sp_state_next(s, prefix, &at, &e)) {
		const char *name = e.key + (l->prefix ? strlen(prefix) : 0);
		if (!con_api_page_wants(&page, name))
			continue;
		json_t *o = l->describe(f, &e);
		if (o && !fits(&page, l, o))
			json_decref(o);
		else if (!con_api_page_add(&page, name, o))
			break;
	}
	con_api_page_answer(&page, l->name, sp_state_count(s, prefix));
}

static void nodes(void *ctx, struct con_api_call *call)
{
	static const struct listed l = {"node/",
					"nodes",
					node_object,
					{{"region", "region"},
					 {"group", "group"},
					 {"state", "health"},
					 {"link", "link"}}};
	list(ctx, call, &l);
}

static void users(void *ctx, struct con_api_call *call)
{
	static const struct listed l = {
		"user/", "users", user_object, {{"tier", "tier"}}};
	list(ctx, call, &l);
}

static json_t *token_object(struct con_api_fleet *f, const struct sp_state_entry *e)
{
	json_t *o = json_loadb(e->json, e->json_len, 0, NULL);
	(void)f;
	json_object_del(o, "hash");
	json_object_set_new(o, "id", json_string(e->key + strlen("token/")));
	return o;
}

static void tokens(void *ctx, struct con_api_call *call)
{
	static const struct listed l = {
		"token/", "tokens", token_object, {{"user", "user"}}};
	list(ctx, call, &l);
}

static json_t *state_object(struct con_api_fleet *f, const struct sp_state_entry *e)
{
	(void)f;
	return json_pack("{s:s, s:o}", "key", e->key, "value",
			 json_loadb(e->json, e->json_len, 0, NULL));
}

static void state(void *ctx, struct con_api_call *call)
{
	static const struct listed l = {NULL, "entries", state_object, {{0}}};
	list(ctx, call, &l);
}

// ---- revisions ----

static json_t *revision_object(struct con_api_fleet *f, uint64_t sequence, bool whole)
{
	struct sp_revision r;
	size_t len;
	const char *text = con_fleet_revision(f->fleet, sequence, &len);
	if (!text || sp_revision_open(con_fleet_keys(f->fleet), text, len, &r))
		return NULL;
	json_t *o = con_api_position(&r.position);
	bool good = o && set(o, "issued_ms", json_integer((json_int_t)r.issued_ms)) &&
		    set(o, "author", json_string(r.author)) &&
		    set(o, "public_changes", json_integer((json_int_t)r.changes.n)) &&
		    set(o, "has_private", json_boolean(r.has_private));
	if (good && whole)
		good = set(o, "changes", sp_changes_to_json(&r.changes, SP_CHANGES_ALL));
	sp_revision_done(&r);
	if (good)
		return o;
	json_decref(o);
	return NULL;
}

// The newest first. Only what is in memory: the last CON_FLEET_WINDOW.
static void revisions(void *ctx, struct con_api_call *call)
{
	struct con_api_fleet *f = ctx;
	uint64_t limit, from;
	bool whole = con_api_flag(call, "changes");
	if (!con_api_number(call, "limit", REVISIONS_DEFAULT, CON_FLEET_WINDOW, &limit) ||
	    !con_api_number(call, "from", con_fleet_head(f->fleet)->sequence, UINT64_MAX,
			    &from))
		return;
	json_t *all = json_array();
	for (; all && from && limit; from--, limit--) {
		json_t *o = revision_object(f, from, whole);
		if (!o)
			break; // not in memory any more
		if (json_array_append_new(all, o)) {
			json_decref(all);
			all = NULL;
		}
	}
	con_api_answer(call, 200, all ? json_pack("{s:o}", "revisions", all) : NULL);
}

static void events(void *ctx, struct con_api_call *call)
{
	struct con_api_fleet *f = ctx;
	uint64_t after, limit, since;
	bool latest = !con_api_query(call, "after");
	if (!con_api_number(call, "after", 0, UINT64_MAX, &after) ||
	    !con_api_number(call, "since_ms", 0, UINT64_MAX, &since) ||
	    !con_api_number(call, "limit", EVENTS_DEFAULT, CON_EVENTS_MAX, &limit))
		return;
	struct con_events_filter want = {.kind = con_api_query(call, "kind"),
					 .about = con_api_query(call, "about"),
					 .since_ms = since};
	json_t *all = con_events_list(f->events, after, limit, latest, &want);
	con_api_answer(call, 200,
		       all ? json_pack("{s:o, s:I}", "events", all, "last",
				       (json_int_t)con_events_last(f->events))
			   : NULL);
}

static const struct con_api_route routes[] = {
	{"GET", "/v1/status", status}, {"GET", "/v1/nodes", nodes},
	{"GET", "/v1/users", users},   {"GET", "/v1/tokens", tokens},
	{"GET", "/v1/state", state},   {"GET", "/v1/revisions", revisions},
	{"GET", "/v1/events", events}, {0},
};

int con_api_list_add(struct con_api_fleet *f)
{
	return con_api_add(f->api, routes, f);
}
