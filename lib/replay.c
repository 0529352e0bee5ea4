#include "lib/replay.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include <sodium.h>

#define MAGIC        UINT64_C(0x53505245504c4131) // "SPREPLA1"
#define CAPACITY_MAX (1u << 24)
#define NIL          UINT32_MAX
#define EXPIRE_BATCH 64 // most entries one call lets go

struct entry {
	uint8_t key[SP_REPLAY_KEY_BYTES];
	uint64_t stamp_ms;
	uint32_t next; // in its bucket, NIL at the end
	uint32_t bucket;
};

// Followed by `capacity` entries, used as a ring from the oldest on, and `buckets` u32.
struct sp_replay {
	uint64_t magic;
	uint32_t capacity;
	uint32_t buckets; // a power of two
	uint32_t oldest;  // index of the oldest entry
	uint32_t count;   // entries in use
	uint8_t hash_key[crypto_shorthash_KEYBYTES];
};

static struct entry *entries(const struct sp_replay *r)
{
	return (struct entry *)(uintptr_t)(r + 1);
}

static uint32_t *buckets(const struct sp_replay *r)
{
	return (uint32_t *)(void *)(entries(r) + r->capacity);
}

static uint32_t buckets_for(uint32_t capacity)
{
	uint32_t n = 2;

	while (n < capacity)
		n *= 2;
	return n;
}

size_t sp_replay_bytes(uint32_t capacity)
{
	if (!capacity || capacity > CAPACITY_MAX)
		return 0;
	return sizeof(struct sp_replay) + capacity * sizeof(struct entry) +
	       buckets_for(capacity) * sizeof(uint32_t);
}

int sp_replay_format(void *mem, size_t bytes, uint32_t capacity, struct sp_replay **ret)
{
	struct sp_replay *r = mem;
	size_t need = sp_replay_bytes(capacity);

	if (!need || bytes < need || (uintptr_t)mem % _Alignof(struct sp_replay))
		return -EINVAL;
	memset(mem, 0, sizeof(*r));
	r->capacity = capacity;
	r->buckets = buckets_for(capacity);
	randombytes_buf(r->hash_key, sizeof(r->hash_key));
	memset(buckets(r), 0xff, r->buckets * sizeof(uint32_t));
	atomic_signal_fence(memory_order_release);
	r->magic = MAGIC;
	*ret = r;
	return 0;
}

static uint32_t bucket_of(const struct sp_replay *r, const uint8_t *key)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint32_t v;

	crypto_shorthash(hash, key, SP_REPLAY_KEY_BYTES, r->hash_key);
	memcpy(&v, hash, sizeof(v));
	return v & (r->buckets - 1);
}

static void link_entry(struct sp_replay *r, uint32_t at)
{
	struct entry *e = &entries(r)[at];

	e->bucket = bucket_of(r, e->key);
	e->next = buckets(r)[e->bucket];
	buckets(r)[e->bucket] = at;
}

int sp_replay_adopt(void *mem, size_t bytes, struct sp_replay **ret)
{
	struct sp_replay *r = mem;

	if (bytes < sizeof(*r) || (uintptr_t)mem % _Alignof(struct sp_replay) ||
	    r->magic != MAGIC || !sp_replay_bytes(r->capacity) ||
	    bytes < sp_replay_bytes(r->capacity) ||
	    r->buckets != buckets_for(r->capacity) || r->oldest >= r->capacity ||
	    r->count > r->capacity)
		return SP_E_MALFORMED;
	memset(buckets(r), 0xff, r->buckets * sizeof(uint32_t));
	for (uint32_t i = 0; i < r->count; i++)
		link_entry(r, (r->oldest + i) % r->capacity);
	*ret = r;
	return 0;
}

static bool is_expired(const struct entry *e, uint64_t now_ms)
{
	uint64_t apart =
		now_ms > e->stamp_ms ? now_ms - e->stamp_ms : e->stamp_ms - now_ms;

	return apart > SP_REPLAY_HORIZON_MS;
}

static void drop_oldest(struct sp_replay *r)
{
	uint32_t at = r->oldest, *link = &buckets(r)[entries(r)[at].bucket];

	while (*link != at)
		link = &entries(r)[*link].next;
	*link = entries(r)[at].next;
	// In this order a crash in between leaves one entry too many, never one too few.
	r->oldest = (at + 1) % r->capacity;
	atomic_signal_fence(memory_order_release);
	r->count--;
}

bool sp_replay_seen(const struct sp_replay *r, const uint8_t *key, uint64_t now_ms)
{
	const struct entry *e;

	for (uint32_t at = buckets(r)[bucket_of(r, key)]; at != NIL; at = e->next) {
		e = &entries(r)[at];
		if (!memcmp(e->key, key, sizeof(e->key)) && !is_expired(e, now_ms))
			return true;
	}
	return false;
}

int sp_replay_add(struct sp_replay *r, const uint8_t *key, uint64_t now_ms)
{
	struct entry *e;
	uint32_t at;

	if (sp_replay_seen(r, key, now_ms))
		return SP_E_REPLAY;
	for (int i = 0; i < EXPIRE_BATCH && r->count; i++) {
		if (!is_expired(&entries(r)[r->oldest], now_ms))
			break;
		drop_oldest(r);
	}
	if (r->count == r->capacity)
		return SP_E_LIMIT;
	at = (r->oldest + r->count) % r->capacity;
	e = &entries(r)[at];
	memcpy(e->key, key, sizeof(e->key));
	e->stamp_ms = now_ms;
	link_entry(r, at);
	atomic_signal_fence(memory_order_release);
	r->count++;
	return 0;
}

uint32_t sp_replay_count(const struct sp_replay *r)
{
	return r->count;
}
