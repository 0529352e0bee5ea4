// The fleet file: what an operator declares of a fleet, YAML, as entries of the fleet's
// state. Everything is checked that one file can show: names, numbers, what refers to
// what, addresses that overlap; the first mistake is told with its line. The format:
// sallyport-fleet(5). Pure: no I/O, no clock. Not here: what is not declared but done
// (enrolments, leases, revocations, tokens), the rules' meaning (lib/policy.h).
#ifndef SP_FLEETFILE_H
#define SP_FLEETFILE_H

#include "lib/state.h"

#define SP_FLEETFILE_MAX     (16u << 20) // bytes
#define SP_FLEETFILE_WHY_MAX 512

// `name` stands for the file in `why`: "NAME:LINE: PLACE: what; remedy". 0 and *ret, a
// state with nothing but what the file declares (sp_fleetfile_owns); SP_E_CONFIG,
// SP_E_LIMIT, -ENOMEM.
int sp_fleetfile_parse(const char *name, const char *text, size_t len,
		       struct sp_state **ret, char *why, size_t cap) SP_MUST_CHECK;
// True for the keys that a fleet file declares, and whose absence from it means that they
// go.
bool sp_fleetfile_owns(const char *key);
// What turns `state` into what the file declares, and leaves the rest as it is. 0 and
// *ret (sp_changes_done); -ENOMEM.
int sp_fleetfile_diff(const struct sp_state *state, const struct sp_state *declared,
		      struct sp_changes *ret) SP_MUST_CHECK;

#endif
