#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/bus_internal.h"
#include "lib/text.h"

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define ZAP_FRAMES   7 // version, request, domain, address, identity, mechanism, key
#define KEY_HEX      (2 * SP_BUS_KEY_BYTES)

struct sp_bus_server {
	void *zmq;
	struct sp_bus_keys keys;
	const struct sp_bus_server_ops *ops;
	void *ctx;
	struct bus_socket zap, pub, router[2]; // by domain
	char at_router[SP_BUS_ENDPOINT_MAX], at_pub[SP_BUS_ENDPOINT_MAX],
		at_enrol[SP_BUS_ENDPOINT_MAX];
	struct sp_bus_server_counters counters;
};

static const char *const domains[2] = {"fleet", "enrol"};

// Reads what is left of a message.
static void skip_frames(void *zmq, bool more)
{
	while (more) {
		zmq_msg_t m;
		zmq_msg_init(&m);
		if (zmq_msg_recv(&m, zmq, ZMQ_DONTWAIT) < 0)
			more = false;
		else
			more = zmq_msg_more(&m);
		zmq_msg_close(&m);
	}
}

// ---- who may connect: ZAP (ZeroMQ RFC 27) ----

static bool same_text(zmq_msg_t *m, const char *text)
{
	return zmq_msg_size(m) == strlen(text) &&
	       memcmp(zmq_msg_data(m), text, strlen(text)) == 0;
}

static bool judge(struct sp_bus_server *s, zmq_msg_t *f)
{
	char name[SP_BUS_NAME_MAX], address[SP_BUS_ADDRESS_MAX];
	const uint8_t *key = zmq_msg_data(&f[6]);
	if (!same_text(&f[0], "1.0") || !same_text(&f[5], "CURVE") ||
	    zmq_msg_size(&f[6]) != SP_BUS_KEY_BYTES)
		return false;
	if (same_text(&f[2], domains[SP_BUS_FLEET]))
		return s->ops->identify(s->ctx, key, name);
	if (!same_text(&f[2], domains[SP_BUS_ENROL]))
		return false;
	snprintf(address, sizeof(address), "%.*s", (int)zmq_msg_size(&f[3]),
		 (const char *)zmq_msg_data(&f[3]));
	if (s->ops->may_enrol && s->ops->may_enrol(s->ctx, address))
		return true;
	s->counters.enrol_refused++;
	return false;
}

static void answer_zap(struct sp_bus_server *s, zmq_msg_t *f, bool ok)
{
	char user[KEY_HEX + 1] = "";
	const char *code = ok ? "200" : "400", *text = ok ? "OK" : "not known here";
	if (ok)
		sp_hex_encode(zmq_msg_data(&f[6]), SP_BUS_KEY_BYTES, user, sizeof(user));
	void *z = s->zap.zmq;
	// inproc, one request at a time: these do not fail
	(void)zmq_send(z, "1.0", 3, ZMQ_SNDMORE);
	(void)zmq_send(z, zmq_msg_data(&f[1]), zmq_msg_size(&f[1]), ZMQ_SNDMORE);
	(void)zmq_send(z, code, 3, ZMQ_SNDMORE);
	(void)zmq_send(z, text, strlen(text), ZMQ_SNDMORE);
	(void)zmq_send(z, user, strlen(user), ZMQ_SNDMORE);
	(void)zmq_send(z, "", 0, 0);
}

static bool take_zap(void *owner)
{
	struct sp_bus_server *s = owner;
	zmq_msg_t f[ZAP_FRAMES];
	int n = 0;
	bool more = true;
	while (more && n < ZAP_FRAMES) {
		zmq_msg_init(&f[n]);
		if (zmq_msg_recv(&f[n], s->zap.zmq, ZMQ_DONTWAIT) < 0) {
			zmq_msg_close(&f[n]);
			break;
		}
		more = zmq_msg_more(&f[n]);
		n++;
	}
	if (n == 0)
		return false;
	skip_frames(s->zap.zmq, more && n == ZAP_FRAMES);
	bool ok = n == ZAP_FRAMES && judge(s, f);
	if (ok)
		s->counters.handshakes_ok++;
	else
		s->counters.handshakes_refused++;
	if (n > 1)
		answer_zap(s, f, ok);
	while (n > 0)
		zmq_msg_close(&f[--n]);
	return true;
}

// ---- messages ----

static void deliver(struct sp_bus_server *s, enum sp_bus_domain domain, zmq_msg_t *route,
		    zmq_msg_t *body)
{
	uint8_t key[SP_BUS_KEY_BYTES];
	char name[SP_BUS_NAME_MAX] = "";
	const char *user = zmq_msg_gets(body, "User-Id");
	const char *address = zmq_msg_gets(body, "Peer-Address");
	struct sp_bus_peer from = {.domain = domain,
				   .key = key,
				   .name = name,
				   .address = address ? address : "",
				   .route = zmq_msg_data(route),
				   .route_len = zmq_msg_size(route)};
	if (!user || sp_hex_decode(user, strlen(user), key, sizeof(key)) ||
	    (domain == SP_BUS_FLEET && !s->ops->identify(s->ctx, key, name))) {
		s->counters.messages_refused++;
		return;
	}
	s->counters.messages++;
	s->ops->message(s->ctx, &from, zmq_msg_data(body), zmq_msg_size(body));
}

static bool take_message(struct sp_bus_server *s, enum sp_bus_domain domain)
{
	zmq_msg_t route, body;
	void *z = s->router[domain].zmq;
	zmq_msg_init(&route);
	if (zmq_msg_recv(&route, z, ZMQ_DONTWAIT) < 0) {
		zmq_msg_close(&route);
		return false;
	}
	zmq_msg_init(&body);
	bool has_body = zmq_msg_more(&route) && zmq_msg_recv(&body, z, ZMQ_DONTWAIT) >= 0;
	if (!has_body || zmq_msg_more(&body)) {
		s->counters.malformed++;
		skip_frames(z, has_body);
	} else {
		deliver(s, domain, &route, &body);
	}
	zmq_msg_close(&route);
	zmq_msg_close(&body);
	return true;
}

static bool take_fleet(void *owner)
{
	return take_message(owner, SP_BUS_FLEET);
}

static bool take_enrol(void *owner)
{
	return take_message(owner, SP_BUS_ENROL);
}

static bool take_none(void *owner)
{
	(void)owner;
	return false; // a PUB socket receives nothing
}

void sp_bus_publish(struct sp_bus_server *s, char topic, const void *data, size_t len)
{
	if (zmq_send(s->pub.zmq, &topic, 1, ZMQ_SNDMORE | ZMQ_DONTWAIT) == 1 &&
	    zmq_send(s->pub.zmq, data, len, ZMQ_DONTWAIT) >= 0)
		s->counters.published++;
	bus_socket_again(&s->pub);
}

int sp_bus_send(struct sp_bus_server *s, enum sp_bus_domain domain, const uint8_t *route,
		size_t route_len, const void *data, size_t len)
{
	struct bus_socket *to = &s->router[domain];
	int err = 0;
	if (!to->zmq)
		return -EHOSTUNREACH;
	if (zmq_send(to->zmq, route, route_len, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0 ||
	    zmq_send(to->zmq, data, len, ZMQ_DONTWAIT) < 0)
		err = errno == EHOSTUNREACH ? -EHOSTUNREACH : -EAGAIN;
	if (err)
		s->counters.send_failed++;
	else
		s->counters.sent++;
	bus_socket_again(to);
	return err;
}

// ---- start and end ----

static int open_one(struct sp_bus_server *s, struct sp_loop *loop,
		    struct bus_socket *sock, int type, const char *endpoint,
		    enum sp_bus_domain domain, bool (*take)(void *owner), char *ret_at)
{
	size_t len = SP_BUS_ENDPOINT_MAX;
	int err = bus_socket_open(sock, loop, s->zmq, type, take, s);
	if (!err)
		err = bus_socket_options(sock, SP_BUS_MESSAGE_MAX, endpoint);
	if (!err)
		err = bus_socket_int(sock, ZMQ_CURVE_SERVER, 1);
	if (!err && type == ZMQ_ROUTER)
		err = bus_socket_int(sock, ZMQ_ROUTER_MANDATORY, 1);
	if (!err && (zmq_setsockopt(sock->zmq, ZMQ_CURVE_SECRETKEY, s->keys.secret_key,
				    SP_BUS_KEY_BYTES) ||
		     zmq_setsockopt(sock->zmq, ZMQ_ZAP_DOMAIN, domains[domain],
				    strlen(domains[domain])) ||
		     zmq_bind(sock->zmq, endpoint) ||
		     zmq_getsockopt(sock->zmq, ZMQ_LAST_ENDPOINT, ret_at, &len)))
		err = -errno;
	return err ? err : bus_socket_watch(sock);
}

static int open_zap(struct sp_bus_server *s, struct sp_loop *loop)
{
	int err = bus_socket_open(&s->zap, loop, s->zmq, ZMQ_REP, take_zap, s);
	if (!err && zmq_bind(s->zap.zmq, ZAP_ENDPOINT))
		err = -errno;
	return err ? err : bus_socket_watch(&s->zap);
}

int sp_bus_server_new(const struct sp_bus_server_options *opt, struct sp_bus_server **ret,
		      char *why, size_t cap)
{
	const char *at = ZAP_ENDPOINT;
	struct sp_bus_server *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->keys = *opt->keys;
	s->ops = opt->ops;
	s->ctx = opt->ctx;
	s->zmq = zmq_ctx_new();
	int err = s->zmq ? open_zap(s, opt->loop) : -ENOMEM;
	if (!err)
		err = open_one(s, opt->loop, &s->router[SP_BUS_FLEET], ZMQ_ROUTER,
			       at = opt->router, SP_BUS_FLEET, take_fleet, s->at_router);
	if (!err)
		err = open_one(s, opt->loop, &s->pub, ZMQ_PUB, at = opt->publisher,
			       SP_BUS_FLEET, take_none, s->at_pub);
	if (!err && opt->enrol)
		err = open_one(s, opt->loop, &s->router[SP_BUS_ENROL], ZMQ_ROUTER,
			       at = opt->enrol, SP_BUS_ENROL, take_enrol, s->at_enrol);
	if (err) {
		if (cap)
			snprintf(why, cap, "%s: %s", at, zmq_strerror(-err));
		sp_bus_server_free(s);
		return err;
	}
	*ret = s;
	return 0;
}

void sp_bus_server_free(struct sp_bus_server *s)
{
	if (!s)
		return;
	bus_socket_close(&s->pub);
	bus_socket_close(&s->router[SP_BUS_FLEET]);
	bus_socket_close(&s->router[SP_BUS_ENROL]);
	bus_socket_close(&s->zap);
	if (s->zmq)
		zmq_ctx_term(s->zmq);
	sodium_memzero(&s->keys, sizeof(s->keys));
	free(s);
}

const char *sp_bus_server_router(const struct sp_bus_server *s)
{
	return s->at_router;
}

const char *sp_bus_server_publisher(const struct sp_bus_server *s)
{
	return s->at_pub;
}

const char *sp_bus_server_enrol(const struct sp_bus_server *s)
{
	return s->at_enrol;
}

const struct sp_bus_server_counters *sp_bus_server_counters(const struct sp_bus_server *s)
{
	return &s->counters;
}
