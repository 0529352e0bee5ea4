#include "tests/chaos/flows.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAGIC       0x53504348u
#define MS          1000000ull
#define PIECE       65536u
#define TURN_PIECES 4 // of one flow, so that the others have their turn
#define MARK_LATE                                                                        \
	(20 * MS) // due so long after a mark at most: it may be the mark's doing

static uint8_t scratch[PIECE];

uint64_t flows_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

_Noreturn void flows_die(const char *what)
{
	fprintf(stderr, "chaos: %s: %s\n", what, strerror(errno));
	exit(1);
}

// ---- plan ----

static void put(uint8_t **to, uint64_t value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		*(*to)++ = (uint8_t)(value >> 8 * i);
}

static uint64_t get(const uint8_t **from, int bytes)
{
	uint64_t value = 0;

	for (int i = 0; i < bytes; i++)
		value |= (uint64_t) * (*from)++ << 8 * i;
	return value;
}

void flow_plan_pack(const struct flow_plan *p, uint8_t *to)
{
	put(&to, MAGIC, 4);
	put(&to, p->id, 4);
	put(&to, p->kind, 1);
	put(&to, p->flags, 1);
	put(&to, p->interval_ms, 2);
	put(&to, p->up_total, 8);
	put(&to, p->down_total, 8);
	put(&to, p->unit, 4);
	put(&to, p->rate, 4);
	put(&to, p->pause_every, 4);
	put(&to, p->pause_ms, 4);
	put(&to, p->attempt, 4);
}

bool flow_plan_parse(const uint8_t *from, struct flow_plan *ret)
{
	if (get(&from, 4) != MAGIC)
		return false;
	ret->id = (uint32_t)get(&from, 4);
	ret->kind = (uint8_t)get(&from, 1);
	ret->flags = (uint8_t)get(&from, 1);
	ret->interval_ms = (uint16_t)get(&from, 2);
	ret->up_total = get(&from, 8);
	ret->down_total = get(&from, 8);
	ret->unit = (uint32_t)get(&from, 4);
	ret->rate = (uint32_t)get(&from, 4);
	ret->pause_every = (uint32_t)get(&from, 4);
	ret->pause_ms = (uint32_t)get(&from, 4);
	ret->attempt = (uint32_t)get(&from, 4);
	return ret->id < CONTENT_IDS;
}

// ---- stalls ----

static void stall_count(struct stalls *s, uint64_t ns)
{
	uint64_t slot = ns / 100000;

	s->n[slot < STALL_SLOTS ? slot : STALL_SLOTS]++;
}

// Something came, or is not due any more.
static void progress(struct engine *e, struct flow *f)
{
	uint64_t since = f->due_ns, from, wait;

	if (!since)
		return;
	if (e->now_ns > since && e->now_ns - since > f->stall_ns)
		f->stall_ns = e->now_ns - since;
	if (!e->armed || since > e->mark_ns + MARK_LATE)
		return;
	from = since > e->mark_ns ? since : e->mark_ns;
	wait = e->now_ns > from ? e->now_ns - from : 0;
	if (f->mark != e->mark) {
		f->mark = e->mark;
		stall_count(e->first, wait);
	}
}

static void pause_since_mark(struct engine *e, struct flow *f)
{
	uint64_t from = f->due_ns > e->mark_ns ? f->due_ns : e->mark_ns;

	if (e->armed && f->due_ns && e->now_ns > from &&
	    e->now_ns - from > f->mark_stall_ns)
		f->mark_stall_ns = e->now_ns - from;
}

// From when on the next byte of the other side is due; 0: it is not.
static uint64_t next_due(const struct engine *e, const struct flow *f)
{
	const struct flow_plan *p = &f->plan;

	if (f->eof || f->pause_until_ns || f->fd < 0)
		return 0;
	if (p->unit)
		return !f->server && f->sent > f->rx.bytes ? e->now_ns : 0;
	if (!f->server) {
		if (p->flags & FLOW_DOWN_AFTER_UP && !f->rx.bytes)
			return 0;   // ours is on its way, for as long as it takes
		if (p->pause_every) // it may be waiting for its own reader's pause
			return 0;
	} else if ((p->flags & FLOW_UP_AFTER_DOWN && !f->rx.bytes) || p->pause_every) {
		return 0;
	}
	if (f->rx.bytes >= (f->server ? p->up_total : p->down_total))
		return 0; // only the end, which waits for other things
	return e->now_ns + p->interval_ms * MS;
}

void engine_calm(struct engine *e)
{
	struct flow *f;

	LIST_FOREACH(f, &e->flows, all)
	{
		if (!f->live)
			continue;
		pause_since_mark(e, f);
		if (e->armed && (f->mark == e->mark || f->mark_stall_ns))
			stall_count(e->pause, f->mark_stall_ns);
		f->mark_stall_ns = 0;
	}
	e->armed = false;
}

void engine_mark(struct engine *e, uint64_t at_ns)
{
	engine_calm(e);
	e->armed = true;
	e->mark++;
	e->mark_ns = at_ns;
}

// ---- history ----

static void write_runs(FILE *to, const struct content_track *t)
{
	unsigned n = t->n_runs < CONTENT_RUNS ? t->n_runs : CONTENT_RUNS;

	fprintf(to, "\"bytes\":%" PRIu64 ",\"runs\":[", t->bytes);
	for (unsigned i = 0; i < n; i++) {
		const struct content_run *r = &t->runs[i];
		if (r->id == t->id && r->dir == t->dir)
			fprintf(to, "%s[%" PRIu64 ",%" PRIu64 "]", i ? "," : "", r->from,
				r->to);
		else
			fprintf(to, "%s[%" PRIu64 ",%" PRIu64 ",%" PRId64 ",%d]",
				i ? "," : "", r->from, r->to, r->id, r->dir);
	}
	fprintf(to, "],\"n_runs\":%u", t->n_runs);
}

void flow_history(struct engine *e, const struct flow *f, const char *how, uint32_t conn)
{
	fprintf(e->history,
		"{\"e\":\"end\",\"at\":\"%s\",\"s\":%u,\"c\":%u,\"how\":\"%s\","
		"\"t\":%.6f,\"errno\":%d,\"sent\":%" PRIu64 ",\"fin\":%s,\"eof\":%s,"
		"\"stall_ms\":%.1f,\"first_ms\":%.1f,",
		f->server ? "dest" : "app", f->plan.id, conn, how,
		(double)e->now_ns / 1e9, f->error, f->sent, f->fin ? "true" : "false",
		f->eof ? "true" : "false", (double)f->stall_ns / 1e6,
		f->first_ns > f->opened_ns ? (double)(f->first_ns - f->opened_ns) / 1e6
					   : 0.0);
	write_runs(e->history, &f->rx);
	fputs("}\n", e->history);
}

static void write_stalls(const struct stalls *s)
{
	bool some = false;

	putchar('[');
	for (unsigned i = 0; i <= STALL_SLOTS; i++) {
		if (!s->n[i])
			continue;
		printf("%s[%.1f,%u]", some ? "," : "", i / 10.0, s->n[i]);
		some = true;
	}
	putchar(']');
}

void engine_report(struct engine *e, const char *event, bool all)
{
	printf("{\"e\":\"%s\",\"t\":%.6f,\"rx\":%" PRIu64 ",\"tx\":%" PRIu64
	       ",\"live\":%" PRIu64 ",\"done\":%" PRIu64 ",\"failed\":%" PRIu64
	       ",\"bad\":%" PRIu64,
	       event, (double)e->now_ns / 1e9, e->rx_bytes, e->tx_bytes, e->live, e->done,
	       e->failed, e->bad);
	if (all) {
		printf(",\"first\":");
		write_stalls(e->first);
		printf(",\"pause\":");
		write_stalls(e->pause);
	}
	puts("}");
	fflush(stdout);
}

// ---- one flow ----

void flow_begin(struct engine *e, struct flow *f)
{
	const struct flow_plan *p = &f->plan;

	f->live = true;
	e->live++;
	f->total = f->server ? p->down_total : p->up_total;
	if (f->server) {
		f->pause_every = p->pause_every;
		f->pause_ms = p->pause_ms;
	}
	f->mark = e->mark;
	content_track_init(&f->rx, p->id, f->server ? CONTENT_UP : CONTENT_DOWN);
	f->due_ns = next_due(e, f);
	flow_pump(e, f, EPOLLIN | EPOLLOUT);
}

// Up to which offset may be sent now; sets when it may be more.
static uint64_t may_send(struct engine *e, struct flow *f, uint64_t *wake)
{
	const struct flow_plan *p = &f->plan;

	if (f->server && p->flags & FLOW_DOWN_AFTER_UP && !f->eof)
		return f->sent;
	if (!f->server && p->flags & FLOW_UP_AFTER_DOWN && !f->eof && f->total)
		return f->sent;
	if (p->unit && f->server) {
		uint64_t answer = f->rx.bytes / p->unit * p->unit;
		return answer < f->total ? answer : f->total;
	}
	if (p->unit) {
		if (f->sent % p->unit) // one that is half sent
			return f->sent + p->unit - f->sent % p->unit;
		if (f->rx.bytes < f->sent)
			return f->sent;
		if (f->think_ns && f->think_at_ns > e->now_ns) {
			*wake = f->think_at_ns;
			return f->sent;
		}
		return f->sent + p->unit < f->total ? f->sent + p->unit : f->total;
	}
	if (p->rate) {
		if (e->now_ns >= f->quota_at_ns) {
			f->quota =
				f->sent + (uint64_t)p->rate * p->interval_ms / 1000 + 1;
			f->quota_at_ns = e->now_ns + p->interval_ms * MS;
		}
		if (f->quota < f->total) {
			*wake = f->quota_at_ns;
			return f->quota;
		}
	}
	return f->total;
}

// Whether nothing more follows, so that our end may be told.
static bool all_sent(const struct flow *f)
{
	if (f->sent < f->total)
		return false;
	if (f->server)
		return !(f->plan.flags & FLOW_DOWN_AFTER_UP) || f->eof;
	return !(f->plan.flags & FLOW_UP_AFTER_DOWN) || f->eof;
}

// 0, or -errno; *ret_full: the socket takes no more.
static int send_some(struct engine *e, struct flow *f, bool *ret_full, uint64_t *wake)
{
	uint64_t upto;
	size_t n;
	ssize_t k;

	*ret_full = false;
	for (int i = 0; i < TURN_PIECES && !f->fin; i++) {
		upto = may_send(e, f, wake);
		if (upto <= f->sent)
			break;
		n = upto - f->sent < PIECE ? upto - f->sent : PIECE;
		content_fill(f->plan.id, f->server ? CONTENT_DOWN : CONTENT_UP, f->sent,
			     scratch, n);
		k = send(f->fd, scratch, n, MSG_NOSIGNAL);
		if (k < 0 && errno != EAGAIN)
			return -errno;
		if (k > 0) {
			f->sent += (uint64_t)k;
			e->tx_bytes += (uint64_t)k;
			if (f->plan.unit && !f->server && !f->due_ns)
				f->due_ns = next_due(e, f);
		}
		if (k < (ssize_t)n) {
			*ret_full = true;
			break;
		}
		if (f->plan.rate)
			continue;
	}
	if (!f->fin && all_sent(f)) {
		if (shutdown(f->fd, SHUT_WR) && errno != ENOTCONN)
			return -errno;
		f->fin = true;
		if (!f->due_ns)
			f->due_ns = next_due(e, f);
	} else if (!f->fin && !*ret_full && may_send(e, f, wake) > f->sent) {
		*ret_full = true; // its turn is over: come again when it is writable
	}
	return 0;
}

// The other side ended, perhaps before its time: then we do as well.
static void take_end(struct engine *e, struct flow *f)
{
	const struct flow_plan *p = &f->plan;

	progress(e, f);
	f->due_ns = 0;
	f->eof = true;
	if (!f->server)
		return;
	if (p->unit)
		f->total = f->rx.bytes / p->unit * p->unit;
	else if (f->rx.bytes < p->up_total || (p->flags & FLOW_UP_AFTER_DOWN && !f->fin))
		f->total = f->sent;
}

static void take(struct engine *e, struct flow *f, const uint8_t *buf, size_t n)
{
	if (!f->first_ns)
		f->first_ns = e->now_ns;
	pause_since_mark(e, f);
	progress(e, f);
	if (!content_track_take(&f->rx, buf, n))
		e->bad++;
	e->rx_bytes += n;
	if (f->pause_every && f->rx.bytes >= f->pause_from + f->pause_every &&
	    !e->stopping) {
		f->pause_from = f->rx.bytes;
		f->pause_until_ns = e->now_ns + f->pause_ms * MS;
	}
	if (f->plan.unit && !f->server && f->rx.bytes >= f->sent)
		f->think_at_ns = e->now_ns + f->think_ns;
	f->due_ns = next_due(e, f);
}

static int receive_some(struct engine *e, struct flow *f)
{
	ssize_t k;

	for (int i = 0; i < TURN_PIECES && !f->eof && !f->pause_until_ns; i++) {
		k = recv(f->fd, scratch, PIECE, 0);
		if (k < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (k == 0)
			take_end(e, f);
		else
			take(e, f, scratch, (size_t)k);
		if (k < (ssize_t)PIECE)
			break;
	}
	return 0;
}

static int socket_error(int fd)
{
	int err = 0;
	socklen_t len = sizeof(err);

	getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	return -err;
}

static void over(struct engine *e, struct flow *f, enum flow_state how)
{
	pause_since_mark(e, f);
	if (e->armed && f->mark_stall_ns)
		stall_count(e->pause, f->mark_stall_ns);
	e->live--;
	if (how == FLOW_DONE)
		e->done++;
	else
		e->failed++;
	e->end(e, f, how);
}

void flow_pump(struct engine *e, struct flow *f, uint32_t events)
{
	uint64_t wake = 0;
	bool full = false;
	int err = 0;

	if (f->pause_until_ns && f->pause_until_ns <= e->now_ns) {
		f->pause_until_ns = 0;
		events |= EPOLLIN;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		err = receive_some(e, f);
	if (!err && events & EPOLLERR)
		err = socket_error(f->fd);
	if (!err)
		err = send_some(e, f, &full, &wake);
	if (err) {
		f->error = -err;
		over(e, f, FLOW_FAILED);
		return;
	}
	if (f->eof && f->fin) {
		over(e, f, FLOW_DONE);
		return;
	}
	if (f->pause_until_ns && (!wake || f->pause_until_ns < wake))
		wake = f->pause_until_ns;
	if (wake)
		engine_wake_at(e, f, wake);
	engine_watch(e, f,
		     (f->eof || f->pause_until_ns ? 0 : EPOLLIN) | (full ? EPOLLOUT : 0));
}

void flow_stop(struct engine *e, struct flow *f)
{
	if (f->plan.unit && f->sent % f->plan.unit)
		f->total = f->sent + f->plan.unit - f->sent % f->plan.unit;
	else if (!(f->plan.flags & FLOW_DOWN_AFTER_UP && !f->plan.rate))
		f->total = f->sent; // short ones come to their end
	f->plan.flags &= (uint8_t)~FLOW_UP_AFTER_DOWN;
	f->pause_every = 0;
	if (f->pause_until_ns)
		f->pause_until_ns = e->now_ns;
	flow_pump(e, f, EPOLLIN | EPOLLOUT);
}

// ---- the engine ----

void engine_init(struct engine *e, const char *history)
{
	struct rlimit lim;

	memset(e, 0, sizeof(*e));
	if (!getrlimit(RLIMIT_NOFILE, &lim)) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
	e->epoll = epoll_create1(EPOLL_CLOEXEC);
	e->history = fopen(history, "w");
	e->first = calloc(1, sizeof(*e->first));
	e->pause = calloc(1, sizeof(*e->pause));
	e->input = calloc(1, sizeof(*e->input));
	if (e->epoll < 0 || !e->history || !e->first || !e->pause || !e->input)
		flows_die(history);
	e->now_ns = e->wheel_ns = flows_now_ns();
	setvbuf(stdin, NULL, _IONBF, 0);
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = e->input};
	if (epoll_ctl(e->epoll, EPOLL_CTL_ADD, STDIN_FILENO, &ev))
		flows_die("standard input");
}

void engine_add(struct engine *e, struct flow *f, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = f};

	if (epoll_ctl(e->epoll, EPOLL_CTL_ADD, f->fd, &ev))
		flows_die("epoll_ctl");
	f->interest = events;
	LIST_INSERT_HEAD(&e->flows, f, all);
}

void engine_watch(struct engine *e, struct flow *f, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = f};

	if (events != f->interest && epoll_ctl(e->epoll, EPOLL_CTL_MOD, f->fd, &ev))
		flows_die("epoll_ctl");
	f->interest = events;
}

void engine_wake_at(struct engine *e, struct flow *f, uint64_t ns)
{
	uint64_t slot = ns / (WHEEL_MS * MS) + 1, last = e->wheel_ns / (WHEEL_MS * MS);

	if (f->asleep)
		LIST_REMOVE(f, wheel);
	if (slot <= last)
		slot = last + 1;
	if (slot >= last + WHEEL_SLOTS)
		slot = last + WHEEL_SLOTS - 1;
	f->asleep = true;
	f->wake_ns = ns;
	LIST_INSERT_HEAD(&e->slots[slot % WHEEL_SLOTS], f, wheel);
}

void engine_drop(struct engine *e, struct flow *f)
{
	(void)e;
	if (f->asleep)
		LIST_REMOVE(f, wheel);
	f->asleep = false;
	LIST_REMOVE(f, all);
	close(f->fd);
	f->fd = -1;
}

static void dispatch(struct engine *e, struct flow *f, uint32_t events)
{
	if (f->live)
		flow_pump(e, f, events);
	else
		e->ready(e, f, events);
}

static void turn_wheel(struct engine *e)
{
	uint64_t slot = e->wheel_ns / (WHEEL_MS * MS) + 1;

	for (; slot <= e->now_ns / (WHEEL_MS * MS); slot++) {
		struct flow *f;

		e->wheel_ns = slot * WHEEL_MS * MS;
		while ((f = LIST_FIRST(&e->slots[slot % WHEEL_SLOTS]))) {
			LIST_REMOVE(f, wheel);
			f->asleep = false;
			if (f->wake_ns > e->now_ns)
				engine_wake_at(e, f, f->wake_ns);
			else
				dispatch(e, f, 0);
		}
	}
}

// False at the end of input.
static bool read_input(struct engine *e)
{
	static char buf[4096];
	static size_t len;
	ssize_t n = read(STDIN_FILENO, buf + len, sizeof(buf) - 1 - len);
	char *end;

	if (n <= 0)
		return false;
	len += (size_t)n;
	buf[len] = 0;
	while ((end = strchr(buf, '\n'))) {
		*end = 0;
		e->line(e, buf);
		len -= (size_t)(end + 1 - buf);
		memmove(buf, end + 1, len + 1);
	}
	return true;
}

bool engine_obey(struct engine *e, const char *text)
{
	if (strncmp(text, "mark ", 5) == 0)
		engine_mark(e, strtoull(text + 5, NULL, 10));
	else if (strcmp(text, "calm") == 0)
		engine_calm(e);
	else if (strcmp(text, "report") == 0)
		engine_report(e, "report", true);
	else
		return false;
	return true;
}

void engine_run(struct engine *e)
{
	uint64_t report_ns = 0;
	struct epoll_event evs[256];
	bool input = true;

	while (input && !(e->stopping && LIST_EMPTY(&e->flows))) {
		bool line = false;
		int n = epoll_wait(e->epoll, evs, 256, WHEEL_MS);
		e->now_ns = flows_now_ns();
		for (int i = 0; i < n; i++) {
			struct flow *f = evs[i].data.ptr;
			if (f == e->input)
				line = true; // last: it touches flows of all kinds
			else if (f->fd >= 0)
				dispatch(e, f, evs[i].events);
		}
		turn_wheel(e);
		if (line)
			input = read_input(e);
		if (e->now_ns >= report_ns) {
			engine_report(e, "stat", false);
			report_ns = e->now_ns + 250 * MS;
		}
	}
	fflush(e->history);
}
