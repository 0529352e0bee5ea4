// A stream behind a socket pair, for libraries that want a connected socket.
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/probe_internal.h"

#define TURN_BYTES 65536 // read from the program in one call

struct bridge {
	struct sp_loop *loop;
	struct sp_stream *st; // NULL: gone
	int fd;
	struct event readable, writable;
	struct sp_deferred reap;
};

static void on_reap(struct sp_deferred *d)
{
	free((char *)d - offsetof(struct bridge, reap));
}

void bridge_free(struct bridge *b)
{
	if (!b || b->fd < 0)
		return;
	event_del(&b->readable);
	event_del(&b->writable);
	close(b->fd);
	b->fd = -1;
	b->st = NULL;
	sp_loop_reap(b->loop, &b->reap);
}

static void read_source(struct bridge *b)
{
	size_t total = 0;
	while (b->st && total < TURN_BYTES) {
		struct iovec iov[16];
		int n = sp_stream_reserve(b->st, TURN_BYTES, iov, 16);
		if (n == 0) { // source_ready tells
			event_del(&b->readable);
			return;
		}
		ssize_t got = readv(b->fd, iov, n);
		if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
			sp_stream_commit(b->st, 0);
			return;
		}
		if (got <= 0) {
			sp_stream_commit(b->st, 0);
			event_del(&b->readable);
			sp_stream_source_fin(b->st);
			return;
		}
		sp_stream_commit(b->st, (size_t)got);
		total += (size_t)got;
	}
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct bridge *b = arg;
	(void)fd;
	(void)what;
	(void)sp_loop_now_us(b->loop);
	read_source(b);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct bridge *b = arg;
	(void)fd;
	(void)what;
	(void)sp_loop_now_us(b->loop);
	if (b->st)
		sp_stream_sink_ready(b->st);
}

int bridge_new(struct sp_loop *loop, struct sp_stream *st, struct bridge **ret,
	       int *ret_fd)
{
	int fds[2];
	struct bridge *b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0) {
		int err = -errno;
		free(b);
		return err;
	}
	b->loop = loop;
	b->st = st;
	b->fd = fds[0];
	b->reap.run = on_reap;
	event_assign(&b->readable, sp_loop_base(loop), b->fd, EV_READ | EV_PERSIST,
		     on_readable, b);
	event_assign(&b->writable, sp_loop_base(loop), b->fd, EV_WRITE, on_writable, b);
	event_add(&b->readable, NULL);
	*ret = b;
	*ret_fd = fds[1];
	return 0;
}

size_t bridge_sink(struct bridge *b, const uint8_t *buf, size_t len)
{
	ssize_t n = b->fd < 0 ? (ssize_t)len : send(b->fd, buf, len, MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		n = 0;
	if (n < 0) // nobody reads any more: let it go
		return len;
	if ((size_t)n < len)
		event_add(&b->writable, NULL);
	return (size_t)n;
}

void bridge_sink_fin(struct bridge *b)
{
	if (b->fd >= 0)
		shutdown(b->fd, SHUT_WR);
}

void bridge_source_ready(struct bridge *b)
{
	if (b->fd >= 0)
		event_add(&b->readable, NULL);
}
