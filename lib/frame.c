#include "lib/frame.h"

static void get_data(struct sp_reader *r, struct sp_frame *f)
{
	uint64_t len = sp_get_varint(r);
	if (len > sp_reader_left(r))
		len = sp_reader_left(r) + 1; // fails below, without overflow of size_t
	f->len = (size_t)len;
	f->data = sp_get_bytes(r, f->len);
}

static void get_resume(struct sp_reader *r, struct sp_frame *f)
{
	f->last = sp_get_u8(r);
	f->count = sp_get_varint(r);
	f->data = r->p;
	for (uint64_t i = 0; i < f->count && !r->err; i++) {
		struct sp_frame_resume e;
		sp_frame_get_resume(r, &e);
	}
	f->len = (size_t)(r->p - f->data);
	if (!r->err && f->last > 1)
		r->err = SP_E_MALFORMED;
}

static void get_stream(struct sp_reader *r, struct sp_frame *f)
{
	f->id = sp_get_varint(r);
	switch (f->type) {
	case SP_FRAME_OPEN:
		f->credit = sp_get_varint(r);
		f->flags = sp_get_u8(r);
		sp_target_get(r, &f->target);
		break;
	case SP_FRAME_OPENED:
		f->credit = sp_get_varint(r);
		sp_target_get(r, &f->target);
		if (!r->err && f->target.kind == SP_TARGET_NAME)
			r->err = SP_E_MALFORMED;
		break;
	case SP_FRAME_DATA:
	case SP_FRAME_DATA_FIN:
		f->offset = sp_get_varint(r);
		get_data(r, f);
		break;
	case SP_FRAME_WINDOW:
		f->taken = sp_get_varint(r);
		f->credit = sp_get_varint(r);
		break;
	case SP_FRAME_FLOW:
		sp_target_get(r, &f->target);
		break;
	case SP_FRAME_DGRAM:
		get_data(r, f);
		break;
	default: // RESET, FLOW_CLOSE
		f->reason = sp_get_u16(r);
		break;
	}
}

int sp_frame_get(struct sp_reader *r, struct sp_frame *f)
{
	uint8_t type = sp_get_u8(r);
	f->type = (enum sp_frame_type)type;
	switch (type) {
	case SP_FRAME_PAD:
	case SP_FRAME_PING:
	case SP_FRAME_REKEY:
		break;
	case SP_FRAME_SEEN:
		f->records = sp_get_varint(r);
		f->delay_us = sp_get_varint(r);
		break;
	case SP_FRAME_ATTACH:
		f->data = sp_get_bytes(r, 16);
		f->epoch = sp_get_u32(r);
		f->slot = sp_get_u8(r);
		f->flags = sp_get_u8(r);
		if (!r->err && (f->slot > 7 || f->flags > 4 || f->flags == 2))
			r->err = SP_E_MALFORMED;
		break;
	case SP_FRAME_ATTACHED:
		f->result = sp_get_u8(r);
		f->epoch = sp_get_u32(r);
		f->incarnation = sp_get_u64(r);
		f->max_streams = sp_get_varint(r);
		f->max_flows = sp_get_varint(r);
		if (!r->err && (f->result > 2 || f->incarnation == 0))
			r->err = SP_E_MALFORMED;
		break;
	case SP_FRAME_RESUME:
		get_resume(r, f);
		break;
	case SP_FRAME_OPEN:
	case SP_FRAME_OPENED:
	case SP_FRAME_DATA:
	case SP_FRAME_DATA_FIN:
	case SP_FRAME_WINDOW:
	case SP_FRAME_RESET:
	case SP_FRAME_FLOW:
	case SP_FRAME_DGRAM:
	case SP_FRAME_FLOW_CLOSE:
		get_stream(r, f);
		break;
	case SP_FRAME_TICKET:
		f->lifetime_s = sp_get_u32(r);
		get_data(r, f);
		break;
	case SP_FRAME_PASS:
		get_data(r, f);
		break;
	case SP_FRAME_GOAWAY:
		f->reason = sp_get_u16(r);
		f->deadline_ms = sp_get_varint(r);
		break;
	case SP_FRAME_CLOSE:
	case SP_FRAME_END:
		f->reason = sp_get_u16(r);
		break;
	default:
		if (!r->err)
			r->err = SP_E_MALFORMED;
	}
	return r->err;
}

void sp_frame_get_resume(struct sp_reader *r, struct sp_frame_resume *e)
{
	e->id = sp_get_varint(r);
	e->next = sp_get_varint(r);
	e->taken = sp_get_varint(r);
	e->credit = sp_get_varint(r);
}

void sp_frame_put_simple(struct sp_writer *w, enum sp_frame_type type)
{
	sp_put_u8(w, (uint8_t)type);
}

void sp_frame_put_seen(struct sp_writer *w, uint64_t records, uint64_t delay_us)
{
	sp_put_u8(w, SP_FRAME_SEEN);
	sp_put_varint(w, records);
	sp_put_varint(w, delay_us);
}

void sp_frame_put_attach(struct sp_writer *w, const uint8_t *session, uint32_t epoch,
			 uint8_t slot, uint8_t flags)
{
	sp_put_u8(w, SP_FRAME_ATTACH);
	sp_put_bytes(w, session, 16);
	sp_put_u32(w, epoch);
	sp_put_u8(w, slot);
	sp_put_u8(w, flags);
}

void sp_frame_put_attached(struct sp_writer *w, uint8_t result, uint32_t epoch,
			   uint64_t incarnation, uint64_t max_streams, uint64_t max_flows)
{
	sp_put_u8(w, SP_FRAME_ATTACHED);
	sp_put_u8(w, result);
	sp_put_u32(w, epoch);
	sp_put_u64(w, incarnation);
	sp_put_varint(w, max_streams);
	sp_put_varint(w, max_flows);
}

void sp_frame_put_resume_entry(struct sp_writer *w, const struct sp_frame_resume *e)
{
	sp_put_varint(w, e->id);
	sp_put_varint(w, e->next);
	sp_put_varint(w, e->taken);
	sp_put_varint(w, e->credit);
}

void sp_frame_put_open(struct sp_writer *w, uint64_t id, uint64_t credit, uint8_t flags,
		       const struct sp_target *target)
{
	sp_put_u8(w, SP_FRAME_OPEN);
	sp_put_varint(w, id);
	sp_put_varint(w, credit);
	sp_put_u8(w, flags);
	sp_target_put(w, target);
}

void sp_frame_put_opened(struct sp_writer *w, uint64_t id, uint64_t credit,
			 const struct sp_target *bound)
{
	sp_put_u8(w, SP_FRAME_OPENED);
	sp_put_varint(w, id);
	sp_put_varint(w, credit);
	sp_target_put(w, bound);
}

void sp_frame_put_data(struct sp_writer *w, bool fin, uint64_t id, uint64_t offset,
		       size_t len)
{
	sp_put_u8(w, fin ? SP_FRAME_DATA_FIN : SP_FRAME_DATA);
	sp_put_varint(w, id);
	sp_put_varint(w, offset);
	sp_put_varint(w, len);
}

void sp_frame_put_window(struct sp_writer *w, uint64_t id, uint64_t taken,
			 uint64_t credit)
{
	sp_put_u8(w, SP_FRAME_WINDOW);
	sp_put_varint(w, id);
	sp_put_varint(w, taken);
	sp_put_varint(w, credit);
}

static void put_id_reason(struct sp_writer *w, uint8_t type, uint64_t id, uint16_t reason)
{
	sp_put_u8(w, type);
	sp_put_varint(w, id);
	sp_put_u16(w, reason);
}

void sp_frame_put_reset(struct sp_writer *w, uint64_t id, uint16_t reason)
{
	put_id_reason(w, SP_FRAME_RESET, id, reason);
}

void sp_frame_put_flow(struct sp_writer *w, uint64_t id, const struct sp_target *target)
{
	sp_put_u8(w, SP_FRAME_FLOW);
	sp_put_varint(w, id);
	sp_target_put(w, target);
}

void sp_frame_put_dgram(struct sp_writer *w, uint64_t id, size_t len)
{
	sp_put_u8(w, SP_FRAME_DGRAM);
	sp_put_varint(w, id);
	sp_put_varint(w, len);
}

void sp_frame_put_flow_close(struct sp_writer *w, uint64_t id, uint16_t reason)
{
	put_id_reason(w, SP_FRAME_FLOW_CLOSE, id, reason);
}

void sp_frame_put_ticket(struct sp_writer *w, uint32_t lifetime_s, const uint8_t *t,
			 size_t len)
{
	sp_put_u8(w, SP_FRAME_TICKET);
	sp_put_u32(w, lifetime_s);
	sp_put_varint(w, len);
	sp_put_bytes(w, t, len);
}

void sp_frame_put_pass(struct sp_writer *w, const uint8_t *blob, size_t len)
{
	sp_put_u8(w, SP_FRAME_PASS);
	sp_put_varint(w, len);
	sp_put_bytes(w, blob, len);
}

void sp_frame_put_goaway(struct sp_writer *w, uint16_t reason, uint64_t deadline_ms)
{
	sp_put_u8(w, SP_FRAME_GOAWAY);
	sp_put_u16(w, reason);
	sp_put_varint(w, deadline_ms);
}

void sp_frame_put_reason(struct sp_writer *w, enum sp_frame_type type, uint16_t reason)
{
	sp_put_u8(w, (uint8_t)type);
	sp_put_u16(w, reason);
}
