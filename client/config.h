// The client's local config: one YAML file, one table of keys (config.c). Not here: what
// the files that it names hold (identity.h, exits.h).
#ifndef CLI_CONFIG_H
#define CLI_CONFIG_H

#include <stdint.h>

#include "lib/conf.h"

struct cli_config {
	struct {
		struct sp_conf_addresses listen;
	} socks, http;
	bool allow_remote;
	struct {
		char *device;
		struct sp_conf_strings fleet;
	} keys;
	char *pass, *exits;               // files of the operator's; or:
	struct sp_conf_strings endpoints; // where they are asked for
	char *token, *endpoint_ca;
	char *state_dir;
	const char *last; // where the last good config lies instead; not from the file
	char *control;
	struct {
		struct sp_target listen;
	} admin;
	struct {
		int64_t failover_ms, hold_down_ms, stagger_ms;
	} chain;
	struct {
		bool use;
		int new_flows; // 0: elsewhere, 1: there too
		int64_t after_ms;
		struct sp_conf_strings entries;
	} relay;
	int spare; // enum cli_spare
	struct {
		int64_t connections, half_open, associations, streams, flows;
		int64_t memory_bytes, stream_window_bytes, session_window_bytes,
			datagram_budget_bytes;
		int64_t request_ms, connect_ms, dial_ms, stale_ms, park_ms, flow_idle_ms;
	} limits;
	struct {
		int level, format; // enum sp_log_level, enum sp_log_format
	} log;
};

extern const struct sp_conf_table cli_config_table;

// Loads `path`; NULL: the errors were printed to stderr.
struct cli_config *cli_config_load(const char *path);
// Says to stderr what is wrong with what a key of `path` names (cli_identity_load's why),
// with the key's line. The exit status.
int cli_config_refuse(const char *path, const char *why);
void cli_config_free(struct cli_config *cfg); // NULL is fine
// Where the control socket is: `control`, or in the state folder. Returns buf.
const char *cli_config_control(const struct cli_config *cfg, char *buf, size_t cap);

#endif
