#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/resource.h>

#include "tests/unit/dns_world.h"
#include "worker/dial.h"

enum { NFILLERS = 8 };

struct dialled { // one dial
	struct wrk_dial *l;
	unsigned calls;
	int fd;
	enum sp_reason reason;
	struct sp_target bound;
	uint64_t start_ms, took_ms;
	int place[WRK_DIAL_PLACES]; // as journaled
	unsigned journaled;         // descriptors that were
	unsigned most;              // at once
};

struct fixture {
	struct event_base *base;
	struct dns_world world;
	struct wrk_resolve *r;
	struct sp_policy *policy;
	struct wrk_dialer *d;
	bool inside;
	struct { // a listener that answers nobody: its queue is full
		int fd, filler[NFILLERS];
		unsigned n;
	} holes[3];
	unsigned nholes;
};

static struct fixture fx;

static void on_journal(void *ctx, unsigned place, int fd)
{
	struct dialled *q = ctx;
	assert_int_equal(q->calls, 0);
	assert_true(place < WRK_DIAL_PLACES);
	if (fd >= 0 && q->place[!place] != fd) { // a new one: connect has not been called
		struct sockaddr_storage peer;
		socklen_t len = sizeof(peer);
		assert_int_equal(q->place[place], -1);
		assert_int_equal(getpeername(fd, (struct sockaddr *)&peer, &len), -1);
		struct tcp_info info;
		len = sizeof(info);
		if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0)
			assert_int_equal(info.tcpi_state, TCP_CLOSE);
		q->journaled++;
	}
	if (fd < 0 && q->place[place] >= 0) // still open
		assert_true(fcntl(q->place[place], F_GETFD) >= 0);
	q->place[place] = fd;
	unsigned held = 0;
	for (unsigned i = 0; i < WRK_DIAL_PLACES; i++)
		held += q->place[i] >= 0;
	if (held > q->most)
		q->most = held;
}

static void on_done(void *ctx, int fd, enum sp_reason reason,
		    const struct sp_target *bound)
{
	struct dialled *q = ctx;
	assert_false(fx.inside);
	q->calls++;
	q->fd = fd;
	q->reason = reason;
	q->took_ms = dw_now_ms() - q->start_ms;
	q->l = NULL;
	assert_true((fd >= 0) == (reason == SP_REASON_NONE));
	assert_true((fd >= 0) == (bound != NULL));
	if (bound)
		q->bound = *bound;
	assert_int_equal(q->place[0], fd); // and of the others none is left
	assert_int_equal(q->place[1], -1);
}

static const struct wrk_dial_ops ops = {.journal = on_journal, .done = on_done};

static int start_type(int type, const char *target, struct dialled *q)
{
	struct sp_target t;
	assert_int_equal(sp_target_parse(target, &t), 0);
	*q = (struct dialled){.fd = -1, .place = {-1, -1}, .start_ms = dw_now_ms()};
	fx.inside = true;
	int err = type == SOCK_STREAM ? wrk_dial_tcp(fx.d, &t, &ops, q, &q->l)
				      : wrk_dial_udp(fx.d, &t, &ops, q, &q->l);
	fx.inside = false;
	return err;
}

static int start(const char *host, uint16_t port, struct dialled *q)
{
	char target[SP_TARGET_TEXT_MAX];
	snprintf(target, sizeof(target), "%s:%u", host, port);
	return start_type(SOCK_STREAM, target, q);
}

static void dial(const char *host, uint16_t port, struct dialled *q)
{
	assert_int_equal(start(host, port, q), 0);
	WAIT_UNTIL(fx.base, q->calls);
	assert_int_equal(q->calls, 1);
}

// Dials and expects this reason.
static void dial_fails(const char *host, uint16_t port, const char *word)
{
	struct dialled q;
	dial(host, port, &q);
	assert_string_equal(sp_reason_word(q.reason), word);
}

static int listen_on(const char *addr, uint16_t *port, int backlog)
{
	struct sp_target t;
	struct sockaddr_storage ss;
	socklen_t len;
	int on = 1;
	assert_int_equal(sp_target_set_host(&t, addr, strlen(addr), *port), 0);
	assert_int_equal(sp_target_to_sockaddr(&t, &ss, &len), 0);
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (ss.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&ss, len)) {
		close(fd);
		return -1;
	}
	assert_int_equal(listen(fd, backlog), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
	sp_target_from_sockaddr((struct sockaddr *)&ss, &t);
	*port = t.port;
	return fd;
}

// An address at which SYNs vanish. False: the port is taken.
static bool dig_hole(const char *addr, uint16_t *port)
{
	int fd = listen_on(addr, port, 0);
	if (fd < 0)
		return false;
	unsigned h = fx.nholes++, n = 0;
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	getsockname(fd, (struct sockaddr *)&ss, &len);
	fx.holes[h].fd = fd;
	for (; n < NFILLERS; n++) {
		int s = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
		int err = connect(s, (struct sockaddr *)&ss, len) ? errno : 0;
		fx.holes[h].filler[n] = s;
		assert_true(err == 0 || err == EINPROGRESS);
	}
	fx.holes[h].n = n;
	return true;
}

static void setup(struct dw_name *names, size_t n)
{
	memset(&fx, 0, sizeof(fx));
	fx.base = event_base_new();
	dw_start(&fx.world, fx.base, names, n);
}
#define SETUP(names) setup(names, sizeof(names) / sizeof((names)[0]))

static void add_rule(const char *rule)
{
	char error[SP_POLICY_ERROR_MAX];
	assert_int_equal(sp_policy_add(fx.policy, rule, error, sizeof(error)), 0);
}

static void dialer_options(struct wrk_dialer_options *o)
{
	wrk_dialer_options_default(o);
	o->base = fx.base;
	o->resolve = fx.r;
	o->policy = fx.policy;
}

// A resolver and a policy that allows loopback.
static void open_parts(void)
{
	struct wrk_resolve_options o;
	const char *server = fx.world.server;
	wrk_resolve_options_default(&o);
	o.base = fx.base;
	o.servers = &server;
	o.nservers = 1;
	assert_int_equal(wrk_resolve_new(&o, &fx.r), 0);
	assert_int_equal(sp_policy_new(&fx.policy), 0);
	add_rule("127.0.0.0/8");
	add_rule("[::1]");
}

static void open_dialer(const struct wrk_dialer_options *o)
{
	assert_int_equal(wrk_dialer_new(o, &fx.d), 0);
}

static void open_default(void)
{
	struct wrk_dialer_options o;
	open_parts();
	dialer_options(&o);
	open_dialer(&o);
}

// Delays so long that a test which is held up does not mistake them for anything else.
static void open_patient(void)
{
	struct wrk_dialer_options o;
	open_parts();
	dialer_options(&o);
	o.resolution_delay_ms = 5000;
	o.attempt_delay_ms = 5000;
	open_dialer(&o);
}

static void teardown(void)
{
	wrk_dialer_free(fx.d);
	wrk_resolve_free(fx.r);
	sp_policy_free(fx.policy);
	for (unsigned h = 0; h < fx.nholes; h++) {
		close(fx.holes[h].fd);
		for (unsigned i = 0; i < fx.holes[h].n; i++)
			close(fx.holes[h].filler[i]);
	}
	dw_stop(&fx.world);
	event_base_free(fx.base);
}

static uint32_t lookups(void)
{
	struct wrk_resolve_stats s;
	wrk_resolve_stats(fx.r, &s);
	return s.lookups;
}

static unsigned open_descriptors(void)
{
	unsigned n = 0;
	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static int option(int fd, int level, int name)
{
	int v = -1;
	socklen_t len = sizeof(v);
	assert_int_equal(getsockopt(fd, level, name, &v, &len), 0);
	return v;
}

#define OK(...)                                                                          \
	{                                                                                \
		.kind = DW_ADDRS_OK, .ttl = 60, .addrs = { __VA_ARGS__ }                 \
	}
#define LATE(ms, ...)                                                                    \
	{                                                                                \
		.kind = DW_ADDRS_OK, .ttl = 60, .delay_ms = (ms), .addrs = {             \
			__VA_ARGS__                                                      \
		}                                                                        \
	}
#define NOTHING                                                                          \
	{                                                                                \
		.kind = DW_NODATA, .cname_ttl = 30                                       \
	}
#define REPLY(k)                                                                         \
	{                                                                                \
		.kind = (k), .cname_ttl = 30                                             \
	}

static struct dw_name no_names[] = {{"x.test", NOTHING, NOTHING, 0, 0}};

static void test_an_address_is_dialled_and_its_socket_is_as_stated(void **state)
{
	struct dialled q;
	uint16_t port = 0;
	(void)state;
	SETUP(no_names);
	open_default();
	int l = listen_on("127.0.0.1", &port, 16);
	dial("127.0.0.1", port, &q);
	assert_int_equal(q.reason, SP_REASON_NONE);
	assert_int_equal(q.journaled, 1);
	assert_int_equal(q.bound.kind, SP_TARGET_IPV4);
	assert_memory_equal(q.bound.v4, "\x7f\0\0\1", 4);
	assert_int_not_equal(q.bound.port, 0);
	assert_int_equal(option(q.fd, SOL_SOCKET, SO_OOBINLINE), 1);
	assert_int_equal(option(q.fd, IPPROTO_TCP, TCP_NODELAY), 1);
	assert_int_equal(option(q.fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT), 0);
	assert_true(fcntl(q.fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(q.fd, F_GETFD) & FD_CLOEXEC);
	int peer = accept(l, NULL, NULL);
	assert_int_equal(write(q.fd, "hello", 5), 5);
	char text[5];
	WAIT_UNTIL(fx.base, recv(peer, text, 5, MSG_DONTWAIT) == 5);
	assert_memory_equal(text, "hello", 5);
	assert_int_equal(wrk_dialer_stats(fx.d)->ended[SP_REASON_NONE], 1);
	assert_int_equal(wrk_dialer_stats(fx.d)->dials, 0);
	close(peer);
	close(q.fd);
	close(l);
	teardown();
}

static void test_source_address_and_close_on_exec_follow_the_options(void **state)
{
	struct wrk_dialer_options o;
	struct dialled q;
	uint16_t port = 0;
	(void)state;
	SETUP(no_names);
	open_parts();
	dialer_options(&o);
	o.socket.cloexec = false;
	assert_int_equal(sp_target_set_host(&o.socket.bind4, "127.0.0.77", 10, 0), 0);
	assert_int_equal(sp_target_set_host(&o.socket.bind6, "::1", 3, 0), 0);
	open_dialer(&o);
	int l = listen_on("127.0.0.1", &port, 16), l6 = listen_on("::1", &port, 16);
	dial("127.0.0.1", port, &q);
	assert_memory_equal(q.bound.v4, "\x7f\0\0\x4d", 4);
	assert_false(fcntl(q.fd, F_GETFD) & FD_CLOEXEC);
	close(q.fd);
	assert_true(l6 >= 0);
	dial("[::1]", port, &q);
	assert_int_equal(q.bound.kind, SP_TARGET_IPV6);
	close(q.fd);
	close(l);
	close(l6);
	teardown();
}

static void test_failures_have_their_reasons(void **state)
{
	struct dw_name names[] = {
		{"nx.test", REPLY(DW_NXDOMAIN), REPLY(DW_NXDOMAIN), 0, 0},
		{"fail.test", REPLY(DW_SERVFAIL), NOTHING, 0, 0},
		{"none.test", NOTHING, NOTHING, 0, 0},
		{"inside.test", OK("10.0.0.1", "169.254.169.254"), OK("fd00::1"), 0, 0},
		{"here.test", OK("127.0.0.1"), NOTHING, 0, 0},
	};
	uint16_t port = 0;
	(void)state;
	SETUP(names);
	open_default();
	close(listen_on("127.0.0.1", &port, 1));
	dial_fails("127.0.0.1", port, "refused");
	dial_fails("here.test", port, "refused");
	dial_fails("10.0.0.1", 80, "policy");
	dial_fails("[fe80::1]", 80, "policy");
	dial_fails("[::ffff:192.168.1.1]", 80, "policy");
	dial_fails("inside.test", 80, "policy");
	dial_fails("127.0.0.1", 25, "policy");
	dial_fails("127.0.0.1", 0, "policy");
	dial_fails("nx.test", 80, "resolve-failed");
	dial_fails("fail.test", 80, "resolve-failed");
	dial_fails("a.onion", 80, "resolve-failed");
	dial_fails("none.test", 80, "no-address");
	const struct wrk_dialer_stats *s = wrk_dialer_stats(fx.d);
	assert_int_equal(s->ended[SP_REASON_POLICY], 6);
	assert_int_equal(s->policy[SP_POLICY_METADATA], 1);
	assert_int_equal(s->policy[SP_POLICY_SMTP], 1);
	assert_int_equal(s->dials, 0);
	teardown();
}

static void test_no_route_is_unreachable(void **state)
{
	struct wrk_dialer_options o;
	struct dialled q;
	(void)state;
	SETUP(no_names);
	open_parts();
	add_rule("192.0.2.1"); // from a loopback source nothing leaves the host
	add_rule("[100::1]:80");
	dialer_options(&o);
	assert_int_equal(sp_target_set_host(&o.socket.bind4, "127.0.0.1", 9, 0), 0);
	assert_int_equal(sp_target_set_host(&o.socket.bind6, "2001:db8::1", 11, 0), 0);
	open_dialer(&o);
	dial("192.0.2.1", 80, &q);
	assert_string_equal(sp_reason_word(q.reason), "unreachable");
	dial("[100::1]", 80, &q); // a source address this host has not
	assert_string_equal(sp_reason_word(q.reason), "unreachable");
	teardown();
}

static void test_policy_is_asked_about_each_resolved_address(void **state)
{
	struct dw_name names[] = {{"mixed.test",
				   OK("10.0.0.1", "169.254.169.254", "127.0.0.3"),
				   OK("fe80::1", "::ffff:10.0.0.1"), 0, 0}};
	struct dialled q;
	uint16_t port = 0;
	(void)state;
	SETUP(names);
	open_default();
	int l = listen_on("127.0.0.3", &port, 16);
	dial("mixed.test", port, &q);
	assert_int_equal(q.reason, SP_REASON_NONE);
	assert_int_equal(q.journaled, 1);
	assert_int_equal(wrk_dialer_stats(fx.d)->attempts, 1);
	assert_int_equal(wrk_dialer_stats(fx.d)->policy[SP_POLICY_PRIVATE], 2);
	close(q.fd);
	// a new policy holds for the next dial
	struct sp_policy *strict;
	assert_int_equal(sp_policy_new(&strict), 0);
	wrk_dialer_set_policy(fx.d, strict);
	sp_policy_free(fx.policy);
	fx.policy = strict;
	dial_fails("mixed.test", port, "policy");
	close(l);
	teardown();
}

static void test_ipv6_comes_first_where_both_answer(void **state)
{
	struct dw_name names[] = {{"both.test", OK("127.0.0.1"), OK("::1"), 0, 0},
				  {"late6.test", OK("127.0.0.1"), LATE(40, "::1"), 0, 0}};
	struct dialled q;
	uint16_t port = 0;
	(void)state;
	SETUP(names);
	open_patient();
	int l4 = listen_on("127.0.0.1", &port, 16), l6 = listen_on("::1", &port, 16);
	assert_true(l6 >= 0);
	for (int i = 0; i < 2; i++) { // from the server, from the cache
		dial("both.test", port, &q);
		assert_int_equal(q.bound.kind, SP_TARGET_IPV6);
		assert_int_equal(q.journaled, 1);
		assert_int_equal(option(q.fd, IPPROTO_IPV6, IPV6_V6ONLY), 1);
		close(q.fd);
	}
	dial("late6.test", port, &q); // within the resolution delay
	assert_int_equal(q.bound.kind, SP_TARGET_IPV6);
	close(q.fd);
	close(l4);
	close(l6);
	teardown();
}

static void test_slow_aaaa_costs_the_resolution_delay_only(void **state)
{
	struct dw_name names[] = {
		{"slow6.test", OK("127.0.0.1"), LATE(2000, "::1"), 0, 0},
		{"mute6.test", OK("127.0.0.1"), REPLY(DW_SILENT), 0, 0},
		{"only4.test", OK("127.0.0.1"), NOTHING, 0, 0}};
	struct dialled q;
	uint16_t port = 0;
	(void)state;
	SETUP(names);
	open_default();
	int l = listen_on("127.0.0.1", &port, 16);
	dial("slow6.test", port, &q);
	assert_int_equal(q.bound.kind, SP_TARGET_IPV4);
	assert_in_range(q.took_ms, 50, 1900);
	close(q.fd);
	dial("mute6.test", port, &q);
	assert_int_equal(q.bound.kind, SP_TARGET_IPV4);
	assert_in_range(q.took_ms, 50, 4000);
	close(q.fd);
	close(l);
	teardown();
}

static void test_ipv6_black_hole_falls_to_ipv4_after_the_attempt_delay(void **state)
{
	struct dw_name names[] = {
		{"hole6.test", OK("127.0.0.1"), OK("::1", "::1", "::1"), 0, 0}};
	struct dialled q;
	uint16_t port;
	int l;
	(void)state;
	SETUP(names);
	open_default();
	do {
		port = 0;
		l = listen_on("127.0.0.1", &port, 16);
	} while (!dig_hole("::1", &port) && close(l) == 0);
	unsigned before = open_descriptors();
	dial("hole6.test", port, &q);
	assert_int_equal(q.reason, SP_REASON_NONE);
	assert_int_equal(q.bound.kind, SP_TARGET_IPV4);
	assert_in_range(q.took_ms, 250, 2400);
	assert_int_equal(q.journaled, 2);
	assert_int_equal(q.most, 2);
	assert_int_equal(open_descriptors(), before + 1);
	close(q.fd);
	close(l);
	teardown();
}

static void test_no_aaaa_or_a_refusal_costs_no_delay(void **state)
{
	struct dw_name names[] = {{"no6.test", OK("127.0.0.1"), OK("::1"), 0, 0},
				  {"only4.test", OK("127.0.0.1"), NOTHING, 0, 0}};
	static const char *const hosts[] = {"no6.test", "only4.test"};
	struct dialled q;
	uint16_t port = 0;
	(void)state;
	SETUP(names);
	open_patient();
	int l = listen_on("127.0.0.1", &port, 16);
	for (int i = 0; i < 2; i++) {
		dial(hosts[i], port, &q);
		assert_int_equal(q.bound.kind, SP_TARGET_IPV4);
		assert_in_range(q.took_ms, 0, 4000);
		assert_int_equal(q.most, 1);
		close(q.fd);
	}
	close(l);
	teardown();
}

static void test_addresses_are_tried_up_to_the_limit(void **state)
{
	struct dw_name names[] = {
		{"eighth.test",
		 OK("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6",
		    "127.0.0.7", "127.0.0.8", "127.0.0.1"),
		 NOTHING, 0, 0},
		{"ninth.test",
		 OK("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6",
		    "127.0.0.7", "127.0.0.8", "127.0.0.9", "127.0.0.1"),
		 NOTHING, 0, 0}};
	struct dialled q;
	uint16_t port = 0;
	(void)state;
	SETUP(names);
	open_default();
	int l = listen_on("127.0.0.1", &port, 16);
	dial("eighth.test", port, &q);
	assert_int_equal(q.reason, SP_REASON_NONE);
	assert_int_equal(q.journaled, 8);
	close(q.fd);
	dial("ninth.test", port, &q);
	assert_int_equal(q.reason, SP_REASON_REFUSED);
	assert_int_equal(q.journaled, 8);
	close(l);
	teardown();
}

static void test_an_attempt_gives_way_when_both_places_are_taken(void **state)
{
	struct dw_name names[] = {
		{"third.test", OK("127.0.0.2", "127.0.0.3", "127.0.0.1"), NOTHING, 0, 0}};
	struct wrk_dialer_options o;
	struct dialled q;
	uint16_t port = 0;
	(void)state;
	SETUP(names);
	open_parts();
	dialer_options(&o);
	o.attempt_delay_ms = 30;
	o.attempt_min_ms = 120;
	open_dialer(&o);
	int l = listen_on("127.0.0.1", &port, 16);
	assert_true(dig_hole("127.0.0.2", &port));
	assert_true(dig_hole("127.0.0.3", &port));
	dial("third.test", port, &q);
	assert_int_equal(q.reason, SP_REASON_NONE);
	assert_in_range(q.took_ms, 120, 4000);
	assert_int_equal(q.journaled, 3);
	assert_int_equal(q.most, 2);
	close(q.fd);
	close(l);
	teardown();
}

static void test_deadline_ends_what_never_answers(void **state)
{
	struct dw_name names[] = {
		{"hole.test", OK("127.0.0.2", "127.0.0.3"), NOTHING, 0, 0},
		{"mute.test", REPLY(DW_SILENT), REPLY(DW_SILENT), 0, 0},
		{"half.test", OK("127.0.0.2", "127.0.0.9"), NOTHING, 0, 0}};
	struct wrk_dialer_options o;
	struct dialled q;
	uint16_t port = 0;
	(void)state;
	SETUP(names);
	open_parts();
	dialer_options(&o);
	o.deadline_ms = 120;
	o.attempt_delay_ms = 20;
	open_dialer(&o);
	assert_true(dig_hole("127.0.0.2", &port));
	assert_true(dig_hole("127.0.0.3", &port));
	unsigned before = open_descriptors();
	dial("127.0.0.2", port, &q);
	assert_string_equal(sp_reason_word(q.reason), "timeout");
	assert_in_range(q.took_ms, 120, 4000);
	dial("hole.test", port, &q);
	assert_string_equal(sp_reason_word(q.reason), "timeout");
	assert_int_equal(q.most, 2);
	dial("half.test", port, &q); // one address is silent, the other refuses
	assert_string_equal(sp_reason_word(q.reason), "refused");
	assert_in_range(q.took_ms, 120, 4000);
	dial("mute.test", port, &q);
	assert_string_equal(sp_reason_word(q.reason), "resolve-timeout");
	assert_in_range(q.took_ms, 120, 4000);
	assert_in_range(open_descriptors(), before, before + 1); // c-ares may still wait
	teardown();
}

static void test_a_cancelled_dial_closes_and_never_calls(void **state)
{
	struct dw_name names[] = {{"late.test", LATE(300, "127.0.0.1"), NOTHING, 0, 0}};
	struct dialled resolving, attempting, starting, q;
	uint16_t hole = 0, port = 0;
	(void)state;
	SETUP(names);
	open_default();
	assert_true(dig_hole("127.0.0.2", &hole));
	int l = listen_on("127.0.0.1", &port, 16);
	assert_int_equal(start("late.test", port, &resolving), 0);
	WAIT_UNTIL(fx.base, names[0].a_queries);
	unsigned before = open_descriptors();
	assert_int_equal(start("127.0.0.2", hole, &attempting), 0);
	WAIT_UNTIL(fx.base, attempting.journaled);
	assert_int_equal(start("127.0.0.1", port, &starting), 0);
	wrk_dial_cancel(resolving.l);
	wrk_dial_cancel(attempting.l);
	wrk_dial_cancel(starting.l);
	wrk_dial_cancel(NULL);
	assert_int_equal(attempting.place[0], -1);
	assert_int_equal(open_descriptors(), before);
	WAIT_UNTIL(fx.base, lookups() == 0); // the answer that nobody waits for came
	dial("late.test", port, &q);
	close(q.fd);
	assert_int_equal(resolving.calls + attempting.calls + starting.calls, 0);
	assert_int_equal(wrk_dialer_stats(fx.d)->ended[SP_REASON_CANCELLED], 3);
	assert_int_equal(start("127.0.0.2", hole, &attempting), 0);
	close(l);
	teardown(); // with a dial under way
	assert_int_equal(attempting.calls, 0);
}

static void test_dials_have_a_limit(void **state)
{
	struct wrk_dialer_options o;
	struct dialled a, b, q;
	uint16_t port = 0;
	(void)state;
	SETUP(no_names);
	open_parts();
	dialer_options(&o);
	o.max_dials = 2;
	open_dialer(&o);
	assert_true(dig_hole("127.0.0.2", &port));
	assert_int_equal(start("127.0.0.2", port, &a), 0);
	assert_int_equal(start("127.0.0.2", port, &b), 0);
	assert_int_equal(start("127.0.0.2", port, &q), SP_E_LIMIT);
	wrk_dial_cancel(a.l);
	assert_int_equal(start("127.0.0.2", port, &q), 0);
	assert_int_equal(wrk_dialer_stats(fx.d)->refused, 1);
	teardown();
}

static void test_connects_take_turns_with_everything_else(void **state)
{
	enum { N = 8 };
	struct wrk_dialer_options o;
	struct dialled q[N];
	uint16_t port = 0;
	(void)state;
	SETUP(no_names);
	open_parts();
	dialer_options(&o);
	o.connect_us = 1; // one in each slice
	open_dialer(&o);
	int l = listen_on("127.0.0.1", &port, 16);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(start("127.0.0.1", port, &q[i]), 0);
	event_base_loop(fx.base, EVLOOP_NONBLOCK);
	assert_int_equal(wrk_dialer_stats(fx.d)->attempts, 1);
	uint64_t most = 0;
	for (unsigned i = 0; i < N; i++) {
		WAIT_UNTIL(fx.base, q[i].calls);
		assert_int_equal(q[i].reason, SP_REASON_NONE);
		most = q[i].took_ms > most ? q[i].took_ms : most;
		close(q[i].fd);
	}
	assert_true(most >= (N - 2) * WRK_DIAL_SLICE_MS);
	close(l);
	teardown();
}

// Runs with no descriptor left but `spare`.
static void limit_descriptors(unsigned spare, struct rlimit *ret_before)
{
	struct rlimit limit;
	int fd[16];
	assert_true(spare < 16);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, ret_before), 0);
	for (unsigned i = 0; i <= spare; i++)
		fd[i] = dup(fx.world.fd);
	limit = *ret_before;
	limit.rlim_cur = (rlim_t)fd[spare];
	for (unsigned i = 0; i <= spare; i++)
		close(fd[i]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void test_want_of_descriptors_is_its_own_reason(void **state)
{
	struct dw_name names[] = {
		{"hole.test", OK("127.0.0.2", "127.0.0.1"), NOTHING, 0, 0}};
	struct wrk_dialer_options o;
	struct rlimit before;
	struct dialled q;
	uint16_t port = 0;
	(void)state;
	SETUP(names);
	open_parts();
	dialer_options(&o);
	o.attempt_delay_ms = 20;
	open_dialer(&o);
	int l = listen_on("127.0.0.1", &port, 16);
	assert_true(dig_hole("127.0.0.2", &port));
	dial("hole.test", port, &q); // into the cache
	close(q.fd);
	limit_descriptors(0, &before);
	dial("127.0.0.1", port, &q);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_string_equal(sp_reason_word(q.reason), "no-descriptors");
	// With one descriptor the first attempt goes on, and the second follows as soon
	// as there is another.
	limit_descriptors(1, &before);
	assert_int_equal(start("hole.test", port, &q), 0);
	WAIT_UNTIL(fx.base, dw_now_ms() > q.start_ms + 100);
	assert_int_equal(q.calls, 0);
	assert_int_equal(q.journaled, 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	WAIT_UNTIL(fx.base, q.calls);
	assert_int_equal(q.reason, SP_REASON_NONE);
	close(q.fd);
	close(l);
	teardown();
}

static void test_udp_socket_is_connected_to_the_first_allowed_address(void **state)
{
	struct dw_name names[] = {
		{"udp.test", OK("10.0.0.1", "127.0.0.1"), NOTHING, 0, 0},
		{"in.test", OK("10.0.0.1"), NOTHING, 0, 0},
		{"nx.test", REPLY(DW_NXDOMAIN), REPLY(DW_NXDOMAIN), 0, 0}};
	struct sockaddr_in sa = {.sin_family = AF_INET};
	socklen_t len = sizeof(sa);
	struct dialled q;
	char target[64], text[8];
	(void)state;
	SETUP(names);
	open_default();
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(s, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(getsockname(s, (struct sockaddr *)&sa, &len), 0);
	static const char *const hosts[] = {"udp.test", "127.0.0.1"};
	for (int i = 0; i < 2; i++) {
		snprintf(target, sizeof(target), "%s:%u", hosts[i], ntohs(sa.sin_port));
		assert_int_equal(start_type(SOCK_DGRAM, target, &q), 0);
		WAIT_UNTIL(fx.base, q.calls);
		assert_int_equal(q.reason, SP_REASON_NONE);
		assert_int_equal(q.journaled, 1);
		assert_int_equal(option(q.fd, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
		assert_memory_equal(q.bound.v4, "\x7f\0\0\1", 4);
		assert_true(fcntl(q.fd, F_GETFL) & O_NONBLOCK);
		assert_int_equal(write(q.fd, "datagram", 8), 8);
		WAIT_UNTIL(fx.base, recv(s, text, 8, MSG_DONTWAIT) == 8);
		close(q.fd);
	}
	assert_int_equal(start_type(SOCK_DGRAM, "in.test:53", &q), 0);
	WAIT_UNTIL(fx.base, q.calls);
	assert_string_equal(sp_reason_word(q.reason), "policy");
	assert_int_equal(start_type(SOCK_DGRAM, "nx.test:53", &q), 0);
	WAIT_UNTIL(fx.base, q.calls);
	assert_string_equal(sp_reason_word(q.reason), "resolve-failed");
	close(s);
	teardown();
}

static void test_many_dials_at_once_leave_nothing_behind(void **state)
{
	enum { N = 200 };
	struct dw_name names[] = {{"here.test", OK("127.0.0.1"), NOTHING, 0, 0}};
	static struct dialled q[N];
	uint16_t port = 0, shut = 0;
	(void)state;
	SETUP(names);
	open_default();
	int l = listen_on("127.0.0.1", &port, N);
	close(listen_on("127.0.0.1", &shut, 1));
	for (int i = 0; i < N; i++)
		assert_int_equal(start(i % 3 ? "here.test" : "127.0.0.1",
				       i % 2 ? port : shut, &q[i]),
				 0);
	for (int i = 0; i < N; i++) {
		WAIT_UNTIL(fx.base, q[i].calls);
		assert_int_equal(q[i].reason, i % 2 ? SP_REASON_NONE : SP_REASON_REFUSED);
		if (q[i].fd >= 0)
			close(q[i].fd);
	}
	assert_int_equal(names[0].a_queries, 1);
	assert_int_equal(wrk_dialer_stats(fx.d)->dials, 0);
	close(l);
	teardown();
}

static void test_wrong_options_and_targets_are_refused(void **state)
{
	struct wrk_dialer_options o;
	struct wrk_dialer *d = NULL;
	struct wrk_dial *l = NULL;
	struct sp_target t = {.kind = SP_TARGET_NAME, .port = 80, .name = "not a name"};
	(void)state;
	SETUP(no_names);
	open_default();
	assert_int_equal(wrk_dial_tcp(fx.d, &t, &ops, NULL, &l), SP_E_MALFORMED);
	t.kind = 2;
	assert_int_equal(wrk_dial_tcp(fx.d, &t, &ops, NULL, &l), SP_E_MALFORMED);
	assert_null(l);
	assert_int_equal(wrk_dialer_stats(fx.d)->dials, 0);
	dialer_options(&o);
	o.max_attempts = 0;
	assert_int_equal(wrk_dialer_new(&o, &d), -EINVAL);
	dialer_options(&o);
	o.policy = NULL;
	assert_int_equal(wrk_dialer_new(&o, &d), -EINVAL);
	wrk_dialer_free(NULL);
	teardown();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_address_is_dialled_and_its_socket_is_as_stated),
		cmocka_unit_test(
			test_source_address_and_close_on_exec_follow_the_options),
		cmocka_unit_test(test_failures_have_their_reasons),
		cmocka_unit_test(test_no_route_is_unreachable),
		cmocka_unit_test(test_policy_is_asked_about_each_resolved_address),
		cmocka_unit_test(test_ipv6_comes_first_where_both_answer),
		cmocka_unit_test(test_slow_aaaa_costs_the_resolution_delay_only),
		cmocka_unit_test(
			test_ipv6_black_hole_falls_to_ipv4_after_the_attempt_delay),
		cmocka_unit_test(test_no_aaaa_or_a_refusal_costs_no_delay),
		cmocka_unit_test(test_addresses_are_tried_up_to_the_limit),
		cmocka_unit_test(test_an_attempt_gives_way_when_both_places_are_taken),
		cmocka_unit_test(test_deadline_ends_what_never_answers),
		cmocka_unit_test(test_a_cancelled_dial_closes_and_never_calls),
		cmocka_unit_test(test_dials_have_a_limit),
		cmocka_unit_test(test_connects_take_turns_with_everything_else),
		cmocka_unit_test(test_want_of_descriptors_is_its_own_reason),
		cmocka_unit_test(
			test_udp_socket_is_connected_to_the_first_allowed_address),
		cmocka_unit_test(test_many_dials_at_once_leave_nothing_behind),
		cmocka_unit_test(test_wrong_options_and_targets_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
