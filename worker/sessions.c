#include "worker/sessions.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <sodium.h>

#include "lib/pass.h"
#include "lib/ticket.h"
#include "worker/sessions_internal.h"

#define SWEEP_MS     100
#define CHECK_US     1000000 // passes are looked at so often
#define END_FLUSH_US 1000000 // an END has so long to reach the client
#define QUOTA_EACH   8192    // sessions whose quota is looked at in one sweep

static uint64_t now_us(const struct wrk_sessions *t)
{
	return sp_loop_now_us(t->opt.loop);
}

static uint64_t unix_s(const struct wrk_sessions *t)
{
	return sp_loop_unix_ms(t->opt.loop) / 1000;
}

// Clients choose their ids: a keyed hash, so that nobody aims at one chain.
static size_t hash(const struct wrk_sessions *t, const uint8_t *id)
{
	uint64_t h;
	crypto_shorthash((uint8_t *)&h, id, SP_SESSION_ID_BYTES, t->hash_key);
	return (size_t)h & t->mask;
}

static enum sp_reason known(enum sp_reason r)
{
	return (unsigned)r <= SP_REASON__LAST ? r : SP_REASON_INTERNAL;
}

// ---- tiers ----

static struct tier *tier_get(struct wrk_sessions *t, const char *name)
{
	struct tier *tier;
	TAILQ_FOREACH(tier, &t->tiers, link)
	if (!strcmp(tier->tally.tier, name))
		return tier;
	tier = calloc(1, sizeof(*tier));
	if (!tier)
		return NULL;
	strcpy(tier->tally.tier, name);
	TAILQ_INSERT_TAIL(&t->tiers, tier, link);
	return tier;
}

// ---- a session's way ----

static void changed(struct wrk_session *s)
{
	if (s->t->directory)
		wrk_directory_touch(s->t->directory, &s->dir);
}

static void set_place(struct wrk_session *s, enum place place)
{
	struct wrk_sessions *t = s->t;
	uint32_t *count[PLACES] = {&t->n.attached, &t->n.detached, &t->n.ending};
	TAILQ_REMOVE(&t->places[s->place], s, list);
	(*count[s->place])--;
	s->place = place;
	s->since_us = now_us(t);
	s->streams_gone = false;
	changed(s);
	TAILQ_INSERT_TAIL(&t->places[place], s, list);
	(*count[place])++;
}

// At a stop the record stays: the session is not over, whoever has it next adopts it.
void session_free(struct wrk_session *s, enum sp_reason reason)
{
	struct wrk_sessions *t = s->t;
	if (t->directory)
		wrk_directory_remove(t->directory, &s->dir,
				     reason == SP_REASON_SHUTDOWN ? NULL : s->rec->id);
	struct sp_session_stats stats;
	uint32_t *count[PLACES] = {&t->n.attached, &t->n.detached, &t->n.ending};
	TAILQ_REMOVE(&t->places[s->place], s, list);
	(*count[s->place])--;
	LIST_REMOVE(s, chain);
	s->user->sessions--;
	if (s->user->account)
		wrk_counters_session(t->opt.counters, s->user->account, -1);
	s->tier->sessions--;
	t->count--;
	t->n.ended[known(reason)]++;
	sp_session_stats(s->engine, &stats);
	session_add_stats(&t->gone, &stats);
	sp_session_clock_remove(t->opt.clock, s->engine);
	sp_session_free(s->engine, reason);
	wrk_exit_session_done(&s->exit);
	wrk_users_put(t->users, s->user);
	free(s);
}

void session_end(struct wrk_session *s, enum sp_reason reason)
{
	if (s->place == ENDING)
		return;
	if (s->place == DETACHED) {
		session_free(s, reason);
		return;
	}
	s->end_reason = reason;
	set_place(s, ENDING);
	sp_session_end(s->engine, reason);
}

struct wrk_session *session_find(const struct wrk_sessions *t, const uint8_t *id)
{
	struct wrk_session *s;
	LIST_FOREACH(s, &t->by_id[hash(t, id)], chain)
	if (!memcmp(s->rec->id, id, SP_SESSION_ID_BYTES))
		return s;
	return NULL;
}

// ---- passes ----

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static const struct sp_fleet_tier *fleet_tier(const struct wrk_sessions *t,
					      const char *name)
{
	return t->opt.fleet ? sp_fleet_find_tier(t->opt.fleet, name) : NULL;
}

static bool is_over_quota(const struct wrk_sessions *t, const char *user)
{
	const struct wrk_account *a =
		t->opt.counters ? wrk_counters_find(t->opt.counters, user) : NULL;
	return a && wrk_account_is_over(a);
}

enum sp_reason session_judge_pass(const struct wrk_sessions *t,
				  const struct sp_pass *pass)
{
	const struct sp_fleet_worker *f = t->opt.fleet;
	if (!f || (f->expires_s && f->expires_s <= unix_s(t)))
		return SP_REASON_NO_CONFIG;
	enum sp_reason r = sp_pass_judge_time(pass, unix_s(t), SP_PASS_SKEW_S);
	if (r)
		return r;
	const struct sp_fleet_holder who = {pass->serial, pass->device, pass->user,
					    pass->not_before_s};
	if (sp_fleet_is_revoked(f, &who))
		return SP_REASON_REVOKED;
	if (!sp_fleet_find_tier(f, pass->tier) || !sp_fleet_admits(f, pass))
		return SP_REASON_GROUP;
	if (is_over_quota(t, pass->user))
		return SP_REASON_QUOTA;
	return SP_REASON_NONE;
}

// How many sessions its user may have, wherever they are.
static uint32_t fleet_share(const struct wrk_sessions *t, const struct sp_pass *pass)
{
	const struct sp_fleet_tier *tier = fleet_tier(t, pass->tier);
	return tier && tier->max_sessions ? least(pass->max_sessions, tier->max_sessions)
					  : pass->max_sessions;
}

// The limits of the session: the least of the pass, its tier and the local config.
static void apply_limits(struct wrk_session *s)
{
	const struct wrk_sessions_limits *l = &s->t->opt.limits;
	const struct sp_session_pass *p = sp_session_rec_pass(s->rec);
	const struct sp_fleet_tier *tier = fleet_tier(s->t, p->tier);
	struct sp_session_limits e;
	sp_session_limits_default(&e);
	e.max_streams = least(l->streams_per_session, p->max_streams);
	e.max_flows = least(l->flows_per_session, p->max_flows);
	if (tier && tier->max_streams)
		e.max_streams = least(e.max_streams, tier->max_streams);
	if (tier && tier->max_flows)
		e.max_flows = least(e.max_flows, tier->max_flows);
	e.stream_window_bytes = l->stream_window_bytes;
	e.session_window_bytes = l->session_window_bytes;
	e.datagram_budget_bytes = l->datagram_budget_bytes;
	e.flow_idle_ms = l->flow_idle_ms;
	sp_session_set_limits(s->engine, &e);
	uint64_t rate = p->rate_bps;
	if (tier && tier->rate_bps && (!rate || tier->rate_bps < rate))
		rate = tier->rate_bps;
	wrk_exit_session_set_rate(&s->exit, rate);
}

// Counts the session to the tier of its pass. 0; -ENOMEM: nothing changed.
static int join_tier(struct wrk_session *s, const char *name)
{
	struct tier *tier = tier_get(s->t, name);
	if (!tier)
		return -ENOMEM;
	if (s->tier)
		s->tier->sessions--;
	s->tier = tier;
	tier->sessions++;
	s->exit.tally = &tier->tally;
	return 0;
}

// Whoever takes over in the middle finds the old pass. 0; -ENOMEM: nothing changed.
static int apply_pass(struct wrk_session *s, const struct sp_pass *pass)
{
	struct sp_session_rec *r = s->rec;
	uint8_t at = !r->pass_at;
	struct sp_session_pass *p = &r->pass[at];
	if (join_tier(s, pass->tier))
		return -ENOMEM;
	*p = (struct sp_session_pass){
		.max_sessions = fleet_share(s->t, pass),
		.max_streams = pass->max_streams,
		.max_flows = pass->max_flows,
		.rate_bps = pass->rate_bps,
		.not_before_s = pass->not_before_s,
		.expires_s = pass->expires_s,
	};
	memcpy(p->serial, pass->serial, sizeof(p->serial));
	strcpy(p->tier, pass->tier);
	sp_arena_fence();
	r->pass_at = at;
	apply_limits(s);
	return 0;
}

// ---- the engine's operations ----

static void on_stream_open(void *ctx, struct sp_stream *st,
			   const struct sp_target *target)
{
	struct wrk_session *s = ctx;
	struct wrk_sessions *t = s->t;
	if (!wrk_user_may_open(s->user, t->opt.limits.opens_per_second, now_us(t))) {
		t->n.streams_rate_limited++;
		sp_stream_reset(st, SP_REASON_RATE_LIMIT);
		return;
	}
	wrk_exit_stream_open(&s->exit, st, target);
}

static size_t on_stream_sink(void *ctx, struct sp_stream *st, const uint8_t *buf,
			     size_t len)
{
	(void)ctx;
	return wrk_exit_stream_sink(st, buf, len);
}

static void on_stream_sink_fin(void *ctx, struct sp_stream *st)
{
	(void)ctx;
	wrk_exit_stream_sink_fin(st);
}

static void on_stream_source_ready(void *ctx, struct sp_stream *st)
{
	(void)ctx;
	wrk_exit_stream_source_ready(st);
}

static void on_stream_closed(void *ctx, struct sp_stream *st, enum sp_reason reason)
{
	(void)ctx;
	wrk_exit_stream_closed(st, reason);
}

static void on_flow_open(void *ctx, struct sp_flow *fl, const struct sp_target *target)
{
	struct wrk_session *s = ctx;
	wrk_exit_flow_open(&s->exit, fl, target);
	changed(s);
}

static void on_flow_data(void *ctx, struct sp_flow *fl, const uint8_t *buf, size_t len)
{
	(void)ctx;
	wrk_exit_flow_data(fl, buf, len);
}

static void on_flow_closed(void *ctx, struct sp_flow *fl, enum sp_reason reason)
{
	wrk_exit_flow_closed(fl, reason);
	changed(ctx);
}

// A renewed pass must be of the same device and user; else the old one goes on to hold.
static void on_pass(void *ctx, const uint8_t *blob, size_t len)
{
	struct wrk_session *s = ctx;
	struct sp_pass pass;
	bool good = sp_pass_open(&s->t->opt.keys->trusted, blob, len, &pass) == 0 &&
		    memcmp(pass.device, s->rec->device_key, sizeof(pass.device)) == 0 &&
		    strcmp(pass.user, s->rec->user) == 0 &&
		    session_judge_pass(s->t, &pass) == SP_REASON_NONE &&
		    apply_pass(s, &pass) == 0;
	if (good)
		s->t->n.passes_renewed++;
	if (good && s->t->directory)
		wrk_directory_add(s->t->directory, &s->dir);
	if (!good)
		s->t->n.passes_rejected++;
}

static void on_reattached(void *ctx, unsigned slot)
{
	struct wrk_session *s = ctx;
	(void)slot;
	s->t->n.resumed++;
	if (s->place == DETACHED)
		set_place(s, ATTACHED);
}

static const struct sp_session_ops engine_ops = {
	.stream_open = on_stream_open,
	.stream_sink = on_stream_sink,
	.stream_sink_fin = on_stream_sink_fin,
	.stream_source_ready = on_stream_source_ready,
	.stream_closed = on_stream_closed,
	.flow_open = on_flow_open,
	.flow_data = on_flow_data,
	.flow_closed = on_flow_closed,
	.reattached = on_reattached,
	.pass = on_pass,
};

// ---- admission ----

static enum sp_reason refuse(struct wrk_sessions *t, enum sp_reason reason)
{
	if (reason)
		t->n.refused[known(reason)]++;
	return reason;
}

static enum sp_reason judge_live(const struct wrk_session *s)
{
	if (s->place == ENDING)
		return s->end_reason;
	if (s->end_reason)
		return s->end_reason;
	if (sp_session_rec_pass(s->rec)->expires_s + SP_PASS_SKEW_S <= unix_s(s->t))
		return SP_REASON_PASS_EXPIRED;
	return SP_REASON_NONE;
}

enum sp_reason wrk_sessions_admit(void *ctx, struct sp_link *l,
				  const struct sp_hs_accept *who)
{
	struct wrk_sessions *t = ctx;
	(void)l;
	if (who->kind == SP_HS_FIRST_CONTACT)
		return refuse(t, session_judge_pass(t, &who->pass));
	struct wrk_session *s = session_find(t, who->session);
	if (!s && wrk_quarantine_holds(t->opt.quarantine, who->session))
		return refuse(t, SP_REASON_QUARANTINED);
	return refuse(t, s ? judge_live(s) : SP_REASON_TICKET);
}

// Makes room by giving up the stalest detached session, of `u` or of anybody. False:
// none.
static bool make_room(struct wrk_sessions *t, const struct wrk_user *u)
{
	struct wrk_session *s;
	TAILQ_FOREACH(s, &t->places[DETACHED], list)
	{
		if (u && s->user != u)
			continue;
		t->n.evicted++;
		session_free(s, SP_REASON_SESSION_LIMIT);
		return true;
	}
	return false;
}

enum sp_reason session_check_room(struct wrk_sessions *t, const struct sp_pass *pass,
				  bool moved)
{
	struct wrk_user *u = wrk_users_find(t->users, pass->user);
	uint32_t share = least(fleet_share(t, pass), t->opt.limits.sessions_per_user);
	if (t->draining)
		return SP_REASON_DRAINING;
	if (u && u->sessions >= share * (moved ? 2 : 1) && !make_room(t, u))
		return SP_REASON_SESSION_LIMIT;
	if (t->count >= t->opt.limits.sessions && !make_room(t, NULL))
		return SP_REASON_SESSION_LIMIT;
	return SP_REASON_NONE;
}

// A place to count the user's bytes. False: no memory for one.
static bool open_account(struct wrk_sessions *t, struct wrk_session *s)
{
	struct wrk_account *a = s->user->account;
	if (!t->opt.counters)
		return true;
	if (!a)
		a = wrk_counters_account(t->opt.counters, s->user->name);
	if (!a)
		return false;
	s->user->account = a;
	wrk_exit_session_set_usage(&s->exit, &a->usage);
	wrk_counters_session(t->opt.counters, a, 1);
	return true;
}

// The object of a session without an engine yet. NULL: no memory.
static struct wrk_session *session_object(struct wrk_sessions *t, const char *user,
					  struct sp_session_options *o)
{
	struct wrk_session *s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->t = t;
	s->user = wrk_users_get(t->users, user, now_us(t));
	if (!s->user) {
		free(s);
		return NULL;
	}
	*o = (struct sp_session_options){
		.role = SP_ROLE_WORKER,
		.arena = t->opt.arena,
		.ops = &engine_ops,
		.ctx = s,
		.clock_us = sp_loop_clock_us(t->opt.loop),
	};
	sp_session_limits_default(&o->limits);
	return s;
}

// The engine has its record: into the table with it. False: no memory.
static bool session_enter(struct wrk_session *s)
{
	struct wrk_sessions *t = s->t;
	if (sp_session_clock_add(t->opt.clock, s->engine))
		return false;
	if (!open_account(t, s)) {
		sp_session_clock_remove(t->opt.clock, s->engine);
		return false;
	}
	s->place = DETACHED;
	s->since_us = now_us(t);
	TAILQ_INSERT_TAIL(&t->places[DETACHED], s, list);
	t->n.detached++;
	LIST_INSERT_HEAD(&t->by_id[hash(t, s->rec->id)], s, chain);
	s->user->sessions++;
	t->count++;
	return true;
}

// What could not be entered.
static void session_drop(struct wrk_session *s)
{
	if (s->tier)
		s->tier->sessions--;
	if (s->engine)
		sp_session_free(s->engine, SP_REASON_NO_MEMORY);
	wrk_users_put(s->t->users, s->user);
	free(s);
}

enum sp_reason session_make(struct wrk_sessions *t, const struct sp_pass *pass,
			    const uint8_t *id,
			    const Sallyport__Fleet__SessionRecord *record,
			    struct wrk_session **ret)
{
	struct sp_session_options o;
	struct wrk_session *s = session_object(t, pass->user, &o);
	if (!s)
		return SP_REASON_NO_MEMORY;
	memcpy(o.id, id, sizeof(o.id));
	o.adopted = record != NULL;
	if (sp_session_new(&o, now_us(t), &s->engine)) {
		session_drop(s);
		return SP_REASON_NO_MEMORY;
	}
	s->rec = sp_arena_session(t->opt.arena, sp_session_record(s->engine));
	memcpy(s->rec->device_key, pass->device, sizeof(s->rec->device_key));
	strcpy(s->rec->user, pass->user);
	if (record)
		s->rec->epoch = record->epoch;
	wrk_exit_session_init(&s->exit, t->opt.exit, NULL);
	if (apply_pass(s, pass) || !session_enter(s)) {
		session_drop(s);
		return SP_REASON_NO_MEMORY;
	}
	sp_arena_live(&s->rec->state);
	t->n.made++;
	if (t->directory)
		wrk_directory_add(t->directory, &s->dir);
	*ret = s;
	return SP_REASON_NONE;
}

struct wrk_session *session_of_record(struct wrk_sessions *t, uint32_t record)
{
	struct sp_session_options o;
	const struct sp_session_rec *rec = sp_arena_session(t->opt.arena, record);
	struct wrk_session *s = session_object(t, rec->user, &o);
	if (!s)
		return NULL;
	if (sp_session_adopt(&o, record, now_us(t), &s->engine)) {
		session_drop(s);
		return NULL;
	}
	s->rec = sp_arena_session(t->opt.arena, record);
	wrk_exit_session_init(&s->exit, t->opt.exit, NULL);
	if (join_tier(s, sp_session_rec_pass(rec)->tier) || !session_enter(s)) {
		session_drop(s);
		return NULL;
	}
	apply_limits(s);
	return s;
}

static enum sp_reason attach_known(struct wrk_session *s, const struct sp_hs_accept *who)
{
	enum sp_reason r = s ? judge_live(s) : SP_REASON_HOME_LOST;
	if (r)
		return r;
	if (sodium_memcmp(who->device, s->rec->device_key, sizeof(who->device)))
		return SP_REASON_NOT_YOURS;
	if (who->kind != SP_HS_FIRST_CONTACT)
		return SP_REASON_NONE;
	// What it uses is counted for the user it was made for.
	if (strcmp(who->pass.user, s->rec->user))
		return SP_REASON_NOT_YOURS;
	return apply_pass(s, &who->pass) ? SP_REASON_NO_MEMORY : SP_REASON_NONE;
}

enum sp_reason wrk_sessions_attach(void *ctx, struct sp_link *l,
				   const struct sp_hs_accept *who,
				   const struct sp_attach *at,
				   struct sp_session **ret_session, bool *ret_fresh)
{
	struct wrk_sessions *t = ctx;
	struct wrk_session *s = session_find(t, at->session);
	enum sp_reason r;
	bool fresh = !s && who->kind == SP_HS_FIRST_CONTACT;
	if (who->kind == SP_HS_RESUME &&
	    memcmp(who->session, at->session, sizeof(at->session)))
		return refuse(t, SP_REASON_NOT_YOURS);
	if (!s && wrk_quarantine_holds(t->opt.quarantine, at->session))
		return refuse(t, SP_REASON_QUARANTINED);
	if (fresh) {
		r = session_arrive(t, l, who, at, &s);
		if (!r && !s)
			return r; // the directory is asked
	} else {
		r = attach_known(s, who);
	}
	if (r)
		return refuse(t, r);
	if (!fresh && !(at->flags & SP_ATTACH_SPARE)) // a spare counts once it takes over
		t->n.resumed++;
	set_place(s, ATTACHED);
	if (t->draining)
		sp_session_goaway(s->engine, SP_REASON_DRAINING, t->drain_ms);
	*ret_session = s->engine;
	*ret_fresh = fresh;
	return SP_REASON_NONE;
}

int wrk_sessions_make_ticket(void *ctx, struct sp_session *session, const uint8_t *psk,
			     uint8_t *buf, size_t cap, uint32_t *ret_lifetime_s)
{
	struct wrk_sessions *t = ctx;
	const struct sp_hs_worker_keys *k = t->opt.keys;
	const struct sp_session_rec *rec =
		sp_arena_session(t->opt.arena, sp_session_record(session));
	struct sp_ticket_body body = {
		.pass_expires_s = sp_session_rec_pass(rec)->expires_s,
		.issued_s = unix_s(t),
	};
	if (cap < SP_TICKET_BYTES)
		return SP_E_LIMIT;
	memcpy(body.session, rec->id, sizeof(body.session));
	memcpy(body.psk, psk, sizeof(body.psk));
	memcpy(body.device, rec->device_key, sizeof(body.device));
	sp_ticket_seal(k->route_key, k->boot_key, k->home_id, &body, buf);
	sodium_memzero(&body, sizeof(body));
	*ret_lifetime_s = k->ticket_lifetime_s;
	return SP_TICKET_BYTES;
}

// ---- time ----

void wrk_sessions_down(void *ctx, struct sp_link *l, enum sp_reason reason)
{
	struct wrk_sessions *t = ctx;
	struct sp_session *engine = sp_link_session(l);
	(void)reason;
	if (t->directory)
		wrk_directory_forget(t->directory, l);
	if (!engine)
		return;
	struct wrk_session *s = session_find(t, sp_session_id(engine));
	if (s && s->place == ATTACHED && sp_session_active_slot(engine) < 0)
		set_place(s, DETACHED);
}

static void sweep_ending(struct wrk_sessions *t)
{
	struct wrk_session *next, *s = TAILQ_FIRST(&t->places[ENDING]);
	for (; s; s = next) {
		next = TAILQ_NEXT(s, list);
		if (now_us(t) - s->since_us >= END_FLUSH_US ||
		    sp_session_active_slot(s->engine) < 0)
			session_free(s, s->end_reason);
	}
}

// Once a second: passes that ran out, attaches that came to nothing.
static void check_all(struct wrk_sessions *t)
{
	uint64_t now_s = unix_s(t);
	for (int p = ATTACHED; p <= DETACHED; p++) {
		struct wrk_session *next, *s = TAILQ_FIRST(&t->places[p]);
		for (; s; s = next) {
			next = TAILQ_NEXT(s, list);
			if (sp_session_rec_pass(s->rec)->expires_s + SP_PASS_SKEW_S <=
			    now_s)
				session_end(s, SP_REASON_PASS_EXPIRED);
			else if (p == ATTACHED && sp_session_active_slot(s->engine) < 0)
				set_place(s, DETACHED);
		}
	}
}

// How much is left was said by a controller; that it is used up is seen here, also
// without one: at each sweep, with many sessions less often, but once a second.
static void end_over_quota(struct wrk_sessions *t)
{
	uint32_t every = 1 + t->count / QUOTA_EACH;
	if (++t->sweeps < least(every, CHECK_US / (SWEEP_MS * 1000)))
		return;
	t->sweeps = 0;
	for (int p = ATTACHED; p <= DETACHED && t->opt.counters; p++) {
		struct wrk_session *next, *s = TAILQ_FIRST(&t->places[p]);
		for (; s; s = next) {
			next = TAILQ_NEXT(s, list);
			if (wrk_account_is_over(s->user->account))
				session_end(s, SP_REASON_QUOTA);
		}
	}
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
	struct wrk_sessions *t = arg;
	(void)fd;
	(void)what;
	sweep_ending(t);
	sessions_sweep_detached(t);
	end_over_quota(t);
	if (now_us(t) - t->checked_us >= CHECK_US) {
		t->checked_us = now_us(t);
		check_all(t);
	}
}

// ---- the table ----

int wrk_sessions_new(const struct wrk_sessions_options *opt, struct wrk_sessions **ret)
{
	struct timeval every = {.tv_usec = SWEEP_MS * 1000};
	size_t size = 64;
	struct wrk_sessions *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	while (size < opt->limits.sessions)
		size *= 2;
	t->opt = *opt;
	t->pressure_log = (struct sp_ratelimit){.per_second = 1, .burst = 5};
	t->mask = size - 1;
	for (int p = 0; p < PLACES; p++)
		TAILQ_INIT(&t->places[p]);
	TAILQ_INIT(&t->tiers);
	crypto_shorthash_keygen(t->hash_key);
	t->by_id = calloc(size, sizeof(*t->by_id));
	t->sweep = event_new(sp_loop_base(opt->loop), -1, EV_PERSIST, on_sweep, t);
	if (!t->by_id || wrk_users_new(size, &t->users) || !t->sweep ||
	    event_add(t->sweep, &every)) {
		wrk_sessions_free(t);
		return -ENOMEM;
	}
	*ret = t;
	return 0;
}

void wrk_sessions_free(struct wrk_sessions *t)
{
	if (!t)
		return;
	for (int p = 0; p < PLACES; p++)
		while (!TAILQ_EMPTY(&t->places[p]))
			session_free(TAILQ_FIRST(&t->places[p]), SP_REASON_SHUTDOWN);
	struct tier *tier;
	while ((tier = TAILQ_FIRST(&t->tiers))) {
		TAILQ_REMOVE(&t->tiers, tier, link);
		free(tier);
	}
	if (t->sweep)
		event_free(t->sweep);
	free(t->by_id);
	wrk_users_free(t->users);
	free(t);
}

static bool is_revoked(const struct wrk_session *s)
{
	if (!s->t->opt.fleet)
		return false;
	const struct sp_session_pass *p = sp_session_rec_pass(s->rec);
	const struct sp_fleet_holder who = {p->serial, s->rec->device_key, s->rec->user,
					    p->not_before_s};
	return sp_fleet_is_revoked(s->t->opt.fleet, &who);
}

void wrk_sessions_reload(struct wrk_sessions *t, const struct wrk_sessions_limits *limits,
			 const struct sp_fleet_worker *fleet)
{
	t->opt.limits = *limits;
	t->opt.fleet = fleet;
	for (int p = ATTACHED; p <= DETACHED; p++) {
		struct wrk_session *next, *s = TAILQ_FIRST(&t->places[p]);
		for (; s; s = next) {
			next = TAILQ_NEXT(s, list);
			if (is_revoked(s))
				session_end(s, SP_REASON_REVOKED);
			else
				apply_limits(s);
		}
	}
}

void wrk_sessions_drain(struct wrk_sessions *t, uint64_t deadline_ms)
{
	struct wrk_session *s;
	t->draining = true;
	t->drain_ms = deadline_ms;
	TAILQ_FOREACH(s, &t->places[ATTACHED], list)
	sp_session_goaway(s->engine, SP_REASON_DRAINING, deadline_ms);
}

void wrk_sessions_undrain(struct wrk_sessions *t)
{
	struct wrk_session *s;
	t->draining = false;
	for (int p = ATTACHED; p <= DETACHED; p++)
		TAILQ_FOREACH(s, &t->places[p], list)
	sp_session_stay(s->engine);
}
