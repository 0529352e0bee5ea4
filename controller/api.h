// The operator API: HTTP and JSON on a unix socket. Here: connections, routes, bodies,
// errors (problem+json, RFC 9457). Who may connect may do anything: the socket's mode and
// group are the authentication. Not here: what the routes do (api_*.c and other roles,
// which register theirs).
//
// A handler answers each call exactly once, at once or later, also if whoever asked has
// gone; when the API ends, calls that wait are cut and their answers go nowhere.
#ifndef CON_API_H
#define CON_API_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "lib/loop.h"

#define CON_API_BODY_MAX   (17u << 20)
#define CON_API_HEAD_MAX   16384
#define CON_API_TIMEOUT_S  60  // of a silent connection
#define CON_API_CALLS_MAX  256 // that wait for their answer; a further one is refused
#define CON_API_PATH_MAX   512 // bytes, decoded
#define CON_API_AUTHOR_MAX 64

struct con_api;
struct con_api_call;

struct con_api_route {
	const char *method; // "GET", "POST", "PUT", "DELETE"
	const char *path;   // "/v1/nodes"; "/v1/leases/*": something stands for the star
	void (*run)(void *ctx, struct con_api_call *call);
};

struct con_api_counters {
	uint64_t calls, failed; // failed: answered by a problem
};

// Listens at `path`; a socket that nobody answers on is replaced. `group`: may use it;
// NULL: the own user. 0 and *ret; -EADDRINUSE: somebody answers there; -errno, -ENOENT:
// no such group; `why` says it.
int con_api_new(struct sp_loop *loop, const char *path, const char *group,
		struct con_api **ret, char *why, size_t cap) SP_MUST_CHECK;
void con_api_free(struct con_api *api); // NULL is fine
// `routes` (static) end with method NULL. 0; -ENOMEM.
int con_api_add(struct con_api *api, const struct con_api_route *routes,
		void *ctx) SP_MUST_CHECK;
// Further members of what is listed: `kind` is "node" ("NAME/N"), "lease" (of a node),
// "user" or "status" (""). 0; -ENOMEM.
int con_api_add_detail(struct con_api *api, const char *kind,
		       void (*fill)(void *ctx, const char *name, json_t *into),
		       void *ctx) SP_MUST_CHECK;
void con_api_fill(struct con_api *api, const char *kind, const char *name, json_t *into);
const struct con_api_counters *con_api_counters(const struct con_api *api);

// ---- a call ----

const char *con_api_tail(const struct con_api_call *call);   // what the star stands for
const char *con_api_author(const struct con_api_call *call); // the user at the socket
const char *con_api_query(const struct con_api_call *call, const char *name); // or NULL
bool con_api_flag(const struct con_api_call *call, const char *name); // =1, =true, empty
// 0 to max; def if it is not there. False: not a number, and it was answered.
bool con_api_number(struct con_api_call *call, const char *name, uint64_t def,
		    uint64_t max, uint64_t *ret);
const char *con_api_text(const struct con_api_call *call, size_t *ret_len); // the body
// The body, an object; borrowed. NULL: it is none, and it was answered.
json_t *con_api_object(struct con_api_call *call);
// A text member. NULL: none. `required`: then it was answered.
const char *con_api_member(struct con_api_call *call, const char *name, bool required);

// Both end the call. `body` is taken; NULL: no memory.
void con_api_answer(struct con_api_call *call, int status, json_t *body);
// `code`: a word for programs, such as "no-such-node".
void con_api_problem(struct con_api_call *call, int status, const char *code,
		     const char *fmt, ...) __attribute__((format(printf, 4, 5)));
// What an error of the house means over HTTP.
void con_api_error(struct con_api_call *call, int err, const char *why);

#endif
