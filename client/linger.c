#include "client/linger.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_US    2000000
#define LINGER_BYTES 262144

struct item {
	TAILQ_ENTRY(item) entry;
	struct cli_linger *t;
	int fd;
	size_t bytes;
	uint64_t end_us;
	struct event ev;
	struct sp_deferred reap;
};
TAILQ_HEAD(item_list, item);

struct cli_linger {
	struct sp_loop *loop;
	struct sp_timer timer;
	struct item_list items; // the oldest first
	unsigned n;
};

static void on_reap(struct sp_deferred *d)
{
	free((char *)d - offsetof(struct item, reap));
}

static void item_close(struct item *it)
{
	struct cli_linger *t = it->t;
	TAILQ_REMOVE(&t->items, it, entry);
	t->n--;
	event_del(&it->ev);
	close(it->fd);
	sp_loop_reap(t->loop, &it->reap);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct item *it = arg;
	char waste[16384];
	ssize_t n;
	(void)what;
	do {
		n = recv(fd, waste, sizeof(waste), MSG_DONTWAIT);
		if (n > 0)
			it->bytes += (size_t)n;
	} while (n > 0 && it->bytes < LINGER_BYTES);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	item_close(it);
}

static void set_timer(struct cli_linger *t)
{
	const struct item *it = TAILQ_FIRST(&t->items);
	sp_timer_set(&t->timer, it ? it->end_us : SP_LOOP_NEVER);
}

static void on_timer(void *arg)
{
	struct cli_linger *t = arg;
	struct item *it;
	while ((it = TAILQ_FIRST(&t->items)) && it->end_us <= sp_loop_now_us(t->loop))
		item_close(it);
	set_timer(t);
}

int cli_linger_new(struct sp_loop *loop, struct cli_linger **ret)
{
	struct cli_linger *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->loop = loop;
	TAILQ_INIT(&t->items);
	sp_timer_init(&t->timer, loop, on_timer, t);
	*ret = t;
	return 0;
}

void cli_linger_free(struct cli_linger *t)
{
	if (!t)
		return;
	while (!TAILQ_EMPTY(&t->items))
		item_close(TAILQ_FIRST(&t->items));
	sp_timer_done(&t->timer);
	free(t);
}

void cli_linger_add(struct cli_linger *t, int fd)
{
	struct item *it = calloc(1, sizeof(*it));
	if (!it || shutdown(fd, SHUT_WR) < 0) {
		free(it);
		close(fd);
		return;
	}
	if (t->n >= CLI_LINGER_MAX)
		item_close(TAILQ_FIRST(&t->items));
	it->t = t;
	it->fd = fd;
	it->end_us = sp_loop_now_us(t->loop) + LINGER_US;
	it->reap.run = on_reap;
	TAILQ_INSERT_TAIL(&t->items, it, entry);
	t->n++;
	event_assign(&it->ev, sp_loop_base(t->loop), fd, EV_READ | EV_PERSIST, on_event,
		     it);
	event_add(&it->ev, NULL);
	set_timer(t);
}
