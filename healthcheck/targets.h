// What there is to probe, read from the fleet's state: every carrier of every enrolled
// worker, and where to. Pure: no I/O, no clock. Not here: when (schedule.h), how
// (prober.h).
#ifndef HCK_TARGETS_H
#define HCK_TARGETS_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/derive.h"
#include "lib/fleet.h"
#include "lib/state.h"

#define HCK_EGRESS_MAX  16
#define HCK_URLS_MAX    8
#define HCK_URL_MAX     512 // with its NUL
#define HCK_CARRIER_MAX (SP_TARGET_TEXT_MAX + 8)

struct hck_target {
	char node[SP_WORKER_NAME_MAX + 1]; // "NAME/N"
	char region[SP_FLEET_NAME_MAX + 1];
	unsigned index;                     // of the carrier, in the node's list
	char carrier_text[HCK_CARRIER_MAX]; // "tls 192.0.2.1:443"
	struct sp_fleet_carrier carrier;
	uint8_t public_key[32];
	unsigned n_egress; // 0: any address will do
	struct sp_target egress[HCK_EGRESS_MAX];
};

struct hck_probe_plan {        // "fleet".probe
	char url[HCK_URL_MAX]; // of the controller's /v1/probe; unset: beside the first
			       // endpoint; "": none
	unsigned n_external, n_controls;
	char external[HCK_URLS_MAX][HCK_URL_MAX];
	char controls[HCK_URLS_MAX][HCK_URL_MAX];
	uint32_t interval_ms, deadline_ms; // 0: not said
};

struct hck_targets {
	struct hck_target *v;
	size_t n;
	unsigned skipped; // carriers that cannot be read, or of nodes not enrolled
	struct hck_probe_plan plan;
};

// 0 and *ret; -ENOMEM. What is not as it must be is left out and counted.
int hck_targets_read(const struct sp_state *state, struct hck_targets *ret) SP_MUST_CHECK;
void hck_targets_done(struct hck_targets *t); // a zeroed struct is fine
bool hck_target_same(const struct hck_target *a, const struct hck_target *b);

// "http://host[:port]/..." : where its connection goes and whether by TLS. 0;
// SP_E_MALFORMED.
int hck_url_target(const char *url, struct sp_target *ret) SP_MUST_CHECK;

#endif
