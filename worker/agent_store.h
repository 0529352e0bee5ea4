// The last known good state of the fleet on the agent's disk: a signed snapshot and the
// signed revisions since, so that a worker starts where it was when no controller
// answers. A torn tail is cut; what a full disk did not take is made good by the next
// snapshot. Blocking I/O. Not here: what to do with it (worker/agent_control.h).
#ifndef AGT_STORE_H
#define AGT_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/replica.h"

#define AGT_STORE_LOG_BYTES (4u << 20) // more, or more revisions: wants a snapshot
#define AGT_STORE_REVISIONS 512

struct agt_store;

// Files `snapshot` and `revisions` in the folder, which must exist; neither need be
// there. 0 and *ret; -ENOMEM.
int agt_store_new(const char *folder, struct agt_store **ret) SP_MUST_CHECK;
void agt_store_free(struct agt_store *s); // NULL is fine
// Takes what is on disk into `r`, as far as it is signed, chained and newer than what is
// there. 0: perhaps nothing; -ENOMEM.
int agt_store_load(struct agt_store *s, struct sp_replica *r) SP_MUST_CHECK;
// The signed text of a revision that follows what is there; on the disk when this
// returns. 0; -errno: it is not, nor is any further one until the next snapshot.
int agt_store_append(struct agt_store *s, const void *text, size_t len) SP_MUST_CHECK;
// A signed snapshot instead of all that is there. 0; -errno: the old stays.
int agt_store_replace(struct agt_store *s, const void *text, size_t len) SP_MUST_CHECK;
// Too long, or behind: only a snapshot helps.
bool agt_store_wants_snapshot(const struct agt_store *s);
uint64_t agt_store_errors(const struct agt_store *s); // writes that failed
uint64_t agt_store_bytes(const struct agt_store *s);  // of both files

#endif
