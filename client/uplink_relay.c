// A home that cannot be reached, because its address is blocked or its path swallows what
// is sent, is reached through another exit of the chain, the *entry*: a resume with the
// home's ticket, said to the entry, which relays to the home over a trunk and sees
// nothing but its route hint. The session stays where it is, with its streams and the
// sockets to their destinations.
//
// The home itself is dialled beside, by the chain's rules, all the time: the session goes
// back as soon as such a dial is attached. For the chain, a home behind a relay is away:
// new streams go to the next exit, unless the config wants them on the relay.
//
// A ticket is given back if its flight was not sent, and if an entry says that it cannot
// relay. The last one is left to relayed dials, since only a ticket says whose home it
// is: the home itself is dialled with the pass then. Out of tickets the session waits for
// its home, or is adopted elsewhere.
#include <stdlib.h>
#include <string.h>

#include "client/uplink_internal.h"
#include "lib/log.h"

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define HOLD_MS        1500 // so long nothing else is done about a session
#define HOLD_FAILS     2    // unless so many relayed dials failed
#define CHECK_MS       50
#define ASK_FIRST_MS   400
#define IDLE_MS        5000 // a relayed carrier with nothing to carry goes

// ---- who is on a relay ----

bool relay_is_up(const struct stay *y)
{
	const struct attempt *a = stay_link_in_use(y);
	return a && a->via;
}

static struct attempt *find(const struct stay *y, bool relayed, bool up)
{
	struct attempt *a;
	TAILQ_FOREACH(a, &y->attempts, entry)
	if (a->exit == y->exit && (a->via != NULL) == relayed && a->up == up &&
	    !a->ending)
		return a;
	return NULL;
}

static bool has_work(const struct stay *y)
{
	struct sp_session_stats st = {0};
	if (y->session)
		sp_session_stats(y->session, &st);
	return st.streams || st.flows;
}

// What the chain knows of the home; an exit that left the config is one that is not
// dialled any more, and may only be blocked.
static struct cli_chain_exit home(const struct stay *y)
{
	unsigned e = y->exit->index;
	return e < CLI_CHAIN_MAX ? y->u->chain.exit[e]
				 : (struct cli_chain_exit){.tried = true};
}

// A session that could go on through an entry if its home were away.
static bool can_relay(const struct stay *y)
{
	return y->u->opt.relay.use && y == y->exit->main && y->session && !y->over &&
	       y->attached_once && !y->moved_to && y->n_tickets > 0 && !home(y).refused &&
	       has_work(y);
}

bool relay_holds(const struct stay *y, uint64_t now_ms)
{
	const struct relay *r = &y->relay;
	if (relay_is_up(y))
		return true;
	if (find(y, true, false) && (!r->away_ms || now_ms - r->away_ms < HOLD_MS))
		return true;
	return can_relay(y) && r->away_ms && r->fails < HOLD_FAILS &&
	       now_ms - r->away_ms < HOLD_MS;
}

bool relay_wants_ticket(const struct stay *y)
{
	return y->u->opt.relay.use && y->relay.away_ms && y->u->chain.n > 1 &&
	       has_work(y);
}

// ---- when ----

// Nothing comes from the home on any carrier; since when is kept.
static bool is_away(struct stay *y, uint64_t now_ms)
{
	struct relay *r = &y->relay;
	bool away = (relay_is_up(y)        ? r->silent
		     : stay_link_in_use(y) ? home(y).stalled
					   : true);
	if (!away)
		r->away_ms = 0;
	else if (!r->away_ms)
		r->away_ms = now_ms;
	return away;
}

// A silent carrier and a dial that failed say enough. Otherwise the home has a little
// time to be dialled: an RST is not a block.
static uint64_t due_ms(const struct stay *y)
{
	const struct relay *r = &y->relay;
	uint64_t at = r->away_ms;
	if (!stay_link_in_use(y) && !home(y).tried && !r->since_ms && !r->fails)
		at += y->u->opt.relay.after_ms;
	return at > r->dial_at_ms ? at : r->dial_at_ms;
}

// An adoption was just asked for: its answer comes first. That the home is not known to
// be dead yet may take a second to be said.
static bool is_asking(const struct stay *y, uint64_t now_ms)
{
	const struct attempt *a;
	if (now_ms - y->asked_ms >= ASK_FIRST_MS)
		return false;
	TAILQ_FOREACH(a, &y->attempts, entry)
	if (a->exit != y->exit && !a->ending)
		return true;
	return false;
}

// ---- through whom ----

static bool is_named(const struct cli_uplink *u, const struct exit *x, size_t *ret_place)
{
	const struct sp_conf_strings *names = u->opt.relay.entries;
	for (size_t i = 0; names && i < names->n; i++)
		if (!strcmp(names->v[i], x->is.conf->name)) {
			*ret_place = i;
			return true;
		}
	*ret_place = 0;
	return !names || !names->n;
}

static bool same_host(const struct exit *a, const struct exit *b)
{
	struct sp_target s = a->is.conf->carriers[0].address,
			 t = b->is.conf->carriers[0].address;
	s.port = t.port = 0;
	return sp_target_equal(&s, &t);
}

// The less, the better: as the config names them; those that work, at another address,
// the exit in use first, then in the order of the chain.
static uint64_t rank(const struct stay *y, const struct exit *x, size_t place)
{
	const struct cli_uplink *u = y->u;
	uint64_t r = place;
	r = r << 1 | !cli_chain_is_healthy(&u->chain, x->index);
	r = r << 1 | same_host(x, y->exit);
	r = r << 1 | (x->index != u->chain.use);
	return r << 8 | x->index;
}

// The next one after so many have failed, in turn; NULL: there is none.
static struct exit *pick_entry(const struct stay *y)
{
	const struct cli_uplink *u = y->u;
	struct exit *list[CLI_CHAIN_MAX];
	uint64_t key[CLI_CHAIN_MAX];
	unsigned n = 0;
	for (unsigned e = 0; e < u->chain.n; e++) {
		struct exit *x = u->exit[e];
		size_t place;
		if (x == y->exit || u->chain.exit[e].refused || !is_named(u, x, &place))
			continue;
		uint64_t k = rank(y, x, place);
		unsigned i = n++;
		for (; i > 0 && key[i - 1] > k; i--) {
			key[i] = key[i - 1];
			list[i] = list[i - 1];
		}
		key[i] = k;
		list[i] = x;
	}
	return n ? list[y->relay.fails % n] : NULL;
}

// ---- what becomes of it ----

void relay_up(struct attempt *a)
{
	struct stay *y = a->stay;
	struct relay *r = &y->relay;
	uint64_t now_ms = uplink_now_ms(y->u);
	r->fails = 0;
	r->silent = false;
	r->away_ms = 0;
	r->dial_at_ms = now_ms;
	if (!r->since_ms)
		r->since_ms = now_ms;
	sp_info("uplink", "home reached through another exit", "exit=%s via=%s",
		y->exit->is.conf->name, a->via->is.conf->name);
}

void relay_over(struct stay *y)
{
	struct relay *r = &y->relay;
	if (r->since_ms) {
		uint64_t ms = uplink_now_ms(y->u) - r->since_ms;
		y->u->resumes.relay_ms += ms;
		sp_info("uplink", "off the relay",
			"exit=%s direct=%d relayed_ms=%" PRIu64, y->exit->is.conf->name,
			stay_link_in_use(y) != NULL, ms);
	}
	*r = (struct relay){0};
}

void relay_failed(struct attempt *a, enum sp_reason reason)
{
	struct stay *y = a->stay;
	struct relay *r = &y->relay;
	unsigned shift = r->fails < 8 ? r->fails : 8;
	uint64_t wait = (uint64_t)BACKOFF_MIN_MS << shift;
	r->dial_at_ms =
		uplink_now_ms(y->u) + (wait < BACKOFF_MAX_MS ? wait : BACKOFF_MAX_MS);
	y->u->resumes.relay_failures++;
	SP_LOG(r->fails++ ? SP_LOG_DEBUG : SP_LOG_INFO, "uplink", "relayed dial failed",
	       "exit=%s via=%s reason=%s", y->exit->is.conf->name, a->via->is.conf->name,
	       sp_reason_word(reason));
}

static void close_via(struct stay *y, const struct exit *via, enum sp_reason reason)
{
	struct attempt *a, *next;
	for (a = TAILQ_FIRST(&y->attempts); a; a = next) {
		next = TAILQ_NEXT(a, entry);
		if (a->via == via)
			attempt_close(a, reason);
	}
}

void relay_exit_gone(struct cli_uplink *u, const struct exit *x, enum sp_reason reason)
{
	struct exit *other;
	for (unsigned e = 0; e < CLI_CHAIN_MAX; e++)
		if (u->exit[e] && u->exit[e] != x)
			close_via(u->exit[e]->main, x, reason);
	TAILQ_FOREACH(other, &u->leaving, entry)
	if (other != x)
		close_via(other->main, x, reason);
}

// ---- what to do ----

static void close_idle(struct stay *y, uint64_t now_ms)
{
	struct relay *r = &y->relay;
	struct attempt *a = relay_is_up(y) ? stay_link_in_use(y) : NULL;
	if (!a || has_work(y)) {
		r->idle_ms = 0;
		return;
	}
	if (!r->idle_ms)
		r->idle_ms = now_ms;
	if (now_ms - r->idle_ms >= IDLE_MS) {
		r->idle_ms = 0;
		sp_link_close(a->link, SP_REASON_IDLE);
	}
}

static void decide(struct stay *y, uint64_t now_ms)
{
	struct exit *via;
	close_idle(y, now_ms);
	if (!is_away(y, now_ms) || !can_relay(y) || find(y, true, false) ||
	    is_asking(y, now_ms) || now_ms < due_ms(y))
		return;
	via = pick_entry(y);
	if (!via) {
		y->relay.dial_at_ms = now_ms + BACKOFF_MAX_MS;
		return;
	}
	y->u->resumes.relay_dials++;
	stay_dial_relayed(y, via);
}

void relay_decide(struct cli_uplink *u, uint64_t now_ms)
{
	struct exit *x;
	for (unsigned e = 0; e < u->chain.n; e++)
		decide(u->exit[e]->main, now_ms);
	TAILQ_FOREACH(x, &u->leaving, entry)
	decide(x->main, now_ms);
}

static uint64_t deadline(const struct stay *y, uint64_t now_ms)
{
	const struct relay *r = &y->relay;
	uint64_t due = CLI_CHAIN_NEVER;
	if (r->away_ms && can_relay(y) && !find(y, true, false))
		due = due_ms(y);
	else if (r->idle_ms)
		due = r->idle_ms + IDLE_MS;
	else if (r->since_ms)
		due = now_ms + IDLE_MS;
	return due <= now_ms ? now_ms + CHECK_MS : due;
}

uint64_t relay_deadline(const struct cli_uplink *u, uint64_t now_ms)
{
	uint64_t at = CLI_CHAIN_NEVER, due;
	const struct exit *x;
	for (unsigned e = 0; e < u->chain.n; e++) {
		due = deadline(u->exit[e]->main, now_ms);
		at = due < at ? due : at;
	}
	TAILQ_FOREACH(x, &u->leaving, entry)
	{
		due = deadline(x->main, now_ms);
		at = due < at ? due : at;
	}
	return at;
}
