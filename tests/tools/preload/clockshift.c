// A library to preload: all clocks of a program stand ahead by what a file says. The file
// is CLOCK beside the library (so that nothing but LD_PRELOAD has to be passed on, which
// this library does for children that get an environment of their own): eight bytes,
// seconds. Whoever writes it moves the time of all programs that map it, at once.
// Timers that a program has given to the kernel already are not moved: they end as they
// would have, and then the program sees that it is later. For tests alone.
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const _Atomic int64_t *ahead; // NULL: by nothing
static int (*real_gettime)(clockid_t, struct timespec *);

static void find_real(void)
{
	void *sym = dlsym(RTLD_NEXT, "clock_gettime");
	memcpy(&real_gettime, &sym, sizeof(sym));
}

__attribute__((constructor)) static void begin(void)
{
	char path[PATH_MAX];
	Dl_info self;
	find_real();
	if (!dladdr(&ahead, &self))
		return;
	const char *slash = strrchr(self.dli_fname, '/');
	snprintf(path, sizeof(path), "%.*sCLOCK",
		 slash ? (int)(slash - self.dli_fname + 1) : 0, self.dli_fname);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	void *map = mmap(NULL, sizeof(*ahead), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (map != MAP_FAILED)
		ahead = map;
}

static int64_t shift(void)
{
	return ahead ? atomic_load_explicit(ahead, memory_order_relaxed) : 0;
}

int clock_gettime(clockid_t id, struct timespec *ret)
{
	if (!real_gettime)
		find_real();
	int rc = real_gettime(id, ret);
	if (!rc && id != CLOCK_PROCESS_CPUTIME_ID && id != CLOCK_THREAD_CPUTIME_ID)
		ret->tv_sec += shift();
	return rc;
}

time_t time(time_t *ret)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	if (ret)
		*ret = ts.tv_sec;
	return ts.tv_sec;
}

int gettimeofday(struct timeval *restrict ret, void *restrict zone)
{
	struct timespec ts;
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &ts);
	ret->tv_sec = ts.tv_sec;
	ret->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

// Of the process that is made, whose environment need not name this library.
int posix_spawn(pid_t *restrict ret, const char *restrict path,
		const posix_spawn_file_actions_t *fa,
		const posix_spawnattr_t *restrict attr, char *const argv[restrict],
		char *const env[restrict])
{
	int (*real)(pid_t *, const char *, const posix_spawn_file_actions_t *,
		    const posix_spawnattr_t *, char *const *, char *const *);
	void *sym = dlsym(RTLD_NEXT, "posix_spawn");
	char preload[PATH_MAX + 16], **more;
	size_t n = 0, kept = 0;
	Dl_info self;
	memcpy(&real, &sym, sizeof(sym));
	while (env && env[n])
		n++;
	more = calloc(n + 2, sizeof(*more));
	if (!more || !dladdr(&ahead, &self)) {
		free(more);
		return real(ret, path, fa, attr, argv, env);
	}
	for (size_t i = 0; i < n; i++)
		if (strncmp(env[i], "LD_PRELOAD=", 11) != 0)
			more[kept++] = env[i];
	snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", self.dli_fname);
	more[kept] = preload;
	int err = real(ret, path, fa, attr, argv, more);
	free(more);
	return err;
}
