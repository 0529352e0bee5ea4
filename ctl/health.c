// The verb health: what vantages see of the nodes, and what the verdict makes of it.
#include <stdlib.h>
#include <string.h>

#include "ctl/grid.h"
#include "ctl/io.h"
#include "ctl/out.h"
#include "ctl/remote.h"
#include "ctl/verbs.h"

static const struct ctl_column nodes[] = {
	{"NODE", "name", CTL_CELL_TEXT, 0},
	{"REGION", "region", CTL_CELL_TEXT, 0},
	{"STATE", "health", CTL_CELL_TEXT, 0},
	{"DRAIN", "standing", CTL_CELL_TEXT, 0},
	{"CAUSE", "cause", CTL_CELL_TEXT, 0},
	{"FOR", "since_s", CTL_CELL_AGE, 0},
	{"OFFER%", "percent", CTL_CELL_TEXT, 0},
	{"FLAPS", "flaps", CTL_CELL_TEXT, 0},
	{"HELD", "held_s", CTL_CELL_AGE, 0},
	{"MS", "latency_ms", CTL_CELL_TEXT, 0},
	{"BLOCKED FROM", "blocked_from", CTL_CELL_TEXT, 0},
	{"FAILS FROM", "failures", CTL_CELL_FAILURES, 0},
	{0},
};
static const struct ctl_column vantages[] = {
	{"VANTAGE", "name", CTL_CELL_TEXT, 0}, {"REGION", "region", CTL_CELL_TEXT, 0},
	{"STATE", "state", CTL_CELL_TEXT, 0},  {"SEES", "sees", CTL_CELL_TEXT, 0},
	{"FAILS", "fails", CTL_CELL_TEXT, 0},  {0},
};
static const struct ctl_column views[] = {
	{"VANTAGE", "vantage", CTL_CELL_TEXT, 0},
	{"CARRIER", "carrier", CTL_CELL_TEXT, 0},
	{"OK", "ok", CTL_CELL_TEXT, 0},
	{"ROW", "row", CTL_CELL_TEXT, 0},
	{"FOR", "since_s", CTL_CELL_AGE, 0},
	{"AGO", "age_ms", CTL_CELL_AGE_MS, 0},
	{"RUNG", "rung", CTL_CELL_TEXT, 0},
	{"REASON", "reason", CTL_CELL_TEXT, 0},
	{"DETAIL", "detail", CTL_CELL_TEXT, 0},
	{0},
};
static const struct ctl_column times[] = {
	{"VANTAGE", "vantage", CTL_CELL_TEXT, 0},
	{"VOTE", "vote", CTL_CELL_TEXT, 0},
	{"MS", "took_ms", CTL_CELL_TEXT, 0},
	{"OF WHICH", "rungs_ms", CTL_CELL_TIMES, 0},
	{0},
};

// For people a cause and a vote as words: "none" is nothing to say.
static void make_words(json_t *reply)
{
	json_t *o, *v;
	size_t i, k;
	json_array_foreach(json_object_get(reply, "nodes"), i, o)
	{
		const char *cause = json_string_value(json_object_get(o, "cause"));
		if (cause && !strcmp(cause, "none"))
			json_object_del(o, "cause");
		if (!json_integer_value(json_object_get(o, "held_s")))
			json_object_del(o, "held_s");
		ctl_tell_standing(o);
		json_array_foreach(json_object_get(o, "views"), k, v)
		{
			bool votes = json_is_true(json_object_get(v, "votes"));
			bool contested = json_is_true(json_object_get(v, "contested"));
			json_object_set_new(v, "vote",
					    json_string(contested ? "contested"
							: votes   ? "yes"
								  : "no"));
		}
	}
}

// Leaves only what --region and --state ask for.
static void filter(const struct ctl_call *call, json_t *list)
{
	const char *region = ctl_get(call, "region"), *state = ctl_get(call, "state");
	for (size_t i = json_array_size(list); i-- > 0;) {
		const json_t *o = json_array_get(list, i);
		const char *r = json_string_value(json_object_get(o, "region"));
		const char *s = json_string_value(json_object_get(o, "health"));
		if ((region && (!r || strcmp(r, region) != 0)) ||
		    (state && (!s || strcmp(s, state) != 0)))
			json_array_remove(list, i);
	}
}

static void print_state(const struct ctl_call *call, const json_t *reply)
{
	if (json_is_true(json_object_get(reply, "panic")))
		fputs("PANIC: too little of the fleet answers, so all nodes are offered "
		      "and nothing is demoted\n\n",
		      call->out);
	if (json_is_true(json_object_get(reply, "blind")))
		fputs("BLIND: no vantage has a vote, so verdicts stand still\n\n",
		      call->out);
}

static void print_node(const struct ctl_call *call, const json_t *node)
{
	const json_t *list = json_object_get(node, "views");
	const char *name = json_string_value(json_object_get(node, "name"));
	fprintf(call->out, "\n%s\n", name ? name : "");
	ctl_grid(call, list, views, "no vantage has told of it yet");
	if (json_array_size(list))
		ctl_grid(call, list, times, "");
}

int ctl_health(struct ctl_call *call)
{
	json_t *reply, *o;
	size_t i;
	char *name = ctl_escape(call->n_args ? call->args[0] : "");
	char *url = ctl_text("/v1/health%s%s", *name ? "/" : "", name);
	int code = ctl_ask(call, "GET", url, NULL, 0, &reply);
	free(name);
	free(url);
	if (code)
		return code;
	filter(call, json_object_get(reply, "nodes"));
	if (call->json)
		return ctl_out(call, reply);
	make_words(reply);
	print_state(call, reply);
	ctl_grid(call, json_object_get(reply, "nodes"), nodes,
		 "no such node, or none has enrolled");
	if (call->n_args) {
		json_array_foreach(json_object_get(reply, "nodes"), i, o)
			print_node(call, o);
	} else {
		fputs("\n", call->out);
		ctl_grid(call, json_object_get(reply, "vantages"), vantages,
			 "no vantage has enrolled: nobody looks after the nodes");
	}
	json_decref(reply);
	return EX_OK;
}
