#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/dnscache.h"

#define T0 UINT64_C(5000000000) // ms; beyond 32 bits

static struct wrk_dnscache *make(const struct wrk_dnscache_options *o)
{
	struct wrk_dnscache *c;
	assert_int_equal(wrk_dnscache_new(o, &c), 0);
	return c;
}

static struct wrk_dnscache *make_default(void)
{
	struct wrk_dnscache_options o;
	wrk_dnscache_options_default(&o);
	return make(&o);
}

static struct wrk_dnsanswer addresses(int family, uint32_t ttl_s, unsigned n)
{
	struct wrk_dnsanswer a = {.family = family, .ttl_s = ttl_s, .n = n};
	for (unsigned i = 0; i < n; i++)
		memset(a.addr[i], (int)(i + 1), family == AF_INET ? 4 : 16);
	return a;
}

static struct wrk_dnsanswer nothing(enum sp_reason status, uint32_t ttl_s)
{
	return (struct wrk_dnsanswer){
		.family = AF_INET, .status = status, .ttl_s = ttl_s};
}

// Seconds for which the answer is kept, to the millisecond; -1: not at all.
static long kept_s(struct wrk_dnscache *c, struct wrk_dnsanswer a)
{
	struct wrk_dnsanswer got;
	wrk_dnscache_put(c, "kept.test", &a, T0);
	if (!wrk_dnscache_get(c, "kept.test", a.family, T0, &got))
		return -1;
	uint32_t left = got.ttl_s;
	assert_int_equal(got.status, a.status);
	assert_true(wrk_dnscache_get(c, "kept.test", a.family, T0 + 1000ull * left - 1,
				     &got));
	assert_int_equal(got.ttl_s, 1);
	assert_false(
		wrk_dnscache_get(c, "kept.test", a.family, T0 + 1000ull * left, &got));
	return (long)left;
}

static void test_an_answer_comes_back_whole(void **state)
{
	struct wrk_dnscache *c = make_default();
	struct wrk_dnsanswer v4 = addresses(AF_INET, 60, 16),
			     v6 = addresses(AF_INET6, 60, 3);
	struct wrk_dnsanswer got;
	(void)state;
	wrk_dnscache_put(c, "a.test", &v4, T0);
	wrk_dnscache_put(c, "a.test", &v6, T0);
	assert_true(wrk_dnscache_get(c, "a.test", AF_INET, T0 + 500, &got));
	assert_int_equal(got.n, 16);
	assert_int_equal(got.ttl_s, 60);
	assert_memory_equal(got.addr, v4.addr, sizeof(got.addr));
	assert_true(wrk_dnscache_get(c, "a.test", AF_INET6, T0 + 59001, &got));
	assert_int_equal(got.family, AF_INET6);
	assert_int_equal(got.n, 3);
	assert_int_equal(got.ttl_s, 1);
	assert_memory_equal(got.addr, v6.addr, sizeof(got.addr));
	assert_false(wrk_dnscache_get(c, "b.test", AF_INET, T0, &got));
	assert_false(wrk_dnscache_get(c, "a.tes", AF_INET, T0, &got));
	wrk_dnscache_free(c);
}

static void test_ttls_are_clamped_by_kind(void **state)
{
	struct wrk_dnscache_options o = {.max_entries = 10,
					 .min_ttl_s = 5,
					 .max_ttl_s = 100,
					 .max_negative_ttl_s = 50,
					 .failure_ttl_s = 2};
	struct wrk_dnscache *c = make(&o);
	(void)state;
	assert_int_equal(kept_s(c, addresses(AF_INET, 0, 1)), 5);
	assert_int_equal(kept_s(c, addresses(AF_INET, 5, 1)), 5);
	assert_int_equal(kept_s(c, addresses(AF_INET, 77, 1)), 77);
	assert_int_equal(kept_s(c, addresses(AF_INET, 101, 1)), 100);
	assert_int_equal(kept_s(c, addresses(AF_INET, 0x7fffffff, 1)), 100);
	assert_int_equal(kept_s(c, nothing(SP_REASON_RESOLVE_FAILED, 1)), 5);
	assert_int_equal(kept_s(c, nothing(SP_REASON_RESOLVE_FAILED, 40)), 40);
	assert_int_equal(kept_s(c, nothing(SP_REASON_RESOLVE_FAILED, 86400)), 50);
	assert_int_equal(kept_s(c, nothing(SP_REASON_NO_ADDRESS, 0)), 5);
	assert_int_equal(kept_s(c, nothing(SP_REASON_NO_ADDRESS, 51)), 50);
	assert_int_equal(kept_s(c, nothing(SP_REASON_RESOLVE_FAILED, 0)), 2); // SERVFAIL
	assert_int_equal(kept_s(c, nothing(SP_REASON_RESOLVE_TIMEOUT, 0)), 2);
	assert_int_equal(kept_s(c, nothing(SP_REASON_NO_MEMORY, 0)), -1);
	assert_int_equal(kept_s(c, nothing(SP_REASON_NO_DESCRIPTORS, 0)), -1);
	wrk_dnscache_free(c);
}

static void test_a_limit_of_zero_seconds_keeps_nothing(void **state)
{
	struct wrk_dnscache_options o = {.max_entries = 10};
	struct wrk_dnscache *c = make(&o);
	(void)state;
	assert_int_equal(kept_s(c, addresses(AF_INET, 60, 1)), -1);
	assert_int_equal(kept_s(c, nothing(SP_REASON_RESOLVE_TIMEOUT, 0)), -1);
	wrk_dnscache_free(c);
}

static void test_a_new_answer_takes_the_place_of_the_old(void **state)
{
	struct wrk_dnscache *c = make_default();
	struct wrk_dnsanswer a = addresses(AF_INET, 60, 4), b = addresses(AF_INET, 10, 1);
	struct wrk_dnsanswer gone = nothing(SP_REASON_NO_MEMORY, 0), got;
	struct wrk_dnscache_stats s;
	(void)state;
	wrk_dnscache_put(c, "a.test", &a, T0);
	wrk_dnscache_put(c, "a.test", &b, T0 + 1000);
	wrk_dnscache_stats(c, &s);
	assert_int_equal(s.entries, 1);
	assert_true(wrk_dnscache_get(c, "a.test", AF_INET, T0 + 10999, &got));
	assert_int_equal(got.n, 1);
	assert_false(wrk_dnscache_get(c, "a.test", AF_INET, T0 + 11000, &got));
	wrk_dnscache_put(c, "a.test", &a, T0);
	wrk_dnscache_put(c, "a.test", &gone, T0);
	assert_false(wrk_dnscache_get(c, "a.test", AF_INET, T0, &got));
	wrk_dnscache_free(c);
}

static void test_at_the_limit_the_least_recently_used_goes(void **state)
{
	struct wrk_dnscache_options o;
	struct wrk_dnsanswer a = addresses(AF_INET, 60, 1), got;
	struct wrk_dnscache_stats s;
	(void)state;
	wrk_dnscache_options_default(&o);
	o.max_entries = 3;
	struct wrk_dnscache *c = make(&o);
	wrk_dnscache_put(c, "a", &a, T0);
	wrk_dnscache_put(c, "b", &a, T0);
	wrk_dnscache_put(c, "c", &a, T0);
	assert_true(wrk_dnscache_get(c, "a", AF_INET, T0, &got));
	wrk_dnscache_put(c, "d", &a, T0); // b goes, although a is older
	assert_false(wrk_dnscache_get(c, "b", AF_INET, T0, &got));
	assert_true(wrk_dnscache_get(c, "a", AF_INET, T0, &got));
	assert_true(wrk_dnscache_get(c, "c", AF_INET, T0, &got));
	assert_true(wrk_dnscache_get(c, "d", AF_INET, T0, &got));
	wrk_dnscache_put(c, "c", &a, T0); // in its own place: nobody goes
	wrk_dnscache_stats(c, &s);
	assert_int_equal(s.entries, 3);
	assert_int_equal(s.evictions, 1);
	assert_int_equal(s.hits, 4);
	assert_int_equal(s.misses, 1);
	wrk_dnscache_free(c);
}

// What a cache without any structure would say.
struct model {
	uint64_t expires_ms, used;
	uint32_t n;
};

static void test_a_long_random_run_agrees_with_a_naive_model(void **state)
{
	enum { NAMES = 64, LIMIT = 24, STEPS = 200000 };
	struct wrk_dnscache_options o;
	struct model model[NAMES] = {0};
	uint64_t now = T0, turn = 0;
	uint32_t live = 0;
	unsigned seed = 20240607;
	(void)state;
	wrk_dnscache_options_default(&o);
	o.max_entries = LIMIT;
	struct wrk_dnscache *c = make(&o);
	for (int step = 0; step < STEPS; step++) {
		char name[16];
		unsigned i = (unsigned)rand_r(&seed) % NAMES;
		struct model *m = &model[i];
		struct wrk_dnsanswer got;
		snprintf(name, sizeof(name), "n%u.test", i);
		now += (unsigned)rand_r(&seed) % 200;
		bool there = wrk_dnscache_get(c, name, AF_INET, now, &got);
		assert_int_equal(there, m->n && now < m->expires_ms);
		if (m->n && !there) {
			m->n = 0;
			live--;
		} else if (there) {
			assert_int_equal(got.n, m->n);
			m->used = ++turn;
		}
		if (rand_r(&seed) % 2)
			continue;
		uint32_t ttl = 1 + (uint32_t)rand_r(&seed) % 20;
		struct wrk_dnsanswer a =
			addresses(AF_INET, ttl, 1 + (unsigned)rand_r(&seed) % 16);
		wrk_dnscache_put(c, name, &a, now);
		if (!m->n && live == LIMIT) {
			struct model *oldest = NULL;
			for (int k = 0; k < NAMES; k++)
				if (model[k].n &&
				    (!oldest || model[k].used < oldest->used))
					oldest = &model[k];
			oldest->n = 0;
			live--;
		}
		live += !m->n;
		*m = (struct model){now + 1000ull * ttl, ++turn, a.n};
	}
	struct wrk_dnscache_stats s;
	wrk_dnscache_stats(c, &s);
	assert_int_equal(s.entries, live);
	assert_true(s.evictions > 1000);
	wrk_dnscache_free(c);
}

static void test_limits_that_contradict_are_refused(void **state)
{
	struct wrk_dnscache_options o;
	struct wrk_dnscache *c = NULL;
	(void)state;
	wrk_dnscache_options_default(&o);
	o.max_entries = 0;
	assert_int_equal(wrk_dnscache_new(&o, &c), -EINVAL);
	o.max_entries = (1u << 20) + 1;
	assert_int_equal(wrk_dnscache_new(&o, &c), -EINVAL);
	wrk_dnscache_options_default(&o);
	o.min_ttl_s = o.max_ttl_s + 1;
	assert_int_equal(wrk_dnscache_new(&o, &c), -EINVAL);
	wrk_dnscache_options_default(&o);
	o.min_ttl_s = o.max_negative_ttl_s + 1;
	assert_int_equal(wrk_dnscache_new(&o, &c), -EINVAL);
	assert_null(c);
	wrk_dnscache_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_answer_comes_back_whole),
		cmocka_unit_test(test_ttls_are_clamped_by_kind),
		cmocka_unit_test(test_a_limit_of_zero_seconds_keeps_nothing),
		cmocka_unit_test(test_a_new_answer_takes_the_place_of_the_old),
		cmocka_unit_test(test_at_the_limit_the_least_recently_used_goes),
		cmocka_unit_test(test_a_long_random_run_agrees_with_a_naive_model),
		cmocka_unit_test(test_limits_that_contradict_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
