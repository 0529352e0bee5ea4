// The operator API's routes about who may use the fleet: revocations and bearer tokens.
// Not here: passes, what workers do when somebody is revoked.
#ifndef CON_API_ACCESS_H
#define CON_API_ACCESS_H

#include "controller/api_fleet.h"

#define CON_REVOKED_KEPT_S 93600 // 26 h: longer than any pass holds

// Registers its routes with `f` as their context. 0; -ENOMEM.
int con_api_access_add(struct con_api_fleet *f) SP_MUST_CHECK;
// Adds to `c`: passes of the user from before now hold no more. 0; -ENOMEM.
int con_access_revoke_user(struct sp_changes *c, const char *user,
			   uint64_t now_s) SP_MUST_CHECK;

#endif
