// `sallyport-worker --reload` and `--upgrade`: asks the running worker and waits.
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/text.h"
#include "worker/upgrade.h"

#define NOBODY_MS 3000 // while another upgrade is under way, nobody answers
#define ANSWER_MS 30000
#define TRIES     10

bool wrk_ask_name(const char *config_path, char *ret, size_t cap)
{
	uint8_t hash[16];
	char hex[2 * sizeof(hash) + 1];
	char *path = realpath(config_path, NULL);
	if (!path)
		return false;
	crypto_generichash(hash, sizeof(hash), (const uint8_t *)path, strlen(path), NULL,
			   0);
	free(path);
	sodium_bin2hex(hex, sizeof(hex), hash, sizeof(hash));
	snprintf(ret, cap, "sallyport-worker/%s", hex);
	return true;
}

static uint64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool is_trusted(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
	       (peer.uid == geteuid() || peer.uid == 0 || geteuid() == 0);
}

// The descriptor; -errno.
static int reach(const char *name)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	size_t len = strlen(name);
	memcpy(sa.sun_path + 1, name, len);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&sa,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len)) == 0) {
		if (is_trusted(fd))
			return fd;
		errno = EPERM;
	}
	int err = -errno;
	close(fd);
	return err;
}

static int reach_patiently(const char *name)
{
	uint64_t until = now_ms() + NOBODY_MS;
	for (;;) {
		int fd = reach(name);
		if (fd != -ECONNREFUSED || now_ms() >= until)
			return fd;
		usleep(20000);
	}
}

// Length of the answer; 0: the exit ended without one; -errno.
static ssize_t ask(int fd, const char *what, char *ret, size_t cap)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	if (send(fd, what, strlen(what), MSG_NOSIGNAL) < 0)
		return errno == EPIPE ? 0 : -errno;
	int n = poll(&p, 1, ANSWER_MS);
	if (n <= 0)
		return n ? -errno : -ETIMEDOUT;
	ssize_t len = recv(fd, ret, cap - 1, 0);
	if (len < 0)
		return errno == ECONNRESET ? 0 : -errno;
	ret[len] = '\0';
	return len;
}

static int complain(const char *config_path, int err)
{
	if (err == ECONNREFUSED)
		fprintf(stderr,
			"sallyport-worker: no worker with the config %s runs here\n",
			config_path);
	else
		fprintf(stderr, "sallyport-worker: the worker with the config %s: %s\n",
			config_path, strerror(err));
	return err == EPERM ? EX_NOPERM : EX_UNAVAILABLE;
}

// An answer is an exit status, a space and a text.
int wrk_ask(const char *config_path, const char *what)
{
	char name[WRK_ASK_NAME_MAX], text[WRK_ASK_TEXT_MAX], *rest;
	if (!wrk_ask_name(config_path, name, sizeof(name))) {
		fprintf(stderr, "sallyport-worker: %s: %s\n", config_path,
			strerror(errno));
		return EX_CONFIG;
	}
	ssize_t n = 0;
	for (int i = 0; i < TRIES && n == 0; i++) {
		int fd = reach_patiently(name);
		if (fd < 0)
			return complain(config_path, -fd);
		n = ask(fd, what, text, sizeof(text));
		close(fd);
	}
	if (n <= 0)
		return complain(config_path, n ? (int)-n : ECONNRESET);
	long status = strtol(text, &rest, 10);
	rest += *rest == ' ';
	if (status == EX_OK)
		printf("%s\n", rest);
	else
		fprintf(stderr, "sallyport-worker: %s\n", rest);
	return (int)status;
}
