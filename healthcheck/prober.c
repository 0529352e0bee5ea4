#include "healthcheck/prober.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/log.h"
#include "lib/text.h"

#define POSTPONE_MS 20
#define BODY_MAX    65536 // of an external target; more is let go
#define STATUS_OK   204

struct place { // a target and its probes
	struct hck_prober *prober;
	unsigned index;
	struct hck_target *target;
	struct sp_tls *tls;
	struct sp_probe_seat *seat;
	struct hck_schedule schedule;
	struct sp_timer timer;
	uint64_t began_us;
	// under way
	struct sp_probe *probe;
	struct sp_fetch *fetch;
	unsigned external, tries;
	char nonce[SP_PROOF_NONCE_LEN + 1];
	struct hck_result now;
	// over
	bool has_last;
	struct hck_result last;
	uint64_t probes, failures;
};

struct hck_prober {
	struct hck_prober_options opt;
	struct hck_prober_plan plan;
	char *ca_file;
	struct sp_probe_env *env;
	struct hck_targets targets;
	struct place **place;
	size_t n;
	struct sp_probe_who who;
	bool has_who;
	struct sp_signed_keys keys;
	unsigned running;
	uint64_t postponed;
};

static uint64_t now_us(const struct hck_prober *p)
{
	return sp_loop_now_us(p->opt.loop);
}

// ---- through the stream ----

static enum sp_reason reason_of(int err)
{
	switch (err) {
	case -ETIMEDOUT:
		return SP_REASON_TIMEOUT;
	case SP_E_AUTH:
		return SP_REASON_TLS;
	case SP_E_CLOSED:
		return SP_REASON_CLOSED;
	case -ENOMEM:
		return SP_REASON_NO_MEMORY;
	default:
		return SP_REASON_PROTOCOL;
	}
}

static bool egress_is_expected(const struct hck_target *t, const char *peer)
{
	struct sp_target seen;
	if (t->n_egress == 0)
		return true;
	if (sp_target_set_host(&seen, peer, strlen(peer), 0))
		return false;
	for (unsigned i = 0; i < t->n_egress; i++)
		if (sp_target_equal(&seen, &t->egress[i]))
			return true;
	return false;
}

static void open_external(struct place *x)
{
	const struct hck_probe_plan *plan = &x->prober->targets.plan;
	struct sp_target t;
	x->external = (x->external + 1) % plan->n_external;
	x->tries++;
	if (hck_url_target(plan->external[x->external], &t) == 0)
		sp_probe_open(x->probe, &t);
}

static void on_http(void *ctx, const struct sp_fetch_result *res)
{
	struct place *x = ctx;
	char text[128], proof[SP_PROOF_TEXT_MAX + 1];
	x->fetch = NULL;
	if (!x->probe)
		return;
	if (res->err) {
		sp_probe_fall(x->probe, reason_of(res->err), res->detail);
		return;
	}
	if (res->status != STATUS_OK) {
		snprintf(text, sizeof(text), "%u instead of 204", res->status);
		sp_probe_fall(x->probe, SP_REASON_REFUSED, text);
		return;
	}
	if (!sp_fetch_header(res, SP_PROOF_HEADER, proof, sizeof(proof)) ||
	    !sp_fetch_header(res, SP_PROOF_PEER, x->now.peer, sizeof(x->now.peer)) ||
	    sp_proof_check(&x->prober->keys, x->nonce, x->now.peer, proof)) {
		sp_probe_fall(x->probe, SP_REASON_PROTOCOL,
			      "a 204 that is not the controller's");
		return;
	}
	sp_probe_climb(x->probe);
	if (!egress_is_expected(x->target, x->now.peer)) {
		snprintf(text, sizeof(text), "it came from %s", x->now.peer);
		sp_probe_fall(x->probe, SP_REASON_POLICY, text);
		return;
	}
	sp_probe_climb(x->probe);
	if (x->prober->targets.plan.n_external)
		open_external(x);
}

static void on_external(void *ctx, const struct sp_fetch_result *res)
{
	struct place *x = ctx;
	x->fetch = NULL;
	if (!x->probe)
		return;
	// Any answer will do: who gave it was proved by TLS. Its length is its own
	// affair.
	if (!res->err || (res->err == SP_E_LIMIT && res->status))
		sp_probe_climb(x->probe);
	else if (x->tries < 2 && x->prober->targets.plan.n_external > 1)
		open_external(x);
	else
		sp_probe_fall(x->probe, reason_of(res->err), res->detail);
}

static void on_stream(void *ctx, struct sp_probe *probe, const char *name)
{
	struct place *x = ctx;
	const struct hck_prober *p = x->prober;
	const struct hck_probe_plan *plan = &p->targets.plan;
	char url[HCK_URL_MAX + sizeof(x->nonce) + 1];
	struct sp_fetch_options o = {.by_way_of = name,
				     .ca_file = p->ca_file,
				     .timeout_ms = p->plan.deadline_ms + 1000,
				     .max_bytes = BODY_MAX,
				     .done = on_http,
				     .ctx = x,
				     .url = url};
	if (sp_probe_rung(probe) == SP_RUNG_HTTP && !*plan->url) {
		sp_probe_climb(probe);
		sp_probe_climb(probe);
	}
	if (sp_probe_rung(probe) == SP_RUNG_HTTP) {
		snprintf(url, sizeof(url), "%s/%s", plan->url, x->nonce);
	} else {
		o.url = plan->external[x->external];
		o.done = on_external;
	}
	sp_fetch_cancel(x->fetch);
	x->fetch = NULL;
	if (sp_fetch_start(p->opt.fetch, &o, &x->fetch))
		sp_probe_fall(probe, SP_REASON_NO_MEMORY, "");
}

// ---- one probe ----

static void set_next(struct place *x)
{
	struct hck_prober *p = x->prober;
	uint32_t ms = hck_schedule_delay_ms(&x->schedule, &p->plan.schedule,
					    randombytes_random());
	uint64_t at = x->began_us + (uint64_t)ms * 1000;
	sp_timer_set(&x->timer, p->has_who ? at : SP_LOOP_NEVER);
}

static void on_done(void *ctx, const struct sp_probe_result *res)
{
	struct place *x = ctx;
	struct hck_prober *p = x->prober;
	struct hck_result *r = &x->now;
	x->probe = NULL;
	sp_fetch_cancel(x->fetch);
	x->fetch = NULL;
	p->running--;
	r->ok = res->reason == SP_REASON_NONE;
	r->reached = res->reached;
	r->reason = res->reason;
	r->boot_id = res->boot_id;
	memcpy(r->detail, res->detail, sizeof(r->detail));
	memcpy(r->us, res->us, sizeof(r->us));
	r->ended_us = now_us(p);
	r->took_us = (uint32_t)(r->ended_us - x->began_us);
	r->unix_ms = sp_loop_unix_ms(p->opt.loop);
	x->probes++;
	x->failures += !r->ok;
	x->last = *r;
	x->has_last = true;
	hck_schedule_result(&x->schedule, &p->plan.schedule, r->ok);
	set_next(x);
	p->opt.result(p->opt.ctx, x->index, &x->last);
}

// Where the stream of this probe goes, and how high its ladder is. False: no stream.
static bool choose_target(struct place *x, struct sp_target *ret, enum sp_rung *ret_top)
{
	const struct hck_probe_plan *plan = &x->prober->targets.plan;
	x->tries = 0;
	x->external = plan->n_external ? randombytes_uniform(plan->n_external) : 0;
	*ret_top = plan->n_external ? SP_RUNGS : SP_RUNG_EXTERNAL;
	if (*plan->url)
		return hck_url_target(plan->url, ret) == 0;
	if (!plan->n_external)
		return false;
	x->tries = 1;
	return hck_url_target(plan->external[x->external], ret) == 0;
}

static void begin(void *ctx)
{
	struct place *x = ctx;
	struct hck_prober *p = x->prober;
	struct sp_target t;
	uint8_t nonce[SP_PROOF_NONCE_BYTES];
	if (x->probe || !p->has_who)
		return;
	if (p->running >= p->plan.concurrency) {
		p->postponed++;
		sp_timer_set(&x->timer,
			     now_us(p) + 1000 * (POSTPONE_MS +
						 randombytes_uniform(POSTPONE_MS)));
		return;
	}
	x->now = (struct hck_result){0};
	randombytes_buf(nonce, sizeof(nonce));
	sp_hex_encode(nonce, sizeof(nonce), x->nonce, sizeof(x->nonce));
	struct sp_probe_options o = {.carrier = &x->target->carrier,
				     .tls = x->tls,
				     .worker_public = x->target->public_key,
				     .who = &p->who,
				     .deadline_ms = p->plan.deadline_ms,
				     .stream = on_stream,
				     .done = on_done,
				     .ctx = x};
	if (choose_target(x, &t, &o.top))
		o.target = &t;
	x->began_us = now_us(p);
	int err = sp_probe_start(x->seat, &o, &x->probe);
	if (err) {
		sp_warn("prober", "a probe could not begin", "node=%s error=%s",
			x->target->node, sp_strerror(err));
		set_next(x);
		return;
	}
	p->running++;
}

// ---- places ----

static void place_free(struct place *x)
{
	if (!x)
		return;
	if (x->probe)
		x->prober->running--;
	x->probe = NULL;
	sp_fetch_cancel(x->fetch);
	sp_probe_seat_free(x->seat);
	sp_tls_free(x->tls);
	sp_timer_done(&x->timer);
	free(x);
}

static void begin_anew(struct place *x)
{
	struct hck_prober *p = x->prober;
	uint32_t ms = hck_schedule_first_ms(&p->plan.schedule, randombytes_random());
	x->schedule = (struct hck_schedule){0};
	if (!x->probe)
		sp_timer_set(&x->timer, p->has_who ? now_us(p) + (uint64_t)ms * 1000
						   : SP_LOOP_NEVER);
}

static int place_new(struct hck_prober *p, struct hck_target *t, struct place **ret)
{
	struct sp_tls_client_options tls = {.ca_file = t->carrier.ca_file,
					    .pin = t->carrier.pinned ? t->carrier.pin
								     : NULL};
	char why[256] = "";
	struct place *x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->prober = p;
	x->target = t;
	sp_timer_init(&x->timer, p->opt.loop, begin, x);
	int err = t->carrier.kind == SP_CARRIER_TLS
			  ? sp_tls_client_new(&tls, &x->tls, why, sizeof(why))
			  : 0;
	if (err)
		sp_error("prober", "this carrier cannot be probed",
			 "node=%s carrier=%s why=%s", t->node, t->carrier_text, why);
	else
		err = sp_probe_seat_new(p->env, &x->seat);
	if (err) {
		place_free(x);
		return err;
	}
	*ret = x;
	return 0;
}

static struct place *take_same(struct place **old, size_t n, const struct hck_target *t)
{
	for (size_t i = 0; i < n; i++)
		if (old[i] && hck_target_same(old[i]->target, t)) {
			struct place *x = old[i];
			old[i] = NULL;
			return x;
		}
	return NULL;
}

static void drop_places(struct place **v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		place_free(v[i]);
	free(v);
}

int hck_prober_set_targets(struct hck_prober *p, struct hck_targets *t)
{
	struct hck_targets old_targets = p->targets;
	struct place **old = p->place;
	size_t old_n = p->n;
	p->targets = *t;
	*t = (struct hck_targets){0};
	p->n = 0;
	p->place = calloc(p->targets.n + 1, sizeof(p->place[0]));
	for (size_t i = 0; p->place && i < p->targets.n && i < HCK_SEATS_MAX; i++) {
		struct hck_target *target = &p->targets.v[i];
		struct place *x = take_same(old, old_n, target);
		bool is_new = !x;
		if (!x && place_new(p, target, &x))
			continue;
		x->target = target;
		x->index = (unsigned)p->n;
		p->place[p->n++] = x;
		if (is_new)
			begin_anew(x);
	}
	drop_places(old, old_n);
	hck_targets_done(&old_targets);
	return p->place ? 0 : -ENOMEM;
}

void hck_prober_refresh(struct hck_prober *p)
{
	for (size_t i = 0; i < p->n; i++)
		begin_anew(p->place[i]);
}

void hck_prober_set_keys(struct hck_prober *p, const struct sp_signed_keys *keys)
{
	p->keys = *keys;
}

void hck_prober_set_who(struct hck_prober *p, const struct sp_probe_who *who)
{
	bool had = p->has_who;
	p->has_who = who != NULL;
	if (who)
		p->who = *who;
	else
		sodium_memzero(&p->who, sizeof(p->who));
	if (who && !had)
		hck_prober_refresh(p);
}

int hck_prober_set_plan(struct hck_prober *p, const struct hck_prober_plan *plan)
{
	char *ca = plan->ca_file ? strdup(plan->ca_file) : NULL;
	bool faster = plan->schedule.interval_ms < p->plan.schedule.interval_ms;
	if (plan->ca_file && !ca)
		return -ENOMEM;
	free(p->ca_file);
	p->ca_file = ca;
	p->plan = *plan;
	p->plan.ca_file = NULL;
	if (faster)
		hck_prober_refresh(p);
	return 0;
}

int hck_prober_new(const struct hck_prober_options *opt, struct hck_prober **ret)
{
	struct sp_probe_env_options env = {.loop = opt->loop, .max_seats = HCK_SEATS_MAX};
	struct hck_prober *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->opt = *opt;
	if (sp_probe_env_new(&env, &p->env)) {
		free(p);
		return -ENOMEM;
	}
	*ret = p;
	return 0;
}

void hck_prober_free(struct hck_prober *p)
{
	if (!p)
		return;
	drop_places(p->place, p->n);
	sp_probe_env_free(p->env);
	hck_targets_done(&p->targets);
	sodium_memzero(&p->who, sizeof(p->who));
	free(p->ca_file);
	free(p);
}

bool hck_prober_get(const struct hck_prober *p, unsigned target, struct hck_probed *ret)
{
	if (target >= p->n)
		return false;
	const struct place *x = p->place[target];
	*ret = (struct hck_probed){.target = x->target,
				   .last = x->has_last ? &x->last : NULL,
				   .probes = x->probes,
				   .failures = x->failures,
				   .failures_in_a_row = x->schedule.failures};
	return true;
}

unsigned hck_prober_running(const struct hck_prober *p)
{
	return p->running;
}

uint64_t hck_prober_postponed(const struct hck_prober *p)
{
	return p->postponed;
}
