#include <errno.h>
#include <string.h>

#include "lib/bus_internal.h"

static void pump(struct bus_socket *s)
{
	for (int i = 0; i < BUS_TURN_MAX; i++)
		if (!s->zmq || !s->take(s->owner))
			return;
	bus_socket_again(s); // the others' turn, then again
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	pump(arg);
}

static void on_again(struct sp_deferred *d)
{
	pump((struct bus_socket *)((char *)d - offsetof(struct bus_socket, again)));
}

int bus_socket_open(struct bus_socket *s, struct sp_loop *loop, void *zmq_ctx, int type,
		    bool (*take)(void *owner), void *owner)
{
	*s = (struct bus_socket){.loop = loop, .take = take, .owner = owner};
	s->again.run = on_again;
	s->zmq = zmq_socket(zmq_ctx, type);
	return s->zmq ? bus_socket_int(s, ZMQ_LINGER, 0) : -errno;
}

void bus_socket_close(struct bus_socket *s)
{
	if (!s->zmq)
		return;
	if (s->ev.ev_base)
		event_del(&s->ev);
	sp_loop_defer_cancel(&s->again);
	zmq_close(s->zmq);
	*s = (struct bus_socket){0};
}

int bus_socket_watch(struct bus_socket *s)
{
	int fd;
	size_t len = sizeof(fd);
	if (zmq_getsockopt(s->zmq, ZMQ_FD, &fd, &len))
		return -errno;
	if (event_assign(&s->ev, sp_loop_base(s->loop), fd, EV_READ | EV_PERSIST,
			 on_readable, s) ||
	    event_add(&s->ev, NULL))
		return -ENOMEM;
	bus_socket_again(s);
	return 0;
}

void bus_socket_again(struct bus_socket *s)
{
	sp_loop_defer(s->loop, &s->again);
}

int bus_socket_int(struct bus_socket *s, int option, int value)
{
	return zmq_setsockopt(s->zmq, option, &value, sizeof(value)) ? -errno : 0;
}

int bus_socket_options(struct bus_socket *s, int64_t message_max, const char *endpoint)
{
	const struct {
		int option, value;
	} all[] = {
		{ZMQ_SNDHWM, SP_BUS_QUEUE},
		{ZMQ_RCVHWM, SP_BUS_QUEUE},
		{ZMQ_HANDSHAKE_IVL, SP_BUS_HANDSHAKE_MS},
		{ZMQ_HEARTBEAT_IVL, SP_BUS_HEARTBEAT_MS},
		{ZMQ_HEARTBEAT_TIMEOUT, SP_BUS_DEAD_MS},
		{ZMQ_HEARTBEAT_TTL, SP_BUS_DEAD_MS},
		{ZMQ_BACKLOG, 4096},
		{ZMQ_RECONNECT_IVL, 200},
		{ZMQ_RECONNECT_IVL_MAX, 5000},
		{ZMQ_IPV6, strchr(endpoint, '[') != NULL},
	};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		int err = bus_socket_int(s, all[i].option, all[i].value);
		if (err)
			return err;
	}
	if (zmq_setsockopt(s->zmq, ZMQ_MAXMSGSIZE, &message_max, sizeof(message_max)))
		return -errno;
	return 0;
}
