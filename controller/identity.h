// What the files hold that the controller's config names: its keys, the keys it trusts,
// the password of Redis. Not here: the config itself (config.h), TLS of the endpoint.
#ifndef CON_IDENTITY_H
#define CON_IDENTITY_H

#include "controller/config.h"
#include "lib/bus.h"
#include "lib/signed.h"

struct con_identity { // secrets: con_identity_done wipes
	uint8_t signing[SP_SIGNED_SECRET_BYTES];
	struct sp_bus_keys control;
	uint8_t route[32];
	struct sp_signed_keys trusted; // of other controllers
	char *redis_password;          // NULL: none
};

// 0 and *ret; SP_E_CONFIG: `why` begins with the key of the config.
int con_identity_load(const struct con_config *cfg, struct con_identity *ret, char *why,
		      size_t cap) SP_MUST_CHECK;
void con_identity_done(struct con_identity *id);

#endif
