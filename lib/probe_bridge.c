// A stream behind an abstract Unix socket, for libraries that want to connect themselves.
// The kernel chooses the name; whoever else on this machine connects is turned away by
// its process id.
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/probe_internal.h"

#define TURN_BYTES 65536 // read from the program in one call

struct bridge {
	struct sp_loop *loop;
	struct sp_stream *st; // NULL: gone
	int fd;               // listens, then the connection; -1: closed
	bool connected, waits, fin;
	struct event readable, writable;
	struct sp_deferred reap;
};

static void on_reap(struct sp_deferred *d)
{
	free((char *)d - offsetof(struct bridge, reap));
}

static void drop_fd(struct bridge *b)
{
	if (b->fd < 0)
		return;
	event_del(&b->readable);
	event_del(&b->writable);
	close(b->fd);
	b->fd = -1;
}

void bridge_free(struct bridge *b)
{
	if (!b || !b->st)
		return;
	drop_fd(b);
	b->st = NULL;
	sp_loop_reap(b->loop, &b->reap);
}

// ---- connected ----

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
		sp_stream_commit(b->st, got > 0 ? (size_t)got : 0);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (got <= 0) {
			event_del(&b->readable);
			sp_stream_source_fin(b->st);
			return;
		}
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

static void watch(struct bridge *b, event_callback_fn on_read)
{
	event_assign(&b->readable, sp_loop_base(b->loop), b->fd, EV_READ | EV_PERSIST,
		     on_read, b);
	event_assign(&b->writable, sp_loop_base(b->loop), b->fd, EV_WRITE, on_writable,
		     b);
	event_add(&b->readable, NULL);
}

// ---- listening ----

static bool is_own(int fd)
{
	struct ucred who;
	socklen_t len = sizeof(who);
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 &&
	       who.pid == getpid();
}

static void on_connection(evutil_socket_t fd, short what, void *arg)
{
	struct bridge *b = arg;
	(void)what;
	(void)sp_loop_now_us(b->loop);
	int got = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (got < 0)
		return;
	if (!is_own(got)) {
		close(got);
		return;
	}
	drop_fd(b);
	b->fd = got;
	b->connected = true;
	watch(b, on_readable);
	if (b->waits && b->st)
		sp_stream_sink_ready(b->st);
	if (b->fin && b->fd >= 0)
		shutdown(b->fd, SHUT_WR);
}

// The kernel's choice of a name: five characters behind a NUL.
static int listen_anywhere(int fd, char *ret_name)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(at.sun_family);
	if (bind(fd, (struct sockaddr *)&at, len) < 0 || listen(fd, 1) < 0)
		return -errno;
	len = sizeof(at);
	if (getsockname(fd, (struct sockaddr *)&at, &len) < 0)
		return -errno;
	size_t skip = offsetof(struct sockaddr_un, sun_path) + 1;
	if (len <= skip || len - skip >= BRIDGE_NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(ret_name, at.sun_path + 1, len - skip);
	ret_name[len - skip] = '\0';
	return 0;
}

int bridge_new(struct sp_loop *loop, struct sp_stream *st, struct bridge **ret,
	       char *ret_name)
{
	struct bridge *b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->loop = loop;
	b->st = st;
	b->reap.run = on_reap;
	b->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int err = b->fd < 0 ? -errno : listen_anywhere(b->fd, ret_name);
	if (err) {
		if (b->fd >= 0)
			close(b->fd);
		free(b);
		return err;
	}
	watch(b, on_connection);
	*ret = b;
	return 0;
}

// ---- the engine's calls ----

size_t bridge_sink(struct bridge *b, const uint8_t *buf, size_t len)
{
	if (!b->connected) { // a server may speak first
		b->waits = true;
		return 0;
	}
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
	b->fin = true;
	if (b->connected && b->fd >= 0)
		shutdown(b->fd, SHUT_WR);
}

void bridge_source_ready(struct bridge *b)
{
	if (b->connected && b->fd >= 0)
		event_add(&b->readable, NULL);
}
