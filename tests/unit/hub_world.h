// What the tests of the hub share: a fleet of really signed revisions, a hub, and peers
// over real ZeroMQ and CURVE on loopback that speak proto/fleet.proto. Included after
// cmocka.
#ifndef HUB_WORLD_H
#define HUB_WORLD_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "controller/hub.h"
#include "controller/hub_internal.h"
#include "lib/replica.h"

#define PATIENCE_US   20000000
#define REVISIONS_MAX 1200
#define HERD          200

#define TO_(name)   SALLYPORT__FLEET__TO_CONTROLLER__BODY_##name
#define FROM_(name) SALLYPORT__FLEET__FROM_CONTROLLER__BODY_##name

struct world {
	struct sp_loop *loop;
	struct sp_bus_keys keys;
	uint8_t secret[64], route_key[32];
	struct con_hub *hub;
	// the fleet
	struct sp_signed_keys trusted;
	struct sp_state *state;
	struct sp_position head;
	struct {
		char *text;
		size_t len;
	} revisions[REVISIONS_MAX];
	uint64_t forgotten; // revisions up to this one are not at hand
	char *snapshot;
	unsigned snapshots;
	bool no_snapshot;
	// what came
	unsigned events[CON_HUB_EVENTS_N], links, calls, aheads, telemetries;
	char event_name[SP_BUS_NAME_MAX], event_text[512];
	struct con_hub_call call;
	int call_kind;
};

struct end { // a worker or vantage
	struct world *w;
	struct sp_bus_keys keys;
	struct sp_bus_client *c;
	char name[SP_BUS_NAME_MAX];
	uint8_t static_key[32];
	uint64_t boot;
	bool quiet; // says no hello by itself
	struct sp_replica replica;
	unsigned ups, downs, welcomes, snapshots, revisions, deltas, refused, digests,
		published, answers;
	char why[32], reason[128];
	uint8_t route_key[32];
	size_t route_key_len;
	uint64_t head, published_at_us;
	uint64_t worst_us; // from publishing until it was heard
};

// ---- the fleet ----

static const char *give_revision(void *ctx, uint64_t sequence, size_t *ret_len)
{
	struct world *w = ctx;
	if (sequence <= w->forgotten || sequence > w->head.sequence)
		return NULL;
	*ret_len = w->revisions[sequence].len;
	return w->revisions[sequence].text;
}

static inline int give_snapshot(void *ctx, const char **ret, size_t *ret_len)
{
	struct world *w = ctx;
	if (w->no_snapshot)
		return SP_E_LIMIT;
	free(w->snapshot);
	w->snapshot = NULL;
	w->snapshots++;
	int err =
		sp_snapshot_sign(&w->head, 1, w->state, w->secret, &w->snapshot, ret_len);
	*ret = w->snapshot;
	return err;
}

// One more revision, not yet told to the hub.
static inline void revise(struct world *w, size_t padding)
{
	struct sp_changes c = {0};
	char *pad = calloc(1, padding + 1), *text, *private;
	size_t len;
	struct sp_position at;
	memset(pad, 'x', padding);
	json_t *o =
		json_pack("{s:I, s:s}", "n", (json_int_t)w->head.sequence, "pad", pad);
	char key[32];
	snprintf(key, sizeof(key), "region/r%u", (unsigned)(w->head.sequence % 7));
	assert_int_equal(sp_changes_add(&c, key, o), 0);
	assert_int_equal(sp_state_apply(w->state, &c), 0);
	assert_int_equal(sp_revision_sign(&w->head, 1, 1, "test", &c, w->state, w->secret,
					  &text, &len, &private, &at),
			 0);
	assert_true(at.sequence < REVISIONS_MAX);
	w->revisions[at.sequence].text = text;
	w->revisions[at.sequence].len = len;
	w->head = at;
	json_decref(o);
	sp_changes_done(&c);
	free(pad);
}

static inline void publish(struct world *w)
{
	revise(w, 0);
	con_hub_publish(w->hub, &w->head, sp_state_hash(w->state),
			w->revisions[w->head.sequence].text,
			w->revisions[w->head.sequence].len);
}

static inline void on_call(void *ctx, const struct con_hub_call *call,
			   const Sallyport__Fleet__ToController *m)
{
	struct world *w = ctx;
	w->calls++;
	w->call = *call;
	w->call_kind = (int)m->body_case;
}

static inline void on_link(void *ctx, const struct con_hub_peer *p)
{
	struct world *w = ctx;
	(void)p;
	w->links++;
}

static inline void on_telemetry(void *ctx, const struct con_hub_peer *p)
{
	struct world *w = ctx;
	(void)p;
	w->telemetries++;
}

static inline void on_ahead(void *ctx, const char *name, const struct sp_position *at)
{
	struct world *w = ctx;
	(void)name;
	(void)at;
	w->aheads++;
}

static inline void on_event(void *ctx, enum con_hub_event what, const char *name,
			    const char *text)
{
	struct world *w = ctx;
	w->events[what]++;
	snprintf(w->event_name, sizeof(w->event_name), "%s", name);
	snprintf(w->event_text, sizeof(w->event_text), "%s", text);
}

static const struct con_hub_ops hub_ops = {.revision = give_revision,
					   .snapshot = give_snapshot,
					   .call = on_call,
					   .link = on_link,
					   .telemetry = on_telemetry,
					   .ahead = on_ahead,
					   .event = on_event};

static inline struct sp_bus_keys make_keys(void)
{
	struct sp_bus_keys k;
	randombytes_buf(k.secret_key, sizeof(k.secret_key));
	crypto_scalarmult_base(k.public_key, k.secret_key);
	return k;
}

static inline void setup_at(struct world *w, uint32_t fetch_rate)
{
	char why[256] = "";
	uint8_t public_key[32];
	*w = (struct world){.keys = make_keys()};
	assert_int_equal(sp_loop_new(&w->loop), 0);
	assert_int_equal(sp_state_new(&w->state), 0);
	crypto_sign_keypair(public_key, w->secret);
	assert_int_equal(sp_signed_keys_add(&w->trusted, public_key), 0);
	memset(w->route_key, 5, sizeof(w->route_key));
	struct con_hub_options o = {.loop = w->loop,
				    .keys = &w->keys,
				    .router = "tcp://127.0.0.1:*",
				    .publisher = "tcp://127.0.0.1:*",
				    .route_key = w->route_key,
				    .boot = 77,
				    .fetch_rate = fetch_rate,
				    .ops = &hub_ops,
				    .ctx = w};
	if (con_hub_new(&o, &w->hub, why, sizeof(why)))
		fail_msg("%s", why);
}

static inline void setup(struct world *w)
{
	setup_at(w, 0);
	revise(w, 0);
	con_hub_set_head(w->hub, &w->head, sp_state_hash(w->state));
}

static inline void teardown(struct world *w)
{
	con_hub_free(w->hub);
	for (unsigned i = 0; i < REVISIONS_MAX; i++)
		free(w->revisions[i].text);
	free(w->snapshot);
	sp_state_free(w->state);
	sp_loop_free(w->loop);
}

// ---- peers ----

static inline void say(struct end *e, int kind, void *body, uint64_t call)
{
	Sallyport__Fleet__ToController m = SALLYPORT__FLEET__TO_CONTROLLER__INIT;
	m.version = 1;
	m.call = call;
	m.body_case = kind;
	m.hello = body;
	size_t n = sallyport__fleet__to_controller__get_packed_size(&m);
	uint8_t *buf = malloc(n);
	assert_non_null(buf);
	sallyport__fleet__to_controller__pack(&m, buf);
	assert_int_equal(sp_bus_client_send(e->c, buf, n), 0);
	free(buf);
}

static inline void say_hello_of(struct end *e, uint32_t version)
{
	Sallyport__Fleet__Hello m = SALLYPORT__FLEET__HELLO__INIT;
	Sallyport__Fleet__Position at;
	char program[] = "sallyport-worker \x01test", bound[] = "tcp 127.0.0.1:1";
	char *bounds[] = {bound, bound};
	hub_position_put(&e->replica.position, &at);
	m.version_min = m.version_max = version;
	m.boot = e->boot;
	m.applied = &at;
	m.program = program;
	m.bound = bounds;
	m.n_bound = 2;
	m.static_key = (ProtobufCBinaryData){32, e->static_key};
	say(e, TO_(HELLO), &m, 0);
}

static inline void say_hello(struct end *e)
{
	say_hello_of(e, 1);
}

static inline void fetch_from(struct end *e, const struct sp_position *p, bool whole,
			      uint64_t call)
{
	Sallyport__Fleet__Fetch m = SALLYPORT__FLEET__FETCH__INIT;
	Sallyport__Fleet__Position at;
	hub_position_put(p, &at);
	m.applied = &at;
	m.snapshot = whole;
	say(e, TO_(FETCH), &m, call);
}

static inline void fetch(struct end *e)
{
	fetch_from(e, &e->replica.position, false, 0);
}

static inline void ack(struct end *e, const struct sp_position *p, const uint8_t *state)
{
	Sallyport__Fleet__Ack m = SALLYPORT__FLEET__ACK__INIT;
	Sallyport__Fleet__Position at;
	hub_position_put(p, &at);
	m.position = &at;
	m.state = (ProtobufCBinaryData){32, (uint8_t *)(uintptr_t)state};
	say(e, TO_(ACK), &m, 0);
}

static inline void take(struct end *e, const void *text, size_t len, bool snapshot)
{
	struct sp_staged s = {0};
	int err = snapshot ? sp_replica_stage_snapshot(&e->replica, text, len, &s)
			   : sp_replica_stage_revision(&e->replica, text, len, &s);
	if (err == 0)
		sp_replica_take(&e->replica, &s);
	else
		assert_true(err == SP_E_AGAIN || err == SP_E_STALE);
}

static inline void on_up(void *ctx, unsigned at)
{
	struct end *e = ctx;
	(void)at;
	e->ups++;
	if (!e->quiet)
		say_hello(e);
}

static inline void on_down(void *ctx, unsigned at, const char *why)
{
	struct end *e = ctx;
	(void)at;
	e->downs++;
	snprintf(e->why, sizeof(e->why), "%s", why);
}

static inline void on_message(void *ctx, const void *data, size_t len)
{
	struct end *e = ctx;
	Sallyport__Fleet__FromController *m =
		sallyport__fleet__from_controller__unpack(NULL, len, data);
	assert_non_null(m);
	assert_int_equal(m->version, 1);
	switch ((int)m->body_case) {
	case FROM_(WELCOME):
		e->welcomes++;
		assert_int_equal(m->welcome->controller_boot, 77);
		e->head = m->welcome->head->sequence;
		e->route_key_len = m->welcome->route_key.len;
		if (e->route_key_len == 32)
			memcpy(e->route_key, m->welcome->route_key.data, 32);
		break;
	case FROM_(SNAPSHOT):
		e->snapshots++;
		take(e, m->snapshot->blob.data, m->snapshot->blob.len, true);
		break;
	case FROM_(REVISIONS):
		e->revisions++;
		e->deltas += (unsigned)m->revisions->n_blob;
		for (size_t i = 0; i < m->revisions->n_blob; i++)
			take(e, m->revisions->blob[i].data, m->revisions->blob[i].len,
			     false);
		break;
	case FROM_(REFUSED):
		e->refused++;
		snprintf(e->reason, sizeof(e->reason), "%s", m->refused->reason);
		break;
	default:
		e->answers++;
		break;
	}
	sallyport__fleet__from_controller__free_unpacked(m, NULL);
}

static inline void on_published(void *ctx, char topic, const void *data, size_t len)
{
	struct end *e = ctx;
	uint64_t passed = sp_loop_refresh(e->w->loop) - e->published_at_us;
	if (e->published_at_us && passed > e->worst_us)
		e->worst_us = passed;
	if (topic == 'D') {
		Sallyport__Fleet__Digest *d =
			sallyport__fleet__digest__unpack(NULL, len, data);
		assert_non_null(d);
		e->digests++;
		e->head = d->head->sequence;
		sallyport__fleet__digest__free_unpacked(d, NULL);
		return;
	}
	assert_int_equal(topic, 'R');
	e->published++;
	take(e, data, len, false);
}

static const struct sp_bus_client_ops client_ops = {on_up, on_down, on_message,
						    on_published};

static inline void make_end(struct world *w, struct end *e, const char *name)
{
	*e = (struct end){.w = w, .keys = make_keys()};
	e->replica.keys = w->trusted;
	snprintf(e->name, sizeof(e->name), "%s", name);
	randombytes_buf(e->static_key, 32);
	e->boot = 1 + randombytes_uniform(1000000);
	bool worker = strncmp(name, "worker:", 7) == 0;
	assert_int_equal(con_hub_allow(w->hub, name, e->keys.public_key,
				       worker ? e->static_key : NULL),
			 0);
}

static inline void join(struct end *e)
{
	char why[256];
	struct sp_bus_address a = {0};
	snprintf(a.router, sizeof(a.router), "%s", con_hub_router(e->w->hub));
	snprintf(a.publisher, sizeof(a.publisher), "%s", con_hub_publisher(e->w->hub));
	memcpy(a.key, e->w->keys.public_key, 32);
	struct sp_bus_client_options o = {.loop = e->w->loop,
					  .keys = &e->keys,
					  .servers = &a,
					  .n_servers = 1,
					  .ops = &client_ops,
					  .ctx = e};
	assert_int_equal(sp_bus_client_new(&o, &e->c, why, sizeof(why)), 0);
}

static inline void leave(struct end *e)
{
	sp_bus_client_free(e->c);
	e->c = NULL;
	sp_replica_done(&e->replica);
}

static inline void tick(void *ctx)
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

// Until it is subscribed: digests come at once instead of each second.
#define WAIT_TO_HEAR(w_, e_)                                                             \
	do {                                                                             \
		unsigned heard_ = (e_)->digests;                                         \
		uint64_t stop_ = sp_loop_refresh((w_)->loop) + PATIENCE_US;              \
		while ((e_)->digests == heard_) {                                        \
			assert_true(sp_loop_refresh((w_)->loop) < stop_);                \
			sp_timer_set(&(w_)->hub->digest, sp_loop_now_us((w_)->loop));    \
			assert_int_equal(sp_loop_turn((w_)->loop, true), 0);             \
		}                                                                        \
	} while (0)

static inline void begin(struct world *w, struct end *e, const char *name)
{
	make_end(w, e, name);
	join(e);
	WAIT(w, e->welcomes);
	WAIT_TO_HEAR(w, e);
}

static inline bool is_at_head(const struct end *e)
{
	return sp_position_same(&e->replica.position, &e->w->head);
}

static const struct con_hub_peer *peer(const struct end *e)
{
	const struct con_hub_peer *p = con_hub_find(e->w->hub, e->name);
	assert_non_null(p);
	return p;
}

#endif
