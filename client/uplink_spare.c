// A second carrier to the home, authenticated and attached in reserve: when the one in
// use ends or falls silent, ATTACH is said again on the spare, which takes over in one
// round trip; a new carrier needs two, and on tls three. The same is done with any
// carrier that lives when a newer one was attached and died, as the loser of a race may
// have been.
//
// A spare costs a dial, the memory of one carrier at both ends and a keepalive each 25 s.
// It is kept while streams or flows live, and dialled anew when it dies.
#include "client/uplink_internal.h"
#include "lib/log.h"

#define FIRST_MS       500   // streams that are over sooner need none
#define BACKOFF_MAX_MS 60000 // between dials that fail or spares that die
#define IDLE_MS        10000 // nothing lives: the spare goes

static struct attempt *spare_of(const struct stay *y)
{
	struct attempt *a;
	TAILQ_FOREACH(a, &y->attempts, entry)
	if (a->spare && !a->ending)
		return a;
	return NULL;
}

bool spare_is_ready(const struct stay *y)
{
	const struct attempt *a = spare_of(y);
	return a && a->up;
}

// ---- taking over ----

// The best carrier that lives, the home's own and idle ones first.
static struct attempt *best(const struct stay *y, const struct attempt *but)
{
	struct attempt *a, *found = NULL;
	int rank = -1;
	TAILQ_FOREACH(a, &y->attempts, entry)
	{
		int r = 2 * !a->via + a->spare;
		if (a == but || !a->up || a->ending || a->exit != y->exit || r <= rank)
			continue;
		found = a;
		rank = r;
	}
	return found;
}

static bool reattach(struct stay *y, struct attempt *a)
{
	if (sp_session_reattach(y->session, a->slot, sp_loop_now_us(y->u->opt.loop)))
		return false;
	sp_session_clock_touch(y->u->opt.clock, y->session);
	y->u->resumes.takeovers++;
	a->spare = false;
	a->again = true;
	sp_info("uplink", "another carrier takes over", "exit=%s slot=%u via=%s",
		y->exit->is.conf->name, a->slot, a->via ? a->via->is.conf->name : "");
	return true;
}

bool spare_take_over(struct stay *y)
{
	struct attempt *a;
	while ((a = best(y, NULL))) {
		if (reattach(y, a))
			return true;
		attempt_close(a, SP_REASON_SUPERSEDED);
	}
	return false;
}

void spare_act(struct stay *y)
{
	const struct attempt *in_use = stay_link_in_use(y);
	struct attempt *a = y->session ? best(y, in_use) : NULL;
	if (y->spare.instead && in_use && a && a->spare && reattach(y, a))
		y->spare.fails = 0;
	y->spare.instead = false;
}

// ---- keeping one ----

static bool wanted(const struct stay *y)
{
	const struct attempt *in_use = stay_link_in_use(y);
	const struct cli_uplink *u = y->u;
	struct sp_session_stats st;
	if (u->opt.spare == CLI_SPARE_OFF || !in_use || in_use->via || in_use->again ||
	    !stay_is_main(y) || !cli_chain_is_healthy(&u->chain, y->exit->index))
		return false;
	if (u->opt.spare == CLI_SPARE_AUTO &&
	    y->exit->is.conf->carriers[in_use->carrier].kind != SP_CARRIER_TLS)
		return false;
	sp_session_stats(y->session, &st);
	// Where carriers freeze a spare would be one that is half used up.
	return (st.streams || st.flows) &&
	       !cli_freeze_budget(&y->exit->freeze, uplink_now_ms(u));
}

void spare_failed(struct stay *y)
{
	struct spare *p = &y->spare;
	uint64_t wait = UINT64_C(1000) << (p->fails < 6 ? p->fails : 6);
	p->fails++;
	p->dial_at_ms =
		uplink_now_ms(y->u) + (wait < BACKOFF_MAX_MS ? wait : BACKOFF_MAX_MS);
}

uint64_t spare_decide(struct stay *y, uint64_t now_ms)
{
	struct spare *p = &y->spare;
	struct attempt *a = spare_of(y);
	if (!wanted(y)) {
		p->wanted_ms = 0;
		if (!a)
			return CLI_CHAIN_NEVER;
		if (!p->unwanted_ms)
			p->unwanted_ms = now_ms;
		if (now_ms - p->unwanted_ms < IDLE_MS)
			return p->unwanted_ms + IDLE_MS;
		attempt_close(a, SP_REASON_IDLE);
		return CLI_CHAIN_NEVER;
	}
	p->unwanted_ms = 0;
	if (!p->wanted_ms)
		p->wanted_ms = now_ms;
	if (a || y->n_tickets < 2) // the last one is for when there is need
		return CLI_CHAIN_NEVER;
	uint64_t at = p->wanted_ms + FIRST_MS;
	at = at > p->dial_at_ms ? at : p->dial_at_ms;
	if (now_ms < at)
		return at;
	y->u->resumes.spare_dials++;
	p->dial_at_ms = now_ms + FIRST_MS;
	stay_dial_spare(y);
	return CLI_CHAIN_NEVER;
}
