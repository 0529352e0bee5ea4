#include "worker/resolve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include <event2/event.h>
#include <sodium.h>

#include "worker/dnsclient.h"

#define BUCKETS        1024 // of names under way
#define TURN_DELIVERED 64   // callbacks in one turn of the loop

// Families, in the order in which answers are delivered.
enum { V6, V4, FAMILIES };
#define BIT(f) (1u << (f))
static const int family_of[FAMILIES] = {[V6] = AF_INET6, [V4] = AF_INET};

struct question {
	struct pending *p;
	int f;
};

// A name under way. It lives until c-ares has answered everything that was asked, even
// when its time is over and nobody waits any more.
struct pending {
	LIST_ENTRY(pending) bucket;
	TAILQ_ENTRY(pending) by_deadline;
	LIST_ENTRY(pending) all;
	TAILQ_HEAD(, wrk_lookup) waiters;
	struct wrk_resolve *r;
	uint64_t deadline_ms;
	bool expired;   // its time is over: in `all` only
	bool starting;  // must not be freed yet
	unsigned asked; // BIT of families
	unsigned open;  // of those, not answered by c-ares
	struct question question[FAMILIES];
	struct wrk_dnsanswer answer[FAMILIES]; // of those asked and not open
	char name[SP_NAME_MAX + 1];
};

struct wrk_lookup {
	TAILQ_ENTRY(wrk_lookup) waiting; // p->waiters
	TAILQ_ENTRY(wrk_lookup) ready_link;
	LIST_ENTRY(wrk_lookup) all;
	struct wrk_resolve *r;
	struct pending *p; // NULL when nothing is missing
	const struct wrk_resolve_ops *ops;
	void *ctx;
	unsigned missing; // BIT of families
	unsigned ready;   // answered, to be delivered; in r->ready while not 0
	struct wrk_dnsanswer answer[FAMILIES];
};

struct wrk_resolve {
	struct wrk_resolve_options opt;
	struct wrk_dnsclient *client;
	struct wrk_dnscache *cache;
	struct event *turn;  // delivers
	struct event *timer; // for the head of by_deadline
	struct wrk_resolve_stats stats;
	LIST_HEAD(, wrk_lookup) lookups;
	LIST_HEAD(, pending) pendings;
	TAILQ_HEAD(, pending)
	by_deadline; // one timeout for all, so in order of their start
	TAILQ_HEAD(, wrk_lookup) ready;
	LIST_HEAD(, pending) buckets[BUCKETS];
	uint8_t hash_key[crypto_shorthash_KEYBYTES];
};

static uint64_t monotonic_ms(void *ctx)
{
	struct timespec ts;
	(void)ctx;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void wrk_resolve_options_default(struct wrk_resolve_options *ret)
{
	*ret = (struct wrk_resolve_options){
		.timeout_ms = 5000,
		.try_ms = 800,
		.tries = 3,
		.max_lookups = 1024,
		.max_waiters = 16384,
		.ipv4 = true,
		.ipv6 = true,
	};
	wrk_dnscache_options_default(&ret->cache);
}

uint64_t wrk_resolve_now_ms(const struct wrk_resolve *r)
{
	return r->opt.now_ms(r->opt.now_ctx);
}

// ---- delivery ----

static void want_turn(struct wrk_resolve *r)
{
	event_active(r->turn, EV_TIMEOUT, 0);
}

static void lookup_free(struct wrk_lookup *l)
{
	struct wrk_resolve *r = l->r;
	if (l->p)
		TAILQ_REMOVE(&l->p->waiters, l, waiting);
	if (l->ready)
		TAILQ_REMOVE(&r->ready, l, ready_link);
	LIST_REMOVE(l, all);
	r->stats.waiters--;
	free(l);
}

// Gives a waiter the answer of family `f`, to be delivered later.
static void hand(struct wrk_lookup *l, int f, const struct wrk_dnsanswer *a)
{
	struct wrk_resolve *r = l->r;
	if (!l->ready) {
		TAILQ_INSERT_TAIL(&r->ready, l, ready_link);
		want_turn(r);
	}
	l->answer[f] = *a;
	l->answer[f].family = family_of[f];
	l->ready |= BIT(f);
	l->missing &= ~BIT(f);
	if (!l->missing && l->p) {
		TAILQ_REMOVE(&l->p->waiters, l, waiting);
		l->p = NULL;
	}
}

// One answer of the waiter at the head of the queue; the waiter goes to its tail if it
// has another.
static void deliver_one(struct wrk_resolve *r)
{
	struct wrk_lookup *l = TAILQ_FIRST(&r->ready);
	int f = l->ready & BIT(V6) ? V6 : V4;
	const struct wrk_resolve_ops *ops = l->ops;
	void *ctx = l->ctx;
	struct wrk_dnsanswer a = l->answer[f];
	TAILQ_REMOVE(&r->ready, l, ready_link);
	l->ready &= ~BIT(f);
	if (l->ready)
		TAILQ_INSERT_TAIL(&r->ready, l, ready_link);
	bool last = !l->ready && !l->missing;
	if (last)
		lookup_free(l);
	ops->answer(ctx, &a, last);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	static const struct timeval at_once = {0, 0};
	struct wrk_resolve *r = arg;
	(void)fd, (void)what;
	for (int i = 0; i < TURN_DELIVERED && !TAILQ_EMPTY(&r->ready); i++)
		deliver_one(r);
	if (!TAILQ_EMPTY(&r->ready)) // after other events had their turn
		(void)event_add(r->turn, &at_once);
}

// ---- names under way ----

static unsigned bucket_of(const struct wrk_resolve *r, const char *name)
{
	uint64_t hash;
	crypto_shorthash((uint8_t *)&hash, (const uint8_t *)name, strlen(name),
			 r->hash_key);
	return (unsigned)(hash % BUCKETS);
}

static struct pending *find_pending(struct wrk_resolve *r, const char *name)
{
	struct pending *p;
	LIST_FOREACH(p, &r->buckets[bucket_of(r, name)], bucket)
	if (strcmp(p->name, name) == 0)
		return p;
	return NULL;
}

// Out of what new callers can find and what has a deadline.
static void pending_unlist(struct pending *p)
{
	if (p->expired)
		return;
	p->expired = true;
	LIST_REMOVE(p, bucket);
	TAILQ_REMOVE(&p->r->by_deadline, p, by_deadline);
}

static void pending_free(struct pending *p)
{
	pending_unlist(p);
	LIST_REMOVE(p, all);
	p->r->stats.lookups--;
	free(p);
}

// To everybody who waits for family `f`.
static void hand_all(struct pending *p, int f, const struct wrk_dnsanswer *a)
{
	struct wrk_lookup *next, *l = TAILQ_FIRST(&p->waiters);
	for (; l; l = next) {
		next = TAILQ_NEXT(l, waiting);
		if (l->missing & BIT(f))
			hand(l, f, a);
	}
}

static void on_answer(void *ctx, const struct wrk_dnsanswer *a)
{
	struct question *q = ctx;
	struct pending *p = q->p;
	struct wrk_resolve *r = p->r;
	if (a->status == SP_REASON_RESOLVE_TIMEOUT)
		r->stats.timed_out++;
	else if (a->status == SP_REASON_RESOLVE_FAILED && a->ttl_s == 0)
		r->stats.failed++;
	// After the deadline the timeout is in the cache; only a real answer is better.
	if (!p->expired || a->status != SP_REASON_RESOLVE_TIMEOUT)
		wrk_dnscache_put(r->cache, p->name, a, wrk_resolve_now_ms(r));
	p->answer[q->f] = *a;
	p->open &= ~BIT(q->f);
	hand_all(p, q->f, a);
	if (!p->open && !p->starting)
		pending_free(p);
}

static void set_timer(struct wrk_resolve *r)
{
	struct pending *p = TAILQ_FIRST(&r->by_deadline);
	if (!p) {
		(void)event_del(r->timer);
		return;
	}
	uint64_t now = wrk_resolve_now_ms(r);
	uint64_t ms = p->deadline_ms > now ? p->deadline_ms - now : 0;
	struct timeval tv = {.tv_sec = (time_t)(ms / 1000),
			     .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
	(void)event_add(r->timer, &tv);
}

// Nobody waits longer; c-ares still may.
static void pending_expire(struct pending *p)
{
	pending_unlist(p);
	for (int f = 0; f < FAMILIES; f++) {
		struct wrk_dnsanswer a = {.family = family_of[f],
					  .status = SP_REASON_RESOLVE_TIMEOUT};
		if (!(p->open & BIT(f)))
			continue;
		wrk_dnscache_put(p->r->cache, p->name, &a, wrk_resolve_now_ms(p->r));
		hand_all(p, f, &a);
	}
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct wrk_resolve *r = arg;
	uint64_t now = wrk_resolve_now_ms(r);
	struct pending *p;
	(void)fd, (void)what;
	while ((p = TAILQ_FIRST(&r->by_deadline)) && p->deadline_ms <= now)
		pending_expire(p);
	set_timer(r);
}

static struct pending *pending_new(struct wrk_resolve *r, const char *name)
{
	struct pending *p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->r = r;
	p->deadline_ms = wrk_resolve_now_ms(r) + r->opt.timeout_ms;
	memcpy(p->name, name, strlen(name) + 1);
	TAILQ_INIT(&p->waiters);
	LIST_INSERT_HEAD(&r->buckets[bucket_of(r, name)], p, bucket);
	TAILQ_INSERT_TAIL(&r->by_deadline, p, by_deadline);
	LIST_INSERT_HEAD(&r->pendings, p, all);
	r->stats.lookups++;
	if (TAILQ_FIRST(&r->by_deadline) == p)
		set_timer(r);
	return p;
}

// ---- start ----

// Joins `l` to `p` for what it misses, and asks what was not asked yet.
static void join(struct pending *p, struct wrk_lookup *l)
{
	l->p = p;
	TAILQ_INSERT_TAIL(&p->waiters, l, waiting);
	p->starting = true;
	for (int f = 0; f < FAMILIES; f++) {
		if (!(l->missing & BIT(f)))
			continue;
		if (!(p->asked & BIT(f))) {
			p->asked |= BIT(f);
			p->open |= BIT(f);
			p->question[f] = (struct question){.p = p, .f = f};
			p->r->stats.queries++;
			wrk_dnsclient_query(p->r->client, p->name, family_of[f],
					    on_answer, &p->question[f]);
		} else if (!(p->open & BIT(f))) {
			hand(l, f, &p->answer[f]);
		}
	}
	p->starting = false;
	if (!p->open)
		pending_free(p);
}

static bool has_suffix(const char *name, const char *label)
{
	size_t len = strlen(name), n = strlen(label);
	return len >= n && strcmp(name + len - n, label) == 0 &&
	       (len == n || name[len - n - 1] == '.');
}

static void hand_address(struct wrk_lookup *l, int f, const void *addr)
{
	struct wrk_dnsanswer a = {.n = 1};
	memcpy(a.addr[0], addr, f == V4 ? 4 : 16);
	hand(l, f, &a);
}

static void hand_failure(struct wrk_lookup *l)
{
	struct wrk_dnsanswer a = {.status = SP_REASON_RESOLVE_FAILED};
	for (int f = 0; f < FAMILIES; f++)
		if (l->missing & BIT(f))
			hand(l, f, &a);
}

// Names that no server is asked for.
static bool answer_special(struct wrk_lookup *l, const char *name)
{
	struct in_addr in;
	struct in6_addr in6;
	if (inet_pton(AF_INET, name, &in) == 1) {
		l->missing = BIT(V4);
		hand_address(l, V4, &in);
	} else if (inet_pton(AF_INET6, name, &in6) == 1) {
		l->missing = BIT(V6);
		hand_address(l, V6, &in6);
	} else if (has_suffix(name, "localhost")) {
		in.s_addr = htonl(INADDR_LOOPBACK);
		if (l->missing & BIT(V6))
			hand_address(l, V6, &in6addr_loopback);
		if (l->missing & BIT(V4))
			hand_address(l, V4, &in);
	} else if (has_suffix(name, "invalid") || has_suffix(name, "onion") ||
		   strspn(name, "0123456789.") == strlen(name)) {
		hand_failure(l);
	} else {
		return false;
	}
	return true;
}

static void answer_cached(struct wrk_lookup *l, const char *name)
{
	struct wrk_dnsanswer a;
	uint64_t now = wrk_resolve_now_ms(l->r);
	for (int f = 0; f < FAMILIES; f++)
		if ((l->missing & BIT(f)) &&
		    wrk_dnscache_get(l->r->cache, name, family_of[f], now, &a))
			hand(l, f, &a);
}

// What neither the cache nor the rules about names know.
static int answer_by_server(struct wrk_lookup *l, const char *name)
{
	struct wrk_resolve *r = l->r;
	struct pending *p = find_pending(r, name);
	if (p) {
		r->stats.joined++;
	} else {
		if (r->stats.lookups >= r->opt.max_lookups)
			return SP_E_LIMIT;
		p = pending_new(r, name);
		if (!p)
			return -ENOMEM;
	}
	join(p, l);
	return 0;
}

static struct wrk_lookup *lookup_new(struct wrk_resolve *r,
				     const struct wrk_resolve_ops *ops, void *ctx)
{
	struct wrk_lookup *l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->r = r;
	l->ops = ops;
	l->ctx = ctx;
	l->missing = (r->opt.ipv6 ? BIT(V6) : 0) | (r->opt.ipv4 ? BIT(V4) : 0);
	LIST_INSERT_HEAD(&r->lookups, l, all);
	r->stats.waiters++;
	return l;
}

int wrk_resolve_start(struct wrk_resolve *r, const char *name,
		      const struct wrk_resolve_ops *ops, void *ctx,
		      struct wrk_lookup **ret)
{
	char folded[SP_NAME_MAX + 1];
	struct in6_addr in6;
	if (!wrk_dnsname_fold(name, folded) ||
	    (!sp_name_is_valid(folded, strlen(folded)) &&
	     inet_pton(AF_INET6, folded, &in6) != 1))
		return SP_E_MALFORMED;
	if (r->stats.waiters >= r->opt.max_waiters) {
		r->stats.refused++;
		return SP_E_LIMIT;
	}
	struct wrk_lookup *l = lookup_new(r, ops, ctx);
	if (!l)
		return -ENOMEM;
	int err = 0;
	if (!answer_special(l, folded)) {
		answer_cached(l, folded);
		err = l->missing ? answer_by_server(l, folded) : 0;
	}
	if (err) {
		r->stats.refused += err == SP_E_LIMIT;
		lookup_free(l);
		return err;
	}
	r->stats.started++;
	*ret = l;
	return 0;
}

void wrk_resolve_cancel(struct wrk_lookup *l)
{
	if (l)
		lookup_free(l);
}

void wrk_resolve_stats(const struct wrk_resolve *r, struct wrk_resolve_stats *ret)
{
	*ret = r->stats;
	wrk_dnscache_stats(r->cache, &ret->cache);
}

// ---- life ----

static bool options_hold(const struct wrk_resolve_options *o)
{
	return o->base && o->timeout_ms && o->try_ms && o->tries && o->max_lookups &&
	       o->max_waiters && (o->ipv4 || o->ipv6) && o->timeout_ms <= INT32_MAX &&
	       o->try_ms <= INT32_MAX && o->tries <= 16;
}

static int init_parts(struct wrk_resolve *r, const struct wrk_resolve_options *opt)
{
	struct wrk_dnsclient_options client = {
		.base = opt->base,
		.servers = opt->servers,
		.nservers = opt->nservers,
		.try_ms = opt->try_ms,
		.tries = opt->tries,
	};
	r->turn = event_new(opt->base, -1, 0, on_turn, r);
	r->timer = event_new(opt->base, -1, 0, on_timer, r);
	if (!r->turn || !r->timer)
		return -ENOMEM;
	int err = wrk_dnscache_new(&opt->cache, &r->cache);
	return err ? err : wrk_dnsclient_new(&client, &r->client);
}

int wrk_resolve_new(const struct wrk_resolve_options *opt, struct wrk_resolve **ret)
{
	if (!options_hold(opt))
		return -EINVAL;
	struct wrk_resolve *r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->opt = *opt;
	if (!r->opt.now_ms)
		r->opt.now_ms = monotonic_ms;
	r->opt.servers = NULL; // the client has its own
	TAILQ_INIT(&r->ready);
	TAILQ_INIT(&r->by_deadline);
	randombytes_buf(r->hash_key, sizeof(r->hash_key));
	int err = init_parts(r, opt);
	if (err) {
		wrk_resolve_free(r);
		return err;
	}
	*ret = r;
	return 0;
}

void wrk_resolve_free(struct wrk_resolve *r)
{
	if (!r)
		return;
	wrk_dnsclient_free(r->client); // before what its queries point to
	while (!LIST_EMPTY(&r->lookups))
		lookup_free(LIST_FIRST(&r->lookups));
	while (!LIST_EMPTY(&r->pendings))
		pending_free(LIST_FIRST(&r->pendings));
	wrk_dnscache_free(r->cache);
	if (r->turn)
		event_free(r->turn);
	if (r->timer)
		event_free(r->timer);
	free(r);
}
