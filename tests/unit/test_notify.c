// Messages to the service manager, received on a socket of our own.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/notify.h"

static int manager = -1;
static char got[512];

static int setup(void **state)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	char name[64];

	(void)state;
	// An abstract address: '@' stands for the NUL in NOTIFY_SOCKET.
	int n = snprintf(name, sizeof(name), "@sp-test-notify-%d", (int)getpid());
	memcpy(sun.sun_path, name, (size_t)n);
	sun.sun_path[0] = '\0';
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n);
	if (manager < 0 || bind(manager, (struct sockaddr *)&sun, len))
		return -1;
	return setenv("NOTIFY_SOCKET", name, 1);
}

static int teardown(void **state)
{
	(void)state;
	close(manager);
	unsetenv("WATCHDOG_USEC");
	return unsetenv("NOTIFY_SOCKET");
}

static const char *next_message(void)
{
	ssize_t n = recv(manager, got, sizeof(got) - 1, 0);
	got[n < 0 ? 0 : n] = '\0';
	return got;
}

static void start_reload_and_stop_are_told(void **state)
{
	(void)state;
	sp_notify_ready("serving 2 listeners");
	assert_string_equal(next_message(), "READY=1\nSTATUS=serving 2 listeners");
	sp_notify_reloading();
	assert_memory_equal(next_message(), "RELOADING=1\nMONOTONIC_USEC=", 27);
	assert_true(strtoull(got + 27, NULL, 10) > 0);
	sp_notify_stopping("draining");
	assert_string_equal(next_message(), "STOPPING=1\nSTATUS=draining");
}

static void without_a_manager_nothing_happens(void **state)
{
	(void)state;
	unsetenv("NOTIFY_SOCKET");
	sp_notify_ready("x");
	assert_string_equal(next_message(), "");
}

static void the_watchdog_is_fed_twice_in_its_time(void **state)
{
	struct sp_loop *loop;
	struct sp_watchdog w;
	unsigned fed = 0;

	(void)state;
	assert_int_equal(sp_loop_new(&loop), 0);
	setenv("WATCHDOG_USEC", "20000", 1);
	sp_watchdog_init(&w, loop);
	assert_int_equal(w.every_us, 10000);
	uint64_t began = sp_loop_refresh(loop);
	while (fed < 5) {
		if (strcmp(next_message(), "WATCHDOG=1") == 0)
			fed++;
		else
			assert_int_equal(sp_loop_turn(loop, true), 0);
	}
	assert_true(sp_loop_refresh(loop) - began >= 40000);
	sp_watchdog_done(&w);
	assert_int_equal(sp_loop_turn(loop, true), -EDEADLK);
	sp_loop_free(loop);
}

static void no_watchdog_is_fed_where_none_is_wanted(void **state)
{
	struct sp_loop *loop;
	struct sp_watchdog w;

	(void)state;
	assert_int_equal(sp_loop_new(&loop), 0);
	sp_watchdog_init(&w, loop);
	assert_int_equal(sp_loop_turn(loop, true), -EDEADLK);
	assert_string_equal(next_message(), "");
	sp_watchdog_done(&w);
	sp_loop_free(loop);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	static const struct CMUnitTest tests[] = {
		T(start_reload_and_stop_are_told),
		T(without_a_manager_nothing_happens),
		T(the_watchdog_is_fed_twice_in_its_time),
		T(no_watchdog_is_fed_where_none_is_wanted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
