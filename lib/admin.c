#include "lib/admin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>

#include "lib/admin_request.h"

#define DISCARD_MAX (1u << 20) // bytes behind a request that are taken and ignored
#define PAUSE_US    100000     // of accepting, when there is no descriptor for it

struct sp_admin {
	struct sp_loop *loop;
	struct evconnlistener *listener;
	const struct sp_admin_ops *ops;
	void *ctx;
	TAILQ_HEAD(, conn) conns; // the oldest first
	unsigned n_conns;
	int spare; // a descriptor for when none is left; -1: lent to a connection
	struct sp_timer resume;
};

struct conn {
	struct sp_deferred reap; // first
	TAILQ_ENTRY(conn) link;
	struct sp_admin *admin;
	struct bufferevent *bev;
	struct sp_timer deadline;
	bool answered;
	size_t discarded;
};

struct sp_ready {
	struct evbuffer *failed, *all;
	bool ok;
};

struct response {
	int status;
	const char *type;
	const char *extra; // further header lines, each with CRLF
	struct evbuffer *body;
};

// ---- life of a connection ----

static void conn_reap(struct sp_deferred *d)
{
	struct conn *c = (struct conn *)d;
	bufferevent_free(c->bev);
	free(c);
}

static void conn_end(struct conn *c)
{
	if (!c->admin)
		return;
	struct sp_admin *a = c->admin;
	c->admin = NULL;
	TAILQ_REMOVE(&a->conns, c, link);
	a->n_conns--;
	sp_timer_done(&c->deadline);
	bufferevent_disable(c->bev, EV_READ | EV_WRITE);
	bufferevent_setcb(c->bev, NULL, NULL, NULL, NULL);
	sp_loop_reap(a->loop, &c->reap);
}

static void on_deadline(void *ctx)
{
	conn_end(ctx);
}

// ---- answers ----

static const char *reason_phrase(int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 431:
		return "Request Header Fields Too Large";
	case 503:
		return "Service Unavailable";
	case 505:
		return "HTTP Version Not Supported";
	default:
		return "Bad Request";
	}
}

void sp_ready_check(struct sp_ready *r, const char *name, bool ok, const char *detail)
{
	const char *sep = detail ? ": " : "";
	detail = detail ? detail : "";
	evbuffer_add_printf(r->all, "[%c] %s%s%s\n", ok ? '+' : '-', name, sep, detail);
	if (!ok)
		evbuffer_add_printf(r->failed, "[-] %s%s%s\n", name, sep, detail);
	r->ok = r->ok && ok;
}

static void answer_ready(struct sp_admin *a, bool verbose, struct response *ret)
{
	struct evbuffer *other = evbuffer_new();
	struct sp_ready r = {
		.failed = verbose ? other : ret->body,
		.all = verbose ? ret->body : other,
		.ok = true,
	};

	if (other)
		a->ops->ready(a->ctx, &r);
	r.ok = r.ok && other;
	evbuffer_add_printf(ret->body, "%s\n", r.ok ? "ready" : "not ready");
	ret->status = r.ok ? 200 : 503;
	if (other)
		evbuffer_free(other);
}

static void answer_metrics(struct sp_admin *a, const char *accept, struct response *ret)
{
	bool openmetrics = sp_metrics_accepts_openmetrics(accept);
	struct sp_metrics_writer w;

	sp_metrics_begin(&w, ret->body, openmetrics);
	a->ops->metrics(a->ctx, &w);
	sp_metrics_process(&w);
	sp_metrics_end(&w);
	ret->type = sp_metrics_content_type(openmetrics);
}

static void answer(struct sp_admin *a, const struct sp_admin_request *req,
		   struct response *ret)
{
	if (!req->is_get && !req->is_head) {
		ret->status = 405;
		ret->extra = "Allow: GET, HEAD\r\n";
		evbuffer_add_printf(ret->body, "GET and HEAD only\n");
	} else if (strcmp(req->path, "/metrics") == 0) {
		answer_metrics(a, req->accept, ret);
	} else if (strcmp(req->path, "/livez") == 0) {
		evbuffer_add_printf(ret->body, "ok\n");
	} else if (strcmp(req->path, "/readyz") == 0) {
		answer_ready(a, req->verbose, ret);
	} else {
		ret->status = 404;
		evbuffer_add_printf(ret->body,
				    "there are /metrics, /livez, /readyz?verbose\n");
	}
}

static void send_response(struct conn *c, const struct response *r, bool head_only)
{
	struct evbuffer *out = bufferevent_get_output(c->bev);

	evbuffer_add_printf(
		out,
		"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
		"Cache-Control: no-store\r\n%sConnection: close\r\n\r\n",
		r->status, reason_phrase(r->status), r->type,
		evbuffer_get_length(r->body), r->extra);
	if (!head_only)
		evbuffer_add_buffer(out, r->body);
	c->answered = true;
	bufferevent_enable(c->bev, EV_WRITE);
}

// `head_len`: of the head in the input; `status`: not 0 to refuse without looking at it.
static void respond(struct conn *c, size_t head_len, int status)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	struct sp_admin_request req = {.is_get = true};
	struct response r = {
		.status = 200,
		.type = "text/plain; charset=utf-8",
		.extra = "",
		.body = evbuffer_new(),
	};
	const char *head = (char *)evbuffer_pullup(in, (ssize_t)head_len);

	if (!r.body || (head_len && !head)) {
		if (r.body)
			evbuffer_free(r.body);
		conn_end(c);
		return;
	}
	if (!status)
		status = sp_admin_request_parse(head, head_len, &req);
	if (status) {
		r.status = status;
		evbuffer_add_printf(r.body, "%s\n", reason_phrase(status));
	} else {
		answer(c->admin, &req, &r);
	}
	send_response(c, &r, req.is_head);
	evbuffer_free(r.body);
}

// ---- reading and writing ----

// What comes behind the request is taken and forgotten: closing with unread bytes would
// reset the connection under the answer.
static void discard(struct conn *c, struct evbuffer *in)
{
	c->discarded += evbuffer_get_length(in);
	evbuffer_drain(in, evbuffer_get_length(in));
	if (c->discarded > DISCARD_MAX)
		conn_end(c);
}

static void on_read(struct bufferevent *bev, void *ctx)
{
	struct evbuffer *in = bufferevent_get_input(bev);
	struct conn *c = ctx;

	sp_loop_now_us(c->admin->loop);
	if (!c->answered) {
		struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
		if (end.pos >= 0 && end.pos <= SP_ADMIN_HEAD_MAX)
			respond(c, (size_t)end.pos, 0);
		else if (evbuffer_get_length(in) > SP_ADMIN_HEAD_MAX)
			respond(c, 0, 431);
	}
	if (c->admin && c->answered)
		discard(c, in);
}

static void on_written(struct bufferevent *bev, void *ctx)
{
	struct conn *c = ctx;
	if (c->answered && evbuffer_get_length(bufferevent_get_output(bev)) == 0)
		shutdown(bufferevent_getfd(bev), SHUT_WR);
}

// The peer's end, or an error: in either case nobody waits for an answer any more, except
// whoever closed only one direction behind a request that is being answered.
static void on_event(struct bufferevent *bev, short what, void *ctx)
{
	struct conn *c = ctx;
	bool more = evbuffer_get_length(bufferevent_get_output(bev)) > 0;
	if ((what & BEV_EVENT_EOF) && c->answered && more)
		return;
	conn_end(c);
}

static void keep_spare(struct sp_admin *a)
{
	if (a->spare < 0)
		a->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd,
		      struct sockaddr *peer, int peer_len, void *ctx)
{
	struct sp_admin *a = ctx;
	struct conn *c = calloc(1, sizeof(*c));
	uint32_t timeout_ms =
		a->ops->timeout_ms ? a->ops->timeout_ms : SP_ADMIN_TIMEOUT_MS;

	(void)listener;
	(void)peer;
	(void)peer_len;
	if (c)
		c->bev = bufferevent_socket_new(sp_loop_base(a->loop), fd,
						BEV_OPT_CLOSE_ON_FREE);
	if (!c || !c->bev) {
		free(c);
		close(fd);
		return;
	}
	if (a->n_conns == SP_ADMIN_CONNECTIONS_MAX)
		conn_end(TAILQ_FIRST(&a->conns));
	c->admin = a;
	c->reap.run = conn_reap;
	TAILQ_INSERT_TAIL(&a->conns, c, link);
	a->n_conns++;
	sp_timer_init(&c->deadline, a->loop, on_deadline, c);
	sp_timer_set(&c->deadline, sp_loop_now_us(a->loop) + (uint64_t)timeout_ms * 1000);
	bufferevent_setcb(c->bev, on_read, on_written, on_event, c);
	bufferevent_setwatermark(c->bev, EV_READ, 0, 2 * SP_ADMIN_HEAD_MAX);
	bufferevent_enable(c->bev, EV_READ);
}

// ---- life of the listener ----

static void on_resume(void *ctx)
{
	struct sp_admin *a = ctx;
	keep_spare(a);
	if (evconnlistener_enable(a->listener))
		sp_timer_set(&a->resume, sp_loop_now_us(a->loop) + PAUSE_US);
}

// accept failed, as a rule for want of a descriptor: the time when an operator looks at
// the metrics. One connection gets the spare; the next waits, for the listener would be
// ready again at once.
static void on_accept_error(struct evconnlistener *listener, void *ctx)
{
	struct sp_admin *a = ctx;
	int err = EVUTIL_SOCKET_ERROR(), fd = -1;

	if ((err == EMFILE || err == ENFILE) && a->spare >= 0) {
		close(a->spare);
		a->spare = -1;
		fd = accept4(evconnlistener_get_fd(listener), NULL, NULL,
			     SOCK_NONBLOCK | SOCK_CLOEXEC);
	}
	if (fd >= 0)
		on_accept(listener, fd, NULL, 0, a);
	evconnlistener_disable(listener);
	sp_timer_set(&a->resume, sp_loop_now_us(a->loop) + PAUSE_US);
}

int sp_admin_new(struct sp_loop *loop, const struct sp_target *addr,
		 const struct sp_admin_ops *ops, void *ctx, struct sp_admin **ret)
{
	struct sockaddr_storage ss;
	socklen_t len;
	int err = sp_target_to_sockaddr(addr, &ss, &len);
	if (err)
		return err;
	struct sp_admin *a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->loop = loop;
	a->ops = ops;
	a->ctx = ctx;
	TAILQ_INIT(&a->conns);
	errno = 0;
	a->listener = evconnlistener_new_bind(
		sp_loop_base(loop), on_accept, a,
		LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, 16,
		(struct sockaddr *)&ss, (int)len);
	if (!a->listener) {
		err = errno ? -errno : -ENOMEM;
		free(a);
		return err;
	}
	a->spare = -1;
	keep_spare(a);
	sp_timer_init(&a->resume, loop, on_resume, a);
	evconnlistener_set_error_cb(a->listener, on_accept_error);
	*ret = a;
	return 0;
}

void sp_admin_free(struct sp_admin *a)
{
	struct conn *c;

	if (!a)
		return;
	while ((c = TAILQ_FIRST(&a->conns)))
		conn_end(c);
	evconnlistener_free(a->listener);
	sp_timer_done(&a->resume);
	if (a->spare >= 0)
		close(a->spare);
	free(a);
}

void sp_admin_address(const struct sp_admin *a, struct sp_target *ret)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);

	getsockname(evconnlistener_get_fd(a->listener), (struct sockaddr *)&ss, &len);
	sp_target_from_sockaddr((struct sockaddr *)&ss, ret);
}
