#include "controller/leases.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controller/api_access.h"
#include "controller/api_fleet.h"
#include "lib/derive.h"
#include "lib/file.h"
#include "lib/text.h"

#define EVERY_US  1000000
#define ALL_EVERY 60   // of these
#define OVER_MAX  1000 // taken out by one revision
#define OUT_NAMED 3    // by a refusal

struct con_leases {
	struct sp_loop *loop;
	struct con_fleet *fleet;
	struct con_api *api;
	struct sp_timer timer;
	unsigned turn;
	bool busy; // a commit of ours is under way
	struct con_fleet_listener listener;
	uint64_t user_s; // when the next user's time ends; 0: to be looked up
};

// ---- pure parts ----

static json_int_t number(const struct sp_state_entry *e, const char *key)
{
	json_t *o = json_loadb(e->json, e->json_len, 0, NULL);
	json_int_t n = json_integer_value(json_object_get(o, key));
	json_decref(o);
	return n;
}

static bool is_leased(const struct sp_state *s, const char *node, uint64_t now_s)
{
	char key[SP_STATE_KEY_MAX + 1];
	struct sp_state_entry e = {0};
	snprintf(key, sizeof(key), "lease/%s", node);
	e.json = sp_state_get(s, key, &e.json_len);
	return e.json && (uint64_t)number(&e, "until") > now_s;
}

// The region of the node, to ret (SP_FLEET_NAME_MAX + 1). False: no such node.
static bool region_of(const struct sp_state *s, const char *node, char *ret)
{
	char prefix[SP_STATE_KEY_MAX + 1];
	struct sp_state_entry e;
	size_t at = 0;
	snprintf(prefix, sizeof(prefix), "node/%s/", node);
	if (!sp_state_next(s, prefix, &at, &e))
		return false;
	json_t *o = json_loadb(e.json, e.json_len, 0, NULL);
	const char *region = json_string_value(json_object_get(o, "region"));
	snprintf(ret, SP_FLEET_NAME_MAX + 1, "%s", region ? region : "");
	json_decref(o);
	return true;
}

// Nodes of a region or of the whole fleet, and who of them is out.
struct share {
	unsigned nodes, out;
	char names[80]; // of the first ones that are out
};

static void add_out(struct share *s, const char *node)
{
	size_t at = strlen(s->names);
	s->out++;
	if (s->out > OUT_NAMED + 1)
		return;
	snprintf(s->names + at, sizeof(s->names) - at, "%s%.24s", at ? ", " : "",
		 s->out > OUT_NAMED ? "..." : node);
}

// How many may be out at once: max(1, 30 %), and never the last.
static unsigned share_most(const struct share *s)
{
	unsigned most = s->nodes * CON_LEASE_PERCENT / 100;
	most = most ? most : 1;
	return most < s->nodes ? most : s->nodes - 1;
}

static int refuse_share(const struct share *s, const char *of, char *why, size_t cap)
{
	snprintf(why, cap,
		 "%u of %u nodes %s %s out already (%s), and at most %u may be; undrain "
		 "one, or use --force",
		 s->out, s->nodes, of, s->out == 1 ? "is" : "are", s->names,
		 share_most(s));
	return SP_E_LIMIT;
}

int con_lease_allowed(const struct sp_state *state, const char *node, uint64_t now_s,
		      char *why, size_t cap)
{
	char region[SP_FLEET_NAME_MAX + 1], other[SP_FLEET_NAME_MAX + 1],
		name[SP_FLEET_NAME_MAX + 1],
		last[SP_FLEET_NAME_MAX + 1] = "", of[SP_FLEET_NAME_MAX + 16];
	struct sp_state_entry e;
	struct share near = {0}, all = {0};
	if (!region_of(state, node, region)) {
		snprintf(why, cap, "there is no node \"%s\"", node);
		return -ENOENT;
	}
	for (size_t at = 0; sp_state_next(state, "node/", &at, &e);) {
		sp_worker_node(e.key + strlen("node/"), name);
		if (strcmp(name, last) == 0 || !region_of(state, name, other))
			continue;
		memcpy(last, name, sizeof(last));
		bool here = strcmp(region, other) == 0;
		bool out = strcmp(name, node) != 0 && is_leased(state, name, now_s);
		near.nodes += here;
		all.nodes++;
		if (out && here)
			add_out(&near, name);
		if (out)
			add_out(&all, name);
	}
	if (near.nodes == 1) {
		snprintf(why, cap, "%s is the only node of region %s; use --force", node,
			 region);
		return SP_E_LIMIT;
	}
	snprintf(of, sizeof(of), "in region %s", region);
	if (near.out + 1 > share_most(&near))
		return refuse_share(&near, of, why, cap);
	if (all.out + 1 > share_most(&all))
		return refuse_share(&all, "of the fleet", why, cap);
	return 0;
}

int con_leases_over(const struct sp_state *state, uint64_t now_s, bool all,
		    struct sp_changes *c)
{
	static const struct {
		const char *prefix, *key;
		bool often;
		unsigned keep_s; // beyond its end
	} kinds[] = {{"lease/", "until", true, 0},
		     {"token/", "expires", false, 0},
		     // so that whoever comes late is told that it expired or was used
		     {"enrol/", "expires", false, CON_ENROL_KEEP_S},
		     {"revoked/", "until", false, 0}};
	struct sp_state_entry e;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (!all && !kinds[i].often)
			continue;
		for (size_t at = 0;
		     c->n < OVER_MAX && sp_state_next(state, kinds[i].prefix, &at, &e);) {
			json_int_t end = number(&e, kinds[i].key);
			if (end <= 0 || (uint64_t)end + kinds[i].keep_s > now_s)
				continue;
			int err = sp_changes_add(c, e.key, NULL);
			if (err)
				return err;
		}
	}
	return 0;
}

// 0: it has no end. Most users have none, and are not parsed.
static uint64_t user_end(const char *json, size_t len)
{
	struct sp_state_entry e = {.json = json, .json_len = len};
	json_int_t end = memmem(json, len, "\"expires\"", 9) ? number(&e, "expires") : 0;
	return end > 0 ? (uint64_t)end : 0;
}

static bool is_revoked(const struct sp_state *state, const char *user, uint64_t since_s)
{
	char key[SP_STATE_KEY_MAX + 1];
	struct sp_state_entry e = {0};
	snprintf(key, sizeof(key), "revoked/user/%s", user);
	e.json = sp_state_get(state, key, &e.json_len);
	return e.json && (uint64_t)number(&e, "before") >= since_s;
}

int con_leases_users_over(const struct sp_state *state, uint64_t now_s,
			  uint64_t *ret_next_s, struct sp_changes *c)
{
	struct sp_state_entry e;
	*ret_next_s = UINT64_MAX;
	for (size_t at = 0; sp_state_next(state, "user/", &at, &e);) {
		const char *user = e.key + strlen("user/");
		uint64_t end = user_end(e.json, e.json_len);
		if (end > now_s && end < *ret_next_s)
			*ret_next_s = end;
		if (!end || end > now_s || now_s - end > CON_REVOKED_KEPT_S ||
		    is_revoked(state, user, end))
			continue;
		if (c->n >= OVER_MAX) { // the others in the next turn
			*ret_next_s = now_s;
			return 0;
		}
		int err = con_access_revoke_user(c, user, now_s);
		if (err)
			return err;
	}
	return 0;
}

// ---- what is over ----

static void on_changed(void *ctx, const struct con_fleet_change *f)
{
	struct con_leases *l = ctx;
	for (size_t i = 0; i < f->private->n; i++) {
		const struct sp_change *ch = &f->private->v[i];
		uint64_t end = ch->json && !strncmp(ch->key, "user/", 5)
				       ? user_end(ch->json, strlen(ch->json))
				       : 0;
		if (end && end < l->user_s)
			l->user_s = end;
	}
}

static void on_committed(void *ctx, int err, const char *why,
			 const struct sp_position *at)
{
	struct con_leases *l = ctx;
	if (err)
		l->user_s = 0; // again with the next second
	(void)why;
	(void)at;
	l->busy = false;
}

static void on_timer(void *ctx)
{
	struct con_leases *l = ctx;
	struct sp_changes c = {0};
	uint64_t ms = sp_loop_unix_ms(l->loop), next = l->user_s;
	const struct sp_state *state = con_fleet_state(l->fleet);
	uint64_t wait_us = EVERY_US;
	if (next != UINT64_MAX && next * 1000 > ms && next * 1000 < ms + EVERY_US / 1000)
		wait_us = (next * 1000 - ms) * 1000;
	sp_timer_set(&l->timer, sp_loop_now_us(l->loop) + wait_us);
	if (l->busy || !con_fleet_is_synced(l->fleet))
		return;
	bool all = l->turn++ % ALL_EVERY == 0;
	int err = con_leases_over(state, ms / 1000, all, &c);
	if (!err && (all || next <= ms / 1000))
		err = con_leases_users_over(state, ms / 1000, &l->user_s, &c);
	if (err)
		l->user_s = 0;
	if (!err && c.n) {
		l->busy = true;
		if (con_fleet_commit(l->fleet, &c, "controller: time is up", on_committed,
				     l)) {
			l->busy = false;
			l->user_s = 0;
		}
	}
	sp_changes_done(&c);
}

// ---- routes ----

static uint64_t duration(struct con_api_call *call, const json_t *body)
{
	json_t *v = json_object_get(body, "for_s");
	if (!v)
		return CON_LEASE_DEFAULT_S;
	if (json_is_integer(v) && json_integer_value(v) > 0 &&
	    json_integer_value(v) <= CON_LEASE_MAX_S)
		return (uint64_t)json_integer_value(v);
	con_api_problem(call, 400, "body", "for_s: want 1 to %d seconds",
			CON_LEASE_MAX_S);
	return 0;
}

static int add_lease(struct sp_changes *c, const char *node, const char *kind,
		     uint64_t until, const char *by, const char *reason)
{
	char key[SP_STATE_KEY_MAX + 1];
	snprintf(key, sizeof(key), "lease/%s", node);
	json_t *o = json_pack("{s:s, s:I, s:s, s:s}", "kind", kind, "until",
			      (json_int_t)until, "by", by, "reason", reason);
	int err = o ? sp_changes_add(c, key, o) : SP_E_MALFORMED;
	json_decref(o);
	return err;
}

// Which node was meant: "fra1" of "fra1/0", "fra1" of "fra11".
static void refuse_node(struct con_leases *l, struct con_api_call *call, const char *node)
{
	const struct sp_state *s = con_fleet_state(l->fleet);
	char name[SP_FLEET_NAME_MAX + 1], region[SP_FLEET_NAME_MAX + 1];
	struct sp_state_entry e;
	size_t n = strcspn(node, "/");
	snprintf(name, sizeof(name), "%.*s", (int)n, node);
	if (node[n] && region_of(s, name, region)) {
		con_api_problem(call, 404, "no-such-node",
				"\"%s\" is a worker, and leases are of whole nodes: %s",
				node, name);
		return;
	}
	for (size_t at = 0; sp_state_next(s, "node/", &at, &e);) {
		sp_worker_node(e.key + strlen("node/"), name);
		if (sp_text_distance(name, node) <= 1) {
			con_api_problem(call, 404, "no-such-node",
					"there is no node \"%s\"; is it %s?", node, name);
			return;
		}
	}
	con_api_problem(call, 404, "no-such-node",
			"there is no node \"%s\"; sallyportctl get nodes lists them",
			node);
}

static void put(void *ctx, struct con_api_call *call)
{
	struct con_leases *l = ctx;
	const char *node = con_api_tail(call), *kind, *reason;
	char why[SP_WHY_MAX] = "";
	struct sp_changes c = {0};
	json_t *body = con_api_object(call);
	if (!body || !(kind = con_api_member(call, "kind", true)))
		return;
	json_t *r = json_object_get(body, "reason");
	reason = r ? con_api_member(call, "reason", true) : "";
	uint64_t for_s = reason ? duration(call, body) : 0;
	if (!for_s)
		return;
	if (strcmp(kind, "drain") != 0 && strcmp(kind, "cordon") != 0) {
		con_api_problem(call, 400, "body", "kind: want drain or cordon");
		return;
	}
	if (strlen(reason) > CON_LEASE_REASON) {
		con_api_problem(call, 400, "body", "reason: want at most %d bytes",
				CON_LEASE_REASON);
		return;
	}
	uint64_t now = sp_loop_unix_ms(l->loop) / 1000;
	int err = sp_fleet_name_is_valid(node)
			  ? con_lease_allowed(con_fleet_state(l->fleet), node, now, why,
					      sizeof(why))
			  : -ENOENT;
	if (err == -ENOENT) {
		refuse_node(l, call, node);
		return;
	}
	if (err == SP_E_LIMIT && !con_api_flag(call, "force")) {
		con_api_problem(call, 409, "lease-cap", "%s", why);
		return;
	}
	err = add_lease(&c, node, kind, now + for_s, con_api_author(call), reason);
	if (err) {
		sp_changes_done(&c);
		con_api_error(call, err, "");
		return;
	}
	con_api_commit(l->fleet, call, &c,
		       json_pack("{s:s, s:s, s:I}", "node", node, "kind", kind, "until",
				 (json_int_t)(now + for_s)));
}

static void take_away(void *ctx, struct con_api_call *call)
{
	struct con_leases *l = ctx;
	char key[SP_STATE_KEY_MAX + 1];
	struct sp_changes c = {0};
	const char *node = con_api_tail(call);
	snprintf(key, sizeof(key), "lease/%s", node);
	if (!sp_fleet_name_is_valid(node) ||
	    !sp_state_get(con_fleet_state(l->fleet), key, NULL)) {
		con_api_problem(call, 404, "no-such-lease",
				"node \"%s\" is neither cordoned nor draining", node);
		return;
	}
	int err = sp_changes_add(&c, key, NULL);
	if (err)
		con_api_error(call, err, "");
	else
		con_api_commit(l->fleet, call, &c, json_pack("{s:s}", "node", node));
	sp_changes_done(&c);
}

static void list(void *ctx, struct con_api_call *call)
{
	struct con_leases *l = ctx;
	struct sp_state_entry e;
	json_t *all = json_array();
	for (size_t at = 0;
	     all && sp_state_next(con_fleet_state(l->fleet), "lease/", &at, &e);) {
		json_t *o = json_loadb(e.json, e.json_len, 0, NULL);
		json_object_set_new(o, "node", json_string(e.key + strlen("lease/")));
		con_api_fill(l->api, "lease", e.key + strlen("lease/"), o);
		if (json_array_append_new(all, o)) {
			json_decref(all);
			all = NULL;
		}
	}
	con_api_answer(call, 200, all ? json_pack("{s:o}", "leases", all) : NULL);
}

static void one(void *ctx, struct con_api_call *call)
{
	struct con_leases *l = ctx;
	char key[SP_STATE_KEY_MAX + 1];
	const char *node = con_api_tail(call);
	snprintf(key, sizeof(key), "lease/%s", node);
	json_t *o = sp_fleet_name_is_valid(node)
			    ? sp_state_get_object(con_fleet_state(l->fleet), key)
			    : NULL;
	if (!o) {
		con_api_problem(call, 404, "no-such-lease",
				"node \"%s\" is neither cordoned nor draining", node);
		return;
	}
	json_object_set_new(o, "node", json_string(node));
	con_api_fill(l->api, "lease", node, o);
	con_api_answer(call, 200, o);
}

static const struct con_api_route routes[] = {
	{"GET", "/v1/leases", list},
	{"GET", "/v1/leases/*", one},
	{"PUT", "/v1/leases/*", put},
	{"DELETE", "/v1/leases/*", take_away},
	{0},
};

int con_leases_new(struct sp_loop *loop, struct con_fleet *fleet, struct con_api *api,
		   struct con_leases **ret)
{
	struct con_leases *l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->loop = loop;
	l->fleet = fleet;
	l->api = api;
	sp_timer_init(&l->timer, loop, on_timer, l);
	sp_timer_set(&l->timer, sp_loop_now_us(loop) + EVERY_US);
	int err = con_api_add(api, routes, l);
	if (err) {
		con_leases_free(l);
		return err;
	}
	l->listener.changed = on_changed;
	l->listener.ctx = l;
	con_fleet_listen(fleet, &l->listener);
	*ret = l;
	return 0;
}

void con_leases_free(struct con_leases *l)
{
	if (!l)
		return;
	sp_timer_done(&l->timer);
	free(l);
}
