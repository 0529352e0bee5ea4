// The state of a fleet: a map from keys such as "tier/free" to JSON objects, sorted, with
// an incremental hash. Copies share their entries, so that a change is tried on a copy
// and dropped if it does not hold. Pure: no I/O, no clock. Not here: what the objects
// mean (lib/derive.h, lib/fleetfile.h), signed changes (lib/revision.h).
//
// Keys under user/, token/, enrol/ and vantage/ are private: controllers alone have them.
// The hash covers the public ones: the XOR over entries of BLAKE2b-256(key NUL value). It
// shows that two states differ by a defect; against enemies there are signatures.
#ifndef SP_STATE_H
#define SP_STATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define SP_STATE_KEY_MAX     160 // bytes, without the NUL
#define SP_STATE_VALUE_MAX   65536
#define SP_STATE_ENTRIES_MAX 1000000
#define SP_STATE_HASH_BYTES  32

struct sp_state;

int sp_state_new(struct sp_state **ret) SP_MUST_CHECK; // empty. 0; -ENOMEM
// A copy that shares the entries: one pointer an entry. 0; -ENOMEM.
int sp_state_clone(const struct sp_state *s, struct sp_state **ret) SP_MUST_CHECK;
void sp_state_free(struct sp_state *s); // NULL is fine

// Words of letters, digits, '.', '_', '-', '+', '=', ':' joined by '/'; the first names
// the kind.
bool sp_state_key_is_valid(const char *key);
bool sp_state_key_is_private(const char *key);

// Sets `key` to the object, stored as canonical text (sorted, compact). 0;
// SP_E_MALFORMED: not a valid key or no object; SP_E_LIMIT; -ENOMEM.
int sp_state_put(struct sp_state *s, const char *key, const json_t *object) SP_MUST_CHECK;
// The same from text, which is parsed. `len` bytes.
int sp_state_put_text(struct sp_state *s, const char *key, const char *json,
		      size_t len) SP_MUST_CHECK;
// True if it was there.
bool sp_state_delete(struct sp_state *s, const char *key);

// Canonical text, valid until the state changes; NULL: no such key. `ret_len` may be
// NULL.
const char *sp_state_get(const struct sp_state *s, const char *key, size_t *ret_len);
// The same parsed; json_decref. NULL: no such key, or no memory.
json_t *sp_state_get_object(const struct sp_state *s, const char *key);

struct sp_state_entry {
	const char *key, *json;
	size_t json_len;
};
// Entries in the order of their keys (strcmp). `*at` is 0 to begin with and is the
// caller's to keep; the state must not change meanwhile. `prefix` "": all. False: no
// more.
bool sp_state_next(const struct sp_state *s, const char *prefix, size_t *at,
		   struct sp_state_entry *ret);
size_t sp_state_count(const struct sp_state *s, const char *prefix);
const uint8_t *sp_state_hash(const struct sp_state *s); // SP_STATE_HASH_BYTES
bool sp_state_equal(const struct sp_state *a, const struct sp_state *b); // all entries

// ---- changes ----

struct sp_change {
	char *key;
	char *json; // canonical; NULL: the key goes
};
struct sp_changes { // zero to begin with
	struct sp_change *v;
	size_t n, cap;
};
// Appends; `object` NULL: delete. 0; as sp_state_put.
int sp_changes_add(struct sp_changes *c, const char *key,
		   const json_t *object) SP_MUST_CHECK;
void sp_changes_done(struct sp_changes *c); // frees what it holds; zero again
// What turns `from` into `to`, of keys under `prefix` only, in the order of keys. 0;
// -ENOMEM.
int sp_changes_diff(const struct sp_state *from, const struct sp_state *to,
		    const char *prefix, struct sp_changes *ret) SP_MUST_CHECK;
// In order; all or, on an error, an unknown part of them: apply to a copy. 0; as
// sp_state_put.
int sp_state_apply(struct sp_state *s, const struct sp_changes *c) SP_MUST_CHECK;
// A list of {"key":…, "value":…|null}: new reference, NULL: no memory. `which`: only the
// private or only the public ones.
enum sp_changes_which { SP_CHANGES_ALL, SP_CHANGES_PUBLIC, SP_CHANGES_PRIVATE };
json_t *sp_changes_to_json(const struct sp_changes *c, enum sp_changes_which which);
// 0; SP_E_MALFORMED, SP_E_LIMIT; -ENOMEM.
int sp_changes_from_json(const json_t *list, struct sp_changes *ret) SP_MUST_CHECK;

#endif
