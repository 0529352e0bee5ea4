#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/bus_internal.h"

#define PATIENCE_MS      5000
#define PATIENCE_DOUBLED 3   // times at most
#define REFUSED_MS       500 // until the next try; doubles, with jitter
#define REFUSED_MAX_MS   16000
#define HANDSHAKES                                                                       \
	(ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |               \
	 ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL)

struct sp_bus_client {
	struct sp_loop *loop;
	void *zmq;
	bool shares_zmq;
	struct sp_bus_keys keys;
	struct sp_bus_address servers[SP_BUS_SERVERS_MAX];
	unsigned n, at;
	uint32_t patience_ms;
	const struct sp_bus_client_ops *ops;
	void *ctx;
	struct bus_socket sub, dealer, monitor, sub_monitor;
	bool shaken; // CURVE is done; up once the socket takes messages
	bool up;
	const char *why; // of the last failure, which is told once
	unsigned refusals, sub_refusals;
	unsigned tries; // of servers, since the link was up
	struct sp_timer impatient, resubscribe;
	struct sp_bus_client_counters counters;
};

static int open_dealer(struct sp_bus_client *c);
static int open_sub(struct sp_bus_client *c, const char **ret_at);

static const char why_refused[] = "refused", why_lost[] = "lost",
		  why_no_answer[] = "no answer";

// ---- the link's life ----

static void set_in(struct sp_bus_client *c, struct sp_timer *t, uint32_t ms)
{
	uint64_t jitter = randombytes_uniform(ms / 4 + 1);
	sp_timer_set(t, sp_loop_now_us(c->loop) + (ms + jitter) * UINT64_C(1000));
}

static void try_anew_in(struct sp_bus_client *c, uint32_t ms)
{
	set_in(c, &c->impatient, ms);
}

static uint32_t backed_off(unsigned *refusals)
{
	return *refusals < 5 ? REFUSED_MS << (*refusals)++ : REFUSED_MAX_MS;
}

static void count_down(struct sp_bus_client *c, const char *why)
{
	c->counters.lost += why == why_lost;
	c->counters.refused += why == why_refused;
	c->counters.no_answer += why == why_no_answer;
}

static void set_down(struct sp_bus_client *c, const char *why)
{
	bool was_up = c->up;
	c->shaken = c->up = false;
	if (was_up)
		try_anew_in(c, c->patience_ms);
	if (was_up || why != c->why) { // a refusal is told once, not at every try
		c->why = why;
		count_down(c, why);
		c->ops->down(c->ctx, c->at, why);
	}
}

// libzmq does not try again after this; we do, since whoever is not known yet may be in a
// moment.
static void set_refused(struct sp_bus_client *c)
{
	uint32_t ms = backed_off(&c->refusals);
	set_down(c, why_refused);
	try_anew_in(c, ms);
}

static void look_whether_up(struct sp_bus_client *c)
{
	int events = 0;
	size_t len = sizeof(events);
	if (c->up || !c->shaken ||
	    zmq_getsockopt(c->dealer.zmq, ZMQ_EVENTS, &events, &len) ||
	    !(events & ZMQ_POLLOUT))
		return;
	c->up = true;
	c->why = NULL;
	c->refusals = c->tries = 0;
	c->counters.up++;
	sp_timer_set(&c->impatient, SP_LOOP_NEVER);
	c->ops->up(c->ctx, c->at);
}

// The next event of a monitor. False: there is none. 0: not an event.
static bool next_event(struct bus_socket *monitor, uint16_t *ret)
{
	uint8_t event[6];
	int n = zmq_recv(monitor->zmq, event, sizeof(event), ZMQ_DONTWAIT);
	if (n < 0)
		return false;
	bus_skip_frames(monitor->zmq, true); // the endpoint
	*ret = 0;
	if (n == (int)sizeof(event))
		memcpy(ret, event, sizeof(*ret));
	return true;
}

static bool take_monitor(void *owner)
{
	struct sp_bus_client *c = owner;
	uint16_t what;
	if (!next_event(&c->monitor, &what))
		return false;
	switch (what) {
	case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
		c->shaken = true;
		bus_socket_again(&c->dealer);
		break;
	case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
	case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
		set_refused(c);
		break;
	case ZMQ_EVENT_DISCONNECTED:
		if (c->up)
			set_down(c, why_lost);
		else if (!c->shaken && !c->why)
			set_down(c, why_refused); // it closed in the handshake
		c->shaken = false;
		break;
	case ZMQ_EVENT_CONNECT_RETRIED:
		if (!c->why)
			set_down(c, why_no_answer);
		break;
	default:
		break;
	}
	return true;
}

// The subscriptions have their own: one publisher may refuse us while another's router
// does not. All are made anew then; what is missed meanwhile, the next digest shows.
static bool take_sub_monitor(void *owner)
{
	struct sp_bus_client *c = owner;
	uint16_t what;
	if (!next_event(&c->sub_monitor, &what))
		return false;
	if (what == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
		c->sub_refusals = 0;
	else if (what && c->resubscribe.at_us == SP_LOOP_NEVER)
		set_in(c, &c->resubscribe, backed_off(&c->sub_refusals));
	return true;
}

static void on_resubscribe(void *arg)
{
	struct sp_bus_client *c = arg;
	const char *at;
	if (open_sub(c, &at))
		set_in(c, &c->resubscribe, backed_off(&c->sub_refusals));
}

static void on_impatient(void *arg)
{
	struct sp_bus_client *c = arg;
	if (c->up)
		return;
	c->at = (c->at + 1) % c->n; // with one server: its name is looked up anew
	int err = open_dealer(c);
	if (err)
		c->ops->down(c->ctx, c->at, zmq_strerror(-err));
	// A server that has too many handshakes to do gets no more of them by ours being
	// given up: with each round of all servers there is twice the time.
	unsigned rounds = ++c->tries / c->n;
	try_anew_in(c, c->patience_ms << (rounds < PATIENCE_DOUBLED ? rounds
								    : PATIENCE_DOUBLED));
}

// ---- messages ----

static bool take_answer(void *owner)
{
	struct sp_bus_client *c = owner;
	zmq_msg_t m;
	look_whether_up(c);
	zmq_msg_init(&m);
	if (zmq_msg_recv(&m, c->dealer.zmq, ZMQ_DONTWAIT) < 0) {
		zmq_msg_close(&m);
		return false;
	}
	if (zmq_msg_more(&m)) {
		c->counters.malformed++;
		bus_skip_frames(c->dealer.zmq, true);
	} else {
		c->counters.received++;
		c->ops->message(c->ctx, zmq_msg_data(&m), zmq_msg_size(&m));
	}
	zmq_msg_close(&m);
	return true;
}

static bool take_published(void *owner)
{
	struct sp_bus_client *c = owner;
	zmq_msg_t topic, body;
	zmq_msg_init(&topic);
	if (zmq_msg_recv(&topic, c->sub.zmq, ZMQ_DONTWAIT) < 0) {
		zmq_msg_close(&topic);
		return false;
	}
	zmq_msg_init(&body);
	bool has_body = zmq_msg_more(&topic) &&
			zmq_msg_recv(&body, c->sub.zmq, ZMQ_DONTWAIT) >= 0;
	if (has_body && zmq_msg_size(&topic) == 1 && !zmq_msg_more(&body)) {
		c->counters.published++;
		c->ops->published(c->ctx, *(const char *)zmq_msg_data(&topic),
				  zmq_msg_data(&body), zmq_msg_size(&body));
	} else {
		c->counters.malformed++;
		bus_skip_frames(c->sub.zmq, has_body && zmq_msg_more(&body));
	}
	zmq_msg_close(&topic);
	zmq_msg_close(&body);
	return true;
}

int sp_bus_client_send(struct sp_bus_client *c, const void *data, size_t len)
{
	if (!c->up || zmq_send(c->dealer.zmq, data, len, ZMQ_DONTWAIT) < 0) {
		c->counters.unsent++;
		return -EAGAIN;
	}
	c->counters.sent++;
	bus_socket_again(&c->dealer);
	return 0;
}

// ---- start and end ----

static int set_keys(struct sp_bus_client *c, struct bus_socket *s, const uint8_t *server)
{
	if (zmq_setsockopt(s->zmq, ZMQ_CURVE_SERVERKEY, server, SP_BUS_KEY_BYTES) ||
	    zmq_setsockopt(s->zmq, ZMQ_CURVE_PUBLICKEY, c->keys.public_key,
			   SP_BUS_KEY_BYTES) ||
	    zmq_setsockopt(s->zmq, ZMQ_CURVE_SECRETKEY, c->keys.secret_key,
			   SP_BUS_KEY_BYTES))
		return -errno;
	return 0;
}

// Only clients send heartbeats, and ask for no time to live: each message that comes ends
// the timers of its link, for which libzmq walks through those of all links. A server
// with thousands of them did nothing else. It has the kernel's keepalive.
static int set_heartbeat(struct bus_socket *s)
{
	int err = bus_socket_int(s, ZMQ_HEARTBEAT_IVL, SP_BUS_HEARTBEAT_MS);
	return err ? err : bus_socket_int(s, ZMQ_HEARTBEAT_TIMEOUT, SP_BUS_DEAD_MS);
}

static int open_monitor(struct sp_bus_client *c, struct bus_socket *monitor,
			struct bus_socket *of, bool (*take)(void *owner), int events)
{
	char name[48];
	uint64_t id; // its name is its own among all of the context, closing ones too
	randombytes_buf(&id, sizeof(id));
	snprintf(name, sizeof(name), "inproc://monitor-%016" PRIx64, id);
	if (zmq_socket_monitor(of->zmq, name, events))
		return -errno;
	int err = bus_socket_open(monitor, c->loop, c->zmq, ZMQ_PAIR, take, c);
	if (!err && zmq_connect(monitor->zmq, name))
		err = -errno;
	return err ? err : bus_socket_watch(monitor);
}

// The socket stops telling before its monitor goes: libzmq's thread would wait for good
// to tell a monitor that is gone, and no link of its context would come back.
static void close_monitored(struct bus_socket *s, struct bus_socket *monitor)
{
	if (s->zmq)
		(void)!zmq_socket_monitor(s->zmq, NULL, 0);
	bus_socket_close(monitor);
	bus_socket_close(s);
}

static int open_dealer(struct sp_bus_client *c)
{
	const struct sp_bus_address *to = &c->servers[c->at];
	close_monitored(&c->dealer, &c->monitor);
	c->shaken = c->up = false;
	int err =
		bus_socket_open(&c->dealer, c->loop, c->zmq, ZMQ_DEALER, take_answer, c);
	if (!err)
		err = bus_socket_options(&c->dealer, SP_BUS_BLOB_MAX, to->router);
	if (!err)
		err = set_heartbeat(&c->dealer);
	if (!err) // a message goes over a link that stands, or not at all
		err = bus_socket_int(&c->dealer, ZMQ_IMMEDIATE, 1);
	if (!err)
		err = set_keys(c, &c->dealer, to->key);
	if (!err)
		err = open_monitor(c, &c->monitor, &c->dealer, take_monitor,
				   HANDSHAKES | ZMQ_EVENT_DISCONNECTED |
					   ZMQ_EVENT_CONNECT_RETRIED);
	if (!err && zmq_connect(c->dealer.zmq, to->router))
		err = -errno;
	return err ? err : bus_socket_watch(&c->dealer);
}

static int open_sub(struct sp_bus_client *c, const char **ret_at)
{
	close_monitored(&c->sub, &c->sub_monitor);
	*ret_at = "subscriptions";
	int err = bus_socket_open(&c->sub, c->loop, c->zmq, ZMQ_SUB, take_published, c);
	if (!err)
		err = open_monitor(c, &c->sub_monitor, &c->sub, take_sub_monitor,
				   HANDSHAKES);
	if (!err && zmq_setsockopt(c->sub.zmq, ZMQ_SUBSCRIBE, "", 0))
		err = -errno;
	for (unsigned i = 0; i < c->n && !err; i++) {
		const struct sp_bus_address *to = &c->servers[i];
		if (!to->publisher[0])
			continue;
		*ret_at = to->publisher;
		err = bus_socket_options(&c->sub, SP_BUS_BLOB_MAX, to->publisher);
		if (!err)
			err = set_heartbeat(&c->sub);
		if (!err)
			err = set_keys(c, &c->sub, to->key);
		if (!err && zmq_connect(c->sub.zmq, to->publisher))
			err = -errno;
	}
	return err ? err : bus_socket_watch(&c->sub);
}

int sp_bus_client_new(const struct sp_bus_client_options *opt, struct sp_bus_client **ret,
		      char *why, size_t cap)
{
	const char *at;
	if (opt->n_servers == 0 || opt->n_servers > SP_BUS_SERVERS_MAX) {
		if (cap)
			snprintf(why, cap, "%u servers; want 1 to %d", opt->n_servers,
				 SP_BUS_SERVERS_MAX);
		return SP_E_MALFORMED;
	}
	struct sp_bus_client *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->loop = opt->loop;
	c->keys = *opt->keys;
	memcpy(c->servers, opt->servers, opt->n_servers * sizeof(c->servers[0]));
	c->n = opt->n_servers;
	c->at = randombytes_uniform(c->n);
	c->patience_ms = opt->patience_ms ? opt->patience_ms : PATIENCE_MS;
	c->ops = opt->ops;
	c->ctx = opt->ctx;
	sp_timer_init(&c->impatient, c->loop, on_impatient, c);
	sp_timer_init(&c->resubscribe, c->loop, on_resubscribe, c);
	bus_seed();
	at = c->servers[c->at].router;
	c->shares_zmq = opt->zmq != NULL;
	c->zmq = opt->zmq ? opt->zmq : zmq_ctx_new();
	int err = c->zmq ? open_dealer(c) : -ENOMEM;
	if (!err && !opt->no_publishers)
		err = open_sub(c, &at);
	if (err) {
		if (cap)
			snprintf(why, cap, "%s: %s", at, zmq_strerror(-err));
		sp_bus_client_free(c);
		return err == -EINVAL ? SP_E_MALFORMED : err;
	}
	try_anew_in(c, c->patience_ms);
	*ret = c;
	return 0;
}

void sp_bus_client_free(struct sp_bus_client *c)
{
	if (!c)
		return;
	sp_timer_done(&c->impatient);
	sp_timer_done(&c->resubscribe);
	close_monitored(&c->sub, &c->sub_monitor);
	close_monitored(&c->dealer, &c->monitor);
	if (c->zmq && !c->shares_zmq)
		zmq_ctx_term(c->zmq);
	sodium_memzero(&c->keys, sizeof(c->keys));
	free(c);
}

bool sp_bus_client_is_up(const struct sp_bus_client *c)
{
	return c->up;
}

unsigned sp_bus_client_at(const struct sp_bus_client *c)
{
	return c->at;
}

const struct sp_bus_client_counters *sp_bus_client_counters(const struct sp_bus_client *c)
{
	return &c->counters;
}
