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
#ifndef SP_POLICY_H
#define SP_POLICY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lib/err.h"

#define SP_POLICY_RULES_MAX 1024
#define SP_POLICY_ERROR_MAX 160 // longest error text with its NUL

enum sp_proto { SP_PROTO_TCP, SP_PROTO_UDP };

enum sp_policy_verdict {
	SP_POLICY_ALLOWED = 0,
	SP_POLICY_RULE,          // by an operator's deny
	SP_POLICY_UNSPECIFIED,   // 0.0.0.0/8, ::
	SP_POLICY_LOOPBACK,      // 127.0.0.0/8, ::1
	SP_POLICY_PRIVATE,       // RFC 1918, fc00::/7, fec0::/10
	SP_POLICY_SHARED,        // 100.64.0.0/10, behind carriers' NAT
	SP_POLICY_LINK_LOCAL,    // 169.254.0.0/16, fe80::/10
	SP_POLICY_METADATA,      // the instance metadata services of clouds
	SP_POLICY_MULTICAST,     // 224.0.0.0/4, ff00::/8
	SP_POLICY_BROADCAST,     // 255.255.255.255
	SP_POLICY_DOCUMENTATION, // TEST-NET-1..3, 2001:db8::/32, 3fff::/20
	SP_POLICY_BENCHMARK,     // 198.18.0.0/15, 2001:2::/48
	SP_POLICY_RESERVED,      // everything else that is not globally reachable
	SP_POLICY_SMTP,          // TCP port 25
	SP_POLICY_PORT,          // port 0
	SP_POLICY_FAMILY,        // neither IPv4 nor IPv6
	SP_POLICY__LAST = SP_POLICY_FAMILY,
};

struct sp_policy;

// A policy with no rules: the built-in refusals. 0 and *ret; -ENOMEM.
int sp_policy_new(struct sp_policy **ret) SP_MUST_CHECK;
void sp_policy_free(struct sp_policy *p); // NULL is fine

// Appends one rule: `[allow|deny] RANGE[:PORT[-PORT]]`, without a word it is an allow.
// RANGE is `*`, an IPv4 address or network (`127.0.0.1`, `10.0.0.0/8`), or an IPv6 one in
// brackets (`[fd00::]/8`). 0; SP_E_MALFORMED, SP_E_LIMIT: SP_POLICY_RULES_MAX rules are
// there, -ENOMEM; then `error` holds one clause that says what is wrong with the text and
// what would be right (`cap` >= SP_POLICY_ERROR_MAX), and the policy is as before.
int sp_policy_add(struct sp_policy *p, const char *text, char *error,
		  size_t cap) SP_MUST_CHECK;

// `sa`: AF_INET or AF_INET6 with its port; any other family is SP_POLICY_FAMILY.
enum sp_policy_verdict sp_policy_check(const struct sp_policy *p, enum sp_proto proto,
				       const struct sockaddr *sa);

// Log word and metric label, e.g. "link-local". Static, never NULL.
const char *sp_policy_word(enum sp_policy_verdict verdict);

#endif
