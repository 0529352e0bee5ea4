// Small files: read whole, replaced whole, and the check that a secret is private.
// Blocking I/O: for start, reload and tools, not for the data path.
#ifndef SP_FILE_H
#define SP_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/err.h"

#define SP_WHY_MAX 512 // enough for a text of what went wrong, with a path in it

struct sp_file_read {
	size_t max;  // bytes; more is SP_E_LIMIT
	bool secret; // refuse what others than the owner could read or write, or that
		     // belongs to neither us nor root
};
// Reads a regular file (links are followed) or a pipe. 0: *ret (malloc'd, a NUL behind
// it, free with sp_file_free) and *ret_len; SP_E_LIMIT; -EPERM: a secret that is not
// private; -errno. On failure `why` says it in one clause, with the path and the remedy;
// cap 0: no text.
int sp_file_read(const char *path, const struct sp_file_read *opt, uint8_t **ret,
		 size_t *ret_len, char *why, size_t cap) SP_MUST_CHECK;
// Wipes, then frees. NULL is fine.
void sp_file_free(uint8_t *buf, size_t len);

// Replaces (or makes) the file as a whole: whoever reads sees the old content or the new,
// also after a power cut. A temporary file of `mode` in the same folder, fsync, rename,
// fsync of the folder. A link at `path` is replaced, not followed. 0; -errno and `why`.
int sp_file_write(const char *path, const void *buf, size_t len, mode_t mode, char *why,
		  size_t cap) SP_MUST_CHECK;
// The same, but -EEXIST if there is a file already.
int sp_file_create(const char *path, const void *buf, size_t len, mode_t mode, char *why,
		   size_t cap) SP_MUST_CHECK;

#endif
