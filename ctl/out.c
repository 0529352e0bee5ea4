#include "ctl/out.h"

#include <stdlib.h>
#include <string.h>

#include "ctl/parse.h"

#define INDENT 2

static bool is_time(const char *key)
{
	static const char *const times[] = {"issued", "expires", "not_before"};
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		if (!strcmp(key, times[i]))
			return true;
	return false;
}

static bool is_nested(const json_t *v)
{
	return (json_is_object(v) && json_object_size(v)) ||
	       (json_is_array(v) && json_array_size(v));
}

// Texts of files may hold anything; a terminal gets no control characters.
static void print_text(const struct ctl_call *call, const char *s)
{
	for (; *s; s++)
		fputc((unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s, call->out);
}

static void print_scalar(const struct ctl_call *call, const char *key, const json_t *v)
{
	char a[CTL_TIME_CAP], b[CTL_TIME_CAP];
	if (json_is_integer(v) && is_time(key)) {
		uint64_t t = (uint64_t)json_integer_value(v);
		fprintf(call->out, "%s  (%s)", ctl_format_time(t, a),
			ctl_format_distance(t, call->now_s, b));
	} else if (json_is_integer(v)) {
		fprintf(call->out, "%lld", (long long)json_integer_value(v));
	} else if (json_is_string(v)) {
		print_text(call, json_string_value(v));
	} else if (json_is_boolean(v)) {
		fputs(json_is_true(v) ? "yes" : "no", call->out);
	} else {
		fputs("none", call->out);
	}
	fputc('\n', call->out);
}

static int widest(const json_t *o)
{
	const char *key;
	json_t *v;
	int width = 0;
	json_object_foreach((json_t *)(uintptr_t)o, key, v)
	{
		if (!is_nested(v) && (int)strlen(key) > width)
			width = (int)strlen(key);
	}
	return width;
}

static void print_object(const struct ctl_call *call, const json_t *o, int indent,
			 bool inline_first);

static void print_list(const struct ctl_call *call, const json_t *list, int indent)
{
	size_t i;
	json_t *v;
	json_array_foreach(list, i, v)
	{
		fprintf(call->out, "%*s- ", indent, "");
		if (json_is_object(v) && is_nested(v))
			print_object(call, v, indent + 2, true);
		else
			print_scalar(call, "", v);
	}
}

static void print_object(const struct ctl_call *call, const json_t *o, int indent,
			 bool inline_first)
{
	const char *key;
	json_t *v;
	int width = widest(o);
	json_object_foreach((json_t *)(uintptr_t)o, key, v)
	{
		char name[64];
		size_t n = 0;
		for (; n < sizeof(name) - 1 && key[n]; n++)
			name[n] = key[n] == '_' ? ' ' : key[n];
		name[n] = '\0';
		fprintf(call->out, "%*s", inline_first ? 0 : indent, "");
		inline_first = false;
		if (is_nested(v)) {
			fprintf(call->out, "%s\n", name);
			if (json_is_array(v))
				print_list(call, v, indent + INDENT);
			else
				print_object(call, v, indent + INDENT, false);
		} else {
			fprintf(call->out, "%-*s  ", width, name);
			print_scalar(call, key, v);
		}
	}
}

int ctl_out(const struct ctl_call *call, json_t *record)
{
	if (!record)
		return ctl_fail(call, EX_OSERR, "out of memory");
	if (call->json) {
		char *text = json_dumps(record, JSON_INDENT(2));
		if (text)
			fprintf(call->out, "%s\n", text);
		free(text);
	} else {
		print_object(call, record, 0, false);
	}
	json_decref(record);
	return EX_OK;
}
