#include "controller/usage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <sodium.h>

#define BUCKETS 65536

struct boot;

struct entry { // of one user at one boot
	LIST_ENTRY(entry) of_user, of_boot;
	struct user *user;
	struct boot *boot;
	struct con_usage_sum sum;
};
LIST_HEAD(entry_list, entry);

struct user {
	LIST_ENTRY(user) chain;
	TAILQ_ENTRY(user) change;
	bool changed;               // listed
	struct con_usage_sum base;  // of boots that are closed
	struct con_usage_sum total; // with those that are not
	uint64_t period;            // number of the period that runs
	uint64_t mark;              // up and down when it began
	struct entry_list entries;
	char name[];
};
LIST_HEAD(user_chain, user);

struct worker;

struct boot {
	TAILQ_ENTRY(boot) link;
	LIST_ENTRY(boot) chain;
	struct worker *worker;
	uint64_t id;
	bool closed;
	struct entry_list entries;
};
TAILQ_HEAD(boot_list, boot);
LIST_HEAD(boot_chain, boot);

struct worker {
	LIST_ENTRY(worker) link;
	struct boot_list open, closed; // in the order in which they came there
	unsigned n_open, n_closed;
	char name[];
};

struct con_usage {
	size_t max_users, n_users;
	LIST_HEAD(, worker) workers;
	TAILQ_HEAD(, user) changed;
	struct user_chain users[BUCKETS];
	struct boot_chain boots[BUCKETS];
	uint8_t key[crypto_shorthash_KEYBYTES];
};

// ---- look-ups ----

static size_t bucket(const struct con_usage *u, const char *text, uint64_t number)
{
	uint8_t buf[CON_USAGE_WORKER_MAX + 8];
	size_t len = strlen(text);
	uint64_t h;
	memcpy(buf, &number, 8);
	memcpy(buf + 8, text, len);
	crypto_shorthash((uint8_t *)&h, buf, len + 8, u->key);
	return h % BUCKETS;
}

static bool is_name(const char *text, size_t max)
{
	size_t len = strnlen(text, max + 1);
	for (size_t i = 0; i < len; i++)
		if (text[i] < 0x20 || text[i] == 0x7f)
			return false;
	return len > 0 && len <= max;
}

static struct user *user_find(const struct con_usage *u, const char *name)
{
	struct user *x;
	if (!is_name(name, CON_USAGE_USER_MAX))
		return NULL;
	LIST_FOREACH(x, &u->users[bucket(u, name, 0)], chain)
	if (!strcmp(x->name, name))
		return x;
	return NULL;
}

static void change(struct con_usage *u, struct user *x)
{
	if (!x->changed)
		TAILQ_INSERT_TAIL(&u->changed, x, change);
	x->changed = true;
}

static int user_get(struct con_usage *u, const char *name, struct user **ret)
{
	if (!is_name(name, CON_USAGE_USER_MAX))
		return SP_E_MALFORMED;
	*ret = user_find(u, name);
	if (*ret)
		return 0;
	if (u->n_users >= u->max_users)
		return SP_E_LIMIT;
	struct user *x = calloc(1, sizeof(*x) + strlen(name) + 1);
	if (!x)
		return -ENOMEM;
	strcpy(x->name, name);
	LIST_INSERT_HEAD(&u->users[bucket(u, name, 0)], x, chain);
	u->n_users++;
	*ret = x;
	return 0;
}

static int worker_get(struct con_usage *u, const char *name, struct worker **ret)
{
	struct worker *w;
	LIST_FOREACH(w, &u->workers, link)
	if (!strcmp(w->name, name)) {
		*ret = w;
		return 0;
	}
	w = calloc(1, sizeof(*w) + strlen(name) + 1);
	if (!w)
		return -ENOMEM;
	strcpy(w->name, name);
	TAILQ_INIT(&w->open);
	TAILQ_INIT(&w->closed);
	LIST_INSERT_HEAD(&u->workers, w, link);
	*ret = w;
	return 0;
}

static struct boot *boot_find(const struct con_usage *u, const char *worker, uint64_t id)
{
	struct boot *b;
	LIST_FOREACH(b, &u->boots[bucket(u, worker, id)], chain)
	if (b->id == id && !strcmp(b->worker->name, worker))
		return b;
	return NULL;
}

static int boot_get(struct con_usage *u, const char *worker, uint64_t id,
		    struct boot **ret)
{
	struct worker *w;
	if (!is_name(worker, CON_USAGE_WORKER_MAX))
		return SP_E_MALFORMED;
	*ret = boot_find(u, worker, id);
	if (*ret)
		return 0;
	if (worker_get(u, worker, &w))
		return -ENOMEM;
	if (w->n_open >= CON_USAGE_BOOTS_OPEN)
		return SP_E_LIMIT;
	struct boot *b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->worker = w;
	b->id = id;
	TAILQ_INSERT_TAIL(&w->open, b, link);
	w->n_open++;
	LIST_INSERT_HEAD(&u->boots[bucket(u, worker, id)], b, chain);
	*ret = b;
	return 0;
}

static struct entry *entry_find(const struct user *x, const struct boot *b)
{
	struct entry *e;
	LIST_FOREACH(e, &x->entries, of_user)
	if (e->boot == b)
		return e;
	return NULL;
}

// ---- life ----

int con_usage_new(size_t max_users, struct con_usage **ret)
{
	struct con_usage *u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	u->max_users = max_users;
	TAILQ_INIT(&u->changed);
	crypto_shorthash_keygen(u->key);
	*ret = u;
	return 0;
}

static void entry_free(struct entry *e)
{
	LIST_REMOVE(e, of_user);
	LIST_REMOVE(e, of_boot);
	free(e);
}

static void boot_free(struct boot *b)
{
	while (!LIST_EMPTY(&b->entries))
		entry_free(LIST_FIRST(&b->entries));
	TAILQ_REMOVE(b->closed ? &b->worker->closed : &b->worker->open, b, link);
	LIST_REMOVE(b, chain);
	free(b);
}

void con_usage_free(struct con_usage *u)
{
	if (!u)
		return;
	while (!LIST_EMPTY(&u->workers)) {
		struct worker *w = LIST_FIRST(&u->workers);
		while (!TAILQ_EMPTY(&w->open))
			boot_free(TAILQ_FIRST(&w->open));
		while (!TAILQ_EMPTY(&w->closed))
			boot_free(TAILQ_FIRST(&w->closed));
		LIST_REMOVE(w, link);
		free(w);
	}
	for (size_t i = 0; i < BUCKETS; i++)
		while (!LIST_EMPTY(&u->users[i])) {
			struct user *x = LIST_FIRST(&u->users[i]);
			LIST_REMOVE(x, chain);
			free(x);
		}
	free(u);
}

// ---- reports ----

// *have becomes at least `now`. Returns by how much it rose.
static uint64_t raise(uint64_t *have, uint64_t now)
{
	uint64_t by = now > *have ? now - *have : 0;
	*have += by;
	return by;
}

int con_usage_add(struct con_usage *u, const char *worker, uint64_t boot,
		  const char *user, const struct con_usage_sum *sum)
{
	struct user *x;
	struct boot *b;
	int err = boot_get(u, worker, boot, &b);
	if (err)
		return err;
	if (b->closed)
		return SP_E_CLOSED;
	err = user_get(u, user, &x);
	if (err)
		return err;
	struct entry *e = entry_find(x, b);
	if (!e) {
		e = calloc(1, sizeof(*e));
		if (!e)
			return -ENOMEM;
		e->user = x;
		e->boot = b;
		LIST_INSERT_HEAD(&x->entries, e, of_user);
		LIST_INSERT_HEAD(&b->entries, e, of_boot);
	}
	uint64_t up = raise(&e->sum.up, sum->up), down = raise(&e->sum.down, sum->down);
	x->total.up += up;
	x->total.down += down;
	if (up || down)
		change(u, x);
	return up || down;
}

int con_usage_close(struct con_usage *u, const char *worker, uint64_t boot)
{
	struct boot *b;
	int err = boot_get(u, worker, boot, &b);
	if (err)
		return err;
	if (b->closed)
		return 0;
	while (!LIST_EMPTY(&b->entries)) {
		struct entry *e = LIST_FIRST(&b->entries);
		e->user->base.up += e->sum.up;
		e->user->base.down += e->sum.down;
		change(u, e->user);
		entry_free(e);
	}
	struct worker *w = b->worker;
	b->closed = true;
	TAILQ_REMOVE(&w->open, b, link);
	w->n_open--;
	TAILQ_INSERT_TAIL(&w->closed, b, link);
	if (++w->n_closed > CON_USAGE_BOOTS_CLOSED) {
		boot_free(TAILQ_FIRST(&w->closed));
		w->n_closed--;
	}
	return 1;
}

bool con_usage_get(const struct con_usage *u, const char *user, struct con_usage_sum *ret)
{
	const struct user *x = user_find(u, user);
	*ret = x ? x->total : (struct con_usage_sum){0};
	return x != NULL;
}

int con_usage_roll(struct con_usage *u, const char *user, uint64_t period_s,
		   uint64_t now_s)
{
	struct user *x;
	uint64_t period = period_s ? now_s / period_s : 0;
	bool known = user_find(u, user) != NULL;
	int err = user_get(u, user, &x);
	if (err)
		return err;
	if (known && x->period == period)
		return 0;
	x->period = period;
	x->mark = x->total.up + x->total.down;
	change(u, x);
	return 1;
}

int64_t con_usage_left(const struct con_usage *u, const char *user, uint64_t quota)
{
	const struct user *x = user_find(u, user);
	uint64_t used = x ? x->total.up + x->total.down - x->mark : 0;
	uint64_t by = used > quota ? used - quota : quota - used;
	if (by > INT64_MAX)
		by = INT64_MAX;
	return used > quota ? -(int64_t)by : (int64_t)by;
}

// ---- for what keeps it ----

int con_usage_set_base(struct con_usage *u, const char *user,
		       const struct con_usage_sum *base)
{
	struct user *x;
	int err = user_get(u, user, &x);
	if (err)
		return err;
	x->total.up += raise(&x->base.up, base->up);
	x->total.down += raise(&x->base.down, base->down);
	change(u, x);
	return 0;
}

int con_usage_set_period(struct con_usage *u, const char *user, uint64_t period,
			 uint64_t mark)
{
	struct user *x;
	int err = user_get(u, user, &x);
	if (err)
		return err;
	x->period = period;
	x->mark = mark;
	change(u, x);
	return 0;
}

static void visit(const struct user *x, const struct con_usage_visitor *v, void *ctx)
{
	const struct entry *e;
	if (v->user)
		v->user(ctx, x->name, &x->base, x->period, x->mark);
	if (v->entry)
		LIST_FOREACH(e, &x->entries, of_user)
	v->entry(ctx, x->name, e->boot->worker->name, e->boot->id, &e->sum);
}

void con_usage_each(const struct con_usage *u, const struct con_usage_visitor *v,
		    void *ctx)
{
	const struct worker *w;
	const struct boot *b;
	const struct user *x;
	LIST_FOREACH(w, &u->workers, link)
	TAILQ_FOREACH(b, &w->closed, link)
	if (v->closed)
		v->closed(ctx, w->name, b->id);
	for (size_t i = 0; i < BUCKETS; i++)
		LIST_FOREACH(x, &u->users[i], chain)
	visit(x, v, ctx);
}

bool con_usage_one(const struct con_usage *u, const char *user,
		   const struct con_usage_visitor *v, void *ctx)
{
	const struct user *x = user_find(u, user);
	if (x)
		visit(x, v, ctx);
	return x != NULL;
}

const char *con_usage_take_changed(struct con_usage *u)
{
	struct user *x = TAILQ_FIRST(&u->changed);
	if (!x)
		return NULL;
	TAILQ_REMOVE(&u->changed, x, change);
	x->changed = false;
	return x->name;
}

void con_usage_change_all(struct con_usage *u)
{
	struct user *x;
	for (size_t i = 0; i < BUCKETS; i++)
		LIST_FOREACH(x, &u->users[i], chain)
	change(u, x);
}

size_t con_usage_users(const struct con_usage *u)
{
	return u->n_users;
}
