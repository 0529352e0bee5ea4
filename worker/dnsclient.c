#include "worker/dnsclient.h"

#include <ares.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/uio.h>
#include <unistd.h>

#include <event2/event.h>

#define DNS_PORT       53
#define DNS_CLASS_IN   1
#define DNS_TYPE_A     1
#define DNS_TYPE_AAAA  28
#define EDNS_UDP_BYTES 1232 // fits any path that carries IPv6 unfragmented

struct dns_socket {
	LIST_ENTRY(dns_socket) link;
	struct wrk_dnsclient *c;
	ares_socket_t fd;
	struct event *ev;
};

struct wrk_dnsclient {
	struct event_base *base;
	ares_channel channel;
	struct event *timer;
	LIST_HEAD(, dns_socket) sockets;
	int socket_error; // errno of the last socket that could not be made; 0: it could
	bool heard;       // the last attempt to read gave bytes: a server is there
	bool library, dying;
};

struct query {
	struct wrk_dnsclient *c;
	void (*done)(void *ctx, const struct wrk_dnsanswer *a);
	void *ctx;
	int family;
};

// ---- sockets, as c-ares asks for them ----

static ares_socket_t open_socket(int family, int type, int protocol, void *arg)
{
	struct wrk_dnsclient *c = arg;
	int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
	c->socket_error = fd < 0 ? errno : 0;
	return fd;
}

static int close_socket(ares_socket_t fd, void *arg)
{
	(void)arg;
	return close(fd);
}

static int connect_socket(ares_socket_t fd, const struct sockaddr *sa, ares_socklen_t len,
			  void *arg)
{
	(void)arg;
	return connect(fd, sa, len);
}

static ares_ssize_t receive(ares_socket_t fd, void *buf, size_t len, int flags,
			    struct sockaddr *from, ares_socklen_t *from_len, void *arg)
{
	ssize_t n = recvfrom(fd, buf, len, flags, from, from_len);
	((struct wrk_dnsclient *)arg)->heard = n > 0;
	return n;
}

static ares_ssize_t send_segments(ares_socket_t fd, const struct iovec *iov, int iovcnt,
				  void *arg)
{
	(void)arg;
	struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov,
			     .msg_iovlen = (size_t)iovcnt};
	return sendmsg(fd, &msg, MSG_NOSIGNAL);
}

static const struct ares_socket_functions socket_functions = {
	.asocket = open_socket,
	.aclose = close_socket,
	.aconnect = connect_socket,
	.arecvfrom = receive,
	.asendv = send_segments,
};

// ---- events ----

static void set_timer(struct wrk_dnsclient *c)
{
	struct timeval tv;
	if (ares_timeout(c->channel, NULL, &tv))
		(void)event_add(c->timer, &tv);
	else
		(void)event_del(c->timer);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct wrk_dnsclient *c = arg;
	(void)fd, (void)what;
	c->heard = false;
	ares_process_fd(c->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	set_timer(c);
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
	struct wrk_dnsclient *c = ((struct dns_socket *)arg)->c; // may be freed below
	ares_process_fd(c->channel, what & EV_READ ? fd : ARES_SOCKET_BAD,
			what & EV_WRITE ? fd : ARES_SOCKET_BAD);
	set_timer(c);
}

static struct dns_socket *find_socket(struct wrk_dnsclient *c, ares_socket_t fd)
{
	struct dns_socket *s;
	LIST_FOREACH(s, &c->sockets, link)
	if (s->fd == fd)
		return s;
	return NULL;
}

static void forget_socket(struct dns_socket *s)
{
	LIST_REMOVE(s, link);
	if (s->ev)
		event_free(s->ev);
	free(s);
}

// c-ares wants to know when `fd` can be read or written; neither: it closes it. Without
// memory for an event the query ends by its time.
static void socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct wrk_dnsclient *c = arg;
	struct dns_socket *s = find_socket(c, fd);
	short what = (short)(EV_PERSIST | (readable ? EV_READ : 0) |
			     (writable ? EV_WRITE : 0));
	if (!readable && !writable) {
		if (s)
			forget_socket(s);
		return;
	}
	if (!s) {
		s = calloc(1, sizeof(*s));
		if (!s)
			return;
		s->c = c;
		s->fd = fd;
		LIST_INSERT_HEAD(&c->sockets, s, link);
	}
	if (s->ev)
		event_free(s->ev);
	s->ev = event_new(c->base, fd, what, on_socket, s);
	if (s->ev)
		(void)event_add(s->ev, NULL);
}

// ---- queries ----

static bool is_out_of_descriptors(int err)
{
	return err == EMFILE || err == ENFILE;
}

static enum sp_reason reason_of_status(const struct wrk_dnsclient *c, int status)
{
	switch (status) {
	case ARES_ENOMEM:
		return SP_REASON_NO_MEMORY;
	case ARES_ETIMEOUT:
		return is_out_of_descriptors(c->socket_error) ? SP_REASON_NO_DESCRIPTORS
							      : SP_REASON_RESOLVE_TIMEOUT;
	case ARES_ECONNREFUSED:
		// Also what c-ares 1.18 says when every server answered SERVFAIL,
		// REFUSED or NOTIMP; then it has just read such an answer.
		if (is_out_of_descriptors(c->socket_error))
			return SP_REASON_NO_DESCRIPTORS;
		return c->heard ? SP_REASON_RESOLVE_FAILED : SP_REASON_RESOLVE_TIMEOUT;
	default:
		return SP_REASON_RESOLVE_FAILED;
	}
}

static void on_response(void *arg, int status, int timeouts, unsigned char *msg, int len)
{
	struct query *q = arg;
	struct wrk_dnsanswer a = {.family = q->family};
	(void)timeouts;
	if (q->c->dying) {
		free(q);
		return;
	}
	bool answered = status == ARES_SUCCESS || status == ARES_ENODATA ||
			status == ARES_ENOTFOUND;
	if (!answered || !msg || len < 0 ||
	    wrk_dnsmsg_parse(msg, (size_t)len, q->family, &a))
		a.status = reason_of_status(q->c, status);
	q->done(q->ctx, &a);
	free(q);
}

void wrk_dnsclient_query(struct wrk_dnsclient *c, const char *name, int family,
			 void (*done)(void *ctx, const struct wrk_dnsanswer *a),
			 void *ctx)
{
	struct query *q = malloc(sizeof(*q));
	if (!q) {
		struct wrk_dnsanswer a = {.family = family,
					  .status = SP_REASON_NO_MEMORY};
		done(ctx, &a);
		return;
	}
	c->heard = false;
	*q = (struct query){.c = c, .done = done, .ctx = ctx, .family = family};
	ares_query(c->channel, name, DNS_CLASS_IN,
		   family == AF_INET ? DNS_TYPE_A : DNS_TYPE_AAAA, on_response, q);
	set_timer(c);
}

// ---- life ----

static int parse_server(const char *text, struct ares_addr_port_node *ret)
{
	struct sp_target t;
	if (sp_target_parse(text, &t) &&
	    sp_target_set_host(&t, text, strlen(text), DNS_PORT))
		return SP_E_CONFIG;
	if (t.kind == SP_TARGET_NAME || t.port == 0)
		return SP_E_CONFIG;
	ret->family = t.kind == SP_TARGET_IPV4 ? AF_INET : AF_INET6;
	if (t.kind == SP_TARGET_IPV4)
		memcpy(&ret->addr.addr4, t.v4, 4);
	else
		memcpy(&ret->addr.addr6, t.v6, 16);
	ret->udp_port = ret->tcp_port = t.port;
	return 0;
}

static int set_servers(struct wrk_dnsclient *c, const struct wrk_dnsclient_options *opt)
{
	if (opt->nservers == 0)
		return 0;
	struct ares_addr_port_node *nodes = calloc(opt->nservers, sizeof(*nodes));
	int err = nodes ? 0 : -ENOMEM;
	for (size_t i = 0; !err && i < opt->nservers; i++) {
		err = parse_server(opt->servers[i], &nodes[i]);
		if (i)
			nodes[i - 1].next = &nodes[i];
	}
	if (!err && ares_set_servers_ports(c->channel, nodes) != ARES_SUCCESS)
		err = -ENOMEM;
	free(nodes);
	return err;
}

static int init_channel(struct wrk_dnsclient *c, const struct wrk_dnsclient_options *opt)
{
	char lookups[] = "b", nothing[] = "/dev/null";
	struct ares_options o = {
		.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_EDNS,
		.timeout = (int)opt->try_ms,
		.tries = (int)opt->tries,
		.ednspsz = EDNS_UDP_BYTES,
		.lookups = lookups, // name servers only, no /etc/hosts
		.resolvconf_path = nothing,
		.sock_state_cb = socket_state,
		.sock_state_cb_data = c,
	};
	int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
		   ARES_OPT_EDNSPSZ | ARES_OPT_LOOKUPS | ARES_OPT_DOMAINS |
		   ARES_OPT_SOCK_STATE_CB | (opt->nservers ? ARES_OPT_RESOLVCONF : 0);
	if (ares_init_options(&c->channel, &o, mask) != ARES_SUCCESS) {
		c->channel = NULL;
		return -ENOMEM;
	}
	ares_set_socket_functions(c->channel, &socket_functions, c);
	return set_servers(c, opt);
}

int wrk_dnsclient_new(const struct wrk_dnsclient_options *opt, struct wrk_dnsclient **ret)
{
	struct wrk_dnsclient *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	LIST_INIT(&c->sockets);
	c->base = opt->base;
	c->library = ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS;
	c->timer = event_new(opt->base, -1, 0, on_timer, c);
	int err = c->library && c->timer ? init_channel(c, opt) : -ENOMEM;
	if (err) {
		wrk_dnsclient_free(c);
		return err;
	}
	*ret = c;
	return 0;
}

void wrk_dnsclient_free(struct wrk_dnsclient *c)
{
	if (!c)
		return;
	c->dying = true;
	if (c->channel)
		ares_destroy(c->channel);
	while (!LIST_EMPTY(&c->sockets))
		forget_socket(LIST_FIRST(&c->sockets));
	if (c->timer)
		event_free(c->timer);
	if (c->library)
		ares_library_cleanup();
	free(c);
}
