// Carriers of a program's own functions: what comes to a home over a trunk.
#include <errno.h>
#include <stdlib.h>

#include "lib/carrier_priv.h"

struct pipe_carrier {
	struct sp_carrier c; // first
	const struct sp_carrier_pipe_ops *ops;
	void *ctx;
};

static struct pipe_carrier *pipe_of(struct sp_carrier *c)
{
	return (struct pipe_carrier *)c;
}

static int pipe_handshake(struct sp_carrier *c)
{
	(void)c;
	return 0;
}

static ssize_t noted(struct sp_carrier *c, ssize_t n)
{
	return n < 0 && n != -EAGAIN ? carrier_fail(c, (int)n) : n;
}

static ssize_t pipe_read(struct sp_carrier *c, uint8_t *buf, size_t cap)
{
	return noted(c, pipe_of(c)->ops->read(pipe_of(c)->ctx, buf, cap));
}

static ssize_t pipe_write(struct sp_carrier *c, const uint8_t *buf, size_t len)
{
	return noted(c, pipe_of(c)->ops->write(pipe_of(c)->ctx, buf, len));
}

static int pipe_shutdown(struct sp_carrier *c)
{
	return (int)noted(c, pipe_of(c)->ops->shutdown(pipe_of(c)->ctx));
}

static void pipe_close(struct sp_carrier *c, bool reset)
{
	pipe_of(c)->ops->close(pipe_of(c)->ctx, reset);
}

static const struct sp_carrier_ops pipe_ops = {
	.kind = SP_CARRIER_RELAY,
	.handshake = pipe_handshake,
	.read = pipe_read,
	.write = pipe_write,
	.shutdown = pipe_shutdown,
	.close = pipe_close,
};

int sp_carrier_pipe_new(const struct sp_carrier_pipe_ops *ops, void *ctx,
			const struct sockaddr *peer, struct sp_carrier **ret)
{
	struct pipe_carrier *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->c.ops = &pipe_ops;
	p->c.fd = -1;
	p->ops = ops;
	p->ctx = ctx;
	carrier_set_peer(&p->c, peer);
	*ret = &p->c;
	return 0;
}

void sp_carrier_pipe_ready(struct sp_carrier *c)
{
	if (c->ready)
		c->ready(c->ready_arg);
}
