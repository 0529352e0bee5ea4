#include "lib/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

// Writes the text and hands `err` through.
__attribute__((format(printf, 4, 5))) static int fail(int err, char *why, size_t cap,
						      const char *fmt, ...)
{
	va_list ap;
	if (cap == 0)
		return err;
	va_start(ap, fmt);
	vsnprintf(why, cap, fmt, ap);
	va_end(ap);
	return err;
}

static int check_secret(int fd, const char *path, char *why, size_t cap)
{
	struct stat st;

	if (fstat(fd, &st))
		return fail(-errno, why, cap, "%s: %s", path, strerror(errno));
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return fail(-EPERM, why, cap,
			    "%s holds a secret but belongs to user %u; give it to user "
			    "%u or to root",
			    path, (unsigned)st.st_uid, (unsigned)geteuid());
	if (st.st_mode & 077)
		return fail(-EPERM, why, cap,
			    "%s holds a secret but its mode is %04o, so others may use "
			    "it; run: chmod 600 %s",
			    path, (unsigned)st.st_mode & 07777, path);
	return 0;
}

// Reads to the end. The buffer grows by wiping copies, for it may hold a secret.
static int read_all(int fd, size_t max, uint8_t **ret, size_t *ret_len)
{
	size_t len = 0, cap = 4096;
	uint8_t *buf = malloc(cap + 1);
	int err = -ENOMEM;

	while (buf) {
		ssize_t n = read(fd, buf + len, cap - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			err = -errno;
			break;
		}
		if (n == 0) {
			buf[len] = '\0';
			*ret = buf;
			*ret_len = len;
			return 0;
		}
		len += (size_t)n;
		if (len > max) {
			err = SP_E_LIMIT;
			break;
		}
		if (len < cap)
			continue;
		uint8_t *bigger = malloc(2 * cap + 1);
		if (!bigger)
			break;
		memcpy(bigger, buf, len);
		sp_file_free(buf, len);
		buf = bigger;
		cap *= 2;
	}
	sp_file_free(buf, len);
	return err;
}

int sp_file_read(const char *path, const struct sp_file_read *opt, uint8_t **ret,
		 size_t *ret_len, char *why, size_t cap)
{
	// Non-blocking so that opening a pipe nobody writes to does not hang; reads of it
	// block again below.
	int err, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return fail(-errno, why, cap, "%s: %s", path, strerror(errno));
	fcntl(fd, F_SETFL, 0);
	err = opt->secret ? check_secret(fd, path, why, cap) : 0;
	if (!err) {
		err = read_all(fd, opt->max, ret, ret_len);
		if (err == SP_E_LIMIT)
			fail(err, why, cap, "%s is longer than the limit of %zu bytes",
			     path, opt->max);
		else if (err)
			fail(err, why, cap, "%s: %s", path, sp_strerror(err));
	}
	close(fd);
	return err;
}

void sp_file_free(uint8_t *buf, size_t len)
{
	if (!buf)
		return;
	sodium_memzero(buf, len);
	free(buf);
}

static int write_all(int fd, const uint8_t *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		buf += n;
		len -= (size_t)n;
	}
	return fsync(fd) ? -errno : 0;
}

// The folder of `path`, malloc'd; NULL: no memory.
static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	if (!slash)
		return strdup(".");
	return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static int sync_folder(const char *folder)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int err = fsync(fd) ? -errno : 0;
	close(fd);
	// Some file systems have no fsync of a folder; the rename itself is done.
	return err == -EINVAL ? 0 : err;
}

// `fresh`: fails if there is a file: link() does, where rename() replaces.
static int replace(const char *path, const void *buf, size_t len, mode_t mode, bool fresh)
{
	char *folder = folder_of(path), *tmp = NULL;
	int fd = -1, err = -ENOMEM;

	if (!folder || asprintf(&tmp, "%s.XXXXXX", path) < 0) {
		tmp = NULL;
		goto out;
	}
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0) {
		err = -errno;
		goto out;
	}
	err = fchmod(fd, mode) ? -errno : write_all(fd, buf, len);
	if (!err && fresh)
		err = link(tmp, path) ? -errno : 0;
	else if (!err)
		err = rename(tmp, path) ? -errno : 0;
	if (err || fresh)
		unlink(tmp);
	if (!err)
		err = sync_folder(folder);
out:
	if (fd >= 0)
		close(fd);
	free(tmp);
	free(folder);
	return err;
}

static void cannot_write(int err, const char *path, char *why, size_t cap)
{
	fail(err, why, cap, "%s: cannot write: %s%s", path, sp_strerror(err),
	     err == -ENOENT ? "; make its folder first" : "");
}

int sp_file_write(const char *path, const void *buf, size_t len, mode_t mode, char *why,
		  size_t cap)
{
	int err = replace(path, buf, len, mode, false);
	if (err)
		cannot_write(err, path, why, cap);
	return err;
}

int sp_file_create(const char *path, const void *buf, size_t len, mode_t mode, char *why,
		   size_t cap)
{
	int err = replace(path, buf, len, mode, true);
	if (err == -EEXIST)
		fail(err, why, cap, "%s exists already; remove it or choose another name",
		     path);
	else if (err)
		cannot_write(err, path, why, cap);
	return err;
}
