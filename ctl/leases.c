// Verbs about nodes that are taken out: cordon, drain, undrain. Not here: what a worker
// does then, and what is left of it (the controller tells).
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ctl/io.h"
#include "ctl/out.h"
#include "ctl/parse.h"
#include "ctl/remote.h"
#include "ctl/verbs.h"

#define LOOK_US  500000 // between two looks at a node that drains
#define WORD_CAP 96

static json_int_t number(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

// "12 streams and 1 flow", to buf of WORD_CAP. Returns buf.
static char *left(const json_t *o, char *buf)
{
	long long s = number(o, "streams"), f = number(o, "flows");
	int n = 0;
	if (s || !f)
		n = snprintf(buf, WORD_CAP, "%lld stream%s", s, s == 1 ? "" : "s");
	if (f)
		snprintf(buf + n, (size_t)(WORD_CAP - n), "%s%lld flow%s",
			 n ? " and " : "", f, f == 1 ? "" : "s");
	return buf;
}

// What is left, to buf of 2 * WORD_CAP. Returns buf.
static char *standing(const json_t *o, char *buf)
{
	char what[WORD_CAP];
	long long unheard = number(o, "unheard");
	const json_t *heard = json_object_get(o, "heard");
	if (json_is_true(json_object_get(o, "empty")))
		snprintf(buf, 2 * WORD_CAP, "empty");
	else if (json_is_false(heard))
		snprintf(buf, 2 * WORD_CAP, "draining, not heard");
	else if (unheard)
		snprintf(buf, 2 * WORD_CAP, "draining, %s left, %lld worker%s not heard",
			 left(o, what), unheard, unheard == 1 ? "" : "s");
	else
		snprintf(buf, 2 * WORD_CAP, "draining, %s left", left(o, what));
	return buf;
}

void ctl_tell_standing(json_t *o)
{
	char text[2 * WORD_CAP];
	const json_t *lease = json_object_get(o, "lease");
	const char *kind = json_string_value(json_object_get(lease, "kind"));
	if (json_object_get(o, "empty") || json_object_get(o, "heard") ||
	    json_object_get(o, "unheard"))
		json_object_set_new(o, "standing", json_string(standing(o, text)));
	else if (kind)
		json_object_set_new(o, "standing", json_string(kind));
}

// ---- waiting ----

static void progress(const struct ctl_call *call, const char *text, char *last)
{
	bool tty = isatty(fileno(call->err));
	if (strcmp(text, last) != 0)
		fprintf(call->err, tty ? "\r%s: %s\033[K" : "%s: %s\n", call->args[0],
			text);
	fflush(call->err);
	snprintf(last, 2 * WORD_CAP, "%s", text);
}

static void end_progress(const struct ctl_call *call)
{
	if (isatty(fileno(call->err)))
		fputs("\n", call->err);
}

static int over(const struct ctl_call *call, const char *text)
{
	return ctl_fail(call, EX_TEMPFAIL,
			"%s was not empty at its deadline (%s), and takes clients again",
			call->args[0], text);
}

// Asks until the node is empty (0, *ret), its lease is gone, or it is `until`. A
// controller that is away is asked again.
static int wait_for(struct ctl_call *call, const char *url, uint64_t until, json_t **ret)
{
	char text[2 * WORD_CAP] = "not heard yet", last[2 * WORD_CAP] = "";
	struct ctl_call quiet = *call;
	quiet.err = fopen("/dev/null", "w");
	if (!quiet.err)
		return ctl_fail(call, EX_OSERR, "/dev/null: cannot be opened");
	int code = -1;
	while (code < 0) {
		json_t *reply = NULL;
		int asked = ctl_ask(&quiet, "GET", url, NULL, 0, &reply);
		if (!asked)
			standing(reply, text);
		else if (asked != EX_NOINPUT)
			snprintf(text, sizeof(text), "no controller answers");
		if (!asked && json_is_true(json_object_get(reply, "empty"))) {
			progress(call, text, last);
			*ret = reply;
			code = 0;
			break;
		}
		json_decref(reply);
		if ((uint64_t)time(NULL) >= until)
			code = over(call, text);
		else if (asked == EX_NOINPUT)
			code = ctl_fail(call, EX_NOINPUT,
					"%s takes clients again: its lease was ended",
					call->args[0]);
		else
			progress(call, text, last);
		if (code < 0)
			usleep(LOOK_US);
	}
	end_progress(call);
	fclose(quiet.err);
	return code;
}

static int wait_and_say(struct ctl_call *call, const char *url, uint64_t until)
{
	json_t *reply;
	int code = wait_for(call, url, until, &reply);
	if (code)
		return code;
	if (call->json)
		return ctl_out(call, reply);
	fprintf(call->out, "%s is empty\n", call->args[0]);
	json_decref(reply);
	return EX_OK;
}

// ---- the verbs ----

// How long it is to hold. 0, or an exit code and said.
static int lease_time(const struct ctl_call *call, json_int_t *ret)
{
	const char *option = ctl_get(call, "deadline") ? "deadline" : "for";
	if (ctl_get(call, "deadline") && ctl_get(call, "for"))
		return ctl_fail(call, EX_USAGE, "--for is --deadline: want one of them");
	int code = ctl_seconds(call, option, ret);
	if (!code && !*ret)
		*ret = CTL_LEASE_DEFAULT_S;
	return code;
}

static int put(struct ctl_call *call, const char *node, json_int_t for_s, json_t **ret)
{
	const char *reason = ctl_get(call, "reason");
	char *url = ctl_text("/v1/leases/%s%s", node,
			     ctl_has(call, "force") ? "?force=1" : "");
	int code = ctl_ask_json(call, "PUT", url,
				json_pack("{s:s, s:I, s:s}", "kind", call->verb->name,
					  "for_s", for_s, "reason", reason ? reason : ""),
				ret);
	free(url);
	return code;
}

// "cordon" and "drain": the kind is the verb.
int ctl_lease(struct ctl_call *call)
{
	json_int_t for_s;
	json_t *reply;
	bool drain = call->verb->name[0] == 'd', wait = drain && ctl_has(call, "wait");
	int code = lease_time(call, &for_s);
	if (code)
		return code;
	char *node = ctl_escape(call->args[0]);
	code = put(call, node, for_s, &reply);
	if (!code && call->json && !wait)
		code = ctl_out(call, json_incref(reply));
	uint64_t until = code ? 0 : (uint64_t)number(reply, "until");
	if (!code && !call->json) {
		char a[CTL_TIME_CAP], b[CTL_TIME_CAP];
		fprintf(call->out, "%s %s until %s (%s)\n", call->args[0],
			drain ? "drains" : "is cordoned", ctl_format_time(until, a),
			ctl_format_distance(until, call->now_s, b));
		fflush(call->out);
	}
	if (!code)
		json_decref(reply);
	if (!code && wait) {
		char *url = ctl_text("/v1/leases/%s", node);
		code = wait_and_say(call, url, until);
		free(url);
	}
	free(node);
	return code;
}

int ctl_undrain(struct ctl_call *call)
{
	return ctl_take_away(call, "/v1/leases/", "takes clients again");
}
