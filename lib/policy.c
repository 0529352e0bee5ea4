#include "lib/policy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMTP_PORT 25

struct range {
	int family;       // AF_INET, AF_INET6; AF_UNSPEC: every address
	unsigned bits;    // prefix length
	uint8_t addr[16]; // bits beyond the prefix are zero
};

struct rule {
	struct range range;
	uint16_t low, high; // ports
	bool deny;
	bool names_port;
};

struct sp_policy {
	struct rule *rules;
	size_t n, cap;
};

struct refusal {
	struct range range;
	enum sp_policy_verdict verdict; // ALLOWED: looked at no further in this table
};

#define V4(bits, ...)                                                                    \
	{                                                                                \
		AF_INET, bits,                                                           \
		{                                                                        \
			__VA_ARGS__                                                      \
		}                                                                        \
	}
#define V6(bits, ...)                                                                    \
	{                                                                                \
		AF_INET6, bits,                                                          \
		{                                                                        \
			__VA_ARGS__                                                      \
		}                                                                        \
	}

// The first row that matches decides. From the IANA IPv4 and IPv6 Special-Purpose Address
// Registries (RFC 6890), the multicast registries and the IPv6 Address Space registry;
// the specification of each block stands beside it. Blocks that the registries call
// globally reachable (AS112, AMT) are not listed, except inside 192.0.0.0/24 and
// 2001::/23, whose few reachable entries are no destinations for users.
static const struct refusal refusals[] = {
	// clouds: AWS, GCP, Azure and others; AWS task credentials; Azure's wire server
	{V4(32, 169, 254, 169, 254), SP_POLICY_METADATA},
	{V4(32, 169, 254, 170, 2), SP_POLICY_METADATA},
	{V4(32, 168, 63, 129, 16), SP_POLICY_METADATA},
	{V4(32, 100, 100, 100, 200), SP_POLICY_METADATA},  // Alibaba
	{V4(32, 192, 0, 0, 192), SP_POLICY_METADATA},      // Oracle
	{V4(8, 0), SP_POLICY_UNSPECIFIED},                 // RFC 791 section 3.2
	{V4(8, 10), SP_POLICY_PRIVATE},                    // RFC 1918
	{V4(10, 100, 64), SP_POLICY_SHARED},               // RFC 6598
	{V4(8, 127), SP_POLICY_LOOPBACK},                  // RFC 1122 section 3.2.1.3
	{V4(16, 169, 254), SP_POLICY_LINK_LOCAL},          // RFC 3927
	{V4(12, 172, 16), SP_POLICY_PRIVATE},              // RFC 1918
	{V4(24, 192, 0, 0), SP_POLICY_RESERVED},           // RFC 6890 section 2.1
	{V4(24, 192, 0, 2), SP_POLICY_DOCUMENTATION},      // RFC 5737
	{V4(24, 192, 88, 99), SP_POLICY_RESERVED},         // RFC 7526, was 6to4 relays
	{V4(16, 192, 168), SP_POLICY_PRIVATE},             // RFC 1918
	{V4(15, 198, 18), SP_POLICY_BENCHMARK},            // RFC 2544
	{V4(24, 198, 51, 100), SP_POLICY_DOCUMENTATION},   // RFC 5737
	{V4(24, 203, 0, 113), SP_POLICY_DOCUMENTATION},    // RFC 5737
	{V4(4, 224), SP_POLICY_MULTICAST},                 // RFC 5771
	{V4(32, 255, 255, 255, 255), SP_POLICY_BROADCAST}, // RFC 919 section 7
	{V4(4, 240), SP_POLICY_RESERVED},                  // RFC 1112 section 4

	{V6(128, 0), SP_POLICY_UNSPECIFIED},     // RFC 4291 section 2.5.2
	{V6(128, [15] = 1), SP_POLICY_LOOPBACK}, // RFC 4291 section 2.5.3
	// AWS, GCP
	{V6(128, 0xfd, 0, 0x0e, 0xc2, [14] = 2, 0x54), SP_POLICY_METADATA},
	{V6(128, 0xfd, 0x20, 0, 0xce, [14] = 2, 0x54), SP_POLICY_METADATA},
	// judged by the IPv4 addresses in them
	{V6(96, 0), SP_POLICY_ALLOWED}, // compatible, RFC 4291 section 2.5.5.1
	{V6(96, [8] = 0xff, 0xff), SP_POLICY_ALLOWED},             // translated, RFC 2765
	{V6(96, 0, 0x64, 0xff, 0x9b), SP_POLICY_ALLOWED},          // NAT64, RFC 6052
	{V6(48, 0, 0x64, 0xff, 0x9b, 0, 1), SP_POLICY_ALLOWED},    // RFC 8215
	{V6(32, 0x20, 0x01), SP_POLICY_ALLOWED},                   // Teredo, RFC 4380
	{V6(16, 0x20, 0x02), SP_POLICY_ALLOWED},                   // 6to4, RFC 3056
	{V6(48, 0x20, 0x01, 0, 2), SP_POLICY_BENCHMARK},           // RFC 5180
	{V6(23, 0x20, 0x01), SP_POLICY_RESERVED},                  // RFC 2928
	{V6(32, 0x20, 0x01, 0x0d, 0xb8), SP_POLICY_DOCUMENTATION}, // RFC 3849
	{V6(20, 0x3f, 0xff), SP_POLICY_DOCUMENTATION},             // RFC 9637
	{V6(7, 0xfc), SP_POLICY_PRIVATE},                          // RFC 4193
	{V6(10, 0xfe, 0x80), SP_POLICY_LINK_LOCAL}, // RFC 4291 section 2.5.6
	{V6(10, 0xfe, 0xc0), SP_POLICY_PRIVATE},    // site-local, RFC 3879
	{V6(8, 0xff), SP_POLICY_MULTICAST},         // RFC 4291 section 2.7
	{V6(3, 0x20), SP_POLICY_ALLOWED}, // global unicast, RFC 4291 section 2.4
	// The rest is not allocated, or for use inside a network: 100::/64 (RFC 6666),
	// 100:0:0:1::/64 (RFC 9780), 5f00::/16 (RFC 9602).
	{V6(0, 0), SP_POLICY_RESERVED},
};

struct endpoint { // an address as it is judged
	int family;
	uint16_t port;
	uint8_t addr[16];
};

static bool has_prefix(const uint8_t *addr, const uint8_t *prefix, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;
	if (memcmp(addr, prefix, whole))
		return false;
	return !rest || (addr[whole] ^ prefix[whole]) >> (8 - rest) == 0;
}

static bool in_range(const struct range *r, const struct endpoint *e)
{
	if (r->family == AF_UNSPEC)
		return true;
	return r->family == e->family && has_prefix(e->addr, r->addr, r->bits);
}

// The row that decides about an address; NULL: it is allowed.
static const struct refusal *builtin(const struct endpoint *e)
{
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
		if (in_range(&refusals[i].range, e))
			return refusals[i].verdict == SP_POLICY_ALLOWED ? NULL
									: &refusals[i];
	return NULL;
}

static const struct rule *first_match(const struct sp_policy *p, const struct endpoint *e)
{
	for (size_t i = 0; i < p->n; i++) {
		const struct rule *r = &p->rules[i];
		if (e->port >= r->low && e->port <= r->high && in_range(&r->range, e))
			return r;
	}
	return NULL;
}

static enum sp_policy_verdict judge(const struct sp_policy *p, enum sp_proto proto,
				    const struct endpoint *e)
{
	const struct rule *r = first_match(p, e);
	if (r && r->deny)
		return SP_POLICY_RULE;
	// Both ranges hold the address, so the longer one lies inside the other.
	const struct refusal *row = builtin(e);
	if (row && !(r && r->range.bits > 0 && r->range.bits >= row->range.bits))
		return row->verdict;
	if (proto == SP_PROTO_TCP && e->port == SMTP_PORT && !(r && r->names_port))
		return SP_POLICY_SMTP;
	return SP_POLICY_ALLOWED;
}

static enum sp_policy_verdict judge_v4(const struct sp_policy *p, enum sp_proto proto,
				       uint16_t port, const uint8_t *v4)
{
	struct endpoint e = {.family = AF_INET, .port = port};
	memcpy(e.addr, v4, 4);
	return judge(p, proto, &e);
}

// 64:ff9b:1::/48: the length of the translator's prefix is its owner's choice, so the
// IPv4 address may stand at any of the places of RFC 6052 section 2.2 that are possible
// here. All of them are judged but those in 0.0.0.0/8, which is what a place looks like
// that is not in use; one at least must be left.
static enum sp_policy_verdict judge_local_nat64(const struct sp_policy *p,
						enum sp_proto proto,
						const struct endpoint *e)
{
	static const uint8_t places[4][4] = {
		{6, 7, 9, 10}, {7, 9, 10, 11}, {9, 10, 11, 12}, {12, 13, 14, 15}};
	unsigned judged = 0;
	for (size_t i = 0; i < 4; i++) {
		uint8_t v4[4];
		for (size_t k = 0; k < 4; k++)
			v4[k] = e->addr[places[i][k]];
		if (v4[0] == 0)
			continue;
		judged++;
		enum sp_policy_verdict v = judge_v4(p, proto, e->port, v4);
		if (v != SP_POLICY_ALLOWED)
			return v;
	}
	return judged ? SP_POLICY_ALLOWED : SP_POLICY_UNSPECIFIED;
}

// The IPv4 addresses in an IPv6 address that is allowed itself.
static enum sp_policy_verdict
judge_embedded(const struct sp_policy *p, enum sp_proto proto, const struct endpoint *e)
{
	static const struct range compatible = V6(96, 0);
	static const struct range translated = V6(96, [8] = 0xff, 0xff);
	static const struct range nat64 = V6(96, 0, 0x64, 0xff, 0x9b);
	static const struct range nat64_local = V6(48, 0, 0x64, 0xff, 0x9b, 0, 1);
	static const struct range teredo = V6(32, 0x20, 0x01);
	static const struct range sixtofour = V6(16, 0x20, 0x02);
	static const struct range loopback = V6(128, [15] = 1);

	if (in_range(&loopback, e))
		return SP_POLICY_ALLOWED; // lifted by a rule; not a compatible address
	if (in_range(&compatible, e) || in_range(&translated, e) || in_range(&nat64, e))
		return judge_v4(p, proto, e->port, e->addr + 12);
	if (in_range(&nat64_local, e))
		return judge_local_nat64(p, proto, e);
	if (in_range(&sixtofour, e))
		return judge_v4(p, proto, e->port, e->addr + 2);
	if (in_range(&teredo, e)) { // RFC 4380 section 4: server, then client inverted
		uint8_t client[4];
		for (size_t i = 0; i < 4; i++)
			client[i] = e->addr[12 + i] ^ 0xff;
		enum sp_policy_verdict v = judge_v4(p, proto, e->port, e->addr + 4);
		return v != SP_POLICY_ALLOWED ? v : judge_v4(p, proto, e->port, client);
	}
	return SP_POLICY_ALLOWED;
}

static bool is_mapped(const uint8_t *v6)
{
	static const uint8_t mapped[12] = {[10] = 0xff, 0xff}; // RFC 4291 section 2.5.5.2
	return memcmp(v6, mapped, sizeof(mapped)) == 0;
}

static bool endpoint_of(const struct sockaddr *sa, struct endpoint *ret)
{
	*ret = (struct endpoint){.family = sa->sa_family};
	if (sa->sa_family == AF_INET) {
		struct sockaddr_in in;
		memcpy(&in, sa, sizeof(in));
		ret->port = ntohs(in.sin_port);
		memcpy(ret->addr, &in.sin_addr, 4);
		return true;
	}
	if (sa->sa_family != AF_INET6)
		return false;
	struct sockaddr_in6 in6;
	memcpy(&in6, sa, sizeof(in6));
	ret->port = ntohs(in6.sin6_port);
	if (is_mapped(in6.sin6_addr.s6_addr)) {
		ret->family = AF_INET;
		memcpy(ret->addr, in6.sin6_addr.s6_addr + 12, 4);
	} else {
		memcpy(ret->addr, in6.sin6_addr.s6_addr, 16);
	}
	return true;
}

enum sp_policy_verdict sp_policy_check(const struct sp_policy *p, enum sp_proto proto,
				       const struct sockaddr *sa)
{
	struct endpoint e;
	if (!endpoint_of(sa, &e))
		return SP_POLICY_FAMILY;
	if (e.port == 0)
		return SP_POLICY_PORT;
	enum sp_policy_verdict v = judge(p, proto, &e);
	if (v != SP_POLICY_ALLOWED || e.family == AF_INET)
		return v;
	return judge_embedded(p, proto, &e);
}

const char *sp_policy_word(enum sp_policy_verdict verdict)
{
	switch (verdict) {
	case SP_POLICY_ALLOWED:
		return "allowed";
	case SP_POLICY_RULE:
		return "rule";
	case SP_POLICY_UNSPECIFIED:
		return "unspecified";
	case SP_POLICY_LOOPBACK:
		return "loopback";
	case SP_POLICY_PRIVATE:
		return "private";
	case SP_POLICY_SHARED:
		return "shared";
	case SP_POLICY_LINK_LOCAL:
		return "link-local";
	case SP_POLICY_METADATA:
		return "metadata";
	case SP_POLICY_MULTICAST:
		return "multicast";
	case SP_POLICY_BROADCAST:
		return "broadcast";
	case SP_POLICY_DOCUMENTATION:
		return "documentation";
	case SP_POLICY_BENCHMARK:
		return "benchmark";
	case SP_POLICY_RESERVED:
		return "reserved";
	case SP_POLICY_SMTP:
		return "smtp";
	case SP_POLICY_PORT:
		return "port";
	case SP_POLICY_FAMILY:
		return "family";
	}
	return "unknown";
}

// ---- rules ----

// The text of one rule while it is read. Each parse_ function reads its part at `p`, or
// sets `wrong` and returns false.
struct cursor {
	const char *p;
	const char *wrong;
};

static bool fail(struct cursor *c, const char *wrong)
{
	c->wrong = wrong;
	return false;
}

// A decimal number of 1 to 5 digits, at most `max`.
static bool parse_number(struct cursor *c, unsigned max, unsigned *ret)
{
	unsigned v = 0, digits = 0;
	for (; *c->p >= '0' && *c->p <= '9' && digits < 6; c->p++, digits++)
		v = v * 10 + (unsigned)(*c->p - '0');
	if (digits == 0 || digits > 5 || v > max)
		return false;
	*ret = v;
	return true;
}

static void skip_blanks(struct cursor *c)
{
	c->p += strspn(c->p, " \t");
}

static void parse_action(struct cursor *c, struct rule *r)
{
	size_t word = strcspn(c->p, " \t");
	if (word == 5 && memcmp(c->p, "allow", 5) == 0) {
		c->p += 5;
	} else if (word == 4 && memcmp(c->p, "deny", 4) == 0) {
		c->p += 4;
		r->deny = true;
	}
	skip_blanks(c);
}

// Copies `len` bytes as a string and reads them as an address of `family`.
static bool parse_address(const char *p, size_t len, int family, uint8_t *ret)
{
	char text[INET6_ADDRSTRLEN];
	if (len >= sizeof(text))
		return false;
	memcpy(text, p, len);
	text[len] = '\0';
	return inet_pton(family, text, ret) == 1;
}

static bool parse_host(struct cursor *c, struct range *ret)
{
	if (*c->p == '[') {
		size_t len = strcspn(++c->p, "]");
		if (c->p[len] != ']')
			return fail(c, "'[' without ']'");
		if (memchr(c->p, '/', len))
			return fail(c, "the prefix length stands behind the bracket: "
				       "[fd00::]/8");
		if (!parse_address(c->p, len, AF_INET6, ret->addr))
			return fail(c, "not an IPv6 address in the brackets");
		ret->family = AF_INET6;
		ret->bits = 128;
		c->p += len + 1;
		return true;
	}
	size_t len = strspn(c->p, "0123456789.");
	if (strchr(c->p, ':') != strrchr(c->p, ':'))
		return fail(c, "an IPv6 address stands in brackets: [fd00::]/8");
	if (!parse_address(c->p, len, AF_INET, ret->addr))
		return fail(c,
			    "not an address, a network or '*'; host names do not stand "
			    "in rules");
	ret->family = AF_INET;
	ret->bits = 32;
	c->p += len;
	return true;
}

// An IPv4-mapped range becomes the IPv4 range that it is.
static void unmap(struct range *r)
{
	if (r->family != AF_INET6 || r->bits < 96 || !is_mapped(r->addr))
		return;
	memmove(r->addr, r->addr + 12, 4);
	memset(r->addr + 4, 0, 12);
	r->family = AF_INET;
	r->bits -= 96;
}

static bool parse_range(struct cursor *c, struct range *ret)
{
	unsigned max;
	if (*c->p == '*') {
		c->p++;
		return true;
	}
	if (!parse_host(c, ret))
		return false;
	max = ret->bits;
	if (*c->p == '/') {
		c->p++;
		if (!parse_number(c, max, &ret->bits))
			return fail(c, max == 32 ? "the prefix length is a number from 0 "
						   "to 32"
						 : "the prefix length is a number from 0 "
						   "to 128");
	}
	for (unsigned i = ret->bits; i < max; i++)
		if (ret->addr[i / 8] & (0x80u >> i % 8))
			return fail(c, "the address has bits beyond the prefix length; "
				       "write 10.0.0.0/8, not 10.1.2.3/8");
	unmap(ret);
	return true;
}

static bool parse_ports(struct cursor *c, struct rule *r)
{
	unsigned low, high;
	r->high = UINT16_MAX;
	if (*c->p != ':')
		return true;
	c->p++;
	if (!parse_number(c, UINT16_MAX, &low) || low == 0)
		return fail(c, "a port is a number from 1 to 65535");
	high = low;
	if (*c->p == '-') {
		c->p++;
		if (!parse_number(c, UINT16_MAX, &high) || high == 0)
			return fail(c, "a port is a number from 1 to 65535");
	}
	if (high < low)
		return fail(c, "the first port of a range is the lower one");
	r->low = (uint16_t)low;
	r->high = (uint16_t)high;
	r->names_port = true;
	return true;
}

static bool parse_rule(struct cursor *c, struct rule *r)
{
	skip_blanks(c);
	if (*c->p == '\0')
		return fail(c, "an empty rule; write for example 10.0.0.0/8:443");
	parse_action(c, r);
	if (*c->p == '\0')
		return fail(c, "no range behind the word; '*' is every address");
	if (!parse_range(c, &r->range) || !parse_ports(c, r))
		return false;
	skip_blanks(c);
	if (*c->p != '\0')
		return fail(c, "something stands behind the rule; its form is "
			       "[allow|deny] RANGE[:PORT[-PORT]]");
	return true;
}

static int room_for_one(struct sp_policy *p)
{
	if (p->n < p->cap)
		return 0;
	size_t cap = p->cap ? 2 * p->cap : 16;
	struct rule *grown = realloc(p->rules, cap * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	p->rules = grown;
	p->cap = cap;
	return 0;
}

int sp_policy_add(struct sp_policy *p, const char *text, char *error, size_t cap)
{
	struct rule r = {.range = {.family = AF_UNSPEC}};
	struct cursor c = {.p = text};
	if (!parse_rule(&c, &r)) {
		snprintf(error, cap, "%s", c.wrong);
		return SP_E_MALFORMED;
	}
	if (p->n == SP_POLICY_RULES_MAX) {
		snprintf(error, cap, "there are %d rules already, which is the limit",
			 SP_POLICY_RULES_MAX);
		return SP_E_LIMIT;
	}
	int err = room_for_one(p);
	if (err) {
		snprintf(error, cap, "out of memory");
		return err;
	}
	p->rules[p->n++] = r;
	return 0;
}

int sp_policy_new(struct sp_policy **ret)
{
	struct sp_policy *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	*ret = p;
	return 0;
}

void sp_policy_free(struct sp_policy *p)
{
	if (!p)
		return;
	free(p->rules);
	free(p);
}
