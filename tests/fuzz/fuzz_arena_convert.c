// Converting an arena that another version left: the input is the file, with zeros behind
// it. What is converted can be adopted, or is refused whole; nothing is read beside it.
#include <sys/mman.h>
#include <unistd.h>

#include "lib/arena_internal.h"

#define FILE_BYTES 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct sp_arena_options want = {
		.max_sessions = 2, .max_streams = 2, .memory_bytes = 4 * SP_CHUNK_BYTES};
	struct sp_arena_found found;
	struct sp_arena *a;
	uint64_t at;
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (fd >= 0 && size <= FILE_BYTES && write(fd, data, size) == (ssize_t)size &&
	    ftruncate(fd, FILE_BYTES) == 0 && sp_arena_convert(fd, 0, &want, &at) == 0) {
		if (at < FILE_BYTES || sp_arena_adopt(fd, at, &a, &found))
			__builtin_trap();
		sp_arena_free(a);
	}
	if (fd >= 0)
		close(fd);
	return 0;
}
