// Revisions and snapshots: signed changes of the fleet's state, chained by hashes, and
// the signed whole. Text form of lib/signed.h around JSON; the formats:
// docs/control-plane.md. Pure: no I/O, no clock. Not here: keeping them (controller/
// journal), who holds which (lib/replica.h).
#ifndef SP_REVISION_H
#define SP_REVISION_H

#include "lib/signed.h"
#include "lib/state.h"

#define SP_REVISION_FORMAT     1
#define SP_REVISION_HASH_BYTES 32
#define SP_REVISION_AUTHOR_MAX 64

// A place in the chain. Epochs rise when Redis was found behind; sequences rise by one
// with every revision, also over epochs. Zero: before the first revision.
struct sp_position {
	uint32_t epoch;
	uint64_t sequence;
	uint8_t hash[SP_REVISION_HASH_BYTES]; // BLAKE2b-256 of the signed text
};
// < 0: a is older than b; 0: epoch and sequence are the same; > 0: newer.
int sp_position_compare(const struct sp_position *a, const struct sp_position *b);
bool sp_position_same(const struct sp_position *a,
		      const struct sp_position *b); // the hash too

struct sp_revision {
	struct sp_position position;
	uint8_t previous[SP_REVISION_HASH_BYTES]; // hash of the one before; zero: the
						  // first
	uint64_t issued_ms;                       // Unix
	char author[SP_REVISION_AUTHOR_MAX + 1];  // who asked: plain ASCII, for people
	bool has_private;
	uint8_t private_hash[SP_REVISION_HASH_BYTES];
	uint8_t state[SP_STATE_HASH_BYTES]; // after it
	struct sp_changes changes;          // public ones
};
void sp_revision_done(struct sp_revision *r); // frees what it holds

// Signs what follows `before` (epoch: of the new one, >= before->epoch). `changes` may
// hold private ones: their text is made as well and its hash signed. `state`: after all
// changes. 0, *ret_text (malloc'd, *ret_len bytes and a NUL), *ret_private (malloc'd,
// NULL: none) and *ret_position; SP_E_LIMIT: too long; -ENOMEM.
int sp_revision_sign(const struct sp_position *before, uint32_t epoch, uint64_t issued_ms,
		     const char *author, const struct sp_changes *changes,
		     const struct sp_state *state, const uint8_t *secret, char **ret_text,
		     size_t *ret_len, char **ret_private,
		     struct sp_position *ret_position) SP_MUST_CHECK;
// Verifies and parses. 0 and *ret (sp_revision_done); errors of sp_signed_open_text,
// SP_E_MALFORMED, SP_E_VERSION, SP_E_LIMIT; -ENOMEM.
int sp_revision_open(const struct sp_signed_keys *keys, const void *text, size_t len,
		     struct sp_revision *ret) SP_MUST_CHECK;
// The private changes that belong to `r`. 0 and *ret (sp_changes_done); SP_E_SIGNATURE:
// not those that were signed for; SP_E_MALFORMED, SP_E_LIMIT; -ENOMEM.
int sp_revision_open_private(const struct sp_revision *r, const void *text, size_t len,
			     struct sp_changes *ret) SP_MUST_CHECK;

// The public entries of `state` at `position`. 0, *ret_text and *ret_len; SP_E_LIMIT;
// -ENOMEM.
int sp_snapshot_sign(const struct sp_position *position, uint64_t issued_ms,
		     const struct sp_state *state, const uint8_t *secret, char **ret_text,
		     size_t *ret_len) SP_MUST_CHECK;
// 0, *ret_state and *ret_position; errors as sp_revision_open; SP_E_MALFORMED also if the
// state hash does not agree or a private key is in it.
int sp_snapshot_open(const struct sp_signed_keys *keys, const void *text, size_t len,
		     struct sp_state **ret_state,
		     struct sp_position *ret_position) SP_MUST_CHECK;

#endif
