// The data path of a link: records in, records out, and the bytes that wait.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/frame.h"
#include "lib/link_internal.h"

void link_buf_free(struct link_buf *b)
{
	free(b->p);
	*b = (struct link_buf){0};
}

int link_buf_append(struct link_buf *b, const uint8_t *data, size_t len)
{
	size_t have = b->len - b->off;

	if (b->off) {
		memmove(b->p, b->p + b->off, have);
		b->off = 0;
		b->len = (uint32_t)have;
	}
	if (have + len > b->cap) {
		uint8_t *p = realloc(b->p, have + len);
		if (!p)
			return -ENOMEM;
		b->p = p;
		b->cap = (uint32_t)(have + len);
	}
	memcpy(b->p + have, data, len);
	b->len = (uint32_t)(have + len);
	return 0;
}

int link_queue(struct sp_link *l, const uint8_t *buf, size_t len)
{
	int err = link_buf_append(&l->wbuf, buf, len);

	if (err)
		link_fail(l, err);
	return err;
}

void link_queue_close(struct sp_link *l)
{
	uint16_t reason = sp_reason_to_wire(l->reason);
	uint8_t frame[3] = {SP_FRAME_CLOSE, (uint8_t)(reason >> 8), (uint8_t)reason};
	struct iovec iov = {frame, sizeof(frame)};
	uint8_t record[SP_RECORD_OVERHEAD + sizeof(frame)];
	int n = sp_record_tx_seal(&l->tx, &iov, 1, record, sizeof(record));

	if (n > 0)
		(void)!link_queue(l, record, (size_t)n);
}

int link_set_keys(struct sp_link *l, const struct sp_hs_keys *keys)
{
	uint64_t now_ms = sp_loop_now_ms(l->env->opt.loop);
	int err = sp_record_tx_init(&l->tx, keys->suite, keys->tx_key, now_ms);

	if (!err)
		err = sp_record_rx_init(&l->rx, keys->suite, keys->rx_key);
	l->keyed = !err;
	return err;
}

// ---- writing ----

// What one write takes: on tls one record of ours, which is one TLS record. An answer
// begins with its length as a record does; only a client's flight stands alone.
static size_t piece(const struct sp_link *l, const uint8_t *p, size_t len)
{
	size_t n;

	if (sp_carrier_kind(l->carrier) != SP_CARRIER_TLS || len < 2 ||
	    (l->client && !l->keyed))
		return len;
	n = 2 + ((size_t)p[0] << 8 | p[1]);
	return n < len ? n : len;
}

// Writes until all is taken or the socket is full. Returns bytes taken.
static size_t write_bytes(struct sp_link *l, const uint8_t *p, size_t len)
{
	size_t done = 0;

	while (done < len && l->can_write) {
		ssize_t n = sp_carrier_write(l->carrier, p + done,
					     piece(l, p + done, len - done));
		if (n > 0) {
			done += (size_t)n;
		} else if (n == -EAGAIN) {
			l->can_write = false;
		} else {
			l->can_write = false;
			link_fail(l, (int)n);
			l->failed = true;
		}
	}
	l->env->n.bytes_tx += done;
	return done;
}

bool link_flush(struct sp_link *l)
{
	struct link_buf *b = &l->wbuf;

	if (!b->p)
		return true;
	b->off += (uint32_t)write_bytes(l, b->p + b->off, b->len - b->off);
	if (b->off < b->len)
		return false;
	link_buf_free(b);
	return true;
}

// What the engine has for the next record. A carrier begins with records of one packet
// each: what a lossy path lets through first is of use at once, and where connections
// freeze after some kilobytes ATTACHED and data arrive before that.
static size_t gather(struct sp_link *l, bool rekey)
{
	struct sp_link_env *env = l->env;
	uint64_t now = sp_loop_now_us(env->opt.loop);
	size_t got = 0;

	if (l->opening < LINK_OPENING_BYTES) {
		got = sp_session_output(l->session, l->slot, LINK_OPENING_PLAIN,
					&env->gather, now);
		l->opening += (uint32_t)got;
	}
	if (!got) // or a datagram that is larger
		got = sp_session_output(l->session, l->slot, SP_RECORD_PLAIN_MAX - rekey,
					&env->gather, now);
	return got;
}

// One record of what the engine has; 0: it has nothing more, or the link failed.
static size_t seal_one(struct sp_link *l, uint8_t *out, size_t cap)
{
	struct sp_link_env *env = l->env;
	struct sp_gather *g = &env->gather;
	static const uint8_t rekey_frame = SP_FRAME_REKEY;
	bool rekey = sp_record_tx_rekey_due(&l->tx, sp_loop_now_ms(env->opt.loop));
	size_t got = gather(l, rekey);
	struct iovec iov[SP_GATHER_SEGMENTS + 1];
	int n;

	if (!got)
		return 0;
	memcpy(iov, g->iov, (size_t)g->n * sizeof(*iov));
	iov[g->n] = (struct iovec){(void *)(uintptr_t)&rekey_frame, 1};
	n = sp_record_tx_seal(&l->tx, iov, g->n + rekey, out, cap);
	if (n > 0 && rekey && sp_record_tx_rekey(&l->tx, sp_loop_now_ms(env->opt.loop)))
		n = SP_E_CRYPTO;
	if (n < 0) {
		l->keyed = false;
		link_end(l, SP_REASON_INTERNAL);
		return 0;
	}
	env->n.records_tx++;
	return (size_t)n;
}

// Fills the send buffer with about l->batch bytes of records.
static size_t seal_batch(struct sp_link *l)
{
	uint8_t *out = l->env->out;
	size_t len = 0, n;

	while (len < l->batch) {
		n = seal_one(l, out + len, sizeof(l->env->out) - len);
		if (!n) {
			l->want_output = false;
			break;
		}
		len += n;
	}
	return len;
}

// The batch grows while the socket takes everything, so that few system calls move much,
// and shrinks when it does not, so that what waits in sealed form, behind which nothing
// urgent can overtake, stays small.
static void adapt(struct sp_link *l, size_t len, size_t taken)
{
	if (taken < len && l->batch > LINK_BATCH_MIN)
		l->batch /= 2;
	else if (taken == len && len >= l->batch && l->batch < LINK_BATCH_MAX)
		l->batch *= 2;
}

void link_flush_output(struct sp_link *l)
{
	size_t sent = 0;

	if (!link_flush(l))
		return;
	while (l->attached && l->keyed && l->want_output && l->can_write && !l->ended &&
	       sent < LINK_TURN_BYTES) {
		size_t len = seal_batch(l);
		if (!len)
			break;
		size_t taken = write_bytes(l, l->env->out, len);
		sent += taken;
		adapt(l, len, taken);
		if (taken < len && !l->failed)
			(void)!link_queue(l, l->env->out + taken, len - taken);
	}
	if (sent && !l->failed)
		sp_carrier_follow_rate(l->carrier, &l->rate, sent,
				       sp_loop_now_us(l->env->opt.loop));
	if (l->attached && l->keyed && l->want_output && l->can_write && !l->ended)
		link_defer(l); // the others first
}

// ---- reading ----

static void take_record(struct sp_link *l, const uint8_t *plain, size_t len)
{
	uint64_t now = sp_loop_now_us(l->env->opt.loop);
	enum sp_reason reason = SP_REASON_NONE;
	bool rekey = false, up;
	int err;

	if (l->worker && l->state == LINK_ATTACH && !l->attached) {
		link_worker_first_record(l, plain, len);
		return;
	}
	if (!l->attached)
		return;
	up = l->client && l->state == LINK_ATTACH &&
	     link_client_sees_attached(plain, len);
	err = sp_session_input(l->session, l->slot, plain, len, now, &rekey, &reason);
	if (err == SP_E_CLOSED)
		l->peer_closed = true;
	if (err)
		link_end(l, reason != SP_REASON_NONE ? reason : SP_REASON_CLOSED);
	else if (rekey && sp_record_rx_rekey(&l->rx))
		link_end(l, SP_REASON_INTERNAL);
	if (up && !l->ended)
		link_established(l);
}

// Opens and hands on every whole record. Returns bytes used.
static size_t take_records(struct sp_link *l, uint8_t *buf, size_t len)
{
	size_t used = 0;

	while (!l->ended && !l->held.p && used < len) {
		uint8_t *plain;
		size_t plain_len;
		int size = sp_record_peek(buf + used, len - used);
		if (size == SP_E_AGAIN)
			break;
		if (size < 0 || sp_record_rx_open(&l->rx, buf + used, (size_t)size,
						  &plain, &plain_len)) {
			link_end(l, SP_REASON_RECORD);
			break;
		}
		used += (size_t)size;
		l->env->n.records_rx++;
		take_record(l, plain, plain_len);
	}
	return used;
}

// What stands in `buf` is used as far as the state allows; states may change on the way.
static size_t take_bytes(struct sp_link *l, uint8_t *buf, size_t len)
{
	size_t used = 0;

	if (l->state == LINK_FLIGHT)
		used = l->client ? link_client_answer(l, buf, len)
				 : link_worker_flight(l, buf, len);
	if (!l->carrier || l->ended || l->state >= LINK_DISCARD)
		return len;
	if (l->state == LINK_ATTACH || l->state == LINK_RUN)
		used += take_records(l, buf + used, len - used);
	return l->ended ? len : used;
}

static void read_ended(struct sp_link *l, ssize_t n)
{
	l->can_read = false;
	if (n == -EAGAIN)
		return;
	if (n < 0) {
		link_fail(l, (int)n);
		if (l->finished)
			l->failed = true;
		return;
	}
	l->peer_fin = true;
	if (l->worker && l->state == LINK_FLIGHT &&
	    sp_carrier_kind(l->carrier) == SP_CARRIER_TLS)
		link_worker_stranger(l, SP_REASON_MALFORMED, NULL, 0);
	else if (l->state == LINK_ATTACH || l->state == LINK_RUN)
		link_end(l, SP_REASON_CARRIER_RESET); // no CLOSE came
	else
		link_end(l, SP_REASON_CLOSED);
}

// How much one read may take. A worker judges the first TLS record alone.
static size_t read_cap(const struct sp_link *l, size_t have)
{
	size_t room = LINK_IN_BYTES - have;

	return l->state == LINK_FLIGHT && room > SP_RECORD_MAX ? SP_RECORD_MAX : room;
}

void link_read(struct sp_link *l)
{
	uint8_t *in = l->env->in;
	size_t have = l->rbuf.len, total = 0;

	if (l->held.p && l->again)
		link_worker_attach_again(l);
	if (l->held.p || l->ended || (!l->can_read && !l->again))
		return;
	if (have)
		memcpy(in, l->rbuf.p, have);
	if (l->again) { // what came behind the first record
		l->again = false;
		size_t used = take_bytes(l, in, have);
		have -= used;
		memmove(in, in + used, have);
	}
	while (l->can_read && l->carrier && !l->held.p && total < LINK_TURN_BYTES) {
		ssize_t n = sp_carrier_read(l->carrier, in + have, read_cap(l, have));
		if (n <= 0) {
			read_ended(l, n);
			break;
		}
		l->env->n.bytes_rx += (size_t)n;
		total += (size_t)n;
		have += (size_t)n;
		size_t used = take_bytes(l, in, have);
		have -= used;
		if (used && have)
			memmove(in, in + used, have);
	}
	if (!l->carrier)
		return;
	if (l->can_read && !l->held.p)
		link_defer(l);
	if (l->ended)
		have = 0;
	if (!have) {
		link_buf_free(&l->rbuf);
		return;
	}
	l->rbuf.off = l->rbuf.len = 0;
	if (link_buf_append(&l->rbuf, in, have))
		link_fail(l, -ENOMEM);
}
