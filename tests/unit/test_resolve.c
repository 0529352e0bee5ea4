#include <sys/resource.h>

#include "tests/unit/dns_world.h"
#include "worker/resolve.h"

struct asked { // one caller
	struct wrk_lookup *l;
	struct wrk_dnsanswer v4, v6;
	unsigned calls, lasts;
	bool v6_first;
	uint64_t v4_ms, v6_ms, start_ms;
	struct asked *cancels; // cancelled from within the callback
};

struct fixture {
	struct event_base *base;
	struct dns_world world;
	struct wrk_resolve *r;
	uint64_t virtual_ms;
	bool inside; // a call into the module is under way
};

static struct fixture fx;

static void on_answer(void *ctx, const struct wrk_dnsanswer *a, bool last)
{
	struct asked *q = ctx;
	assert_false(fx.inside);
	assert_int_equal(q->lasts, 0);
	q->calls++;
	q->lasts += last;
	if (a->family == AF_INET) {
		q->v4 = *a;
		q->v4_ms = dw_now_ms() - q->start_ms;
	} else {
		q->v6_first = q->calls == 1;
		q->v6 = *a;
		q->v6_ms = dw_now_ms() - q->start_ms;
	}
	if (last)
		q->l = NULL;
	if (q->cancels) {
		wrk_resolve_cancel(q->cancels->l);
		q->cancels->l = NULL;
	}
}

static const struct wrk_resolve_ops ops = {.answer = on_answer};

static int start(const char *name, struct asked *q)
{
	memset(q, 0, offsetof(struct asked, cancels));
	q->start_ms = dw_now_ms();
	fx.inside = true;
	int err = wrk_resolve_start(fx.r, name, &ops, q, &q->l);
	fx.inside = false;
	return err;
}

static void ask(const char *name, struct asked *q)
{
	assert_int_equal(start(name, q), 0);
	WAIT_UNTIL(fx.base, q->lasts);
}

static uint64_t virtual_now(void *ctx)
{
	return ((struct fixture *)ctx)->virtual_ms;
}

static void options(struct wrk_resolve_options *o)
{
	static const char *servers[1];
	wrk_resolve_options_default(o);
	servers[0] = fx.world.server;
	o->base = fx.base;
	o->servers = servers;
	o->nservers = 1;
}

static void setup(struct dw_name *names, size_t n)
{
	memset(&fx, 0, sizeof(fx));
	fx.base = event_base_new();
	dw_start(&fx.world, fx.base, names, n);
}
#define SETUP(names) setup(names, sizeof(names) / sizeof((names)[0]))

static void open_resolver(const struct wrk_resolve_options *o)
{
	assert_int_equal(wrk_resolve_new(o, &fx.r), 0);
}

static void open_default(void)
{
	struct wrk_resolve_options o;
	options(&o);
	open_resolver(&o);
}

static void teardown(void)
{
	wrk_resolve_free(fx.r);
	dw_stop(&fx.world);
	event_base_free(fx.base);
}

static struct wrk_resolve_stats stats(void)
{
	struct wrk_resolve_stats s;
	wrk_resolve_stats(fx.r, &s);
	return s;
}

static void assert_addr(const struct wrk_dnsanswer *a, unsigned i, const char *expected)
{
	char text[INET6_ADDRSTRLEN];
	assert_true(i < a->n);
	assert_string_equal(inet_ntop(a->family, a->addr[i], text, sizeof(text)),
			    expected);
}

#define OK4(...)                                                                         \
	{                                                                                \
		.kind = DW_ADDRS_OK, .ttl = 60, .addrs = { __VA_ARGS__ }                 \
	}
#define NOTHING                                                                          \
	{                                                                                \
		.kind = DW_NODATA, .cname_ttl = 30                                       \
	}
#define REPLY(k)                                                                         \
	{                                                                                \
		.kind = (k), .cname_ttl = 30                                             \
	}

static void test_a_name_gives_its_addresses_of_both_families(void **state)
{
	struct dw_name names[] = {
		{"both.test", OK4("192.0.2.1", "192.0.2.2"), OK4("2001:db8::1"), 0, 0}};
	struct asked q = {0};
	(void)state;
	SETUP(names);
	open_default();
	ask("both.test", &q);
	assert_int_equal(q.calls, 2);
	assert_int_equal(q.v4.status, SP_REASON_NONE);
	assert_int_equal(q.v4.n, 2);
	assert_addr(&q.v4, 0, "192.0.2.1");
	assert_addr(&q.v4, 1, "192.0.2.2");
	assert_int_equal(q.v4.ttl_s, 60);
	assert_int_equal(q.v6.n, 1);
	assert_addr(&q.v6, 0, "2001:db8::1");
	teardown();
}

static void test_cached_answer_comes_without_a_query_and_ipv6_first(void **state)
{
	struct dw_name names[] = {
		{"both.test", OK4("192.0.2.1"), OK4("2001:db8::1"), 0, 0}};
	struct asked q = {0};
	(void)state;
	SETUP(names);
	open_default();
	ask("both.test", &q);
	ask("BOTH.Test.", &q);
	assert_int_equal(q.calls, 2);
	assert_true(q.v6_first);
	assert_addr(&q.v4, 0, "192.0.2.1");
	assert_int_equal(names[0].a_queries, 1);
	assert_int_equal(names[0].aaaa_queries, 1);
	assert_int_equal(stats().queries, 2);
	assert_int_equal(stats().cache.hits, 2);
	assert_int_equal(stats().waiters, 0);
	assert_int_equal(stats().lookups, 0);
	teardown();
}

static void test_answers_age_by_the_clock_of_the_context(void **state)
{
	struct dw_name names[] = {{"age.test",
				   OK4("192.0.2.1"),
				   {.kind = DW_NODATA, .cname_ttl = 90},
				   0,
				   0}};
	struct wrk_resolve_options o;
	struct asked q = {0};
	(void)state;
	SETUP(names);
	options(&o);
	o.now_ms = virtual_now;
	o.now_ctx = &fx;
	fx.virtual_ms = 1000000;
	open_resolver(&o);
	ask("age.test", &q);
	fx.virtual_ms += 59999;
	ask("age.test", &q);
	assert_int_equal(q.v4.ttl_s, 1);
	assert_int_equal(q.v6.status, SP_REASON_NO_ADDRESS);
	assert_int_equal(names[0].a_queries, 1);
	fx.virtual_ms += 1;
	ask("age.test", &q);
	assert_int_equal(names[0].a_queries, 2);
	assert_int_equal(names[0].aaaa_queries, 1);
	fx.virtual_ms += 30000;
	ask("age.test", &q);
	assert_int_equal(names[0].a_queries, 2);
	assert_int_equal(names[0].aaaa_queries, 2);
	teardown();
}

static void test_a_name_that_does_not_exist_fails_and_is_remembered(void **state)
{
	struct dw_name names[] = {
		{"nx.test", REPLY(DW_NXDOMAIN), REPLY(DW_NXDOMAIN), 0, 0}};
	struct asked q = {0};
	(void)state;
	SETUP(names);
	open_default();
	for (int i = 0; i < 3; i++) {
		ask("nx.test", &q);
		assert_int_equal(q.v4.status, SP_REASON_RESOLVE_FAILED);
		assert_int_equal(q.v6.status, SP_REASON_RESOLVE_FAILED);
		assert_int_equal(q.v4.n, 0);
		assert_in_range(q.v4.ttl_s, 29, 30);
	}
	assert_int_equal(names[0].a_queries, 1);
	assert_int_equal(names[0].aaaa_queries, 1);
	teardown();
}

static void
test_failing_servers_are_tried_again_then_remembered_for_a_second(void **state)
{
	struct dw_name names[] = {{"fail.test", REPLY(DW_SERVFAIL), NOTHING, 0, 0}};
	struct asked q = {0};
	(void)state;
	SETUP(names);
	open_default();
	ask("fail.test", &q);
	assert_int_equal(q.v4.status, SP_REASON_RESOLVE_FAILED);
	assert_int_equal(q.v6.status, SP_REASON_NO_ADDRESS);
	assert_int_equal(names[0].a_queries, 3);
	ask("fail.test", &q);
	assert_int_equal(names[0].a_queries, 3);
	assert_int_equal(q.v4.ttl_s, 1);
	assert_int_equal(stats().failed, 1);
	teardown();
}

static void test_silence_ends_as_timeout_at_the_stated_time(void **state)
{
	struct dw_name names[] = {{"mute.test", REPLY(DW_SILENT), OK4("::1"), 0, 0}};
	struct wrk_resolve_options o;
	struct asked q = {0}, again = {0};
	(void)state;
	SETUP(names);
	options(&o);
	o.timeout_ms = 150;
	open_resolver(&o);
	ask("mute.test", &q);
	assert_int_equal(q.v6.status, SP_REASON_NONE);
	assert_int_equal(q.v4.status, SP_REASON_RESOLVE_TIMEOUT);
	assert_in_range(q.v4_ms, 150, 2500);
	assert_int_equal(stats().lookups, 1); // c-ares has not given up
	ask("mute.test", &again);
	assert_int_equal(again.v4.status, SP_REASON_RESOLVE_TIMEOUT);
	assert_int_equal(names[0].a_queries, 1);
	teardown();
}

static void test_a_late_answer_still_reaches_the_cache(void **state)
{
	struct dw_name names[] = {{"late.test",
				   {.kind = DW_ADDRS_OK,
				    .ttl = 60,
				    .delay_ms = 120,
				    .addrs = {"192.0.2.9"}},
				   NOTHING,
				   0,
				   0}};
	struct wrk_resolve_options o;
	struct asked q = {0};
	(void)state;
	SETUP(names);
	options(&o);
	o.timeout_ms = 40;
	open_resolver(&o);
	ask("late.test", &q);
	assert_int_equal(q.v4.status, SP_REASON_RESOLVE_TIMEOUT);
	WAIT_UNTIL(fx.base, stats().lookups == 0);
	ask("late.test", &q);
	assert_int_equal(q.v4.status, SP_REASON_NONE);
	assert_addr(&q.v4, 0, "192.0.2.9");
	assert_int_equal(names[0].a_queries, 1);
	teardown();
}

static void test_no_server_at_all_ends_as_timeout(void **state)
{
	struct dw_name names[] = {{"x.test", NOTHING, NOTHING, 0, 0}};
	const char *servers[1];
	struct sockaddr_in sa = {.sin_family = AF_INET};
	socklen_t len = sizeof(sa);
	struct wrk_resolve_options o;
	struct asked q = {0};
	char server[32];
	(void)state;
	SETUP(names);
	// a port that was free a moment ago: ICMP says that nobody is there
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	close(fd);
	snprintf(server, sizeof(server), "127.0.0.1:%u", ntohs(sa.sin_port));
	options(&o);
	servers[0] = server;
	o.servers = servers;
	o.try_ms = 50;
	open_resolver(&o);
	ask("x.test", &q);
	assert_int_equal(q.v4.status, SP_REASON_RESOLVE_TIMEOUT);
	assert_int_equal(q.v6.status, SP_REASON_RESOLVE_TIMEOUT);
	assert_in_range(q.v4_ms, 0, 3000);
	teardown();
}

static void test_second_server_answers_when_the_first_is_mute(void **state)
{
	struct dw_name names[] = {{"two.test", OK4("192.0.2.1"), NOTHING, 0, 0}};
	const char *servers[2];
	struct sockaddr_in sa = {.sin_family = AF_INET};
	socklen_t len = sizeof(sa);
	struct wrk_resolve_options o;
	struct asked q = {0};
	char mute[32];
	(void)state;
	SETUP(names);
	int fd = socket(AF_INET, SOCK_DGRAM, 0); // never read
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	snprintf(mute, sizeof(mute), "127.0.0.1:%u", ntohs(sa.sin_port));
	options(&o);
	servers[0] = mute;
	servers[1] = fx.world.server;
	o.servers = servers;
	o.nservers = 2;
	o.try_ms = 100;
	open_resolver(&o);
	ask("two.test", &q);
	assert_addr(&q.v4, 0, "192.0.2.1");
	close(fd);
	teardown();
}

static void test_slow_aaaa_does_not_hold_the_a_answer_back(void **state)
{
	struct dw_name names[] = {
		{"slow6.test",
		 OK4("192.0.2.1"),
		 {.kind = DW_ADDRS_OK, .ttl = 60, .delay_ms = 200, .addrs = {"::1"}},
		 0,
		 0}};
	struct asked q = {0};
	(void)state;
	SETUP(names);
	open_default();
	ask("slow6.test", &q);
	assert_int_equal(q.calls, 2);
	assert_true(q.v6_ms >= 150); // timers of the loop may be early
	assert_true(q.v4_ms + 100 <= q.v6_ms);
	teardown();
}

static void test_cname_is_followed_and_its_ttl_counts(void **state)
{
	struct dw_name names[] = {
		{"alias.test",
		 {.kind = DW_CNAME, .ttl = 600, .cname_ttl = 7, .addrs = {"192.0.2.7"}},
		 {.kind = DW_CNAME, .ttl = 600, .cname_ttl = 7},
		 0,
		 0}};
	struct asked q = {0};
	(void)state;
	SETUP(names);
	open_default();
	ask("alias.test", &q);
	assert_addr(&q.v4, 0, "192.0.2.7");
	assert_int_equal(q.v4.ttl_s, 7);
	assert_int_equal(q.v6.status, SP_REASON_NO_ADDRESS);
	teardown();
}

#define MANY                                                                             \
	"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6",    \
		"192.0.2.7", "192.0.2.8", "192.0.2.9", "192.0.2.10", "192.0.2.11",       \
		"192.0.2.12", "192.0.2.13", "192.0.2.14", "192.0.2.15", "192.0.2.16",    \
		"192.0.2.17", "192.0.2.18"

static void test_truncated_answer_is_fetched_over_tcp_and_cut_at_the_limit(void **state)
{
	struct dw_name names[] = {{"many.test",
				   {.kind = DW_TRUNCATED, .ttl = 60, .addrs = {MANY}},
				   NOTHING,
				   0,
				   0}};
	struct asked q = {0};
	(void)state;
	SETUP(names);
	open_default();
	ask("many.test", &q);
	assert_int_equal(fx.world.tcp_queries, 1);
	assert_int_equal(q.v4.n, WRK_DNS_ADDRS_MAX);
	assert_addr(&q.v4, 15, "192.0.2.16");
	ask("many.test", &q);
	assert_int_equal(q.v4.n, WRK_DNS_ADDRS_MAX);
	assert_int_equal(fx.world.tcp_queries, 1);
	teardown();
}

static void test_malformed_answer_is_a_failure(void **state)
{
	struct dw_name names[] = {
		{"bad.test",
		 {.kind = DW_MALFORMED, .ttl = 60, .addrs = {"192.0.2.1"}},
		 NOTHING,
		 0,
		 0}};
	struct asked q = {0};
	(void)state;
	SETUP(names);
	open_default();
	ask("bad.test", &q);
	assert_int_equal(q.v4.status, SP_REASON_RESOLVE_FAILED);
	assert_int_equal(q.v4.n, 0);
	teardown();
}

static void test_identical_look_ups_share_one_query(void **state)
{
	struct dw_name names[] = {{"same.test",
				   {.kind = DW_ADDRS_OK,
				    .ttl = 60,
				    .delay_ms = 300,
				    .addrs = {"192.0.2.1"}},
				   NOTHING,
				   0,
				   0}};
	struct asked q[10] = {0};
	(void)state;
	SETUP(names);
	open_default();
	for (int i = 0; i < 9; i++)
		assert_int_equal(start(i & 1 ? "same.test" : "SAME.test", &q[i]), 0);
	// once AAAA is there, a tenth joins for A only
	WAIT_UNTIL(fx.base, q[0].calls == 1);
	assert_int_equal(start("same.test", &q[9]), 0);
	WAIT_UNTIL(fx.base, q[9].lasts);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(q[i].lasts, 1);
		assert_int_equal(q[i].calls, 2);
		assert_addr(&q[i].v4, 0, "192.0.2.1");
		assert_int_equal(q[i].v6.status, SP_REASON_NO_ADDRESS);
	}
	assert_int_equal(names[0].a_queries, 1);
	assert_int_equal(names[0].aaaa_queries, 1);
	assert_int_equal(stats().joined, 9);
	teardown();
}

static void test_cancelling_one_leaves_the_others_and_the_cache(void **state)
{
	struct dw_name names[] = {
		{"same.test",
		 {.kind = DW_ADDRS_OK, .ttl = 60, .delay_ms = 40, .addrs = {"192.0.2.1"}},
		 NOTHING,
		 0,
		 0}};
	struct asked a = {0}, b = {0};
	(void)state;
	SETUP(names);
	open_default();
	assert_int_equal(start("same.test", &a), 0);
	assert_int_equal(start("same.test", &b), 0);
	wrk_resolve_cancel(a.l);
	WAIT_UNTIL(fx.base, b.lasts);
	assert_int_equal(a.calls, 0);
	assert_addr(&b.v4, 0, "192.0.2.1");
	teardown();

	names[0].a_queries = names[0].aaaa_queries = 0;
	SETUP(names);
	open_default();
	assert_int_equal(start("same.test", &a), 0);
	wrk_resolve_cancel(a.l);
	WAIT_UNTIL(fx.base, stats().lookups == 0);
	ask("same.test", &b);
	assert_int_equal(a.calls, 0);
	assert_int_equal(names[0].a_queries, 1);
	wrk_resolve_cancel(NULL);
	teardown();
}

static void test_a_callback_may_cancel_others_whose_answer_is_ready(void **state)
{
	struct dw_name names[] = {{"same.test", OK4("192.0.2.1"), NOTHING, 0, 0}};
	struct asked a = {0}, b = {0}, self = {0};
	(void)state;
	SETUP(names);
	open_default();
	a.cancels = &b;
	assert_int_equal(start("same.test", &a), 0);
	assert_int_equal(start("same.test", &b), 0);
	WAIT_UNTIL(fx.base, a.lasts);
	assert_true(b.calls == 0 || b.lasts == 0);
	unsigned calls = b.calls;
	self.cancels = &self; // in its first callback of two
	assert_int_equal(start("same.test", &self), 0);
	WAIT_UNTIL(fx.base, self.calls);
	assert_int_equal(stats().waiters, 0);
	assert_int_equal(self.calls, 1);
	assert_int_equal(b.calls, calls);
	teardown();
}

static void test_names_under_way_and_waiters_have_limits(void **state)
{
	struct dw_name names[] = {{"one.test", REPLY(DW_SILENT), REPLY(DW_SILENT), 0, 0},
				  {"two.test", REPLY(DW_SILENT), REPLY(DW_SILENT), 0, 0}};
	struct wrk_resolve_options o;
	struct asked q[4] = {0}, more = {0};
	(void)state;
	SETUP(names);
	options(&o);
	o.max_lookups = 2;
	o.max_waiters = 4;
	open_resolver(&o);
	assert_int_equal(start("one.test", &q[0]), 0);
	assert_int_equal(start("two.test", &q[1]), 0);
	assert_int_equal(start("three.test", &more), SP_E_LIMIT);
	assert_int_equal(start("one.test", &q[2]), 0); // joins
	ask("192.0.2.1", &more);                       // needs no server
	assert_int_equal(more.calls, 1);
	assert_int_equal(start("two.test", &q[3]), 0);
	assert_int_equal(start("one.test", &more), SP_E_LIMIT);
	assert_int_equal(start("192.0.2.1", &more), SP_E_LIMIT);
	wrk_resolve_cancel(q[0].l);
	assert_int_equal(start("one.test", &more), 0);
	assert_int_equal(stats().refused, 3);
	assert_int_equal(stats().waiters, 4);
	teardown(); // with look-ups under way
}

static void test_numeric_and_special_names_need_no_server(void **state)
{
	struct dw_name names[] = {{"x.test", NOTHING, NOTHING, 0, 0}};
	static const char *const failing[] = {"invalid", "a.b.INVALID.", "abc.onion",
					      "1.2.3",   "300.1.1.1",    "2130706433"};
	struct asked q = {0};
	(void)state;
	SETUP(names);
	open_default();
	ask("192.0.2.33", &q);
	assert_int_equal(q.calls, 1);
	assert_addr(&q.v4, 0, "192.0.2.33");
	ask("2001:db8::5", &q);
	assert_int_equal(q.calls, 1);
	assert_addr(&q.v6, 0, "2001:db8::5");
	ask("Foo.LocalHost.", &q);
	assert_int_equal(q.calls, 2);
	assert_addr(&q.v4, 0, "127.0.0.1");
	assert_addr(&q.v6, 0, "::1");
	for (size_t i = 0; i < sizeof(failing) / sizeof(failing[0]); i++) {
		ask(failing[i], &q);
		assert_int_equal(q.v4.status, SP_REASON_RESOLVE_FAILED);
		assert_int_equal(q.v6.status, SP_REASON_RESOLVE_FAILED);
	}
	assert_int_equal(stats().queries, 0);
	assert_int_equal(start("not a name", &q), SP_E_MALFORMED);
	assert_int_equal(start("", &q), SP_E_MALFORMED);
	assert_int_equal(start(".", &q), SP_E_MALFORMED);
	assert_int_equal(start("a..b", &q), SP_E_MALFORMED);
	assert_int_equal(stats().waiters, 0);
	teardown();
}

static void test_a_family_that_is_off_is_not_asked_for(void **state)
{
	struct dw_name names[] = {
		{"both.test", OK4("192.0.2.1"), OK4("2001:db8::1"), 0, 0}};
	struct wrk_resolve_options o;
	struct asked q = {0};
	(void)state;
	SETUP(names);
	options(&o);
	o.ipv6 = false;
	open_resolver(&o);
	ask("both.test", &q);
	assert_int_equal(q.calls, 1);
	assert_addr(&q.v4, 0, "192.0.2.1");
	assert_int_equal(names[0].aaaa_queries, 0);
	teardown();
}

static void test_want_of_descriptors_is_told_and_not_cached(void **state)
{
	struct dw_name names[] = {{"fd.test", OK4("192.0.2.1"), NOTHING, 0, 0}};
	struct rlimit before, none;
	struct asked q = {0};
	(void)state;
	SETUP(names);
	open_default();
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	int next = dup(fx.world.fd);
	close(next);
	none.rlim_cur = (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	ask("fd.test", &q);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(q.v4.status, SP_REASON_NO_DESCRIPTORS);
	assert_int_equal(q.v6.status, SP_REASON_NO_DESCRIPTORS);
	ask("fd.test", &q);
	assert_int_equal(q.v4.status, SP_REASON_NONE);
	teardown();
}

static void test_many_names_at_once_all_get_their_answer(void **state)
{
	enum { N = 100 }; // what fits the server's socket buffer
	static struct dw_name names[N];
	static struct asked q[N];
	static char text[N][32];
	(void)state;
	memset(q, 0, sizeof(q));
	for (int i = 0; i < N; i++) {
		snprintf(text[i], sizeof(text[i]), "n%d.test", i);
		names[i] = (struct dw_name){
			.name = text[i], .a = OK4("192.0.2.1"), .aaaa = NOTHING};
	}
	SETUP(names);
	open_default();
	for (int i = 0; i < N; i++)
		assert_int_equal(start(text[i], &q[i]), 0);
	for (int i = 0; i < N; i++) {
		WAIT_UNTIL(fx.base, q[i].lasts);
		assert_int_equal(q[i].v4.status, SP_REASON_NONE);
	}
	assert_int_equal(stats().lookups, 0);
	teardown();
}

static void test_wrong_options_are_refused(void **state)
{
	struct dw_name names[] = {{"x.test", NOTHING, NOTHING, 0, 0}};
	static const char *const wrong[] = {
		"dns.example:53",  "",     "127.0.0.1:", "127.0.0.1:0",
		"127.0.0.1:65536", "[::1", "::1:53x"};
	static const char *const right[] = {"127.0.0.1", "127.0.0.1:5353", "::1",
					    "[::1]:5353"};
	struct wrk_resolve_options o;
	(void)state;
	SETUP(names);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		options(&o);
		o.servers = &wrong[i];
		assert_int_equal(wrk_resolve_new(&o, &fx.r), SP_E_CONFIG);
		assert_null(fx.r);
	}
	options(&o);
	o.servers = right;
	o.nservers = 4;
	open_resolver(&o);
	wrk_resolve_free(fx.r);
	fx.r = NULL;
	options(&o);
	o.nservers = 0; // the system's
	open_resolver(&o);
	wrk_resolve_free(fx.r);
	fx.r = NULL;
	options(&o);
	o.max_lookups = 0;
	assert_int_equal(wrk_resolve_new(&o, &fx.r), -EINVAL);
	options(&o);
	o.ipv4 = o.ipv6 = false;
	assert_int_equal(wrk_resolve_new(&o, &fx.r), -EINVAL);
	options(&o);
	o.cache.max_entries = 0;
	assert_int_equal(wrk_resolve_new(&o, &fx.r), -EINVAL);
	wrk_resolve_free(NULL);
	teardown();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_name_gives_its_addresses_of_both_families),
		cmocka_unit_test(test_cached_answer_comes_without_a_query_and_ipv6_first),
		cmocka_unit_test(test_answers_age_by_the_clock_of_the_context),
		cmocka_unit_test(test_a_name_that_does_not_exist_fails_and_is_remembered),
		cmocka_unit_test(
			test_failing_servers_are_tried_again_then_remembered_for_a_second),
		cmocka_unit_test(test_silence_ends_as_timeout_at_the_stated_time),
		cmocka_unit_test(test_a_late_answer_still_reaches_the_cache),
		cmocka_unit_test(test_no_server_at_all_ends_as_timeout),
		cmocka_unit_test(test_second_server_answers_when_the_first_is_mute),
		cmocka_unit_test(test_slow_aaaa_does_not_hold_the_a_answer_back),
		cmocka_unit_test(test_cname_is_followed_and_its_ttl_counts),
		cmocka_unit_test(
			test_truncated_answer_is_fetched_over_tcp_and_cut_at_the_limit),
		cmocka_unit_test(test_malformed_answer_is_a_failure),
		cmocka_unit_test(test_identical_look_ups_share_one_query),
		cmocka_unit_test(test_cancelling_one_leaves_the_others_and_the_cache),
		cmocka_unit_test(test_a_callback_may_cancel_others_whose_answer_is_ready),
		cmocka_unit_test(test_names_under_way_and_waiters_have_limits),
		cmocka_unit_test(test_numeric_and_special_names_need_no_server),
		cmocka_unit_test(test_a_family_that_is_off_is_not_asked_for),
		cmocka_unit_test(test_want_of_descriptors_is_told_and_not_cached),
		cmocka_unit_test(test_many_names_at_once_all_get_their_answer),
		cmocka_unit_test(test_wrong_options_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
