#include "client/config.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <sysexits.h>

#include "client/chain.h"
#include "lib/file.h"
#include "lib/fleet.h"

#define AT(field) offsetof(struct cli_config, field)

static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const spares[] = {"auto", "on", "off", NULL};
static const char *const new_flows[] = {"elsewhere", "relay", NULL};
static const char *const formats[] = {"logfmt", "json", NULL};

static const struct sp_conf_key keys[] = {
	{.name = "socks.listen",
	 .type = SP_CONF_ADDRESSES,
	 .offset = AT(socks.listen),
	 .max = 4,
	 .def = "127.0.0.1:1080, [::1]:1080",
	 .help = "Where applications find the SOCKS5 proxy"},
	{.name = "http.listen",
	 .type = SP_CONF_ADDRESSES,
	 .offset = AT(http.listen),
	 .max = 4,
	 .example = "127.0.0.1:8118",
	 .help = "Where applications find the HTTP CONNECT proxy; unset: there is none"},
	{.name = "allow_remote",
	 .type = SP_CONF_BOOL,
	 .offset = AT(allow_remote),
	 .def = "false",
	 .help = "Let the proxies listen on other addresses than loopback; whoever "
		 "reaches them can use them"},

	{.name = "keys.device",
	 .type = SP_CONF_PATH,
	 .offset = AT(keys.device),
	 .def = "device.key",
	 .help = "This device's secret key, mode 0600, made by sallyport init"},
	{.name = "keys.fleet",
	 .type = SP_CONF_STRINGS,
	 .offset = AT(keys.fleet),
	 .not_a_path = "sallyport-",
	 .min = 1,
	 .max = 8,
	 .required = true,
	 .reloadable = true,
	 .example = "/etc/sallyport/signing.pub",
	 .help = "Public signing keys that are trusted: files, or the keys "
		 "themselves"},
	{.name = "pass",
	 .type = SP_CONF_PATH,
	 .offset = AT(pass),
	 .reloadable = true,
	 .example = "device.pass",
	 .help = "The pass that the operator signed for this device"},
	{.name = "exits",
	 .type = SP_CONF_PATH,
	 .offset = AT(exits),
	 .reloadable = true,
	 .example = "exits.signed",
	 .help = "The signed client config: the exits, in the order to use them"},
	{.name = "endpoints",
	 .type = SP_CONF_STRINGS,
	 .offset = AT(endpoints),
	 .min = 1,
	 .max = SP_FLEET_ENDPOINTS_MAX,
	 .example = "https://config.example/v1/config",
	 .help = "Instead of pass and exits: URLs where the fleet tells both, in order"},
	{.name = "token",
	 .type = SP_CONF_PATH,
	 .offset = AT(token),
	 .example = "token",
	 .help = "File with this user's token for the endpoints, mode 0600"},
	{.name = "endpoint_ca",
	 .type = SP_CONF_PATH,
	 .offset = AT(endpoint_ca),
	 .example = "ca.pem",
	 .help = "Authorities in PEM for the endpoints, instead of the system's"},

	{.name = "state_dir",
	 .type = SP_CONF_PATH,
	 .offset = AT(state_dir),
	 .def = "state",
	 .help = "Folder for the control socket and the revision held; made if it is "
		 "missing"},
	{.name = "control",
	 .type = SP_CONF_PATH,
	 .offset = AT(control),
	 .example = "/run/sallyport/control.sock",
	 .help = "Unix socket for status and down; unset: control.sock in state_dir"},
	{.name = "admin.listen",
	 .type = SP_CONF_ADDRESS,
	 .offset = AT(admin.listen),
	 .example = "127.0.0.1:9322",
	 .help = "Private address of /metrics, /livez and /readyz; unset: none"},

#define TIME(field_, name_, def_, min_, max_, help_)                                     \
	{                                                                                \
		.name = name_, .type = SP_CONF_DURATION, .offset = AT(field_),           \
		.def = def_, .min = min_, .max = max_, .help = help_                     \
	}
#define COUNT(field_, name_, def_, max_, unit_, help_)                                   \
	{                                                                                \
		.name = "limits." name_, .type = SP_CONF_INT,                            \
		.offset = AT(limits.field_), .def = def_, .min = 1, .max = max_,         \
		.unit = unit_, .help = help_                                             \
	}
#define BYTES(field_, name_, def_, min_, max_, help_)                                    \
	{                                                                                \
		.name = "limits." name_, .type = SP_CONF_SIZE,                           \
		.offset = AT(limits.field_), .def = def_, .min = min_, .max = max_,      \
		.help = help_                                                            \
	}

	TIME(chain.failover_ms, "chain.failover", "350ms", 50, 60000,
	     "How long the exit in use may be away before new streams go to the next"),
	TIME(chain.hold_down_ms, "chain.hold_down", "30s", 100, 86400000,
	     "How long a better exit must be well before new streams go back to it"),
	TIME(chain.stagger_ms, "chain.stagger", "50ms", 0, 10000,
	     "Between the first dials to the exits"),

	{.name = "spare",
	 .type = SP_CONF_ENUM,
	 .offset = AT(spare),
	 .def = "auto",
	 .words = spares,
	 .help = "A second carrier to the home, ready to take over while streams live; "
		 "auto: where a new one is slow, on tls"},
	{.name = "relay.use",
	 .type = SP_CONF_BOOL,
	 .offset = AT(relay.use),
	 .def = "true",
	 .help = "Reach the home of live streams through another exit while its own "
		 "address is out of reach"},
	TIME(relay.after_ms, "relay.after", "300ms", 0, 60000,
	     "How long a home whose carrier ended may be away first; none after a "
	     "silence"),
	{.name = "relay.entries",
	 .type = SP_CONF_STRINGS,
	 .offset = AT(relay.entries),
	 .not_a_path = "",
	 .max = CLI_CHAIN_MAX,
	 .example = "berlin-1, paris-2",
	 .help = "Exits that may relay, the best first; unset: any, the one in use "
		 "first"},
	{.name = "relay.new_flows",
	 .type = SP_CONF_ENUM,
	 .offset = AT(relay.new_flows),
	 .def = "elsewhere",
	 .words = new_flows,
	 .help = "Where new streams go meanwhile: to the next exit, or to the home too"},

	COUNT(connections, "connections", "4096", 1000000, "connections",
	      "Connections of applications; further ones wait in the kernel's backlog"),
	COUNT(half_open, "half_open", "2048", 100000, "connections",
	      "Connections that have not asked yet; beyond, the oldest is closed"),
	COUNT(associations, "associations", "256", 100000, "associations",
	      "SOCKS5 UDP associations; beyond, the one idle longest is closed"),
	COUNT(streams, "streams", "4096", 1000000, "streams",
	      "Streams of one session; a further one is refused"),
	COUNT(flows, "flows", "4096", 1000000, "flows",
	      "Datagram flows of one session; beyond, the stalest is closed"),
	BYTES(memory_bytes, "memory", "128M", 1 << 20, INT64_C(1) << 40,
	      "Memory for stream bytes beyond what each stream has for sure"),
	BYTES(stream_window_bytes, "stream_window", "4M", 4096, 4 << 20,
	      "Most bytes an exit may be ahead of one application"),
	BYTES(session_window_bytes, "session_window", "32M", 4096, 32 << 20,
	      "The same for all streams of a session"),
	BYTES(datagram_budget_bytes, "datagram_budget", "512K", 16384, 64 << 20,
	      "Datagrams queued towards one exit"),
	TIME(limits.request_ms, "limits.request_timeout", "10s", 100, 600000,
	     "From a connection to its whole request"),
	TIME(limits.connect_ms, "limits.connect_timeout", "30s", 100, 600000,
	     "From a request to its answer, changes of exit included"),
	TIME(limits.dial_ms, "limits.dial_timeout", "10s", 100, 120000,
	     "From dialling an exit to its session"),
	TIME(limits.stale_ms, "limits.stale_timeout", "10m", 1000, 86400000,
	     "Streams of an exit that is away for so long are reset"),
	TIME(limits.park_ms, "limits.park_timeout", "30s", 100, 86400000,
	     "The same while another exit serves; sooner once the death is known"),
	TIME(limits.flow_idle_ms, "limits.flow_idle", "30s", 1000, 3600000,
	     "A datagram flow without traffic is closed"),

	{.name = "log.level",
	 .type = SP_CONF_ENUM,
	 .offset = AT(log.level),
	 .def = "info",
	 .words = levels,
	 .reloadable = true,
	 .help = "Least level that is written"},
	{.name = "log.format",
	 .type = SP_CONF_ENUM,
	 .offset = AT(log.format),
	 .def = "logfmt",
	 .words = formats,
	 .reloadable = true,
	 .help = "Form of a line"},
};

static bool is_loopback(const struct sp_target *t)
{
	static const uint8_t one[16] = {[15] = 1};
	return (t->kind == SP_TARGET_IPV4 && t->v4[0] == 127) ||
	       (t->kind == SP_TARGET_IPV6 && memcmp(t->v6, one, 16) == 0);
}

static bool check_listen(const struct sp_conf_addresses *list, const char *key,
			 bool allow_remote, char *why, size_t cap)
{
	char text[SP_TARGET_TEXT_MAX];
	for (size_t i = 0; i < list->n; i++) {
		sp_target_format(&list->v[i], text, sizeof(text));
		if (list->v[i].kind == SP_TARGET_NAME) {
			snprintf(why, cap, "%s: %s is a name; want an address", key,
				 text);
			return false;
		}
		if (allow_remote || is_loopback(&list->v[i]))
			continue;
		snprintf(why, cap,
			 "%s: %s is not on loopback, and the proxy asks nobody for a "
			 "password; use 127.0.0.1 or [::1], or set allow_remote: true",
			 key, text);
		return false;
	}
	return true;
}

// By files or by endpoints: one of the two.
static bool check_source(const struct cli_config *c, char *why, size_t cap)
{
	bool files = c->pass || c->exits, ask = c->endpoints.n || c->token;
	if (files && ask)
		snprintf(why, cap,
			 "%s: stands beside %s; set either pass and exits, or endpoints "
			 "and token",
			 c->endpoints.n ? "endpoints" : "token",
			 c->pass ? "pass" : "exits");
	else if (!files && !ask)
		snprintf(
			why, cap,
			"pass: missing, and no endpoints; set pass and exits to what the "
			"operator signed, or endpoints and token");
	else if (files && (!c->pass || !c->exits))
		snprintf(why, cap, "%s: missing; the operator gives both pass and exits",
			 c->pass ? "exits" : "pass");
	else if (ask && (!c->endpoints.n || !c->token))
		snprintf(why, cap,
			 "%s: missing; the operator gives both a URL and a token",
			 c->token ? "endpoints" : "token");
	else
		return true;
	return false;
}

static bool check(const void *conf, char *why, size_t cap)
{
	const struct cli_config *c = conf;
	char path[4096];
	if (!check_source(c, why, cap))
		return false;
	if (!check_listen(&c->socks.listen, "socks.listen", c->allow_remote, why, cap) ||
	    !check_listen(&c->http.listen, "http.listen", c->allow_remote, why, cap))
		return false;
	if (c->socks.listen.n + c->http.listen.n == 0) {
		snprintf(why, cap,
			 "socks.listen and http.listen are both empty: no "
			 "application could reach this client");
		return false;
	}
	if (strlen(cli_config_control(c, path, sizeof(path))) >=
	    sizeof(((struct sockaddr_un *)0)->sun_path)) {
		snprintf(why, cap,
			 "control: the path of the socket is longer than %zu bytes; set "
			 "control to a shorter one",
			 sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
		return false;
	}
	return true;
}

const struct sp_conf_table cli_config_table = {
	.title = "Sallyport client",
	.keys = keys,
	.n_keys = sizeof(keys) / sizeof(keys[0]),
	.struct_bytes = sizeof(struct cli_config),
	.check = check,
};

struct cli_config *cli_config_load(const char *path)
{
	struct sp_conf_errors errs = {0};
	struct cli_config *cfg = sp_conf_load(&cli_config_table, path, &errs);
	if (!cfg)
		sp_conf_errors_print(&errs, stderr);
	return cfg;
}

int cli_config_refuse(const char *path, const char *why)
{
	char at[2 * SP_WHY_MAX];
	fprintf(stderr, "%s\n",
		sp_conf_place(&cli_config_table, path, why, at, sizeof(at)));
	return EX_CONFIG;
}

void cli_config_free(struct cli_config *cfg)
{
	sp_conf_free(&cli_config_table, cfg);
}

const char *cli_config_control(const struct cli_config *cfg, char *buf, size_t cap)
{
	if (cfg->control)
		snprintf(buf, cap, "%s", cfg->control);
	else
		snprintf(buf, cap, "%s/control.sock", cfg->state_dir);
	return buf;
}
