#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/budget.h"
#include "lib/bus_internal.h"
#include "lib/text.h"

#define KEYS_SEEN 16384 // places of the table of handshakes by key

enum { ROUTER, PUB, ENROL, N_SOCKETS };

struct sp_bus_server {
	struct sp_loop *loop;
	void *zmq;
	struct sp_bus_keys keys;
	const struct sp_bus_server_ops *ops;
	void *ctx;
	struct bus_zap zap;
	struct end {
		struct bus_socket socket;
		int fd;                       // listening
		char at[SP_BUS_ENDPOINT_MAX]; // "": is not wanted
	} ends[N_SOCKETS];
	struct sp_budget *handshakes; // of known keys
	struct sp_bus_server_counters counters;
};

static const struct {
	int type;
	enum sp_bus_domain domain;
	int64_t message_max;
	uint64_t threads; // strangers must not keep the fleet's from working
} kinds[N_SOCKETS] = {
	[ROUTER] = {ZMQ_ROUTER, SP_BUS_FLEET, SP_BUS_MESSAGE_MAX, 1},
	[PUB] = {ZMQ_PUB, SP_BUS_FLEET, SP_BUS_TOPIC_MAX, 1},
	[ENROL] = {ZMQ_ROUTER, SP_BUS_ENROL, SP_BUS_ENROL_MAX, 2},
};

static struct bus_socket *router_of(struct sp_bus_server *s, enum sp_bus_domain domain)
{
	return &s->ends[domain == SP_BUS_FLEET ? ROUTER : ENROL].socket;
}

// ---- who may connect ----

// Each key has a bucket of its own, as if it were a network.
static bool has_budget(struct sp_bus_server *s, const uint8_t *key)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6};
	memcpy(&a.sin6_addr, key, 8);
	a.sin6_addr.s6_addr[0] |= 0x80; // not one that stands for IPv4
	return sp_budget_take(s->handshakes, (const struct sockaddr *)&a,
			      sp_loop_now_ms(s->loop)) == 0;
}

static enum sp_bus_verdict judge(void *owner, enum sp_bus_domain domain,
				 const uint8_t *key, const char *address)
{
	struct sp_bus_server *s = owner;
	char name[SP_BUS_NAME_MAX];
	enum sp_bus_verdict v = SP_BUS_REFUSE;
	if (domain == SP_BUS_ENROL) {
		if (s->ops->may_enrol)
			v = s->ops->may_enrol(s->ctx, address);
		s->counters.enrol_ok += v == SP_BUS_ADMIT;
		s->counters.enrol_refused += v != SP_BUS_ADMIT;
		s->counters.enrol_later += v == SP_BUS_LATER;
	} else if (s->ops->identify(s->ctx, key, name)) {
		v = has_budget(s, key) ? SP_BUS_ADMIT : SP_BUS_LATER;
	}
	s->counters.handshakes_ok += v == SP_BUS_ADMIT;
	s->counters.handshakes_refused += v != SP_BUS_ADMIT;
	s->counters.handshakes_later += v == SP_BUS_LATER;
	return v;
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
	void *z = router_of(s, domain)->zmq;
	zmq_msg_init(&route);
	if (zmq_msg_recv(&route, z, ZMQ_DONTWAIT) < 0) {
		zmq_msg_close(&route);
		return false;
	}
	zmq_msg_init(&body);
	bool has_body = zmq_msg_more(&route) && zmq_msg_recv(&body, z, ZMQ_DONTWAIT) >= 0;
	if (!has_body || zmq_msg_more(&body)) {
		s->counters.malformed++;
		bus_skip_frames(z, has_body);
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

// A PUB socket receives nothing, but who comes and goes is seen to only when it is looked
// at; until then its descriptor stays readable.
static bool take_none(void *owner)
{
	struct sp_bus_server *s = owner;
	int events;
	size_t len = sizeof(events);
	(void)zmq_getsockopt(s->ends[PUB].socket.zmq, ZMQ_EVENTS, &events, &len);
	return false;
}

void sp_bus_publish(struct sp_bus_server *s, char topic, const void *data, size_t len)
{
	struct bus_socket *pub = &s->ends[PUB].socket;
	if (!pub->zmq)
		return; // renewing failed
	if (zmq_send(pub->zmq, &topic, 1, ZMQ_SNDMORE | ZMQ_DONTWAIT) == 1 &&
	    zmq_send(pub->zmq, data, len, ZMQ_DONTWAIT) >= 0)
		s->counters.published++;
	bus_socket_again(pub);
}

// Takes `m` in any case.
static int send_msg(struct sp_bus_server *s, enum sp_bus_domain domain,
		    const uint8_t *route, size_t route_len, zmq_msg_t *m)
{
	struct bus_socket *to = router_of(s, domain);
	int err = -EHOSTUNREACH;
	if (to->zmq) {
		err = 0;
		// A queue that is full, or a peer that is gone, shows at the first frame.
		if (zmq_send(to->zmq, route, route_len, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0 ||
		    zmq_msg_send(m, to->zmq, ZMQ_DONTWAIT) < 0)
			err = errno == EHOSTUNREACH ? -EHOSTUNREACH : -EAGAIN;
		bus_socket_again(to);
	}
	zmq_msg_close(m); // empty by now, if it was sent
	if (err)
		s->counters.send_failed++;
	else
		s->counters.sent++;
	return err;
}

int sp_bus_send(struct sp_bus_server *s, enum sp_bus_domain domain, const uint8_t *route,
		size_t route_len, const void *data, size_t len)
{
	zmq_msg_t m;
	if (zmq_msg_init_size(&m, len))
		return -ENOMEM;
	if (len)
		memcpy(zmq_msg_data(&m), data, len);
	return send_msg(s, domain, route, route_len, &m);
}

int sp_bus_send_blob(struct sp_bus_server *s, enum sp_bus_domain domain,
		     const uint8_t *route, size_t route_len, struct sp_bus_blob *b,
		     struct sp_bus_meter *meter)
{
	zmq_msg_t m;
	size_t owed = meter ? sp_bus_meter_bytes(meter) : 0;
	if (owed && owed + sp_bus_blob_len(b) > SP_BUS_OWED_MAX) {
		s->counters.not_read++;
		return -EAGAIN;
	}
	if (bus_blob_message(b, meter, &m))
		return -ENOMEM;
	return send_msg(s, domain, route, route_len, &m);
}

// ---- start and end ----

static int open_end(struct sp_bus_server *s, int i)
{
	static bool (*const take[N_SOCKETS])(void *owner) = {
		[ROUTER] = take_fleet, [PUB] = take_none, [ENROL] = take_enrol};
	struct end *e = &s->ends[i];
	struct bus_socket *sock = &e->socket;
	const char *domain = bus_domain_word(kinds[i].domain);
	size_t len = sizeof(e->at);
	bus_seed();
	int err = bus_socket_open(sock, s->loop, s->zmq, kinds[i].type, take[i], s);
	if (!err)
		err = bus_socket_options(sock, kinds[i].message_max, e->at);
	if (!err) // beyond, its sender waits: nothing is lost
		err = bus_socket_int(sock, ZMQ_RCVHWM, SP_BUS_QUEUE_IN);
	if (!err)
		err = bus_socket_int(sock, ZMQ_CURVE_SERVER, 1);
	// Who is gone is told; and no ROUTER_HANDOVER: a routing id that is in use stays
	// where it is, so nobody draws another's answers to himself.
	if (!err && kinds[i].type == ZMQ_ROUTER)
		err = bus_socket_int(sock, ZMQ_ROUTER_MANDATORY, 1);
	if (!err && (zmq_setsockopt(sock->zmq, ZMQ_CURVE_SECRETKEY, s->keys.secret_key,
				    SP_BUS_KEY_BYTES) ||
		     zmq_setsockopt(sock->zmq, ZMQ_ZAP_DOMAIN, domain, strlen(domain)) ||
		     zmq_setsockopt(sock->zmq, ZMQ_AFFINITY, &kinds[i].threads,
				    sizeof(kinds[i].threads))))
		err = -errno;
	if (!err)
		err = bus_socket_bind_fd(sock, e->fd, e->at);
	if (!err && zmq_getsockopt(sock->zmq, ZMQ_LAST_ENDPOINT, e->at, &len))
		err = -errno;
	if (!err)
		err = bus_socket_watch(sock);
	if (err)
		bus_socket_close(sock);
	return err;
}

static int listen_end(struct sp_bus_server *s, int i, const char *endpoint)
{
	struct end *e = &s->ends[i];
	if ((size_t)snprintf(e->at, sizeof(e->at), "%s", endpoint) >= sizeof(e->at))
		return SP_E_MALFORMED;
	int err = bus_listen(endpoint, &e->fd);
	return err ? err : open_end(s, i);
}

static int open_all(struct sp_bus_server *s, const struct sp_bus_server_options *opt,
		    const char **ret_at)
{
	const char *const endpoints[N_SOCKETS] = {
		[ROUTER] = opt->router, [PUB] = opt->publisher, [ENROL] = opt->enrol};
	const struct sp_budget_options budget = {.sources = KEYS_SEEN,
						 .per_minute = SP_BUS_KEY_PER_MINUTE,
						 .burst = SP_BUS_KEY_BURST,
						 .all_per_second = 100000,
						 .all_burst = 100000};
	*ret_at = "ZeroMQ";
	int err = sp_budget_new(&budget, &s->handshakes);
	if (err)
		return err;
	s->zmq = zmq_ctx_new();
	if (!s->zmq || zmq_ctx_set(s->zmq, ZMQ_IO_THREADS, 2))
		return -ENOMEM;
	s->zap.judge = judge;
	s->zap.owner = s;
	err = bus_zap_open(&s->zap, s->loop, s->zmq);
	for (int i = 0; i < N_SOCKETS && !err; i++)
		if (endpoints[i])
			err = listen_end(s, i, *ret_at = endpoints[i]);
	return err;
}

int sp_bus_server_new(const struct sp_bus_server_options *opt, struct sp_bus_server **ret,
		      char *why, size_t cap)
{
	const char *at;
	struct sp_bus_server *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	for (int i = 0; i < N_SOCKETS; i++)
		s->ends[i].fd = -1;
	s->loop = opt->loop;
	s->keys = *opt->keys;
	s->ops = opt->ops;
	s->ctx = opt->ctx;
	int err = open_all(s, opt, &at);
	if (err) {
		if (cap)
			snprintf(why, cap, "%s: %s", at,
				 err == SP_E_MALFORMED
					 ? "not tcp://ADDRESS:PORT of a numeric address"
				 : err <= -1000 ? sp_strerror(err)
						: zmq_strerror(-err));
		sp_bus_server_free(s);
		return err;
	}
	*ret = s;
	return 0;
}

int sp_bus_server_renew(struct sp_bus_server *s, enum sp_bus_domain domain)
{
	int err = 0;
	s->counters.renewed++;
	for (int i = 0; i < N_SOCKETS; i++) {
		if (kinds[i].domain != domain || s->ends[i].fd < 0)
			continue;
		bus_socket_close(&s->ends[i].socket);
		int e = open_end(s, i);
		err = err ? err : e;
	}
	return err;
}

void sp_bus_server_free(struct sp_bus_server *s)
{
	if (!s)
		return;
	for (int i = 0; i < N_SOCKETS; i++) {
		bus_socket_close(&s->ends[i].socket);
		if (s->ends[i].fd >= 0)
			close(s->ends[i].fd);
	}
	bus_socket_close(&s->zap.socket);
	if (s->zmq)
		zmq_ctx_term(s->zmq);
	sp_budget_free(s->handshakes);
	sodium_memzero(&s->keys, sizeof(s->keys));
	free(s);
}

const char *sp_bus_server_router(const struct sp_bus_server *s)
{
	return s->ends[ROUTER].at;
}

const char *sp_bus_server_publisher(const struct sp_bus_server *s)
{
	return s->ends[PUB].at;
}

const char *sp_bus_server_enrol(const struct sp_bus_server *s)
{
	return s->ends[ENROL].at;
}

const struct sp_bus_server_counters *sp_bus_server_counters(const struct sp_bus_server *s)
{
	return &s->counters;
}
