// Look-ups of host names: c-ares on libevent, a cache before it, identical look-ups under
// way joined. A and AAAA are asked in parallel and answered apart, as each comes. Numeric
// names and those of RFC 6761 section 6.3 and 6.4 (localhost, invalid) and RFC 7686
// (onion) need no server. /etc/hosts is never read, search domains are never applied.
//
// Callbacks never re-enter: an answer, even one that is known at once, is delivered from
// the event loop, never from within a call into this module.
//
// The servers should be near and trusted: c-ares 1.18 keeps one UDP port while queries
// are under way, so only that and the query's id stand against forged answers.
#ifndef WRK_RESOLVE_H
#define WRK_RESOLVE_H

#include "worker/dnscache.h"

struct event_base;
struct wrk_resolve;
struct wrk_lookup;

struct wrk_resolve_options {
	struct event_base *base;    // outlives it
	const char *const *servers; // "127.0.0.1:5353", "9.9.9.9", "[::1]:53"; copied
	size_t nservers;            // 0: those of /etc/resolv.conf, read once
	struct wrk_dnscache_options cache;
	uint32_t timeout_ms;  // of a look-up, all tries (5,000)
	uint32_t try_ms;      // of the first try; doubles with each round (800)
	uint32_t tries;       // per server (3)
	uint32_t max_lookups; // names under way; beyond, new names are refused (1,024)
	uint32_t max_waiters; // callers that wait; beyond, refused (16,384)
	bool ipv4, ipv6;      // families that are asked for (both)
	uint64_t (*now_ms)(void *ctx); // NULL: CLOCK_MONOTONIC
	void *now_ctx;
};
void wrk_resolve_options_default(struct wrk_resolve_options *ret); // base is NULL

// 0 and *ret; SP_E_CONFIG: a server that is not an address; -EINVAL: a zero, no family,
// or bad limits of the cache; -ENOMEM.
int wrk_resolve_new(const struct wrk_resolve_options *opt,
		    struct wrk_resolve **ret) SP_MUST_CHECK;
// Look-ups that still wait are forgotten without a call; their handles die. Not inside a
// callback. NULL is fine.
void wrk_resolve_free(struct wrk_resolve *r);

// One family's answer, valid during the call. `last`: no other follows and the handle is
// dead already.
struct wrk_resolve_ops {
	void (*answer)(void *ctx, const struct wrk_dnsanswer *a, bool last);
};

// Looks `name` up; the answers come once per family asked for (AAAA first where both are
// known), within timeout_ms of the first caller who asked for the name. `ops` is static.
// 0 and *ret; SP_E_MALFORMED: not a host name; SP_E_LIMIT: max_lookups or max_waiters is
// reached (cached and numeric names only need room for a waiter); -ENOMEM.
int wrk_resolve_start(struct wrk_resolve *r, const char *name,
		      const struct wrk_resolve_ops *ops, void *ctx,
		      struct wrk_lookup **ret) SP_MUST_CHECK;
// No call comes any more; others who wait for the name still get theirs, and the answer
// goes to the cache. Allowed inside a callback. NULL is fine.
void wrk_resolve_cancel(struct wrk_lookup *l);

// The clock of its options, in milliseconds.
uint64_t wrk_resolve_now_ms(const struct wrk_resolve *r);

struct wrk_resolve_stats {
	struct wrk_dnscache_stats cache;
	uint64_t started;          // calls of wrk_resolve_start that were accepted
	uint64_t joined;           // of those, joined to a look-up under way
	uint64_t refused;          // SP_E_LIMIT
	uint64_t queries;          // handed to c-ares, one per family
	uint64_t failed;           // queries: servers failed
	uint64_t timed_out;        // queries: no server answered
	uint32_t lookups, waiters; // under way now
};
void wrk_resolve_stats(const struct wrk_resolve *r, struct wrk_resolve_stats *ret);

#endif
