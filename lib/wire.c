#include "lib/wire.h"

#include <string.h>

static const uint8_t nothing[1]; // stands for NULL, to which C may not even add 0

void sp_reader_init(struct sp_reader *r, const void *buf, size_t len)
{
	r->p = buf ? buf : nothing;
	r->end = r->p + len;
	r->err = 0;
}

size_t sp_reader_left(const struct sp_reader *r)
{
	return r->err ? 0 : (size_t)(r->end - r->p);
}

const uint8_t *sp_get_bytes(struct sp_reader *r, size_t len)
{
	if (r->err)
		return NULL;
	if ((size_t)(r->end - r->p) < len) {
		r->err = SP_E_TRUNCATED;
		return NULL;
	}
	const uint8_t *p = r->p;
	r->p += len;
	return p;
}

static uint64_t get_uint(struct sp_reader *r, size_t len)
{
	const uint8_t *p = sp_get_bytes(r, len);
	uint64_t v = 0;
	for (size_t i = 0; p && i < len; i++)
		v = v << 8 | p[i];
	return v;
}

uint8_t sp_get_u8(struct sp_reader *r)
{
	return (uint8_t)get_uint(r, 1);
}

uint16_t sp_get_u16(struct sp_reader *r)
{
	return (uint16_t)get_uint(r, 2);
}

uint32_t sp_get_u32(struct sp_reader *r)
{
	return (uint32_t)get_uint(r, 4);
}

uint64_t sp_get_u64(struct sp_reader *r)
{
	return get_uint(r, 8);
}

uint64_t sp_get_varint(struct sp_reader *r)
{
	if (sp_reader_left(r) == 0) {
		(void)sp_get_bytes(r, 1);
		return 0;
	}
	size_t len = (size_t)1 << (*r->p >> 6);
	uint64_t v = get_uint(r, len);
	return v & ((UINT64_C(1) << (8 * len - 2)) - 1);
}

void sp_get_copy(struct sp_reader *r, void *ret, size_t len)
{
	const uint8_t *p = sp_get_bytes(r, len);
	if (p)
		memcpy(ret, p, len);
	else
		memset(ret, 0, len);
}

int sp_reader_finish(const struct sp_reader *r)
{
	if (r->err)
		return r->err;
	return r->p == r->end ? 0 : SP_E_MALFORMED;
}

void sp_writer_init(struct sp_writer *w, void *buf, size_t cap)
{
	w->start = w->p = buf ? buf : (uint8_t *)(uintptr_t)nothing;
	w->end = w->p + cap;
	w->err = 0;
}

size_t sp_writer_len(const struct sp_writer *w)
{
	return (size_t)(w->p - w->start);
}

size_t sp_writer_room(const struct sp_writer *w)
{
	return w->err ? 0 : (size_t)(w->end - w->p);
}

static uint8_t *claim(struct sp_writer *w, size_t len)
{
	if (!w->err && sp_writer_room(w) < len)
		w->err = SP_E_LIMIT;
	if (w->err)
		return NULL;
	uint8_t *p = w->p;
	w->p += len;
	return p;
}

static void put_uint(struct sp_writer *w, uint64_t v, size_t len)
{
	uint8_t *p = claim(w, len);
	for (size_t i = len; p && i-- > 0; v >>= 8)
		p[i] = (uint8_t)v;
}

void sp_put_u8(struct sp_writer *w, uint8_t v)
{
	put_uint(w, v, 1);
}

void sp_put_u16(struct sp_writer *w, uint16_t v)
{
	put_uint(w, v, 2);
}

void sp_put_u32(struct sp_writer *w, uint32_t v)
{
	put_uint(w, v, 4);
}

void sp_put_u64(struct sp_writer *w, uint64_t v)
{
	put_uint(w, v, 8);
}

void sp_put_varint(struct sp_writer *w, uint64_t v)
{
	switch (sp_varint_len(v)) {
	case 1:
		put_uint(w, v, 1);
		return;
	case 2:
		put_uint(w, v | UINT64_C(1) << 14, 2);
		return;
	case 4:
		put_uint(w, v | UINT64_C(2) << 30, 4);
		return;
	default:
		if (v > SP_VARINT_MAX && !w->err)
			w->err = SP_E_LIMIT;
		put_uint(w, v | UINT64_C(3) << 62, 8);
	}
}

void sp_put_bytes(struct sp_writer *w, const void *buf, size_t len)
{
	uint8_t *p = claim(w, len);
	if (p && len)
		memcpy(p, buf, len);
}

size_t sp_varint_len(uint64_t v)
{
	if (v < UINT64_C(1) << 6)
		return 1;
	if (v < UINT64_C(1) << 14)
		return 2;
	return v < UINT64_C(1) << 30 ? 4 : 8;
}
