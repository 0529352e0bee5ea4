#include "worker/agent_link.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/log.h"
#include "worker/local.h"

#define AGENT_FD   3 // the agent's end of the link
#define LOOK_US    500000
#define WAIT_MIN   100000 // before the next start, doubled with each death
#define WAIT_MAX   30000000
#define GOOD_US    30000000 // having lived so long, the wait begins anew
#define BATCH      64       // packets a wakeup
#define KINDS_MAX  32
#define SOCKET_BUF (1 << 20)

struct handler {
	wrk_agent_handler call;
	void *ctx;
};

struct wrk_agent_link {
	struct wrk_agent_options opt;
	struct wrk_agent_counters n;
	struct handler handlers[KINDS_MAX];
	struct sp_timer look; // hang, or the next start
	struct event readable, ended;
	int sock, pidfd; // -1: none
	pid_t pid;
	uint64_t calls;
	uint64_t started_us, heard_us, wait_us;
	bool killed;
	uint8_t buf[WRK_LOCAL_PACKET_MAX];
};

static uint64_t now_us(struct wrk_agent_link *l)
{
	return sp_loop_now_us(l->opt.loop);
}

// ---- the process ----

// Nothing of ours for it but where its log goes: its memory is not ours to configure, and
// it must not speak to the service manager in our name.
static bool may_inherit(const char *variable)
{
	static const char *const names[] = {
		"PATH=",           "TZ=",           "LANG=",
		"JOURNAL_STREAM=", "ASAN_OPTIONS=", "UBSAN_OPTIONS=",
		"TSAN_OPTIONS=",   "LSAN_OPTIONS="};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strncmp(variable, names[i], strlen(names[i])))
			return true;
	return false;
}

static int spawn(const char *const *argv, int sock, pid_t *ret)
{
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	sigset_t none, all;
	char *env[16];
	size_t n = 0;
	for (char **e = environ; *e && n < 15; e++)
		if (may_inherit(*e))
			env[n++] = *e;
	env[n] = NULL;
	sigemptyset(&none);
	sigfillset(&all);
	if (posix_spawn_file_actions_init(&fa))
		return -ENOMEM;
	if (posix_spawnattr_init(&attr)) {
		posix_spawn_file_actions_destroy(&fa);
		return -ENOMEM;
	}
	int err = posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDWR, 0);
	if (!err)
		err = posix_spawn_file_actions_adddup2(&fa, 2, 1);
	if (!err)
		err = posix_spawn_file_actions_adddup2(&fa, sock, AGENT_FD);
	if (!err)
		err = posix_spawn_file_actions_addclosefrom_np(&fa, AGENT_FD + 1);
	if (!err)
		err = posix_spawnattr_setsigmask(&attr, &none);
	if (!err)
		err = posix_spawnattr_setsigdefault(&attr, &all);
	if (!err)
		err = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK |
							      POSIX_SPAWN_SETSIGDEF);
	if (!err)
		err = posix_spawn(ret, argv[0], &fa, &attr,
				  (char *const *)(uintptr_t)argv, env);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&fa);
	return -err;
}

// `ours` and `theirs` are non-blocking; the agent's end is dup'ed above what is free, as
// dup2 onto itself would leave close-on-exec set.
static int socket_pair(int *ours, int *theirs)
{
	int sv[2], size = SOCKET_BUF;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv))
		return -errno;
	int high = fcntl(sv[1], F_DUPFD_CLOEXEC, AGENT_FD + 1);
	int err = high < 0 ? -errno : 0;
	close(sv[1]);
	if (err) {
		close(sv[0]);
		return err;
	}
	(void)setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	(void)setsockopt(high, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	*ours = sv[0];
	*theirs = high;
	return 0;
}

static void kill_agent(struct wrk_agent_link *l)
{
	if (l->pidfd >= 0 && !l->killed)
		(void)pidfd_send_signal(l->pidfd, SIGKILL, NULL, 0);
	l->killed = true;
}

static void close_socket(struct wrk_agent_link *l)
{
	if (l->sock < 0)
		return;
	event_del(&l->readable);
	close(l->sock);
	l->sock = -1;
	if (l->opt.down)
		l->opt.down(l->opt.ctx);
}

static void plan_start(struct wrk_agent_link *l)
{
	if (l->started_us && now_us(l) - l->started_us >= GOOD_US)
		l->wait_us = 0;
	l->wait_us = l->wait_us ? 2 * l->wait_us : WAIT_MIN;
	if (l->wait_us > WAIT_MAX)
		l->wait_us = WAIT_MAX;
	sp_timer_set(&l->look, now_us(l) + l->wait_us);
}

// ---- packets ----

static void dispatch(struct wrk_agent_link *l, size_t len, int fd)
{
	Sallyport__Local__FromAgent *m =
		sallyport__local__from_agent__unpack(NULL, len, l->buf);
	unsigned kind = m ? (unsigned)m->body_case : 0;
	if (!m)
		l->n.malformed++;
	else if (kind < KINDS_MAX && l->handlers[kind].call)
		l->handlers[kind].call(l->handlers[kind].ctx, m, fd);
	else if (kind != SALLYPORT__LOCAL__FROM_AGENT__BODY_PING)
		l->n.unknown++;
	if (m)
		sallyport__local__from_agent__free_unpacked(m, NULL);
	if (fd >= 0)
		close(fd);
}

static void read_packets(struct wrk_agent_link *l)
{
	for (int i = 0; i < BATCH && l->sock >= 0; i++) {
		int fd = -1;
		ssize_t n = wrk_local_receive(l->sock, l->buf, &fd);
		if (n == -EAGAIN)
			return;
		if (n == SP_E_LIMIT) {
			l->n.malformed++;
			continue;
		}
		if (n <= 0) { // no link, no use
			close_socket(l);
			kill_agent(l);
			return;
		}
		l->heard_us = now_us(l);
		l->n.received++;
		dispatch(l, (size_t)n, fd);
	}
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct wrk_agent_link *l = arg;
	(void)fd;
	(void)what;
	(void)now_us(l);
	read_packets(l);
}

static void on_ended(evutil_socket_t fd, short what, void *arg)
{
	struct wrk_agent_link *l = arg;
	siginfo_t info = {0};
	(void)fd;
	(void)what;
	if (waitid(P_PIDFD, (id_t)l->pidfd, &info, WEXITED | WNOHANG) || !info.si_pid)
		return;
	event_del(&l->ended);
	close(l->pidfd);
	l->pidfd = -1;
	l->pid = 0;
	l->n.died++;
	if (l->sock >= 0)
		read_packets(l); // what it still said
	close_socket(l);
	plan_start(l);
	sp_warn("agent", "it ended; traffic goes on without it",
		"how=%s status=%d restart_ms=%u",
		info.si_code == CLD_EXITED ? "exit" : "signal", info.si_status,
		(unsigned)(l->wait_us / 1000));
}

static int watch(struct wrk_agent_link *l, pid_t pid, int ours)
{
	struct event_base *base = sp_loop_base(l->opt.loop);
	l->pidfd = pidfd_open(pid, 0);
	if (l->pidfd < 0)
		return -errno;
	l->sock = ours;
	l->pid = pid;
	l->killed = false;
	event_assign(&l->readable, base, ours, EV_READ | EV_PERSIST, on_readable, l);
	event_assign(&l->ended, base, l->pidfd, EV_READ | EV_PERSIST, on_ended, l);
	return event_add(&l->readable, NULL) || event_add(&l->ended, NULL) ? -ENOMEM : 0;
}

static int start(struct wrk_agent_link *l)
{
	int ours = -1, theirs = -1;
	pid_t pid;
	int err = socket_pair(&ours, &theirs);
	if (err)
		return err;
	err = spawn(l->opt.argv, theirs, &pid);
	close(theirs);
	if (err) {
		close(ours);
		return err;
	}
	err = watch(l, pid, ours);
	if (!err)
		return 0;
	// Not to be watched: it ends by the end of its link.
	if (l->pidfd >= 0)
		close(l->pidfd);
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	close(ours);
	l->sock = l->pidfd = -1;
	l->pid = 0;
	return err;
}

static void on_look(void *ctx)
{
	struct wrk_agent_link *l = ctx;
	uint64_t silence =
		1000ull * (l->opt.silence_ms ? l->opt.silence_ms : WRK_AGENT_SILENCE_MS);
	if (l->pidfd < 0) {
		int err = start(l);
		l->started_us = l->heard_us = now_us(l);
		if (err) {
			plan_start(l);
			sp_error("agent", "cannot start it", "error=%s",
				 sp_strerror(err));
			return;
		}
		l->n.started++;
		sp_info("agent", "started", "pid=%d", (int)l->pid);
		sp_timer_set(&l->look, now_us(l) + LOOK_US);
		if (l->opt.up)
			l->opt.up(l->opt.ctx);
		return;
	}
	// Perhaps it was us who did not look for so long.
	if (now_us(l) - l->heard_us >= silence && l->sock >= 0)
		read_packets(l);
	if (now_us(l) - l->heard_us >= silence && !l->killed) {
		l->n.hung++;
		sp_warn("agent", "it hangs and is killed", "pid=%d", (int)l->pid);
		kill_agent(l);
	}
	sp_timer_set(&l->look, now_us(l) + LOOK_US);
}

// ---- the link ----

int wrk_agent_link_new(const struct wrk_agent_options *opt, struct wrk_agent_link **ret)
{
	struct wrk_agent_link *l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->opt = *opt;
	l->sock = l->pidfd = -1;
	sp_timer_init(&l->look, opt->loop, on_look, l);
	sp_timer_set(&l->look, now_us(l));
	*ret = l;
	return 0;
}

void wrk_agent_link_free(struct wrk_agent_link *l)
{
	if (!l)
		return;
	l->opt.down = NULL;
	close_socket(l);
	if (l->pidfd >= 0) {
		event_del(&l->ended);
		close(l->pidfd);
	}
	sp_timer_done(&l->look);
	free(l);
}

void wrk_agent_link_on(struct wrk_agent_link *l,
		       Sallyport__Local__FromAgent__BodyCase kind,
		       wrk_agent_handler handler, void *ctx)
{
	if ((unsigned)kind < KINDS_MAX)
		l->handlers[kind] = (struct handler){handler, ctx};
}

bool wrk_agent_link_is_up(const struct wrk_agent_link *l)
{
	return l->sock >= 0;
}

pid_t wrk_agent_link_pid(const struct wrk_agent_link *l)
{
	return l->pid;
}

uint64_t wrk_agent_link_call(struct wrk_agent_link *l)
{
	return ++l->calls;
}

int wrk_agent_link_send(struct wrk_agent_link *l, const Sallyport__Local__FromExit *m,
			int fd)
{
	int err = l->sock < 0 ? -ENOTCONN : wrk_local_send(l->sock, &m->base, fd);
	if (err)
		l->n.unsent++;
	else
		l->n.sent++;
	return err;
}

const struct wrk_agent_counters *wrk_agent_link_counters(const struct wrk_agent_link *l)
{
	return &l->n;
}
