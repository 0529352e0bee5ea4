// What peers say: who is heard, and what is done with it.
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "controller/hub_internal.h"

#define IN_FLIGHT_US       UINT64_C(2000000) // words of a link that was just left
#define VANTAGE_SILENCE_MS 15000             // it speaks when it has probed
#define BYTES_OF_A_TOKEN   1024              // a long message counts as several
#define SECOND_US          UINT64_C(1000000)

// Of a peer's texts, what may stand in a log or a table.
static void copy_text(const char *text, char *ret, size_t cap)
{
	size_t i;
	for (i = 0; text[i] && i + 1 < cap; i++)
		ret[i] = isprint((unsigned char)text[i]) ? text[i] : '?';
	ret[i] = '\0';
}

bool hub_position_get(const Sallyport__Fleet__Position *m, struct sp_position *ret)
{
	struct sp_position p = {0};
	if (m) {
		p.epoch = m->epoch;
		p.sequence = m->sequence;
		if (m->hash.len == sizeof(p.hash))
			memcpy(p.hash, m->hash.data, sizeof(p.hash));
		else if (m->hash.len || m->sequence)
			return false;
	}
	*ret = p;
	return true;
}

void hub_position_put(const struct sp_position *p, Sallyport__Fleet__Position *ret)
{
	sallyport__fleet__position__init(ret);
	ret->epoch = p->epoch;
	ret->sequence = p->sequence;
	ret->hash.data = (uint8_t *)(uintptr_t)p->hash;
	ret->hash.len = p->sequence ? sizeof(p->hash) : 0;
}

static void malformed(struct con_hub *h, struct hub_peer *p, const char *what)
{
	h->n_of.malformed++;
	hub_event(h, CON_HUB_MALFORMED, p, what);
}

// ---- limits ----

static bool has_tokens(struct con_hub *h, struct hub_peer *p, size_t len)
{
	uint64_t now = sp_loop_now_us(h->loop);
	uint64_t cost = 1 + len / BYTES_OF_A_TOKEN;
	uint64_t more = (now - p->refill_us) * CON_HUB_PER_SECOND / SECOND_US;
	if (more) {
		p->tokens = more + p->tokens > CON_HUB_BURST ? CON_HUB_BURST
							     : p->tokens + (uint32_t)more;
		p->refill_us = now;
	}
	if (p->tokens < cost) {
		h->n_of.flooded++;
		hub_event(h, CON_HUB_FLOOD, p, "messages dropped");
		return false;
	}
	p->tokens -= (uint32_t)cost;
	return true;
}

// ---- links ----

static uint64_t silence_us(const struct hub_peer *p)
{
	return (p->is_worker ? CON_HUB_SILENCE_MS : VANTAGE_SILENCE_MS) * UINT64_C(1000);
}

static bool is_alive(const struct con_hub *h, const struct hub_peer *p)
{
	return p->welcome && sp_loop_now_us(h->loop) - p->seen_us < silence_us(p);
}

static void tell_link(struct con_hub *h, struct hub_peer *p)
{
	if (h->ops->link)
		h->ops->link(h->ctx, &p->pub);
}

static void heard_of(struct con_hub *h, struct hub_peer *p)
{
	p->seen_us = sp_loop_now_us(h->loop);
	p->pub.seen_ms = sp_loop_unix_ms(h->loop);
	if (p->pub.connected)
		return;
	p->pub.connected = true;
	hub_event(h, CON_HUB_UP, p, p->pub.address);
	tell_link(h, p);
}

void hub_sweep(struct con_hub *h)
{
	for (size_t i = h->n; i-- > 0;) {
		struct hub_peer *p = h->all[i];
		if (!p->pub.connected ||
		    sp_loop_now_us(h->loop) - p->seen_us < silence_us(p))
			continue;
		p->pub.connected = false;
		hub_event(h, CON_HUB_LOST, p, p->pub.address);
		tell_link(h, p);
	}
}

// ---- places ----

const struct hub_mark *hub_mark(struct con_hub *h, uint64_t sequence)
{
	struct hub_mark *k = &h->marks[sequence % HUB_MARKS];
	size_t len;
	if (sequence == 0 || sequence > h->head.sequence)
		return NULL;
	if (k->sequence == sequence)
		return k;
	if (h->head.sequence - sequence >= HUB_MARKS)
		return NULL; // its place is another's
	const char *text = h->ops->revision(h->ctx, sequence, &len);
	if (!text)
		return NULL;
	*k = (struct hub_mark){.sequence = sequence};
	crypto_generichash(k->hash, sizeof(k->hash), (const uint8_t *)text, len, NULL, 0);
	return k;
}

// Where a peer says it is.
static void place(struct con_hub *h, struct hub_peer *p, const struct sp_position *at)
{
	char text[64];
	bool news = !sp_position_same(at, &p->pub.applied);
	p->pub.applied = *at;
	if (!news)
		return;
	snprintf(text, sizeof(text), "at %u.%llu", at->epoch,
		 (unsigned long long)at->sequence);
	if (sp_position_compare(at, &h->head) > 0) {
		hub_event(h, CON_HUB_AHEAD, p, text);
		if (h->ops->ahead)
			h->ops->ahead(h->ctx, p->name, at);
		return;
	}
	const struct hub_mark *k = hub_mark(h, at->sequence);
	if (k && memcmp(k->hash, at->hash, sizeof(k->hash)) != 0)
		hub_event(h, CON_HUB_FORK, p, text);
}

// ---- messages ----

static void join_texts(char *const *v, size_t n, char *ret, size_t cap)
{
	size_t len = 0;
	ret[0] = '\0';
	for (size_t i = 0; i < n && len + 4 < cap; i++) {
		if (i) {
			memcpy(ret + len, ", ", 3);
			len += 2;
		}
		copy_text(v[i], ret + len, cap - len);
		len += strlen(ret + len);
	}
}

// How a hello over this route stands to what is here.
static enum hub_hello judge_hello(struct con_hub *h, struct hub_peer *p,
				  const Sallyport__Fleet__Hello *m)
{
	if (p->pub.boot == 0)
		return HELLO_NEW;
	if (m->boot == p->pub.boot)
		return HELLO_AGAIN;
	if (m->boot == p->other_boot && is_alive(h, p))
		return HELLO_REFUSED; // it was taken over from, and yet it lives
	return HELLO_OTHER_BOOT;
}

static void welcome(struct con_hub *h, struct hub_peer *p, const struct con_hub_call *to)
{
	Sallyport__Fleet__FromController m = SALLYPORT__FLEET__FROM_CONTROLLER__INIT;
	Sallyport__Fleet__Welcome w = SALLYPORT__FLEET__WELCOME__INIT;
	Sallyport__Fleet__Position head;
	hub_position_put(&h->head, &head);
	w.version = CON_HUB_VERSION;
	w.time_ms = sp_loop_unix_ms(h->loop);
	w.head = &head;
	w.controller_boot = h->boot;
	if (p->is_worker)
		w.route_key = (ProtobufCBinaryData){sizeof(h->route_key), h->route_key};
	m.body_case = SALLYPORT__FLEET__FROM_CONTROLLER__BODY_WELCOME;
	m.welcome = &w;
	(void)con_hub_answer(h, to, &m); // gone again: it comes back
}

static void take_link(struct con_hub *h, struct hub_peer *p,
		      const struct sp_bus_peer *from, const Sallyport__Fleet__Hello *m,
		      bool other_boot)
{
	if (other_boot) {
		p->other_boot = p->pub.boot;
		p->took_over_us = sp_loop_now_us(h->loop);
	} else if (p->route_len != from->route_len ||
		   memcmp(p->route, from->route, from->route_len) != 0) {
		p->took_over_us = sp_loop_now_us(h->loop);
	}
	hub_fetch_drop(h, p);
	p->welcome = true;
	p->hello_us = sp_loop_now_us(h->loop);
	p->route_len = (uint8_t)from->route_len;
	memcpy(p->route, from->route, from->route_len);
	p->pub.boot = m->boot;
	p->pub.version = CON_HUB_VERSION;
	p->pub.up_ms = sp_loop_unix_ms(h->loop);
	copy_text(m->program, p->pub.program, sizeof(p->pub.program));
	copy_text(from->address, p->pub.address, sizeof(p->pub.address));
	join_texts(m->bound, m->n_bound, p->pub.bound, sizeof(p->pub.bound));
	if (other_boot) {
		sallyport__fleet__telemetry__init(&p->pub.telemetry);
		if (p->pub.connected)
			tell_link(h, p);
	}
}

static void take_hello(struct con_hub *h, struct hub_peer *p,
		       const struct sp_bus_peer *from, const struct con_hub_call *to,
		       const Sallyport__Fleet__Hello *m)
{
	struct sp_position at;
	char text[64];
	if (m->boot == 0 || !hub_position_get(m->applied, &at)) {
		malformed(h, p, "a hello without a boot id or a place");
		return;
	}
	if (m->version_min > CON_HUB_VERSION || m->version_max < CON_HUB_VERSION) {
		snprintf(text, sizeof(text), "version %u to %u, here %d", m->version_min,
			 m->version_max, CON_HUB_VERSION);
		h->n_of.hellos[HELLO_REFUSED]++;
		hub_event(h, CON_HUB_NO_VERSION, p, text);
		con_hub_refuse(h, to, text, 0);
		return;
	}
	enum hub_hello kind = judge_hello(h, p, m);
	h->n_of.hellos[kind]++;
	if (kind == HELLO_REFUSED) {
		hub_event(h, CON_HUB_DUPLICATE, p, from->address);
		con_hub_refuse(h, to, "another with the same key runs", 60000);
		return;
	}
	if (p->has_static &&
	    (m->static_key.len != CON_HUB_STATIC_BYTES ||
	     memcmp(m->static_key.data, p->static_key, CON_HUB_STATIC_BYTES) != 0))
		hub_event(h, CON_HUB_STATIC_KEY, p, "clients will not reach it");
	take_link(h, p, from, m, kind == HELLO_OTHER_BOOT);
	heard_of(h, p);
	place(h, p, &at);
	welcome(h, p, to);
}

// Heard over a link that is not the one of its last hello.
static void take_from_other_route(struct con_hub *h, struct hub_peer *p,
				  const struct sp_bus_peer *from,
				  const struct con_hub_call *to)
{
	h->n_of.other_route++;
	if (sp_loop_now_us(h->loop) < p->took_over_us + IN_FLIGHT_US)
		return; // was on its way
	hub_event(h, CON_HUB_DUPLICATE, p, from->address);
	con_hub_refuse(h, to, "another with the same key runs", 60000);
}

// By the key that the reason begins with, such as exit_policy of "exit_policy[3]: …".
static void count_nack(struct con_hub *h, const char *reason)
{
	char about[HUB_NACK_WORD_MAX] = "";
	size_t n = strspn(reason, "abcdefghijklmnopqrstuvwxyz_");
	unsigned i = HUB_NACK_WORDS - 1;
	if (n && n < sizeof(about) && reason[n] && strchr(":[.", reason[n])) {
		snprintf(about, sizeof(about), "%.*s", (int)n, reason);
		for (i = 0; i < HUB_NACK_WORDS - 1 && h->n_of.nacked[i].n; i++)
			if (strcmp(h->n_of.nacked[i].about, about) == 0)
				break;
	}
	if (i < HUB_NACK_WORDS - 1)
		snprintf(h->n_of.nacked[i].about, sizeof(about), "%s", about);
	h->n_of.nacked[i].n++;
}

static void take_nack(struct con_hub *h, struct hub_peer *p,
		      const Sallyport__Fleet__Ack *m)
{
	struct sp_position refused;
	char text[CON_HUB_REASON_MAX + 64];
	if (!hub_position_get(m->refused, &refused)) {
		malformed(h, p, "a nack of no place");
		return;
	}
	h->n_of.nacks++;
	p->pub.nacked = refused;
	copy_text(m->reason, p->pub.reason, sizeof(p->pub.reason));
	count_nack(h, p->pub.reason);
	snprintf(text, sizeof(text), "%u.%llu: %s", refused.epoch,
		 (unsigned long long)refused.sequence, p->pub.reason);
	hub_event(h, CON_HUB_NACK, p, text);
}

static void take_ack(struct con_hub *h, struct hub_peer *p,
		     const Sallyport__Fleet__Ack *m)
{
	struct sp_position at;
	if (!hub_position_get(m->position, &at)) {
		malformed(h, p, "an ack of no place");
		return;
	}
	bool rose = sp_position_compare(&at, &p->pub.applied) > 0;
	place(h, p, &at);
	if (m->refused) {
		take_nack(h, p, m);
		return;
	}
	h->n_of.acks++;
	const struct hub_mark *k = hub_mark(h, at.sequence);
	if (!k || memcmp(k->hash, at.hash, sizeof(k->hash)) != 0)
		return;
	if (k->has_state && m->state.len == sizeof(k->state) &&
	    memcmp(k->state, m->state.data, sizeof(k->state)) != 0)
		hub_event(h, CON_HUB_STATE, p, "its state hash differs");
	// Who was not here when it was published caught up: that took no time of ours.
	if (rose && k->published_us >= p->hello_us)
		sp_histogram_observe(&h->ack_seconds,
				     (double)(sp_loop_now_us(h->loop) - k->published_us) /
					     1e6);
}

static void take_telemetry(struct con_hub *h, struct hub_peer *p,
			   const Sallyport__Fleet__Telemetry *m)
{
	struct sp_position at;
	if (m->boot != p->pub.boot || !hub_position_get(m->applied, &at)) {
		malformed(h, p, "telemetry of another boot or of no place");
		return;
	}
	h->n_of.telemetry++;
	place(h, p, &at);
	p->pub.telemetry = *m;
	p->pub.telemetry.applied = NULL;
	p->pub.telemetry.base.n_unknown_fields = 0;
	p->pub.telemetry.base.unknown_fields = NULL;
	if (h->ops->telemetry)
		h->ops->telemetry(h->ctx, &p->pub);
}

static void pass_on(struct con_hub *h, struct hub_peer *p, const struct con_hub_call *to,
		    const Sallyport__Fleet__ToController *m, bool is_for_workers)
{
	if (p->is_worker != is_for_workers) {
		h->n_of.not_allowed++;
		hub_event(h, CON_HUB_MALFORMED, p, "asked for what is not for its kind");
		con_hub_refuse(h, to, "not for you", 0);
		return;
	}
	h->n_of.calls++;
	h->ops->call(h->ctx, to, m);
}

// `p` may be gone afterwards.
static void take_body(struct con_hub *h, struct hub_peer *p,
		      const struct con_hub_call *to,
		      const Sallyport__Fleet__ToController *m)
{
	switch (m->body_case) {
	case SALLYPORT__FLEET__TO_CONTROLLER__BODY_FETCH:
		hub_fetch(h, p, m->call, m->fetch);
		break;
	case SALLYPORT__FLEET__TO_CONTROLLER__BODY_ACK:
		take_ack(h, p, m->ack);
		break;
	case SALLYPORT__FLEET__TO_CONTROLLER__BODY_TELEMETRY:
		take_telemetry(h, p, m->telemetry);
		break;
	case SALLYPORT__FLEET__TO_CONTROLLER__BODY_USAGE:
	case SALLYPORT__FLEET__TO_CONTROLLER__BODY_SESSION_PUT:
	case SALLYPORT__FLEET__TO_CONTROLLER__BODY_SESSION_ADOPT:
	case SALLYPORT__FLEET__TO_CONTROLLER__BODY_SESSION_DROP:
		pass_on(h, p, to, m, true);
		break;
	case SALLYPORT__FLEET__TO_CONTROLLER__BODY_PROBE:
	case SALLYPORT__FLEET__TO_CONTROLLER__BODY_PASS:
		pass_on(h, p, to, m, false);
		break;
	case SALLYPORT__FLEET__TO_CONTROLLER__BODY_ENROL:
		malformed(h, p, "an enrolment by one that has");
		break;
	case SALLYPORT__FLEET__TO_CONTROLLER__BODY_HELLO:    // was taken before
	case SALLYPORT__FLEET__TO_CONTROLLER__BODY__NOT_SET: // newer than we are
	case _SALLYPORT__FLEET__TO_CONTROLLER__BODY__CASE_IS_INT_SIZE:
		break;
	}
}

static void take_from_peer(struct con_hub *h, struct hub_peer *p,
			   const struct sp_bus_peer *from,
			   const Sallyport__Fleet__ToController *m)
{
	struct con_hub_call to = {.domain = SP_BUS_FLEET,
				  .call = m->call,
				  .route_len = (uint8_t)from->route_len};
	memcpy(to.name, p->name, sizeof(to.name));
	memcpy(to.key, p->key, sizeof(to.key));
	memcpy(to.route, from->route, from->route_len);
	if (m->body_case == SALLYPORT__FLEET__TO_CONTROLLER__BODY_HELLO) {
		take_hello(h, p, from, &to, m->hello);
	} else if (!p->welcome) {
		h->n_of.no_hello++;
		con_hub_refuse(h, &to, "say hello first", 0);
	} else if (p->route_len != from->route_len ||
		   memcmp(p->route, from->route, from->route_len) != 0) {
		take_from_other_route(h, p, from, &to);
	} else {
		heard_of(h, p);
		take_body(h, p, &to, m);
	}
}

static void take_from_stranger(struct con_hub *h, const struct sp_bus_peer *from,
			       const Sallyport__Fleet__ToController *m)
{
	struct con_hub_call to = {.domain = SP_BUS_ENROL,
				  .call = m->call,
				  .route_len = (uint8_t)from->route_len};
	if (m->body_case != SALLYPORT__FLEET__TO_CONTROLLER__BODY_ENROL ||
	    !h->ops->enrol) {
		h->n_of.malformed++;
		return;
	}
	memcpy(to.key, from->key, sizeof(to.key));
	memcpy(to.route, from->route, from->route_len);
	h->n_of.enrols++;
	h->ops->enrol(h->ctx, &to, from->address, m->enrol);
}

void hub_on_message(void *ctx, const struct sp_bus_peer *from, const void *data,
		    size_t len)
{
	struct con_hub *h = ctx;
	bool is_stranger = from->domain == SP_BUS_ENROL;
	struct hub_peer *p = is_stranger ? NULL : hub_by_key(h, from->key);
	if (from->route_len > SP_BUS_ROUTE_MAX || (!is_stranger && !p) ||
	    (p && !has_tokens(h, p, len)))
		return;
	Sallyport__Fleet__ToController *m = NULL;
	if (!is_stranger || len <= CON_HUB_ENROL_BYTES_MAX)
		m = sallyport__fleet__to_controller__unpack(NULL, len, data);
	if (!m || (m->version != CON_HUB_VERSION &&
		   m->body_case != SALLYPORT__FLEET__TO_CONTROLLER__BODY_HELLO)) {
		if (p)
			malformed(h, p, m ? "another version" : "does not parse");
		else
			h->n_of.malformed++;
	} else if (is_stranger) {
		take_from_stranger(h, from, m);
	} else {
		take_from_peer(h, p, from, m);
	}
	if (m)
		sallyport__fleet__to_controller__free_unpacked(m, NULL);
}
