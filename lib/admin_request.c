#include "lib/admin_request.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

struct span {
	const char *p;
	size_t len;
};

static bool is(struct span s, const char *word)
{
	return s.len == strlen(word) && memcmp(s.p, word, s.len) == 0;
}

// Cuts off what stands before `sep`, or all of it; *rest becomes what follows.
static struct span cut(struct span *rest, char sep)
{
	const char *at = rest->len ? memchr(rest->p, sep, rest->len) : NULL;
	struct span head = {rest->p, at ? (size_t)(at - rest->p) : rest->len};
	size_t used = head.len + (at ? 1 : 0);
	rest->p += used;
	rest->len -= used;
	return head;
}

// A line without its CRLF (a lone LF will do: RFC 9112 section 2.2).
static struct span cut_line(struct span *rest)
{
	struct span line = cut(rest, '\n');
	if (line.len && line.p[line.len - 1] == '\r')
		line.len--;
	return line;
}

static struct span trim(struct span s)
{
	while (s.len && (*s.p == ' ' || *s.p == '\t'))
		s.p++, s.len--;
	while (s.len && (s.p[s.len - 1] == ' ' || s.p[s.len - 1] == '\t'))
		s.len--;
	return s;
}

static bool is_token(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.p[i] <= ' ' || s.p[i] >= 0x7f ||
		    strchr("\"(),/:;<=>?@[\\]{}", s.p[i]))
			return false;
	return s.len > 0;
}

static bool is_visible(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.p[i] <= ' ' || s.p[i] >= 0x7f)
			return false;
	return s.len > 0;
}

static bool has_verbose(struct span query)
{
	while (query.len) {
		struct span param = cut(&query, '&');
		if (is(cut(&param, '='), "verbose"))
			return true;
	}
	return false;
}

static int parse_request_line(struct span line, struct sp_admin_request *r)
{
	struct span method = cut(&line, ' '), target = cut(&line, ' ');

	if (!is_token(method) || !is_visible(target) || line.len < 5 ||
	    memcmp(line.p, "HTTP/", 5))
		return 400;
	if (line.len != 8 || memcmp(line.p, "HTTP/1.", 7) || line.p[7] < '0' ||
	    line.p[7] > '9')
		return 505;
	r->is_get = is(method, "GET");
	r->is_head = is(method, "HEAD");
	struct span path = cut(&target, '?');
	r->verbose = has_verbose(target);
	snprintf(r->path, sizeof(r->path), "%.*s", (int)path.len, path.p);
	return 0;
}

static int parse_field(struct span line, struct sp_admin_request *r)
{
	struct span name = cut(&line, ':'), value = trim(line);
	size_t used = strlen(r->accept);

	if (!is_token(name) || (value.len && memchr(value.p, '\0', value.len)))
		return 400;
	if (name.len == 6 && strncasecmp(name.p, "accept", 6) == 0)
		snprintf(r->accept + used, sizeof(r->accept) - used, "%s%.*s",
			 used ? "," : "", (int)value.len, value.p);
	return 0;
}

int sp_admin_request_parse(const char *text, size_t len, struct sp_admin_request *ret)
{
	struct sp_admin_request r = {0};
	struct span rest = {len ? text : "", len};
	int status = parse_request_line(cut_line(&rest), &r);

	while (status == 0 && rest.len)
		status = parse_field(cut_line(&rest), &r);
	if (status == 0)
		*ret = r;
	return status;
}
