// Exits of the uplink and their stays: sessions, and what the engine says of them.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "client/uplink_internal.h"
#include "lib/log.h"

// ---- stays ----

struct stay *stay_new(struct exit *x)
{
	struct stay *y = calloc(1, sizeof(*y));
	if (!y)
		return NULL;
	y->u = x->u;
	y->exit = x;
	TAILQ_INIT(&y->attempts);
	return y;
}

void stay_free(struct stay *y, enum sp_reason reason)
{
	if (!y)
		return;
	if (y->u->mover == y)
		y->u->mover = NULL;
	stay_close_links(y, NULL, NULL, reason);
	stay_drop_session(y, reason);
	// Links that are on their way out still call `down`: they must not find us.
	while (!TAILQ_EMPTY(&y->attempts)) {
		struct attempt *a = TAILQ_FIRST(&y->attempts);
		TAILQ_REMOVE(&y->attempts, a, entry);
		a->stay = NULL;
		if (!a->link)
			attempt_free(a);
	}
	stay_forget_tickets(y);
	free(y);
}

int exit_new(struct cli_uplink *u, const struct cli_exit *conf, struct exit **ret)
{
	struct exit *x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->u = u;
	x->is = *conf;
	TAILQ_INIT(&x->guests);
	x->main = stay_new(x);
	if (!x->main) {
		free(x);
		return -ENOMEM;
	}
	*ret = x;
	return 0;
}

void exit_free(struct exit *x, enum sp_reason reason)
{
	if (!x)
		return;
	if (x->u->mover && x->u->mover->exit != x)
		stay_close_links(x->u->mover, NULL, x, reason);
	relay_exit_gone(x->u, x, reason);
	stay_free(x->main, reason);
	while (!TAILQ_EMPTY(&x->guests)) {
		struct stay *y = TAILQ_FIRST(&x->guests);
		TAILQ_REMOVE(&x->guests, y, entry);
		x->u->n_guests--;
		stay_free(y, reason);
	}
	free(x);
}

// ---- the session ----

int stay_need_session(struct stay *y)
{
	struct cli_uplink *u = y->u;
	struct sp_session_options opt = {
		.role = SP_ROLE_CLIENT,
		.arena = u->opt.arena,
		.limits = u->opt.limits,
		.ops = &u->opt.session_ops,
		.ctx = y,
		.clock_us = sp_loop_clock_us(u->opt.loop),
	};
	if (y->session)
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
	y->session = s;
	y->attached_once = false;
	y->asks = y->answers = 0;
	y->detached_since_us = sp_loop_now_us(u->opt.loop);
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

// What it counted at this home.
static void stay_stats(const struct stay *y, struct sp_session_stats *ret)
{
	const struct sp_session_stats *b = &y->before;
	sp_session_stats(y->session, ret);
	ret->bytes_tx -= b->bytes_tx;
	ret->bytes_rx -= b->bytes_rx;
	ret->bytes_resent -= b->bytes_resent;
	ret->bytes_dup -= b->bytes_dup;
	ret->dgrams_tx -= b->dgrams_tx;
	ret->dgrams_rx -= b->dgrams_rx;
	ret->dgram_bytes_tx -= b->dgram_bytes_tx;
	ret->dgram_bytes_rx -= b->dgram_bytes_rx;
	ret->dgrams_dropped -= b->dgrams_dropped;
	ret->records_tx -= b->records_tx;
	ret->records_rx -= b->records_rx;
	ret->streams_refused -= b->streams_refused;
	ret->flows_evicted -= b->flows_evicted;
	ret->attaches -= b->attaches;
	ret->resumes -= b->resumes;
}

void stay_count_here(struct stay *y)
{
	struct sp_session_stats st;
	stay_stats(y, &st);
	stats_add(&y->exit->gone, &st);
	sp_session_stats(y->session, &y->before);
}

static void stats_add_stay(struct sp_session_stats *sum, const struct stay *y)
{
	struct sp_session_stats live;
	if (!y->session)
		return;
	stay_stats(y, &live);
	stats_add(sum, &live);
	sum->streams += live.streams;
	sum->flows += live.flows;
	sum->replay_bytes += live.replay_bytes;
	sum->carriers += live.carriers;
}

void exit_stats(const struct exit *x, struct sp_session_stats *ret)
{
	struct sp_session_stats live = {0};
	const struct stay *y;
	if (x->main->session)
		stay_stats(x->main, &live);
	*ret = live;
	stats_add(ret, &x->gone);
	TAILQ_FOREACH(y, &x->guests, entry)
	stats_add_stay(ret, y);
}

uint64_t stay_bytes(const struct stay *y)
{
	struct sp_session_stats st = {0};
	if (y->session)
		sp_session_stats(y->session, &st);
	return st.bytes_tx + st.bytes_rx;
}

// Links must be closed already: none may reach a session that is not there.
void stay_drop_session(struct stay *y, enum sp_reason reason)
{
	struct sp_session *s = y->session;
	struct sp_session_stats st;
	if (!s)
		return;
	stay_stats(y, &st);
	stats_add(&y->exit->gone, &st);
	y->before = (struct sp_session_stats){0};
	y->session = NULL; // what opens streams meanwhile gets a new one
	y->moved_to = NULL;
	relay_over(y);
	y->paused_since_us = 0;
	stay_forget_tickets(y);
	sp_session_clock_remove(y->u->opt.clock, s);
	sp_session_free(s, reason);
}

void stay_close_links(struct stay *y, const struct attempt *but, const struct exit *x,
		      enum sp_reason reason)
{
	struct attempt *a, *next;
	for (a = TAILQ_FIRST(&y->attempts); a; a = next) {
		next = TAILQ_NEXT(a, entry);
		if (a != but && (!x || a->exit == x))
			attempt_close(a, reason);
	}
}

static struct attempt *attempt_of_slot(const struct stay *y, unsigned slot)
{
	struct attempt *a;
	TAILQ_FOREACH(a, &y->attempts, entry)
	if (a->link && a->slot == slot && !a->ending)
		return a;
	return NULL;
}

struct attempt *stay_link_in_use(const struct stay *y)
{
	int slot = y->session ? sp_session_active_slot(y->session) : -1;
	struct attempt *a = slot < 0 ? NULL : attempt_of_slot(y, (unsigned)slot);
	return a && a->up ? a : NULL;
}

// ---- what the engine says ----

static void home_lost(struct stay *y)
{
	y->exit->info.home_losses++;
	sp_warn("uplink", "home lost: its memory is gone", "exit=%s",
		y->exit->is.conf->name);
}

static void count_resume(struct stay *y, const struct attempt *a, bool restarted)
{
	enum cli_resume_cause cause = a->cause;
	if (restarted)
		cause = CLI_RESUME_RESTART;
	else if (a->via)
		cause = CLI_RESUME_RELAY;
	else if (y->relay.since_ms)
		cause = CLI_RESUME_DIRECT;
	y->u->resumes.by[cause]++;
	y->cause = CLI_RESUME_RESET;
}

// ATTACH was said again on `a`, and answered: it is in use.
static void taken_over(struct stay *y, struct attempt *a)
{
	struct attempt *b, *next;
	a->again = false;
	count_resume(y, a, false);
	y->detached_since_us = 0;
	y->left_since_ms = 0;
	y->up_bytes = stay_bytes(y);
	pause_end(y);
	for (b = TAILQ_FIRST(&y->attempts); b; b = next) {
		next = TAILQ_NEXT(b, entry);
		if (b != a && !b->spare && !(a->via && !b->via && !b->up))
			attempt_close(b, SP_REASON_SUPERSEDED);
	}
	if (a->via)
		relay_up(a);
	else
		relay_over(y);
	if (attempt_is_main(a))
		cli_chain_up(&y->u->chain, y->exit->index, uplink_now_ms(y->u));
	uplink_kick(y->u);
}

static void on_attached(void *ctx, unsigned slot, bool fresh)
{
	struct stay *y = ctx;
	struct attempt *a = attempt_of_slot(y, slot);
	if (!a || (a->up && !a->again))
		return;
	struct exit *x = a->exit;
	a->up = true;
	if (a->again) {
		taken_over(y, a);
		return;
	}
	if (a->spare && !fresh)
		return;
	a->spare = false;
	y->adopted = sp_session_is_adopted(y->session, slot);
	y->moved_to = y->attached_once && (fresh || x != y->exit) ? x : NULL;
	if (y->moved_to && x == y->exit && !y->adopted)
		home_lost(y);
	bool first = !y->attached_once;
	move_attached(y, !y->moved_to   ? CLI_LOST__N
			 : x == y->exit ? CLI_LOST_RESTARTED
					: CLI_LOST_ADOPTED);
	y->attached_once = true;
	y->detached_since_us = 0;
	y->up_bytes = stay_bytes(y);
	pause_end(y);
	x->skew_ms = sp_link_clock_skew_ms(a->link);
	bool restarted = y->boot_id != sp_link_boot_id(a->link);
	if (restarted)
		stay_forget_tickets(y); // of another life of the home
	y->boot_id = sp_link_boot_id(a->link);
	if (!first && !y->moved_to)
		count_resume(y, a, restarted);
	if (a->via)
		relay_up(a);
	else
		relay_over(y);
	if (attempt_is_main(a))
		cli_chain_up(&y->u->chain, x->index, uplink_now_ms(y->u));
	uplink_kick(y->u);
}

static void on_ticket(void *ctx, unsigned slot, unsigned index, uint32_t lifetime_s,
		      const uint8_t *ticket, size_t len)
{
	struct stay *y = ctx;
	struct attempt *a = attempt_of_slot(y, slot);
	if (a)
		stay_keep_ticket(y, a, index, lifetime_s, ticket, len);
}

static void on_stalled(void *ctx, unsigned slot)
{
	struct stay *y = ctx;
	struct attempt *a = attempt_of_slot(y, slot);
	struct sp_session_stats st;
	if (!a || !a->up)
		return;
	sp_session_stats(y->session, &st);
	if (a->spare) { // dialled anew
		sp_link_close(a->link, SP_REASON_STALL);
		return;
	}
	pause_begin(y, st.last_rx_us);
	y->stall_records = st.records_rx;
	y->exit->info.stalls++;
	y->cause = CLI_RESUME_SILENCE;
	if (a->via) { // another one beside it, through another entry if there is one
		sp_info("uplink", "relayed carrier is silent", "exit=%s via=%s",
			y->exit->is.conf->name, a->via->is.conf->name);
		y->relay.silent = true;
		y->relay.fails++;
		uplink_kick(y->u);
		return;
	}
	uint64_t bytes = stay_bytes(y) - y->up_bytes;
	if (cli_freeze_silent(&y->exit->freeze, bytes, uplink_now_ms(y->u)))
		sp_info("uplink", "connections freeze: carriers will be short",
			"exit=%s bytes=%" PRIu64, y->exit->is.conf->name, bytes);
	sp_info("uplink", "carrier is silent", "exit=%s slot=%u", y->exit->is.conf->name,
		slot);
	y->spare.instead = true; // not from inside the engine's call
	if (attempt_is_main(a))
		cli_chain_stalled(&y->u->chain, y->exit->index, uplink_now_ms(y->u));
	else
		sp_link_close(a->link, SP_REASON_STALL); // dialled anew
	uplink_kick(y->u);
}

static void on_goaway(void *ctx, enum sp_reason reason, uint64_t deadline_ms)
{
	struct stay *y = ctx;
	sp_info("uplink", "exit takes no new streams",
		"exit=%s reason=%s deadline_ms=%" PRIu64, y->exit->is.conf->name,
		sp_reason_word(reason), deadline_ms);
	if (stay_is_main(y))
		cli_chain_goaway(&y->u->chain, y->exit->index, uplink_now_ms(y->u));
	uplink_kick(y->u);
}

static void on_ended(void *ctx, enum sp_reason reason)
{
	struct stay *y = ctx;
	struct cli_uplink_exit_info *info = &y->exit->info;
	y->over = true;
	y->over_reason = reason;
	info->sessions_ended++;
	info->last_down = reason;
	info->last_down_ms = uplink_now_ms(y->u);
	sp_warn("uplink", "session ended by the exit", "exit=%s reason=%s",
		y->exit->is.conf->name, sp_reason_word(reason));
	if (stay_is_main(y))
		cli_chain_ended(&y->u->chain, y->exit->index, uplink_now_ms(y->u));
	uplink_kick(y->u);
}

void stay_set_ops(struct sp_session_ops *ops)
{
	ops->attached = on_attached;
	ops->ticket = on_ticket;
	ops->stalled = on_stalled;
	ops->goaway = on_goaway;
	ops->ended = on_ended;
}
