// Listeners: batches, addresses, and what happens when descriptors run out.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/listener.h"

struct port {
	struct sp_loop *loop;
	struct wrk_listener *l;
	struct sockaddr_storage addr;
	socklen_t addr_len;
	int fds[300];
	unsigned n, starved;
	bool relieve;
	struct sockaddr_storage last;
};

static void accepted(void *ctx, int fd, const struct sockaddr *peer)
{
	struct port *p = ctx;

	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_true(p->n < 300);
	p->fds[p->n++] = fd;
	memcpy(&p->last, peer,
	       peer->sa_family == AF_INET ? sizeof(struct sockaddr_in)
					  : sizeof(struct sockaddr_in6));
}

static bool starved(void *ctx)
{
	struct port *p = ctx;

	p->starved++;
	if (p->relieve && p->n)
		close(p->fds[--p->n]);
	return p->relieve;
}

static void open_port(struct port *p, const struct sockaddr *addr, socklen_t len)
{
	struct wrk_listener_options opt = {
		.accepted = accepted, .starved = starved, .ctx = p};
	int fd = wrk_listener_bind(addr, len, 256);

	assert_true(fd >= 0);
	assert_int_equal(sp_loop_new(&p->loop), 0);
	opt.loop = p->loop;
	assert_int_equal(wrk_listener_new(fd, &opt, &p->l), 0);
	assert_int_equal(wrk_listener_address(p->l, &p->addr, &p->addr_len), 0);
}

static void open_loopback(struct port *p)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	memset(p, 0, sizeof(*p));
	open_port(p, (struct sockaddr *)&in, sizeof(in));
}

static void close_port(struct port *p)
{
	while (p->n)
		close(p->fds[--p->n]);
	wrk_listener_free(p->l);
	sp_loop_free(p->loop);
}

static int connect_to(struct port *p)
{
	int fd = socket(p->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	if (connect(fd, (struct sockaddr *)&p->addr, p->addr_len))
		assert_int_equal(errno, EINPROGRESS);
	return fd;
}

static void turn_until(struct port *p, unsigned n)
{
	for (int i = 0; i < 1000 && p->n < n; i++)
		assert_int_equal(sp_loop_turn(p->loop, true), 0);
	assert_int_equal(p->n, n);
}

static void many_connections_come_in_bounded_batches(void **state)
{
	struct port p;
	int fds[200];

	(void)state;
	open_loopback(&p);
	for (int i = 0; i < 200; i++)
		fds[i] = connect_to(&p);
	assert_int_equal(sp_loop_turn(p.loop, true), 0);
	assert_int_equal(p.n, 64);
	turn_until(&p, 200);
	assert_int_equal(wrk_listener_counters(p.l)->accepted, 200);
	for (int i = 0; i < 200; i++)
		close(fds[i]);
	close_port(&p);
}

static void the_source_is_passed_on(void **state)
{
	struct port p;
	struct sockaddr_in me;
	socklen_t len = sizeof(me);
	int fd;

	(void)state;
	open_loopback(&p);
	fd = connect_to(&p);
	turn_until(&p, 1);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&me, &len), 0);
	assert_memory_equal(&p.last, &me, 8);
	close(fd);
	close_port(&p);
}

static void ipv6_takes_ipv6_alone(void **state)
{
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct port p = {0};
	int fd;

	(void)state;
	open_port(&p, (struct sockaddr *)&in6, sizeof(in6));
	in.sin_port = ((struct sockaddr_in6 *)&p.addr)->sin6_port;
	// The same port is still free for IPv4.
	fd = wrk_listener_bind((struct sockaddr *)&in, sizeof(in), 8);
	assert_true(fd >= 0);
	close(fd);
	((struct sockaddr_in6 *)&p.addr)->sin6_addr = in6addr_loopback;
	fd = connect_to(&p);
	turn_until(&p, 1);
	assert_int_equal(p.last.ss_family, AF_INET6);
	close(fd);
	close_port(&p);
}

static void a_port_in_use_is_an_error(void **state)
{
	struct port p;

	(void)state;
	open_loopback(&p);
	assert_int_equal(wrk_listener_bind((struct sockaddr *)&p.addr, p.addr_len, 8),
			 -EADDRINUSE);
	close_port(&p);
}

// No more descriptors than are open now and `more`.
static struct rlimit limit_descriptors(int more)
{
	struct rlimit old, now;
	int next = open("/dev/null", O_RDONLY | O_CLOEXEC);

	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	now = old;
	now.rlim_cur = (rlim_t)(next + more);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
	return old;
}

static void without_descriptors_it_waits_and_does_not_spin(void **state)
{
	struct port p;
	struct rlimit old;
	uint64_t start;
	int fds[3];
	unsigned turns = 0;

	(void)state;
	open_loopback(&p);
	for (int i = 0; i < 3; i++)
		fds[i] = connect_to(&p);
	old = limit_descriptors(1);
	turn_until(&p, 1);
	assert_true(wrk_listener_counters(p.l)->no_descriptors >= 1);
	assert_true(wrk_listener_counters(p.l)->paused);
	for (start = sp_loop_refresh(p.loop); sp_loop_refresh(p.loop) < start + 300000;
	     turns++)
		assert_int_equal(sp_loop_turn(p.loop, true), 0);
	assert_true(turns < 20);
	assert_int_equal(p.n, 1);
	assert_true(p.starved >= 2);
	// Nobody was sent away.
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	turn_until(&p, 3);
	assert_false(wrk_listener_counters(p.l)->paused);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	close_port(&p);
}

static void what_the_program_frees_is_used_at_once(void **state)
{
	struct port p;
	struct rlimit old;
	int fds[2];

	(void)state;
	open_loopback(&p);
	for (int i = 0; i < 2; i++)
		fds[i] = connect_to(&p);
	p.relieve = true;
	old = limit_descriptors(1);
	while (wrk_listener_counters(p.l)->accepted < 2)
		assert_int_equal(sp_loop_turn(p.loop, true), 0);
	assert_int_equal(p.starved, 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	for (int i = 0; i < 2; i++)
		close(fds[i]);
	close_port(&p);
}

static void a_stopped_listener_accepts_nobody(void **state)
{
	struct port p;
	int fd;

	(void)state;
	open_loopback(&p);
	wrk_listener_stop(p.l);
	fd = connect_to(&p);
	for (int i = 0; i < 3; i++)
		(void)!sp_loop_turn(p.loop, false);
	assert_int_equal(p.n, 0);
	close(fd);
	close_port(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_connections_come_in_bounded_batches),
		cmocka_unit_test(the_source_is_passed_on),
		cmocka_unit_test(ipv6_takes_ipv6_alone),
		cmocka_unit_test(a_port_in_use_is_an_error),
		cmocka_unit_test(without_descriptors_it_waits_and_does_not_spin),
		cmocka_unit_test(what_the_program_frees_is_used_at_once),
		cmocka_unit_test(a_stopped_listener_accepts_nobody),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
