#include "tests/bench/benchlib.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

void bl_pattern(uint8_t *buf)
{
	uint64_t x = 0x9e3779b97f4a7c15;

	for (size_t i = 0; i < BL_PATTERN_BYTES; i += 8) {
		x ^= x << 13; // xorshift64
		x ^= x >> 7;
		x ^= x << 17;
		bl_put64(buf + i, x);
	}
}

uint64_t bl_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

unsigned bl_raise_nofile(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		bl_die("getrlimit");
	lim.rlim_cur = lim.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &lim) < 0)
		bl_die("setrlimit");
	return lim.rlim_cur > 1 << 20 ? 1 << 20 : (unsigned)lim.rlim_cur;
}

static struct sockaddr_in loopback(uint16_t port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_port = htons(port),
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

int bl_listen(uint16_t port, uint16_t *ret_port)
{
	struct sockaddr_in sa = loopback(port);
	socklen_t len = sizeof(sa);
	int one = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		bl_die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 4096) < 0 ||
	    getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		bl_die("listen on 127.0.0.1");
	*ret_port = ntohs(sa.sin_port);
	return fd;
}

int bl_accept(int listen_fd)
{
	struct pollfd p = {.fd = listen_fd, .events = POLLIN};
	int one = 1;

	for (;;) {
		int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0) {
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
			return fd;
		}
		if (errno == EAGAIN)
			poll(&p, 1, -1);
		else if (errno != EINTR && errno != ECONNABORTED)
			bl_die("accept");
	}
}

int bl_connect(uint16_t port, int nonblock)
{
	struct sockaddr_in sa = loopback(port);
	int one = 1;
	int fd = socket(AF_INET,
			SOCK_STREAM | SOCK_CLOEXEC | (nonblock ? SOCK_NONBLOCK : 0), 0);

	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 && errno != EINPROGRESS) {
		int err = errno;

		close(fd);
		return -err;
	}
	return fd;
}

uint64_t bl_number(const char *text, uint64_t max, const char *what)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(text ? text : "", &end, 10);
	if (errno || !text || end == text || *end || *text == '-' || v > max) {
		fprintf(stderr, "%s: not a number from 0 to %llu: %s\n", what,
			(unsigned long long)max, text ? text : "(nothing)");
		exit(2);
	}
	return v;
}

void bl_die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

void bl_put64(uint8_t *to, uint64_t value)
{
	for (int i = 7; i >= 0; i--, value >>= 8)
		to[i] = (uint8_t)value;
}

uint64_t bl_get64(const uint8_t *from)
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v = v << 8 | from[i];
	return v;
}
