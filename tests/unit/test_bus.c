// The control plane's links over real ZeroMQ and CURVE on loopback.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>
#include <zmq.h>

#include "lib/bus.h"

#define PATIENCE_US 10000000

struct world;

struct end { // a client
	struct world *w;
	struct sp_bus_keys keys;
	struct sp_bus_client *c;
	unsigned ups, downs, messages, published, at;
	char why[32], last[64], topic;
};

struct world {
	struct sp_loop *loop;
	struct sp_bus_keys keys;
	struct sp_bus_server *s;
	const struct end *known[4]; // their keys may join
	bool enrol_open;
	const char *address; // of the peers; NULL: 127.0.0.1
	unsigned messages;
	char from[SP_BUS_NAME_MAX], last[64];
	size_t last_len;
	uint8_t route[SP_BUS_ROUTE_MAX];
	size_t route_len;
	enum sp_bus_domain domain;
};

static struct sp_bus_keys make_keys(void)
{
	struct sp_bus_keys k;
	randombytes_buf(k.secret_key, sizeof(k.secret_key));
	crypto_scalarmult_base(k.public_key, k.secret_key);
	return k;
}

static bool identify(void *ctx, const uint8_t *key, char *ret)
{
	struct world *w = ctx;
	for (unsigned i = 0; i < 4; i++) {
		if (!w->known[i] || memcmp(w->known[i]->keys.public_key, key, 32) != 0)
			continue;
		snprintf(ret, SP_BUS_NAME_MAX, "worker:n%u/0", i);
		return true;
	}
	return false;
}

static enum sp_bus_verdict may_enrol(void *ctx, const char *address)
{
	assert_string_equal(address, "127.0.0.1");
	return ((struct world *)ctx)->enrol_open ? SP_BUS_ADMIT : SP_BUS_REFUSE;
}

static void server_message(void *ctx, const struct sp_bus_peer *from, const void *data,
			   size_t len)
{
	struct world *w = ctx;
	w->messages++;
	w->domain = from->domain;
	assert_string_equal(from->address, w->address ? w->address : "127.0.0.1");
	snprintf(w->from, sizeof(w->from), "%s", from->name);
	w->last_len = len;
	snprintf(w->last, sizeof(w->last), "%.*s", len < 60 ? (int)len : 60,
		 (const char *)data);
	memcpy(w->route, from->route, from->route_len);
	w->route_len = from->route_len;
}

static void client_up(void *ctx, unsigned at)
{
	struct end *e = ctx;
	e->ups++;
	e->at = at;
}

static void client_down(void *ctx, unsigned at, const char *why)
{
	struct end *e = ctx;
	(void)at;
	e->downs++;
	snprintf(e->why, sizeof(e->why), "%s", why);
}

static void client_message(void *ctx, const void *data, size_t len)
{
	struct end *e = ctx;
	e->messages++;
	snprintf(e->last, sizeof(e->last), "%.*s", (int)len, (const char *)data);
}

static void client_published(void *ctx, char topic, const void *data, size_t len)
{
	struct end *e = ctx;
	e->published++;
	e->topic = topic;
	snprintf(e->last, sizeof(e->last), "%.*s", (int)len, (const char *)data);
}

static const struct sp_bus_server_ops server_ops = {identify, may_enrol, server_message};
static const struct sp_bus_client_ops client_ops = {client_up, client_down,
						    client_message, client_published};

static void start_server(struct world *w, const char *router, const char *publisher)
{
	char why[256] = "";
	struct sp_bus_server_options o = {.loop = w->loop,
					  .keys = &w->keys,
					  .router = router,
					  .publisher = publisher,
					  .enrol = "tcp://127.0.0.1:*",
					  .ops = &server_ops,
					  .ctx = w};
	if (sp_bus_server_new(&o, &w->s, why, sizeof(why)))
		fail_msg("%s", why);
}

static void setup(struct world *w)
{
	*w = (struct world){.keys = make_keys()};
	assert_int_equal(sp_loop_new(&w->loop), 0);
	start_server(w, "tcp://127.0.0.1:*", "tcp://127.0.0.1:*");
}

static void teardown(struct world *w)
{
	sp_bus_server_free(w->s);
	sp_loop_free(w->loop);
}

static struct sp_bus_address address(const struct world *w)
{
	struct sp_bus_address a;
	snprintf(a.router, sizeof(a.router), "%s", sp_bus_server_router(w->s));
	snprintf(a.publisher, sizeof(a.publisher), "%s", sp_bus_server_publisher(w->s));
	memcpy(a.key, w->keys.public_key, 32);
	return a;
}

static void join_at(struct world *w, struct end *e, const struct sp_bus_address *a,
		    unsigned n, uint32_t patience_ms)
{
	char why[256] = "";
	struct sp_bus_client_options o = {.loop = w->loop,
					  .keys = &e->keys,
					  .servers = a,
					  .n_servers = n,
					  .patience_ms = patience_ms,
					  .ops = &client_ops,
					  .ctx = e};
	e->w = w;
	if (sp_bus_client_new(&o, &e->c, why, sizeof(why)))
		fail_msg("%s", why);
}

static void join(struct world *w, struct end *e)
{
	struct sp_bus_address a = address(w);
	join_at(w, e, &a, 1, 0);
}

static void tick(void *ctx)
{
	(void)ctx;
}

// Turns the loop until `cond`, whose operands callbacks change.
#define WAIT(w_, cond)                                                                   \
	do {                                                                             \
		uint64_t end_ = sp_loop_refresh((w_)->loop) + PATIENCE_US;               \
		while (!(cond)) {                                                        \
			struct sp_timer t_;                                              \
			assert_true(sp_loop_refresh((w_)->loop) < end_);                 \
			sp_timer_init(&t_, (w_)->loop, tick, NULL);                      \
			sp_timer_set(&t_, sp_loop_now_us((w_)->loop) + 20000);           \
			assert_int_equal(sp_loop_turn((w_)->loop, true), 0);             \
			sp_timer_done(&t_);                                              \
		}                                                                        \
	} while (0)

static void messages_go_both_ways_and_carry_who_sent_them(void **state)
{
	struct world w;
	struct end a = {.keys = make_keys()}, b = {.keys = make_keys()};
	(void)state;
	setup(&w);
	w.known[0] = &a;
	w.known[1] = &b;
	join(&w, &a);
	join(&w, &b);
	WAIT(&w, a.ups && b.ups);
	assert_int_equal(sp_bus_client_send(b.c, "hello", 5), 0);
	WAIT(&w, w.messages == 1);
	assert_string_equal(w.from, "worker:n1/0");
	assert_int_equal(sp_bus_send(w.s, SP_BUS_FLEET, w.route, w.route_len, "yes", 3),
			 0);
	WAIT(&w, b.messages == 1);
	assert_string_equal(b.last, "yes");
	assert_int_equal(a.messages, 0);
	sp_bus_client_free(a.c);
	sp_bus_client_free(b.c);
	teardown(&w);
}

static void what_is_published_reaches_all(void **state)
{
	struct world w;
	struct end a = {.keys = make_keys()}, b = {.keys = make_keys()};
	(void)state;
	setup(&w);
	w.known[0] = &a;
	w.known[1] = &b;
	join(&w, &a);
	join(&w, &b);
	do { // a subscription takes its time
		sp_bus_publish(w.s, 'D', "digest", 6);
		assert_int_equal(sp_loop_turn(w.loop, true), 0);
	} while (!a.published || !b.published);
	assert_int_equal(a.topic, 'D');
	assert_string_equal(b.last, "digest");
	sp_bus_client_free(a.c);
	sp_bus_client_free(b.c);
	teardown(&w);
}

static void who_subscribes_and_leaves_does_not_keep_the_loop_turning(void **state)
{
	struct world w;
	struct end a = {.keys = make_keys()}, b = {.keys = make_keys()};
	struct sp_timer t;
	unsigned turns = 0;
	(void)state;
	setup(&w);
	w.known[0] = &a;
	w.known[1] = &b;
	join(&w, &a);
	join(&w, &b);
	WAIT(&w, a.ups && b.ups && sp_bus_server_counters(w.s)->handshakes_ok == 4);
	sp_bus_client_free(b.c);
	uint64_t until = sp_loop_refresh(w.loop) + 500000;
	sp_timer_init(&t, w.loop, tick, NULL);
	for (; sp_loop_refresh(w.loop) < until; turns++) {
		sp_timer_set(&t, until);
		assert_int_equal(sp_loop_turn(w.loop, true), 0);
	}
	assert_in_range(turns, 1, 100); // of a loop that spins: thousands
	sp_timer_done(&t);
	sp_bus_client_free(a.c);
	teardown(&w);
}

static void an_unknown_key_and_a_wrong_server_are_refused(void **state)
{
	struct world w;
	struct end a = {.keys = make_keys()}, b = {.keys = make_keys()};
	(void)state;
	setup(&w);
	w.known[0] = &b;
	join(&w, &a);
	struct sp_bus_address wrong = address(&w);
	wrong.key[5] ^= 1;
	join_at(&w, &b, &wrong, 1, 0);
	WAIT(&w, a.downs && b.downs);
	assert_string_equal(a.why, "refused");
	assert_string_equal(b.why, "refused");
	assert_int_equal(a.ups + b.ups, 0);
	assert_int_equal(sp_bus_client_send(a.c, "x", 1), -EAGAIN);
	assert_true(sp_bus_server_counters(w.s)->handshakes_refused > 0);
	// it is let in as soon as it is known
	w.known[1] = &a;
	WAIT(&w, a.ups == 1);
	sp_bus_client_free(a.c);
	sp_bus_client_free(b.c);
	teardown(&w);
}

static void a_key_that_is_taken_away_counts_no_more(void **state)
{
	struct world w;
	struct end a = {.keys = make_keys()};
	(void)state;
	setup(&w);
	w.known[0] = &a;
	join(&w, &a);
	WAIT(&w, a.ups);
	w.known[0] = NULL;
	assert_int_equal(sp_bus_client_send(a.c, "x", 1), 0);
	WAIT(&w, sp_bus_server_counters(w.s)->messages_refused == 1);
	assert_int_equal(w.messages, 0);
	sp_bus_client_free(a.c);
	teardown(&w);
}

static void strangers_reach_enrolment_only_and_only_while_it_is_open(void **state)
{
	struct world w;
	struct end a = {.keys = make_keys()};
	(void)state;
	setup(&w);
	struct sp_bus_address at = address(&w);
	snprintf(at.router, sizeof(at.router), "%s", sp_bus_server_enrol(w.s));
	at.publisher[0] = '\0';
	join_at(&w, &a, &at, 1, 0);
	WAIT(&w, a.downs);
	assert_string_equal(a.why, "refused");
	w.enrol_open = true;
	WAIT(&w, a.ups);
	assert_int_equal(sp_bus_client_send(a.c, "token", 5), 0);
	WAIT(&w, w.messages);
	assert_int_equal(w.domain, SP_BUS_ENROL);
	assert_string_equal(w.from, "");
	assert_int_equal(sp_bus_send(w.s, SP_BUS_ENROL, w.route, w.route_len, "in", 2),
			 0);
	WAIT(&w, a.messages);
	sp_bus_client_free(a.c);
	teardown(&w);
}

static void a_message_over_the_limit_costs_its_sender_the_link(void **state)
{
	struct world w;
	struct end a = {.keys = make_keys()};
	(void)state;
	setup(&w);
	w.known[0] = &a;
	join(&w, &a);
	WAIT(&w, a.ups == 1);
	char *big = calloc(1, SP_BUS_MESSAGE_MAX + 1000);
	assert_int_equal(sp_bus_client_send(a.c, big, SP_BUS_MESSAGE_MAX - 1000), 0);
	WAIT(&w, w.messages == 1);
	assert_int_equal(w.last_len, SP_BUS_MESSAGE_MAX - 1000);
	assert_int_equal(sp_bus_client_send(a.c, big, SP_BUS_MESSAGE_MAX + 1000), 0);
	WAIT(&w, a.ups == 2);
	assert_int_equal(w.messages, 1);
	free(big);
	sp_bus_client_free(a.c);
	teardown(&w);
}

// A DEALER of whoever wrote it: `e`'s key, a routing id of its choice.
struct rogue {
	void *ctx, *z;
};

static struct rogue rogue(const struct world *w, const struct end *e, const void *id,
			  size_t id_len)
{
	struct rogue r = {.ctx = zmq_ctx_new()};
	r.z = zmq_socket(r.ctx, ZMQ_DEALER);
	assert_non_null(r.z);
	assert_int_equal(zmq_setsockopt(r.z, ZMQ_CURVE_SERVERKEY, w->keys.public_key, 32),
			 0);
	assert_int_equal(zmq_setsockopt(r.z, ZMQ_CURVE_PUBLICKEY, e->keys.public_key, 32),
			 0);
	assert_int_equal(zmq_setsockopt(r.z, ZMQ_CURVE_SECRETKEY, e->keys.secret_key, 32),
			 0);
	if (id_len)
		assert_int_equal(zmq_setsockopt(r.z, ZMQ_ROUTING_ID, id, id_len), 0);
	assert_int_equal(zmq_setsockopt(r.z, ZMQ_RCVHWM, &(int){1}, sizeof(int)), 0);
	assert_int_equal(zmq_setsockopt(r.z, ZMQ_LINGER, &(int){0}, sizeof(int)), 0);
	assert_int_equal(zmq_connect(r.z, sp_bus_server_router(w->s)), 0);
	return r;
}

static void rogue_done(struct rogue *r)
{
	zmq_close(r->z);
	zmq_ctx_term(r->ctx);
}

static void what_is_no_single_frame_is_counted_and_dropped(void **state)
{
	struct world w;
	struct end a = {.keys = make_keys()};
	(void)state;
	setup(&w);
	w.known[0] = &a;
	// a name of its own choice proves nothing
	struct rogue r = rogue(&w, &a, "worker:n1/0", 11);
	assert_int_equal(zmq_send(r.z, "a", 1, ZMQ_SNDMORE), 1);
	assert_int_equal(zmq_send(r.z, "b", 1, 0), 1);
	assert_int_equal(zmq_send(r.z, "c", 1, 0), 1);
	WAIT(&w, w.messages);
	assert_string_equal(w.last, "c");
	assert_string_equal(w.from, "worker:n0/0");
	assert_int_equal(sp_bus_server_counters(w.s)->malformed, 1);
	rogue_done(&r);
	teardown(&w);
}

static void who_claims_the_route_of_another_gets_none_of_its_answers(void **state)
{
	struct world w;
	struct end a = {.keys = make_keys()}, thief = {.keys = make_keys()};
	char stolen[8];
	(void)state;
	setup(&w);
	w.known[0] = &a;
	w.known[1] = &thief;
	join(&w, &a);
	WAIT(&w, a.ups);
	assert_int_equal(sp_bus_client_send(a.c, "mine", 4), 0);
	WAIT(&w, w.messages == 1);
	struct rogue r = rogue(&w, &thief, w.route, w.route_len);
	assert_int_equal(zmq_send(r.z, "no, mine", 8, 0), 8);
	WAIT(&w, sp_bus_server_counters(w.s)->handshakes_ok >= 3);
	assert_int_equal(sp_bus_client_send(a.c, "still mine", 10), 0);
	WAIT(&w, strcmp(w.last, "still mine") == 0);
	assert_string_equal(w.from, "worker:n0/0");
	assert_int_equal(sp_bus_send(w.s, SP_BUS_FLEET, w.route, w.route_len, "yes", 3),
			 0);
	WAIT(&w, a.messages == 1);
	assert_int_equal(zmq_recv(r.z, stolen, sizeof(stolen), ZMQ_DONTWAIT), -1);
	assert_int_equal(w.messages, 2); // the thief's word was not heard either
	rogue_done(&r);
	sp_bus_client_free(a.c);
	teardown(&w);
}

static void a_peer_that_does_not_read_is_owed_so_much_and_no_more(void **state)
{
	enum { BLOB = 4 << 20 };
	struct world w;
	struct end a = {.keys = make_keys()}, b = {.keys = make_keys()};
	struct sp_bus_blob *blob;
	struct sp_bus_meter *meter;
	uint8_t route[SP_BUS_ROUTE_MAX];
	char *big = calloc(1, BLOB);
	(void)state;
	setup(&w);
	w.known[0] = &a;
	w.known[1] = &b;
	assert_int_equal(sp_bus_meter_new(&meter), 0);
	assert_int_equal(sp_bus_blob_new(big, BLOB, &blob), 0);
	struct rogue r = rogue(&w, &a, "deaf", 4); // holds few, and takes none out
	assert_int_equal(zmq_send(r.z, "hello", 5, 0), 5);
	WAIT(&w, w.messages == 1);
	size_t len = w.route_len;
	memcpy(route, w.route, len);
	unsigned sent = 0;
	while (sp_bus_send_blob(w.s, SP_BUS_FLEET, route, len, blob, meter) == 0)
		assert_true(++sent < 2000);
	assert_true(sp_bus_meter_bytes(meter) <= SP_BUS_OWED_MAX);
	assert_int_equal(sp_bus_server_counters(w.s)->not_read, 1);
	join(&w, &b); // another is served
	WAIT(&w, b.ups);
	assert_int_equal(sp_bus_client_send(b.c, "and I", 5), 0);
	WAIT(&w, w.messages == 2);
	assert_int_equal(
		sp_bus_send_blob(w.s, SP_BUS_FLEET, w.route, w.route_len, blob, NULL), 0);
	WAIT(&w, b.messages == 1);
	rogue_done(&r); // what it was owed is let go
	WAIT(&w, sp_bus_meter_bytes(meter) == 0);
	sp_bus_meter_free(meter);
	sp_bus_blob_free(blob);
	free(big);
	sp_bus_client_free(b.c);
	teardown(&w);
}

static void the_routes_of_a_server_are_not_those_of_the_last(void **state)
{
	uint8_t routes[3][SP_BUS_ROUTE_MAX] = {{0}};
	(void)state;
	for (int i = 0; i < 3; i++) {
		struct world w;
		struct end a = {.keys = make_keys()};
		setup(&w);
		w.known[0] = &a;
		join(&w, &a);
		WAIT(&w, a.ups);
		assert_int_equal(sp_bus_client_send(a.c, "x", 1), 0);
		WAIT(&w, w.messages == 1);
		assert_int_equal(w.route_len, 5);
		memcpy(routes[i], w.route, w.route_len);
		sp_bus_client_free(a.c);
		teardown(&w);
	}
	assert_memory_not_equal(routes[0], routes[1], 5);
	assert_memory_not_equal(routes[1], routes[2], 5);
}

static void a_key_that_connects_too_often_is_put_off_and_no_other_is(void **state)
{
	struct world w;
	struct end a = {.keys = make_keys()}, b = {.keys = make_keys()};
	(void)state;
	setup(&w);
	w.known[0] = &a;
	w.known[1] = &b;
	const struct sp_bus_server_counters *n = sp_bus_server_counters(w.s);
	for (uint64_t i = 1; i <= SP_BUS_KEY_BURST + 2; i++) {
		struct rogue r = rogue(&w, &a, NULL, 0);
		WAIT(&w, n->handshakes_ok + n->handshakes_later >= i);
		rogue_done(&r);
	}
	assert_true(n->handshakes_later > 0);
	join(&w, &b);
	WAIT(&w, b.ups);
	sp_bus_client_free(b.c);
	teardown(&w);
}

static void renewing_cuts_off_whoever_is_known_no_more_and_nobody_else(void **state)
{
	struct world w;
	struct end a = {.keys = make_keys()}, b = {.keys = make_keys()};
	(void)state;
	setup(&w);
	w.known[0] = &a;
	w.known[1] = &b;
	join(&w, &a);
	join(&w, &b);
	do {
		sp_bus_publish(w.s, 'D', "digest", 6);
		assert_int_equal(sp_loop_turn(w.loop, true), 0);
	} while (!a.published || !b.published || !a.ups || !b.ups);
	w.known[0] = NULL;
	assert_int_equal(sp_bus_server_renew(w.s, SP_BUS_FLEET), 0);
	WAIT(&w, b.ups == 2 && a.downs && strcmp(a.why, "refused") == 0);
	assert_int_equal(a.ups, 1);
	assert_int_equal(sp_bus_client_send(b.c, "back", 4), 0);
	WAIT(&w, w.messages == 1);
	unsigned heard = a.published;
	b.published = 0;
	do {
		sp_bus_publish(w.s, 'R', "secret", 6);
		assert_int_equal(sp_loop_turn(w.loop, true), 0);
	} while (!b.published);
	assert_string_equal(b.last, "secret");
	assert_int_equal(a.published, heard);
	sp_bus_client_free(a.c);
	sp_bus_client_free(b.c);
	teardown(&w);
}

static void one_blob_goes_to_many(void **state)
{
	struct world w;
	struct end all[3];
	struct sp_bus_blob *blob;
	(void)state;
	setup(&w);
	assert_int_equal(sp_bus_blob_new("the same", 8, &blob), 0);
	assert_int_equal(sp_bus_blob_len(blob), 8);
	for (unsigned i = 0; i < 3; i++) {
		all[i] = (struct end){.keys = make_keys()};
		w.known[i] = &all[i];
		join(&w, &all[i]);
		WAIT(&w, all[i].ups);
		assert_int_equal(sp_bus_client_send(all[i].c, "x", 1), 0);
		WAIT(&w, w.messages == i + 1);
		assert_int_equal(sp_bus_send_blob(w.s, SP_BUS_FLEET, w.route, w.route_len,
						  blob, NULL),
				 0);
	}
	sp_bus_blob_free(blob);
	for (unsigned i = 0; i < 3; i++) {
		WAIT(&w, all[i].messages == 1);
		assert_string_equal(all[i].last, "the same");
		sp_bus_client_free(all[i].c);
	}
	teardown(&w);
}

static void links_go_over_ipv6_too(void **state)
{
	struct world w = {.keys = make_keys()};
	struct end a = {.keys = make_keys()};
	(void)state;
	assert_int_equal(sp_loop_new(&w.loop), 0);
	start_server(&w, "tcp://[::1]:*", "tcp://[::]:*");
	assert_non_null(strstr(sp_bus_server_router(w.s), "tcp://[::1]:"));
	w.address = "::1";
	w.known[0] = &a;
	struct sp_bus_address to = address(&w);
	to.publisher[0] = '\0';
	join_at(&w, &a, &to, 1, 0);
	WAIT(&w, a.ups);
	assert_int_equal(sp_bus_client_send(a.c, "six", 3), 0);
	WAIT(&w, w.messages == 1);
	sp_bus_client_free(a.c);
	teardown(&w);
}

static void a_server_that_comes_back_is_found_again(void **state)
{
	struct world w;
	struct end a = {.keys = make_keys()};
	char router[SP_BUS_ENDPOINT_MAX], publisher[SP_BUS_ENDPOINT_MAX];
	(void)state;
	setup(&w);
	w.known[0] = &a;
	join(&w, &a);
	WAIT(&w, a.ups == 1);
	snprintf(router, sizeof(router), "%s", sp_bus_server_router(w.s));
	snprintf(publisher, sizeof(publisher), "%s", sp_bus_server_publisher(w.s));
	sp_bus_server_free(w.s);
	WAIT(&w, a.downs);
	assert_false(sp_bus_client_is_up(a.c));
	assert_int_equal(sp_bus_client_send(a.c, "x", 1), -EAGAIN);
	start_server(&w, router, publisher);
	WAIT(&w, a.ups == 2);
	do {
		sp_bus_publish(w.s, 'R', "again", 5);
		assert_int_equal(sp_loop_turn(w.loop, true), 0);
	} while (!a.published);
	sp_bus_client_free(a.c);
	teardown(&w);
}

static void with_a_dead_server_the_next_is_tried(void **state)
{
	struct world w, dead;
	struct end a = {.keys = make_keys()};
	(void)state;
	setup(&dead);
	setup(&w);
	w.known[0] = &a;
	struct sp_bus_address both[2] = {address(&dead), address(&w)};
	sp_bus_server_free(dead.s);
	dead.s = NULL;
	join_at(&w, &a, both, 2, 100);
	WAIT(&w, a.ups == 1);
	assert_int_equal(a.at, 1);
	sp_bus_client_free(a.c);
	teardown(&w);
	teardown(&dead);
}

static void a_peer_that_is_gone_is_told(void **state)
{
	struct world w;
	struct end a = {.keys = make_keys()};
	(void)state;
	setup(&w);
	w.known[0] = &a;
	join(&w, &a);
	WAIT(&w, a.ups);
	assert_int_equal(sp_bus_client_send(a.c, "x", 1), 0);
	WAIT(&w, w.messages);
	sp_bus_client_free(a.c);
	WAIT(&w, sp_bus_send(w.s, SP_BUS_FLEET, w.route, w.route_len, "y", 1) ==
			 -EHOSTUNREACH);
	teardown(&w);
}

static void an_address_in_use_is_named(void **state)
{
	struct world w;
	struct sp_bus_server *s;
	char why[256];
	(void)state;
	setup(&w);
	struct sp_bus_server_options o = {.loop = w.loop,
					  .keys = &w.keys,
					  .router = sp_bus_server_router(w.s),
					  .publisher = "tcp://127.0.0.1:*",
					  .ops = &server_ops,
					  .ctx = &w};
	assert_int_equal(sp_bus_server_new(&o, &s, why, sizeof(why)), -EADDRINUSE);
	assert_non_null(strstr(why, sp_bus_server_router(w.s)));
	o.router = "tcp://localhost";
	assert_int_equal(sp_bus_server_new(&o, &s, why, sizeof(why)), SP_E_MALFORMED);
	assert_non_null(strstr(why, "tcp://localhost"));
	teardown(&w);
}

#define T(name) cmocka_unit_test(name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(messages_go_both_ways_and_carry_who_sent_them),
		T(what_is_published_reaches_all),
		T(who_subscribes_and_leaves_does_not_keep_the_loop_turning),
		T(an_unknown_key_and_a_wrong_server_are_refused),
		T(a_key_that_is_taken_away_counts_no_more),
		T(strangers_reach_enrolment_only_and_only_while_it_is_open),
		T(a_message_over_the_limit_costs_its_sender_the_link),
		T(what_is_no_single_frame_is_counted_and_dropped),
		T(who_claims_the_route_of_another_gets_none_of_its_answers),
		T(a_peer_that_does_not_read_is_owed_so_much_and_no_more),
		T(the_routes_of_a_server_are_not_those_of_the_last),
		T(a_key_that_connects_too_often_is_put_off_and_no_other_is),
		T(renewing_cuts_off_whoever_is_known_no_more_and_nobody_else),
		T(one_blob_goes_to_many),
		T(links_go_over_ipv6_too),
		T(a_server_that_comes_back_is_found_again),
		T(with_a_dead_server_the_next_is_tried),
		T(a_peer_that_is_gone_is_told),
		T(an_address_in_use_is_named),
	};
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("bus", tests, NULL, NULL);
}
