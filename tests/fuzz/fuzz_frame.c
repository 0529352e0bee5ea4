// The frame codec: any bytes; what it reads it must be able to read again.
#include "lib/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sp_reader r;
	struct sp_frame f;
	sp_reader_init(&r, data, size);
	while (sp_reader_left(&r) && sp_frame_get(&r, &f) == 0) {
		struct sp_reader e;
		struct sp_frame_resume entry;
		if (f.type != SP_FRAME_RESUME)
			continue;
		sp_reader_init(&e, f.data, f.len);
		for (uint64_t i = 0; i < f.count; i++)
			sp_frame_get_resume(&e, &entry);
		if (sp_reader_finish(&e))
			__builtin_trap();
	}
	return 0;
}
