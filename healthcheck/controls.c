#include "healthcheck/controls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/log.h"

#define BODY_MAX    65536
#define LEAST_MS    200 // between two looks
#define AGAIN_PARTS 3   // of the interval, while nothing answers

struct look {
	struct hck_controls *controls;
	struct sp_fetch *fetch;
};

struct hck_controls {
	struct hck_controls_options opt;
	char url[HCK_URLS_MAX][HCK_URL_MAX];
	char ca_file[4096];
	unsigned n, waiting, answered;
	uint32_t interval_ms, deadline_ms;
	struct look look[HCK_URLS_MAX];
	struct sp_timer timer;
	uint64_t began_us, failures;
	bool ok;
};

static void set_ok(struct hck_controls *c, bool ok)
{
	bool was = c->ok;
	c->ok = ok;
	c->failures += !ok;
	if (was == ok)
		return;
	if (ok)
		sp_info("controls", "this place is no longer cut off", "");
	else
		sp_warn("controls",
			"this place is cut off: no control answers; its probes do not "
			"count",
			"controls=%u", c->n);
	c->opt.changed(c->opt.ctx, ok);
}

static void set_next(struct hck_controls *c)
{
	uint32_t ms = c->ok ? c->interval_ms : c->interval_ms / AGAIN_PARTS;
	ms = ms < LEAST_MS ? LEAST_MS : ms;
	sp_timer_set(&c->timer, sp_loop_now_us(c->opt.loop) +
					1000ull * (ms / 2 + randombytes_uniform(ms)));
}

// The first answer is enough to know that we are not cut off; that we are, all must show.
static void on_answer(void *ctx, const struct sp_fetch_result *res)
{
	struct look *l = ctx;
	struct hck_controls *c = l->controls;
	l->fetch = NULL;
	c->waiting--;
	if (!res->err || res->status) {
		c->answered++;
		set_ok(c, true);
	} else {
		sp_debug("controls", "a control does not answer", "url=%s why=%s",
			 c->url[l - c->look], res->detail);
	}
	if (c->waiting)
		return;
	if (!c->answered)
		set_ok(c, false);
	set_next(c);
}

static void begin(void *ctx)
{
	struct hck_controls *c = ctx;
	if (c->waiting || !c->n)
		return;
	c->began_us = sp_loop_now_us(c->opt.loop);
	c->answered = 0;
	c->waiting = c->n;
	for (unsigned i = 0; i < c->n; i++) {
		struct sp_fetch_options o = {.url = c->url[i],
					     .ca_file = *c->ca_file ? c->ca_file : NULL,
					     .timeout_ms = c->deadline_ms,
					     .max_bytes = BODY_MAX,
					     .done = on_answer,
					     .ctx = &c->look[i]};
		if (sp_fetch_start(c->opt.fetch, &o, &c->look[i].fetch))
			c->waiting--;
	}
	if (!c->waiting)
		set_next(c);
}

void hck_controls_look(struct hck_controls *c)
{
	uint64_t now = sp_loop_now_us(c->opt.loop);
	if (c->n && !c->waiting && now >= c->began_us + 1000ull * LEAST_MS)
		sp_timer_set(&c->timer, now);
}

static void cancel_all(struct hck_controls *c)
{
	for (unsigned i = 0; i < HCK_URLS_MAX; i++) {
		sp_fetch_cancel(c->look[i].fetch);
		c->look[i].fetch = NULL;
	}
	c->waiting = 0;
}

void hck_controls_set(struct hck_controls *c, const char urls[][HCK_URL_MAX], unsigned n,
		      const char *ca_file, uint32_t interval_ms, uint32_t deadline_ms)
{
	bool same = n == c->n && strcmp(c->ca_file, ca_file ? ca_file : "") == 0;
	for (unsigned i = 0; same && i < n; i++)
		same = strcmp(urls[i], c->url[i]) == 0;
	c->interval_ms = interval_ms;
	c->deadline_ms = deadline_ms;
	if (same)
		return;
	cancel_all(c);
	c->n = n < HCK_URLS_MAX ? n : HCK_URLS_MAX;
	for (unsigned i = 0; i < c->n; i++)
		snprintf(c->url[i], HCK_URL_MAX, "%s", urls[i]);
	snprintf(c->ca_file, sizeof(c->ca_file), "%s", ca_file ? ca_file : "");
	if (c->n)
		sp_timer_set(&c->timer, sp_loop_now_us(c->opt.loop));
	else
		set_ok(c, true);
}

int hck_controls_new(const struct hck_controls_options *opt, struct hck_controls **ret)
{
	struct hck_controls *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->opt = *opt;
	c->ok = true;
	for (unsigned i = 0; i < HCK_URLS_MAX; i++)
		c->look[i].controls = c;
	sp_timer_init(&c->timer, opt->loop, begin, c);
	*ret = c;
	return 0;
}

void hck_controls_free(struct hck_controls *c)
{
	if (!c)
		return;
	cancel_all(c);
	sp_timer_done(&c->timer);
	free(c);
}

bool hck_controls_ok(const struct hck_controls *c)
{
	return c->ok;
}

unsigned hck_controls_n(const struct hck_controls *c)
{
	return c->n;
}

uint64_t hck_controls_failures(const struct hck_controls *c)
{
	return c->failures;
}
