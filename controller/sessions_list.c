// GET /v1/sessions: users' live sets first, then a record each. A look for people, of
// bounded length and of bounded work; not a request of any worker.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controller/directory.h"
#include "controller/role_sessions.h"
#include "lib/derive.h"
#include "lib/text.h"

#define USERS_MAX   20000 // that are looked at for one answer
#define OF_USER_MAX "256"
#define ASK_MS      500
#define AT_ONCE_MAX 16 // users asked for at a time

struct listing {
	struct con_controller *c;
	struct con_api_call *call;
	char *node; // only sessions of that node or worker; or NULL
	uint64_t limit;
	json_t *list;
	char **users;
	size_t n_users, asked, waiting;
	bool more, late, capped; // capped: there are more users than are looked at
};
struct record_ask {
	struct listing *l;
	char id[33];
	int64_t live_until; // Unix seconds
};

static void next_users(struct listing *l);

static void listing_free(struct listing *l)
{
	for (size_t i = 0; l->users && i < l->n_users; i++)
		free(l->users[i]);
	free(l->users);
	free(l->node);
	json_decref(l->list);
	free(l);
}

static void end_listing(struct listing *l)
{
	if (l->waiting || l->asked < l->n_users)
		return;
	if (l->late)
		con_api_problem(l->call, 503, "redis-late",
				"Redis did not answer in time; try again");
	else
		con_api_answer(l->call, 200,
			       json_pack("{s:O, s:b}", "sessions", l->list, "more",
					 l->more || l->capped));
	listing_free(l);
}

static json_t *text_of(const redisReply *r)
{
	return r->type == REDIS_REPLY_STRING ? json_stringn(r->str, r->len) : json_null();
}

static bool is_of(const struct listing *l, const redisReply *home)
{
	char worker[SP_FLEET_NAME_MAX + 32], node[SP_FLEET_NAME_MAX + 1];
	if (!l->node)
		return true;
	if (home->type != REDIS_REPLY_STRING)
		return false;
	snprintf(worker, sizeof(worker), "%s", home->str);
	return strcmp(worker, l->node) == 0 ||
	       strcmp(sp_worker_node(worker, node), l->node) == 0;
}

// h, u, e, r of a session.
static json_t *describe(const struct record_ask *a, const redisReply *r)
{
	Sallyport__Fleet__SessionRecord *m = sallyport__fleet__session_record__unpack(
		NULL, r->element[3]->len, (const uint8_t *)r->element[3]->str);
	json_t *o =
		json_pack("{s:s, s:o, s:o, s:I, s:s, s:I, s:I, s:I}", "id", a->id, "node",
			  text_of(r->element[0]), "user", text_of(r->element[1]), "epoch",
			  (json_int_t)(m ? m->epoch : 0), "tier", m ? m->tier : "",
			  "flows", (json_int_t)(m ? m->n_flows : 0), "put",
			  (json_int_t)(a->live_until - CON_DIRECTORY_LIVE_S),
			  "pass_expires", (json_int_t)(m ? m->expires_s : 0));
	if (o && m && m->quota_limited)
		json_object_set_new(o, "quota_left", json_integer(m->quota_left));
	if (m)
		sallyport__fleet__session_record__free_unpacked(m, NULL);
	return o;
}

static void on_record(void *ctx, const redisReply *r)
{
	struct record_ask *a = ctx;
	struct listing *l = a->l;
	l->late |= !r;
	if (r && r->type == REDIS_REPLY_ARRAY && r->elements == 4 &&
	    r->element[3]->type == REDIS_REPLY_STRING && is_of(l, r->element[0])) {
		if (json_array_size(l->list) < l->limit)
			(void)json_array_append_new(l->list, describe(a, r));
		else
			l->more = true;
	}
	free(a);
	l->waiting--;
	next_users(l);
}

static void ask_record(struct listing *l, const uint8_t *id, const char *live_until)
{
	char key[160];
	struct record_ask *a = malloc(sizeof(*a));
	if (!a)
		return;
	a->l = l;
	a->live_until = strtoll(live_until, NULL, 10);
	sp_hex_encode(id, 16, a->id, sizeof(a->id));
	snprintf(key, sizeof(key), "sp:{%s}:s:%s", l->c->cfg->fleet, a->id);
	const char *argv[] = {"HMGET", key, "h", "u", "e", "r"};
	size_t len[] = {5, strlen(key), 1, 1, 1, 1};
	if (con_redis_command(con_fleet_redis(l->c->fleet), 6, argv, len, ASK_MS,
			      on_record, a)) {
		free(a);
		l->late = true;
	} else {
		l->waiting++;
	}
}

// Members, each with its score: device [16], session id [16].
static void on_live(void *ctx, const redisReply *r)
{
	struct listing *l = ctx;
	l->waiting--;
	l->late |= !r;
	for (size_t i = 0;
	     r && r->type == REDIS_REPLY_ARRAY && i + 1 < r->elements && !l->more; i += 2)
		if (r->element[i]->len == 32)
			ask_record(l, (const uint8_t *)r->element[i]->str + 16,
				   r->element[i + 1]->str);
	next_users(l);
}

static void ask_user(struct listing *l, const char *user)
{
	char key[256], now[24];
	snprintf(key, sizeof(key), "sp:{%s}:l:%s", l->c->cfg->fleet, user);
	snprintf(now, sizeof(now), "%llu",
		 (unsigned long long)(sp_loop_unix_ms(l->c->loop) / 1000));
	const char *argv[] = {"ZRANGEBYSCORE", key,     now, "+inf",
			      "WITHSCORES",    "LIMIT", "0", OF_USER_MAX};
	size_t len[8];
	for (int i = 0; i < 8; i++)
		len[i] = strlen(argv[i]);
	if (con_redis_command(con_fleet_redis(l->c->fleet), 8, argv, len, ASK_MS, on_live,
			      l))
		l->late = true;
	else
		l->waiting++;
}

static void next_users(struct listing *l)
{
	while (l->asked < l->n_users && l->waiting < AT_ONCE_MAX) {
		const char *user = l->users[l->asked++];
		if (!l->more && !l->late)
			ask_user(l, user);
	}
	end_listing(l);
}

static bool add_user(struct listing *l, const char *user)
{
	l->users[l->n_users] = strdup(user);
	return l->users[l->n_users++] != NULL;
}

// Whose sessions are looked at: the one that is asked for, or all.
static bool add_users(struct listing *l, const struct sp_state *state)
{
	const char *only = con_api_query(l->call, "user");
	size_t n = only ? 1 : sp_state_count(state, "user/"), at = 0;
	struct sp_state_entry e;
	if (n > USERS_MAX) {
		n = USERS_MAX;
		l->capped = true;
	}
	l->users = calloc(n + 1, sizeof(char *));
	if (!l->users)
		return false;
	if (only)
		return add_user(l, only);
	while (l->n_users < n && sp_state_next(state, "user/", &at, &e))
		if (!add_user(l, e.key + strlen("user/")))
			return false;
	return true;
}

// A node of the fleet file, or a worker of it.
static bool is_known(const struct sp_state *state, const char *node)
{
	char key[SP_STATE_KEY_MAX + 1];
	snprintf(key, sizeof(key), "node/%s", node);
	if (sp_state_get(state, key, NULL))
		return true;
	snprintf(key, sizeof(key), "node/%s/", node);
	return sp_state_count(state, key) > 0;
}

// False: it was answered.
static bool check_filters(const struct sp_state *state, struct con_api_call *call)
{
	const char *node = con_api_query(call, "node"),
		   *user = con_api_query(call, "user");
	char key[SP_STATE_KEY_MAX + 1];
	snprintf(key, sizeof(key), "user/%s", user ? user : "");
	if (user && !sp_state_get(state, key, NULL))
		con_api_problem(call, 404, "no-such-user", "there is no user \"%s\"",
				user);
	else if (node && !is_known(state, node))
		con_api_problem(call, 404, "no-such-node", "there is no node \"%s\"",
				node);
	else
		return true;
	return false;
}

void con_sessions_list(struct con_controller *c, struct con_api_call *call)
{
	const struct sp_state *state = con_fleet_state(c->fleet);
	const char *node = con_api_query(call, "node");
	uint64_t limit;
	if (!con_api_number(call, "limit", CON_PAGE_DEFAULT, CON_PAGE_MAX, &limit) ||
	    !check_filters(state, call))
		return;
	if (!con_redis_is_up(con_fleet_redis(c->fleet))) {
		con_api_problem(call, 503, "redis-away",
				"the directory is in Redis, which cannot be reached; "
				"sallyportctl doctor tells more");
		return;
	}
	struct listing *l = calloc(1, sizeof(*l));
	if (l)
		*l = (struct listing){.c = c,
				      .call = call,
				      .limit = limit,
				      .list = json_array(),
				      .node = node ? strdup(node) : NULL};
	if (!l || !l->list || (node && !l->node) || !add_users(l, state)) {
		if (l)
			listing_free(l);
		con_api_error(call, -ENOMEM, "out of memory");
		return;
	}
	next_users(l);
}
