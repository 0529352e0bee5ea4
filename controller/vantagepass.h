// The pass by which a vantage's probes are served: made when it asks, of the tier that
// every worker knows without being told (lib/derive.h). Pure but for the serial. Not
// here: users' passes.
#ifndef CON_VANTAGEPASS_H
#define CON_VANTAGEPASS_H

#include "lib/pass.h"
#include "lib/state.h"

#define CON_VANTAGE_PASS_S 90000 // 25 h

// For the device key it enrolled with (vantage/NAME of the state), signed with the
// 64-byte secret. Length of the blob in `out` of SP_PASS_BLOB_MAX; -ENOENT: no such
// vantage; SP_E_KEY: another device key; SP_E_MALFORMED.
int con_vantage_pass(const struct sp_state *state, const char *name,
		     const uint8_t *device, const uint8_t *secret, uint64_t now_s,
		     uint8_t *out) SP_MUST_CHECK;

#endif
