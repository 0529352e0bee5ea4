#include "client/httpconnect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum phase { PHASE_REQUEST_LINE, PHASE_HEADERS, PHASE_DONE };

void cli_http_init(struct cli_http *p)
{
	*p = (struct cli_http){.phase = PHASE_REQUEST_LINE};
}

static enum cli_http_event refuse(struct cli_http *p, unsigned status)
{
	p->phase = PHASE_DONE;
	p->status = (uint16_t)status;
	return CLI_HTTP_REFUSE;
}

static bool is_token(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c >= '0' && c <= '9') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

// Methods that exist, to tell 405 from 501 (RFC 9110 section 15.6.2).
static bool is_known_method(const char *s, size_t len)
{
	static const char *const known[] = {"GET",    "HEAD",    "POST",  "PUT",
					    "DELETE", "OPTIONS", "TRACE", "PATCH"};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strlen(known[i]) == len && memcmp(known[i], s, len) == 0)
			return true;
	return false;
}

// "host:port", the port neither missing nor 0 (RFC 9112 section 3.2.3).
static bool read_authority(const char *text, struct sp_target *ret)
{
	return sp_target_parse(text, ret) == 0 && ret->port != 0;
}

// method SP request-target SP HTTP-version
static enum cli_http_event request_line(struct cli_http *p)
{
	char *line = p->line;
	size_t method = 0;
	while (is_token(line[method]))
		method++;
	if (method == 0 || line[method] != ' ')
		return refuse(p, 400);
	if (method != 7 || memcmp(line, "CONNECT", 7) != 0)
		return refuse(p, is_known_method(line, method) ? 405 : 501);
	if (p->overlong)
		return refuse(p, 414);
	char *authority = line + method + 1;
	char *version = strchr(authority, ' ');
	if (!version || strchr(version + 1, ' '))
		return refuse(p, 400);
	*version++ = '\0';
	if (strncmp(version, "HTTP/", 5) != 0)
		return refuse(p, 400);
	if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)
		return refuse(p, 505);
	if (!read_authority(authority, &p->target))
		return refuse(p, 400);
	p->phase = PHASE_HEADERS;
	return CLI_HTTP_MORE;
}

static bool header_is(const char *line, size_t name_len, const char *name)
{
	return strlen(name) == name_len && strncasecmp(line, name, name_len) == 0;
}

// One header field. A body in front of the tunnel's bytes would be read by one side as
// the one and by the other as the other: refused.
static enum cli_http_event header_line(struct cli_http *p)
{
	size_t n = 0;
	if (++p->headers > CLI_HTTP_HEADERS)
		return refuse(p, 431);
	while (is_token(p->line[n]))
		n++;
	if (n == 0 || (p->line[n] != ':' && !p->overlong))
		return refuse(p, 400); // also a folded line and a space before the colon
	if (header_is(p->line, n, "transfer-encoding"))
		return refuse(p, 400);
	const char *value = p->line + n + (p->line[n] == ':');
	if (header_is(p->line, n, "content-length")) {
		value += strspn(value, " \t");
		size_t zeros = strspn(value, "0");
		if (!zeros || value[zeros + strspn(value + zeros, " \t")])
			return refuse(p, 400);
	}
	return CLI_HTTP_MORE;
}

static enum cli_http_event line_end(struct cli_http *p)
{
	enum cli_http_event event;
	p->line[p->line_len] = '\0';
	if (p->line_len == 0) {
		if (p->phase == PHASE_REQUEST_LINE)
			return CLI_HTTP_MORE; // RFC 9112 section 2.2
		p->phase = PHASE_DONE;
		return CLI_HTTP_REQUEST;
	}
	event = p->phase == PHASE_REQUEST_LINE ? request_line(p) : header_line(p);
	p->line_len = 0;
	p->overlong = false;
	return event;
}

static enum cli_http_event one_byte(struct cli_http *p, char c)
{
	if (++p->total > CLI_HTTP_HEAD_MAX)
		return refuse(p, 431);
	if (c == '\n') {
		p->cr = false;
		return line_end(p);
	}
	if (p->cr || ((unsigned char)c < 0x20 && c != '\t' && c != '\r') || c == 0x7f)
		return refuse(p, 400);
	if (c == '\r')
		p->cr = true;
	else if (p->line_len < sizeof(p->line) - 1)
		p->line[p->line_len++] = c;
	else
		p->overlong = true;
	return CLI_HTTP_MORE;
}

size_t cli_http_feed(struct cli_http *p, const char *buf, size_t len,
		     enum cli_http_event *ret_event)
{
	size_t used = 0;
	*ret_event = CLI_HTTP_MORE;
	while (used < len && *ret_event == CLI_HTTP_MORE && p->phase != PHASE_DONE)
		*ret_event = one_byte(p, buf[used++]);
	return used;
}

// ---- answers ----

static const char *phrase(unsigned status)
{
	switch (status) {
	case 400:
		return "Bad Request";
	case 403:
		return "Forbidden";
	case 405:
		return "Method Not Allowed";
	case 414:
		return "URI Too Long";
	case 431:
		return "Request Header Fields Too Large";
	case 501:
		return "Not Implemented";
	case 502:
		return "Bad Gateway";
	case 503:
		return "Service Unavailable";
	case 504:
		return "Gateway Timeout";
	case 505:
		return "HTTP Version Not Supported";
	default:
		return "Error";
	}
}

size_t cli_http_ok(char *buf)
{
	static const char ok[] = "HTTP/1.1 200 Connection established\r\n\r\n";
	memcpy(buf, ok, sizeof(ok) - 1);
	return sizeof(ok) - 1;
}

static size_t answer(unsigned status, const char *fields, const char *word,
		     const char *text, char *buf)
{
	char body[160];
	int n = snprintf(body, sizeof(body), "%s: %s\n", word, text);
	n = snprintf(buf, CLI_HTTP_ANSWER_MAX,
		     "HTTP/1.1 %u %s\r\n%sContent-Type: text/plain\r\n"
		     "Content-Length: %d\r\nConnection: close\r\n\r\n%s",
		     status, phrase(status), fields, n, body);
	return (size_t)n;
}

size_t cli_http_bad(unsigned status, char *buf)
{
	if (status == 405)
		return answer(status, "Allow: CONNECT\r\n", "method",
			      "this proxy makes tunnels only: use CONNECT", buf);
	if (status == 501)
		return answer(status, "", "method",
			      "this proxy makes tunnels only: use CONNECT", buf);
	return answer(status, "", "request", phrase(status), buf);
}

unsigned cli_http_status(enum sp_reason reason)
{
	switch ((int)reason) {
	case SP_REASON_POLICY:
	case SP_REASON_PASS_EXPIRED:
	case SP_REASON_PASS_EARLY:
	case SP_REASON_PASS_INVALID:
	case SP_REASON_REVOKED:
	case SP_REASON_QUOTA:
	case SP_REASON_GROUP:
		return 403;
	case SP_REASON_TIMEOUT:
	case SP_REASON_RESOLVE_TIMEOUT:
		return 504;
	case SP_REASON_SHUTDOWN:
	case SP_REASON_NO_MEMORY:
	case SP_REASON_NO_DESCRIPTORS:
	case SP_REASON_BUSY:
	case SP_REASON_STREAM_LIMIT:
	case SP_REASON_RATE_LIMIT:
		return 503;
	default:
		return 502;
	}
}

// The error types of RFC 9209 section 2.3.
static const char *proxy_error(enum sp_reason reason)
{
	switch ((int)reason) {
	case SP_REASON_RESOLVE_FAILED:
	case SP_REASON_NO_ADDRESS:
		return "dns_error";
	case SP_REASON_RESOLVE_TIMEOUT:
		return "dns_timeout";
	case SP_REASON_POLICY:
		return "destination_ip_prohibited";
	case SP_REASON_REFUSED:
		return "connection_refused";
	case SP_REASON_UNREACHABLE:
		return "destination_ip_unroutable";
	case SP_REASON_TIMEOUT:
		return "connection_timeout";
	case SP_REASON_PEER_RESET:
		return "connection_terminated";
	case SP_REASON_STREAM_LIMIT:
	case SP_REASON_RATE_LIMIT:
	case SP_REASON_BUSY:
		return "connection_limit_reached";
	default:
		return "proxy_internal_error";
	}
}

size_t cli_http_failed(enum sp_reason reason, char *buf)
{
	char fields[96];
	snprintf(fields, sizeof(fields), "Proxy-Status: sallyport; error=%s\r\n",
		 proxy_error(reason));
	return answer(cli_http_status(reason), fields, sp_reason_word(reason),
		      sp_reason_text(reason), buf);
}
