// What the kernel says of a socket's offsets against what was really read and written,
// while the other side sends.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/offsets.h"

#define SENT (8u << 20)

static int listen_on_loopback(struct sockaddr_in *sa)
{
	socklen_t len = sizeof(*sa);
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	*sa = (struct sockaddr_in){.sin_family = AF_INET};
	sa->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_true(fd >= 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(fd, (struct sockaddr *)sa, sizeof(*sa)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)sa, &len), 0);
	return fd;
}

// Takes all and sends SENT bytes in pieces of all sizes, then its end.
static void destination(int fd)
{
	static char buf[65536];
	uint32_t left = SENT, seed = 7;
	alarm(60);
	while (left) {
		seed = seed * 1103515245 + 12345;
		size_t n = 1 + (seed >> 8) % ((seed >> 28) ? 3000 : sizeof(buf));
		ssize_t sent = send(fd, buf, n < left ? n : left, MSG_NOSIGNAL);
		if (sent <= 0)
			_exit(1);
		left -= (uint32_t)sent;
		while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
			;
	}
	shutdown(fd, SHUT_WR);
	while (recv(fd, buf, sizeof(buf), 0) > 0)
		;
	_exit(0);
}

static int connect_to_destination(pid_t *ret_pid)
{
	struct sockaddr_in sa;
	int listener = listen_on_loopback(&sa), on = 1;
	*ret_pid = fork();
	assert_true(*ret_pid >= 0);
	if (*ret_pid == 0)
		destination(accept(listener, NULL, NULL));
	close(listener);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on));
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static void offsets_are_exact_while_bytes_come_and_at_both_ends(void **state)
{
	static char buf[65536];
	uint64_t got = 0, written = 0;
	uint32_t seed = 3;
	struct wrk_offsets off;
	pid_t pid;
	int status, samples = 0, fd = connect_to_destination(&pid);
	(void)state;
	for (ssize_t n = 1; n > 0; got += (uint64_t)n) {
		assert_int_equal(wrk_offsets_get(fd, &off), 0);
		assert_int_equal(off.read, got);
		assert_int_equal(off.written, written);
		assert_false(off.closed || off.sent_fin);
		seed = seed * 1103515245 + 12345;
		ssize_t out = send(fd, buf, 1 + (seed >> 16) % 5000, MSG_DONTWAIT);
		written += out > 0 ? (uint64_t)out : 0;
		samples++;
		n = recv(fd, buf, 1 + (seed >> 8) % sizeof(buf), 0);
		assert_true(n >= 0);
	}
	assert_int_equal(got, SENT);
	assert_true(samples > 100);
	assert_int_equal(wrk_offsets_get(fd, &off), 0);
	assert_int_equal(off.read, SENT);
	assert_int_equal(off.written, written);
	assert_true(off.got_fin);
	shutdown(fd, SHUT_WR);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(wrk_offsets_get(fd, &off), 0);
	assert_int_equal(off.read, SENT);
	assert_true(off.got_fin);
	close(fd);
}

static void what_is_no_connected_tcp_socket_has_none(void **state)
{
	struct wrk_offsets off;
	struct sockaddr_in sa;
	int udp = socket(AF_INET, SOCK_DGRAM, 0), tcp = listen_on_loopback(&sa), pipes[2];
	(void)state;
	assert_int_equal(pipe(pipes), 0);
	assert_true(wrk_offsets_get(udp, &off) < 0);
	assert_true(wrk_offsets_get(tcp, &off) < 0);
	assert_true(wrk_offsets_get(pipes[0], &off) < 0);
	assert_true(wrk_offsets_get(-1, &off) < 0);
	close(udp);
	close(tcp);
	close(pipes[0]);
	close(pipes[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(offsets_are_exact_while_bytes_come_and_at_both_ends),
		cmocka_unit_test(what_is_no_connected_tcp_socket_has_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
