// Streams through a SOCKS5 proxy that are held open, each with a destination of this
// program, for what a crash of the worker costs: on the word "go PID" the process PID is
// killed (0: none) and at that instant every destination sends a byte; how long each
// takes to arrive is what is printed. Used by crash.py.
//
// usage: flowhold --socks PORT --flows N
// Prints READY once all are open, then one JSON line for each "go".
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/benchlib.h"

#define PATIENCE_NS UINT64_C(30000000000)

static void read_all(int fd, void *buf, size_t len)
{
	for (size_t n = 0; n < len;) {
		ssize_t got = read(fd, (char *)buf + n, len - n);
		if (got <= 0)
			bl_die("read");
		n += (size_t)got;
	}
}

static void write_all(int fd, const void *buf, size_t len)
{
	if (write(fd, buf, len) != (ssize_t)len)
		bl_die("write");
}

// ---- the destinations: a process of its own, for its descriptors ----

static void destinations(int listen_fd, uint32_t flows, int commands, int answers)
{
	int *fd = calloc(flows, sizeof(*fd));
	struct epoll_event ev = {.events = EPOLLIN};
	int ep = epoll_create1(0);
	char c;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!fd || ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, listen_fd, &ev))
		bl_die("destinations");
	for (uint32_t i = 0; i < flows; i++) {
		while (epoll_wait(ep, &ev, 1, -1) < 1)
			;
		fd[i] = bl_accept(listen_fd);
	}
	write_all(answers, "r", 1);
	while (read(commands, &c, 1) == 1)
		for (uint32_t i = 0; i < flows; i++)
			write_all(fd[i], &c, 1);
	exit(0);
}

// ---- the application ----

static int open_flow(uint16_t socks, uint16_t dest)
{
	uint8_t ask[13] = {5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1}, answer[12];
	int fd = bl_connect(socks, 0);
	if (fd < 0)
		bl_die("connect");
	ask[11] = (uint8_t)(dest >> 8);
	ask[12] = (uint8_t)dest;
	write_all(fd, ask, sizeof(ask));
	read_all(fd, answer, sizeof(answer));
	if (answer[3] != 0) {
		fprintf(stderr, "flowhold: SOCKS reply %u\n", answer[3]);
		exit(1);
	}
	return fd;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static void report(uint64_t *took_ns, uint32_t n, uint32_t flows, uint32_t reset)
{
	qsort(took_ns, n, sizeof(*took_ns), compare);
	printf("{\"flows\": %u, \"missing\": %u, \"reset\": %u, \"first_ms\": %.3f, "
	       "\"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n",
	       flows, flows - n, reset, n ? (double)took_ns[0] / 1e6 : 0,
	       n ? (double)took_ns[n / 2] / 1e6 : 0,
	       n ? (double)took_ns[(uint64_t)n * 99 / 100] / 1e6 : 0,
	       n ? (double)took_ns[n - 1] / 1e6 : 0);
	fflush(stdout);
}

static void go(int ep, uint32_t flows, int commands, pid_t pid)
{
	static struct epoll_event ev[256];
	uint64_t *took_ns = calloc(flows, sizeof(*took_ns));
	uint32_t n = 0, reset = 0;
	char buf[16];
	if (!took_ns)
		bl_die("calloc");
	uint64_t began = bl_now_ns();
	if (pid && kill(pid, SIGKILL))
		bl_die("kill");
	write_all(commands, "x", 1);
	while (n + reset < flows && bl_now_ns() - began < PATIENCE_NS) {
		int k = epoll_wait(ep, ev, 256, 100);
		for (int i = 0; i < k; i++) {
			if (read(ev[i].data.fd, buf, sizeof(buf)) > 0) {
				took_ns[n++] = bl_now_ns() - began;
				continue;
			}
			epoll_ctl(ep, EPOLL_CTL_DEL, ev[i].data.fd, NULL);
			reset++;
		}
	}
	report(took_ns, n, flows, reset);
	free(took_ns);
}

int main(int argc, char **argv)
{
	uint16_t socks = 0, dest;
	uint32_t flows = 0;
	int commands[2], answers[2], ep = epoll_create1(EPOLL_CLOEXEC);
	char line[64], c;
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--socks"))
			socks = (uint16_t)bl_number(argv[i + 1], 65535, "--socks");
		else if (!strcmp(argv[i], "--flows"))
			flows = (uint32_t)bl_number(argv[i + 1], 1000000, "--flows");
	}
	if (!socks || !flows || pipe(commands) || pipe(answers) || ep < 0) {
		fputs("usage: flowhold --socks PORT --flows N\n", stderr);
		return 2;
	}
	bl_raise_nofile();
	int listen_fd = bl_listen(0, &dest);
	if (fork() == 0)
		destinations(listen_fd, flows, commands[0], answers[1]);
	for (uint32_t i = 0; i < flows; i++) {
		struct epoll_event ev = {.events = EPOLLIN,
					 .data.fd = open_flow(socks, dest)};
		if (epoll_ctl(ep, EPOLL_CTL_ADD, ev.data.fd, &ev))
			bl_die("epoll_ctl");
	}
	read_all(answers[0], &c, 1);
	puts("READY");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		if (!strncmp(line, "go ", 3))
			go(ep, flows, commands[1], (pid_t)atoi(line + 3));
	return 0;
}
