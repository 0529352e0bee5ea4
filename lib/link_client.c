// The client's side of a link before it is in use.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/frame.h"
#include "lib/link_internal.h"

static struct link_dial *dial_copy(const struct sp_link_dial *d)
{
	struct link_dial *c;

	c = calloc(1, sizeof(*c) + d->pass_len);
	if (!c)
		return NULL;
	memcpy(c->worker_public, d->worker_public, sizeof(c->worker_public));
	c->skew_ms = d->clock_skew_ms;
	if (d->ticket) {
		c->ticket_len = d->ticket_len;
		memcpy(c->ticket, d->ticket, d->ticket_len);
		memcpy(c->ticket_psk, d->ticket_psk, sizeof(c->ticket_psk));
		return c;
	}
	memcpy(c->device_secret, d->device_secret, sizeof(c->device_secret));
	memcpy(c->device_public, d->device_public, sizeof(c->device_public));
	c->pass_len = d->pass_len;
	if (d->pass_len)
		memcpy(c->pass, d->pass, d->pass_len);
	return c;
}

static void dial_free(struct link_dial *c)
{
	if (!c)
		return;
	sp_hs_client_done(&c->hs);
	sodium_memzero(c, sizeof(*c) + c->pass_len);
	free(c);
}

void link_client_done(struct sp_link *l)
{
	dial_free(l->dial);
	l->dial = NULL;
}

int sp_link_dial(struct sp_link_env *env, const struct sp_link_dial *d,
		 struct sp_link **ret)
{
	struct link_dial *copy = NULL;
	struct sp_carrier *c = NULL;
	struct sp_link *l = NULL;
	int err = sp_carrier_connect(&d->carrier, &c);

	if (!err && env->closing)
		err = SP_E_CLOSED;
	if (!err && (d->ticket_len > SP_HS_TICKET_MAX || d->pass_len > SP_HS_FLIGHT_MAX))
		err = SP_E_LIMIT;
	if (!err && !(copy = dial_copy(d)))
		err = -ENOMEM;
	if (!err)
		err = link_new(env, c, d->ctx, &l);
	if (err) {
		sp_carrier_free(c);
		dial_free(copy);
		return err;
	}
	sp_carrier_tune(c);
	l->client = d->ops;
	l->dial = copy;
	l->session = d->session;
	l->slot = (uint8_t)d->slot;
	l->attach_flags = d->attach_flags;
	link_start(l);
	link_enlist(l, &env->dials, l->since_us + (uint64_t)d->timeout_ms * 1000);
	*ret = l;
	return 0;
}

static void attach(struct sp_link *l)
{
	uint64_t now = sp_loop_now_us(l->env->opt.loop);

	l->attached = true;
	if (l->attach_flags & SP_ATTACH_SPARE) {
		sp_session_attach_spare(l->session, l->slot, &link_slot_ops, l, now);
		return;
	}
	sp_session_attach_client(l->session, l->slot, &link_slot_ops, l, now);
	sp_session_attach_flags(l->session, l->slot, l->attach_flags);
}

void link_client_carrier_up(struct sp_link *l)
{
	struct link_dial *d = l->dial;
	struct sp_link_env *env = l->env;
	uint8_t frames[SP_HS_FRAMES_MAX];
	struct sp_hs_client_options opt = {
		.worker_public = d->worker_public,
		.suites = sp_aead_suites(),
		.device_secret = d->device_secret,
		.device_public = d->device_public,
		.pass = d->pass,
		.pass_len = d->pass_len,
		.now_ms = sp_loop_unix_ms(env->opt.loop) + (uint64_t)d->skew_ms,
	};
	int n;

	l->state = LINK_FLIGHT;
	if (d->ticket_len) {
		attach(l);
		opt.ticket = d->ticket;
		opt.ticket_len = d->ticket_len;
		opt.ticket_psk = d->ticket_psk;
		opt.frames = frames;
		opt.frames_len =
			sp_session_hello(l->session, l->slot, frames, sizeof(frames),
					 sp_loop_now_us(env->opt.loop));
	}
	l->ticket_used = true;
	n = sp_hs_client_start(&d->hs, &opt, env->out, SP_HS_FLIGHT_MAX);
	if (n < 0)
		link_end(l, n == SP_E_LIMIT ? SP_REASON_MALFORMED : SP_REASON_INTERNAL);
	else
		(void)!link_queue(l, env->out, (size_t)n);
}

// Keeps what the answer said beside the keys.
static int take_result(struct sp_link *l, const struct sp_hs_result *res)
{
	l->ticket_psk = malloc(sizeof(res->keys.ticket_psk));
	if (!l->ticket_psk)
		return -ENOMEM;
	memcpy(l->ticket_psk, res->keys.ticket_psk, sizeof(res->keys.ticket_psk));
	return link_set_keys(l, &res->keys);
}

size_t link_client_answer(struct sp_link *l, const uint8_t *buf, size_t len)
{
	struct sp_hs_result res;
	bool resume = l->dial->ticket_len != 0;
	int n = sp_hs_client_finish(&l->dial->hs, buf, len, &res);

	if (n == SP_E_AGAIN)
		return 0;
	if (n < 0) {
		link_end(l, SP_REASON_HANDSHAKE);
		return len;
	}
	if (res.entry)
		l->ticket_used = false;
	if (res.refuse != SP_REASON_TICKET && !res.entry) {
		l->boot_id = res.boot_id;
		l->home_id = res.home_id;
		l->skew_ms = (int64_t)(res.time_ms - sp_loop_unix_ms(l->env->opt.loop));
	}
	if (res.refuse != SP_REASON_NONE)
		link_end(l, res.refuse);
	else if (take_result(l, &res))
		link_end(l, SP_REASON_NO_MEMORY);
	sp_hs_keys_wipe(&res.keys);
	if (l->ended)
		return len;
	l->state = LINK_ATTACH;
	if (!resume)
		attach(l);
	return (size_t)n;
}

bool link_client_sees_attached(const uint8_t *plain, size_t len)
{
	struct sp_reader r;
	struct sp_frame f;

	sp_reader_init(&r, plain, len);
	while (sp_reader_left(&r) && !sp_frame_get(&r, &f))
		if (f.type == SP_FRAME_ATTACHED)
			return true;
	return false;
}

int sp_link_ticket_psk(const struct sp_link *l, unsigned index, uint8_t *ret_psk)
{
	if (!l->ticket_psk || index >= SP_HS_TICKETS)
		return -EINVAL;
	memcpy(ret_psk, l->ticket_psk[index], sizeof(l->ticket_psk[index]));
	return 0;
}

bool sp_link_ticket_holds(const struct sp_link *l)
{
	return !l->ticket_used;
}

int64_t sp_link_clock_skew_ms(const struct sp_link *l)
{
	return l->skew_ms;
}

uint64_t sp_link_boot_id(const struct sp_link *l)
{
	return l->boot_id;
}

uint64_t sp_link_home_id(const struct sp_link *l)
{
	return l->home_id;
}
