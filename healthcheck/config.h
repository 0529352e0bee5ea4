// The local config of a health checker, by one table of keys. Not here: the fleet's
// state, which says what is probed (healthcheck/targets.h).
#ifndef HCK_CONFIG_H
#define HCK_CONFIG_H

#include "lib/conf.h"

struct hck_config {
	struct {
		char *folder;
		struct sp_conf_strings router, publisher;
	} control;
	struct {
		int64_t interval_ms, deadline_ms; // 0: as the fleet says
		int64_t recheck_ms, down_interval_ms, jitter_percent, concurrency;
		char *ca_file; // or NULL
	} probe;
	struct sp_conf_strings controls; // none: as the fleet says
	struct {
		struct sp_target listen;
	} admin;
	struct {
		int level, format; // enum sp_log_level, sp_log_format
	} log;
};

extern const struct sp_conf_table hck_config_table;

#endif
