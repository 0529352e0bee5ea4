#include "client/control.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/file.h"

#define REQUEST_MAX 64
#define ANSWER_MAX  (4u << 20)
#define CLIENT_US   10000000 // a client that neither asks nor reads is closed

struct client {
	TAILQ_ENTRY(client) entry;
	struct cli_control *c;
	int fd;
	bool waits_for_end; // `down`: closed with the program
	uint64_t end_us;
	struct event ev;
	struct sp_deferred reap;
	size_t have;
	char request[REQUEST_MAX];
	char *answer;
	size_t len, sent;
};
TAILQ_HEAD(client_list, client);

struct cli_control {
	struct sp_loop *loop;
	const struct cli_control_ops *ops;
	void *ctx;
	int fd;
	struct event ev;
	struct sp_timer timer;
	struct client_list clients; // the oldest first
	unsigned n;
	struct sockaddr_un path;
};

static void on_reap(struct sp_deferred *d)
{
	struct client *cl = (struct client *)((char *)d - offsetof(struct client, reap));
	free(cl->answer);
	free(cl);
}

static void set_timer(struct cli_control *c)
{
	const struct client *cl = TAILQ_FIRST(&c->clients);
	sp_timer_set(&c->timer, cl ? cl->end_us : SP_LOOP_NEVER);
}

static void client_close(struct client *cl)
{
	struct cli_control *c = cl->c;
	TAILQ_REMOVE(&c->clients, cl, entry);
	c->n--;
	event_del(&cl->ev);
	close(cl->fd);
	set_timer(c);
	sp_loop_reap(c->loop, &cl->reap);
}

static void on_timer(void *arg)
{
	struct cli_control *c = arg;
	struct client *cl;
	while ((cl = TAILQ_FIRST(&c->clients)) && cl->end_us <= sp_loop_now_us(c->loop))
		client_close(cl);
	set_timer(c);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct client *cl = arg;
	(void)what;
	while (cl->sent < cl->len) {
		ssize_t n = send(fd, cl->answer + cl->sent, cl->len - cl->sent,
				 MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0)
			break;
		cl->sent += (size_t)n;
	}
	client_close(cl);
}

static char *answer_reload(struct cli_control *c)
{
	char why[SP_WHY_MAX], *text = NULL;
	int err = c->ops->reload(c->ctx, why, sizeof(why));
	if (asprintf(&text, err ? "error: %s\n" : "ok\n", why) < 0)
		return NULL;
	return text;
}

static void answer(struct client *cl)
{
	struct cli_control *c = cl->c;
	if (strcmp(cl->request, "status") == 0)
		cl->answer = c->ops->status(c->ctx);
	else if (strcmp(cl->request, "reload") == 0)
		cl->answer = answer_reload(c);
	else if (strcmp(cl->request, "down") == 0)
		cl->waits_for_end = true;
	else
		cl->answer = strdup("error: no such request\n");
	if (cl->waits_for_end) {
		c->ops->down(c->ctx);
		return;
	}
	if (!cl->answer) {
		client_close(cl);
		return;
	}
	cl->len = strlen(cl->answer);
	event_del(&cl->ev);
	event_assign(&cl->ev, sp_loop_base(c->loop), cl->fd, EV_WRITE | EV_PERSIST,
		     on_writable, cl);
	event_add(&cl->ev, NULL);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct client *cl = arg;
	ssize_t n =
		recv(fd, cl->request + cl->have, REQUEST_MAX - cl->have, MSG_DONTWAIT);
	(void)what;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 || cl->waits_for_end) {
		client_close(cl);
		return;
	}
	cl->have += (size_t)n;
	char *end = memchr(cl->request, '\n', cl->have);
	if (end) {
		*end = '\0';
		answer(cl);
	} else if (cl->have == REQUEST_MAX) {
		client_close(cl);
	}
}

// The socket's mode keeps others out; this holds also where a folder's does not.
static bool is_allowed(int fd)
{
	struct ucred who;
	socklen_t len = sizeof(who);
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 &&
	       (who.uid == geteuid() || who.uid == 0);
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
	struct cli_control *c = arg;
	int s = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct client *cl = NULL;
	(void)what;
	if (s < 0)
		return;
	if (!is_allowed(s) || !(cl = calloc(1, sizeof(*cl)))) {
		close(s);
		return;
	}
	if (c->n >= CLI_CONTROL_CLIENTS)
		client_close(TAILQ_FIRST(&c->clients));
	cl->c = c;
	cl->fd = s;
	cl->reap.run = on_reap;
	cl->end_us = sp_loop_now_us(c->loop) + CLIENT_US;
	TAILQ_INSERT_TAIL(&c->clients, cl, entry);
	c->n++;
	event_assign(&cl->ev, sp_loop_base(c->loop), s, EV_READ | EV_PERSIST, on_readable,
		     cl);
	event_add(&cl->ev, NULL);
	set_timer(c);
}

static int make_path(const char *path, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	strcpy(ret->sun_path, path);
	return 0;
}

static int make_socket(const struct sockaddr_un *sa)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	unlink(sa->sun_path);
	mode_t mask = umask(0177);
	int err = bind(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0 ||
				  listen(fd, CLI_CONTROL_CLIENTS) < 0
			  ? -errno
			  : 0;
	umask(mask);
	if (err)
		close(fd);
	return err ? err : fd;
}

int cli_control_new(struct sp_loop *loop, const char *path,
		    const struct cli_control_ops *ops, void *ctx,
		    struct cli_control **ret)
{
	struct cli_control *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->loop = loop;
	c->ops = ops;
	c->ctx = ctx;
	TAILQ_INIT(&c->clients);
	int err = make_path(path, &c->path);
	c->fd = err ? err : make_socket(&c->path);
	if (c->fd < 0) {
		err = c->fd;
		free(c);
		return err;
	}
	sp_timer_init(&c->timer, loop, on_timer, c);
	event_assign(&c->ev, sp_loop_base(loop), c->fd, EV_READ | EV_PERSIST, on_accept,
		     c);
	event_add(&c->ev, NULL);
	*ret = c;
	return 0;
}

void cli_control_free(struct cli_control *c)
{
	if (!c)
		return;
	unlink(c->path.sun_path);
	event_del(&c->ev);
	close(c->fd);
	while (!TAILQ_EMPTY(&c->clients))
		client_close(TAILQ_FIRST(&c->clients));
	sp_timer_done(&c->timer);
	free(c);
}

// ---- the other side ----

static int read_all(int fd, char **ret, size_t *ret_len)
{
	char *buf = NULL;
	size_t len = 0, cap = 0;
	for (;;) {
		if (len + 1 >= cap) {
			cap = cap ? 2 * cap : 16384;
			char *more = cap > ANSWER_MAX ? NULL : realloc(buf, cap);
			if (!more) {
				free(buf);
				return -ENOMEM;
			}
			buf = more;
		}
		ssize_t n = recv(fd, buf + len, cap - len - 1, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int err = errno == EAGAIN ? -ETIMEDOUT : -errno;
			free(buf);
			return err;
		}
		if (n == 0)
			break;
		len += (size_t)n;
	}
	buf[len] = '\0';
	*ret = buf;
	*ret_len = len;
	return 0;
}

int cli_control_ask(const char *path, const char *request, unsigned timeout_s, char **ret,
		    size_t *ret_len)
{
	struct sockaddr_un sa;
	struct timeval tv = {.tv_sec = timeout_s};
	char line[REQUEST_MAX];
	int err = make_path(path, &sa);
	int n = snprintf(line, sizeof(line), "%s\n", request);
	if (err)
		return err;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		err = -errno;
	else if (send(fd, line, (size_t)n, MSG_NOSIGNAL) != n)
		err = -EIO;
	else
		err = read_all(fd, ret, ret_len);
	close(fd);
	return err;
}
