#include "lib/yaml.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct reader {
	yaml_parser_t parser;
	yaml_event_t ev; // the next one
	bool has_ev;
	char path[SP_YAML_PATH_MAX];
	// The place looked for, NULL: none; the longest part of it that was met.
	const char *wanted;
	size_t met_len;
	unsigned met_line;
	// The first error.
	bool failed;
	unsigned line;
	char *why;
	size_t cap;
};

static json_t *read_node(struct reader *r, unsigned depth);

__attribute__((format(printf, 3, 4))) static json_t *fail(struct reader *r, size_t line,
							  const char *fmt, ...)
{
	if (r->failed)
		return NULL;
	r->failed = true;
	r->line = (unsigned)line;
	va_list ap;
	va_start(ap, fmt);
	if (r->cap)
		vsnprintf(r->why, r->cap, fmt, ap);
	va_end(ap);
	return NULL;
}

static size_t line_of(const struct reader *r)
{
	return r->ev.start_mark.line + 1;
}

// The event read last is replaced by the next. False: an error.
static bool next(struct reader *r)
{
	if (r->has_ev)
		yaml_event_delete(&r->ev);
	r->has_ev = yaml_parser_parse(&r->parser, &r->ev);
	if (!r->has_ev)
		fail(r, r->parser.problem_mark.line + 1, "not YAML: %s",
		     r->parser.problem ? r->parser.problem : "it cannot be read");
	return r->has_ev;
}

// Whether the place we are at is the one looked for, or around it.
static void note_place(struct reader *r, size_t line)
{
	size_t len = strlen(r->path);
	if (!r->wanted || len < r->met_len || strncmp(r->wanted, r->path, len) != 0)
		return;
	if (len && r->wanted[len] && r->wanted[len] != '.' && r->wanted[len] != '[')
		return;
	r->met_len = len;
	r->met_line = (unsigned)line;
}

static json_t *read_list(struct reader *r, unsigned depth)
{
	json_t *list = json_array();
	size_t mark = strlen(r->path);
	while (list && next(r) && r->ev.type != YAML_SEQUENCE_END_EVENT) {
		snprintf(r->path + mark, sizeof(r->path) - mark, "[%zu]",
			 json_array_size(list));
		note_place(r, line_of(r));
		json_t *v = read_node(r, depth + 1);
		r->path[mark] = '\0';
		if (!v || json_array_append_new(list, v))
			break;
	}
	return list;
}

static json_t *read_map(struct reader *r, unsigned depth)
{
	json_t *map = json_object();
	size_t mark = strlen(r->path);
	while (map && next(r) && r->ev.type != YAML_MAPPING_END_EVENT) {
		size_t line = line_of(r);
		if (r->ev.type != YAML_SCALAR_EVENT) {
			fail(r, line, "found a key that is no word");
			break;
		}
		char *key = strdup((const char *)r->ev.data.scalar.value);
		if (key && strlen(key) != r->ev.data.scalar.length)
			fail(r, line, "found a key with a zero byte");
		else if (key && json_object_get(map, key))
			fail(r, line, "%s%s%.60s: stands here twice; remove one", r->path,
			     *r->path ? "." : "", key);
		snprintf(r->path + mark, sizeof(r->path) - mark, "%s%s", mark ? "." : "",
			 key ? key : "");
		note_place(r, line);
		json_t *v = !r->failed && key && next(r) ? read_node(r, depth + 1) : NULL;
		r->path[mark] = '\0';
		int bad = !v || json_object_set_new(map, key, v);
		free(key);
		if (bad) {
			fail(r, line, "a key that is not UTF-8");
			break;
		}
	}
	return map;
}

static bool is_integer(const char *s)
{
	size_t n = strspn(s + (*s == '-'), "0123456789");
	return n > 0 && n <= 18 && !s[(*s == '-') + n];
}

static json_t *read_scalar(struct reader *r)
{
	const char *s = (const char *)r->ev.data.scalar.value;
	size_t len = r->ev.data.scalar.length;
	json_t *v;
	if (r->ev.data.scalar.style == YAML_PLAIN_SCALAR_STYLE) {
		if (strcmp(s, "true") == 0 || strcmp(s, "false") == 0)
			return json_boolean(*s == 't');
		if (!*s || strcmp(s, "~") == 0 || strcmp(s, "null") == 0)
			return json_null();
		if (is_integer(s))
			return json_integer(strtoll(s, NULL, 10));
	}
	v = json_stringn(s, len);
	return v ? v : fail(r, line_of(r), "a text that is not UTF-8");
}

static bool is_decorated(const struct reader *r)
{
	switch (r->ev.type) {
	case YAML_SCALAR_EVENT:
		return r->ev.data.scalar.anchor || r->ev.data.scalar.tag;
	case YAML_SEQUENCE_START_EVENT:
		return r->ev.data.sequence_start.anchor || r->ev.data.sequence_start.tag;
	case YAML_MAPPING_START_EVENT:
		return r->ev.data.mapping_start.anchor || r->ev.data.mapping_start.tag;
	default:
		return true; // an alias
	}
}

// The node that the current event begins.
static json_t *read_node(struct reader *r, unsigned depth)
{
	json_t *v;
	if (is_decorated(r))
		return fail(r, line_of(r), "anchors, aliases and tags are not taken");
	if (depth > SP_YAML_DEPTH_MAX)
		return fail(r, line_of(r), "more than %d levels", SP_YAML_DEPTH_MAX);
	switch (r->ev.type) {
	case YAML_SEQUENCE_START_EVENT:
		v = read_list(r, depth);
		break;
	case YAML_MAPPING_START_EVENT:
		v = read_map(r, depth);
		break;
	default:
		v = read_scalar(r);
		break;
	}
	if (!v || r->failed) {
		json_decref(v);
		return fail(r, 1, "out of memory");
	}
	return v;
}

static json_t *read_stream(struct reader *r)
{
	json_t *v = NULL;
	if (!next(r) || !next(r)) // the stream's start, then the document's
		return NULL;
	if (r->ev.type == YAML_STREAM_END_EVENT)
		return json_null();
	if (next(r))
		v = read_node(r, 0);
	if (v && next(r) && next(r) && r->ev.type != YAML_STREAM_END_EVENT)
		fail(r, line_of(r), "a second document; want one");
	if (!r->failed)
		return v;
	json_decref(v);
	return NULL;
}

static json_t *load(struct reader *r, const char *text, size_t len)
{
	if (!yaml_parser_initialize(&r->parser))
		return fail(r, 1, "out of memory");
	yaml_parser_set_encoding(&r->parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r->parser, (const unsigned char *)text, len);
	json_t *v = read_stream(r);
	if (r->has_ev)
		yaml_event_delete(&r->ev);
	yaml_parser_delete(&r->parser);
	return v;
}

json_t *sp_yaml_load(const char *text, size_t len, unsigned *ret_line, char *why,
		     size_t cap)
{
	struct reader r = {.why = why, .cap = cap};
	json_t *v = load(&r, text, len);
	*ret_line = r.line;
	return v;
}

unsigned sp_yaml_line(const char *text, size_t len, const char *path)
{
	struct reader r = {.wanted = path, .met_line = 1};
	json_decref(load(&r, text, len));
	return r.met_line;
}
