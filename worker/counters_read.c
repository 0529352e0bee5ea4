#include "worker/counters_read.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES 4

// All `len` bytes. 0; SP_E_MALFORMED: there are fewer; -errno.
static int copy(int fd, void *to, size_t len, size_t at)
{
	char *p = to;
	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : SP_E_MALFORMED;
		p += n;
		at += (size_t)n;
		len -= (size_t)n;
	}
	return 0;
}

// A head that this program can read; `users` and the lengths of texts lie in its bounds
// then.
static int read_head(int fd, struct wrk_counters_head *h)
{
	int err = copy(fd, h, sizeof(*h), 0);
	if (err)
		return err;
	if (h->magic != WRK_COUNTERS_MAGIC)
		return SP_E_MALFORMED;
	if (h->version != WRK_COUNTERS_VERSION)
		return SP_E_VERSION;
	if (h->users_max > WRK_COUNTERS_USERS_MAX)
		return SP_E_LIMIT;
	if (h->users > h->users_max || h->gauges > 64)
		return SP_E_MALFORMED;
	for (int i = 0; i < WRK_TEXTS; i++)
		if (h->text[i].len > WRK_COUNTERS_TEXT_BYTES)
			return SP_E_MALFORMED;
	return 0;
}

int wrk_counters_reader_init(struct wrk_counters_reader *r, int fd)
{
	struct wrk_counters_head h;
	struct stat st;
	*r = (struct wrk_counters_reader){.fd = fd};
	if (fstat(fd, &st))
		return -errno;
	int err = S_ISREG(st.st_mode) ? read_head(fd, &h) : SP_E_MALFORMED;
	if (err)
		return err;
	if ((uint64_t)st.st_size < wrk_counters_bytes(h.users_max))
		return SP_E_MALFORMED;
	r->boot = h.boot;
	return 0;
}

void wrk_counters_reader_done(struct wrk_counters_reader *r)
{
	if (r->fd >= 0)
		close(r->fd);
	free(r->users);
	for (int i = 0; i < WRK_TEXTS; i++)
		free(r->text[i].v);
	*r = (struct wrk_counters_reader){.fd = -1};
}

// The rules of lib/pass.h for a name.
static bool is_name(const char *s, size_t cap)
{
	size_t len = strnlen(s, cap);
	if (!len || len > SP_PASS_USER_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if ((uint8_t)s[i] < 0x20 || s[i] == 0x7f)
			return false;
	return true;
}

int wrk_counters_read(struct wrk_counters_reader *r)
{
	struct wrk_counters_head h;
	struct wrk_counters_user *users;
	uint32_t good = 0;
	int err = read_head(r->fd, &h);
	if (!err && h.boot != r->boot)
		err = SP_E_MALFORMED;
	if (err)
		return err;
	users = calloc(h.users + 1, sizeof(*users));
	if (!users)
		return -ENOMEM;
	err = copy(r->fd, users, h.users * sizeof(*users), wrk_counters_user_at(0));
	if (err) {
		free(users);
		return err;
	}
	for (uint32_t i = 0; i < h.users; i++)
		if (is_name(users[i].name, sizeof(users[i].name)))
			users[good++] = users[i];
		else
			r->skipped++;
	free(r->users);
	r->users = users;
	r->n_users = good;
	memset(r->gauge, 0, sizeof(r->gauge));
	memcpy(r->gauge, h.gauge,
	       (h.gauges < WRK_GAUGES ? h.gauges : WRK_GAUGES) * sizeof(r->gauge[0]));
	return 0;
}

int wrk_counters_read_text(struct wrk_counters_reader *r, enum wrk_text which)
{
	for (int i = 0; i < TRIES; i++) {
		struct wrk_counters_head before, after;
		int err = read_head(r->fd, &before);
		if (err)
			return err;
		size_t len = before.text[which].len;
		char *v = malloc(len + 1);
		if (!v)
			return -ENOMEM;
		err = copy(r->fd, v, len, wrk_counters_text_at(which));
		if (!err)
			err = read_head(r->fd, &after);
		if (!err && !(before.text[which].turn & 1) &&
		    before.text[which].turn == after.text[which].turn) {
			v[len] = '\0';
			free(r->text[which].v);
			r->text[which].v = v;
			r->text[which].len = len;
			return 0;
		}
		free(v);
		if (err)
			return err;
	}
	return -EAGAIN;
}
