#include "controller/api.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>

#include "lib/log.h"

#define ROUTES_MAX  32 // tables
#define DETAILS_MAX 16
#define BACKLOG     64

struct con_api_call {
	LIST_ENTRY(con_api_call) chain;
	struct con_api *api;        // NULL: it has ended
	struct evhttp_request *req; // NULL: the connection has ended
	char path[CON_API_PATH_MAX];
	const char *tail;
	char author[CON_API_AUTHOR_MAX];
	struct evkeyvalq query;
	json_t *object;
};

struct con_api {
	struct sp_loop *loop;
	struct evhttp *http;
	char *path;
	ino_t inode; // of the socket: one that another put there is not removed
	struct {
		const struct con_api_route *routes;
		void *ctx;
	} tables[ROUTES_MAX];
	struct {
		const char *kind;
		void (*fill)(void *ctx, const char *name, json_t *into);
		void *ctx;
	} details[DETAILS_MAX];
	unsigned n_tables, n_details, n_calls;
	LIST_HEAD(, con_api_call) calls;
	struct con_api_counters counters;
};

// ---- answers ----

// The connection goes while its call waits, and the request with it.
static void on_closed(struct evhttp_connection *conn, void *arg)
{
	struct con_api_call *call = arg;
	(void)conn;
	call->req = NULL;
}

static void end_call(struct con_api_call *call)
{
	if (call->api) {
		LIST_REMOVE(call, chain);
		call->api->n_calls--;
	}
	evhttp_clear_headers(&call->query);
	json_decref(call->object);
	free(call);
}

static void send_json(struct con_api_call *call, int status, const char *type,
		      const json_t *body)
{
	struct evkeyvalq *head = evhttp_request_get_output_headers(call->req);
	struct evbuffer *out = evhttp_request_get_output_buffer(call->req);
	char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	if (!text || evhttp_add_header(head, "Content-Type", type) ||
	    evhttp_add_header(head, "Cache-Control", "no-store") ||
	    evbuffer_add_printf(out, "%s\n", text) < 0)
		status = HTTP_INTERNAL;
	free(text);
	evhttp_connection_set_closecb(evhttp_request_get_connection(call->req), NULL,
				      NULL);
	evhttp_send_reply(call->req, status, NULL, NULL);
}

void con_api_answer(struct con_api_call *call, int status, json_t *body)
{
	if (call->req)
		send_json(call, status, "application/json", body);
	json_decref(body);
	end_call(call);
}

static const char *title(int status)
{
	switch (status) {
	case 400:
		return "Bad Request";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 409:
		return "Conflict";
	case 410:
		return "Gone";
	case 422:
		return "Unprocessable Content";
	case 503:
		return "Service Unavailable";
	case 507:
		return "Insufficient Storage";
	default:
		return "Internal Server Error";
	}
}

void con_api_problem(struct con_api_call *call, int status, const char *code,
		     const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (call->api)
		call->api->counters.failed++;
	if (call->req) {
		// The text may hold bytes of a file that are not UTF-8.
		json_t *body =
			json_pack("{s:s, s:s, s:i, s:s}", "type", "about:blank", "title",
				  title(status), "status", status, "code", code);
		json_t *detail = json_string(text);
		if (!detail)
			for (char *p = text; *p; p++)
				if (*p & 0x80)
					*p = '?';
		if (body)
			json_object_set_new(body, "detail",
					    detail ? detail : json_string(text));
		send_json(call, status, "application/problem+json", body);
		json_decref(body);
	}
	end_call(call);
}

void con_api_error(struct con_api_call *call, int err, const char *why)
{
	const char *text = why && *why ? why : sp_strerror(err);
	switch (err) {
	case SP_E_CONFIG:
	case SP_E_MALFORMED:
	case SP_E_LIMIT:
		con_api_problem(call, 422, "invalid", "%s", text);
		return;
	case -EAGAIN:
		con_api_problem(call, 503, "busy",
				"too many changes wait already; try again");
		return;
	case -ENOTCONN:
		con_api_problem(call, 503, "no-redis", "%s", text);
		return;
	case -ETIMEDOUT:
		con_api_problem(call, 503, "unknown-outcome", "%s", text);
		return;
	case -ECANCELED:
		con_api_problem(call, 503, "ending", "%s", text);
		return;
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG:
	case -EROFS:
	case -EIO:
		con_api_problem(call, 507, "journal", "%s", text);
		return;
	case SP_E_STALE:
		con_api_problem(call, 409, "conflict", "%s", text);
		return;
	default:
		con_api_problem(call, 500, "internal", "%s", text);
	}
}

// ---- what a call says ----

const char *con_api_tail(const struct con_api_call *call)
{
	return call->tail;
}

const char *con_api_author(const struct con_api_call *call)
{
	return call->author;
}

const char *con_api_query(const struct con_api_call *call, const char *name)
{
	return evhttp_find_header(&call->query, name);
}

bool con_api_flag(const struct con_api_call *call, const char *name)
{
	const char *v = con_api_query(call, name);
	return v && (!*v || !strcmp(v, "1") || !strcmp(v, "true"));
}

bool con_api_number(struct con_api_call *call, const char *name, uint64_t def,
		    uint64_t max, uint64_t *ret)
{
	const char *v = con_api_query(call, name);
	char *end;
	errno = 0;
	unsigned long long n = v ? strtoull(v, &end, 10) : def;
	if (v && (*v < '0' || *v > '9' || *end || errno || n > max)) {
		con_api_problem(call, 400, "query", "%s: want a number up to %llu", name,
				(unsigned long long)max);
		return false;
	}
	*ret = n;
	return true;
}

const char *con_api_text(const struct con_api_call *call, size_t *ret_len)
{
	struct evbuffer *in = evhttp_request_get_input_buffer(call->req);
	*ret_len = evbuffer_get_length(in);
	const char *text = *ret_len ? (const char *)evbuffer_pullup(in, -1) : "";
	if (!text)
		*ret_len = 0;
	return text ? text : "";
}

json_t *con_api_object(struct con_api_call *call)
{
	json_error_t e;
	size_t len;
	const char *text = con_api_text(call, &len);
	if (!call->object)
		call->object = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
	if (json_is_object(call->object))
		return call->object;
	con_api_problem(call, 400, "body", "want a JSON object as the body");
	return NULL;
}

const char *con_api_member(struct con_api_call *call, const char *name, bool required)
{
	json_t *v = json_object_get(call->object, name);
	const char *text = json_string_value(v);
	if (!text && (required || v)) {
		con_api_problem(call, 400, "body", "%s: want a text", name);
		return NULL;
	}
	return text;
}

// ---- calls come in ----

static const char *method_word(enum evhttp_cmd_type type)
{
	switch (type) {
	case EVHTTP_REQ_GET:
		return "GET";
	case EVHTTP_REQ_POST:
		return "POST";
	case EVHTTP_REQ_PUT:
		return "PUT";
	case EVHTTP_REQ_DELETE:
		return "DELETE";
	default:
		return "?";
	}
}

// Who holds the other end of the socket.
static void find_author(struct con_api_call *call)
{
	struct evhttp_connection *conn = evhttp_request_get_connection(call->req);
	evutil_socket_t fd = bufferevent_getfd(evhttp_connection_get_bufferevent(conn));
	struct ucred who;
	socklen_t len = sizeof(who);
	struct passwd pw, *found = NULL;
	char buf[2048];
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len)) {
		snprintf(call->author, sizeof(call->author), "unknown");
		return;
	}
	if (getpwuid_r(who.uid, &pw, buf, sizeof(buf), &found) == 0 && found)
		snprintf(call->author, sizeof(call->author), "%s", found->pw_name);
	else
		snprintf(call->author, sizeof(call->author), "uid %u", who.uid);
}

// Path and query, decoded. False: no good.
static bool read_uri(struct con_api_call *call)
{
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(call->req);
	const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
	const char *query = uri ? evhttp_uri_get_query(uri) : NULL;
	size_t len = 0;
	char *text = path ? evhttp_uridecode(path, 0, &len) : NULL;
	bool good = text && len < sizeof(call->path) && strlen(text) == len;
	if (good)
		memcpy(call->path, text, len + 1);
	free(text);
	return good && (!query || evhttp_parse_query_str(query, &call->query) == 0);
}

static bool fits(const char *pattern, const char *path, const char **ret_tail)
{
	size_t n = strcspn(pattern, "*");
	if (!pattern[n])
		return strcmp(pattern, path) == 0;
	if (strncmp(pattern, path, n) != 0 || !path[n])
		return false;
	*ret_tail = path + n;
	return true;
}

static void route(struct con_api_call *call, const char *method)
{
	struct con_api *api = call->api;
	bool other = false;
	for (unsigned i = 0; i < api->n_tables; i++)
		for (const struct con_api_route *r = api->tables[i].routes; r->method;
		     r++) {
			if (!fits(r->path, call->path, &call->tail))
				continue;
			if (strcmp(r->method, method) == 0) {
				r->run(api->tables[i].ctx, call);
				return;
			}
			other = true;
		}
	if (other)
		con_api_problem(call, 405, "method", "%s is not for %s", method,
				call->path);
	else
		con_api_problem(call, 404, "no-such-path", "there is no %s", call->path);
}

static void on_request(struct evhttp_request *req, void *arg)
{
	struct con_api *api = arg;
	struct con_api_call *call =
		api->n_calls < CON_API_CALLS_MAX ? calloc(1, sizeof(*call)) : NULL;
	api->counters.calls++;
	if (!call) {
		api->counters.failed++;
		evhttp_send_error(req, HTTP_SERVUNAVAIL, NULL);
		return;
	}
	call->api = api;
	call->req = req;
	call->tail = "";
	TAILQ_INIT(&call->query);
	LIST_INSERT_HEAD(&api->calls, call, chain);
	api->n_calls++;
	evhttp_connection_set_closecb(evhttp_request_get_connection(req), on_closed,
				      call);
	find_author(call);
	if (!read_uri(call))
		con_api_problem(call, 400, "path", "the path or the query is malformed");
	else
		route(call, method_word(evhttp_request_get_command(req)));
}

// ---- the socket ----

static int open_socket(const struct sockaddr_un *sun)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	int err = bind(fd, (const struct sockaddr *)sun, sizeof(*sun)) ? -errno : 0;
	if (err == -EADDRINUSE) { // of a controller that is gone?
		int other =
			socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		bool dead = other >= 0 &&
			    connect(other, (const struct sockaddr *)sun, sizeof(*sun)) &&
			    errno == ECONNREFUSED;
		if (other >= 0)
			close(other);
		if (dead && unlink(sun->sun_path) == 0)
			err = bind(fd, (const struct sockaddr *)sun, sizeof(*sun))
				      ? -errno
				      : 0;
	}
	if (!err && listen(fd, BACKLOG))
		err = -errno;
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

static int give_to_group(const char *path, const char *group)
{
	struct group gr, *found = NULL;
	char buf[8192];
	if (!group)
		return chmod(path, 0600) ? -errno : 0;
	if (getgrnam_r(group, &gr, buf, sizeof(buf), &found) || !found)
		return -ENOENT;
	if (chown(path, (uid_t)-1, found->gr_gid) || chmod(path, 0660))
		return -errno;
	return 0;
}

static int listen_at(struct con_api *api, const char *path, const char *group, char *why,
		     size_t cap)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	struct stat st;
	if (strlen(path) >= sizeof(sun.sun_path)) {
		snprintf(why, cap, "api.socket: %s: longer than %zu bytes", path,
			 sizeof(sun.sun_path) - 1);
		return -ENAMETOOLONG;
	}
	memcpy(sun.sun_path, path, strlen(path) + 1);
	mode_t mask = umask(0177); // nobody else, until the group is set
	int fd = open_socket(&sun);
	umask(mask);
	if (fd < 0) {
		snprintf(why, cap, "api.socket: %s: %s", path,
			 fd == -EADDRINUSE ? "another controller answers there"
					   : sp_strerror(fd));
		return fd;
	}
	int err = give_to_group(path, group);
	if (err) {
		snprintf(why, cap, "api.group: %s: %s", group ? group : "",
			 err == -ENOENT ? "no such group" : sp_strerror(err));
		close(fd);
		unlink(path);
		return err;
	}
	if (stat(path, &st) == 0)
		api->inode = st.st_ino;
	if (evhttp_accept_socket(api->http, fd)) {
		close(fd);
		snprintf(why, cap, "out of memory");
		return -ENOMEM;
	}
	return 0;
}

int con_api_new(struct sp_loop *loop, const char *path, const char *group,
		struct con_api **ret, char *why, size_t cap)
{
	struct con_api *api = calloc(1, sizeof(*api));
	if (!api)
		return -ENOMEM;
	api->loop = loop;
	LIST_INIT(&api->calls);
	api->path = strdup(path);
	api->http = evhttp_new(sp_loop_base(loop));
	int err = api->path && api->http ? 0 : -ENOMEM;
	if (!err) {
		evhttp_set_allowed_methods(api->http, EVHTTP_REQ_GET | EVHTTP_REQ_POST |
							      EVHTTP_REQ_PUT |
							      EVHTTP_REQ_DELETE);
		evhttp_set_max_headers_size(api->http, CON_API_HEAD_MAX);
		evhttp_set_max_body_size(api->http, CON_API_BODY_MAX);
		evhttp_set_timeout(api->http, CON_API_TIMEOUT_S);
		evhttp_set_gencb(api->http, on_request, api);
		err = listen_at(api, path, group, why, cap);
	} else {
		snprintf(why, cap, "out of memory");
	}
	if (err)
		con_api_free(api);
	else
		*ret = api;
	return err;
}

void con_api_free(struct con_api *api)
{
	struct con_api_call *call;
	struct stat st;
	if (!api)
		return;
	while ((call = LIST_FIRST(&api->calls))) {
		LIST_REMOVE(call, chain);
		call->api = NULL;
		call->req = NULL;
	}
	if (api->http)
		evhttp_free(api->http); // with every connection and request
	if (api->inode && stat(api->path, &st) == 0 && st.st_ino == api->inode)
		unlink(api->path);
	free(api->path);
	free(api);
}

int con_api_add(struct con_api *api, const struct con_api_route *routes, void *ctx)
{
	if (api->n_tables == ROUTES_MAX)
		return -ENOMEM;
	api->tables[api->n_tables].routes = routes;
	api->tables[api->n_tables++].ctx = ctx;
	return 0;
}

int con_api_add_detail(struct con_api *api, const char *kind,
		       void (*fill)(void *ctx, const char *name, json_t *into), void *ctx)
{
	if (api->n_details == DETAILS_MAX)
		return -ENOMEM;
	api->details[api->n_details].kind = kind;
	api->details[api->n_details].fill = fill;
	api->details[api->n_details++].ctx = ctx;
	return 0;
}

void con_api_fill(struct con_api *api, const char *kind, const char *name, json_t *into)
{
	for (unsigned i = 0; i < api->n_details; i++)
		if (strcmp(api->details[i].kind, kind) == 0)
			api->details[i].fill(api->details[i].ctx, name, into);
}

const struct con_api_counters *con_api_counters(const struct con_api *api)
{
	return &api->counters;
}
