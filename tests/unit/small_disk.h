// A small file system of its own for a child process, to be filled up. Linux namespaces;
// where they are not allowed the test is skipped.
#ifndef SMALL_DISK_H
#define SMALL_DISK_H

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static inline bool small_disk_put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (fd >= 0)
		close(fd);
	return ok;
}

// Root of the new namespace is who we are.
static inline bool small_disk_become_root(void)
{
	char uid[64], gid[64];
	snprintf(uid, sizeof(uid), "0 %u 1", (unsigned)geteuid());
	snprintf(gid, sizeof(gid), "0 %u 1", (unsigned)getegid());
	return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 &&
	       small_disk_put("/proc/self/setgroups", "deny") &&
	       small_disk_put("/proc/self/uid_map", uid) &&
	       small_disk_put("/proc/self/gid_map", gid);
}

// Mounts 1 MB on `folder`. False: not allowed here.
static inline bool small_disk_mount(const char *folder)
{
	if (unshare(CLONE_NEWNS) && !small_disk_become_root())
		return false;
	// Not to be seen outside.
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("small", folder, "tmpfs", 0, "size=1m") == 0;
}

// Takes all the room there is. A descriptor of the file that has it; -1.
static inline int small_disk_fill(const char *folder)
{
	static const char zeros[4096];
	char path[256];
	snprintf(path, sizeof(path), "%s/ballast", folder);
	int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	while (fd >= 0 && write(fd, zeros, sizeof(zeros)) > 0)
		;
	return fd;
}

#endif
