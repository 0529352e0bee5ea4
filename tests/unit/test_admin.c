// The private listener: answers, methods, limits. A client of plain sockets in the same
// loop.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/admin.h"

static const struct sp_metric one = {"sp_one", SP_METRIC_COUNTER, "one", {NULL}};

struct world {
	struct sp_loop *loop;
	struct sp_admin *admin;
	struct sp_target addr;
	bool config_ok;
	char got[65536];
};

static void write_metrics(void *ctx, struct sp_metrics_writer *w)
{
	(void)ctx;
	sp_metrics_family(w, &one);
	sp_metrics_u64(w, 1, NULL);
}

static void check_ready(void *ctx, struct sp_ready *r)
{
	struct world *w = ctx;
	sp_ready_check(r, "config", w->config_ok, w->config_ok ? "3" : "none is valid");
	sp_ready_check(r, "listeners", true, NULL);
}

static const struct sp_admin_ops ops = {write_metrics, check_ready, 400};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct sp_target any;

	*state = w;
	if (sp_loop_new(&w->loop) || sp_target_parse("127.0.0.1:0", &any) ||
	    sp_admin_new(w->loop, &any, &ops, w, &w->admin))
		return -1;
	sp_admin_address(w->admin, &w->addr);
	w->config_ok = true;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	sp_admin_free(w->admin);
	sp_loop_free(w->loop);
	free(w);
	return 0;
}

static int dial(struct world *w)
{
	struct sockaddr_storage ss;
	socklen_t len;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(sp_target_to_sockaddr(&w->addr, &ss, &len), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&ss, len), 0);
	return fd;
}

static void send_text(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

// Turns the loop until the server ends the connection, at most a few seconds.
static const char *read_to_end(struct world *w, int fd)
{
	size_t len = 0;
	uint64_t deadline = sp_loop_refresh(w->loop) + 20000000;

	while (sp_loop_now_us(w->loop) < deadline) {
		assert_int_equal(sp_loop_turn(w->loop, false), 0);
		ssize_t n =
			recv(fd, w->got + len, sizeof(w->got) - 1 - len, MSG_DONTWAIT);
		if (n > 0)
			len += (size_t)n;
		else if (n == 0 || errno != EAGAIN)
			break;
	}
	w->got[len] = '\0';
	close(fd);
	return w->got;
}

static const char *ask(struct world *w, const char *request)
{
	int fd = dial(w);
	send_text(fd, request);
	return read_to_end(w, fd);
}

static const char *body(const char *response)
{
	const char *p = strstr(response, "\r\n\r\n");
	return p ? p + 4 : "";
}

#define CLOSE "Connection: close\r\n\r\n"

static void metrics_come_in_the_text_format(void **state)
{
	const char *r = ask(*state, "GET /metrics HTTP/1.1\r\nHost: a\r\n" CLOSE);
	assert_memory_equal(r, "HTTP/1.1 200 ", 13);
	assert_non_null(
		strstr(r, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
	assert_memory_equal(body(r), "# HELP sp_one_total one\n", 24);
	assert_non_null(strstr(r, "\nprocess_cpu_seconds_total "));
	assert_null(strstr(r, "# EOF"));
}

static void metrics_come_as_openmetrics_where_that_is_asked_for(void **state)
{
	const char *r = ask(*state, "GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: "
				    "application/openmetrics-text\r\n" CLOSE);
	assert_non_null(strstr(r, "Content-Type: application/openmetrics-text; "
				  "version=1.0.0; charset=utf-8\r\n"));
	assert_string_equal(r + strlen(r) - 6, "# EOF\n");
}

static void head_gives_the_headers_alone(void **state)
{
	const char *r = ask(*state, "HEAD /livez HTTP/1.1\r\nHost: a\r\n" CLOSE);
	assert_memory_equal(r, "HTTP/1.1 200 ", 13);
	assert_non_null(strstr(r, "Content-Length: 3\r\n"));
	assert_string_equal(body(r), "");
}

static void readiness_is_503_with_what_failed(void **state)
{
	struct world *w = *state;
	const char *r = ask(w, "GET /readyz HTTP/1.1\r\nHost: a\r\n" CLOSE);

	assert_memory_equal(r, "HTTP/1.1 200 ", 13);
	assert_string_equal(body(r), "ready\n");
	w->config_ok = false;
	r = ask(w, "GET /readyz HTTP/1.1\r\nHost: a\r\n" CLOSE);
	assert_memory_equal(r, "HTTP/1.1 503 ", 13);
	assert_string_equal(body(r), "[-] config: none is valid\nnot ready\n");
	r = ask(w, "GET /readyz?verbose HTTP/1.1\r\nHost: a\r\n" CLOSE);
	assert_string_equal(body(r),
			    "[-] config: none is valid\n[+] listeners\nnot ready\n");
	r = ask(w, "GET /readyz?a=b&verbose=1 HTTP/1.1\r\nHost: a\r\n" CLOSE);
	assert_non_null(strstr(body(r), "[+] listeners\n"));
}

static void other_methods_and_paths_are_refused(void **state)
{
	static const char *const methods[] = {"POST", "PUT", "DELETE", "PATCH",
					      "OPTIONS"};
	char request[128];

	for (unsigned i = 0; i < 5; i++) {
		snprintf(request, sizeof(request),
			 "%s /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n" CLOSE,
			 methods[i]);
		const char *r = ask(*state, request);
		assert_memory_equal(r, "HTTP/1.1 405 ", 13);
		assert_non_null(strstr(r, "Allow: GET, HEAD\r\n"));
	}
	assert_memory_equal(ask(*state, "GET /secret HTTP/1.1\r\nHost: a\r\n" CLOSE),
			    "HTTP/1.1 404 ", 13);
	assert_memory_equal(ask(*state, "GET / HTTP/2.0\r\nHost: a\r\n" CLOSE),
			    "HTTP/1.1 505 ", 13);
}

static void malformed_heads_are_refused(void **state)
{
	static const char *const bad[] = {
		"\x16\x03\x01 nonsense\r\n\r\n",
		"GET\r\n\r\n",
		"GET /livez\r\n\r\n",
		"GET  HTTP/1.1\r\n\r\n",
		"GET /livez XTTP/1.1\r\n\r\n",
		"GET /liv\x01z HTTP/1.1\r\n\r\n",
		"GET /livez HTTP/1.1\r\nno colon\r\n\r\n",
		"GET /livez HTTP/1.1\r\nA : b\r\n\r\n",
		"\r\n\r\n",
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_memory_equal(ask(*state, bad[i]), "HTTP/1.1 400 ", 13);
}

static void a_head_that_is_too_long_is_refused(void **state)
{
	static char request[SP_ADMIN_HEAD_MAX * 3];
	int n = snprintf(request, sizeof(request),
			 "GET /livez HTTP/1.1\r\nHost: a\r\nX: ");

	memset(request + n, 'x', sizeof(request) - 1 - (size_t)n);
	assert_memory_equal(ask(*state, request), "HTTP/1.1 431 ", 13);
}

static void a_body_is_ignored_and_does_not_hurt_the_answer(void **state)
{
	static char request[200000];
	int n = snprintf(request, sizeof(request),
			 "POST /livez HTTP/1.1\r\nContent-Length: 199000\r\n\r\n");

	memset(request + n, 'x', sizeof(request) - 1 - (size_t)n);
	const char *r = ask(*state, request);
	assert_memory_equal(r, "HTTP/1.1 405 ", 13);
	assert_string_equal(body(r), "GET and HEAD only\n");
}

static void a_request_may_come_byte_by_byte(void **state)
{
	const char *request = "GET /livez HTTP/1.0\r\n\r\n";
	struct world *w = *state;
	int fd = dial(w);

	for (const char *p = request; *p; p++) {
		assert_int_equal(send(fd, p, 1, MSG_NOSIGNAL), 1);
		assert_int_equal(sp_loop_turn(w->loop, false), 0);
	}
	assert_string_equal(body(read_to_end(w, fd)), "ok\n");
}

static void who_closes_one_direction_still_gets_the_answer(void **state)
{
	struct world *w = *state;
	int fd = dial(w);

	send_text(fd, "GET /metrics HTTP/1.1\r\n\r\n");
	shutdown(fd, SHUT_WR);
	assert_memory_equal(read_to_end(w, fd), "HTTP/1.1 200 ", 13);
}

static bool is_closed(int fd)
{
	char c;
	ssize_t n = recv(fd, &c, 1, MSG_DONTWAIT | MSG_PEEK);
	return n == 0 || (n < 0 && errno != EAGAIN);
}

static void beyond_the_limit_the_oldest_connection_goes(void **state)
{
	struct world *w = *state;
	int held[SP_ADMIN_CONNECTIONS_MAX + 8];

	for (unsigned i = 0; i < SP_ADMIN_CONNECTIONS_MAX + 8; i++) {
		held[i] = dial(w);
		assert_int_equal(sp_loop_turn(w->loop, true), 0);
	}
	assert_int_equal(sp_loop_turn(w->loop, false), 0); // libevent closes a turn later
	for (unsigned i = 0; i < SP_ADMIN_CONNECTIONS_MAX + 8; i++)
		assert_int_equal(is_closed(held[i]), i < 8);
	send_text(held[8], "GET /livez HTTP/1.1\r\n\r\n");
	assert_string_equal(body(read_to_end(w, held[8])), "ok\n");
	for (unsigned i = 0; i < SP_ADMIN_CONNECTIONS_MAX + 8; i++)
		if (i != 8)
			close(held[i]);
}

struct drip {
	struct sp_timer timer;
	int fd;
};

static void drip(void *ctx)
{
	struct drip *d = ctx;
	send(d->fd, "x", 1, MSG_NOSIGNAL);
	sp_timer_set(&d->timer, sp_loop_now_us(d->timer.loop) + 5000);
}

static void a_connection_is_closed_after_its_time_whatever_it_does(void **state)
{
	struct world *w = *state;
	struct drip slow = {.fd = dial(w)};
	uint64_t began = sp_loop_refresh(w->loop);
	int silent = dial(w);

	sp_timer_init(&slow.timer, w->loop, drip, &slow);
	drip(&slow);
	while (!is_closed(silent) || !is_closed(slow.fd)) {
		assert_int_equal(sp_loop_turn(w->loop, true), 0);
		assert_true(sp_loop_refresh(w->loop) < began + 10000000);
	}
	assert_true(sp_loop_refresh(w->loop) >= began + ops.timeout_ms * 1000);
	sp_timer_done(&slow.timer);
	close(silent);
	close(slow.fd);
}

static void it_can_be_freed_with_connections_open(void **state)
{
	struct world *w = *state;
	int a = dial(w), b = dial(w);

	send_text(b, "GET /met");
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(sp_loop_turn(w->loop, false), 0);
	sp_admin_free(w->admin);
	w->admin = NULL;
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(sp_loop_turn(w->loop, false), 0);
	assert_true(is_closed(a));
	close(a);
	close(b);
}

static void an_address_that_is_taken_or_a_name_is_an_error(void **state)
{
	struct world *w = *state;
	struct sp_admin *again = NULL;
	struct sp_target name;

	assert_int_equal(sp_admin_new(w->loop, &w->addr, &ops, w, &again), -EADDRINUSE);
	assert_int_equal(sp_target_parse("localhost:80", &name), 0);
	assert_int_equal(sp_admin_new(w->loop, &name, &ops, w, &again), SP_E_MALFORMED);
	assert_null(again);
}

// No more descriptors than are open now.
static struct rlimit leave_no_descriptors(void)
{
	struct rlimit old, now;
	int next = open("/dev/null", O_RDONLY | O_CLOEXEC);

	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	now = old;
	now.rlim_cur = (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
	return old;
}

static void metrics_are_seen_when_no_descriptor_is_left(void **state)
{
	struct world *w = *state;

	for (unsigned i = 0; i < 2; i++) { // what was lent is taken back
		int fd = dial(w);
		struct rlimit old = leave_no_descriptors();
		send_text(fd, "GET /livez HTTP/1.1\r\nHost: a\r\n" CLOSE);
		const char *r = read_to_end(w, fd);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
		assert_memory_equal(r, "HTTP/1.1 200 ", 13);
	}
}

static void without_descriptors_it_waits_and_does_not_spin(void **state)
{
	struct world *w = *state;
	unsigned turns = 0;
	int fd[3];

	for (unsigned i = 0; i < 3; i++)
		fd[i] = dial(w);
	struct rlimit old = leave_no_descriptors();
	uint64_t start = sp_loop_refresh(w->loop);
	for (; sp_loop_refresh(w->loop) < start + 300000; turns++)
		assert_int_equal(sp_loop_turn(w->loop, true), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_true(turns < 20);
	// Nobody was sent away.
	send_text(fd[2], "GET /livez HTTP/1.1\r\nHost: a\r\n" CLOSE);
	assert_memory_equal(read_to_end(w, fd[2]), "HTTP/1.1 200 ", 13);
	close(fd[0]);
	close(fd[1]);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	static const struct CMUnitTest tests[] = {
		T(metrics_come_in_the_text_format),
		T(metrics_come_as_openmetrics_where_that_is_asked_for),
		T(head_gives_the_headers_alone),
		T(readiness_is_503_with_what_failed),
		T(other_methods_and_paths_are_refused),
		T(malformed_heads_are_refused),
		T(a_head_that_is_too_long_is_refused),
		T(a_body_is_ignored_and_does_not_hurt_the_answer),
		T(a_request_may_come_byte_by_byte),
		T(who_closes_one_direction_still_gets_the_answer),
		T(beyond_the_limit_the_oldest_connection_goes),
		T(a_connection_is_closed_after_its_time_whatever_it_does),
		T(metrics_are_seen_when_no_descriptor_is_left),
		T(without_descriptors_it_waits_and_does_not_spin),
		T(it_can_be_freed_with_connections_open),
		T(an_address_that_is_taken_or_a_name_is_an_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
