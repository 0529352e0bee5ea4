#include "client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "client/metrics.h"
#include "client/status.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/version.h"

#define END_US   100000 // for the last frames: streams and flows are taken back
#define FLUSH_MS 500    // for the links' last records

// ---- calls between the parts ----

static void one_less(void *ctx)
{
	struct cli_client *c = ctx;
	if (c->proxy)
		cli_proxy_one_less(c->proxy);
}

static void rehome(void *ctx)
{
	struct cli_client *c = ctx;
	cli_streams_rehome(c->streams);
	cli_udp_rehome(c->udp);
}

static const struct cli_uplink_ops uplink_ops = {.rehome = rehome};

// ---- the end ----

static void on_end(void *ctx)
{
	struct cli_client *c = ctx;
	sp_loop_stop(c->loop);
}

// What applications have open is reset first and the exits are told, so that nothing of
// it waits there for a client that does not come back.
static void end(struct cli_client *c)
{
	if (c->ending) {
		sp_loop_stop(c->loop);
		return;
	}
	c->ending = true;
	sp_info("client", "stopping");
	sp_notify_stopping("stopping");
	cli_proxy_stop(c->proxy);
	cli_streams_reset_all(c->streams);
	cli_udp_close_all(c->udp);
	sp_timer_set(&c->end, sp_loop_now_us(c->loop) + END_US);
}

// ---- reload ----

static void say_fixed(const struct cli_config *old, const struct cli_config *cfg)
{
	const struct sp_conf_key *keys[8];
	size_t n = sp_conf_diff(&cli_config_table, old, cfg, true, keys, 8);
	for (size_t i = 0; i < n && i < 8; i++)
		sp_warn("client", "changed, but holds only after a restart", "key=%s",
			keys[i]->name);
}

// All of the new config or nothing of it.
static int reload(void *ctx, char *why, size_t cap)
{
	struct cli_client *c = ctx;
	struct sp_conf_errors errs = {0};
	struct cli_identity id;
	struct cli_config *cfg = sp_conf_load(&cli_config_table, c->config_path, &errs);
	if (!cfg) {
		snprintf(why, cap, "%s", errs.text[0]);
		return SP_E_CONFIG;
	}
	char text[SP_WHY_MAX];
	cfg->last = *c->last ? c->last : NULL;
	int err = cli_identity_load(cfg, true, &id, text, sizeof(text));
	if (err) {
		sp_conf_place(&cli_config_table, c->config_path, text, why, cap);
		cli_config_free(cfg);
		return err;
	}
	say_fixed(c->cfg, cfg);
	sp_log_setup((enum sp_log_level)cfg->log.level,
		     (enum sp_log_format)cfg->log.format, 2);
	c->pass = id.pass;
	c->trusted = id.trusted;
	cli_uplink_reload(c->uplink, id.exits, &id.device);
	id.exits = NULL;
	cli_identity_done(&id);
	// What needs a restart stays as it was: only what can change is taken over.
	c->cfg->log = cfg->log;
	cli_config_free(cfg);
	return 0;
}

// From an endpoint; `path`: NULL, if it is where it belongs.
static int on_fresh(void *ctx, const char *path, char *why, size_t cap)
{
	struct cli_client *c = ctx;
	char before[sizeof(c->last)];
	memcpy(before, c->last, sizeof(before));
	snprintf(c->last, sizeof(c->last), "%s", path ? path : "");
	int err = reload(c, why, cap);
	if (err)
		memcpy(c->last, before, sizeof(before));
	return err;
}

static int reload_and_say(void *ctx, char *why, size_t cap)
{
	struct cli_client *c = ctx;
	int err;
	sp_notify_reloading();
	err = reload(c, why, cap);
	if (err) {
		c->reloads_failed++;
		sp_error("client", "config not reloaded, the old one holds", "why=%s",
			 why);
	} else {
		const struct sp_fleet_revision *r =
			&cli_uplink_exits(c->uplink)->fleet->revision;
		c->reloads++;
		sp_info("client", "config reloaded",
			"epoch=%" PRIu32 " sequence=%" PRIu64, r->epoch, r->sequence);
	}
	sp_notify_ready("running");
	return err;
}

static void on_signal(void *ctx, int signo)
{
	char why[SP_WHY_MAX];
	if (signo == SIGHUP)
		(void)!reload_and_say(ctx, why, sizeof(why));
	else
		end(ctx);
}

// ---- the control socket ----

static char *on_status(void *ctx)
{
	return cli_status_json(ctx);
}

static void on_down(void *ctx)
{
	end(ctx);
}

static const struct cli_control_ops control_ops = {
	.status = on_status,
	.reload = reload_and_say,
	.down = on_down,
};

// One client per state folder: the lock is held as long as the process lives.
static int take_lock(struct cli_client *c)
{
	char path[4096];
	if (mkdir(c->cfg->state_dir, 0700) < 0 && errno != EEXIST) {
		sp_error("client", "cannot make the state folder", "path=%s why=%s",
			 c->cfg->state_dir, strerror(errno));
		return -errno;
	}
	snprintf(path, sizeof(path), "%s/lock", c->cfg->state_dir);
	c->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (c->lock_fd >= 0 && flock(c->lock_fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	int err = -errno;
	sp_error("client",
		 err == -EWOULDBLOCK ? "another client runs with this state folder"
				     : "cannot lock the state folder",
		 "path=%s", path);
	return err;
}

static int open_control(struct cli_client *c)
{
	char path[4096];
	cli_config_control(c->cfg, path, sizeof(path));
	int err = cli_control_new(c->loop, path, &control_ops, c, &c->control);
	if (err)
		sp_error("client", "no control socket", "path=%s why=%s", path,
			 sp_strerror(err));
	return err;
}

// ---- putting it together ----

static void session_limits(const struct cli_config *cfg, struct sp_session_limits *ret)
{
	sp_session_limits_default(ret);
	ret->max_streams = (uint32_t)cfg->limits.streams;
	ret->max_flows = (uint32_t)cfg->limits.flows;
	ret->stream_window_bytes = (uint32_t)cfg->limits.stream_window_bytes;
	ret->session_window_bytes = (uint32_t)cfg->limits.session_window_bytes;
	ret->datagram_budget_bytes = (uint32_t)cfg->limits.datagram_budget_bytes;
	ret->flow_idle_ms = (uint32_t)cfg->limits.flow_idle_ms;
}

static int make_engine(struct cli_client *c)
{
	const struct cli_config *cfg = c->cfg;
	struct sp_arena_options arena = {
		.max_sessions = 2 * CLI_CHAIN_MAX,
		// those of sessions that were left may still be waiting to be reported
		.max_streams = 2 * (uint32_t)cfg->limits.streams,
		.memory_bytes = (uint64_t)cfg->limits.memory_bytes,
	};
	int err = sp_arena_new(&arena, &c->arena);
	if (!err)
		err = sp_session_clock_new(c->loop, &c->clock);
	struct sp_link_env_options env = {.loop = c->loop,
					  .clock = c->clock,
					  .handshake_ms = (uint32_t)cfg->limits.dial_ms};
	if (!err)
		err = sp_link_env_new(&env, &c->env);
	return err;
}

static int make_apps(struct cli_client *c)
{
	const struct cli_config *cfg = c->cfg;
	int err = cli_linger_new(c->loop, &c->linger);
	struct cli_streams_options streams = {
		.loop = c->loop,
		.linger = c->linger,
		.connect_timeout_ms = (uint32_t)cfg->limits.connect_ms,
		.closed = one_less,
		.ctx = c,
	};
	struct cli_udp_options udp = {
		.loop = c->loop,
		.max_associations = (uint32_t)cfg->limits.associations,
		.closed = one_less,
		.ctx = c,
	};
	if (!err)
		err = cli_streams_new(&streams, &c->streams);
	if (!err)
		err = cli_udp_new(&udp, &c->udp);
	struct cli_proxy_options proxy = {
		.loop = c->loop,
		.linger = c->linger,
		.streams = c->streams,
		.udp = c->udp,
		.request_ms = (uint32_t)cfg->limits.request_ms,
		.max_half_open = (uint32_t)cfg->limits.half_open,
		.max_connections = (uint32_t)cfg->limits.connections,
	};
	if (!err)
		err = cli_proxy_new(&proxy, &c->proxy);
	return err;
}

static void on_network(void *ctx)
{
	cli_uplink_network_changed(((struct cli_client *)ctx)->uplink);
}

static void watch_network(struct cli_client *c)
{
	int err = cli_netwatch_new(c->loop, on_network, c, &c->netwatch);
	if (err)
		sp_warn("client", "changes of the network are not seen", "why=%s",
			sp_strerror(err));
}

static int make_uplink(struct cli_client *c, struct cli_identity *id)
{
	const struct cli_config *cfg = c->cfg;
	struct cli_uplink_options opt = {
		.loop = c->loop,
		.clock = c->clock,
		.env = c->env,
		.arena = c->arena,
		.exits = id->exits,
		.identity = &id->device,
		.dial_timeout_ms = (uint32_t)cfg->limits.dial_ms,
		.stale_ms = (uint32_t)cfg->limits.stale_ms,
		.park_ms = (uint32_t)cfg->limits.park_ms,
		.spare = (enum cli_spare)cfg->spare,
		.relay = {.use = cfg->relay.use,
			  .new_flows = cfg->relay.new_flows == 1,
			  .after_ms = (uint32_t)cfg->relay.after_ms,
			  .entries = &cfg->relay.entries},
		.ops = &uplink_ops,
		.ctx = c,
	};
	cli_chain_options_default(&opt.chain);
	opt.chain.failover_ms = (uint32_t)cfg->chain.failover_ms;
	opt.chain.hold_down_ms = (uint32_t)cfg->chain.hold_down_ms;
	opt.chain.stagger_ms = (uint32_t)cfg->chain.stagger_ms;
	session_limits(cfg, &opt.limits);
	cli_streams_set_ops(&opt.session_ops);
	cli_udp_set_ops(&opt.session_ops);
	int err = cli_uplink_new(&opt, &c->uplink);
	if (err)
		return err;
	id->exits = NULL; // the uplink's
	watch_network(c);
	cli_streams_set_uplink(c->streams, c->uplink);
	cli_udp_set_uplink(c->udp, c->uplink);
	return 0;
}

static int make_poll(struct cli_client *c, const struct cli_identity *id)
{
	char why[SP_WHY_MAX] = "";
	struct cli_poll_options o = {.loop = c->loop,
				     .cfg = c->cfg,
				     .keys = &c->trusted,
				     .device_public = id->device.device_public,
				     .fresh = on_fresh,
				     .ctx = c};
	if (!c->cfg->endpoints.n)
		return 0;
	int err = cli_poll_new(&o, &c->poll, why, sizeof(why));
	if (err)
		sp_error("client", "cannot poll", "why=%s", why);
	return err;
}

static int listen_on(struct cli_client *c, enum cli_proxy_kind kind,
		     const struct sp_conf_addresses *list)
{
	char text[SP_TARGET_TEXT_MAX];
	for (size_t i = 0; i < list->n; i++) {
		int err = cli_proxy_listen(c->proxy, kind, &list->v[i]);
		sp_target_format(&list->v[i], text, sizeof(text));
		if (list->v[i].kind == SP_TARGET_IPV6 &&
		    (err == -EADDRNOTAVAIL || err == -EAFNOSUPPORT)) {
			sp_info("client", "no IPv6 here, not listening", "address=%s",
				text);
			continue;
		}
		if (err) {
			const char *key =
				kind == CLI_PROXY_SOCKS ? "socks.listen" : "http.listen";
			char why[2 * SP_WHY_MAX];
			sp_error("client", "cannot listen", "why=%s",
				 sp_conf_place_listen(&cli_config_table, c->config_path,
						      key, &list->v[i], err, why,
						      sizeof(why)));
			return err;
		}
		sp_info("client", "listening", "proxy=%s address=%s",
			kind == CLI_PROXY_SOCKS ? "socks5" : "http", text);
	}
	return 0;
}

static int build(struct cli_client *c, struct cli_identity *id)
{
	int err = sp_loop_new(&c->loop);
	if (!err)
		sp_timer_init(&c->end, c->loop, on_end, c);
	if (!err)
		err = take_lock(c);
	if (!err)
		err = make_engine(c);
	if (!err)
		err = make_apps(c);
	if (!err)
		err = make_uplink(c, id);
	if (!err)
		err = make_poll(c, id);
	if (!err)
		err = open_control(c);
	if (!err)
		err = listen_on(c, CLI_PROXY_SOCKS, &c->cfg->socks.listen);
	if (!err)
		err = listen_on(c, CLI_PROXY_HTTP, &c->cfg->http.listen);
	if (!err)
		err = cli_metrics_new(c, &c->metrics);
	if (!err)
		err = sp_loop_signals(c->loop, on_signal, c);
	return err;
}

int cli_client_new(const char *config_path, struct cli_config *cfg,
		   struct cli_identity *id, struct cli_client **ret)
{
	struct cli_client *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->config_path = config_path;
	c->cfg = cfg;
	c->pass = id->pass;
	c->trusted = id->trusted;
	c->lock_fd = -1;
	int err = build(c, id);
	if (err) {
		sp_error("client", "not started", "why=%s", sp_strerror(err));
		c->cfg = NULL; // stays the caller's
		cli_client_free(c);
		return err;
	}
	c->started_ms = sp_loop_now_ms(c->loop);
	sp_watchdog_init(&c->watchdog, c->loop);
	*ret = c;
	return 0;
}

int cli_client_run(struct cli_client *c)
{
	sp_info("client", "running", "version=%s exits=%u", sp_version(),
		cli_uplink_n(c->uplink));
	sp_notify_ready("running");
	return sp_loop_run(c->loop);
}

// Turns the loop until the links have said goodbye.
static void flush_links(struct cli_client *c)
{
	uint64_t end_ms = sp_loop_now_ms(c->loop) + FLUSH_MS;
	const struct sp_link_counters *n = sp_link_env_counters(c->env);
	sp_timer_set(&c->end, end_ms * 1000);
	while ((n->live || n->lingering || n->half_open) &&
	       sp_loop_now_ms(c->loop) < end_ms && sp_loop_turn(c->loop, true) == 0)
		;
}

void cli_client_free(struct cli_client *c)
{
	if (!c)
		return;
	cli_metrics_free(c->metrics);
	cli_poll_free(c->poll);
	if (c->proxy)
		cli_proxy_stop(c->proxy);
	cli_netwatch_free(c->netwatch);
	cli_uplink_free(c->uplink); // ends every stream and flow
	cli_streams_free(c->streams);
	cli_udp_free(c->udp);
	if (c->env && c->uplink)
		flush_links(c);
	cli_control_free(c->control);
	struct cli_proxy *proxy = c->proxy;
	c->proxy = NULL;
	cli_proxy_free(proxy);
	cli_linger_free(c->linger);
	sp_link_env_free(c->env);
	sp_session_clock_free(c->clock);
	sp_arena_free(c->arena);
	sp_watchdog_done(&c->watchdog);
	sp_timer_done(&c->end);
	sp_loop_free(c->loop);
	if (c->lock_fd >= 0)
		close(c->lock_fd);
	cli_config_free(c->cfg);
	sodium_memzero(&c->pass, sizeof(c->pass));
	free(c);
}
