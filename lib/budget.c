#include "lib/budget.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#define WAYS        8
#define SOURCES_MAX (1u << 20)
#define US_PER_S    UINT64_C(1000000)

// A bucket as the time at which it would be full: empty by one token for each interval
// that lies in the future (GCRA). So a bucket whose time has passed need not be
// remembered.
struct source {
	uint64_t prefix; // IPv4 address, or the first 64 bits of an IPv6 address
	uint64_t full_us;
	uint32_t family; // 0: place unused
};

struct sp_budget {
	uint64_t interval_us, window_us; // of one source; window = burst * interval
	uint64_t all_interval_ns, all_window_ns, all_full_ns;
	uint32_t set_mask;
	uint8_t hash_key[crypto_shorthash_KEYBYTES];
	struct source table[];
};

void sp_budget_options_default(struct sp_budget_options *ret)
{
	*ret = (struct sp_budget_options){.sources = 4096,
					  .per_minute = 60,
					  .burst = 20,
					  .all_per_second = 500,
					  .all_burst = 1000};
}

int sp_budget_new(const struct sp_budget_options *opt, struct sp_budget **ret)
{
	struct sp_budget *b;
	uint32_t sets = 1;

	if (!opt->sources || opt->sources > SOURCES_MAX || !opt->per_minute ||
	    !opt->burst || !opt->all_per_second || !opt->all_burst)
		return -EINVAL;
	while (sets * WAYS < opt->sources)
		sets *= 2;
	b = calloc(1, sizeof(*b) + sets * WAYS * sizeof(struct source));
	if (!b)
		return -ENOMEM;
	b->interval_us = 60 * US_PER_S / opt->per_minute;
	b->window_us = b->interval_us * opt->burst;
	b->all_interval_ns = 1000 * US_PER_S / opt->all_per_second;
	b->all_window_ns = b->all_interval_ns * opt->all_burst;
	b->set_mask = sets - 1;
	randombytes_buf(b->hash_key, sizeof(b->hash_key));
	*ret = b;
	return 0;
}

void sp_budget_free(struct sp_budget *b)
{
	free(b);
}

static void read_source(const struct sockaddr *sa, struct source *ret)
{
	const struct sockaddr_in6 *in6 = (const void *)sa;
	const struct sockaddr_in *in = (const void *)sa;

	memset(ret, 0, sizeof(*ret));
	ret->family = UINT32_MAX; // all that is neither
	if (sa->sa_family == AF_INET) {
		ret->family = AF_INET;
		ret->prefix = in->sin_addr.s_addr;
	} else if (sa->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		uint32_t v4;

		memcpy(&v4, &in6->sin6_addr.s6_addr[12], sizeof(v4));
		ret->family = AF_INET;
		ret->prefix = v4;
	} else if (sa->sa_family == AF_INET6) {
		ret->family = AF_INET6;
		memcpy(&ret->prefix, &in6->sin6_addr, sizeof(ret->prefix));
	}
}

static struct source *find(struct sp_budget *b, const struct source *key)
{
	uint8_t hash[crypto_shorthash_BYTES], in[12];
	struct source *set, *stalest;
	uint32_t v;

	memcpy(in, &key->prefix, 8);
	memcpy(in + 8, &key->family, 4);
	crypto_shorthash(hash, in, sizeof(in), b->hash_key);
	memcpy(&v, hash, sizeof(v));
	set = &b->table[(size_t)(v & b->set_mask) * WAYS];
	stalest = set;
	for (int i = 0; i < WAYS; i++) {
		if (set[i].family == key->family && set[i].prefix == key->prefix)
			return &set[i];
		if (set[i].full_us < stalest->full_us)
			stalest = &set[i];
	}
	*stalest = *key;
	return stalest;
}

int sp_budget_take(struct sp_budget *b, const struct sockaddr *source, uint64_t now_ms)
{
	uint64_t now_us = now_ms * 1000, now_ns = now_us * 1000;
	uint64_t all = b->all_full_ns > now_ns ? b->all_full_ns : now_ns, one;
	struct source key, *s;

	if (all + b->all_interval_ns > now_ns + b->all_window_ns)
		return SP_E_LIMIT;
	read_source(source, &key);
	s = find(b, &key);
	one = s->full_us > now_us ? s->full_us : now_us;
	if (one + b->interval_us > now_us + b->window_us)
		return SP_E_LIMIT;
	s->full_us = one + b->interval_us;
	b->all_full_ns = all + b->all_interval_ns;
	return 0;
}
