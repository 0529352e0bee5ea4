// The table of verbs and options, of which help, completion and parsing are made.
#include "ctl/remote.h"
#include "ctl/verbs.h"

#define OUTPUT(help_)                                                                    \
	{                                                                                \
		.name = "output", .letter = 'o', .arg = "FILE", .required = true,        \
		.help = help_                                                            \
	}
#define FORCE                                                                            \
	{                                                                                \
		.name = "force", .help = "Replace what is there already"                 \
	}
#define FLEET_KEY                                                                        \
	{                                                                                \
		.name = "fleet-key", .arg = "PUB", .required = true, .repeat = true,     \
		.help = "Public signing key that is trusted: a file, or its text"        \
	}
#define AT                                                                               \
	{                                                                                \
		.name = "at", .arg = "TIME",                                             \
		.help = "Judge as of this time, not now: 2026-01-31T12:00:00Z"           \
	}
#define SIGNING_KEY                                                                      \
	{                                                                                \
		.name = "key", .arg = "FILE", .required = true,                          \
		.help = "Secret signing key to sign with"                                \
	}
#define USER(required_, def_)                                                            \
	{                                                                                \
		.name = "user", .arg = "NAME", .required = required_, .def = def_,       \
		.help = "Whom the pass is for"                                           \
	}
#define VALID                                                                            \
	{                                                                                \
		.name = "valid", .arg = "DURATION", .def = "25h",                        \
		.help = "How long the pass holds: 90m, 25h, 30d"                         \
	}
#define FROM                                                                             \
	{                                                                                \
		.name = "from", .arg = "TIME",                                           \
		.help = "When the pass begins to hold, if not now"                       \
	}
#define PASS_LIMITS                                                                      \
	{.name = "max-sessions",                                                         \
	 .arg = "N",                                                                     \
	 .def = "16",                                                                    \
	 .help = "Sessions of the user at most"},                                        \
		{.name = "max-streams",                                                  \
		 .arg = "N",                                                             \
		 .def = "4096",                                                          \
		 .help = "Streams of a session at most"},                                \
		{.name = "max-flows",                                                    \
		 .arg = "N",                                                             \
		 .def = "4096",                                                          \
		 .help = "Datagram flows of a session at most"},                         \
	{                                                                                \
		.name = "rate", .arg = "BYTES", .def = "0",                              \
		.help = "Bytes a second, K, M or G may follow; 0: no limit"              \
	}
#define TIER                                                                             \
	{                                                                                \
		.name = "tier", .arg = "SPEC", .def = "default", .repeat = true,         \
		.help = "NAME[,max_streams=N...][,groups=A+B]"                           \
	}
#define RULES                                                                            \
	{.name = "deny",                                                                 \
	 .arg = "RANGE",                                                                 \
	 .repeat = true,                                                                 \
	 .help = "Exit policy: refuse RANGE[:PORT[-PORT]]; before any --allow"},         \
	{                                                                                \
		.name = "allow", .arg = "RANGE", .repeat = true,                         \
		.help = "Exit policy: allow what is refused by itself"                   \
	}
#define CONFIG_VALID                                                                     \
	{                                                                                \
		.name = "config-valid", .arg = "DURATION",                               \
		.help = "When the config expires; without: never"                        \
	}

static const struct ctl_option keys_options[] = {
	OUTPUT("Secret file, mode 0600; the public half goes beside it as .pub"),
	FORCE,
	{0},
};

static const struct ctl_option keys_show_options[] = {
	{.name = "public", .help = "Print the text of the public half and nothing else"},
	{0},
};

static const struct ctl_option pass_make_options[] = {
	SIGNING_KEY,
	{.name = "device",
	 .arg = "PUB",
	 .required = true,
	 .help = "Public device key: a file, or its text"},
	USER(true, NULL),
	{.name = "tier",
	 .arg = "NAME",
	 .required = true,
	 .help = "Tier of the worker config"},
	VALID,
	FROM,
	PASS_LIMITS,
	{.name = "group",
	 .arg = "NAME",
	 .repeat = true,
	 .help = "Group of exits that it may use; none: all"},
	OUTPUT("File of the pass"),
	FORCE,
	{0},
};

static const struct ctl_option pass_verify_options[] = {
	FLEET_KEY,
	{.name = "device",
	 .arg = "PUB",
	 .help = "Refuse it if it is for another device key"},
	AT,
	{0},
};

static const struct ctl_option config_sign_options[] = {
	SIGNING_KEY,
	{.name = "kind",
	 .arg = "KIND",
	 .help = "worker or client; without: by its members"},
	OUTPUT("Signed file; replaced only by a higher revision"),
	{.name = "next",
	 .help = "Raise the revision above that of the output, note the time"},
	{.name = "force", .help = "Sign whatever the output's revision and the expiry"},
	{0},
};

static const struct ctl_option config_show_options[] = {
	{.name = "body", .help = "Print the exact bytes that are signed"},
	{0},
};

static const struct ctl_option config_verify_options[] = {FLEET_KEY, AT, {0}};

static const struct ctl_option config_init_options[] = {
	{.name = "pass-key",
	 .arg = "PUB",
	 .repeat = true,
	 .help = "worker: public key that signs passes"},
	TIER,
	RULES,
	{.name = "group", .arg = "NAME", .help = "worker: group of these exits"},
	{.name = "exit",
	 .arg = "SPEC",
	 .repeat = true,
	 .help = "client: name=,key=PUB,region=,tls=HOST:PORT,pin=PEM,tcp=...; worker: "
		 "one to relay with"},
	CONFIG_VALID,
	{.name = "output",
	 .letter = 'o',
	 .arg = "FILE",
	 .help = "Instead of standard output"},
	FORCE,
	{0},
};

static const struct ctl_option quickstart_options[] = {
	{.name = "worker",
	 .arg = "SPEC",
	 .required = true,
	 .repeat = true,
	 .help = "DIAL[@LISTEN][,name=][,region=][,admin=][,tls=][,tcp=]"},
	{.name = "carrier",
	 .arg = "KIND",
	 .def = "tls",
	 .help = "What a bare DIAL is: tls or tcp"},
	{.name = "cover",
	 .arg = "ADDRESS",
	 .def = "127.0.0.1:8080",
	 .help = "Web site that strangers see on a tls port"},
	{.name = "server-name",
	 .arg = "NAME",
	 .help = "Name in certificate and SNI; without: the address, no SNI"},
	TIER,
	RULES,
	CONFIG_VALID,
	USER(false, "user"),
	VALID,
	FROM,
	PASS_LIMITS,
	{.name = "socks",
	 .arg = "ADDRESS",
	 .def = "127.0.0.1:1080",
	 .help = "Where the client's SOCKS5 proxy listens"},
	{.name = "http", .arg = "ADDRESS", .help = "The same for HTTP CONNECT"},
	{.name = "dns",
	 .arg = "ADDRESS",
	 .repeat = true,
	 .help = "Name server of the workers"},
	{.name = "worker-set",
	 .arg = "KEY=VALUE",
	 .repeat = true,
	 .help = "A further line of each worker.yaml"},
	{.name = "client-set",
	 .arg = "KEY=VALUE",
	 .repeat = true,
	 .help = "A further line of client.yaml"},
	{0},
};

#define SOCKET                                                                           \
	{                                                                                \
		.name = "socket", .arg = "PATH", .def = CTL_SOCKET_DEFAULT,              \
		.help = "The controller's, before " CTL_SOCKET_ENV                       \
	}
#define DRY_RUN                                                                          \
	{                                                                                \
		.name = "dry-run", .help = "Show what would change and change nothing"   \
	}
#define ANYWAY(help_)                                                                    \
	{                                                                                \
		.name = "force", .help = help_                                           \
	}

static const struct ctl_option remote_options[] = {SOCKET, {0}};

static const struct ctl_option apply_options[] = {
	{.name = "file",
	 .letter = 'f',
	 .arg = "FILE",
	 .required = true,
	 .help = "The fleet file"},
	DRY_RUN,
	ANYWAY("Also if no node is left"),
	SOCKET,
	{0},
};

static const struct ctl_option diff_options[] = {
	{.name = "file",
	 .letter = 'f',
	 .arg = "FILE",
	 .help = "What applying this fleet file would change"},
	SOCKET,
	{0},
};

static const struct ctl_option rollback_options[] = {
	DRY_RUN,
	ANYWAY("Also if there were no nodes then"),
	SOCKET,
	{0},
};

#define LIMIT                                                                            \
	{                                                                                \
		.name = "limit", .arg = "N", .help = "At most so many; without: 1000"    \
	}
#define AFTER                                                                            \
	{                                                                                \
		.name = "after", .arg = "NAME",                                          \
		.help = "The next page: what follows NAME"                               \
	}

static const struct ctl_option get_nodes_options[] = {
	{.name = "region", .arg = "NAME", .help = "Of this region only"},
	{.name = "group", .arg = "NAME", .help = "Of this group only"},
	{.name = "state",
	 .arg = "WORD",
	 .help = "Whose health is this: healthy, down, draining..."},
	{.name = "link", .arg = "WORD", .help = "Whose control link is: up, lost, never"},
	LIMIT,
	AFTER,
	SOCKET,
	{0},
};

static const struct ctl_option get_users_options[] = {
	{.name = "tier", .arg = "NAME", .help = "Of this tier only"},
	LIMIT,
	AFTER,
	SOCKET,
	{0},
};

static const struct ctl_option get_sessions_options[] = {
	{.name = "user", .arg = "NAME", .help = "Of this user only"},
	{.name = "node",
	 .arg = "NODE",
	 .help = "Whose home is this node, or worker NODE/N"},
	LIMIT,
	SOCKET,
	{0},
};

static const struct ctl_option get_revisions_options[] = {
	{.name = "limit", .arg = "N", .help = "So many of the newest; without: 50"},
	SOCKET,
	{0},
};

static const struct ctl_option get_events_options[] = {
	{.name = "since",
	 .arg = "TIME",
	 .help = "Not before: 10m ago, or 2026-01-31T12:00:00Z"},
	{.name = "node",
	 .arg = "NAME",
	 .help = "About this node, worker, vantage or user only"},
	{.name = "kind", .arg = "WORD", .help = "Of this kind only, such as node-down"},
	{.name = "follow",
	 .letter = 'f',
	 .help = "Go on with new ones until interrupted"},
	{.name = "limit", .arg = "N", .help = "So many of the newest; without: 100"},
	SOCKET,
	{0},
};

static const struct ctl_option get_tokens_options[] = {
	{.name = "user", .arg = "NAME", .help = "Of this user only"},
	LIMIT,
	AFTER,
	SOCKET,
	{0},
};

static const struct ctl_option health_options[] = {
	{.name = "region", .arg = "NAME", .help = "Nodes of this region only"},
	{.name = "state",
	 .arg = "WORD",
	 .help = "Nodes in this state only: down, degraded, healthy..."},
	SOCKET,
	{0},
};

static const struct ctl_option doctor_options[] = {
	{.name = "config",
	 .letter = 'c',
	 .arg = "FILE",
	 .repeat = true,
	 .help = "Config of a program here; without: those in /etc/sallyport"},
	{.name = "local", .help = "Do not ask a controller"},
	SOCKET,
	{0},
};

#define LEASE                                                                            \
	{.name = "deadline",                                                             \
	 .arg = "DURATION",                                                              \
	 .help = "When it ends by itself: 30m, 2h, 1d (1h)"},                            \
		{.name = "for", .arg = "DURATION", .help = "The same as --deadline"},    \
		{.name = "reason", .arg = "TEXT", .help = "Why, for colleagues"},        \
		ANYWAY("Also beyond the share of region or fleet that may be out")

static const struct ctl_option cordon_options[] = {LEASE, SOCKET, {0}};

static const struct ctl_option drain_options[] = {
	LEASE,
	{.name = "wait",
	 .help = "Until the node is empty (exit status 0) or the deadline has come (75)"},
	SOCKET,
	{0},
};

static const struct ctl_option revoke_options[] = {
	{.name = "user",
	 .arg = "NAME",
	 .help = "All passes of the user made so far, and the tokens"},
	{.name = "device",
	 .arg = "PUB",
	 .help = "A device, by the text of its public key"},
	{.name = "serial", .arg = "HEX", .help = "One pass"},
	{.name = "keep-tokens", .help = "The user's clients may fetch new passes"},
	ANYWAY("Also a user that is not in the fleet file any more"),
	SOCKET,
	{0},
};

static const struct ctl_option token_options[] = {
	{.name = "valid",
	 .arg = "DURATION",
	 .help = "When it expires; without: when it is dropped or its user revoked"},
	SOCKET,
	{0},
};

static const struct ctl_option enroll_options[] = {
	{.name = "node", .arg = "NAME", .help = "Node of the fleet file, NAME or NAME/N"},
	{.name = "vantage", .arg = "NAME", .help = "A health checker instead of a node"},
	{.name = "region", .arg = "NAME", .help = "Where the health checker is"},
	{.name = "valid",
	 .arg = "DURATION",
	 .def = "1h",
	 .help = "How long the token may be used, once"},
	ANYWAY("Also if it is enrolled already: its old keys end"),
	SOCKET,
	{0},
};

static const struct ctl_verb verbs[] = {
	{"apply", NULL, "", 0, 0, "Make the fleet what a fleet file says", apply_options,
	 ctl_apply},
	{"diff", NULL, "[FROM [TO]]", 0, 2,
	 "Show what changed between revisions, or would by a file", diff_options,
	 ctl_diff},
	{"rollback", NULL, "SEQUENCE", 1, 1, "Declare again what a revision declared",
	 rollback_options, ctl_rollback},
	{"status", NULL, "", 0, 0, "Show where the controller stands", remote_options,
	 ctl_status},
	{"health", NULL, "[NODE]", 0, 1,
	 "Show what vantages see, and what follows for each node", health_options,
	 ctl_health},
	{"doctor", NULL, "", 0, 0, "Look for what is wrong, here and in the fleet",
	 doctor_options, ctl_doctor},
	{"get nodes", NULL, "", 0, 0, "List the nodes", get_nodes_options, ctl_get_list},
	{"get users", NULL, "", 0, 0, "List the users", get_users_options, ctl_get_list},
	{"get sessions", NULL, "", 0, 0, "List what sessions there are",
	 get_sessions_options, ctl_get_list},
	{"get revisions", NULL, "", 0, 0, "List the newest revisions",
	 get_revisions_options, ctl_get_list},
	{"get events", NULL, "", 0, 0, "List the newest events", get_events_options,
	 ctl_get_events},
	{"get leases", NULL, "", 0, 0, "List nodes that are cordoned or draining",
	 remote_options, ctl_get_list},
	{"get tokens", NULL, "", 0, 0, "List users' tokens, never their text",
	 get_tokens_options, ctl_get_list},
	{"get vantages", NULL, "", 0, 0, "List the health checkers, and who has a vote",
	 remote_options, ctl_get_list},
	{"cordon", NULL, "NODE", 1, 1, "Send no new clients to a node", cordon_options,
	 ctl_lease},
	{"drain", NULL, "NODE", 1, 1, "Send a node's clients elsewhere", drain_options,
	 ctl_lease},
	{"undrain", "uncordon", "NODE", 1, 1, "End its lease before its time",
	 remote_options, ctl_undrain},
	{"revoke", NULL, "", 0, 0, "End sessions and passes of a user, device or pass",
	 revoke_options, ctl_revoke},
	{"token make", NULL, "USER", 1, 1, "Make a token for a user's clients",
	 token_options, ctl_token_make},
	{"token drop", NULL, "ID", 1, 1, "Make a token worthless", remote_options,
	 ctl_token_drop},
	{"enroll", "enrol", "", 0, 0, "Print a one-time token for a new node",
	 enroll_options, ctl_enroll},
	{"keys signing", "keys sign", "", 0, 0,
	 "Make the key that signs configs and passes", keys_options, ctl_keys_make},
	{"keys worker", "keys node", "", 0, 0, "Make the static key of a worker",
	 keys_options, ctl_keys_make},
	{"keys route", NULL, "", 0, 0, "Make the key that all workers share for tickets",
	 keys_options, ctl_keys_make},
	{"keys control", NULL, "", 0, 0,
	 "Make a controller's key of its links to workers", keys_options, ctl_keys_make},
	{"keys device", NULL, "", 0, 0, "Make the key of a user's device", keys_options,
	 ctl_keys_make},
	{"keys show", NULL, "FILE", 1, 1, "Say which key a file holds, never a secret",
	 keys_show_options, ctl_keys_show},
	{"pass make", NULL, "", 0, 0, "Sign a pass for a device", pass_make_options,
	 ctl_pass_make},
	{"pass show", NULL, "FILE", 1, 1, "Print a pass", NULL, ctl_pass_show},
	{"pass verify", NULL, "FILE", 1, 1, "Check a pass: signature, time, device",
	 pass_verify_options, ctl_pass_verify},
	{"config init", NULL, "worker|client", 1, 1,
	 "Print a config in JSON, to be edited and signed", config_init_options,
	 ctl_config_init},
	{"config sign", NULL, "FILE", 1, 1, "Check a config in JSON and sign it",
	 config_sign_options, ctl_config_sign},
	{"config show", NULL, "FILE", 1, 1, "Print a signed config", config_show_options,
	 ctl_config_show},
	{"config verify", NULL, "FILE", 1, 1,
	 "Check a signed config: signature, content, expiry", config_verify_options,
	 ctl_config_verify},
	{"print", NULL, "FILE", 1, 1, "Print any of our files", NULL, ctl_print},
	{"quickstart", NULL, "FOLDER", 1, 1,
	 "Make a whole small fleet: keys, certificates, pass, configs",
	 quickstart_options, ctl_quickstart},
	{"completion", NULL, "", 0, 0, "Print the completion for bash", NULL,
	 ctl_completion},
	{0},
};

const struct ctl_program ctl_program = {
	.name = "sallyportctl",
	.verbs = verbs,
	.epilogue =
		"sallyportctl --version\n\n"
		"exit status: 0 done; 1 read, but not to be trusted; 2 refused by a "
		"rule; 64 usage;\n65 data that does not hold; 66 no such input or "
		"thing; 69 no controller; 70, 71\ninternal; 73 cannot write there; 74 "
		"input or output; 75 not now; 77 permission\n",
};

int ctl_completion(struct ctl_call *call)
{
	ctl_cli_completion(&ctl_program, call->out);
	return EX_OK;
}
