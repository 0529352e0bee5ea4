// The revision held: the highest that was ever in force, in a small file of the state
// folder, so that an older signed config is known for what it is also after a restart.
// Not here: what is refused because of it.
#ifndef SP_HELD_H
#define SP_HELD_H

#include "lib/fleet.h"

// 0 and *ret (zeros if there is no such file); SP_E_MALFORMED or -errno, and `why`, a
// clause with the path and the remedy.
int sp_held_load(const char *path, struct sp_fleet_revision *ret, char *why,
		 size_t cap) SP_MUST_CHECK;
// Replaces the file. 0; -errno and `why`.
int sp_held_save(const char *path, const struct sp_fleet_revision *rev, char *why,
		 size_t cap) SP_MUST_CHECK;

#endif
