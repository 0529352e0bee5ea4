#include "worker/exit.h"

#include <errno.h>
#include <stdlib.h>

#include "worker/exit_internal.h"

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	exit_stream_turn(arg);
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	exit_stream_sweep(arg);
	exit_flow_sweep(arg);
}

void exit_want_turn(struct wrk_exit *x)
{
	event_active(x->turn, EV_TIMEOUT, 0);
}

int wrk_exit_new(const struct wrk_exit_options *opt, struct wrk_exit **ret)
{
	struct wrk_exit *x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->opt = *opt;
	TAILQ_INIT(&x->ready);
	TAILQ_INIT(&x->idle);
	TAILQ_INIT(&x->draining);
	TAILQ_INIT(&x->lru);
	TAILQ_INIT(&x->answered);
	struct event_base *base = sp_loop_base(opt->loop);
	struct timeval every = {.tv_usec = EXIT_SWEEP_MS * 1000};
	x->batch = exit_batch_new();
	x->turn = event_new(base, -1, 0, on_turn, x);
	x->sweep = event_new(base, -1, EV_PERSIST, on_sweep, x);
	if (!x->batch || !x->turn || !x->sweep || event_add(x->sweep, &every)) {
		wrk_exit_free(x);
		return -ENOMEM;
	}
	*ret = x;
	return 0;
}

void wrk_exit_free(struct wrk_exit *x)
{
	if (!x)
		return;
	if (x->turn)
		event_free(x->turn);
	if (x->sweep)
		event_free(x->sweep);
	free(x->batch);
	free(x);
}

void wrk_exit_set_limits(struct wrk_exit *x, uint32_t max_flows, uint32_t stream_idle_ms)
{
	x->opt.max_flows = max_flows;
	x->opt.stream_idle_ms = stream_idle_ms;
}

const struct wrk_exit_counters *wrk_exit_counters(const struct wrk_exit *x)
{
	return &x->n;
}
