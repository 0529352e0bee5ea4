// A session whose home is dead goes on at the exit in use, under its own id: asked for
// with another dial beside the streams opened there meanwhile, until that exit has the
// session's record, or nothing waits at the old home any more.
//
// Its flows go with it. Its streams cannot: they are parked, and end as soon as the new
// home knows the old one to be dead, on evidence (docs/directory.md), or after park_ms.
// If the old home answers first, which is looked for all the time, they go on there. A
// RST or a refused connection is no evidence of anything. What was opened at the new home
// before goes on beside it as a guest.
#include <stdlib.h>
#include <string.h>

#include "client/uplink_internal.h"
#include "lib/log.h"
#include "lib/text.h"

#define ASK_MIN_MS   250
#define ASK_MAX_MS   2000
#define ASKS_SOON    16  // an exit may take a second to say no
#define ASK_GRACE_MS 400 // flows wait for the first answer
#define GUEST_MS     1000

// ---- who has left ----

static bool use_is_healthy(const struct cli_uplink *u)
{
	return cli_chain_is_healthy(&u->chain, u->chain.use);
}

bool stay_is_left(const struct stay *y, uint64_t now_ms)
{
	const struct cli_uplink *u = y->u;
	unsigned e = y->exit->index;
	if (e == u->chain.use || !use_is_healthy(u))
		return false;
	if (e == CLI_CHAIN_MAX || !stay_is_main(y))
		return !stay_link_in_use(y);
	return cli_chain_is_given_up(&u->chain, e, now_ms);
}

bool stay_is_asking(const struct stay *y, uint64_t now_ms)
{
	return y == y->u->mover && !y->answers && y->left_since_ms &&
	       now_ms - y->left_since_ms < ASK_GRACE_MS;
}

// Nothing comes from its home.
static bool is_silent(const struct stay *y)
{
	return !stay_link_in_use(y) ||
	       (stay_is_main(y) && y->u->chain.exit[y->exit->index].stalled);
}

static void live(const struct stay *y, struct sp_session_stats *ret)
{
	*ret = (struct sp_session_stats){0};
	if (y->session)
		sp_session_stats(y->session, ret);
}

static bool has_work(const struct stay *y)
{
	struct sp_session_stats st;
	live(y, &st);
	return st.streams || st.flows;
}

// ---- streams that wait ----

static void lose(struct cli_uplink *u, uint32_t streams, enum cli_lost by)
{
	u->moved.streams_lost += streams;
	u->moved.lost_by[by] += streams;
}

const char *cli_lost_word(enum cli_lost by)
{
	static const char *const words[CLI_LOST__N] = {"adopted", "restarted", "timeout",
						       "away"};
	return words[by];
}

// Its home is there again.
static void unpark(struct stay *y)
{
	if (!y->left_since_ms)
		return;
	y->left_since_ms = 0;
	y->u->moved.streams_resumed += y->streams;
	if (y->streams)
		sp_info("uplink", "parked streams go on", "exit=%s streams=%" PRIu32,
			y->exit->is.conf->name, y->streams);
}

void move_attached(struct stay *y, enum cli_lost lost)
{
	struct sp_session_stats st;
	live(y, &st);
	uint32_t gone = y->streams > st.streams ? y->streams - st.streams : 0;
	if (lost == CLI_LOST__N) {
		unpark(y);
		return;
	}
	lose(y->u, gone, lost);
	if (gone)
		sp_warn("uplink", "streams lost: their home is dead",
			"exit=%s streams=%" PRIu32 " evidence=%s parked_ms=%" PRIu64,
			y->exit->is.conf->name, gone, cli_lost_word(lost),
			y->left_since_ms ? uplink_now_ms(y->u) - y->left_since_ms : 0);
	y->streams = st.streams;
	y->left_since_ms = 0;
}

static void park(struct stay *y, uint64_t now_ms)
{
	struct cli_uplink *u = y->u;
	struct sp_session_stats st;
	live(y, &st);
	if (!y->session || !stay_is_left(y, now_ms) || !is_silent(y)) {
		unpark(y);
		y->streams = st.streams;
		return;
	}
	y->streams = st.streams;
	if (!y->left_since_ms)
		y->left_since_ms = now_ms;
	if (!st.streams || now_ms - y->left_since_ms < u->opt.park_ms)
		return;
	sp_warn("uplink", "streams lost: nothing is known of their home",
		"exit=%s streams=%" PRIu32 " parked_ms=%" PRIu64, y->exit->is.conf->name,
		st.streams, now_ms - y->left_since_ms);
	lose(u, st.streams, CLI_LOST_TIMEOUT);
	y->streams = 0;
	if (y != u->mover) {
		stay_close_links(y, NULL, NULL, SP_REASON_HOME_LOST);
		stay_drop_session(y, SP_REASON_HOME_LOST);
		return;
	}
	sp_session_lose_streams(y->session, SP_REASON_HOME_LOST);
	sp_session_clock_touch(u->opt.clock, y->session);
	y->asks = 0; // nothing waits any more: now it is a different question
	y->ask_at_ms = now_ms;
}

// ---- moving in ----

static void make_guest(struct exit *x, struct stay *y)
{
	struct cli_uplink *u = x->u;
	TAILQ_INSERT_TAIL(&x->guests, y, entry);
	u->n_guests++;
	y->ask_at_ms = 0;
}

static void guest_free(struct stay *y, enum sp_reason reason)
{
	TAILQ_REMOVE(&y->exit->guests, y, entry);
	y->u->n_guests--;
	stay_free(y, reason);
}

static void say_came(struct stay *y, const struct exit *from, struct exit *to)
{
	char id[2 * SP_SESSION_ID_BYTES + 1];
	sp_hex_encode(sp_session_id(y->session), SP_SESSION_ID_BYTES, id, sizeof(id));
	to->info.came = y->adopted ? "adopted" : "fresh";
	y->u->moved.adopted += y->adopted;
	y->u->moved.fresh += !y->adopted;
	sp_info("uplink", y->adopted ? "session adopted" : "session made anew",
		"session=%s exit=%s from=%s", id, to->is.conf->name, from->is.conf->name);
}

// It is attached at `x`: becomes the main stay there.
static void settle(struct stay *y, struct exit *x)
{
	struct cli_uplink *u = y->u;
	struct exit *from = y->exit;
	struct stay *next, *before = x->main;
	if (!y->session)
		return;
	if (x == from) {
		say_came(y, from, x);
		return;
	}
	next = stay_new(from);
	if (!next) {
		stay_close_links(y, NULL, x, SP_REASON_NO_MEMORY); // asked again
		return;
	}
	say_came(y, from, x);
	stay_close_links(y, NULL, from, SP_REASON_HOME_LOST);
	stay_count_here(y);
	if (from->index < CLI_CHAIN_MAX)
		cli_chain_lost(&u->chain, from->index, true, uplink_now_ms(u));
	from->main = next;
	stay_close_links(before, stay_link_in_use(before), NULL, SP_REASON_SUPERSEDED);
	y->exit = x;
	x->main = y;
	make_guest(x, before);
	u->mover = NULL;
	if (x->index < CLI_CHAIN_MAX)
		cli_chain_up(&u->chain, x->index, uplink_now_ms(u));
}

// ---- asking ----

static bool asks_already(const struct stay *y, const struct exit *x)
{
	const struct attempt *a;
	TAILQ_FOREACH(a, &y->attempts, entry)
	if (a->exit == x && !a->ending)
		return true;
	return false;
}

static void stop_asking(struct stay *y)
{
	struct cli_uplink *u = y->u;
	for (unsigned e = 0; e < u->chain.n; e++)
		if (u->exit[e] != y->exit)
			stay_close_links(y, NULL, u->exit[e], SP_REASON_CANCELLED);
}

static void ask(struct cli_uplink *u, uint64_t now_ms)
{
	struct stay *y = u->mover;
	struct exit *to = u->exit[u->chain.use];
	struct sp_session_stats st;
	if (!y || y->moved_to)
		return;
	if (!y->session || to == y->exit ||
	    (stay_is_main(y) && cli_chain_is_healthy(&u->chain, y->exit->index))) {
		u->mover = NULL; // it is back
		stop_asking(y);
		return;
	}
	live(y, &st);
	if (relay_holds(y, now_ms))
		return;
	if (!use_is_healthy(u) || (st.streams && !is_silent(y)) ||
	    now_ms < y->ask_at_ms || asks_already(y, to))
		return;
	y->ask_at_ms = now_ms + (y->asks < ASKS_SOON ? ASK_MIN_MS : ASK_MAX_MS);
	y->asked_ms = now_ms;
	y->asks++;
	u->moved.asked++;
	stay_dial(y, to);
}

void move_begin(struct cli_uplink *u, struct exit *from)
{
	struct stay *y = from->main;
	if (u->mover || !y->session || !y->attached_once)
		return;
	u->mover = y;
	y->asks = y->answers = 0;
	y->ask_at_ms = 0;
}

// ---- what is left behind ----

static void tend_guest(struct stay *y, uint64_t now_ms)
{
	struct exit *x = y->exit;
	if (y->over) {
		guest_free(y, y->over_reason);
		return;
	}
	park(y, now_ms);
	if (!has_work(y)) {
		guest_free(y, SP_REASON_IDLE);
		return;
	}
	bool reachable =
		x->index < CLI_CHAIN_MAX && cli_chain_is_healthy(&x->u->chain, x->index);
	if (!TAILQ_EMPTY(&y->attempts) || !reachable || now_ms < y->ask_at_ms)
		return;
	y->ask_at_ms = now_ms + GUEST_MS;
	stay_dial(y, x);
}

static void tend(struct exit *x, uint64_t now_ms)
{
	struct stay *y = x->main, *next;
	if (y->moved_to) {
		struct exit *to = y->moved_to;
		y->moved_to = NULL;
		settle(y, to);
	}
	park(x->main, now_ms);
	for (y = TAILQ_FIRST(&x->guests); y; y = next) {
		next = TAILQ_NEXT(y, entry);
		y->moved_to = NULL; // its home lost it: nothing to do
		tend_guest(y, now_ms);
	}
}

// It may have been taken out of the config because nobody could reach it, and be back.
static void look_for_home(struct exit *x, uint64_t now_ms)
{
	struct stay *y = x->main;
	struct attempt *a;
	TAILQ_FOREACH(a, &y->attempts, entry)
	if (a->exit == x && !a->via && !a->ending)
		return;
	if (!y->streams || y->moved_to || now_ms < x->look_at_ms)
		return;
	x->look_at_ms = now_ms + GUEST_MS;
	stay_dial(y, x);
}

static void tend_leaving(struct exit *x, uint64_t now_ms)
{
	struct stay *y = x->main;
	if (y->over) {
		y->over = false;
		stay_close_links(y, NULL, NULL, SP_REASON_CLOSED);
		stay_drop_session(y, y->over_reason);
	}
	tend(x, now_ms);
	look_for_home(x, now_ms);
	if (has_work(x->main) || x->u->mover == x->main || !TAILQ_EMPTY(&x->guests))
		return;
	TAILQ_REMOVE(&x->u->leaving, x, entry);
	exit_free(x, SP_REASON_CANCELLED);
}

void move_leave(struct cli_uplink *u, struct exit *x, bool in_use)
{
	x->index = CLI_CHAIN_MAX;
	if (u->mover && u->mover->exit != x)
		stay_close_links(u->mover, NULL, x, SP_REASON_CANCELLED);
	stay_close_links(x->main, stay_link_in_use(x->main), NULL, SP_REASON_CANCELLED);
	if (in_use)
		move_begin(u, x);
	TAILQ_INSERT_TAIL(&u->leaving, x, entry);
	sp_info("uplink", "exit left the config", "exit=%s", x->is.conf->name);
}

static void shed_guests(struct cli_uplink *u)
{
	for (unsigned e = 0; e < u->chain.n && u->n_guests > GUESTS_MAX; e++) {
		struct stay *y = TAILQ_FIRST(&u->exit[e]->guests);
		if (y)
			guest_free(y, SP_REASON_PRESSURE);
	}
}

static void count_parked(struct cli_uplink *u)
{
	const struct exit *x;
	const struct stay *y;
	u->moved.parked = 0;
	for (unsigned e = 0; e < u->chain.n; e++) {
		if (u->exit[e]->main->left_since_ms)
			u->moved.parked += u->exit[e]->main->streams;
		TAILQ_FOREACH(y, &u->exit[e]->guests, entry)
		u->moved.parked += y->left_since_ms ? y->streams : 0;
	}
	TAILQ_FOREACH(x, &u->leaving, entry)
	u->moved.parked += x->main->left_since_ms ? x->main->streams : 0;
}

void move_decide(struct cli_uplink *u, uint64_t now_ms)
{
	struct exit *x, *next;
	for (unsigned e = 0; e < u->chain.n; e++)
		tend(u->exit[e], now_ms);
	for (x = TAILQ_FIRST(&u->leaving); x; x = next) {
		next = TAILQ_NEXT(x, entry);
		tend_leaving(x, now_ms);
	}
	ask(u, now_ms);
	shed_guests(u);
	count_parked(u);
}

uint64_t move_deadline(const struct cli_uplink *u)
{
	uint64_t now_ms = uplink_now_ms(u), at = CLI_CHAIN_NEVER;
	if (u->n_guests || !TAILQ_EMPTY(&u->leaving))
		at = now_ms + GUEST_MS;
	for (unsigned e = 0; e < u->chain.n; e++) {
		const struct stay *y = u->exit[e]->main;
		uint64_t end = y->left_since_ms + u->opt.park_ms;
		if (y->left_since_ms && end > now_ms && end < at)
			at = end;
	}
	if (u->mover && use_is_healthy(u) && u->mover->ask_at_ms < at)
		at = u->mover->ask_at_ms > now_ms ? u->mover->ask_at_ms
						  : now_ms + ASK_MIN_MS;
	return at;
}
