#include "lib/carrier.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/carrier_priv.h"

int sp_carrier_kind_parse(const char *word, enum sp_carrier_kind *ret)
{
	if (!strcmp(word, "tls"))
		*ret = SP_CARRIER_TLS;
	else if (!strcmp(word, "tcp"))
		*ret = SP_CARRIER_TCP;
	else
		return SP_E_MALFORMED;
	return 0;
}

const char *sp_carrier_kind_word(enum sp_carrier_kind kind)
{
	switch (kind) {
	case SP_CARRIER_TCP:
		return "tcp";
	case SP_CARRIER_TLS:
		return "tls";
	case SP_CARRIER_MEM:
		return "memory";
	case SP_CARRIER_RELAY:
		return "relay";
	}
	return "unknown";
}

void carrier_set_peer(struct sp_carrier *c, const struct sockaddr *peer)
{
	if (peer && peer->sa_family == AF_INET)
		memcpy(&c->peer.in, peer, sizeof(c->peer.in));
	else if (peer && peer->sa_family == AF_INET6)
		memcpy(&c->peer.in6, peer, sizeof(c->peer.in6));
	else
		c->peer.sa.sa_family = AF_UNSPEC;
}

static int carrier_new(int fd, const struct sockaddr *peer, struct sp_tls *tls,
		       const char *server_name, struct sp_carrier **ret)
{
	struct sp_carrier *c =
		tls ? carrier_tls_new(fd, tls, server_name, peer) : calloc(1, sizeof(*c));
	if (!c) {
		close(fd);
		return -ENOMEM;
	}
	if (!tls)
		c->ops = &carrier_tcp_ops;
	c->fd = fd;
	carrier_set_peer(c, peer);
	*ret = c;
	return 0;
}

int sp_carrier_connect(const struct sp_carrier_dial *d, struct sp_carrier **ret)
{
	int fd, err;

	if (d->ready) {
		*ret = d->ready;
		return 0;
	}
	if (d->kind != SP_CARRIER_TCP && (d->kind != SP_CARRIER_TLS || !d->tls))
		return -EINVAL;
	err = carrier_tcp_connect(d, &fd);
	if (!err)
		err = carrier_new(fd, (const struct sockaddr *)&d->addr,
				  d->kind == SP_CARRIER_TLS ? d->tls : NULL,
				  d->server_name, ret);
	if (!err)
		(*ret)->connecting = true;
	return err;
}

int sp_carrier_accepted(int fd, const struct sockaddr *peer, struct sp_tls *tls,
			struct sp_carrier **ret)
{
	int one = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return carrier_new(fd, peer, tls, NULL, ret);
}

int sp_carrier_handshake(struct sp_carrier *c)
{
	return c->ops->handshake(c);
}

ssize_t sp_carrier_read(struct sp_carrier *c, uint8_t *buf, size_t cap)
{
	return c->ops->read(c, buf, cap);
}

ssize_t sp_carrier_write(struct sp_carrier *c, const uint8_t *buf, size_t len)
{
	return c->ops->write(c, buf, len);
}

int sp_carrier_shutdown(struct sp_carrier *c)
{
	return c->ops->shutdown(c);
}

void sp_carrier_free(struct sp_carrier *c)
{
	if (!c)
		return;
	c->ops->close(c, false);
	free(c);
}

void sp_carrier_reset(struct sp_carrier *c)
{
	if (!c)
		return;
	c->ops->close(c, true);
	free(c);
}

#define RATE_US 20000 // period over which a rate is taken

void sp_carrier_follow_rate(struct sp_carrier *c, struct sp_carrier_rate *r,
			    size_t written, uint64_t now_us)
{
	uint64_t elapsed = now_us - r->since_us;
	uint32_t lowat = SP_CARRIER_LOWAT_MIN;

	r->bytes += written;
	if (elapsed < RATE_US)
		return;
	while (lowat < SP_CARRIER_LOWAT_MAX && r->bytes * 200 / elapsed >= lowat * 2)
		lowat *= 2;
	if (lowat != r->lowat)
		sp_carrier_set_lowat(c, (int)lowat);
	r->lowat = lowat;
	r->since_us = now_us;
	r->bytes = 0;
}

enum sp_carrier_kind sp_carrier_kind(const struct sp_carrier *c)
{
	return c->ops->kind;
}

int sp_carrier_fd(const struct sp_carrier *c)
{
	return c->fd;
}

size_t sp_carrier_unacked(const struct sp_carrier *c)
{
	int n = 0;

	if (c->fd < 0 || ioctl(c->fd, SIOCOUTQ, &n) || n < 0)
		return 0;
	return (size_t)n;
}

const struct sockaddr *sp_carrier_peer(const struct sp_carrier *c)
{
	return &c->peer.sa;
}

const char *sp_carrier_error(const struct sp_carrier *c)
{
	return c->error ? c->error : "";
}

void sp_carrier_on_ready(struct sp_carrier *c, void (*ready)(void *arg), void *arg)
{
	c->ready = ready;
	c->ready_arg = arg;
}
