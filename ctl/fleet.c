// Verbs about the fleet as a whole: apply, diff, rollback, status, health and the lists.
#include <stdlib.h>
#include <string.h>

#include "ctl/grid.h"
#include "ctl/io.h"
#include "ctl/out.h"
#include "ctl/parse.h"
#include "ctl/remote.h"
#include "ctl/verbs.h"
#include "lib/file.h"
#include "lib/fleetfile.h"

// ---- changes ----

static void print_value(const struct ctl_call *call, const char *sign, const char *name,
			const json_t *v)
{
	char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS |
					   JSON_ENSURE_ASCII);
	fprintf(call->out, "    %s %s: %s\n", sign, name, text ? text : "");
	free(text);
}

static void print_members(const struct ctl_call *call, const json_t *before,
			  const json_t *after)
{
	const char *name;
	json_t *v;
	json_object_foreach((json_t *)(uintptr_t)before, name, v)
	{
		if (!json_equal(v, json_object_get(after, name)))
			print_value(call, "-", name, v);
	}
	json_object_foreach((json_t *)(uintptr_t)after, name, v)
	{
		if (!json_equal(v, json_object_get(before, name)))
			print_value(call, "+", name, v);
	}
}

static void print_changes(const struct ctl_call *call, const json_t *list)
{
	size_t i;
	json_t *o;
	json_array_foreach((json_t *)(uintptr_t)list, i, o)
	{
		const char *key = json_string_value(json_object_get(o, "key"));
		const char *op = json_string_value(json_object_get(o, "op"));
		if (!key || !op)
			continue;
		fprintf(call->out, "%c %s\n",
			*op == 'a'   ? '+'
			: *op == 'r' ? '-'
				     : '~',
			key);
		if (*op != 'r')
			print_members(call, json_object_get(o, "before"),
				      json_object_get(o, "after"));
	}
}

static void print_position(const struct ctl_call *call, const char *what,
			   const json_t *reply)
{
	const json_t *at = json_object_get(reply, "position");
	fprintf(call->out, "%s: epoch %lld, sequence %lld\n", what,
		(long long)json_integer_value(json_object_get(at, "epoch")),
		(long long)json_integer_value(json_object_get(at, "sequence")));
}

// What apply and rollback answer. Takes it.
static int print_done(const struct ctl_call *call, json_t *reply, bool dry)
{
	if (call->json)
		return ctl_out(call, reply);
	const json_t *list = json_object_get(reply, "changes");
	print_changes(call, list);
	if (json_array_size(list) == 0)
		print_position(call, "nothing to change", reply);
	else
		print_position(call,
			       dry ? "not applied (--dry-run); the fleet is at"
				   : "applied",
			       reply);
	json_decref(reply);
	return EX_OK;
}

static int send_file(struct ctl_call *call, const char *path, bool dry, bool force)
{
	const struct sp_file_read opt = {.max = SP_FLEETFILE_MAX};
	char why[SP_WHY_MAX];
	uint8_t *buf;
	size_t len;
	json_t *reply;
	if (sp_file_read(path, &opt, &buf, &len, why, sizeof(why)))
		return ctl_fail(call, EX_NOINPUT, "%s", why);
	char *name = ctl_escape(path);
	char *url = ctl_text("/v1/apply?name=%s%s%s", name, dry ? "&dry_run=1" : "",
			     force ? "&force=1" : "");
	int code = ctl_ask(call, "POST", url, buf, len, &reply);
	free(name);
	free(url);
	sp_file_free(buf, len);
	return code ? code : print_done(call, reply, dry);
}

int ctl_apply(struct ctl_call *call)
{
	return send_file(call, ctl_get(call, "file"), ctl_has(call, "dry-run"),
			 ctl_has(call, "force"));
}

static int sequence(const struct ctl_call *call, const char *text, long long *ret)
{
	char *end;
	*ret = strtoll(text, &end, 10);
	if (*text >= '0' && *text <= '9' && !*end)
		return 0;
	return ctl_fail(call, EX_USAGE, "\"%s\": want the sequence of a revision", text);
}

int ctl_diff(struct ctl_call *call)
{
	long long from = 0, to = 0;
	json_t *reply;
	if (ctl_get(call, "file") && call->n_args)
		return ctl_fail(call, EX_USAGE,
				"--file or revisions, not both: a file is compared with "
				"the fleet");
	if (ctl_get(call, "file"))
		return send_file(call, ctl_get(call, "file"), true, true);
	if (call->n_args > 0 && sequence(call, call->args[0], &from))
		return EX_USAGE;
	if (call->n_args > 1 && sequence(call, call->args[1], &to))
		return EX_USAGE;
	char *url = call->n_args > 1 ? ctl_text("/v1/diff?from=%lld&to=%lld", from, to)
		    : call->n_args   ? ctl_text("/v1/diff?from=%lld", from)
				     : ctl_text("/v1/diff");
	int code = ctl_ask(call, "GET", url, NULL, 0, &reply);
	free(url);
	if (code)
		return code;
	if (call->json)
		return ctl_out(call, reply);
	print_changes(call, json_object_get(reply, "changes"));
	json_decref(reply);
	return EX_OK;
}

int ctl_rollback(struct ctl_call *call)
{
	long long to;
	json_t *reply;
	bool dry = ctl_has(call, "dry-run");
	if (sequence(call, call->args[0], &to))
		return EX_USAGE;
	char *url = ctl_text("/v1/rollback?%s%s", dry ? "dry_run=1&" : "",
			     ctl_has(call, "force") ? "force=1" : "");
	int code = ctl_ask_json(call, "POST", url,
				json_pack("{s:I}", "sequence", (json_int_t)to), &reply);
	free(url);
	return code ? code : print_done(call, reply, dry);
}

int ctl_status(struct ctl_call *call)
{
	json_t *reply;
	int code = ctl_ask(call, "GET", "/v1/status", NULL, 0, &reply);
	return code ? code : ctl_out(call, reply);
}

// ---- lists ----

static const struct ctl_column nodes[] = {
	{"NODE", "name", CTL_CELL_TEXT},
	{"REGION", "region", CTL_CELL_TEXT},
	{"GROUP", "group", CTL_CELL_TEXT},
	{"WEIGHT", "weight", CTL_CELL_TEXT},
	{"ENROLLED", "enrolled", CTL_CELL_TEXT},
	{"LINK", "link", CTL_CELL_TEXT},
	{"SEQ", "applied.sequence", CTL_CELL_TEXT},
	{"HEALTH", "health", CTL_CELL_TEXT},
	{"SESSIONS", "sessions", CTL_CELL_TEXT},
	{"STREAMS", "streams", CTL_CELL_TEXT},
	{"LEASE", "lease.kind", CTL_CELL_TEXT},
	{"UNTIL", "lease.until", CTL_CELL_TIME},
	{0},
};
static const struct ctl_column users[] = {
	{"USER", "name", CTL_CELL_TEXT},
	{"TIER", "tier", CTL_CELL_TEXT},
	{"DEVICES", "max_devices", CTL_CELL_TEXT},
	{"DISABLED", "disabled", CTL_CELL_TEXT},
	{"EXPIRES", "expires", CTL_CELL_TIME},
	{"SESSIONS", "sessions", CTL_CELL_TEXT},
	{"UP", "used_up", CTL_CELL_BYTES},
	{"DOWN", "used_down", CTL_CELL_BYTES},
	{"QUOTA", "quota_bytes", CTL_CELL_BYTES},
	{"LEFT", "quota_left", CTL_CELL_BYTES},
	{0},
};
static const struct ctl_column sessions[] = {
	{"NODE", "node", CTL_CELL_TEXT},         {"SESSION", "id", CTL_CELL_SHORT},
	{"USER", "user", CTL_CELL_TEXT},         {"TIER", "tier", CTL_CELL_TEXT},
	{"SESSIONS", "sessions", CTL_CELL_TEXT}, {"STREAMS", "streams", CTL_CELL_TEXT},
	{"FLOWS", "flows", CTL_CELL_TEXT},       {"UP", "bytes_up", CTL_CELL_BYTES},
	{"DOWN", "bytes_down", CTL_CELL_BYTES},  {0},
};
static const struct ctl_column revisions[] = {
	{"EPOCH", "epoch", CTL_CELL_TEXT},
	{"SEQ", "sequence", CTL_CELL_TEXT},
	{"ISSUED", "issued_ms", CTL_CELL_TIME_MS},
	{"AUTHOR", "author", CTL_CELL_TEXT},
	{"CHANGES", "public_changes", CTL_CELL_TEXT},
	{"PRIVATE", "has_private", CTL_CELL_TEXT},
	{"HASH", "hash", CTL_CELL_SHORT},
	{0},
};
static const struct ctl_column events[] = {
	{"TIME", "time_ms", CTL_CELL_TIME_MS}, {"LEVEL", "level", CTL_CELL_TEXT},
	{"EVENT", "kind", CTL_CELL_TEXT},      {"ABOUT", "about", CTL_CELL_TEXT},
	{"EPOCH", "epoch", CTL_CELL_TEXT},     {"SEQ", "sequence", CTL_CELL_TEXT},
	{"TEXT", "text", CTL_CELL_TEXT},       {0},
};
static const struct ctl_column leases[] = {
	{"NODE", "node", CTL_CELL_TEXT},     {"LEASE", "kind", CTL_CELL_TEXT},
	{"UNTIL", "until", CTL_CELL_TIME},   {"BY", "by", CTL_CELL_TEXT},
	{"REASON", "reason", CTL_CELL_TEXT}, {0},
};
static const struct ctl_column tokens[] = {
	{"TOKEN", "id", CTL_CELL_TEXT},
	{"USER", "user", CTL_CELL_TEXT},
	{"CREATED", "created", CTL_CELL_TIME},
	{"EXPIRES", "expires", CTL_CELL_TIME},
	{0},
};

static const struct list {
	const char *name;
	const struct ctl_column *columns;
} lists[] = {{"nodes", nodes},   {"users", users},   {"sessions", sessions},
	     {"events", events}, {"leases", leases}, {"revisions", revisions},
	     {"tokens", tokens}, {NULL, NULL}};

// "get KIND": the kind is the verb's second word.
int ctl_get_list(struct ctl_call *call)
{
	const char *kind = strchr(call->verb->name, ' ') + 1;
	const struct list *l = lists;
	json_t *reply;
	while (l->name && strcmp(l->name, kind) != 0)
		l++;
	const char *limit =
		ctl_has_option(call->verb, "limit") ? ctl_get(call, "limit") : NULL;
	char *escaped = limit ? ctl_escape(limit) : NULL;
	char *url = limit ? ctl_text("/v1/%s?limit=%s", kind, escaped)
			  : ctl_text("/v1/%s", kind);
	int code = ctl_ask(call, "GET", url, NULL, 0, &reply);
	free(escaped);
	free(url);
	if (code)
		return code;
	if (call->json)
		return ctl_out(call, reply);
	char *none = ctl_text("no %s", kind);
	ctl_grid(call, json_object_get(reply, kind), l->columns, none);
	free(none);
	json_decref(reply);
	return EX_OK;
}
