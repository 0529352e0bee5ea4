// Carriers over plain TCP, and the socket options of all carriers.
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "lib/carrier_priv.h"

#define NOTSENT_LOWAT   16384
#define USER_TIMEOUT_MS 30000
#define KEEP_IDLE_S     60
#define KEEP_INTERVAL_S 10
#define KEEP_PROBES     3

int carrier_fail(struct sp_carrier *c, int err)
{
	c->error = sp_strerror(err);
	return err;
}

// Failures only cost the option: each is a refinement.
void sp_carrier_tune(struct sp_carrier *c)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},
		{IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_LOWAT},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS},
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE_S},
		{IPPROTO_TCP, TCP_KEEPINTVL, KEEP_INTERVAL_S},
		{IPPROTO_TCP, TCP_KEEPCNT, KEEP_PROBES},
	};

	if (c->fd < 0)
		return;
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		(void)setsockopt(c->fd, options[i].level, options[i].name,
				 &options[i].value, sizeof(options[i].value));
	(void)setsockopt(c->fd, IPPROTO_TCP, TCP_CONGESTION, "bbr", 3);
}

void sp_carrier_set_lowat(struct sp_carrier *c, int bytes)
{
	if (c->fd >= 0)
		(void)setsockopt(c->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes,
				 sizeof(bytes));
}

int carrier_tcp_connect(const struct sp_carrier_dial *d, int *ret_fd)
{
	int fd = socket(d->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	int one = 1;

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (const struct sockaddr *)&d->addr, d->addr_len) &&
	    errno != EINPROGRESS) {
		int err = -errno;
		close(fd);
		return err;
	}
	*ret_fd = fd;
	return 0;
}

int carrier_tcp_handshake(struct sp_carrier *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLOUT};
	socklen_t len = sizeof(int);
	int err = 0;

	if (c->connect_err)
		return carrier_fail(c, c->connect_err);
	if (!c->connecting)
		return 0;
	if (poll(&p, 1, 0) <= 0)
		return -EAGAIN;
	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len))
		err = errno;
	c->connecting = false;
	c->connect_err = -err;
	return err ? carrier_fail(c, -err) : 0;
}

static ssize_t tcp_read(struct sp_carrier *c, uint8_t *buf, size_t cap)
{
	ssize_t n;

	do
		n = recv(c->fd, buf, cap, 0);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	return errno == EAGAIN ? -EAGAIN : carrier_fail(c, -errno);
}

static ssize_t tcp_write(struct sp_carrier *c, const uint8_t *buf, size_t len)
{
	ssize_t n;

	do
		n = send(c->fd, buf, len, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	return errno == EAGAIN ? -EAGAIN : carrier_fail(c, -errno);
}

static int tcp_shutdown(struct sp_carrier *c)
{
	return shutdown(c->fd, SHUT_WR) ? carrier_fail(c, -errno) : 0;
}

void carrier_tcp_close(struct sp_carrier *c, bool reset)
{
	struct linger at_once = {.l_onoff = 1};

	if (c->fd < 0)
		return;
	if (reset)
		(void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(c->fd);
	c->fd = -1;
}

const struct sp_carrier_ops carrier_tcp_ops = {
	.kind = SP_CARRIER_TCP,
	.handshake = carrier_tcp_handshake,
	.read = tcp_read,
	.write = tcp_write,
	.shutdown = tcp_shutdown,
	.close = carrier_tcp_close,
};
