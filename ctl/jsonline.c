#include "ctl/jsonline.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define DEPTH_MAX 16 // of configs; what is deeper is looked at no more

struct walk {
	const char *at, *end;
	size_t line;
	const char *want; // not yet matched is what follows `matched`
	size_t want_len;
	size_t matched;
	size_t found; // line of the innermost member that is on the way
};

static void value(struct walk *w, size_t matched, unsigned depth);

static int next(struct walk *w)
{
	for (; w->at < w->end && strchr(" \t\r\n,:", *w->at); w->at++)
		w->line += *w->at == '\n';
	return w->at < w->end ? *w->at : -1;
}

// Past a string; its bytes, escapes as they stand.
static const char *string(struct walk *w, size_t *ret_len)
{
	const char *from = ++w->at;
	while (w->at < w->end && *w->at != '"')
		w->at += *w->at == '\\' ? 2 : 1;
	if (w->at > w->end)
		w->at = w->end;
	*ret_len = (size_t)(w->at - from);
	if (w->at < w->end)
		w->at++;
	return from;
}

// How much of the wanted path is matched with `step` behind `matched` bytes of it; 0: the
// step leads elsewhere. A member of the top level has no dot before it.
static size_t follow(const struct walk *w, size_t matched, const char *step, size_t len)
{
	const char *rest = w->want + matched;
	size_t left = w->want_len - matched;

	if (matched && *step != '[') {
		if (!left || *rest != '.')
			return 0;
		rest++;
		left--;
	}
	if (len > left || memcmp(rest, step, len) != 0 ||
	    (len < left && rest[len] != '.' && rest[len] != '['))
		return 0;
	return (size_t)(rest - w->want) + len;
}

// A value behind a step; `on`: what holds it is on the way.
static void member(struct walk *w, size_t matched, bool on, const char *step, size_t len,
		   unsigned depth)
{
	size_t now = on && len ? follow(w, matched, step, len) : 0;
	if (now > w->matched) {
		w->matched = now;
		w->found = w->line;
	}
	value(w, now, depth + 1);
}

// The value under inspection; what holds it is matched up to `matched`, 0 (but for the
// whole text) if it is not on the way.
static void value(struct walk *w, size_t matched, unsigned depth)
{
	bool on = matched || !depth, object;
	char index[32];
	size_t len;
	int c = next(w);

	if (c == '"') {
		string(w, &len);
	} else if ((c == '{' || c == '[') && depth < DEPTH_MAX) {
		object = c == '{';
		w->at++;
		for (size_t i = 0; (c = next(w)) != '}' && c != ']' && c >= 0; i++) {
			const char *step = index;
			len = (size_t)snprintf(index, sizeof(index), "[%zu]", i);
			if (object && c != '"')
				break;
			if (object)
				step = string(w, &len);
			member(w, matched, on, step, len, depth);
		}
		w->at += w->at < w->end;
	} else if (c == '{' || c == '[') {
		w->at = w->end;
	} else {
		w->at += w->at < w->end;
		while (w->at < w->end && !strchr(" \t\r\n,]}", *w->at))
			w->at++;
	}
}

size_t ctl_json_line(const char *text, size_t len, const char *path)
{
	struct walk w = {.at = text, .end = text + len, .line = 1, .want = path};

	w.want_len = strcspn(path, ":");
	next(&w);
	w.found = w.line;
	value(&w, 0, 0);
	return w.found;
}
