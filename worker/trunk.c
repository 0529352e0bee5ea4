// Members and their trunks: who, when to dial, which of two. A trunk's life on its
// carrier is in trunk_link.c.
#include "worker/trunk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/log.h"
#include "worker/trunk_internal.h"

#define BACKOFF_MIN_MS 500
#define BACKOFF_MAX_MS 30000
#define SPARE_MS       1000 // an empty trunk beside a better one

// ---- members ----

static int compare_id(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

static struct trunk_member *find(const struct wrk_trunks *t, uint64_t home_id)
{
	size_t low = 0, high = t->n_members;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int c = compare_id(home_id, t->members[mid]->home_id);
		if (!c)
			return t->members[mid];
		if (c < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

static struct trunk_member *find_key(const struct wrk_trunks *t, const uint8_t *key)
{
	for (size_t i = 0; i < t->n_members; i++)
		if (!sodium_memcmp(t->members[i]->public_key, key, 32))
			return t->members[i];
	return NULL;
}

bool wrk_trunks_is_member(void *ctx, const uint8_t *key)
{
	return find_key(ctx, key) != NULL;
}

const uint8_t *wrk_trunks_key(const struct wrk_trunks *t, uint64_t home_id)
{
	struct trunk_member *m = find(t, home_id);
	return m ? m->public_key : NULL;
}

uint32_t wrk_trunks_members(const struct wrk_trunks *t)
{
	return (uint32_t)t->n_members;
}

static void answer_calls(struct trunk_member *m, struct wrk_mux *mux, enum sp_reason why)
{
	struct trunk_calls calls;
	struct wrk_trunk_call *c;
	TAILQ_INIT(&calls);
	TAILQ_CONCAT(&calls, &m->calls, entry);
	TAILQ_FOREACH(c, &calls, entry)
	c->member = &calls;
	while ((c = TAILQ_FIRST(&calls))) {
		TAILQ_REMOVE(&calls, c, entry);
		c->waits = false;
		c->done(c->ctx, mux, why);
	}
}

static void free_carriers(struct trunk_member *m)
{
	for (size_t i = 0; i < m->n_carriers; i++)
		free(m->carriers[i].ca_file);
	free(m->carriers);
	m->carriers = NULL;
	m->n_carriers = 0;
}

static void member_free(struct trunk_member *m, enum sp_reason why)
{
	if (m->dialled)
		trunk_end(m->dialled, why);
	if (m->accepted)
		trunk_end(m->accepted, why);
	while (m->n_proving)
		trunk_end(TAILQ_FIRST(&m->proving), why);
	answer_calls(m, NULL, SP_REASON_GONE);
	free_carriers(m);
	free(m);
}

// 0, or -ENOMEM: as it was.
static int set_carriers(struct trunk_member *m, const struct sp_fleet_member *from)
{
	struct sp_fleet_carrier *v = calloc(from->n_carriers, sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (size_t i = 0; i < from->n_carriers; i++) {
		v[i] = from->carriers[i];
		if (!v[i].ca_file || (v[i].ca_file = strdup(v[i].ca_file)))
			continue;
		while (i--)
			free(v[i].ca_file);
		free(v);
		return -ENOMEM;
	}
	free_carriers(m);
	m->carriers = v;
	m->n_carriers = from->n_carriers;
	m->next = 0;
	return 0;
}

static struct trunk_member *member_new(struct wrk_trunks *t,
				       const struct sp_fleet_member *from)
{
	struct trunk_member *m = calloc(1, sizeof(*m));
	if (!m)
		return NULL;
	m->trunks = t;
	m->home_id = from->home_id;
	memcpy(m->public_key, from->public_key, sizeof(m->public_key));
	strcpy(m->name, from->name);
	TAILQ_INIT(&m->calls);
	TAILQ_INIT(&m->proving);
	if (set_carriers(m, from)) {
		free(m);
		return NULL;
	}
	return m;
}

// The member as it was, if it is the same worker.
static struct trunk_member *known(struct wrk_trunks *t,
				  const struct sp_fleet_member *from)
{
	struct trunk_member *m = find(t, from->home_id);
	return m && !memcmp(m->public_key, from->public_key, 32) ? m : NULL;
}

// What came new, when not all of it found memory.
static void drop_new(struct trunk_member **v, size_t n)
{
	while (n--)
		if (!v[n]->kept)
			member_free(v[n], SP_REASON_NONE);
		else
			v[n]->kept = false;
	free(v);
}

int wrk_trunks_set_members(struct wrk_trunks *t, const struct sp_fleet_members *from)
{
	struct trunk_member **v = calloc(from->n + 1, sizeof(struct trunk_member *));
	size_t n = 0, gone = 0;
	if (!v)
		return -ENOMEM;
	for (size_t i = 0; i < from->n; i++) {
		const struct sp_fleet_member *f = &from->v[i];
		if (!memcmp(f->public_key, t->opt.keys->static_public, 32) ||
		    f->home_id == t->opt.keys->home_id)
			continue;
		struct trunk_member *m = known(t, f);
		bool was = m != NULL;
		if (m ? set_carriers(m, f) : !(m = member_new(t, f))) {
			drop_new(v, n);
			return -ENOMEM;
		}
		m->kept = was;
		v[n++] = m;
	}
	for (size_t i = 0; i < t->n_members; i++)
		if (!t->members[i]->kept) {
			gone++;
			member_free(t->members[i], SP_REASON_MEMBER);
		}
	free(t->members);
	t->members = v;
	t->n_members = n;
	for (size_t i = 0; i < n; i++)
		v[i]->kept = false;
	sp_debug("trunk", "members", "n=%zu gone=%zu", n, gone);
	return 0;
}

// ---- which trunk ----

static bool is_up(const struct wrk_trunk *k)
{
	return k && k->state == TRUNK_UP;
}

// Of two that are up both ends take the same one: that of the lower home id's dial.
static struct wrk_trunk *best(const struct trunk_member *m)
{
	bool own = m->trunks->opt.keys->home_id < m->home_id;
	struct wrk_trunk *first = own ? m->dialled : m->accepted;
	struct wrk_trunk *second = own ? m->accepted : m->dialled;
	return is_up(first) ? first : is_up(second) ? second : NULL;
}

uint32_t trunk_idle_ms(const struct wrk_trunk *k)
{
	return best(k->member) == k ? k->idle_ms : SPARE_MS;
}

// ---- dialling ----

static bool dial_next(struct trunk_member *m);

void trunk_came_up(struct wrk_trunk *k)
{
	struct trunk_member *m = k->member;
	struct wrk_trunks *t = m->trunks;
	m->backoff_ms = 0;
	m->next = 0;
	t->n.up++;
	if (k->dialled)
		t->n.dialled++;
	else
		t->n.accepted++;
	sp_info("trunk", "up", "peer=%s dialled=%d", m->name, k->dialled);
	answer_calls(m, best(m)->mux, SP_REASON_NONE);
}

void trunk_proved(struct wrk_trunk *k)
{
	struct trunk_member *m = k->member;
	struct wrk_trunk *earlier;
	while ((earlier = TAILQ_FIRST(&m->proving)) != k)
		trunk_end(earlier, SP_REASON_SUPERSEDED);
	TAILQ_REMOVE(&m->proving, k, proving);
	m->n_proving--;
	m->trunks->n.proving--;
	if (m->accepted)
		trunk_end(m->accepted, SP_REASON_SUPERSEDED);
	m->accepted = k;
	trunk_came_up(k);
}

// Called by the trunk that ends, which is no more the member's.
void trunk_went(struct wrk_trunk *k, enum sp_reason why)
{
	struct trunk_member *m = k->member;
	struct wrk_trunks *t = m->trunks;
	if (k->was_up) {
		t->n.up--;
		t->n.ended[why]++;
		sp_info("trunk", "ended", "peer=%s reason=%s why=%s", m->name,
			sp_reason_word(why), k->error);
		return;
	}
	if (!k->dialled) {
		t->n.proving--;
		t->n.unproved[why]++;
		sp_debug("trunk", "not proved", "peer=%s reason=%s", m->name,
			 sp_reason_word(why));
		return;
	}
	t->n.dialling--;
	t->n.dials_failed[why]++;
	sp_debug("trunk", "a dial failed", "peer=%s reason=%s", m->name,
		 sp_reason_word(why));
	if (why == SP_REASON_SHUTDOWN || why == SP_REASON_MEMBER || best(m))
		return;
	if (!TAILQ_EMPTY(&m->calls) && dial_next(m))
		return;
	m->next = 0;
	m->backoff_ms = m->backoff_ms ? 2 * m->backoff_ms : BACKOFF_MIN_MS;
	if (m->backoff_ms > BACKOFF_MAX_MS)
		m->backoff_ms = BACKOFF_MAX_MS;
	m->retry_us = sp_loop_now_us(t->opt.loop) + UINT64_C(1000) * m->backoff_ms;
	m->last = why;
	SP_LOG_LIMITED(&t->log, sp_loop_now_ms(t->opt.loop), SP_LOG_WARN, "trunk",
		       "a home cannot be reached", "peer=%s reason=%s retry_ms=%u",
		       m->name, sp_reason_word(why), m->backoff_ms);
	answer_calls(m, NULL, sp_reason_from_wire(sp_reason_to_wire(why)));
}

// Tries the carriers that are left, in order. False: none of them can even be begun.
static bool dial_next(struct trunk_member *m)
{
	while (m->next < m->n_carriers) {
		const struct sp_fleet_carrier *c = &m->carriers[m->next++];
		int err = trunk_dial(m, c, &m->dialled);
		if (!err) {
			m->trunks->n.dialling++;
			m->trunks->n.dials++;
			return true;
		}
		sp_debug("trunk", "cannot dial", "peer=%s error=%s", m->name,
			 sp_strerror(err));
	}
	return false;
}

enum sp_reason wrk_trunks_find(struct wrk_trunks *t, uint64_t home_id,
			       struct wrk_trunk_call *call, struct wrk_mux **ret)
{
	struct trunk_member *m = find(t, home_id);
	struct wrk_trunk *k = m ? best(m) : NULL;
	*ret = k ? k->mux : NULL;
	if (!m)
		return SP_REASON_GONE;
	if (k)
		return SP_REASON_NONE;
	if (!m->dialled) {
		if (sp_loop_now_us(t->opt.loop) < m->retry_us)
			return sp_reason_from_wire(sp_reason_to_wire(m->last));
		if (!dial_next(m)) {
			m->next = 0;
			return SP_REASON_UNREACHABLE;
		}
	}
	call->waits = true;
	call->member = &m->calls;
	TAILQ_INSERT_TAIL(&m->calls, call, entry);
	return SP_REASON_NONE;
}

void wrk_trunks_cancel(struct wrk_trunk_call *call)
{
	struct trunk_calls *list = call->member;
	if (!call->waits)
		return;
	call->waits = false;
	TAILQ_REMOVE(list, call, entry);
}

void wrk_trunks_accept(struct wrk_trunks *t, struct sp_carrier *c, const uint8_t *member,
		       const struct sp_hs_keys *keys, const uint8_t *answer, size_t len)
{
	struct trunk_member *m = find_key(t, member);
	if (!m) {
		sp_carrier_free(c);
		return;
	}
	if (m->n_proving == TRUNK_PROVING)
		trunk_end(TAILQ_FIRST(&m->proving), SP_REASON_PRESSURE);
	if (trunk_accept(m, c, keys, answer, len))
		sp_warn("trunk", "no memory for a trunk", "peer=%s", m->name);
}

// ---- the table ----

int wrk_trunks_new(const struct wrk_trunks_options *opt, struct wrk_trunks **ret)
{
	struct wrk_trunks *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->opt = *opt;
	t->pool.limit = opt->limits.memory_bytes;
	t->log = (struct sp_ratelimit){.per_second = 1, .burst = 10};
	*ret = t;
	return 0;
}

void wrk_trunks_set_limits(struct wrk_trunks *t, const struct wrk_trunks_limits *limits)
{
	t->opt.limits = *limits;
	t->pool.limit = limits->memory_bytes;
}

void wrk_trunks_free(struct wrk_trunks *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n_members; i++)
		member_free(t->members[i], SP_REASON_SHUTDOWN);
	free(t->members);
	sodium_memzero(t, sizeof(*t));
	free(t);
}

const struct wrk_trunks_counters *wrk_trunks_counters(struct wrk_trunks *t)
{
	t->n.memory = t->pool.used;
	return &t->n;
}
