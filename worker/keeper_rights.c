// What a keeper needs of its surroundings, looked at before anything depends on it, so
// that what is missing is said with its remedy and not met at a crash.
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/keeper_internal.h"

static int fail(char *why, size_t cap, int err, const char *what, const char *remedy)
{
	snprintf(why, cap, "%s: %s; %s", what, strerror(err), remedy);
	return -err;
}

// The arena is a file as large as all limits together, and grows by half at an upgrade.
static int look_at_limits(char *why, size_t cap)
{
	struct rlimit rl;
	if (getrlimit(RLIMIT_FSIZE, &rl) || rl.rlim_cur == RLIM_INFINITY)
		return 0;
	snprintf(why, cap,
		 "files may be %llu bytes long (RLIMIT_FSIZE) and the arena is one; "
		 "LimitFSIZE=infinity, or ulimit -f unlimited",
		 (unsigned long long)rl.rlim_cur);
	return -EFBIG;
}

// The descriptor of such memory; -errno.
static int look_at_memory(char *why, size_t cap)
{
	int fd = memfd_create("sallyport-look", MFD_CLOEXEC);
	if (fd < 0)
		return fail(why, cap, errno, "memfd_create for the arena",
			    errno == EMFILE ? "LimitNOFILE= must be higher"
					    : "the system-call filter must allow it");
	void *p = MAP_FAILED;
	if (ftruncate(fd, WRK_LIFE_BYTES) == 0)
		p = mmap(NULL, WRK_LIFE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int err = p == MAP_FAILED ? errno : 0;
	if (!err)
		munmap(p, WRK_LIFE_BYTES);
	if (!err)
		return fd;
	close(fd);
	return fail(why, cap, err, "shared memory for the arena",
		    "it needs memory, and LimitAS=infinity");
}

static int look_at_proc(char *why, size_t cap)
{
	FILE *f = fopen("/proc/self/status", "re");
	if (!f)
		return fail(why, cap, errno, "/proc/self/status cannot be read",
			    errno == EMFILE ? "LimitNOFILE= must be higher"
					    : "/proc must be mounted");
	fclose(f);
	if (access("/proc/self/exe", X_OK))
		return fail(why, cap, errno, "/proc/self/exe cannot be executed again",
			    "the program's file must be executable by this user");
	return 0;
}

static int look_at_clone(char *why, size_t cap)
{
	long pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0)
		_exit(0);
	if (pid < 0)
		return fail(why, cap, errno, "clone of a process that shares descriptors",
			    errno == EAGAIN ? "LimitNPROC= and TasksMax= must be higher"
					    : "the system-call filter must allow it");
	while (waitpid((pid_t)pid, NULL, 0) < 0 && errno == EINTR)
		;
	return 0;
}

int keeper_rights(char *why, size_t cap)
{
	int err = look_at_limits(why, cap);
	int fd = err ? -1 : look_at_memory(why, cap);
	if (!err)
		err = fd < 0 ? fd : look_at_proc(why, cap);
	if (fd >= 0)
		close(fd);
	return err ? err : look_at_clone(why, cap);
}
