// A segment of counters as another process may have left it: any bytes.
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "worker/counters_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wrk_counters_reader r;
	struct wrk_counters_head h;
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	// As long as its head says, or else nothing behind it would be read.
	if (pread(fd, &h, sizeof(h), 0) == (ssize_t)sizeof(h) && h.users_max < 1024 &&
	    ftruncate(fd, (off_t)wrk_counters_bytes(h.users_max)))
		abort();
	if (wrk_counters_reader_init(&r, fd) == 0 && wrk_counters_read(&r) == 0)
		for (int i = 0; i < WRK_TEXTS; i++)
			(void)!wrk_counters_read_text(&r, (enum wrk_text)i);
	wrk_counters_reader_done(&r);
	return 0;
}
