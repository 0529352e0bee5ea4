#include "worker/config.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "lib/text.h"

#define AT(field) offsetof(struct wrk_config, field)

static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const formats[] = {"logfmt", "json", NULL};

static const struct sp_conf_key keys[] = {
	{.name = "node",
	 .type = SP_CONF_STRING,
	 .offset = AT(node),
	 .def = "local",
	 .min = 1,
	 .max = 63,
	 .help = "Name of the host this worker runs on, as the operator calls it"},
	{.name = "worker",
	 .type = SP_CONF_INT,
	 .offset = AT(worker),
	 .def = "0",
	 .max = 255,
	 .help = "Number of this worker on its node"},
	{.name = "home_id",
	 .type = SP_CONF_STRING,
	 .offset = AT(home_id),
	 .min = 16,
	 .max = 16,
	 .example = "0f1e2d3c4b5a6978",
	 .help = "16 hexadecimal digits, unique in the fleet; unset: made from the "
		 "static key"},

	{.name = "listen.tls",
	 .type = SP_CONF_ADDRESSES,
	 .offset = AT(listen.tls),
	 .max = 16,
	 .example = "0.0.0.0:443, [::]:443",
	 .help = "Where clients connect by TLS; strangers there see the cover site"},
	{.name = "listen.tcp",
	 .type = SP_CONF_ADDRESSES,
	 .offset = AT(listen.tcp),
	 .max = 16,
	 .example = "127.0.0.1:7000",
	 .help = "Where clients connect without TLS, for tests and trusted networks "
		 "only"},
	{.name = "tls.certificate",
	 .type = SP_CONF_PATH,
	 .offset = AT(tls.certificate),
	 .example = "tls/fullchain.pem",
	 .reloadable = true,
	 .help = "Certificate with its chain, PEM; needed for listen.tls"},
	{.name = "tls.key",
	 .type = SP_CONF_PATH,
	 .offset = AT(tls.key),
	 .example = "tls/privkey.pem",
	 .reloadable = true,
	 .help = "Its private key, PEM, readable by the worker alone"},
	{.name = "cover",
	 .type = SP_CONF_ADDRESS,
	 .offset = AT(cover),
	 .example = "127.0.0.1:8080",
	 .reloadable = true,
	 .help = "The web site that answers whoever is no client; needed for listen.tls"},

	{.name = "keys.static",
	 .type = SP_CONF_PATH,
	 .offset = AT(keys.secret),
	 .example = "node.key",
	 .help = "This worker's static secret key, mode 0600, made by sallyportctl; "
		 "goes with config"},
	{.name = "keys.route",
	 .type = SP_CONF_PATH,
	 .offset = AT(keys.route),
	 .example = "route.key",
	 .help = "The fleet's route key, mode 0600, the same on every worker; goes with "
		 "config"},
	{.name = "keys.fleet",
	 .type = SP_CONF_STRINGS,
	 .offset = AT(keys.fleet),
	 .not_a_path = "sallyport-",
	 .min = 1,
	 .max = 8,
	 .reloadable = true,
	 .example = "/etc/sallyport/signing.pub",
	 .help = "Public signing keys that are trusted: files, or the keys "
		 "themselves; goes with config"},
	{.name = "config",
	 .type = SP_CONF_PATH,
	 .offset = AT(config),
	 .reloadable = true,
	 .example = "worker.signed",
	 .help = "Signed worker config: exit policy, tiers, revoked passes; this or "
		 "control.folder"},
	{.name = "state_dir",
	 .type = SP_CONF_PATH,
	 .offset = AT(state_dir),
	 .example = "/var/lib/sallyport/worker-0",
	 .help = "Folder for the revision held, made if it is missing: with it, a signed "
		 "config older than one that was in force is refused also after a "
		 "restart; "
		 "goes with config"},

	{.name = "control.folder",
	 .type = SP_CONF_PATH,
	 .offset = AT(control.folder),
	 .example = "/var/lib/sallyport/worker-0",
	 .help = "State folder of a worker that controllers configure; sallyport-worker "
		 "enroll fills it"},
	{.name = "control.router",
	 .type = SP_CONF_STRINGS,
	 .offset = AT(control.router),
	 .max = 8,
	 .example = "tcp://192.0.2.1:7201",
	 .help = "Where controllers answer; unset: as said at the enrolment"},
	{.name = "control.publisher",
	 .type = SP_CONF_STRINGS,
	 .offset = AT(control.publisher),
	 .max = 8,
	 .example = "tcp://192.0.2.1:7202",
	 .help = "Where the same controllers publish, in the same order"},
	{.name = "agent.user",
	 .type = SP_CONF_STRING,
	 .offset = AT(agent.user),
	 .min = 1,
	 .max = 32,
	 .example = "sallyport-agent",
	 .help = "User of the process that talks to controllers, if started as root; "
		 "unset: the same"},
	{.name = "agent.listen",
	 .type = SP_CONF_ADDRESS,
	 .offset = AT(agent.listen),
	 .example = "127.0.0.1:9322",
	 .help = "Private address of its own /metrics, which has the worker's too; "
		 "unset: none"},

	{.name = "admin.listen",
	 .type = SP_CONF_ADDRESS,
	 .offset = AT(admin.listen),
	 .example = "127.0.0.1:9321",
	 .help = "Private address of /metrics, /livez and /readyz; unset: none"},

	{.name = "dns.servers",
	 .type = SP_CONF_STRINGS,
	 .offset = AT(dns.servers),
	 .max = 8,
	 .example = "127.0.0.1:53",
	 .help = "Name servers, near and trusted; unset: those of /etc/resolv.conf"},
	{.name = "dns.ipv4",
	 .type = SP_CONF_BOOL,
	 .offset = AT(dns.ipv4),
	 .def = "true",
	 .help = "Ask for IPv4 addresses"},
	{.name = "dns.ipv6",
	 .type = SP_CONF_BOOL,
	 .offset = AT(dns.ipv6),
	 .def = "true",
	 .help = "Ask for IPv6 addresses"},

#define LIMIT(field_, name_, type_, def_, min_, max_, unit_, reload_, help_)             \
	{                                                                                \
		.name = "limits." name_, .type = type_, .offset = AT(limits.field_),     \
		.def = def_, .min = min_, .max = max_, .unit = unit_,                    \
		.reloadable = reload_, .help = help_                                     \
	}
#define COUNT(field_, name_, def_, max_, unit_, reload_, help_)                          \
	LIMIT(field_, name_, SP_CONF_INT, def_, 1, max_, unit_, reload_, help_)
#define BYTES(field_, name_, def_, min_, max_, reload_, help_)                           \
	LIMIT(field_, name_, SP_CONF_SIZE, def_, min_, max_, NULL, reload_, help_)
#define TIME(field_, name_, def_, min_, max_, reload_, help_)                            \
	LIMIT(field_, name_, SP_CONF_DURATION, def_, min_, max_, NULL, reload_, help_)

	COUNT(sessions, "sessions", "4096", 1000000, "sessions", false,
	      "Sessions of this worker; the stalest detached one makes room"),
	COUNT(sessions_per_user, "sessions_per_user", "16", 65535, "sessions", true,
	      "Sessions of a user at most, whatever the pass says"),
	COUNT(streams, "streams", "16384", 1000000, "streams", false,
	      "Streams of this worker; a further one is refused"),
	COUNT(streams_per_session, "streams_per_session", "4096", 1000000, "streams",
	      true, "Streams of a session at most, whatever the pass says"),
	COUNT(flows, "flows", "8192", 1000000, "flows", true,
	      "Datagram flows of this worker; beyond, the stalest goes"),
	COUNT(flows_per_session, "flows_per_session", "4096", 1000000, "flows", true,
	      "Datagram flows of a session at most, whatever the pass says"),
	COUNT(opens_per_second, "opens_per_second", "200", 1000000, "streams", true,
	      "New streams of a user a second, with five seconds' worth of burst"),
	COUNT(half_open, "half_open", "1024", 1000000, "carriers", false,
	      "Carriers that have not authenticated; beyond, the oldest is closed"),
	COUNT(dials, "dials", "8192", 100000, "dials", false,
	      "Dials under way; a further stream is refused"),
	BYTES(memory_bytes, "memory", "256M", 1 << 20, INT64_C(1) << 40, false,
	      "Memory for stream bytes beyond what each stream has for sure"),
	BYTES(stream_window_bytes, "stream_window", "4M", 4096, 4 << 20, true,
	      "Most bytes a client may be ahead of one destination"),
	BYTES(session_window_bytes, "session_window", "32M", 4096, 32 << 20, true,
	      "The same for all streams of a session"),
	BYTES(datagram_budget_bytes, "datagram_budget", "512K", 16384, 64 << 20, true,
	      "Datagrams queued towards one client"),
	COUNT(handshakes_per_minute, "handshakes_per_minute", "600", 1000000,
	      "handshakes", false,
	      "First flights of one address a minute, with a sixth of it as burst; "
	      "further ones are a stranger's"),
	TIME(handshake_ms, "handshake_timeout", "10s", 1000, 60000, false,
	     "From a connection to its authentication"),
	TIME(dial_ms, "dial_timeout", "10s", 100, 120000, false,
	     "From a stream's opening to its connection, names included"),
	TIME(stream_idle_ms, "stream_idle", "2h", 1000, 7 * 86400000, true,
	     "A stream without traffic is reset"),
	TIME(flow_idle_ms, "flow_idle", "30s", 1000, 3600000, true,
	     "A datagram flow without traffic is closed"),
	TIME(stale_ms, "stale_timeout", "10m", 1000, 86400000, true,
	     "Streams of a session without a carrier are reset"),
	TIME(keep_ms, "session_keep", "25h", 1000, 7 * 86400000, true,
	     "A session without a carrier is forgotten"),

	{.name = "relay.enabled",
	 .type = SP_CONF_BOOL,
	 .offset = AT(relay.enabled),
	 .def = "true",
	 .reloadable = true,
	 .help = "Relay clients whose home is another worker, and be relayed to; needs "
		 "members, of the signed config or the control plane"},
	{.name = "relay.carriers",
	 .type = SP_CONF_INT,
	 .offset = AT(relay.carriers),
	 .def = "1024",
	 .min = 1,
	 .max = 1000000,
	 .unit = "carriers",
	 .reloadable = true,
	 .help = "Clients' carriers relayed to other homes at once, and carriers of a "
		 "trunk; a further one is refused"},
	{.name = "relay.carriers_per_source",
	 .type = SP_CONF_INT,
	 .offset = AT(relay.carriers_per_source),
	 .def = "64",
	 .min = 1,
	 .max = 1000000,
	 .unit = "carriers",
	 .reloadable = true,
	 .help = "Of these, those of one address (of IPv6: one /64)"},
	{.name = "relay.opens_per_second",
	 .type = SP_CONF_INT,
	 .offset = AT(relay.opens_per_second),
	 .def = "100",
	 .min = 1,
	 .max = 100000,
	 .unit = "carriers",
	 .reloadable = true,
	 .help = "Carriers that another worker may relay to this one a second, with five "
		 "seconds' worth of burst"},
	{.name = "relay.memory",
	 .type = SP_CONF_SIZE,
	 .offset = AT(relay.memory_bytes),
	 .def = "128M",
	 .min = 1 << 20,
	 .max = INT64_C(1) << 40,
	 .reloadable = true,
	 .help = "Memory for bytes of relayed carriers, 64K for each at least"},
	{.name = "relay.window",
	 .type = SP_CONF_SIZE,
	 .offset = AT(relay.window_bytes),
	 .def = "1M",
	 .min = 32768,
	 .max = 16 << 20,
	 .reloadable = true,
	 .help = "Most bytes of one relayed carrier that are on their way over a trunk"},
	{.name = "relay.trunk_idle",
	 .type = SP_CONF_DURATION,
	 .offset = AT(relay.idle_ms),
	 .def = "10m",
	 .min = 1000,
	 .max = 86400000,
	 .reloadable = true,
	 .help = "A link to another worker without a relayed carrier is closed"},
	{.name = "drain_timeout",
	 .type = SP_CONF_DURATION,
	 .offset = AT(drain_ms),
	 .def = "30s",
	 .max = 86400000,
	 .reloadable = true,
	 .help = "After SIGTERM, how long streams may go on"},
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

// Where the worker listens and where strangers go needs no name server.
static bool check_names(const struct wrk_config *c, char *why, size_t cap)
{
	const struct {
		const char *key;
		const struct sp_target *v;
		size_t n;
	} all[] = {
		{"listen.tls", c->listen.tls.v, c->listen.tls.n},
		{"listen.tcp", c->listen.tcp.v, c->listen.tcp.n},
		{"cover", &c->cover, 1},
		{"admin.listen", &c->admin.listen, 1},
	};
	char text[SP_TARGET_TEXT_MAX];
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		for (size_t k = 0; k < all[i].n; k++)
			if (all[i].v[k].kind == SP_TARGET_NAME) {
				sp_target_format(&all[i].v[k], text, sizeof(text));
				snprintf(why, cap, "%s: %s is a name; want an address",
					 all[i].key, text);
				return false;
			}
	return true;
}

// Keys and config are files of the operator's, or come from the control plane.
static bool check_source(const struct wrk_config *c, char *why, size_t cap)
{
	bool any = c->keys.secret || c->keys.route || c->keys.fleet.n;
	bool all = c->keys.secret && c->keys.route && c->keys.fleet.n;
	const char *text = NULL;
	if (!c->config && !c->control.folder)
		text = "config or control.folder: nowhere to take a config from; name a "
		       "signed file, or the folder of an enrolled worker";
	else if (c->config && c->control.folder)
		text = "config and control.folder are both set; keep one";
	else if (c->config && !all)
		text = "config needs keys.static, keys.route and keys.fleet";
	else if (c->control.folder && c->state_dir)
		text = "state_dir goes with config; control.folder is what an enrolled "
		       "worker has";
	else if (c->control.folder && any)
		text = "keys.static, keys.route and keys.fleet go with config; "
		       "control.folder has its own";
	else if (c->control.folder && c->home_id)
		text = "home_id goes with config; an enrolled worker's follows from its "
		       "key";
	else if (!c->control.folder && (c->control.router.n || c->agent.listen.kind))
		text = "control.router and agent.listen need control.folder";
	else if (c->control.router.n != c->control.publisher.n)
		text = "control.router and control.publisher: as many of one as of the "
		       "other";
	if (text)
		snprintf(why, cap, "%s", text);
	return !text;
}

static bool check(const void *conf, char *why, size_t cap)
{
	const struct wrk_config *c = conf;
	uint8_t id[8];
	if (c->home_id && sp_hex_decode(c->home_id, strlen(c->home_id), id, sizeof(id))) {
		snprintf(why, cap, "home_id: want 16 hexadecimal digits");
		return false;
	}
	if (c->listen.tls.n + c->listen.tcp.n == 0) {
		snprintf(why, cap,
			 "listen.tls or listen.tcp: nowhere to listen; name an "
			 "address, such as listen.tls: [0.0.0.0:443]");
		return false;
	}
	if (c->listen.tls.n && (!c->tls.certificate || !c->tls.key)) {
		snprintf(why, cap, "listen.tls needs tls.certificate and tls.key");
		return false;
	}
	if (c->listen.tls.n && !c->cover.kind) {
		snprintf(why, cap, "listen.tls needs cover, the web site for strangers");
		return false;
	}
	if (!c->dns.ipv4 && !c->dns.ipv6) {
		snprintf(why, cap,
			 "dns.ipv4 and dns.ipv6 are both false; one must be "
			 "true");
		return false;
	}
	return check_names(c, why, cap) && check_source(c, why, cap);
}

const struct sp_conf_table wrk_config_table = {
	.title = "Sallyport worker",
	.keys = keys,
	.n_keys = sizeof(keys) / sizeof(keys[0]),
	.struct_bytes = sizeof(struct wrk_config),
	.check = check,
};
