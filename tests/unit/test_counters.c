#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/log.h"
#include "tests/unit/small_disk.h"
#include "worker/counters.h"
#include "worker/counters_read.h"
#include "worker/segments.h"

static char folder[64];

struct ended {
	int n;
	uint64_t boot;
	int fd;
	char *path;
};

static void on_ended(void *ctx, uint64_t boot, int fd, char *path)
{
	struct ended *e = ctx;
	e->n++;
	e->boot = boot;
	e->fd = fd;
	e->path = path;
}

static void drop(struct ended *e)
{
	if (e->path)
		unlink(e->path);
	close(e->fd);
	free(e->path);
	e->path = NULL;
}

static struct wrk_counters *make(const char *dir, uint32_t users, struct ended *e)
{
	struct wrk_counters_options o = {.folder = dir,
					 .users = users,
					 .boot = 0x1234,
					 .ended = on_ended,
					 .ctx = e};
	struct wrk_counters *c;
	memset(e, 0, sizeof(*e));
	assert_int_equal(wrk_counters_new(&o, &c), 0);
	return c;
}

static void destroy(struct wrk_counters *c)
{
	if (wrk_counters_path(c))
		unlink(wrk_counters_path(c));
	wrk_counters_free(c);
}

static void begin_read(struct wrk_counters_reader *r, int fd)
{
	assert_int_equal(wrk_counters_reader_init(r, fcntl(fd, F_DUPFD_CLOEXEC, 3)), 0);
	assert_int_equal(wrk_counters_read(r), 0);
}

static const struct wrk_counters_user *look(const struct wrk_counters_reader *r,
					    const char *name)
{
	for (uint32_t i = 0; i < r->n_users; i++)
		if (!strcmp(r->users[i].name, name))
			return &r->users[i];
	return NULL;
}

static void a_reader_sees_what_was_counted(void **state)
{
	struct ended e;
	struct wrk_counters *c = make(folder, 4, &e);
	struct wrk_counters_reader r;
	(void)state;
	struct wrk_account *a = wrk_counters_account(c, "alice");
	assert_ptr_equal(wrk_counters_account(c, "alice"), a);
	wrk_counters_session(c, a, 1);
	a->usage->up += 5;
	a->usage->down += UINT64_C(7000000000);
	wrk_counters_set(c, WRK_GAUGE_STREAMS, 3);
	begin_read(&r, wrk_counters_fd(c));
	assert_int_equal(r.boot, 0x1234);
	assert_int_equal(r.n_users, 1);
	assert_int_equal(look(&r, "alice")->usage.up, 5);
	assert_true(look(&r, "alice")->usage.down == UINT64_C(7000000000));
	assert_int_equal(look(&r, "alice")->live, 1);
	assert_int_equal(r.gauge[WRK_GAUGE_STREAMS], 3);
	wrk_counters_reader_done(&r);
	destroy(c);
}

static void a_reader_cannot_write(void **state)
{
	struct ended e;
	struct wrk_counters *c = make(folder, 4, &e);
	(void)state;
	assert_int_equal(write(wrk_counters_fd(c), "x", 1), -1);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED,
			      wrk_counters_fd(c), 0),
			 MAP_FAILED);
	destroy(c);
}

static void totals_outlive_a_killed_writer(void **state)
{
	struct wrk_segments *s;
	struct wrk_counters_reader r;
	uint64_t boot;
	size_t at = 0;
	int fd;
	(void)state;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		struct ended e;
		struct wrk_counters *c = make(folder, 4, &e);
		wrk_counters_account(c, "alice")->usage->down = 4242;
		raise(SIGKILL);
	}
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(wrk_segments_open(folder, &s), 0);
	assert_true(wrk_segments_next(s, &at, &boot, &fd));
	assert_int_equal(boot, 0x1234);
	begin_read(&r, fd);
	assert_int_equal(look(&r, "alice")->usage.down, 4242);
	wrk_counters_reader_done(&r);
	assert_false(wrk_segments_next(s, &at, &boot, &fd));
	assert_true(wrk_segments_drop(s, 0x1234));
	assert_false(wrk_segments_drop(s, 0x1234));
	wrk_segments_free(s);
	assert_int_equal(wrk_segments_open(folder, &s), 0); // and it is gone for good
	assert_int_equal(wrk_segments_count(s), 0);
	wrk_segments_free(s);
}

static void a_full_segment_gives_way_and_no_total_falls(void **state)
{
	struct ended e;
	struct wrk_counters *c = make(folder, 4, &e);
	struct wrk_counters_reader r;
	char name[8];
	(void)state;
	struct wrk_account *a = wrk_counters_account(c, "alice");
	wrk_counters_session(c, a, 1);
	a->usage->up = 10;
	a->limited = true;
	a->quota = 25;
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "u%d", i);
		assert_non_null(wrk_counters_account(c, name));
	}
	assert_int_equal(e.n, 0);
	assert_non_null(wrk_counters_account(c, "bob"));
	assert_int_equal(e.n, 1);
	assert_int_equal(e.boot, 0x1234);
	assert_int_not_equal(wrk_counters_boot(c), 0x1234);
	begin_read(&r, e.fd);
	assert_int_equal(r.n_users, 4);
	assert_int_equal(look(&r, "alice")->usage.up, 10);
	wrk_counters_reader_done(&r);
	// Those without sessions stay behind; who has one goes on at 0 with what is left.
	assert_null(wrk_counters_find(c, "u1"));
	assert_ptr_equal(wrk_counters_find(c, "alice"), a);
	assert_int_equal(a->usage->up, 0);
	a->usage->up = 14;
	assert_false(wrk_account_is_over(a));
	a->usage->down = 1;
	assert_true(wrk_account_is_over(a));
	begin_read(&r, wrk_counters_fd(c));
	assert_int_equal(r.n_users, 2);
	assert_int_equal(look(&r, "alice")->live, 1);
	wrk_counters_reader_done(&r);
	drop(&e);
	destroy(c);
}

static void a_segment_of_live_users_is_followed_by_a_larger_one(void **state)
{
	struct ended e;
	struct wrk_counters *c = make(folder, 2, &e);
	char name[8];
	(void)state;
	for (int i = 0; i < 64; i++) {
		snprintf(name, sizeof(name), "u%d", i);
		struct wrk_account *a = wrk_counters_account(c, name);
		assert_non_null(a);
		wrk_counters_session(c, a, 1);
		if (e.path)
			drop(&e);
	}
	assert_int_equal(e.n, 5); // 4, 8, 16, 32, 64
	for (int i = 0; i < 64; i++) {
		snprintf(name, sizeof(name), "u%d", i);
		assert_non_null(wrk_counters_find(c, name));
	}
	destroy(c);
}

// In a child: fills a small file system and counts there. 0: as it should be; 77: not
// allowed here.
static int count_on_full_disk(void)
{
	struct ended e;
	struct wrk_counters_reader r;
	if (!small_disk_mount(folder))
		return 77;
	// Before it is full there is a file.
	struct wrk_counters *c = make(folder, 4, &e);
	if (!wrk_counters_path(c))
		return 3;
	destroy(c);
	if (small_disk_fill(folder) < 0)
		return 4;
	c = make(folder, 4, &e);
	if (wrk_counters_path(c))
		return 1;
	wrk_counters_account(c, "alice")->usage->up = 1;
	begin_read(&r, wrk_counters_fd(c));
	return look(&r, "alice") && look(&r, "alice")->usage.up == 1 ? 0 : 2;
}

static void a_full_disk_leaves_memory(void **state)
{
	int status;
	(void)state;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		_exit(count_on_full_disk());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_folder_that_is_gone_leaves_memory(void **state)
{
	struct ended e;
	(void)state;
	struct wrk_counters *c = make("/nonexistent/folder", 4, &e);
	assert_null(wrk_counters_path(c));
	assert_non_null(wrk_counters_account(c, "alice"));
	destroy(c);
}

static void a_half_written_text_is_not_served(void **state)
{
	struct ended e;
	struct wrk_counters *c = make(folder, 4, &e);
	struct wrk_counters_reader r;
	static char big[WRK_COUNTERS_TEXT_BYTES + 1];
	(void)state;
	assert_int_equal(wrk_counters_set_text(c, WRK_TEXT_PROMETHEUS, "one 1\n", 6), 0);
	begin_read(&r, wrk_counters_fd(c));
	assert_int_equal(wrk_counters_read_text(&r, WRK_TEXT_PROMETHEUS), 0);
	assert_string_equal(r.text[WRK_TEXT_PROMETHEUS].v, "one 1\n");
	int fd = open(wrk_counters_path(c), O_RDWR | O_CLOEXEC);
	struct wrk_counters_head *h =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(h, MAP_FAILED);
	h->text[WRK_TEXT_PROMETHEUS].turn |= 1;
	assert_int_equal(wrk_counters_read_text(&r, WRK_TEXT_PROMETHEUS), -EAGAIN);
	assert_string_equal(r.text[WRK_TEXT_PROMETHEUS].v, "one 1\n");
	assert_int_equal(wrk_counters_set_text(c, WRK_TEXT_PROMETHEUS, big, sizeof(big)),
			 SP_E_LIMIT);
	munmap(h, 4096);
	close(fd);
	wrk_counters_reader_done(&r);
	destroy(c);
}

// Whatever the writer's process was made to write.
static void a_hostile_segment_is_read_within_its_bounds(void **state)
{
	struct ended e;
	struct wrk_counters_reader r;
	(void)state;
	for (uint32_t seed = 0; seed < 3000; seed++) {
		struct wrk_counters *c = make(NULL, 4, &e);
		assert_non_null(wrk_counters_account(c, "alice"));
		char path[64];
		struct wrk_counters_head h;
		uint8_t key[randombytes_SEEDBYTES] = {(uint8_t)seed,
						      (uint8_t)(seed >> 8)};
		uint8_t noise[3];
		snprintf(path, sizeof(path), "/proc/self/fd/%d", wrk_counters_fd(c));
		int fd = open(path, O_RDWR | O_CLOEXEC);
		assert_true(fd >= 0);
		assert_int_equal(pread(fd, &h, sizeof(h), 0), sizeof(h));
		randombytes_buf_deterministic(noise, sizeof(noise), key);
		((uint8_t *)&h)[noise[0] % 64] = noise[1];
		((uint8_t *)&h)[noise[1] % 64] = noise[2];
		assert_int_equal(pwrite(fd, &h, sizeof(h), 0), sizeof(h));
		int dup = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		if (wrk_counters_reader_init(&r, dup) == 0) {
			if (wrk_counters_read(&r) == 0)
				assert_true(r.n_users <= 4);
			(void)!wrk_counters_read_text(&r, WRK_TEXT_PROMETHEUS);
		}
		wrk_counters_reader_done(&r);
		close(fd);
		destroy(c);
	}
}

static void a_name_that_no_pass_has_is_skipped(void **state)
{
	struct ended e;
	struct wrk_counters *c = make(folder, 4, &e);
	struct wrk_counters_reader r;
	struct wrk_counters_user u = {.usage.up = 1};
	(void)state;
	wrk_counters_account(c, "alice");
	wrk_counters_account(c, "bob");
	memset(u.name, 'x', sizeof(u.name)); // no end
	int fd = open(wrk_counters_path(c), O_RDWR | O_CLOEXEC);
	assert_int_equal(pwrite(fd, &u, sizeof(u), (off_t)wrk_counters_user_at(0)),
			 sizeof(u));
	begin_read(&r, wrk_counters_fd(c));
	assert_int_equal(r.n_users, 1);
	assert_int_equal(r.skipped, 1);
	assert_non_null(look(&r, "bob"));
	wrk_counters_reader_done(&r);
	// Cut short behind the reader's back: an error, no fault.
	begin_read(&r, wrk_counters_fd(c));
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(wrk_counters_read(&r), SP_E_MALFORMED);
	assert_int_equal(r.n_users, 1);
	wrk_counters_reader_done(&r);
	close(fd);
	destroy(c);
}

static void a_folder_has_one_worker(void **state)
{
	struct wrk_segments *one, *two;
	(void)state;
	assert_int_equal(wrk_segments_open(folder, &one), 0);
	assert_int_equal(wrk_segments_open(folder, &two), -EBUSY);
	wrk_segments_free(one);
	assert_int_equal(wrk_segments_open(folder, &two), 0);
	wrk_segments_free(two);
}

static void segments_that_say_nothing_are_removed(void **state)
{
	struct ended e;
	struct wrk_counters *c = make(folder, 4, &e);
	struct wrk_segments *s;
	struct stat st;
	char path[128], other[128];
	(void)state;
	char *empty = strdup(wrk_counters_path(c));
	wrk_counters_free(c);
	snprintf(path, sizeof(path), "%s/counters.00000000000000ff", folder);
	snprintf(other, sizeof(other), "%s/counters.md", folder);
	int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	fd = open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	assert_int_equal(wrk_segments_open(folder, &s), 0);
	assert_int_equal(wrk_segments_count(s), 0);
	assert_int_equal(stat(empty, &st), -1);
	assert_int_equal(stat(path, &st), -1);
	assert_int_equal(stat(other, &st), 0);
	unlink(other);
	free(empty);
	wrk_segments_free(s);
}

static void the_oldest_of_too_many_segments_is_given_up(void **state)
{
	struct wrk_segments *s;
	uint64_t boot;
	size_t at = 0;
	int fd;
	(void)state;
	assert_int_equal(wrk_segments_open(folder, &s), 0);
	for (uint64_t i = 1; i <= WRK_SEGMENTS_MAX + 2; i++)
		wrk_segments_add(s, i, open("/dev/null", O_RDONLY | O_CLOEXEC), NULL);
	assert_int_equal(wrk_segments_count(s), WRK_SEGMENTS_MAX);
	assert_int_equal(wrk_segments_lost(s), 2);
	assert_true(wrk_segments_next(s, &at, &boot, &fd));
	assert_int_equal(boot, 3);
	wrk_segments_free(s);
}

static int setup(void **state)
{
	(void)state;
	sp_log_setup(SP_LOG_ERROR, SP_LOG_LOGFMT,
		     open("/dev/null", O_WRONLY | O_CLOEXEC));
	strcpy(folder, "/tmp/sp-counters.XXXXXX");
	return sodium_init() < 0 || !mkdtemp(folder) ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	return rmdir(folder); // nothing is left behind
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_reader_sees_what_was_counted),
		cmocka_unit_test(a_reader_cannot_write),
		cmocka_unit_test(totals_outlive_a_killed_writer),
		cmocka_unit_test(a_full_segment_gives_way_and_no_total_falls),
		cmocka_unit_test(a_segment_of_live_users_is_followed_by_a_larger_one),
		cmocka_unit_test(a_full_disk_leaves_memory),
		cmocka_unit_test(a_folder_that_is_gone_leaves_memory),
		cmocka_unit_test(a_half_written_text_is_not_served),
		cmocka_unit_test(a_hostile_segment_is_read_within_its_bounds),
		cmocka_unit_test(a_name_that_no_pass_has_is_skipped),
		cmocka_unit_test(a_folder_has_one_worker),
		cmocka_unit_test(segments_that_say_nothing_are_removed),
		cmocka_unit_test(the_oldest_of_too_many_segments_is_given_up),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
