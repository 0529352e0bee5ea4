// A client and a worker in one loop, for tests of links: keys, passes, two session
// engines with one bulk source and sink each, and what their links reported.
#ifndef LINK_WORLD_H
#define LINK_WORLD_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/arena.h"
#include "lib/budget.h"
#include "lib/link.h"
#include "lib/record.h"
#include "lib/replay.h"

#define WAIT_US 30000000

struct bulk { // one direction's end
	struct sp_stream *st;
	uint64_t to_send, sent, got;
	bool fin_sent, got_fin, wrong, closed;
};

struct link_world {
	struct sp_loop *loop;
	struct sp_session_clock *clock;
	struct sp_arena *arena;
	struct sp_link_env *client_env, *worker_env;
	struct sp_hs_worker_keys keys;
	void *replay_mem;
	struct sp_replay *replay;
	struct sp_budget *budget;
	uint8_t device_secret[32], device_public[32];
	uint8_t sign_public[32], sign_secret[64];
	uint8_t pass[SP_PASS_BLOB_MAX];
	size_t pass_len;
	struct sp_session *client, *worker;
	struct bulk client_bulk, worker_bulk;
	uint64_t worker_sends;
	// what was reported
	struct sp_link *client_link, *worker_link; // the latest
	unsigned ups, client_downs, worker_downs, admits, attached, strangers;
	enum sp_reason client_reason, worker_reason, stranger_why, admit_says,
		attach_says;
	bool attach_waits;            // `attach` asks to be asked again
	unsigned waits;               // how often it did
	uint8_t attach_flags;         // of the last one
	struct sp_link *waiting_link; // whose it was
	bool fresh;
	uint8_t tickets[4][SP_HS_TICKET_MAX], psks[4][32];
	size_t ticket_len[4];
	unsigned n_tickets;
	// a tls stranger
	struct sp_carrier *stranger;
	uint8_t stranger_bytes[SP_RECORD_MAX];
	size_t stranger_len;
	void *stranger_waiting;
	unsigned silences, silences_over;
	struct sp_link *silent_link;
	struct sp_session *down_session; // at the worker's last `down`
	bool close_at_up;
	void *user; // a test's own
};

static inline uint8_t world_pattern(uint64_t offset, int side)
{
	return (uint8_t)((offset * 167 + (uint64_t)side * 101) ^ (offset >> 9));
}

// ---- bulk source and sink ----

static inline void bulk_pump(struct bulk *b, int side)
{
	struct iovec iov[16];
	int n;

	while (b->st && b->sent < b->to_send &&
	       (n = sp_stream_reserve(b->st, b->to_send - b->sent, iov, 16)) > 0) {
		size_t len = 0;
		for (int i = 0; i < n; i++)
			for (size_t k = 0; k < iov[i].iov_len; k++, len++)
				((uint8_t *)iov[i].iov_base)[k] =
					world_pattern(b->sent + len, side);
		sp_stream_commit(b->st, len);
		b->sent += len;
	}
	if (b->st && b->sent == b->to_send && !b->fin_sent) {
		b->fin_sent = true;
		sp_stream_source_fin(b->st);
	}
}

static inline size_t bulk_sink(struct bulk *b, int from, const uint8_t *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		b->wrong |= buf[i] != world_pattern(b->got + i, from);
	b->got += len;
	return len;
}

static void w_open(void *ctx, struct sp_stream *st, const struct sp_target *target)
{
	struct link_world *w = ctx;

	w->worker_bulk.st = st;
	w->worker_bulk.to_send = w->worker_sends;
	sp_stream_opened(st, target);
	bulk_pump(&w->worker_bulk, 1);
}
static size_t w_sink(void *ctx, struct sp_stream *st, const uint8_t *buf, size_t len)
{
	(void)st;
	return bulk_sink(&((struct link_world *)ctx)->worker_bulk, 0, buf, len);
}
static size_t c_sink(void *ctx, struct sp_stream *st, const uint8_t *buf, size_t len)
{
	(void)st;
	return bulk_sink(&((struct link_world *)ctx)->client_bulk, 1, buf, len);
}
static void w_fin(void *ctx, struct sp_stream *st)
{
	(void)st;
	((struct link_world *)ctx)->worker_bulk.got_fin = true;
}
static void c_fin(void *ctx, struct sp_stream *st)
{
	(void)st;
	((struct link_world *)ctx)->client_bulk.got_fin = true;
}
static void w_ready(void *ctx, struct sp_stream *st)
{
	(void)st;
	bulk_pump(&((struct link_world *)ctx)->worker_bulk, 1);
}
static void c_ready(void *ctx, struct sp_stream *st)
{
	(void)st;
	bulk_pump(&((struct link_world *)ctx)->client_bulk, 0);
}
static void w_closed(void *ctx, struct sp_stream *st, enum sp_reason reason)
{
	struct link_world *w = ctx;

	(void)st;
	(void)reason;
	w->worker_bulk.closed = true;
	w->worker_bulk.st = NULL;
}
static void c_closed(void *ctx, struct sp_stream *st, enum sp_reason reason)
{
	struct link_world *w = ctx;

	(void)st;
	(void)reason;
	w->client_bulk.closed = true;
	w->client_bulk.st = NULL;
}
static void c_opened(void *ctx, struct sp_stream *st, const struct sp_target *bound)
{
	(void)st;
	(void)bound;
	bulk_pump(&((struct link_world *)ctx)->client_bulk, 0);
}
static void no_flow_open(void *ctx, struct sp_flow *fl, const struct sp_target *target)
{
	(void)ctx;
	(void)fl;
	(void)target;
}
static void no_flow_data(void *ctx, struct sp_flow *fl, const uint8_t *buf, size_t len)
{
	(void)ctx;
	(void)fl;
	(void)buf;
	(void)len;
}
static void no_flow_closed(void *ctx, struct sp_flow *fl, enum sp_reason reason)
{
	(void)ctx;
	(void)fl;
	(void)reason;
}
static void c_attached(void *ctx, unsigned slot, bool fresh)
{
	struct link_world *w = ctx;

	(void)slot;
	w->attached++;
	w->fresh = fresh;
}
static void c_ticket(void *ctx, unsigned slot, unsigned index, uint32_t lifetime_s,
		     const uint8_t *ticket, size_t len)
{
	struct link_world *w = ctx;

	(void)slot;
	assert_true(lifetime_s > 0);
	if (index == 0)
		w->n_tickets = 0; // newer ones are better
	assert_int_equal(sp_link_ticket_psk(w->client_link, index, w->psks[w->n_tickets]),
			 0);
	memcpy(w->tickets[w->n_tickets], ticket, len);
	w->ticket_len[w->n_tickets++] = len;
}
static void c_stalled(void *ctx, unsigned slot)
{
	(void)ctx;
	(void)slot;
}
static void c_goaway(void *ctx, enum sp_reason reason, uint64_t deadline_ms)
{
	(void)ctx;
	(void)reason;
	(void)deadline_ms;
}
static void c_ended(void *ctx, enum sp_reason reason)
{
	(void)ctx;
	(void)reason;
}
static void w_pass(void *ctx, const uint8_t *blob, size_t len)
{
	(void)ctx;
	(void)blob;
	(void)len;
}

static const struct sp_session_ops world_worker_session = {
	.stream_open = w_open,
	.stream_sink = w_sink,
	.stream_sink_fin = w_fin,
	.stream_source_ready = w_ready,
	.stream_closed = w_closed,
	.flow_open = no_flow_open,
	.flow_data = no_flow_data,
	.flow_closed = no_flow_closed,
	.pass = w_pass,
};
static const struct sp_session_ops world_client_session = {
	.stream_opened = c_opened,
	.stream_sink = c_sink,
	.stream_sink_fin = c_fin,
	.stream_source_ready = c_ready,
	.stream_closed = c_closed,
	.flow_data = no_flow_data,
	.flow_closed = no_flow_closed,
	.attached = c_attached,
	.ticket = c_ticket,
	.stalled = c_stalled,
	.goaway = c_goaway,
	.ended = c_ended,
};

// ---- links ----

static void c_up(void *ctx, struct sp_link *l)
{
	struct link_world *w = ctx;

	assert_true(w->attached > w->ups);
	assert_ptr_equal(l, w->client_link);
	w->ups++;
	if (w->close_at_up)
		sp_link_close(l, SP_REASON_CANCELLED);
}
static void c_down(void *ctx, struct sp_link *l, enum sp_reason reason)
{
	struct link_world *w = ctx;

	w->client_downs++;
	w->client_reason = reason;
	if (l == w->client_link)
		w->client_link = NULL;
}
static const struct sp_link_client_ops world_client_link = {.up = c_up, .down = c_down};

static enum sp_reason w_admit(void *ctx, struct sp_link *l,
			      const struct sp_hs_accept *who)
{
	struct link_world *w = ctx;

	(void)l;
	assert_memory_equal(who->device, w->device_public, 32);
	w->admits++;
	return w->admit_says;
}

static enum sp_reason w_attach(void *ctx, struct sp_link *l,
			       const struct sp_hs_accept *who, const struct sp_attach *at,
			       struct sp_session **ret_session, bool *ret_fresh)
{
	struct link_world *w = ctx;
	struct sp_session_options opt = {
		.role = SP_ROLE_WORKER,
		.arena = w->arena,
		.ops = &world_worker_session,
		.ctx = w,
		.clock_us = sp_loop_clock_us(w->loop),
	};

	(void)l;
	if (w->attach_says)
		return w->attach_says;
	if (w->attach_waits) {
		w->waiting_link = l;
		w->attach_flags = at->flags;
		w->waits++;
		return SP_REASON_NONE;
	}
	if (who->kind == SP_HS_RESUME)
		assert_memory_equal(who->session, at->session, 16);
	*ret_fresh = !w->worker;
	if (!w->worker) {
		memcpy(opt.id, at->session, sizeof(opt.id));
		sp_session_limits_default(&opt.limits);
		assert_int_equal(
			sp_session_new(&opt, sp_loop_now_us(w->loop), &w->worker), 0);
		assert_int_equal(sp_session_clock_add(w->clock, w->worker), 0);
	}
	w->worker_link = l;
	*ret_session = w->worker;
	return SP_REASON_NONE;
}

static int w_make_ticket(void *ctx, struct sp_session *session, const uint8_t *psk,
			 uint8_t *buf, size_t cap, uint32_t *ret_lifetime_s)
{
	struct link_world *w = ctx;
	struct sp_ticket_body body = {
		.pass_expires_s = sp_loop_unix_ms(w->loop) / 1000 + 3600,
		.issued_s = sp_loop_unix_ms(w->loop) / 1000,
	};

	assert_true(cap >= SP_TICKET_BYTES);
	memcpy(body.session, sp_session_id(session), 16);
	memcpy(body.psk, psk, 32);
	memcpy(body.device, w->device_public, 32);
	sp_ticket_seal(w->keys.route_key, w->keys.boot_key, w->keys.home_id, &body, buf);
	*ret_lifetime_s = w->keys.ticket_lifetime_s;
	return SP_TICKET_BYTES;
}

static void w_stranger(void *ctx, struct sp_carrier *c, enum sp_reason why,
		       const uint8_t *buf, size_t len, void *waiting)
{
	struct link_world *w = ctx;

	w->strangers++;
	w->stranger_why = why;
	w->stranger_waiting = waiting;
	if (!c)
		return;
	assert_null(w->stranger);
	w->stranger = c;
	w->stranger_len = len;
	if (len)
		memcpy(w->stranger_bytes, buf, len);
}

static void *w_silent(void *ctx, struct sp_link *l)
{
	struct link_world *w = ctx;

	w->silences++;
	w->silent_link = l;
	return &w->silences;
}

static void w_silent_over(void *ctx, void *waiting)
{
	struct link_world *w = ctx;

	assert_ptr_equal(waiting, &w->silences);
	w->silences_over++;
}

static void w_down(void *ctx, struct sp_link *l, enum sp_reason reason)
{
	struct link_world *w = ctx;

	w->down_session = sp_link_session(l);
	w->worker_downs++;
	w->worker_reason = reason;
	if (l == w->worker_link)
		w->worker_link = NULL;
	if (l == w->waiting_link)
		w->waiting_link = NULL;
}
static const struct sp_link_worker_ops world_worker_link = {
	.admit = w_admit,
	.attach = w_attach,
	.make_ticket = w_make_ticket,
	.stranger = w_stranger,
	.silent = w_silent,
	.silent_over = w_silent_over,
	.down = w_down,
};

// ---- the world ----

static inline void world_pass(struct link_world *w)
{
	struct sp_pass pass = {
		.not_before_s = sp_loop_unix_ms(w->loop) / 1000 - 60,
		.expires_s = sp_loop_unix_ms(w->loop) / 1000 + 3600,
		.user = "ada",
		.tier = "standard",
		.max_sessions = 4,
		.max_streams = 1000,
		.max_flows = 1000,
	};
	int n;

	memcpy(pass.device, w->device_public, 32);
	n = sp_pass_sign(&pass, w->sign_secret, w->pass, sizeof(w->pass));
	assert_true(n > 0);
	w->pass_len = (size_t)n;
}

static inline struct sp_session *world_client_session_new(struct link_world *w)
{
	struct sp_session_options opt = {
		.role = SP_ROLE_CLIENT,
		.arena = w->arena,
		.ops = &world_client_session,
		.ctx = w,
		.clock_us = sp_loop_clock_us(w->loop),
	};
	struct sp_session *s;

	randombytes_buf(opt.id, sizeof(opt.id));
	sp_session_limits_default(&opt.limits);
	assert_int_equal(sp_session_new(&opt, sp_loop_now_us(w->loop), &s), 0);
	assert_int_equal(sp_session_clock_add(w->clock, s), 0);
	return s;
}

static inline void world_envs(struct link_world *w, uint32_t handshake_ms,
			      uint32_t max_half_open)
{
	struct sp_link_env_options opt = {.loop = w->loop, .clock = w->clock};

	assert_int_equal(sp_link_env_new(&opt, &w->client_env), 0);
	opt.max_half_open = max_half_open;
	opt.handshake_ms = handshake_ms;
	opt.worker_keys = &w->keys;
	opt.replay = w->replay;
	opt.budget = w->budget;
	assert_int_equal(sp_link_env_new(&opt, &w->worker_env), 0);
}

static inline struct link_world *world_with(uint32_t handshake_ms, uint32_t max_half_open)
{
	struct link_world *w = calloc(1, sizeof(*w));
	struct sp_arena_options arena = {
		.max_sessions = 8, .max_streams = 64, .memory_bytes = 64 << 20};
	struct sp_budget_options budget;

	assert_non_null(w);
	assert_true(sodium_init() >= 0);
	assert_int_equal(sp_loop_new(&w->loop), 0);
	assert_int_equal(sp_session_clock_new(w->loop, &w->clock), 0);
	assert_int_equal(sp_arena_new(&arena, &w->arena), 0);
	randombytes_buf(w->device_secret, 32);
	crypto_scalarmult_base(w->device_public, w->device_secret);
	crypto_sign_keypair(w->sign_public, w->sign_secret);
	randombytes_buf(&w->keys, offsetof(struct sp_hs_worker_keys, home_id));
	w->keys.home_id = 7;
	w->keys.boot_id = 8;
	w->keys.suites = sp_aead_suites();
	w->keys.ticket_lifetime_s = 3600;
	assert_int_equal(sp_signed_keys_add(&w->keys.trusted, w->sign_public), 0);
	assert_int_equal(sp_hs_worker_keys_init(&w->keys), 0);
	w->replay_mem = aligned_alloc(64, (sp_replay_bytes(4096) + 63) & ~63ul);
	assert_int_equal(
		sp_replay_format(w->replay_mem, sp_replay_bytes(4096), 4096, &w->replay),
		0);
	sp_budget_options_default(&budget);
	budget.burst = budget.per_minute = 60000;
	budget.all_per_second = budget.all_burst = 60000;
	assert_int_equal(sp_budget_new(&budget, &w->budget), 0);
	world_pass(w);
	world_envs(w, handshake_ms, max_half_open);
	w->client = world_client_session_new(w);
	return w;
}

static inline struct link_world *world_new(void)
{
	return world_with(10000, 100);
}

static inline void world_free(struct link_world *w)
{
	sp_link_env_free(w->client_env);
	sp_link_env_free(w->worker_env);
	sp_session_clock_remove(w->clock, w->client);
	sp_session_free(w->client, SP_REASON_SHUTDOWN);
	if (w->worker)
		sp_session_clock_remove(w->clock, w->worker);
	sp_session_free(w->worker, SP_REASON_SHUTDOWN);
	sp_carrier_free(w->stranger);
	sp_session_clock_free(w->clock);
	sp_budget_free(w->budget);
	sp_arena_free(w->arena);
	free(w->replay_mem);
	sp_loop_free(w->loop);
	free(w);
}

static void world_tick(void *ctx)
{
	(void)ctx;
}

// Turns the loop until the condition holds; false after WAIT_US.
#define world_until(w, condition)                                                        \
	({                                                                               \
		struct sp_timer tick_;                                                   \
		uint64_t end_ = sp_loop_refresh((w)->loop) + WAIT_US;                    \
		bool held_;                                                              \
		sp_timer_init(&tick_, (w)->loop, world_tick, NULL);                      \
		while (!(held_ = (condition)) && sp_loop_now_us((w)->loop) < end_) {     \
			sp_timer_set(&tick_, sp_loop_now_us((w)->loop) + 20000);         \
			assert_int_equal(sp_loop_turn((w)->loop, true), 0);              \
		}                                                                        \
		sp_timer_done(&tick_);                                                   \
		held_;                                                                   \
	})

static inline struct sp_link_dial world_dial(struct link_world *w)
{
	return (struct sp_link_dial){
		.worker_public = w->keys.static_public,
		.device_secret = w->device_secret,
		.device_public = w->device_public,
		.pass = w->pass,
		.pass_len = w->pass_len,
		.timeout_ms = 5000,
		.session = w->client,
		.ops = &world_client_link,
		.ctx = w,
	};
}

// A client's and a worker's link over an in-memory pair.
static inline void world_connect_mem(struct link_world *w, struct sp_link_dial *d,
				     const struct sp_carrier_script *client,
				     const struct sp_carrier_script *worker)
{
	struct sp_carrier *c[2];
	struct sp_link *l;

	assert_int_equal(sp_carrier_mem_pair(client, worker, c), 0);
	d->carrier.ready = c[0];
	assert_int_equal(sp_link_dial(w->client_env, d, &w->client_link), 0);
	assert_int_equal(sp_link_accept(w->worker_env, c[1], &world_worker_link, w, &l),
			 0);
}

// The next dial resumes with the latest ticket that was not used, if there is one.
static inline struct sp_link_dial world_redial(struct link_world *w)
{
	struct sp_link_dial d = world_dial(w);

	if (w->n_tickets) {
		w->n_tickets--;
		d.ticket = w->tickets[w->n_tickets];
		d.ticket_len = w->ticket_len[w->n_tickets];
		d.ticket_psk = w->psks[w->n_tickets];
	}
	return d;
}

// A worker's link whose other end is the test's.
static inline struct sp_carrier *world_raw_client(struct link_world *w)
{
	struct sp_carrier *c[2];
	struct sp_link *l;

	assert_int_equal(sp_carrier_mem_pair(NULL, NULL, c), 0);
	assert_int_equal(sp_link_accept(w->worker_env, c[1], &world_worker_link, w, &l),
			 0);
	return c[0];
}

// A first contact's flight. Its length.
static inline size_t world_flight(struct link_world *w, uint8_t *buf)
{
	struct sp_hs_client hs;
	struct sp_hs_client_options opt = {
		.worker_public = w->keys.static_public,
		.suites = sp_aead_suites(),
		.device_secret = w->device_secret,
		.device_public = w->device_public,
		.pass = w->pass,
		.pass_len = w->pass_len,
		.now_ms = sp_loop_unix_ms(w->loop),
	};
	int n = sp_hs_client_start(&hs, &opt, buf, SP_HS_FLIGHT_MAX);

	assert_true(n > 0);
	sp_hs_client_done(&hs);
	return (size_t)n;
}

static inline void world_turn(struct link_world *w)
{
	assert_true(sp_loop_turn(w->loop, false) >= 0);
}

static inline void world_open(struct link_world *w, uint64_t up, uint64_t down)
{
	struct sp_target target;

	assert_int_equal(sp_target_parse("192.0.2.1:80", &target), 0);
	w->client_bulk = w->worker_bulk = (struct bulk){.to_send = up};
	w->worker_sends = down;
	(void)sp_loop_now_us(w->loop);
	assert_int_equal(sp_session_open(w->client, &target, NULL, &w->client_bulk.st),
			 0);
}

static inline bool world_done(const struct link_world *w)
{
	return w->client_bulk.closed && w->worker_bulk.closed;
}

static inline void world_check_bulk(const struct link_world *w, uint64_t up,
				    uint64_t down)
{
	assert_false(w->client_bulk.wrong);
	assert_false(w->worker_bulk.wrong);
	assert_true(w->client_bulk.got_fin && w->worker_bulk.got_fin);
	assert_int_equal(w->worker_bulk.got, up);
	assert_int_equal(w->client_bulk.got, down);
}

#endif
