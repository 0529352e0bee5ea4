// HTTP by libcurl in our event loop: GET with TLS verified, over a connection of its own
// or by way of a Unix socket, such as a stream through a worker (lib/probe.h). Never
// follows redirects, never uses a proxy, keeps no connection. Not here: what is asked and
// what follows.
#ifndef SP_FETCH_H
#define SP_FETCH_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "lib/loop.h"

#define SP_FETCH_HEADERS_MAX 16384 // bytes of the answer's head; more: it fails

struct sp_fetch_env; // one for a loop
// 0 and *ret; -ENOMEM.
int sp_fetch_env_new(struct sp_loop *loop, struct sp_fetch_env **ret) SP_MUST_CHECK;
// Cancels what is under way. NULL is fine.
void sp_fetch_env_free(struct sp_fetch_env *env);

struct sp_fetch_result { // valid during the call
	int err; // 0: an answer came, whatever its status; -ETIMEDOUT; SP_E_AUTH: the
		 // certificate; SP_E_LIMIT: too long; -ECONNREFUSED, -ENOENT (name),
		 // -EIO and others
	char detail[256]; // in words, if err
	unsigned status;
	const char *body; // a NUL behind it; NULL if err
	size_t len;
	const char *head; // header lines as they came, a NUL behind; for sp_fetch_header
	uint64_t took_us;
};
// The value of a header of the answer, to `buf`, cut if need be. False: there is none.
bool sp_fetch_header(const struct sp_fetch_result *res, const char *name, char *buf,
		     size_t cap);

struct sp_fetch;
struct sp_fetch_options {
	const char *url;       // http or https
	const char *by_way_of; // name of an abstract Unix socket; NULL: the URL's host
	const char *const *headers; // "Name: value", NULL ends it; may be NULL
	const char *ca_file;        // PEM; NULL: the system's authorities
	const char *user_agent;     // NULL: none is sent
	uint32_t timeout_ms;        // of all
	size_t max_bytes;           // of the body; more: SP_E_LIMIT
	void (*done)(void *ctx, const struct sp_fetch_result *res); // once, from the loop
	void *ctx;
};
// 0 and *ret, gone once `done` was called; SP_E_MALFORMED: the URL; -ENOMEM.
int sp_fetch_start(struct sp_fetch_env *env, const struct sp_fetch_options *opt,
		   struct sp_fetch **ret) SP_MUST_CHECK;
// `done` will not be called. NULL is fine.
void sp_fetch_cancel(struct sp_fetch *f);

#endif
