#include "controller/hub.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "controller/hub_internal.h"

#define AGAIN_US           UINT64_C(1000000) // when sockets could not be made anew
#define ENROL_QUIET        6                 // digests
#define ENROL_FAR_TOO_MANY (16 * CON_HUB_ENROL_LINKS)

static const double ack_bounds[] = {0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03,
				    0.04,  0.05,   0.075, 0.1,    0.15, 0.2,   0.25, 0.35,
				    0.5,   0.75,   1,     2.5,    5,    10,    30};

static const char *const event_words[] = {
#define X(name, word, level) [CON_HUB_##name] = word,
	CON_HUB_EVENTS(X)
#undef X
};

const char *con_hub_event_word(enum con_hub_event e)
{
	return e < CON_HUB_EVENTS_N ? event_words[e] : "unknown";
}

void hub_event(struct con_hub *h, enum con_hub_event what, struct hub_peer *p,
	       const char *text)
{
	h->n_of.events[what]++;
	if (h->ops->event &&
	    (!p || sp_ratelimit_ok(&p->lines[what], sp_loop_now_ms(h->loop))))
		h->ops->event(h->ctx, what, p ? p->name : "", text);
}

void hub_call_of(const struct hub_peer *p, uint64_t call, struct con_hub_call *ret)
{
	*ret = (struct con_hub_call){
		.domain = SP_BUS_FLEET, .call = call, .route_len = p->route_len};
	memcpy(ret->name, p->name, sizeof(ret->name));
	memcpy(ret->key, p->key, sizeof(ret->key));
	memcpy(ret->route, p->route, p->route_len);
}

// ---- out ----

// What is long is counted until the peer has taken it.
static int send_long(struct con_hub *h, const struct con_hub_call *to, const void *data,
		     size_t len)
{
	struct hub_peer *p = to->domain == SP_BUS_FLEET ? hub_by_key(h, to->key) : NULL;
	struct sp_bus_blob *b;
	int err = sp_bus_blob_new(data, len, &b);
	if (err)
		return err;
	err = sp_bus_send_blob(h->bus, to->domain, to->route, to->route_len, b,
			       p ? p->meter : NULL);
	sp_bus_blob_free(b);
	return err;
}

int con_hub_answer(struct con_hub *h, const struct con_hub_call *to,
		   Sallyport__Fleet__FromController *m)
{
	uint8_t small[1024], *buf = small;
	m->version = CON_HUB_VERSION;
	m->call = to->call;
	size_t n = sallyport__fleet__from_controller__get_packed_size(m);
	if (n > sizeof(small) && !(buf = malloc(n)))
		return -ENOMEM;
	sallyport__fleet__from_controller__pack(m, buf);
	int err = buf == small ? sp_bus_send(h->bus, to->domain, to->route, to->route_len,
					     buf, n)
			       : send_long(h, to, buf, n);
	sodium_memzero(buf, n); // may hold the route key
	if (buf != small)
		free(buf);
	return err;
}

void con_hub_refuse(struct con_hub *h, const struct con_hub_call *to, const char *reason,
		    uint32_t retry_ms)
{
	Sallyport__Fleet__FromController m = SALLYPORT__FLEET__FROM_CONTROLLER__INIT;
	Sallyport__Fleet__Refused r = SALLYPORT__FLEET__REFUSED__INIT;
	r.reason = (char *)(uintptr_t)reason;
	r.retry_ms = retry_ms;
	m.body_case = SALLYPORT__FLEET__FROM_CONTROLLER__BODY_REFUSED;
	m.refused = &r;
	(void)con_hub_answer(h, to, &m); // who does not hear it will ask again
}

static void publish_digest(struct con_hub *h)
{
	Sallyport__Fleet__Digest d = SALLYPORT__FLEET__DIGEST__INIT;
	Sallyport__Fleet__Position head;
	uint8_t buf[256];
	hub_position_put(&h->head, &head);
	d.version = CON_HUB_VERSION;
	d.head = &head;
	d.state = (ProtobufCBinaryData){sizeof(h->state), h->state};
	d.time_ms = sp_loop_unix_ms(h->loop);
	sp_bus_publish(h->bus, 'D', buf, sallyport__fleet__digest__pack(&d, buf));
}

static struct hub_mark *set_head(struct con_hub *h, const struct sp_position *position,
				 const uint8_t *state)
{
	struct hub_mark *k = &h->marks[position->sequence % HUB_MARKS];
	h->head = *position;
	memcpy(h->state, state, sizeof(h->state));
	hub_snapshot_forget(h);
	*k = (struct hub_mark){.sequence = position->sequence, .has_state = true};
	memcpy(k->hash, position->hash, sizeof(k->hash));
	memcpy(k->state, state, sizeof(k->state));
	return k;
}

void con_hub_set_head(struct con_hub *h, const struct sp_position *position,
		      const uint8_t *state)
{
	memset(h->marks, 0, sizeof(h->marks)); // it may be another history
	(void)set_head(h, position, state);
}

void con_hub_publish(struct con_hub *h, const struct sp_position *position,
		     const uint8_t *state, const void *text, size_t len)
{
	set_head(h, position, state)->published_us = sp_loop_refresh(h->loop);
	sp_bus_publish(h->bus, 'R', text, len);
	publish_digest(h);
}

// ---- cutting links ----

static void on_cut(void *arg)
{
	struct con_hub *h = arg;
	h->cut_us = sp_loop_now_us(h->loop);
	int err = sp_bus_server_renew(h->bus, SP_BUS_FLEET);
	for (size_t i = 0; i < h->n; i++) { // the routes are void
		hub_fetch_drop(h, h->all[i]);
		h->all[i]->welcome = false;
	}
	hub_event(h, CON_HUB_CUT, NULL, err ? sp_strerror(err) : "a key was removed");
	if (err)
		sp_timer_set(&h->cut, h->cut_us + AGAIN_US);
}

// Strangers' links end with their enrolment, or here: when there were many and it has
// been quiet, so that none waits for an answer; when there were far too many, in any
// case.
static void cut_strangers(struct con_hub *h)
{
	uint64_t links = sp_bus_server_counters(h->bus)->enrol_ok;
	uint64_t open = links - h->enrol_links, active = links + h->n_of.enrols;
	h->enrol_quiet = active == h->enrol_active ? h->enrol_quiet + 1 : 0;
	h->enrol_active = active;
	if (open < CON_HUB_ENROL_LINKS ||
	    (h->enrol_quiet < ENROL_QUIET && open < ENROL_FAR_TOO_MANY))
		return;
	if (sp_bus_server_renew(h->bus, SP_BUS_ENROL) == 0)
		h->enrol_links = links;
}

static void on_digest(void *arg)
{
	struct con_hub *h = arg;
	if (h->head.sequence)
		publish_digest(h);
	hub_sweep(h);
	cut_strangers(h);
	sp_timer_set(&h->digest,
		     sp_loop_now_us(h->loop) + CON_HUB_DIGEST_MS * UINT64_C(1000));
}

// ---- the bus's questions ----

static bool identify(void *ctx, const uint8_t *key, char *ret)
{
	struct hub_peer *p = hub_by_key(ctx, key);
	if (!p)
		return false;
	p->joined = true;
	memcpy(ret, p->name, sizeof(p->name));
	return true;
}

static enum sp_bus_verdict may_enrol(void *ctx, const char *address)
{
	struct con_hub *h = ctx;
	return h->ops->may_enrol ? h->ops->may_enrol(h->ctx, address) : SP_BUS_REFUSE;
}

static const struct sp_bus_server_ops bus_ops = {identify, may_enrol, hub_on_message};

// ---- start and end ----

int con_hub_new(const struct con_hub_options *opt, struct con_hub **ret, char *why,
		size_t cap)
{
	struct con_hub *h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	h->loop = opt->loop;
	h->ops = opt->ops;
	h->ctx = opt->ctx;
	h->boot = opt->boot;
	h->fetch_rate = opt->fetch_rate ? opt->fetch_rate : CON_HUB_FETCH_RATE;
	memcpy(h->route_key, opt->route_key, sizeof(h->route_key));
	randombytes_buf(h->name_key, sizeof(h->name_key));
	sp_idmap_init(&h->by_key);
	sp_idmap_init(&h->by_name);
	TAILQ_INIT(&h->fetches);
	sp_histogram_init(&h->ack_seconds, ack_bounds,
			  sizeof(ack_bounds) / sizeof(ack_bounds[0]));
	sp_timer_init(&h->digest, h->loop, on_digest, h);
	sp_timer_init(&h->serve, h->loop, hub_fetch_serve, h);
	sp_timer_init(&h->cut, h->loop, on_cut, h);
	const struct sp_bus_server_options bus = {.loop = opt->loop,
						  .keys = opt->keys,
						  .router = opt->router,
						  .publisher = opt->publisher,
						  .enrol = opt->enrol,
						  .ops = &bus_ops,
						  .ctx = h};
	int err = sp_bus_server_new(&bus, &h->bus, why, cap);
	if (err) {
		con_hub_free(h);
		return err;
	}
	h->fetch_us = sp_loop_now_us(h->loop);
	sp_timer_set(&h->digest, h->fetch_us + CON_HUB_DIGEST_MS * UINT64_C(1000));
	*ret = h;
	return 0;
}

void con_hub_free(struct con_hub *h)
{
	if (!h)
		return;
	sp_timer_done(&h->digest);
	sp_timer_done(&h->serve);
	sp_timer_done(&h->cut);
	hub_snapshot_forget(h);
	sp_bus_server_free(h->bus);
	hub_peers_free(h);
	sodium_memzero(h->route_key, sizeof(h->route_key));
	free(h);
}

const char *con_hub_router(const struct con_hub *h)
{
	return sp_bus_server_router(h->bus);
}

const char *con_hub_publisher(const struct con_hub *h)
{
	return sp_bus_server_publisher(h->bus);
}

const char *con_hub_enrol(const struct con_hub *h)
{
	return sp_bus_server_enrol(h->bus);
}
