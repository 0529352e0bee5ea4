#include "lib/probe.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/probe_internal.h"

#define ANSWER_CHECK_US 500   // how often it is looked whether the answer came
#define END_US          30000 // for the end of streams to go out
#define STREAMS_A_SEAT  4     // records; some wait for their end to be reported
#define MEMORY_BYTES    (16u << 20)

const char *sp_rung_word(enum sp_rung rung)
{
	static const char *const words[SP_RUNGS] = {"resolve",   "connect", "carrier",
						    "handshake", "session", "stream",
						    "http",      "egress",  "external"};
	return rung < SP_RUNGS ? words[rung] : "top";
}

// ---- climbing and falling ----

static void drop_event(struct sp_probe *p)
{
	if (p->has_event)
		event_del(&p->ev);
	p->has_event = false;
}

static void end_streams(struct sp_probe *p)
{
	for (unsigned i = 0; i < PROBE_STREAMS; i++) {
		struct probe_stream *s = &p->stream[i];
		struct sp_stream *st = s->st;
		s->st = NULL;
		if (st)
			sp_stream_reset(st, SP_REASON_CANCELLED);
		bridge_free(s->bridge);
		s->bridge = NULL;
	}
}

static void set_timeout(struct sp_probe *p)
{
	uint64_t at = p->deadline_us;
	if (p->opt.rung_ms && p->rung_us + (uint64_t)p->opt.rung_ms * 1000 < at)
		at = p->rung_us + (uint64_t)p->opt.rung_ms * 1000;
	sp_timer_set(&p->timeout, at);
}

// Nothing more is tried. `done` comes from the loop; what is left goes out meanwhile.
static void finish(struct sp_probe *p)
{
	p->over = true;
	sp_timer_set(&p->timeout, SP_LOOP_NEVER);
	sp_timer_set(&p->answer, SP_LOOP_NEVER);
	end_streams(p);
	sp_loop_defer(p->env->loop, &p->tell);
}

void sp_probe_fall(struct sp_probe *p, enum sp_reason reason, const char *detail)
{
	if (p->over)
		return;
	p->res.reason = reason;
	snprintf(p->res.detail, sizeof(p->res.detail), "%s", detail);
	finish(p);
}

void sp_probe_climb(struct sp_probe *p)
{
	if (p->over)
		return;
	uint64_t now = sp_loop_refresh(p->env->loop);
	uint64_t us = now - p->rung_us;
	p->res.us[p->res.reached++] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
	p->rung_us = now;
	if (p->res.reached >= p->res.top)
		finish(p);
	else
		set_timeout(p);
}

enum sp_rung sp_probe_rung(const struct sp_probe *p)
{
	return p->res.reached;
}

// The handshake's rung ends with the authentic answer, whatever it says.
static void check_answer(struct sp_probe *p)
{
	if (p->over || !p->link || p->res.reached != SP_RUNG_HANDSHAKE ||
	    !sp_link_boot_id(p->link))
		return;
	p->res.skew_ms = sp_link_clock_skew_ms(p->link);
	p->res.boot_id = sp_link_boot_id(p->link);
	sp_probe_climb(p);
}

static void on_timeout(void *arg)
{
	check_answer(arg);
	sp_probe_fall(arg, SP_REASON_TIMEOUT, "nothing came in time");
}

static void on_answer_timer(void *arg)
{
	struct sp_probe *p = arg;
	check_answer(p);
	if (!p->over && p->res.reached == SP_RUNG_HANDSHAKE)
		sp_timer_set(&p->answer, sp_loop_now_us(p->env->loop) + ANSWER_CHECK_US);
}

// ---- life ----

static void on_reap(struct sp_deferred *d)
{
	struct sp_probe *p =
		(struct sp_probe *)((char *)d - offsetof(struct sp_probe, reap));
	sp_timer_done(&p->timeout);
	sp_timer_done(&p->answer);
	sp_timer_done(&p->end);
	free(p);
}

// Gives its place up. Its link, if it has one, is closed and calls on_down later.
static void let_go(struct sp_probe *p)
{
	p->over = p->told = true;
	sp_timer_set(&p->timeout, SP_LOOP_NEVER);
	sp_timer_set(&p->answer, SP_LOOP_NEVER);
	sp_timer_set(&p->end, SP_LOOP_NEVER);
	sp_loop_defer_cancel(&p->tell);
	end_streams(p);
	drop_event(p);
	sp_lookup_cancel(p->lookup);
	p->lookup = NULL;
	sp_carrier_free(p->carrier);
	p->carrier = NULL;
	if (p->seat && p->seat->probe == p)
		p->seat->probe = NULL;
	p->seat = NULL;
	if (p->link) {
		sp_link_close(p->link, SP_REASON_SHUTDOWN);
		return;
	}
	TAILQ_REMOVE(&p->env->probes, p, entry);
	sp_loop_reap(p->env->loop, &p->reap);
}

static void on_tell(struct sp_deferred *d)
{
	struct sp_probe *p =
		(struct sp_probe *)((char *)d - offsetof(struct sp_probe, tell));
	if (p->told)
		return;
	p->told = p->lingers = true;
	sp_timer_set(&p->end, sp_loop_now_us(p->env->loop) + END_US);
	p->opt.done(p->opt.ctx, &p->res); // may start the next, which lets this one go
}

static void on_end(void *arg)
{
	let_go(arg);
}

void sp_probe_cancel(struct sp_probe *p)
{
	let_go(p);
}

// ---- streams and the built-in request ----

static struct probe_stream *find_stream(struct sp_probe_seat *seat, struct sp_stream *st)
{
	for (unsigned i = 0; seat->probe && i < PROBE_STREAMS; i++)
		if (seat->probe->stream[i].st == st)
			return &seat->probe->stream[i];
	return NULL;
}

static void send_request(struct sp_probe *p, struct sp_stream *st)
{
	char host[SP_TARGET_TEXT_MAX], text[1024];
	struct iovec iov[1];
	int n = snprintf(text, sizeof(text),
			 "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sallyport-probe\r\n"
			 "Accept: */*\r\nConnection: close\r\n\r\n",
			 p->opt.path, sp_target_format(&p->target, host, sizeof(host)));
	if (n < 0 || (size_t)n >= sizeof(text) ||
	    sp_stream_reserve(st, (size_t)n, iov, 1) != 1 || iov[0].iov_len < (size_t)n) {
		sp_probe_fall(p, SP_REASON_INTERNAL, "the request does not fit");
		return;
	}
	memcpy(iov[0].iov_base, text, (size_t)n);
	sp_stream_commit(st, (size_t)n);
}

static void give_stream(struct sp_probe *p, struct probe_stream *s)
{
	char name[BRIDGE_NAME_MAX];
	int err = bridge_new(p->env->loop, s->st, &s->bridge, name);
	if (err)
		sp_probe_fall(p, SP_REASON_NO_DESCRIPTORS, sp_strerror(err));
	else
		p->opt.stream(p->opt.ctx, p, name);
}

static void stream_opened(void *ctx, struct sp_stream *st, const struct sp_target *bound)
{
	struct sp_probe_seat *seat = ctx;
	struct probe_stream *s = find_stream(seat, st);
	struct sp_probe *p = seat->probe;
	if (!s || p->over)
		return;
	if (p->res.reached == SP_RUNG_STREAM) {
		p->res.bound = *bound;
		sp_probe_climb(p);
	}
	if (p->over)
		return;
	if (p->opt.stream)
		give_stream(p, s);
	else
		send_request(p, st);
}

static void judge_status(struct sp_probe *p)
{
	unsigned major, minor, status;
	char detail[64];
	p->line[p->line_len] = '\0';
	if (sscanf(p->line, "HTTP/%1u.%1u %3u", &major, &minor, &status) != 3) {
		sp_probe_fall(p, SP_REASON_PROTOCOL, "the target does not speak HTTP");
		return;
	}
	p->res.http_status = status;
	if (p->opt.expect ? status == p->opt.expect : status >= 200 && status < 400) {
		sp_probe_climb(p);
		return;
	}
	snprintf(detail, sizeof(detail), "the target answered %u", status);
	sp_probe_fall(p, SP_REASON_REFUSED, detail);
}

static size_t stream_sink(void *ctx, struct sp_stream *st, const uint8_t *buf, size_t len)
{
	struct sp_probe_seat *seat = ctx;
	struct probe_stream *s = find_stream(seat, st);
	struct sp_probe *p = seat->probe;
	if (!s || p->over)
		return len;
	if (p->opt.stream)
		return s->bridge ? bridge_sink(s->bridge, buf, len) : len;
	for (size_t i = 0; i < len; i++) {
		if (buf[i] == '\n' || p->line_len == sizeof(p->line) - 1) {
			judge_status(p); // resets the stream
			return 0;
		}
		p->line[p->line_len++] = (char)buf[i];
	}
	return len;
}

static void stream_sink_fin(void *ctx, struct sp_stream *st)
{
	struct sp_probe_seat *seat = ctx;
	struct probe_stream *s = find_stream(seat, st);
	if (!s)
		return;
	if (s->bridge)
		bridge_sink_fin(s->bridge);
	else
		sp_probe_fall(seat->probe, SP_REASON_CLOSED,
			      "the target ended without an answer");
}

static void stream_source_ready(void *ctx, struct sp_stream *st)
{
	struct probe_stream *s = find_stream(ctx, st);
	if (s && s->bridge)
		bridge_source_ready(s->bridge);
}

static void stream_closed(void *ctx, struct sp_stream *st, enum sp_reason reason)
{
	struct sp_probe_seat *seat = ctx;
	struct probe_stream *s = find_stream(seat, st);
	if (!s)
		return;
	bool given = s->bridge != NULL;
	s->st = NULL;
	bridge_free(s->bridge);
	s->bridge = NULL;
	// One that was given ends for its reader, who knows whether that is a fall.
	if (!given || reason != SP_REASON_CLOSED)
		sp_probe_fall(seat->probe, reason, "");
}

static void open_stream(struct sp_probe *p, const struct sp_target *target)
{
	struct probe_stream *s = p->stream[0].st ? &p->stream[1] : &p->stream[0];
	if (s->st || sp_session_open(p->seat->session, target, NULL, &s->st)) {
		p->seat->stale = true;
		sp_probe_fall(p, SP_REASON_STREAM_LIMIT, "no stream can be opened");
		return;
	}
	sp_session_clock_touch(p->env->clock, p->seat->session);
}

void sp_probe_open(struct sp_probe *p, const struct sp_target *target)
{
	if (p->over)
		return;
	for (unsigned i = 0; i < PROBE_STREAMS; i++) // who has none any more
		if (p->stream[i].st && p->opt.stream) {
			struct sp_stream *st = p->stream[i].st;
			p->stream[i].st = NULL;
			sp_stream_reset(st, SP_REASON_CANCELLED);
			bridge_free(p->stream[i].bridge);
			p->stream[i].bridge = NULL;
		}
	open_stream(p, target);
}

// ---- session ----

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
	struct sp_probe_seat *seat = ctx;
	(void)deadline_ms;
	if (seat->probe && seat->probe->res.reached <= SP_RUNG_SESSION)
		sp_probe_fall(seat->probe, reason, "the exit takes no new streams");
}

static void on_ended(void *ctx, enum sp_reason reason)
{
	struct sp_probe_seat *seat = ctx;
	seat->stale = true;
	if (seat->probe)
		sp_probe_fall(seat->probe, reason, "the exit ended the session");
}

static const struct sp_session_ops session_ops = {
	.stream_opened = stream_opened,
	.stream_sink = stream_sink,
	.stream_sink_fin = stream_sink_fin,
	.stream_source_ready = stream_source_ready,
	.stream_closed = stream_closed,
	.attached = on_attached,
	.ticket = on_ticket,
	.stalled = on_stalled,
	.goaway = on_goaway,
	.ended = on_ended,
};

static void on_up(void *ctx, struct sp_link *l)
{
	struct sp_probe *p = ctx;
	(void)l;
	check_answer(p);
	sp_probe_climb(p);
	if (!p->over)
		open_stream(p, &p->target);
}

static void on_down(void *ctx, struct sp_link *l, enum sp_reason reason)
{
	struct sp_probe *p = ctx;
	(void)l;
	check_answer(p); // a refusal is an answer too
	p->link = NULL;
	if (p->seat && (reason == SP_REASON_STALE_EPOCH ||
			reason == SP_REASON_NOT_YOURS || reason == SP_REASON_QUARANTINED))
		p->seat->stale = true;
	sp_probe_fall(p, reason, "");
	if (!p->seat) { // let go already
		TAILQ_REMOVE(&p->env->probes, p, entry);
		sp_loop_reap(p->env->loop, &p->reap);
	}
}

static const struct sp_link_client_ops link_ops = {.up = on_up, .down = on_down};

static void dial_link(struct sp_probe *p)
{
	const struct sp_probe_who *who = p->opt.who;
	struct sp_link_dial d = {
		.carrier = {.kind = p->dial.kind, .ready = p->carrier},
		.worker_public = p->worker_public,
		.device_secret = who->device_secret,
		.device_public = who->device_public,
		.pass = who->pass,
		.pass_len = who->pass_len,
		.timeout_ms =
			p->opt.rung_ms ? 2 * p->opt.rung_ms : p->opt.deadline_ms + 1000,
		.session = p->seat->session,
		.ops = &link_ops,
		.ctx = p,
	};
	p->carrier = NULL;
	if (sp_link_dial(p->env->links, &d, &p->link))
		sp_probe_fall(p, SP_REASON_NO_MEMORY, "");
	else if (p->opt.fine)
		on_answer_timer(p);
}

// ---- carrier ----

static bool is_connected(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
	       info.tcpi_state == TCP_ESTABLISHED;
}

static enum sp_reason carrier_reason(int err)
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
	case SP_E_CLOSED:
		return SP_REASON_TLS;
	default:
		return SP_REASON_CARRIER_RESET;
	}
}

static void step_carrier(struct sp_probe *p)
{
	if (p->res.reached == SP_RUNG_CONNECT && is_connected(sp_carrier_fd(p->carrier)))
		sp_probe_climb(p);
	int err = sp_carrier_handshake(p->carrier);
	if (p->res.reached == SP_RUNG_CONNECT && err == 0)
		sp_probe_climb(p);
	if (err == -EAGAIN || p->over)
		return;
	drop_event(p);
	if (err) {
		const char *what = sp_carrier_error(p->carrier);
		sp_probe_fall(p, carrier_reason(err), *what ? what : sp_strerror(err));
		return;
	}
	sp_probe_climb(p);
	if (!p->over)
		dial_link(p);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct sp_probe *p = arg;
	(void)fd;
	(void)what;
	(void)sp_loop_now_us(p->env->loop);
	if (p->over)
		drop_event(p);
	else
		step_carrier(p);
}

static void on_lookup(void *ctx, const struct sp_lookup_result *res)
{
	struct sp_probe *p = ctx;
	p->lookup = NULL;
	if (p->over)
		return;
	if (res->err) {
		sp_probe_fall(p,
			      res->err == -ETIMEDOUT ? SP_REASON_RESOLVE_TIMEOUT
						     : SP_REASON_RESOLVE_FAILED,
			      "");
		return;
	}
	sp_probe_climb(p);
	sp_target_from_sockaddr((const struct sockaddr *)&res->addr[0], &p->res.exit);
	p->dial.addr = res->addr[0];
	p->dial.addr_len = res->addr_len[0];
	int err = sp_carrier_connect(&p->dial, &p->carrier);
	if (err) {
		sp_probe_fall(p, carrier_reason(err), sp_strerror(err));
		return;
	}
	event_assign(&p->ev, sp_loop_base(p->env->loop), sp_carrier_fd(p->carrier),
		     EV_READ | EV_WRITE | EV_ET | EV_PERSIST, on_event, p);
	event_add(&p->ev, NULL);
	p->has_event = true;
	step_carrier(p);
}

// ---- env, seats ----

int sp_probe_env_new(const struct sp_probe_env_options *opt, struct sp_probe_env **ret)
{
	struct sp_arena_options arena = {.max_sessions = opt->max_seats,
					 .max_streams = opt->max_seats * STREAMS_A_SEAT,
					 .memory_bytes = MEMORY_BYTES};
	struct sp_link_env_options links = {.loop = opt->loop};
	struct sp_probe_env *env = calloc(1, sizeof(*env));
	if (!env)
		return -ENOMEM;
	env->loop = opt->loop;
	TAILQ_INIT(&env->probes);
	int err = sp_arena_new(&arena, &env->arena);
	if (!err)
		err = sp_session_clock_new(opt->loop, &env->clock);
	links.clock = env->clock;
	if (!err)
		err = sp_link_env_new(&links, &env->links);
	if (err)
		sp_probe_env_free(env);
	else
		*ret = env;
	return err;
}

void sp_probe_env_free(struct sp_probe_env *env)
{
	struct sp_probe *p, *next;
	if (!env)
		return;
	for (p = TAILQ_FIRST(&env->probes); p; p = next) {
		next = TAILQ_NEXT(p, entry);
		if (p->seat)
			let_go(p);
	}
	sp_link_env_free(env->links); // calls on_down of those left
	sp_session_clock_free(env->clock);
	sp_arena_free(env->arena);
	free(env);
}

static void drop_session(struct sp_probe_seat *seat)
{
	if (!seat->session)
		return;
	sp_session_clock_remove(seat->env->clock, seat->session);
	sp_session_free(seat->session, SP_REASON_SHUTDOWN);
	seat->session = NULL;
}

static int make_session(struct sp_probe_seat *seat)
{
	struct sp_probe_env *env = seat->env;
	struct sp_session_options opt = {
		.role = SP_ROLE_CLIENT,
		.arena = env->arena,
		.ops = &session_ops,
		.ctx = seat,
		.clock_us = sp_loop_clock_us(env->loop),
	};
	sp_session_limits_default(&opt.limits);
	opt.limits.max_streams = STREAMS_A_SEAT;
	randombytes_buf(opt.id, sizeof(opt.id));
	int err = sp_session_new(&opt, sp_loop_now_us(env->loop), &seat->session);
	if (!err)
		err = sp_session_clock_add(env->clock, seat->session);
	return err;
}

int sp_probe_seat_new(struct sp_probe_env *env, struct sp_probe_seat **ret)
{
	struct sp_probe_seat *seat = calloc(1, sizeof(*seat));
	if (!seat)
		return -ENOMEM;
	seat->env = env;
	*ret = seat;
	return 0;
}

void sp_probe_seat_free(struct sp_probe_seat *seat)
{
	if (!seat)
		return;
	if (seat->probe)
		let_go(seat->probe);
	drop_session(seat);
	free(seat);
}

int sp_probe_start(struct sp_probe_seat *seat, const struct sp_probe_options *opt,
		   struct sp_probe **ret)
{
	struct sp_probe_env *env = seat->env;
	if (seat->probe && !seat->probe->told)
		return -EBUSY;
	if (seat->probe)
		let_go(seat->probe);
	if (seat->stale)
		drop_session(seat);
	seat->stale = false;
	int err = seat->session ? 0 : make_session(seat);
	if (err) {
		drop_session(seat);
		return err;
	}
	struct sp_probe *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->env = env;
	p->opt = *opt;
	p->res.top = opt->target ? opt->top : SP_RUNG_STREAM;
	if (opt->target)
		p->target = *opt->target;
	p->dial.kind = opt->carrier->kind;
	memcpy(p->worker_public, opt->worker_public, sizeof(p->worker_public));
	strcpy(p->server_name, opt->carrier->server_name);
	p->dial.server_name = p->server_name[0] ? p->server_name : NULL;
	p->opt.carrier = NULL;
	p->opt.worker_public = NULL;
	p->dial.tls = opt->tls;
	p->tell.run = on_tell;
	p->reap.run = on_reap;
	p->rung_us = sp_loop_refresh(env->loop);
	p->deadline_us = opt->deadline_ms ? p->rung_us + (uint64_t)opt->deadline_ms * 1000
					  : SP_LOOP_NEVER;
	err = sp_lookup_start(env->loop, &opt->carrier->address, on_lookup, p,
			      &p->lookup);
	if (err) {
		free(p);
		return err;
	}
	sp_timer_init(&p->timeout, env->loop, on_timeout, p);
	sp_timer_init(&p->answer, env->loop, on_answer_timer, p);
	sp_timer_init(&p->end, env->loop, on_end, p);
	p->seat = seat;
	seat->probe = p;
	TAILQ_INSERT_TAIL(&env->probes, p, entry);
	set_timeout(p);
	*ret = p;
	return 0;
}

// ---- blocking ----

struct run {
	struct sp_loop *loop;
	struct sp_probe_result *ret;
	struct sp_timer end;
};

static void run_done(void *ctx, const struct sp_probe_result *res)
{
	struct run *r = ctx;
	*r->ret = *res;
	sp_timer_set(&r->end, sp_loop_now_us(r->loop) + END_US);
}

static void run_end(void *ctx)
{
	struct run *r = ctx;
	sp_loop_stop(r->loop);
}

int sp_probe_run(const struct sp_probe_options *opt, struct sp_probe_result *ret)
{
	struct run r = {.ret = ret};
	struct sp_probe_options o = *opt;
	struct sp_probe_env *env = NULL;
	struct sp_probe_seat *seat = NULL;
	struct sp_probe *p;
	int err = sp_loop_new(&r.loop);
	if (err)
		return err;
	struct sp_probe_env_options eo = {.loop = r.loop, .max_seats = 1};
	sp_timer_init(&r.end, r.loop, run_end, &r);
	err = sp_probe_env_new(&eo, &env);
	if (!err)
		err = sp_probe_seat_new(env, &seat);
	o.stream = NULL;
	o.done = run_done;
	o.ctx = &r;
	o.fine = true;
	if (!err)
		err = sp_probe_start(seat, &o, &p);
	if (!err)
		err = sp_loop_run(r.loop);
	sp_probe_seat_free(seat);
	sp_probe_env_free(env);
	sp_timer_done(&r.end);
	sp_loop_free(r.loop);
	return err;
}
