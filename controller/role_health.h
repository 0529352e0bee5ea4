// The role of health: feeds it with the fleet's state, what vantages report and what
// workers tell; shows it to operators; gives vantages their passes. Not here: the module
// itself (controller/health.h).
#ifndef CON_ROLE_HEALTH_H
#define CON_ROLE_HEALTH_H

#include "controller/controller.h"
#include "controller/hub.h"

extern const struct con_role con_role_health;

// A call of a peer. True: it is ours, and answered if it wants that.
bool con_health_call(struct con_controller *c, const struct con_hub_call *call,
		     const Sallyport__Fleet__ToController *m);
// A peer's hello or telemetry.
void con_health_peer(struct con_controller *c, const struct con_hub_peer *peer);

#endif
