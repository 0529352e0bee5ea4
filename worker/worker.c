#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <sodium.h>

#include "lib/file.h"
#include "lib/log.h"
#include "lib/version.h"
#include "worker/heir.h"
#include "worker/keeper_upgrade.h"
#include "worker/metrics.h"

#define BACKLOG       4096
#define COVER_RELAYS  4096
#define COVER_IDLE_MS 3600000
#define DRAIN_LOOK_US 50000
#define RESERVED_FDS  64

// ---- what the config and the process's limit of descriptors say ----

static uint32_t descriptors(void)
{
	struct rlimit rl;
	if (getrlimit(RLIMIT_NOFILE, &rl) || rl.rlim_cur > UINT32_MAX)
		return UINT32_MAX;
	return (uint32_t)rl.rlim_cur;
}

// Descriptors for destinations: all but some for carriers, name servers and whoever looks
// at /metrics because descriptors have run short.
static uint32_t exit_sockets(void)
{
	uint32_t n = descriptors();
	return n > 2 * RESERVED_FDS ? n - RESERVED_FDS : n / 2;
}

// Strangers, be they many, leave descriptors to users: half-open carriers get at most an
// eighth of them, relays to the cover site, of two each, a quarter.
static uint32_t for_strangers(uint32_t limit)
{
	uint32_t most = descriptors() / 8;
	return limit < most ? limit : most ? most : 1;
}

void wrk_worker_session_limits(const struct wrk_config *cfg,
			       struct wrk_sessions_limits *ret)
{
	*ret = (struct wrk_sessions_limits){
		.sessions = (uint32_t)cfg->limits.sessions,
		.sessions_per_user = (uint32_t)cfg->limits.sessions_per_user,
		.streams_per_session = (uint32_t)cfg->limits.streams_per_session,
		.flows_per_session = (uint32_t)cfg->limits.flows_per_session,
		.stream_window_bytes = (uint32_t)cfg->limits.stream_window_bytes,
		.session_window_bytes = (uint32_t)cfg->limits.session_window_bytes,
		.datagram_budget_bytes = (uint32_t)cfg->limits.datagram_budget_bytes,
		.flow_idle_ms = (uint32_t)cfg->limits.flow_idle_ms,
		.opens_per_second = (uint32_t)cfg->limits.opens_per_second,
		.stale_ms = (uint32_t)cfg->limits.stale_ms,
		.keep_s = (uint32_t)(cfg->limits.keep_ms / 1000),
	};
}

int wrk_worker_cover_options(const struct wrk_config *cfg,
			     const struct sp_fleet_worker *fleet, struct sp_loop *loop,
			     struct wrk_cover_options *ret)
{
	const struct sp_target *site =
		fleet && fleet->cover.kind ? &fleet->cover : &cfg->cover;
	struct wrk_cover_options o = {
		.loop = loop,
		.max_relays = for_strangers(COVER_RELAYS),
		.idle_ms = COVER_IDLE_MS,
	};
	if (sp_target_to_sockaddr(site, &o.site, &o.site_len))
		return SP_E_CONFIG;
	*ret = o;
	return 0;
}

const struct sp_signed_keys *wrk_worker_pass_keys(const struct wrk_identity *id)
{
	return id->fleet && id->fleet->pass_keys.n ? &id->fleet->pass_keys : &id->trusted;
}

bool wrk_worker_ready(struct wrk_worker *w, char *why, size_t cap)
{
	const struct sp_fleet_worker *f = w->id.fleet;
	const char *text = "";
	if (w->draining || w->leased)
		text = "draining";
	else if (w->crashing)
		text = "drained: it crashes again and again";
	else if (!f)
		text = "no config yet";
	else if (f->expires_s && f->expires_s <= sp_loop_unix_ms(w->loop) / 1000)
		text = "the signed config has expired";
	snprintf(why, cap, "%s", text);
	return !*text;
}

// ---- links ----

static enum sp_reason on_admit(void *ctx, struct sp_link *l,
			       const struct sp_hs_accept *who)
{
	struct wrk_worker *w = ctx;
	return wrk_sessions_admit(w->sessions, l, who);
}

static enum sp_reason on_attach(void *ctx, struct sp_link *l,
				const struct sp_hs_accept *who,
				const struct sp_attach *at,
				struct sp_session **ret_session, bool *ret_fresh)
{
	struct wrk_worker *w = ctx;
	return wrk_sessions_attach(w->sessions, l, who, at, ret_session, ret_fresh);
}

static int on_ticket(void *ctx, struct sp_session *session, const uint8_t *psk,
		     uint8_t *buf, size_t cap, uint32_t *ret_lifetime_s)
{
	struct wrk_worker *w = ctx;
	return wrk_sessions_make_ticket(w->sessions, session, psk, buf, cap,
					ret_lifetime_s);
}

static void on_down(void *ctx, struct sp_link *l, enum sp_reason reason)
{
	struct wrk_worker *w = ctx;
	wrk_sessions_down(w->sessions, l, reason);
}

static void log_stranger(struct wrk_worker *w, enum sp_reason why)
{
	SP_LOG_LIMITED(&w->strangers_log, sp_loop_now_ms(w->loop), SP_LOG_DEBUG, "link",
		       "a stranger", "reason=%s", sp_reason_word(why));
}

static void on_stranger_tls(void *ctx, struct sp_carrier *c, enum sp_reason why,
			    const uint8_t *buf, size_t len, void *waiting)
{
	struct wrk_worker *w = ctx;
	log_stranger(w, why);
	wrk_cover_relay(w->cover, c, buf, len, waiting);
}

static void on_stranger_tcp(void *ctx, struct sp_carrier *c, enum sp_reason why,
			    const uint8_t *buf, size_t len, void *waiting)
{
	(void)c;
	(void)buf;
	(void)len;
	(void)waiting;
	log_stranger(ctx, why);
}

static void *on_silent(void *ctx, struct sp_link *l)
{
	struct wrk_worker *w = ctx;
	return wrk_cover_wait(w->cover, l);
}

static void on_silent_over(void *ctx, void *waiting)
{
	struct wrk_worker *w = ctx;
	wrk_cover_wait_over(w->cover, waiting);
}

static void on_relay(void *ctx, struct sp_carrier *c, uint64_t home_id,
		     const uint8_t *flight, size_t len)
{
	struct wrk_worker *w = ctx;
	wrk_relays_take(w->relays, c, home_id, flight, len);
}

static void on_trunk(void *ctx, struct sp_carrier *c, const uint8_t *member,
		     const struct sp_hs_keys *keys, const uint8_t *answer, size_t len)
{
	struct wrk_worker *w = ctx;
	wrk_trunks_accept(w->trunks, c, member, keys, answer, len);
}

static const struct sp_link_worker_ops tls_ops = {
	.admit = on_admit,
	.attach = on_attach,
	.make_ticket = on_ticket,
	.stranger = on_stranger_tls,
	.silent = on_silent,
	.silent_over = on_silent_over,
	.relay = on_relay,
	.trunk = on_trunk,
	.down = on_down,
};

static const struct sp_link_worker_ops tcp_ops = {
	.admit = on_admit,
	.attach = on_attach,
	.make_ticket = on_ticket,
	.stranger = on_stranger_tcp,
	.relay = on_relay,
	.trunk = on_trunk,
	.down = on_down,
};

// Hop limit 1: neither relayed on, nor a trunk in a trunk.
const struct sp_link_worker_ops wrk_worker_relayed_ops = {
	.admit = on_admit,
	.attach = on_attach,
	.make_ticket = on_ticket,
	.stranger = on_stranger_tcp,
	.down = on_down,
};

// ---- ports ----

static void on_accepted(void *ctx, int fd, const struct sockaddr *peer)
{
	struct wrk_port *port = ctx;
	struct wrk_worker *w = port->w;
	bool tls = port->kind == SP_CARRIER_TLS;
	struct sp_carrier *c;
	struct sp_link *l;
	if (sp_carrier_accepted(fd, peer, tls ? w->id.tls : NULL, &c) ||
	    sp_link_accept(w->links, c, tls ? &tls_ops : &tcp_ops, w, &l))
		sp_warn("link", "no memory for a connection", "");
}

static bool on_starved(void *ctx)
{
	struct wrk_port *port = ctx;
	return wrk_exit_evict_flow(port->w->exit);
}

// The socket that another process of this worker listened with, and those who wait in
// its queue. -1: none.
static int inherited_port(struct wrk_worker *w, enum sp_carrier_kind kind,
			  const struct sp_target *at)
{
	struct wrk_lasting *l = w->lasting;
	for (uint32_t i = 0; w->heir && i < l->n_ports && i < WRK_PORTS_MAX; i++) {
		int fd = l->port[i].fd, listens = 0;
		socklen_t len = sizeof(listens);
		if (l->port[i].kind != kind || !sp_target_equal(&l->port[i].at, at) ||
		    fd < 0 || fd >= w->kept->n_taken || w->kept->taken[fd] ||
		    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) || !listens)
			continue;
		w->kept->taken[fd] = true;
		return fd;
	}
	return -1;
}

static int bind_port(struct wrk_worker *w, const struct sp_target *at)
{
	struct sockaddr_storage sa;
	socklen_t len;
	int fd = sp_target_to_sockaddr(at, &sa, &len);
	if (!fd)
		fd = wrk_listener_bind((struct sockaddr *)&sa, len, BACKLOG);
	if (fd >= 0 && w->kept)
		(void)fcntl(fd, F_SETFD, 0); // it is to outlive this process
	return fd;
}

static int open_port(struct wrk_worker *w, enum sp_carrier_kind kind,
		     const struct sp_target *at)
{
	struct wrk_port *port = &w->ports[w->n_ports];
	struct wrk_listener_options o = {
		.loop = w->loop,
		.accepted = on_accepted,
		.starved = on_starved,
		.ctx = port,
	};
	char text[SP_TARGET_TEXT_MAX];
	int fd = inherited_port(w, kind, at);
	if (fd < 0)
		fd = bind_port(w, at);
	sp_target_format(at, text, sizeof(text));
	if (fd < 0) {
		char why[2 * SP_WHY_MAX];
		const char *key = kind == SP_CARRIER_TLS ? "listen.tls" : "listen.tcp";
		(void)sp_conf_place_listen(&wrk_config_table, w->config_path, key, at, fd,
					   why, sizeof(why));
		sp_error("worker", "cannot listen", "why=%s", why);
		wrk_trial_object(w->kept, why);
		return fd;
	}
	port->w = w;
	port->at = *at;
	port->kind = kind;
	int err = wrk_listener_new(fd, &o, &port->listener);
	if (err)
		return err;
	w->n_ports++;
	sp_info("worker", "listening", "carrier=%s address=%s",
		sp_carrier_kind_word(kind), text);
	return 0;
}

// For the next process. Without a port on record, it binds that one anew.
static void note_ports(struct wrk_worker *w)
{
	struct wrk_lasting *l = w->lasting;
	l->n_ports = 0;
	sp_arena_fence();
	for (unsigned i = 0; i < w->n_ports; i++) {
		l->port[i].at = w->ports[i].at;
		l->port[i].kind = (uint8_t)w->ports[i].kind;
		l->port[i].fd = wrk_listener_fd(w->ports[i].listener);
	}
	sp_arena_fence();
	l->n_ports = w->n_ports;
}

static int open_ports(struct wrk_worker *w)
{
	const struct sp_conf_addresses *tls = &w->cfg->listen.tls;
	const struct sp_conf_addresses *tcp = &w->cfg->listen.tcp;
	int err = 0;
	for (size_t i = 0; i < tls->n && !err; i++)
		err = open_port(w, SP_CARRIER_TLS, &tls->v[i]);
	for (size_t i = 0; i < tcp->n && !err; i++)
		err = open_port(w, SP_CARRIER_TCP, &tcp->v[i]);
	if (!err)
		note_ports(w);
	return err;
}

// ---- the end ----

static void on_drain(void *ctx)
{
	struct wrk_worker *w = ctx;
	uint64_t now = sp_loop_now_us(w->loop);
	uint32_t left = wrk_sessions_live_streams(w->sessions);
	if (left && now < w->drain_until_us) {
		sp_timer_set(&w->drain, now + DRAIN_LOOK_US);
		return;
	}
	sp_info("worker", "drained", "streams_cut=%u", left);
	sp_loop_stop(w->loop);
}

// Resumes of sessions that live here are still accepted, new sessions are refused: the
// ports stay open until the end.
static void drain(struct wrk_worker *w)
{
	uint64_t now = sp_loop_now_us(w->loop);
	w->draining = true;
	w->drain_until_us = now + 1000ull * (uint64_t)w->cfg->drain_ms;
	sp_info("worker", "draining", "streams=%u deadline_ms=%" PRId64,
		wrk_sessions_live_streams(w->sessions), w->cfg->drain_ms);
	sp_notify_stopping("draining");
	wrk_sessions_drain(w->sessions, (uint64_t)w->cfg->drain_ms);
	sp_timer_set(&w->drain, now + DRAIN_LOOK_US);
}

void wrk_worker_lease(struct wrk_worker *w, bool drain_it, uint64_t deadline_ms)
{
	uint64_t now = sp_loop_unix_ms(w->loop);
	if (w->leased != drain_it)
		sp_info("worker", drain_it ? "drained by a lease" : "the lease ended",
			"streams=%u", wrk_sessions_live_streams(w->sessions));
	w->leased = drain_it;
	if (drain_it)
		wrk_sessions_drain(w->sessions,
				   deadline_ms > now ? deadline_ms - now : 0);
	else if (!w->draining && !w->crashing)
		wrk_sessions_undrain(w->sessions);
}

// Crashes drain the worker for a while, across processes.
static void follow_crashes(struct wrk_worker *w)
{
	bool drains = wrk_quarantine_drains(w->quarantine);
	if (drains == w->crashing)
		return;
	w->crashing = drains;
	if (drains) {
		wrk_sessions_drain(w->sessions, WRK_DRAINED_MS);
		return;
	}
	sp_info("worker", "no crash for a while: sessions are welcome", "");
	if (!w->draining && !w->leased)
		wrk_sessions_undrain(w->sessions);
}

static void on_signal(void *ctx, int signo)
{
	struct wrk_worker *w = ctx;
	if (signo == SIGHUP)
		wrk_upgrader_reload(w);
	else if (w->draining)
		sp_loop_stop(w->loop);
	else
		drain(w);
}

// ---- making it ----

static int make_keys(struct wrk_worker *w)
{
	struct sp_hs_worker_keys *k = &w->keys;
	uint8_t pub[32];
	memcpy(k->static_secret, w->id.static_secret, 32);
	memcpy(k->route_key, w->id.route_key, 32);
	memcpy(k->boot_key, w->lasting->boot_key, sizeof(k->boot_key));
	k->boot_id = w->lasting->boot_id;
	if (crypto_scalarmult_base(pub, k->static_secret))
		return SP_E_CRYPTO;
	k->home_id = wrk_identity_home_id(w->cfg, pub);
	k->suites = sp_aead_suites();
	k->ticket_lifetime_s = WRK_TICKET_LIFE_S;
	k->trusted = *wrk_worker_pass_keys(&w->id);
	return sp_hs_worker_keys_init(k);
}

static int make_admission(struct wrk_worker *w)
{
	struct sp_budget_options budget;
	size_t bytes = sp_replay_bytes(WRK_REPLAY_KEYS);
	int err = make_keys(w);
	if (err)
		return err;
	sp_budget_options_default(&budget);
	budget.per_minute = (uint32_t)w->cfg->limits.handshakes_per_minute;
	budget.burst = budget.per_minute / 6 ? budget.per_minute / 6 : 1;
	err = w->heir ? sp_replay_adopt(w->lasting->replay, bytes, &w->replay) : 0;
	if (err)
		sp_warn("worker", "first contacts of late are forgotten", "");
	if (err || !w->heir)
		err = sp_replay_format(w->lasting->replay, bytes, WRK_REPLAY_KEYS,
				       &w->replay);
	return err ? err : sp_budget_new(&budget, &w->budget);
}

static int make_dialer(struct wrk_worker *w)
{
	struct wrk_resolve_options ro;
	struct wrk_dialer_options o;
	wrk_resolve_options_default(&ro);
	ro.base = sp_loop_base(w->loop);
	ro.servers = (const char *const *)w->cfg->dns.servers.v;
	ro.nservers = w->cfg->dns.servers.n;
	ro.ipv4 = w->cfg->dns.ipv4;
	ro.ipv6 = w->cfg->dns.ipv6;
	int err = wrk_resolve_new(&ro, &w->resolve);
	if (err) {
		sp_error("worker", "no resolver", "key=dns.servers error=%s",
			 sp_strerror(err));
		return err;
	}
	wrk_dialer_options_default(&o);
	o.base = ro.base;
	o.resolve = w->resolve;
	o.policy = w->id.policy;
	o.socket.cloexec = !w->kept; // they are to outlive this process
	o.deadline_ms = (uint32_t)w->cfg->limits.dial_ms;
	o.max_dials = (uint32_t)w->cfg->limits.dials;
	return wrk_dialer_new(&o, &w->dialer);
}

static int make_exit(struct wrk_worker *w)
{
	const struct wrk_config *c = w->cfg;
	int err = sp_session_clock_new(w->loop, &w->clock);
	if (!err)
		err = make_dialer(w);
	if (err)
		return err;
	struct wrk_exit_options x = {
		.loop = w->loop,
		.clock = w->clock,
		.arena = w->arena,
		.dialer = w->dialer,
		.max_flows = (uint32_t)c->limits.flows,
		.max_sockets = exit_sockets(),
		.stream_idle_ms = (uint32_t)c->limits.stream_idle_ms,
		.flow_dns_ms = 5000,
	};
	return wrk_exit_new(&x, &w->exit);
}

static int make_sessions(struct wrk_worker *w)
{
	struct wrk_sessions_options o = {
		.loop = w->loop,
		.clock = w->clock,
		.arena = w->arena,
		.exit = w->exit,
		.keys = &w->keys,
		.fleet = w->id.fleet,
		.counters = w->counters,
		.quarantine = w->quarantine,
	};
	wrk_worker_session_limits(w->cfg, &o.limits);
	return wrk_sessions_new(&o, &w->sessions);
}

static void on_tick(void *ctx)
{
	struct wrk_worker *w = ctx;
	atomic_fetch_add_explicit(&w->kept->life->ticks, 1, memory_order_relaxed);
	follow_crashes(w);
	sp_timer_set(&w->tick, sp_loop_now_us(w->loop) + WRK_TICK_MS * 1000);
}

static void begin_ticking(struct wrk_worker *w)
{
	if (!w->kept)
		return;
	if (w->kept->trial)
		wrk_trial_settle(w->kept);
	wrk_heir_settle(w);
	wrk_worker_keep_config(w);
	atomic_store(&w->kept->life->phase, WRK_LIFE_RUNNING);
	wrk_upgrader_tell(w);
	on_tick(w);
}

static int make_links(struct wrk_worker *w)
{
	struct sp_link_env_options o = {
		.loop = w->loop,
		.clock = w->clock,
		.max_half_open = for_strangers((uint32_t)w->cfg->limits.half_open),
		.handshake_ms = (uint32_t)w->cfg->limits.handshake_ms,
		.worker_keys = &w->keys,
		.replay = w->replay,
		.budget = w->budget,
		.is_member = wrk_trunks_is_member,
		.member_ctx = w->trunks,
	};
	struct wrk_cover_options c;
	if (w->cfg->cover.kind) {
		if (wrk_worker_cover_options(w->cfg, w->id.fleet, w->loop, &c)) {
			sp_error("worker", "cover must be an address, not a name", "");
			return SP_E_CONFIG;
		}
		int err = wrk_cover_new(&c, &w->cover);
		if (err)
			return err;
	}
	return sp_link_env_new(&o, &w->links);
}

static int start(struct wrk_worker *w)
{
	int (*const steps[])(struct wrk_worker *) = {
		wrk_heir_arena, make_admission,    make_exit,         wrk_control_open,
		make_sessions,  wrk_heir_take,     wrk_relaying_open, make_links,
		open_ports,     wrk_metrics_serve, wrk_control_start, wrk_upgrader_new,
	};
	sigset_t asking;
	int err = sp_loop_new(&w->loop);
	if (err)
		return err;
	w->started_unix_ms = sp_loop_unix_ms(w->loop);
	w->config_applied_s = w->started_unix_ms / 1000;
	w->strangers_log = (struct sp_ratelimit){.per_second = 5, .burst = 20};
	sp_timer_init(&w->drain, w->loop, on_drain, w);
	sp_timer_init(&w->tick, w->loop, on_tick, w);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]) && !err; i++)
		err = steps[i](w);
	if (!err)
		err = sp_loop_signals(w->loop, on_signal, w);
	if (err)
		return err;
	sp_watchdog_init(&w->watchdog, w->loop);
	begin_ticking(w);
	wrk_kept_signals(&asking);
	sigprocmask(SIG_UNBLOCK, &asking, NULL);
	return 0;
}

int wrk_worker_new(const char *config_path, struct wrk_config *cfg,
		   struct wrk_identity *id, struct wrk_kept *kept,
		   struct wrk_worker **ret)
{
	struct wrk_worker *w = calloc(1, sizeof(*w));
	if (!w) {
		sp_conf_free(&wrk_config_table, cfg);
		wrk_identity_done(id);
		return -ENOMEM;
	}
	w->config_path = config_path;
	w->kept = kept;
	w->cfg = cfg;
	w->id = *id;
	sodium_memzero(id, sizeof(*id));
	int err = start(w);
	if (err) {
		sp_error("worker", "cannot start", "error=%s", sp_strerror(err));
		wrk_trial_object(w->kept, sp_strerror(err));
		if (!w->heir) // else what it inherited waits for the next
			wrk_worker_free(w);
		return err;
	}
	*ret = w;
	return 0;
}

int wrk_worker_run(struct wrk_worker *w)
{
	const struct sp_fleet_worker *f = w->id.fleet;
	char home[17];
	snprintf(home, sizeof(home), "%016" PRIx64, w->keys.home_id);
	wrk_identity_hold(w->cfg, &w->id);
	sp_info("worker", "ready",
		"version=%s node=%s worker=%" PRId64
		" home=%s epoch=%u sequence=%" PRIu64,
		sp_version(), w->cfg->node, w->cfg->worker, home,
		f ? f->revision.epoch : 0, f ? f->revision.sequence : 0);
	sp_notify_ready("serving");
	int err = sp_loop_run(w->loop);
	if (!wrk_upgrader_leaves(w))
		sp_info("worker", "stopped", "");
	return err;
}

static void free_tls(struct wrk_worker *w)
{
	struct wrk_retired_tls *r;
	while ((r = w->retired)) {
		w->retired = r->next;
		sp_tls_free(r->tls);
		free(r);
	}
}

// Callees of others last: sessions call the exit, links call sessions and cover.
void wrk_worker_free(struct wrk_worker *w)
{
	if (!w)
		return;
	for (unsigned i = 0; i < w->n_ports; i++)
		wrk_listener_free(w->ports[i].listener);
	wrk_upgrader_free(w);
	sp_admin_free(w->admin);
	sp_link_env_free(w->links);
	wrk_relaying_free(w);
	wrk_cover_free(w->cover);
	wrk_sessions_free(w->sessions);
	wrk_control_free(w);
	wrk_exit_free(w->exit);
	wrk_dialer_free(w->dialer);
	wrk_resolve_free(w->resolve);
	sp_session_clock_free(w->clock);
	sp_arena_free(w->arena);
	sp_budget_free(w->budget);
	sp_hs_worker_keys_done(&w->keys);
	sp_watchdog_done(&w->watchdog);
	sp_timer_done(&w->drain);
	sp_timer_done(&w->tick);
	sp_loop_free(w->loop);
	free_tls(w);
	wrk_identity_done(&w->id);
	sp_conf_free(&wrk_config_table, w->cfg);
	free(w);
}
