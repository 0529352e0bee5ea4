// Probes every target over and over, many at once: the ladder of lib/probe.h, then HTTP
// with a nonce through the stream, the egress address, and an external target over TLS.
// Not here: which targets (targets.h), when (schedule.h), who is told (report.h).
#ifndef HCK_PROBER_H
#define HCK_PROBER_H

#include "healthcheck/schedule.h"
#include "healthcheck/targets.h"
#include "lib/fetch.h"
#include "lib/probe.h"
#include "lib/proof.h"

#define HCK_SEATS_MAX 8192 // carriers that are probed; further ones are not

struct hck_result { // of one probe that is over
	bool ok;
	enum sp_rung reached;
	enum sp_reason reason;
	char detail[160];
	uint32_t us[SP_RUNGS], took_us;
	uint64_t ended_us, unix_ms; // by our clock; Unix
	uint64_t boot_id;
	char peer[SP_PROOF_PEER_MAX]; // address seen by the controller
};

struct hck_prober;
struct hck_prober_options {
	struct sp_loop *loop;
	struct sp_fetch_env *fetch;
	void (*result)(void *ctx, unsigned target, const struct hck_result *r);
	void *ctx;
};
struct hck_prober_plan {
	struct hck_schedule_options schedule;
	uint32_t deadline_ms;
	unsigned concurrency;
	const char *ca_file; // copied; NULL: the system's
};

int hck_prober_new(const struct hck_prober_options *opt,
		   struct hck_prober **ret) SP_MUST_CHECK; // 0; -ENOMEM
void hck_prober_free(struct hck_prober *p);                // NULL is fine
// What holds from the next probe on. 0; -ENOMEM.
int hck_prober_set_plan(struct hck_prober *p,
			const struct hck_prober_plan *plan) SP_MUST_CHECK;
// Becomes the prober's in every case. Those that stay go on; results of others stop. 0;
// -ENOMEM: all are gone.
int hck_prober_set_targets(struct hck_prober *p, struct hck_targets *t) SP_MUST_CHECK;
// Who answers for the controller; copied.
void hck_prober_set_keys(struct hck_prober *p, const struct sp_signed_keys *keys);
// Copied. NULL: nobody, and no probe begins.
void hck_prober_set_who(struct hck_prober *p, const struct sp_probe_who *who);
// This place was cut off and is no more: all begin anew.
void hck_prober_refresh(struct hck_prober *p);

struct hck_probed { // for metrics
	const struct hck_target *target;
	const struct hck_result *last; // NULL: not probed yet
	uint64_t probes, failures;
	unsigned failures_in_a_row;
};
// Targets by index, which changes with set_targets only. False: no such.
bool hck_prober_get(const struct hck_prober *p, unsigned target, struct hck_probed *ret);
unsigned hck_prober_running(const struct hck_prober *p);
uint64_t hck_prober_postponed(const struct hck_prober *p); // for concurrency

#endif
