// The head of an HTTP/1.x request, as much of it as the private listener needs: method,
// path, query, Accept (RFC 9112). Pure. Used by lib/admin.c alone.
#ifndef SP_ADMIN_REQUEST_H
#define SP_ADMIN_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

struct sp_admin_request {
	bool is_get, is_head; // neither: another method
	bool verbose;         // "verbose" is among the query's parameters
	char path[64];    // without the query; a longer one is cut, so it fits nothing
	char accept[512]; // all Accept fields joined by commas; cut; "": none
};

// `text`: the head, up to and without the empty line that ends it. 0 and *ret; or the
// status to refuse it with: 400 malformed, 505 not HTTP/1.x.
int sp_admin_request_parse(const char *text, size_t len, struct sp_admin_request *ret);

#endif
