#include "lib/fleet_json.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/text.h"

void fleet_fail(struct fleet_cursor *c, int err, const char *key, const char *fmt, ...)
{
	if (c->err)
		return;
	c->err = err;
	if (c->cap == 0)
		return;
	int n = snprintf(c->why, c->cap, "%s%s%s: ", c->path,
			 key && c->path[0] ? "." : "",
			 key          ? key
			 : c->path[0] ? ""
				      : "document");
	if (n < 0 || (size_t)n >= c->cap)
		return;
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(c->why + n, c->cap - (size_t)n, fmt, ap);
	va_end(ap);
}

__attribute__((format(printf, 2, 3))) static size_t step(struct fleet_cursor *c,
							 const char *fmt, ...)
{
	size_t mark = strlen(c->path);
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(c->path + mark, sizeof(c->path) - mark, fmt, ap);
	va_end(ap);
	return mark;
}

// Keys are the document's here, so they are shown cut and without control characters.
size_t fleet_enter(struct fleet_cursor *c, const char *key)
{
	char plain[SP_FLEET_NAME_MAX + 1];
	snprintf(plain, sizeof(plain), "%s", key);
	for (char *p = plain; *p; p++)
		if (*p <= 0x20 || *p >= 0x7f)
			*p = '?';
	return step(c, "%s%s", c->path[0] ? "." : "", plain);
}

size_t fleet_enter_index(struct fleet_cursor *c, const char *key, size_t i)
{
	return step(c, "%s%s[%zu]", c->path[0] ? "." : "", key, i);
}

void fleet_leave(struct fleet_cursor *c, size_t mark)
{
	c->path[mark] = '\0';
}

const char *fleet_type_word(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "a list";
	case JSON_STRING:
		return "a text";
	case JSON_INTEGER:
		return "an integer";
	case JSON_REAL:
		return "a fraction";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	case JSON_NULL:
		return "null";
	}
	return "something else";
}

static void unknown_key(struct fleet_cursor *c, const char *key, const char *const *keys)
{
	char known[200];
	size_t n = 0;
	const char *near = NULL;
	for (; *keys; keys++) {
		int more = snprintf(known + n, sizeof(known) - n, "%s%s", n ? ", " : "",
				    *keys);
		if (more > 0 && n + (size_t)more < sizeof(known))
			n += (size_t)more;
		if (sp_text_distance(key, *keys) <= 2)
			near = *keys;
	}
	known[n] = '\0';
	size_t mark = fleet_enter(c, key);
	if (near)
		fleet_fail(c, SP_E_CONFIG, NULL, "unknown key; is it \"%s\"?", near);
	else
		fleet_fail(c, SP_E_CONFIG, NULL, "unknown key; known are %s", known);
	fleet_leave(c, mark);
}

bool fleet_check_keys(struct fleet_cursor *c, const json_t *o, const char *const *keys)
{
	const char *key;
	json_t *v;
	if (!json_is_object(o)) {
		fleet_fail(c, SP_E_CONFIG, NULL, "found %s; want an object",
			   fleet_type_word(o));
		return false;
	}
	json_object_foreach((json_t *)(uintptr_t)o, key, v)
	{
		const char *const *k = keys;
		while (*k && strcmp(*k, key))
			k++;
		if (!*k)
			unknown_key(c, key, keys);
	}
	return !c->err;
}

static json_t *member(struct fleet_cursor *c, const json_t *o, const char *key,
		      json_type type, const char *want, bool required)
{
	json_t *v = c->err ? NULL : json_object_get(o, key);
	if (!v) {
		if (required)
			fleet_fail(c, SP_E_CONFIG, key, "missing; want %s", want);
		return NULL;
	}
	if (json_typeof(v) == type)
		return v;
	fleet_fail(c, SP_E_CONFIG, key, "found %s; want %s", fleet_type_word(v), want);
	return NULL;
}

uint64_t fleet_get_uint(struct fleet_cursor *c, const json_t *o, const char *key,
			uint64_t max, bool required)
{
	json_t *v = member(c, o, key, JSON_INTEGER, "an integer", required);
	json_int_t i = v ? json_integer_value(v) : 0;
	if (i < 0 || (uint64_t)i > max) {
		fleet_fail(c, SP_E_CONFIG, key, "found %lld; want 0 to %llu",
			   (long long)i, (unsigned long long)max);
		return 0;
	}
	return (uint64_t)i;
}

bool fleet_is_plain(const char *s)
{
	while (*s >= 0x20 && *s < 0x7f)
		s++;
	return !*s;
}

const char *fleet_get_text(struct fleet_cursor *c, const json_t *o, const char *key,
			   size_t max, bool required)
{
	json_t *v = member(c, o, key, JSON_STRING, "a text", required);
	if (!v)
		return "";
	const char *s = json_string_value(v);
	size_t len = json_string_length(v);
	bool plain = fleet_is_plain(s);
	if (plain && len <= max && len)
		return s;
	if (plain)
		fleet_fail(c, SP_E_CONFIG, key, "found %zu bytes; want 1 to %zu", len,
			   max);
	else
		fleet_fail(c, SP_E_CONFIG, key,
			   "found bytes that are not printable "
			   "ASCII; want none");
	return "";
}

void fleet_get_name(struct fleet_cursor *c, const json_t *o, const char *key,
		    bool required, char *ret)
{
	const char *s = fleet_get_text(c, o, key, SP_FLEET_NAME_MAX, required);
	if (*s && !sp_fleet_name_is_valid(s))
		fleet_fail(c, SP_E_CONFIG, key,
			   "found \"%s\"; want letters, digits, '.', '_' and '-'", s);
	strcpy(ret, s);
}

static json_t *sized(struct fleet_cursor *c, json_t *v, const char *key, size_t n,
		     size_t min, size_t max)
{
	if (v && (n < min || n > max)) {
		fleet_fail(c, n > max ? SP_E_LIMIT : SP_E_CONFIG, key,
			   "found %zu entries; want %zu to %zu", n, min, max);
		return NULL;
	}
	return v;
}

json_t *fleet_get_object(struct fleet_cursor *c, const json_t *o, const char *key,
			 size_t min, size_t max, bool required)
{
	json_t *v = member(c, o, key, JSON_OBJECT, "an object", required);
	return sized(c, v, key, json_object_size(v), min, max);
}

json_t *fleet_get_list(struct fleet_cursor *c, const json_t *o, const char *key,
		       size_t min, size_t max, bool required)
{
	json_t *v = member(c, o, key, JSON_ARRAY, "a list", required);
	return sized(c, v, key, json_array_size(v), min, max);
}

json_t *fleet_load(struct fleet_cursor *c, const void *text, size_t len,
		   const char *const *keys)
{
	return fleet_load_within(c, text, len, SP_SIGNED_BODY_MAX, keys);
}

json_t *fleet_load_within(struct fleet_cursor *c, const void *text, size_t len,
			  size_t max, const char *const *keys)
{
	json_error_t e;
	if (len > max) {
		fleet_fail(c, SP_E_LIMIT, NULL, "found %zu bytes; want at most %zu", len,
			   max);
		return NULL;
	}
	json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
	if (!o) {
		fleet_fail(c, SP_E_CONFIG, NULL, "line %d, column %d: %s", e.line,
			   e.column, e.text);
		return NULL;
	}
	// The format first: what a later one may hold is not ours to judge.
	if (json_is_object(o)) {
		uint64_t format = fleet_get_uint(c, o, "format", INT64_MAX, true);
		if (format != SP_FLEET_FORMAT)
			fleet_fail(c, SP_E_VERSION, "format",
				   "found %llu; this program reads %d",
				   (unsigned long long)format, SP_FLEET_FORMAT);
	}
	if (!c->err && fleet_check_keys(c, o, keys))
		return o;
	json_decref(o);
	return NULL;
}

void fleet_get_head(struct fleet_cursor *c, const json_t *o,
		    struct sp_fleet_revision *revision, uint64_t *issued_s,
		    uint64_t *expires_s)
{
	static const char *const keys[] = {"epoch", "sequence", NULL};
	json_t *v = fleet_get_object(c, o, "revision", 0, SIZE_MAX, true);
	if (v) {
		size_t mark = fleet_enter(c, "revision");
		if (fleet_check_keys(c, v, keys)) {
			revision->epoch =
				(uint32_t)fleet_get_uint(c, v, "epoch", UINT32_MAX, true);
			revision->sequence =
				fleet_get_uint(c, v, "sequence", INT64_MAX, true);
		}
		fleet_leave(c, mark);
	}
	*issued_s = fleet_get_uint(c, o, "issued", INT64_MAX, false);
	*expires_s = fleet_get_uint(c, o, "expires", INT64_MAX, false);
	if (*expires_s && *expires_s <= *issued_s)
		fleet_fail(c, SP_E_CONFIG, "expires",
			   "found %llu; want a time later than issued, or no such key",
			   (unsigned long long)*expires_s);
}

void *fleet_alloc(struct fleet_cursor *c, size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);
	if (!p)
		fleet_fail(c, -ENOMEM, NULL, "out of memory");
	return p;
}
