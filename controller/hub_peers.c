// The table of peers: who may join, and what is known of each.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "controller/hub_internal.h"

#define CUT_SOON_US UINT64_C(500000) // several keys go at once

static uint64_t id_of_key(const uint8_t *key)
{
	uint64_t id;
	memcpy(&id, key, sizeof(id));
	return id;
}

static uint64_t id_of_name(const struct con_hub *h, const char *name)
{
	uint64_t id;
	crypto_shorthash((uint8_t *)&id, (const uint8_t *)name, strlen(name),
			 h->name_key);
	return id;
}

struct hub_peer *hub_by_key(const struct con_hub *h, const uint8_t *key)
{
	struct hub_peer *p = sp_idmap_get(&h->by_key, id_of_key(key));
	return p && memcmp(p->key, key, SP_BUS_KEY_BYTES) == 0 ? p : NULL;
}

struct hub_peer *hub_by_name(const struct con_hub *h, const char *name)
{
	struct hub_peer *p = sp_idmap_get(&h->by_name, id_of_name(h, name));
	return p && strcmp(p->name, name) == 0 ? p : NULL;
}

static void free_peer(struct hub_peer *p)
{
	sp_bus_meter_free(p->meter);
	free(p);
}

static void on_reap(struct sp_deferred *d)
{
	free_peer((struct hub_peer *)((char *)d - offsetof(struct hub_peer, reap)));
}

// Whoever holds a link with its key is cut off with all others, who come back.
static void cut_soon(struct con_hub *h, const struct hub_peer *p)
{
	if (!p->joined || h->cut.at_us != SP_LOOP_NEVER)
		return;
	uint64_t at = sp_loop_now_us(h->loop) + CUT_SOON_US;
	uint64_t earliest = h->cut_us + CON_HUB_RENEW_MS * UINT64_C(1000);
	sp_timer_set(&h->cut, h->cut_us && earliest > at ? earliest : at);
}

static void unlink_peer(struct con_hub *h, struct hub_peer *p)
{
	hub_fetch_drop(h, p);
	sp_idmap_remove(&h->by_key, id_of_key(p->key));
	sp_idmap_remove(&h->by_name, id_of_name(h, p->name));
	h->all[p->index] = h->all[--h->n];
	h->all[p->index]->index = p->index;
}

void con_hub_forbid(struct con_hub *h, const char *name)
{
	struct hub_peer *p = hub_by_name(h, name);
	if (!p)
		return;
	cut_soon(h, p);
	unlink_peer(h, p);
	p->reap.run = on_reap; // a message of it may be at work
	sp_loop_reap(h->loop, &p->reap);
}

static int link_peer(struct con_hub *h, struct hub_peer *p)
{
	if (h->n == h->cap) {
		size_t cap = h->cap ? 2 * h->cap : 64;
		struct hub_peer **all = realloc(h->all, cap * sizeof(struct hub_peer *));
		if (!all)
			return -ENOMEM;
		h->all = all;
		h->cap = cap;
	}
	int err = sp_idmap_put(&h->by_key, id_of_key(p->key), p);
	if (err)
		return err;
	err = sp_idmap_put(&h->by_name, id_of_name(h, p->name), p);
	if (err) {
		sp_idmap_remove(&h->by_key, id_of_key(p->key));
		return err;
	}
	p->index = h->n;
	h->all[h->n++] = p;
	return 0;
}

static void set_static(struct hub_peer *p, const uint8_t *static_key)
{
	p->has_static = static_key != NULL;
	if (static_key)
		memcpy(p->static_key, static_key, CON_HUB_STATIC_BYTES);
}

int con_hub_allow(struct con_hub *h, const char *name, const uint8_t *key,
		  const uint8_t *static_key)
{
	struct hub_peer *old = hub_by_name(h, name);
	struct hub_peer *other = sp_idmap_get(&h->by_key, id_of_key(key));
	size_t len = strlen(name);
	if (len == 0 || len >= SP_BUS_NAME_MAX)
		return -EINVAL;
	if (other && other != old)
		return -EEXIST;
	if (old && memcmp(old->key, key, SP_BUS_KEY_BYTES) == 0) {
		set_static(old, static_key);
		return 0;
	}
	if (old)
		con_hub_forbid(h, name);
	struct hub_peer *p = calloc(1, sizeof(*p));
	if (!p || sp_bus_meter_new(&p->meter)) {
		free(p);
		return -ENOMEM;
	}
	memcpy(p->name, name, len + 1);
	memcpy(p->key, key, SP_BUS_KEY_BYTES);
	set_static(p, static_key);
	p->is_worker = strncmp(name, "worker:", 7) == 0;
	p->pub.name = p->name;
	p->tokens = CON_HUB_BURST;
	p->refill_us = sp_loop_now_us(h->loop);
	for (int e = 0; e < CON_HUB_EVENTS_N; e++)
		p->lines[e] = (struct sp_ratelimit){.per_second = 1, .burst = 4};
	sallyport__fleet__telemetry__init(&p->pub.telemetry);
	int err = link_peer(h, p);
	if (err)
		free_peer(p);
	return err;
}

bool con_hub_knows(const struct con_hub *h, const uint8_t *key)
{
	return hub_by_key(h, key) != NULL;
}

const struct con_hub_peer *con_hub_find(struct con_hub *h, const char *name)
{
	struct hub_peer *p = hub_by_name(h, name);
	return p ? &p->pub : NULL;
}

const struct con_hub_peer *con_hub_next(struct con_hub *h, size_t *at)
{
	return *at < h->n ? &h->all[(*at)++]->pub : NULL;
}

unsigned con_hub_connected(const struct con_hub *h, const char *kind)
{
	unsigned n = 0;
	for (size_t i = 0; i < h->n; i++)
		n += h->all[i]->pub.connected &&
		     strncmp(h->all[i]->name, kind, strlen(kind)) == 0;
	return n;
}

void hub_peers_free(struct con_hub *h)
{
	for (size_t i = 0; i < h->n; i++)
		free_peer(h->all[i]);
	free(h->all);
	sp_idmap_done(&h->by_key);
	sp_idmap_done(&h->by_name);
}

const char *con_hub_link_word(const struct con_hub_peer *p)
{
	return p->connected ? "up" : p->boot ? "lost" : "never";
}
