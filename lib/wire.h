// Bounds-checked reader and writer over a caller's buffer, with a sticky error: read or
// write fields in a row, check once. Pure: no I/O, no clock, no malloc.
// Integers are big endian; varints are RFC 9000 section 16 (1, 2, 4 or 8 bytes).
#ifndef SP_WIRE_H
#define SP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define SP_VARINT_MAX ((UINT64_C(1) << 62) - 1)

struct sp_reader {
	const uint8_t *p;   // next byte
	const uint8_t *end; // one past the last
	int err;            // 0, or the first error; once set every read gives zeros
};

void sp_reader_init(struct sp_reader *r, const void *buf, size_t len);
size_t sp_reader_left(const struct sp_reader *r); // bytes not read yet; 0 after an error
uint8_t sp_get_u8(struct sp_reader *r);
uint16_t sp_get_u16(struct sp_reader *r);
uint32_t sp_get_u32(struct sp_reader *r);
uint64_t sp_get_u64(struct sp_reader *r);
uint64_t sp_get_varint(struct sp_reader *r);
// Pointer to the next `len` bytes inside the input and steps over them; NULL on error.
const uint8_t *sp_get_bytes(struct sp_reader *r, size_t len);
// Copies `len` bytes to `ret`; zeros it on error.
void sp_get_copy(struct sp_reader *r, void *ret, size_t len);
// 0 if everything was read and nothing failed; SP_E_MALFORMED if bytes are left over.
int sp_reader_finish(const struct sp_reader *r) SP_MUST_CHECK;

struct sp_writer {
	uint8_t *start;
	uint8_t *p;   // next byte to write
	uint8_t *end; // one past the last writable
	int err; // 0 or SP_E_LIMIT once something did not fit; nothing is written then
};

void sp_writer_init(struct sp_writer *w, void *buf, size_t cap);
size_t sp_writer_len(const struct sp_writer *w); // bytes written so far
size_t
sp_writer_room(const struct sp_writer *w); // bytes that still fit; 0 after an error
void sp_put_u8(struct sp_writer *w, uint8_t v);
void sp_put_u16(struct sp_writer *w, uint16_t v);
void sp_put_u32(struct sp_writer *w, uint32_t v);
void sp_put_u64(struct sp_writer *w, uint64_t v);
void sp_put_varint(struct sp_writer *w,
		   uint64_t v); // v <= SP_VARINT_MAX, else SP_E_LIMIT
void sp_put_bytes(struct sp_writer *w, const void *buf, size_t len);

size_t sp_varint_len(uint64_t v); // 1, 2, 4 or 8

#endif
