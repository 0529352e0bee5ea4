// HTTP CONNECT (RFC 9110 section 9.3.6), the proxy's side: reads a request's head and
// writes the answers. Pure: no I/O, no clock, no malloc. Not here: other methods, which
// are refused (this proxy makes tunnels only).
#ifndef CLI_HTTPCONNECT_H
#define CLI_HTTPCONNECT_H

#include "lib/addr.h"
#include "lib/reason.h"

#define CLI_HTTP_HEAD_MAX   16384 // whole head; beyond: 431
#define CLI_HTTP_LINE_MAX   512   // request line of a CONNECT; beyond: 414
#define CLI_HTTP_HEADERS    100   // header fields; beyond: 431
#define CLI_HTTP_ANSWER_MAX 512

enum cli_http_event {
	CLI_HTTP_MORE,    // everything was read, more is needed
	CLI_HTTP_REQUEST, // a CONNECT; `target` holds
	CLI_HTTP_REFUSE,  // answer with `status` and close
};

struct cli_http {
	uint8_t phase;
	bool cr;           // the last byte was a CR
	bool overlong;     // the line did not fit in `line`
	bool connect;      // the request line was a CONNECT's
	uint16_t status;   // of a REFUSE
	uint16_t line_len; // bytes of the current line kept
	uint16_t headers;  // header fields so far
	uint32_t total;    // bytes of the head so far
	struct sp_target target;
	char line[CLI_HTTP_LINE_MAX];
};

void cli_http_init(struct cli_http *p);
// Reads from `buf` up to the next event, in any split of the stream. Returns how many
// bytes it used: all of them for MORE, none beyond the head otherwise.
size_t cli_http_feed(struct cli_http *p, const char *buf, size_t len,
		     enum cli_http_event *ret_event);

// The answer that the tunnel stands, to `buf` of CLI_HTTP_ANSWER_MAX. Its length.
size_t cli_http_ok(char *buf);
// An answer for a head that was refused with `status` (400, 405, 414, 431, 501, 505).
size_t cli_http_bad(unsigned status, char *buf);
// An answer for a tunnel that failed: 403, 502, 503 or 504, with Proxy-Status (RFC 9209)
// and a body that names the reason.
size_t cli_http_failed(enum sp_reason reason, char *buf);
unsigned cli_http_status(enum sp_reason reason);

#endif
