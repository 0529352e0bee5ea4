// What draining nodes still carry: by their leases, and by what their workers report.
// Tells operators of it, and once for each lease that a node is empty (event node-empty).
// A part of the role bus. Not here: leases themselves (controller/leases.h), what a
// worker does while it drains (worker/sessions.h).
//
// A node is empty when each of its workers that enrolled has said so over a link that is
// up here. A worker that is not heard is not empty: nobody knows.
#ifndef CON_DRAINS_H
#define CON_DRAINS_H

#include "controller/controller.h"
#include "controller/hub.h"

struct con_drain_view {
	unsigned workers;                  // of the node, that enrolled
	unsigned unheard;                  // of them, without a word of this boot
	unsigned starting;                 // of them, that do not say yet that they drain
	uint64_t streams, flows, sessions; // of those that are heard
	bool empty;
};

// Whether a worker's last word counts: its link is up, and it is of this boot.
bool con_drain_is_heard(const struct con_hub_peer *peer);
// Adds a worker of a draining node to `v`, which is zero at first; NULL: it was never
// here. Pure.
void con_drain_add(struct con_drain_view *v, const struct con_hub_peer *peer);

struct con_drains;
// For the lists of nodes and leases, too. 0 and *ret; -ENOMEM.
int con_drains_new(struct con_controller *c, struct con_drains **ret) SP_MUST_CHECK;
void con_drains_free(struct con_drains *d); // NULL is fine
// A worker's link or telemetry.
void con_drains_peer(struct con_drains *d, const struct con_hub_peer *peer);
// For a row of health: what is left on this worker ("NAME/N") if its node drains.
void con_drains_fill_worker(struct con_drains *d, const char *worker, json_t *into);
void con_drains_metrics(struct con_drains *d, struct sp_metrics_writer *w);

#endif
