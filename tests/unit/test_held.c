// The revision held: what is saved is what is loaded, and nothing else is taken for one.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/file.h"
#include "lib/held.h"

static char folder[] = "/tmp/sallyport-test-XXXXXX", path[64];
static char why[SP_WHY_MAX];

static int setup(void **state)
{
	(void)state;
	strcpy(folder + strlen(folder) - 6, "XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/revision", folder);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	(void)unlink(path);
	return rmdir(folder);
}

static void none_is_the_lowest(void **state)
{
	struct sp_fleet_revision r = {7, 7};
	(void)state;
	assert_int_equal(sp_held_load(path, &r, why, sizeof(why)), 0);
	assert_true(r.epoch == 0 && r.sequence == 0);
}

static void what_is_saved_is_loaded(void **state)
{
	struct sp_fleet_revision all[] = {{1, 1}, {UINT32_MAX, UINT64_MAX}, {2, 0}}, r;
	(void)state;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		assert_int_equal(sp_held_save(path, &all[i], why, sizeof(why)), 0);
		assert_int_equal(sp_held_load(path, &r, why, sizeof(why)), 0);
		assert_int_equal(sp_fleet_revision_compare(&r, &all[i]), 0);
	}
}

static void what_is_no_revision_is_refused_with_the_remedy(void **state)
{
	static const char *const bad[] = {"", "1", "1.", "x.1\n", "1.2 3\n", "1.2\n\n3"};
	struct sp_fleet_revision r;
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(sp_file_write(path, bad[i], strlen(bad[i]), 0600, why,
					       sizeof(why)),
				 0);
		assert_int_equal(sp_held_load(path, &r, why, sizeof(why)),
				 SP_E_MALFORMED);
		assert_non_null(strstr(why, "remove it"));
		assert_non_null(strstr(why, path));
	}
}

static void a_folder_that_is_gone_is_told(void **state)
{
	struct sp_fleet_revision r = {1, 1};
	(void)state;
	assert_true(sp_held_save("/nonexistent/revision", &r, why, sizeof(why)) < 0);
	assert_non_null(strstr(why, "/nonexistent/revision"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(none_is_the_lowest),
		T(what_is_saved_is_loaded),
		T(what_is_no_revision_is_refused_with_the_remedy),
		T(a_folder_that_is_gone_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
