// One exit of the uplink: its session and what the engine says of it.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "client/uplink_internal.h"
#include "lib/log.h"

int exit_new(struct cli_uplink *u, const struct cli_exit *conf, struct exit **ret)
{
	struct exit *x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->u = u;
	x->is = *conf;
	TAILQ_INIT(&x->attempts);
	*ret = x;
	return 0;
}

void exit_free(struct exit *x, enum sp_reason reason)
{
	if (!x)
		return;
	exit_close_links(x, NULL, reason);
	exit_drop_session(x, reason);
	// Links that are on their way out still call `down`: they must not find us.
	while (!TAILQ_EMPTY(&x->attempts)) {
		struct attempt *a = TAILQ_FIRST(&x->attempts);
		TAILQ_REMOVE(&x->attempts, a, entry);
		a->exit = NULL;
		if (!a->link)
			attempt_free(a);
	}
	exit_forget_tickets(x);
	free(x);
}

// ---- the session ----

int exit_need_session(struct exit *x)
{
	struct cli_uplink *u = x->u;
	struct sp_session_options opt = {
		.role = SP_ROLE_CLIENT,
		.arena = u->opt.arena,
		.limits = u->opt.limits,
		.ops = &u->opt.session_ops,
		.ctx = x,
		.clock_us = sp_loop_clock_us(u->opt.loop),
	};
	if (x->session)
		return 0;
	randombytes_buf(opt.id, sizeof(opt.id));
	struct sp_session *s = NULL;
	int err = sp_session_new(&opt, sp_loop_now_us(u->opt.loop), &s);
	if (!err)
		err = sp_session_clock_add(u->opt.clock, s);
	if (err) {
		sp_session_free(s, SP_REASON_NO_MEMORY);
		return err;
	}
	x->session = s;
	x->attached_once = false;
	x->detached_since_us = sp_loop_now_us(u->opt.loop);
	return 0;
}

static void stats_add(struct sp_session_stats *sum, const struct sp_session_stats *st)
{
	sum->bytes_tx += st->bytes_tx;
	sum->bytes_rx += st->bytes_rx;
	sum->bytes_resent += st->bytes_resent;
	sum->bytes_dup += st->bytes_dup;
	sum->dgrams_tx += st->dgrams_tx;
	sum->dgrams_rx += st->dgrams_rx;
	sum->dgram_bytes_tx += st->dgram_bytes_tx;
	sum->dgram_bytes_rx += st->dgram_bytes_rx;
	sum->dgrams_dropped += st->dgrams_dropped;
	sum->records_tx += st->records_tx;
	sum->records_rx += st->records_rx;
	sum->streams_refused += st->streams_refused;
	sum->flows_evicted += st->flows_evicted;
	sum->attaches += st->attaches;
	sum->resumes += st->resumes;
}

void exit_stats(const struct exit *x, struct sp_session_stats *ret)
{
	struct sp_session_stats live = {0};
	if (x->session)
		sp_session_stats(x->session, &live);
	*ret = live;
	stats_add(ret, &x->gone);
}

uint64_t exit_bytes(const struct exit *x)
{
	struct sp_session_stats st = {0};
	if (x->session)
		sp_session_stats(x->session, &st);
	return st.bytes_tx + st.bytes_rx;
}

// Links must be closed already: none may reach a session that is not there.
void exit_drop_session(struct exit *x, enum sp_reason reason)
{
	struct sp_session *s = x->session;
	struct sp_session_stats st;
	if (!s)
		return;
	sp_session_stats(s, &st);
	stats_add(&x->gone, &st);
	x->session = NULL; // what opens streams meanwhile gets a new one
	exit_forget_tickets(x);
	sp_session_clock_remove(x->u->opt.clock, s);
	sp_session_free(s, reason);
}

void exit_close_links(struct exit *x, const struct attempt *but, enum sp_reason reason)
{
	struct attempt *a, *next;
	for (a = TAILQ_FIRST(&x->attempts); a; a = next) {
		next = TAILQ_NEXT(a, entry);
		if (a == but || a->ending)
			continue;
		a->ending = true;
		if (!a->up) // no news later: the chain must not wait for it
			cli_chain_dial_failed(&x->u->chain, x->index, false, true,
					      uplink_now_ms(x->u));
		if (a->link) {
			sp_link_close(a->link, reason);
			continue;
		}
		TAILQ_REMOVE(&x->attempts, a, entry);
		attempt_free(a);
	}
}

static struct attempt *attempt_of_slot(const struct exit *x, unsigned slot)
{
	struct attempt *a;
	TAILQ_FOREACH(a, &x->attempts, entry)
	if (a->link && a->slot == slot && !a->ending)
		return a;
	return NULL;
}

struct attempt *exit_link_in_use(const struct exit *x)
{
	int slot = x->session ? sp_session_active_slot(x->session) : -1;
	struct attempt *a = slot < 0 ? NULL : attempt_of_slot(x, (unsigned)slot);
	return a && a->up ? a : NULL;
}

// ---- what the engine says ----

static void on_attached(void *ctx, unsigned slot, bool fresh)
{
	struct exit *x = ctx;
	struct attempt *a = attempt_of_slot(x, slot);
	if (!a || a->up)
		return;
	a->up = true;
	if (fresh && x->attached_once) {
		x->info.home_losses++;
		sp_warn("uplink", "home lost: its memory is gone", "exit=%s",
			x->is.conf->name);
	}
	x->attached_once = true;
	x->detached_since_us = 0;
	x->up_bytes = exit_bytes(x);
	x->skew_ms = sp_link_clock_skew_ms(a->link);
	if (x->boot_id != sp_link_boot_id(a->link))
		exit_forget_tickets(x); // of another life of the home
	x->boot_id = sp_link_boot_id(a->link);
	cli_chain_up(&x->u->chain, x->index, uplink_now_ms(x->u));
	uplink_kick(x->u);
}

static void on_ticket(void *ctx, unsigned slot, unsigned index, uint32_t lifetime_s,
		      const uint8_t *ticket, size_t len)
{
	struct exit *x = ctx;
	struct attempt *a = attempt_of_slot(x, slot);
	if (a)
		exit_keep_ticket(x, a, index, lifetime_s, ticket, len);
}

static void on_stalled(void *ctx, unsigned slot)
{
	struct exit *x = ctx;
	struct attempt *a = attempt_of_slot(x, slot);
	struct sp_session_stats st;
	if (!a || !a->up)
		return;
	sp_session_stats(x->session, &st);
	x->stall_records = st.records_rx;
	x->info.stalls++;
	sp_info("uplink", "carrier is silent", "exit=%s slot=%u", x->is.conf->name, slot);
	cli_chain_stalled(&x->u->chain, x->index, uplink_now_ms(x->u));
	uplink_kick(x->u);
}

static void on_goaway(void *ctx, enum sp_reason reason, uint64_t deadline_ms)
{
	struct exit *x = ctx;
	sp_info("uplink", "exit takes no new streams",
		"exit=%s reason=%s deadline_ms=%" PRIu64, x->is.conf->name,
		sp_reason_word(reason), deadline_ms);
	cli_chain_goaway(&x->u->chain, x->index, uplink_now_ms(x->u));
	uplink_kick(x->u);
}

static void on_ended(void *ctx, enum sp_reason reason)
{
	struct exit *x = ctx;
	x->over = true;
	x->over_reason = reason;
	x->info.sessions_ended++;
	x->info.last_down = reason;
	x->info.last_down_ms = uplink_now_ms(x->u);
	sp_warn("uplink", "session ended by the exit", "exit=%s reason=%s",
		x->is.conf->name, sp_reason_word(reason));
	cli_chain_ended(&x->u->chain, x->index, uplink_now_ms(x->u));
	uplink_kick(x->u);
}

void exit_set_ops(struct sp_session_ops *ops)
{
	ops->attached = on_attached;
	ops->ticket = on_ticket;
	ops->stalled = on_stalled;
	ops->goaway = on_goaway;
	ops->ended = on_ended;
}
