#include "controller/api_fleet.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controller/api_access.h"
#include "lib/derive.h"
#include "lib/fleetfile.h"
#include "lib/key.h"

#define FILE_NAME_MAX 200
#define WARNINGS_MAX  20

// ---- what a change is ----

static json_t *parsed(const char *json)
{
	return json ? json_loads(json, 0, NULL) : json_null();
}

// [{"key", "op", "before", "after"}]; NULL: no memory.
static json_t *describe_changes(const struct sp_state *state, const struct sp_changes *c)
{
	json_t *list = json_array();
	for (size_t i = 0; list && i < c->n; i++) {
		const char *before = sp_state_get(state, c->v[i].key, NULL);
		const char *op = !before ? "add" : c->v[i].json ? "change" : "remove";
		json_t *o = json_pack("{s:s, s:s, s:o, s:o}", "key", c->v[i].key, "op",
				      op, "before", parsed(before), "after",
				      parsed(c->v[i].json));
		if (json_array_append_new(list, o)) {
			json_decref(list);
			list = NULL;
		}
	}
	return list;
}

static bool is_on(const char *json, uint64_t now_s)
{
	json_t *o = json ? json_loads(json, 0, NULL) : NULL;
	json_int_t end = json_integer_value(json_object_get(o, "expires"));
	bool on = o && !json_is_true(json_object_get(o, "disabled")) &&
		  (end <= 0 || (uint64_t)end > now_s);
	json_decref(o);
	return on;
}

// A user that goes, or is disabled or over now, has passes out there that would hold for
// a day.
static int revoke_who_goes(const struct con_api_fleet *f, const struct sp_state *state,
			   struct sp_changes *c)
{
	uint64_t now = sp_loop_unix_ms(f->loop) / 1000;
	size_t n = c->n;
	int err = 0;
	for (size_t i = 0; i < n && !err; i++) {
		if (strncmp(c->v[i].key, "user/", 5) != 0 || is_on(c->v[i].json, now) ||
		    !is_on(sp_state_get(state, c->v[i].key, NULL), now))
			continue;
		err = con_access_revoke_user(c, c->v[i].key + strlen("user/"), now);
	}
	return err;
}

// State "keys" says who signs passes.
static int add_keys(const struct con_api_fleet *f, const struct sp_state *state,
		    struct sp_changes *c)
{
	char text[SP_KEY_TEXT_MAX];
	json_t *list = json_array();
	int bad = 0;
	for (unsigned i = 0; i < f->pass_keys.n; i++)
		bad |= json_array_append_new(
			list,
			json_string(sp_key_format(SP_KEY_SIGNING, false,
						  f->pass_keys.key[i].public_key, text)));
	json_t *o = bad ? NULL : json_pack("{s:O}", "pass", list);
	json_t *old = sp_state_get_object(state, "keys");
	int err = !o ? -ENOMEM : json_equal(o, old) ? 0 : sp_changes_add(c, "keys", o);
	json_decref(list);
	json_decref(o);
	json_decref(old);
	return err;
}

// The changes on a copy, tried by the workers' own parser.
static int try_changes(const struct sp_state *state, const struct sp_changes *c,
		       char *why, size_t cap)
{
	struct sp_state *next = NULL;
	int err = sp_state_clone(state, &next);
	if (!err)
		err = sp_state_apply(next, c);
	if (err)
		snprintf(why, cap, "%s", sp_strerror(err));
	else
		err = sp_derive_check(next, why, cap);
	sp_state_free(next);
	return err;
}

// Of what is declared, what an operator may not have meant. NULL: no memory.
static json_t *warnings(const struct con_api_fleet *f, const struct sp_changes *c)
{
	uint64_t now = sp_loop_unix_ms(f->loop) / 1000;
	json_t *list = json_array();
	for (size_t i = 0; list && i < c->n; i++) {
		json_t *o = strncmp(c->v[i].key, "user/", 5) == 0 ? parsed(c->v[i].json)
								  : NULL;
		json_int_t end = json_integer_value(json_object_get(o, "expires"));
		json_decref(o);
		if (end <= 0 || (uint64_t)end > now)
			continue;
		if (json_array_size(list) == WARNINGS_MAX) {
			json_array_append_new(list, json_string("and more like it"));
			break;
		}
		json_array_append_new(
			list, json_sprintf("user \"%s\": expires is in the past, so it "
					   "gets no pass",
					   c->v[i].key + strlen("user/")));
	}
	return list;
}

// Shows what would be, or does it.
static void carry_out(struct con_api_fleet *f, struct con_api_call *call,
		      struct sp_changes *c)
{
	char why[SP_FLEET_WHY_MAX] = "";
	const struct sp_state *state = con_fleet_state(f->fleet);
	json_t *list = describe_changes(state, c);
	json_t *body = list ? json_pack("{s:o, s:o}", "changes", list, "warnings",
					warnings(f, c))
			    : NULL;
	int err = body ? try_changes(state, c, why, sizeof(why)) : -ENOMEM;
	if (err) {
		con_api_error(call, err, why);
	} else if (!con_api_flag(call, "dry_run")) {
		con_api_commit(f->fleet, call, c, json_incref(body));
	} else if (json_object_set_new(body, "changed", json_boolean(c->n > 0)) ||
		   json_object_set_new(body, "position",
				       con_api_position(con_fleet_head(f->fleet)))) {
		con_api_answer(call, 200, NULL);
	} else {
		con_api_answer(call, 200, json_incref(body));
	}
	json_decref(body);
	sp_changes_done(c);
}

// ---- apply ----

// False: it was refused.
static bool check_file(struct con_api_fleet *f, struct con_api_call *call,
		       const char *name, const struct sp_state *declared)
{
	json_t *o = sp_state_get_object(declared, "fleet");
	const char *fleet = json_string_value(json_object_get(o, "name"));
	bool good = false;
	if (!fleet || strcmp(fleet, con_fleet_name(f->fleet)) != 0)
		con_api_problem(
			call, 409, "other-fleet",
			"%s: it is for the fleet \"%s\", and this is the "
			"controller of \"%s\"; apply it there, or change `fleet:`",
			name, fleet ? fleet : "", con_fleet_name(f->fleet));
	else if (!sp_state_count(declared, "node/") && !con_api_flag(call, "force"))
		con_api_problem(call, 409, "empty-fleet",
				"%s: it has no nodes, so every client would be left with "
				"none; if that is meant, use --force",
				name);
	else
		good = true;
	json_decref(o);
	return good;
}

// What was looked at may have changed since.
static bool check_expected(struct con_api_fleet *f, struct con_api_call *call)
{
	uint64_t head = con_fleet_head(f->fleet)->sequence, want;
	if (!con_api_number(call, "expect", head, UINT64_MAX, &want))
		return false;
	if (want == head)
		return true;
	con_api_problem(call, 409, "conflict",
			"the fleet is at sequence %llu, no longer at %llu; look again",
			(unsigned long long)head, (unsigned long long)want);
	return false;
}

static void apply(void *ctx, struct con_api_call *call)
{
	struct con_api_fleet *f = ctx;
	char why[SP_FLEETFILE_WHY_MAX] = "", name[FILE_NAME_MAX];
	const char *given = con_api_query(call, "name");
	size_t len;
	const char *text = con_api_text(call, &len);
	struct sp_state *declared;
	struct sp_changes c = {0};
	snprintf(name, sizeof(name), "%s", given ? given : "fleet.yaml");
	if (!check_expected(f, call))
		return;
	int err = sp_fleetfile_parse(name, text, len, &declared, why, sizeof(why));
	if (err) {
		con_api_error(call, err, why);
		return;
	}
	if (!check_file(f, call, name, declared)) {
		sp_state_free(declared);
		return;
	}
	const struct sp_state *state = con_fleet_state(f->fleet);
	err = add_keys(f, state, &c);
	if (!err)
		err = sp_fleetfile_diff(state, declared, &c);
	if (!err)
		err = revoke_who_goes(f, state, &c);
	sp_state_free(declared);
	if (err) {
		sp_changes_done(&c);
		con_api_error(call, err, "");
		return;
	}
	carry_out(f, call, &c);
}

// ---- looking back ----

// The state at a sequence: *ret_own is to be freed. False: it was answered.
static bool find_state(struct con_api_fleet *f, struct con_api_call *call, uint64_t at,
		       const struct sp_state **ret, struct sp_state **ret_own)
{
	uint64_t head = con_fleet_head(f->fleet)->sequence;
	*ret_own = NULL;
	if (at == head) {
		*ret = con_fleet_state(f->fleet);
		return true;
	}
	int err = con_fleet_state_at(f->fleet, at, ret_own);
	*ret = *ret_own;
	if (err == -ENOENT)
		con_api_problem(call, at > head ? 404 : 410, "no-such-revision",
				at > head ? "sequence %llu has not been yet"
					  : "sequence %llu is older than the journal",
				(unsigned long long)at);
	else if (err)
		con_api_error(call, err, "");
	return !err;
}

static void diff(void *ctx, struct con_api_call *call)
{
	struct con_api_fleet *f = ctx;
	uint64_t head = con_fleet_head(f->fleet)->sequence, from, to;
	const struct sp_state *a, *b;
	struct sp_state *own_a, *own_b = NULL;
	struct sp_changes c = {0};
	if (!con_api_number(call, "from", head ? head - 1 : 0, UINT64_MAX, &from) ||
	    !con_api_number(call, "to", head, UINT64_MAX, &to) ||
	    !find_state(f, call, from, &a, &own_a))
		return;
	if (find_state(f, call, to, &b, &own_b)) {
		int err = sp_changes_diff(a, b, "", &c);
		json_t *list = err ? NULL : describe_changes(a, &c);
		con_api_answer(call, 200,
			       list ? json_pack("{s:I, s:I, s:o}", "from",
						(json_int_t)from, "to", (json_int_t)to,
						"changes", list)
				    : NULL);
	}
	sp_changes_done(&c);
	sp_state_free(own_a);
	sp_state_free(own_b);
}

// What was declared then, declared again; what verbs did since stays.
static void rollback(void *ctx, struct con_api_call *call)
{
	struct con_api_fleet *f = ctx;
	json_t *o = con_api_object(call);
	const struct sp_state *then;
	struct sp_state *own;
	struct sp_changes c = {0};
	if (!o)
		return;
	json_t *v = json_object_get(o, "sequence");
	if (!json_is_integer(v) || json_integer_value(v) <= 0) {
		con_api_problem(call, 400, "body",
				"sequence: want the number of a revision");
		return;
	}
	if (!check_expected(f, call) ||
	    !find_state(f, call, (uint64_t)json_integer_value(v), &then, &own))
		return;
	const struct sp_state *state = con_fleet_state(f->fleet);
	if (!sp_state_count(then, "node/") && !con_api_flag(call, "force")) {
		con_api_problem(
			call, 409, "empty-fleet",
			"there were no nodes then; if that is meant, use --force");
		sp_state_free(own);
		return;
	}
	int err = sp_fleetfile_diff(state, then, &c);
	if (!err)
		err = revoke_who_goes(f, state, &c);
	sp_state_free(own);
	if (err) {
		sp_changes_done(&c);
		con_api_error(call, err, "");
		return;
	}
	carry_out(f, call, &c);
}

static const struct con_api_route routes[] = {
	{"POST", "/v1/apply", apply},
	{"GET", "/v1/diff", diff},
	{"POST", "/v1/rollback", rollback},
	{0},
};

int con_api_fleet_add(struct con_api_fleet *f)
{
	int err = con_api_add(f->api, routes, f);
	return err ? err : con_api_list_add(f);
}
