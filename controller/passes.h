// What a user's device may have by the fleet's state, and the pass that says so. Passes
// hold 25 h and are made anew each hour, at an offset of the device, so that not all
// clients come at once; within its hour a device's pass is the same whoever makes it.
// Pure: no I/O, the clock is a parameter. Not here: who asks (tokens.h), how many devices
// there are (devices.h).
#ifndef CON_PASSES_H
#define CON_PASSES_H

#include "lib/pass.h"
#include "lib/state.h"

#define CON_PASS_VALID_S 90000 // 25 h, from the beginning of the hour
#define CON_PASS_SLOT_S  3600

// Why there is no pass. Told to holders of a good token only.
enum con_refusal {
	CON_REFUSAL_NONE,
	CON_REFUSAL_DISABLED, // by the operator
	CON_REFUSAL_EXPIRED,  // the user's time is over
	CON_REFUSAL_QUOTA,    // used up, until the next period
	CON_REFUSAL_DEVICES,  // too many devices
	CON_REFUSAL_DEVICE,   // no device key was shown
	CON_REFUSAL_REVOKED,  // this device was
	CON_REFUSAL_TIER,     // the user's tier is not there
	CON_REFUSALS,
};
const char *con_refusal_word(enum con_refusal r); // "disabled" ...; "none"

struct con_grant {
	enum con_refusal refusal; // of those that the user's entry shows, without a clock
	struct sp_pass pass;      // user, tier, limits, groups; the rest is zero
	uint64_t user_expires_s;  // 0: never
	uint64_t before_s;        // earlier passes of the user were revoked; 0: none
	unsigned max_devices;
};
// 0 and *ret; -ENOENT: there is no such user; -ENOMEM.
int con_grant_read(const struct sp_state *state, const char *user,
		   struct con_grant *ret) SP_MUST_CHECK;
// Whether a pass may be made now; `over`: the quota is used up.
enum con_refusal con_grant_judge(const struct con_grant *g, const struct sp_state *state,
				 const uint8_t *device, bool over, uint64_t now_s);

// The beginning of the device's current hour (Unix s); it ends CON_PASS_SLOT_S later.
uint64_t con_pass_slot(const uint8_t *device, uint64_t now_s);
// The pass of `device` (SP_PASS_DEVICE_BYTES) for the hour that began at `slot_s`.
// `state`: where revoked serials stand.
void con_pass_fill(const struct con_grant *g, const struct sp_state *state,
		   const uint8_t *device, uint64_t slot_s, struct sp_pass *ret);

#endif
