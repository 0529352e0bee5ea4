#include "client/chain.h"

#include <string.h>

#define YOUNG_MAX 3 // young deaths in a row that count as a failure

void cli_chain_options_default(struct cli_chain_options *ret)
{
	*ret = (struct cli_chain_options){
		.failover_ms = 350,
		.hold_down_ms = 30000,
		.stagger_ms = 50,
		.backoff_min_ms = 50,
		.backoff_max_ms = 5000,
		.stable_ms = 250,
	};
}

static void exit_init(const struct cli_chain *c, struct cli_chain_exit *x, unsigned e,
		      uint64_t now_ms)
{
	*x = (struct cli_chain_exit){
		.dial_at_ms = now_ms + (uint64_t)e * c->opt.stagger_ms,
		.unhealthy_since_ms = now_ms,
		.unwanted_since_ms = now_ms,
	};
}

int cli_chain_init(struct cli_chain *c, unsigned n, const struct cli_chain_options *opt,
		   uint64_t now_ms)
{
	if (n == 0 || n > CLI_CHAIN_MAX)
		return SP_E_LIMIT;
	memset(c, 0, sizeof(*c));
	c->opt = *opt;
	c->n = n;
	c->random = opt->seed;
	for (unsigned e = 0; e < n; e++)
		exit_init(c, &c->exit[e], e, now_ms);
	return 0;
}

void cli_chain_rebuild(struct cli_chain *c, unsigned n, const int *old_of,
		       uint64_t now_ms)
{
	struct cli_chain old = *c;
	c->n = n;
	c->use = 0;
	for (unsigned e = 0; e < n; e++) {
		if (old_of[e] < 0)
			exit_init(c, &c->exit[e], e, now_ms);
		else
			c->exit[e] = old.exit[old_of[e]];
		if (old_of[e] == (int)old.use)
			c->use = e;
	}
}

static bool healthy(const struct cli_chain_exit *x)
{
	return x->up && !x->stalled && !x->draining;
}

bool cli_chain_is_healthy(const struct cli_chain *c, unsigned e)
{
	return e < c->n && healthy(&c->exit[e]);
}

bool cli_chain_is_hopeless(const struct cli_chain *c)
{
	for (unsigned e = 0; e < c->n; e++)
		if (!c->exit[e].refused)
			return false;
	return true;
}

// splitmix64
static uint64_t next_random(struct cli_chain *c)
{
	uint64_t z = c->random += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

// The delay after the n-th failure in a row: doubling, three to five quarters of it.
static uint64_t backoff(struct cli_chain *c, uint32_t fails)
{
	const struct cli_chain_options *o = &c->opt;
	uint64_t base = o->backoff_max_ms;
	if (fails < 20 && (uint64_t)o->backoff_min_ms << (fails - 1) < base)
		base = (uint64_t)o->backoff_min_ms << (fails - 1);
	uint64_t ms = base * 3 / 4 + next_random(c) % (base / 2 + 1);
	if (ms < o->backoff_min_ms)
		return o->backoff_min_ms;
	return ms > o->backoff_max_ms ? o->backoff_max_ms : ms;
}

// ---- what happened ----

// After any change of what makes an exit healthy.
static void health_changed(struct cli_chain_exit *x, bool was, uint64_t now_ms)
{
	if (healthy(x) == was)
		return;
	if (was) {
		x->unhealthy_since_ms = now_ms;
	} else {
		x->healthy_since_ms = now_ms;
		x->tried = false;
	}
}

void cli_chain_up(struct cli_chain *c, unsigned e, uint64_t now_ms)
{
	struct cli_chain_exit *x = &c->exit[e];
	bool was = healthy(x);
	x->dialling = false;
	x->refused = false;
	x->up = true;
	x->stalled = false;
	x->draining = false; // an exit that still goes away says so again
	x->up_since_ms = now_ms;
	health_changed(x, was, now_ms);
}

static void failed(struct cli_chain *c, struct cli_chain_exit *x, uint64_t now_ms)
{
	x->fails++;
	x->tried = true;
	x->dial_at_ms = now_ms + backoff(c, x->fails);
}

void cli_chain_lost(struct cli_chain *c, unsigned e, bool useful, uint64_t now_ms)
{
	struct cli_chain_exit *x = &c->exit[e];
	bool was = healthy(x);
	if (!x->up)
		return;
	x->up = false;
	x->stalled = false;
	health_changed(x, was, now_ms);
	if (useful || now_ms - x->up_since_ms >= c->opt.stable_ms)
		x->young = 0;
	else
		x->young++;
	if (x->young < YOUNG_MAX) {
		x->fails = 0;
		x->dial_at_ms = now_ms;
	} else {
		failed(c, x, now_ms);
	}
}

void cli_chain_dial_failed(struct cli_chain *c, unsigned e, bool refused, bool again,
			   uint64_t now_ms)
{
	struct cli_chain_exit *x = &c->exit[e];
	if (!x->dialling)
		return;
	x->dialling = false;
	if (again) {
		x->dial_at_ms = now_ms;
		return;
	}
	failed(c, x, now_ms);
	x->refused = refused;
	if (refused)
		x->dial_at_ms = now_ms + backoff(c, UINT32_MAX);
}

void cli_chain_stalled(struct cli_chain *c, unsigned e, uint64_t now_ms)
{
	struct cli_chain_exit *x = &c->exit[e];
	bool was = healthy(x);
	if (!x->up || x->stalled)
		return;
	x->stalled = true;
	x->fails = 0;
	x->dial_at_ms = now_ms;
	health_changed(x, was, now_ms);
}

void cli_chain_recovered(struct cli_chain *c, unsigned e, uint64_t now_ms)
{
	struct cli_chain_exit *x = &c->exit[e];
	bool was = healthy(x);
	x->stalled = false;
	health_changed(x, was, now_ms);
}

void cli_chain_goaway(struct cli_chain *c, unsigned e, uint64_t now_ms)
{
	struct cli_chain_exit *x = &c->exit[e];
	bool was = healthy(x);
	x->draining = true;
	health_changed(x, was, now_ms);
}

void cli_chain_ended(struct cli_chain *c, unsigned e, uint64_t now_ms)
{
	struct cli_chain_exit *x = &c->exit[e];
	bool was = healthy(x);
	x->up = x->stalled = x->dialling = false;
	health_changed(x, was, now_ms);
	failed(c, x, now_ms);
}

void cli_chain_busy(struct cli_chain *c, unsigned e, bool busy)
{
	c->exit[e].busy = busy;
}

void cli_chain_network_changed(struct cli_chain *c, uint64_t now_ms)
{
	for (unsigned e = 0; e < c->n; e++) {
		c->exit[e].fails = 0;
		c->exit[e].dial_at_ms = now_ms;
	}
}

// ---- what to do ----

// An exit in use that will not be waited for any longer.
static bool given_up(const struct cli_chain *c, const struct cli_chain_exit *x,
		     uint64_t now_ms)
{
	return !healthy(x) && (x->tried || x->draining ||
			       now_ms - x->unhealthy_since_ms >= c->opt.failover_ms);
}

bool cli_chain_is_given_up(const struct cli_chain *c, unsigned e, uint64_t now_ms)
{
	return e < c->n && given_up(c, &c->exit[e], now_ms);
}

static void decide_use(struct cli_chain *c, uint64_t now_ms, struct cli_chain_todo *todo)
{
	const struct cli_chain_exit *in_use = &c->exit[c->use];
	bool leave = given_up(c, in_use, now_ms);
	for (unsigned e = 0; e < c->n; e++) {
		const struct cli_chain_exit *x = &c->exit[e];
		if (e == c->use || !healthy(x))
			continue;
		bool better = e < c->use && healthy(in_use) &&
			      now_ms - x->healthy_since_ms >= c->opt.hold_down_ms;
		if (!leave && !better)
			continue;
		todo->moved = true;
		todo->from = c->use;
		todo->from_healthy = healthy(in_use);
		c->use = e;
		return;
	}
}

static void set_wanted(struct cli_chain_exit *x, bool wanted, uint64_t now_ms)
{
	if (wanted && !x->wanted)
		x->wanted_since_ms = now_ms;
	if (!wanted && x->wanted)
		x->unwanted_since_ms = now_ms;
	x->wanted = wanted;
}

// Whether a standby makes the ones after it unnecessary: it works, or it has not had its
// time yet.
static bool standby_will_do(const struct cli_chain *c, const struct cli_chain_exit *x,
			    uint64_t now_ms)
{
	if (healthy(x))
		return true;
	return !x->tried && !x->draining &&
	       now_ms - x->wanted_since_ms < c->opt.failover_ms;
}

static void decide_wanted(struct cli_chain *c, uint64_t now_ms)
{
	bool standby = false;
	for (unsigned e = 0; e < c->n; e++) {
		struct cli_chain_exit *x = &c->exit[e];
		if (e <= c->use) {
			set_wanted(x, true, now_ms);
			continue;
		}
		set_wanted(x, !standby || x->busy, now_ms);
		if (!standby)
			standby = standby_will_do(c, x, now_ms);
	}
}

static bool needs_dial(const struct cli_chain_exit *x)
{
	return x->wanted && !x->dialling && (!x->up || x->stalled);
}

void cli_chain_decide(struct cli_chain *c, uint64_t now_ms, struct cli_chain_todo *ret)
{
	memset(ret, 0, sizeof(*ret));
	decide_use(c, now_ms, ret);
	decide_wanted(c, now_ms);
	for (unsigned e = 0; e < c->n; e++) {
		struct cli_chain_exit *x = &c->exit[e];
		if (needs_dial(x) && x->dial_at_ms <= now_ms) {
			x->dialling = true;
			ret->dial |= 1u << e;
		}
		if (!x->wanted && x->up &&
		    now_ms - x->unwanted_since_ms >= c->opt.hold_down_ms) {
			x->up = x->stalled = false;
			x->fails = 0;
			x->unhealthy_since_ms = now_ms;
			x->dial_at_ms = now_ms;
			ret->close |= 1u << e;
		}
	}
}

static void earlier(uint64_t *at, uint64_t candidate, uint64_t now_ms)
{
	if (candidate <= now_ms)
		candidate = now_ms;
	if (candidate < *at)
		*at = candidate;
}

uint64_t cli_chain_deadline(const struct cli_chain *c, uint64_t now_ms)
{
	const struct cli_chain_exit *in_use = &c->exit[c->use];
	uint64_t at = CLI_CHAIN_NEVER;
	bool other = false; // a healthy one besides
	for (unsigned e = 0; e < c->n; e++) {
		const struct cli_chain_exit *x = &c->exit[e];
		if (needs_dial(x))
			earlier(&at, x->dial_at_ms, now_ms);
		if (!x->wanted && x->up)
			earlier(&at, x->unwanted_since_ms + c->opt.hold_down_ms, now_ms);
		other |= e != c->use && healthy(x);
		if (e < c->use && healthy(x) && healthy(in_use))
			earlier(&at, x->healthy_since_ms + c->opt.hold_down_ms, now_ms);
		uint64_t patience = x->wanted_since_ms + c->opt.failover_ms;
		if (e > c->use && x->wanted && !healthy(x) && patience > now_ms)
			earlier(&at, patience, now_ms);
		patience = x->unhealthy_since_ms + c->opt.failover_ms;
		if (x->busy && !healthy(x) && patience > now_ms)
			earlier(&at, patience, now_ms);
	}
	if (!healthy(in_use) && other)
		earlier(&at, in_use->unhealthy_since_ms + c->opt.failover_ms, now_ms);
	return at;
}
