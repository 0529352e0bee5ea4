// The engine as a worker or a client behind an authenticated peer that sends anything,
// with programs that read, block, reset and close from inside callbacks: the first byte
// picks the role; then records `what:2 slot-or-length:14 | bytes`, `what` 0: a record for
// the newest carrier, 1: that after a change of carrier, 2: the carrier ends, 3: a
// program's doing. Memory stays within bounds and is all back at the end.
#include <string.h>

#include "lib/arena.h"
#include "lib/session.h"

#define STREAMS 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct program {
	struct sp_stream *st[STREAMS];
	uint32_t dice; // from the input: what the program does next
};

static bool one_in(struct program *p, uint32_t n)
{
	p->dice = p->dice * 1664525 + 1013904223;
	return (p->dice >> 16) % n == 0;
}

static void forget(struct program *p, struct sp_stream *st)
{
	for (int i = 0; i < STREAMS; i++)
		if (p->st[i] == st)
			p->st[i] = NULL;
}

static void keep(struct program *p, struct sp_stream *st)
{
	for (int i = 0; i < STREAMS; i++)
		if (!p->st[i]) {
			p->st[i] = st;
			return;
		}
	__builtin_trap(); // more than the limit
}

static bool gives_up(struct program *p, struct sp_stream *st)
{
	if (!one_in(p, 16))
		return false;
	forget(p, st);
	sp_stream_reset(st, SP_REASON_APP_RESET);
	return true;
}

static void push(struct program *p, struct sp_stream *st)
{
	struct iovec iov[4];
	int n = sp_stream_reserve(st, 9000, iov, 4);
	size_t len = 0;
	for (int i = 0; i < n; len += iov[i++].iov_len)
		memset(iov[i].iov_base, 1, iov[i].iov_len);
	if (!one_in(p, 4))
		sp_stream_commit(st, one_in(p, 4) ? len / 2 : len);
	if (one_in(p, 8))
		sp_stream_source_fin(st);
}

static void on_open(void *ctx, struct sp_stream *st, const struct sp_target *target)
{
	if (target->port & 1) {
		sp_stream_reset(st, SP_REASON_REFUSED);
		return;
	}
	keep(ctx, st);
	sp_stream_opened(st, &(struct sp_target){.kind = SP_TARGET_IPV4});
	push(ctx, st);
}

static void on_opened(void *ctx, struct sp_stream *st, const struct sp_target *bound)
{
	(void)bound;
	if (!gives_up(ctx, st))
		push(ctx, st);
}

static size_t on_sink(void *ctx, struct sp_stream *st, const uint8_t *buf, size_t len)
{
	if (gives_up(ctx, st))
		return 0;
	return len && (buf[0] & 1) ? len : len / 2;
}

static void on_sink_fin(void *ctx, struct sp_stream *st)
{
	(void)gives_up(ctx, st);
}

static void on_source_ready(void *ctx, struct sp_stream *st)
{
	if (!gives_up(ctx, st))
		push(ctx, st);
}

static void on_closed(void *ctx, struct sp_stream *st, enum sp_reason reason)
{
	(void)reason;
	forget(ctx, st);
	sp_stream_reset(st, SP_REASON_APP_RESET); // too late, and harmless
}

static void on_flow_open(void *ctx, struct sp_flow *fl, const struct sp_target *target)
{
	(void)ctx;
	(void)target;
	(void)sp_flow_send(fl, (const uint8_t *)"x", 1);
}

static void on_flow_data(void *ctx, struct sp_flow *fl, const uint8_t *buf, size_t len)
{
	(void)sp_flow_send(fl, buf, len);
	if (one_in(ctx, 16))
		sp_flow_close(fl, SP_REASON_CANCELLED);
}

static void on_flow_closed(void *ctx, struct sp_flow *fl, enum sp_reason reason)
{
	(void)ctx;
	sp_flow_close(fl, reason); // too late, and harmless
}

static void on_attached(void *ctx, unsigned slot, bool fresh)
{
	(void)ctx;
	(void)slot;
	(void)fresh;
}

static void on_ticket(void *ctx, unsigned slot, unsigned index, uint32_t lifetime_s,
		      const uint8_t *ticket, size_t len)
{
	(void)ctx;
	(void)slot;
	(void)index;
	(void)lifetime_s;
	(void)ticket;
	(void)len;
}

static void on_stalled(void *ctx, unsigned slot)
{
	(void)ctx;
	(void)slot;
}

static void on_goaway(void *ctx, enum sp_reason reason, uint64_t deadline_ms)
{
	(void)ctx;
	(void)reason;
	(void)deadline_ms;
}

static void on_ended(void *ctx, enum sp_reason reason)
{
	(void)ctx;
	(void)reason;
}

static void on_pass(void *ctx, const uint8_t *blob, size_t len)
{
	(void)ctx;
	(void)blob;
	(void)len;
}

static void on_link(void *link)
{
	(void)link;
}

static void on_link_close(void *link, enum sp_reason reason)
{
	(void)link;
	(void)reason;
}

static const struct sp_session_ops ops = {
	.stream_open = on_open,
	.stream_opened = on_opened,
	.stream_sink = on_sink,
	.stream_sink_fin = on_sink_fin,
	.stream_source_ready = on_source_ready,
	.stream_closed = on_closed,
	.flow_open = on_flow_open,
	.flow_data = on_flow_data,
	.flow_closed = on_flow_closed,
	.attached = on_attached,
	.ticket = on_ticket,
	.stalled = on_stalled,
	.goaway = on_goaway,
	.ended = on_ended,
	.pass = on_pass,
};
static const struct sp_slot_ops slot_ops = {.wake = on_link, .close = on_link_close};

// The session under test and its newest carrier.
struct peer {
	struct program prog;
	struct sp_session *s;
	enum sp_role role;
	unsigned slot;
	bool attached;
	uint64_t now;
};

static void drain(struct peer *p)
{
	static struct sp_gather g;
	while (p->attached && sp_session_output(p->s, p->slot, 512, &g, p->now))
		;
}

static void attach(struct peer *p, unsigned slot)
{
	struct sp_attach at = {.epoch = sp_session_epoch(p->s) + 1,
			       .slot = (uint8_t)slot};
	if (!at.epoch)
		return; // the peer raised it to its end
	p->slot = slot;
	p->attached = true;
	if (p->role == SP_ROLE_CLIENT)
		sp_session_attach_client(p->s, slot, &slot_ops, NULL, p->now);
	else if (sp_session_attach_worker(p->s, &at, false, &slot_ops, NULL, p->now))
		__builtin_trap();
	drain(p); // a client's OPENs are out
}

static void detach(struct peer *p)
{
	if (p->attached)
		sp_session_detach(p->s, p->slot, NULL, p->now);
	p->attached = false;
}

static void act(struct peer *p)
{
	if (p->attached && p->role == SP_ROLE_CLIENT && one_in(&p->prog, 4) &&
	    sp_session_reattach(p->s, p->slot, p->now) == 0)
		drain(p);
	for (int i = 0; i < STREAMS; i++) {
		struct sp_stream *st = p->prog.st[i];
		if (st && !gives_up(&p->prog, st)) {
			push(&p->prog, st);
			sp_stream_sink_ready(st);
		}
	}
}

static void feed(struct peer *p, const uint8_t *data, size_t size)
{
	while (size >= 2) {
		unsigned what = data[0] >> 6, slot = data[0] & 7;
		size_t len = (size_t)(data[0] & 0x3f) << 8 | data[1];
		bool rekey;
		enum sp_reason why;
		p->prog.dice ^= (uint32_t)len;
		data += 2;
		size -= 2;
		if (what == 1) {
			attach(p, slot);
			len = data[-1];
		} else if (what == 2) {
			detach(p);
			continue;
		} else if (what == 3) {
			act(p);
			continue;
		}
		if (len > size)
			len = size;
		p->now += 1 + len * 100;
		if (p->attached &&
		    sp_session_input(p->s, p->slot, data, len, p->now, &rekey, &why))
			detach(p);
		drain(p);
		sp_session_tick(p->s, p->now);
		data += len;
		size -= len;
	}
}

static void open_streams(struct peer *p)
{
	struct sp_target t = {.kind = SP_TARGET_IPV4, .port = 80};
	for (int i = 0; p->role == SP_ROLE_CLIENT && i < 4; i++) {
		struct sp_stream *st;
		if (sp_session_open(p->s, &t, NULL, &st))
			__builtin_trap();
		keep(&p->prog, st);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint64_t clock_us;
	struct peer p = {.now = 1000000};
	struct sp_arena_options ao = {
		.max_sessions = 1, .max_streams = 48, .memory_bytes = 65536};
	struct sp_session_options o = {
		.ops = &ops, .ctx = &p.prog, .clock_us = &clock_us};
	clock_us = p.now;
	if (size < 1 || sp_arena_new(&ao, &o.arena))
		return 0;
	sp_session_limits_default(&o.limits);
	o.limits.max_streams = o.limits.max_flows = 8;
	o.limits.datagram_budget_bytes = 4096;
	o.role = p.role = data[0] & 1 ? SP_ROLE_CLIENT : SP_ROLE_WORKER;
	if (sp_session_new(&o, clock_us, &p.s) == 0) {
		open_streams(&p);
		attach(&p, 0);
		feed(&p, data + 1, size - 1);
		sp_session_free(p.s, SP_REASON_SHUTDOWN);
		if (sp_arena_chunks_spare(o.arena) != sp_arena_chunks_pool(o.arena))
			__builtin_trap();
	}
	sp_arena_free(o.arena);
	return 0;
}
