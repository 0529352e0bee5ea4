#include "controller/role_endpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controller/endpoint.h"
#include "controller/role_sessions.h"
#include "lib/file.h"
#include "lib/text.h"

#define MIRROR_MS 500 // Redis's time for a word about a device
#define LOAD_MAX  (2 * SP_PASS_DEVICE_BYTES + 1)

struct con_config_endpoint { // the role
	struct con_controller *c;
	struct con_devices *devices;
	struct con_endpoint *endpoint;
	struct con_fleet_listener fleet;
	struct con_health_listener health;
};

// ---- what the endpoint asks ----

static const struct sp_state *on_state(void *ctx)
{
	struct con_config_endpoint *r = ctx;
	return con_fleet_state(r->c->fleet);
}

static const struct sp_position *on_head(void *ctx)
{
	struct con_config_endpoint *r = ctx;
	return con_fleet_head(r->c->fleet);
}

static bool on_over_quota(void *ctx, const char *user)
{
	struct con_config_endpoint *r = ctx;
	int64_t left;
	return con_sessions_quota_left(r->c, user, &left) && left <= 0;
}

static void on_judge(void *ctx, const char *worker, const char *region,
		     struct con_view_health *ret)
{
	struct con_config_endpoint *r = ctx;
	ret->percent = 100;
	ret->offered = con_health_offered(r->c->health, worker, region, &ret->percent);
	ret->latency_us = con_health_latency_us(r->c->health, worker, region);
}

// ---- what it hears ----

static void on_fleet(void *ctx, const struct con_fleet_change *f)
{
	struct con_config_endpoint *r = ctx;
	con_endpoint_changed(r->endpoint, &f->revision->changes);
	con_endpoint_changed(r->endpoint, f->private);
}

static void on_health(void *ctx)
{
	struct con_config_endpoint *r = ctx;
	con_endpoint_judge(r->endpoint);
}

// ---- the mirror of devices: a hash per user in Redis ----

static void on_mirrored(void *ctx, const redisReply *reply)
{
	(void)ctx;
	(void)reply; // it is told again when the device is seen another day
}

static void mirror(struct con_config_endpoint *r, const char *verb, const char *user,
		   const uint8_t *device, const char *value)
{
	char key[256], hex[LOAD_MAX];
	snprintf(key, sizeof(key), "sp:{%s}:d:%s", r->c->cfg->fleet, user);
	sp_hex_encode(device, SP_PASS_DEVICE_BYTES, hex, sizeof(hex));
	const char *argv[] = {verb, key, hex, value};
	size_t len[] = {strlen(verb), strlen(key), strlen(hex),
			value ? strlen(value) : 0};
	(void)!con_redis_command(con_fleet_redis(r->c->fleet), value ? 4 : 3, argv, len,
				 MIRROR_MS, on_mirrored, NULL);
}

static void on_seen(void *ctx, const char *user, const uint8_t *device, uint64_t now_s)
{
	char text[24];
	snprintf(text, sizeof(text), "%" PRIu64, now_s);
	mirror(ctx, "HSET", user, device, text);
}

static void on_gone(void *ctx, const char *user, const uint8_t *device)
{
	mirror(ctx, "HDEL", user, device, NULL);
}

static const struct con_devices_mirror devices_mirror = {on_seen, on_gone};

// ---- the role ----

static int listen_on(struct con_config_endpoint *r, SSL_CTX *tls)
{
	struct con_controller *c = r->c;
	struct con_endpoint_options o = {0};
	char at[SP_WHY_MAX];
	con_endpoint_limits_default(&o);
	o.loop = c->loop;
	o.listen = c->cfg->endpoint.listen;
	o.tls = tls;
	o.clients.token_rate = (unsigned)c->cfg->endpoint.token_rate;
	o.clients.token_burst = 30 * o.clients.token_rate;
	o.clients.secret = con_fleet_secret(c->fleet);
	o.clients.devices = r->devices;
	o.clients.state = on_state;
	o.clients.head = on_head;
	o.clients.over_quota = on_over_quota;
	o.clients.judge = on_judge;
	o.clients.ctx = r;
	int err = con_endpoint_new(&o, &r->endpoint);
	if (err)
		sp_error("controller", "cannot listen", "error=%s",
			 sp_conf_place_listen(&con_config_table, c->config_path,
					      "endpoint.listen", &c->cfg->endpoint.listen,
					      err, at, sizeof(at)));
	return err;
}

static int start(struct con_controller *c)
{
	char why[SP_WHY_MAX] = "", at[2 * SP_WHY_MAX];
	SSL_CTX *tls = NULL;
	if (!c->cfg->endpoint.listen.kind)
		return 0;
	struct con_config_endpoint *r = c->endpoint = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->c = c;
	int err = con_devices_new(&devices_mirror, r, &r->devices);
	if (!err && c->cfg->endpoint.certificate) {
		err = con_http_tls_new(c->cfg->endpoint.certificate, c->cfg->endpoint.key,
				       &tls, why, sizeof(why));
		if (err)
			sp_error("controller", "no TLS", "error=%s",
				 sp_conf_place(&con_config_table, c->config_path, why, at,
					       sizeof(at)));
	}
	if (!err)
		err = listen_on(r, tls);
	SSL_CTX_free(tls);
	if (err)
		return err;
	r->fleet = (struct con_fleet_listener){.changed = on_fleet, .ctx = r};
	r->health = (struct con_health_listener){.changed = on_health, .ctx = r};
	con_fleet_listen(c->fleet, &r->fleet);
	con_health_listen(c->health, &r->health);
	return 0;
}

static void stop(struct con_controller *c)
{
	struct con_config_endpoint *r = c->endpoint;
	c->endpoint = NULL;
	if (!r)
		return;
	if (r->endpoint) {
		con_fleet_unlisten(&r->fleet);
		con_health_unlisten(&r->health);
	}
	con_endpoint_free(r->endpoint);
	con_devices_free(r->devices);
	free(r);
}

static void metrics(struct con_controller *c, struct sp_metrics_writer *w)
{
	if (c->endpoint)
		con_endpoint_metrics(c->endpoint->endpoint, w);
}

const struct con_role con_role_endpoint = {
	.name = "endpoint", .start = start, .stop = stop, .metrics = metrics};
