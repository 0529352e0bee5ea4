#include "client/app_stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "client/untouched.h"
#include "lib/log.h"

#define TURN_BYTES  (256 * 1024) // read from one socket in one turn of the loop
#define READ_IOV    16
#define OPENS_MAX   4         // exits that one connection is tried on
#define REOPEN_TURN 256       // connections opened anew in one turn
#define KEPT_BYTES  (8 << 20) // of all connections, to be written again elsewhere

enum app_state { APP_CONNECTING, APP_AGAIN, APP_OPEN, APP_CLOSED };

struct app {
	TAILQ_ENTRY(app) entry; // of the list of its state
	TAILQ_ENTRY(app) young; // open, and not touched
	bool is_young;
	struct cli_streams *t;
	enum app_state state;
	int fd;
	uint8_t opens;
	bool source_over;  // the application ended its direction
	bool sink_blocked; // its socket took less than it was given
	bool redo;         // it was open before: the application knows of nothing
	uint32_t again;    // of the kept bytes, what was written again
	struct cli_untouched kept;
	struct sp_stream *st;
	const struct cli_answers *answers;
	uint64_t deadline_us;
	struct event ev;
	struct sp_deferred more; // there is more to read
	struct sp_deferred reap;
	struct sp_target target;
};
TAILQ_HEAD(app_list, app);

struct cli_streams {
	struct cli_streams_options opt;
	struct cli_uplink *u;
	struct app_list connecting; // by deadline
	struct app_list again;      // to be opened anew at the end of the turn
	struct app_list open;
	struct app_list young; // of the open ones, those that are not touched
	struct cli_untouched_budget kept;
	struct sp_timer timer;
	struct sp_deferred reopen;
	struct cli_streams_counters n;
};

// ---- states ----

static struct app_list *list_of(struct app *a)
{
	switch (a->state) {
	case APP_CONNECTING:
		return &a->t->connecting;
	case APP_AGAIN:
		return &a->t->again;
	case APP_OPEN:
		return &a->t->open;
	case APP_CLOSED:
		break;
	}
	return NULL;
}

static void count(struct app *a, int by)
{
	if (a->state == APP_OPEN)
		a->t->n.open += (uint32_t)by;
	else if (a->state != APP_CLOSED)
		a->t->n.connecting += (uint32_t)by;
}

static void set_timer(struct cli_streams *t)
{
	const struct app *a = TAILQ_FIRST(&t->connecting);
	sp_timer_set(&t->timer, a ? a->deadline_us : SP_LOOP_NEVER);
}

// The only place where a state changes.
static void set_state(struct app *a, enum app_state state)
{
	struct app_list *list = list_of(a);
	if (list)
		TAILQ_REMOVE(list, a, entry);
	count(a, -1);
	a->state = state;
	count(a, +1);
	list = list_of(a);
	if (list == &a->t->connecting) { // one that is opened anew is older than the last
		struct app *before = TAILQ_LAST(list, app_list);
		while (before && before->deadline_us > a->deadline_us)
			before = TAILQ_PREV(before, app_list, entry);
		if (before)
			TAILQ_INSERT_AFTER(list, before, a, entry);
		else
			TAILQ_INSERT_HEAD(list, a, entry);
	} else if (list) {
		TAILQ_INSERT_TAIL(list, a, entry);
	}
	set_timer(a->t);
}

// It is untouched no more, or it is closed.
static void app_touch(struct app *a)
{
	if (a->is_young)
		TAILQ_REMOVE(&a->t->young, a, young);
	a->is_young = false;
	if (!a->kept.touched)
		cli_untouched_touch(&a->kept, &a->t->kept);
	a->t->n.not_kept = a->t->kept.refused;
}

static void on_reap(struct sp_deferred *d)
{
	free((char *)d - offsetof(struct app, reap));
}

// The connection is over. Its descriptor was given away or is closed here: with a RST if
// `reset`.
static void app_close(struct app *a, bool reset)
{
	struct cli_streams *t = a->t;
	if (a->state == APP_CLOSED)
		return;
	set_state(a, APP_CLOSED);
	app_touch(a);
	event_del(&a->ev);
	sp_loop_defer_cancel(&a->more);
	if (a->fd >= 0) {
		struct linger hard = {.l_onoff = 1};
		if (reset)
			setsockopt(a->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
		t->n.reset += reset;
		close(a->fd);
		a->fd = -1;
	}
	sp_loop_reap(t->opt.loop, &a->reap);
	if (t->opt.closed)
		t->opt.closed(t->opt.ctx);
}

// Not opened: the application is told why.
static void app_fail(struct app *a, enum sp_reason reason)
{
	uint8_t buf[CLI_ANSWER_MAX];
	if (a->redo) { // it was told that it is open
		a->t->n.redo_failed++;
		app_close(a, true);
		return;
	}
	size_t len = a->answers->failed(reason, buf);
	a->t->n.failed[reason <= SP_REASON__LAST ? reason : SP_REASON_INTERNAL]++;
	event_del(&a->ev);
	if (send(a->fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len) {
		cli_linger_add(a->t->opt.linger, a->fd);
		a->fd = -1;
	}
	app_close(a, false);
}

// ---- opening ----

static enum sp_reason reason_of(int err)
{
	switch (err) {
	case SP_E_LIMIT:
		return SP_REASON_STREAM_LIMIT;
	case -ENOMEM:
		return SP_REASON_NO_MEMORY;
	default:
		return SP_REASON_CLOSED;
	}
}

static void app_open(struct app *a)
{
	struct sp_stream *st = NULL;
	enum sp_reason hopeless = cli_uplink_hopeless(a->t->u);
	if (hopeless) {
		app_fail(a, hopeless);
		return;
	}
	int err = cli_uplink_open_stream(a->t->u, &a->target, a, &st);
	a->opens++;
	if (err) {
		app_fail(a, reason_of(err));
		return;
	}
	a->st = st;
	set_state(a, APP_CONNECTING);
}

// What says something of the exit and nothing of the destination: another may do better.
static bool is_exits_fault(enum sp_reason reason)
{
	switch ((int)reason) {
	case SP_REASON_SHUTDOWN:
	case SP_REASON_NO_MEMORY:
	case SP_REASON_NO_DESCRIPTORS:
	case SP_REASON_BUSY:
	case SP_REASON_PRESSURE:
	case SP_REASON_STALE:
	case SP_REASON_DRAINING:
	case SP_REASON_HOME_LOST:
	case SP_REASON_NOT_YOURS:
	case SP_REASON_NO_CONFIG:
	case SP_REASON_GROUP:
	case SP_REASON_GONE:
		return true;
	default:
		return false;
	}
}

// The home is gone with the stream: nobody there will do anything about it any more.
static bool is_homes_end(enum sp_reason reason)
{
	return reason == SP_REASON_HOME_LOST || reason == SP_REASON_STALE;
}

static void app_again(struct app *a)
{
	a->st = NULL;
	set_state(a, APP_AGAIN);
	sp_loop_defer(a->t->opt.loop, &a->t->reopen);
}

// An open and untouched one, whose stream is over.
static void app_redo(struct app *a)
{
	struct cli_streams *t = a->t;
	t->n.redone_hello += a->kept.len > 0;
	t->n.redone_idle += a->kept.len == 0;
	TAILQ_REMOVE(&t->young, a, young);
	a->is_young = false;
	a->redo = true;
	a->again = 0;
	a->sink_blocked = false;
	a->deadline_us =
		sp_loop_now_us(t->opt.loop) + (uint64_t)t->opt.connect_timeout_ms * 1000;
	sp_loop_defer_cancel(&a->more);
	app_again(a);
}

static void on_reopen(struct sp_deferred *d)
{
	struct cli_streams *t =
		(struct cli_streams *)((char *)d - offsetof(struct cli_streams, reopen));
	struct app *a;
	for (int i = 0; i < REOPEN_TURN && (a = TAILQ_FIRST(&t->again)); i++) {
		t->n.moved++;
		t->n.redone_unanswered += !a->redo;
		app_open(a);
	}
	if (!TAILQ_EMPTY(&t->again))
		sp_loop_defer(t->opt.loop, &t->reopen);
}

void cli_streams_rehome(struct cli_streams *t)
{
	struct app *a, *next;
	bool hopeless = cli_uplink_hopeless(t->u) != SP_REASON_NONE;
	for (a = TAILQ_FIRST(&t->connecting); a; a = next) {
		next = TAILQ_NEXT(a, entry);
		struct sp_session *s = sp_stream_session(a->st);
		if (!hopeless && !cli_uplink_should_leave(t->u, s))
			continue;
		sp_stream_reset(a->st, SP_REASON_CANCELLED);
		cli_uplink_touch(t->u, s);
		app_again(a);
	}
	for (a = TAILQ_FIRST(&t->young); a; a = next) {
		next = TAILQ_NEXT(a, young);
		struct sp_session *s = sp_stream_session(a->st);
		if (!a->kept.len || a->opens >= OPENS_MAX ||
		    !cli_uplink_may_redo(t->u, s) || !cli_untouched_may_redo(&a->kept))
			continue;
		sp_stream_reset(a->st, SP_REASON_CANCELLED);
		cli_uplink_touch(t->u, s);
		app_redo(a);
	}
}

static void on_timer(void *arg)
{
	struct cli_streams *t = arg;
	uint64_t now = sp_loop_now_us(t->opt.loop);
	struct app *a;
	while ((a = TAILQ_FIRST(&t->connecting)) && a->deadline_us <= now) {
		struct sp_session *s = sp_stream_session(a->st);
		sp_stream_reset(a->st, SP_REASON_TIMEOUT);
		cli_uplink_touch(t->u, s);
		app_fail(a, SP_REASON_TIMEOUT);
	}
	set_timer(t);
}

// ---- the application's socket ----

// The application's side broke.
static void app_broke(struct app *a)
{
	if (a->st)
		sp_stream_reset(a->st, SP_REASON_APP_RESET);
	app_close(a, true);
}

// With no room to read into, a RST would go unseen.
static void look_for_reset(struct app *a)
{
	char byte;
	ssize_t n = recv(a->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		app_broke(a);
}

// What was written to the stream before this one. True: all of it.
static bool write_again(struct app *a)
{
	while (a->again < a->kept.len) {
		struct iovec iov[READ_IOV];
		size_t left = a->kept.len - a->again, done = 0;
		int k = sp_stream_reserve(a->st, left, iov, READ_IOV);
		for (int i = 0; i < k && done < left; i++) {
			size_t part = iov[i].iov_len < left - done ? iov[i].iov_len
								   : left - done;
			memcpy(iov[i].iov_base, a->kept.bytes + a->again + done, part);
			done += part;
		}
		if (!done)
			return false; // stream_source_ready comes
		sp_stream_commit(a->st, done);
		a->again += (uint32_t)done;
	}
	return true;
}

static void app_read(struct app *a)
{
	size_t left = TURN_BYTES;
	if (a->state == APP_OPEN && !write_again(a)) {
		look_for_reset(a);
		return;
	}
	while (a->state == APP_OPEN && !a->source_over) {
		struct iovec iov[READ_IOV];
		int k = sp_stream_reserve(a->st, left, iov, READ_IOV);
		if (k == 0) { // stream_source_ready comes
			look_for_reset(a);
			return;
		}
		ssize_t n = readv(a->fd, iov, k);
		if (n > 0) {
			cli_untouched_write(&a->kept, &a->t->kept, iov, (size_t)n);
			a->again = a->kept.len;
			if (a->kept.touched)
				app_touch(a);
			sp_stream_commit(a->st, (size_t)n);
			left -= (size_t)n;
			if (left == 0) {
				sp_loop_defer(a->t->opt.loop, &a->more);
				return;
			}
		} else if (n == 0) {
			a->source_over = true;
			app_touch(a);
			sp_stream_source_fin(a->st);
		} else if (errno == EAGAIN) {
			return;
		} else if (errno != EINTR) {
			app_broke(a);
		}
	}
}

// app_read from outside of the engine's calls.
static void app_read_and_touch(struct app *a)
{
	struct cli_uplink *u = a->t->u;
	struct sp_session *s = sp_stream_session(a->st);
	app_read(a);
	cli_uplink_touch(u, s);
}

static void on_more(struct sp_deferred *d)
{
	struct app *a = (struct app *)((char *)d - offsetof(struct app, more));
	(void)sp_loop_now_us(a->t->opt.loop);
	app_read_and_touch(a);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct app *a = arg;
	(void)fd;
	(void)sp_loop_now_us(a->t->opt.loop); // the engine's clock moves
	if (a->state == APP_CONNECTING || a->state == APP_AGAIN) {
		look_for_reset(a);
		return;
	}
	if ((what & EV_WRITE) && a->sink_blocked) {
		struct sp_session *s = sp_stream_session(a->st);
		a->sink_blocked = false;
		sp_stream_sink_ready(a->st);
		cli_uplink_touch(a->t->u, s);
	}
	if ((what & EV_READ) && a->state == APP_OPEN)
		app_read_and_touch(a);
}

// ---- the engine's calls ----

static void stream_opened(void *ctx, struct sp_stream *st, const struct sp_target *bound)
{
	struct app *a = sp_stream_user(st);
	uint8_t buf[CLI_ANSWER_MAX];
	size_t len = a->redo ? 0 : a->answers->ok(bound, buf);
	(void)ctx;
	if (len && send(a->fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len) {
		app_broke(a);
		return;
	}
	a->t->n.opened += !a->redo;
	set_state(a, APP_OPEN);
	a->is_young = !a->kept.touched;
	if (a->is_young)
		TAILQ_INSERT_TAIL(&a->t->young, a, young);
	sp_loop_defer(a->t->opt.loop, &a->more); // what it sent early
}

static size_t stream_sink(void *ctx, struct sp_stream *st, const uint8_t *buf, size_t len)
{
	struct app *a = sp_stream_user(st);
	ssize_t n;
	(void)ctx;
	app_touch(a);
	do
		n = send(a->fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN) {
		app_broke(a);
		return 0;
	}
	if (n < 0)
		n = 0;
	a->sink_blocked = (size_t)n < len;
	return (size_t)n;
}

static void stream_sink_fin(void *ctx, struct sp_stream *st)
{
	struct app *a = sp_stream_user(st);
	(void)ctx;
	app_touch(a);
	shutdown(a->fd, SHUT_WR);
}

static void stream_source_ready(void *ctx, struct sp_stream *st)
{
	struct app *a = sp_stream_user(st);
	(void)ctx;
	if (a->state == APP_OPEN)
		sp_loop_defer(a->t->opt.loop, &a->more);
}

static void count_ended(struct cli_streams *t, enum sp_reason reason)
{
	if (reason == SP_REASON_CLOSED)
		return;
	t->n.broken[reason <= SP_REASON__LAST ? reason : SP_REASON_INTERNAL]++;
	sp_debug("stream", "reset", "reason=%s", sp_reason_word(reason));
}

static void stream_closed(void *ctx, struct sp_stream *st, enum sp_reason reason)
{
	struct app *a = sp_stream_user(st);
	(void)ctx;
	if (a->state == APP_OPEN && is_homes_end(reason) && a->opens < OPENS_MAX &&
	    cli_untouched_may_redo(&a->kept)) {
		app_redo(a);
		return;
	}
	if (a->state == APP_OPEN) {
		count_ended(a->t, reason);
		a->st = NULL;
		app_close(a, reason != SP_REASON_CLOSED);
		return;
	}
	if (is_exits_fault(reason) && a->opens < OPENS_MAX) {
		app_again(a);
		return;
	}
	a->st = NULL;
	app_fail(a, reason);
}

void cli_streams_set_ops(struct sp_session_ops *ops)
{
	ops->stream_opened = stream_opened;
	ops->stream_sink = stream_sink;
	ops->stream_sink_fin = stream_sink_fin;
	ops->stream_source_ready = stream_source_ready;
	ops->stream_closed = stream_closed;
}

// ---- life ----

int cli_streams_new(const struct cli_streams_options *opt, struct cli_streams **ret)
{
	struct cli_streams *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->opt = *opt;
	TAILQ_INIT(&t->connecting);
	TAILQ_INIT(&t->again);
	TAILQ_INIT(&t->open);
	TAILQ_INIT(&t->young);
	t->kept.max = KEPT_BYTES;
	t->reopen.run = on_reopen;
	sp_timer_init(&t->timer, opt->loop, on_timer, t);
	*ret = t;
	return 0;
}

void cli_streams_reset_all(struct cli_streams *t)
{
	struct app_list *lists[3] = {&t->connecting, &t->again, &t->open};
	for (size_t i = 0; i < 3; i++)
		while (!TAILQ_EMPTY(lists[i])) {
			struct app *a = TAILQ_FIRST(lists[i]);
			struct sp_session *s = a->st ? sp_stream_session(a->st) : NULL;
			if (s)
				sp_stream_reset(a->st, SP_REASON_SHUTDOWN);
			if (s)
				cli_uplink_touch(t->u, s);
			a->st = NULL;
			if (a->state == APP_OPEN)
				app_close(a, true);
			else
				app_fail(a, SP_REASON_SHUTDOWN);
		}
}

void cli_streams_free(struct cli_streams *t)
{
	if (!t)
		return;
	t->opt.closed = NULL;
	cli_streams_reset_all(t);
	sp_timer_done(&t->timer);
	sp_loop_defer_cancel(&t->reopen);
	free(t);
}

void cli_streams_set_uplink(struct cli_streams *t, struct cli_uplink *u)
{
	t->u = u;
}

void cli_streams_add(struct cli_streams *t, int fd, const struct sp_target *target,
		     const struct cli_answers *answers)
{
	struct app *a = calloc(1, sizeof(*a));
	int one = 1;
	if (!a) {
		close(fd);
		if (t->opt.closed)
			t->opt.closed(t->opt.ctx);
		return;
	}
	a->t = t;
	a->fd = fd;
	a->state = APP_CLOSED;
	a->answers = answers;
	a->target = *target;
	a->more.run = on_more;
	a->reap.run = on_reap;
	a->deadline_us =
		sp_loop_now_us(t->opt.loop) + (uint64_t)t->opt.connect_timeout_ms * 1000;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	event_assign(&a->ev, sp_loop_base(t->opt.loop), fd,
		     EV_READ | EV_WRITE | EV_ET | EV_PERSIST, on_event, a);
	event_add(&a->ev, NULL);
	set_state(a, APP_AGAIN);
	app_open(a);
}

const struct cli_streams_counters *cli_streams_counters(const struct cli_streams *t)
{
	return &t->n;
}
