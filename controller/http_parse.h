// The head of an HTTP/1.x request (RFC 9112), strictly: what two parsers could read in
// two ways is refused. Pure, in place. Not here: connections (http.h), what paths mean.
#ifndef CON_HTTP_PARSE_H
#define CON_HTTP_PARSE_H

#include <stdbool.h>
#include <stddef.h>

#define CON_HTTP_FIELDS_MAX 64 // header lines; more: 431

enum con_http_method { CON_HTTP_GET, CON_HTTP_HEAD, CON_HTTP_OTHER };

struct con_http_field {
	const char *name; // in lower case
	const char *value;
};
struct con_http_head { // texts point into what was parsed
	enum con_http_method method;
	const char *path;  // of the target, without the query; as it came, not decoded
	const char *query; // "": none
	bool close;        // the client wants the connection to end, or is HTTP/1.0
	bool has_body;     // one follows, or something that cannot be told from one
	unsigned n_fields;
	struct con_http_field field[CON_HTTP_FIELDS_MAX];
};

// `text` of `len` bytes, up to and without the empty line that ends the head, and one
// writable byte behind it: is cut into texts. 0 and *ret; or the status to refuse it
// with: 400, 431, 505.
int con_http_parse(char *text, size_t len, struct con_http_head *ret);
// The value of a header, by its name in lower case. NULL: it is not there, or more than
// once.
const char *con_http_field(const struct con_http_head *h, const char *name);
// The value of a parameter of the query, to `buf`, as it came. False: not there, or
// longer than cap - 1.
bool con_http_parameter(const struct con_http_head *h, const char *name, char *buf,
			size_t cap);

#endif
