// The origin of `make bench`: three services on loopback, one thread, epoll.
//   bulk   8 bytes, a big-endian count; answers with that many bytes of the pattern,
//   closes short  100 bytes; answers with 1,024 bytes of the pattern, closes idle   any
//   byte; answers with one byte, then stays until the peer closes
// Prints one JSON line with the three ports and serves until it is ended.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/benchlib.h"

enum service { NONE, BULK, SHORT, IDLE };

struct conn {
	enum service service;
	uint8_t listener, answering, in_len;
	uint8_t in[8];
	uint64_t sent, total;
};

struct origin {
	int ep;
	unsigned max_fds;
	struct conn *conns; // by descriptor
	uint8_t *pattern;
};

static void watch(struct origin *o, int op, int fd, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.fd = fd};

	if (epoll_ctl(o->ep, op, fd, &ev) < 0)
		bl_die("epoll_ctl");
}

static void drop(struct origin *o, int fd)
{
	o->conns[fd].service = NONE;
	close(fd);
}

static void accept_all(struct origin *o, int lfd)
{
	int fd;

	while ((fd = accept4(lfd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		if ((unsigned)fd >= o->max_fds) {
			close(fd);
			continue;
		}
		o->conns[fd] = (struct conn){.service = o->conns[lfd].service};
		watch(o, EPOLL_CTL_ADD, fd, EPOLLIN);
	}
}

// Sends until done (closes) or until the socket is full (waits for EPOLLOUT).
static void answer(struct origin *o, int fd)
{
	struct conn *c = &o->conns[fd];

	while (c->sent < c->total) {
		size_t at = c->sent % BL_PATTERN_BYTES;
		size_t n = BL_PATTERN_BYTES - at;
		ssize_t r;

		if (n > c->total - c->sent)
			n = c->total - c->sent;
		r = send(fd, o->pattern + at, n, MSG_NOSIGNAL);
		if (r < 0 && errno == EAGAIN) {
			if (!c->answering)
				watch(o, EPOLL_CTL_MOD, fd, EPOLLOUT);
			c->answering = 1;
			return;
		}
		if (r < 0)
			break;
		c->sent += (uint64_t)r;
	}
	drop(o, fd);
}

static void read_request(struct origin *o, int fd)
{
	struct conn *c = &o->conns[fd];
	uint8_t buf[256];
	size_t want = c->service == BULK ? sizeof(c->in) - c->in_len : sizeof(buf);
	ssize_t n = recv(fd, buf, want, 0);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		drop(o, fd);
		return;
	}
	switch (c->service) {
	case BULK:
		for (ssize_t i = 0; i < n; i++)
			c->in[c->in_len++] = buf[i];
		if (c->in_len == 8) {
			c->total = bl_get64(c->in);
			answer(o, fd);
		}
		break;
	case SHORT:
		c->in_len = (uint8_t)(c->in_len + n > 255 ? 255 : c->in_len + n);
		if (c->in_len >= BL_REQUEST_BYTES) {
			c->total = BL_ANSWER_BYTES;
			answer(o, fd);
		}
		break;
	case IDLE:
		if (send(fd, o->pattern, 1, MSG_NOSIGNAL) < 0)
			drop(o, fd);
		break;
	case NONE:
		break;
	}
}

static void add_service(struct origin *o, enum service service, uint16_t *ret_port)
{
	int fd = bl_listen(0, ret_port);

	o->conns[fd] = (struct conn){.service = service, .listener = 1};
	watch(o, EPOLL_CTL_ADD, fd, EPOLLIN);
}

static void serve(struct origin *o)
{
	struct epoll_event ev[256];

	for (;;) {
		int n = epoll_wait(o->ep, ev, 256, -1);

		if (n < 0 && errno != EINTR)
			bl_die("epoll_wait");
		for (int i = 0; i < n; i++) {
			int fd = ev[i].data.fd;

			if (o->conns[fd].listener)
				accept_all(o, fd);
			else if (o->conns[fd].answering)
				answer(o, fd);
			else
				read_request(o, fd);
		}
	}
}

int main(void)
{
	struct origin o = {.max_fds = bl_raise_nofile()};
	uint16_t bulk, shorts, idle;

	o.ep = epoll_create1(EPOLL_CLOEXEC);
	o.conns = calloc(o.max_fds, sizeof(*o.conns));
	o.pattern = malloc(BL_PATTERN_BYTES);
	if (o.ep < 0 || !o.conns || !o.pattern)
		bl_die("start");
	bl_pattern(o.pattern);
	add_service(&o, BULK, &bulk);
	add_service(&o, SHORT, &shorts);
	add_service(&o, IDLE, &idle);
	printf("{\"bulk\":%u,\"short\":%u,\"idle\":%u}\n", bulk, shorts, idle);
	fflush(stdout);
	serve(&o);
}
