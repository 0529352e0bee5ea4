// app: the applications of chaos streams. Opens streams of many kinds to a destination
// (dest.c) through a SOCKS5 proxy, keeps their number, checks all that comes back.
//
//   app PROXY_PORT DEST_ADDRESS DEST_PORT SLOW_PORT SEED FIRST_ID HISTORY
//   KIND=COUNT[:RATE]
//
// RATE: bytes a second of each sender of that kind. KIND:
//   down up both  bulk; without a rate as fast as it goes, and then another
//   half          one side has ended while the other sends
//   zero          both send, both readers stop now and then, so that windows close
//   tiny          small requests and answers, then another stream
//   dial          a dial that takes long, a few words
//   idle          a few words with long silence between
//   echo          a request each 100-200 ms, for ever
//   paced         both ways at the rate, for ever
//   load          down, for ever; with a rate, a write each 10 ms
// Commands, one a line: those of engine_obey (flows.h); `stop` (no further
// streams, those that are there come to their ends; the program ends after them). Ends at
// the end of input.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/chaos/flows.h"

#define MS       1000000ull
#define DIAL_NS  (60000 * MS) // beyond that it counts as failed
#define AGAIN_NS (500 * MS)   // a slot whose stream failed opens another
#define START_NS (2 * MS)     // between the first streams of slots
#define KIB      1024u
#define MIB      (1024u * KIB)

enum kind { DOWN, UP, BOTH, HALF, ZERO, TINY, DIAL, IDLE, ECHO, PACED, LOAD, KINDS };
static const char *const kind_names[KINDS] = {"down", "up",    "both", "half",
					      "zero", "tiny",  "dial", "idle",
					      "echo", "paced", "load"};

enum phase { WAITING, CONNECTING, ASKED };

// A place in which one stream follows another.
struct slot {
	struct flow f; // first
	enum kind kind;
	enum phase phase;
	uint32_t rate;
	uint64_t began_ns;
	uint64_t rng;
	size_t have;
	uint8_t reply[16];
};

static struct {
	struct sockaddr_in proxy, dest, slow;
	uint32_t next_id;
	struct slot *slots;
	size_t n_slots;
} x;

static uint64_t roll(struct slot *s) // splitmix64
{
	uint64_t z = s->rng += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static uint32_t between(struct slot *s, uint32_t low, uint32_t high)
{
	return low + (uint32_t)(roll(s) % (high - low + 1));
}

static void plan_words(struct slot *s, uint32_t unit, uint32_t count)
{
	struct flow_plan *p = &s->f.plan;

	p->unit = unit;
	p->up_total = p->down_total = (uint64_t)unit * count;
}

static void plan_bulk(struct slot *s)
{
	struct flow_plan *p = &s->f.plan;
	uint32_t size = s->rate ? between(s, s->rate, 10 * s->rate)
				: between(s, 256 * KIB, 8 * MIB);

	if (s->kind != UP)
		p->down_total = size;
	if (s->kind != DOWN)
		p->up_total = s->kind == BOTH ? size / 2 : size;
	if (s->kind == DOWN)
		p->flags = FLOW_UP_AFTER_DOWN;
	if (s->kind == UP) {
		p->flags = FLOW_DOWN_AFTER_UP;
		p->down_total = 16; // a receipt
	}
}

static void make_plan(struct slot *s)
{
	struct flow_plan *p = &s->f.plan;

	*p = (struct flow_plan){.id = x.next_id++ % CONTENT_IDS,
				.kind = (uint8_t)s->kind};
	s->f.think_ns = 0;
	s->f.pause_every = s->f.pause_ms = 0;
	switch (s->kind) {
	case DOWN:
	case UP:
	case BOTH:
		plan_bulk(s);
		break;
	case HALF:
		p->flags = roll(s) % 2 ? FLOW_DOWN_AFTER_UP : FLOW_UP_AFTER_DOWN;
		p->up_total = between(s, 1, 512 * KIB);
		p->down_total = between(s, 1, 512 * KIB);
		break;
	case ZERO:
		p->up_total = between(s, 256 * KIB, 2 * MIB);
		p->down_total = between(s, 256 * KIB, 2 * MIB);
		p->pause_every = between(s, 100 * KIB, 500 * KIB);
		p->pause_ms = between(s, 100, 1500);
		s->f.pause_every = between(s, 100 * KIB, 500 * KIB);
		s->f.pause_ms = between(s, 100, 1500);
		break;
	case TINY:
		plan_words(s, between(s, 1, 1400), between(s, 20, 200));
		s->f.think_ns = between(s, 5, 50) * MS;
		break;
	case DIAL:
		plan_words(s, 100, between(s, 1, 5));
		s->f.think_ns = 10 * MS;
		break;
	case IDLE:
		plan_words(s, 64, between(s, 3, 10));
		s->f.think_ns = between(s, 5000, 30000) * MS;
		break;
	case ECHO:
		plan_words(s, 200, 1 << 20);
		s->f.think_ns = between(s, 100, 200) * MS;
		break;
	case PACED:
		p->up_total = p->down_total = 1ull << 38;
		break;
	case LOAD:
		p->down_total = 1ull << 38;
		p->flags = FLOW_UP_AFTER_DOWN;
		break;
	case KINDS:
		break;
	}
	if (s->rate && !p->unit) {
		p->rate = s->rate;
		p->interval_ms = s->kind == LOAD ? 10 : 100;
	}
}

static void write_open(struct engine *e, const struct slot *s, const char *what)
{
	fprintf(e->history, "{\"e\":\"%s\",\"s\":%u,\"k\":\"%s\",\"t\":%.6f}\n", what,
		s->f.plan.id, kind_names[s->kind], (double)e->now_ns / 1e9);
}

static void open_stream(struct engine *e, struct slot *s)
{
	struct flow *f = &s->f;
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		flows_die("socket");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	*f = (struct flow){.fd = fd, .opened_ns = e->now_ns};
	make_plan(s);
	s->phase = CONNECTING;
	s->have = 0;
	s->began_ns = e->now_ns;
	write_open(e, s, "open");
	if (connect(fd, (struct sockaddr *)&x.proxy, sizeof(x.proxy)) &&
	    errno != EINPROGRESS)
		flows_die("the proxy");
	engine_add(e, f, EPOLLOUT);
	engine_wake_at(e, f, e->now_ns + DIAL_NS);
}

// A slot that waits has no descriptor and is on the wheel alone.
static void wait_for_next(struct engine *e, struct slot *s, uint64_t ns)
{
	s->phase = WAITING;
	s->f = (struct flow){.fd = -1};
	if (!e->stopping)
		engine_wake_at(e, &s->f, e->now_ns + ns);
}

static void fail(struct engine *e, struct slot *s, const char *why, int code)
{
	fprintf(e->history,
		"{\"e\":\"refused\",\"s\":%u,\"k\":\"%s\",\"why\":\"%s\",\"code\":%d,"
		"\"after_ms\":%.1f,\"t\":%.6f}\n",
		s->f.plan.id, kind_names[s->kind], why, code,
		(double)(e->now_ns - s->began_ns) / 1e6, (double)e->now_ns / 1e9);
	e->failed++;
	engine_drop(e, &s->f);
	wait_for_next(e, s, AGAIN_NS);
}

static void ask(struct engine *e, struct slot *s)
{
	const struct sockaddr_in *to = s->kind == DIAL ? &x.slow : &x.dest;
	uint8_t m[13] = {5, 1, 0, 5, 1, 0, 1}; // RFC 1928: greeting and request at once
	int err = 0;
	socklen_t len = sizeof(err);

	getsockopt(s->f.fd, SOL_SOCKET, SO_ERROR, &err, &len);
	memcpy(m + 7, &to->sin_addr, 4);
	memcpy(m + 11, &to->sin_port, 2);
	if (err || send(s->f.fd, m, sizeof(m), MSG_NOSIGNAL) != sizeof(m)) {
		fail(e, s, "proxy", err ? err : errno);
		return;
	}
	s->phase = ASKED;
	engine_watch(e, &s->f, EPOLLIN);
}

static void begin(struct engine *e, struct slot *s)
{
	uint8_t header[FLOW_HEADER_BYTES];

	if (s->have < 12 || s->reply[3] != 0) {
		fail(e, s, "socks", s->have >= 4 ? s->reply[3] : -1);
		return;
	}
	write_open(e, s, "dialled");
	flow_plan_pack(&s->f.plan, header);
	if (send(s->f.fd, header, sizeof(header), MSG_NOSIGNAL) != sizeof(header)) {
		fail(e, s, "send", errno);
		return;
	}
	if (s->f.asleep) // its dial's timer
		LIST_REMOVE(&s->f, wheel);
	s->f.asleep = false;
	flow_begin(e, &s->f);
	if (e->stopping && s->f.live)
		flow_stop(e, &s->f);
}

static void ready(struct engine *e, struct flow *f, uint32_t events)
{
	struct slot *s = (struct slot *)f;
	ssize_t n;

	if (s->phase == WAITING) {
		if (!e->stopping)
			open_stream(e, s);
		return;
	}
	if (e->now_ns - s->began_ns >= DIAL_NS) {
		fail(e, s, "timeout", 0);
		return;
	}
	if (s->phase == CONNECTING) {
		if (events)
			ask(e, s);
		return;
	}
	n = recv(f->fd, s->reply + s->have, 12 - s->have, 0);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n > 0)
		s->have += (size_t)n;
	if (n <= 0)
		fail(e, s, n < 0 ? "reset" : "closed", n < 0 ? errno : 0);
	else if (s->have == 12 || (s->have >= 4 && s->reply[3]))
		begin(e, s);
}

static void end(struct engine *e, struct flow *f, enum flow_state how)
{
	struct slot *s = (struct slot *)f;

	flow_history(e, f, how == FLOW_DONE ? "done" : "failed", 0);
	engine_drop(e, f);
	wait_for_next(e, s, how == FLOW_DONE ? START_NS : AGAIN_NS);
}

static void stop(struct engine *e)
{
	e->stopping = true;
	for (size_t i = 0; i < x.n_slots; i++) {
		struct slot *s = &x.slots[i];
		if (s->f.live)
			flow_stop(e, &s->f);
	}
}

static void line(struct engine *e, char *text)
{
	if (!engine_obey(e, text) && strcmp(text, "stop") == 0)
		stop(e);
}

static void add_slots(struct engine *e, const char *text, uint64_t seed)
{
	char name[16];
	unsigned count, rate = 0;
	int n = sscanf(text, "%15[a-z]=%u:%u", name, &count, &rate), kind = 0;

	while (kind < KINDS && strcmp(kind_names[kind], name) != 0)
		kind++;
	if (n < 2 || kind == KINDS) {
		errno = EINVAL;
		flows_die(text);
	}
	for (unsigned i = 0; i < count; i++) {
		struct slot *s = &x.slots[x.n_slots];
		s->kind = (enum kind)kind;
		s->rate = rate;
		s->rng = seed * 1000003 + x.n_slots;
		s->f.fd = -1;
		engine_wake_at(e, &s->f, e->now_ns + ++x.n_slots * START_NS);
	}
}

static unsigned count_of(const char *text)
{
	const char *equals = strchr(text, '=');

	return equals ? (unsigned)strtoul(equals + 1, NULL, 10) : 0;
}

static struct sockaddr_in address(const char *ip, const char *port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)atoi(port))};

	if (inet_pton(AF_INET, ip, &sa.sin_addr) != 1)
		flows_die(ip);
	return sa;
}

int main(int argc, char **argv)
{
	struct engine e;
	size_t all = 0;

	if (argc < 9) {
		fputs("usage: app PROXY_PORT DEST_ADDRESS DEST_PORT SLOW_PORT SEED "
		      "FIRST_ID "
		      "HISTORY KIND=COUNT[:RATE]...\n",
		      stderr);
		return 2;
	}
	engine_init(&e, argv[7]);
	e.ready = ready;
	e.end = end;
	e.line = line;
	x.proxy = address("127.0.0.1", argv[1]);
	x.dest = address(argv[2], argv[3]);
	x.slow = address(argv[2], argv[4]);
	x.next_id = (uint32_t)strtoul(argv[6], NULL, 10);
	for (int i = 8; i < argc; i++)
		all += count_of(argv[i]);
	x.slots = calloc(all + 1, sizeof(*x.slots));
	if (!x.slots)
		flows_die("calloc");
	for (int i = 8; i < argc; i++)
		add_slots(&e, argv[i], strtoull(argv[5], NULL, 10));
	engine_run(&e);
	for (size_t i = 0; i < x.n_slots; i++)
		if (x.slots[i].f.live)
			flow_history(&e, &x.slots[i].f, "open", 0);
	fclose(e.history);
	engine_report(&e, "over", true);
	free(x.slots);
	return 0;
}
