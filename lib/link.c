// Links from birth to burial: the environment, lists and times, the one place where a
// link works.
#include "lib/link.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/link_internal.h"

// ---- lists and the timer ----

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void set_timer(struct sp_link_env *env)
{
	struct sp_link *l = TAILQ_FIRST(&env->fresh);
	uint64_t at = l ? l->deadline_us : SP_LOOP_NEVER;

	if ((l = TAILQ_FIRST(&env->timed)))
		at = min64(at, l->deadline_us);
	if ((l = TAILQ_FIRST(&env->lingering)))
		at = min64(at, l->deadline_us);
	TAILQ_FOREACH(l, &env->dials, entry)
	at = min64(at, l->deadline_us);
	sp_timer_set(&env->timer, at);
}

static bool is_half_open(const struct sp_link_env *env, const struct link_list *list)
{
	return list == &env->fresh || list == &env->patient || list == &env->timed ||
	       list == &env->dials;
}

void link_enlist(struct sp_link *l, struct link_list *list, uint64_t deadline_us)
{
	struct sp_link_env *env = l->env;

	if (l->list) {
		TAILQ_REMOVE(l->list, l, entry);
		env->n.half_open -= is_half_open(env, l->list);
		env->n.lingering -= l->list == &env->lingering;
	}
	l->list = list;
	l->deadline_us = deadline_us;
	if (list) {
		TAILQ_INSERT_TAIL(list, l, entry);
		env->n.half_open += is_half_open(env, list);
		env->n.lingering += list == &env->lingering;
	}
	set_timer(env);
}

static void tell_silence(struct sp_link *l)
{
	link_enlist(l, &l->env->patient, SP_LOOP_NEVER);
	l->waiting = l->worker->silent(l->ctx, l);
}

// The end is near: link_work sees to it.
static void linger(struct sp_link *l)
{
	uint64_t now = sp_loop_now_us(l->env->opt.loop);

	link_enlist(l, &l->env->lingering, now + LINK_LINGER_US);
	sp_loop_defer(l->env->opt.loop, &l->work);
}

// A process that was stopped may get here before it told anybody of the end.
static void linger_over(struct sp_link *l)
{
	if (l->finished)
		link_bury(l);
	else
		linger(l);
}

static void on_timer(void *arg)
{
	struct sp_link_env *env = arg;
	uint64_t now = sp_loop_now_us(env->opt.loop);
	struct sp_link *l, *next;

	while ((l = TAILQ_FIRST(&env->fresh)) && l->deadline_us <= now)
		tell_silence(l);
	while ((l = TAILQ_FIRST(&env->timed)) && l->deadline_us <= now)
		link_end(l, SP_REASON_TIMEOUT);
	for (l = TAILQ_FIRST(&env->dials); l; l = next) {
		next = TAILQ_NEXT(l, entry);
		if (l->deadline_us <= now)
			link_end(l, SP_REASON_TIMEOUT);
	}
	while ((l = TAILQ_FIRST(&env->lingering)) && l->deadline_us <= now)
		linger_over(l);
	set_timer(env);
}

// ---- the end ----

void link_defer(struct sp_link *l)
{
	sp_loop_defer(l->env->opt.loop, &l->work);
}

void link_end(struct sp_link *l, enum sp_reason reason)
{
	if (l->ended)
		return;
	l->ended = true;
	l->reason = reason;
	linger(l);
}

static enum sp_reason reason_of(const struct sp_link *l, int err)
{
	switch (err) {
	case -ECONNREFUSED:
		return SP_REASON_REFUSED;
	case -ETIMEDOUT:
		return SP_REASON_TIMEOUT;
	case -ENETUNREACH:
	case -EHOSTUNREACH:
		return SP_REASON_UNREACHABLE;
	case SP_E_AUTH:
	case SP_E_PROTOCOL:
		return SP_REASON_TLS;
	case SP_E_CLOSED:
		return l->state == LINK_CARRIER ? SP_REASON_TLS : SP_REASON_CLOSED;
	case -ENOMEM:
		return SP_REASON_NO_MEMORY;
	default:
		return SP_REASON_CARRIER_RESET;
	}
}

// After a failure of TLS the alert is out and the socket can still end in order.
void link_fail(struct sp_link *l, int err)
{
	l->failed = err != SP_E_AUTH && err != SP_E_PROTOCOL && err != SP_E_CLOSED;
	if (!l->failed)
		l->keyed = false;
	link_end(l, reason_of(l, err));
}

void link_release_event(struct sp_link *l)
{
	if (l->has_event)
		event_del(&l->ev);
	l->has_event = false;
	if (l->carrier)
		sp_carrier_on_ready(l->carrier, NULL, NULL);
}

static void on_reap(struct sp_deferred *d)
{
	struct sp_link *l =
		(struct sp_link *)((char *)d - offsetof(struct sp_link, reap));

	sodium_memzero(l, sizeof(*l));
	free(l);
}

// What only the time before LINK_RUN needs.
static void free_setup(struct sp_link *l)
{
	link_client_done(l);
	if (l->accept)
		sodium_memzero(l->accept, sizeof(*l->accept));
	free(l->accept);
	l->accept = NULL;
}

void link_bury(struct sp_link *l)
{
	struct sp_link_env *env = l->env;

	link_enlist(l, NULL, SP_LOOP_NEVER);
	TAILQ_REMOVE(&env->all, l, all);
	sp_loop_defer_cancel(&l->work);
	link_release_event(l);
	sp_carrier_free(l->carrier);
	l->carrier = NULL;
	free_setup(l);
	if (l->ticket_psk)
		sodium_memzero(l->ticket_psk, SP_HS_TICKETS * sizeof(*l->ticket_psk));
	free(l->ticket_psk);
	link_buf_free(&l->rbuf);
	link_buf_free(&l->wbuf);
	link_buf_free(&l->held);
	sp_record_tx_done(&l->tx);
	sp_record_rx_done(&l->rx);
	env->n.closed++;
	sp_loop_reap(env->opt.loop, &l->reap);
}

static void drop_waiting(struct sp_link *l)
{
	void *waiting = l->waiting;

	l->waiting = NULL;
	if (waiting)
		l->worker->silent_over(l->ctx, waiting);
}

// Tells engine and program; what is left to do is between the link and the wire.
static void finish(struct sp_link *l)
{
	struct sp_link_env *env = l->env;

	l->finished = true;
	if (l->attached) {
		l->attached = false;
		sp_session_detach(l->session, l->slot, l, sp_loop_now_us(env->opt.loop));
		sp_session_clock_touch(env->opt.clock, l->session);
	}
	drop_waiting(l);
	link_buf_free(&l->held);
	if (l->state == LINK_RUN)
		env->n.live--;
	if (l->keyed && !l->failed && !l->peer_closed)
		link_queue_close(l);
	l->state = LINK_FLUSH;
	env->n.ended[l->reason <= SP_REASON__LAST ? l->reason : SP_REASON_INTERNAL]++;
	if (l->stranger)
		return;
	if (l->client)
		l->client->down(l->ctx, l, l->reason);
	else
		l->worker->down(l->ctx, l, l->reason);
	l->session = NULL;
	free_setup(l);
}

// Sends what is left, then FIN, and reads until the peer's: closing with something unread
// would be a reset.
static void wind_up(struct sp_link *l)
{
	if (!l->failed && !l->peer_fin)
		link_read(l);
	if (!l->failed && l->state == LINK_FLUSH && link_flush(l) && !l->failed) {
		int err = sp_carrier_shutdown(l->carrier);
		l->failed = err && err != -EAGAIN;
		if (!err)
			l->state = LINK_DRAIN;
	}
	if (l->failed || (l->peer_fin && l->state == LINK_DRAIN))
		link_bury(l);
}

// ---- work ----

static void go_on(struct sp_link *l)
{
	if (l->estranged && l->state <= LINK_FLIGHT) {
		link_worker_stranger(l, SP_REASON_IDLE, NULL, 0);
		return;
	}
	if (l->state == LINK_CARRIER) {
		int err = sp_carrier_handshake(l->carrier);
		if (err == -EAGAIN)
			return;
		if (err)
			link_fail(l, err);
		else if (l->client)
			link_client_carrier_up(l);
		else
			link_worker_carrier_up(l);
	}
	if (!l->ended && l->carrier)
		link_read(l);
	if (!l->ended && l->carrier)
		link_flush_output(l);
}

static void link_work(struct sp_deferred *d)
{
	struct sp_link *l =
		(struct sp_link *)((char *)d - offsetof(struct sp_link, work));

	(void)sp_loop_now_us(l->env->opt.loop); // the engine's clock
	l->working = true;
	if (l->ready)
		l->can_read = l->can_write = true;
	l->ready = false;
	if (!l->ended)
		go_on(l);
	l->working = false;
	if (!l->carrier) { // given away
		link_bury(l);
		return;
	}
	if (l->attached)
		sp_session_clock_touch(l->env->opt.clock, l->session);
	if (l->ended && !l->finished)
		finish(l);
	if (l->finished)
		wind_up(l);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct sp_link *l = arg;
	bool tls = sp_carrier_kind(l->carrier) == SP_CARRIER_TLS;

	(void)fd;
	l->can_read |= tls || (what & EV_READ);
	l->can_write |= tls || (what & EV_WRITE);
	link_defer(l);
}

static void on_ready(void *arg)
{
	struct sp_link *l = arg;

	l->ready = true;
	link_defer(l);
}

// ---- the engine's side ----

static void slot_wake(void *arg)
{
	struct sp_link *l = arg;

	l->want_output = true;
	if (l->keyed && l->can_write && !l->working)
		link_defer(l);
}

static void slot_close(void *arg, enum sp_reason reason)
{
	struct sp_link *l = arg;

	l->attached = false;
	l->session = NULL;
	link_end(l, reason);
}

const struct sp_slot_ops link_slot_ops = {.wake = slot_wake, .close = slot_close};

// ---- birth ----

int link_new(struct sp_link_env *env, struct sp_carrier *c, void *ctx,
	     struct sp_link **ret)
{
	struct sp_link *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->env = env;
	l->carrier = c;
	l->ctx = ctx;
	l->batch = LINK_BATCH_MIN;
	l->can_read = l->can_write = true;
	l->work.run = link_work;
	l->reap.run = on_reap;
	l->since_us = sp_loop_now_us(env->opt.loop);
	if (sp_carrier_fd(c) < 0) {
		sp_carrier_on_ready(c, on_ready, l);
	} else if (event_assign(&l->ev, sp_loop_base(env->opt.loop), sp_carrier_fd(c),
				EV_READ | EV_WRITE | EV_ET | EV_PERSIST, on_event, l) ||
		   event_add(&l->ev, NULL)) {
		free(l);
		return -ENOMEM;
	} else {
		l->has_event = true;
	}
	*ret = l;
	return 0;
}

void link_start(struct sp_link *l)
{
	l->env->n.opened++;
	TAILQ_INSERT_TAIL(&l->env->all, l, all);
	link_defer(l);
}

void link_established(struct sp_link *l)
{
	l->state = LINK_RUN;
	l->env->n.established++;
	l->env->n.live++;
	link_enlist(l, NULL, SP_LOOP_NEVER);
	free_setup(l);
	if (l->client)
		l->client->up(l->ctx, l);
}

// ---- public ----

int sp_link_env_new(const struct sp_link_env_options *opt, struct sp_link_env **ret)
{
	struct sp_link_env *env = calloc(1, sizeof(*env));

	if (!env)
		return -ENOMEM;
	env->opt = *opt;
	TAILQ_INIT(&env->all);
	TAILQ_INIT(&env->fresh);
	TAILQ_INIT(&env->patient);
	TAILQ_INIT(&env->timed);
	TAILQ_INIT(&env->dials);
	TAILQ_INIT(&env->lingering);
	sp_timer_init(&env->timer, opt->loop, on_timer, env);
	*ret = env;
	return 0;
}

void sp_link_env_free(struct sp_link_env *env)
{
	struct sp_link *l;

	if (!env)
		return;
	env->closing = true;
	while ((l = TAILQ_FIRST(&env->all))) {
		link_end(l, SP_REASON_SHUTDOWN);
		if (!l->finished)
			finish(l);
		// One try: FIN goes out behind what the socket takes at once.
		if (!l->failed && link_flush(l) && !l->failed)
			(void)!sp_carrier_shutdown(l->carrier);
		link_bury(l);
	}
	sp_timer_done(&env->timer);
	sp_hs_worker_done(&env->hs);
	sodium_memzero(env, sizeof(*env));
	free(env);
}

const struct sp_link_counters *sp_link_env_counters(const struct sp_link_env *env)
{
	return &env->n;
}

void sp_link_close(struct sp_link *l, enum sp_reason reason)
{
	link_end(l, reason);
}

struct sp_session *sp_link_session(const struct sp_link *l)
{
	return l->session;
}

unsigned sp_link_slot(const struct sp_link *l)
{
	return l->slot;
}

void *sp_link_ctx(const struct sp_link *l)
{
	return l->ctx;
}

const struct sp_carrier *sp_link_carrier(const struct sp_link *l)
{
	return l->carrier;
}
