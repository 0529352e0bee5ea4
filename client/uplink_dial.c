// Dials of one exit: which carrier, which slot, with a ticket or a pass; and what becomes
// of links.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "client/uplink_internal.h"
#include "lib/log.h"

#define REDIAL_MS        5000
#define SUCCEED_MS       120 // between dials of successors: 500 a minute, as exits allow
#define SUCCEED_CHECK_MS 20
#define USEFUL_BYTES     16384 // stream bytes that make a carrier worth its dial

void attempt_free(struct attempt *a)
{
	sp_lookup_cancel(a->lookup);
	sodium_memzero(&a->ticket, sizeof(a->ticket));
	free(a);
}

void attempt_close(struct attempt *a, enum sp_reason reason)
{
	struct stay *y = a->stay;
	if (a->ending)
		return;
	a->ending = true;
	if (!a->up && attempt_is_main(a)) // no news later: the chain must not wait
		cli_chain_dial_failed(&y->u->chain, y->exit->index, false, true,
				      uplink_now_ms(y->u));
	if (a->link) {
		sp_link_close(a->link, reason);
		return;
	}
	TAILQ_REMOVE(&y->attempts, a, entry);
	attempt_free(a);
}

// ---- tickets: used once, the newest first ----

void stay_forget_tickets(struct stay *y)
{
	sodium_memzero(y->ticket, sizeof(y->ticket));
	y->n_tickets = 0;
}

// The newest last.
static void keep(struct stay *y, const struct kept_ticket *t)
{
	if (y->n_tickets == TICKETS_KEPT) {
		memmove(&y->ticket[0], &y->ticket[1], (TICKETS_KEPT - 1) * sizeof(*t));
		y->n_tickets--;
	}
	y->ticket[y->n_tickets++] = *t;
}

void stay_keep_ticket(struct stay *y, struct attempt *a, unsigned index,
		      uint32_t lifetime_s, const uint8_t *ticket, size_t len)
{
	struct kept_ticket t = {
		.len = (uint16_t)len,
		.boot_id = sp_link_boot_id(a->link),
		.expires_us =
			sp_loop_now_us(y->u->opt.loop) + lifetime_s * UINT64_C(1000000),
	};
	if (len == 0 || len > sizeof(t.bytes) ||
	    sp_link_ticket_psk(a->link, index, t.psk) != 0)
		return;
	memcpy(t.bytes, ticket, len);
	keep(y, &t);
	sodium_memzero(&t, sizeof(t));
}

// Nobody has seen it.
static void give_back_ticket(struct attempt *a)
{
	struct stay *y = a->stay;
	if (a->resume && y->session && a->ticket.boot_id == y->boot_id)
		keep(y, &a->ticket);
	sodium_memzero(&a->ticket, sizeof(a->ticket));
	a->resume = false;
}

static bool take_ticket(struct stay *y, struct kept_ticket *ret)
{
	uint64_t now = sp_loop_now_us(y->u->opt.loop);
	while (y->n_tickets) {
		struct kept_ticket *t = &y->ticket[--y->n_tickets];
		bool good = t->expires_us > now;
		if (good)
			*ret = *t;
		sodium_memzero(t, sizeof(*t));
		if (good)
			return true;
	}
	return false;
}

// ---- what becomes of a link ----

static bool is_refusal(enum sp_reason r)
{
	return (r >= SP_REASON_PASS_EXPIRED && r <= SP_REASON_GROUP &&
		r != SP_REASON_STALE_EPOCH && r != SP_REASON_SUPERSEDED &&
		r != SP_REASON_HOME_LOST && r != SP_REASON_NOT_YOURS) ||
	       r == SP_REASON_SESSION_LIMIT || r == SP_REASON_RATE_LIMIT;
}

static void note_down(struct exit *x, enum sp_reason reason)
{
	x->info.last_down = reason;
	x->info.last_down_ms = uplink_now_ms(x->u);
}

static void dial_failed(struct attempt *a, enum sp_reason reason)
{
	struct stay *y = a->stay;
	struct exit *x = a->exit;
	if (reason == SP_REASON_TICKET)
		stay_forget_tickets(y);
	if (a->via) {
		relay_failed(a, reason);
		return;
	}
	if (a->spare) {
		spare_failed(y);
		return;
	}
	bool again = (reason == SP_REASON_TICKET && a->resume) ||
		     reason == SP_REASON_STALE_EPOCH || reason == SP_REASON_NOT_YOURS ||
		     reason == SP_REASON_QUARANTINED;
	bool asked = x != y->exit;
	bool news = asked ? !y->answers : reason != x->info.last_down;
	if (!asked)
		note_down(x, reason);
	if (asked)
		y->answers++;
	if (!again && reason != SP_REASON_NOT_ADOPTED) {
		x->info.dial_failures++;
		x->carrier = (a->carrier + 1) % (unsigned)x->is.conf->n_carriers;
		x->address++;
	}
	SP_LOG(news ? SP_LOG_INFO : SP_LOG_DEBUG, "uplink",
	       asked ? "session not moved yet" : "dial failed",
	       "exit=%s carrier=%s reason=%s", x->is.conf->name,
	       sp_carrier_kind_word(x->is.conf->carriers[a->carrier].kind),
	       sp_reason_word(reason));
	// Another device has this id, or it is refused for a while: with another one.
	if ((reason == SP_REASON_NOT_YOURS || reason == SP_REASON_QUARANTINED) &&
	    y->session) {
		y->over = true;
		y->over_reason = reason;
	}
	if (attempt_is_main(a))
		cli_chain_dial_failed(&x->u->chain, x->index, is_refusal(reason), again,
				      uplink_now_ms(x->u));
}

static void lost(struct stay *y, enum sp_reason reason)
{
	note_down(y->exit, reason);
	y->detached_since_us = sp_loop_now_us(y->u->opt.loop);
	sp_info("uplink", "carrier lost", "exit=%s reason=%s", y->exit->is.conf->name,
		sp_reason_word(reason));
	if (stay_is_main(y))
		cli_chain_lost(&y->u->chain, y->exit->index,
			       stay_bytes(y) - y->up_bytes >= USEFUL_BYTES,
			       uplink_now_ms(y->u));
}

static bool another_is_up(const struct stay *y)
{
	const struct attempt *a;
	TAILQ_FOREACH(a, &y->attempts, entry)
	if (a->up && !a->ending)
		return true;
	return false;
}

// A relayed carrier is up: those that were go, dials of the home itself go on.
static void leave_direct(struct stay *y, const struct attempt *won)
{
	struct attempt *a, *next;
	for (a = TAILQ_FIRST(&y->attempts); a; a = next) {
		next = TAILQ_NEXT(a, entry);
		if (a != won && (a->up || a->via || a->exit != y->exit))
			attempt_close(a, SP_REASON_SUPERSEDED);
	}
	if (stay_is_main(y))
		cli_chain_lost(&y->u->chain, y->exit->index, true, uplink_now_ms(y->u));
}

static void on_up(void *ctx, struct sp_link *l)
{
	struct attempt *a = ctx;
	struct stay *y = a->stay;
	struct exit *x = attempt_at(a);
	(void)l;
	if (!y || a->ending)
		return;
	x->carrier = a->carrier; // what worked is tried first
	sp_info("uplink", "carrier up", "exit=%s carrier=%s slot=%u resumed=%s via=%s",
		a->exit->is.conf->name,
		sp_carrier_kind_word(x->is.conf->carriers[a->carrier].kind), a->slot,
		a->resume ? "ticket" : "pass", a->via ? a->via->is.conf->name : "");
	if (a->spare)
		return;
	if (a->via)
		leave_direct(y, a);
	else
		stay_close_links(y, a, NULL, SP_REASON_SUPERSEDED); // the first wins
}

// A carrier went, `was_up`: by itself, and it was one to carry streams.
static void go_on(struct stay *y, bool was_up, enum sp_reason reason)
{
	bool another = another_is_up(y);
	if (was_up)
		pause_begin(y, sp_loop_now_us(y->u->opt.loop));
	if (!y->session || sp_session_active_slot(y->session) >= 0)
		another = true;
	else if (another && spare_take_over(y))
		note_down(y->exit, reason);
	else
		was_up |= another; // those were of no use
	if (was_up && !another_is_up(y))
		lost(y, reason);
}

static void on_down(void *ctx, struct sp_link *l, enum sp_reason reason)
{
	struct attempt *a = ctx;
	struct stay *y = a->stay;
	if (!y) { // it is gone
		attempt_free(a);
		return;
	}
	if (sp_link_ticket_holds(l))
		give_back_ticket(a);
	TAILQ_REMOVE(&y->attempts, a, entry);
	if (!a->ending && !a->up)
		dial_failed(a, reason);
	else if (a->spare && a->up)
		spare_failed(y);
	bool was_up = a->up && !a->spare && !a->ending;
	attempt_free(a);
	go_on(y, was_up, reason);
	uplink_kick(y->u);
}

static const struct sp_link_client_ops link_ops = {.up = on_up, .down = on_down};

// ---- dialling ----

static enum sp_reason reason_of(int err)
{
	switch (err) {
	case -ECONNREFUSED:
		return SP_REASON_REFUSED;
	case -ENETUNREACH:
	case -EHOSTUNREACH:
	case -ENETDOWN:
	case -EHOSTDOWN:
	case -ENONET:
	case -EADDRNOTAVAIL: // no source address towards it
	case -EAFNOSUPPORT:
	case -EACCES: // a local firewall, or a route of kind prohibit
	case -EPERM:
	case -EINVAL: // a route of kind blackhole, or an address that takes no connection
		return SP_REASON_UNREACHABLE;
	case -ETIMEDOUT:
		return SP_REASON_TIMEOUT;
	case -EMFILE:
	case -ENFILE:
		return SP_REASON_NO_DESCRIPTORS;
	case -ENOMEM:
		return SP_REASON_NO_MEMORY;
	default:
		return SP_REASON_INTERNAL;
	}
}

static void fail_attempt(struct attempt *a, enum sp_reason reason)
{
	struct stay *y = a->stay;
	TAILQ_REMOVE(&y->attempts, a, entry);
	dial_failed(a, reason);
	attempt_free(a);
	uplink_kick(y->u);
}

// Where streams wait, a dial that hangs gives way to another one sooner.
static uint32_t dial_timeout(const struct stay *y)
{
	uint32_t ms = y->u->opt.dial_timeout_ms;
	return y->attached_once && ms > REDIAL_MS ? REDIAL_MS : ms;
}

// A session that has had a home asks the one it comes to for its record; it would rather
// wait while streams do.
static uint8_t attach_flags(const struct attempt *a)
{
	const struct stay *y = a->stay;
	struct sp_session_stats st;
	if (a->spare)
		return SP_ATTACH_SPARE;
	if (!y->attached_once)
		return 0;
	sp_session_stats(y->session, &st);
	return SP_ATTACH_MOVED |
	       (a->exit != y->exit && st.streams ? SP_ATTACH_PARKED : 0);
}

static void start_link(struct attempt *a, socklen_t addr_len)
{
	struct stay *y = a->stay;
	struct exit *x = attempt_at(a);
	struct cli_uplink *u = y->u;
	const struct sp_fleet_carrier *c = &x->is.conf->carriers[a->carrier];
	struct sp_link_dial d = {
		.carrier = {.kind = c->kind,
			    .addr = a->addr,
			    .addr_len = addr_len,
			    .server_name = c->server_name[0] ? c->server_name : NULL,
			    .tls = x->is.tls[a->carrier]},
		.worker_public = x->is.conf->public_key,
		.device_secret = u->identity.device_secret,
		.device_public = u->identity.device_public,
		.pass = u->identity.pass,
		.pass_len = u->identity.pass_len,
		.clock_skew_ms = x->skew_ms,
		.timeout_ms = dial_timeout(y),
		.session = y->session,
		.slot = a->slot,
		.attach_flags = attach_flags(a),
		.ops = &link_ops,
		.ctx = a,
	};
	bool leave_it = !a->via && y->n_tickets == 1 && relay_wants_ticket(y);
	a->resume = y->attached_once && a->exit == y->exit && !leave_it &&
		    take_ticket(y, &a->ticket);
	if (a->resume) {
		d.ticket = a->ticket.bytes;
		d.ticket_len = a->ticket.len;
		d.ticket_psk = a->ticket.psk;
	}
	// Only a ticket says whose home it is; without one a spare would be no resume.
	if ((a->via || a->spare) && !a->resume) {
		fail_attempt(a, SP_REASON_GONE);
		return;
	}
	int err = sp_link_dial(u->opt.env, &d, &a->link);
	if (!err)
		return;
	give_back_ticket(a);
	fail_attempt(a, reason_of(err));
}

static void on_lookup(void *ctx, const struct sp_lookup_result *res)
{
	struct attempt *a = ctx;
	a->lookup = NULL;
	if (res->err) {
		fail_attempt(a, res->err == -ETIMEDOUT ? SP_REASON_RESOLVE_TIMEOUT
						       : SP_REASON_RESOLVE_FAILED);
		return;
	}
	unsigned i = attempt_at(a)->address % res->n;
	a->addr = res->addr[i];
	start_link(a, res->addr_len[i]);
}

static bool slot_is_free(const struct stay *y, unsigned slot)
{
	const struct attempt *a;
	TAILQ_FOREACH(a, &y->attempts, entry)
	if (a->slot == slot)
		return false;
	return true;
}

static void dial(struct stay *y, struct exit *x, struct exit *via, bool spare)
{
	struct cli_uplink *u = y->u;
	struct attempt *a = calloc(1, sizeof(*a));
	struct exit *at = via ? via : x;
	unsigned slot = 0;
	while (slot < SP_SLOTS && !slot_is_free(y, slot))
		slot++;
	if (!a || slot == SP_SLOTS || stay_need_session(y)) {
		free(a);
		if (x == y->exit && !via && !spare && stay_is_main(y))
			cli_chain_dial_failed(&u->chain, x->index, false, false,
					      uplink_now_ms(u));
		uplink_kick(u);
		return;
	}
	a->stay = y;
	a->exit = x;
	a->via = via;
	a->spare = spare;
	a->slot = slot;
	a->cause = y->cause;
	// Beside a carrier that is silent another way is tried first, if there is one.
	a->carrier = (at->carrier + (!via && !spare && another_is_up(y) ? 1 : 0)) %
		     (unsigned)at->is.conf->n_carriers;
	TAILQ_INSERT_TAIL(&y->attempts, a, entry);
	if (sp_lookup_start(u->opt.loop, &at->is.conf->carriers[a->carrier].address,
			    on_lookup, a, &a->lookup))
		fail_attempt(a, SP_REASON_NO_MEMORY);
}

void stay_dial(struct stay *y, struct exit *x)
{
	x->info.dials++;
	dial(y, x, NULL, false);
}

void stay_dial_relayed(struct stay *y, struct exit *via)
{
	dial(y, y->exit, via, false);
}

void stay_dial_spare(struct stay *y)
{
	dial(y, y->exit, NULL, true);
}

// ---- short carriers ----

static bool is_dialling(const struct stay *y)
{
	const struct attempt *a;
	TAILQ_FOREACH(a, &y->attempts, entry)
	if (!a->up && !a->ending)
		return true;
	return false;
}

uint64_t stay_succeed(struct stay *y)
{
	struct exit *x = y->exit;
	uint64_t now = uplink_now_ms(y->u), carried = stay_bytes(y) - y->up_bytes;
	if (!stay_is_main(y) || !cli_chain_is_healthy(&y->u->chain, x->index) ||
	    !stay_link_in_use(y))
		return CLI_CHAIN_NEVER;
	cli_freeze_carried(&x->freeze, carried);
	uint64_t budget = cli_freeze_budget(&x->freeze, now);
	if (!budget || !y->u->chain.exit[x->index].busy)
		return CLI_CHAIN_NEVER;
	if (carried >= budget && now - x->succeed_ms >= SUCCEED_MS && !is_dialling(y)) {
		x->succeed_ms = now;
		y->cause = CLI_RESUME_ROTATION;
		stay_dial(y, x);
	}
	return now + SUCCEED_CHECK_MS;
}
