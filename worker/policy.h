// Exit policy: may a user reach this address and port through this exit? Asked with the
// address that connect() would get, never with a name. Pure: no I/O, no clock; malloc
// only while rules are added.
//
// The decision, in this order:
//  1. Port 0 is refused.
//  2. The operator's rules, in their order; the first that matches decides. A deny
//     refuses. An allow lifts the built-in refusals that it names, and no other: that of
//     a block of addresses if its range lies inside the block, that of a port if it has
//     ports. So `*:25` opens SMTP but no private address; `10.0.0.0/8` opens that network
//     but not SMTP in it, `10.0.0.0/8:25` does; `169.254.0.0/16` opens link-local
//     addresses but not 169.254.169.254, which has a row of its own; `0.0.0.0/0` and
//     `0.0.0.0/1` open nothing.
//  3. The built-in refusals that were not lifted: addresses that are not globally
//     reachable (table in policy.c with its sources), and TCP port 25.
//  4. Everything else is allowed.
// An IPv4-mapped IPv6 address is that IPv4 address. A 6to4, Teredo, NAT64,
// IPv4-compatible or IPv4-translated address must pass as itself and so must each IPv4
// address in it.
#ifndef WRK_POLICY_H
#define WRK_POLICY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lib/err.h"

#define WRK_POLICY_RULES_MAX 1024
#define WRK_POLICY_ERROR_MAX 160 // longest error text with its NUL

enum wrk_proto { WRK_PROTO_TCP, WRK_PROTO_UDP };

enum wrk_policy_verdict {
	WRK_POLICY_ALLOWED = 0,
	WRK_POLICY_RULE,          // by an operator's deny
	WRK_POLICY_UNSPECIFIED,   // 0.0.0.0/8, ::
	WRK_POLICY_LOOPBACK,      // 127.0.0.0/8, ::1
	WRK_POLICY_PRIVATE,       // RFC 1918, fc00::/7, fec0::/10
	WRK_POLICY_SHARED,        // 100.64.0.0/10, behind carriers' NAT
	WRK_POLICY_LINK_LOCAL,    // 169.254.0.0/16, fe80::/10
	WRK_POLICY_METADATA,      // the instance metadata services of clouds
	WRK_POLICY_MULTICAST,     // 224.0.0.0/4, ff00::/8
	WRK_POLICY_BROADCAST,     // 255.255.255.255
	WRK_POLICY_DOCUMENTATION, // TEST-NET-1..3, 2001:db8::/32, 3fff::/20
	WRK_POLICY_BENCHMARK,     // 198.18.0.0/15, 2001:2::/48
	WRK_POLICY_RESERVED,      // everything else that is not globally reachable
	WRK_POLICY_SMTP,          // TCP port 25
	WRK_POLICY_PORT,          // port 0
	WRK_POLICY_FAMILY,        // neither IPv4 nor IPv6
	WRK_POLICY__LAST = WRK_POLICY_FAMILY,
};

struct wrk_policy;

// A policy with no rules: the built-in refusals. 0 and *ret; -ENOMEM.
int wrk_policy_new(struct wrk_policy **ret) SP_MUST_CHECK;
void wrk_policy_free(struct wrk_policy *p); // NULL is fine

// Appends one rule: `[allow|deny] RANGE[:PORT[-PORT]]`, without a word it is an allow.
// RANGE is `*`, an IPv4 address or network (`127.0.0.1`, `10.0.0.0/8`), or an IPv6 one in
// brackets (`[fd00::]/8`). 0; SP_E_MALFORMED, SP_E_LIMIT: WRK_POLICY_RULES_MAX rules are
// there, -ENOMEM; then `error` holds one clause that says what is wrong with the text and
// what would be right (`cap` >= WRK_POLICY_ERROR_MAX), and the policy is as before.
int wrk_policy_add(struct wrk_policy *p, const char *text, char *error,
		   size_t cap) SP_MUST_CHECK;

// `sa`: AF_INET or AF_INET6 with its port; any other family is WRK_POLICY_FAMILY.
enum wrk_policy_verdict wrk_policy_check(const struct wrk_policy *p, enum wrk_proto proto,
					 const struct sockaddr *sa);

// Log word and metric label, e.g. "link-local". Static, never NULL.
const char *wrk_policy_word(enum wrk_policy_verdict verdict);

#endif
