// The engine as a worker or a client behind an authenticated peer that sends anything:
// the first byte picks the role, then records `len u16 | bytes`; memory stays within
// bounds.
#include <string.h>

#include "lib/arena.h"
#include "lib/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_open(void *ctx, struct sp_stream *st, const struct sp_target *target)
{
	(void)ctx;
	if (target->port & 1)
		sp_stream_reset(st, SP_REASON_REFUSED);
	else
		sp_stream_opened(st, &(struct sp_target){.kind = SP_TARGET_IPV4});
}

static void on_opened(void *ctx, struct sp_stream *st, const struct sp_target *bound)
{
	struct iovec iov;
	(void)ctx;
	(void)bound;
	if (sp_stream_reserve(st, 100, &iov, 1) == 1) {
		memset(iov.iov_base, 1, iov.iov_len);
		sp_stream_commit(st, iov.iov_len);
	}
	sp_stream_source_fin(st);
}

static size_t on_sink(void *ctx, struct sp_stream *st, const uint8_t *buf, size_t len)
{
	(void)ctx;
	(void)st;
	return len && (buf[0] & 1) ? len : len / 2;
}

static void on_stream(void *ctx, struct sp_stream *st)
{
	(void)ctx;
	(void)st;
}

static void on_closed(void *ctx, struct sp_stream *st, enum sp_reason reason)
{
	(void)ctx;
	(void)st;
	(void)reason;
}

static void on_flow_open(void *ctx, struct sp_flow *fl, const struct sp_target *target)
{
	(void)ctx;
	(void)target;
	(void)sp_flow_send(fl, (const uint8_t *)"x", 1);
}

static void on_flow_data(void *ctx, struct sp_flow *fl, const uint8_t *buf, size_t len)
{
	(void)ctx;
	(void)sp_flow_send(fl, buf, len);
}

static void on_flow_closed(void *ctx, struct sp_flow *fl, enum sp_reason reason)
{
	(void)ctx;
	(void)fl;
	(void)reason;
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
	.stream_sink_fin = on_stream,
	.stream_source_ready = on_stream,
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

static void feed(struct sp_session *s, const uint8_t *data, size_t size)
{
	static struct sp_gather g;
	uint64_t now = 1000000;
	while (size >= 2) {
		size_t len = (size_t)data[0] << 8 | data[1];
		bool rekey;
		enum sp_reason why;
		data += 2;
		size -= 2;
		if (len > size)
			len = size;
		now += 1 + len * 100;
		if (sp_session_input(s, 0, data, len, now, &rekey, &why))
			return;
		while (sp_session_output(s, 0, SP_RECORD_PLAIN_MAX, &g, now))
			;
		sp_session_tick(s, now);
		data += len;
		size -= len;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint64_t clock_us = 1000000;
	struct sp_arena_options ao = {1, 16, 65536};
	struct sp_session_options o = {.ops = &ops, .clock_us = &clock_us};
	struct sp_attach at = {.epoch = 1};
	struct sp_stream *st;
	struct sp_session *s;
	if (size < 1 || sp_arena_new(&ao, &o.arena))
		return 0;
	sp_session_limits_default(&o.limits);
	o.limits.max_streams = o.limits.max_flows = 8;
	o.limits.datagram_budget_bytes = 4096;
	o.role = data[0] & 1 ? SP_ROLE_CLIENT : SP_ROLE_WORKER;
	if (sp_session_new(&o, clock_us, &s) == 0) {
		if (o.role == SP_ROLE_CLIENT) {
			struct sp_target t = {.kind = SP_TARGET_IPV4, .port = 80};
			sp_session_attach_client(s, 0, &slot_ops, NULL, clock_us);
			for (int i = 0; i < 4; i++)
				if (sp_session_open(s, &t, NULL, &st))
					__builtin_trap();
		} else if (sp_session_attach_worker(s, &at, true, &slot_ops, NULL,
						    clock_us)) {
			__builtin_trap();
		}
		feed(s, data + 1, size - 1);
		sp_session_free(s, SP_REASON_SHUTDOWN);
	}
	sp_arena_free(o.arena);
	return 0;
}
