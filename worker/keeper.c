#include "worker/keeper.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "worker/keeper_internal.h"

#define LOOK_MS    100
#define TRIAL_MS   2
#define HUNG       10 // looks without a tick
#define HUNG_START 100
#define GIVE_UP    8 // crashes within a minute, if it is no session's fault:
#define UNMARKED   4 // so many of them without a mark,
#define ONE_MARK   3 // or so many with the newest one's: its session should be gone
#define BUDGET_MS  60000

static uint64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t keeper_now_ms(void)
{
	return now_us() / 1000;
}

// The exit logs; of the exit's end nobody else can tell.
void keeper_say(const char *level, const char *text, int a, int b)
{
	struct timespec t;
	struct tm tm;
	char at[32];
	clock_gettime(CLOCK_REALTIME, &t);
	gmtime_r(&t.tv_sec, &tm);
	strftime(at, sizeof(at), "%Y-%m-%dT%H:%M:%S", &tm);
	dprintf(2, "time=%s.%03ldZ level=%s comp=keeper msg=\"%s\" signal=%d status=%d\n",
		at, t.tv_nsec / 1000000, level, text, a, b);
}

// ---- the file ----

static int map(int fd, struct wrk_life **ret)
{
	void *p = mmap(NULL, WRK_LIFE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	*ret = p;
	return 0;
}

static int open_new(struct keeper *k)
{
	k->fd = memfd_create("sallyport-arena", 0); // survives exec
	if (k->fd < 0)
		return -errno;
	int err = ftruncate(k->fd, WRK_LIFE_BYTES) ? -errno : map(k->fd, &k->life);
	if (err) {
		close(k->fd);
		return err;
	}
	k->life->version = WRK_LIFE_VERSION;
	k->life->magic = WRK_LIFE_MAGIC;
	return 0;
}

static int open_old(struct keeper *k, const char *text)
{
	k->fd = atoi(text);
	int err = k->fd > 2 ? map(k->fd, &k->life) : -EBADF;
	if (!err && (k->life->magic != WRK_LIFE_MAGIC ||
		     k->life->version + 1 < WRK_LIFE_VERSION ||
		     k->life->version > WRK_LIFE_VERSION + 1))
		err = -EPROTO;
	return err;
}

// ---- the exit ----

static int begin_exit(const struct keeper *k, pid_t parent, struct wrk_kept *ret)
{
	sigset_t asking;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EX_OSERR);
	(void)prctl(PR_SET_NAME, "sallyport-exit");
	// What asks for something waits until there is somebody to be asked.
	wrk_kept_signals(&asking);
	sigprocmask(SIG_SETMASK, &asking, NULL);
	unsetenv(KEEPER_ENV);
	unsetenv("WATCHDOG_PID"); // the keeper's; it is the exit that feeds the watchdog
	*ret = (struct wrk_kept){
		.life = k->life,
		.fd = k->fd,
		.heir = k->life->lives > 1,
		.trial = k->trial,
		.began_us = now_us(),
	};
	int err = keeper_list_inherited(ret);
	if (err) {
		keeper_say("error", "cannot read /proc/self/status", 0, -err);
		_exit(EX_OSERR);
	}
	return 0;
}

// 0: this is the exit.
static pid_t make_exit(struct keeper *k, struct wrk_kept *ret)
{
	pid_t parent = getpid();
	k->life->lives++;
	atomic_store(&k->life->phase, WRK_LIFE_STARTING);
	atomic_store(&k->life->mark, 0);
	k->ticks = atomic_load(&k->life->ticks);
	k->still = 0;
	k->hung = k->stopped = false;
	long pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0)
		begin_exit(k, parent, ret);
	return (pid_t)pid;
}

// ---- its end ----

static bool is_fault(int signo)
{
	return signo == SIGSEGV || signo == SIGBUS || signo == SIGILL ||
	       signo == SIGFPE || signo == SIGABRT || signo == SIGSYS;
}

static void note_crash(struct keeper *k)
{
	struct wrk_life *l = k->life;
	unsigned at = l->n_crashes % WRK_CRASHES;
	l->crash[at].at_ms = keeper_now_ms();
	l->crash[at].mark = atomic_load(&l->mark);
	l->n_crashes++;
}

unsigned wrk_life_crashes(const struct wrk_life *l, uint64_t mark, uint64_t within_ms)
{
	uint64_t now = keeper_now_ms();
	unsigned n = 0;
	for (unsigned i = 0; i < WRK_CRASHES && i < l->n_crashes; i++)
		n += now - l->crash[i].at_ms < within_ms &&
		     (!mark || l->crash[i].mark == mark);
	return n;
}

// Another exit would crash as well. A crash in a session's work is another matter: each
// takes one session away (worker/quarantine.h), and everybody else goes on.
static bool is_hopeless(const struct wrk_life *l)
{
	unsigned unmarked = 0;
	if (wrk_life_crashes(l, 0, BUDGET_MS) < GIVE_UP)
		return false;
	for (unsigned i = 0; i < WRK_CRASHES; i++)
		unmarked += l->crash[i].mark == 0;
	uint64_t newest = l->crash[(l->n_crashes - 1) % WRK_CRASHES].mark;
	return unmarked >= UNMARKED ||
	       (newest && wrk_life_crashes(l, newest, BUDGET_MS) >= ONE_MARK);
}

// The very image that runs now, whatever was installed since.
_Noreturn void keeper_execute_again(const struct keeper *k)
{
	char fd[16];
	snprintf(fd, sizeof(fd), "%d", k->fd);
	if (setenv(KEEPER_ENV, fd, 1) == 0)
		execv("/proc/self/exe", k->argv);
	keeper_say("error", "cannot execute itself: the flows are lost", 0, errno);
	_exit(EX_OSERR);
}

static void ended(struct keeper *k, int status)
{
	struct wrk_life *l = k->life;
	int signo = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
	bool started = atomic_load(&l->phase) != WRK_LIFE_STARTING;
	if (k->trial)
		keeper_trial_ended(k, status);
	if (keeper_upgrade_is_asked(k, status))
		keeper_upgrade(k);
	l->ended_ms = keeper_now_ms();
	if (!signo && (code == 0 || k->stopping || (!started && l->lives == 1)))
		_exit(code);
	if (k->stopping)
		_exit(EX_SOFTWARE);
	if (!signo && !started) {
		keeper_say("error", "the exit cannot begin; its flows wait", signo, code);
		usleep(1000000); // what it lacks may come: a config that holds
	} else if (!k->stopped && (k->hung || is_fault(signo) || !signo)) {
		l->hung += k->hung;
		note_crash(k);
	} else {
		l->stopped += k->stopped;
		l->killed += !k->stopped;
	}
	if (is_hopeless(l)) {
		keeper_say("error", "the exit crashes again and again", signo, code);
		_exit(EX_SOFTWARE);
	}
	if (signo || started)
		keeper_say("warn", "the exit ended; its flows go on with another", signo,
			   code);
	keeper_execute_again(k);
}

static void reap(struct keeper *k)
{
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == k->exit)
			ended(k, status);
}

// ---- watching ----

static bool is_stopped(pid_t pid)
{
	siginfo_t info = {0};
	return waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid == pid;
}

static void look(struct keeper *k)
{
	uint64_t ticks = atomic_load(&k->life->ticks);
	unsigned most =
		atomic_load(&k->life->phase) == WRK_LIFE_RUNNING ? HUNG : HUNG_START;
	k->still = ticks == k->ticks ? k->still + 1 : 0;
	k->ticks = ticks;
	if (k->still < most || k->hung)
		return;
	k->hung = true;
	k->stopped = is_stopped(k->exit);
	kill(k->exit, SIGKILL);
}

static void keep(struct keeper *k, const sigset_t *all)
{
	uint64_t next = keeper_now_ms() + LOOK_MS;
	for (;;) {
		const struct timespec every = {
			.tv_nsec = (k->trial ? TRIAL_MS : LOOK_MS) * 1000000};
		int signo = sigtimedwait(all, NULL, &every);
		reap(k);
		if (signo == SIGTERM || signo == SIGINT)
			k->stopping = true;
		if (signo > 0 && signo != SIGCHLD && signo != SIGPIPE)
			kill(k->exit, signo);
		keeper_trial_look(k);
		if (keeper_now_ms() < next || k->trial)
			continue;
		next = keeper_now_ms() + LOOK_MS;
		keeper_tie(k);
		look(k);
	}
}

int wrk_keeper_run(char **argv, struct wrk_kept *ret, char *why, size_t cap)
{
	struct keeper k = {.argv = argv, .fd = -1};
	const char *text = getenv(KEEPER_ENV);
	sigset_t all, was;
	int err = text ? 0 : keeper_rights(why, cap);
	if (err)
		return err;
	err = text ? open_old(&k, text) : open_new(&k);
	if (err) {
		snprintf(why, cap, "the arena's file: %s", strerror(-err));
		return err;
	}
	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGABRT);
	sigdelset(&all, SIGTSTP);
	sigprocmask(SIG_BLOCK, &all, &was);
	(void)prctl(PR_SET_DUMPABLE, 0);
	(void)prctl(PR_SET_NAME, "sallyport-keep");
	keeper_upgrade_begin(&k);
	k.exit = make_exit(&k, ret);
	if (k.exit == 0)
		return 0;
	if (k.exit > 0)
		keep(&k, &all);
	err = -errno;
	snprintf(why, cap, "clone of the exit: %s", strerror(-err));
	sigprocmask(SIG_SETMASK, &was, NULL);
	return err;
}
