#include "controller/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/wire.h"

#define MAGIC     "sallyport-journal 1\n"
#define MAGIC_LEN (sizeof(MAGIC) - 1)
#define SUM_BYTES 16
#define LENGTHS   (4 + 4 + 1)
#define HEAD_SUM  4
#define HEAD      (LENGTHS + HEAD_SUM + SUM_BYTES)

struct con_journal {
	int fd;
	char *path;
	uint64_t end;  // bytes that count
	uint64_t last; // where the last record begins, 0: unknown
	uint64_t grown;
};

static void make_head(const struct con_journal_record *r, uint8_t *ret)
{
	crypto_generichash_state st;
	struct sp_writer w;
	uint8_t sum[SUM_BYTES];
	sp_writer_init(&w, ret, HEAD);
	sp_put_u32(&w, (uint32_t)r->text_len);
	sp_put_u32(&w, (uint32_t)r->private_len);
	sp_put_u8(&w, (uint8_t)r->kind);
	crypto_generichash(sum, sizeof(sum), ret, LENGTHS, NULL, 0);
	sp_put_bytes(&w, sum, HEAD_SUM);
	crypto_generichash_init(&st, NULL, 0, SUM_BYTES);
	crypto_generichash_update(&st, ret, LENGTHS);
	crypto_generichash_update(&st, (const uint8_t *)r->text, r->text_len);
	if (r->private_len)
		crypto_generichash_update(&st, (const uint8_t *)r->private,
					  r->private_len);
	crypto_generichash_final(&st, sum, SUM_BYTES);
	sp_put_bytes(&w, sum, SUM_BYTES);
}

// ---- reading ----

static int read_all(int fd, void *buf, size_t len, uint64_t at)
{
	for (size_t got = 0; got < len;) {
		ssize_t n = pread(fd, (char *)buf + got, len - got, (off_t)(at + got));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		got += (size_t)n;
	}
	return 0;
}

// A record begun but not written: nothing but zeros behind its head, up to the end.
static int is_blank(struct con_journal *j, uint64_t at, uint64_t size)
{
	uint8_t buf[4096];
	while (at < size) {
		size_t n = size - at < sizeof(buf) ? (size_t)(size - at) : sizeof(buf);
		int err = read_all(j->fd, buf, n, at);
		if (err)
			return err;
		if (!sodium_is_zero(buf, n))
			return SP_E_MALFORMED;
		at += n;
	}
	return 0;
}

// One record at `at`. 1: good, *ret_len its length; 0: torn, cut it; SP_E_MALFORMED:
// damaged; else the error of `each`.
static int read_record(struct con_journal *j, uint64_t at, uint64_t size,
		       int (*each)(void *ctx, const struct con_journal_record *r,
				   char *why, size_t cap),
		       void *ctx, uint64_t *ret_len, char *why, size_t cap)
{
	uint8_t head[HEAD], want[HEAD];
	struct con_journal_record r = {0};
	struct sp_reader rd;
	if (size - at < HEAD)
		return 0;
	int err = read_all(j->fd, head, sizeof(head), at);
	if (err)
		return err;
	crypto_generichash(want, SUM_BYTES, head, LENGTHS, NULL, 0);
	if (memcmp(want, head + LENGTHS, HEAD_SUM) != 0)
		return is_blank(j, at + HEAD, size);
	sp_reader_init(&rd, head, sizeof(head));
	r.text_len = sp_get_u32(&rd);
	r.private_len = sp_get_u32(&rd);
	r.kind = (enum con_journal_kind)sp_get_u8(&rd);
	uint64_t body = (uint64_t)r.text_len + r.private_len;
	*ret_len = HEAD + body;
	if (body > CON_JOURNAL_RECORD_MAX)
		return SP_E_MALFORMED;
	if (body > size - at - HEAD)
		return 0; // its end never came to the disk
	char *buf = malloc(body + 1);
	if (!buf)
		return -ENOMEM;
	err = read_all(j->fd, buf, body, at + HEAD);
	r.text = buf;
	r.private = r.private_len ? buf + r.text_len : NULL;
	make_head(&r, want);
	bool good = !err && memcmp(want, head, HEAD) == 0;
	if (good)
		err = each(ctx, &r, why, cap);
	free(buf);
	if (err)
		return err;
	return good ? 1 : at + *ret_len == size ? 0 : SP_E_MALFORMED;
}

static int damaged(const struct con_journal *j, uint64_t at, char *why, size_t cap)
{
	snprintf(why, cap,
		 "%s: damaged at byte %llu, and more follows; restore the file from a "
		 "backup, or move it away to start from what Redis holds",
		 j->path, (unsigned long long)at);
	return SP_E_MALFORMED;
}

static int read_records(struct con_journal *j, uint64_t size,
			int (*each)(void *ctx, const struct con_journal_record *r,
				    char *why, size_t cap),
			void *ctx, char *why, size_t cap)
{
	uint64_t at = MAGIC_LEN, len = 0;
	while (at < size) {
		int n = read_record(j, at, size, each, ctx, &len, why, cap);
		if (n == SP_E_MALFORMED && !*why)
			return damaged(j, at, why, cap);
		if (n < 0) {
			if (!*why)
				snprintf(why, cap, "%s: %s", j->path, sp_strerror(n));
			return n;
		}
		if (n == 0)
			break;
		j->last = at;
		at += len;
	}
	j->end = at;
	return 0;
}

// The file begins as it must, or is new.
static int check_magic(struct con_journal *j, uint64_t size, char *why, size_t cap)
{
	char magic[MAGIC_LEN];
	size_t have = size < MAGIC_LEN ? size : MAGIC_LEN;
	int err = read_all(j->fd, magic, have, 0);
	if (!err && memcmp(magic, MAGIC, have) != 0) {
		snprintf(why, cap, "%s: not a journal of this version", j->path);
		return SP_E_MALFORMED;
	}
	if (!err && have < MAGIC_LEN &&
	    (pwrite(j->fd, MAGIC, MAGIC_LEN, 0) != (ssize_t)MAGIC_LEN ||
	     fdatasync(j->fd)))
		err = errno ? -errno : -ENOSPC;
	if (err)
		snprintf(why, cap, "%s: %s", j->path, sp_strerror(err));
	return err;
}

static int sync_folder(const char *path)
{
	char folder[PATH_MAX];
	const char *slash = strrchr(path, '/');
	snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash - path + 1) : 1,
		 slash ? path : ".");
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = fd < 0 || fsync(fd) ? -errno : 0;
	if (fd >= 0)
		close(fd);
	return err;
}

int con_journal_open(const char *path,
		     int (*each)(void *ctx, const struct con_journal_record *r, char *why,
				 size_t cap),
		     void *ctx, struct con_journal **ret, uint64_t *ret_cut, char *why,
		     size_t cap)
{
	struct stat st;
	struct con_journal *j = calloc(1, sizeof(*j));
	int err = j && (j->path = strdup(path)) ? 0 : -ENOMEM;
	if (cap)
		*why = '\0';
	if (!err) {
		j->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (j->fd < 0 || fstat(j->fd, &st) || sync_folder(path))
			err = -errno;
	}
	if (err) {
		snprintf(why, cap, "%s: %s", path, sp_strerror(err));
		con_journal_close(j);
		return err;
	}
	uint64_t size = (uint64_t)st.st_size;
	err = check_magic(j, size, why, cap);
	j->end = MAGIC_LEN;
	if (!err && size > MAGIC_LEN)
		err = read_records(j, size, each, ctx, why, cap);
	*ret_cut = !err && size > j->end ? size - j->end : 0;
	if (!err && *ret_cut && (ftruncate(j->fd, (off_t)j->end) || fdatasync(j->fd))) {
		err = -errno;
		snprintf(why, cap, "%s: %s", path, sp_strerror(err));
	}
	if (err)
		con_journal_close(j);
	else
		*ret = j;
	return err;
}

void con_journal_close(struct con_journal *j)
{
	if (!j)
		return;
	if (j->fd > 0)
		close(j->fd);
	free(j->path);
	free(j);
}

// ---- writing ----

static int write_record(int fd, uint64_t at, const struct con_journal_record *r)
{
	uint8_t head[HEAD];
	make_head(r, head);
	struct iovec v[3] = {{head, sizeof(head)},
			     {(void *)(uintptr_t)r->text, r->text_len},
			     {(void *)(uintptr_t)r->private, r->private_len}};
	int i = 0;
	while (i < 3) {
		ssize_t n = pwritev(fd, v + i, 3 - i, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += (uint64_t)n;
		for (; i < 3 && (size_t)n >= v[i].iov_len; i++)
			n -= (ssize_t)v[i].iov_len;
		if (i < 3 && n) {
			v[i].iov_base = (char *)v[i].iov_base + n;
			v[i].iov_len -= (size_t)n;
		}
	}
	return fdatasync(fd) ? -errno : 0;
}

int con_journal_append(struct con_journal *j, const struct con_journal_record *r)
{
	uint64_t len = HEAD + (uint64_t)r->text_len + r->private_len;
	if (len - HEAD > CON_JOURNAL_RECORD_MAX)
		return SP_E_LIMIT;
	int err = write_record(j->fd, j->end, r);
	if (err) { // a part of it may be there
		if (ftruncate(j->fd, (off_t)j->end) == 0)
			(void)fdatasync(j->fd);
		return err;
	}
	j->last = j->end;
	j->end += len;
	j->grown += len;
	return 0;
}

int con_journal_undo(struct con_journal *j)
{
	if (!j->last)
		return -EINVAL;
	if (ftruncate(j->fd, (off_t)j->last) || fdatasync(j->fd))
		return -errno;
	j->grown -= j->grown < j->end - j->last ? j->grown : j->end - j->last;
	j->end = j->last;
	j->last = 0;
	return 0;
}

int con_journal_rewrite(struct con_journal *j, const struct con_journal_record *base)
{
	char path[PATH_MAX];
	if ((size_t)snprintf(path, sizeof(path), "%s.new", j->path) >= sizeof(path))
		return -ENAMETOOLONG;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int err = pwrite(fd, MAGIC, MAGIC_LEN, 0) == (ssize_t)MAGIC_LEN ? 0 : -ENOSPC;
	if (!err)
		err = write_record(fd, MAGIC_LEN, base);
	if (!err && rename(path, j->path))
		err = -errno;
	if (err) {
		close(fd);
		unlink(path);
		return err;
	}
	(void)sync_folder(path); // at worst the old file is there after a power cut
	close(j->fd);
	j->fd = fd;
	j->last = 0;
	j->end = MAGIC_LEN + HEAD + (uint64_t)base->text_len + base->private_len;
	j->grown = 0;
	return 0;
}

uint64_t con_journal_bytes(const struct con_journal *j)
{
	return j->end;
}

uint64_t con_journal_grown(const struct con_journal *j)
{
	return j->grown;
}
