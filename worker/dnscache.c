#include "worker/dnscache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <sodium.h>

struct entry {
	LIST_ENTRY(entry) bucket;
	TAILQ_ENTRY(entry) lru;
	uint64_t expires_ms;
	int family;
	uint16_t status; // enum sp_reason
	uint8_t n;
	uint8_t name_len;
	uint8_t bytes[]; // name, then n addresses
};
LIST_HEAD(bucket, entry);

struct wrk_dnscache {
	struct wrk_dnscache_options opt;
	struct wrk_dnscache_stats stats;
	TAILQ_HEAD(, entry) lru; // the least recently used first
	struct bucket *buckets;
	uint32_t mask;
	uint8_t hash_key[crypto_shorthash_KEYBYTES]; // peers choose the names
};

void wrk_dnscache_options_default(struct wrk_dnscache_options *ret)
{
	*ret = (struct wrk_dnscache_options){
		.max_entries = 10000,
		.min_ttl_s = 1,
		.max_ttl_s = 3600,
		.max_negative_ttl_s = 300,
		.failure_ttl_s = 1,
	};
}

static struct bucket *bucket_of(const struct wrk_dnscache *c, const char *name)
{
	uint64_t hash;
	crypto_shorthash((uint8_t *)&hash, (const uint8_t *)name, strlen(name),
			 c->hash_key);
	return &c->buckets[hash & c->mask];
}

static size_t addr_size(int family)
{
	return family == AF_INET ? 4 : 16;
}

static struct entry *find(const struct wrk_dnscache *c, const char *name, int family)
{
	size_t len = strlen(name);
	struct entry *e;
	LIST_FOREACH(e, bucket_of(c, name), bucket)
	if (e->family == family && e->name_len == len && memcmp(e->bytes, name, len) == 0)
		return e;
	return NULL;
}

static void drop(struct wrk_dnscache *c, struct entry *e)
{
	LIST_REMOVE(e, bucket);
	TAILQ_REMOVE(&c->lru, e, lru);
	c->stats.entries--;
	free(e);
}

bool wrk_dnscache_get(struct wrk_dnscache *c, const char *name, int family,
		      uint64_t now_ms, struct wrk_dnsanswer *ret)
{
	struct entry *e = find(c, name, family);
	if (e && now_ms >= e->expires_ms) {
		drop(c, e);
		e = NULL;
	}
	if (!e) {
		c->stats.misses++;
		return false;
	}
	c->stats.hits++;
	TAILQ_REMOVE(&c->lru, e, lru);
	TAILQ_INSERT_TAIL(&c->lru, e, lru);
	*ret = (struct wrk_dnsanswer){
		.family = family,
		.status = (enum sp_reason)e->status,
		.ttl_s = (uint32_t)((e->expires_ms - now_ms + 999) / 1000),
		.n = e->n,
	};
	for (unsigned i = 0; i < e->n; i++)
		memcpy(ret->addr[i], e->bytes + e->name_len + i * addr_size(family),
		       addr_size(family));
	return true;
}

static uint32_t clamp(uint32_t v, uint32_t min, uint32_t max)
{
	return v < min ? min : v > max ? max : v;
}

// Seconds to keep an answer; 0: not at all.
static uint32_t lifetime(const struct wrk_dnscache_options *o,
			 const struct wrk_dnsanswer *a)
{
	if (a->status == SP_REASON_NONE)
		return clamp(a->ttl_s, o->min_ttl_s, o->max_ttl_s);
	if (a->status == SP_REASON_RESOLVE_TIMEOUT ||
	    (a->status == SP_REASON_RESOLVE_FAILED && a->ttl_s == 0))
		return o->failure_ttl_s;
	if (a->status == SP_REASON_RESOLVE_FAILED || a->status == SP_REASON_NO_ADDRESS)
		return clamp(a->ttl_s, o->min_ttl_s, o->max_negative_ttl_s);
	return 0;
}

void wrk_dnscache_put(struct wrk_dnscache *c, const char *name,
		      const struct wrk_dnsanswer *a, uint64_t now_ms)
{
	uint32_t keep_s = lifetime(&c->opt, a);
	struct entry *e = find(c, name, a->family);
	if (e)
		drop(c, e);
	if (keep_s == 0)
		return;
	size_t size = addr_size(a->family), name_len = strlen(name);
	e = malloc(sizeof(*e) + name_len + a->n * size);
	if (!e)
		return;
	if (c->stats.entries == c->opt.max_entries) {
		drop(c, TAILQ_FIRST(&c->lru));
		c->stats.evictions++;
	}
	e->expires_ms = now_ms + 1000ull * keep_s;
	e->family = a->family;
	e->status = (uint16_t)a->status;
	e->n = (uint8_t)a->n;
	e->name_len = (uint8_t)name_len;
	memcpy(e->bytes, name, name_len);
	for (unsigned i = 0; i < a->n; i++)
		memcpy(e->bytes + name_len + i * size, a->addr[i], size);
	LIST_INSERT_HEAD(bucket_of(c, name), e, bucket);
	TAILQ_INSERT_TAIL(&c->lru, e, lru);
	c->stats.entries++;
}

void wrk_dnscache_stats(const struct wrk_dnscache *c, struct wrk_dnscache_stats *ret)
{
	*ret = c->stats;
}

int wrk_dnscache_new(const struct wrk_dnscache_options *opt, struct wrk_dnscache **ret)
{
	if (opt->max_entries == 0 || opt->max_entries > 1u << 20 ||
	    opt->min_ttl_s > opt->max_ttl_s || opt->min_ttl_s > opt->max_negative_ttl_s)
		return -EINVAL;
	struct wrk_dnscache *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	uint32_t buckets = 16;
	while (buckets < opt->max_entries)
		buckets *= 2;
	c->buckets = calloc(buckets, sizeof(*c->buckets));
	if (!c->buckets) {
		free(c);
		return -ENOMEM;
	}
	c->mask = buckets - 1;
	c->opt = *opt;
	TAILQ_INIT(&c->lru);
	randombytes_buf(c->hash_key, sizeof(c->hash_key));
	*ret = c;
	return 0;
}

void wrk_dnscache_free(struct wrk_dnscache *c)
{
	if (!c)
		return;
	while (!TAILQ_EMPTY(&c->lru))
		drop(c, TAILQ_FIRST(&c->lru));
	free(c->buckets);
	free(c);
}
