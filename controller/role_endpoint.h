// The role that is the config endpoint: joins it with the fleet's state, quotas and
// health. Not here: the endpoint (controller/endpoint.h).
#ifndef CON_ROLE_ENDPOINT_H
#define CON_ROLE_ENDPOINT_H

#include "controller/controller.h"

extern const struct con_role con_role_endpoint;

#endif
