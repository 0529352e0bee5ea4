// What a record says: frames are checked against where they may stand, then carried out.
#include <errno.h>

#include "lib/session_internal.h"

struct in {
	struct sp_session *s;
	struct slot *sl;
	unsigned slot;
	bool wants_report;
	bool rekey;
	enum sp_reason closed; // CLOSE came
};

// RFC 6298, section 2.
static void rtt_sample(struct slot *sl, uint64_t elapsed_us, uint64_t delay_us)
{
	int64_t rtt = elapsed_us > delay_us ? (int64_t)(elapsed_us - delay_us) : 0;
	if (rtt > 60000000)
		rtt = 60000000;
	sl->probe_us = 0;
	if (!sl->srtt_us) {
		sl->srtt_us = (uint32_t)rtt + 1;
		sl->rttvar_us = (uint32_t)rtt / 2;
		return;
	}
	int64_t d = rtt - (int64_t)sl->srtt_us;
	int64_t var = sl->rttvar_us;
	sl->rttvar_us = (uint32_t)(var + ((d < 0 ? -d : d) - var) / 4);
	sl->srtt_us = (uint32_t)((int64_t)sl->srtt_us + d / 8);
}

static int seen(struct in *in, const struct sp_frame *f)
{
	struct slot *sl = in->sl;
	struct sp_session *s = in->s;
	if (f->records > sl->tx_records)
		return SP_E_PROTOCOL;
	if (f->records <= sl->tx_reported)
		return 0;
	sl->tx_reported = f->records;
	sl->waiting_since_us = sl->tx_wanting > sl->tx_reported ? s->now_us : 0;
	if (sl->probe_us && sl->tx_reported > sl->probe_record)
		rtt_sample(sl, s->now_us - sl->probe_us, f->delay_us);
	if (sl == primary_slot(s))
		gone_reported(&s->gone, sl->tx_reported);
	output_confirm(s);
	return 0;
}

static int open_stream(struct in *in, const struct sp_frame *f)
{
	struct sp_session *s = in->s;
	if (s->opt.role != SP_ROLE_WORKER || f->id == 0)
		return SP_E_PROTOCOL;
	struct sp_stream *st = sp_idmap_get(&s->streams, f->id);
	if (st && st->unasked) {
		st->unasked = false;
		s->opt.ops->stream_open(s->opt.ctx, st, &f->target);
	}
	if (st)
		return 0;
	if (f->id <= s->rec->highest_stream)
		return session_gone(s, f->id, false, SP_REASON_GONE);
	// A peer that does not report makes us keep the ended ones: bounded too.
	if (s->dead || s->n_finished > s->opt.limits.max_streams + 1024) {
		s->rec->highest_stream = f->id;
		s->stats.streams_refused++;
		return session_gone(s, f->id, false, SP_REASON_STREAM_LIMIT);
	}
	int err;
	st = stream_new(s, f->id, &err);
	s->rec->highest_stream = f->id; // after the record, lest a crash make it unknown
	if (!st) {
		s->stats.streams_refused++;
		return session_gone(s, f->id, false,
				    err == SP_E_LIMIT ? SP_REASON_STREAM_LIMIT
						      : SP_REASON_NO_MEMORY);
	}
	if (f->credit > st->rec->credit)
		st->rec->credit = f->credit;
	struct slot *primary = primary_slot(s);
	if (primary && primary->peer_agreed)
		st->sync_epoch = primary->epoch;
	s->opt.ops->stream_open(s->opt.ctx, st, &f->target);
	return 0;
}

static int opened(struct in *in, const struct sp_frame *f)
{
	struct sp_session *s = in->s;
	struct sp_stream *st = sp_idmap_get(&s->streams, f->id);
	if (!st)
		return session_gone(s, f->id, false, SP_REASON_GONE);
	if (!st->home)
		st->home = in->sl->home;
	if (st->finished)
		return 0;
	if (f->credit > st->rec->credit)
		st->rec->credit = f->credit;
	if (st->rec->state == SP_STREAM_DIALLING) {
		st->rec->state = SP_STREAM_OPEN;
		st->ctl.want &= (uint8_t)~WANT_OPEN;
		s->opt.ops->stream_opened(s->opt.ctx, st, &f->target);
	}
	stream_activate(st);
	stream_source_recheck(st);
	return 0;
}

static int reset(struct in *in, const struct sp_frame *f)
{
	struct sp_stream *st = sp_idmap_get(&in->s->streams, f->id);
	if (!st)
		return 0;
	stream_end(st, sp_reason_from_wire(f->reason));
	stream_destroy(st);
	return 0;
}

// The peer speaks of a stream that no OPEN of ours has named (or, at the worker, says
// OPENED).
static bool never_told(const struct in *in, const struct sp_frame *f,
		       const struct sp_stream *st)
{
	if (in->s->opt.role == SP_ROLE_WORKER)
		return f->type == SP_FRAME_OPENED;
	return st ? !st->open_sent : f->id >= in->s->next_stream;
}

static int stream_frame(struct in *in, const struct sp_frame *f)
{
	struct sp_session *s = in->s;
	struct sp_stream *st = sp_idmap_get(&s->streams, f->id);
	if (f->type == SP_FRAME_OPEN)
		return open_stream(in, f);
	if (never_told(in, f, st))
		return SP_E_PROTOCOL;
	if (f->type == SP_FRAME_OPENED)
		return opened(in, f);
	if (f->type == SP_FRAME_RESET)
		return reset(in, f);
	if (st && !st->home)
		st->home = in->sl->home;
	if (f->type == SP_FRAME_WINDOW)
		return st && !st->finished ? stream_peer_taken(st, f->taken, f->credit)
					   : 0;
	if (!st)
		return session_gone(s, f->id, false, SP_REASON_GONE);
	return stream_data(st, f);
}

static int from_worker(struct in *in, const struct sp_frame *f)
{
	struct sp_session *s = in->s;
	if (s->opt.role != SP_ROLE_CLIENT)
		return SP_E_PROTOCOL;
	switch (f->type) {
	case SP_FRAME_ATTACHED:
		if ((in->sl->attached && !in->sl->again) || f->epoch != in->sl->epoch)
			return SP_E_PROTOCOL;
		return attach_result(s, in->slot, f, &in->closed);
	case SP_FRAME_TICKET:
		if (in->sl->tickets_rx == 255)
			return SP_E_PROTOCOL;
		s->opt.ops->ticket(s->opt.ctx, in->slot, in->sl->tickets_rx++,
				   f->lifetime_s, f->data, f->len);
		return 0;
	case SP_FRAME_GOAWAY:
		s->opt.ops->goaway(s->opt.ctx, sp_reason_from_wire(f->reason),
				   f->deadline_ms);
		return 0;
	default: // END
		s->dead = true;
		s->opt.ops->ended(s->opt.ctx, sp_reason_from_wire(f->reason));
		return 0;
	}
}

// Each one costs the program a signature check: a peer may not ask for many.
static int pass(struct in *in, const struct sp_frame *f)
{
	struct sp_session *s = in->s;
	uint64_t paid = in->sl->pass_paid_us;
	if (s->opt.role != SP_ROLE_WORKER)
		return SP_E_PROTOCOL;
	if (paid < s->now_us)
		paid = s->now_us;
	if (paid - s->now_us > (PASS_BURST - 1) * PASS_EACH_US)
		return SP_E_PROTOCOL;
	in->sl->pass_paid_us = paid + PASS_EACH_US;
	s->opt.ops->pass(s->opt.ctx, f->data, f->len);
	return 0;
}

static int one_frame(struct in *in, const struct sp_frame *f)
{
	struct sp_session *s = in->s;
	// Before ATTACHED a worker says nothing else (but may close).
	if (s->opt.role == SP_ROLE_CLIENT && !in->sl->attached &&
	    f->type != SP_FRAME_ATTACHED && f->type != SP_FRAME_CLOSE &&
	    f->type != SP_FRAME_SEEN && f->type != SP_FRAME_PAD &&
	    f->type != SP_FRAME_END)
		return SP_E_PROTOCOL;
	in->wants_report |= f->type != SP_FRAME_PAD && f->type != SP_FRAME_SEEN &&
			    f->type != SP_FRAME_CLOSE;
	switch (f->type) {
	case SP_FRAME_PAD:
	case SP_FRAME_PING:
		return 0;
	case SP_FRAME_SEEN:
		return seen(in, f);
	case SP_FRAME_ATTACH:
		return attach_again(s, in->slot, f); // the first was the caller's
	case SP_FRAME_RESUME:
		if (in->sl->again) // that of the last ATTACH was said to its end
			return SP_E_PROTOCOL;
		return attach_peer_resume(s, in->sl, f);
	case SP_FRAME_ATTACHED:
	case SP_FRAME_TICKET:
	case SP_FRAME_GOAWAY:
	case SP_FRAME_END:
		return from_worker(in, f);
	case SP_FRAME_OPEN:
	case SP_FRAME_OPENED:
	case SP_FRAME_DATA:
	case SP_FRAME_DATA_FIN:
	case SP_FRAME_WINDOW:
	case SP_FRAME_RESET:
		return stream_frame(in, f);
	case SP_FRAME_FLOW:
	case SP_FRAME_DGRAM:
	case SP_FRAME_FLOW_CLOSE:
		return flow_frame(s, f);
	case SP_FRAME_PASS:
		return pass(in, f);
	case SP_FRAME_CLOSE:
		in->closed = sp_reason_from_wire(f->reason);
		return SP_E_CLOSED;
	case SP_FRAME_REKEY:
		in->rekey = true;
		return 0;
	}
	return SP_E_MALFORMED;
}

static void record_processed(struct in *in)
{
	struct slot *sl = in->sl;
	uint64_t now = in->s->now_us;
	sl->rx_records++;
	in->s->stats.records_rx++;
	sl->last_rx_us = now;
	sl->stall_told = false;
	if (!in->wants_report)
		return;
	sl->last_rx_traffic_us = now;
	sl->ping_after_us = PING_FIRST_US;
	if (!sl->report_due) {
		sl->report_due = true;
		sl->report_at_us = now + REPORT_DUE_US;
	}
}

int sp_session_input(struct sp_session *s, unsigned slot, const uint8_t *plain,
		     size_t len, uint64_t now_us, bool *ret_rekey,
		     enum sp_reason *ret_reason)
{
	struct slot *sl = &s->slots[slot];
	if (sl->phase == PHASE_EMPTY)
		return SP_E_CLOSED;
	struct in in = {.s = s, .sl = sl, .slot = slot};
	uint64_t before = sp_arena_work_for(s->opt.arena, s->index);
	session_unreserve(s);
	struct sp_reader r;
	int err = 0;
	s->now_us = now_us;
	*ret_rekey = false;
	sp_reader_init(&r, plain, len);
	while (sp_reader_left(&r) && !err) {
		struct sp_frame f;
		err = in.rekey ? SP_E_PROTOCOL : sp_frame_get(&r, &f);
		if (!err)
			err = one_frame(&in, &f);
	}
	if (err == SP_E_CLOSED)
		*ret_reason = in.closed;
	else if (err == SP_E_STALE)
		*ret_reason = SP_REASON_STALE_EPOCH;
	else if (err)
		*ret_reason = err == SP_E_LIMIT || err == -ENOMEM ? SP_REASON_NO_MEMORY
								  : SP_REASON_PROTOCOL;
	record_processed(&in);
	*ret_rekey = in.rekey;
	sp_arena_feed(s->opt.arena);
	sp_arena_work_was(s->opt.arena, before);
	return err;
}

int sp_session_input_hello(struct sp_session *s, unsigned slot, const uint8_t *frames,
			   size_t len, uint64_t now_us)
{
	struct slot *sl = &s->slots[slot];
	struct sp_reader r;
	int err = 0;
	if (sl->phase == PHASE_EMPTY)
		return SP_E_CLOSED;
	uint64_t before = sp_arena_work_for(s->opt.arena, s->index);
	s->now_us = now_us;
	sp_reader_init(&r, frames, len);
	while (sp_reader_left(&r) && !err) {
		struct sp_frame f;
		err = sp_frame_get(&r, &f);
		if (!err)
			err = f.type == SP_FRAME_RESUME ? attach_peer_resume(s, sl, &f)
							: SP_E_PROTOCOL;
	}
	sp_arena_work_was(s->opt.arena, before);
	return err;
}
