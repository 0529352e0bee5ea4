// dest: the destination of chaos streams. Takes what applications (app.c) send, checks
// it, answers by each stream's own plan.
//
//   dest ADDRESS HISTORY
//
// Listens on two ports and prints them: {"e":"ready","port":N,"slow":N}. The slow one has
// no room for waiting connections and takes a few each now and then, so that dials last.
// Commands, one a line: `mark NS` (CLOCK_MONOTONIC), `report`. Ends at the end of input.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/chaos/flows.h"

#define MS        1000000ull
#define SLOW_NS   (250 * MS) // between looks at the slow listener
#define SLOW_TAKE 4

struct conn {
	struct flow f; // first
	uint32_t number;
	char from[64];
	size_t have;
	uint8_t header[FLOW_HEADER_BYTES];
};

static struct flow ports[2]; // listeners; the second is the slow one
static uint32_t conns;
static uint64_t strangers; // ended without a header

static void listen_on(struct engine *e, struct flow *f, const char *address, int backlog)
{
	struct sockaddr_in sa = {.sin_family = AF_INET};

	f->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (f->fd < 0 || inet_pton(AF_INET, address, &sa.sin_addr) != 1 ||
	    bind(f->fd, (struct sockaddr *)&sa, sizeof(sa)) || listen(f->fd, backlog))
		flows_die(address);
	engine_add(e, f, backlog ? EPOLLIN : 0);
	if (!backlog)
		engine_wake_at(e, f, e->now_ns + SLOW_NS);
}

static int port_of(const struct flow *f)
{
	struct sockaddr_in sa;
	socklen_t len = sizeof(sa);

	if (getsockname(f->fd, (struct sockaddr *)&sa, &len))
		flows_die("getsockname");
	return ntohs(sa.sin_port);
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

static void accept_some(struct engine *e, struct flow *f)
{
	if (f == &ports[0]) {
		for (int i = 0; i < 64 && take_one(e, f); i++)
			;
		return;
	}
	for (int i = 0; i < SLOW_TAKE && take_one(e, f); i++)
		;
	engine_wake_at(e, f, e->now_ns + SLOW_NS);
}

static void ready(struct engine *e, struct flow *f, uint32_t events)
{
	struct conn *c = (struct conn *)f;
	ssize_t n;

	(void)events;
	if (f == &ports[0] || f == &ports[1]) {
		accept_some(e, f);
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
	if (strncmp(text, "mark ", 5) == 0)
		engine_mark(e, strtoull(text + 5, NULL, 10));
	else if (strcmp(text, "report") == 0)
		engine_report(e, "report", true);
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
	listen_on(&e, &ports[0], argv[1], 4096);
	listen_on(&e, &ports[1], argv[1], 0);
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
