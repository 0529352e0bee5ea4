#include "worker/relay.h"

#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "lib/handshake.h"

#define CHUNK      16384
#define TURN_BYTES (256 << 10) // a direction's share of a turn of the loop
#define LINGER_MS  2000        // for an answer that says no, and its FIN
#define LOOK_US    100000

enum relay_state {
	RELAY_WAIT,   // for the trunk
	RELAY_RUN,    // both ways
	RELAY_LINGER, // the client was told no: read until its FIN
};

struct relay {
	struct wrk_relays *relays;
	enum relay_state state;
	struct sp_carrier *c;
	struct event ev;
	bool has_event, can_read, can_write;
	bool client_fin, home_fin; // a direction that ended, and was told so to the other
	bool home_gone; // takes nothing more; what it sent before is still to be read
	struct wrk_pipe *pipe;
	struct wrk_trunk_call call;
	struct wrk_mux_source source;
	uint64_t home_id;
	uint64_t to_client; // bytes
	struct sp_carrier_rate rate;
	uint8_t *flight; // until the pipe is opened
	size_t flight_len;
	uint8_t *up, *down; // what pipe, or client, did not take
	size_t up_off, up_len, down_off, down_len;
	uint64_t since_us; // in WAIT and LINGER; last byte in RUN
	struct sp_deferred work, reap;
	bool gone;
	TAILQ_ENTRY(relay) entry;
};
TAILQ_HEAD(relay_list, relay);

struct wrk_relays {
	struct wrk_relays_options opt;
	struct wrk_relays_counters n;
	struct relay_list all;
	struct sp_timer timer;
	uint8_t scratch[CHUNK];
};

static uint64_t now_us(const struct relay *r)
{
	return sp_loop_now_us(r->relays->opt.loop);
}

static void defer(struct relay *r)
{
	sp_loop_defer(r->relays->opt.loop, &r->work);
}

// ---- the end ----

static void on_reap(struct sp_deferred *d)
{
	free((char *)d - offsetof(struct relay, reap));
}

static void free_buffers(struct relay *r)
{
	free(r->flight);
	free(r->up);
	free(r->down);
	r->flight = r->up = r->down = NULL;
}

// `why`: to the home, if the pipe is open, and in the counters.
static void relay_free(struct relay *r, enum sp_reason why, bool reset)
{
	struct wrk_relays *t = r->relays;
	if (r->gone)
		return;
	r->gone = true;
	TAILQ_REMOVE(&t->all, r, entry);
	t->n.live--;
	t->n.waiting -= r->state == RELAY_WAIT;
	wrk_trunks_cancel(&r->call);
	sp_loop_defer_cancel(&r->work);
	if (r->pipe) {
		t->n.ended[why]++;
		wrk_pipe_close(r->pipe, why);
	}
	if (r->has_event)
		event_del(&r->ev);
	if (reset)
		sp_carrier_reset(r->c);
	else
		sp_carrier_free(r->c);
	free_buffers(r);
	sp_loop_reap(t->opt.loop, &r->reap);
}

// Says no in the form of an answer; nothing of the home has reached the client.
static void refuse(struct relay *r, enum sp_reason why)
{
	uint8_t *answer = r->relays->scratch;
	int n = why == SP_REASON_TICKET
			? sp_hs_worker_ticket_gone(answer, SP_HS_ANSWER_MAX)
			: sp_hs_entry_refuses(why, answer, SP_HS_ANSWER_MAX);
	r->relays->n.refused[why]++;
	if (r->pipe) {
		r->relays->n.ended[why]++;
		wrk_pipe_close(r->pipe, SP_REASON_CANCELLED);
		r->pipe = NULL;
	}
	r->relays->n.waiting -= r->state == RELAY_WAIT;
	r->state = RELAY_LINGER;
	r->since_us = now_us(r);
	// A carrier without a byte sent yet takes them at once, or never.
	if (n < 0 || sp_carrier_write(r->c, answer, (size_t)n) != n) {
		relay_free(r, why, true);
		return;
	}
	(void)!sp_carrier_shutdown(r->c);
	defer(r);
}

// The home, or the trunk, gave the pipe up.
static void home_closed(struct relay *r)
{
	enum sp_reason why = wrk_pipe_reason(r->pipe);
	if (r->to_client || r->down) {
		relay_free(r, why, true);
		return;
	}
	// What the home calls GONE is a flight it does not know: as a ticket that is.
	refuse(r, why == SP_REASON_GONE            ? SP_REASON_TICKET
		  : why == SP_REASON_CARRIER_RESET ? SP_REASON_UNREACHABLE
						   : why);
}

// ---- bytes ----

static int keep(uint8_t **buf, size_t *off, size_t *len, const uint8_t *p, size_t n)
{
	*buf = malloc(n);
	if (!*buf)
		return -ENOMEM;
	memcpy(*buf, p, n);
	*off = 0;
	*len = n;
	return 0;
}

// Takes as much as the pipe does. False: the pipe is closed.
static bool give_home(struct relay *r, const uint8_t *p, size_t len, size_t *ret_done)
{
	*ret_done = 0;
	while (*ret_done < len) {
		ssize_t n = wrk_pipe_write(r->pipe, p + *ret_done, len - *ret_done);
		if (n == -EAGAIN)
			break;
		if (n < 0)
			return false;
		*ret_done += (size_t)n;
		r->relays->n.bytes_to_home += (uint64_t)n;
	}
	return true;
}

// What waited for the pipe. False: it still waits, or the relay is over.
static bool flush_up(struct relay *r)
{
	size_t done;
	if (!r->up)
		return true;
	r->home_gone |= !give_home(r, r->up + r->up_off, r->up_len - r->up_off, &done);
	r->up_off += done;
	if (r->up_off < r->up_len)
		return false;
	free(r->up);
	r->up = NULL;
	return true;
}

static void client_ended(struct relay *r, ssize_t n)
{
	r->can_read = false;
	if (n == -EAGAIN)
		return;
	if (n < 0) {
		relay_free(r, SP_REASON_CARRIER_RESET, true);
		return;
	}
	r->client_fin = true;
	r->home_gone |= wrk_pipe_end(r->pipe) != 0;
}

static void pump_up(struct relay *r)
{
	uint8_t *buf = r->relays->scratch;
	size_t total = 0;
	if (r->home_gone || !flush_up(r))
		return;
	while (!r->gone && !r->home_gone && r->can_read && !r->client_fin && !r->up &&
	       total < TURN_BYTES) {
		ssize_t n = sp_carrier_read(r->c, buf, CHUNK);
		size_t done;
		if (n <= 0) {
			client_ended(r, n);
			return;
		}
		r->since_us = now_us(r);
		total += (size_t)n;
		r->home_gone |= !give_home(r, buf, (size_t)n, &done);
		if (done < (size_t)n &&
		    keep(&r->up, &r->up_off, &r->up_len, buf + done, (size_t)n - done))
			relay_free(r, SP_REASON_NO_MEMORY, true);
	}
	if (total >= TURN_BYTES && !r->gone)
		defer(r);
}

// Bytes taken; negative: the client's carrier failed.
static ssize_t give_client(struct relay *r, const uint8_t *p, size_t len)
{
	size_t done = 0;
	while (done < len && r->can_write) {
		ssize_t n = sp_carrier_write(r->c, p + done, len - done);
		if (n == -EAGAIN)
			r->can_write = false;
		else if (n < 0)
			return n;
		else
			done += (size_t)n;
	}
	r->to_client += done;
	r->relays->n.bytes_to_client += done;
	return (ssize_t)done;
}

static bool flush_down(struct relay *r)
{
	ssize_t n;
	if (!r->down)
		return true;
	n = give_client(r, r->down + r->down_off, r->down_len - r->down_off);
	if (n < 0) {
		relay_free(r, SP_REASON_CARRIER_RESET, true);
		return false;
	}
	r->down_off += (size_t)n;
	if (r->down_off < r->down_len)
		return false;
	free(r->down);
	r->down = NULL;
	return true;
}

static void home_ended(struct relay *r, ssize_t n)
{
	if (n == -EAGAIN)
		return;
	if (n < 0) {
		home_closed(r);
		return;
	}
	r->home_fin = true;
	(void)!sp_carrier_shutdown(r->c);
}

static void pump_down(struct relay *r)
{
	uint8_t *buf = r->relays->scratch;
	size_t total = 0;
	if (!flush_down(r))
		return;
	while (r->can_write && !r->home_fin && !r->down && total < TURN_BYTES) {
		ssize_t got = wrk_pipe_read(r->pipe, buf, CHUNK), n;
		if (got <= 0) {
			home_ended(r, got);
			return;
		}
		r->since_us = now_us(r);
		total += (size_t)got;
		n = give_client(r, buf, (size_t)got);
		if (n < 0 || (n < got && keep(&r->down, &r->down_off, &r->down_len,
					      buf + n, (size_t)(got - n)))) {
			relay_free(r,
				   n < 0 ? SP_REASON_CARRIER_RESET : SP_REASON_NO_MEMORY,
				   true);
			return;
		}
	}
	sp_carrier_follow_rate(r->c, &r->rate, total, now_us(r));
	if (total >= TURN_BYTES)
		defer(r);
}

// Waits for the client's FIN, so that the answer is not lost to a reset.
static void linger(struct relay *r)
{
	ssize_t n;
	do
		n = sp_carrier_read(r->c, r->relays->scratch, CHUNK);
	while (n > 0);
	if (n != -EAGAIN)
		relay_free(r, SP_REASON_CLOSED, false);
}

static void on_work(struct sp_deferred *d)
{
	struct relay *r = (struct relay *)((char *)d - offsetof(struct relay, work));
	if (r->state == RELAY_RUN)
		pump_up(r);
	if (!r->gone && r->state == RELAY_RUN)
		pump_down(r);
	if (!r->gone && r->state == RELAY_LINGER)
		linger(r);
	if (!r->gone && r->state == RELAY_RUN && r->home_fin &&
	    (r->home_gone || (r->client_fin && !r->up)))
		relay_free(r, SP_REASON_CLOSED, false);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct relay *r = arg;
	bool tls = sp_carrier_kind(r->c) == SP_CARRIER_TLS;
	(void)fd;
	r->can_read |= tls || (what & EV_READ);
	r->can_write |= tls || (what & EV_WRITE);
	defer(r);
}

static void on_pipe_ready(void *ctx)
{
	defer(ctx);
}

// ---- the trunk ----

static void run(struct relay *r, struct wrk_mux *mux)
{
	struct wrk_relays *t = r->relays;
	const uint8_t *key = wrk_trunks_key(t->opt.trunks, r->home_id);
	int err = key ? 0 : SP_E_CLOSED;
	if (key) {
		sp_hs_flight_readdress(key, r->flight, r->flight_len);
		err = wrk_pipe_open(mux, &r->source, r->flight, r->flight_len, &r->pipe);
	}
	if (err) {
		refuse(r, key ? SP_REASON_PRESSURE : SP_REASON_UNREACHABLE);
		return;
	}
	wrk_pipe_attach(r->pipe, on_pipe_ready, r);
	t->n.relayed++;
	t->n.waiting -= r->state == RELAY_WAIT;
	t->n.bytes_to_home += r->flight_len;
	free(r->flight);
	r->flight = NULL;
	r->state = RELAY_RUN;
	r->since_us = now_us(r);
	defer(r);
}

static void on_trunk(void *ctx, struct wrk_mux *mux, enum sp_reason why)
{
	struct relay *r = ctx;
	if (mux)
		run(r, mux);
	else
		refuse(r, why == SP_REASON_GONE ? SP_REASON_UNREACHABLE : why);
}

// ---- taking ----

static void set_source(struct wrk_mux_source *s, const struct sockaddr *sa)
{
	const struct sockaddr_in *in = (const void *)sa;
	const struct sockaddr_in6 *in6 = (const void *)sa;
	*s = (struct wrk_mux_source){0};
	if (sa->sa_family == AF_INET) {
		s->family = 4;
		memcpy(s->net, &in->sin_addr, 4);
	} else if (sa->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		s->family = 4;
		memcpy(s->net, in6->sin6_addr.s6_addr + 12, 4);
	} else if (sa->sa_family == AF_INET6) {
		s->family = 6;
		memcpy(s->net, in6->sin6_addr.s6_addr, 8);
	}
}

// Why this one is too much; NONE: it is not.
static enum sp_reason check_room(const struct wrk_relays *t,
				 const struct wrk_mux_source *source)
{
	const struct wrk_relays_limits *l = &t->opt.limits;
	const struct relay *r;
	uint32_t same = 0;
	if (!l->carriers)
		return SP_REASON_UNREACHABLE;
	if (t->n.live > l->carriers)
		return SP_REASON_PRESSURE;
	TAILQ_FOREACH(r, &t->all, entry)
	same += !memcmp(&r->source, source, sizeof(*source));
	return same > l->per_source ? SP_REASON_RATE_LIMIT : SP_REASON_NONE;
}

static struct relay *relay_new(struct wrk_relays *t, struct sp_carrier *c,
			       const uint8_t *flight, size_t len)
{
	struct relay *r = calloc(1, sizeof(*r));
	if (!r || !(r->flight = malloc(len)) ||
	    event_assign(&r->ev, sp_loop_base(t->opt.loop), sp_carrier_fd(c),
			 EV_READ | EV_WRITE | EV_ET | EV_PERSIST, on_event, r) ||
	    event_add(&r->ev, NULL)) {
		if (r)
			free(r->flight);
		free(r);
		return NULL;
	}
	memcpy(r->flight, flight, len);
	r->flight_len = len;
	r->has_event = true;
	r->can_read = r->can_write = true;
	r->relays = t;
	r->c = c;
	r->work.run = on_work;
	r->reap.run = on_reap;
	r->call.done = on_trunk;
	r->call.ctx = r;
	set_source(&r->source, sp_carrier_peer(c));
	TAILQ_INSERT_TAIL(&t->all, r, entry);
	t->n.live++;
	t->n.waiting++;
	return r;
}

void wrk_relays_take(struct wrk_relays *t, struct sp_carrier *c, uint64_t home_id,
		     const uint8_t *flight, size_t len)
{
	struct wrk_mux *mux = NULL;
	struct relay *r = relay_new(t, c, flight, len);
	t->n.taken++;
	if (!r) {
		t->n.refused[SP_REASON_NO_MEMORY]++;
		sp_carrier_free(c);
		return;
	}
	r->home_id = home_id;
	r->since_us = now_us(r);
	enum sp_reason why = check_room(t, &r->source);
	if (why == SP_REASON_NONE)
		why = wrk_trunks_find(t->opt.trunks, home_id, &r->call, &mux);
	if (mux || why != SP_REASON_NONE)
		on_trunk(r, mux, why);
	if (t->timer.at_us == SP_LOOP_NEVER)
		sp_timer_set(&t->timer, sp_loop_now_us(t->opt.loop) + LOOK_US);
}

// ---- time ----

static void look(struct relay *r)
{
	const struct wrk_relays_limits *l = &r->relays->opt.limits;
	uint64_t age_ms = (now_us(r) - r->since_us) / 1000;
	if (r->state == RELAY_WAIT && age_ms >= l->wait_ms) {
		wrk_trunks_cancel(&r->call);
		refuse(r, SP_REASON_TIMEOUT);
	} else if (r->state == RELAY_RUN && age_ms >= l->idle_ms) {
		relay_free(r, SP_REASON_IDLE, true);
	} else if (r->state == RELAY_LINGER && age_ms >= LINGER_MS) {
		relay_free(r, SP_REASON_IDLE, false);
	}
}

static void on_timer(void *ctx)
{
	struct wrk_relays *t = ctx;
	struct relay *next, *r = TAILQ_FIRST(&t->all);
	for (; r; r = next) {
		next = TAILQ_NEXT(r, entry);
		look(r);
	}
	if (!TAILQ_EMPTY(&t->all))
		sp_timer_set(&t->timer, sp_loop_now_us(t->opt.loop) + LOOK_US);
}

// ---- the table ----

int wrk_relays_new(const struct wrk_relays_options *opt, struct wrk_relays **ret)
{
	struct wrk_relays *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->opt = *opt;
	TAILQ_INIT(&t->all);
	sp_timer_init(&t->timer, opt->loop, on_timer, t);
	*ret = t;
	return 0;
}

void wrk_relays_free(struct wrk_relays *t)
{
	if (!t)
		return;
	while (!TAILQ_EMPTY(&t->all))
		relay_free(TAILQ_FIRST(&t->all), SP_REASON_SHUTDOWN, true);
	sp_timer_done(&t->timer);
	free(t);
}

void wrk_relays_set_limits(struct wrk_relays *t, const struct wrk_relays_limits *limits)
{
	t->opt.limits = *limits;
}

const struct wrk_relays_counters *wrk_relays_counters(const struct wrk_relays *t)
{
	return &t->n;
}
