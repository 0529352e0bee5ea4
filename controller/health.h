// Health of the fleet: takes what vantages report and what workers tell, runs the verdict
// each cycle, says who is offered, and makes events of what changes. Not here: the rules
// (controller/verdict.h), the bus (controller/hub.h), what clients are sent
// (controller/view.h).
#ifndef CON_HEALTH_H
#define CON_HEALTH_H

#include <jansson.h>
#include <sys/queue.h>

#include "controller/events.h"
#include "controller/verdict.h"
#include "lib/loop.h"
#include "lib/metrics.h"
#include "lib/state.h"
#include "proto/fleet.pb-c.h"

#define CON_HEALTH_CYCLE_MS   250  // between cycles, unless the fleet says another
#define CON_HEALTH_HURRY_MS   20   // from a report that matters to a cycle
#define CON_HEALTH_PROBES_MAX 1024 // of one report; further ones are not looked at

struct con_health;
struct con_health_options {
	struct sp_loop *loop;
	struct con_events *events;
};
struct con_health_listener { // embed
	LIST_ENTRY(con_health_listener) chain;
	// What is offered to somebody may be another; from the loop, after a cycle.
	void (*changed)(void *ctx);
	void *ctx;
};
// 0 and *ret; -ENOMEM.
int con_health_new(const struct con_health_options *opt,
		   struct con_health **ret) SP_MUST_CHECK;
void con_health_free(struct con_health *h); // NULL is fine
void con_health_listen(struct con_health *h, struct con_health_listener *l);
void con_health_unlisten(struct con_health_listener *l); // of an unlisted one: nothing

// ---- what is known ----

// The whole state, at the start and when the chain was seeded anew; then each change (key
// and value; json NULL: gone) with the sequence of its revision, and, after the changes
// of one revision, con_health_settle.
void con_health_set_state(struct con_health *h, const struct sp_state *state,
			  uint64_t sequence);
void con_health_set(struct con_health *h, const char *key, const char *json, size_t len,
		    uint64_t sequence);
void con_health_settle(struct con_health *h);

// `vantage`: name without its kind, as the bus proved it. `boot` as in its hello.
void con_health_report(struct con_health *h, const char *vantage,
		       const Sallyport__Fleet__ProbeReport *r);
// `worker`: "NAME/N". A hello or telemetry of it.
void con_health_worker(struct con_health *h, const char *worker, uint64_t boot,
		       const Sallyport__Fleet__Telemetry *t); // t NULL: a hello

// ---- what follows ----

// Whether clients in `region` ("": unknown) are told of the worker, and by how many
// percent of its weight (1 to 100). One that is not known is not offered.
bool con_health_offered(struct con_health *h, const char *worker, const char *region,
			unsigned *ret_percent);
uint32_t con_health_latency_us(struct con_health *h, const char *worker,
			       const char *region); // 0: not known
// Whether the verdict is down, or held down.
bool con_health_is_down(struct con_health *h, const char *worker);
// See con_verdict_unreached.
unsigned con_health_unreached(struct con_health *h, const char *worker, uint32_t for_ms);

// {panic, blind, vantages:[…], nodes:[…]}, for operators. `node`: of that node or worker
// only, and with `views`: what each vantage sees of each carrier; NULL: all without it.
// New reference; NULL: no memory.
json_t *con_health_json(struct con_health *h, const char *node);
void con_health_status(const struct con_health *h, struct con_verdict_status *ret);
// [{name, region, state, sequence, fails, sees}] of the vantages. New reference.
json_t *con_health_vantages(struct con_health *h);
// The part of one worker, to `into`; an unknown one: nothing.
void con_health_fill(struct con_health *h, const char *worker, json_t *into);
void con_health_metrics(struct con_health *h, struct sp_metrics_writer *w);

#endif
