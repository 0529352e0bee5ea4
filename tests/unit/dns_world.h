// A small name server for tests: UDP and TCP on one port of 127.0.0.1, on the test's own
// event loop, answering from a table. Static functions, included by the tests that need
// it.
#ifndef TEST_DNS_WORLD_H
#define TEST_DNS_WORLD_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

#define DW_ADDRS   24
#define DW_DELAYED 64

enum dw_kind {
	DW_NODATA,   // NOERROR without an answer, with an SOA
	DW_ADDRS_OK, // the addresses
	DW_CNAME,    // a CNAME, then the addresses
	DW_NXDOMAIN,
	DW_NXDOMAIN_BARE, // without an SOA
	DW_SERVFAIL,
	DW_SILENT,
	DW_TRUNCATED, // UDP: the TC bit and nothing; TCP: the addresses
	DW_MALFORMED, // an answer whose record ends too early
};

struct dw_reply {
	enum dw_kind kind;
	uint32_t ttl, cname_ttl; // cname_ttl: of the CNAME; of the SOA for negative ones
	unsigned delay_ms;
	const char *addrs[DW_ADDRS];
};

struct dw_name {
	const char *name;
	struct dw_reply a, aaaa;
	unsigned a_queries, aaaa_queries; // counted by the server
};

struct dw_delayed {
	struct dns_world *w;
	struct event *ev;
	struct sockaddr_in peer;
	size_t len;
	uint8_t msg[1500];
};

struct dns_world {
	struct event_base *base;
	struct dw_name *names;
	size_t n;
	int fd;
	struct event *ev;
	struct evconnlistener *listener;
	struct bufferevent *tcp;
	unsigned tcp_queries;
	struct dw_delayed delayed[DW_DELAYED];
	unsigned ndelayed;
	char server[32]; // "127.0.0.1:port"
};

static inline uint64_t dw_now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static inline void dw_nothing(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
}

// Runs the loop until the condition holds; fails the test after 20 s.
#define WAIT_UNTIL(base, condition)                                                      \
	do {                                                                             \
		uint64_t dw_until_ = dw_now_ms() + 20000;                                \
		struct timeval dw_tv_ = {0, 10000};                                      \
		struct event *dw_tick_ =                                                 \
			event_new((base), -1, EV_PERSIST, dw_nothing, NULL);             \
		event_add(dw_tick_, &dw_tv_);                                            \
		while (!(condition)) {                                                   \
			if (dw_now_ms() > dw_until_)                                     \
				fail_msg("20 s passed without: %s", #condition);         \
			event_base_loop((base), EVLOOP_ONCE);                            \
		}                                                                        \
		event_free(dw_tick_);                                                    \
	} while (0)

static inline size_t dw_put(uint8_t *msg, size_t at, const void *p, size_t len)
{
	memcpy(msg + at, p, len);
	return at + len;
}

static inline size_t dw_put16(uint8_t *msg, size_t at, unsigned v)
{
	uint8_t b[2] = {(uint8_t)(v >> 8), (uint8_t)v};
	return dw_put(msg, at, b, 2);
}

static inline size_t dw_put32(uint8_t *msg, size_t at, uint32_t v)
{
	return dw_put16(msg, dw_put16(msg, at, v >> 16), v & 0xffff);
}

// owner: where its name stands in the message
static inline size_t dw_put_head(uint8_t *msg, size_t at, unsigned owner, unsigned type,
				 uint32_t ttl, unsigned len)
{
	at = dw_put16(msg, at, 0xc000 | owner);
	at = dw_put16(msg, at, type);
	at = dw_put16(msg, at, 1);
	at = dw_put32(msg, at, ttl);
	return dw_put16(msg, at, len);
}

static inline size_t dw_put_soa(uint8_t *msg, size_t at, uint32_t ttl)
{
	at = dw_put_head(msg, at, 12, 6, 86400, 4 + 20);
	at = dw_put16(msg, at, 0xc00c);
	at = dw_put16(msg, at, 0xc00c);
	for (int i = 0; i < 4; i++)
		at = dw_put32(msg, at, 1);
	return dw_put32(msg, at, ttl);
}

static inline size_t dw_put_answers(uint8_t *msg, size_t at, const struct dw_reply *r,
				    unsigned type, unsigned *ret_count)
{
	unsigned owner = 12, size = type == 1 ? 4 : 16;
	if (r->kind == DW_CNAME) {
		at = dw_put_head(msg, at, 12, 5, r->cname_ttl, 8);
		owner = (unsigned)at;
		at = dw_put(msg, at, "\4real\1x", 8); // the literal's NUL is the root
		++*ret_count;
	}
	for (int i = 0; i < DW_ADDRS && r->addrs[i]; i++) {
		uint8_t addr[16];
		assert_int_equal(
			inet_pton(type == 1 ? AF_INET : AF_INET6, r->addrs[i], addr), 1);
		at = dw_put_head(msg, at, owner, type, r->ttl, size);
		at = dw_put(msg, at, addr, size);
		++*ret_count;
	}
	return at;
}

// Makes the reply to a query of `qlen` bytes in place. 0: none.
static inline size_t dw_answer(struct dns_world *w, uint8_t *msg, size_t qlen, bool tcp,
			       unsigned *ret_delay_ms)
{
	char name[256];
	size_t at = 12, n = 0;
	assert_true(qlen >= 17);
	while (msg[at]) {
		memcpy(name + n, msg + at + 1, msg[at]);
		n += msg[at];
		name[n++] = '.';
		at += 1u + msg[at];
	}
	name[n ? n - 1 : 0] = '\0';
	unsigned type = msg[at + 2];
	at += 5;
	struct dw_name *e = NULL;
	for (size_t i = 0; i < w->n; i++)
		if (strcasecmp(w->names[i].name, name) == 0)
			e = &w->names[i];
	if (!e)
		fail_msg("nobody should ask for %s", name);
	const struct dw_reply *r = type == 1 ? &e->a : &e->aaaa;
	++*(type == 1 ? &e->a_queries : &e->aaaa_queries);
	*ret_delay_ms = r->delay_ms;
	if (r->kind == DW_SILENT)
		return 0;
	unsigned flags = 0x8180, answers = 0, authorities = 0;
	if (r->kind == DW_TRUNCATED && !tcp)
		flags |= 0x0200;
	else if (r->kind == DW_SERVFAIL)
		flags |= 2;
	else if (r->kind == DW_NXDOMAIN || r->kind == DW_NXDOMAIN_BARE)
		flags |= 3;
	else
		at = dw_put_answers(msg, at, r, type, &answers);
	if (r->kind == DW_NODATA || r->kind == DW_NXDOMAIN) {
		at = dw_put_soa(msg, at, r->cname_ttl);
		authorities = 1;
	}
	if (r->kind == DW_MALFORMED)
		at -= 2;
	dw_put16(msg, 2, flags);
	dw_put16(msg, 4, 1);
	dw_put16(msg, 6, answers);
	dw_put16(msg, 8, authorities);
	dw_put16(msg, 10, 0);
	return at;
}

static inline void dw_send_delayed(evutil_socket_t fd, short what, void *arg)
{
	struct dw_delayed *d = arg;
	(void)fd, (void)what;
	sendto(d->w->fd, d->msg, d->len, 0, (struct sockaddr *)&d->peer, sizeof(d->peer));
}

static inline void dw_udp(evutil_socket_t fd, short what, void *arg)
{
	struct dns_world *w = arg;
	struct sockaddr_in peer;
	socklen_t peer_len = sizeof(peer);
	uint8_t msg[1500];
	unsigned delay = 0;
	(void)what;
	ssize_t got = recvfrom(fd, msg, 512, 0, (struct sockaddr *)&peer, &peer_len);
	if (got < 0)
		return;
	size_t len = dw_answer(w, msg, (size_t)got, false, &delay);
	if (len && !delay)
		sendto(fd, msg, len, 0, (struct sockaddr *)&peer, peer_len);
	if (!len || !delay)
		return;
	assert_true(w->ndelayed < DW_DELAYED);
	struct dw_delayed *d = &w->delayed[w->ndelayed++];
	struct timeval tv = {delay / 1000, delay % 1000 * 1000};
	d->w = w;
	d->peer = peer;
	d->len = len;
	memcpy(d->msg, msg, len);
	d->ev = evtimer_new(w->base, dw_send_delayed, d);
	assert_int_equal(evtimer_add(d->ev, &tv), 0);
}

static inline void dw_tcp_read(struct bufferevent *bev, void *arg)
{
	struct dns_world *w = arg;
	uint8_t head[2], msg[1500];
	unsigned delay;
	struct evbuffer *in = bufferevent_get_input(bev);
	while (evbuffer_get_length(in) >= 2) {
		evbuffer_copyout(in, head, 2);
		size_t len = (size_t)head[0] << 8 | head[1];
		if (evbuffer_get_length(in) < 2 + len)
			return;
		evbuffer_drain(in, 2);
		evbuffer_remove(in, msg, len);
		w->tcp_queries++;
		len = dw_answer(w, msg, len, true, &delay);
		dw_put16(head, 0, (unsigned)len);
		bufferevent_write(bev, head, 2);
		bufferevent_write(bev, msg, len);
	}
}

static inline void dw_tcp_accept(struct evconnlistener *l, evutil_socket_t fd,
				 struct sockaddr *sa, int len, void *arg)
{
	struct dns_world *w = arg;
	(void)l, (void)sa, (void)len;
	if (w->tcp)
		bufferevent_free(w->tcp);
	w->tcp = bufferevent_socket_new(w->base, fd, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(w->tcp, dw_tcp_read, NULL, NULL, w);
	bufferevent_enable(w->tcp, EV_READ | EV_WRITE);
}

static inline void dw_start(struct dns_world *w, struct event_base *base,
			    struct dw_name *names, size_t n)
{
	struct sockaddr_in sa = {.sin_family = AF_INET};
	socklen_t len = sizeof(sa);
	memset(w, 0, sizeof(*w));
	w->base = base;
	w->names = names;
	w->n = n;
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	for (int tries = 0; !w->listener && tries < 20; tries++) { // one port for both
		sa.sin_port = 0;
		w->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
		assert_int_equal(bind(w->fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
		assert_int_equal(getsockname(w->fd, (struct sockaddr *)&sa, &len), 0);
		w->listener = evconnlistener_new_bind(
			base, dw_tcp_accept, w, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE,
			-1, (struct sockaddr *)&sa, sizeof(sa));
		if (!w->listener)
			close(w->fd);
	}
	assert_non_null(w->listener);
	w->ev = event_new(base, w->fd, EV_READ | EV_PERSIST, dw_udp, w);
	assert_int_equal(event_add(w->ev, NULL), 0);
	snprintf(w->server, sizeof(w->server), "127.0.0.1:%u", ntohs(sa.sin_port));
}

static inline void dw_stop(struct dns_world *w)
{
	for (unsigned i = 0; i < w->ndelayed; i++)
		event_free(w->delayed[i].ev);
	if (w->tcp)
		bufferevent_free(w->tcp);
	evconnlistener_free(w->listener);
	event_free(w->ev);
	close(w->fd);
}

#endif
