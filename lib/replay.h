// An exact set of the 32-byte ephemeral keys of the last 180 s, in memory the caller
// gives: a struct, a table of entries and a hash index with indices only, so that it may
// lie in shared memory and be adopted after a crash. Pure: no I/O, the clock is a
// parameter. Every operation is O(1) on average and expiry is bounded per call.
//
// The clock is the one that timestamps are judged by (Unix ms), since an ephemeral must
// be known for as long as its timestamp would be accepted. A clock that steps back keeps
// entries up to twice the horizon.
#ifndef SP_REPLAY_H
#define SP_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define SP_REPLAY_KEY_BYTES  32
#define SP_REPLAY_HORIZON_MS 180000

struct sp_replay; // the memory itself

// Bytes of memory for `capacity` keys (1..2^24), a multiple of 8; 0 if out of range.
size_t sp_replay_bytes(uint32_t capacity);
// Makes an empty set in `mem` (8-aligned, `bytes` long). 0 and *ret == mem; -EINVAL.
int sp_replay_format(void *mem, size_t bytes, uint32_t capacity,
		     struct sp_replay **ret) SP_MUST_CHECK;
// Takes over a set that another process left, checking every field and building the index
// anew. 0 and *ret; SP_E_MALFORMED: not a set, or damaged; format it then.
int sp_replay_adopt(void *mem, size_t bytes, struct sp_replay **ret) SP_MUST_CHECK;

// True if `key` was added within the horizon.
bool sp_replay_seen(const struct sp_replay *r, const uint8_t *key, uint64_t now_ms);
// Adds `key`. 0; SP_E_REPLAY: it was there; SP_E_LIMIT: the set is full of keys that must
// be kept, so the flight must be refused.
int sp_replay_add(struct sp_replay *r, const uint8_t *key, uint64_t now_ms) SP_MUST_CHECK;
uint32_t sp_replay_count(const struct sp_replay *r); // keys held

#endif
