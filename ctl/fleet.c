// Verbs about the fleet as a whole: apply, diff, rollback, status. Not here: lists
// (lists.c), health (health.c).
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

static void print_warnings(const struct ctl_call *call, const json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		fprintf(call->err, "%s: warning: %s\n", call->program->name,
			json_string_value(json_array_get(list, i)));
}

// What apply and rollback answer. Takes it.
static int print_done(const struct ctl_call *call, json_t *reply, bool dry)
{
	if (call->json)
		return ctl_out(call, reply);
	const json_t *list = json_object_get(reply, "changes");
	print_warnings(call, json_object_get(reply, "warnings"));
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
	if (!to)
		return ctl_fail(call, EX_USAGE,
				"\"%s\": want the sequence of a revision; the first is 1",
				call->args[0]);
	char *url = ctl_text("/v1/rollback?%s%s", dry ? "dry_run=1&" : "",
			     ctl_has(call, "force") ? "force=1" : "");
	int code = ctl_ask_json(call, "POST", url,
				json_pack("{s:I}", "sequence", (json_int_t)to), &reply);
	free(url);
	return code ? code : print_done(call, reply, dry);
}

static json_int_t number(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? s : "";
}

static void print_status(const struct ctl_call *call, const json_t *o)
{
	const json_t *at = json_object_get(o, "position");
	char age[CTL_AGE_CAP];
	uint64_t started = (uint64_t)number(o, "started_ms") / 1000;
	uint64_t up = call->now_s > started ? call->now_s - started : 0;
	fprintf(call->out, "fleet      %s\n", text(o, "fleet"));
	fprintf(call->out, "version    %s, runs for %s\n", text(o, "version"),
		ctl_format_age(up, age));
	fprintf(call->out, "revision   epoch %lld, sequence %lld, hash %.12s\n",
		(long long)number(at, "epoch"), (long long)number(at, "sequence"),
		text(at, "hash"));
	fprintf(call->out, "redis      %s\n",
		json_is_true(json_object_get(o, "synced")) ? "at the same revision"
		: json_is_false(json_object_get(o, "redis_heard"))
			? "not asked yet"
			: "away or elsewhere; sallyportctl doctor tells");
	fprintf(call->out, "nodes      %lld, %lld with a link\n",
		(long long)number(o, "nodes"), (long long)number(o, "workers_linked"));
	fprintf(call->out, "vantages   %lld with a link\n",
		(long long)number(o, "vantages_linked"));
	fprintf(call->out, "users      %lld\n", (long long)number(o, "users"));
	fprintf(call->out, "changes    %lld since its start, %lld refused\n",
		(long long)number(o, "commits"), (long long)number(o, "refused"));
	fprintf(call->out, "journal    %lld bytes\n",
		(long long)number(o, "journal_bytes"));
}

int ctl_status(struct ctl_call *call)
{
	json_t *reply;
	int code = ctl_ask(call, "GET", "/v1/status", NULL, 0, &reply);
	if (code || call->json)
		return code ? code : ctl_out(call, reply);
	print_status(call, reply);
	json_decref(reply);
	return EX_OK;
}
