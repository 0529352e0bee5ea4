#include "worker/relayed.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

struct relayed {
	struct wrk_pipe *pipe;
	struct sp_carrier *carrier;
	bool answered;
};

static ssize_t on_read(void *ctx, uint8_t *buf, size_t cap)
{
	struct relayed *r = ctx;
	return wrk_pipe_read(r->pipe, buf, cap);
}

static ssize_t on_write(void *ctx, const uint8_t *buf, size_t len)
{
	struct relayed *r = ctx;
	ssize_t n = wrk_pipe_write(r->pipe, buf, len);
	r->answered |= n > 0;
	return n;
}

static int on_shutdown(void *ctx)
{
	struct relayed *r = ctx;
	return wrk_pipe_end(r->pipe);
}

static void on_close(void *ctx, bool reset)
{
	struct relayed *r = ctx;
	wrk_pipe_close(r->pipe, !r->answered ? SP_REASON_GONE
				: reset      ? SP_REASON_CANCELLED
					     : SP_REASON_CLOSED);
	free(r);
}

static const struct sp_carrier_pipe_ops pipe_ops = {
	.read = on_read,
	.write = on_write,
	.shutdown = on_shutdown,
	.close = on_close,
};

static void on_ready(void *ctx)
{
	struct relayed *r = ctx;
	sp_carrier_pipe_ready(r->carrier);
}

// The client, as far as budgets know it.
static void set_peer(struct sockaddr_storage *ret, const struct wrk_mux_source *source)
{
	struct sockaddr_in *in = (void *)ret;
	struct sockaddr_in6 *in6 = (void *)ret;
	memset(ret, 0, sizeof(*ret));
	if (source->family == 4) {
		in->sin_family = AF_INET;
		memcpy(&in->sin_addr, source->net, 4);
	} else if (source->family == 6) {
		in6->sin6_family = AF_INET6;
		memcpy(in6->sin6_addr.s6_addr, source->net, 8);
	}
}

enum sp_reason wrk_relayed_accept(struct sp_link_env *links,
				  const struct sp_link_worker_ops *ops, void *ctx,
				  struct wrk_pipe *p, const struct wrk_mux_source *source)
{
	struct sockaddr_storage peer;
	struct relayed *r = calloc(1, sizeof(*r));
	struct sp_link *l;
	assert(!ops->relay && !ops->trunk);
	if (!r)
		return SP_REASON_NO_MEMORY;
	set_peer(&peer, source);
	r->pipe = p;
	if (sp_carrier_pipe_new(&pipe_ops, r, (struct sockaddr *)&peer, &r->carrier)) {
		free(r);
		return SP_REASON_NO_MEMORY;
	}
	wrk_pipe_attach(p, on_ready, r);
	// Without memory for a link the pipe is closed with the carrier.
	(void)!sp_link_accept(links, r->carrier, ops, ctx, &l);
	return SP_REASON_NONE;
}
