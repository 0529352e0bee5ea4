#include "lib/replica_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/file.h"
#include "lib/log.h"

// A record: length and the first bytes of BLAKE2b of the text, little endian, then it.
#define SUM_BYTES    16
#define HEAD_BYTES   (4 + SUM_BYTES)
#define TEXT_MAX     (SP_SIGNED_BODY_MAX + SP_SIGNED_LINE_MAX)
#define SNAPSHOT_MAX (SP_SIGNED_SNAPSHOT_MAX + SP_SIGNED_LINE_MAX)
#define LOG_MAX      (SP_REPLICA_STORE_LOG_BYTES + TEXT_MAX + HEAD_BYTES)

struct sp_replica_store {
	char *snapshot, *log;
	size_t snapshot_bytes, log_bytes;
	unsigned revisions;
	bool behind; // the disk does not have all
	uint64_t errors;
};

int sp_replica_store_new(const char *folder, struct sp_replica_store **ret)
{
	struct sp_replica_store *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	if (asprintf(&s->snapshot, "%s/snapshot", folder) < 0)
		s->snapshot = NULL;
	if (asprintf(&s->log, "%s/revisions", folder) < 0)
		s->log = NULL;
	if (!s->snapshot || !s->log) {
		sp_replica_store_free(s);
		return -ENOMEM;
	}
	*ret = s;
	return 0;
}

void sp_replica_store_free(struct sp_replica_store *s)
{
	if (!s)
		return;
	free(s->snapshot);
	free(s->log);
	free(s);
}

static int fail(struct sp_replica_store *s, const char *what, int err)
{
	s->errors++;
	sp_warn("store", "the disk did not take it; traffic goes on", "file=%s error=%s",
		what, sp_strerror(err));
	return err;
}

// ---- reading ----

static int take_snapshot(struct sp_replica_store *s, struct sp_replica *r)
{
	struct sp_file_read opt = {.max = SNAPSHOT_MAX};
	struct sp_staged staged = {0};
	char why[SP_WHY_MAX];
	uint8_t *text;
	size_t len;
	int err = sp_file_read(s->snapshot, &opt, &text, &len, why, sizeof(why));
	if (err == -ENOENT)
		return 0;
	if (err) {
		sp_warn("store", "the last known good state cannot be read", "why=%s",
			why);
		return err == -ENOMEM ? err : 0;
	}
	err = sp_replica_stage_snapshot(r, text, len, &staged);
	if (!err)
		sp_replica_take(r, &staged);
	else
		sp_warn("store", "the last known good state is not used",
			"file=%s error=%s", s->snapshot, sp_strerror(err));
	s->snapshot_bytes = len;
	sp_file_free(text, len);
	return err == -ENOMEM ? err : 0;
}

static void sum_of(const void *text, size_t len, uint8_t *ret)
{
	crypto_generichash(ret, SUM_BYTES, text, len, NULL, 0);
}

// Length of the text in the record that begins here; 0: there is no whole one.
static size_t look_at(const uint8_t *p, size_t left)
{
	uint8_t sum[SUM_BYTES];
	if (left < HEAD_BYTES)
		return 0;
	size_t len = (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 |
		     (size_t)p[3] << 24;
	if (!len || len > TEXT_MAX || len > left - HEAD_BYTES)
		return 0;
	sum_of(p + HEAD_BYTES, len, sum);
	return memcmp(sum, p + 4, SUM_BYTES) ? 0 : len;
}

// 0: it is part of the state now, or was before; else what comes behind is of no use.
static int take_revision(struct sp_replica *r, const void *text, size_t len)
{
	struct sp_staged staged = {0};
	int err = sp_replica_stage_revision(r, text, len, &staged);
	if (!err)
		sp_replica_take(r, &staged);
	return err == SP_E_STALE ? 0 : err;
}

static int take_log(struct sp_replica_store *s, struct sp_replica *r)
{
	struct sp_file_read opt = {.max = LOG_MAX};
	char why[SP_WHY_MAX];
	uint8_t *buf;
	size_t size, at = 0, len;
	int err = sp_file_read(s->log, &opt, &buf, &size, why, sizeof(why));
	if (err == -ENOENT)
		return 0;
	if (err) {
		sp_warn("store", "the revisions cannot be read", "why=%s", why);
		s->behind = true;
		return err == -ENOMEM ? err : 0;
	}
	while (!err && (len = look_at(buf + at, size - at))) {
		err = take_revision(r, buf + at + HEAD_BYTES, len);
		if (err)
			break;
		at += HEAD_BYTES + len;
		s->revisions++;
	}
	sp_file_free(buf, size);
	s->log_bytes = at;
	if (at == size)
		return 0;
	sp_warn("store", "the end of the revisions is cut off",
		"file=%s at=%zu bytes=%zu error=%s", s->log, at, size - at,
		err ? sp_strerror(err) : "torn");
	if (truncate(s->log, (off_t)at))
		s->behind = true;
	return err == -ENOMEM ? err : 0;
}

int sp_replica_store_load(struct sp_replica_store *s, struct sp_replica *r)
{
	int err = take_snapshot(s, r);
	return err ? err : take_log(s, r);
}

// ---- writing ----

static int write_record(int fd, const void *text, size_t len)
{
	uint8_t head[HEAD_BYTES] = {(uint8_t)len, (uint8_t)(len >> 8),
				    (uint8_t)(len >> 16), (uint8_t)(len >> 24)};
	sum_of(text, len, head + 4);
	ssize_t n = write(fd, head, sizeof(head));
	if (n == (ssize_t)sizeof(head))
		n = write(fd, text, len);
	else if (n >= 0)
		return -ENOSPC;
	if (n != (ssize_t)len)
		return n < 0 ? -errno : -ENOSPC;
	return fdatasync(fd) ? -errno : 0;
}

int sp_replica_store_append(struct sp_replica_store *s, const void *text, size_t len)
{
	if (s->behind)
		return -ESTALE;
	if (!len || len > TEXT_MAX || s->log_bytes > SP_REPLICA_STORE_LOG_BYTES) {
		s->behind = true; // no snapshot came for long
		return fail(s, s->log, SP_E_LIMIT);
	}
	int fd = open(s->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	int err = fd < 0 ? -errno : write_record(fd, text, len);
	if (err && fd >= 0 && ftruncate(fd, (off_t)s->log_bytes))
		s->behind = true; // cut when it is read
	if (fd >= 0)
		close(fd);
	if (err) {
		s->behind = true;
		return fail(s, s->log, err);
	}
	s->log_bytes += HEAD_BYTES + len;
	s->revisions++;
	return 0;
}

// A crash between the two leaves revisions that the snapshot has already: they are stale
// when they are read.
int sp_replica_store_replace(struct sp_replica_store *s, const void *text, size_t len)
{
	char why[SP_WHY_MAX];
	int err = len > SNAPSHOT_MAX
			  ? SP_E_LIMIT
			  : sp_file_write(s->snapshot, text, len, 0600, why, sizeof(why));
	if (err)
		return fail(s, s->snapshot, err);
	s->snapshot_bytes = len;
	if (unlink(s->log) && errno != ENOENT)
		return fail(s, s->log, -errno);
	s->log_bytes = 0;
	s->revisions = 0;
	s->behind = false;
	return 0;
}

bool sp_replica_store_wants_snapshot(const struct sp_replica_store *s)
{
	return s->behind || s->log_bytes > SP_REPLICA_STORE_LOG_BYTES / 2 ||
	       s->revisions >= SP_REPLICA_STORE_REVISIONS;
}

uint64_t sp_replica_store_errors(const struct sp_replica_store *s)
{
	return s->errors;
}

uint64_t sp_replica_store_bytes(const struct sp_replica_store *s)
{
	return s->snapshot_bytes + s->log_bytes;
}
