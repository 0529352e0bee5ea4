// Small files and key files, in a folder of their own.
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/file.h"
#include "lib/key.h"

static char dir[64], path[128], why[SP_WHY_MAX];

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/sp-test-file-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/f", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir); // fails if a temporary file was left
}

static int read_with(size_t max, bool secret, uint8_t **ret, size_t *ret_len)
{
	const struct sp_file_read opt = {.max = max, .secret = secret};
	return sp_file_read(path, &opt, ret, ret_len, why, sizeof(why));
}

static void what_was_written_is_read_with_its_mode(void **state)
{
	size_t sizes[] = {0, 1, 4095, 4096, 4097, 300000}, len;
	uint8_t *data = malloc(300000), *got;
	struct stat st;

	(void)state;
	memset(data, 'x', 300000);
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(
			sp_file_write(path, data, sizes[i], 0640, why, sizeof(why)), 0);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0640);
		assert_int_equal(read_with(300000, false, &got, &len), 0);
		assert_int_equal(len, sizes[i]);
		assert_memory_equal(got, data, len);
		assert_int_equal(got[len], 0);
		sp_file_free(got, len);
	}
	free(data);
}

static void a_file_over_the_limit_is_refused(void **state)
{
	uint8_t *got = NULL;
	size_t len;

	(void)state;
	assert_int_equal(sp_file_write(path, "12345", 5, 0600, why, sizeof(why)), 0);
	assert_int_equal(read_with(4, false, &got, &len), SP_E_LIMIT);
	assert_non_null(strstr(why, "longer than the limit of 4 bytes"));
	assert_null(got);
	assert_int_equal(read_with(5, false, &got, &len), 0);
	sp_file_free(got, len);
}

static void a_secret_that_others_may_read_is_refused_with_the_remedy(void **state)
{
	static const mode_t bad[] = {0640, 0604, 0620, 0602, 0677};
	uint8_t *got = NULL;
	size_t len;

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(sp_file_write(path, "s", 1, bad[i], why, sizeof(why)),
				 0);
		assert_int_equal(read_with(9, true, &got, &len), -EPERM);
		assert_non_null(strstr(why, "chmod 600 "));
		assert_null(got);
	}
	assert_int_equal(sp_file_write(path, "s", 1, 0400, why, sizeof(why)), 0);
	assert_int_equal(read_with(9, true, &got, &len), 0);
	sp_file_free(got, len);
}

static void a_missing_file_and_a_folder_are_refused_by_name(void **state)
{
	const struct sp_file_read opt = {.max = 9};
	uint8_t *got = NULL;
	size_t len;

	(void)state;
	assert_int_equal(read_with(9, false, &got, &len), -ENOENT);
	assert_non_null(strstr(why, path));
	assert_int_equal(sp_file_read(dir, &opt, &got, &len, why, sizeof(why)), -EISDIR);
	assert_null(got);
}

static void a_failed_write_leaves_the_old_file_and_no_temporary(void **state)
{
	char inside[160];
	uint8_t *got;
	size_t len;

	(void)state;
	assert_int_equal(sp_file_write(path, "old", 3, 0600, why, sizeof(why)), 0);
	snprintf(inside, sizeof(inside), "%s/x", path); // a file is no folder
	assert_int_equal(sp_file_write(inside, "new", 3, 0600, why, sizeof(why)),
			 -ENOTDIR);
	assert_non_null(strstr(why, "cannot write"));
	// A folder cannot be replaced by a file: the rename fails, after the write.
	assert_int_equal(sp_file_write(dir, "new", 3, 0600, why, sizeof(why)), -EISDIR);
	assert_int_equal(read_with(9, false, &got, &len), 0);
	assert_string_equal((char *)got, "old");
	sp_file_free(got, len);
}

static void a_key_file_is_private_and_never_replaced(void **state)
{
	uint8_t key[32] = {1, 2, 3}, other[32] = {9}, got[32];
	struct stat st;

	(void)state;
	assert_int_equal(sp_key_save(path, SP_KEY_DEVICE, true, key, why, sizeof(why)),
			 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(sp_key_save(path, SP_KEY_DEVICE, true, other, why, sizeof(why)),
			 -EEXIST);
	assert_int_equal(sp_key_load(path, SP_KEY_DEVICE, true, got, why, sizeof(why)),
			 0);
	assert_memory_equal(got, key, sizeof(key));
	assert_int_equal(sp_key_load(path, SP_KEY_WORKER, true, got, why, sizeof(why)),
			 SP_E_MALFORMED);
	assert_non_null(strstr(why, "this is a secret device key"));
	assert_non_null(strstr(why, path));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	static const struct CMUnitTest tests[] = {
		T(what_was_written_is_read_with_its_mode),
		T(a_file_over_the_limit_is_refused),
		T(a_secret_that_others_may_read_is_refused_with_the_remedy),
		T(a_missing_file_and_a_folder_are_refused_by_name),
		T(a_failed_write_leaves_the_old_file_and_no_temporary),
		T(a_key_file_is_private_and_never_replaced),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
