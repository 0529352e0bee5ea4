#include "controller/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/listener.h>

#include "lib/idmap.h"

#define SOURCES_MAX 65536 // addresses remembered
#define DISCARD_MAX 65536 // bytes behind a last request that are taken and ignored
#define LINGER_MS   2000  // for the client to end after the last answer
#define PAUSE_US    20000 // of accepting, when there is no descriptor for it
#define BATCH       8     // requests of one connection in a turn
#define SPARE_FDS   256   // of the process, for others than our connections
#define ANSWER_HEAD 1024  // of an answer, without further fields

enum state {
	READING, // waits for a request or the rest of one
	HELD,    // has one that is not answered yet
	WRITING, // the answer is on its way
	CLOSING, // it has been sent, and was the last
	STATES,
};

TAILQ_HEAD(conns, con_http_call);

// Who connects: an address with its connections and what it may still ask.
struct source {
	uint64_t id;
	unsigned n;
	struct conns conns; // the stalest first
	int64_t milli;      // thousandths of a request; below 0: answered with 429
	uint64_t filled_ms;
	bool exempt;
	TAILQ_ENTRY(source) idle; // while n is 0
};
TAILQ_HEAD(sources, source);

struct con_http {
	struct con_http_options opt;
	struct evconnlistener *listener;
	struct conns list[STATES]; // the stalest first
	unsigned n, n_held;
	struct sp_idmap sources;
	struct sources idle;
	unsigned n_sources;
	size_t out_bytes;
	struct sp_timer resume;
	struct con_http_counters counters;
	uint64_t date_s;
	char date[40];
};

struct con_http_call {
	struct sp_deferred reap, again; // reap: first
	struct con_http *http;          // NULL: ended
	struct source *source;
	TAILQ_ENTRY(con_http_call) link, of_source;
	struct bufferevent *bev;
	struct sp_target peer;
	struct sp_timer deadline;
	enum state state;
	bool serving;   // inside `request`
	bool head_only; // of the request
	bool last;      // this answer ends the connection
	bool begun;     // some of a head is there
	bool asked;     // it is not the first request
	bool eof;
	size_t out, discarded;
	void *data;
};

const int con_http_status[CON_HTTP_STATUSES] = {200, 204, 304, 400, 404,
						429, 431, 503, 505, 0};

void con_http_limits_default(struct con_http_limits *ret)
{
	*ret = (struct con_http_limits){.connections = 20000,
					.per_address = 256,
					.rate = 50,
					.burst = 500,
					.head_ms = 10000,
					.idle_ms = 75000,
					.write_ms = 30000,
					.out_bytes = 64u << 20};
}

static uint64_t after_ms(struct con_http *h, uint32_t ms)
{
	return sp_loop_now_us(h->opt.loop) + (uint64_t)ms * 1000;
}

// ---- addresses ----

// IPv4: the address; IPv6: its /64, which is what one customer has.
static uint64_t source_id(const struct sp_target *t)
{
	uint64_t id = 0;
	if (t->kind == SP_TARGET_IPV6) {
		for (int i = 0; i < 8; i++)
			id = id << 8 | t->v6[i];
		return id;
	}
	for (int i = 0; i < 4; i++)
		id = id << 8 | t->v4[i];
	return id | UINT64_C(0xffffffff) << 32; // multicast, so nobody's /64
}

static void source_drop(struct con_http *h, struct source *s)
{
	TAILQ_REMOVE(&h->idle, s, idle);
	sp_idmap_remove(&h->sources, s->id);
	h->n_sources--;
	free(s);
}

static bool is_loopback(const struct sp_target *t)
{
	static const uint8_t one[16] = {[15] = 1};
	return t->kind == SP_TARGET_IPV4 ? t->v4[0] == 127 : !memcmp(t->v6, one, 16);
}

static struct source *source_get(struct con_http *h, const struct sp_target *peer)
{
	uint64_t id = source_id(peer);
	struct source *s = sp_idmap_get(&h->sources, id);
	if (s)
		return s;
	if (h->n_sources >= SOURCES_MAX && !TAILQ_EMPTY(&h->idle))
		source_drop(h, TAILQ_FIRST(&h->idle));
	s = calloc(1, sizeof(*s));
	if (!s || sp_idmap_put(&h->sources, id, s)) {
		free(s);
		return NULL;
	}
	s->id = id;
	s->exempt = is_loopback(peer) && !h->opt.limits.loopback;
	s->milli = (int64_t)h->opt.limits.burst * 1000;
	s->filled_ms = sp_loop_now_ms(h->opt.loop);
	TAILQ_INIT(&s->conns);
	TAILQ_INSERT_TAIL(&h->idle, s, idle);
	h->n_sources++;
	return s;
}

// Takes one request from what it may ask, down to `least`. False: it had no more.
static bool source_may(struct con_http *h, struct source *s, int64_t least)
{
	const struct con_http_limits *l = &h->opt.limits;
	uint64_t now = sp_loop_now_ms(h->opt.loop);
	int64_t full = (int64_t)l->burst * 1000;
	if (s->exempt)
		return true;
	int64_t more = (int64_t)((now - s->filled_ms) * l->rate);
	s->milli = more < full - s->milli ? s->milli + more : full;
	s->filled_ms = now;
	if (s->milli < least + 1000) {
		h->counters.over_rate++;
		return false;
	}
	s->milli -= 1000;
	return true;
}

// ---- life of a connection ----

static void conn_reap(struct sp_deferred *d)
{
	struct con_http_call *c = (struct con_http_call *)d;
	bufferevent_free(c->bev);
	free(c);
}

// A state is a list; whoever moves goes to its end.
static void set_state(struct con_http_call *c, enum state state)
{
	struct con_http *h = c->http;
	TAILQ_REMOVE(&h->list[c->state], c, link);
	h->n_held -= c->state == HELD;
	c->state = state;
	h->n_held += c->state == HELD;
	TAILQ_INSERT_TAIL(&h->list[state], c, link);
}

static void conn_end(struct con_http_call *c)
{
	struct con_http *h = c->http;
	if (!h)
		return;
	if (c->state == HELD)
		h->opt.ops->gone(h->opt.ctx, c);
	c->http = NULL;
	TAILQ_REMOVE(&h->list[c->state], c, link);
	h->n_held -= c->state == HELD;
	h->n--;
	h->out_bytes -= c->out;
	TAILQ_REMOVE(&c->source->conns, c, of_source);
	if (--c->source->n == 0)
		TAILQ_INSERT_TAIL(&h->idle, c->source, idle);
	sp_timer_done(&c->deadline);
	sp_loop_defer_cancel(&c->again);
	bufferevent_disable(c->bev, EV_READ | EV_WRITE);
	bufferevent_setcb(c->bev, NULL, NULL, NULL, NULL);
	sp_loop_reap(h->opt.loop, &c->reap);
}

static void on_deadline(void *ctx)
{
	struct con_http_call *c = ctx;
	struct con_http *h = c->http;
	switch (c->state) {
	case HELD:
		h->opt.ops->expired(h->opt.ctx, c);
		return;
	case READING:
		h->counters.head_late += c->begun;
		break;
	case WRITING:
		h->counters.unread++;
		break;
	case CLOSING:
	case STATES:
		break;
	}
	conn_end(c);
}

// ---- answers ----

static const char *phrase(int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 204:
		return "No Content";
	case 304:
		return "Not Modified";
	case 404:
		return "Not Found";
	case 429:
		return "Too Many Requests";
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

static const char *date(struct con_http *h)
{
	uint64_t now_s = sp_loop_unix_ms(h->opt.loop) / 1000;
	time_t t = (time_t)now_s;
	struct tm tm;
	if (now_s != h->date_s && gmtime_r(&t, &tm) &&
	    strftime(h->date, sizeof(h->date), "%a, %d %b %Y %H:%M:%S GMT", &tm))
		h->date_s = now_s;
	return h->date;
}

static void count_answer(struct con_http *h, int status)
{
	unsigned i = 0;
	while (con_http_status[i] && con_http_status[i] != status)
		i++;
	h->counters.answers[i]++;
}

// Waits for the next request, which may have begun.
static void await(struct con_http_call *c)
{
	const struct con_http_limits *l = &c->http->opt.limits;
	c->begun = evbuffer_get_length(bufferevent_get_input(c->bev)) > 0;
	sp_timer_set(&c->deadline, after_ms(c->http, c->begun ? l->head_ms : l->idle_ms));
}

// All of it has been sent.
static void sent(struct con_http_call *c)
{
	struct con_http *h = c->http;
	h->out_bytes -= c->out;
	c->out = 0;
	bufferevent_enable(c->bev, EV_READ);
	if (!c->last) {
		c->asked = true;
		set_state(c, READING);
		if (c->serving)
			return;
		await(c);
		if (c->begun)
			sp_loop_defer(h->opt.loop, &c->again);
		return;
	}
	SSL *ssl = bufferevent_openssl_get_ssl(c->bev);
	if (ssl)
		(void)SSL_shutdown(ssl);
	shutdown(bufferevent_getfd(c->bev), SHUT_WR);
	if (c->eof) {
		conn_end(c);
		return;
	}
	set_state(c, CLOSING);
	sp_timer_set(&c->deadline, after_ms(h, LINGER_MS));
}

// Straight to the socket, so that most answers cost no turn of the loop; the rest through
// the bufferevent.
static void transmit(struct con_http_call *c, struct iovec *v, int n)
{
	struct evbuffer *out = bufferevent_get_output(c->bev);
	struct msghdr m = {.msg_iov = v, .msg_iovlen = (size_t)n};
	ssize_t done = 0;
	if (!c->http->opt.tls) {
		done = sendmsg(bufferevent_getfd(c->bev), &m, MSG_NOSIGNAL);
		if (done < 0 && errno != EAGAIN && errno != EINTR) {
			conn_end(c);
			return;
		}
		done = done < 0 ? 0 : done;
	}
	if ((size_t)done == c->out) {
		sent(c);
		return;
	}
	for (int i = 0; i < n; i++) {
		size_t skip = (size_t)done < v[i].iov_len ? (size_t)done : v[i].iov_len;
		evbuffer_add(out, (char *)v[i].iov_base + skip, v[i].iov_len - skip);
		done -= (ssize_t)skip;
	}
	bufferevent_enable(c->bev, EV_WRITE);
}

void con_http_answer(struct con_http_call *c, const struct con_http_answer *a)
{
	static const struct con_http_answer busy = {
		.status = 503, .fields = "Retry-After: 5\r\n", .close = true};
	struct con_http *h = c->http;
	char head[ANSWER_HEAD];
	if (h->out_bytes + a->len > h->opt.limits.out_bytes)
		a = &busy;
	c->last |= a->close;
	count_answer(h, a->status);
	set_state(c, WRITING);
	int n = snprintf(head, sizeof(head), "HTTP/1.1 %d %s\r\nDate: %s\r\n", a->status,
			 phrase(a->status), date(h));
	if (a->type)
		n += snprintf(head + n, sizeof(head) - (size_t)n,
			      "Content-Type: %s\r\nContent-Length: %zu\r\n", a->type,
			      a->len);
	else if (a->status != 304 && a->status != 204)
		n += snprintf(head + n, sizeof(head) - (size_t)n,
			      "Content-Length: 0\r\n");
	n += snprintf(head + n, sizeof(head) - (size_t)n, "%s%s\r\n",
		      a->fields ? a->fields : "", c->last ? "Connection: close\r\n" : "");
	size_t body = a->type && !c->head_only ? a->len : 0;
	struct iovec v[2] = {{head, (size_t)n}, {(void *)(uintptr_t)a->body, body}};
	c->out = (size_t)n + body;
	h->out_bytes += c->out;
	sp_timer_set(&c->deadline, after_ms(h, h->opt.limits.write_ms));
	transmit(c, v, body ? 2 : 1);
}

static void refuse(struct con_http_call *c, int status)
{
	c->head_only = false;
	con_http_answer(c, &(struct con_http_answer){
				   .status = status,
				   .fields = status == 429 ? "Retry-After: 2\r\n" : NULL,
				   .close = true,
			   });
}

void con_http_hold(struct con_http_call *c, uint64_t until_us)
{
	set_state(c, HELD);
	sp_timer_set(&c->deadline, until_us);
}

const struct sp_target *con_http_peer(const struct con_http_call *c)
{
	return &c->peer;
}

void con_http_set_data(struct con_http_call *c, void *data)
{
	c->data = data;
}

void *con_http_data(const struct con_http_call *c)
{
	return c->data;
}

// ---- requests ----

// `len`: of the head in the input, before the empty line.
static void request(struct con_http_call *c, size_t len)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	struct con_http *h = c->http;
	struct con_http_head head;
	char *text = (char *)evbuffer_pullup(in, (ssize_t)len + 4);
	int status = text ? con_http_parse(text, len, &head) : 503;
	h->counters.requests++;
	c->data = NULL;
	TAILQ_REMOVE(&c->source->conns, c, of_source);
	TAILQ_INSERT_TAIL(&c->source->conns, c, of_source);
	set_state(c, WRITING); // until it is answered or held
	if (status) {
		refuse(c, status);
	} else {
		// A body is not read: what does not need one has none.
		c->last = head.close || head.has_body;
		c->head_only = head.method == CON_HTTP_HEAD;
		if (source_may(h, c->source, 0))
			h->opt.ops->request(h->opt.ctx, c, &head);
		else
			refuse(c, 429);
	}
	evbuffer_drain(in, len + 4);
}

// What comes behind a last request is taken and forgotten: closing with unread bytes
// would reset the connection under the answer.
static void discard(struct con_http_call *c, struct evbuffer *in)
{
	c->discarded += evbuffer_get_length(in);
	evbuffer_drain(in, evbuffer_get_length(in));
	if (c->discarded > DISCARD_MAX)
		conn_end(c);
}

static void serve(struct con_http_call *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	int served = 0;
	c->serving = true;
	while (c->http && c->state == READING) {
		while (evbuffer_get_length(in) >= 2) { // an empty line before a request
			char crlf[2];
			evbuffer_copyout(in, crlf, 2);
			if (memcmp(crlf, "\r\n", 2) != 0)
				break;
			evbuffer_drain(in, 2);
		}
		struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
		if (end.pos >= 0 && end.pos <= CON_HTTP_HEAD_BYTES) {
			if (served++ == BATCH) {
				sp_loop_defer(c->http->opt.loop, &c->again);
				break;
			}
			request(c, (size_t)end.pos);
			continue;
		}
		if (evbuffer_get_length(in) > CON_HTTP_HEAD_BYTES) {
			set_state(c, WRITING);
			refuse(c, 431);
		}
		break;
	}
	c->serving = false;
	if (c->http && c->state == READING && served)
		await(c);
	if (c->http && c->last && c->state != HELD)
		discard(c, in);
}

static void on_again(struct sp_deferred *d)
{
	struct con_http_call *c =
		(struct con_http_call *)(void *)((char *)d -
						 offsetof(struct con_http_call, again));
	if (c->http)
		serve(c);
}

static void on_read(struct bufferevent *bev, void *ctx)
{
	struct con_http_call *c = ctx;
	sp_loop_now_us(c->http->opt.loop);
	if (c->state != READING && c->state != CLOSING) {
		// Not by a high watermark: while it is reached, libevent 2.1 calls again
		// and again.
		if (evbuffer_get_length(bufferevent_get_input(bev)) > CON_HTTP_HEAD_BYTES)
			bufferevent_disable(bev, EV_READ);
		return;
	}
	if (c->state == READING && !c->begun) {
		c->begun = true;
		if (c->asked)
			sp_timer_set(&c->deadline,
				     after_ms(c->http, c->http->opt.limits.head_ms));
	}
	serve(c);
}

static void on_written(struct bufferevent *bev, void *ctx)
{
	struct con_http_call *c = ctx;
	if (c->state != WRITING || evbuffer_get_length(bufferevent_get_output(bev)))
		return;
	if (!c->http->opt.tls)
		bufferevent_disable(bev, EV_WRITE);
	sent(c);
}

// The client's end, or an error: in either case nobody waits for an answer any more,
// except whoever closed only one direction behind a request that is being answered.
static void on_event(struct bufferevent *bev, short what, void *ctx)
{
	struct con_http_call *c = ctx;
	(void)bev;
	if (what & BEV_EVENT_CONNECTED)
		return;
	if ((what & BEV_EVENT_EOF) && c->state == WRITING) {
		c->last = c->eof = true;
		return;
	}
	if ((what & BEV_EVENT_ERROR) && c->http->opt.tls && !c->asked && !c->begun)
		c->http->counters.tls_failed++;
	conn_end(c);
}

// ---- accepting ----

// Gives up the stalest of a list that has asked for nothing. False: there is none.
static bool evict_from(struct con_http *h, struct conns *list, bool of_source)
{
	struct con_http_call *c, *held = NULL;
	for (c = TAILQ_FIRST(list); c;
	     c = of_source ? TAILQ_NEXT(c, of_source) : TAILQ_NEXT(c, link)) {
		if (c->state != HELD)
			break;
		held = held ? held : c;
	}
	if (!c && !held)
		return false;
	h->counters.evicted++;
	if (c) {
		conn_end(c);
	} else {
		held->last = true;
		h->opt.ops->expired(h->opt.ctx, held);
	}
	return true;
}

static void evict(struct con_http *h)
{
	static const enum state order[] = {CLOSING, READING, HELD, WRITING};
	for (unsigned i = 0; i < STATES; i++)
		if (evict_from(h, &h->list[order[i]], false))
			return;
}

static struct con_http_call *conn_new(struct con_http *h, int fd)
{
	struct con_http_call *c = calloc(1, sizeof(*c));
	struct event_base *base = sp_loop_base(h->opt.loop);
	SSL *ssl = c && h->opt.tls ? SSL_new(h->opt.tls) : NULL;
	if (c && ssl)
		c->bev = bufferevent_openssl_socket_new(
			base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
	else if (c && !h->opt.tls)
		c->bev = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
	if (!c || !c->bev) {
		SSL_free(ssl);
		free(c);
		return NULL;
	}
	if (ssl)
		bufferevent_openssl_set_allow_dirty_shutdown(c->bev, 1);
	return c;
}

static void take(struct con_http *h, int fd, struct source *s,
		 const struct sp_target *peer)
{
	struct con_http_call *c = conn_new(h, fd);
	if (!c) {
		h->counters.accept_errors++;
		close(fd);
		return;
	}
	if (s->n >= h->opt.limits.per_address && !s->exempt)
		evict_from(h, &s->conns, true);
	else if (h->n >= h->opt.limits.connections)
		evict(h);
	c->http = h;
	c->source = s;
	c->peer = *peer;
	c->reap.run = conn_reap;
	c->again.run = on_again;
	if (s->n++ == 0)
		TAILQ_REMOVE(&h->idle, s, idle);
	TAILQ_INSERT_TAIL(&s->conns, c, of_source);
	TAILQ_INSERT_TAIL(&h->list[READING], c, link);
	h->n++;
	sp_timer_init(&c->deadline, h->opt.loop, on_deadline, c);
	sp_timer_set(&c->deadline, after_ms(h, h->opt.limits.head_ms));
	bufferevent_setcb(c->bev, on_read, on_written, on_event, c);
	bufferevent_enable(c->bev, EV_READ);
	if (!h->opt.tls)
		bufferevent_disable(c->bev, EV_WRITE); // until something is left to send
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd,
		      struct sockaddr *sa, int len, void *ctx)
{
	struct con_http *h = ctx;
	struct sp_target peer;
	(void)listener;
	(void)len;
	sp_loop_now_us(h->opt.loop);
	sp_target_from_sockaddr(sa, &peer);
	struct source *s = source_get(h, &peer);
	h->counters.accepted++;
	if (s && source_may(h, s, -(int64_t)h->opt.limits.burst * 1000))
		take(h, fd, s, &peer);
	else
		close(fd);
}

static void on_resume(void *ctx)
{
	struct con_http *h = ctx;
	if (evconnlistener_enable(h->listener))
		sp_timer_set(&h->resume, sp_loop_now_us(h->opt.loop) + PAUSE_US);
}

// As a rule for want of a descriptor: the stalest connection gives its own.
static void on_accept_error(struct evconnlistener *listener, void *ctx)
{
	struct con_http *h = ctx;
	h->counters.accept_errors++;
	evict(h);
	evconnlistener_disable(listener);
	sp_timer_set(&h->resume, sp_loop_now_us(h->opt.loop) + PAUSE_US);
}

// ---- life ----

// Buffers of the kernel for connections, which take them from the listener: a stranger
// can have so much memory of it, and no more.
static void bound_buffers(int fd)
{
	int send = 65536, receive = 16384;
	(void)!setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send, sizeof(send));
	(void)!setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive, sizeof(receive));
}

static void fit_descriptors(struct con_http_limits *l)
{
	struct rlimit r;
	if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur == RLIM_INFINITY)
		return;
	rlim_t room =
		r.rlim_cur > 2 * SPARE_FDS ? r.rlim_cur - SPARE_FDS : r.rlim_cur / 2;
	if (l->connections > room)
		l->connections = (unsigned)room;
}

int con_http_new(const struct con_http_options *opt, struct con_http **ret)
{
	struct sockaddr_storage ss;
	socklen_t len;
	int err = sp_target_to_sockaddr(&opt->listen, &ss, &len);
	if (err)
		return err;
	struct con_http *h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	h->opt = *opt;
	fit_descriptors(&h->opt.limits);
	for (int i = 0; i < STATES; i++)
		TAILQ_INIT(&h->list[i]);
	TAILQ_INIT(&h->idle);
	errno = 0;
	h->listener = evconnlistener_new_bind(
		sp_loop_base(opt->loop), on_accept, h,
		LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, 1024,
		(struct sockaddr *)&ss, (int)len);
	if (!h->listener) {
		err = errno ? -errno : -ENOMEM;
		free(h);
		return err;
	}
	bound_buffers(evconnlistener_get_fd(h->listener));
	if (h->opt.tls)
		SSL_CTX_up_ref(h->opt.tls);
	sp_idmap_init(&h->sources);
	sp_timer_init(&h->resume, opt->loop, on_resume, h);
	evconnlistener_set_error_cb(h->listener, on_accept_error);
	*ret = h;
	return 0;
}

void con_http_free(struct con_http *h)
{
	struct con_http_call *c;
	struct source *s;
	if (!h)
		return;
	for (int i = 0; i < STATES; i++)
		while ((c = TAILQ_FIRST(&h->list[i])))
			conn_end(c);
	while ((s = TAILQ_FIRST(&h->idle)))
		source_drop(h, s);
	evconnlistener_free(h->listener);
	sp_timer_done(&h->resume);
	sp_idmap_done(&h->sources);
	SSL_CTX_free(h->opt.tls);
	free(h);
}

void con_http_address(const struct con_http *h, struct sp_target *ret)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	getsockname(evconnlistener_get_fd(h->listener), (struct sockaddr *)&ss, &len);
	sp_target_from_sockaddr((struct sockaddr *)&ss, ret);
}

void con_http_set_tls(struct con_http *h, SSL_CTX *tls)
{
	SSL_CTX_up_ref(tls);
	SSL_CTX_free(h->opt.tls);
	h->opt.tls = tls;
}

const struct con_http_counters *con_http_counters(const struct con_http *h)
{
	return &h->counters;
}

unsigned con_http_connections(const struct con_http *h)
{
	return h->n;
}

unsigned con_http_held(const struct con_http *h)
{
	return h->n_held;
}
