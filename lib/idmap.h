// A hash table from 64-bit ids to pointers: open addressing, no tombstones. Peers choose
// ids, so each table draws its own hash: nobody can aim at one place of it. No I/O, no
// clock.
#ifndef SP_IDMAP_H
#define SP_IDMAP_H

#include <stdint.h>

#include "lib/err.h"

struct sp_idmap_slot {
	uint64_t id;
	void *value; // NULL: empty
};

struct sp_idmap {
	struct sp_idmap_slot *slots; // NULL while empty
	uint32_t mask;
	uint32_t n;
	uint64_t key[2]; // of the hash
};

void sp_idmap_init(struct sp_idmap *m);
void sp_idmap_done(struct sp_idmap *m); // frees the table, not the values
void *sp_idmap_get(const struct sp_idmap *m, uint64_t id); // NULL: not there
// Sets `id`, which must not be there, to `value` (not NULL). 0; -ENOMEM.
int sp_idmap_put(struct sp_idmap *m, uint64_t id, void *value) SP_MUST_CHECK;
void sp_idmap_remove(struct sp_idmap *m, uint64_t id); // not there: nothing

#endif
