// The controller's local config: one YAML file, one table of keys (config.c). Not here:
// what the files that it names hold (identity.h), the fleet file (lib/fleetfile.h).
#ifndef CON_CONFIG_H
#define CON_CONFIG_H

#include <stdint.h>

#include "lib/conf.h"

#define CON_ENDPOINT_MAX 280 // "tcp://HOST:PORT" with its NUL

struct con_config {
	char *fleet; // its name
	char *state_dir;
	struct {
		char *signing, *control, *route;
		struct sp_conf_strings trusted;
	} keys;
	struct {
		char *address, *password_file;
	} redis;
	struct {
		struct sp_target router, publisher, enrol; // where it listens
	} bus;
	struct {
		struct sp_target router, publisher, enrol; // as nodes see it
	} advertise;
	struct {
		char *socket;
		char *group;
	} api;
	struct {
		struct sp_target listen;
		char *certificate, *key;
		bool plain;
		int64_t token_rate;
	} endpoint;
	struct {
		struct sp_target listen;
	} admin;
	struct {
		int level, format; // enum sp_log_level, enum sp_log_format
	} log;
};

extern const struct sp_conf_table con_config_table;

// "tcp://HOST:PORT" to buf of CON_ENDPOINT_MAX. Returns buf.
char *con_config_endpoint(const struct sp_target *t, char *buf);
// What nodes are told of one of bus's: the advertised address, or else the bound one.
const struct sp_target *con_config_advertised(const struct sp_target *advertised,
					      const struct sp_target *bound);
// malloc'd "STATE_DIR/name"; NULL: no memory.
char *con_config_state_path(const struct con_config *c, const char *name);

#endif
