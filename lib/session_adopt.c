// Sessions and streams from the records that another process of this worker left. What
// was told to the peer, and on which carrier, died with that process: everything is told
// again at the next attach. What the peer was promised holds: its credit, its place in
// RESUME.
#include <errno.h>
#include <string.h>

#include "lib/session_internal.h"

int sp_session_adopt(const struct sp_session_options *opt, uint32_t record,
		     uint64_t now_us, struct sp_session **ret)
{
	struct sp_session_options o = *opt;
	const struct sp_session_rec *rec = sp_arena_session(opt->arena, record);
	memcpy(o.id, rec->id, sizeof(o.id));
	o.adopted = rec->adopted;
	*ret = session_with_record(&o, record, now_us);
	return *ret ? 0 : -ENOMEM;
}

// Only the identity is left: the peer is still to hear how it ended.
static void adopt_finished(struct sp_stream *st)
{
	struct sp_session *s = st->s;
	st->finished = st->user_gone = true;
	s->n_finished++;
	TAILQ_INSERT_TAIL(&s->finished, st, finished_link);
	ctl_want(s, &st->ctl,
		 st->rec->state == SP_STREAM_RESET ? WANT_RESET : WANT_WINDOW);
}

// What the peer sent beyond `taken` was held by the other process and is sent again, its
// end too.
static void adopt_rx(struct sp_stream *st)
{
	struct sp_stream_rec *r = st->rec;
	if ((r->bits & SP_STREAM_RX_FIN) && r->taken < r->rx_final) {
		r->bits &= (uint8_t)~SP_STREAM_RX_FIN;
		sp_arena_fence();
	}
	st->rcv_next = r->bits & SP_STREAM_RX_FIN ? r->rx_final + 1 : r->taken;
}

int sp_stream_adopt(struct sp_session *s, uint32_t record,
		    const struct sp_stream_found *found, void *user,
		    struct sp_stream **ret)
{
	struct sp_stream_rec *r = sp_arena_stream(s->opt.arena, record);
	struct sp_stream *st = stream_make(s, record);
	if (!st)
		return -ENOMEM;
	if (r->id > s->rec->highest_stream)
		s->rec->highest_stream = r->id;
	*ret = st;
	if (r->state == SP_STREAM_DONE || r->state == SP_STREAM_RESET) {
		adopt_finished(st);
		return 0;
	}
	s->n_live++;
	if (r->chunks > 1)
		s->ring_chunks += r->chunks - 1;
	bool credible =
		found->head >= r->head && found->taken >= r->taken &&
		found->taken <= r->credit_given + 1 &&
		(r->chunks ? found->head <= r->base + (uint64_t)r->chunks * SP_CHUNK_BYTES
			   : found->head == r->head) &&
		(found->head == r->head || !(r->bits & SP_STREAM_TX_FIN));
	if (!credible) {
		stream_reset(st, SP_REASON_INTERNAL);
		return SP_E_MALFORMED;
	}
	r->head = found->head;
	r->taken = found->taken;
	ring_trim(st);
	ring_seek(st, r->acked);
	st->snd_max = r->head; // perhaps
	adopt_rx(st);
	if (!stream_set_window(st, r->credit_given - (r->taken < r->credit_given
							      ? r->taken
							      : r->credit_given))) {
		stream_reset(st, SP_REASON_NO_MEMORY);
		return -ENOMEM;
	}
	st->user = user;
	st->unasked = r->state == SP_STREAM_DIALLING;
	st->tune_us = s->now_us;
	st->tune_taken = r->taken;
	uint8_t want = WANT_WINDOW;
	if (r->state == SP_STREAM_OPEN && r->acked == 0) {
		st->target = found->bound;
		want |= WANT_OPENED;
	}
	ctl_want(s, &st->ctl, want);
	return 0;
}
