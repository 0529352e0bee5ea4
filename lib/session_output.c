// What goes into the next record of a carrier. Order: report, greeting and RESUME,
// control frames, DNS, then streams and datagrams in turn. The full scheduler will stand
// here.
#include <string.h>

#include "lib/session_internal.h"

#define COPY_BELOW     512 // smaller pieces of stream data are copied beside their header
#define QUANTUM_SHARED 4096 // a class's turn while both have something to send

struct out {
	struct sp_session *s;
	struct slot *sl;
	unsigned slot;
	struct sp_gather *g;
	struct sp_writer w; // over g->head
	uint8_t *seg;       // start of the header bytes not in g->iov yet
	size_t max;
	size_t ref; // payload bytes referred to
};

static size_t room(const struct out *o)
{
	size_t used = sp_writer_len(&o->w) + o->ref;
	return used < o->max ? o->max - used : 0;
}

// The writer may use what the record has left.
static void limit_writer(struct out *o)
{
	o->w.end = o->w.p + room(o);
}

static void flush_head(struct out *o)
{
	if (o->w.p == o->seg)
		return;
	o->g->iov[o->g->n++] = (struct iovec){o->seg, (size_t)(o->w.p - o->seg)};
	o->seg = o->w.p;
}

// ---- control ----

// One stream's or flow's control frames, those that may go now and fit. False: full.
static bool put_flow_control(struct out *o, struct sp_flow *fl)
{
	uint8_t *mark = o->w.p;
	if (!(fl->ctl.want & WANT_FLOW))
		return true;
	sp_frame_put_flow(&o->w, fl->id, &fl->target);
	if (o->w.err) {
		o->w.err = 0;
		o->w.p = mark;
		return false;
	}
	ctl_sent(&fl->ctl, o->sl, o->slot, WANT_FLOW);
	return true;
}

static uint8_t put_stream_frames(struct out *o, struct sp_stream *st)
{
	uint8_t want = st->ctl.want, sent = 0;
	if (want & WANT_RESET) {
		sp_frame_put_reset(&o->w, st->id, st->rec->reason);
		return WANT_RESET | (want & (WANT_OPEN | WANT_OPENED | WANT_WINDOW));
	}
	if (want & WANT_OPEN) {
		sp_frame_put_open(&o->w, st->id, st->rec->credit_given, st->open_flags,
				  &st->target);
		sent |= WANT_OPEN;
	}
	if (want & WANT_OPENED) {
		sp_frame_put_opened(&o->w, st->id, st->rec->credit_given, &st->target);
		sent |= WANT_OPENED;
	}
	if ((want & WANT_WINDOW) &&
	    (o->sl->peer_agreed || st->sync_epoch == o->sl->epoch)) {
		uint64_t credit;
		stream_settle_window(st, &credit);
		sp_frame_put_window(&o->w, st->id, st->rec->taken, credit);
		sent |= WANT_WINDOW;
	}
	return sent;
}

static bool put_stream_control(struct out *o, struct sp_stream *st)
{
	// The longest: OPEN with a name, OPENED, WINDOW.
	if (room(o) < 360)
		return false;
	uint8_t sent = put_stream_frames(o, st);
	if (!sent)
		return true;
	ctl_sent(&st->ctl, o->sl, o->slot, sent);
	if ((sent & WANT_OPEN) && !st->open_sent) {
		st->open_sent = true;
		st->sync_epoch = o->sl->epoch;
		stream_activate(st);
	}
	return true;
}

static void put_control(struct out *o)
{
	struct ctl_state *c;
	while ((c = TAILQ_FIRST(&o->s->ctl))) {
		bool fits = c->is_flow ? put_flow_control(o, (struct sp_flow *)c)
				       : put_stream_control(o, (struct sp_stream *)c);
		if (!fits)
			return;
		// What may not go yet is asked for again when positions are agreed.
		TAILQ_REMOVE(&o->s->ctl, c, link);
		c->listed = false;
	}
}

static void put_gone(struct out *o)
{
	struct sp_session *s = o->s;
	while (s->gone.next < s->gone.end && room(o) >= 16) {
		struct gone *g = &s->gone.items[s->gone.next++];
		g->record = o->sl->tx_records;
		if (g->is_flow)
			sp_frame_put_flow_close(&o->w, g->id, g->reason);
		else
			sp_frame_put_reset(&o->w, g->id, g->reason);
	}
}

static void put_session_control(struct out *o)
{
	struct sp_session *s = o->s;
	struct slot *sl = o->sl;
	if (sl->pass && s->now_us >= slot_pass_at(sl) && room(o) >= s->pass_len + 8) {
		sp_frame_put_pass(&o->w, s->pass, s->pass_len);
		sl->pass = false;
		if (sl->pass_paid_us < s->now_us)
			sl->pass_paid_us = s->now_us;
		sl->pass_paid_us += PASS_EACH_US;
	}
	if (sl->goaway && room(o) >= 16) {
		sp_frame_put_goaway(&o->w, sp_reason_to_wire(s->goaway_reason),
				    s->goaway_deadline_ms);
		sl->goaway = false;
	}
	if (sl->ending && room(o) >= 8) {
		sp_frame_put_reason(&o->w, SP_FRAME_END,
				    sp_reason_to_wire(s->end_reason));
		sl->ending = false;
	}
	if (sl->ping && room(o) >= 1) {
		sp_frame_put_simple(&o->w, SP_FRAME_PING);
		sl->ping = false;
	}
}

// What was taken since the last WINDOWs, told along with a record that goes anyway.
static void put_dirty_windows(struct out *o)
{
	struct sp_stream *st = TAILQ_FIRST(&o->s->dirty), *next;
	for (; st && room(o) >= 32; st = next) {
		uint64_t credit;
		next = TAILQ_NEXT(st, dirty_link);
		if (!o->sl->peer_agreed && st->sync_epoch != o->sl->epoch)
			continue;
		stream_settle_window(st, &credit);
		sp_frame_put_window(&o->w, st->id, st->rec->taken, credit);
		ctl_sent(&st->ctl, o->sl, o->slot, WANT_WINDOW);
	}
	if (!TAILQ_EMPTY(&o->s->dirty))
		o->s->dirty_at_us = o->s->now_us + REPORT_DUE_US;
}

// ---- stream data ----

// Refers to or copies `len` bytes at the stream's cursor. Returns how many went in before
// the segments ran out.
static size_t put_payload(struct out *o, struct sp_stream *st, size_t len)
{
	size_t done = 0;
	uint8_t *p;
	while (done < len) {
		if (o->g->n + 2 >= SP_GATHER_SEGMENTS)
			break;
		size_t n = ring_next(st, len - done, &p);
		if (n == 0)
			break;
		if (n < COPY_BELOW) {
			memcpy(o->w.p, p, n);
			o->w.p += n;
		} else {
			flush_head(o);
			o->g->iov[o->g->n++] = (struct iovec){p, n};
			o->ref += n;
		}
		done += n;
	}
	return done;
}

// How many bytes of the stream's data may go into this record: whole pieces that fit into
// the segments left, so that the length in the header is right.
static size_t payload_fits(const struct out *o, const struct sp_stream *st, size_t len)
{
	size_t segments = (size_t)(SP_GATHER_SEGMENTS - o->g->n) / 2;
	if (segments < 3)
		return 0;
	size_t skip = (size_t)(st->snd_nxt - st->cur_start) % SP_CHUNK_BYTES;
	size_t cap = (segments - 2) * SP_CHUNK_BYTES - skip;
	return len < cap ? len : cap;
}

// One DATA frame of at most `quantum` bytes. Returns payload bytes; the end counts as
// one.
static size_t put_stream(struct out *o, struct sp_stream *st, size_t quantum)
{
	struct sp_stream_rec *r = st->rec;
	if (room(o) <= SP_FRAME_DATA_HEADER_MAX)
		return 0;
	size_t space = room(o) - SP_FRAME_DATA_HEADER_MAX;
	uint64_t end = r->head < st->rec->credit ? r->head : st->rec->credit;
	size_t len = st->snd_nxt < end ? (size_t)(end - st->snd_nxt) : 0;
	if (len > space)
		len = space;
	if (len > quantum)
		len = quantum;
	size_t want = len;
	len = payload_fits(o, st, len);
	if (want && !len)
		return 0;
	bool fin = (r->bits & SP_STREAM_TX_FIN) && st->snd_nxt + len == r->head;
	uint64_t offset = st->snd_nxt;
	sp_frame_put_data(&o->w, fin, st->id, offset, len);
	(void)put_payload(o, st, len);
	if (fin)
		st->snd_nxt = r->head + 1;
	if (offset < st->snd_max)
		o->s->stats.bytes_resent +=
			(st->snd_max < offset + len ? st->snd_max - offset : len);
	if (offset + len > st->snd_max) {
		o->s->stats.bytes_tx +=
			offset + len - (st->snd_max > offset ? st->snd_max : offset);
		st->snd_max = offset + len;
	}
	return len + fin;
}

// The stream whose turn it is. One that has nothing to send any more (its bytes arrived
// by an older carrier) leaves the schedule.
static struct sp_stream *next_stream(struct sp_session *s)
{
	for (;;) {
		struct sp_stream *st = TAILQ_FIRST(&s->sched_new);
		if (!st)
			st = TAILQ_FIRST(&s->sched_old);
		if (!st || stream_sendable(st))
			return st;
		stream_unschedule(st);
	}
}

static size_t stream_output(struct out *o, size_t quantum)
{
	struct sp_stream *st = next_stream(o->s);
	size_t n = put_stream(o, st, quantum);
	if (n == 0)
		return 0;
	stream_unschedule(st);
	if (stream_sendable(st)) {
		st->sched = SCHED_OLD;
		TAILQ_INSERT_TAIL(&o->s->sched_old, st, sched_link);
	}
	if (st->source_wait && !st->sent_some) {
		st->sent_some = true;
		TAILQ_INSERT_TAIL(&o->s->sent_some, st, sent_link);
	}
	return n;
}

// Sources that may be read on because their bytes were sent. Not told while a record is
// made: programs may reset or read, and chunks the record refers to would change.
static void wake_sources(struct sp_session *s)
{
	struct sp_stream *st;
	while ((st = TAILQ_FIRST(&s->sent_some))) {
		TAILQ_REMOVE(&s->sent_some, st, sent_link);
		st->sent_some = false;
		stream_source_recheck(st);
	}
}

// Streams and datagrams in turn while both have something; `balance` carries what one
// class had more than the other over to the next record.
static void put_bulk(struct out *o)
{
	struct sp_session *s = o->s;
	bool unfit = false; // the next datagram does not fit into this record
	for (;;) {
		bool streams = next_stream(s) != NULL;
		bool dgrams = flow_has_output(s, false);
		if (!streams || !dgrams)
			s->balance = 0; // one that waits for the next record is owed
		dgrams = dgrams && !unfit;
		if (!streams && !dgrams)
			return;
		limit_writer(o);
		if (dgrams && (!streams || s->balance > 0)) {
			size_t n = flow_output(s, false, &o->w,
					       streams ? QUANTUM_SHARED : room(o));
			s->balance -= (int64_t)n;
			unfit = n == 0;
		} else {
			size_t n = stream_output(o, dgrams ? QUANTUM_SHARED
							   : SP_RECORD_PLAIN_MAX);
			if (n == 0)
				return;
			s->balance += (int64_t)n;
		}
	}
}

// ---- the record ----

static void put_report(struct out *o)
{
	struct slot *sl = o->sl;
	if (sl->rx_records == sl->rx_told)
		return;
	sp_frame_put_seen(&o->w, sl->rx_records, o->s->now_us - sl->last_rx_us);
}

static void record_sent(struct out *o, bool wants_report)
{
	struct slot *sl = o->sl;
	struct sp_session *s = o->s;
	sl->rx_told = sl->rx_records;
	sl->report_due = false;
	sl->tx_records++;
	s->stats.records_tx++;
	if (!wants_report)
		return;
	sl->tx_wanting = sl->tx_records;
	if (!sl->waiting_since_us)
		sl->waiting_since_us = s->now_us;
	if (!sl->probe_us) {
		sl->probe_us = s->now_us;
		sl->probe_record = sl->tx_records - 1;
	}
}

static bool bulk_waits(const struct sp_session *s)
{
	return !TAILQ_EMPTY(&s->sched_new) || !TAILQ_EMPTY(&s->sched_old) ||
	       flow_has_output(s, true) || flow_has_output(s, false);
}

static void put_everything(struct out *o, bool due)
{
	struct sp_session *s = o->s;
	size_t before = sp_writer_len(&o->w);
	if (o->sl->phase != PHASE_RUN)
		(void)attach_put_hello(s, o->slot, &o->w);
	if (o->sl->phase != PHASE_RUN)
		return;
	put_session_control(o);
	if (s->primary != (int)o->slot)
		return;
	put_control(o);
	put_gone(o);
	// What is left of it may be the OPEN, OPENED or FLOW that data would overtake.
	if (!TAILQ_EMPTY(&s->ctl))
		return;
	bool windows = !TAILQ_EMPTY(&s->dirty) && s->now_us >= s->dirty_at_us;
	if (due || windows || sp_writer_len(&o->w) > before || bulk_waits(s))
		put_dirty_windows(o);
	if (flow_has_output(s, true))
		(void)flow_output(s, true, &o->w, room(o));
	put_bulk(o);
}

static void make_record(struct sp_session *s, unsigned slot, size_t max_plain,
			struct sp_gather *g, uint64_t now_us)
{
	struct slot *sl = &s->slots[slot];
	s->now_us = now_us;
	session_unreserve(s);
	wake_sources(s);
	sl->woken = false;
	struct out o = {.s = s, .sl = sl, .slot = slot, .g = g, .max = max_plain};
	if (o.max > sizeof(g->head))
		o.max = sizeof(g->head);
	sp_writer_init(&o.w, g->head, o.max);
	o.seg = g->head;
	bool due = sl->report_due && now_us >= sl->report_at_us;
	put_report(&o);
	size_t report = sp_writer_len(&o.w);
	put_everything(&o, due);
	bool more = sp_writer_len(&o.w) + o.ref > report;
	if (!more && !due)
		return;
	flush_head(&o);
	record_sent(&o, more);
	g->head_used = sp_writer_len(&o.w);
	g->bytes = g->head_used + o.ref;
}

size_t sp_session_output(struct sp_session *s, unsigned slot, size_t max_plain,
			 struct sp_gather *g, uint64_t now_us)
{
	g->n = 0;
	g->bytes = g->head_used = 0;
	if (s->slots[slot].phase == PHASE_EMPTY)
		return 0;
	uint64_t before = sp_arena_work_for(s->opt.arena, s->index);
	make_record(s, slot, max_plain, g, now_us);
	sp_arena_work_was(s->opt.arena, before);
	return g->bytes;
}

void output_confirm(struct sp_session *s)
{
	struct sp_stream *st = TAILQ_FIRST(&s->finished), *next;
	for (int waiting = 0; st && waiting < 8; st = next) {
		next = TAILQ_NEXT(st, finished_link);
		if (!st->ctl.want && (!st->ctl.unreported || ctl_reported(s, &st->ctl)))
			stream_destroy(st);
		else
			waiting++;
	}
}
