#include "worker/keeper_upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "worker/keeper_internal.h"

#define LOOK_NS    1000000
#define BARRIER_US 1000000
#define CHILDREN   64

const double wrk_stall_bounds[WRK_STALL_BOUNDS] = {.01, .02, .03, .05, .075,
						   .1,  .15, .25, .5,  1};

struct wrk_upgrade *wrk_upgrade_of(struct wrk_life *l)
{
	return (struct wrk_upgrade *)((char *)l + WRK_UPGRADE_AT);
}

static void nap(void)
{
	const struct timespec t = {.tv_nsec = LOOK_NS};
	nanosleep(&t, NULL);
}

static bool step(struct wrk_upgrade *up, uint32_t from, uint32_t to)
{
	return atomic_compare_exchange_strong(&up->state, &from, to);
}

// ---- the image ----

// As it was called: a link that is set to another version is to be followed.
static void note_image(char *ret, size_t cap)
{
	const char *name = (const char *)(uintptr_t)getauxval(AT_EXECFN);
	char cwd[WRK_UPGRADE_IMAGE / 2] = "";
	int n = -1;
	if (name && *name == '/')
		n = snprintf(ret, cap, "%s", name);
	else if (name && getcwd(cwd, sizeof(cwd)))
		n = snprintf(ret, cap, "%s/%s", cwd, name);
	if (n < 0 || (size_t)n >= cap)
		*ret = '\0';
}

void keeper_upgrade_begin(struct keeper *k)
{
	k->up = wrk_upgrade_of(k->life);
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1); // what a trial leaves behind
	if (k->life->lives == 0)
		note_image(k->up->image, sizeof(k->up->image));
	k->guard = getppid();
	k->trial = atomic_load(&k->up->state) == WRK_UPGRADE_TRIAL &&
		   k->up->guard == k->guard;
}

// ---- the guard ----

// What the exit had for itself alone: carriers, so that clients notice; locks; listeners
// of its own that the next one makes anew.
static void close_private(const struct keeper *k)
{
	int n = keeper_table_size();
	for (int fd = 3; fd < n; fd++) {
		int flags = fd == k->fd ? -1 : fcntl(fd, F_GETFD);
		if (flags >= 0 && (flags & FD_CLOEXEC))
			close(fd);
	}
}

// Up to CHILDREN; how many.
static int list_children(pid_t *ret)
{
	char path[64];
	int n = 0;
	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	FILE *f = fopen(path, "re");
	for (int pid; f && n < CHILDREN && fscanf(f, "%d", &pid) == 1;)
		ret[n++] = pid;
	if (f)
		fclose(f);
	return n;
}

static bool has(const pid_t *pids, int n, pid_t pid)
{
	for (int i = 0; i < n; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

// Whatever the trial had started has its descriptors, and may write to the arena.
static void kill_strays(const pid_t *ours, int n_ours)
{
	pid_t now[CHILDREN];
	bool more = true;
	while (more) {
		int n = list_children(now);
		more = false;
		for (int i = 0; i < n; i++) {
			if (has(ours, n_ours, now[i]))
				continue;
			more = true;
			kill(now[i], SIGKILL);
			(void)waitpid(now[i], NULL, 0);
		}
	}
}

static void begin_trial(const struct keeper *k, pid_t guard)
{
	char fd[16];
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != guard)
		_exit(EX_OSERR);
	snprintf(fd, sizeof(fd), "%d", k->fd);
	if (setenv(KEEPER_ENV, fd, 1) == 0)
		execv(k->up->image, k->argv);
	k->up->exec_errno = errno;
	_exit(EX_OSERR);
}

static void describe(const struct keeper *k, int status, char *ret, size_t cap)
{
	struct wrk_upgrade *up = k->up;
	up->why[sizeof(up->why) - 1] = '\0';
	if (up->exec_errno)
		snprintf(ret, cap, "%.160s cannot be executed: %s", up->image,
			 strerror(up->exec_errno));
	else if (*up->why)
		snprintf(ret, cap, "%s", up->why);
	else if (WIFSIGNALED(status))
		snprintf(ret, cap, "the new image was ended by signal %d (%s)",
			 WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(ret, cap, "the new image ended with status %d",
			 WEXITSTATUS(status));
}

static bool is_to_end(void)
{
	sigset_t waits;
	return sigpending(&waits) == 0 &&
	       (sigismember(&waits, SIGTERM) || sigismember(&waits, SIGINT));
}

// Perhaps long ago: the next upgrade may have been asked for since.
static bool is_taken(uint32_t state)
{
	return state != WRK_UPGRADE_TRIAL && state != WRK_UPGRADE_TICKING &&
	       state != WRK_UPGRADE_ACCEPTED;
}

// Asked when the trial's first process has ended: the state may be of an instant before,
// or of another upgrade since then, whose guard is another.
static bool had_taken(const struct wrk_upgrade *up)
{
	return is_taken(atomic_load(&up->state)) || up->guard != getpid();
}

static int as_it_ended(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : EX_SOFTWARE;
}

// True: the worker is the trial's. A trial that took it and ended before that was seen is
// a keeper that ended: so does the worker. There is no way back: the arena may be of a
// version, and name descriptors, that this process does not know.
static bool watch(struct keeper *k, pid_t trial, char *ret_why, size_t cap)
{
	struct wrk_upgrade *up = k->up;
	uint64_t deadline = keeper_now_ms() + WRK_TRIAL_MS;
	for (;; nap()) {
		int status;
		(void)step(up, WRK_UPGRADE_TICKING, WRK_UPGRADE_ACCEPTED);
		if (is_taken(atomic_load(&up->state)))
			return true;
		if (waitpid(trial, &status, WNOHANG) == trial) {
			if (had_taken(up) && up->keeper == trial)
				_exit(as_it_ended(status));
			if (had_taken(up))
				return true;
			describe(k, status, ret_why, cap);
			return false;
		}
		if (is_to_end())
			snprintf(ret_why, cap, "the worker was told to end meanwhile");
		else if (keeper_now_ms() >= deadline)
			snprintf(ret_why, cap, "the new image did not take over in %d ms",
				 WRK_TRIAL_MS);
		else
			continue;
		if (step(up, WRK_UPGRADE_ACCEPTED, WRK_UPGRADE_NONE) ||
		    !is_taken(atomic_load(&up->state)))
			return false;
	}
}

static _Noreturn void roll_back(struct keeper *k, const char *why)
{
	struct wrk_upgrade *up = k->up;
	snprintf(up->why, sizeof(up->why), "%s", why);
	up->n_rolled_back++;
	up->untold = WRK_UPGRADE_ROLLED_BACK;
	atomic_store(&up->state, WRK_UPGRADE_NONE);
	keeper_say("error", "the new image was not taken; the old one goes on", 0, 0);
	keeper_execute_again(k);
}

// Signals that came for the worker meanwhile, and, of an anchor, all that come.
static void forward(const struct keeper *k, int signo)
{
	if (signo > 0 && signo != SIGCHLD && signo != SIGPIPE)
		kill(k->up->keeper, signo);
}

// What the service manager takes for the worker, where it cannot be told of another
// process: passes signals on, and ends as the worker does.
static _Noreturn void be_anchor(struct keeper *k)
{
	sigset_t all;
	int status;
	sigfillset(&all);
	(void)prctl(PR_SET_NAME, "sallyport-anch");
	for (;;) {
		pid_t keeper = k->up->keeper, pid;
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
			if (pid != keeper || k->up->keeper != keeper)
				continue;
			_exit(as_it_ended(status));
		}
		forward(k, sigwaitinfo(&all, NULL));
	}
}

// Its descriptors are copies: nobody is told anything by their end.
static _Noreturn void leave(struct keeper *k)
{
	const struct timespec none = {0};
	sigset_t all;
	int signo;
	sigfillset(&all);
	(void)close_range(3, ~0U, 0);
	while ((signo = sigtimedwait(&all, NULL, &none)) > 0)
		forward(k, signo);
	if (k->up->anchor == getpid())
		be_anchor(k);
	if (!k->up->anchor) {
		sd_notifyf(0, "MAINPID=%d", (int)k->up->keeper);
		(void)sd_notify_barrier(0, BARRIER_US);
	}
	_exit(EX_OK);
}

bool keeper_upgrade_is_asked(struct keeper *k, int status)
{
	struct wrk_upgrade *up = k->up;
	if (atomic_load(&up->state) != WRK_UPGRADE_ASKED)
		return false;
	if (WIFEXITED(status) && WEXITSTATUS(status) == EX_OK)
		return true;
	snprintf(up->why, sizeof(up->why), "the exit crashed on its way there");
	up->untold = WRK_UPGRADE_ROLLED_BACK;
	up->n_rolled_back++;
	atomic_store(&up->state, WRK_UPGRADE_NONE);
	return false;
}

_Noreturn void keeper_upgrade(struct keeper *k)
{
	struct wrk_upgrade *up = k->up;
	pid_t ours[CHILDREN], guard = getpid();
	struct stat file;
	char why[WRK_UPGRADE_WHY] = "";
	k->life->ended_ms = keeper_now_ms();
	if (k->stopping)
		kill(guard, SIGTERM); // it was on its way to the exit: for the next one
	close_private(k);
	int n = list_children(ours);
	bool known = fstat(k->fd, &file) == 0;
	up->guard = guard;
	up->exec_errno = 0;
	up->why[0] = '\0';
	if (!up->anchor && !getenv("NOTIFY_SOCKET"))
		up->anchor = guard;
	atomic_store(&up->state, WRK_UPGRADE_TRIAL);
	pid_t trial = fork();
	if (trial == 0)
		begin_trial(k, guard);
	if (trial < 0)
		snprintf(why, sizeof(why), "no process for it: %s", strerror(errno));
	else if (watch(k, trial, why, sizeof(why)))
		leave(k);
	if (trial > 0) {
		kill(trial, SIGKILL);
		(void)waitpid(trial, NULL, 0);
	}
	kill_strays(ours, n);
	if (known) // an arena of its own, if it had made one
		(void)!ftruncate(k->fd, file.st_size);
	if (up->anchor == guard)
		up->anchor = 0;
	roll_back(k, why);
}

// ---- the trial's keeper ----

void keeper_trial_look(struct keeper *k)
{
	struct wrk_upgrade *up = k->up;
	if (!k->trial || atomic_load(&up->state) != WRK_UPGRADE_ACCEPTED)
		return;
	(void)prctl(PR_SET_PDEATHSIG, 0); // the guard is about to leave
	up->keeper = getpid();
	if (!step(up, WRK_UPGRADE_ACCEPTED, WRK_UPGRADE_TAKEN))
		return;
	k->life->version = WRK_LIFE_VERSION;
	k->trial = false;
	k->tied = false;
}

_Noreturn void keeper_trial_ended(struct keeper *k, int status)
{
	char why[WRK_UPGRADE_WHY];
	if (WIFSIGNALED(status))
		snprintf(why, sizeof(why), "its exit was ended by signal %d (%s)",
			 WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(why, sizeof(why), "its exit ended with status %d",
			 WEXITSTATUS(status));
	if (!*k->up->why)
		snprintf(k->up->why, sizeof(k->up->why), "%s", why);
	_exit(EX_SOFTWARE);
}

void keeper_tie(struct keeper *k)
{
	pid_t anchor = k->up->anchor, parent = getppid();
	if (k->tied || k->trial || !anchor || anchor == getpid())
		return;
	if (parent == anchor) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		k->tied = getppid() == anchor;
	}
	if (!k->tied && getppid() != k->guard)
		_exit(EX_SOFTWARE); // it is gone
}

// ---- the trial's exit ----

bool wrk_trial_is(const struct wrk_kept *k)
{
	return k && k->trial;
}

void wrk_trial_object(const struct wrk_kept *k, const char *why)
{
	if (!wrk_trial_is(k))
		return;
	struct wrk_upgrade *up = wrk_upgrade_of(k->life);
	if (!*up->why)
		snprintf(up->why, sizeof(up->why), "%s", why);
}

void wrk_trial_settle(struct wrk_kept *k)
{
	struct wrk_upgrade *up = wrk_upgrade_of(k->life);
	(void)step(up, WRK_UPGRADE_TRIAL, WRK_UPGRADE_TICKING);
	while (!is_taken(atomic_load(&up->state))) {
		atomic_fetch_add(&k->life->ticks, 1);
		nap();
	}
	unsigned at = 0;
	up->stall_us = keeper_now_ms() * 1000 - k->life->ended_ms * 1000;
	while (at < WRK_STALL_BOUNDS &&
	       (double)up->stall_us > wrk_stall_bounds[at] * 1000000)
		at++;
	up->stalls[at]++;
	up->stalls_us += up->stall_us;
	up->n_done++;
	up->untold = WRK_UPGRADE_DONE;
	k->trial = false;
}
