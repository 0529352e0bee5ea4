// What one worker enforces, derived from the fleet's state: the JSON of a worker config
// (lib/fleet.h, kind 2). The controller derives and parses it for every worker before it
// signs a revision; the worker's agent derives it again and hands it to the exit process,
// which parses it with the same code. Pure: no I/O, no clock.
#ifndef SP_DERIVE_H
#define SP_DERIVE_H

#include "lib/fleet.h"
#include "lib/revision.h"

// The tier of health checkers' passes: every worker has it, with no limits, unless the
// state says another.
#define SP_DERIVE_VANTAGE_TIER ".vantage"
#define SP_WORKER_NAME_MAX     (SP_FLEET_NAME_MAX + 4) // "NAME/N", N up to 255

// Whether the text is "NAME/N".
bool sp_worker_name_is_valid(const char *worker);
// "NAME" of "NAME/N" to ret of SP_FLEET_NAME_MAX + 1. Returns ret.
char *sp_worker_node(const char *worker, char *ret);

// Config of worker "NAME/N" at `position`. 0, *ret (malloc'd, free) and *ret_len;
// SP_E_CONFIG: the state has no such worker, or something in it is not as it must be:
// `why` says what (SP_FLEET_WHY_MAX); -ENOMEM.
int sp_derive_worker(const struct sp_state *state, const char *worker,
		     const struct sp_position *position, uint64_t issued_s, char **ret,
		     size_t *ret_len, char *why, size_t cap) SP_MUST_CHECK;

// Who the workers of the fleet are, as another worker reaches them: those declared and
// enrolled, in the form of sp_fleet_members_parse, the same for all of them. Not part of
// a worker's config, which a controller derives for each: this is the agent's alone. 0,
// *ret (malloc'd, free) and *ret_len; -ENOMEM.
int sp_derive_members(const struct sp_state *state, char **ret,
		      size_t *ret_len) SP_MUST_CHECK;
// 32 bytes that change when sp_derive_members would give another text.
void sp_derive_members_hash(const struct sp_state *state, uint8_t *ret);

// Derives and parses the config of every worker, once for each that differ. 0;
// SP_E_CONFIG and others of sp_fleet_worker_parse, `why` names the worker.
int sp_derive_check(const struct sp_state *state, char *why, size_t cap) SP_MUST_CHECK;
// Whether a worker's config is made of what stands under this key. A change of other keys
// leaves a state that was checked a state that is checked.
bool sp_derive_depends_on(const char *key);

#endif
