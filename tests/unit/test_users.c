#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "worker/users.h"

static void a_user_is_found_by_name_while_it_has_sessions(void **state)
{
	struct wrk_users *t;
	(void)state;
	assert_int_equal(wrk_users_new(4, &t), 0);
	struct wrk_user *users[1000];
	char name[32];
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "user-%d", i);
		users[i] = wrk_users_get(t, name, 0);
		assert_non_null(users[i]);
		users[i]->sessions++;
		assert_ptr_equal(wrk_users_get(t, name, 0), users[i]);
	}
	assert_int_equal(wrk_users_count(t), 1000);
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "user-%d", i);
		assert_ptr_equal(wrk_users_find(t, name), users[i]);
		wrk_users_put(t, users[i]); // it has a session: stays
		assert_non_null(wrk_users_find(t, name));
		users[i]->sessions--;
		wrk_users_put(t, users[i]);
		assert_null(wrk_users_find(t, name));
	}
	assert_int_equal(wrk_users_count(t), 0);
	wrk_users_free(t);
}

static unsigned opens(struct wrk_user *u, uint32_t per_second, uint64_t now_us)
{
	unsigned n = 0;
	while (n < 100000 && wrk_user_may_open(u, per_second, now_us))
		n++;
	return n;
}

static void a_user_opens_at_its_rate_with_five_seconds_of_burst(void **state)
{
	struct wrk_users *t;
	(void)state;
	assert_int_equal(wrk_users_new(4, &t), 0);
	struct wrk_user *u = wrk_users_get(t, "u", 7000);
	assert_int_equal(opens(u, 200, 7000), 1000);
	assert_int_equal(opens(u, 200, 7000), 0);
	assert_int_equal(opens(u, 200, 7000 + 1000000), 200);
	assert_int_equal(opens(u, 200, 7000 + 1004999), 0);
	assert_int_equal(opens(u, 200, 7000 + 1005000), 1);
	assert_int_equal(opens(u, 200, 7000 + 3600000000ull), 1000);
	wrk_users_put(t, u);
	wrk_users_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_user_is_found_by_name_while_it_has_sessions),
		cmocka_unit_test(a_user_opens_at_its_rate_with_five_seconds_of_burst),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
