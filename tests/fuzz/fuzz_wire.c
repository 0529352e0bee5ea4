// Reader and writer: a script of reads, and every value read is written back alike.
#include <stdlib.h>
#include <string.h>

#include "lib/addr.h"
#include "lib/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t again[16], copy[8];
	struct sp_reader r;
	struct sp_writer w;

	sp_reader_init(&r, data, size);
	while (!r.err && sp_reader_left(&r)) {
		sp_writer_init(&w, again, sizeof(again));
		const uint8_t *start = r.p;
		switch (*data % 5) {
		case 0:
			sp_put_varint(&w, sp_get_varint(&r));
			// A longer form than needed is legal to read, never written.
			if (!r.err && sp_writer_len(&w) > (size_t)(r.p - start))
				abort();
			continue;
		case 1:
			sp_put_u8(&w, sp_get_u8(&r));
			break;
		case 2:
			sp_put_u32(&w, sp_get_u32(&r));
			break;
		case 3:
			sp_put_u64(&w, sp_get_u64(&r));
			break;
		default:
			sp_get_copy(&r, copy, sizeof(copy));
			sp_put_bytes(&w, copy, sizeof(copy));
		}
		if (!r.err && memcmp(start, again, sp_writer_len(&w)))
			abort();
	}
	if (!r.err && sp_reader_finish(&r)) // all was read and nothing failed
		abort();
	return 0;
}
