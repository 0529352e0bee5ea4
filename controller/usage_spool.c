#include "controller/usage_spool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/file.h"
#include "lib/text.h"

#define HEADER    "sallyport-usage 1\n"
#define FILE_MAX  (UINT64_C(4) << 30)
#define NAME_CAP  (3 * CON_USAGE_WORKER_MAX + 1) // every byte escaped
#define LINE_MAX_ 1024
#define SUM_BYTES 8 // checksum of a line
#define BUF_MAX   (64 << 20)

struct con_usage_spool {
	struct con_usage *u;
	char *path;
	int fd;
	uint64_t rewrite_bytes, base_bytes;
	char *buf; // lines to be written
	size_t len, cap;
	bool anew; // what was noted is lost or too much: write everything
	struct con_usage_spool_counters n;
};

// ---- lines: TEXT SP CHECKSUM LF ----

static void checksum(const char *text, size_t len, char *ret)
{
	uint8_t h[SUM_BYTES];
	crypto_generichash(h, sizeof(h), (const uint8_t *)text, len, NULL, 0);
	sp_hex_encode(h, sizeof(h), ret, 2 * sizeof(h) + 1);
}

// Names may hold spaces: those, '%' and what is not printable ASCII become %XX.
static const char *escape(const char *name, char *buf)
{
	char *p = buf;
	for (; *name; name++)
		if (*name > 0x20 && *name < 0x7f && *name != '%')
			*p++ = *name;
		else
			p += sprintf(p, "%%%02x", (uint8_t)*name);
	*p = 0;
	return buf;
}

static bool unescape(const char *text, char *ret, size_t cap)
{
	size_t n = 0;
	for (; *text; n++) {
		if (n + 1 >= cap)
			return false;
		if (*text != '%') {
			ret[n] = *text++;
			continue;
		}
		if (!text[1] || !text[2] || sp_hex_decode(text + 1, 2, &ret[n], 1))
			return false;
		text += 3;
	}
	ret[n] = 0;
	return n > 0;
}

static bool reserve(struct con_usage_spool *s, size_t more)
{
	if (s->len + more <= s->cap)
		return true;
	size_t cap = s->cap ? s->cap : 4096;
	while (cap < s->len + more)
		cap *= 2;
	char *p = realloc(s->buf, cap);
	if (!p)
		return false;
	s->buf = p;
	s->cap = cap;
	return true;
}

static void put(struct con_usage_spool *s, const char *text)
{
	char sum[2 * SUM_BYTES + 1];
	size_t len = strlen(text);
	if (s->anew)
		return; // everything will be written
	if (s->len > BUF_MAX || !reserve(s, len + sizeof(sum) + 2)) {
		s->anew = true;
		return;
	}
	checksum(text, len, sum);
	s->len += (size_t)sprintf(s->buf + s->len, "%s %s\n", text, sum);
	s->n.lines_written++;
}

static void put_user(void *ctx, const char *user, const struct con_usage_sum *base,
		     uint64_t period, uint64_t mark)
{
	char line[LINE_MAX_], name[NAME_CAP];
	snprintf(line, sizeof(line), "b %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64,
		 escape(user, name), base->up, base->down, period, mark);
	put(ctx, line);
}

static void put_entry(void *ctx, const char *user, const char *worker, uint64_t boot,
		      const struct con_usage_sum *sum)
{
	char line[LINE_MAX_], name[NAME_CAP], host[NAME_CAP];
	snprintf(line, sizeof(line), "u %s %016" PRIx64 " %s %" PRIu64 " %" PRIu64,
		 escape(worker, host), boot, escape(user, name), sum->up, sum->down);
	put(ctx, line);
}

static void put_closed(void *ctx, const char *worker, uint64_t boot)
{
	char line[LINE_MAX_], host[NAME_CAP];
	snprintf(line, sizeof(line), "x %s %016" PRIx64, escape(worker, host), boot);
	put(ctx, line);
}

void con_usage_spool_user(struct con_usage_spool *s, const char *user)
{
	static const struct con_usage_visitor v = {.user = put_user};
	(void)con_usage_one(s->u, user, &v, s);
}

void con_usage_spool_all_of(struct con_usage_spool *s, const char *user)
{
	static const struct con_usage_visitor v = {.user = put_user, .entry = put_entry};
	(void)con_usage_one(s->u, user, &v, s);
}

void con_usage_spool_entry(struct con_usage_spool *s, const char *user,
			   const char *worker, uint64_t boot,
			   const struct con_usage_sum *sum)
{
	put_entry(s, user, worker, boot, sum);
}

void con_usage_spool_closed(struct con_usage_spool *s, const char *worker, uint64_t boot)
{
	put_closed(s, worker, boot);
}

// ---- reading ----

static int take_user(struct con_usage *u, const char *text)
{
	char name[NAME_CAP], user[CON_USAGE_USER_MAX + 1];
	struct con_usage_sum base;
	uint64_t period, mark;
	int end = 0;
	if (sscanf(text, "b %240s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 "%n",
		   name, &base.up, &base.down, &period, &mark, &end) != 5 ||
	    text[end] || !unescape(name, user, sizeof(user)))
		return SP_E_MALFORMED;
	int err = con_usage_set_base(u, user, &base);
	return err ? err : con_usage_set_period(u, user, period, mark);
}

static int take_entry(struct con_usage *u, const char *text)
{
	char name[NAME_CAP], host[NAME_CAP];
	char user[CON_USAGE_USER_MAX + 1], worker[CON_USAGE_WORKER_MAX + 1];
	struct con_usage_sum sum;
	uint64_t boot;
	int end = 0;
	if (sscanf(text, "u %240s %16" SCNx64 " %240s %" SCNu64 " %" SCNu64 "%n", host,
		   &boot, name, &sum.up, &sum.down, &end) != 5 ||
	    text[end] || !unescape(name, user, sizeof(user)) ||
	    !unescape(host, worker, sizeof(worker)))
		return SP_E_MALFORMED;
	return con_usage_add(u, worker, boot, user, &sum);
}

static int take_closed(struct con_usage *u, const char *text)
{
	char host[NAME_CAP], worker[CON_USAGE_WORKER_MAX + 1];
	uint64_t boot;
	int end = 0;
	if (sscanf(text, "x %240s %16" SCNx64 "%n", host, &boot, &end) != 2 ||
	    text[end] || !unescape(host, worker, sizeof(worker)))
		return SP_E_MALFORMED;
	return con_usage_close(u, worker, boot);
}

// One line without its line feed; `text` is changed.
static int take_line(struct con_usage *u, char *text, size_t len)
{
	char sum[2 * SUM_BYTES + 1];
	size_t tail = 2 * SUM_BYTES + 1;
	if (len <= tail || strlen(text) != len || text[len - tail] != ' ')
		return SP_E_MALFORMED;
	checksum(text, len - tail, sum);
	if (strcmp(text + len - tail + 1, sum) != 0)
		return SP_E_MALFORMED;
	text[len - tail] = 0;
	switch (text[0]) {
	case 'b':
		return take_user(u, text);
	case 'u':
		return take_entry(u, text);
	case 'x':
		return take_closed(u, text);
	default:
		return SP_E_MALFORMED;
	}
}

// Returns the length of what is whole.
static size_t take_all(struct con_usage_spool *s, char *text, size_t len)
{
	size_t at = strlen(HEADER);
	for (char *nl; (nl = memchr(text + at, '\n', len - at));) {
		*nl = 0;
		int err = take_line(s->u, text + at, (size_t)(nl - text) - at);
		s->n.lines_read++;
		s->n.lines_broken += err < 0 && err != SP_E_CLOSED;
		at = (size_t)(nl - text) + 1;
	}
	return at;
}

static int load(struct con_usage_spool *s, bool *ret_fresh, char *why, size_t cap)
{
	struct sp_file_read how = {.max = FILE_MAX};
	uint8_t *text;
	size_t len;
	int err;
	*ret_fresh = access(s->path, F_OK) < 0 && errno == ENOENT;
	if (*ret_fresh) {
		err = sp_file_create(s->path, HEADER, strlen(HEADER), 0600, why, cap);
		s->n.bytes = strlen(HEADER);
		return err;
	}
	err = sp_file_read(s->path, &how, &text, &len, why, cap);
	if (err)
		return err;
	if (len < strlen(HEADER) || memcmp(text, HEADER, strlen(HEADER)) != 0) {
		snprintf(why, cap, "%s is not a file of usage totals", s->path);
		sp_file_free(text, len);
		return SP_E_MALFORMED;
	}
	s->n.bytes = take_all(s, (char *)text, len);
	*ret_fresh = s->n.lines_read == 0;
	sp_file_free(text, len);
	return 0;
}

// Opened for appending behind what is whole.
static int open_file(struct con_usage_spool *s)
{
	s->fd = open(s->path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (s->fd < 0 || ftruncate(s->fd, (off_t)s->n.bytes) < 0 ||
	    lseek(s->fd, 0, SEEK_END) < 0)
		return -errno;
	return 0;
}

int con_usage_spool_open(struct con_usage *u, const char *path, uint64_t rewrite_bytes,
			 struct con_usage_spool **ret, bool *ret_fresh, char *why,
			 size_t cap)
{
	struct con_usage_spool *s = calloc(1, sizeof(*s));
	if (!s || !(s->path = strdup(path))) {
		free(s);
		snprintf(why, cap, "out of memory");
		return -ENOMEM;
	}
	s->u = u;
	s->fd = -1;
	s->rewrite_bytes = rewrite_bytes;
	int err = load(s, ret_fresh, why, cap);
	if (!err && (err = open_file(s)))
		snprintf(why, cap, "cannot write %s: %s", path, sp_strerror(err));
	if (err) {
		con_usage_spool_close(s);
		return err;
	}
	s->base_bytes = s->n.bytes;
	*ret = s;
	return 0;
}

void con_usage_spool_close(struct con_usage_spool *s)
{
	if (!s)
		return;
	if (s->fd >= 0)
		close(s->fd);
	free(s->buf);
	free(s->path);
	free(s);
}

// ---- writing ----

static int append(struct con_usage_spool *s)
{
	size_t done = 0;
	while (done < s->len) {
		ssize_t n = write(s->fd, s->buf + done, s->len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	if (fdatasync(s->fd) < 0)
		return -errno;
	s->n.bytes += s->len;
	s->len = 0;
	return 0;
}

static int write_anew(struct con_usage_spool *s)
{
	static const struct con_usage_visitor v = {put_closed, put_user, put_entry};
	char why[SP_WHY_MAX];
	s->anew = false;
	s->len = 0;
	if (!reserve(s, sizeof(HEADER)))
		return -ENOMEM;
	s->len = (size_t)sprintf(s->buf, HEADER);
	con_usage_each(s->u, &v, s);
	int err = s->anew ? -ENOMEM : 0;
	if (!err)
		err = sp_file_write(s->path, s->buf, s->len, 0600, why, sizeof(why));
	if (err)
		return err;
	s->n.bytes = s->base_bytes = s->len;
	s->len = 0;
	s->n.rewrites++;
	close(s->fd);
	return open_file(s);
}

int con_usage_spool_sync(struct con_usage_spool *s)
{
	int err = 0;
	if (!s->anew && !s->len)
		return 0;
	if (s->n.bytes + s->len > s->base_bytes + s->rewrite_bytes)
		s->anew = true;
	err = s->anew ? write_anew(s) : append(s);
	if (err) {
		s->anew = true; // what stands in the file may be half a line
		s->len = 0;
		s->n.sync_failures++;
		return err;
	}
	s->n.syncs++;
	return 0;
}

const struct con_usage_spool_counters *
con_usage_spool_counters(const struct con_usage_spool *s)
{
	return &s->n;
}
