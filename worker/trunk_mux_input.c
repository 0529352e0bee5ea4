// What comes from the other end of a trunk, and what it may not be.
#include "lib/wire.h"
#include "worker/trunk_mux_internal.h"

static int fail(struct wrk_mux *m, const char *error)
{
	m->error = error;
	m->failed = true;
	return SP_E_PROTOCOL;
}

// The peer's ids are those that this end does not give.
static bool is_peers(const struct wrk_mux *m, uint64_t id)
{
	return (id & 1) != (m->next_id & 1);
}

// Whether there has ever been such a pipe.
static bool was_known(const struct wrk_mux *m, uint64_t id)
{
	return id && (is_peers(m, id) ? id <= m->peer_id : id < m->next_id);
}

static bool take_token(struct wrk_mux *m)
{
	uint64_t now = mux_now_us(m), cost = 1000000 / m->opt.opens_per_second;
	m->tokens_us += now - m->tokens_at_us;
	m->tokens_at_us = now;
	if (m->tokens_us > MUX_BURST_S * UINT64_C(1000000))
		m->tokens_us = MUX_BURST_S * UINT64_C(1000000);
	if (m->tokens_us < cost)
		return false;
	m->tokens_us -= cost;
	return true;
}

static int refuse(struct wrk_mux *m, uint64_t id, enum sp_reason reason)
{
	m->opt.counters->refused[reason]++;
	if (m->n_refusals == WRK_MUX_REFUSALS)
		return fail(m, "opens more than it lets itself be refused");
	m->refusals[m->n_refusals++] = (struct refusal){id, reason};
	mux_wake(m);
	return 0;
}

// What an opened pipe begins with. False: no memory.
static bool take_first(struct wrk_pipe *p, const uint8_t *first, size_t len)
{
	p->received = len;
	p->granted = WRK_MUX_FIRST_MAX;
	p->mux->opt.counters->bytes_rx += len;
	return mux_ring_put(&p->rx, first, (uint32_t)len);
}

static int on_open(struct wrk_mux *m, uint64_t id, struct sp_reader *r)
{
	struct wrk_mux_source source;
	uint64_t credit = sp_get_varint(r);
	uint8_t hops = sp_get_u8(r);
	source.family = sp_get_u8(r);
	sp_get_copy(r, source.net, sizeof(source.net));
	uint64_t len = sp_get_varint(r);
	if (r->err || len > WRK_MUX_FIRST_MAX || !len)
		return fail(m, "a carrier that does not parse");
	const uint8_t *first = sp_get_bytes(r, (size_t)len);
	if (r->err)
		return fail(m, "a carrier that does not parse");
	if (!is_peers(m, id) || id <= m->peer_id)
		return fail(m, "a carrier's id that does not rise");
	m->peer_id = id;
	if (!take_token(m))
		return refuse(m, id, SP_REASON_RATE_LIMIT);
	if (hops != WRK_MUX_HOPS)
		return refuse(m, id, SP_REASON_UNREACHABLE);
	struct wrk_pipe *p = m->pipes < m->opt.max_pipes ? mux_pipe_new(m, id) : NULL;
	if (!p)
		return refuse(m, id, SP_REASON_PRESSURE);
	p->credit = credit;
	enum sp_reason why = take_first(p, first, (size_t)len)
				     ? m->opt.ops->opened(m->opt.ctx, p, &source)
				     : SP_REASON_NO_MEMORY;
	if (why != SP_REASON_NONE) {
		mux_unlink_pipe(p);
		mux_pipe_free(p);
		return refuse(m, id, why);
	}
	m->opt.counters->accepted++;
	p->credit_due = true;
	mux_queue(p);
	return 0;
}

static int on_data(struct wrk_mux *m, uint64_t id, struct sp_reader *r)
{
	uint64_t len = sp_get_varint(r);
	const uint8_t *data = sp_get_bytes(r, (size_t)len);
	struct wrk_pipe *p = mux_find(m, id);
	if (r->err)
		return fail(m, "data that does not parse");
	if (!p || p->closed)
		return 0; // it was closed meanwhile
	if (p->rx_fin)
		return fail(m, "data behind the end");
	if (len > p->granted - p->received)
		return fail(m, "more data than it has credit for");
	p->received += len;
	m->opt.counters->bytes_rx += len;
	if (!len || !p->owned)
		return 0;
	if (mux_ring_put(&p->rx, data, (uint32_t)len))
		mux_tell(p);
	else
		mux_pipe_starved(p); // and no other
	return 0;
}

static int on_credit(struct wrk_mux *m, uint64_t id, struct sp_reader *r)
{
	uint64_t credit = sp_get_varint(r);
	struct wrk_pipe *p = mux_find(m, id);
	if (r->err)
		return fail(m, "credit that does not parse");
	if (!p || p->closed)
		return 0;
	if (credit < p->credit)
		return fail(m, "credit that falls");
	p->credit = credit;
	mux_queue(p);
	return 0;
}

static int on_fin(struct wrk_mux *m, uint64_t id)
{
	struct wrk_pipe *p = mux_find(m, id);
	if (!p || p->closed)
		return 0;
	if (p->rx_fin)
		return fail(m, "an end behind the end");
	p->rx_fin = true;
	if (!mux_is_over(p)) {
		mux_tell(p);
	} else {
		p->reason = SP_REASON_CLOSED;
		mux_pipe_free(p);
	}
	return 0;
}

static int on_close(struct wrk_mux *m, uint64_t id, struct sp_reader *r)
{
	enum sp_reason reason = sp_reason_from_wire(sp_get_u16(r));
	struct wrk_pipe *p = mux_find(m, id);
	if (r->err)
		return fail(m, "a close that does not parse");
	if (!p || p->closed)
		return 0;
	mux_pipe_closed(p, reason == SP_REASON_NONE ? SP_REASON_CLOSED : reason);
	return 0;
}

static int on_pipe_frame(struct wrk_mux *m, uint8_t type, struct sp_reader *r)
{
	uint64_t id = sp_get_varint(r);
	if (r->err)
		return fail(m, "a frame that does not parse");
	if (type == FRAME_RELAY_OPEN)
		return on_open(m, id, r);
	if (!was_known(m, id))
		return fail(m, "an id that was never opened");
	if (type == FRAME_RELAY_DATA)
		return on_data(m, id, r);
	if (type == FRAME_RELAY_CREDIT)
		return on_credit(m, id, r);
	if (type == FRAME_RELAY_FIN)
		return on_fin(m, id);
	return on_close(m, id, r);
}

int wrk_mux_input(struct wrk_mux *m, const uint8_t *plain, size_t len, bool *ret_rekey)
{
	struct sp_reader r;
	int err = 0;
	sp_reader_init(&r, plain, len);
	*ret_rekey = false;
	if (m->failed)
		return SP_E_PROTOCOL;
	while (!err && sp_reader_left(&r)) {
		uint8_t type = sp_get_u8(&r);
		if (type == FRAME_PING) {
			m->pong_due = true;
			mux_wake(m);
		} else if (type == FRAME_CLOSE) {
			m->failed = true;
			return SP_E_CLOSED;
		} else if (type == FRAME_REKEY) {
			if (sp_reader_left(&r))
				return fail(m, "a frame behind a change of keys");
			*ret_rekey = true;
		} else if (type >= FRAME_RELAY_OPEN && type <= FRAME_RELAY_CLOSE) {
			err = on_pipe_frame(m, type, &r);
		} else if (type != FRAME_PAD && type != FRAME_PONG) {
			err = fail(m, "an unknown frame");
		}
	}
	return err;
}
