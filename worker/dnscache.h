// Cache of DNS answers, positive, negative (RFC 2308) and failed (RFC 9520), per name and
// family. At its limit the least recently used entry goes. Pure: no I/O; the clock is a
// parameter.
#ifndef WRK_DNSCACHE_H
#define WRK_DNSCACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/dnsmsg.h"

struct wrk_dnscache;

struct wrk_dnscache_options {
	uint32_t max_entries;        // 1..2^20; at most about 600 bytes each
	uint32_t min_ttl_s;          // an answer is kept at least so long
	uint32_t max_ttl_s;          // and at most so long
	uint32_t max_negative_ttl_s; // no such name, no such address
	uint32_t failure_ttl_s;      // servers that fail or do not answer
};
// 10,000 entries, 1 s, 1 h, 5 min, 1 s.
void wrk_dnscache_options_default(struct wrk_dnscache_options *ret);

// 0 and *ret; -EINVAL: a limit out of range, or min over a max; -ENOMEM.
int wrk_dnscache_new(const struct wrk_dnscache_options *opt,
		     struct wrk_dnscache **ret) SP_MUST_CHECK;
void wrk_dnscache_free(struct wrk_dnscache *c); // NULL is fine

// `name`: as wrk_dnsname_fold gives it. True and *ret, whose ttl_s is what is left of it,
// if there is an entry that has not expired. `now_ms`: monotonic.
bool wrk_dnscache_get(struct wrk_dnscache *c, const char *name, int family,
		      uint64_t now_ms, struct wrk_dnsanswer *ret);
// Keeps `a` for its clamped ttl_s, in place of what was there. Answers of local faults
// (NO_MEMORY, NO_DESCRIPTORS) are not kept, and with no memory nothing is: a cache may.
void wrk_dnscache_put(struct wrk_dnscache *c, const char *name,
		      const struct wrk_dnsanswer *a, uint64_t now_ms);

struct wrk_dnscache_stats {
	uint64_t hits, misses, evictions; // evictions: by the limit, not by age
	uint32_t entries;
};
void wrk_dnscache_stats(const struct wrk_dnscache *c, struct wrk_dnscache_stats *ret);

#endif
