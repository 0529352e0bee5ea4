#include "worker/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "lib/file.h"
#include "lib/log.h"
#include "lib/version.h"
#include "worker/control.h"
#include "worker/keeper_upgrade.h"
#include "worker/worker.h"

#define BACKLOG 8
#define WAITING 8 // commands that may wait; a further one is told so
#define ASK_S   5 // for a command to say what it asks for

struct asker {
	struct wrk_upgrader *up;
	struct event ev;
	int fd; // -1: free
};

struct wrk_upgrader {
	struct wrk_worker *w;
	int listener; // -1: none
	struct event accept;
	struct asker askers[WAITING];
	int heir;     // who asked for the upgrade that made this exit; -1: nobody
	int asked_by; // whom the reload under way is for; -1: a signal
	bool busy;    // one is under way
	bool again;   // signals came meanwhile: once more when it is over
	bool leaves;
	// the new image's --check
	struct event ended;
	struct sp_timer patience;
	int pidfd, said; // -1: none
	bool late;
};

static struct wrk_upgrade *shared(const struct wrk_worker *w)
{
	return w->kept ? wrk_upgrade_of(w->kept->life) : NULL;
}

// ---- answers ----

static void send_answer(int fd, int status, const char *text)
{
	char line[WRK_ASK_TEXT_MAX];
	int n = snprintf(line, sizeof(line), "%d %s", status, text);
	size_t len = (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1;
	(void)send(fd, line, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

// What was asked for is settled, here and now.
static void settle(struct wrk_upgrader *up, int status, const char *text)
{
	if (up->asked_by >= 0) {
		send_answer(up->asked_by, status, text);
		close(up->asked_by);
	}
	up->asked_by = -1;
	up->busy = false;
}

static void begin(struct wrk_upgrader *up, int asked_by, bool upgrade);

static void refuse(struct wrk_upgrader *up, const char *why)
{
	up->w->reloads_failed++;
	sp_error("reload", "kept the old config and program", "why=%s", why);
	settle(up, EX_CONFIG, why);
	sp_notify_ready(up->w->draining ? "draining" : "serving");
	if (up->again) {
		up->again = false;
		begin(up, -1, false);
	}
}

// ---- the image ----

// Whether the installed program is another than the one that runs. False, too, if there
// is none.
static bool is_new(const struct wrk_upgrade *u)
{
	struct stat runs, is;
	return stat(u->image, &is) == 0 && stat("/proc/self/exe", &runs) == 0 &&
	       (is.st_dev != runs.st_dev || is.st_ino != runs.st_ino);
}

// The keeper goes on when this process has ended, which is to leave all as it is. A
// signal that came meanwhile has what it wants: the new image reads the config as it is
// then.
static void go(struct wrk_upgrader *up)
{
	struct wrk_worker *w = up->w;
	struct wrk_upgrade *u = shared(w);
	u->asked_by = up->asked_by + 1;
	if (up->asked_by >= 0)
		(void)fcntl(up->asked_by, F_SETFD, 0);
	wrk_control_flush(w);
	atomic_store(&u->state, WRK_UPGRADE_ASKED);
	up->leaves = true;
	sp_info("reload", "makes way for the installed program", "image=%s", u->image);
	sp_loop_stop(w->loop);
}

// ---- the new image's own word, before anything is stopped ----

static void check_over(struct wrk_upgrader *up)
{
	sp_timer_set(&up->patience, SP_LOOP_NEVER);
	event_del(&up->ended);
	close(up->pidfd);
	close(up->said);
	up->pidfd = up->said = -1;
}

// The first line of what it wrote, without an end.
static void first_line(int fd, char *ret, size_t cap)
{
	ssize_t n = read(fd, ret, cap - 1);
	ret[n > 0 ? n : 0] = '\0';
	ret[strcspn(ret, "\r\n")] = '\0';
}

static void on_ended(evutil_socket_t fd, short what, void *arg)
{
	struct wrk_upgrader *up = arg;
	const char *image = shared(up->w)->image;
	char said[SP_WHY_MAX], why[3 * SP_WHY_MAX];
	siginfo_t info = {0};
	(void)fd;
	(void)what;
	(void)sp_loop_now_us(up->w->loop);
	if (waitid(P_PIDFD, (id_t)up->pidfd, &info, WEXITED | WNOHANG) || !info.si_pid)
		return;
	first_line(up->said, said, sizeof(said));
	check_over(up);
	if (info.si_code == CLD_EXITED && info.si_status == EX_OK) {
		if (up->w->draining)
			refuse(up, "the worker is about to end");
		else
			go(up);
		return;
	}
	if (up->late)
		snprintf(why, sizeof(why), "%.200s --check did not end in %d ms", image,
			 WRK_CHECK_MS);
	else if (*said)
		snprintf(why, sizeof(why), "%.200s --check: %s", image, said);
	else
		snprintf(why, sizeof(why), "%.200s --check: %s %d", image,
			 info.si_code == CLD_EXITED ? "status" : "signal",
			 info.si_status);
	refuse(up, why);
}

static void on_late(void *ctx)
{
	struct wrk_upgrader *up = ctx;
	up->late = true;
	(void)pidfd_send_signal(up->pidfd, SIGKILL, NULL, 0);
}

static int spawn_check(const struct wrk_upgrade *u, const char *config, int out,
		       pid_t *ret)
{
	const char *argv[] = {u->image, "--check", "-c", config, NULL};
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	sigset_t none, all;
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
		err = posix_spawn_file_actions_adddup2(&fa, 0, 1);
	if (!err)
		err = posix_spawn_file_actions_adddup2(&fa, out, 2);
	if (!err)
		err = posix_spawn_file_actions_addclosefrom_np(&fa, 3);
	if (!err)
		err = posix_spawnattr_setsigmask(&attr, &none);
	if (!err)
		err = posix_spawnattr_setsigdefault(&attr, &all);
	if (!err)
		err = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK |
							      POSIX_SPAWN_SETSIGDEF);
	if (!err)
		err = posix_spawn(ret, u->image, &fa, &attr,
				  (char *const *)(uintptr_t)argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&fa);
	return -err;
}

static int start_check(struct wrk_upgrader *up, int *said)
{
	struct event_base *base = sp_loop_base(up->w->loop);
	pid_t pid;
	if (pipe2(said, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	int err = spawn_check(shared(up->w), up->w->config_path, said[1], &pid);
	close(said[1]);
	up->pidfd = err ? -1 : pidfd_open(pid, 0);
	if (!err && up->pidfd < 0) {
		err = -errno;
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
	}
	if (err) {
		close(said[0]);
		return err;
	}
	up->said = said[0];
	up->late = false;
	event_assign(&up->ended, base, up->pidfd, EV_READ | EV_PERSIST, on_ended, up);
	(void)event_add(&up->ended, NULL);
	sp_timer_set(&up->patience,
		     sp_loop_now_us(up->w->loop) + UINT64_C(1000) * WRK_CHECK_MS);
	return 0;
}

static void check(struct wrk_upgrader *up)
{
	char why[2 * SP_WHY_MAX];
	int said[2], err = start_check(up, said);
	if (!err)
		return;
	snprintf(why, sizeof(why), "%.200s cannot be executed: %s", shared(up->w)->image,
		 sp_strerror(err));
	refuse(up, why);
}

// ---- what is asked for ----

static void begin(struct wrk_upgrader *up, int asked_by, bool upgrade)
{
	struct wrk_worker *w = up->w;
	const struct wrk_upgrade *u = shared(w);
	char why[2 * SP_WHY_MAX] = "";
	up->busy = true;
	up->asked_by = asked_by;
	if (!u && upgrade) {
		refuse(up, "a worker with --no-keeper cannot be upgraded; restart it");
		return;
	}
	sp_notify_reloading();
	switch (wrk_worker_reload(w, upgrade, u && is_new(u), why, sizeof(why))) {
	case WRK_RELOAD_DONE:
		settle(up, EX_OK, *why ? why : "the new config is in force");
		sp_notify_ready(w->draining ? "draining" : "serving");
		break;
	case WRK_RELOAD_REFUSED:
		settle(up, EX_CONFIG, why);
		sp_notify_ready(w->draining ? "draining" : "serving");
		break;
	case WRK_RELOAD_UPGRADE:
		if (w->draining)
			refuse(up, "the worker is about to end");
		else
			check(up);
		break;
	}
}

void wrk_upgrader_reload(struct wrk_worker *w)
{
	struct wrk_upgrader *up = w->upgrader;
	if (up->busy) {
		if (!up->again)
			sp_info("reload", "one is under way, another one follows", "");
		up->again = true;
	} else {
		begin(up, -1, false);
	}
}

static void on_request(evutil_socket_t fd, short what, void *arg)
{
	struct asker *a = arg;
	char text[16];
	ssize_t n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);
	(void)sp_loop_now_us(a->up->w->loop);
	event_del(&a->ev);
	a->fd = -1;
	text[n > 0 ? n : 0] = '\0';
	bool upgrade = !strcmp(text, "upgrade");
	if (what & EV_TIMEOUT && n < 0) {
		send_answer(fd, EX_TEMPFAIL, "nothing was asked in time");
	} else if (a->up->busy) {
		send_answer(fd, EX_TEMPFAIL, "another reload is under way");
	} else if (upgrade || !strcmp(text, "reload")) {
		begin(a->up, fd, upgrade);
		return;
	} else if (n > 0) {
		send_answer(fd, EX_USAGE, "unknown to this version");
	}
	close(fd);
}

static bool may_ask(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
	       (peer.uid == 0 || peer.uid == geteuid());
}

static void on_accept(evutil_socket_t listener, short what, void *arg)
{
	struct wrk_upgrader *up = arg;
	struct asker *a = up->askers;
	const struct timeval patience = {.tv_sec = ASK_S};
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	(void)what;
	if (fd < 0)
		return;
	while (a < up->askers + WAITING && a->fd >= 0)
		a++;
	if (!may_ask(fd)) {
		send_answer(fd, EX_NOPERM, "only root and the worker's own user may ask");
	} else if (a == up->askers + WAITING) {
		send_answer(fd, EX_TEMPFAIL, "too many ask at once");
	} else {
		event_assign(&a->ev, sp_loop_base(up->w->loop), fd, EV_READ, on_request,
			     a);
		if (event_add(&a->ev, &patience) == 0) {
			a->fd = fd;
			return;
		}
	}
	close(fd);
}

static int listen_for_asks(struct wrk_upgrader *up)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	char name[WRK_ASK_NAME_MAX];
	if (!wrk_ask_name(up->w->config_path, name, sizeof(name)))
		return -errno;
	size_t len = strlen(name);
	memcpy(sa.sun_path + 1, name, len);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&sa,
		 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len)) ||
	    listen(fd, BACKLOG)) {
		int err = -errno;
		close(fd);
		return err;
	}
	up->listener = fd;
	event_assign(&up->accept, sp_loop_base(up->w->loop), fd, EV_READ | EV_PERSIST,
		     on_accept, up);
	return event_add(&up->accept, NULL) ? -ENOMEM : 0;
}

// ---- beginning and end ----

// Whoever asked the last exit waits for an answer of this one.
static int inherit_asker(struct wrk_worker *w)
{
	struct wrk_upgrade *u = shared(w);
	int fd = u ? u->asked_by - 1 : -1;
	if (fd < 0 || fd >= w->kept->n_taken || w->kept->taken[fd])
		return -1;
	w->kept->taken[fd] = true;
	(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	return fd;
}

int wrk_upgrader_new(struct wrk_worker *w)
{
	struct wrk_upgrader *up = calloc(1, sizeof(*up));
	if (!up)
		return -ENOMEM;
	w->upgrader = up;
	up->w = w;
	up->listener = up->asked_by = up->pidfd = up->said = -1;
	for (int i = 0; i < WAITING; i++)
		up->askers[i] = (struct asker){.up = up, .fd = -1};
	sp_timer_init(&up->patience, w->loop, on_late, up);
	up->heir = inherit_asker(w);
	int err = listen_for_asks(up);
	if (err)
		sp_warn("worker", "commands cannot reach this worker", "error=%s",
			sp_strerror(err));
	return 0;
}

void wrk_upgrader_tell(struct wrk_worker *w)
{
	struct wrk_upgrade *u = shared(w);
	char text[WRK_ASK_TEXT_MAX];
	int fd = w->upgrader->heir;
	if (!u || !u->untold)
		return;
	if (u->untold == WRK_UPGRADE_DONE) {
		snprintf(text, sizeof(text),
			 "upgraded: version %s serves %u sessions, %u streams, %u flows; "
			 "%" PRIu64 " ms without service",
			 sp_version(), w->found.sessions, w->found.streams,
			 w->found.flows, u->stall_us / 1000);
		sp_info("reload", "upgraded", "version=%s stall_us=%" PRIu64,
			sp_version(), u->stall_us);
	} else {
		snprintf(text, sizeof(text),
			 "rolled back, %u streams go on with version %s: %s",
			 w->found.streams, sp_version(), u->why);
		sp_error("reload", "rolled back to the old program", "why=%s", u->why);
	}
	if (fd >= 0) {
		send_answer(fd, u->untold == WRK_UPGRADE_DONE ? EX_OK : EX_SOFTWARE,
			    text);
		close(fd);
	}
	w->upgrader->heir = -1;
	u->asked_by = 0;
	u->untold = WRK_UPGRADE_NOTHING;
}

void wrk_upgrader_free(struct wrk_worker *w)
{
	struct wrk_upgrader *up = w->upgrader;
	if (!up)
		return;
	if (up->pidfd >= 0) {
		(void)pidfd_send_signal(up->pidfd, SIGKILL, NULL, 0);
		check_over(up);
	}
	settle(up, EX_UNAVAILABLE, "the worker has ended");
	for (int i = 0; i < WAITING; i++)
		if (up->askers[i].fd >= 0) {
			event_del(&up->askers[i].ev);
			close(up->askers[i].fd);
		}
	if (up->listener >= 0) {
		event_del(&up->accept);
		close(up->listener);
	}
	if (up->heir >= 0)
		close(up->heir);
	sp_timer_done(&up->patience);
	free(up);
	w->upgrader = NULL;
}

bool wrk_upgrader_leaves(const struct wrk_worker *w)
{
	return w->upgrader && w->upgrader->leaves;
}
