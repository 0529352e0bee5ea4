#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/policy.h"

static enum sp_policy_verdict check(const struct sp_policy *p, enum sp_proto proto,
				    const char *addr, uint16_t port)
{
	struct sockaddr_storage ss = {0};
	struct sockaddr_in *in = (struct sockaddr_in *)&ss;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ss;
	if (strchr(addr, ':')) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		assert_int_equal(inet_pton(AF_INET6, addr, &in6->sin6_addr), 1);
	} else {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		assert_int_equal(inet_pton(AF_INET, addr, &in->sin_addr), 1);
	}
	return sp_policy_check(p, proto, (struct sockaddr *)&ss);
}

#define assert_verdict(p, addr, port, expected)                                          \
	assert_string_equal(sp_policy_word(check((p), SP_PROTO_TCP, (addr), (port))),    \
			    (expected))

// The policy of these rules; NULL ends them.
static struct sp_policy *policy(const char *const *rules)
{
	struct sp_policy *p;
	char error[SP_POLICY_ERROR_MAX];
	assert_int_equal(sp_policy_new(&p), 0);
	for (; *rules; rules++)
		if (sp_policy_add(p, *rules, error, sizeof(error)))
			fail_msg("%s: %s", *rules, error);
	return p;
}
#define POLICY(...) policy((const char *const[]){__VA_ARGS__, NULL})

static const struct {
	const char *addr, *word;
} addresses[] = {
	// each block: what lies before it, its ends, what lies behind it
	{"0.0.0.0", "unspecified"},
	{"0.0.0.1", "unspecified"},
	{"0.255.255.255", "unspecified"},
	{"1.0.0.0", "allowed"},
	{"1.1.1.1", "allowed"},
	{"9.255.255.255", "allowed"},
	{"10.0.0.0", "private"},
	{"10.1.2.3", "private"},
	{"10.255.255.255", "private"},
	{"11.0.0.0", "allowed"},
	{"100.63.255.255", "allowed"},
	{"100.64.0.0", "shared"},
	{"100.99.255.1", "shared"},
	{"100.100.100.200", "metadata"},
	{"100.127.255.255", "shared"},
	{"100.128.0.0", "allowed"},
	{"126.255.255.255", "allowed"},
	{"127.0.0.0", "loopback"},
	{"127.0.0.1", "loopback"},
	{"127.0.0.53", "loopback"},
	{"127.255.255.255", "loopback"},
	{"128.0.0.0", "allowed"},
	{"168.63.129.15", "allowed"},
	{"168.63.129.16", "metadata"},
	{"168.63.129.17", "allowed"},
	{"169.253.255.255", "allowed"},
	{"169.254.0.0", "link-local"},
	{"169.254.169.253", "link-local"},
	{"169.254.169.254", "metadata"},
	{"169.254.169.255", "link-local"},
	{"169.254.170.2", "metadata"},
	{"169.254.255.255", "link-local"},
	{"169.255.0.0", "allowed"},
	{"172.15.255.255", "allowed"},
	{"172.16.0.0", "private"},
	{"172.20.10.1", "private"},
	{"172.31.255.255", "private"},
	{"172.32.0.0", "allowed"},
	{"191.255.255.255", "allowed"},
	{"192.0.0.0", "reserved"},
	{"192.0.0.8", "reserved"},
	{"192.0.0.170", "reserved"},
	{"192.0.0.192", "metadata"},
	{"192.0.0.255", "reserved"},
	{"192.0.1.0", "allowed"},
	{"192.0.1.255", "allowed"},
	{"192.0.2.0", "documentation"},
	{"192.0.2.255", "documentation"},
	{"192.0.3.0", "allowed"},
	{"192.31.196.1", "allowed"},
	{"192.52.193.1", "allowed"},
	{"192.88.98.255", "allowed"},
	{"192.88.99.0", "reserved"},
	{"192.88.99.1", "reserved"},
	{"192.88.99.255", "reserved"},
	{"192.88.100.0", "allowed"},
	{"192.167.255.255", "allowed"},
	{"192.168.0.0", "private"},
	{"192.168.1.1", "private"},
	{"192.168.255.255", "private"},
	{"192.169.0.0", "allowed"},
	{"192.175.48.6", "allowed"},
	{"198.17.255.255", "allowed"},
	{"198.18.0.0", "benchmark"},
	{"198.19.255.255", "benchmark"},
	{"198.20.0.0", "allowed"},
	{"198.51.99.255", "allowed"},
	{"198.51.100.0", "documentation"},
	{"198.51.100.255", "documentation"},
	{"198.51.101.0", "allowed"},
	{"203.0.112.255", "allowed"},
	{"203.0.113.0", "documentation"},
	{"203.0.113.255", "documentation"},
	{"203.0.114.0", "allowed"},
	{"223.255.255.255", "allowed"},
	{"224.0.0.0", "multicast"},
	{"224.0.0.251", "multicast"},
	{"239.255.255.255", "multicast"},
	{"240.0.0.0", "reserved"},
	{"255.255.255.254", "reserved"},
	{"255.255.255.255", "broadcast"},

	{"::", "unspecified"},
	{"::1", "loopback"},
	{"100::", "reserved"},
	{"100::1", "reserved"},
	{"100:0:0:1::1", "reserved"},
	{"200::1", "reserved"},
	{"400::1", "reserved"},
	{"1fff:ffff::1", "reserved"},
	{"2000::1", "allowed"},
	{"2001:1::1", "reserved"},
	{"2001:2::", "benchmark"},
	{"2001:2:0:ffff::1", "benchmark"},
	{"2001:2:1::1", "reserved"},
	{"2001:3::1", "reserved"},
	{"2001:10::1", "reserved"},
	{"2001:20::1", "reserved"},
	{"2001:1ff:ffff::1", "reserved"},
	{"2001:200::1", "allowed"},
	{"2001:4860:4860::8888", "allowed"},
	{"2001:db7:ffff::1", "allowed"},
	{"2001:db8::", "documentation"},
	{"2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"},
	{"2001:db9::1", "allowed"},
	{"2606:4700:4700::1111", "allowed"},
	{"2a00:1450:4001::200e", "allowed"},
	{"3ffe::1", "allowed"},
	{"3fff::1", "documentation"},
	{"3fff:fff:ffff::1", "documentation"},
	{"3fff:1000::1", "allowed"},
	{"3fff:ffff:ffff::1", "allowed"},
	{"4000::1", "reserved"},
	{"5f00::1", "reserved"},
	{"8000::1", "reserved"},
	{"fbff:ffff::1", "reserved"},
	{"fc00::", "private"},
	{"fc00::1", "private"},
	{"fd00::2", "private"},
	{"fd00:ec2::253", "private"},
	{"fd00:ec2::254", "metadata"},
	{"fd20:ce::254", "metadata"},
	{"fdff:ffff::1", "private"},
	{"fe00::1", "reserved"},
	{"fe7f:ffff::1", "reserved"},
	{"fe80::", "link-local"},
	{"fe80::1", "link-local"},
	{"fe80::a9fe:a9fe", "link-local"},
	{"febf:ffff::1", "link-local"},
	{"fec0::1", "private"},
	{"feff:ffff::1", "private"},
	{"ff00::", "multicast"},
	{"ff02::1", "multicast"},
	{"ff0e::1", "multicast"},
	{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast"},

	// IPv4-mapped
	{"::ffff:8.8.8.8", "allowed"},
	{"::ffff:127.0.0.1", "loopback"},
	{"::ffff:10.1.2.3", "private"},
	{"::ffff:169.254.169.254", "metadata"},
	{"::ffff:0.0.0.0", "unspecified"},
	{"::ffff:224.0.0.1", "multicast"},
	{"::ffff:255.255.255.255", "broadcast"},
	{"::ffff:100.64.1.1", "shared"},
	{"::ffff:192.168.0.1", "private"},
	// IPv4-compatible
	{"::8.8.8.8", "allowed"},
	{"::127.0.0.1", "loopback"},
	{"::10.0.0.1", "private"},
	{"::169.254.169.254", "metadata"},
	{"::2", "unspecified"},
	// IPv4-translated
	{"::ffff:0:8.8.8.8", "allowed"},
	{"::ffff:0:127.0.0.1", "loopback"},
	{"::ffff:0:192.168.1.1", "private"},
	// NAT64, the well-known prefix
	{"64:ff9b::8.8.8.8", "allowed"},
	{"64:ff9b::127.0.0.1", "loopback"},
	{"64:ff9b::10.0.0.1", "private"},
	{"64:ff9b::172.16.5.5", "private"},
	{"64:ff9b::192.168.1.1", "private"},
	{"64:ff9b::169.254.169.254", "metadata"},
	{"64:ff9b::100.64.0.1", "shared"},
	{"64:ff9b::198.18.0.1", "benchmark"},
	{"64:ff9b::224.0.0.1", "multicast"},
	{"64:ff9b::255.255.255.255", "broadcast"},
	{"64:ff9b::", "unspecified"},
	{"64:ff9b:0:1::8.8.8.8", "reserved"},
	{"64:ff9a::8.8.8.8", "reserved"},
	// NAT64, local prefixes: the address at each of the places of RFC 6052
	{"64:ff9b:1::8.8.8.8", "allowed"},
	{"64:ff9b:1::127.0.0.1", "loopback"},
	{"64:ff9b:1::10.0.0.1", "private"},
	{"64:ff9b:1:0808:8:800::", "allowed"},
	{"64:ff9b:1:7f00:0:100::", "loopback"},
	{"64:ff9b:1:0a01:2:300::", "private"},
	{"64:ff9b:1:0008:8:808::", "allowed"},
	{"64:ff9b:1:007f:0:1::", "loopback"},
	{"64:ff9b:1:0:8:808:800:0", "allowed"},
	{"64:ff9b:1:0:7f:0:100:0", "loopback"},
	{"64:ff9b:1:0:a9:fea9:fe00:0", "metadata"},
	{"64:ff9b:1::", "unspecified"},
	{"64:ff9b:1::7f00:0:808:808", "allowed"}, // octet 8 is no part of it
	{"64:ff9b:1:0:7f:0:108:808", "loopback"},
	{"64:ff9b:2::8.8.8.8", "reserved"},
	// 6to4
	{"2002:808:808::1", "allowed"},
	{"2002:7f00:1::1", "loopback"},
	{"2002:a00:1::", "private"},
	{"2002:c0a8:101::5", "private"},
	{"2002:a9fe:a9fe::1", "metadata"},
	{"2002:6440:1::1", "shared"},
	{"2002:e000:1::1", "multicast"},
	{"2002::1", "unspecified"},
	{"2003::1", "allowed"},
	// Teredo: server 65.54.227.120, client inverted
	{"2001:0:4136:e378:8000:63bf:3fff:fdd2", "documentation"}, // 192.0.2.45
	{"2001:0:4136:e378:8000:63bf:f7f7:f7f7", "allowed"},       // 8.8.8.8
	{"2001:0:4136:e378:8000:63bf:80ff:fffe", "loopback"},      // 127.0.0.1
	{"2001:0:4136:e378:8000:63bf:f5ff:fffe", "private"},       // 10.0.0.1
	{"2001:0:4136:e378:8000:63bf:5601:5601", "metadata"},      // 169.254.169.254
	{"2001:0:a00:1:8000:63bf:f7f7:f7f7", "private"},           // server 10.0.0.1
	{"2001:0:4136:e378:8000:63bf:ffff:ffff", "unspecified"},
};

static void test_builtin_table_judges_each_address(void **state)
{
	struct sp_policy *p = POLICY(NULL);
	(void)state;
	assert_true(sizeof(addresses) / sizeof(addresses[0]) > 150);
	for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
		const char *tcp =
			sp_policy_word(check(p, SP_PROTO_TCP, addresses[i].addr, 443));
		const char *udp =
			sp_policy_word(check(p, SP_PROTO_UDP, addresses[i].addr, 53));
		if (strcmp(tcp, addresses[i].word) || strcmp(udp, addresses[i].word))
			fail_msg("%s: tcp %s, udp %s, should be %s", addresses[i].addr,
				 tcp, udp, addresses[i].word);
	}
	sp_policy_free(p);
}

static void test_smtp_is_refused_over_tcp_only(void **state)
{
	struct sp_policy *p = POLICY(NULL);
	(void)state;
	assert_verdict(p, "8.8.8.8", 25, "smtp");
	assert_verdict(p, "2606:4700::1", 25, "smtp");
	assert_verdict(p, "64:ff9b::8.8.8.8", 25, "smtp");
	assert_verdict(p, "8.8.8.8", 24, "allowed");
	assert_verdict(p, "8.8.8.8", 26, "allowed");
	assert_verdict(p, "8.8.8.8", 465, "allowed");
	assert_verdict(p, "8.8.8.8", 587, "allowed");
	assert_int_equal(check(p, SP_PROTO_UDP, "8.8.8.8", 25), SP_POLICY_ALLOWED);
	sp_policy_free(p);
}

static void test_port_zero_and_other_families_are_refused(void **state)
{
	struct sp_policy *p = POLICY("*:1-65535");
	struct sockaddr sa = {.sa_family = AF_UNIX};
	(void)state;
	assert_verdict(p, "8.8.8.8", 0, "port");
	assert_verdict(p, "2606:4700::1", 0, "port");
	assert_int_equal(sp_policy_check(p, SP_PROTO_TCP, &sa), SP_POLICY_FAMILY);
	sp_policy_free(p);
}

static void test_allowed_range_opens_its_block_and_nothing_beside(void **state)
{
	struct sp_policy *p = POLICY("127.0.0.0/8", "allow 10.2.0.0/16:443",
				     "[fd00::]/8:8000-8010", "[::1]");
	(void)state;
	assert_verdict(p, "127.0.0.1", 80, "allowed");
	assert_verdict(p, "127.255.1.1", 65535, "allowed");
	assert_verdict(p, "128.0.0.1", 80, "allowed");
	assert_verdict(p, "10.2.255.1", 443, "allowed");
	assert_verdict(p, "10.2.255.1", 444, "private");
	assert_verdict(p, "10.3.0.1", 443, "private");
	assert_verdict(p, "fd12::1", 8000, "allowed");
	assert_verdict(p, "fd12::1", 8010, "allowed");
	assert_verdict(p, "fd12::1", 7999, "private");
	assert_verdict(p, "fd12::1", 8011, "private");
	assert_verdict(p, "fc12::1", 8000, "private");
	assert_verdict(p, "::1", 80, "allowed");
	assert_verdict(p, "::2", 80, "unspecified");
	sp_policy_free(p);
}

static void test_allow_lifts_only_what_it_names(void **state)
{
	struct sp_policy *p = POLICY("10.0.0.0/8", "172.16.0.0/12:25", "*:25");
	(void)state;
	assert_verdict(p, "10.1.1.1", 80, "allowed");
	assert_verdict(p, "10.1.1.1", 25, "smtp"); // the first rule that matches decides
	assert_verdict(p, "172.16.1.1", 25, "allowed");
	assert_verdict(p, "172.16.1.1", 80, "private");
	assert_verdict(p, "8.8.8.8", 25, "allowed");
	assert_verdict(p, "192.168.1.1", 25, "private");
	assert_verdict(p, "127.0.0.1", 25, "loopback");
	sp_policy_free(p);
}

static void test_range_wider_than_a_block_does_not_open_it(void **state)
{
	struct sp_policy *p = POLICY("0.0.0.0/0", "[::]/0");
	(void)state;
	for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
		assert_verdict(p, addresses[i].addr, 443, addresses[i].word);
	sp_policy_free(p);
	p = POLICY("0.0.0.0/1", "128.0.0.0/1", "*", "*:1-65535", "[8000::]/1");
	assert_verdict(p, "10.1.1.1", 80, "private");
	assert_verdict(p, "192.168.1.1", 80, "private");
	assert_verdict(p, "127.0.0.1", 80, "loopback");
	assert_verdict(p, "fd00::1", 80, "private");
	assert_verdict(p, "fe80::1", 80, "link-local");
	sp_policy_free(p);
}

static void test_metadata_opens_by_its_own_address_only(void **state)
{
	struct sp_policy *p = POLICY("169.254.0.0/16", "[fd00::]/8", "100.64.0.0/10",
				     "192.0.0.0/24", "168.63.0.0/16");
	(void)state;
	assert_verdict(p, "169.254.1.1", 80, "allowed");
	assert_verdict(p, "169.254.169.254", 80, "metadata");
	assert_verdict(p, "169.254.170.2", 80, "metadata");
	assert_verdict(p, "fd00:ec2::254", 80, "metadata");
	assert_verdict(p, "100.100.100.200", 80, "metadata");
	assert_verdict(p, "192.0.0.192", 80, "metadata");
	assert_verdict(p, "168.63.129.16", 80, "metadata");
	sp_policy_free(p);
	p = POLICY("169.254.169.254:80");
	assert_verdict(p, "169.254.169.254", 80, "allowed");
	assert_verdict(p, "169.254.169.254", 81, "metadata");
	sp_policy_free(p);
}

static void test_first_matching_rule_decides(void **state)
{
	struct sp_policy *p =
		POLICY("deny 10.9.0.0/16", "allow 10.0.0.0/8", "deny 8.8.8.8:53",
		       "deny *:6881-6889", "allow 9.9.9.9:6881", "deny [2606::]/16");
	(void)state;
	assert_verdict(p, "10.8.1.1", 80, "allowed");
	assert_verdict(p, "10.9.1.1", 80, "rule");
	assert_verdict(p, "8.8.8.8", 53, "rule");
	assert_verdict(p, "8.8.8.8", 443, "allowed");
	assert_verdict(p, "8.8.4.4", 53, "allowed");
	assert_verdict(p, "9.9.9.9", 6881, "rule");
	assert_verdict(p, "2001:4860::1", 6889, "rule");
	assert_verdict(p, "2001:4860::1", 6890, "allowed");
	assert_verdict(p, "2606:4700::1", 443, "rule");
	sp_policy_free(p);
}

static void test_a_deny_of_everything_leaves_what_was_allowed_before(void **state)
{
	struct sp_policy *p = POLICY("93.184.0.0/16:443", "deny *");
	(void)state;
	assert_verdict(p, "93.184.216.34", 443, "allowed");
	assert_verdict(p, "93.184.216.34", 80, "rule");
	assert_verdict(p, "8.8.8.8", 443, "rule");
	assert_verdict(p, "2606:4700::1", 443, "rule");
	sp_policy_free(p);
}

static void test_embedded_addresses_obey_the_rules_of_ipv4(void **state)
{
	struct sp_policy *p = POLICY("127.0.0.1", "deny 8.8.8.8");
	static const char *const forms_of_loopback[] = {"::ffff:127.0.0.1",
							"64:ff9b::127.0.0.1",
							"2002:7f00:1::1", "::127.0.0.1"};
	static const char *const forms_of_denied[] = {
		"::ffff:8.8.8.8",         "64:ff9b::8.8.8.8",
		"2002:808:808::1",        "::8.8.8.8",
		"64:ff9b:1:0808:8:800::", "2001:0:4136:e378:8000:63bf:f7f7:f7f7"};
	(void)state;
	for (size_t i = 0; i < 4; i++)
		assert_verdict(p, forms_of_loopback[i], 80, "allowed");
	for (size_t i = 0; i < 6; i++)
		assert_verdict(p, forms_of_denied[i], 80, "rule");
	sp_policy_free(p);
}

static void test_naming_a_translation_prefix_does_not_open_what_is_behind_it(void **state)
{
	struct sp_policy *p = POLICY("[64:ff9b::]/96", "[2002::]/16", "[2001::]/32",
				     "[64:ff9b:1::]/48", "[::]/96");
	(void)state;
	assert_verdict(p, "64:ff9b::10.0.0.1", 80, "private");
	assert_verdict(p, "64:ff9b::8.8.8.8", 80, "allowed");
	assert_verdict(p, "2002:a00:1::", 80, "private");
	assert_verdict(p, "64:ff9b:1::127.0.0.1", 80, "loopback");
	assert_verdict(p, "::127.0.0.1", 80, "loopback");
	sp_policy_free(p);
}

static void test_mapped_range_in_a_rule_is_the_ipv4_range(void **state)
{
	struct sp_policy *p = POLICY("[::ffff:10.0.0.0]/104", "deny [::ffff:8.8.8.8]");
	(void)state;
	assert_verdict(p, "10.1.1.1", 80, "allowed");
	assert_verdict(p, "::ffff:10.1.1.1", 80, "allowed");
	assert_verdict(p, "11.1.1.1", 80, "allowed");
	assert_verdict(p, "192.168.1.1", 80, "private");
	assert_verdict(p, "8.8.8.8", 80, "rule");
	sp_policy_free(p);
}

static void test_wrong_rules_are_refused_and_the_error_says_why(void **state)
{
	static const struct {
		const char *rule, *says;
	} wrong[] = {
		{"", "empty"},
		{"  ", "empty"},
		{"allow", "no range"},
		{"deny ", "no range"},
		{"permit 10.0.0.0/8", "host names"},
		{"Allow 10.0.0.0/8", "host names"},
		{"example.com", "host names"},
		{"localhost:80", "host names"},
		{"10.0.0", "host names"},
		{"10.0.0.0.0/8", "host names"},
		{"256.0.0.1", "host names"},
		{"010.0.0.1", "host names"},
		{"10.0.0.0/", "0 to 32"},
		{"10.0.0.0/33", "0 to 32"},
		{"10.0.0.0/-1", "0 to 32"},
		{"10.0.0.0/8x", "behind the rule"},
		{"10.0.0.0/4294967304", "0 to 32"},
		{"10.1.2.3/8", "beyond the prefix"},
		{"0.0.0.1/0", "beyond the prefix"},
		{"10.0.0.0/8:", "1 to 65535"},
		{"10.0.0.0/8:0", "1 to 65535"},
		{"10.0.0.0/8:65536", "1 to 65535"},
		{"10.0.0.0/8:99999999999999999999", "1 to 65535"},
		{"10.0.0.0/8:http", "1 to 65535"},
		{"10.0.0.0/8:80-", "1 to 65535"},
		{"10.0.0.0/8:80-0", "1 to 65535"},
		{"10.0.0.0/8:443-80", "the lower one"},
		{"10.0.0.0/8:80,443", "behind the rule"},
		{"10.0.0.0/8 10.0.0.0/8", "behind the rule"},
		{"10.0.0.0/8\n", "behind the rule"},
		{"*/8", "behind the rule"},
		{"**", "behind the rule"},
		{"fd00::/8", "in brackets"},
		{"::1", "in brackets"},
		{"[fd00::/8]", "behind the bracket"},
		{"[fd00::", "without ']'"},
		{"[]", "not an IPv6"},
		{"[fd00::]/129", "0 to 128"},
		{"[fd00::1]/8", "beyond the prefix"},
		{"[fe80::1%eth0]", "not an IPv6"},
		{"[10.0.0.1]", "not an IPv6"},
		{"[fd00::]]/8", "behind the rule"},
	};
	struct sp_policy *p = POLICY("10.0.0.0/8:443");
	char error[SP_POLICY_ERROR_MAX];
	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		error[0] = '\0';
		if (sp_policy_add(p, wrong[i].rule, error, sizeof(error)) !=
		    SP_E_MALFORMED)
			fail_msg("'%s' was not refused", wrong[i].rule);
		if (!strstr(error, wrong[i].says))
			fail_msg("'%s': '%s' does not say '%s'", wrong[i].rule, error,
				 wrong[i].says);
	}
	assert_verdict(p, "10.1.1.1", 443, "allowed");
	assert_verdict(p, "10.1.1.1", 80, "private");
	sp_policy_free(p);
}

static void test_rules_have_a_limit(void **state)
{
	struct sp_policy *p = POLICY(NULL);
	char error[SP_POLICY_ERROR_MAX];
	(void)state;
	for (int i = 0; i < SP_POLICY_RULES_MAX; i++)
		assert_int_equal(
			sp_policy_add(p, "\t10.0.0.1:443 ", error, sizeof(error)), 0);
	assert_int_equal(sp_policy_add(p, "10.0.0.2", error, sizeof(error)), SP_E_LIMIT);
	assert_non_null(strstr(error, "1024"));
	assert_verdict(p, "10.0.0.2", 443, "private");
	sp_policy_free(p);
	sp_policy_free(NULL);
}

static void test_every_verdict_has_its_own_word(void **state)
{
	(void)state;
	for (int i = 0; i <= SP_POLICY__LAST; i++) {
		assert_string_not_equal(sp_policy_word((enum sp_policy_verdict)i),
					"unknown");
		for (int k = 0; k < i; k++)
			assert_string_not_equal(
				sp_policy_word((enum sp_policy_verdict)i),
				sp_policy_word((enum sp_policy_verdict)k));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_builtin_table_judges_each_address),
		cmocka_unit_test(test_smtp_is_refused_over_tcp_only),
		cmocka_unit_test(test_port_zero_and_other_families_are_refused),
		cmocka_unit_test(test_allowed_range_opens_its_block_and_nothing_beside),
		cmocka_unit_test(test_allow_lifts_only_what_it_names),
		cmocka_unit_test(test_range_wider_than_a_block_does_not_open_it),
		cmocka_unit_test(test_metadata_opens_by_its_own_address_only),
		cmocka_unit_test(test_first_matching_rule_decides),
		cmocka_unit_test(
			test_a_deny_of_everything_leaves_what_was_allowed_before),
		cmocka_unit_test(test_embedded_addresses_obey_the_rules_of_ipv4),
		cmocka_unit_test(
			test_naming_a_translation_prefix_does_not_open_what_is_behind_it),
		cmocka_unit_test(test_mapped_range_in_a_rule_is_the_ipv4_range),
		cmocka_unit_test(test_wrong_rules_are_refused_and_the_error_says_why),
		cmocka_unit_test(test_rules_have_a_limit),
		cmocka_unit_test(test_every_verdict_has_its_own_word),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
