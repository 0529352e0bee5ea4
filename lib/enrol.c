#include "lib/enrol.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/enroltoken.h"
#include "proto/fleet.pb-c.h"

#define TIMEOUT_MS 15000

struct exchange {
	struct sp_loop *loop;
	struct sp_bus_client *bus;
	const struct sp_enrol_request *req;
	struct sp_enroltoken token;
	struct sp_timer end;
	struct sp_enrolled *ret;
	uint8_t *ret_route;
	bool up;
	int err;
	char *why;
	size_t cap;
};

// `detail` follows `text`.
static void finish(struct exchange *x, int err, const char *text, const char *detail)
{
	x->err = err;
	if (err)
		snprintf(x->why, x->cap, "%s%s", text, detail);
	sp_loop_stop(x->loop);
}

static void send_request(struct exchange *x)
{
	Sallyport__Fleet__ToController m = SALLYPORT__FLEET__TO_CONTROLLER__INIT;
	Sallyport__Fleet__Enrol e = SALLYPORT__FLEET__ENROL__INIT;
	uint8_t buf[SP_ENROLTOKEN_TEXT_MAX + 512];
	e.token = (char *)x->req->token;
	e.node = x->token.node;
	e.control_key.data = (uint8_t *)x->req->control->public_key;
	e.static_key.data = (uint8_t *)x->req->own_public;
	e.control_key.len = e.static_key.len = 32;
	e.program = (char *)x->req->program;
	m.version = 1;
	m.call = 1;
	m.body_case = SALLYPORT__FLEET__TO_CONTROLLER__BODY_ENROL;
	m.enrol = &e;
	size_t len = sallyport__fleet__to_controller__get_packed_size(&m);
	if (len > sizeof(buf)) {
		finish(x, SP_E_MALFORMED, "the token is too long", "");
		return;
	}
	sallyport__fleet__to_controller__pack(&m, buf);
	int err = sp_bus_client_send(x->bus, buf, len);
	sodium_memzero(buf, sizeof(buf));
	if (err && err != -EAGAIN)
		finish(x, err, "cannot send: ", sp_strerror(err));
}

static void on_up(void *ctx, unsigned at)
{
	struct exchange *x = ctx;
	(void)at;
	x->up = true;
	send_request(x);
}

static void on_down(void *ctx, unsigned at, const char *why)
{
	struct exchange *x = ctx;
	(void)at;
	x->up = false;
	if (strcmp(why, "refused") == 0)
		finish(x, SP_E_AUTH,
		       "the controller refused the link: it takes no enrolments now, "
		       "or "
		       "it is another one than the token's",
		       "");
}

static int take_keys(struct exchange *x, const Sallyport__Fleet__EnrolAnswer *a)
{
	struct sp_enrolled *e = x->ret;
	if (!a->n_signing_keys || a->controller_key.len != SP_CONTROL_KEY_BYTES ||
	    (a->route_key.len && a->route_key.len != 32))
		return SP_E_MALFORMED;
	for (size_t i = 0; i < a->n_signing_keys; i++)
		if (a->signing_keys[i].len != 32 ||
		    sp_signed_keys_add(&e->signing, a->signing_keys[i].data))
			return SP_E_MALFORMED;
	memcpy(e->controller_key, a->controller_key.data, SP_CONTROL_KEY_BYTES);
	if (x->ret_route && a->route_key.len)
		memcpy(x->ret_route, a->route_key.data, 32);
	return 0;
}

static int take_answer(struct exchange *x, const Sallyport__Fleet__EnrolAnswer *a)
{
	struct sp_enrolled *e = x->ret;
	memset(e, 0, sizeof(*e));
	if (x->ret_route)
		memset(x->ret_route, 0, 32);
	strcpy(e->name, x->token.node);
	if (!a->n_router || a->n_router > SP_CONTROLLERS_MAX ||
	    a->n_router != a->n_publisher || take_keys(x, a))
		return SP_E_MALFORMED;
	for (size_t i = 0; i < a->n_router; i++) {
		struct sp_controller *c = &e->controllers[i];
		if (strlen(a->router[i]) >= sizeof(c->router) ||
		    strlen(a->publisher[i]) >= sizeof(c->publisher))
			return SP_E_MALFORMED;
		strcpy(c->router, a->router[i]);
		strcpy(c->publisher, a->publisher[i]);
	}
	e->n_controllers = (unsigned)a->n_router;
	return 0;
}

static void on_message(void *ctx, const void *data, size_t len)
{
	struct exchange *x = ctx;
	Sallyport__Fleet__FromController *m =
		sallyport__fleet__from_controller__unpack(NULL, len, data);
	if (m && m->body_case == SALLYPORT__FLEET__FROM_CONTROLLER__BODY_REFUSED)
		finish(x, SP_E_AUTH, "refused: ", m->refused->reason);
	else if (m && m->body_case == SALLYPORT__FLEET__FROM_CONTROLLER__BODY_ENROL &&
		 *m->enrol->reason)
		finish(x, SP_E_AUTH, "refused: ", m->enrol->reason);
	else if (!m || m->body_case != SALLYPORT__FLEET__FROM_CONTROLLER__BODY_ENROL ||
		 take_answer(x, m->enrol))
		finish(x, SP_E_MALFORMED, "the controller's answer makes no sense", "");
	else
		finish(x, 0, "", "");
	if (m)
		sallyport__fleet__from_controller__free_unpacked(m, NULL);
}

static void on_published(void *ctx, char topic, const void *data, size_t len)
{
	(void)ctx;
	(void)topic;
	(void)data;
	(void)len;
}

static void on_timeout(void *ctx)
{
	struct exchange *x = ctx;
	finish(x, -ETIMEDOUT,
	       x->up ? "no answer from "
		     : "no link (does this machine reach it, is the controller up?) to ",
	       x->token.enrol);
}

static int exchange(struct exchange *x)
{
	static const struct sp_bus_client_ops ops = {.up = on_up,
						     .down = on_down,
						     .message = on_message,
						     .published = on_published};
	struct sp_bus_address at = {0};
	struct sp_bus_client_options opt = {.loop = x->loop,
					    .keys = x->req->control,
					    .servers = &at,
					    .n_servers = 1,
					    .no_publishers = true,
					    .ops = &ops,
					    .ctx = x};
	uint32_t ms = x->req->timeout_ms ? x->req->timeout_ms : TIMEOUT_MS;
	strcpy(at.router, x->token.enrol);
	memcpy(at.key, x->token.controller_key, sizeof(at.key));
	sp_timer_init(&x->end, x->loop, on_timeout, x);
	sp_timer_set(&x->end, sp_loop_refresh(x->loop) + (uint64_t)ms * 1000);
	int err = sp_bus_client_new(&opt, &x->bus, x->why, x->cap);
	if (!err)
		err = sp_loop_run(x->loop);
	sp_bus_client_free(x->bus);
	sp_timer_done(&x->end);
	return err ? err : x->err;
}

int sp_enrol_run(const struct sp_enrol_request *req, struct sp_enrolled *ret,
		 uint8_t *ret_route, char *why, size_t cap)
{
	struct sp_enrolled e;
	uint8_t route[32];
	struct exchange x = {
		.req = req, .ret = &e, .ret_route = route, .why = why, .cap = cap};
	int err = sp_enroltoken_parse(req->token, strlen(req->token), &x.token, why, cap);
	if (err)
		return err;
	snprintf(why, cap, "out of memory");
	err = sp_loop_new(&x.loop);
	if (!err)
		err = exchange(&x);
	sp_loop_free(x.loop);
	if (!err) {
		*ret = e;
		if (ret_route)
			memcpy(ret_route, route, sizeof(route));
	}
	sodium_memzero(&x.token, sizeof(x.token));
	sodium_memzero(route, sizeof(route));
	return err;
}
