// The health checker as a whole: one vantage of the fleet. Joins what follows the state,
// what probes, what looks at controls and what reports to a controller. Not here: the
// command line (main.c), enrolling (join.h).
#ifndef HCK_VANTAGE_H
#define HCK_VANTAGE_H

#include "healthcheck/config.h"
#include "healthcheck/controls.h"
#include "healthcheck/follow.h"
#include "healthcheck/prober.h"
#include "healthcheck/report.h"
#include "lib/admin.h"
#include "lib/bus.h"
#include "lib/enrolled.h"
#include "lib/notify.h"

// What the state folder holds of an enrolment.
struct hck_identity {
	struct sp_enrolled enrolled;
	struct sp_bus_keys control;
	uint8_t device_secret[32], device_public[32];
};
// 0 and *ret; SP_E_CONFIG and `why` (SP_WHY_MAX) with the key, the file and the remedy.
int hck_identity_load(const struct hck_config *cfg, struct hck_identity *ret, char *why,
		      size_t cap) SP_MUST_CHECK;
void hck_identity_done(struct hck_identity *id); // wipes

struct hck_vantage {
	const char *config_path;
	struct hck_config *cfg; // its own
	struct hck_identity id;
	struct sp_loop *loop;
	uint64_t boot, calls;
	struct sp_bus_client *bus;
	bool linked; // welcomed
	struct hck_follow *follow;
	struct sp_fetch_env *fetch;
	struct hck_controls *controls;
	struct hck_prober *prober;
	struct hck_report *report;
	struct sp_admin *admin;
	struct sp_watchdog watchdog;
	struct hck_probe_plan plan; // the fleet's
	struct sp_signed_keys keys; // of passes and answers
	uint64_t pass_expires_s;    // 0: there is none
	struct sp_timer pass;
	uint64_t reloads, reloads_failed, refused, malformed, links;
	unsigned targets, skipped;
};

// `cfg` and `id` become the vantage's unless it fails; `config_path` outlives it. 0 and
// *ret; an error, which was logged.
int hck_vantage_new(const char *config_path, struct hck_config *cfg,
		    const struct hck_identity *id,
		    struct hck_vantage **ret) SP_MUST_CHECK;
int hck_vantage_run(struct hck_vantage *v) SP_MUST_CHECK; // until a signal. 0; -EIO
void hck_vantage_free(struct hck_vantage *v);             // NULL is fine

// metrics.c: /metrics and /readyz.
extern const struct sp_admin_ops hck_admin_ops;

#endif
