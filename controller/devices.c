#include "controller/devices.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/idmap.h"

struct device {
	uint8_t key[SP_PASS_DEVICE_BYTES];
	uint64_t seen_s, told_s;
};

struct user {
	struct user *next; // of all
	char name[SP_PASS_USER_MAX + 1];
	unsigned n, cap;
	struct device *v;
};

struct con_devices {
	const struct con_devices_mirror *mirror;
	void *ctx;
	struct sp_idmap by_name; // of a keyed hash
	uint8_t key[crypto_shorthash_KEYBYTES];
	struct user *users;
	size_t n;
};

int con_devices_new(const struct con_devices_mirror *mirror, void *ctx,
		    struct con_devices **ret)
{
	struct con_devices *d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->mirror = mirror;
	d->ctx = ctx;
	sp_idmap_init(&d->by_name);
	randombytes_buf(d->key, sizeof(d->key));
	*ret = d;
	return 0;
}

void con_devices_free(struct con_devices *d)
{
	struct user *u;
	if (!d)
		return;
	while ((u = d->users)) {
		d->users = u->next;
		free(u->v);
		free(u);
	}
	sp_idmap_done(&d->by_name);
	free(d);
}

// The user, or NULL and the id that is free for it. Users stay once they are there.
static struct user *find(const struct con_devices *d, const char *name, uint64_t *ret_id)
{
	uint8_t hash[crypto_shorthash_BYTES];
	struct user *u;
	uint64_t id;
	crypto_shorthash(hash, (const uint8_t *)name, strlen(name), d->key);
	memcpy(&id, hash, sizeof(id));
	while ((u = sp_idmap_get(&d->by_name, id)) && strcmp(u->name, name) != 0)
		id++;
	*ret_id = id;
	return u;
}

static int find_or_add(struct con_devices *d, const char *name, struct user **ret)
{
	uint64_t id;
	if (strlen(name) > SP_PASS_USER_MAX)
		return SP_E_LIMIT;
	if ((*ret = find(d, name, &id)))
		return 0;
	struct user *u = calloc(1, sizeof(*u));
	if (!u || sp_idmap_put(&d->by_name, id, u)) {
		free(u);
		return -ENOMEM;
	}
	strcpy(u->name, name);
	u->next = d->users;
	d->users = u;
	*ret = u;
	return 0;
}

static struct device *find_device(const struct user *u, const uint8_t *key)
{
	for (unsigned i = 0; i < u->n; i++)
		if (memcmp(u->v[i].key, key, sizeof(u->v[i].key)) == 0)
			return &u->v[i];
	return NULL;
}

static void drop(struct con_devices *d, struct user *u, struct device *v)
{
	uint8_t key[SP_PASS_DEVICE_BYTES];
	memcpy(key, v->key, sizeof(key));
	*v = u->v[--u->n];
	d->n--;
	if (d->mirror && d->mirror->gone)
		d->mirror->gone(d->ctx, u->name, key);
}

static int add(struct con_devices *d, struct user *u, const uint8_t *key,
	       struct device **ret)
{
	if (d->n == CON_DEVICES_MAX)
		return SP_E_LIMIT;
	if (u->n == u->cap) {
		unsigned cap = u->cap ? 2 * u->cap : 2;
		struct device *more = realloc(u->v, cap * sizeof(*more));
		if (!more)
			return -ENOMEM;
		u->v = more;
		u->cap = cap;
	}
	*ret = &u->v[u->n++];
	**ret = (struct device){.seen_s = 0};
	memcpy((*ret)->key, key, sizeof((*ret)->key));
	d->n++;
	return 0;
}

// Room for one more: among `max`, by the stalest if it is stale enough.
static bool make_room(struct con_devices *d, struct user *u, unsigned max, uint64_t now_s)
{
	struct device *stalest = u->v;
	if (u->n < max)
		return true;
	for (unsigned i = 0; i < u->n; i++)
		if (u->v[i].seen_s < stalest->seen_s)
			stalest = &u->v[i];
	if (!stalest || stalest->seen_s + CON_DEVICE_KEEP_S > now_s)
		return false;
	drop(d, u, stalest);
	return u->n < max;
}

int con_devices_admit(struct con_devices *d, const char *user, const uint8_t *device,
		      unsigned max, uint64_t now_s)
{
	struct user *u;
	int err = find_or_add(d, user, &u);
	if (err)
		return err;
	struct device *v = find_device(u, device);
	if (!v && !make_room(d, u, max, now_s))
		return SP_E_LIMIT;
	if (!v && (err = add(d, u, device, &v)))
		return err;
	v->seen_s = now_s > v->seen_s ? now_s : v->seen_s;
	if ((!v->told_s || now_s >= v->told_s + CON_DEVICE_TELL_S) && d->mirror &&
	    d->mirror->seen) {
		v->told_s = now_s;
		d->mirror->seen(d->ctx, u->name, v->key, now_s);
	}
	return 0;
}

int con_devices_set(struct con_devices *d, const char *user, const uint8_t *device,
		    uint64_t seen_s)
{
	struct user *u;
	int err = find_or_add(d, user, &u);
	struct device *v = err ? NULL : find_device(u, device);
	if (!err && !v)
		err = add(d, u, device, &v);
	if (!err) {
		v->seen_s = seen_s > v->seen_s ? seen_s : v->seen_s;
		v->told_s = seen_s;
	}
	return err;
}

bool con_devices_remove(struct con_devices *d, const char *user, const uint8_t *device)
{
	uint64_t id;
	struct user *u = find(d, user, &id);
	struct device *v = u ? find_device(u, device) : NULL;
	if (v)
		drop(d, u, v);
	return v;
}

size_t con_devices_count(const struct con_devices *d, const char *user)
{
	uint64_t id;
	const struct user *u = user ? find(d, user, &id) : NULL;
	return !user ? d->n : u ? u->n : 0;
}

void con_devices_each(const struct con_devices *d, const char *user,
		      void (*each)(void *ctx, const uint8_t *device, uint64_t seen_s),
		      void *ctx)
{
	uint64_t id;
	const struct user *u = find(d, user, &id);
	for (unsigned i = 0; u && i < u->n; i++)
		each(ctx, u->v[i].key, u->v[i].seen_s);
}
