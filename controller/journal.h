// The chain of revisions on the controller's own disk: an append-only file of records,
// each on the disk (fdatasync) before it counts. Blocking I/O. Not here: what revisions
// mean (lib/revision.h), Redis (controller/chain.h).
//
// The file: a line that names the format, then records
//   length u32 | private length u32 | kind u8 | sum of these [4] | sum of all [16] | text
//   | private
// whose sums are the first bytes of BLAKE2b. The first record may be a base: a signed
// snapshot and all private entries, which stand for everything before. A torn last
// record, which a crash may leave, is cut off; damage anywhere else is an error, since
// what follows it was acknowledged.
#ifndef CON_JOURNAL_H
#define CON_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define CON_JOURNAL_RECORD_MAX (64u << 20)

enum con_journal_kind { CON_JOURNAL_REVISION = 1, CON_JOURNAL_BASE = 2 };

struct con_journal_record {
	enum con_journal_kind kind;
	const char *text; // signed
	size_t text_len;
	const char *private; // NULL: none
	size_t private_len;
};

struct con_journal;

// Opens or makes the file at `path` and calls `each` with every record in order; what it
// returns but 0 ends the reading with that error, and `why` is its own to set. 0, *ret
// and *ret_cut (bytes of a torn record that were cut off); -errno; SP_E_MALFORMED:
// damage, `why` says where and what to do.
int con_journal_open(const char *path,
		     int (*each)(void *ctx, const struct con_journal_record *r, char *why,
				 size_t cap),
		     void *ctx, struct con_journal **ret, uint64_t *ret_cut, char *why,
		     size_t cap) SP_MUST_CHECK;
void con_journal_close(struct con_journal *j); // NULL is fine

// Appends and syncs. 0; -errno (-ENOSPC …): nothing was added, the file is as before.
int con_journal_append(struct con_journal *j,
		       const struct con_journal_record *r) SP_MUST_CHECK;
// Takes the record appended last away again. 0; -errno.
int con_journal_undo(struct con_journal *j) SP_MUST_CHECK;
// A new file with nothing but this base takes the place of the old. 0; -errno: the old
// one stays.
int con_journal_rewrite(struct con_journal *j,
			const struct con_journal_record *base) SP_MUST_CHECK;
uint64_t con_journal_bytes(const struct con_journal *j);
// Bytes appended since the file was written anew or opened.
uint64_t con_journal_grown(const struct con_journal *j);

#endif
