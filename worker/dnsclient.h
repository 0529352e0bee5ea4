// c-ares on libevent: sends queries for A and AAAA to the configured servers, tries
// again, falls back to TCP for truncated responses. The one adapter between the two
// libraries: an event per c-ares socket, one timer. Not here: cache, joining, limits
// (worker/resolve.h).
#ifndef WRK_DNSCLIENT_H
#define WRK_DNSCLIENT_H

#include "worker/dnsmsg.h"

struct event_base;
struct wrk_dnsclient;

struct wrk_dnsclient_options {
	struct event_base *base;
	const char *const *servers; // "127.0.0.1:5353", "9.9.9.9", "[::1]:53"
	size_t nservers;            // 0: those of /etc/resolv.conf, read once
	uint32_t try_ms;            // of the first try; doubles with each round
	uint32_t tries;             // per server
};

// 0 and *ret; SP_E_CONFIG: a server that is not an address; -ENOMEM.
int wrk_dnsclient_new(const struct wrk_dnsclient_options *opt,
		      struct wrk_dnsclient **ret) SP_MUST_CHECK;
// Queries under way are forgotten without a call. NULL is fine.
void wrk_dnsclient_free(struct wrk_dnsclient *c);

// Asks for `name` (a valid host name), AF_INET or AF_INET6. `done` is called exactly
// once, possibly before this returns.
void wrk_dnsclient_query(struct wrk_dnsclient *c, const char *name, int family,
			 void (*done)(void *ctx, const struct wrk_dnsanswer *a),
			 void *ctx);

#endif
