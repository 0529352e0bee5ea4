// The worker's side of a link before it is in use: whom it lets in.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/link_internal.h"

static uint64_t handshake_deadline(const struct sp_link *l)
{
	return sp_loop_now_us(l->env->opt.loop) +
	       (uint64_t)l->env->opt.handshake_ms * 1000;
}

static bool has_cover(const struct sp_link *l)
{
	return l->kind == SP_CARRIER_TLS && l->worker->stranger;
}

static void close_oldest(struct sp_link_env *env)
{
	struct link_list *lists[] = {&env->fresh, &env->patient, &env->timed};
	struct sp_link *oldest = NULL;

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		struct sp_link *l = TAILQ_FIRST(lists[i]);
		if (l && (!oldest || l->since_us < oldest->since_us))
			oldest = l;
	}
	if (oldest)
		link_end(oldest, SP_REASON_PRESSURE);
}

// Whoever is sent away stays a while, with descriptor and all, for an end in order. Of
// too many the one that ended first goes at once.
static void hurry_lingering(struct sp_link_env *env)
{
	struct sp_link *l;

	while (env->n.lingering > env->opt.max_half_open &&
	       (l = TAILQ_FIRST(&env->lingering)) && l->finished)
		link_bury(l);
}

int sp_link_accept(struct sp_link_env *env, struct sp_carrier *c,
		   const struct sp_link_worker_ops *ops, void *ctx, struct sp_link **ret)
{
	struct sp_link *l;
	int err = link_new(env, c, ctx, &l);

	if (err) {
		sp_carrier_free(c);
		return err;
	}
	l->worker = ops;
	l->kind = (uint8_t)sp_carrier_kind(c);
	if (env->n.half_open >= env->opt.max_half_open)
		close_oldest(env);
	hurry_lingering(env);
	link_start(l);
	if (has_cover(l) && ops->silent)
		link_enlist(l, &env->fresh, l->since_us + LINK_SILENT_US);
	else
		link_enlist(l, &env->timed, handshake_deadline(l));
	*ret = l;
	return 0;
}

void sp_link_estrange(struct sp_link *l)
{
	l->estranged = true;
	link_defer(l);
}

void link_worker_carrier_up(struct sp_link *l)
{
	l->state = LINK_FLIGHT;
	// A tls carrier that turned into plain TCP: nothing of it was read.
	if (sp_carrier_kind(l->carrier) != l->kind)
		link_worker_stranger(l, SP_REASON_NOT_TLS, NULL, 0);
}

void link_worker_stranger(struct sp_link *l, enum sp_reason why, const uint8_t *buf,
			  size_t len)
{
	struct sp_carrier *c = l->carrier;
	void *waiting = l->waiting;

	l->env->n.strangers[why]++;
	l->stranger = true;
	l->waiting = NULL;
	if (l->kind == SP_CARRIER_RELAY) { // the entry sees to what it looks like
		l->failed = true;
		link_end(l, why);
	}
	if (!has_cover(l)) {
		// The timer of the handshake goes on, the same for every cause.
		l->state = LINK_DISCARD;
		if (l->worker->stranger)
			l->worker->stranger(l->ctx, NULL, why, NULL, 0, NULL);
		return;
	}
	link_release_event(l);
	l->carrier = NULL;
	l->worker->stranger(l->ctx, c, why, buf, len, waiting);
}

// ---- the first flight ----

static void drop_waiting(struct sp_link *l)
{
	void *waiting = l->waiting;

	l->waiting = NULL;
	if (waiting)
		l->worker->silent_over(l->ctx, waiting);
}

static void add_tickets(struct sp_link *l)
{
	for (unsigned i = 0; i < SP_HS_TICKETS; i++) {
		uint8_t ticket[SP_HS_TICKET_MAX];
		uint32_t lifetime_s = 0;
		int n = l->worker->make_ticket(l->ctx, l->session,
					       l->accept->ticket_psk[i], ticket,
					       sizeof(ticket), &lifetime_s);
		if (n <= 0 || sp_session_add_ticket(l->session, l->slot, lifetime_s,
						    ticket, (size_t)n))
			return;
	}
}

// Joins the session that ATTACH, at the start of `frames`, names. Its length; 0: ended,
// or (a first contact) `attach` wants to be asked again.
static size_t attach(struct sp_link *l, const uint8_t *frames, size_t len)
{
	struct sp_session *session = NULL;
	struct sp_attach at;
	enum sp_reason why;
	bool fresh = false;
	int n = sp_attach_parse(frames, len, &at);

	if (n < 0) {
		link_end(l, SP_REASON_PROTOCOL);
		return 0;
	}
	why = l->worker->attach(l->ctx, l, &l->accept->who, &at, &session, &fresh);
	if (why != SP_REASON_NONE) {
		link_end(l, why);
		return 0;
	}
	if (!session) {
		if (l->accept->who.kind != SP_HS_FIRST_CONTACT)
			link_end(l, SP_REASON_INTERNAL);
		else if (!l->held.p && link_buf_append(&l->held, frames, len))
			link_end(l, SP_REASON_NO_MEMORY);
		return 0;
	}
	l->session = session; // `down`, at the end of this link_work, may ask for it
	if (sp_session_attach_worker(session, &at, fresh, &link_slot_ops, l,
				     sp_loop_now_us(l->env->opt.loop))) {
		link_end(l, SP_REASON_STALE_EPOCH);
		return 0;
	}
	l->slot = at.slot;
	l->attached = true;
	add_tickets(l);
	return (size_t)n;
}

void link_worker_first_record(struct sp_link *l, const uint8_t *plain, size_t len)
{
	uint64_t now = sp_loop_now_us(l->env->opt.loop);
	enum sp_reason reason = SP_REASON_NONE;
	bool rekey = false;
	size_t n = attach(l, plain, len);

	if (!n)
		return;
	if (sp_session_input(l->session, l->slot, plain + n, len - n, now, &rekey,
			     &reason))
		link_end(l, reason != SP_REASON_NONE ? reason : SP_REASON_CLOSED);
	else if (rekey && sp_record_rx_rekey(&l->rx))
		link_end(l, SP_REASON_INTERNAL);
	if (!l->ended)
		link_established(l);
}

void link_worker_attach_again(struct sp_link *l)
{
	struct link_buf first = l->held;

	l->again = false;
	link_worker_first_record(l, first.p, first.len);
	if (!l->attached && !l->ended) // not yet
		return;
	l->held = (struct link_buf){0};
	l->again = true;
	link_buf_free(&first);
}

void sp_link_attach_again(struct sp_link *l)
{
	if (!l->held.p)
		return;
	l->again = true;
	link_defer(l);
}

static void resume(struct sp_link *l, const uint8_t *frames, size_t len)
{
	size_t n = attach(l, frames, len);

	if (!n)
		return;
	if (sp_session_input_hello(l->session, l->slot, frames + n, len - n,
				   sp_loop_now_us(l->env->opt.loop)))
		link_end(l, SP_REASON_PROTOCOL);
	else
		link_established(l);
}

static void ticket_gone(struct sp_link *l)
{
	int n = sp_hs_worker_ticket_gone(l->env->out, SP_HS_ANSWER_MAX);

	if (n > 0)
		(void)!link_queue(l, l->env->out, (size_t)n);
	link_end(l, SP_REASON_TICKET);
}

// An authentic flight: answers it, and acts on it if it is a resume.
static void welcome(struct sp_link *l, struct sp_hs_worker *w)
{
	struct sp_link_env *env = l->env;
	struct sp_hs_keys keys = {0};
	int n;

	sp_carrier_tune(l->carrier);
	enum sp_reason refuse = l->worker->admit(l->ctx, l, &l->accept->who);
	if (w->refuse != SP_REASON_NONE)
		refuse = w->refuse;
	if (refuse == SP_REASON_TICKET) {
		ticket_gone(l);
		return;
	}
	n = sp_hs_worker_answer(w, env->opt.worker_keys, refuse,
				sp_loop_unix_ms(env->opt.loop), env->out,
				SP_HS_ANSWER_MAX, &keys);
	if (n < 0) {
		link_end(l, SP_REASON_INTERNAL);
		return;
	}
	if (link_queue(l, env->out, (size_t)n))
		return;
	if (refuse != SP_REASON_NONE) {
		link_end(l, refuse);
		return;
	}
	memcpy(l->accept->ticket_psk, keys.ticket_psk, sizeof(keys.ticket_psk));
	if (link_set_keys(l, &keys))
		link_end(l, SP_REASON_INTERNAL);
	sp_hs_keys_wipe(&keys);
	if (l->ended)
		return;
	l->state = LINK_ATTACH;
	link_enlist(l, &env->timed, handshake_deadline(l));
	if (l->accept->who.kind == SP_HS_RESUME)
		resume(l, w->frames, w->frames_len);
}

static struct sp_carrier *give_away(struct sp_link *l)
{
	struct sp_carrier *c = l->carrier;

	link_release_event(l);
	l->carrier = NULL;
	l->stranger = true; // no `down`
	sp_carrier_tune(c);
	return c;
}

// An authentic flight for another home.
static void relay(struct sp_link *l, struct sp_hs_worker *w, const uint8_t *buf)
{
	int n;

	if (l->worker->relay) {
		uint64_t home_id = w->hint.home_id;

		l->worker->relay(l->ctx, give_away(l), home_id, buf, w->consumed);
		return;
	}
	n = sp_hs_entry_refuses(SP_REASON_UNREACHABLE, l->env->out, SP_HS_ANSWER_MAX);
	if (n > 0)
		(void)!link_queue(l, l->env->out, (size_t)n);
	link_end(l, SP_REASON_UNREACHABLE);
}

// An authentic flight of another worker of the fleet.
static void trunk(struct sp_link *l, struct sp_hs_worker *w)
{
	struct sp_link_env *env = l->env;
	struct sp_hs_keys keys = {0};
	uint8_t member[32];
	int n = sp_hs_worker_answer(w, env->opt.worker_keys, SP_REASON_NONE,
				    sp_loop_unix_ms(env->opt.loop), env->out,
				    SP_HS_ANSWER_MAX, &keys);

	if (n < 0) {
		link_end(l, SP_REASON_INTERNAL);
		return;
	}
	memcpy(member, l->accept->who.device, sizeof(member));
	l->worker->trunk(l->ctx, give_away(l), member, &keys, env->out, (size_t)n);
	sp_hs_keys_wipe(&keys);
}

static bool judge(struct sp_link *l, const uint8_t *buf, size_t len, int *ret_err)
{
	struct sp_link_env *env = l->env;
	struct sp_hs_judge in = {
		.keys = env->opt.worker_keys,
		.replay = env->opt.replay,
		.budget = env->opt.budget,
		.source = sp_carrier_peer(l->carrier),
		.now_ms = sp_loop_unix_ms(env->opt.loop),
		.mono_ms = sp_loop_now_ms(env->opt.loop),
		.is_member = l->worker->trunk ? env->opt.is_member : NULL,
		.member_ctx = env->opt.member_ctx,
	};

	if (!l->accept)
		l->accept = calloc(1, sizeof(*l->accept));
	if (!l->accept)
		return false;
	*ret_err = sp_hs_worker_judge(&env->hs, &in, buf, len, &l->accept->who);
	return true;
}

size_t link_worker_flight(struct sp_link *l, const uint8_t *buf, size_t len)
{
	struct sp_hs_worker *w = &l->env->hs;
	bool tls = sp_carrier_kind(l->carrier) == SP_CARRIER_TLS;
	size_t used;
	int err;

	if (!judge(l, buf, len, &err)) {
		link_end(l, SP_REASON_NO_MEMORY);
		return len;
	}
	if (err == SP_E_AGAIN && !tls)
		return 0;
	if (err || w->verdict == SP_HS_STRANGER) {
		link_worker_stranger(l, err ? SP_REASON_MALFORMED : w->why, buf, len);
		sp_hs_worker_done(w);
		return len;
	}
	drop_waiting(l);
	used = w->consumed;
	if (w->verdict == SP_HS_TICKET_GONE)
		ticket_gone(l);
	else if (w->verdict == SP_HS_RELAY)
		relay(l, w, buf);
	else if (l->accept->who.kind == SP_HS_TRUNK)
		trunk(l, w);
	else
		welcome(l, w);
	sp_hs_worker_done(w);
	return l->ended || !l->carrier ? len : used;
}
