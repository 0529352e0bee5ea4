// Budget of handshakes: a token bucket per source (IPv4 address, IPv6 /64) and one over
// all, asked before any public-key work. Fixed memory: a table of sources; when a new one
// finds its set of 8 places taken, the stalest goes. A source that is forgotten starts
// full again, so the bucket over all is what holds against many sources. Pure: the clock
// is a parameter.
#ifndef SP_BUDGET_H
#define SP_BUDGET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lib/err.h"

struct sp_budget;

struct sp_budget_options {
	uint32_t sources;    // places in the table, rounded up to 8 * 2^k; 24 bytes each
	uint32_t per_minute; // sustained handshakes of one source
	uint32_t burst;      // of one source
	uint32_t all_per_second; // sustained, over all sources
	uint32_t all_burst;
};
// 4,096 sources, 60 a minute, burst 20, over all 500 a second, burst 1,000.
void sp_budget_options_default(struct sp_budget_options *ret);

// 0 and *ret; -EINVAL: a zero, or sources over 2^20; -ENOMEM.
int sp_budget_new(const struct sp_budget_options *opt,
		  struct sp_budget **ret) SP_MUST_CHECK;
void sp_budget_free(struct sp_budget *b); // NULL is fine

// Takes one handshake for `source` (AF_INET, AF_INET6; mapped addresses count as IPv4;
// any other family shares one bucket). 0; SP_E_LIMIT: refuse it, nothing was taken.
// `now_ms`: monotonic.
int sp_budget_take(struct sp_budget *b, const struct sockaddr *source,
		   uint64_t now_ms) SP_MUST_CHECK;

#endif
