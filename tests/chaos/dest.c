// dest: the destination of chaos streams. Takes what applications (app.c) send, checks
// it, answers by each stream's own plan.
//
//   dest ADDRESS HISTORY
//
// Listens on two ports and prints them: {"e":"ready","port":N,"slow":N}. The slow one
// answers no SYN most of the time, so that dials last.
// Commands, one a line: those of engine_obey (flows.h). Ends at the end of input.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/chaos/flows.h"

#define MS      1000000ull
// Of the slow port. A SYN is sent again each second: it is let in by the fourth.
#define SHUT_NS (700 * MS)
#define OPEN_NS (600 * MS)

struct conn {
	struct flow f; // first
	uint32_t number;
	char from[64];
	size_t have;
	uint8_t header[FLOW_HEADER_BYTES];
};

static struct flow ports[2]; // listeners; the second is the slow one
static int filler = -1;      // of the slow one, while it is shut
static in_port_t filler_port;
static uint32_t conns;
static uint64_t strangers; // ended without a header

static void listen_on(struct engine *e, struct flow *f, const char *address)
{
	struct sockaddr_in sa = {.sin_family = AF_INET};

	f->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (f->fd < 0 || inet_pton(AF_INET, address, &sa.sin_addr) != 1 ||
	    bind(f->fd, (struct sockaddr *)&sa, sizeof(sa)) || listen(f->fd, 4096))
		flows_die(address);
	engine_add(e, f, EPOLLIN);
}

static int port_of(const struct flow *f)
{
	struct sockaddr_in sa;
	socklen_t len = sizeof(sa);

	if (getsockname(f->fd, (struct sockaddr *)&sa, &len))
		flows_die("getsockname");
	return ntohs(sa.sin_port);
}

// Nobody is let in: one connection of our own fills the queue, so SYNs are dropped. (A
// queue that fills while handshakes are under way would reset some of them later.)
static void shut(struct engine *e)
{
	struct sockaddr_in sa;
	socklen_t len = sizeof(sa);

	if (listen(ports[1].fd, 0) ||
	    getsockname(ports[1].fd, (struct sockaddr *)&sa, &len))
		flows_die("listen");
	filler = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (filler < 0)
		flows_die("socket");
	(void)connect(filler, (struct sockaddr *)&sa, sizeof(sa));
	len = sizeof(sa);
	if (getsockname(filler, (struct sockaddr *)&sa, &len))
		flows_die("getsockname");
	filler_port = sa.sin_port;
	engine_watch(e, &ports[1], 0);
	engine_wake_at(e, &ports[1], e->now_ns + SHUT_NS);
}

static void let_in(struct engine *e)
{
	close(filler);
	filler = -1;
	if (listen(ports[1].fd, 4096))
		flows_die("listen");
	engine_watch(e, &ports[1], EPOLLIN);
	engine_wake_at(e, &ports[1], e->now_ns + OPEN_NS);
}

static bool take_one(struct engine *e, struct flow *listener)
{
	struct sockaddr_in sa;
	socklen_t len = sizeof(sa);
	int one = 1, fd = accept4(listener->fd, (struct sockaddr *)&sa, &len,
				  SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct conn *c;
	char ip[INET_ADDRSTRLEN];

	if (fd < 0)
		return false;
	if (listener == &ports[1] && sa.sin_port == filler_port) {
		close(fd);
		return true;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c = calloc(1, sizeof(*c));
	if (!c)
		flows_die("calloc");
	c->f.fd = fd;
	c->f.server = true;
	c->number = ++conns;
	inet_ntop(AF_INET, &sa.sin_addr, ip, sizeof(ip));
	snprintf(c->from, sizeof(c->from), "%s:%d", ip, ntohs(sa.sin_port));
	engine_add(e, &c->f, EPOLLIN);
	return true;
}

static void accept_some(struct engine *e, struct flow *f, uint32_t events)
{
	bool open = f == &ports[0] || filler < 0;

	for (int i = 0; open && i < 64 && take_one(e, f); i++)
		;
	if (f == &ports[1] && !events && filler < 0)
		shut(e);
	else if (f == &ports[1] && !events)
		let_in(e);
}

static void ready(struct engine *e, struct flow *f, uint32_t events)
{
	struct conn *c = (struct conn *)f;
	ssize_t n;

	if (f == &ports[0] || f == &ports[1]) {
		accept_some(e, f, events);
		return;
	}
	n = recv(f->fd, c->header + c->have, sizeof(c->header) - c->have, 0);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n > 0)
		c->have += (size_t)n;
	if (n > 0 && c->have < sizeof(c->header))
		return;
	if (n <= 0 || !flow_plan_parse(c->header, &f->plan)) {
		if (n > 0 || c->have) // not what any application sends first
			e->bad++;
		fprintf(e->history, "{\"e\":\"stranger\",\"c\":%u,\"have\":%zu}\n",
			c->number, c->have);
		strangers++;
		engine_drop(e, f);
		free(c);
		return;
	}
	fprintf(e->history,
		"{\"e\":\"accept\",\"s\":%u,\"c\":%u,\"from\":\"%s\",\"t\":%.6f}\n",
		f->plan.id, c->number, c->from, (double)e->now_ns / 1e9);
	flow_begin(e, f);
}

static void end(struct engine *e, struct flow *f, enum flow_state how)
{
	struct conn *c = (struct conn *)f;

	flow_history(e, f, how == FLOW_DONE ? "done" : "failed", c->number);
	engine_drop(e, f);
	free(c);
}

static void line(struct engine *e, char *text)
{
	(void)engine_obey(e, text);
}

int main(int argc, char **argv)
{
	struct engine e;
	struct flow *f;

	if (argc != 3) {
		fputs("usage: dest ADDRESS HISTORY\n", stderr);
		return 2;
	}
	engine_init(&e, argv[2]);
	e.ready = ready;
	e.end = end;
	e.line = line;
	listen_on(&e, &ports[0], argv[1]);
	listen_on(&e, &ports[1], argv[1]);
	shut(&e);
	printf("{\"e\":\"ready\",\"port\":%d,\"slow\":%d}\n", port_of(&ports[0]),
	       port_of(&ports[1]));
	fflush(stdout);
	engine_run(&e);
	LIST_FOREACH(f, &e.flows, all)
	if (f->live)
		flow_history(&e, f, "open", ((struct conn *)f)->number);
	fclose(e.history);
	return 0;
}
