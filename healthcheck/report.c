#include "healthcheck/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPORT_MS 50
#define BEAT_MS   1000
#define BATCH     256 // results in one message

struct entry {
	char node[SP_WORKER_NAME_MAX + 1];
	char carrier[HCK_CARRIER_MAX];
	struct hck_result result;
	bool dirty, was_ok, told;
};

struct hck_report {
	struct hck_report_options opt;
	struct entry **v;
	size_t n, cap, dirty;
	bool up;
	struct sp_timer timer;
	uint64_t beat_us, sent;
};

static const char no_carrier[] = "";

// ---- one message ----

struct batch {
	Sallyport__Fleet__Probe probe[BATCH];
	Sallyport__Fleet__Probe *list[BATCH];
	struct entry *entry[BATCH];
	uint32_t us[BATCH][SP_RUNGS];
	size_t n;
};

static void fill(struct hck_report *r, struct batch *b, struct entry *e)
{
	size_t i = b->n++;
	Sallyport__Fleet__Probe *p = &b->probe[i];
	const struct hck_result *x = &e->result;
	uint64_t now = sp_loop_now_us(r->opt.loop);
	sallyport__fleet__probe__init(p);
	b->list[i] = p;
	b->entry[i] = e;
	memcpy(b->us[i], x->us, sizeof(b->us[i]));
	p->node = e->node;
	p->carrier = *e->carrier ? e->carrier : (char *)(uintptr_t)no_carrier;
	p->ok = x->ok;
	p->rung = (char *)(uintptr_t)sp_rung_word(x->reached);
	p->reason = (char *)(uintptr_t)sp_reason_word(x->reason);
	p->detail = (char *)(uintptr_t)x->detail;
	p->n_rung_us = x->reached < SP_RUNGS ? (size_t)x->reached : SP_RUNGS;
	p->rung_us = b->us[i];
	p->ended_ms = x->unix_ms;
	p->age_ms = (uint32_t)((now - x->ended_us) / 1000);
	p->took_ms = x->took_us / 1000;
	p->boot = x->boot_id;
	p->egress = (char *)(uintptr_t)x->peer;
}

static int send_batch(struct hck_report *r, struct batch *b)
{
	Sallyport__Fleet__ToController m = SALLYPORT__FLEET__TO_CONTROLLER__INIT;
	Sallyport__Fleet__ProbeReport body = SALLYPORT__FLEET__PROBE_REPORT__INIT;
	Sallyport__Fleet__Position at;
	const struct sp_position *p = r->opt.position(r->opt.ctx);
	sallyport__fleet__position__init(&at);
	at.epoch = p->epoch;
	at.sequence = p->sequence;
	at.hash.len = sizeof(p->hash);
	at.hash.data = (uint8_t *)(uintptr_t)p->hash;
	body.boot = r->opt.boot;
	body.applied = &at;
	body.controls_ok = r->opt.controls_ok(r->opt.ctx);
	body.n_probes = b->n;
	body.probes = b->list;
	m.body_case = SALLYPORT__FLEET__TO_CONTROLLER__BODY_PROBE;
	m.probe = &body;
	int err = r->opt.send(r->opt.ctx, &m);
	for (size_t i = 0; !err && i < b->n; i++) {
		b->entry[i]->dirty = false;
		b->entry[i]->told = true;
		r->dirty--;
		r->sent++;
	}
	return err;
}

// ---- when ----

static void set_timer(struct hck_report *r, uint32_t ms)
{
	uint64_t at = sp_loop_now_us(r->opt.loop) + 1000ull * ms;
	if (!r->up)
		return;
	if (at < r->timer.at_us)
		sp_timer_set(&r->timer, at);
}

static void flush(void *ctx)
{
	struct hck_report *r = ctx;
	struct batch *b = r->up ? malloc(sizeof(*b)) : NULL;
	uint64_t now = sp_loop_now_us(r->opt.loop);
	int err = 0;
	if (!b)
		return;
	b->n = 0;
	for (size_t i = 0; i < r->n && !err; i++) {
		if (r->v[i]->dirty)
			fill(r, b, r->v[i]);
		if (b->n == BATCH) {
			err = send_batch(r, b);
			b->n = 0;
		}
	}
	if (!err)
		err = send_batch(r, b); // also with nothing in it: a sign of life
	free(b);
	if (!err)
		r->beat_us = now;
	set_timer(r, BEAT_MS);
}

void hck_report_now(struct hck_report *r)
{
	set_timer(r, 0);
}

static struct entry *find(struct hck_report *r, const struct hck_target *t)
{
	for (size_t i = 0; i < r->n; i++)
		if (strcmp(r->v[i]->node, t->node) == 0 &&
		    strcmp(r->v[i]->carrier, t->carrier_text) == 0)
			return r->v[i];
	return NULL;
}

static struct entry *add(struct hck_report *r, const struct hck_target *t)
{
	struct entry *e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	if (r->n == r->cap) {
		size_t more = r->cap ? 2 * r->cap : 16;
		struct entry **grown = realloc(r->v, more * sizeof(r->v[0]));
		if (!grown) {
			free(e);
			return NULL;
		}
		r->v = grown;
		r->cap = more;
	}
	snprintf(e->node, sizeof(e->node), "%s", t->node);
	snprintf(e->carrier, sizeof(e->carrier), "%s", t->carrier_text);
	r->v[r->n++] = e;
	return e;
}

int hck_report_add(struct hck_report *r, const struct hck_target *target,
		   const struct hck_result *result)
{
	struct entry *e = find(r, target);
	if (!e && !(e = add(r, target)))
		return -ENOMEM;
	bool urgent = !result->ok || !e->told || !e->was_ok;
	r->dirty += !e->dirty;
	e->dirty = true;
	e->was_ok = result->ok;
	e->result = *result;
	set_timer(r, urgent ? 0 : REPORT_MS);
	return 0;
}

void hck_report_keep(struct hck_report *r, const struct hck_targets *targets)
{
	size_t kept = 0;
	for (size_t i = 0; i < r->n; i++) {
		bool wanted = false;
		for (size_t k = 0; k < targets->n && !wanted; k++)
			wanted =
				strcmp(r->v[i]->node, targets->v[k].node) == 0 &&
				strcmp(r->v[i]->carrier, targets->v[k].carrier_text) == 0;
		if (wanted) {
			r->v[kept++] = r->v[i];
		} else {
			r->dirty -= r->v[i]->dirty;
			free(r->v[i]);
		}
	}
	r->n = kept;
}

void hck_report_up(struct hck_report *r, bool up)
{
	r->up = up;
	sp_timer_set(&r->timer, SP_LOOP_NEVER);
	if (!up)
		return;
	for (size_t i = 0; i < r->n; i++) { // another controller, perhaps
		r->dirty += !r->v[i]->dirty;
		r->v[i]->dirty = true;
	}
	set_timer(r, 0);
}

int hck_report_new(const struct hck_report_options *opt, struct hck_report **ret)
{
	struct hck_report *r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->opt = *opt;
	sp_timer_init(&r->timer, opt->loop, flush, r);
	*ret = r;
	return 0;
}

void hck_report_free(struct hck_report *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->n; i++)
		free(r->v[i]);
	free(r->v);
	sp_timer_done(&r->timer);
	free(r);
}

uint64_t hck_report_sent(const struct hck_report *r)
{
	return r->sent;
}

size_t hck_report_waiting(const struct hck_report *r)
{
	return r->dirty;
}
