#include "worker/users.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#define BURST_US 5000000 // of OPENs, saved up at most

struct wrk_users {
	uint8_t key[crypto_shorthash_KEYBYTES];
	uint32_t count;
	size_t mask;
	LIST_HEAD(chain, wrk_user) chains[];
};

int wrk_users_new(size_t expected, struct wrk_users **ret)
{
	size_t size = 64;
	while (size < expected)
		size *= 2;
	struct wrk_users *t = calloc(1, sizeof(*t) + size * sizeof(t->chains[0]));
	if (!t)
		return -ENOMEM;
	t->mask = size - 1;
	crypto_shorthash_keygen(t->key);
	*ret = t;
	return 0;
}

void wrk_users_free(struct wrk_users *t)
{
	free(t);
}

uint32_t wrk_users_count(const struct wrk_users *t)
{
	return t->count;
}

// Keyed, so that nobody aims names at one chain.
static size_t place(const struct wrk_users *t, const char *name)
{
	uint64_t h;
	crypto_shorthash((uint8_t *)&h, (const uint8_t *)name, strlen(name), t->key);
	return (size_t)h & t->mask;
}

struct wrk_user *wrk_users_find(const struct wrk_users *t, const char *name)
{
	struct wrk_user *u;
	LIST_FOREACH(u, &t->chains[place(t, name)], chain)
	if (!strcmp(u->name, name))
		return u;
	return NULL;
}

struct wrk_user *wrk_users_get(struct wrk_users *t, const char *name, uint64_t now_us)
{
	struct wrk_user *u = wrk_users_find(t, name);
	if (u)
		return u;
	u = calloc(1, sizeof(*u));
	if (!u)
		return NULL;
	strncpy(u->name, name, sizeof(u->name) - 1);
	u->credit_us = BURST_US;
	u->filled_us = now_us;
	LIST_INSERT_HEAD(&t->chains[place(t, u->name)], u, chain);
	t->count++;
	return u;
}

void wrk_users_put(struct wrk_users *t, struct wrk_user *u)
{
	if (u->sessions)
		return;
	LIST_REMOVE(u, chain);
	t->count--;
	sodium_memzero(u, sizeof(*u));
	free(u);
}

bool wrk_user_may_open(struct wrk_user *u, uint32_t per_second, uint64_t now_us)
{
	uint64_t cost = 1000000 / per_second;
	u->credit_us += now_us - u->filled_us;
	u->filled_us = now_us;
	if (u->credit_us > BURST_US)
		u->credit_us = BURST_US;
	if (u->credit_us < cost)
		return false;
	u->credit_us -= cost;
	return true;
}
