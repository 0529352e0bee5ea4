#include "worker/control.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sodium.h>

#include "lib/enrolled.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/version.h"
#include "worker/local.h"
#include "worker/metrics.h"
#include "worker/worker.h"

#define WRITE_US                                                                         \
	1000000 // counters but users' bytes, which are stored as they are counted
#define USERS_MIN 256
#define USERS_MAX 16384

struct wrk_control {
	struct wrk_worker *w;
	struct sp_enrolled enrolled;
	const char *argv[5];
	struct sp_timer write;
	struct evbuffer *text;
	struct wrk_directory *directory;
	bool said_draining, said_ready; // last told
	uint64_t texts_too_long;
};

static int send_message(struct wrk_control *c, Sallyport__Local__FromExit *m, int fd)
{
	int err = wrk_agent_link_send(c->w->agent, m, fd);
	if (err && err != -ENOTCONN)
		sp_warn("control", "a message to the agent was lost", "kind=%d error=%s",
			(int)m->body_case, sp_strerror(err));
	return err;
}

// ---- what the agent is told ----

static void send_segment(struct wrk_control *c, uint64_t boot, int fd, bool ended)
{
	Sallyport__Local__FromExit m = SALLYPORT__LOCAL__FROM_EXIT__INIT;
	Sallyport__Local__Segment s = SALLYPORT__LOCAL__SEGMENT__INIT;
	s.boot = boot;
	s.ended = ended;
	m.body_case = SALLYPORT__LOCAL__FROM_EXIT__BODY_SEGMENT;
	m.segment = &s;
	(void)send_message(c, &m, fd);
}

static void send_segments(struct wrk_control *c)
{
	uint64_t boot;
	size_t at = 0;
	int fd;
	while (wrk_segments_next(c->w->segments, &at, &boot, &fd))
		send_segment(c, boot, fd, true);
	send_segment(c, wrk_counters_boot(c->w->counters),
		     wrk_counters_fd(c->w->counters), false);
}

static void send_state(struct wrk_control *c)
{
	Sallyport__Local__FromExit m = SALLYPORT__LOCAL__FROM_EXIT__INIT;
	Sallyport__Local__ExitState s = SALLYPORT__LOCAL__EXIT_STATE__INIT;
	char why[64];
	c->said_draining = wrk_worker_drains(c->w);
	c->said_ready = wrk_worker_ready(c->w, why, sizeof(why));
	s.draining = c->said_draining;
	s.ready = c->said_ready;
	m.body_case = SALLYPORT__LOCAL__FROM_EXIT__BODY_STATE;
	m.state = &s;
	(void)send_message(c, &m, -1);
}

// "tls 0.0.0.0:443", with the port that it got.
static void bound_text(const struct wrk_port *p, char *ret, size_t cap)
{
	char text[SP_TARGET_TEXT_MAX] = "?";
	struct sockaddr_storage sa;
	struct sp_target t;
	socklen_t len;
	if (wrk_listener_address(p->listener, &sa, &len) == 0) {
		sp_target_from_sockaddr((struct sockaddr *)&sa, &t);
		sp_target_format(&t, text, sizeof(text));
	}
	snprintf(ret, cap, "%s %s", sp_carrier_kind_word(p->kind), text);
}

#define BOUND_MAX (SP_TARGET_TEXT_MAX + 8)

struct hello_room {
	char bound[WRK_PORTS_MAX][BOUND_MAX];
	char *bounds[WRK_PORTS_MAX], *routers[SP_CONTROLLERS_MAX],
		*publishers[SP_CONTROLLERS_MAX];
	ProtobufCBinaryData keys[SP_SIGNED_KEYS_MAX];
	char folder[4200], program[96], listen[SP_TARGET_TEXT_MAX];
	uint8_t pub[32];
};

static void fill_controllers(struct wrk_control *c, struct hello_room *r,
			     Sallyport__Local__ExitHello *h)
{
	const struct wrk_config *cfg = c->w->cfg;
	unsigned n = cfg->control.router.n ? (unsigned)cfg->control.router.n
					   : c->enrolled.n_controllers;
	for (unsigned i = 0; i < n && i < SP_CONTROLLERS_MAX; i++) {
		bool own = cfg->control.router.n > 0;
		r->routers[i] = own ? cfg->control.router.v[i]
				    : c->enrolled.controllers[i].router;
		r->publishers[i] = own ? cfg->control.publisher.v[i]
				       : c->enrolled.controllers[i].publisher;
	}
	h->n_router = h->n_publisher = n;
	h->router = r->routers;
	h->publisher = r->publishers;
	h->controller_key =
		(ProtobufCBinaryData){SP_CONTROL_KEY_BYTES, c->enrolled.controller_key};
	for (unsigned i = 0; i < c->enrolled.signing.n; i++)
		r->keys[i] =
			(ProtobufCBinaryData){32, c->enrolled.signing.key[i].public_key};
	h->n_signing_keys = c->enrolled.signing.n;
	h->signing_keys = r->keys;
}

static void send_hello(struct wrk_control *c)
{
	struct wrk_worker *w = c->w;
	Sallyport__Local__FromExit m = SALLYPORT__LOCAL__FROM_EXIT__INIT;
	Sallyport__Local__ExitHello h = SALLYPORT__LOCAL__EXIT_HELLO__INIT;
	struct hello_room *r = calloc(1, sizeof(*r));
	if (!r || crypto_scalarmult_base(r->pub, w->keys.static_secret)) {
		free(r);
		return;
	}
	for (unsigned i = 0; i < w->n_ports; i++) {
		bound_text(&w->ports[i], r->bound[i], sizeof(r->bound[i]));
		r->bounds[i] = r->bound[i];
	}
	snprintf(r->program, sizeof(r->program), "sallyport-worker %s", sp_version());
	snprintf(r->folder, sizeof(r->folder), "%s/agent", w->cfg->control.folder);
	if (w->cfg->agent.listen.kind)
		sp_target_format(&w->cfg->agent.listen, r->listen, sizeof(r->listen));
	h.boot = w->keys.boot_id;
	h.home_id = w->keys.home_id;
	h.static_key = (ProtobufCBinaryData){32, r->pub};
	h.n_bound = w->n_ports;
	h.bound = r->bounds;
	h.name = c->enrolled.name;
	h.program = r->program;
	h.folder = r->folder;
	h.listen = r->listen;
	h.log_level = (uint32_t)w->cfg->log.level;
	h.log_format = (uint32_t)w->cfg->log.format;
	fill_controllers(c, r, &h);
	m.body_case = SALLYPORT__LOCAL__FROM_EXIT__BODY_HELLO;
	m.hello = &h;
	(void)send_message(c, &m, -1);
	free(r);
}

static void on_up(void *ctx)
{
	struct wrk_control *c = ctx;
	send_hello(c);
	send_segments(c);
	send_state(c);
	wrk_directory_up(c->directory);
}

// ---- what the agent says ----

static void answer_config(struct wrk_control *c, uint64_t call,
			  Sallyport__Fleet__Position *position, const char *reason)
{
	Sallyport__Local__FromExit m = SALLYPORT__LOCAL__FROM_EXIT__INIT;
	Sallyport__Local__ConfigResult r = SALLYPORT__LOCAL__CONFIG_RESULT__INIT;
	char text[SP_WHY_MAX];
	snprintf(text, sizeof(text), "%s", reason);
	r.position = position;
	r.reason = text;
	m.call = call;
	m.body_case = SALLYPORT__LOCAL__FROM_EXIT__BODY_CONFIG;
	m.config = &r;
	(void)send_message(c, &m, -1);
}

static void on_config(void *ctx, const Sallyport__Local__FromAgent *m, int fd)
{
	struct wrk_control *c = ctx;
	struct sp_fleet_revision revision;
	char why[SP_WHY_MAX] = "";
	uint8_t *json;
	size_t len;
	int err = fd < 0 ? SP_E_PROTOCOL
			 : wrk_local_memfd_read(fd, WRK_LOCAL_MEMFD_MAX, &json, &len);
	if (err) {
		snprintf(why, sizeof(why), "no readable config came with it: %s",
			 sp_strerror(err));
	} else {
		err = wrk_worker_take_fleet(c->w, json, len, &revision, why, sizeof(why));
		if (err && !*why)
			snprintf(why, sizeof(why), "%s", sp_strerror(err));
		free(json);
	}
	if (err) {
		c->w->reloads_failed++;
		sp_error("control", "kept the old config", "why=%s", why);
	} else {
		c->w->reloads_ok++;
	}
	answer_config(c, m->call, m->config->position, why);
	send_state(c);
}

static void on_members(void *ctx, const Sallyport__Local__FromAgent *m, int fd)
{
	struct wrk_control *c = ctx;
	char why[SP_WHY_MAX] = "";
	uint8_t *json;
	size_t len;
	(void)m;
	int err = fd < 0 ? SP_E_PROTOCOL
			 : wrk_local_memfd_read(fd, SP_FLEET_MEMBERS_BYTES, &json, &len);
	if (!err) {
		err = wrk_relaying_take_members(c->w, json, len, why, sizeof(why));
		free(json);
	}
	if (err)
		sp_error("control", "kept the old list of workers", "why=%s",
			 *why ? why : sp_strerror(err));
}

static void on_drain(void *ctx, const Sallyport__Local__FromAgent *m, int fd)
{
	struct wrk_control *c = ctx;
	(void)fd;
	wrk_worker_lease(c->w, m->drain->on, m->drain->deadline_ms);
	send_state(c);
}

// For another boot: its users begin anew here.
static void on_quota(void *ctx, const Sallyport__Local__FromAgent *m, int fd)
{
	struct wrk_control *c = ctx;
	const Sallyport__Local__Quota *q = m->quota;
	(void)fd;
	if (q->boot != wrk_counters_boot(c->w->counters))
		return;
	for (size_t i = 0; i < q->n_users; i++) {
		struct wrk_account *a =
			wrk_counters_find(c->w->counters, q->users[i]->user);
		if (!a)
			continue;
		a->limited = q->users[i]->limited;
		a->quota = q->users[i]->total;
	}
}

static void on_segment_done(void *ctx, const Sallyport__Local__FromAgent *m, int fd)
{
	struct wrk_control *c = ctx;
	(void)fd;
	if (wrk_segments_drop(c->w->segments, m->segment_done->boot))
		sp_debug("control", "final totals are known", "boot=%" PRIx64,
			 m->segment_done->boot);
}

static void on_session(void *ctx, const Sallyport__Local__FromAgent *m, int fd)
{
	struct wrk_control *c = ctx;
	(void)fd;
	wrk_directory_on_answer(c->directory, m->call, m->session);
}

// ---- counters ----

static void sum_tier(void *ctx, const struct wrk_tally *t, uint32_t sessions)
{
	struct wrk_usage *sum = ctx;
	(void)sessions;
	sum->up += t->bytes_from_client + t->dgram_bytes_from_client;
	sum->down += t->bytes_to_client + t->dgram_bytes_to_client;
}

static uint64_t sum_reasons(const uint64_t *n)
{
	uint64_t sum = 0;
	for (int r = 1; r <= SP_REASON__LAST; r++)
		sum += n[r];
	return sum;
}

static uint64_t boottime_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void write_gauges(struct wrk_control *c)
{
	struct wrk_worker *w = c->w;
	struct wrk_counters *to = w->counters;
	const struct wrk_sessions_counters *s = wrk_sessions_counters(w->sessions);
	const struct wrk_exit_counters *x = wrk_exit_counters(w->exit);
	struct wrk_usage sum = {0};
	char why[64];
	wrk_sessions_tiers(w->sessions, sum_tier, &sum);
	wrk_counters_set(to, WRK_GAUGE_SESSIONS, s->attached + s->detached);
	wrk_counters_set(to, WRK_GAUGE_STREAMS, x->streams);
	wrk_counters_set(to, WRK_GAUGE_FLOWS, x->flows);
	wrk_counters_set(to, WRK_GAUGE_DRAINING, wrk_worker_drains(w));
	wrk_counters_set(to, WRK_GAUGE_READY, wrk_worker_ready(w, why, sizeof(why)));
	wrk_counters_set(to, WRK_GAUGE_SESSIONS_MADE, s->made);
	wrk_counters_set(to, WRK_GAUGE_SESSIONS_REFUSED, sum_reasons(s->refused));
	wrk_counters_set(to, WRK_GAUGE_SESSIONS_ADOPTED, s->adopted);
	wrk_counters_set(to, WRK_GAUGE_STREAMS_OPENED, x->streams_opened);
	wrk_counters_set(to, WRK_GAUGE_DIAL_FAILURES,
			 sum_reasons(wrk_dialer_stats(w->dialer)->ended));
	wrk_counters_set(to, WRK_GAUGE_BYTES_UP, sum.up);
	wrk_counters_set(to, WRK_GAUGE_BYTES_DOWN, sum.down);
	wrk_counters_set(to, WRK_GAUGE_BEAT_MS, boottime_ms());
}

static void write_text(struct wrk_control *c, enum wrk_text which)
{
	struct sp_metrics_writer m;
	sp_metrics_begin(&m, c->text, which == WRK_TEXT_OPENMETRICS);
	wrk_metrics_write(c->w, &m);
	size_t len = evbuffer_get_length(c->text);
	const void *text = evbuffer_pullup(c->text, -1);
	if (text && wrk_counters_set_text(c->w->counters, which, text, len) &&
	    c->texts_too_long++ == 0)
		sp_warn("control", "the metrics are too long for the agent", "bytes=%zu",
			len);
	evbuffer_drain(c->text, len);
}

static void write_counters(struct wrk_control *c)
{
	write_gauges(c);
	for (int i = 0; i < WRK_TEXTS; i++)
		write_text(c, (enum wrk_text)i);
}

static void on_write(void *ctx)
{
	struct wrk_control *c = ctx;
	char why[64];
	write_counters(c);
	if (c->said_ready != wrk_worker_ready(c->w, why, sizeof(why)) ||
	    c->said_draining != wrk_worker_drains(c->w))
		send_state(c);
	sp_timer_set(&c->write, sp_loop_now_us(c->w->loop) + WRITE_US);
}

// The segment is full of users; the next one began.
static void on_ended(void *ctx, uint64_t boot, int fd, char *path)
{
	struct wrk_worker *w = ctx;
	if (w->control && w->agent) {
		send_segment(w->control, boot, fd, true);
		send_segment(w->control, wrk_counters_boot(w->counters),
			     wrk_counters_fd(w->counters), false);
	}
	wrk_segments_add(w->segments, boot, fd, path);
}

// ---- beginning and end ----

static uint32_t users_for(const struct wrk_config *cfg)
{
	int64_t n = cfg->limits.sessions;
	return n < USERS_MIN ? USERS_MIN : n > USERS_MAX ? USERS_MAX : (uint32_t)n;
}

int wrk_control_open(struct wrk_worker *w)
{
	const char *folder = w->cfg->control.folder;
	if (!folder)
		return 0;
	int err = wrk_segments_open(folder, &w->segments);
	if (err) {
		sp_error("control",
			 err == -EBUSY
				 ? "the state folder belongs to another worker that "
				   "runs"
				 : "cannot use the state folder",
			 "key=control.folder folder=%s error=%s", folder,
			 sp_strerror(err));
		return err;
	}
	struct wrk_counters_options o = {
		.folder = folder,
		.users = users_for(w->cfg),
		.boot = w->keys.boot_id,
		.ended = on_ended,
		.ctx = w,
	};
	// The counters of an earlier process of this boot are final.
	if (w->heir)
		randombytes_buf(&o.boot, sizeof(o.boot));
	return wrk_counters_new(&o, &w->counters);
}

static void fill_argv(struct wrk_control *c)
{
	unsigned n = 0;
	c->argv[n++] =
		"/proc/self/exe"; // this very program, whatever was installed since
	c->argv[n++] = "agent";
	if (c->w->cfg->agent.user) {
		c->argv[n++] = "--user";
		c->argv[n++] = c->w->cfg->agent.user;
	}
}

static int send_directory(void *link, const Sallyport__Local__FromExit *m)
{
	return wrk_agent_link_send(link, m, -1);
}

static uint64_t call_directory(void *link)
{
	return wrk_agent_link_call(link);
}

static int make_directory(struct wrk_control *c)
{
	struct wrk_worker *w = c->w;
	struct wrk_directory_options o = {
		.loop = w->loop,
		.boot = w->keys.boot_id,
		.transport = {send_directory, call_directory, w->agent},
		.ops = &wrk_sessions_directory_ops,
		.ctx = w->sessions,
	};
	int err = wrk_directory_new(&o, &c->directory);
	if (!err)
		wrk_sessions_set_directory(w->sessions, c->directory);
	return err;
}

static void listen_to_agent(struct wrk_control *c)
{
	static const struct {
		Sallyport__Local__FromAgent__BodyCase kind;
		wrk_agent_handler handler;
	} rows[] = {
		{SALLYPORT__LOCAL__FROM_AGENT__BODY_CONFIG, on_config},
		{SALLYPORT__LOCAL__FROM_AGENT__BODY_MEMBERS, on_members},
		{SALLYPORT__LOCAL__FROM_AGENT__BODY_DRAIN, on_drain},
		{SALLYPORT__LOCAL__FROM_AGENT__BODY_QUOTA, on_quota},
		{SALLYPORT__LOCAL__FROM_AGENT__BODY_SESSION, on_session},
		{SALLYPORT__LOCAL__FROM_AGENT__BODY_SEGMENT_DONE, on_segment_done},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		wrk_agent_link_on(c->w->agent, rows[i].kind, rows[i].handler, c);
}

int wrk_control_start(struct wrk_worker *w)
{
	char why[SP_WHY_MAX];
	if (!w->cfg->control.folder)
		return 0;
	struct wrk_control *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	w->control = c;
	c->w = w;
	sp_timer_init(&c->write, w->loop, on_write, c);
	c->text = evbuffer_new();
	int err = c->text ? sp_enrolled_load(w->cfg->control.folder, &c->enrolled, why,
					     sizeof(why))
			  : -ENOMEM;
	if (err)
		return err;
	fill_argv(c);
	struct wrk_agent_options o = {
		.loop = w->loop, .argv = c->argv, .up = on_up, .ctx = c};
	err = wrk_agent_link_new(&o, &w->agent);
	if (!err)
		err = make_directory(c);
	if (err)
		return err;
	listen_to_agent(c);
	sp_timer_set(&c->write, sp_loop_now_us(w->loop));
	return 0;
}

void wrk_control_flush(struct wrk_worker *w)
{
	if (w->control)
		write_counters(w->control);
}

void wrk_control_free(struct wrk_worker *w)
{
	struct wrk_control *c = w->control;
	wrk_agent_link_free(w->agent);
	w->agent = NULL;
	if (c) {
		wrk_directory_free(c->directory);
		sp_timer_done(&c->write);
		if (c->text)
			evbuffer_free(c->text);
		free(c);
	}
	w->control = NULL;
	wrk_counters_free(w->counters);
	wrk_segments_free(w->segments);
	w->counters = NULL;
	w->segments = NULL;
}
