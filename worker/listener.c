#include "worker/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#define BATCH        64
#define PAUSE_MS     10
#define PAUSE_MAX_MS 1000

struct wrk_listener {
	struct wrk_listener_options opt;
	struct wrk_listener_counters n;
	int fd;
	struct event ev;
	struct sp_timer resume;
	uint32_t pause_ms;
};

int wrk_listener_bind(const struct sockaddr *addr, socklen_t len, int backlog)
{
	int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1, err;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    (addr->sa_family == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one))) ||
	    bind(fd, addr, len) || listen(fd, backlog)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

static void stop_for_a_while(struct wrk_listener *l)
{
	event_del(&l->ev);
	l->n.paused = true;
	sp_timer_set(&l->resume, sp_loop_now_us(l->opt.loop) + l->pause_ms * 1000);
	if (l->pause_ms < PAUSE_MAX_MS)
		l->pause_ms *= 2;
	if (l->pause_ms > PAUSE_MAX_MS)
		l->pause_ms = PAUSE_MAX_MS;
}

static void on_resume(void *ctx)
{
	struct wrk_listener *l = ctx;

	l->n.paused = false;
	if (event_add(&l->ev, NULL))
		stop_for_a_while(l);
}

// What accept's failure means (accept(2): errors of the new connection are to be treated
// like EAGAIN by retrying). True: go on with the next one.
static bool survive(struct wrk_listener *l, int err, bool *relieved)
{
	switch (err) {
	case EAGAIN:
		return false;
	case EMFILE:
	case ENFILE:
		l->n.no_descriptors++;
		if (!*relieved && l->opt.starved && l->opt.starved(l->opt.ctx)) {
			*relieved = true; // once per batch
			return true;
		}
		stop_for_a_while(l);
		return false;
	case ENOBUFS:
	case ENOMEM:
		l->n.no_memory++;
		stop_for_a_while(l);
		return false;
	default:
		l->n.aborted++;
		return true;
	}
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct wrk_listener *l = arg;
	bool relieved = false;

	(void)what;
	for (int i = 0; i < BATCH; i++) {
		struct sockaddr_storage peer = {0};
		socklen_t len = sizeof(peer);
		int got = accept4(fd, (struct sockaddr *)&peer, &len,
				  SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (got < 0) {
			if (survive(l, errno, &relieved))
				continue;
			return;
		}
		l->pause_ms = PAUSE_MS;
		l->n.accepted++;
		l->opt.accepted(l->opt.ctx, got, (const struct sockaddr *)&peer);
	}
}

int wrk_listener_new(int fd, const struct wrk_listener_options *opt,
		     struct wrk_listener **ret)
{
	struct wrk_listener *l = calloc(1, sizeof(*l));

	if (!l) {
		close(fd);
		return -ENOMEM;
	}
	l->opt = *opt;
	l->fd = fd;
	l->pause_ms = PAUSE_MS;
	sp_timer_init(&l->resume, opt->loop, on_resume, l);
	if (event_assign(&l->ev, sp_loop_base(opt->loop), fd, EV_READ | EV_PERSIST,
			 on_event, l) ||
	    event_add(&l->ev, NULL)) {
		sp_timer_done(&l->resume);
		close(fd);
		free(l);
		return -ENOMEM;
	}
	*ret = l;
	return 0;
}

void wrk_listener_stop(struct wrk_listener *l)
{
	event_del(&l->ev);
	sp_timer_set(&l->resume, SP_LOOP_NEVER);
}

void wrk_listener_free(struct wrk_listener *l)
{
	if (!l)
		return;
	event_del(&l->ev);
	sp_timer_done(&l->resume);
	close(l->fd);
	free(l);
}

int wrk_listener_fd(const struct wrk_listener *l)
{
	return l->fd;
}

const struct wrk_listener_counters *wrk_listener_counters(const struct wrk_listener *l)
{
	return &l->n;
}

int wrk_listener_address(const struct wrk_listener *l, struct sockaddr_storage *ret,
			 socklen_t *ret_len)
{
	*ret_len = sizeof(*ret);
	return getsockname(l->fd, (struct sockaddr *)ret, ret_len) ? -errno : 0;
}
