// A worker's tls or tcp port in front of a site, for tests of the cover site: a real HTTP
// server (libevent's) or a scripted one, and probers.
#ifndef COVER_WORLD_H
#define COVER_WORLD_H

#include <event2/buffer.h>
#include <event2/http.h>

#include "tests/unit/link_world.h"
#include "tests/unit/probe.h"
#include "tests/unit/tls_files.h"
#include "worker/cover.h"
#include "worker/listener.h"

struct cover_world;

struct site_conn { // the scripted site's one connection
	int fd;
	struct event ev;
	uint8_t in[1 << 20];
	size_t in_len;
	bool fin, rst;
};

struct cover_world {
	struct link_world *w;
	struct wrk_cover *cover;
	struct wrk_listener *port, *site_port;
	struct sp_tls *tls;
	struct evhttp *http;
	struct sockaddr_in port_addr, site_addr;
	struct site_conn site;
	unsigned site_conns;
};

static struct tls_files cw_files;

static void cw_stranger(void *ctx, struct sp_carrier *c, enum sp_reason why,
			const uint8_t *buf, size_t len, void *waiting)
{
	struct link_world *w = ctx;
	struct cover_world *cw = w->user;

	w->strangers++;
	w->stranger_why = why;
	if (c)
		wrk_cover_relay(cw->cover, c, buf, len, waiting);
}
static void *cw_silent(void *ctx, struct sp_link *l)
{
	struct link_world *w = ctx;

	w->silences++;
	return wrk_cover_wait(((struct cover_world *)w->user)->cover, l);
}
static void cw_silent_over(void *ctx, void *waiting)
{
	struct link_world *w = ctx;

	w->silences_over++;
	wrk_cover_wait_over(((struct cover_world *)w->user)->cover, waiting);
}
static const struct sp_link_worker_ops cw_link = {
	.admit = w_admit,
	.attach = w_attach,
	.make_ticket = w_make_ticket,
	.stranger = cw_stranger,
	.silent = cw_silent,
	.silent_over = cw_silent_over,
	.down = w_down,
};

static void cw_accepted(void *ctx, int fd, const struct sockaddr *peer)
{
	struct cover_world *cw = ctx;
	struct sp_carrier *c;
	struct sp_link *l;

	assert_int_equal(peer->sa_family, AF_INET);
	assert_int_equal(sp_carrier_accepted(fd, peer, cw->tls, &c), 0);
	assert_int_equal(sp_link_accept(cw->w->worker_env, c, &cw_link, cw->w, &l), 0);
}

static struct wrk_listener *
cw_listen(struct cover_world *cw, void (*accepted)(void *, int, const struct sockaddr *),
	  struct sockaddr_in *ret)
{
	struct wrk_listener_options opt = {
		.loop = cw->w->loop, .accepted = accepted, .ctx = cw};
	struct sockaddr_in any = {.sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_storage at;
	struct wrk_listener *l;
	socklen_t len;
	int fd = wrk_listener_bind((struct sockaddr *)&any, sizeof(any), 128);

	assert_true(fd >= 0);
	assert_int_equal(wrk_listener_new(fd, &opt, &l), 0);
	assert_int_equal(wrk_listener_address(l, &at, &len), 0);
	memcpy(ret, &at, sizeof(*ret));
	return l;
}

// ---- the scripted site: takes one connection at a time and does what the test says ----

static void cw_site_read(evutil_socket_t fd, short what, void *arg)
{
	struct site_conn *s = arg;
	ssize_t n;

	(void)what;
	while ((n = recv(fd, s->in + s->in_len, sizeof(s->in) - s->in_len, 0)) > 0)
		s->in_len += (size_t)n;
	s->fin |= n == 0;
	s->rst |= n < 0 && errno != EAGAIN;
	if (n == 0 || errno != EAGAIN)
		event_del(&s->ev);
}

static void cw_site_close(struct cover_world *cw, bool reset)
{
	struct linger at_once = {.l_onoff = 1};

	if (cw->site.fd < 0)
		return;
	event_del(&cw->site.ev);
	if (reset)
		setsockopt(cw->site.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(cw->site.fd);
	cw->site.fd = -1;
}

static void cw_site_accepted(void *ctx, int fd, const struct sockaddr *peer)
{
	struct cover_world *cw = ctx;

	(void)peer;
	cw_site_close(cw, false);
	cw->site_conns++;
	cw->site.fd = fd;
	cw->site.in_len = 0;
	cw->site.fin = cw->site.rst = false;
	event_assign(&cw->site.ev, sp_loop_base(cw->w->loop), fd, EV_READ | EV_PERSIST,
		     cw_site_read, &cw->site);
	event_add(&cw->site.ev, NULL);
}

static inline void cw_site_send(struct cover_world *cw, const void *buf, size_t len)
{
	assert_int_equal(send(cw->site.fd, buf, len, MSG_NOSIGNAL), len);
}

// ---- the real HTTP server ----

static void cw_http(struct evhttp_request *req, void *arg)
{
	struct evbuffer *body = evbuffer_new();
	const char *uri = evhttp_request_get_uri(req);
	struct evkeyvalq *headers = evhttp_request_get_output_headers(req);

	(void)arg;
	// Its own Date would differ between two answers.
	evhttp_add_header(headers, "Date", "Thu, 01 Jan 1970 00:00:00 GMT");
	evhttp_add_header(headers, "Server", "site");
	evbuffer_add_printf(body, "<html>%s</html>", uri);
	for (int i = 0; !strcmp(uri, "/large") && i < 100000; i++)
		evbuffer_add_printf(body, "line %d\n", i);
	evhttp_send_reply(req, strcmp(uri, "/none") ? 200 : 404, "said", body);
	evbuffer_free(body);
}

// ---- the world ----

static struct cover_world *cw_new(bool tls, bool http, uint32_t max_relays)
{
	struct cover_world *cw = calloc(1, sizeof(*cw));
	struct wrk_cover_options opt = {.max_relays = max_relays,
					.idle_ms = 3600000,
					.site_len = sizeof(cw->site_addr)};

	assert_non_null(cw);
	cw->w = world_new();
	cw->w->user = cw;
	cw->site.fd = -1;
	if (tls)
		assert_int_equal(
			sp_tls_server_new(cw_files.cert, cw_files.key, &cw->tls, NULL, 0),
			0);
	cw->port = cw_listen(cw, cw_accepted, &cw->port_addr);
	cw->site_port = cw_listen(cw, cw_site_accepted, &cw->site_addr);
	if (http) {
		wrk_listener_free(cw->site_port);
		cw->site_port = NULL;
		cw->http = evhttp_new(sp_loop_base(cw->w->loop));
		evhttp_set_gencb(cw->http, cw_http, cw);
		evhttp_set_timeout(cw->http, 2);
		assert_int_equal(evhttp_bind_socket(cw->http, "127.0.0.1",
						    ntohs(cw->site_addr.sin_port)),
				 0);
	}
	opt.loop = cw->w->loop;
	memcpy(&opt.site, &cw->site_addr, sizeof(cw->site_addr));
	assert_int_equal(wrk_cover_new(&opt, &cw->cover), 0);
	return cw;
}

static void cw_free(struct cover_world *cw)
{
	sp_link_env_free(cw->w->worker_env);
	cw->w->worker_env = NULL;
	wrk_cover_free(cw->cover);
	wrk_listener_free(cw->port);
	wrk_listener_free(cw->site_port);
	cw_site_close(cw, false);
	if (cw->http)
		evhttp_free(cw->http);
	world_free(cw->w);
	sp_tls_free(cw->tls);
	free(cw);
}

#endif
