// The role that is the controller's end of the bus: who may join, what is published, and
// whose calls go where. Not here: the hub (controller/hub.h), what calls do (the roles
// that serve them).
#ifndef CON_ROLE_BUS_H
#define CON_ROLE_BUS_H

#include "controller/controller.h"
#include "controller/hub.h"

extern const struct con_role con_role_bus;

// What is left on a worker ("NAME/N") if its node drains: heard, empty, streams, flows.
void con_bus_fill_drain(struct con_controller *c, const char *worker, json_t *into);

#endif
