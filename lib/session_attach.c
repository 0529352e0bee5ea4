// Carriers come and go: slots, epochs, and what RESUME says (PROTOCOL.md section 7).
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/session_internal.h"

// Nothing that was not reported can be relied on: ask for it again.
static void ctl_rearm(struct sp_session *s, struct ctl_state *c, uint8_t always)
{
	if (c->unreported && !ctl_reported(s, c))
		c->want |= c->unreported;
	c->unreported = 0;
	c->want |= always;
}

// A stream whose dial was not answered is asked for again at every change of carrier: the
// answer may have been lost on either way, and OPEN is idempotent.
static uint8_t stream_always(const struct sp_stream *st)
{
	return st->s->opt.role == SP_ROLE_CLIENT && st->rec->state == SP_STREAM_DIALLING
		       ? WANT_OPEN
		       : 0;
}

// The carrier in use changes (or went): what was under way on the old one may be lost.
// Positions are open until the peer's RESUME.
static void positions_lost(struct sp_session *s)
{
	struct sp_stream *st;
	struct sp_flow *fl;
	TAILQ_INIT(&s->resume);
	TAILQ_INIT(&s->ctl);
	s->gone.next = s->gone.first;
	TAILQ_FOREACH(st, &s->all, all)
	{
		st->in_resume = stream_listable(st);
		if (st->in_resume)
			TAILQ_INSERT_TAIL(&s->resume, st, resume_link);
		ctl_rearm(s, &st->ctl, stream_always(st));
		st->ctl.listed = st->ctl.want != 0;
		if (st->ctl.listed)
			TAILQ_INSERT_TAIL(&s->ctl, &st->ctl, link);
		stream_unschedule(st);
		st->sync_epoch = 0;
	}
	TAILQ_FOREACH(fl, &s->lru, lru)
	{
		ctl_rearm(s, &fl->ctl, s->opt.role == SP_ROLE_CLIENT ? WANT_FLOW : 0);
		fl->ctl.listed = fl->ctl.want != 0;
		if (fl->ctl.listed)
			TAILQ_INSERT_TAIL(&s->ctl, &fl->ctl, link);
	}
}

static void slot_clear(struct slot *sl)
{
	free(sl->tickets);
	*sl = (struct slot){.phase = PHASE_EMPTY};
}

static int best_slot(const struct sp_session *s)
{
	int best = -1;
	for (int i = 0; i < SP_SLOTS; i++)
		if (s->slots[i].phase != PHASE_EMPTY && !s->slots[i].spare &&
		    (best < 0 || s->slots[i].epoch > s->slots[best].epoch))
			best = i;
	return best;
}

void sp_session_detach(struct sp_session *s, unsigned slot, const void *link,
		       uint64_t now_us)
{
	struct slot *sl = &s->slots[slot];
	if (sl->phase == PHASE_EMPTY || sl->link != link)
		return;
	s->now_us = now_us;
	bool was_primary = s->primary == (int)slot;
	if (was_primary)
		positions_lost(s);
	slot_clear(sl);
	if (!was_primary)
		return;
	// An older carrier that still lives cannot be gone back to: the peer sends on the
	// newest epoch it has seen. Only a new ATTACH moves the streams.
	s->primary = -1;
	s->detached_since_us = now_us;
}

// A spare changes nothing but what stands in its slot.
static void attach(struct sp_session *s, unsigned slot, uint32_t epoch, bool spare,
		   const struct sp_slot_ops *ops, void *link)
{
	struct slot *sl = &s->slots[slot];
	struct slot old = *sl;
	bool client = s->opt.role == SP_ROLE_CLIENT;
	bool was_primary = s->primary == (int)slot;
	if (!spare || was_primary)
		positions_lost(s); // while the old slots still know what was reported
	if (old.phase != PHASE_EMPTY)
		slot_clear(sl);
	s->rec->epoch = epoch;
	*sl = (struct slot){
		.phase = PHASE_HELLO,
		.ops = ops,
		.link = link,
		.epoch = epoch,
		.spare = spare,
		.flags = spare && client ? SP_ATTACH_SPARE : 0,
		.last_rx_us = s->now_us,
		.last_rx_traffic_us = s->now_us,
		.ping_after_us = PING_FIRST_US,
		.goaway = s->goaway && !spare,
		.ending = s->dead && !client,
		.pass = s->pass != NULL && client && !spare,
	};
	if (!spare) {
		s->primary = best_slot(s);
	} else if (was_primary) {
		s->primary = -1;
		s->detached_since_us = s->now_us;
	}
	s->stats.attaches++;
	if (old.phase != PHASE_EMPTY)
		old.ops->close(old.link, SP_REASON_SUPERSEDED);
	slot_wake(sl);
}

void sp_session_attach_client(struct sp_session *s, unsigned slot,
			      const struct sp_slot_ops *ops, void *link, uint64_t now_us)
{
	s->now_us = now_us;
	attach(s, slot, s->rec->epoch + 1, false, ops, link);
}

void sp_session_attach_spare(struct sp_session *s, unsigned slot,
			     const struct sp_slot_ops *ops, void *link, uint64_t now_us)
{
	s->now_us = now_us;
	attach(s, slot, s->rec->epoch + 1, true, ops, link);
}

// The carrier in `slot` begins anew under a higher epoch; records and reports count on.
static void begin_again(struct sp_session *s, unsigned slot, uint32_t epoch)
{
	struct slot *sl = &s->slots[slot];
	positions_lost(s); // while the slots still know what was reported
	s->rec->epoch = epoch;
	sl->epoch = epoch;
	sl->phase = PHASE_HELLO;
	sl->spare = false;
	sl->peer_agreed = false;
	sl->fresh = false;
	sl->flags = 0;
	sl->ping_after_us = PING_FIRST_US;
	sl->stall_told = false;
	sl->goaway = s->goaway;
	sl->pass = s->pass != NULL && s->opt.role == SP_ROLE_CLIENT;
	s->primary = best_slot(s);
	s->stats.attaches++;
	slot_wake(sl);
}

int sp_session_reattach(struct sp_session *s, unsigned slot, uint64_t now_us)
{
	struct slot *sl = &s->slots[slot];
	if (sl->phase != PHASE_RUN || !sl->attached || !sl->peer_agreed || sl->again)
		return SP_E_STALE;
	s->now_us = now_us;
	session_unreserve(s);
	begin_again(s, slot, s->rec->epoch + 1);
	sl->again = true;
	return 0;
}

int attach_again(struct sp_session *s, unsigned slot, const struct sp_frame *f)
{
	struct slot *sl = &s->slots[slot];
	if (s->opt.role != SP_ROLE_WORKER || sl->phase != PHASE_RUN || !sl->peer_agreed ||
	    f->slot != slot || f->flags ||
	    memcmp(f->data, s->opt.id, sizeof(s->opt.id)) != 0)
		return SP_E_PROTOCOL;
	if (f->epoch <= s->rec->epoch)
		return SP_E_STALE;
	begin_again(s, slot, f->epoch);
	s->stats.resumes++;
	if (s->opt.ops->reattached)
		s->opt.ops->reattached(s->opt.ctx, slot);
	return 0;
}

void sp_session_attach_flags(struct sp_session *s, unsigned slot, uint8_t flags)
{
	s->slots[slot].flags = flags;
}

bool sp_session_is_adopted(const struct sp_session *s, unsigned slot)
{
	return s->slots[slot].adopted;
}

int sp_attach_parse(const uint8_t *buf, size_t len, struct sp_attach *ret)
{
	struct sp_reader r;
	struct sp_frame f;
	sp_reader_init(&r, buf, len);
	int err = sp_frame_get(&r, &f);
	if (err)
		return err;
	if (f.type != SP_FRAME_ATTACH)
		return SP_E_MALFORMED;
	memcpy(ret->session, f.data, sizeof(ret->session));
	ret->epoch = f.epoch;
	ret->slot = f.slot;
	ret->flags = f.flags;
	return (int)(r.p - buf);
}

int sp_session_attach_worker(struct sp_session *s, const struct sp_attach *at, bool fresh,
			     const struct sp_slot_ops *ops, void *link, uint64_t now_us)
{
	if (at->epoch <= s->rec->epoch || at->slot >= SP_SLOTS)
		return SP_E_STALE;
	s->now_us = now_us;
	attach(s, at->slot, at->epoch, !fresh && (at->flags & SP_ATTACH_SPARE), ops,
	       link);
	s->slots[at->slot].fresh = fresh;
	if (!fresh && !s->slots[at->slot].spare)
		s->stats.resumes++;
	return 0;
}

int sp_session_add_ticket(struct sp_session *s, unsigned slot, uint32_t lifetime_s,
			  const uint8_t *ticket, size_t len)
{
	struct slot *sl = &s->slots[slot];
	if (sl->phase != PHASE_HELLO || len > TICKET_BYTES_MAX ||
	    sl->n_tickets >= TICKETS_MAX)
		return SP_E_LIMIT;
	if (!sl->tickets)
		sl->tickets = calloc(TICKETS_MAX, sizeof(*sl->tickets));
	if (!sl->tickets)
		return -ENOMEM;
	struct pending_ticket *t = &sl->tickets[sl->n_tickets++];
	t->lifetime_s = lifetime_s;
	t->len = (uint16_t)len;
	memcpy(t->bytes, ticket, len);
	return 0;
}

// ---- what goes out first ----

static bool put_greeting(struct sp_session *s, unsigned slot, struct sp_writer *w)
{
	struct slot *sl = &s->slots[slot];
	if (s->opt.role == SP_ROLE_CLIENT) {
		sp_frame_put_attach(w, s->opt.id, sl->epoch, (uint8_t)slot, sl->flags);
		return !w->err;
	}
	uint8_t result = s->opt.adopted ? SP_ATTACHED_ADOPTED
			 : sl->fresh    ? SP_ATTACHED_FRESH
					: SP_ATTACHED_RESUMED;
	sp_frame_put_attached(w, result, sl->epoch, s->rec->incarnation,
			      s->opt.limits.max_streams, s->opt.limits.max_flows);
	return !w->err;
}

// Tickets while they fit; false: some are left.
static bool put_tickets(struct slot *sl, struct sp_writer *w)
{
	for (; sl->tickets_tx < sl->n_tickets; sl->tickets_tx++) {
		const struct pending_ticket *t = &sl->tickets[sl->tickets_tx];
		if (sp_writer_room(w) < (size_t)t->len + SP_FRAME_TICKET_HEADER_MAX)
			return false;
		sp_frame_put_ticket(w, t->lifetime_s, t->bytes, t->len);
	}
	free(sl->tickets);
	sl->tickets = NULL;
	return true;
}

// RESUME frames while they fit. Only the carrier in use lists anything.
static void put_resume(struct sp_session *s, unsigned slot, struct sp_writer *w)
{
	struct slot *sl = &s->slots[slot];
	uint8_t *start = w->p;
	uint64_t n = 0;
	struct sp_stream *st = s->primary == (int)slot ? TAILQ_FIRST(&s->resume) : NULL;
	if (sp_writer_room(w) < 10 + SP_FRAME_RESUME_ENTRY_MAX)
		return;
	sp_put_u8(w, SP_FRAME_RESUME);
	sp_put_u8(w, 0);
	uint8_t *count = w->p;
	sp_put_u16(w, 0); // a varint of two bytes, filled in below
	while (st && n < 500 && sp_writer_room(w) >= SP_FRAME_RESUME_ENTRY_MAX) {
		struct sp_stream *next = TAILQ_NEXT(st, resume_link);
		struct sp_frame_resume e = {.id = st->id, .next = st->rcv_next};
		TAILQ_REMOVE(&s->resume, st, resume_link);
		st->in_resume = false;
		stream_settle_window(st, &e.credit);
		e.taken = st->rec->taken;
		sp_frame_put_resume_entry(w, &e);
		ctl_sent(&st->ctl, sl, slot, WANT_WINDOW);
		n++;
		st = next;
	}
	start[1] = st ? 0 : 1;
	count[0] = (uint8_t)(0x40 | (n >> 8));
	count[1] = (uint8_t)n;
	if (!st)
		sl->phase = PHASE_RUN;
}

size_t attach_put_hello(struct sp_session *s, unsigned slot, struct sp_writer *w)
{
	struct slot *sl = &s->slots[slot];
	size_t before = sp_writer_len(w);
	if (sl->phase == PHASE_HELLO) {
		uint8_t *mark = w->p;
		if (!put_greeting(s, slot, w)) {
			w->p = mark;
			w->err = 0;
			return 0;
		}
		sl->phase = PHASE_RESUME;
	}
	if (sl->tickets && !put_tickets(sl, w))
		return sp_writer_len(w) - before;
	for (uint8_t *mark = NULL; sl->phase == PHASE_RESUME && mark != w->p;) {
		mark = w->p;
		put_resume(s, slot, w);
	}
	return sp_writer_len(w) - before;
}

size_t sp_session_hello(struct sp_session *s, unsigned slot, uint8_t *buf, size_t cap,
			uint64_t now_us)
{
	struct sp_writer w;
	s->now_us = now_us;
	sp_writer_init(&w, buf, cap);
	return attach_put_hello(s, slot, &w);
}

// ---- what the peer says first ----

// Those for which `stays` is the home, or that have none, stay.
static void end_streams(struct sp_session *s, uint64_t stays, enum sp_reason reason)
{
	struct sp_stream *st = TAILQ_FIRST(&s->all);
	while (st) {
		struct sp_stream *next = TAILQ_NEXT(st, all);
		if (st->home != stays && (st->home || st->finished)) {
			stream_end(st, reason);
			next = TAILQ_NEXT(st, all); // the program may have opened others
			stream_destroy(st);
		}
		st = next;
	}
}

void sp_session_lose_streams(struct sp_session *s, enum sp_reason reason)
{
	session_refresh(s);
	end_streams(s, 0, reason);
}

// The home has no memory of the session (another incarnation): what the earlier one had
// spoken of is lost; what none has spoken of is opened again. Carriers that end at the
// earlier home go, lest its bytes be mixed with the new one's.
static void home_changed(struct sp_session *s, const struct slot *sl)
{
	for (unsigned i = 0; i < SP_SLOTS; i++) {
		struct slot old = s->slots[i];
		if (old.phase == PHASE_EMPTY || !old.attached || old.home == sl->home)
			continue;
		sp_session_detach(s, i, old.link, s->now_us);
		old.ops->close(old.link, SP_REASON_HOME_LOST);
	}
	end_streams(s, sl->home, SP_REASON_HOME_LOST);
}

int attach_result(struct sp_session *s, unsigned slot, const struct sp_frame *f,
		  enum sp_reason *ret_closed)
{
	struct slot *sl = &s->slots[slot];
	bool changed = f->incarnation != s->rec->incarnation;
	bool known = s->rec->incarnation != 0;
	if (sl->again && f->incarnation != sl->home)
		return SP_E_PROTOCOL; // a home does not change on a carrier
	sl->again = false;
	if (changed && known && sl->epoch < s->home_epoch) {
		*ret_closed = SP_REASON_HOME_LOST; // it ends at a home that is gone
		return SP_E_CLOSED;
	}
	sl->attached = true;
	sl->home = f->incarnation;
	sl->adopted = f->result == SP_ATTACHED_ADOPTED;
	if (changed) {
		s->rec->incarnation = f->incarnation;
		home_changed(s, sl);
	}
	if (sl->epoch > s->home_epoch)
		s->home_epoch = sl->epoch;
	s->peer_max_streams = f->max_streams;
	s->peer_max_flows = f->max_flows;
	if (!changed && !sl->spare)
		s->stats.resumes++;
	s->opt.ops->attached(s->opt.ctx, slot, changed);
	return 0;
}

static int resume_entry(struct sp_session *s, struct slot *sl,
			const struct sp_frame_resume *e)
{
	struct sp_stream *st = sp_idmap_get(&s->streams, e->id);
	if (!st)
		return session_gone(s, e->id, false, SP_REASON_GONE);
	if (s->opt.role == SP_ROLE_CLIENT && !st->open_sent)
		return SP_E_PROTOCOL; // no OPEN of ours has named it
	if (st->finished)
		return 0; // our RESET or last WINDOW is sent again anyway
	if (!st->home)
		st->home = sl->home;
	const struct sp_stream_rec *r = st->rec;
	uint64_t end = r->head + ((r->bits & SP_STREAM_TX_FIN) ? 1 : 0);
	if (e->next > end || e->taken > e->next) {
		// The ends do not speak of the same stream (one home's OPEN arrived at
		// the next): nothing can be agreed, this stream alone is lost.
		stream_end(st, SP_REASON_HOME_LOST);
		stream_reset(st, SP_REASON_HOME_LOST);
		return 0;
	}
	// Once a carrier: a list that says the same again does not make us send it again.
	if (s->slots + s->primary == sl && st->sync_epoch != sl->epoch) {
		st->sync_epoch = sl->epoch;
		ring_seek(st, e->next > r->acked ? e->next : r->acked);
	}
	return stream_peer_taken(st, e->taken, e->credit);
}

// The peer's list is whole: streams it did not list go on at what it last said.
static void positions_agreed(struct sp_session *s, struct slot *sl)
{
	struct sp_stream *st;
	TAILQ_FOREACH(st, &s->all, all)
	{
		if (!st->finished && st->sync_epoch != sl->epoch) {
			st->sync_epoch = sl->epoch;
			ring_seek(st, st->rec->acked);
			stream_activate(st);
		}
		if (st->ctl.want)
			ctl_want(s, &st->ctl, 0);
	}
}

int attach_peer_resume(struct sp_session *s, struct slot *sl, const struct sp_frame *f)
{
	struct sp_reader r;
	if (sl->peer_agreed)
		return SP_E_PROTOCOL;
	sp_reader_init(&r, f->data, f->len);
	for (uint64_t i = 0; i < f->count; i++) {
		struct sp_frame_resume e;
		sp_frame_get_resume(&r, &e);
		int err = resume_entry(s, sl, &e);
		if (err)
			return err;
	}
	if (!f->last)
		return 0;
	sl->peer_agreed = true;
	if (s->slots + s->primary == sl)
		positions_agreed(s, sl);
	session_wake(s);
	return 0;
}
