#include "ctl/checks.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 800

static const char *const words[] = {
	[CTL_GOOD] = "ok", [CTL_WARN] = "warn", [CTL_BAD] = "fail"};

// What a program or a peer wrote may be no UTF-8, or no single line.
static json_t *clean(const char *text)
{
	char buf[TEXT_MAX];
	size_t n = 0;
	for (; text[n] && n < sizeof(buf) - 1; n++)
		buf[n] = text[n] >= 0x20 && text[n] < 0x7f ? text[n] : '?';
	buf[n] = '\0';
	return json_string(buf);
}

void ctl_check_add(struct ctl_checks *k, enum ctl_grade grade, const char *area,
		   const char *about, const char *remedy, const char *fmt, ...)
{
	char text[TEXT_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!k->list)
		k->list = json_array();
	json_t *o = json_pack("{s:s, s:s, s:o, s:o}", "grade", words[grade], "area", area,
			      "about", clean(about), "text", clean(text));
	if (o && remedy)
		json_object_set_new(o, "remedy", clean(remedy));
	json_array_append_new(k->list, o);
	k->n[grade]++;
}

static const char *member(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));
	return text ? text : "";
}

static void print(const struct ctl_call *call, const struct ctl_checks *k)
{
	const json_t *o;
	size_t i;
	json_array_foreach(k->list, i, o)
	{
		const char *about = member(o, "about"), *remedy = member(o, "remedy");
		fprintf(call->out, "%-4s  %-11s %s%s%s\n", member(o, "grade"),
			member(o, "area"), about, *about ? ": " : "", member(o, "text"));
		if (*remedy)
			fprintf(call->out, "%18s-> %s\n", "", remedy);
	}
	fprintf(call->out, "%u ok, %u to look at, %u broken\n", k->n[CTL_GOOD],
		k->n[CTL_WARN], k->n[CTL_BAD]);
}

int ctl_checks_end(const struct ctl_call *call, struct ctl_checks *k)
{
	int code = k->n[CTL_BAD] ? 2 : k->n[CTL_WARN] ? 1 : 0;
	if (call->json) {
		json_t *o = json_pack("{s:O, s:i, s:i, s:i}", "checks", k->list, "ok",
				      (int)k->n[CTL_GOOD], "warn", (int)k->n[CTL_WARN],
				      "fail", (int)k->n[CTL_BAD]);
		char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
		fprintf(call->out, "%s\n", text ? text : "{}");
		free(text);
		json_decref(o);
	} else {
		print(call, k);
	}
	json_decref(k->list);
	*k = (struct ctl_checks){0};
	return code;
}
