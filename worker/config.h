// The worker's local config: one YAML file, one table of keys (config.c). Not here: what
// the files that it names hold (identity.h), the signed config (lib/fleet.h).
#ifndef WRK_CONFIG_H
#define WRK_CONFIG_H

#include <stdint.h>

#include "lib/conf.h"

struct wrk_config {
	char *node;
	int64_t worker;
	char *home_id;
	struct {
		struct sp_conf_addresses tls, tcp;
	} listen;
	struct {
		char *certificate, *key;
	} tls;
	struct sp_target cover;
	struct {
		char *secret, *route;
		struct sp_conf_strings fleet;
	} keys;
	char *config, *state_dir;
	struct {
		char *folder; // set: everything else comes from the control plane
		struct sp_conf_strings router, publisher;
	} control;
	struct {
		char *user;
		struct sp_target listen;
	} agent;
	struct {
		struct sp_target listen;
	} admin;
	struct {
		struct sp_conf_strings servers;
		bool ipv4, ipv6;
	} dns;
	struct {
		int64_t sessions, sessions_per_user, streams, streams_per_session, flows,
			flows_per_session, opens_per_second, half_open, dials;
		int64_t memory_bytes, stream_window_bytes, session_window_bytes,
			datagram_budget_bytes;
		int64_t handshakes_per_minute;
		int64_t handshake_ms, dial_ms, stream_idle_ms, flow_idle_ms, stale_ms,
			keep_ms;
	} limits;
	struct {
		bool enabled;
		int64_t carriers, carriers_per_source, opens_per_second;
		int64_t memory_bytes, window_bytes, idle_ms;
	} relay;
	int64_t drain_ms;
	struct {
		int level, format; // enum sp_log_level, enum sp_log_format
	} log;
};

extern const struct sp_conf_table wrk_config_table;

#endif
