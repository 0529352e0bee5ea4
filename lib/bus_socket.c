#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/bus_internal.h"

#define SCHEME  "tcp://"
#define BACKLOG 4096

static void pump(struct bus_socket *s)
{
	for (int i = 0; i < BUS_TURN_MAX; i++)
		if (!s->zmq || !s->take(s->owner))
			return;
	bus_socket_again(s); // the others' turn, then again
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	pump(arg);
}

static void on_again(struct sp_deferred *d)
{
	pump((struct bus_socket *)((char *)d - offsetof(struct bus_socket, again)));
}

int bus_socket_open(struct bus_socket *s, struct sp_loop *loop, void *zmq_ctx, int type,
		    bool (*take)(void *owner), void *owner)
{
	*s = (struct bus_socket){.loop = loop, .take = take, .owner = owner};
	s->again.run = on_again;
	s->zmq = zmq_socket(zmq_ctx, type);
	return s->zmq ? bus_socket_int(s, ZMQ_LINGER, 0) : -errno;
}

void bus_socket_close(struct bus_socket *s)
{
	if (!s->zmq)
		return;
	if (s->ev.ev_base)
		event_del(&s->ev);
	sp_loop_defer_cancel(&s->again);
	zmq_close(s->zmq);
	*s = (struct bus_socket){0};
}

int bus_socket_watch(struct bus_socket *s)
{
	int fd;
	size_t len = sizeof(fd);
	if (zmq_getsockopt(s->zmq, ZMQ_FD, &fd, &len))
		return -errno;
	if (event_assign(&s->ev, sp_loop_base(s->loop), fd, EV_READ | EV_PERSIST,
			 on_readable, s) ||
	    event_add(&s->ev, NULL))
		return -ENOMEM;
	bus_socket_again(s);
	return 0;
}

void bus_socket_again(struct bus_socket *s)
{
	sp_loop_defer(s->loop, &s->again);
}

int bus_socket_int(struct bus_socket *s, int option, int value)
{
	return zmq_setsockopt(s->zmq, option, &value, sizeof(value)) ? -errno : 0;
}

int bus_socket_options(struct bus_socket *s, int64_t message_max, const char *endpoint)
{
	const struct {
		int option, value;
	} all[] = {
		{ZMQ_SNDHWM, SP_BUS_QUEUE},
		{ZMQ_RCVHWM, SP_BUS_QUEUE},
		{ZMQ_HANDSHAKE_IVL, SP_BUS_HANDSHAKE_MS},
		{ZMQ_TCP_KEEPALIVE, 1},
		{ZMQ_TCP_KEEPALIVE_IDLE, 6},
		{ZMQ_TCP_KEEPALIVE_INTVL, 3},
		{ZMQ_TCP_KEEPALIVE_CNT, 3},
		{ZMQ_TCP_MAXRT, SP_BUS_UNREAD_MS},
		{ZMQ_BACKLOG, BACKLOG},
		// A SYN that a full queue drops is sent again after up to a minute.
		{ZMQ_CONNECT_TIMEOUT, SP_BUS_HANDSHAKE_MS},
		{ZMQ_RECONNECT_IVL, 200},
		{ZMQ_RECONNECT_IVL_MAX, 5000},
		{ZMQ_IPV6, strchr(endpoint, '[') != NULL},
	};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		int err = bus_socket_int(s, all[i].option, all[i].value);
		if (err)
			return err;
	}
	if (zmq_setsockopt(s->zmq, ZMQ_MAXMSGSIZE, &message_max, sizeof(message_max)))
		return -errno;
	return 0;
}

void bus_skip_frames(void *zmq, bool more)
{
	while (more) {
		zmq_msg_t m;
		zmq_msg_init(&m);
		if (zmq_msg_recv(&m, zmq, ZMQ_DONTWAIT) < 0)
			more = false;
		else
			more = zmq_msg_more(&m);
		zmq_msg_close(&m);
	}
}

const char *bus_domain_word(enum sp_bus_domain domain)
{
	return domain == SP_BUS_FLEET ? "fleet" : "enrol";
}

void bus_seed(void)
{
	srand(randombytes_random());
}

// ---- listening ----

// "[2001:db8::1]:7201", "192.0.2.1:*", "*:7201" into a host and a port as getaddrinfo
// takes them.
static bool split(const char *endpoint, char *host, size_t host_cap, char *port,
		  size_t port_cap)
{
	if (strncmp(endpoint, SCHEME, strlen(SCHEME)) != 0)
		return false;
	const char *h = endpoint + strlen(SCHEME), *colon = strrchr(h, ':');
	if (!colon || colon == h)
		return false;
	size_t n = (size_t)(colon - h), port_len = strlen(colon + 1);
	if (*h == '[') {
		if (h[n - 1] != ']' || n < 3)
			return false;
		h++;
		n -= 2;
	}
	if (n >= host_cap || port_len == 0 || port_len >= port_cap)
		return false;
	memcpy(host, h, n);
	host[n] = '\0';
	memcpy(port, colon + 1, port_len + 1);
	if (strcmp(host, "*") == 0)
		strcpy(host, "0.0.0.0");
	if (strcmp(port, "*") == 0)
		strcpy(port, "0");
	return true;
}

static int listen_at(const struct addrinfo *a)
{
	int one = 1, off = 0;
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    (a->ai_family == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off))) ||
	    bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, BACKLOG)) {
		int err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

int bus_listen(const char *endpoint, int *ret)
{
	const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV |
						   AI_PASSIVE,
				       .ai_socktype = SOCK_STREAM};
	char host[64], port[8];
	struct addrinfo *a;
	if (!split(endpoint, host, sizeof(host), port, sizeof(port)) ||
	    getaddrinfo(host, port, &hints, &a))
		return SP_E_MALFORMED;
	int fd = listen_at(a);
	freeaddrinfo(a);
	if (fd < 0)
		return fd;
	*ret = fd;
	return 0;
}

int bus_socket_bind_fd(struct bus_socket *s, int fd, const char *endpoint)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return -errno;
	int err = bus_socket_int(s, ZMQ_USE_FD, copy);
	if (!err && zmq_bind(s->zmq, endpoint))
		err = -errno;
	if (err)
		close(copy);
	return err;
}
