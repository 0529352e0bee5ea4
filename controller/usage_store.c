#include "controller/usage_store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "controller/usage_copy.h"
#include "lib/log.h"

#define REWRITE_BYTES (16 << 20)
#define COPY_TURN     256 // users in one turn

struct report { // waits for the disk
	STAILQ_ENTRY(report) next;
	con_usage_store_answer done;
	void *ctx;
	uint64_t boot;
	size_t n;
	char (*user)[CON_USAGE_USER_MAX + 1];
};

struct load { // what Redis knows, all of it or nothing
	struct con_usage_store *s;
	void (*done)(void *ctx, bool good);
	void *ctx;
	size_t n, next;
	char (*user)[CON_USAGE_USER_MAX + 1];
};

struct con_usage_store {
	struct con_usage_store_options opt;
	char *path, *fleet;
	struct con_usage *u;
	struct con_usage_spool *spool;
	struct con_usage_copy copy;
	struct con_usage_store_counters n;
	STAILQ_HEAD(, report) reports;
	size_t n_reports;
	struct sp_timer sync, copies;
	uint64_t again_us; // all users are copied
	unsigned copying;  // commands under way
	bool disk_failed, newer_said;
	bool unloaded; // a load failed: what Redis knows is still wanted
	struct load *load;
};

static uint64_t now_us(const struct con_usage_store *s)
{
	return sp_loop_now_us(s->opt.loop);
}

// ---- answers ----

static void fill_left(struct con_usage_store *s, const struct report *r,
		      Sallyport__Fleet__QuotaLeft *q, Sallyport__Fleet__QuotaLeft **list)
{
	for (size_t i = 0; i < r->n; i++) {
		struct con_usage_quota quota;
		sallyport__fleet__quota_left__init(&q[i]);
		q[i].user = r->user[i];
		q[i].limited = s->opt.quota(s->opt.ctx, r->user[i], &quota);
		if (q[i].limited)
			q[i].bytes = con_usage_left(s->u, r->user[i], quota.bytes);
		list[i] = &q[i];
	}
}

static void answer(struct con_usage_store *s, struct report *r, bool stored)
{
	Sallyport__Fleet__UsageAnswer m = SALLYPORT__FLEET__USAGE_ANSWER__INIT;
	Sallyport__Fleet__QuotaLeft *q = calloc(r->n + 1, sizeof(*q)), **list = NULL;
	list = calloc(r->n + 1, sizeof(*list));
	m.boot = r->boot;
	m.stored = stored;
	s->n.not_stored += !stored;
	if (q && list) {
		fill_left(s, r, q, list);
		m.n_users = r->n;
		m.users = list;
	}
	r->done(r->ctx, &m);
	free(list);
	free(q);
	free(r->user);
	free(r);
}

static void on_sync(void *ctx)
{
	struct con_usage_store *s = ctx;
	int err = con_usage_spool_sync(s->spool);
	struct report *r;
	if (err && !s->disk_failed)
		sp_error("usage", "totals are not on the disk", "path=%s why=%s", s->path,
			 sp_strerror(err));
	if (!err && s->disk_failed)
		sp_info("usage", "totals are on the disk again", "path=%s", s->path);
	s->disk_failed = err != 0;
	while ((r = STAILQ_FIRST(&s->reports))) {
		STAILQ_REMOVE_HEAD(&s->reports, next);
		s->n_reports--;
		answer(s, r, !err);
	}
}

// ---- reports ----

static void roll(struct con_usage_store *s, const char *user)
{
	struct con_usage_quota q;
	if (s->opt.quota(s->opt.ctx, user, &q) &&
	    con_usage_roll(s->u, user, q.period_s, sp_loop_unix_ms(s->opt.loop) / 1000) >
		    0)
		con_usage_spool_user(s->spool, user);
}

static bool take_total(struct con_usage_store *s, const char *worker, uint64_t boot,
		       const Sallyport__Fleet__Usage *t)
{
	struct con_usage_sum sum = {t->bytes_up, t->bytes_down};
	s->n.totals++;
	if (strlen(t->user) > CON_USAGE_USER_MAX) {
		s->n.refused++;
		return false;
	}
	roll(s, t->user);
	int n = con_usage_add(s->u, worker, boot, t->user, &sum);
	if (n == 1)
		con_usage_spool_entry(s->spool, t->user, worker, boot, &sum);
	s->n.rose += n == 1;
	s->n.late += n == SP_E_CLOSED;
	s->n.refused += n < 0 && n != SP_E_CLOSED;
	return n >= 0 || n == SP_E_CLOSED;
}

static void on_copied_closed(void *ctx, const redisReply *r)
{
	struct con_usage_store *s = ctx;
	s->n.copy_failures += !r || r->type == REDIS_REPLY_ERROR;
	s->copying--;
}

static void copy_closed(void *ctx, const char *worker, uint64_t boot)
{
	struct con_usage_store *s = ctx;
	if (!s->opt.redis)
		return;
	s->copying++;
	if (con_usage_copy_closed(&s->copy, worker, boot,
				  sp_loop_unix_ms(s->opt.loop) / 1000, on_copied_closed,
				  s)) {
		s->copying--;
		s->n.copy_failures++;
	}
}

static void take_report(struct con_usage_store *s, const char *worker,
			const Sallyport__Fleet__UsageReport *m, struct report *r)
{
	bool whole = m->n_users <= CON_USAGE_STORE_USERS;
	for (size_t i = 0; i < m->n_users && i < CON_USAGE_STORE_USERS; i++) {
		if (!take_total(s, worker, m->boot, m->users[i])) {
			whole = false;
			continue;
		}
		strcpy(r->user[r->n++], m->users[i]->user);
	}
	if (!m->final || !whole)
		return;
	int n = con_usage_close(s->u, worker, m->boot);
	if (n == 1) {
		con_usage_spool_closed(s->spool, worker, m->boot);
		copy_closed(s, worker, m->boot);
	}
	s->n.closed += n == 1;
}

void con_usage_store_report(struct con_usage_store *s, const char *worker,
			    const Sallyport__Fleet__UsageReport *m,
			    con_usage_store_answer done, void *ctx)
{
	size_t n =
		m->n_users < CON_USAGE_STORE_USERS ? m->n_users : CON_USAGE_STORE_USERS;
	struct report *r = calloc(1, sizeof(*r));
	s->n.reports++;
	if (r)
		r->user = calloc(n + 1, sizeof(*r->user));
	if (!r || !r->user || s->load || s->unloaded ||
	    s->n_reports >= CON_USAGE_STORE_REPORTS) {
		Sallyport__Fleet__UsageAnswer a = SALLYPORT__FLEET__USAGE_ANSWER__INIT;
		a.boot = m->boot;
		s->n.not_stored++;
		if (r)
			free(r->user);
		free(r);
		done(ctx, &a); // it comes again
		return;
	}
	r->done = done;
	r->ctx = ctx;
	r->boot = m->boot;
	take_report(s, worker, m, r);
	if (STAILQ_EMPTY(&s->reports))
		sp_timer_set(&s->sync, now_us(s) + CON_USAGE_STORE_SYNC_MS * 1000);
	STAILQ_INSERT_TAIL(&s->reports, r, next);
	s->n_reports++;
}

// ---- copies ----

static void on_copied(void *ctx, const redisReply *r)
{
	struct con_usage_store *s = ctx;
	bool newer = r && r->type == REDIS_REPLY_STRING && !strcmp(r->str, "newer");
	bool good = r && r->type != REDIS_REPLY_ERROR;
	s->copying--;
	s->n.copies += good && !newer;
	s->n.copy_failures += !good;
	s->n.newer += newer;
	if (newer && !s->newer_said) {
		s->newer_said = true;
		sp_warn("usage", "Redis knows of more than this disk: left as it is",
			"path=%s", s->path);
	}
}

static void copy_some(struct con_usage_store *s)
{
	const char *user;
	for (int i = 0; i < COPY_TURN && s->copying < 4 * COPY_TURN; i++) {
		user = con_usage_take_changed(s->u);
		if (!user)
			return;
		s->copying++;
		if (con_usage_copy_user(&s->copy, s->u, user, on_copied, s)) {
			s->copying--;
			s->n.copy_failures++;
			return; // not there: all of them when it is
		}
	}
}

static void on_copies(void *ctx)
{
	struct con_usage_store *s = ctx;
	if (now_us(s) >= s->again_us) {
		s->again_us = now_us(s) + CON_USAGE_STORE_AGAIN_MS * UINT64_C(1000);
		con_usage_change_all(s->u);
	}
	if (s->opt.redis && !s->load && !s->unloaded)
		copy_some(s);
	sp_timer_set(&s->copies, now_us(s) + CON_USAGE_STORE_COPY_MS * 1000);
}

void con_usage_store_redis_up(struct con_usage_store *s)
{
	static const struct con_usage_visitor v = {.closed = copy_closed};
	con_usage_change_all(s->u);
	con_usage_each(s->u, &v, s);
}

// ---- what Redis knows ----

static void load_end(struct load *l, bool good)
{
	struct con_usage_store *s = l->s;
	s->load = NULL;
	s->unloaded = !good;
	for (size_t i = 0; i < l->next; i++)
		con_usage_spool_all_of(s->spool, l->user[i]);
	sp_timer_set(&s->sync, now_us(s));
	l->done(l->ctx, good);
	free(l->user);
	free(l);
}

static void load_next(struct load *l);

static void on_loaded(void *ctx, const redisReply *r)
{
	struct load *l = ctx;
	if (!con_usage_take_user(l->s->u, l->user[l->next], r)) {
		load_end(l, false);
		return;
	}
	l->s->n.loaded += r->elements > 0;
	l->next++;
	load_next(l);
}

static void load_next(struct load *l)
{
	if (l->next == l->n)
		load_end(l, true);
	else if (con_usage_ask_user(&l->s->copy, l->user[l->next], on_loaded, l))
		load_end(l, false);
}

static void note_closed(void *ctx, const char *worker, uint64_t boot)
{
	con_usage_spool_closed(ctx, worker, boot);
}

static void on_closed(void *ctx, const redisReply *r)
{
	static const struct con_usage_visitor v = {.closed = note_closed};
	struct load *l = ctx;
	if (!con_usage_take_closed(l->s->u, r)) {
		load_end(l, false);
		return;
	}
	con_usage_each(l->s->u, &v, l->s->spool);
	load_next(l);
}

void con_usage_store_load(struct con_usage_store *s, const char *const *users, size_t n,
			  void (*done)(void *ctx, bool good), void *ctx)
{
	struct load *l = s->load ? NULL : calloc(1, sizeof(*l));
	if (l)
		l->user = calloc(n + 1, sizeof(*l->user));
	if (!l || !l->user) {
		free(l);
		done(ctx, false);
		return;
	}
	l->s = s;
	l->done = done;
	l->ctx = ctx;
	for (size_t i = 0; i < n; i++)
		if (users[i][0] && strlen(users[i]) <= CON_USAGE_USER_MAX)
			strcpy(l->user[l->n++], users[i]);
	s->load = l;
	if (!s->opt.redis || con_usage_ask_closed(&s->copy, on_closed, l))
		load_end(l, false);
}

// ---- life ----

int con_usage_store_new(const struct con_usage_store_options *opt,
			struct con_usage_store **ret, bool *ret_fresh, char *why,
			size_t cap)
{
	struct con_usage_store *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->opt = *opt;
	STAILQ_INIT(&s->reports);
	sp_timer_init(&s->sync, opt->loop, on_sync, s);
	sp_timer_init(&s->copies, opt->loop, on_copies, s);
	s->path = strdup(opt->path);
	s->fleet = strdup(opt->fleet);
	int err = s->path && s->fleet ? con_usage_new(opt->max_users, &s->u) : -ENOMEM;
	if (err)
		snprintf(why, cap, "out of memory");
	else
		err = con_usage_spool_open(s->u, s->path, REWRITE_BYTES, &s->spool,
					   ret_fresh, why, cap);
	if (err) {
		con_usage_store_free(s);
		return err;
	}
	s->copy = (struct con_usage_copy){opt->redis, s->fleet};
	s->again_us = now_us(s) + CON_USAGE_STORE_AGAIN_MS * UINT64_C(1000);
	sp_timer_set(&s->copies, now_us(s) + CON_USAGE_STORE_COPY_MS * 1000);
	*ret = s;
	return 0;
}

void con_usage_store_free(struct con_usage_store *s)
{
	struct report *r;
	if (!s)
		return;
	while ((r = STAILQ_FIRST(&s->reports))) {
		STAILQ_REMOVE_HEAD(&s->reports, next);
		free(r->user);
		free(r);
	}
	sp_timer_done(&s->sync);
	sp_timer_done(&s->copies);
	if (s->spool && con_usage_spool_sync(s->spool))
		sp_warn("usage", "the last totals are not on the disk", "path=%s",
			s->path);
	con_usage_spool_close(s->spool);
	con_usage_free(s->u);
	free(s->path);
	free(s->fleet);
	free(s);
}

const struct con_usage *con_usage_store_table(const struct con_usage_store *s)
{
	return s->u;
}

const struct con_usage_spool_counters *
con_usage_store_spool(const struct con_usage_store *s)
{
	return con_usage_spool_counters(s->spool);
}

const struct con_usage_store_counters *
con_usage_store_counters(const struct con_usage_store *s)
{
	return &s->n;
}
