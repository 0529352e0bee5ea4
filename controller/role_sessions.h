// The role that keeps what sessions need of a controller: the directory of sessions and
// users' totals, with the hub's calls about both. Not here: the modules themselves
// (controller/directory.h, controller/usage_store.h).
#ifndef CON_ROLE_SESSIONS_H
#define CON_ROLE_SESSIONS_H

#include "controller/controller.h"
#include "controller/hub.h"

extern const struct con_role con_role_sessions;

// A call of a peer. True: it is ours and will be answered.
bool con_sessions_call(struct con_controller *c, const struct con_hub_call *call,
		       const Sallyport__Fleet__ToController *m);
// sessions_list.c: answers GET /v1/sessions?user=&node=&limit=.
void con_sessions_list(struct con_controller *c, struct con_api_call *call);
// Redis and the journal are at the same place again.
void con_sessions_redis_up(struct con_controller *c);
// What the user has left; false: no quota.
bool con_sessions_quota_left(struct con_controller *c, const char *user, int64_t *ret);

#endif
