// The last known good state on disk: whatever a crash or a full disk left of it.
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/file.h"
#include "lib/log.h"
#include "lib/replica_store.h"
#include "tests/unit/small_disk.h"

#define N 12

// A chain of signed revisions.
static struct {
	char folder[64];
	uint8_t secret[64];
	struct sp_signed_keys keys;
	char *text[N], *snapshot; // of revision N / 2
	size_t len[N], snapshot_len;
	struct sp_position at[N];
} x;

static char *in_folder(const char *name)
{
	static char path[128];
	snprintf(path, sizeof(path), "%s/%s", x.folder, name);
	return path;
}

static void make_chain(void)
{
	struct sp_state *state;
	struct sp_position at = {0};
	assert_int_equal(sp_state_new(&state), 0);
	for (int i = 0; i < N; i++) {
		struct sp_changes c = {0};
		char key[32], *private;
		json_t *o = json_pack("{s:i}", "rate_bps", i);
		snprintf(key, sizeof(key), "tier/t%d", i);
		assert_int_equal(sp_changes_add(&c, key, o), 0);
		assert_int_equal(sp_state_apply(state, &c), 0);
		assert_int_equal(sp_revision_sign(&at, 1, 1000, "test", &c, state,
						  x.secret, &x.text[i], &x.len[i],
						  &private, &at),
				 0);
		x.at[i] = at;
		if (i == N / 2)
			assert_int_equal(sp_snapshot_sign(&at, 1000, state, x.secret,
							  &x.snapshot, &x.snapshot_len),
					 0);
		free(private);
		sp_changes_done(&c);
		json_decref(o);
	}
	sp_state_free(state);
}

static int setup(void **state)
{
	uint8_t pub[32];
	(void)state;
	if (sodium_init() < 0)
		return -1;
	sp_log_setup(SP_LOG_ERROR, SP_LOG_LOGFMT,
		     open("/dev/null", O_WRONLY | O_CLOEXEC));
	crypto_sign_keypair(pub, x.secret);
	assert_int_equal(sp_signed_keys_add(&x.keys, pub), 0);
	make_chain();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (int i = 0; i < N; i++)
		free(x.text[i]);
	free(x.snapshot);
	return 0;
}

static int fresh_folder(void **state)
{
	(void)state;
	strcpy(x.folder, "/tmp/sp-store.XXXXXX");
	return mkdtemp(x.folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	(void)state;
	unlink(in_folder("snapshot"));
	unlink(in_folder("revisions"));
	return rmdir(x.folder); // and no temporary file is left
}

static struct sp_replica_store *open_store(struct sp_replica *r)
{
	struct sp_replica_store *s;
	*r = (struct sp_replica){.keys = x.keys};
	assert_int_equal(sp_replica_store_new(x.folder, &s), 0);
	assert_int_equal(sp_replica_store_load(s, r), 0);
	return s;
}

// The sequence that a start from this disk reaches.
static uint64_t reached(void)
{
	struct sp_replica r;
	struct sp_replica_store *s = open_store(&r);
	uint64_t sequence = r.position.sequence;
	if (sequence)
		assert_true(sp_position_same(&r.position, &x.at[sequence - 1]));
	sp_replica_done(&r);
	sp_replica_store_free(s);
	return sequence;
}

static void append(struct sp_replica_store *s, int from, int to)
{
	for (int i = from; i < to; i++)
		assert_int_equal(sp_replica_store_append(s, x.text[i], x.len[i]), 0);
}

static void what_was_appended_is_there_at_the_next_start(void **state)
{
	struct sp_replica r;
	struct sp_replica_store *s = open_store(&r);
	(void)state;
	assert_null(r.state);
	append(s, 0, 3);
	sp_replica_store_free(s);
	assert_int_equal(reached(), 3);
	s = open_store(&r);
	append(s, 3, N);
	sp_replica_store_free(s);
	sp_replica_done(&r);
	assert_int_equal(reached(), N);
}

static void a_tail_torn_at_any_byte_costs_only_itself(void **state)
{
	struct sp_replica r;
	struct sp_replica_store *s = open_store(&r);
	struct stat two, three;
	(void)state;
	append(s, 0, 2);
	assert_int_equal(stat(in_folder("revisions"), &two), 0);
	append(s, 2, 3);
	assert_int_equal(stat(in_folder("revisions"), &three), 0);
	sp_replica_store_free(s);
	for (off_t cut = three.st_size - 1; cut >= two.st_size; cut--) {
		assert_int_equal(truncate(in_folder("revisions"), cut), 0);
		assert_int_equal(reached(), 2); // cuts the tail off
		s = open_store(&r);
		append(s, 2, 3); // and goes on behind it
		sp_replica_store_free(s);
		sp_replica_done(&r);
		assert_int_equal(reached(), 3);
	}
}

static void a_flipped_bit_ends_the_log_there(void **state)
{
	struct sp_replica r;
	(void)state;
	for (unsigned seed = 0; seed < 200; seed++) {
		struct sp_replica_store *s = open_store(&r);
		append(s, 0, 4);
		sp_replica_store_free(s);
		sp_replica_done(&r);
		struct stat st;
		uint8_t byte;
		assert_int_equal(stat(in_folder("revisions"), &st), 0);
		int fd = open(in_folder("revisions"), O_RDWR | O_CLOEXEC);
		off_t at = (off_t)(seed * 2654435761u % (uint64_t)st.st_size);
		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= (uint8_t)(1 << seed % 8);
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		close(fd);
		uint64_t n = reached();
		assert_true(n < 4);
		assert_int_equal(reached(), n);
		assert_int_equal(unlink(in_folder("revisions")), 0);
	}
}

static void a_snapshot_takes_the_place_of_revisions(void **state)
{
	struct sp_replica r;
	struct sp_replica_store *s = open_store(&r);
	struct stat st;
	(void)state;
	append(s, 0, 3);
	assert_int_equal(sp_replica_store_replace(s, x.snapshot, x.snapshot_len), 0);
	assert_int_equal(stat(in_folder("revisions"), &st), -1);
	append(s, N / 2 + 1, N);
	sp_replica_store_free(s);
	assert_int_equal(reached(), N);
}

static void a_crash_between_snapshot_and_log_loses_nothing(void **state)
{
	struct sp_replica r;
	struct sp_replica_store *s = open_store(&r);
	char why[SP_WHY_MAX];
	(void)state;
	append(s, 0, N);
	sp_replica_store_free(s);
	// The snapshot was written, the log was not yet removed.
	assert_int_equal(sp_file_write(in_folder("snapshot"), x.snapshot, x.snapshot_len,
				       0600, why, sizeof(why)),
			 0);
	assert_int_equal(reached(), N);
}

static void a_state_signed_by_a_stranger_is_not_used(void **state)
{
	struct sp_replica r;
	struct sp_replica_store *s = open_store(&r);
	uint8_t pub[32], secret[64];
	struct sp_signed_keys own = x.keys;
	(void)state;
	append(s, 0, 3);
	assert_int_equal(sp_replica_store_replace(s, x.snapshot, x.snapshot_len), 0);
	sp_replica_store_free(s);
	crypto_sign_keypair(pub, secret);
	x.keys = (struct sp_signed_keys){0};
	assert_int_equal(sp_signed_keys_add(&x.keys, pub), 0);
	s = open_store(&r);
	assert_null(r.state);
	sp_replica_store_free(s);
	x.keys = own;
}

static void too_many_revisions_ask_for_a_snapshot(void **state)
{
	struct sp_replica r;
	struct sp_replica_store *s = open_store(&r);
	static char big[1 << 20];
	(void)state;
	assert_false(sp_replica_store_wants_snapshot(s));
	for (int i = 0; i < 3; i++)
		assert_int_equal(sp_replica_store_append(s, big, sizeof(big)), 0);
	assert_true(sp_replica_store_wants_snapshot(s));
	// None comes: the file does not grow for ever.
	int err = 0;
	for (int i = 0; i < 16 && !err; i++)
		err = sp_replica_store_append(s, big, sizeof(big));
	assert_int_equal(err, SP_E_LIMIT);
	assert_true(sp_replica_store_bytes(s) <=
		    SP_REPLICA_STORE_LOG_BYTES + sizeof(big) + 64);
	assert_int_equal(sp_replica_store_replace(s, x.snapshot, x.snapshot_len), 0);
	assert_false(sp_replica_store_wants_snapshot(s));
	assert_int_equal(sp_replica_store_append(s, x.text[N / 2 + 1], x.len[N / 2 + 1]),
			 0);
	sp_replica_store_free(s);
	assert_int_equal(reached(), N / 2 + 2);
}

// In a child with a small file system of its own. 77: not allowed here.
static int fill_disk(void)
{
	struct sp_replica r;
	if (!small_disk_mount(x.folder))
		return 77;
	struct sp_replica_store *s = open_store(&r);
	append(s, 0, 2);
	int err = 0, fd = small_disk_fill(x.folder);
	for (int i = 2; i < N && !err; i++)
		err = sp_replica_store_append(s, x.text[i], x.len[i]);
	uint64_t before = reached();
	if (err != -ENOSPC || before < 2 || before == N)
		return 1;
	// Room again: a gap would break the chain, so only a snapshot helps.
	if (ftruncate(fd, 0))
		return 2;
	if (sp_replica_store_append(s, x.text[N - 1], x.len[N - 1]) != -ESTALE ||
	    !sp_replica_store_wants_snapshot(s) || sp_replica_store_errors(s) != 1)
		return 3;
	if (sp_replica_store_replace(s, x.snapshot, x.snapshot_len))
		return 4;
	append(s, N / 2 + 1, N);
	return reached() == N ? 0 : 5;
}

static void a_full_disk_keeps_what_it_has_until_a_snapshot_comes(void **state)
{
	int status;
	(void)state;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		_exit(fill_disk());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fresh_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_appended_is_there_at_the_next_start),
		TEST(a_tail_torn_at_any_byte_costs_only_itself),
		TEST(a_flipped_bit_ends_the_log_there),
		TEST(a_snapshot_takes_the_place_of_revisions),
		TEST(a_crash_between_snapshot_and_log_loses_nothing),
		TEST(a_state_signed_by_a_stranger_is_not_used),
		TEST(too_many_revisions_ask_for_a_snapshot),
		TEST(a_full_disk_keeps_what_it_has_until_a_snapshot_comes),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
