// The load client of `make bench`: flows through a SOCKS5 proxy on loopback (or, with
// --socks 0, straight) to the origin. One thread, epoll. It discards what it receives
// inside the kernel, so that it costs far less than what is measured.
//
// usage: load bulk|short|idle --dest PORT [--socks PORT] [options]
//   bulk   --bytes N [--expect M] [--check]   one flow; M: bytes on the wire if not N;
//                                             --check compares each byte to the pattern
//   short  --flows M --concurrency K [--max-ms T]   no new flow after T ms
//   idle   --flows N --concurrency K          prints READY, holds until stdin ends
//   --patience-ms T (20,000): flows under way fail when nothing moved for so long
// Prints one JSON line; exits with 0 if every flow did exactly what it should.
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/benchlib.h"

enum { DISCARD_BYTES = 1 << 20 };

enum mode { BULK, SHORT, IDLE };

enum state { FREE, CONNECTING, METHOD, REPLY, BODY, HELD };

struct flow {
	int fd;
	enum state state;
	uint8_t have; // of a SOCKS answer
	uint8_t in[10];
	uint64_t got, began_ns;
};

struct load {
	enum mode mode;
	bool check;
	uint16_t socks, dest;
	uint32_t flows, concurrency, patience_ms;
	uint64_t bytes, expect, max_ms;

	int ep;
	uint8_t request[BL_REQUEST_BYTES];
	size_t request_len;
	uint8_t *pattern, *sink;

	struct flow *slot;
	uint32_t slots, *free_slots, free_count;
	uint32_t started, opening, done, failed, held, lost;
	uint64_t began_ns, asked_ns, first_ns, last_ns;
	uint64_t *took_ns; // of each flow done
	char why[64];      // the first failure
};

static void watch(struct load *l, uint32_t index, int op, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.u32 = index};

	if (epoll_ctl(l->ep, op, l->slot[index].fd, &ev) < 0)
		bl_die("epoll_ctl");
}

static void leave(struct load *l, struct flow *f)
{
	close(f->fd);
	f->state = FREE;
	l->free_slots[l->free_count++] = (uint32_t)(f - l->slot);
}

static void fail(struct load *l, struct flow *f, const char *why, int err)
{
	if (!*l->why)
		snprintf(l->why, sizeof(l->why), "%s%s%s", why, err ? ": " : "",
			 err ? strerror(err) : "");
	if (f->state == HELD) {
		l->lost++;
		l->held--;
	} else {
		l->failed++;
		l->opening--;
	}
	leave(l, f);
}

static void finish(struct load *l, struct flow *f)
{
	l->last_ns = bl_now_ns();
	l->took_ns[l->done++] = l->last_ns - f->began_ns;
	l->opening--;
	if (l->mode != IDLE) {
		leave(l, f);
		return;
	}
	f->state = HELD;
	l->held++;
}

// A message of a few bytes on a fresh socket goes out in one piece or not at all.
static bool say(struct load *l, struct flow *f, const void *msg, size_t len)
{
	if (send(f->fd, msg, len, MSG_NOSIGNAL) == (ssize_t)len)
		return true;
	fail(l, f, "send", errno);
	return false;
}

static void ask(struct load *l, struct flow *f)
{
	l->asked_ns = bl_now_ns();
	if (say(l, f, l->request, l->request_len))
		f->state = BODY;
}

static void connected(struct load *l, struct flow *f)
{
	int err = 0;
	socklen_t len = sizeof(err);

	getsockopt(f->fd, SOL_SOCKET, SO_ERROR, &err, &len);
	if (err) {
		fail(l, f, "connect", err);
		return;
	}
	watch(l, (uint32_t)(f - l->slot), EPOLL_CTL_MOD, EPOLLIN);
	if (!l->socks)
		ask(l, f);
	else if (say(l, f, "\5\1\0", 3)) // RFC 1928: no authentication
		f->state = METHOD;
}

// Collects want bytes of a SOCKS answer; true when they are there.
static bool collect(struct load *l, struct flow *f, uint8_t want)
{
	ssize_t n = recv(f->fd, f->in + f->have, want - f->have, 0);

	if (n < 0 && errno == EAGAIN)
		return false;
	if (n <= 0) {
		fail(l, f, "SOCKS answer", n < 0 ? errno : 0);
		return false;
	}
	f->have = (uint8_t)(f->have + n);
	if (f->have < want)
		return false;
	f->have = 0;
	return true;
}

static void read_method(struct load *l, struct flow *f)
{
	uint8_t req[10] = {5, 1, 0, 1, 127, 0, 0, 1};

	if (!collect(l, f, 2))
		return;
	if (f->in[0] != 5 || f->in[1] != 0) {
		fail(l, f, "SOCKS method refused", 0);
		return;
	}
	req[8] = (uint8_t)(l->dest >> 8);
	req[9] = (uint8_t)l->dest;
	if (say(l, f, req, sizeof(req)))
		f->state = REPLY;
}

// Every proxy here answers with an IPv4 address, so the reply has 10 bytes.
static void read_reply(struct load *l, struct flow *f)
{
	if (!collect(l, f, 10))
		return;
	if (f->in[1] != 0 || f->in[3] != 1)
		fail(l, f, "SOCKS connect refused", 0);
	else
		ask(l, f);
}

static bool matches(struct load *l, uint64_t offset, size_t len)
{
	for (size_t done = 0; done < len;) {
		size_t at = (offset + done) % BL_PATTERN_BYTES;
		size_t n = len - done;

		if (n > BL_PATTERN_BYTES - at)
			n = BL_PATTERN_BYTES - at;
		if (memcmp(l->sink + done, l->pattern + at, n) != 0)
			return false;
		done += n;
	}
	return true;
}

static void read_body(struct load *l, struct flow *f)
{
	for (int turn = 0; turn < 16; turn++) {
		ssize_t n = recv(f->fd, l->sink, DISCARD_BYTES, l->check ? 0 : MSG_TRUNC);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			fail(l, f, "closed early", n < 0 ? errno : 0);
			return;
		}
		if (!f->got && l->mode == BULK)
			l->first_ns = bl_now_ns();
		if (l->check && !matches(l, f->got, (size_t)n)) {
			fail(l, f, "bytes differ", 0);
			return;
		}
		f->got += (uint64_t)n;
		if (f->got > l->expect) {
			fail(l, f, "too many bytes", 0);
			return;
		}
		if (f->got == l->expect) {
			finish(l, f);
			return;
		}
	}
}

static void held_event(struct load *l, struct flow *f)
{
	uint8_t b;
	ssize_t n = recv(f->fd, &b, 1, 0);

	if (n < 0 && errno == EAGAIN)
		return;
	fail(l, f, "an idle stream ended", n < 0 ? errno : 0);
}

static void on_event(struct load *l, struct flow *f)
{
	switch (f->state) {
	case CONNECTING:
		connected(l, f);
		break;
	case METHOD:
		read_method(l, f);
		break;
	case REPLY:
		read_reply(l, f);
		break;
	case BODY:
		read_body(l, f);
		break;
	case HELD:
		held_event(l, f);
		break;
	case FREE:
		break;
	}
}

static bool may_start(struct load *l)
{
	if (l->started == l->flows || l->opening == l->concurrency)
		return false;
	return !l->max_ms || bl_now_ns() - l->began_ns < l->max_ms * 1000000;
}

static void start_flows(struct load *l)
{
	while (may_start(l)) {
		uint32_t index = l->free_slots[--l->free_count];
		struct flow *f = &l->slot[index];
		int fd = bl_connect(l->socks ? l->socks : l->dest, 1);

		if (fd < 0) {
			errno = -fd;
			bl_die("connect");
		}
		*f = (struct flow){
			.fd = fd, .state = CONNECTING, .began_ns = bl_now_ns()};
		watch(l, index, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
		l->started++;
		l->opening++;
	}
}

static void give_up(struct load *l)
{
	for (uint32_t i = 0; i < l->slots; i++)
		if (l->slot[i].state != FREE && l->slot[i].state != HELD)
			fail(l, &l->slot[i], "nothing moved", ETIMEDOUT);
}

// Runs until every flow is done, failed or held, or until nothing moves any more.
static void run(struct load *l)
{
	struct epoll_event ev[256];

	l->began_ns = bl_now_ns();
	for (start_flows(l); l->opening; start_flows(l)) {
		int n = epoll_wait(l->ep, ev, 256, (int)l->patience_ms);

		if (n == 0)
			give_up(l);
		if (n < 0 && errno != EINTR)
			bl_die("epoll_wait");
		for (int i = 0; i < n; i++)
			on_event(l, &l->slot[ev[i].data.u32]);
	}
}

// Holds the idle streams until stdin ends; notices each one that ends before.
static void hold(struct load *l)
{
	struct epoll_event ev[256];
	struct epoll_event in = {.events = EPOLLIN, .data.u32 = UINT32_MAX};

	printf("READY {\"held\":%u,\"failed\":%u,\"why\":\"%s\"}\n", l->held, l->failed,
	       l->why);
	fflush(stdout);
	if (epoll_ctl(l->ep, EPOLL_CTL_ADD, 0, &in) < 0)
		bl_die("stdin has to be a pipe");
	for (;;) {
		int n = epoll_wait(l->ep, ev, 256, -1);

		for (int i = 0; i < n; i++) {
			if (ev[i].data.u32 == UINT32_MAX)
				return;
			on_event(l, &l->slot[ev[i].data.u32]);
		}
	}
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static double took_ms(struct load *l, unsigned percent)
{
	return l->done ? (double)l->took_ns[(uint64_t)(l->done - 1) * percent / 100] / 1e6
		       : 0;
}

static void report(struct load *l)
{
	double secs = (double)(l->last_ns - l->began_ns) / 1e9;

	qsort(l->took_ns, l->done, sizeof(*l->took_ns), by_value);
	printf("{\"done\":%u,\"failed\":%u,\"lost\":%u,\"why\":\"%s\",\"seconds\":%.6f,",
	       l->done, l->failed, l->lost, l->why, l->done ? secs : 0);
	if (l->mode == BULK)
		printf("\"bytes\":%llu,\"transfer_seconds\":%.6f,\"first_byte_ms\":%.3f}"
		       "\n",
		       (unsigned long long)(l->done ? l->bytes : 0),
		       l->done ? (double)(l->last_ns - l->asked_ns) / 1e9 : 0,
		       l->done ? (double)(l->first_ns - l->asked_ns) / 1e6 : 0);
	else
		printf("\"p50_ms\":%.3f,\"p99_ms\":%.3f}\n", took_ms(l, 50),
		       took_ms(l, 99));
}

static void set_option(struct load *l, const char *name, const char *value)
{
	if (!strcmp(name, "--socks"))
		l->socks = (uint16_t)bl_number(value, 65535, name);
	else if (!strcmp(name, "--dest"))
		l->dest = (uint16_t)bl_number(value, 65535, name);
	else if (!strcmp(name, "--bytes"))
		l->bytes = bl_number(value, 1ull << 50, name);
	else if (!strcmp(name, "--expect"))
		l->expect = bl_number(value, 1ull << 50, name);
	else if (!strcmp(name, "--flows"))
		l->flows = (uint32_t)bl_number(value, 1000000, name);
	else if (!strcmp(name, "--concurrency"))
		l->concurrency = (uint32_t)bl_number(value, 10000, name);
	else if (!strcmp(name, "--patience-ms"))
		l->patience_ms = (uint32_t)bl_number(value, 600000, name);
	else if (!strcmp(name, "--max-ms"))
		l->max_ms = bl_number(value, 600000, name);
	else {
		fprintf(stderr, "load: unknown option %s\n", name);
		exit(2);
	}
}

static void parse(struct load *l, int argc, char **argv)
{
	static const char *const names[] = {"bulk", "short", "idle"};
	size_t mode = 0;

	while (argc > 1 && mode < 3 && strcmp(argv[1], names[mode]) != 0)
		mode++;
	if (argc < 2 || mode == 3) {
		fputs("usage: load bulk|short|idle --dest PORT ...\n", stderr);
		exit(2);
	}
	*l = (struct load){.mode = (enum mode)mode,
			   .flows = 1,
			   .concurrency = 1,
			   .patience_ms = 20000};
	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "--check")) {
			l->check = true;
		} else {
			set_option(l, argv[i], argv[i + 1]);
			i++;
		}
	}
	if (!l->dest || !l->flows || !l->concurrency || (l->mode == BULK && !l->bytes)) {
		fputs("load: --dest, and --bytes or --flows, must not be 0\n", stderr);
		exit(2);
	}
}

static void prepare(struct load *l)
{
	if (l->mode == BULK) {
		bl_put64(l->request, l->bytes);
		l->request_len = 8;
		if (!l->expect)
			l->expect = l->bytes;
	} else {
		l->request_len = l->mode == SHORT ? BL_REQUEST_BYTES : 1;
		l->expect = l->mode == SHORT ? BL_ANSWER_BYTES : 1;
	}
	l->slots = l->mode == IDLE ? l->flows : l->concurrency;
	l->ep = epoll_create1(EPOLL_CLOEXEC);
	l->pattern = malloc(BL_PATTERN_BYTES);
	l->sink = malloc(DISCARD_BYTES);
	l->slot = calloc(l->slots, sizeof(*l->slot));
	l->free_slots = calloc(l->slots, sizeof(*l->free_slots));
	l->took_ns = calloc(l->flows, sizeof(*l->took_ns));
	if (l->ep < 0 || !l->pattern || !l->sink || !l->slot || !l->free_slots ||
	    !l->took_ns)
		bl_die("start");
	bl_pattern(l->pattern);
	while (l->free_count < l->slots) {
		l->free_slots[l->free_count] = l->slots - 1 - l->free_count;
		l->free_count++;
	}
}

int main(int argc, char **argv)
{
	static struct load l;

	parse(&l, argc, argv);
	bl_raise_nofile();
	prepare(&l);
	run(&l);
	if (l.mode == IDLE)
		hold(&l);
	report(&l);
	return l.failed || l.lost || !l.done;
}
