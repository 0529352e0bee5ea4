// linkemu: networks for tests. Makes a network namespace with a TUN device for each end
// it is told of and carries packets between them through paths that delay, limit, lose,
// cut and freeze on command. This file: arguments, devices, the control channel, the
// loop.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tests/tools/linkemu/command.h"
#include "tests/tools/linkemu/tun.h"
#include "tests/tools/linkemu/values.h"

#define BATCH        64 // packets read from a device in one turn
#define CONTROLS_MAX 8
#define TICK_NS      200000 // sleeps end on multiples of it: many packets in one turn

static const char usage[] =
	"usage: linkemu [--seed N] [--control PATH] NAME=ADDRESS/BITS...\n"
	"For each NAME a network namespace with a TUN device of this IPv4 address, MTU\n"
	"1500; all of them in one network of BITS. Needs root and /dev/net/tun. Says\n"
	"\"ready NAME=/proc/PID/fd/N ...\" (namespaces, for nsenter --net=... or setns)\n"
	"and reads commands from standard input, whose end ends it, and from the unix\n"
	"socket PATH. Without commands packets pass at once.\n\n";

struct control {
	int in, out; // -1: unused
	size_t len;
	char line[EMU_LINE_MAX];
};

struct emulator {
	struct emu_world world;
	struct emu_tun tun[EMU_ENDS_MAX];
	struct control control[CONTROLS_MAX]; // the first is standard input
	int listener;
	uint64_t refused; // packets that a device did not take
	bool over;
};

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

// ---- devices ----

static void deliver(void *ctx, int end, const uint8_t *data, size_t len)
{
	struct emulator *m = ctx;
	if (write(m->tun[end].fd, data, len) != (ssize_t)len)
		m->refused++;
}

static void read_device(struct emulator *m, int end)
{
	uint64_t now = now_ns();
	for (int i = 0; i < BATCH; i++) {
		struct emu_packet *k = emu_pool_get(&m->world.pool);
		if (!k)
			return;
		ssize_t n = read(m->tun[end].fd, k->data, sizeof(k->data));
		if (n <= 0) {
			emu_pool_put(&m->world.pool, k);
			return;
		}
		k->len = (uint32_t)n;
		emu_world_put(&m->world, end, k, now);
	}
}

// ---- control ----

static void control_close(struct emulator *m, struct control *c)
{
	if (c == m->control) {
		m->over = true;
		return;
	}
	close(c->in);
	c->in = c->out = -1;
}

static void answer(struct control *c, const char *text)
{
	char line[EMU_LINE_MAX + 1];
	int n = snprintf(line, sizeof(line), "%s\n", text);
	for (int done = 0; done < n;) {
		ssize_t w = write(c->out, line + done, (size_t)(n - done));
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return; // it sees at its next read that nobody is there
		done += (int)w;
	}
}

static void read_control(struct emulator *m, struct control *c)
{
	char text[EMU_LINE_MAX], *end;
	ssize_t n = read(c->in, c->line + c->len, sizeof(c->line) - 1 - c->len);
	if (n <= 0) {
		if (n == 0 || (errno != EINTR && errno != EAGAIN))
			control_close(m, c);
		return;
	}
	c->len += (size_t)n;
	c->line[c->len] = 0;
	while ((end = memchr(c->line, '\n', c->len))) {
		*end = 0;
		if (!emu_command(&m->world, c->line, now_ns(), text))
			m->over = true;
		answer(c, text);
		size_t used = (size_t)(end + 1 - c->line);
		memmove(c->line, end + 1, c->len - used + 1);
		c->len -= used;
	}
	if (c->len == sizeof(c->line) - 1)
		control_close(m, c); // no line is that long
}

static void accept_control(struct emulator *m)
{
	int fd = accept4(m->listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	for (int i = 1; i < CONTROLS_MAX; i++)
		if (m->control[i].in < 0) {
			m->control[i].in = m->control[i].out = fd;
			m->control[i].len = 0;
			return;
		}
	close(fd); // one too many
}

static int listen_at(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	memcpy(sa.sun_path, path, strlen(path));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	mode_t was = umask(0177);
	int err = bind(fd, (struct sockaddr *)&sa, sizeof(sa)) || listen(fd, 4) ? -errno
										: 0;
	umask(was);
	if (err)
		close(fd);
	return err ? err : fd;
}

// ---- the loop ----

static int sleep_until(struct pollfd *p, nfds_t n, uint64_t due_ns)
{
	struct timespec t;
	uint64_t now = now_ns();
	if (due_ns == EMU_NEVER)
		return ppoll(p, n, NULL, NULL);
	due_ns = (due_ns + TICK_NS - 1) / TICK_NS * TICK_NS;
	uint64_t left = due_ns > now ? due_ns - now : 0;
	t = (struct timespec){(time_t)(left / 1000000000), (long)(left % 1000000000)};
	return ppoll(p, n, &t, NULL);
}

static void run(struct emulator *m)
{
	struct pollfd p[EMU_ENDS_MAX + CONTROLS_MAX + 1];
	uint64_t due = EMU_NEVER;
	while (!m->over) {
		nfds_t n = 0;
		for (int e = 0; e < m->world.n; e++)
			p[n++] = (struct pollfd){.fd = m->tun[e].fd, .events = POLLIN};
		for (int i = 0; i < CONTROLS_MAX; i++)
			p[n++] =
				(struct pollfd){.fd = m->control[i].in, .events = POLLIN};
		p[n++] = (struct pollfd){.fd = m->listener, .events = POLLIN};
		if (sleep_until(p, n, due) > 0) {
			n = 0;
			for (int e = 0; e < m->world.n; e++)
				if (p[n++].revents)
					read_device(m, e);
			for (int i = 0; i < CONTROLS_MAX; i++)
				if (p[n++].revents && m->control[i].in >= 0)
					read_control(m, &m->control[i]);
			if (p[n].revents)
				accept_control(m);
		}
		due = emu_world_run(&m->world, now_ns());
	}
}

// ---- start ----

static int add_end(struct emulator *m, char *text)
{
	char *address = strchr(text, '='), *bits = address ? strchr(address, '/') : NULL;
	struct emu_addr a;
	const char *why;
	if (!bits)
		return fprintf(stderr, "linkemu: not NAME=ADDRESS/BITS: %s\n", text),
		       -EINVAL;
	*address++ = 0;
	*bits++ = 0;
	char *end;
	unsigned long n = strtoul(bits, &end, 10);
	if (emu_parse_addr(address, &a) || a.port || *end || end == bits || n < 8 ||
	    n > 30)
		return fprintf(stderr, "linkemu: bad address of %s\n", text), -EINVAL;
	int e = emu_world_add(&m->world, text, a.ip);
	if (e < 0)
		return fprintf(stderr, "linkemu: end %s: %s\n", text, strerror(-e)), e;
	int err = emu_tun_open(a.ip, (unsigned)n, &m->tun[e], &why);
	if (err)
		fprintf(stderr, "linkemu: end %s: %s: %s\n", text, why, strerror(-err));
	return err;
}

static int start(struct emulator *m, int argc, char **argv)
{
	const char *path = NULL;
	uint64_t seed = 1;
	int i = 1, err;
	for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
		if (strcmp(argv[i], "--seed") == 0)
			seed = strtoull(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--control") == 0)
			path = argv[i + 1];
		else
			break;
	}
	if (i >= argc || argv[i][0] == '-')
		return fputs(usage, stderr), -EINVAL;
	err = emu_world_init(&m->world, seed, deliver, m);
	for (; !err && i < argc; i++)
		err = add_end(m, argv[i]);
	if (!err && path) {
		m->listener = listen_at(path);
		err = m->listener < 0 ? m->listener : 0;
		if (err)
			fprintf(stderr, "linkemu: %s: %s\n", path, strerror(-err));
	}
	return err;
}

int main(int argc, char **argv)
{
	static struct emulator m;
	if (argc > 1 && strcmp(argv[1], "--help") == 0)
		return fputs(usage, stdout), fputs(emu_command_help, stdout), 0;
	m.listener = -1;
	for (int i = 0; i < EMU_ENDS_MAX; i++)
		m.tun[i] = (struct emu_tun){-1, -1};
	for (int i = 0; i < CONTROLS_MAX; i++)
		m.control[i] = (struct control){.in = i ? -1 : 0, .out = i ? -1 : 1};
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_TIMERSLACK, 1000UL);
	// A network does not wait for the machine's other work; without the right, it
	// does.
	(void)setpriority(PRIO_PROCESS, 0, -15);
	int err = start(&m, argc, argv);
	if (!err) {
		printf("ready");
		for (int e = 0; e < m.world.n; e++)
			printf(" %s=/proc/%d/fd/%d", m.world.end[e].name, (int)getpid(),
			       m.tun[e].ns);
		printf("\n");
		fflush(stdout);
		run(&m);
		fprintf(stderr, "linkemu: packets that a device refused: %llu\n",
			(unsigned long long)m.refused);
	}
	for (int e = 0; e < EMU_ENDS_MAX; e++)
		emu_tun_close(&m.tun[e]);
	emu_world_done(&m.world);
	return err ? 1 : 0;
}
