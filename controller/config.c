#include "controller/config.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/fleet.h"
#include "lib/text.h"

#define AT(field) offsetof(struct con_config, field)

static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const formats[] = {"logfmt", "json", NULL};

static const struct sp_conf_key keys[] = {
	{.name = "fleet",
	 .type = SP_CONF_STRING,
	 .offset = AT(fleet),
	 .min = 1,
	 .max = SP_FLEET_NAME_MAX,
	 .required = true,
	 .example = "example",
	 .help = "Name of the fleet, as in the fleet file; part of every key in Redis"},
	{.name = "state_dir",
	 .type = SP_CONF_PATH,
	 .offset = AT(state_dir),
	 .required = true,
	 .example = "/var/lib/sallyport/controller",
	 .help = "Folder of the journal and of usage, on a disk that keeps what is "
		 "synced"},
	{.name = "keys.signing",
	 .type = SP_CONF_PATH,
	 .offset = AT(keys.signing),
	 .required = true,
	 .example = "signing.key",
	 .help = "Secret key that signs revisions, passes and client configs, mode 0600"},
	{.name = "keys.control",
	 .type = SP_CONF_PATH,
	 .offset = AT(keys.control),
	 .required = true,
	 .example = "control.key",
	 .help = "Secret key of the links to workers and health checkers, mode 0600"},
	{.name = "keys.route",
	 .type = SP_CONF_PATH,
	 .offset = AT(keys.route),
	 .required = true,
	 .example = "route.key",
	 .help = "The route key that all workers share, mode 0600; given at enrolment"},
	{.name = "keys.trusted",
	 .type = SP_CONF_STRINGS,
	 .offset = AT(keys.trusted),
	 .not_a_path = "sallyport-",
	 .max = SP_SIGNED_KEYS_MAX - 1,
	 .example = "/etc/sallyport/other.pub",
	 .help = "Public signing keys of the fleet's other controllers: files, or the "
		 "keys themselves"},

	{.name = "redis.address",
	 .type = SP_CONF_STRING,
	 .offset = AT(redis.address),
	 .def = "unix:/run/redis/redis-server.sock",
	 .min = 1,
	 .max = 200,
	 .help = "Redis: unix:/path, or an address and port of a private link"},
	{.name = "redis.password_file",
	 .type = SP_CONF_PATH,
	 .offset = AT(redis.password_file),
	 .example = "redis.password",
	 .help = "File with Redis's password, mode 0600; unset: none"},

	{.name = "bus.router",
	 .type = SP_CONF_ADDRESS,
	 .offset = AT(bus.router),
	 .def = "0.0.0.0:7201",
	 .help = "Where workers and health checkers call"},
	{.name = "bus.publisher",
	 .type = SP_CONF_ADDRESS,
	 .offset = AT(bus.publisher),
	 .def = "0.0.0.0:7202",
	 .help = "Where revisions are published"},
	{.name = "bus.enrol",
	 .type = SP_CONF_ADDRESS,
	 .offset = AT(bus.enrol),
	 .example = "0.0.0.0:7203",
	 .help = "Where new nodes enrol; unset: nowhere"},
	{.name = "advertise.router",
	 .type = SP_CONF_ADDRESS,
	 .offset = AT(advertise.router),
	 .example = "198.51.100.7:7201",
	 .help = "The same as nodes reach it; unset: bus.router"},
	{.name = "advertise.publisher",
	 .type = SP_CONF_ADDRESS,
	 .offset = AT(advertise.publisher),
	 .example = "198.51.100.7:7202",
	 .help = "The same as nodes reach it; unset: bus.publisher"},
	{.name = "advertise.enrol",
	 .type = SP_CONF_ADDRESS,
	 .offset = AT(advertise.enrol),
	 .example = "198.51.100.7:7203",
	 .help = "The same as nodes reach it; unset: bus.enrol"},

	{.name = "api.socket",
	 .type = SP_CONF_PATH,
	 .offset = AT(api.socket),
	 .def = "/run/sallyport/controller.sock",
	 .help = "Unix socket of the operator API; who may write to it may do anything"},
	{.name = "api.group",
	 .type = SP_CONF_STRING,
	 .offset = AT(api.group),
	 .min = 1,
	 .max = 32,
	 .example = "sallyport-operators",
	 .help = "Group that may use it; unset: the controller's user and root"},

	{.name = "endpoint.listen",
	 .type = SP_CONF_ADDRESS,
	 .offset = AT(endpoint.listen),
	 .example = "0.0.0.0:8443",
	 .help = "Where clients fetch their config; unset: nowhere"},
	{.name = "endpoint.certificate",
	 .type = SP_CONF_PATH,
	 .offset = AT(endpoint.certificate),
	 .example = "tls/fullchain.pem",
	 .help = "Its certificate with chain, PEM"},
	{.name = "endpoint.key",
	 .type = SP_CONF_PATH,
	 .offset = AT(endpoint.key),
	 .example = "tls/privkey.pem",
	 .help = "Its private key, PEM, mode 0600"},
	{.name = "endpoint.plain",
	 .type = SP_CONF_BOOL,
	 .offset = AT(endpoint.plain),
	 .def = "false",
	 .help = "Allow HTTP without TLS on other than loopback, behind a proxy that "
		 "does TLS"},
	{.name = "endpoint.token_rate",
	 .type = SP_CONF_INT,
	 .offset = AT(endpoint.token_rate),
	 .def = "2",
	 .min = 1,
	 .max = 1000000,
	 .unit = "requests a second",
	 .help = "What one token may ask, over time; at once, thirty times that"},

	{.name = "admin.listen",
	 .type = SP_CONF_ADDRESS,
	 .offset = AT(admin.listen),
	 .example = "127.0.0.1:9331",
	 .help = "Private address of /metrics, /livez and /readyz; unset: none"},
	{.name = "log.level",
	 .type = SP_CONF_ENUM,
	 .offset = AT(log.level),
	 .def = "info",
	 .words = levels,
	 .help = "Least level that is written"},
	{.name = "log.format",
	 .type = SP_CONF_ENUM,
	 .offset = AT(log.format),
	 .def = "logfmt",
	 .words = formats,
	 .help = "Form of a line"},
};

static bool is_loopback(const struct sp_target *t)
{
	static const uint8_t one[16] = {[15] = 1};
	return t->kind == SP_TARGET_IPV4 ? t->v4[0] == 127 : !memcmp(t->v6, one, 16);
}

static bool is_any(const struct sp_target *t)
{
	static const uint8_t zero[16];
	return !memcmp(t->v6, zero, t->kind == SP_TARGET_IPV4 ? 4 : 16);
}

// What is bound must be an address.
static bool check_names(const struct con_config *c, char *why, size_t cap)
{
	const struct {
		const char *key;
		const struct sp_target *v;
	} all[] = {
		{"bus.router", &c->bus.router},
		{"bus.enrol", &c->bus.enrol},
		{"bus.publisher", &c->bus.publisher},
		{"admin.listen", &c->admin.listen},
		{"endpoint.listen", &c->endpoint.listen},
	};
	char text[SP_TARGET_TEXT_MAX];
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].v->kind == SP_TARGET_NAME) {
			sp_target_format(all[i].v, text, sizeof(text));
			snprintf(why, cap, "%s: %s is a name; want an address",
				 all[i].key, text);
			return false;
		}
	return true;
}

// Nodes cannot call "any address": what is bound to it needs one that is advertised.
static bool check_advertised(const struct con_config *c, char *why, size_t cap)
{
	const struct {
		const char *key, *bound_key;
		const struct sp_target *v, *bound;
	} all[] = {
		{"advertise.router", "bus.router", &c->advertise.router, &c->bus.router},
		{"advertise.publisher", "bus.publisher", &c->advertise.publisher,
		 &c->bus.publisher},
		{"advertise.enrol", "bus.enrol", &c->advertise.enrol, &c->bus.enrol},
	};
	if (!c->bus.enrol.kind)
		return true;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (!all[i].v->kind && is_any(all[i].bound)) {
			snprintf(why, cap,
				 "%s: %s is bound to any address, which no node can "
				 "call; say by which address nodes reach it",
				 all[i].bound_key, all[i].key);
			return false;
		}
	return true;
}

static bool check(const void *conf, char *why, size_t cap)
{
	const struct con_config *c = conf;
	const char *text = NULL;
	if (!sp_fleet_name_is_valid(c->fleet))
		text = "fleet: want letters, digits, '.', '_' and '-'";
	else if (strncmp(c->redis.address, "unix:/", 6) != 0 &&
		 strncmp(c->redis.address, "unix:", 5) == 0)
		text = "redis.address: want an absolute path, unix:/run/redis.sock";
	else if (!c->endpoint.certificate != !c->endpoint.key)
		text = "endpoint.certificate and endpoint.key: one without the other";
	else if (c->endpoint.certificate && !c->endpoint.listen.kind)
		text = "endpoint.certificate: there is no endpoint.listen";
	if (text) {
		snprintf(why, cap, "%s", text);
		return false;
	}
	if (!check_names(c, why, cap) || !check_advertised(c, why, cap))
		return false;
	if (c->endpoint.listen.kind && !c->endpoint.certificate && !c->endpoint.plain &&
	    !is_loopback(&c->endpoint.listen)) {
		snprintf(why, cap,
			 "endpoint.listen: passes would cross the network in clear; name "
			 "endpoint.certificate and endpoint.key, or set endpoint.plain "
			 "behind a proxy that does TLS");
		return false;
	}
	return true;
}

const struct sp_conf_table con_config_table = {
	.title = "Sallyport controller",
	.keys = keys,
	.n_keys = sizeof(keys) / sizeof(keys[0]),
	.struct_bytes = sizeof(struct con_config),
	.check = check,
};

char *con_config_endpoint(const struct sp_target *t, char *buf)
{
	char text[SP_TARGET_TEXT_MAX];
	snprintf(buf, CON_ENDPOINT_MAX, "tcp://%s",
		 sp_target_format(t, text, sizeof(text)));
	return buf;
}

const struct sp_target *con_config_advertised(const struct sp_target *advertised,
					      const struct sp_target *bound)
{
	return advertised->kind ? advertised : bound;
}

char *con_config_state_path(const struct con_config *c, const char *name)
{
	char *path;
	return asprintf(&path, "%s/%s", c->state_dir, name) < 0 ? NULL : path;
}
