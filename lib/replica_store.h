// The last known good state of the fleet on disk: a signed snapshot and the
// signed revisions since, so that a worker or a vantage starts where it was when no
// controller answers. A torn tail is cut; what a full disk did not take is made good by
// the next snapshot. Blocking I/O. Not here: what to do with it.
#ifndef SP_REPLICA_STORE_H
#define SP_REPLICA_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/replica.h"

#define SP_REPLICA_STORE_LOG_BYTES (4u << 20) // more, or more revisions: wants a snapshot
#define SP_REPLICA_STORE_REVISIONS 512

struct sp_replica_store;

// Files `snapshot` and `revisions` in the folder, which must exist; neither need be
// there. 0 and *ret; -ENOMEM.
int sp_replica_store_new(const char *folder, struct sp_replica_store **ret) SP_MUST_CHECK;
void sp_replica_store_free(struct sp_replica_store *s); // NULL is fine
// Takes what is on disk into `r`, as far as it is signed, chained and newer than what is
// there. 0: perhaps nothing; -ENOMEM.
int sp_replica_store_load(struct sp_replica_store *s, struct sp_replica *r) SP_MUST_CHECK;
// The signed text of a revision that follows what is there; on the disk when this
// returns. 0; -errno: it is not, nor is any further one until the next snapshot.
int sp_replica_store_append(struct sp_replica_store *s, const void *text,
			    size_t len) SP_MUST_CHECK;
// A signed snapshot instead of all that is there. 0; -errno: the old stays.
int sp_replica_store_replace(struct sp_replica_store *s, const void *text,
			     size_t len) SP_MUST_CHECK;
// Too long, or behind: only a snapshot helps.
bool sp_replica_store_wants_snapshot(const struct sp_replica_store *s);
uint64_t sp_replica_store_errors(const struct sp_replica_store *s); // writes that failed
uint64_t sp_replica_store_bytes(const struct sp_replica_store *s);  // of both files

#endif
