#include "controller/http_parse.h"

#include <string.h>
#include <strings.h>

// RFC 9110 section 5.6.2.
static bool is_token(const char *s, size_t len)
{
	static const char others[] = "!#$%&'*+-.^_`|~";
	for (size_t i = 0; i < len; i++) {
		char c = s[i];
		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
		      (c >= 'A' && c <= 'Z') || (c && strchr(others, c))))
			return false;
	}
	return len > 0;
}

static bool is_value(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f)
			return false;
	return true;
}

static void lower(char *s)
{
	for (; *s; s++)
		if (*s >= 'A' && *s <= 'Z')
			*s = (char)(*s - 'A' + 'a');
}

// One line without its CRLF, made a text; NULL: a CR or LF stands alone in it. *rest
// moves behind it.
static char *cut_line(char **rest, char *end)
{
	char *line = *rest;
	size_t left = (size_t)(end - line);
	char *lf = memchr(line, '\n', left);
	char *stop = lf ? lf - 1 : end;
	if (lf && (lf == line || *stop != '\r'))
		return NULL;
	if (memchr(line, '\r', (size_t)(stop - line)) ||
	    memchr(line, '\0', (size_t)(stop - line)))
		return NULL;
	*rest = lf ? lf + 1 : end;
	*stop = '\0';
	return line;
}

// "METHOD SP target SP HTTP/1.x".
static int parse_request_line(char *line, struct con_http_head *ret)
{
	char *target = strchr(line, ' ');
	char *version = target ? strchr(target + 1, ' ') : NULL;
	if (!version || !is_token(line, (size_t)(target - line)))
		return 400;
	*target++ = *version++ = '\0';
	if (strncmp(version, "HTTP/", 5) != 0 || strlen(version) != 8 ||
	    version[6] != '.' || version[5] < '0' || version[5] > '9' ||
	    version[7] < '0' || version[7] > '9')
		return 400;
	if (version[5] != '1')
		return 505;
	for (const char *p = target; *p; p++)
		if (*p <= 0x20 || *p >= 0x7f) // char is signed or not: both are refused
			return 400;
	if (!*target)
		return 400;
	ret->close = version[7] == '0';
	ret->method = strcmp(line, "GET") == 0    ? CON_HTTP_GET
		      : strcmp(line, "HEAD") == 0 ? CON_HTTP_HEAD
						  : CON_HTTP_OTHER;
	char *query = strchr(target, '?');
	if (query)
		*query++ = '\0';
	ret->path = target;
	ret->query = query ? query : "";
	return 0;
}

static int parse_field(char *line, struct con_http_head *ret)
{
	char *colon = strchr(line, ':'), *value;
	if (!colon || !is_token(line, (size_t)(colon - line)))
		return 400; // also a folded line, which begins with white space
	if (ret->n_fields == CON_HTTP_FIELDS_MAX)
		return 431;
	*colon = '\0';
	value = colon + 1 + strspn(colon + 1, " \t");
	size_t len = strlen(value);
	while (len && (value[len - 1] == ' ' || value[len - 1] == '\t'))
		value[--len] = '\0';
	if (!is_value(value, len))
		return 400;
	lower(line);
	ret->field[ret->n_fields++] = (struct con_http_field){line, value};
	return 0;
}

// Whether a comma-separated list has the word.
static bool list_has(const char *list, const char *word)
{
	size_t len = strlen(word);
	while (*list) {
		list += strspn(list, " \t,");
		size_t n = strcspn(list, ",");
		size_t bare = n;
		while (bare && (list[bare - 1] == ' ' || list[bare - 1] == '\t'))
			bare--;
		if (bare == len && strncasecmp(list, word, len) == 0)
			return true;
		list += n;
	}
	return false;
}

static int look_at_fields(struct con_http_head *h, bool old)
{
	unsigned hosts = 0;
	for (unsigned i = 0; i < h->n_fields; i++) {
		const struct con_http_field *f = &h->field[i];
		if (strcmp(f->name, "host") == 0) {
			hosts++;
		} else if (strcmp(f->name, "connection") == 0) {
			h->close |= list_has(f->value, "close");
		} else if (strcmp(f->name, "transfer-encoding") == 0) {
			h->has_body = true;
		} else if (strcmp(f->name, "content-length") == 0) {
			if (!*f->value || f->value[strspn(f->value, "0123456789")])
				return 400;
			h->has_body |= strspn(f->value, "0") != strlen(f->value);
		}
	}
	return hosts == 1 || (old && hosts == 0) ? 0 : 400; // RFC 9112 section 3.2
}

int con_http_parse(char *text, size_t len, struct con_http_head *ret)
{
	struct con_http_head h = {.n_fields = 0};
	char *rest = text, *end = text + len;
	*end = '\0';
	char *line = cut_line(&rest, end);
	int status = line ? parse_request_line(line, &h) : 400;
	bool old = h.close;
	while (!status && rest < end)
		status = (line = cut_line(&rest, end)) ? parse_field(line, &h) : 400;
	if (!status)
		status = look_at_fields(&h, old);
	if (!status)
		*ret = h;
	return status;
}

const char *con_http_field(const struct con_http_head *h, const char *name)
{
	const char *found = NULL;
	for (unsigned i = 0; i < h->n_fields; i++) {
		if (strcmp(h->field[i].name, name) != 0)
			continue;
		if (found)
			return NULL;
		found = h->field[i].value;
	}
	return found;
}

bool con_http_parameter(const struct con_http_head *h, const char *name, char *buf,
			size_t cap)
{
	size_t len = strlen(name);
	for (const char *p = h->query; *p;) {
		size_t n = strcspn(p, "&");
		if (n > len && p[len] == '=' && strncmp(p, name, len) == 0) {
			if (n - len - 1 >= cap)
				return false;
			memcpy(buf, p + len + 1, n - len - 1);
			buf[n - len - 1] = '\0';
			return true;
		}
		p += n + (p[n] == '&');
	}
	return false;
}
