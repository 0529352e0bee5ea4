#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "worker/dnsmsg.h"

// "q.test" with one question of type A; the counts of the other sections are patched in.
#define QUESTION                                                                         \
	0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'q', 4, 't', 'e', 's', 't',   \
		0, 0, 1, 0, 1
#define OWNER     0xc0, 12
#define RR_A(ttl) OWNER, 0, 1, 0, 1, 0, 0, 0, ttl, 0, 4

struct message {
	size_t len;
	uint8_t b[512];
};

static void begin(struct message *m, unsigned flags, unsigned answers,
		  unsigned authorities)
{
	static const uint8_t head[] = {QUESTION};
	memcpy(m->b, head, sizeof(head));
	m->len = sizeof(head);
	m->b[2] = (uint8_t)(flags >> 8);
	m->b[3] = (uint8_t)flags;
	m->b[7] = (uint8_t)answers;
	m->b[9] = (uint8_t)authorities;
}

static void add(struct message *m, const void *p, size_t len)
{
	assert_true(m->len + len <= sizeof(m->b));
	memcpy(m->b + m->len, p, len);
	m->len += len;
}
#define ADD(m, ...)                                                                      \
	do {                                                                             \
		const uint8_t bytes_[] = {__VA_ARGS__};                                  \
		add((m), bytes_, sizeof(bytes_));                                        \
	} while (0)

#define SOA(ttl, minimum)                                                                \
	OWNER, 0, 6, 0, 1, 0, 0, 0, ttl, 0, 24, OWNER, OWNER, 0, 0, 0, 1, 0, 0, 0, 2, 0, \
		0, 0, 3, 0, 0, 0, 4, 0, 0, 0, minimum

// Parses a copy of exactly its size, so that a sanitizer sees a read beyond it.
static int parse(const struct message *m, int family, struct wrk_dnsanswer *ret)
{
	uint8_t *exact = test_malloc(m->len + 1);
	memcpy(exact + 1, m->b, m->len);
	int err = wrk_dnsmsg_parse(exact + 1, m->len, family, ret);
	test_free(exact);
	return err;
}

static void test_addresses_come_with_the_least_ttl(void **state)
{
	struct message m;
	struct wrk_dnsanswer a;
	(void)state;
	begin(&m, 0x8180, 3, 0);
	ADD(&m, RR_A(50), 192, 0, 2, 1);
	ADD(&m, RR_A(40), 192, 0, 2, 2);
	ADD(&m, RR_A(60), 192, 0, 2, 3);
	assert_int_equal(parse(&m, AF_INET, &a), 0);
	assert_int_equal(a.status, SP_REASON_NONE);
	assert_int_equal(a.family, AF_INET);
	assert_int_equal(a.n, 3);
	assert_int_equal(a.ttl_s, 40);
	assert_memory_equal(a.addr[2], "\xc0\0\2\3", 4);
}

static void test_cname_and_foreign_records_are_stepped_over(void **state)
{
	struct message m;
	struct wrk_dnsanswer a;
	(void)state;
	begin(&m, 0x8180, 4, 0);
	ADD(&m, OWNER, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, 'r', 0xc0, 14); // CNAME
	ADD(&m, OWNER, 0, 46, 0, 1, 0, 0, 0, 1, 0, 3, 1, 2, 3);         // RRSIG
	ADD(&m, OWNER, 0, 1, 0, 3, 0, 0, 0, 1, 0, 4, 9, 9, 9, 9);       // class CHAOS
	ADD(&m, 1, 'r', 0xc0, 14, 0, 28, 0, 1, 0, 0, 1, 0, 0, 16, 0x20, 1, 0xd, 0xb8, 0,
	    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7);
	assert_int_equal(parse(&m, AF_INET6, &a), 0);
	assert_int_equal(a.n, 1);
	assert_int_equal(a.ttl_s, 9);
	assert_int_equal(a.addr[0][15], 7);
	// of the other family there is none
	assert_int_equal(parse(&m, AF_INET, &a), 0);
	assert_int_equal(a.status, SP_REASON_NO_ADDRESS);
	assert_int_equal(a.ttl_s, 0);
}

static void test_absence_lasts_as_the_soa_says(void **state)
{
	struct message m;
	struct wrk_dnsanswer a;
	(void)state;
	begin(&m, 0x8183, 0, 1);
	ADD(&m, SOA(100, 30));
	assert_int_equal(parse(&m, AF_INET, &a), 0);
	assert_int_equal(a.status, SP_REASON_RESOLVE_FAILED);
	assert_int_equal(a.ttl_s, 30);
	begin(&m, 0x8180, 0, 2);
	ADD(&m, OWNER, 0, 2, 0, 1, 0, 0, 0, 1, 0, 2, 0xc0, 12); // NS comes first
	ADD(&m, SOA(20, 200));
	assert_int_equal(parse(&m, AF_INET, &a), 0);
	assert_int_equal(a.status, SP_REASON_NO_ADDRESS);
	assert_int_equal(a.ttl_s, 20);
	begin(&m, 0x8183, 0, 0);
	assert_int_equal(parse(&m, AF_INET, &a), 0);
	assert_int_equal(a.ttl_s, 0);
}

static void test_addresses_beside_nxdomain_do_not_count(void **state)
{
	struct message m;
	struct wrk_dnsanswer a;
	(void)state;
	begin(&m, 0x8183, 1, 1);
	ADD(&m, RR_A(50), 192, 0, 2, 1);
	ADD(&m, SOA(10, 10));
	assert_int_equal(parse(&m, AF_INET, &a), 0);
	assert_int_equal(a.status, SP_REASON_RESOLVE_FAILED);
	assert_int_equal(a.n, 0);
	assert_int_equal(a.ttl_s, 10);
}

static void test_other_response_codes_are_failures(void **state)
{
	struct message m;
	struct wrk_dnsanswer a;
	(void)state;
	for (unsigned rcode = 1; rcode < 16; rcode++) {
		if (rcode == 3)
			continue;
		begin(&m, 0x8180 | rcode, 0, 0);
		assert_int_equal(parse(&m, AF_INET, &a), 0);
		assert_int_equal(a.status, SP_REASON_RESOLVE_FAILED);
		assert_int_equal(a.ttl_s, 0);
	}
}

static void test_ttl_with_the_high_bit_is_zero(void **state)
{
	struct message m;
	struct wrk_dnsanswer a;
	(void)state;
	begin(&m, 0x8180, 1, 0);
	ADD(&m, OWNER, 0, 1, 0, 1, 0x80, 0, 0, 0, 0, 4, 192, 0, 2, 1);
	assert_int_equal(parse(&m, AF_INET, &a), 0);
	assert_int_equal(a.n, 1);
	assert_int_equal(a.ttl_s, 0);
}

static void test_addresses_beyond_the_limit_are_dropped(void **state)
{
	struct message m;
	struct wrk_dnsanswer a;
	(void)state;
	begin(&m, 0x8180, 20, 0);
	for (uint8_t i = 0; i < 20; i++)
		ADD(&m, RR_A(50), 192, 0, 2, i);
	assert_int_equal(parse(&m, AF_INET, &a), 0);
	assert_int_equal(a.n, WRK_DNS_ADDRS_MAX);
	assert_int_equal(a.addr[15][3], 15);
}

static void test_every_cut_of_a_response_is_refused(void **state)
{
	struct message m;
	struct wrk_dnsanswer a = {.ttl_s = 4711};
	(void)state;
	begin(&m, 0x8180, 2, 0);
	ADD(&m, OWNER, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, 'r', 0xc0, 14);
	ADD(&m, RR_A(50), 192, 0, 2, 1);
	for (size_t whole = m.len; m.len-- > 0;) {
		assert_true(m.len < whole);
		assert_int_equal(parse(&m, AF_INET, &a), SP_E_TRUNCATED);
		assert_int_equal(a.ttl_s, 4711);
	}
	begin(&m, 0x8183, 0, 1);
	ADD(&m, SOA(10, 10));
	for (size_t head = 24; m.len-- > head;)
		assert_int_equal(parse(&m, AF_INET, &a), SP_E_TRUNCATED);
}

static void test_malformed_responses_are_refused(void **state)
{
	struct message m;
	struct wrk_dnsanswer a;
	(void)state;
	begin(&m, 0x0100, 0, 0); // a query
	assert_int_equal(parse(&m, AF_INET, &a), SP_E_MALFORMED);
	begin(&m, 0x8180, 1, 0); // an address of 5 bytes
	ADD(&m, OWNER, 0, 1, 0, 1, 0, 0, 0, 9, 0, 5, 1, 2, 3, 4, 5);
	assert_int_equal(parse(&m, AF_INET, &a), SP_E_MALFORMED);
	begin(&m, 0x8180, 1, 0); // label types that were never used
	ADD(&m, 0x41, 'x', 0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4);
	assert_int_equal(parse(&m, AF_INET, &a), SP_E_MALFORMED);
	begin(&m, 0x8183, 0, 1); // an SOA that ends before MINIMUM
	ADD(&m, OWNER, 0, 6, 0, 1, 0, 0, 0, 9, 0, 8, OWNER, OWNER, 0, 0, 0, 1);
	assert_int_equal(parse(&m, AF_INET, &a), SP_E_MALFORMED);
}

static void test_names_fold_to_one_form(void **state)
{
	char name[SP_NAME_MAX + 1], longest[SP_NAME_MAX + 3];
	(void)state;
	assert_true(wrk_dnsname_fold("WWW.Example.ORG.", name));
	assert_string_equal(name, "www.example.org");
	assert_true(wrk_dnsname_fold("a_b-[`{", name));
	assert_string_equal(name, "a_b-[`{");
	assert_false(wrk_dnsname_fold("", name));
	assert_false(wrk_dnsname_fold(".", name));
	memset(longest, 'x', sizeof(longest));
	longest[SP_NAME_MAX] = '.';
	longest[SP_NAME_MAX + 1] = '\0';
	assert_true(wrk_dnsname_fold(longest, name));
	assert_int_equal(strlen(name), SP_NAME_MAX);
	longest[SP_NAME_MAX] = 'x';
	assert_false(wrk_dnsname_fold(longest, name));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses_come_with_the_least_ttl),
		cmocka_unit_test(test_cname_and_foreign_records_are_stepped_over),
		cmocka_unit_test(test_absence_lasts_as_the_soa_says),
		cmocka_unit_test(test_addresses_beside_nxdomain_do_not_count),
		cmocka_unit_test(test_other_response_codes_are_failures),
		cmocka_unit_test(test_ttl_with_the_high_bit_is_zero),
		cmocka_unit_test(test_addresses_beyond_the_limit_are_dropped),
		cmocka_unit_test(test_every_cut_of_a_response_is_refused),
		cmocka_unit_test(test_malformed_responses_are_refused),
		cmocka_unit_test(test_names_fold_to_one_form),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
