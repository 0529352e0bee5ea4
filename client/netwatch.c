#include "client/netwatch.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#define SETTLE_US 100000  // changes come in crowds
#define EACH_US   2000000 // a network that flaps is not followed faster
#define FAR_S     (INT64_C(1) << 40)

struct cli_netwatch {
	struct sp_loop *loop;
	void (*changed)(void *ctx);
	void *ctx;
	int netlink, clock;
	struct event on_netlink, on_clock;
	struct sp_timer timer;
	uint64_t told_us; // 0: not yet
};

static void note(struct cli_netwatch *w)
{
	uint64_t at = sp_loop_now_us(w->loop) + SETTLE_US;
	if (w->told_us && at < w->told_us + EACH_US)
		at = w->told_us + EACH_US; // late, but not lost
	sp_timer_set(&w->timer, at);
}

static void on_timer(void *arg)
{
	struct cli_netwatch *w = arg;
	w->told_us = sp_loop_now_us(w->loop);
	w->changed(w->ctx);
}

// Routes of the kernel's own tables (a neighbour, a cache) say nothing.
static bool is_change(const struct nlmsghdr *h)
{
	const struct rtmsg *r = NLMSG_DATA(h);
	switch (h->nlmsg_type) {
	case RTM_NEWADDR:
	case RTM_DELADDR:
		return true;
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		return h->nlmsg_len >= NLMSG_LENGTH(sizeof(*r)) &&
		       r->rtm_table == RT_TABLE_MAIN && !(r->rtm_flags & RTM_F_CLONED);
	default:
		return false;
	}
}

static void on_netlink(evutil_socket_t fd, short what, void *arg)
{
	_Alignas(struct nlmsghdr) char buf[16384];
	struct cli_netwatch *w = arg;
	ssize_t n;
	(void)what;
	while ((n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
		unsigned left = (unsigned)n;
		for (struct nlmsghdr *h = (struct nlmsghdr *)buf; NLMSG_OK(h, left);
		     h = NLMSG_NEXT(h, left))
			if (is_change(h))
				note(w);
	}
	if (n < 0 && errno == ENOBUFS) // some were lost
		note(w);
}

static int arm(int fd)
{
	struct itimerspec at = {.it_value.tv_sec = FAR_S};
	return timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &at,
			       NULL);
}

static void on_clock(evutil_socket_t fd, short what, void *arg)
{
	struct cli_netwatch *w = arg;
	uint64_t n;
	(void)what;
	if (read(fd, &n, sizeof(n)) < 0 && errno == ECANCELED)
		note(w);
	(void)!arm(fd);
}

static int open_both(struct cli_netwatch *w)
{
	struct sockaddr_nl at = {.nl_family = AF_NETLINK,
				 .nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR |
					      RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE};
	w->netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
			    NETLINK_ROUTE);
	w->clock = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (w->netlink < 0 || w->clock < 0 ||
	    bind(w->netlink, (struct sockaddr *)&at, sizeof(at)) || arm(w->clock))
		return -errno;
	return 0;
}

int cli_netwatch_new(struct sp_loop *loop, void (*changed)(void *ctx), void *ctx,
		     struct cli_netwatch **ret)
{
	struct cli_netwatch *w = calloc(1, sizeof(*w));
	struct event_base *base = sp_loop_base(loop);
	if (!w)
		return -ENOMEM;
	w->loop = loop;
	w->changed = changed;
	w->ctx = ctx;
	w->netlink = w->clock = -1;
	sp_timer_init(&w->timer, loop, on_timer, w);
	int err = open_both(w);
	event_assign(&w->on_netlink, base, w->netlink, EV_READ | EV_PERSIST, on_netlink,
		     w);
	event_assign(&w->on_clock, base, w->clock, EV_READ | EV_PERSIST, on_clock, w);
	if (!err && (event_add(&w->on_netlink, NULL) || event_add(&w->on_clock, NULL)))
		err = -ENOMEM;
	if (err) {
		cli_netwatch_free(w);
		return err;
	}
	*ret = w;
	return 0;
}

void cli_netwatch_free(struct cli_netwatch *w)
{
	if (!w)
		return;
	sp_timer_done(&w->timer);
	event_del(&w->on_netlink);
	event_del(&w->on_clock);
	if (w->netlink >= 0)
		close(w->netlink);
	if (w->clock >= 0)
		close(w->clock);
	free(w);
}
