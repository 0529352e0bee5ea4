// A folder for targets that read files: made at the first use, removed at the end.
#ifndef FUZZ_FOLDER_H
#define FUZZ_FOLDER_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/log.h"

static char fuzz_folder[64];

static inline void fuzz_folder_remove(void)
{
	static const char *const names[] = {"file",       "snapshot", "revisions",
					    "fleet.json", "file.new", "file.tmp"};
	char path[128];
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", fuzz_folder, names[i]);
		(void)!unlink(path);
	}
	(void)!rmdir(fuzz_folder);
}

// Writes a file in the folder; its path is valid until the next call.
static inline const char *fuzz_file(const char *name, const void *data, size_t size)
{
	static char path[128];
	if (!fuzz_folder[0]) {
		snprintf(fuzz_folder, sizeof(fuzz_folder), "/tmp/sallyport-fuzz-XXXXXX");
		if (!mkdtemp(fuzz_folder) || atexit(fuzz_folder_remove))
			abort();
	}
	snprintf(path, sizeof(path), "%s/%s", fuzz_folder, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size || close(fd))
		abort();
	return path;
}

// What is read aloud of a bad file would be most of the work.
static inline void fuzz_quiet(void)
{
	static int null = -1;
	if (null < 0)
		null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	sp_log_setup(SP_LOG_ERROR, SP_LOG_LOGFMT, null);
}

#endif
