#include "worker/segments.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/log.h"
#include "worker/counters_read.h"

struct segment {
	uint64_t boot;
	int64_t age; // of its last change, ns
	int fd;
	char *path;
};

struct wrk_segments {
	int lock;
	size_t n;
	uint64_t lost;
	struct segment v[WRK_SEGMENTS_MAX];
};

static void segment_done(struct segment *g, bool remove_it)
{
	if (remove_it && g->path)
		unlink(g->path);
	close(g->fd);
	free(g->path);
}

static void take_out(struct wrk_segments *s, size_t i, bool remove_it)
{
	segment_done(&s->v[i], remove_it);
	s->n--;
	memmove(&s->v[i], &s->v[i + 1], (s->n - i) * sizeof(s->v[0]));
}

static void insert(struct wrk_segments *s, struct segment g)
{
	size_t i = s->n;
	if (s->n == WRK_SEGMENTS_MAX) {
		sp_error("counters",
			 "too many segments wait for a controller; the "
			 "oldest is given up",
			 "boot=%" PRIx64, s->v[0].boot);
		take_out(s, 0, true);
		s->lost++;
		i--;
	}
	for (; i && s->v[i - 1].age > g.age; i--)
		s->v[i] = s->v[i - 1];
	s->v[i] = g;
	s->n++;
}

void wrk_segments_add(struct wrk_segments *s, uint64_t boot, int fd, char *path)
{
	insert(s, (struct segment){boot, INT64_MAX, fd, path});
}

// What such a name holds: its totals, or nothing that anybody could use. `path` is given
// away.
static void take_file(struct wrk_segments *s, char *path)
{
	struct wrk_counters_reader r;
	struct stat st;
	int keep = -1, fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0) {
		sp_warn("counters", "cannot read an old segment", "path=%s error=%s",
			path, sp_strerror(-errno));
		free(path);
		return;
	}
	int err = wrk_counters_reader_init(&r, fd);
	if (!err)
		err = wrk_counters_read(&r);
	if (!err && r.n_users && fstat(fd, &st) == 0)
		keep = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (keep >= 0) {
		int64_t age =
			(int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
		insert(s, (struct segment){r.boot, age, keep, path});
	} else {
		if (err)
			sp_warn("counters", "no segment; removed", "path=%s error=%s",
				path, sp_strerror(err));
		unlink(path);
		free(path);
	}
	wrk_counters_reader_done(&r);
}

static bool is_segment_name(const char *name)
{
	return !strncmp(name, "counters.", 9) && strlen(name) == 25 &&
	       strspn(name + 9, "0123456789abcdef") == 16;
}

static int scan(struct wrk_segments *s, const char *folder)
{
	struct dirent *e;
	DIR *d = opendir(folder);
	if (!d)
		return -errno;
	while ((e = readdir(d))) {
		char *path;
		if (is_segment_name(e->d_name) &&
		    asprintf(&path, "%s/%s", folder, e->d_name) >= 0)
			take_file(s, path);
	}
	closedir(d);
	return 0;
}

int wrk_segments_open(const char *folder, struct wrk_segments **ret)
{
	struct wrk_segments *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	// The lock is of the folder itself: no file to make on a full disk.
	s->lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = s->lock < 0 ? -errno : 0;
	if (!err && flock(s->lock, LOCK_EX | LOCK_NB))
		err = errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (!err)
		err = scan(s, folder);
	if (err) {
		wrk_segments_free(s);
		return err;
	}
	*ret = s;
	return 0;
}

void wrk_segments_free(struct wrk_segments *s)
{
	if (!s)
		return;
	while (s->n)
		take_out(s, s->n - 1, false);
	if (s->lock >= 0)
		close(s->lock);
	free(s);
}

bool wrk_segments_next(const struct wrk_segments *s, size_t *at, uint64_t *ret_boot,
		       int *ret_fd)
{
	if (*at >= s->n)
		return false;
	*ret_boot = s->v[*at].boot;
	*ret_fd = s->v[(*at)++].fd;
	return true;
}

bool wrk_segments_drop(struct wrk_segments *s, uint64_t boot)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->v[i].boot == boot) {
			take_out(s, i, true);
			return true;
		}
	return false;
}

size_t wrk_segments_count(const struct wrk_segments *s)
{
	return s->n;
}

uint64_t wrk_segments_lost(const struct wrk_segments *s)
{
	return s->lost;
}
