// crashpoint: ends a worker's exit at a chosen instruction, again and again. It traces
// the keeper (ptrace), so that each new exit is stopped before its first instruction, and
// needs nothing of the program under test: production has no fail points. Used by
// test_worker_crash.py; whoever wants crashes inside a window, as a scenario of chaos,
// may run it beside its load. Not here: load, and whether bytes are right.
//
//   crashpoint --at recv --times 50 KEEPER
//       SIGKILL right after the kernel copied bytes from a destination and before the
//       exit could record that (the receive-to-record window); with --steps 400 at most
//       so many instructions later, at random.
//   crashpoint --at send --match POISON --how fault KEEPER
//       a wild jump instead of the send of bytes that contain POISON: a fault that comes
//       back whenever the client sends them again.
//       With --how hang it stands still there, until the keeper takes it for hung.
//   crashpoint --at send --how 105 --times 100 KEEPER
//       a hundred sends fail with errno 105 (ENOBUFS) and are not made; nothing ends. At
//       `socket`: of new sockets.
//
// A line for each end goes to standard output. It exits 0 after --times of them or when
// the keeper ended, 3 after --seconds.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PIECE 65536

enum where { AT_RECV, AT_SEND, AT_SOCKET };

static struct {
	enum where at;
	bool fault, hang;
	int error; // what the call gives instead of being made; 0: the exit ends
	const char *match;
	unsigned times, skip, steps, every_ms, seconds;
	pid_t keeper;

	unsigned done, skipped;
	uint64_t last_ms;
	bool failing; // at its exit it gives `error`
	bool entered; // the system call under way is of the kind that is waited for
	int fd;
	pid_t dying;
} c = {.times = 1, .seconds = 60};

static uint64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void trace(enum __ptrace_request what, pid_t pid, uintptr_t data)
{
	// A tracee that was killed meanwhile is reported by waitpid.
	if (ptrace(what, pid, NULL, (void *)data) && errno != ESRCH) {
		fprintf(stderr, "crashpoint: ptrace of %d: %s\n", (int)pid,
			strerror(errno));
		exit(1);
	}
}

// Sockets of destinations are those that outlive an exec.
static bool is_flow(pid_t pid, int fd)
{
	char path[64], line[128];
	unsigned flags = O_CLOEXEC;
	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)pid, fd);
	FILE *f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "flags: %o", &flags) == 1)
			break;
	if (f)
		fclose(f);
	return !(flags & O_CLOEXEC);
}

static bool contains(pid_t pid, uint64_t at, uint64_t len)
{
	static char buf[PIECE];
	struct iovec mine = {buf, len < PIECE ? len : PIECE};
	struct iovec theirs = {(void *)(uintptr_t)at, mine.iov_len};
	ssize_t n = process_vm_readv(pid, &mine, 1, &theirs, 1, 0);
	return n > 0 && memmem(buf, (size_t)n, c.match, strlen(c.match));
}

static bool is_place(pid_t pid, const struct __ptrace_syscall_info *i)
{
	static const uint64_t calls[] = {SYS_recvmsg, SYS_sendto, SYS_socket};
	if (i->op == PTRACE_SYSCALL_INFO_ENTRY) {
		c.entered = i->entry.nr == calls[c.at];
		c.fd = c.at == AT_SOCKET ? -1 : (int)i->entry.args[0];
		if (c.at == AT_SOCKET || (c.at == AT_RECV && c.error))
			return c.entered && (c.fd < 0 || is_flow(pid, c.fd));
		return c.at == AT_SEND && c.entered && is_flow(pid, c.fd) &&
		       (!c.match || contains(pid, i->entry.args[1], i->entry.args[2]));
	}
	return c.at == AT_RECV && !c.error && i->op == PTRACE_SYSCALL_INFO_EXIT &&
	       c.entered && i->exit.rval > 0 && is_flow(pid, c.fd);
}

// Instead of the system call that it is about to make, the process jumps nowhere.
static void derail(pid_t pid)
{
#ifdef __x86_64__
	struct user_regs_struct r;
	trace(PTRACE_GETREGS, pid, (uintptr_t)&r);
	r.orig_rax = (unsigned long long)-1;
	r.rip = 16;
	trace(PTRACE_SETREGS, pid, (uintptr_t)&r);
	trace(PTRACE_CONT, pid, 0);
#else
	(void)pid;
	fprintf(stderr, "crashpoint: --how fault is for x86-64\n");
	exit(1);
#endif
}

// It is not made; at its exit stop it gives `result`.
static void set_call(pid_t pid, bool entry, int result)
{
#ifdef __x86_64__
	struct user_regs_struct r;
	trace(PTRACE_GETREGS, pid, (uintptr_t)&r);
	if (entry)
		r.orig_rax = (unsigned long long)-1;
	else
		r.rax = (unsigned long long)(long long)result;
	trace(PTRACE_SETREGS, pid, (uintptr_t)&r);
#else
	(void)pid, (void)entry, (void)result;
	fprintf(stderr, "crashpoint: errors are for x86-64\n");
	exit(1);
#endif
}

static unsigned step(pid_t pid)
{
	unsigned n = c.steps ? (unsigned)random() % (c.steps + 1) : 0, i = 0;
	int status;
	for (; i < n; i++) {
		trace(PTRACE_SINGLESTEP, pid, 0);
		if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
			break;
	}
	return i;
}

static void tell(pid_t pid, unsigned steps)
{
	static const char *const words[] = {"recv", "send", "socket"};
	printf("%u pid=%d at=%s fd=%d steps=%u\n", c.done, (int)pid, words[c.at], c.fd,
	       steps);
	fflush(stdout);
}

static void end(pid_t pid)
{
	unsigned steps = c.fault || c.error || c.hang ? 0 : step(pid);
	if (c.error)
		set_call(pid, true, 0);
	else if (c.fault)
		derail(pid);
	else if (!c.hang)
		kill(pid, SIGKILL);
	c.failing = c.error != 0;
	c.dying = c.error ? 0 : pid;
	c.done++;
	c.skipped = 0;
	c.last_ms = now_ms();
	tell(pid, steps);
}

// Whether it was ended.
static bool syscall_stop(pid_t pid)
{
	struct __ptrace_syscall_info info = {0};
	if (c.failing) {
		set_call(pid, false, -c.error);
		c.failing = false;
		return false;
	}
	if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof(info), &info) < 0 ||
	    !is_place(pid, &info) || now_ms() - c.last_ms < c.every_ms ||
	    c.skipped++ < c.skip)
		return false;
	end(pid);
	return !c.error;
}

static void seize(pid_t pid)
{
	uintptr_t options = pid == c.keeper
				    ? PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE |
					      PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD
				    : PTRACE_O_TRACESYSGOOD;
	trace(PTRACE_SEIZE, pid, options);
	trace(PTRACE_INTERRUPT, pid, 0);
}

static void seize_all(void)
{
	char path[64];
	int pid;
	seize(c.keeper);
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)c.keeper,
		 (int)c.keeper);
	FILE *f = fopen(path, "r");
	while (f && fscanf(f, "%d", &pid) == 1)
		seize(pid);
	if (f)
		fclose(f);
}

static void stopped(pid_t pid, int status)
{
	int signo = WSTOPSIG(status), event = status >> 16;
	enum __ptrace_request on = pid == c.keeper ? PTRACE_CONT : PTRACE_SYSCALL;
	if (signo == (SIGTRAP | 0x80)) {
		if (!syscall_stop(pid))
			trace(on, pid, 0);
	} else if (event == PTRACE_EVENT_STOP && signo != SIGTRAP) {
		trace(PTRACE_LISTEN, pid, 0); // a group stop
	} else if (event == PTRACE_EVENT_STOP) {
		// A new exit has the keeper's options: its own children are nobody's.
		if (pid != c.keeper)
			trace(PTRACE_SETOPTIONS, pid, PTRACE_O_TRACESYSGOOD);
		trace(on, pid, 0);
	} else {
		trace(on, pid, event || signo == SIGTRAP ? 0 : (uintptr_t)signo);
	}
}

static unsigned number(const char *text)
{
	return (unsigned)strtoul(text, NULL, 0);
}

static bool parse(int argc, char **argv)
{
	static const struct option options[] = {
		{"at", required_argument, NULL, 'a'},
		{"how", required_argument, NULL, 'h'},
		{"match", required_argument, NULL, 'm'},
		{"times", required_argument, NULL, 't'},
		{"skip", required_argument, NULL, 'k'},
		{"steps", required_argument, NULL, 's'},
		{"every-ms", required_argument, NULL, 'e'},
		{"seconds", required_argument, NULL, 'S'},
		{"seed", required_argument, NULL, 'r'},
		{0},
	};
	int o;
	while ((o = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (o) {
		case 'a':
			c.at = !strcmp(optarg, "send")     ? AT_SEND
			       : !strcmp(optarg, "socket") ? AT_SOCKET
							   : AT_RECV;
			break;
		case 'h':
			c.fault = !strcmp(optarg, "fault");
			c.hang = !strcmp(optarg, "hang");
			c.error = (int)number(optarg);
			break;
		case 'm':
			c.match = optarg;
			break;
		case 't':
			c.times = number(optarg);
			break;
		case 'k':
			c.skip = number(optarg);
			break;
		case 's':
			c.steps = number(optarg);
			break;
		case 'e':
			c.every_ms = number(optarg);
			break;
		case 'S':
			c.seconds = number(optarg);
			break;
		case 'r':
			srandom(number(optarg));
			break;
		default:
			return false;
		}
	}
	c.keeper = optind + 1 == argc ? (pid_t)number(argv[optind]) : 0;
	return c.keeper > 1 && !(c.fault && c.at != AT_SEND) &&
	       !(c.at == AT_SOCKET && !c.error);
}

static void on_alarm(int signo)
{
	(void)signo; // waitpid ends
}

int main(int argc, char **argv)
{
	struct sigaction alarmed = {.sa_handler = on_alarm};
	int status;
	pid_t pid;
	if (!parse(argc, argv)) {
		fputs("usage: crashpoint --at recv|send|socket [--how "
		      "kill|fault|hang|ERRNO] "
		      "[--match "
		      "TEXT]\n"
		      "       [--times N] [--skip N] [--steps N] [--every-ms N] "
		      "[--seconds N]\n"
		      "       [--seed N] KEEPER (fault: at send; socket: ERRNO only)\n",
		      stderr);
		return 2;
	}
	sigaction(SIGALRM, &alarmed, NULL);
	alarm(c.seconds);
	seize_all();
	puts("tracing");
	fflush(stdout);
	while ((c.done < c.times || c.dying || c.failing) &&
	       (pid = waitpid(-1, &status, __WALL)) > 0) {
		if (WIFSTOPPED(status))
			stopped(pid, status);
		else if (pid == c.keeper)
			return 0;
		else if (pid == c.dying)
			c.dying = 0;
	}
	return c.done < c.times ? 3 : 0;
}
