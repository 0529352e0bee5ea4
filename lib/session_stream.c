// Streams: their life, credit, and both directions' bytes.
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/session_internal.h"

static void starved_wake(struct sp_starved *self)
{
	struct sp_stream *st =
		(struct sp_stream *)((char *)self - offsetof(struct sp_stream, starved));
	if (st->source_wait && !st->user_gone) {
		st->source_wait = false;
		st->s->opt.ops->stream_source_ready(st->s->opt.ctx, st);
	}
}

struct sp_stream *stream_make(struct sp_session *s, uint32_t index)
{
	struct sp_stream *st = calloc(1, sizeof(*st));
	if (!st)
		return NULL;
	st->rec = sp_arena_stream(s->opt.arena, index);
	if (sp_idmap_put(&s->streams, st->rec->id, st)) {
		free(st);
		return NULL;
	}
	st->s = s;
	st->id = st->rec->id;
	st->index = index;
	st->window = CREDIT_IMPLICIT;
	st->cur_chunk = SP_ARENA_NONE;
	st->rx.first = st->rx.last = SP_ARENA_NONE;
	st->starved.wake = starved_wake;
	TAILQ_INSERT_TAIL(&s->all, st, all);
	return st;
}

struct sp_stream *stream_new(struct sp_session *s, uint64_t id, int *ret_err)
{
	*ret_err = SP_E_LIMIT;
	if (s->n_live >= max_streams(s))
		return NULL;
	uint32_t index = sp_arena_stream_alloc(s->opt.arena);
	if (index == SP_ARENA_NONE)
		return NULL;
	*ret_err = -ENOMEM;
	struct sp_stream_rec *r = sp_arena_stream(s->opt.arena, index);
	r->session = s->index;
	r->id = id;
	r->state = SP_STREAM_DIALLING;
	r->credit_given = CREDIT_IMPLICIT;
	r->credit = CREDIT_IMPLICIT;
	struct sp_stream *st = stream_make(s, index);
	if (!st) {
		sp_arena_stream_release(s->opt.arena, index);
		return NULL;
	}
	sp_arena_live(&r->rec_state);
	s->n_live++;
	return st;
}

// No longer alive: gives back memory and credit, keeps the identity until it is reported.
static void stream_retire(struct sp_stream *st)
{
	struct sp_session *s = st->s;
	ring_clear(st);
	rxq_clear(st);
	stream_unschedule(st);
	sp_arena_unstarve(s->opt.arena, &st->starved);
	if (st->dirty) {
		TAILQ_REMOVE(&s->dirty, st, dirty_link);
		st->dirty = false;
	}
	if (s->reserving == st)
		s->reserving = NULL;
	if (st->sent_some) {
		TAILQ_REMOVE(&s->sent_some, st, sent_link);
		st->sent_some = false;
	}
	s->credit_extra -= st->window_extra;
	sp_arena_credit_return(s->opt.arena, st->window_extra);
	st->window_extra = 0;
	s->n_live--;
}

static void stream_finish(struct sp_stream *st, enum sp_stream_state state)
{
	struct sp_session *s = st->s;
	st->rec->state = (uint8_t)state;
	stream_retire(st);
	st->finished = true;
	s->n_finished++;
	TAILQ_INSERT_TAIL(&s->finished, st, finished_link);
}

void stream_destroy(struct sp_stream *st)
{
	struct sp_session *s = st->s;
	if (st->finished) {
		TAILQ_REMOVE(&s->finished, st, finished_link);
		s->n_finished--;
	} else {
		stream_retire(st);
	}
	if (st->in_resume)
		TAILQ_REMOVE(&s->resume, st, resume_link);
	ctl_drop(s, &st->ctl);
	TAILQ_REMOVE(&s->all, st, all);
	sp_idmap_remove(&s->streams, st->id);
	sp_arena_stream_release(s->opt.arena, st->index);
	free(st);
}

void stream_end(struct sp_stream *st, enum sp_reason reason)
{
	if (st->user_gone)
		return;
	st->user_gone = true;
	st->s->opt.ops->stream_closed(st->s->opt.ctx, st, reason);
}

static bool tx_done(const struct sp_stream *st)
{
	return (st->rec->bits & SP_STREAM_TX_FIN) && st->rec->acked == st->rec->head + 1;
}

static bool rx_done(const struct sp_stream *st)
{
	return (st->rec->bits & SP_STREAM_RX_FIN) &&
	       st->rec->taken == st->rec->rx_final + 1;
}

void stream_check_done(struct sp_stream *st)
{
	if (st->finished || !tx_done(st) || !rx_done(st))
		return;
	stream_end(st, SP_REASON_CLOSED);
	// The last WINDOW is still to be sent and reported.
	uint64_t taken = st->rec->taken;
	bool told =
		st->taken_sent == taken && !(st->ctl.want & WANT_WINDOW) &&
		(!(st->ctl.unreported & WANT_WINDOW) || ctl_reported(st->s, &st->ctl));
	if (told) {
		stream_destroy(st);
		return;
	}
	stream_finish(st, SP_STREAM_DONE);
	if (st->taken_sent != taken)
		ctl_want(st->s, &st->ctl, WANT_WINDOW);
}

// ---- schedule ----

size_t stream_sendable(const struct sp_stream *st)
{
	const struct sp_stream_rec *r = st->rec;
	uint64_t end = r->head < st->rec->credit ? r->head : st->rec->credit;
	size_t n = st->snd_nxt < end ? (size_t)(end - st->snd_nxt) : 0;
	if ((r->bits & SP_STREAM_TX_FIN) && st->snd_nxt + n == r->head)
		n++;
	return n;
}

void stream_activate(struct sp_stream *st)
{
	struct sp_session *s = st->s;
	struct slot *sl = primary_slot(s);
	if (st->sched != SCHED_NONE || st->finished || !sl ||
	    st->sync_epoch != sl->epoch || !stream_sendable(st))
		return;
	st->sched = SCHED_NEW;
	TAILQ_INSERT_TAIL(&s->sched_new, st, sched_link);
	session_wake(s);
}

void stream_unschedule(struct sp_stream *st)
{
	if (st->sched == SCHED_NEW)
		TAILQ_REMOVE(&st->s->sched_new, st, sched_link);
	else if (st->sched == SCHED_OLD)
		TAILQ_REMOVE(&st->s->sched_old, st, sched_link);
	st->sched = SCHED_NONE;
}

// ---- towards the peer ----

// How much may be read from the source: within the peer's credit and our own budget, and
// no further ahead of what was sent than keeps the carrier busy. More would only grow
// cold in memory; it waits as well in the source's socket.
static size_t source_room(const struct sp_stream *st)
{
	const struct sp_stream_rec *r = st->rec;
	uint64_t limit = r->acked + st->s->opt.limits.stream_window_bytes;
	if (limit > st->rec->credit)
		limit = st->rec->credit;
	if (limit > st->snd_nxt + UNSENT_MAX)
		limit = st->snd_nxt + UNSENT_MAX;
	return r->head < limit ? (size_t)(limit - r->head) : 0;
}

void session_unreserve(struct sp_session *s)
{
	struct sp_stream *st = s->reserving;
	s->reserving = NULL;
	if (st)
		ring_commit(st, 0);
}

int sp_stream_reserve(struct sp_stream *st, size_t max, struct iovec *iov, int iovcnt)
{
	session_unreserve(st->s);
	if (st->finished || (st->rec->bits & SP_STREAM_TX_FIN))
		return 0;
	size_t room = source_room(st);
	int n = ring_reserve(st, max < room ? max : room, iov, iovcnt);
	if (n)
		st->s->reserving = st;
	if (n == 0) {
		st->source_wait = true;
		// With memory left it is the session's share that is used up: then what
		// is acknowledged of this very ring makes room.
		if (room && sp_arena_chunks_spare(st->s->opt.arena) == 0)
			sp_arena_starve(st->s->opt.arena, &st->starved);
	}
	return n;
}

void sp_stream_commit(struct sp_stream *st, size_t len)
{
	if (st->finished)
		return;
	st->s->reserving = NULL;
	ring_commit(st, len);
	if (len)
		stream_activate(st);
}

void sp_stream_source_fin(struct sp_stream *st)
{
	if (st->finished || (st->rec->bits & SP_STREAM_TX_FIN))
		return;
	session_unreserve(st->s);
	st->rec->bits |= SP_STREAM_TX_FIN;
	stream_activate(st);
}

void stream_source_recheck(struct sp_stream *st)
{
	if (!st->source_wait || st->user_gone || st->finished)
		return;
	size_t room = source_room(st);
	if (room == 0)
		return;
	// An empty ring needs no memory but what is promised.
	bool empty = st->rec->chunks == 0;
	if (!empty && (st->starved.listed ||
		       (room < UNSENT_MAX / 2 && room < st->rec->head - st->rec->acked)))
		return;
	sp_arena_unstarve(st->s->opt.arena, &st->starved);
	st->source_wait = false;
	st->s->opt.ops->stream_source_ready(st->s->opt.ctx, st);
}

int stream_peer_taken(struct sp_stream *st, uint64_t taken, uint64_t credit)
{
	struct sp_stream_rec *r = st->rec;
	uint64_t end = r->head + ((r->bits & SP_STREAM_TX_FIN) ? 1 : 0);
	if (taken > end)
		return SP_E_PROTOCOL;
	if (taken > r->acked) {
		if (st->snd_nxt < taken) // sent on an older carrier
			ring_seek(st, taken);
		ring_ack(st, taken);
	}
	if (credit > st->rec->credit)
		st->rec->credit = credit;
	stream_activate(st);
	stream_source_recheck(st);
	stream_check_done(st);
	return 0;
}

// ---- credit for the peer ----

// What the session may still be granted: up to its limit, and no more than it leaves to
// the others.
static uint64_t credit_room(const struct sp_session *s)
{
	uint64_t most = s->opt.limits.session_window_bytes;
	uint64_t left = sp_arena_credit_left(s->opt.arena);
	if (most > left)
		most = left;
	return most > s->credit_extra ? most - s->credit_extra : 0;
}

// Sets the window, paying for growth of at most `room` from the session and the arena.
static void window_pay(struct sp_stream *st, uint32_t want, uint64_t room)
{
	struct sp_session *s = st->s;
	uint64_t extra = want - CREDIT_IMPLICIT;
	if (extra > st->window_extra) {
		uint64_t more = extra - st->window_extra;
		more = sp_arena_credit_take(s->opt.arena, more < room ? more : room);
		s->credit_extra += more;
		st->window_extra += more;
	}
	st->window = CREDIT_IMPLICIT + (uint32_t)st->window_extra;
}

static void window_set(struct sp_stream *st, uint32_t want)
{
	window_pay(st, want, credit_room(st->s));
}

bool stream_set_window(struct sp_stream *st, uint64_t want)
{
	if (want > UINT32_MAX - SP_CHUNK_BYTES)
		return false;
	if (want < CREDIT_IMPLICIT)
		want = CREDIT_IMPLICIT;
	uint64_t extra = want - CREDIT_IMPLICIT;
	extra = (extra + SP_CHUNK_BYTES - 1) / SP_CHUNK_BYTES * SP_CHUNK_BYTES;
	// It was granted before, when less was taken or by another order of sessions:
	// what one session leaves to the others is no question any more.
	window_pay(st, CREDIT_IMPLICIT + (uint32_t)extra, UINT64_MAX);
	return st->window >= want;
}

void stream_first_credit(struct sp_stream *st)
{
	uint32_t first = CREDIT_FIRST;
	if (first > st->s->opt.limits.stream_window_bytes)
		first = st->s->opt.limits.stream_window_bytes;
	window_set(st, first > CREDIT_IMPLICIT ? first : CREDIT_IMPLICIT);
	uint64_t credit = st->rec->taken + st->window;
	if (credit > st->rec->credit_given)
		st->rec->credit_given = credit;
	st->tune_us = st->s->now_us;
	st->tune_taken = st->rec->taken;
}

// Doubles the window when a whole one was taken within two round trips, so that it tends
// to 2 x rate x RTT.
static void window_tune(struct sp_stream *st)
{
	struct sp_session *s = st->s;
	if (st->rec->taken - st->tune_taken < st->window)
		return;
	const struct slot *sl = primary_slot(s);
	uint64_t rtt = sl && sl->srtt_us > 10000 ? sl->srtt_us : 10000;
	if (s->now_us - st->tune_us < 2 * rtt) {
		uint64_t want = 2ull * st->window;
		if (want > s->opt.limits.stream_window_bytes)
			want = s->opt.limits.stream_window_bytes;
		if (want > st->window)
			window_set(st, (uint32_t)want);
	}
	st->tune_us = s->now_us;
	st->tune_taken = st->rec->taken;
}

void stream_settle_window(struct sp_stream *st, uint64_t *ret_credit)
{
	struct sp_stream_rec *r = st->rec;
	if (!(r->bits & SP_STREAM_RX_FIN) && !st->finished) {
		uint64_t credit = r->taken + st->window;
		if (credit > r->credit_given)
			r->credit_given = credit;
	}
	st->taken_sent = r->taken;
	*ret_credit = r->credit_given;
	if (st->dirty) {
		TAILQ_REMOVE(&st->s->dirty, st, dirty_link);
		st->dirty = false;
	}
}

// ---- from the peer ----

static void rx_took(struct sp_stream *st, size_t n)
{
	struct sp_session *s = st->s;
	st->rec->taken += n;
	s->stats.bytes_rx += n;
	window_tune(st);
	if (!st->dirty) {
		if (TAILQ_EMPTY(&s->dirty))
			s->dirty_at_us = s->now_us + REPORT_DUE_US;
		st->dirty = true;
		TAILQ_INSERT_TAIL(&s->dirty, st, dirty_link);
	}
	uint32_t quarter = st->window / 4;
	if (st->rec->taken - st->taken_sent >=
	    (quarter < WINDOW_STEP ? quarter : WINDOW_STEP))
		ctl_want(s, &st->ctl, WANT_WINDOW);
}

static size_t sink(struct sp_stream *st, const uint8_t *buf, size_t len)
{
	if (st->user_gone)
		return 0;
	return st->s->opt.ops->stream_sink(st->s->opt.ctx, st, buf, len);
}

// All bytes are with the sink and the peer's direction ended: pass that on, once.
static void rx_check_fin(struct sp_stream *st)
{
	struct sp_stream_rec *r = st->rec;
	if (st->finished || !(r->bits & SP_STREAM_RX_FIN) || r->taken != r->rx_final)
		return;
	r->taken = r->rx_final + 1;
	ctl_want(st->s, &st->ctl, WANT_WINDOW);
	if (!st->user_gone)
		st->s->opt.ops->stream_sink_fin(st->s->opt.ctx, st);
	stream_check_done(st);
}

static void rx_bytes(struct sp_stream *st, const uint8_t *buf, size_t len)
{
	size_t n = 0;
	if (st->rx.bytes == 0 && len) {
		n = sink(st, buf, len);
		if (st->finished)
			return;
		st->rcv_next += n;
		if (n)
			rx_took(st, n);
	}
	rxq_append(st, buf + n, len - n);
}

int stream_data(struct sp_stream *st, const struct sp_frame *f)
{
	struct sp_stream_rec *r = st->rec;
	struct sp_session *s = st->s;
	uint64_t end = f->offset + f->len;
	bool fin = f->type == SP_FRAME_DATA_FIN;
	if (st->finished)
		return 0; // in flight when it ended
	if (f->offset > st->rcv_next || end > r->credit_given)
		return SP_E_PROTOCOL;
	if (s->opt.role == SP_ROLE_CLIENT && r->state == SP_STREAM_DIALLING)
		return SP_E_PROTOCOL; // before OPENED
	if (r->bits & SP_STREAM_RX_FIN) {
		if (end > r->rx_final || (fin && end != r->rx_final))
			return SP_E_PROTOCOL;
		s->stats.bytes_dup += f->len;
		return 0;
	}
	if (end < st->rcv_next && fin)
		return SP_E_PROTOCOL;
	size_t skip = (size_t)(st->rcv_next - f->offset);
	if (skip > f->len)
		skip = f->len;
	s->stats.bytes_dup += skip;
	if (fin) {
		r->rx_final = end;
		sp_arena_fence();
		r->bits |= SP_STREAM_RX_FIN;
	}
	rx_bytes(st, f->data + skip, f->len - skip);
	if (st->finished)
		return 0;
	if (fin)
		st->rcv_next++;
	rx_check_fin(st);
	return 0;
}

void sp_stream_sink_ready(struct sp_stream *st)
{
	const uint8_t *p;
	size_t len;
	session_refresh(st->s);
	while (!st->finished && (len = rxq_peek(st, &p)) > 0) {
		size_t n = sink(st, p, len);
		if (st->finished)
			return;
		if (n) {
			rxq_consume(st, n);
			rx_took(st, n);
		}
		if (n < len)
			return;
	}
	rx_check_fin(st);
}

// ---- the rest of the interface ----

int sp_session_open(struct sp_session *s, const struct sp_target *target, void *user,
		    struct sp_stream **ret)
{
	int err;
	if (s->dead)
		return SP_E_CLOSED;
	session_refresh(s);
	struct sp_stream *st = stream_new(s, s->next_stream, &err);
	if (!st)
		return err;
	s->rec->highest_stream = s->next_stream++;
	st->user = user;
	st->target = *target;
	stream_first_credit(st);
	ctl_want(s, &st->ctl, WANT_OPEN);
	*ret = st;
	return 0;
}

void sp_stream_opened(struct sp_stream *st, const struct sp_target *bound)
{
	if (st->finished || st->rec->state != SP_STREAM_DIALLING)
		return;
	st->rec->state = SP_STREAM_OPEN;
	st->target = *bound;
	stream_first_credit(st);
	ctl_want(st->s, &st->ctl, WANT_OPENED);
}

void stream_reset(struct sp_stream *st, enum sp_reason reason)
{
	if (st->finished)
		return;
	st->user_gone = true;
	if (st->s->opt.role == SP_ROLE_CLIENT && !st->open_sent) {
		stream_destroy(st); // nobody has heard of it
		return;
	}
	st->rec->reason = sp_reason_to_wire(reason);
	ctl_drop(st->s, &st->ctl);
	stream_finish(st, SP_STREAM_RESET);
	ctl_want(st->s, &st->ctl, WANT_RESET);
}

void sp_stream_reset(struct sp_stream *st, enum sp_reason reason)
{
	if (!st->user_gone) // else it is being told that the stream is over
		stream_reset(st, reason);
}

void sp_stream_set_user(struct sp_stream *st, void *user)
{
	st->user = user;
}

void *sp_stream_user(const struct sp_stream *st)
{
	return st->user;
}

uint64_t sp_stream_id(const struct sp_stream *st)
{
	return st->id;
}

bool sp_stream_is_open(const struct sp_stream *st)
{
	return st->rec->state == SP_STREAM_OPEN;
}

struct sp_session *sp_stream_session(const struct sp_stream *st)
{
	return st->s;
}

void *sp_stream_ctx(const struct sp_stream *st)
{
	return st->s->opt.ctx;
}

uint32_t sp_stream_record(const struct sp_stream *st)
{
	return st->index;
}

bool stream_listable(const struct sp_stream *st)
{
	if (st->finished && st->rec->state == SP_STREAM_RESET)
		return false;
	if (st->rcv_next != st->taken_sent || (st->ctl.want & WANT_WINDOW))
		return true;
	return (st->ctl.unreported & WANT_WINDOW) && !ctl_reported(st->s, &st->ctl);
}
