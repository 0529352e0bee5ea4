#include "client/probe.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "client/lookup.h"

#define ANSWER_CHECK_US 500 // how often it is looked whether the answer came
#define END_US          30000

struct probe {
	struct cli_probe_options opt;
	struct cli_probe_result *res;
	struct sp_loop *loop;
	struct sp_arena *arena;
	struct sp_session_clock *clock;
	struct sp_link_env *env;
	struct sp_session *session;
	struct sp_stream *stream;
	struct cli_lookup *lookup;
	struct sp_carrier *carrier;
	struct sp_link *link;
	struct sp_carrier_dial dial;
	struct event ev;
	bool has_event, done;
	uint64_t rung_us; // when the rung was begun
	struct sp_timer timeout, answer, end;
	size_t line_len;
	char line[64]; // first line of the HTTP answer
};

static const char *const rung_words[CLI_RUNGS] = {
	"resolve", "connect", "carrier", "handshake", "session", "stream", "http"};

const char *cli_rung_word(enum cli_rung rung)
{
	return rung < CLI_RUNGS ? rung_words[rung] : "top";
}

// ---- climbing and falling ----

static void start_end(struct probe *p)
{
	p->done = true;
	sp_timer_set(&p->timeout, SP_LOOP_NEVER);
	sp_timer_set(&p->answer, SP_LOOP_NEVER);
	sp_timer_set(&p->end, sp_loop_now_us(p->loop) + END_US);
	if (p->stream)
		sp_stream_reset(p->stream, SP_REASON_CANCELLED);
	p->stream = NULL;
}

static void fall(struct probe *p, enum sp_reason reason, const char *detail)
{
	if (p->done)
		return;
	p->res->reason = reason;
	snprintf(p->res->detail, sizeof(p->res->detail), "%s", detail);
	start_end(p);
}

// The current rung was climbed.
static void climb(struct probe *p)
{
	uint64_t now = sp_loop_refresh(p->loop);
	p->res->ms[p->res->reached++] = (double)(now - p->rung_us) / 1000;
	p->rung_us = now;
	sp_timer_set(&p->timeout, now + (uint64_t)p->opt.timeout_ms * 1000);
	if (p->res->reached == p->res->top)
		start_end(p);
}

static void on_timeout(void *arg)
{
	fall(arg, SP_REASON_TIMEOUT, "nothing came in time");
}

static void on_end(void *arg)
{
	struct probe *p = arg;
	sp_loop_stop(p->loop);
}

// ---- stream and HTTP ----

static void send_request(struct probe *p)
{
	char host[SP_TARGET_TEXT_MAX], text[1024];
	struct iovec iov[1];
	int n = snprintf(text, sizeof(text),
			 "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sallyport-probe\r\n"
			 "Accept: */*\r\nConnection: close\r\n\r\n",
			 p->opt.path,
			 sp_target_format(p->opt.target, host, sizeof(host)));
	if (n < 0 || (size_t)n >= sizeof(text) ||
	    sp_stream_reserve(p->stream, (size_t)n, iov, 1) != 1 ||
	    iov[0].iov_len < (size_t)n) {
		fall(p, SP_REASON_INTERNAL, "the request does not fit");
		return;
	}
	memcpy(iov[0].iov_base, text, (size_t)n);
	sp_stream_commit(p->stream, (size_t)n);
}

static void stream_opened(void *ctx, struct sp_stream *st, const struct sp_target *bound)
{
	struct probe *p = ctx;
	(void)st;
	sp_target_format(bound, p->res->bound, sizeof(p->res->bound));
	climb(p);
	send_request(p);
}

static void judge_status(struct probe *p)
{
	unsigned major, minor, status;
	char detail[64];
	p->line[p->line_len] = '\0';
	if (sscanf(p->line, "HTTP/%1u.%1u %3u", &major, &minor, &status) != 3) {
		fall(p, SP_REASON_PROTOCOL, "the target does not speak HTTP");
		return;
	}
	p->res->http_status = status;
	if (p->opt.expect ? status == p->opt.expect : status >= 200 && status < 400) {
		climb(p);
		return;
	}
	snprintf(detail, sizeof(detail), "the target answered %u", status);
	fall(p, SP_REASON_REFUSED, detail);
}

static size_t stream_sink(void *ctx, struct sp_stream *st, const uint8_t *buf, size_t len)
{
	struct probe *p = ctx;
	(void)st;
	for (size_t i = 0; i < len && p->stream; i++) {
		if (buf[i] == '\n' || p->line_len == sizeof(p->line) - 1) {
			judge_status(p); // lets go of the stream
			return 0;
		}
		p->line[p->line_len++] = (char)buf[i];
	}
	return len;
}

static void stream_sink_fin(void *ctx, struct sp_stream *st)
{
	(void)st;
	fall(ctx, SP_REASON_CLOSED, "the target ended without an answer");
}

static void stream_source_ready(void *ctx, struct sp_stream *st)
{
	(void)ctx;
	(void)st;
}

static void stream_closed(void *ctx, struct sp_stream *st, enum sp_reason reason)
{
	struct probe *p = ctx;
	(void)st;
	p->stream = NULL;
	fall(p, reason, "");
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
	struct probe *p = ctx;
	(void)deadline_ms;
	if (p->res->reached <= CLI_RUNG_SESSION)
		fall(p, reason, "the exit takes no new streams");
}

static void on_ended(void *ctx, enum sp_reason reason)
{
	fall(ctx, reason, "the exit ended the session");
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

// The handshake's rung ends with the authentic answer, whatever it says.
static void check_answer(struct probe *p)
{
	if (p->done || p->res->reached != CLI_RUNG_HANDSHAKE || !sp_link_boot_id(p->link))
		return;
	p->res->skew_ms = sp_link_clock_skew_ms(p->link);
	climb(p);
}

static void on_answer_timer(void *arg)
{
	struct probe *p = arg;
	check_answer(p);
	if (!p->done && p->res->reached == CLI_RUNG_HANDSHAKE)
		sp_timer_set(&p->answer, sp_loop_now_us(p->loop) + ANSWER_CHECK_US);
}

static void on_up(void *ctx, struct sp_link *l)
{
	struct probe *p = ctx;
	(void)l;
	check_answer(p);
	if (p->done)
		return;
	climb(p);
	if (p->done)
		return;
	if (sp_session_open(p->session, p->opt.target, NULL, &p->stream))
		fall(p, SP_REASON_STREAM_LIMIT, "no stream can be opened");
	sp_session_clock_touch(p->clock, p->session);
}

static void on_down(void *ctx, struct sp_link *l, enum sp_reason reason)
{
	struct probe *p = ctx;
	(void)l;
	check_answer(p); // a refusal is an answer too
	fall(p, reason, "");
	p->link = NULL;
}

static const struct sp_link_client_ops link_ops = {.up = on_up, .down = on_down};

static void dial_link(struct probe *p)
{
	struct sp_link_dial d = {
		.carrier = {.kind = p->dial.kind, .ready = p->carrier},
		.worker_public = p->opt.exit->conf->public_key,
		.device_secret = p->opt.identity->device_secret,
		.device_public = p->opt.identity->device_public,
		.pass = p->opt.identity->pass,
		.pass_len = p->opt.identity->pass_len,
		.timeout_ms = 2 * p->opt.timeout_ms,
		.session = p->session,
		.ops = &link_ops,
		.ctx = p,
	};
	p->carrier = NULL;
	if (sp_link_dial(p->env, &d, &p->link))
		fall(p, SP_REASON_NO_MEMORY, "");
	else
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

static void drop_event(struct probe *p)
{
	if (p->has_event)
		event_del(&p->ev);
	p->has_event = false;
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

static void step_carrier(struct probe *p)
{
	if (p->res->reached == CLI_RUNG_CONNECT &&
	    is_connected(sp_carrier_fd(p->carrier)))
		climb(p);
	int err = sp_carrier_handshake(p->carrier);
	if (p->res->reached == CLI_RUNG_CONNECT && err == 0)
		climb(p);
	if (err == -EAGAIN || p->done)
		return;
	drop_event(p);
	if (err) {
		const char *what = sp_carrier_error(p->carrier);
		fall(p, carrier_reason(err), *what ? what : sp_strerror(err));
		return;
	}
	climb(p);
	dial_link(p);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	step_carrier(arg);
}

static void on_lookup(void *ctx, const struct cli_lookup_result *res)
{
	struct probe *p = ctx;
	struct sp_target t;
	p->lookup = NULL;
	if (p->done)
		return;
	if (res->err) {
		fall(p,
		     res->err == -ETIMEDOUT ? SP_REASON_RESOLVE_TIMEOUT
					    : SP_REASON_RESOLVE_FAILED,
		     "");
		return;
	}
	climb(p);
	sp_target_from_sockaddr((const struct sockaddr *)&res->addr[0], &t);
	sp_target_format(&t, p->res->address, sizeof(p->res->address));
	p->dial.addr = res->addr[0];
	p->dial.addr_len = res->addr_len[0];
	int err = sp_carrier_connect(&p->dial, &p->carrier);
	if (err) {
		fall(p, carrier_reason(err), sp_strerror(err));
		return;
	}
	event_assign(&p->ev, sp_loop_base(p->loop), sp_carrier_fd(p->carrier),
		     EV_READ | EV_WRITE | EV_ET | EV_PERSIST, on_event, p);
	event_add(&p->ev, NULL);
	p->has_event = true;
	step_carrier(p);
}

// ---- life ----

static int make_session(struct probe *p)
{
	struct sp_session_options opt = {
		.role = SP_ROLE_CLIENT,
		.ops = &session_ops,
		.ctx = p,
		.clock_us = sp_loop_clock_us(p->loop),
	};
	struct sp_arena_options arena = {
		.max_sessions = 1, .max_streams = 2, .memory_bytes = 1 << 20};
	struct sp_link_env_options env = {.loop = p->loop,
					  .handshake_ms = p->opt.timeout_ms};
	sp_session_limits_default(&opt.limits);
	randombytes_buf(opt.id, sizeof(opt.id));
	int err = sp_arena_new(&arena, &p->arena);
	if (!err)
		err = sp_session_clock_new(p->loop, &p->clock);
	env.clock = p->clock;
	if (!err)
		err = sp_link_env_new(&env, &p->env);
	opt.arena = p->arena;
	if (!err)
		err = sp_session_new(&opt, sp_loop_now_us(p->loop), &p->session);
	if (!err)
		err = sp_session_clock_add(p->clock, p->session);
	return err;
}

static void probe_free(struct probe *p)
{
	drop_event(p);
	cli_lookup_cancel(p->lookup);
	sp_carrier_free(p->carrier);
	if (p->link)
		sp_link_close(p->link, SP_REASON_SHUTDOWN);
	sp_link_env_free(p->env);
	if (p->session) {
		sp_session_clock_remove(p->clock, p->session);
		sp_session_free(p->session, SP_REASON_SHUTDOWN);
	}
	sp_session_clock_free(p->clock);
	sp_arena_free(p->arena);
	if (p->loop) {
		sp_timer_done(&p->timeout);
		sp_timer_done(&p->answer);
		sp_timer_done(&p->end);
	}
	sp_loop_free(p->loop);
}

int cli_probe_run(const struct cli_probe_options *opt, struct cli_probe_result *ret)
{
	struct probe p = {.opt = *opt, .res = ret};
	const struct sp_fleet_carrier *c = &opt->exit->conf->carriers[opt->carrier];
	memset(ret, 0, sizeof(*ret));
	ret->top = opt->target ? CLI_RUNGS : CLI_RUNG_STREAM;
	p.dial.kind = c->kind;
	p.dial.server_name = c->server_name[0] ? c->server_name : NULL;
	p.dial.tls = opt->exit->tls[opt->carrier];
	int err = sp_loop_new(&p.loop);
	if (!err) {
		sp_timer_init(&p.timeout, p.loop, on_timeout, &p);
		sp_timer_init(&p.answer, p.loop, on_answer_timer, &p);
		sp_timer_init(&p.end, p.loop, on_end, &p);
		err = make_session(&p);
	}
	if (!err) {
		p.rung_us = sp_loop_refresh(p.loop);
		sp_timer_set(&p.timeout, p.rung_us + (uint64_t)opt->timeout_ms * 1000);
		err = cli_lookup_start(p.loop, &c->address, on_lookup, &p, &p.lookup);
	}
	if (!err)
		err = sp_loop_run(p.loop);
	probe_free(&p);
	return err;
}
