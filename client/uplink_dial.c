// Dials of one exit: which carrier, which slot, with a ticket or a pass; and what becomes
// of links.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "client/uplink_internal.h"
#include "lib/log.h"

#define REDIAL_MS    5000
#define USEFUL_BYTES 16384 // stream bytes that make a carrier worth its dial

void attempt_free(struct attempt *a)
{
	cli_lookup_cancel(a->lookup);
	free(a);
}

// ---- tickets: used once, the newest first ----

void exit_forget_tickets(struct exit *x)
{
	sodium_memzero(x->ticket, sizeof(x->ticket));
	x->n_tickets = 0;
}

void exit_keep_ticket(struct exit *x, struct attempt *a, unsigned index,
		      uint32_t lifetime_s, const uint8_t *ticket, size_t len)
{
	struct kept_ticket t = {
		.len = (uint16_t)len,
		.boot_id = sp_link_boot_id(a->link),
		.expires_us =
			sp_loop_now_us(x->u->opt.loop) + lifetime_s * UINT64_C(1000000),
	};
	if (len == 0 || len > sizeof(t.bytes) ||
	    sp_link_ticket_psk(a->link, index, t.psk) != 0)
		return;
	memcpy(t.bytes, ticket, len);
	if (x->n_tickets == TICKETS_KEPT) {
		memmove(&x->ticket[0], &x->ticket[1], (TICKETS_KEPT - 1) * sizeof(t));
		x->n_tickets--;
	}
	x->ticket[x->n_tickets++] = t;
	sodium_memzero(&t, sizeof(t));
}

static bool take_ticket(struct exit *x, struct kept_ticket *ret)
{
	uint64_t now = sp_loop_now_us(x->u->opt.loop);
	while (x->n_tickets) {
		struct kept_ticket *t = &x->ticket[--x->n_tickets];
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

static void dial_failed(struct exit *x, const struct attempt *a, enum sp_reason reason)
{
	bool again = (reason == SP_REASON_TICKET && a->resume) ||
		     reason == SP_REASON_STALE_EPOCH || reason == SP_REASON_NOT_YOURS;
	bool news = reason != x->info.last_down;
	note_down(x, reason);
	if (reason == SP_REASON_TICKET)
		exit_forget_tickets(x);
	if (!again) {
		x->info.dial_failures++;
		x->carrier = (a->carrier + 1) % (unsigned)x->is.conf->n_carriers;
		x->address++;
	}
	SP_LOG(news ? SP_LOG_INFO : SP_LOG_DEBUG, "uplink", "dial failed",
	       "exit=%s carrier=%s reason=%s", x->is.conf->name,
	       sp_carrier_kind_word(x->is.conf->carriers[a->carrier].kind),
	       sp_reason_word(reason));
	if (reason == SP_REASON_NOT_YOURS && x->session) { // another device has this id
		x->over = true;
		x->over_reason = reason;
	}
	cli_chain_dial_failed(&x->u->chain, x->index, is_refusal(reason), again,
			      uplink_now_ms(x->u));
}

static void lost(struct exit *x, enum sp_reason reason)
{
	note_down(x, reason);
	x->detached_since_us = sp_loop_now_us(x->u->opt.loop);
	sp_info("uplink", "carrier lost", "exit=%s reason=%s", x->is.conf->name,
		sp_reason_word(reason));
	cli_chain_lost(&x->u->chain, x->index,
		       exit_bytes(x) - x->up_bytes >= USEFUL_BYTES, uplink_now_ms(x->u));
}

// A carrier that lives but that the engine cannot go back to (a newer one was attached
// and died) is of no use.
static void close_useless(struct exit *x)
{
	struct attempt *a, *next;
	bool was_up = false;
	if (!x->session || sp_session_active_slot(x->session) >= 0)
		return;
	for (a = TAILQ_FIRST(&x->attempts); a; a = next) {
		next = TAILQ_NEXT(a, entry);
		if (!a->up || a->ending)
			continue;
		was_up = true;
		a->ending = true;
		sp_link_close(a->link, SP_REASON_SUPERSEDED);
	}
	if (was_up)
		lost(x, SP_REASON_SUPERSEDED);
}

static bool another_is_up(const struct exit *x)
{
	const struct attempt *a;
	TAILQ_FOREACH(a, &x->attempts, entry)
	if (a->up && !a->ending)
		return true;
	return false;
}

static void on_up(void *ctx, struct sp_link *l)
{
	struct attempt *a = ctx;
	struct exit *x = a->exit;
	(void)l;
	if (!x || a->ending)
		return;
	x->carrier = a->carrier; // what worked is tried first
	sp_info("uplink", "carrier up", "exit=%s carrier=%s slot=%u resumed=%s",
		x->is.conf->name,
		sp_carrier_kind_word(x->is.conf->carriers[a->carrier].kind), a->slot,
		a->resume ? "ticket" : "pass");
	exit_close_links(x, a, SP_REASON_SUPERSEDED); // the first that is up wins
}

static void on_down(void *ctx, struct sp_link *l, enum sp_reason reason)
{
	struct attempt *a = ctx;
	struct exit *x = a->exit;
	(void)l;
	if (!x) { // the exit is gone
		attempt_free(a);
		return;
	}
	TAILQ_REMOVE(&x->attempts, a, entry);
	if (!a->ending && !a->up)
		dial_failed(x, a, reason);
	else if (!a->ending && !another_is_up(x))
		lost(x, reason);
	attempt_free(a);
	close_useless(x);
	uplink_kick(x->u);
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
	struct exit *x = a->exit;
	TAILQ_REMOVE(&x->attempts, a, entry);
	dial_failed(x, a, reason);
	attempt_free(a);
	uplink_kick(x->u);
}

// Where streams wait, a dial that hangs gives way to another one sooner.
static uint32_t dial_timeout(const struct exit *x)
{
	uint32_t ms = x->u->opt.dial_timeout_ms;
	return x->attached_once && ms > REDIAL_MS ? REDIAL_MS : ms;
}

static void start_link(struct attempt *a, socklen_t addr_len)
{
	struct exit *x = a->exit;
	struct cli_uplink *u = x->u;
	const struct sp_fleet_carrier *c = &x->is.conf->carriers[a->carrier];
	struct kept_ticket t = {0};
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
		.timeout_ms = dial_timeout(x),
		.session = x->session,
		.slot = a->slot,
		.ops = &link_ops,
		.ctx = a,
	};
	a->resume = x->attached_once && take_ticket(x, &t);
	if (a->resume) {
		d.ticket = t.bytes;
		d.ticket_len = t.len;
		d.ticket_psk = t.psk;
	}
	int err = sp_link_dial(u->opt.env, &d, &a->link);
	sodium_memzero(&t, sizeof(t));
	if (err)
		fail_attempt(a, reason_of(err));
}

static void on_lookup(void *ctx, const struct cli_lookup_result *res)
{
	struct attempt *a = ctx;
	struct exit *x = a->exit;
	a->lookup = NULL;
	if (res->err) {
		fail_attempt(a, res->err == -ETIMEDOUT ? SP_REASON_RESOLVE_TIMEOUT
						       : SP_REASON_RESOLVE_FAILED);
		return;
	}
	unsigned i = x->address % res->n;
	a->addr = res->addr[i];
	start_link(a, res->addr_len[i]);
}

static bool slot_is_free(const struct exit *x, unsigned slot)
{
	const struct attempt *a;
	TAILQ_FOREACH(a, &x->attempts, entry)
	if (a->slot == slot)
		return false;
	return true;
}

void exit_dial(struct exit *x)
{
	struct cli_uplink *u = x->u;
	struct attempt *a = calloc(1, sizeof(*a));
	unsigned slot = 0;
	while (slot < SP_SLOTS && !slot_is_free(x, slot))
		slot++;
	x->info.dials++;
	if (!a || slot == SP_SLOTS || exit_need_session(x)) {
		free(a);
		cli_chain_dial_failed(&u->chain, x->index, false, false,
				      uplink_now_ms(u));
		uplink_kick(u);
		return;
	}
	a->exit = x;
	a->slot = slot;
	// Beside a carrier that is silent another way is tried first, if there is one.
	a->carrier = (x->carrier + (another_is_up(x) ? 1 : 0)) %
		     (unsigned)x->is.conf->n_carriers;
	TAILQ_INSERT_TAIL(&x->attempts, a, entry);
	if (cli_lookup_start(u->opt.loop, &x->is.conf->carriers[a->carrier].address,
			     on_lookup, a, &a->lookup))
		fail_attempt(a, SP_REASON_NO_MEMORY);
}
