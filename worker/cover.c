#include "worker/cover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#define CHUNK         16384
#define TURN_BYTES    (256 << 10) // a direction's share of a turn of the loop
#define RESET_POLL_US 5000
#define RESET_MAX_US  1000000 // for what came before a reset to arrive
#define DRAIN_US      2000000

enum relay_state {
	RELAY_WAIT, // no stranger yet: only the site
	RELAY_RUN,
	RELAY_RESET, // the site reset; the client is reset once it has what came before
	RELAY_DRAIN, // the client broke TLS; reads until its FIN
};

struct end {
	struct sp_carrier *c;
	struct relay *relay;
	struct event ev;
	bool has_event, can_read, can_write;
	bool eof;         // its direction ended
	bool fin;         // it was told that the other direction ended
	bool broken;      // a write failed: it was reset
	uint8_t *pending; // for this end: bytes off..len
	size_t off, len;
};

struct relay {
	struct wrk_cover *cover;
	enum relay_state state;
	struct end client, site;
	struct sp_link *link; // RELAY_WAIT
	struct sp_deferred work, reap;
	uint64_t last_us;     // last traffic
	uint64_t deadline_us; // RELAY_RESET, RELAY_DRAIN
	bool gone;
	TAILQ_ENTRY(relay) entry;
};
TAILQ_HEAD(relay_list, relay);

struct wrk_cover {
	struct wrk_cover_options opt;
	struct wrk_cover_counters n;
	struct relay_list lru;    // WAIT and RUN, by last traffic
	struct relay_list ending; // RESET and DRAIN
	struct sp_timer timer;
	uint8_t scratch[CHUNK];
};

// ---- ends of a relay's life ----

static void end_done(struct end *e)
{
	if (e->has_event)
		event_del(&e->ev);
	e->has_event = false;
	sp_carrier_free(e->c);
	e->c = NULL;
	free(e->pending);
	e->pending = NULL;
}

static void on_reap(struct sp_deferred *d)
{
	free((char *)d - offsetof(struct relay, reap));
}

static struct relay_list *list_of(struct relay *r)
{
	return r->state == RELAY_WAIT || r->state == RELAY_RUN ? &r->cover->lru
							       : &r->cover->ending;
}

static void set_timer(struct wrk_cover *v)
{
	struct relay *r = TAILQ_FIRST(&v->lru);
	uint64_t now = sp_loop_now_us(v->opt.loop), at = SP_LOOP_NEVER;

	if (r)
		at = r->last_us + (uint64_t)v->opt.idle_ms * 1000;
	if (!TAILQ_EMPTY(&v->ending) && now + RESET_POLL_US < at)
		at = now + RESET_POLL_US;
	sp_timer_set(&v->timer, at);
}

// Closes both ends as they are.
static void relay_free(struct relay *r)
{
	if (r->gone)
		return;
	r->gone = true;
	TAILQ_REMOVE(list_of(r), r, entry);
	r->cover->n.live--;
	sp_loop_defer_cancel(&r->work);
	end_done(&r->client);
	end_done(&r->site);
	sp_loop_reap(r->cover->opt.loop, &r->reap);
	set_timer(r->cover);
}

static void reset_end(struct end *e)
{
	if (e->has_event)
		event_del(&e->ev);
	e->has_event = false;
	sp_carrier_reset(e->c);
	e->c = NULL;
}

static void to_ending(struct relay *r, enum relay_state state, uint64_t max_us)
{
	TAILQ_REMOVE(list_of(r), r, entry);
	r->state = state;
	TAILQ_INSERT_TAIL(list_of(r), r, entry);
	r->deadline_us = sp_loop_now_us(r->cover->opt.loop) + max_us;
	end_done(&r->site);
	set_timer(r->cover);
}

// The site is gone by RST.
static void site_reset(struct relay *r)
{
	if (r->state != RELAY_RUN)
		return;
	if (!r->client.pending && !sp_carrier_unacked(r->client.c)) {
		reset_end(&r->client);
		relay_free(r);
		return;
	}
	to_ending(r, RELAY_RESET, RESET_MAX_US);
}

static void client_failed(struct relay *r, int err)
{
	if (r->state != RELAY_RUN)
		return;
	if (err == SP_E_PROTOCOL || err == SP_E_AUTH || err == SP_E_CLOSED) {
		to_ending(r, RELAY_DRAIN, DRAIN_US); // the alert is out
		(void)!sp_carrier_shutdown(r->client.c);
		return;
	}
	reset_end(&r->site);
	relay_free(r);
}

static void end_failed(struct end *e, int err)
{
	struct relay *r = e->relay;

	if (e == &r->client)
		client_failed(r, err);
	else
		site_reset(r);
}

// ---- moving bytes ----

static void touch(struct relay *r)
{
	r->last_us = sp_loop_now_us(r->cover->opt.loop);
	TAILQ_REMOVE(list_of(r), r, entry);
	TAILQ_INSERT_TAIL(list_of(r), r, entry);
}

// Writes as far as the end takes it. Bytes taken. An end that was reset takes nothing
// more; what it sent before is still to be read.
static size_t write_some(struct end *e, const uint8_t *buf, size_t len)
{
	size_t done = 0;

	while (done < len && e->can_write && !e->broken) {
		ssize_t n = sp_carrier_write(e->c, buf + done, len - done);
		if (n > 0)
			done += (size_t)n;
		else if (n == -EAGAIN)
			e->can_write = false;
		else
			e->broken = true;
	}
	if (e == &e->relay->site)
		e->relay->cover->n.bytes_to_site += done;
	else
		e->relay->cover->n.bytes_from_site += done;
	return done;
}

static int keep(struct end *e, const uint8_t *buf, size_t len)
{
	e->pending = malloc(len);
	if (!e->pending)
		return -ENOMEM;
	memcpy(e->pending, buf, len);
	e->off = 0;
	e->len = len;
	return 0;
}

// True when nothing waits for this end any more.
static bool flush(struct end *e)
{
	if (!e->pending)
		return true;
	e->off += write_some(e, e->pending + e->off, e->len - e->off);
	if (e->off < e->len && !e->broken)
		return false;
	free(e->pending);
	e->pending = NULL;
	return true;
}

static void pass_fin(struct end *from, struct end *to)
{
	if (!from->eof || to->fin || to->broken)
		return;
	int err = sp_carrier_shutdown(to->c);
	to->broken |= err && err != -EAGAIN;
	to->fin = !err;
}

// One direction, until something blocks. False: the relay is over.
static bool pump(struct relay *r, struct end *from, struct end *to)
{
	uint8_t *buf = r->cover->scratch;
	size_t total = 0;

	while (flush(to) && !from->eof && from->can_read && !to->broken) {
		if (total >= TURN_BYTES) {
			sp_loop_defer(r->cover->opt.loop, &r->work);
			return true;
		}
		ssize_t n = sp_carrier_read(from->c, buf, CHUNK);
		if (n == -EAGAIN) {
			from->can_read = false;
		} else if (n < 0 || (n == 0 && from->broken)) {
			end_failed(from, n ? (int)n : -ECONNRESET);
			return false;
		} else if (n == 0) {
			from->eof = true;
		} else {
			total += (size_t)n;
			touch(r);
			size_t done = write_some(to, buf, (size_t)n);
			if (done < (size_t)n && !to->broken &&
			    keep(to, buf + done, (size_t)n - done)) {
				relay_free(r);
				return false;
			}
		}
	}
	if (!to->pending)
		pass_fin(from, to);
	return true;
}

// A broken end whose own direction is over (or was never read to its end) is a reset.
static bool check_broken(struct end *e)
{
	socklen_t len = sizeof(int);
	int err = 0;

	// Its direction is over, so that no read tells of a reset any more.
	if (e->eof && !getsockopt(sp_carrier_fd(e->c), SOL_SOCKET, SO_ERROR, &err, &len))
		e->broken |= err != 0;
	if (!e->broken || (!e->eof && e->can_read))
		return true;
	end_failed(e, -ECONNRESET);
	return false;
}

static void run(struct relay *r)
{
	int err = sp_carrier_handshake(r->site.c);

	if (err && err != -EAGAIN) {
		r->cover->n.unreachable++;
		site_reset(r);
		return;
	}
	if (err)
		r->site.can_read = r->site.can_write = false; // still connecting
	if (!pump(r, &r->client, &r->site) || !pump(r, &r->site, &r->client))
		return;
	if (!check_broken(&r->site) || !check_broken(&r->client))
		return;
	if (r->client.fin && r->site.fin)
		relay_free(r);
}

// ---- the other states ----

// A silent client's site: anything it does is for the client to see.
static void wait_event(struct relay *r)
{
	uint8_t byte;
	int err = sp_carrier_handshake(r->site.c);

	if (err == -EAGAIN)
		return;
	if (!err && recv(sp_carrier_fd(r->site.c), &byte, 1, MSG_PEEK) < 0 &&
	    errno == EAGAIN)
		return;
	if (r->link)
		sp_link_estrange(r->link);
	r->link = NULL;
}

static void drain(struct relay *r)
{
	ssize_t n = 1;

	for (size_t total = 0; n > 0 && total < TURN_BYTES; total += (size_t)n)
		n = sp_carrier_read(r->client.c, r->cover->scratch, CHUNK);
	if (n > 0)
		sp_loop_defer(r->cover->opt.loop, &r->work);
	else if (n != -EAGAIN)
		relay_free(r);
}

static void on_work(struct sp_deferred *d)
{
	struct relay *r = (struct relay *)((char *)d - offsetof(struct relay, work));

	switch (r->state) {
	case RELAY_WAIT:
		wait_event(r);
		return;
	case RELAY_RUN:
		run(r);
		return;
	case RELAY_RESET:
		(void)flush(&r->client);
		return;
	case RELAY_DRAIN:
		drain(r);
		return;
	}
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct end *e = arg;

	(void)fd;
	(void)what; // TLS may want either
	e->can_read = e->can_write = true;
	sp_loop_defer(e->relay->cover->opt.loop, &e->relay->work);
}

static void poll_ending(struct wrk_cover *v, uint64_t now)
{
	struct relay *r, *next;

	for (r = TAILQ_FIRST(&v->ending); r; r = next) {
		next = TAILQ_NEXT(r, entry);
		bool arrived = r->state == RELAY_RESET && !r->client.pending &&
			       !sp_carrier_unacked(r->client.c);
		if (!arrived && now < r->deadline_us)
			continue;
		if (r->state == RELAY_RESET)
			reset_end(&r->client);
		relay_free(r);
	}
}

static void on_timer(void *ctx)
{
	struct wrk_cover *v = ctx;
	uint64_t now = sp_loop_now_us(v->opt.loop);
	struct relay *r;

	poll_ending(v, now);
	while ((r = TAILQ_FIRST(&v->lru)) &&
	       now >= r->last_us + (uint64_t)v->opt.idle_ms * 1000) {
		v->n.idle++;
		if (r->state == RELAY_WAIT && r->link)
			sp_link_close(r->link, SP_REASON_IDLE);
		r->link = NULL;
		if (r->state == RELAY_WAIT)
			touch(r); // the link gives it back
		else
			relay_free(r);
	}
	set_timer(v);
}

// ---- making relays ----

static int watch(struct end *e, struct relay *r, struct sp_carrier *c)
{
	e->c = c;
	e->relay = r;
	e->can_read = e->can_write = true;
	if (event_assign(&e->ev, sp_loop_base(r->cover->opt.loop), sp_carrier_fd(c),
			 EV_READ | EV_WRITE | EV_ET | EV_PERSIST, on_event, e) ||
	    event_add(&e->ev, NULL))
		return -ENOMEM;
	e->has_event = true;
	return 0;
}

// The one without traffic for the longest makes room. A silent client's goes with its
// link.
static void make_room(struct wrk_cover *v)
{
	struct relay *r = TAILQ_FIRST(&v->lru);

	if (v->n.live < v->opt.max_relays || !r)
		return;
	v->n.evicted++;
	if (r->state == RELAY_RUN) {
		relay_free(r);
	} else if (r->link) {
		sp_link_close(r->link, SP_REASON_PRESSURE);
		r->link = NULL;
		touch(r);
	}
}

static struct relay *relay_new(struct wrk_cover *v)
{
	struct sp_carrier_dial d = {
		.kind = SP_CARRIER_TCP, .addr = v->opt.site, .addr_len = v->opt.site_len};
	struct relay *r = calloc(1, sizeof(*r));
	struct sp_carrier *c;

	if (!r)
		return NULL;
	r->cover = v;
	r->work.run = on_work;
	r->reap.run = on_reap;
	r->client.relay = r;
	r->last_us = sp_loop_now_us(v->opt.loop);
	if (sp_carrier_connect(&d, &c)) {
		v->n.unreachable++;
		free(r);
		return NULL;
	}
	if (watch(&r->site, r, c)) {
		sp_carrier_free(c);
		free(r);
		return NULL;
	}
	make_room(v);
	TAILQ_INSERT_TAIL(&v->lru, r, entry);
	v->n.live++;
	set_timer(v);
	return r;
}

void wrk_cover_relay(struct wrk_cover *v, struct sp_carrier *c, const uint8_t *buf,
		     size_t len, void *waiting)
{
	struct relay *r = waiting ? waiting : relay_new(v);

	v->n.relayed++;
	if (!r) {
		sp_carrier_reset(c);
		return;
	}
	r->link = NULL;
	r->state = RELAY_RUN;
	if (watch(&r->client, r, c) || (len && keep(&r->site, buf, len))) {
		relay_free(r);
		return;
	}
	touch(r);
	sp_loop_defer(v->opt.loop, &r->work);
}

void *wrk_cover_wait(struct wrk_cover *v, struct sp_link *link)
{
	struct relay *r = relay_new(v);

	if (!r) {
		sp_link_estrange(link);
		return NULL;
	}
	v->n.waited++;
	r->state = RELAY_WAIT;
	r->link = link;
	return r;
}

void wrk_cover_wait_over(struct wrk_cover *v, void *waiting)
{
	(void)v;
	relay_free(waiting);
}

// ---- public ----

int wrk_cover_new(const struct wrk_cover_options *opt, struct wrk_cover **ret)
{
	struct wrk_cover *v = calloc(1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	v->opt = *opt;
	TAILQ_INIT(&v->lru);
	TAILQ_INIT(&v->ending);
	sp_timer_init(&v->timer, opt->loop, on_timer, v);
	*ret = v;
	return 0;
}

void wrk_cover_free(struct wrk_cover *v)
{
	struct relay *r;

	if (!v)
		return;
	while ((r = TAILQ_FIRST(&v->lru)) || (r = TAILQ_FIRST(&v->ending)))
		relay_free(r);
	sp_timer_done(&v->timer);
	free(v);
}

void wrk_cover_set(struct wrk_cover *v, const struct wrk_cover_options *opt)
{
	struct sp_loop *loop = v->opt.loop;

	v->opt = *opt;
	v->opt.loop = loop;
	set_timer(v);
}

const struct wrk_cover_counters *wrk_cover_counters(const struct wrk_cover *v)
{
	return &v->n;
}
