#include "client/uplink.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "client/uplink_internal.h"
#include "lib/log.h"

#define STALL_CHECK_MS 50   // whether a stalled carrier speaks again
#define BUSY_CHECK_MS  5000 // whether an exit that is not wanted is idle
#define OLD_EXITS_US   60000000

// ---- the chain's decisions, carried out ----

static void refresh(struct cli_uplink *u, uint64_t now_ms)
{
	for (unsigned e = 0; e < u->chain.n; e++) {
		struct exit *x = u->exit[e];
		struct stay *y = x->main;
		struct sp_session_stats st = {0};
		if (y->over) {
			y->over = false;
			stay_close_links(y, NULL, NULL, SP_REASON_CLOSED);
			stay_drop_session(y, y->over_reason);
		}
		spare_act(y);
		if (y->session)
			sp_session_stats(y->session, &st);
		cli_chain_busy(&u->chain, e, st.streams + st.flows > 0);
		if (u->chain.exit[e].stalled && st.records_rx > y->stall_records &&
		    stay_link_in_use(y)) {
			cli_chain_recovered(&u->chain, e, now_ms);
			pause_end(y);
		}
		if (y->session && y->detached_since_us && st.streams &&
		    sp_loop_now_us(u->opt.loop) - y->detached_since_us >=
			    (uint64_t)u->opt.stale_ms * 1000) {
			sp_warn("uplink", "streams lost: away for too long", "exit=%s",
				x->is.conf->name);
			u->moved.streams_lost += st.streams;
			u->moved.lost_by[CLI_LOST_AWAY] += st.streams;
			stay_close_links(y, NULL, NULL, SP_REASON_STALE);
			stay_drop_session(y, SP_REASON_STALE);
		}
	}
}

static void say_moved(struct cli_uplink *u, const struct cli_chain_todo *todo)
{
	u->moves++;
	sp_info("uplink", "exit in use changed", "from=%s to=%s why=%s",
		u->exit[todo->from]->is.conf->name, u->exit[u->chain.use]->is.conf->name,
		todo->from_healthy ? "better" : "away");
}

static void purge_old_exits(struct cli_uplink *u, bool all)
{
	uint64_t now = sp_loop_now_us(u->opt.loop);
	struct old_exits **p = &u->old;
	while (*p) {
		struct old_exits *o = *p;
		if (!all &&
		    (now - o->since_us < OLD_EXITS_US || !TAILQ_EMPTY(&u->leaving))) {
			p = &o->next;
			continue;
		}
		*p = o->next;
		cli_exits_free(o->exits);
		free(o);
	}
}

static void set_timer(struct cli_uplink *u, uint64_t now_ms, uint64_t succeed_ms)
{
	uint64_t at = cli_chain_deadline(&u->chain, now_ms);
	for (unsigned e = 0; e < u->chain.n; e++) {
		const struct cli_chain_exit *c = &u->chain.exit[e];
		uint64_t check = CLI_CHAIN_NEVER;
		if (c->stalled)
			check = now_ms + STALL_CHECK_MS;
		else if (e > u->chain.use && c->busy)
			check = now_ms + BUSY_CHECK_MS;
		else if (u->exit[e]->main->detached_since_us && u->exit[e]->main->session)
			check = now_ms + BUSY_CHECK_MS;
		if (check < at)
			at = check;
	}
	if (succeed_ms < at)
		at = succeed_ms;
	if (move_deadline(u) < at)
		at = move_deadline(u);
	if (relay_deadline(u, now_ms) < at)
		at = relay_deadline(u, now_ms);
	if (u->old && now_ms + OLD_EXITS_US / 1000 < at)
		at = now_ms + OLD_EXITS_US / 1000;
	sp_timer_set(&u->timer, at == CLI_CHAIN_NEVER ? SP_LOOP_NEVER : at * 1000);
}

static void on_decide(struct sp_deferred *d)
{
	struct cli_uplink *u =
		(struct cli_uplink *)((char *)d - offsetof(struct cli_uplink, decide));
	struct cli_chain_todo todo;
	uint64_t now_ms = uplink_now_ms(u), succeed_ms = CLI_CHAIN_NEVER;
	if (u->closing)
		return;
	refresh(u, now_ms);
	cli_chain_decide(&u->chain, now_ms, &todo);
	for (unsigned e = 0; e < u->chain.n; e++) {
		if (todo.close & (1u << e))
			stay_close_links(u->exit[e]->main, NULL, NULL, SP_REASON_IDLE);
		if (todo.dial & (1u << e))
			stay_dial(u->exit[e]->main, u->exit[e]);
	}
	if (todo.moved)
		say_moved(u, &todo);
	if (todo.moved && !todo.from_healthy)
		move_begin(u, u->exit[todo.from]);
	relay_decide(u, now_ms);
	move_decide(u, now_ms);
	if (cli_chain_is_healthy(&u->chain, u->chain.use) ||
	    cli_chain_is_hopeless(&u->chain))
		u->opt.ops->rehome(u->opt.ctx);
	for (unsigned e = 0; e < u->chain.n; e++) {
		uint64_t at = stay_succeed(u->exit[e]->main);
		succeed_ms = at < succeed_ms ? at : succeed_ms;
		at = spare_decide(u->exit[e]->main, now_ms);
		succeed_ms = at < succeed_ms ? at : succeed_ms;
	}
	purge_old_exits(u, false);
	set_timer(u, now_ms, succeed_ms);
}

void uplink_kick(struct cli_uplink *u)
{
	if (!u->closing)
		sp_loop_defer(u->opt.loop, &u->decide);
}

static void on_timer(void *arg)
{
	uplink_kick(arg);
}

// ---- life ----

int cli_uplink_new(const struct cli_uplink_options *opt, struct cli_uplink **ret)
{
	struct cli_uplink *u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	u->opt = *opt;
	u->identity = *opt->identity;
	u->exits = opt->exits;
	u->decide.run = on_decide;
	pause_init(u);
	TAILQ_INIT(&u->leaving);
	stay_set_ops(&u->opt.session_ops);
	sp_timer_init(&u->timer, opt->loop, on_timer, u);
	randombytes_buf(&u->opt.chain.seed, sizeof(u->opt.chain.seed));
	int err = cli_chain_init(&u->chain, u->exits->n, &u->opt.chain, uplink_now_ms(u));
	for (unsigned e = 0; !err && e < u->exits->n; e++) {
		err = exit_new(u, &u->exits->exit[e], &u->exit[e]);
		if (!err)
			u->exit[e]->index = e;
	}
	if (err) {
		u->exits = NULL; // stays the caller's
		cli_uplink_free(u);
		return err;
	}
	uplink_kick(u);
	*ret = u;
	return 0;
}

void cli_uplink_free(struct cli_uplink *u)
{
	if (!u)
		return;
	u->closing = true;
	for (unsigned e = 0; e < CLI_CHAIN_MAX; e++) {
		exit_free(u->exit[e], SP_REASON_SHUTDOWN);
		u->exit[e] = NULL; // the next one's end looks at those that are left
	}
	while (!TAILQ_EMPTY(&u->leaving)) {
		struct exit *x = TAILQ_FIRST(&u->leaving);
		TAILQ_REMOVE(&u->leaving, x, entry);
		exit_free(x, SP_REASON_SHUTDOWN);
	}
	sp_timer_done(&u->timer);
	sp_loop_defer_cancel(&u->decide);
	purge_old_exits(u, true);
	cli_exits_free(u->exits);
	sodium_memzero(&u->identity, sizeof(u->identity));
	free(u);
}

// ---- reload ----

static bool same_exit(const struct cli_exit *a, const struct cli_exit *b)
{
	return a->conf->home_id == b->conf->home_id &&
	       memcmp(a->conf->public_key, b->conf->public_key,
		      sizeof(a->conf->public_key)) == 0;
}

static int find_exit(const struct cli_uplink *u, const struct cli_exit *conf)
{
	for (unsigned o = 0; o < u->chain.n; o++)
		if (same_exit(&u->exit[o]->is, conf))
			return (int)o;
	return -1;
}

// Exits that stay keep session, links and what the chain knows of them.
static int swap_exits(struct cli_uplink *u, const struct cli_exits *exits)
{
	struct exit *next[CLI_CHAIN_MAX] = {0};
	int old_of[CLI_CHAIN_MAX];
	for (unsigned e = 0; e < exits->n; e++) {
		old_of[e] = find_exit(u, &exits->exit[e]);
		if (old_of[e] < 0 && exit_new(u, &exits->exit[e], &next[e])) {
			while (e-- > 0)
				exit_free(next[e], SP_REASON_NO_MEMORY);
			return -ENOMEM;
		}
	}
	for (unsigned e = 0; e < exits->n; e++) {
		if (old_of[e] >= 0) {
			next[e] = u->exit[old_of[e]];
			u->exit[old_of[e]] = NULL;
		}
		next[e]->is = exits->exit[e];
		next[e]->carrier = 0;
	}
	for (unsigned o = 0; o < CLI_CHAIN_MAX; o++)
		if (u->exit[o])
			move_leave(u, u->exit[o], o == u->chain.use);
	memcpy(u->exit, next, sizeof(next));
	for (unsigned e = 0; e < exits->n; e++)
		u->exit[e]->index = e;
	cli_chain_rebuild(&u->chain, exits->n, old_of, uplink_now_ms(u));
	return 0;
}

static void renew_pass(struct stay *y)
{
	const struct cli_uplink_identity *id = &y->u->identity;
	if (!y->session)
		return;
	if (sp_session_send_pass(y->session, id->pass, id->pass_len))
		sp_warn("uplink", "pass not sent", "exit=%s", y->exit->is.conf->name);
	sp_session_clock_touch(y->u->opt.clock, y->session);
}

void cli_uplink_reload(struct cli_uplink *u, struct cli_exits *exits,
		       const struct cli_uplink_identity *identity)
{
	bool renewed = identity->pass_len != u->identity.pass_len ||
		       memcmp(identity->pass, u->identity.pass, identity->pass_len) != 0;
	u->identity = *identity;
	for (unsigned e = 0; renewed && e < u->chain.n; e++) {
		struct exit *x = u->exit[e];
		struct stay *y;
		renew_pass(x->main);
		TAILQ_FOREACH(y, &x->guests, entry)
		renew_pass(y);
	}
	struct old_exits *old = exits ? calloc(1, sizeof(*old)) : NULL;
	if (exits && (!old || swap_exits(u, exits))) {
		sp_error("uplink", "out of memory: exits not reloaded");
		free(old);
		cli_exits_free(exits);
	} else if (exits) {
		*old = (struct old_exits){u->old, u->exits, sp_loop_now_us(u->opt.loop)};
		u->old = old;
		u->exits = exits;
	}
	cli_chain_network_changed(&u->chain, uplink_now_ms(u));
	uplink_kick(u);
}

void cli_uplink_network_changed(struct cli_uplink *u)
{
	uint64_t now_ms = uplink_now_ms(u);
	if (u->closing)
		return;
	u->resumes.network_changes++;
	sp_info("uplink", "the network changed");
	cli_chain_network_changed(&u->chain, now_ms);
	for (unsigned e = 0; e < u->chain.n; e++) {
		struct stay *y = u->exit[e]->main;
		y->relay.dial_at_ms = y->spare.dial_at_ms = 0;
		y->cause = CLI_RESUME_NETWORK;
		if (stay_link_in_use(y) && !relay_is_up(y))
			stay_dial(y, y->exit); // the first that is up wins
	}
	uplink_kick(u);
}

const struct cli_exits *cli_uplink_exits(const struct cli_uplink *u)
{
	return u->exits;
}

// ---- streams and flows ----

// Where new streams and flows go: the exit in use; if the config says so a better one
// that is reached through a relay.
static struct stay *stay_for_new(const struct cli_uplink *u)
{
	for (unsigned e = 0; u->opt.relay.new_flows && e < u->chain.use; e++)
		if (relay_is_up(u->exit[e]->main) && !u->chain.exit[e].draining)
			return u->exit[e]->main;
	return u->exit[u->chain.use]->main;
}

int cli_uplink_open_stream(struct cli_uplink *u, const struct sp_target *target,
			   void *user, struct sp_stream **ret)
{
	struct stay *y = stay_for_new(u);
	if (u->closing || y->over)
		return SP_E_CLOSED;
	int err = stay_need_session(y);
	if (!err)
		err = sp_session_open(y->session, target, user, ret);
	if (!err)
		sp_session_clock_touch(u->opt.clock, y->session);
	return err;
}

int cli_uplink_open_flow(struct cli_uplink *u, const struct sp_target *target, void *user,
			 struct sp_flow **ret)
{
	struct stay *y = stay_for_new(u);
	if (u->closing || y->over)
		return SP_E_CLOSED;
	int err = stay_need_session(y);
	if (!err)
		err = sp_session_open_flow(y->session, target, user, ret);
	if (!err)
		sp_session_clock_touch(u->opt.clock, y->session);
	return err;
}

static const struct stay *stay_in(const struct exit *x, const struct sp_session *s)
{
	const struct stay *y;
	if (x->main->session == s)
		return x->main;
	TAILQ_FOREACH(y, &x->guests, entry)
	if (y->session == s)
		return y;
	return NULL;
}

static const struct stay *stay_of(const struct cli_uplink *u, const struct sp_session *s)
{
	const struct exit *x;
	const struct stay *y = NULL;
	for (unsigned e = 0; !y && e < u->chain.n; e++)
		y = stay_in(u->exit[e], s);
	TAILQ_FOREACH(x, &u->leaving, entry)
	if (!y)
		y = stay_in(x, s);
	return y;
}

bool cli_uplink_should_leave(const struct cli_uplink *u, const struct sp_session *s)
{
	const struct stay *y = stay_of(u, s);
	return y && stay_is_left(y, uplink_now_ms(u)) &&
	       !(u->opt.relay.new_flows && relay_is_up(y));
}

bool cli_uplink_flow_should_leave(const struct cli_uplink *u, const struct sp_session *s)
{
	const struct stay *y = stay_of(u, s);
	return y && stay_is_left(y, uplink_now_ms(u)) &&
	       !stay_is_asking(y, uplink_now_ms(u)) && !relay_holds(y, uplink_now_ms(u));
}

bool cli_uplink_may_redo(const struct cli_uplink *u, const struct sp_session *s)
{
	const struct stay *y = stay_of(u, s);
	return y && stay_is_left(y, uplink_now_ms(u)) &&
	       !relay_holds(y, uplink_now_ms(u));
}

enum sp_reason cli_uplink_hopeless(const struct cli_uplink *u)
{
	if (!cli_chain_is_hopeless(&u->chain))
		return SP_REASON_NONE;
	enum sp_reason why = u->exit[u->chain.use]->info.last_down;
	return why ? why : SP_REASON_CLOSED;
}

void cli_uplink_touch(struct cli_uplink *u, struct sp_session *s)
{
	sp_session_clock_touch(u->opt.clock, s);
}

// ---- to be seen ----

static const char *state_of(const struct cli_chain_exit *c)
{
	if (c->up)
		return c->stalled ? "stalled" : c->draining ? "draining" : "healthy";
	if (c->dialling)
		return "connecting";
	return c->wanted ? "waiting" : "idle";
}

unsigned cli_uplink_n(const struct cli_uplink *u)
{
	return u->chain.n;
}

uint64_t cli_uplink_moves(const struct cli_uplink *u)
{
	return u->moves;
}

const struct cli_uplink_moved *cli_uplink_moved(const struct cli_uplink *u)
{
	return &u->moved;
}

const struct cli_uplink_resumes *cli_uplink_resumes(const struct cli_uplink *u)
{
	return &u->resumes;
}

const char *cli_resume_cause_word(enum cli_resume_cause cause)
{
	static const char *const words[] = {
#define X(name, word) word,
		CLI_RESUME_CAUSES(X)
#undef X
	};
	return words[cause];
}

void cli_uplink_exit_info(const struct cli_uplink *u, unsigned e,
			  struct cli_uplink_exit_info *ret)
{
	const struct exit *x = u->exit[e];
	const struct cli_chain_exit *c = &u->chain.exit[e];
	const struct stay *y = x->main;
	const struct attempt *a = stay_link_in_use(y);
	*ret = x->info;
	ret->name = x->is.conf->name;
	ret->state = relay_is_up(y) ? "relayed" : state_of(c);
	ret->via = relay_is_up(y) ? a->via->is.conf->name : "";
	ret->in_use = e == u->chain.use;
	ret->came = x->info.came ? x->info.came : "";
	ret->healthy = cli_chain_is_healthy(&u->chain, e);
	ret->carrier = a ? sp_carrier_kind_word(
				   attempt_at(a)->is.conf->carriers[a->carrier].kind)
			 : "";
	ret->tickets = y->n_tickets;
	ret->spare = spare_is_ready(y);
	ret->state_since_ms = cli_chain_is_healthy(&u->chain, e) ? c->healthy_since_ms
								 : c->unhealthy_since_ms;
	ret->has_session = y->session != NULL;
	if (y->session)
		memcpy(ret->session, sp_session_id(y->session), sizeof(ret->session));
	if (a) {
		struct sp_target t;
		sp_target_from_sockaddr((const struct sockaddr *)&a->addr, &t);
		sp_target_format(&t, ret->address, sizeof(ret->address));
	}
	exit_stats(x, &ret->stats);
}
