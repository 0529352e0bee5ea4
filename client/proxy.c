#include "client/proxy.h"

#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/httpconnect.h"
#include "client/socks5.h"
#include "lib/log.h"

#define TURN_ACCEPTS 64
#define BACKLOG      1024
#define PAUSE_US     100000 // until accepting is tried again

struct conn { // until its request is read
	TAILQ_ENTRY(conn) entry;
	struct cli_proxy *p;
	enum cli_proxy_kind kind;
	bool closed;
	int fd;
	uint64_t end_us;
	struct event ev;
	struct sp_deferred reap;
	union {
		struct cli_socks5 socks;
		struct cli_http http;
	};
};
TAILQ_HEAD(conn_list, conn);

struct listener {
	struct cli_proxy *p;
	enum cli_proxy_kind kind;
	int fd;
	struct sp_target address;
	struct event ev;
};

struct cli_proxy {
	struct cli_proxy_options opt;
	struct listener listener[CLI_PROXY_LISTENERS];
	unsigned n_listeners;
	bool paused, stopped;
	struct conn_list conns; // the oldest first
	struct sp_timer timer;
	struct sp_timer pause;
	struct sp_ratelimit log_limit;
	struct cli_proxy_counters n;
};

// ---- answers ----

static size_t socks_ok(const struct sp_target *bound, uint8_t buf[CLI_ANSWER_MAX])
{
	return cli_socks5_reply(CLI_SOCKS5_OK, bound, buf);
}

static size_t socks_failed(enum sp_reason reason, uint8_t buf[CLI_ANSWER_MAX])
{
	return cli_socks5_reply(cli_socks5_code(reason), NULL, buf);
}

static size_t http_ok(const struct sp_target *bound, uint8_t buf[CLI_ANSWER_MAX])
{
	(void)bound;
	return cli_http_ok((char *)buf);
}

static size_t http_failed(enum sp_reason reason, uint8_t buf[CLI_ANSWER_MAX])
{
	return cli_http_failed(reason, (char *)buf);
}

static const struct cli_answers answers_of[] = {
	[CLI_PROXY_SOCKS] = {socks_ok, socks_failed},
	[CLI_PROXY_HTTP] = {http_ok, http_failed},
};

_Static_assert(CLI_ANSWER_MAX >= CLI_HTTP_ANSWER_MAX, "room for any answer");
_Static_assert(CLI_ANSWER_MAX >= CLI_SOCKS5_REPLY_MAX, "room for any answer");

// ---- a connection until its request is read ----

static void on_reap(struct sp_deferred *d)
{
	free((char *)d - offsetof(struct conn, reap));
}

static void set_timer(struct cli_proxy *p)
{
	const struct conn *c = TAILQ_FIRST(&p->conns);
	sp_timer_set(&p->timer, c ? c->end_us : SP_LOOP_NEVER);
}

// The object ends; its descriptor (if any is left) is closed.
static void conn_done(struct conn *c)
{
	struct cli_proxy *p = c->p;
	if (c->closed)
		return;
	c->closed = true;
	TAILQ_REMOVE(&p->conns, c, entry);
	p->n.half_open--;
	event_del(&c->ev);
	if (c->fd >= 0) {
		close(c->fd);
		cli_proxy_one_less(p);
	}
	set_timer(p);
	sp_loop_reap(p->opt.loop, &c->reap);
}

// Sends the last words and ends in order.
static void conn_answer(struct conn *c, const void *buf, size_t len)
{
	struct cli_proxy *p = c->p;
	p->n.refused[c->kind]++;
	event_del(&c->ev);
	if (send(c->fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len) {
		cli_linger_add(p->opt.linger, c->fd);
		c->fd = -1;
		cli_proxy_one_less(p);
	}
	conn_done(c);
}

// The request is read: the connection is a stream's from now on.
static void conn_connect(struct conn *c, const struct sp_target *target)
{
	int fd = c->fd;
	c->fd = -1;
	conn_done(c);
	cli_streams_add(c->p->opt.streams, fd, target, &answers_of[c->kind]);
}

static void conn_associate(struct conn *c)
{
	uint8_t reply[CLI_SOCKS5_REPLY_MAX];
	event_del(&c->ev);
	int err = cli_udp_add(c->p->opt.udp, c->fd);
	if (err) {
		sp_warn_limited(&c->p->log_limit, sp_loop_now_ms(c->p->opt.loop), "proxy",
				"no UDP association", "why=%s", sp_strerror(err));
		conn_answer(c, reply, cli_socks5_reply(CLI_SOCKS5_GENERAL, NULL, reply));
		return;
	}
	c->fd = -1;
	conn_done(c);
}

static void socks_event(struct conn *c, enum cli_socks5_event event)
{
	uint8_t reply[CLI_SOCKS5_REPLY_MAX];
	switch (event) {
	case CLI_SOCKS5_MORE:
		return;
	case CLI_SOCKS5_METHOD:
		if (send(c->fd, "\5\0", 2, MSG_NOSIGNAL | MSG_DONTWAIT) != 2)
			conn_done(c);
		return;
	case CLI_SOCKS5_NO_METHOD:
		conn_answer(c, "\5\xff", 2);
		return;
	case CLI_SOCKS5_REFUSE:
		conn_answer(c, reply,
			    cli_socks5_reply((enum cli_socks5_code)c->socks.code, NULL,
					     reply));
		return;
	case CLI_SOCKS5_NOT_SOCKS:
		conn_answer(c, "", 0);
		return;
	case CLI_SOCKS5_REQUEST:
		break;
	}
	if (c->socks.command == CLI_SOCKS5_CONNECT)
		conn_connect(c, &c->socks.target);
	else if (c->socks.command == CLI_SOCKS5_UDP_ASSOCIATE)
		conn_associate(c);
	else // BIND: an exit accepts nothing on behalf of others
		conn_answer(c, reply, cli_socks5_reply(CLI_SOCKS5_COMMAND, NULL, reply));
}

static void http_event(struct conn *c, enum cli_http_event event)
{
	char buf[CLI_HTTP_ANSWER_MAX];
	switch (event) {
	case CLI_HTTP_MORE:
		return;
	case CLI_HTTP_REQUEST:
		conn_connect(c, &c->http.target);
		return;
	case CLI_HTTP_REFUSE:
		conn_answer(c, buf, cli_http_bad(c->http.status, buf));
		return;
	}
}

// Takes from the socket exactly what belongs to the request: what follows is the
// application's and stays there. False: nothing more to do now.
static bool conn_step(struct conn *c)
{
	uint8_t buf[4096];
	size_t used;
	ssize_t n = recv(c->fd, buf, sizeof(buf), MSG_PEEK | MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		conn_done(c);
		return false;
	}
	if (c->kind == CLI_PROXY_SOCKS) {
		enum cli_socks5_event event;
		used = cli_socks5_feed(&c->socks, buf, (size_t)n, &event);
		if (used && recv(c->fd, buf, used, MSG_DONTWAIT) != (ssize_t)used)
			conn_done(c);
		else
			socks_event(c, event);
	} else {
		enum cli_http_event event;
		used = cli_http_feed(&c->http, (char *)buf, (size_t)n, &event);
		if (used && recv(c->fd, buf, used, MSG_DONTWAIT) != (ssize_t)used)
			conn_done(c);
		else
			http_event(c, event);
	}
	return !c->closed;
}

static void on_request(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	(void)fd;
	(void)what;
	(void)sp_loop_now_us(c->p->opt.loop);
	while (conn_step(c))
		;
}

static void on_timer(void *arg)
{
	struct cli_proxy *p = arg;
	struct conn *c;
	while ((c = TAILQ_FIRST(&p->conns)) && c->end_us <= sp_loop_now_us(p->opt.loop)) {
		p->n.timed_out++;
		conn_done(c);
	}
	set_timer(p);
}

// ---- listeners ----

static void resume(struct cli_proxy *p)
{
	if (!p->paused || p->stopped || p->n.connections >= p->opt.max_connections)
		return;
	p->paused = false;
	for (unsigned i = 0; i < p->n_listeners; i++)
		event_add(&p->listener[i].ev, NULL);
}

static void pause_accepting(struct cli_proxy *p, bool for_a_while)
{
	p->n.paused++;
	p->paused = true;
	for (unsigned i = 0; i < p->n_listeners; i++)
		event_del(&p->listener[i].ev);
	if (for_a_while)
		sp_timer_set(&p->pause, sp_loop_now_us(p->opt.loop) + PAUSE_US);
}

static void on_pause_over(void *arg)
{
	resume(arg);
}

void cli_proxy_one_less(void *proxy)
{
	struct cli_proxy *p = proxy;
	p->n.connections--;
	resume(p);
}

static void conn_new(struct listener *l, int fd)
{
	struct cli_proxy *p = l->p;
	struct conn *c = calloc(1, sizeof(*c));
	if (!c) {
		close(fd);
		return;
	}
	if (p->n.half_open >= p->opt.max_half_open) {
		p->n.evicted++;
		conn_done(TAILQ_FIRST(&p->conns));
	}
	c->p = p;
	c->kind = l->kind;
	c->fd = fd;
	c->reap.run = on_reap;
	c->end_us = sp_loop_now_us(p->opt.loop) + (uint64_t)p->opt.request_ms * 1000;
	if (c->kind == CLI_PROXY_SOCKS)
		cli_socks5_init(&c->socks);
	else
		cli_http_init(&c->http);
	TAILQ_INSERT_TAIL(&p->conns, c, entry);
	p->n.accepted[c->kind]++;
	p->n.half_open++;
	p->n.connections++;
	event_assign(&c->ev, sp_loop_base(p->opt.loop), fd, EV_READ | EV_PERSIST,
		     on_request, c);
	event_add(&c->ev, NULL);
	set_timer(p);
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
	struct listener *l = arg;
	struct cli_proxy *p = l->p;
	(void)what;
	for (int i = 0; i < TURN_ACCEPTS && !p->paused && !p->stopped; i++) {
		if (p->n.connections >= p->opt.max_connections) {
			pause_accepting(p, false);
			return;
		}
		int c = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (c >= 0) {
			conn_new(l, c);
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
			   errno == ENOBUFS) {
			sp_warn_limited(&p->log_limit, sp_loop_now_ms(p->opt.loop),
					"proxy", "cannot accept", "why=%s",
					strerror(errno));
			pause_accepting(p, true);
		} else if (errno == EAGAIN) {
			return;
		}
	}
}

static int make_listener(const struct sp_target *address, int *ret_fd,
			 struct sp_target *ret_bound)
{
	struct sockaddr_storage sa;
	socklen_t len;
	int one = 1, err = sp_target_to_sockaddr(address, &sa, &len);
	if (err)
		return err;
	int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (sa.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&sa, len) < 0 || listen(fd, BACKLOG) < 0 ||
	    getsockname(fd, (struct sockaddr *)&sa, &len) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	sp_target_from_sockaddr((const struct sockaddr *)&sa, ret_bound);
	*ret_fd = fd;
	return 0;
}

int cli_proxy_listen(struct cli_proxy *p, enum cli_proxy_kind kind,
		     const struct sp_target *address)
{
	struct listener *l = &p->listener[p->n_listeners];
	if (p->n_listeners == CLI_PROXY_LISTENERS)
		return SP_E_LIMIT;
	int err = make_listener(address, &l->fd, &l->address);
	if (err)
		return err;
	l->p = p;
	l->kind = kind;
	p->n_listeners++;
	event_assign(&l->ev, sp_loop_base(p->opt.loop), l->fd, EV_READ | EV_PERSIST,
		     on_accept, l);
	event_add(&l->ev, NULL);
	return 0;
}

const struct sp_target *cli_proxy_address(const struct cli_proxy *p, unsigned i,
					  enum cli_proxy_kind *ret_kind)
{
	if (i >= p->n_listeners)
		return NULL;
	*ret_kind = p->listener[i].kind;
	return &p->listener[i].address;
}

// ---- life ----

int cli_proxy_new(const struct cli_proxy_options *opt, struct cli_proxy **ret)
{
	struct cli_proxy *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->opt = *opt;
	p->log_limit = (struct sp_ratelimit){.per_second = 1, .burst = 5};
	TAILQ_INIT(&p->conns);
	sp_timer_init(&p->timer, opt->loop, on_timer, p);
	sp_timer_init(&p->pause, opt->loop, on_pause_over, p);
	*ret = p;
	return 0;
}

void cli_proxy_stop(struct cli_proxy *p)
{
	if (p->stopped)
		return;
	p->stopped = true;
	for (unsigned i = 0; i < p->n_listeners; i++) {
		event_del(&p->listener[i].ev);
		close(p->listener[i].fd);
	}
	p->n_listeners = 0;
}

void cli_proxy_free(struct cli_proxy *p)
{
	if (!p)
		return;
	cli_proxy_stop(p);
	while (!TAILQ_EMPTY(&p->conns))
		conn_done(TAILQ_FIRST(&p->conns));
	sp_timer_done(&p->timer);
	sp_timer_done(&p->pause);
	free(p);
}

const struct cli_proxy_counters *cli_proxy_counters(const struct cli_proxy *p)
{
	return &p->n;
}
