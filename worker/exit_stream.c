// Destination sockets of streams. A socket is read straight into the stream's replay
// memory and written straight from the record that was opened; a socket that would block
// leaves the bytes with the engine, which stops the peer by credit.
//
// Ends of a stream, as its destination sees them and as the client is told:
//   client ends its direction        shutdown(SHUT_WR)
//   client resets                    RST at once (connect to AF_UNSPEC)
//   destination sends FIN            end of the direction, after its bytes
//   destination sends RST            what was readable is delivered, then
//   RESET(peer-reset)
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/exit_internal.h"

static struct sp_stream_rec *record_of(const struct exit_stream *s)
{
	return sp_arena_stream(s->x->opt.arena, s->record);
}

// An error is told once: whoever takes over is to know of it.
static void set_broken(struct exit_stream *s)
{
	s->broken = true;
	record_of(s)->bits |= SP_STREAM_BROKEN;
}

static void touch(struct exit_stream *s)
{
	struct wrk_exit *x = s->x;
	s->last_us = exit_now(x);
	if (s->state == XS_DRAINING || TAILQ_NEXT(s, idle) == NULL)
		return;
	TAILQ_REMOVE(&x->idle, s, idle);
	TAILQ_INSERT_TAIL(&x->idle, s, idle);
}

static void unqueue(struct exit_stream *s)
{
	if (s->queued)
		TAILQ_REMOVE(&s->x->ready, s, ready);
	s->queued = false;
}

static void queue(struct exit_stream *s)
{
	if (s->queued)
		return;
	s->queued = true;
	TAILQ_INSERT_TAIL(&s->x->ready, s, ready);
	exit_want_turn(s->x);
}

// Closes the socket. `abort`: the destination gets an RST now, even if another process
// holds a copy of the descriptor (then SO_LINGER would not do).
static void close_socket(struct exit_stream *s, bool abort)
{
	if (s->state != XS_OPEN)
		return;
	if (event_initialized(&s->ev))
		event_del(&s->ev);
	unqueue(s);
	if (abort) {
		struct sockaddr none = {.sa_family = AF_UNSPEC};
		(void)connect(s->fd, &none, sizeof(none));
	}
	record_of(s)->fd[0] = SP_STREAM_DESC_NONE;
	sp_arena_fence();
	close(s->fd);
	s->x->n.sockets--;
	s->fd = -1;
	s->readable = false;
	s->state = XS_HALF;
}

// Forgets the stream; the engine has done so or does so now.
static void stream_free(struct exit_stream *s, enum sp_reason reason)
{
	struct wrk_exit *x = s->x;
	if (s->dial)
		wrk_dial_cancel(s->dial);
	if (s->state == XS_DIALLING)
		x->n.sockets--;
	close_socket(s, reason != SP_REASON_CLOSED);
	if (s->state == XS_DRAINING) {
		TAILQ_REMOVE(&x->draining, s, idle);
		x->n.draining--;
	} else {
		TAILQ_REMOVE(&x->idle, s, idle);
	}
	TAILQ_REMOVE(&s->session->streams, s, sibling);
	exit_pace_forget(s);
	if (x->busy == s)
		x->busy = NULL;
	x->n.streams--;
	x->n.streams_ended[reason <= SP_REASON__LAST ? reason : SP_REASON_INTERNAL]++;
	free(s->again);
	free(s);
}

static uint64_t work_for(const struct exit_stream *s)
{
	return sp_arena_work_for(s->x->opt.arena, record_of(s)->session);
}

static void stream_fail(struct exit_stream *s, enum sp_reason reason)
{
	struct sp_stream *st = s->st;
	struct sp_arena *a = s->x->opt.arena;
	uint64_t before = work_for(s);
	stream_free(s, reason);
	sp_stream_reset(st, reason);
	sp_arena_work_was(a, before);
}

// Everything the destination sent is with the client.
static bool delivered(const struct exit_stream *s)
{
	const struct sp_stream_rec *r = record_of(s);
	return r->acked >= r->head;
}

// The destination is gone for good: reset, but not before the client has what came.
static void stream_drain(struct exit_stream *s, enum sp_reason reason)
{
	struct wrk_exit *x = s->x;
	record_of(s)->reason = sp_reason_to_wire(reason);
	sp_arena_fence();
	set_broken(s);
	close_socket(s, true);
	if (delivered(s)) {
		stream_fail(s, reason);
		return;
	}
	s->reason = (uint16_t)reason;
	TAILQ_REMOVE(&x->idle, s, idle);
	TAILQ_INSERT_TAIL(&x->draining, s, idle);
	s->state = XS_DRAINING;
	x->n.draining++;
}

static enum sp_reason reason_of_errno(int err)
{
	switch (err) {
	case ECONNRESET:
	case EPIPE:
	case EAGAIN: // a write failed before
		return SP_REASON_PEER_RESET;
	case ETIMEDOUT:
		return SP_REASON_TIMEOUT;
	case EHOSTUNREACH:
	case ENETUNREACH:
		return SP_REASON_UNREACHABLE;
	case ENOMEM:
	case ENOBUFS:
		return SP_REASON_NO_MEMORY;
	default:
		return SP_REASON_INTERNAL;
	}
}

// The kernel is short of memory: nothing is wrong with the socket, no event will say when
// to go on, and the next sweep tries again.
static bool is_shortage(int err)
{
	return err == ENOBUFS || err == ENOMEM;
}

// Both directions went through this socket to their ends.
static void check_complete(struct exit_stream *s)
{
	if (s->source_fin && s->sink_fin)
		close_socket(s, false);
}

// ---- from the destination ----

static void source_ended(struct exit_stream *s)
{
	s->readable = false;
	if (s->broken) {
		stream_drain(s, SP_REASON_PEER_RESET);
		return;
	}
	s->source_fin = true;
	sp_stream_source_fin(s->st);
	check_complete(s);
}

// After a read that gave less than asked: is there more? A short read alone does not say
// so (urgent data and a FIN behind the bytes), and no event would come.
static bool has_more(struct exit_stream *s)
{
	char byte;
	if (recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0)
		return true;
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return false;
	set_broken(s); // the next read would see an end
	return true;
}

enum read_result { READ_MORE, READ_BLOCKED, READ_OVER };

static enum read_result read_once(struct exit_stream *s)
{
	struct iovec iov[16];
	size_t want = 0, most;
	most = exit_pace_room(&s->session->down, EXIT_READ_BYTES, exit_now(s->x));
	if (most == 0) {
		exit_pace_wait_down(s);
		return READ_BLOCKED;
	}
	int n = sp_stream_reserve(s->st, most, iov, 16);
	if (n == 0)
		return READ_BLOCKED; // by credit or memory; source_ready will come
	for (int i = 0; i < n; i++)
		want += iov[i].iov_len;
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n};
	ssize_t got = recvmsg(s->fd, &msg, MSG_DONTWAIT);
	int err = errno;
	sp_stream_commit(s->st, got > 0 ? (size_t)got : 0);
	if (got > 0) {
		s->session->tally->bytes_to_client += (size_t)got;
		(*s->session->usage)->down += (size_t)got;
		exit_pace_take(&s->session->down, (size_t)got);
		touch(s);
		s->readable = (size_t)got == want || has_more(s);
		return s->readable ? READ_MORE : READ_BLOCKED;
	}
	if (got == 0) {
		source_ended(s);
		return READ_OVER;
	}
	if (err == EINTR)
		return READ_MORE;
	if (is_shortage(err)) {
		exit_pace_wait_down(s);
		return READ_BLOCKED;
	}
	s->readable = false;
	if ((err == EAGAIN || err == EWOULDBLOCK) && !s->broken)
		return READ_BLOCKED;
	stream_drain(s, reason_of_errno(err));
	return READ_OVER;
}

// One turn of one stream; the rest waits until the others had theirs.
static void read_turn(struct exit_stream *s)
{
	struct sp_arena *a = s->x->opt.arena;
	if (s->state != XS_OPEN || s->source_fin || !s->readable)
		return;
	uint64_t before = work_for(s);
	if (read_once(s) == READ_MORE)
		queue(s);
	sp_arena_work_was(a, before);
}

void exit_stream_turn(struct wrk_exit *x)
{
	exit_now(x);
	for (int i = 0; i < EXIT_TURN_STREAMS && !TAILQ_EMPTY(&x->ready); i++) {
		struct exit_stream *s = TAILQ_FIRST(&x->ready);
		unqueue(s);
		read_turn(s);
	}
	if (!TAILQ_EMPTY(&x->ready))
		exit_want_turn(x);
}

void wrk_exit_stream_source_ready(struct sp_stream *st)
{
	struct exit_stream *s = sp_stream_user(st);
	if (s && s->state == XS_OPEN && s->readable)
		queue(s); // not here: the engine is at work
}

void exit_stream_resume_source(struct exit_stream *s)
{
	if (s->state == XS_OPEN && s->readable)
		queue(s);
}

void exit_stream_resume_sink(struct exit_stream *s)
{
	struct sp_session *engine = sp_stream_session(s->st);
	struct wrk_exit *x = s->x;
	uint64_t before = work_for(s);
	sp_stream_sink_ready(s->st); // may free `s`
	sp_session_clock_touch(x->opt.clock, engine);
	sp_arena_work_was(x->opt.arena, before);
}

// An error of the socket after the destination's FIN, which no read will tell.
static void check_error(struct exit_stream *s)
{
	int err = 0;
	socklen_t len = sizeof(err);
	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && err)
		stream_drain(s, reason_of_errno(err));
}

static void socket_event(evutil_socket_t fd, short what, void *arg)
{
	struct exit_stream *s = arg;
	struct wrk_exit *x = s->x;
	(void)fd;
	exit_now(x); // the engine reads the time of the turn
	if (what & EV_WRITE) {
		x->busy = s;
		exit_stream_resume_sink(s);
		if (x->busy != s || s->state != XS_OPEN)
			return;
	}
	if (!(what & EV_READ))
		return;
	if (s->source_fin) {
		check_error(s);
		return;
	}
	s->readable = true;
	if (!s->queued)
		read_turn(s);
}

// ---- to the destination ----

size_t wrk_exit_stream_sink(struct sp_stream *st, const uint8_t *buf, size_t len)
{
	struct exit_stream *s = sp_stream_user(st);
	if (!s || s->state != XS_OPEN || s->broken)
		return 0;
	size_t room = exit_pace_room(&s->session->up, len, exit_now(s->x));
	if (room < len)
		exit_pace_wait_up(s);
	if (room == 0)
		return 0;
	ssize_t n = send(s->fd, buf, room, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n >= 0) {
		s->session->tally->bytes_from_client += (size_t)n;
		(*s->session->usage)->up += (size_t)n;
		exit_pace_take(&s->session->up, (size_t)n);
		touch(s);
		return (size_t)n;
	}
	if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
		return 0;
	if (is_shortage(errno)) {
		exit_pace_wait_up(s);
		return 0;
	}
	// The error was told once and is forgotten by the kernel; what came before it can
	// still be read.
	set_broken(s);
	if (s->source_fin) {
		stream_drain(s, SP_REASON_PEER_RESET);
	} else {
		s->readable = true;
		queue(s);
	}
	return 0;
}

void wrk_exit_stream_sink_fin(struct sp_stream *st)
{
	struct exit_stream *s = sp_stream_user(st);
	if (!s || s->state != XS_OPEN)
		return;
	s->sink_fin = true;
	(void)shutdown(s->fd, SHUT_WR);
	check_complete(s);
}

// ---- life ----

void wrk_exit_stream_closed(struct sp_stream *st, enum sp_reason reason)
{
	struct exit_stream *s = sp_stream_user(st);
	if (!s)
		return;
	sp_stream_set_user(st, NULL);
	stream_free(s, reason);
}

static void dialled(void *ctx, int fd, enum sp_reason reason,
		    const struct sp_target *bound);

// A descriptor is on record before it connects, so that none can be lost in a crash.
static void journal(void *ctx, unsigned place, int fd)
{
	struct exit_stream *s = ctx;
	record_of(s)->fd[place] = fd < 0 ? SP_STREAM_DESC_NONE : fd;
}

static const struct wrk_dial_ops dial_ops = {.journal = journal, .done = dialled};

static int dial(struct exit_stream *s)
{
	return wrk_dial_tcp(s->x->opt.dialer, s->again, &dial_ops, s, &s->dial);
}

// Descriptors ran out: the stalest datagram flow goes and the dial has one more try.
static bool dial_again(struct exit_stream *s)
{
	struct wrk_exit *x = s->x;
	bool second = s->redialled;
	x->n.no_descriptors++;
	s->redialled = true;
	return !second && wrk_exit_evict_flow(x) && dial(s) == 0;
}

static int watch(struct exit_stream *s)
{
	if (event_assign(&s->ev, sp_loop_base(s->x->opt.loop), s->fd,
			 EV_READ | EV_WRITE | EV_ET | EV_PERSIST, socket_event, s) ||
	    event_add(&s->ev, NULL))
		return -ENOMEM;
	return 0;
}

static void dial_ended(struct exit_stream *s, int fd, enum sp_reason reason,
		       const struct sp_target *bound)
{
	struct wrk_exit *x = s->x;
	s->dial = NULL;
	if (fd < 0) {
		if (reason != SP_REASON_NO_DESCRIPTORS || !dial_again(s))
			stream_fail(s, reason);
		return;
	}
	free(s->again);
	s->again = NULL;
	s->fd = fd;
	s->state = XS_OPEN;
	x->n.streams_opened++;
	sp_histogram_observe(&x->n.dial_seconds,
			     (double)(exit_now(x) - s->last_us) / 1e6);
	touch(s);
	if (watch(s)) {
		stream_fail(s, SP_REASON_NO_MEMORY);
		return;
	}
	sp_stream_opened(s->st, bound);
	// Bytes that came during the dial wait in the engine; the first event, which says
	// that the socket is writable, fetches them.
}

static void dialled(void *ctx, int fd, enum sp_reason reason,
		    const struct sp_target *bound)
{
	struct exit_stream *s = ctx;
	struct sp_arena *a = s->x->opt.arena;
	uint64_t before = work_for(s);
	dial_ended(s, fd, reason, bound); // may free `s`
	sp_arena_work_was(a, before);
}

static enum sp_reason reason_of_dial(int err)
{
	if (err == SP_E_LIMIT)
		return SP_REASON_BUSY;
	if (err == -EMFILE)
		return SP_REASON_NO_DESCRIPTORS;
	return err == SP_E_MALFORMED ? SP_REASON_RESOLVE_FAILED : SP_REASON_NO_MEMORY;
}

static struct exit_stream *stream_object(struct wrk_exit_session *es,
					 struct sp_stream *st)
{
	struct wrk_exit *x = es->x;
	struct exit_stream *s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->st = st;
	s->x = x;
	s->session = es;
	s->fd = -1;
	s->record = sp_stream_record(st);
	s->last_us = exit_now(x);
	x->n.streams++;
	TAILQ_INSERT_TAIL(&x->idle, s, idle);
	TAILQ_INSERT_TAIL(&es->streams, s, sibling);
	sp_stream_set_user(st, s);
	return s;
}

void wrk_exit_stream_open(struct wrk_exit_session *es, struct sp_stream *st,
			  const struct sp_target *target)
{
	struct wrk_exit *x = es->x;
	x->n.streams_asked++;
	struct sp_target *again = exit_has_memory() ? malloc(sizeof(*again)) : NULL;
	struct exit_stream *s = again ? stream_object(es, st) : NULL;
	if (!s) {
		free(again);
		x->n.streams_ended[SP_REASON_NO_MEMORY]++;
		sp_stream_reset(st, SP_REASON_NO_MEMORY);
		return;
	}
	*again = *target;
	s->again = again;
	bool room = exit_make_room(x);
	x->n.sockets++;
	int err = room ? dial(s) : -EMFILE;
	if (err)
		stream_fail(s, reason_of_dial(err));
}

// ---- taking over ----

int exit_stream_take(struct wrk_exit_session *es, struct sp_stream *st, int fd)
{
	struct exit_stream *s = stream_object(es, st);
	if (!s) {
		if (fd >= 0)
			close(fd);
		sp_stream_reset(st, SP_REASON_NO_MEMORY);
		return -ENOMEM;
	}
	const struct sp_stream_rec *r = record_of(s);
	s->source_fin = r->bits & SP_STREAM_TX_FIN;
	s->sink_fin = (r->bits & SP_STREAM_RX_FIN) && r->taken == r->rx_final + 1;
	s->broken = r->bits & SP_STREAM_BROKEN;
	if (fd < 0) {
		bool whole = s->source_fin && s->sink_fin && !s->broken;
		s->state = XS_HALF;
		if (!whole)
			stream_drain(s, r->reason ? sp_reason_from_wire(r->reason)
						  : SP_REASON_PEER_RESET);
		return 0;
	}
	s->fd = fd;
	s->state = XS_OPEN;
	s->x->n.sockets++;
	if (watch(s)) {
		stream_fail(s, SP_REASON_NO_MEMORY);
		return -ENOMEM;
	}
	if (s->broken && s->source_fin) {
		stream_drain(s, SP_REASON_PEER_RESET);
		return 0;
	}
	// What there is to read is the first event of a socket that was just added.
	check_complete(s);
	return 0;
}

void wrk_exit_session_reset(struct wrk_exit_session *es, enum sp_reason reason)
{
	struct exit_stream *s;
	while ((s = TAILQ_FIRST(&es->streams)))
		stream_fail(s, reason);
}

// ---- time ----

static void sweep_draining(struct wrk_exit *x)
{
	struct exit_stream *next, *s = TAILQ_FIRST(&x->draining);
	for (; s; s = next) {
		next = TAILQ_NEXT(s, idle);
		if (delivered(s))
			stream_fail(s, (enum sp_reason)s->reason);
	}
}

void exit_stream_sweep(struct wrk_exit *x)
{
	uint64_t now = exit_now(x), idle = 1000ull * x->opt.stream_idle_ms;
	struct exit_stream *s;
	sweep_draining(x);
	while ((s = TAILQ_FIRST(&x->idle)) && now - s->last_us >= idle)
		stream_fail(s, SP_REASON_IDLE);
}
