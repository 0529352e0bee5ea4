#include "worker/exit.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "worker/exit_internal.h"

static const double dial_bounds[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
				     0.1,    0.25,  0.5,    1,     2.5,  5,     10};

static void on_turn(struct sp_deferred *d)
{
	struct wrk_exit *x =
		(struct wrk_exit *)((char *)d - offsetof(struct wrk_exit, turn));
	exit_stream_turn(x);
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	exit_now(arg);
	exit_stream_sweep(arg);
	exit_flow_sweep(arg);
	exit_pace_sweep(arg);
	sp_arena_wipe(((struct wrk_exit *)arg)->opt.arena, EXIT_WIPE_CHUNKS);
}

void exit_want_turn(struct wrk_exit *x)
{
	sp_loop_defer(x->opt.loop, &x->turn);
}

bool exit_has_memory(void)
{
	void *volatile p = malloc(EXIT_HEADROOM); // volatile: it is really asked for
	free(p);
	return p != NULL;
}

bool exit_make_room(struct wrk_exit *x)
{
	if (x->n.sockets < x->opt.max_sockets)
		return true;
	x->n.no_descriptors++;
	return wrk_exit_evict_flow(x);
}

int wrk_exit_new(const struct wrk_exit_options *opt, struct wrk_exit **ret)
{
	struct wrk_exit *x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->opt = *opt;
	sp_histogram_init(&x->n.dial_seconds, dial_bounds,
			  sizeof(dial_bounds) / sizeof(dial_bounds[0]));
	TAILQ_INIT(&x->ready);
	TAILQ_INIT(&x->idle);
	TAILQ_INIT(&x->draining);
	TAILQ_INIT(&x->lru);
	TAILQ_INIT(&x->answered);
	TAILQ_INIT(&x->paced);
	struct event_base *base = sp_loop_base(opt->loop);
	struct timeval every = {.tv_usec = EXIT_SWEEP_MS * 1000};
	x->batch = exit_batch_new();
	x->turn.run = on_turn;
	x->sweep = event_new(base, -1, EV_PERSIST, on_sweep, x);
	if (!x->batch || !x->sweep || event_add(x->sweep, &every)) {
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
	sp_loop_defer_cancel(&x->turn);
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
