// cutter: TCP forwarders whose connections can be reset, frozen and slowed on command, to
// stand between a client and a server under test.
//
//   cutter NAME=LISTEN_PORT:TARGET_PORT ...       all on 127.0.0.1
//
// Commands, one a line on standard input, each answered by one line on standard output:
//   reset NAME    RST both sides of every connection          -> ok reset NAME COUNT
//   freeze NAME   connections that stand now forward nothing  -> ok freeze NAME COUNT
//   thaw NAME     they go on                                  -> ok thaw NAME COUNT
//   hole NAME     as freeze, and new connections are swallowed too; thaw undoes it
//   hole NAME PID the same for what process PID connects, and for nobody else: found by
//                 the socket's inode in /proc, so PID must be the caller's to look at
//   count NAME    -> ok count NAME CONNECTIONS BYTES
// Ends at end of input.
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUF_BYTES 262144

struct conn;

struct half {
	struct conn *c;
	int fd;
	uint8_t *buf; // read from this fd, to be written to the other; NULL when empty
	size_t len, off;
	bool eof, eof_sent;
};

struct conn {
	LIST_ENTRY(conn) link;
	struct path *path;
	struct half h[2];
	bool frozen, dead;
};

struct path {
	struct half listener; // c is NULL
	char name[32];
	int target_port;
	bool hole;
	long hole_pid; // the hole is for this process alone; 0: for all
	unsigned long long bytes;
	LIST_HEAD(, conn) conns;
};

static int ep;
static struct path paths[16];
static int n_paths;
static uint8_t scratch[BUF_BYTES];

static int tcp_socket(void)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static struct sockaddr_in loopback(int port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port)};
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return sa;
}

static void watch(struct half *h, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.ptr = h};
	epoll_ctl(ep, EPOLL_CTL_ADD, h->fd, &e);
}

static void conn_end(struct conn *c, bool reset)
{
	if (c->dead)
		return;
	c->dead = true;
	for (int i = 0; i < 2; i++) {
		struct linger l = {1, 0};
		if (reset)
			setsockopt(c->h[i].fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
		close(c->h[i].fd);
		free(c->h[i].buf);
	}
}

static void reap(void)
{
	for (int i = 0; i < n_paths; i++) {
		struct conn *c = LIST_FIRST(&paths[i].conns), *next;
		for (; c; c = next) {
			next = LIST_NEXT(c, link);
			if (c->dead) {
				LIST_REMOVE(c, link);
				free(c);
			}
		}
	}
}

// Inode of the socket of loopback that is connected from `port` to `to`; 0: none.
static unsigned long inode_of(int port, int to)
{
	unsigned long inode, found = 0;
	char line[512];
	unsigned local, remote;
	FILE *f = fopen("/proc/net/tcp", "re");
	while (f && !found && fgets(line, sizeof(line), f))
		if (sscanf(line,
			   "%*d: %*8x:%4x %*8x:%4x %*x %*x:%*x %*x:%*x %*x %*u %*u %lu",
			   &local, &remote, &inode) == 3 &&
		    (int)local == port && (int)remote == to)
			found = inode;
	if (f)
		fclose(f);
	return found;
}

// Whether `pid` holds that socket; -1: its descriptors cannot be looked at.
static int holds(long pid, unsigned long inode)
{
	char path[64], want[64], is[64];
	struct dirent *e;
	int found = 0;
	snprintf(path, sizeof(path), "/proc/%ld/fd", pid);
	snprintf(want, sizeof(want), "socket:[%lu]", inode);
	DIR *d = opendir(path);
	if (!d)
		return -1;
	while (!found && (e = readdir(d))) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, is, sizeof(is) - 1);
		is[n > 0 ? n : 0] = '\0';
		found = strcmp(is, want) == 0;
	}
	closedir(d);
	return found;
}

// Whether an accepted connection is of those that the hole is for.
static bool is_swallowed(const struct path *p, int fd)
{
	struct sockaddr_in from, to;
	socklen_t a = sizeof(from), b = sizeof(to);
	if (p->hole_pid == 0)
		return true;
	return getpeername(fd, (struct sockaddr *)&from, &a) == 0 &&
	       getsockname(fd, (struct sockaddr *)&to, &b) == 0 &&
	       holds(p->hole_pid, inode_of(ntohs(from.sin_port), ntohs(to.sin_port))) ==
		       1;
}

static void path_accept(struct path *p)
{
	for (;;) {
		int fd =
			accept4(p->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			return;
		struct conn *c = calloc(1, sizeof(*c));
		int out = tcp_socket();
		struct sockaddr_in sa = loopback(p->target_port);
		if (!c || out < 0 ||
		    (connect(out, (struct sockaddr *)&sa, sizeof(sa)) &&
		     errno != EINPROGRESS)) {
			close(fd);
			if (out >= 0)
				close(out);
			free(c);
			continue;
		}
		int one = 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		c->path = p;
		c->frozen = p->hole && is_swallowed(p, fd);
		c->h[0] = (struct half){.c = c, .fd = fd};
		c->h[1] = (struct half){.c = c, .fd = out};
		LIST_INSERT_HEAD(&p->conns, c, link);
		watch(&c->h[0], EPOLLIN | EPOLLOUT | EPOLLET);
		watch(&c->h[1], EPOLLIN | EPOLLOUT | EPOLLET);
	}
}

// Writes what is held. False: the socket is full or the connection ended.
static bool drain(struct half *from, struct half *to)
{
	while (from->buf && from->off < from->len) {
		ssize_t n = send(to->fd, from->buf + from->off, from->len - from->off,
				 MSG_NOSIGNAL);
		if (n < 0) {
			if (errno != EAGAIN && errno != ENOTCONN)
				conn_end(from->c, true);
			return false;
		}
		from->off += (size_t)n;
		from->c->path->bytes += (unsigned long long)n;
	}
	free(from->buf);
	from->buf = NULL;
	if (from->eof && !from->eof_sent) {
		from->eof_sent = true;
		shutdown(to->fd, SHUT_WR);
	}
	return true;
}

static void pump(struct half *from, struct half *to)
{
	struct conn *c = from->c;
	while (!c->dead && !c->frozen && drain(from, to) && !from->eof) {
		ssize_t n = recv(from->fd, scratch, sizeof(scratch), 0);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			conn_end(c, true);
			return;
		}
		if (n == 0) {
			from->eof = true;
			continue;
		}
		from->buf = malloc((size_t)n);
		if (!from->buf)
			abort();
		memcpy(from->buf, scratch, (size_t)n);
		from->off = 0;
		from->len = (size_t)n;
	}
}

static void conn_pump(struct conn *c)
{
	pump(&c->h[0], &c->h[1]);
	if (!c->dead)
		pump(&c->h[1], &c->h[0]);
	if (!c->dead && c->h[0].eof_sent && c->h[1].eof_sent)
		conn_end(c, false);
}

static struct path *path_find(const char *name)
{
	for (int i = 0; i < n_paths; i++)
		if (strcmp(paths[i].name, name) == 0)
			return &paths[i];
	return NULL;
}

static void command(char *line)
{
	char verb[16], name[32];
	long pid = 0;
	struct path *p;
	if (sscanf(line, "%15s %31s %ld", verb, name, &pid) < 2 ||
	    !(p = path_find(name)) || (pid && holds(pid, 0) < 0)) {
		printf("error %s\n", line);
		return;
	}
	int n = 0;
	struct conn *c;
	bool hole = strcmp(verb, "hole") == 0;
	if (hole) {
		p->hole = true;
		p->hole_pid = pid;
	}
	if (strcmp(verb, "thaw") == 0)
		p->hole = false;
	LIST_FOREACH(c, &p->conns, link)
	{
		if (c->dead || (hole && !is_swallowed(p, c->h[0].fd)))
			continue;
		n++;
		if (strcmp(verb, "reset") == 0) {
			conn_end(c, true);
		} else if (strcmp(verb, "freeze") == 0 || hole) {
			c->frozen = true;
		} else if (strcmp(verb, "thaw") == 0) {
			c->frozen = false;
			conn_pump(c);
		}
	}
	if (strcmp(verb, "count") == 0)
		printf("ok count %s %d %llu\n", name, n, p->bytes);
	else
		printf("ok %s %s %d\n", verb, name, n);
}

static bool read_commands(void)
{
	static char buf[4096];
	static size_t len;
	ssize_t n = read(0, buf + len, sizeof(buf) - 1 - len);
	if (n <= 0)
		return n < 0 && errno == EAGAIN;
	len += (size_t)n;
	buf[len] = '\0';
	char *line = buf, *nl;
	while ((nl = strchr(line, '\n'))) {
		*nl = '\0';
		command(line);
		line = nl + 1;
	}
	len = strlen(line);
	memmove(buf, line, len + 1);
	fflush(stdout);
	return len < sizeof(buf) - 1;
}

static int path_add(const char *spec)
{
	struct path *p = &paths[n_paths];
	int listen_port, one = 1;
	if (n_paths == 16 ||
	    sscanf(spec, "%31[^=]=%d:%d", p->name, &listen_port, &p->target_port) != 3) {
		fprintf(stderr, "cutter: want NAME=LISTEN_PORT:TARGET_PORT, got %s\n",
			spec);
		return -1;
	}
	struct sockaddr_in sa = loopback(listen_port);
	p->listener.fd = tcp_socket();
	setsockopt(p->listener.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(p->listener.fd, (struct sockaddr *)&sa, sizeof(sa)) ||
	    listen(p->listener.fd, 1024)) {
		fprintf(stderr, "cutter: port %d: %s\n", listen_port, strerror(errno));
		return -1;
	}
	LIST_INIT(&p->conns);
	n_paths++;
	watch(&p->listener, EPOLLIN);
	return 0;
}

int main(int argc, char **argv)
{
	static struct half input = {.fd = 0};
	struct rlimit rl;
	ep = epoll_create1(EPOLL_CLOEXEC);
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
	for (int i = 1; i < argc; i++)
		if (path_add(argv[i]))
			return 1;
	if (n_paths == 0) {
		fprintf(stderr, "usage: cutter NAME=LISTEN_PORT:TARGET_PORT ...\n");
		return 2;
	}
	watch(&input, EPOLLIN);
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		struct epoll_event ev[64];
		int n = epoll_wait(ep, ev, 64, -1);
		for (int i = 0; i < n; i++) {
			struct half *h = ev[i].data.ptr;
			if (h == &input) {
				if (!read_commands())
					return 0;
			} else if (!h->c) {
				path_accept((struct path *)h);
			} else if (!h->c->dead) {
				conn_pump(h->c);
			}
		}
		reap();
	}
}
