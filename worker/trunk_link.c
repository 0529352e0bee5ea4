// One trunk on its carrier: connect, first flight, records, silence, the end.
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "worker/trunk_internal.h"

#define DIAL_US    2000000  // for one carrier, to the answer
#define PROOF_US   5000000  // for a first record of who dialled
#define QUIET_US   500000   // with carriers and nothing heard: PING
#define KEEP_US    15000000 // without carriers: PING
#define DEAD_US    2500000  // a PING without any answer
#define LOOK_US    250000   // the timer's period with carriers
#define TURN_BYTES (1 << 20)
#define CLOSE_TYPE 0x1b
#define REKEY_TYPE 0x1d

static uint64_t now_us(const struct wrk_trunk *k)
{
	return sp_loop_now_us(k->trunks->opt.loop);
}

static void defer(struct wrk_trunk *k)
{
	sp_loop_defer(k->trunks->opt.loop, &k->work);
}

// The end comes from the loop.
static void fail(struct wrk_trunk *k, enum sp_reason why)
{
	if (k->reason == SP_REASON_NONE)
		k->reason = why;
	defer(k);
}

static enum sp_reason reason_of(int err)
{
	switch (err) {
	case -ECONNREFUSED:
		return SP_REASON_REFUSED;
	case -ETIMEDOUT:
		return SP_REASON_TIMEOUT;
	case -ENETUNREACH:
	case -EHOSTUNREACH:
		return SP_REASON_UNREACHABLE;
	case SP_E_AUTH:
	case SP_E_PROTOCOL:
		return SP_REASON_TLS;
	case -ENOMEM:
		return SP_REASON_NO_MEMORY;
	default:
		return SP_REASON_CARRIER_RESET;
	}
}

// ---- writing ----

static int keep_unsent(struct wrk_trunk *k, const uint8_t *p, size_t len)
{
	uint8_t *copy = malloc(len);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, p, len);
	k->wbuf = copy;
	k->woff = 0;
	k->wlen = (uint32_t)len;
	return 0;
}

// On tls one record of ours is one of TLS.
static size_t piece(const struct wrk_trunk *k, const uint8_t *p, size_t len)
{
	size_t n;
	if (sp_carrier_kind(k->carrier) != SP_CARRIER_TLS || k->state != TRUNK_UP ||
	    len < 2)
		return len;
	n = 2 + ((size_t)p[0] << 8 | p[1]);
	return n < len ? n : len;
}

static size_t write_some(struct wrk_trunk *k, const uint8_t *p, size_t len)
{
	size_t done = 0;
	while (done < len && k->can_write) {
		ssize_t n = sp_carrier_write(k->carrier, p + done,
					     piece(k, p + done, len - done));
		if (n > 0) {
			done += (size_t)n;
			continue;
		}
		k->can_write = false;
		if (n != -EAGAIN)
			fail(k, reason_of((int)n));
	}
	k->trunks->n.bytes_tx += done;
	return done;
}

// True: nothing waits.
static bool flush(struct wrk_trunk *k)
{
	if (!k->wbuf)
		return true;
	k->woff += (uint32_t)write_some(k, k->wbuf + k->woff, k->wlen - k->woff);
	if (k->woff < k->wlen)
		return false;
	free(k->wbuf);
	k->wbuf = NULL;
	return true;
}

static void send_bytes(struct wrk_trunk *k, const uint8_t *p, size_t len)
{
	size_t done = k->wbuf ? 0 : write_some(k, p, len);
	if (done < len && (k->wbuf || keep_unsent(k, p + done, len - done)))
		fail(k, SP_REASON_NO_MEMORY);
}

// A record of what the mux has, at `out`. Its size; 0: nothing more.
static size_t seal_one(struct wrk_trunk *k, uint8_t *out, size_t cap)
{
	uint64_t now_ms = sp_loop_now_ms(k->trunks->opt.loop);
	bool rekey = sp_record_tx_rekey_due(&k->tx, now_ms);
	uint8_t plain[SP_RECORD_PLAIN_MAX];
	size_t len = wrk_mux_output(k->mux, plain, sizeof(plain) - 1);
	struct iovec iov = {plain, len};
	if (!len)
		return 0;
	if (rekey)
		plain[iov.iov_len++] = REKEY_TYPE;
	int n = sp_record_tx_seal(&k->tx, &iov, 1, out, cap);
	if (n > 0 && rekey && sp_record_tx_rekey(&k->tx, now_ms))
		n = SP_E_CRYPTO;
	if (n > 0)
		return (size_t)n;
	fail(k, SP_REASON_INTERNAL);
	return 0;
}

static void write_out(struct wrk_trunk *k)
{
	uint8_t *out = k->trunks->out;
	size_t sent = 0;
	while (!k->reason && k->want_output && k->can_write && flush(k) &&
	       sent < TURN_BYTES) {
		size_t len = 0, n;
		while (len < TRUNK_OUT_BYTES &&
		       (n = seal_one(k, out + len, sizeof(k->trunks->out) - len)))
			len += n;
		if (!len)
			k->want_output = false;
		else
			send_bytes(k, out, len);
		sent += len;
	}
	if (!k->reason && sent)
		sp_carrier_follow_rate(k->carrier, &k->rate, sent, now_us(k));
	if (!k->reason && k->can_write && k->want_output)
		defer(k); // the others first
}

// ---- up ----

static enum sp_reason on_opened(void *ctx, struct wrk_pipe *p,
				const struct wrk_mux_source *source)
{
	struct wrk_trunk *k = ctx;
	return k->trunks->opt.opened(k->trunks->opt.ctx, p, source);
}

static void on_wake(void *ctx)
{
	struct wrk_trunk *k = ctx;
	k->want_output = true;
	defer(k);
}

static const struct wrk_mux_ops mux_ops = {.opened = on_opened, .wake = on_wake};

static int take_keys(struct wrk_trunk *k, const struct sp_hs_keys *keys)
{
	struct wrk_trunks *t = k->trunks;
	uint64_t now_ms = sp_loop_now_ms(t->opt.loop);
	struct wrk_mux_options o = {
		.dialled = k->dialled,
		.clock_us = sp_loop_clock_us(t->opt.loop),
		.pool = &t->pool,
		.counters = &t->n.mux,
		.max_pipes = t->opt.limits.carriers,
		.window_max = t->opt.limits.window_bytes,
		.opens_per_second = t->opt.limits.opens_per_second,
		.ops = &mux_ops,
		.ctx = k,
	};
	int err = sp_record_tx_init(&k->tx, keys->suite, keys->tx_key, now_ms);
	if (!err)
		err = sp_record_rx_init(&k->rx, keys->suite, keys->rx_key);
	if (!err)
		err = wrk_mux_new(&o, &k->mux);
	k->idle_ms = t->opt.limits.idle_ms;
	return err;
}

static void come_up(struct wrk_trunk *k)
{
	k->state = TRUNK_UP;
	k->was_up = true;
	k->heard_us = k->used_us = now_us(k);
	sp_timer_set(&k->timer, k->heard_us + LOOK_US);
}

// ---- the dialler's handshake ----

static void send_flight(struct wrk_trunk *k)
{
	const struct sp_hs_worker_keys *keys = k->trunks->opt.keys;
	struct sp_hs_client_options o = {
		.worker_public = k->member->public_key,
		.suites = keys->suites,
		.device_secret = keys->static_secret,
		.device_public = keys->static_public,
		.now_ms = sp_loop_unix_ms(k->trunks->opt.loop),
		.trunk = true,
	};
	uint8_t flight[SP_HS_FLIGHT_MAX];
	int n = sp_hs_client_start(&k->dial->hs, &o, flight, sizeof(flight));
	if (n < 0) {
		fail(k, SP_REASON_INTERNAL);
		return;
	}
	k->state = TRUNK_ANSWER;
	send_bytes(k, flight, (size_t)n);
}

// Bytes used.
static size_t take_answer(struct wrk_trunk *k, const uint8_t *buf, size_t len)
{
	struct sp_hs_result res;
	int n = sp_hs_client_finish(&k->dial->hs, buf, len, &res);
	if (n == SP_E_AGAIN)
		return 0;
	if (n < 0 || res.entry || res.home_id != k->member->home_id)
		fail(k, SP_REASON_HANDSHAKE);
	else if (res.refuse != SP_REASON_NONE)
		fail(k, res.refuse);
	else if (take_keys(k, &res.keys))
		fail(k, SP_REASON_NO_MEMORY);
	if (n > 0)
		sp_hs_keys_wipe(&res.keys);
	free(k->dial); // the handshake is finished: nothing is left in it
	k->dial = NULL;
	if (k->reason)
		return len;
	come_up(k);
	k->trunks->n.dialling--;
	trunk_came_up(k);
	wrk_mux_ping(k->mux); // the other end waits for a record
	return (size_t)n;
}

// ---- reading ----

static void take_record(struct wrk_trunk *k, uint8_t *record, size_t size)
{
	uint8_t *plain;
	size_t len;
	bool rekey;
	int err;
	if (sp_record_rx_open(&k->rx, record, size, &plain, &len)) {
		fail(k, SP_REASON_RECORD);
		return;
	}
	if (k->state == TRUNK_PROOF) {
		come_up(k);
		trunk_proved(k);
	}
	err = wrk_mux_input(k->mux, plain, len, &rekey);
	if (err == SP_E_CLOSED) {
		fail(k, SP_REASON_CLOSED);
	} else if (err) {
		k->error = wrk_mux_error(k->mux);
		k->trunks->n.misbehaved++;
		fail(k, SP_REASON_PROTOCOL);
	} else if (rekey && sp_record_rx_rekey(&k->rx)) {
		fail(k, SP_REASON_INTERNAL);
	}
}

static size_t take_bytes(struct wrk_trunk *k, uint8_t *buf, size_t len)
{
	size_t used = k->state == TRUNK_ANSWER ? take_answer(k, buf, len) : 0;
	while (k->state >= TRUNK_PROOF && !k->reason && used < len) {
		int size = sp_record_peek(buf + used, len - used);
		if (size == SP_E_AGAIN)
			break;
		if (size < 0) {
			fail(k, SP_REASON_RECORD);
			break;
		}
		take_record(k, buf + used, (size_t)size);
		used += (size_t)size;
	}
	return k->reason ? len : used;
}

static void keep_rest(struct wrk_trunk *k, const uint8_t *in, size_t len)
{
	uint8_t *copy = len ? malloc(len) : NULL;
	free(k->rbuf);
	k->rbuf = copy;
	k->rlen = (uint32_t)len;
	if (len && !copy)
		fail(k, SP_REASON_NO_MEMORY);
	else if (len)
		memcpy(copy, in, len);
}

static void read_in(struct wrk_trunk *k)
{
	uint8_t *in = k->trunks->in;
	size_t have = k->rlen, total = 0;
	if (have)
		memcpy(in, k->rbuf, have);
	while (k->can_read && !k->reason && total < TURN_BYTES) {
		ssize_t n = sp_carrier_read(k->carrier, in + have, TRUNK_IN_BYTES - have);
		if (n <= 0) {
			k->can_read = false;
			if (n != -EAGAIN)
				fail(k, n ? reason_of((int)n) : SP_REASON_CARRIER_RESET);
			break;
		}
		k->heard_us = now_us(k);
		k->asked_us = 0;
		k->trunks->n.bytes_rx += (uint64_t)n;
		total += (size_t)n;
		have += (size_t)n;
		size_t used = take_bytes(k, in, have);
		have -= used;
		if (used && have)
			memmove(in, in + used, have);
	}
	keep_rest(k, in, k->reason ? 0 : have);
	if (k->can_read && !k->reason)
		defer(k);
}

// ---- time ----

// PING after a while of silence, the end when that has no answer, or without use.
static void look(struct wrk_trunk *k)
{
	uint64_t now = now_us(k);
	bool used = wrk_mux_pipes(k->mux) > 0;
	if (used)
		k->used_us = now;
	if (k->asked_us && now - k->asked_us >= DEAD_US)
		fail(k, SP_REASON_STALL);
	else if (!used && now - k->used_us >= UINT64_C(1000) * trunk_idle_ms(k))
		fail(k, SP_REASON_IDLE);
	else if (!k->asked_us && now - k->heard_us >= (used ? QUIET_US : KEEP_US)) {
		k->asked_us = now;
		wrk_mux_ping(k->mux);
	}
	sp_timer_set(&k->timer, now + LOOK_US);
}

static void on_timer(void *ctx)
{
	struct wrk_trunk *k = ctx;
	if (k->state == TRUNK_UP)
		look(k);
	else
		fail(k, SP_REASON_TIMEOUT);
}

// ---- work ----

static void go_on(struct wrk_trunk *k)
{
	if (k->state == TRUNK_RESOLVE)
		return;
	if (k->state == TRUNK_CONNECT) {
		int err = sp_carrier_handshake(k->carrier);
		if (err == -EAGAIN)
			return;
		if (err) {
			fail(k, reason_of(err));
			return;
		}
		sp_carrier_tune(k->carrier);
		send_flight(k);
	}
	if (!k->reason)
		read_in(k);
	if (!k->reason)
		(void)flush(k);
	if (!k->reason && k->state == TRUNK_UP)
		write_out(k);
}

static void on_work(struct sp_deferred *d)
{
	struct wrk_trunk *k =
		(struct wrk_trunk *)((char *)d - offsetof(struct wrk_trunk, work));
	if (!k->reason)
		go_on(k);
	if (k->reason)
		trunk_end(k, k->reason);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct wrk_trunk *k = arg;
	bool tls = sp_carrier_kind(k->carrier) == SP_CARRIER_TLS;
	(void)fd;
	k->can_read |= tls || (what & EV_READ);
	k->can_write |= tls || (what & EV_WRITE);
	defer(k);
}

// ---- birth and the end ----

static void on_reap(struct sp_deferred *d)
{
	struct wrk_trunk *k =
		(struct wrk_trunk *)((char *)d - offsetof(struct wrk_trunk, reap));
	sodium_memzero(k, sizeof(*k));
	free(k);
}

static struct wrk_trunk *trunk_new(struct trunk_member *m)
{
	struct wrk_trunk *k = calloc(1, sizeof(*k));
	if (!k)
		return NULL;
	k->member = m;
	k->trunks = m->trunks;
	k->error = "";
	k->can_read = k->can_write = true;
	k->work.run = on_work;
	k->reap.run = on_reap;
	sp_timer_init(&k->timer, m->trunks->opt.loop, on_timer, k);
	return k;
}

// The carrier is the trunk's in every case.
static int take_carrier(struct wrk_trunk *k, struct sp_carrier *c)
{
	k->carrier = c;
	if (event_assign(&k->ev, sp_loop_base(k->trunks->opt.loop), sp_carrier_fd(c),
			 EV_READ | EV_WRITE | EV_ET | EV_PERSIST, on_event, k) ||
	    event_add(&k->ev, NULL))
		goto fail;
	k->has_event = true;
	return 0;
fail:
	sp_carrier_free(c);
	k->carrier = NULL;
	return -ENOMEM;
}

static int make_tls(const struct sp_fleet_carrier *c, struct sp_tls **ret)
{
	struct sp_tls_client_options o = {
		.ca_file = c->ca_file,
		.pin = c->pinned ? c->pin : NULL,
	};
	char why[256];
	return c->kind == SP_CARRIER_TLS ? sp_tls_client_new(&o, ret, why, sizeof(why))
					 : 0;
}

static int begin_connect(struct wrk_trunk *k)
{
	struct sp_carrier *c;
	int err = sp_carrier_connect(&k->dial->to, &c);
	if (!err)
		err = take_carrier(k, c);
	if (err)
		return err;
	k->state = TRUNK_CONNECT;
	defer(k);
	return 0;
}

static void set_address(struct trunk_dial *d, int family, const uint8_t *addr)
{
	struct sp_target t = {.kind = family == AF_INET ? SP_TARGET_IPV4 : SP_TARGET_IPV6,
			      .port = d->port};
	memcpy(family == AF_INET ? t.v4 : t.v6, addr, family == AF_INET ? 4 : 16);
	(void)!sp_target_to_sockaddr(&t, &d->to.addr, &d->to.addr_len);
}

// The first address that can be dialled is.
static void on_answer(void *ctx, const struct wrk_dnsanswer *a, bool last)
{
	struct wrk_trunk *k = ctx;
	int err = -ENETUNREACH;
	if (last)
		k->lookup = NULL;
	for (unsigned i = 0; i < a->n && err && k->state == TRUNK_RESOLVE; i++) {
		set_address(k->dial, a->family, a->addr[i]);
		err = begin_connect(k);
	}
	if (last && k->state == TRUNK_RESOLVE)
		fail(k, a->n ? reason_of(err) : a->status);
}

static const struct wrk_resolve_ops resolve_ops = {.answer = on_answer};

static int begin_dial(struct wrk_trunk *k, const struct sp_fleet_carrier *from)
{
	struct trunk_dial *d = k->dial;
	const struct sp_target *t = &from->address;
	d->to.kind = from->kind;
	d->port = t->port;
	strcpy(d->server_name, from->server_name);
	d->to.server_name = *d->server_name ? d->server_name : NULL;
	int err = make_tls(from, &k->tls);
	d->to.tls = k->tls;
	if (err)
		return err;
	if (t->kind == SP_TARGET_NAME)
		return k->trunks->opt.resolve
			       ? wrk_resolve_start(k->trunks->opt.resolve, t->name,
						   &resolve_ops, k, &k->lookup)
			       : SP_E_MALFORMED;
	err = sp_target_to_sockaddr(t, &d->to.addr, &d->to.addr_len);
	return err ? err : begin_connect(k);
}

int trunk_dial(struct trunk_member *m, const struct sp_fleet_carrier *from,
	       struct wrk_trunk **ret)
{
	struct wrk_trunk *k = trunk_new(m);
	if (!k)
		return -ENOMEM;
	k->dialled = true;
	k->state = TRUNK_RESOLVE;
	k->dial = calloc(1, sizeof(*k->dial));
	int err = k->dial ? begin_dial(k, from) : -ENOMEM;
	if (err) {
		trunk_end(k, SP_REASON_NONE);
		return err;
	}
	sp_timer_set(&k->timer, now_us(k) + DIAL_US);
	*ret = k;
	return 0;
}

int trunk_accept(struct trunk_member *m, struct sp_carrier *c,
		 const struct sp_hs_keys *keys, const uint8_t *answer, size_t len)
{
	struct wrk_trunk *k = trunk_new(m);
	if (!k) {
		sp_carrier_free(c);
		return -ENOMEM;
	}
	k->state = TRUNK_ANSWER;
	int err = take_carrier(k, c);
	if (!err)
		send_bytes(k, answer, len);
	if (err || take_keys(k, keys)) {
		trunk_end(k, SP_REASON_NONE);
		return -ENOMEM;
	}
	k->state = TRUNK_PROOF;
	TAILQ_INSERT_TAIL(&m->proving, k, proving);
	m->n_proving++;
	m->trunks->n.proving++;
	sp_timer_set(&k->timer, now_us(k) + PROOF_US);
	defer(k);
	return 0;
}

// What the socket takes at once; the trunk is of no use any more.
static void say_close(struct wrk_trunk *k, enum sp_reason why)
{
	uint16_t reason = sp_reason_to_wire(why);
	uint8_t frame[3] = {CLOSE_TYPE, (uint8_t)(reason >> 8), (uint8_t)reason};
	struct iovec iov = {frame, sizeof(frame)};
	uint8_t record[SP_RECORD_OVERHEAD + sizeof(frame)];
	int n;
	if (k->state != TRUNK_UP || !k->can_write || k->wbuf)
		return;
	n = sp_record_tx_seal(&k->tx, &iov, 1, record, sizeof(record));
	if (n > 0 && sp_carrier_write(k->carrier, record, (size_t)n) > 0)
		(void)!sp_carrier_shutdown(k->carrier);
}

void trunk_end(struct wrk_trunk *k, enum sp_reason why)
{
	struct trunk_member *m = k->member;
	if (!m)
		return;
	say_close(k, why);
	if (m->dialled == k)
		m->dialled = NULL;
	if (m->accepted == k)
		m->accepted = NULL;
	if (k->state == TRUNK_PROOF) {
		TAILQ_REMOVE(&m->proving, k, proving);
		m->n_proving--;
	}
	if (k->has_event)
		event_del(&k->ev);
	k->has_event = false;
	sp_timer_done(&k->timer);
	sp_loop_defer_cancel(&k->work);
	wrk_mux_free(k->mux);
	k->mux = NULL;
	sp_carrier_free(k->carrier);
	k->carrier = NULL;
	sp_tls_free(k->tls);
	k->tls = NULL;
	wrk_resolve_cancel(k->lookup);
	k->lookup = NULL;
	if (k->dial)
		sp_hs_client_done(&k->dial->hs);
	free(k->dial);
	k->dial = NULL;
	free(k->rbuf);
	free(k->wbuf);
	k->rbuf = k->wbuf = NULL;
	sp_record_tx_done(&k->tx);
	sp_record_rx_done(&k->rx);
	if (why != SP_REASON_NONE)
		trunk_went(k, why);
	k->member = NULL;
	sp_loop_reap(k->trunks->opt.loop, &k->reap);
}
