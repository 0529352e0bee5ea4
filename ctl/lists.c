// Verbs that list: get nodes, users, sessions, revisions, events, leases, tokens,
// vantages.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/grid.h"
#include "ctl/io.h"
#include "ctl/out.h"
#include "ctl/parse.h"
#include "ctl/remote.h"
#include "ctl/verbs.h"

#define FOLLOW_US 500000 // between looks for new events

static const struct ctl_column nodes[] = {
	{"NODE", "name", CTL_CELL_TEXT, 0},
	{"REGION", "region", CTL_CELL_TEXT, 0},
	{"GROUP", "group", CTL_CELL_TEXT, 0},
	{"WEIGHT", "weight", CTL_CELL_TEXT, 0},
	{"ENROLLED", "enrolled", CTL_CELL_TEXT, 0},
	{"LINK", "link", CTL_CELL_TEXT, 0},
	{"AT", "applied", CTL_CELL_POSITION, 0},
	{"HEALTH", "health", CTL_CELL_TEXT, 0},
	{"OFFER%", "percent", CTL_CELL_TEXT, 0},
	{"SESSIONS", "sessions", CTL_CELL_TEXT, 0},
	{"STREAMS", "streams", CTL_CELL_TEXT, 0},
	{"LEASE", "standing", CTL_CELL_TEXT, 0},
	{"UNTIL", "lease.until", CTL_CELL_TIME, 0},
	{"REFUSED", "refused", CTL_CELL_TEXT, 0},
	{0},
};
static const struct ctl_column users[] = {
	{"USER", "name", CTL_CELL_TEXT, 0},
	{"TIER", "tier", CTL_CELL_TEXT, 0},
	{"DEVICES", "max_devices", CTL_CELL_TEXT, 0},
	{"DISABLED", "disabled", CTL_CELL_TEXT, 0},
	{"EXPIRES", "expires", CTL_CELL_TIME, 0},
	{"UP", "used_up", CTL_CELL_BYTES, 0},
	{"DOWN", "used_down", CTL_CELL_BYTES, 0},
	{"QUOTA", "quota_bytes", CTL_CELL_BYTES, 0},
	{"LEFT", "quota_left", CTL_CELL_BYTES, 0},
	{0},
};
static const struct ctl_column sessions[] = {
	{"SESSION", "id", CTL_CELL_SHORT, 0},
	{"USER", "user", CTL_CELL_TEXT, 0},
	{"TIER", "tier", CTL_CELL_TEXT, 0},
	{"HOME", "node", CTL_CELL_TEXT, 0},
	{"EPOCH", "epoch", CTL_CELL_TEXT, 0},
	{"FLOWS", "flows", CTL_CELL_TEXT, 0},
	{"SEEN", "put", CTL_CELL_SINCE, 0},
	{"QUOTA LEFT", "quota_left", CTL_CELL_BYTES, 0},
	{"PASS ENDS", "pass_expires", CTL_CELL_TIME, 0},
	{0},
};
static const struct ctl_column revisions[] = {
	{"AT", "", CTL_CELL_POSITION, 0},
	{"ISSUED", "issued_ms", CTL_CELL_TIME_MS, 0},
	{"AGE", "issued_ms", CTL_CELL_SINCE_MS, 0},
	{"CHANGES", "public_changes", CTL_CELL_TEXT, 0},
	{"PRIVATE", "has_private", CTL_CELL_TEXT, 0},
	{"HASH", "hash", CTL_CELL_SHORT, 0},
	{"AUTHOR", "author", CTL_CELL_TEXT, 0},
	{0},
};
static const struct ctl_column events[] = {
	{"TIME", "time_ms", CTL_CELL_TIME_MS, 18},
	{"LEVEL", "level", CTL_CELL_TEXT, 5},
	{"EVENT", "kind", CTL_CELL_TEXT, 14},
	{"ABOUT", "about", CTL_CELL_TEXT, 14},
	{"AT", "", CTL_CELL_POSITION, 5},
	{"TEXT", "text", CTL_CELL_TEXT, 0},
	{0},
};
static const struct ctl_column leases[] = {
	{"NODE", "node", CTL_CELL_TEXT, 0},
	{"LEASE", "kind", CTL_CELL_TEXT, 0},
	{"STANDS", "standing", CTL_CELL_TEXT, 0},
	{"ENDS", "until", CTL_CELL_TIME, 0},
	{"BY", "by", CTL_CELL_TEXT, 0},
	{"REASON", "reason", CTL_CELL_TEXT, 0},
	{0},
};
static const struct ctl_column tokens[] = {
	{"TOKEN", "id", CTL_CELL_TEXT, 0},
	{"USER", "user", CTL_CELL_TEXT, 0},
	{"CREATED", "created", CTL_CELL_TIME, 0},
	{"EXPIRES", "expires", CTL_CELL_TIME, 0},
	{0},
};
static const struct ctl_column vantages[] = {
	{"VANTAGE", "name", CTL_CELL_TEXT, 0},
	{"REGION", "region", CTL_CELL_TEXT, 0},
	{"STATE", "state", CTL_CELL_TEXT, 0},
	{"LINK", "link", CTL_CELL_TEXT, 0},
	{"SEEN", "seen_ms", CTL_CELL_SINCE_MS, 0},
	{"AT", "applied", CTL_CELL_POSITION, 0},
	{"SEES", "sees", CTL_CELL_TEXT, 0},
	{"FAILS", "fails", CTL_CELL_TEXT, 0},
	{"ADDRESS", "address", CTL_CELL_TEXT, 0},
	{0},
};

static const struct list {
	const char *name;
	const struct ctl_column *columns;
} lists[] = {{"nodes", nodes},   {"users", users},      {"sessions", sessions},
	     {"events", events}, {"leases", leases},    {"revisions", revisions},
	     {"tokens", tokens}, {"vantages", vantages}};

static const struct list *find_list(const char *name)
{
	const struct list *l = lists;
	while (strcmp(l->name, name) != 0) // the table of verbs has no others
		l++;
	return l;
}

// ---- what is asked ----

// "10m" ago, or a time. 0, or an exit code and said.
static int since(const struct ctl_call *call, const char *text, uint64_t *ret_ms)
{
	uint64_t s;
	if (ctl_parse_duration(text, &s) == 0)
		s = call->now_s > s ? call->now_s - s : 0;
	else if (ctl_parse_time(text, &s))
		return ctl_fail(call, EX_USAGE,
				"--since %s: want a duration such as 10m, or a time such "
				"as 2026-01-31T12:00:00Z",
				text);
	*ret_ms = s * 1000;
	return 0;
}

static char *add(char *url, const char *name, const char *value)
{
	char *escaped = ctl_escape(value);
	char *more =
		ctl_text("%s%c%s=%s", url, strchr(url, '?') ? '&' : '?', name, escaped);
	free(escaped);
	free(url);
	return more;
}

// The path with what the verb's options ask for. 0 and *ret (free), or an exit code.
static int make_url(const struct ctl_call *call, const char *kind, char **ret)
{
	static const struct {
		const char *option, *parameter;
	} filters[] = {{"limit", "limit"}, {"after", "after"}, {"region", "region"},
		       {"group", "group"}, {"state", "state"}, {"link", "link"},
		       {"tier", "tier"},   {"user", "user"},   {"kind", "kind"},
		       {"node", "node"},   {"about", "about"}};
	char *url = ctl_text("/v1/%s", kind), number[24];
	uint64_t ms = 0;
	for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++) {
		const char *v = ctl_has_option(call->verb, filters[i].option)
					? ctl_get(call, filters[i].option)
					: NULL;
		bool about =
			!strcmp(filters[i].option, "node") && !strcmp(kind, "events");
		if (v)
			url = add(url, about ? "about" : filters[i].parameter, v);
	}
	const char *text =
		ctl_has_option(call->verb, "since") ? ctl_get(call, "since") : NULL;
	if (text) {
		int code = since(call, text, &ms);
		if (code) {
			free(url);
			return code;
		}
		snprintf(number, sizeof(number), "%llu", (unsigned long long)ms);
		url = add(url, "since_ms", number);
	}
	*ret = url;
	return 0;
}

// ---- what is printed ----

// Says that there are more, and how to see them.
static void tell_more(const struct ctl_call *call, const char *kind, const json_t *reply)
{
	const char *next = json_string_value(json_object_get(reply, "next"));
	if (next)
		fprintf(call->out, "more of %lld: --after %s, or --limit N\n",
			(long long)json_integer_value(json_object_get(reply, "total")),
			next);
	else if (json_is_true(json_object_get(reply, "more")))
		fprintf(call->out, "there are more %s: --limit N, --user or --node\n",
			kind);
}

static void tell_standing(json_t *list)
{
	size_t i;
	json_t *o;
	json_array_foreach(list, i, o) ctl_tell_standing(o);
}

static int print_list(struct ctl_call *call, const struct list *l, json_t *reply)
{
	if (call->json)
		return ctl_out(call, reply);
	tell_standing(json_object_get(reply, l->name));
	char *none = ctl_text("no %s", l->name);
	ctl_grid(call, json_object_get(reply, l->name), l->columns, none);
	free(none);
	tell_more(call, l->name, reply);
	json_decref(reply);
	return EX_OK;
}

// "get KIND": the kind is the verb's second word.
int ctl_get_list(struct ctl_call *call)
{
	const struct list *l = find_list(strchr(call->verb->name, ' ') + 1);
	json_t *reply;
	char *url;
	int code = make_url(call, l->name, &url);
	if (code)
		return code;
	code = ctl_ask(call, "GET", url, NULL, 0, &reply);
	free(url);
	return code ? code : print_list(call, l, reply);
}

// ---- events that go on ----

static void print_lines(const struct ctl_call *call, const json_t *list)
{
	size_t i;
	const json_t *o;
	json_array_foreach((json_t *)(uintptr_t)list, i, o)
	{
		char *text = json_dumps(o, JSON_COMPACT);
		fprintf(call->out, "%s\n", text ? text : "{}");
		free(text);
	}
}

// Prints what `reply` has. Returns the number after which to ask next.
static json_int_t print_events(const struct ctl_call *call, json_t *reply, bool first)
{
	const json_t *list = json_object_get(reply, "events");
	size_t n = json_array_size(list); // a full answer is not all
	json_int_t last = n ? json_integer_value(json_object_get(
				      json_array_get(list, n - 1), "number"))
			    : json_integer_value(json_object_get(reply, "last"));
	if (call->json)
		print_lines(call, list);
	else if (first && json_array_size(list))
		ctl_grid(call, list, events, "");
	else
		ctl_grid_rows(call, list, events);
	json_decref(reply);
	return last;
}

// Until a signal, or the controller, ends it.
static int follow(struct ctl_call *call, const char *url, json_t *reply)
{
	json_int_t last = print_events(call, reply, true);
	while (fflush(call->out) == 0) {
		char after[24];
		usleep(FOLLOW_US);
		snprintf(after, sizeof(after), "%lld", (long long)last);
		char *next = add(ctl_text("%s", url), "after", after);
		int code = ctl_ask(call, "GET", next, NULL, 0, &reply);
		free(next);
		if (code)
			return code;
		json_int_t now = json_integer_value(json_object_get(reply, "last"));
		if (now < last) // another controller, or this one anew: from its first
			now = 0;
		else
			now = print_events(call, json_incref(reply), false);
		json_decref(reply);
		last = now;
	}
	return ctl_fail(call, EX_IOERR, "standard output: cannot write");
}

int ctl_get_events(struct ctl_call *call)
{
	json_t *reply;
	char *url;
	int code = make_url(call, "events", &url);
	if (code)
		return code;
	code = ctl_ask(call, "GET", url, NULL, 0, &reply);
	if (!code)
		code = ctl_has(call, "follow")
			       ? follow(call, url, reply)
			       : print_list(call, find_list("events"), reply);
	free(url);
	return code;
}
