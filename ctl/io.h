// Files of the command line: read and written with the exit code and the text of what
// went wrong; keys given as files or texts. Not here: what files mean (ctl/describe.h).
#ifndef CTL_IO_H
#define CTL_IO_H

#include <sys/types.h>

#include "ctl/cli.h"
#include "lib/key.h"
#include "lib/signed.h"

#define CTL_FILE_MAX (SP_SIGNED_BODY_MAX + SP_SIGNED_LINE_MAX)

// Reads a file of at most CTL_FILE_MAX bytes; *ret is freed with sp_file_free. 0, or an
// exit code and said. `secret`: must be private.
int ctl_read(const struct ctl_call *call, const char *path, bool secret, uint8_t **ret,
	     size_t *ret_len) SP_MUST_CHECK;
// Writes a new file; replaces an old one only if `replace`. 0, or an exit code and said.
int ctl_write(const struct ctl_call *call, const char *path, const void *buf, size_t len,
	      mode_t mode, bool replace) SP_MUST_CHECK;
// Makes a folder, or takes one that is empty. 0, or an exit code and said.
int ctl_make_folder(const struct ctl_call *call, const char *path,
		    mode_t mode) SP_MUST_CHECK;
// "a/b" of the parts, malloc'd; ends the program if there is no memory.
__attribute__((format(printf, 1, 2))) char *ctl_text(const char *fmt, ...);

// A public key: the text itself, or a file with it. 0, or an exit code and said, with the
// name of the option it came by.
int ctl_public_key(const struct ctl_call *call, const char *option, const char *value,
		   enum sp_key_kind kind, uint8_t *ret) SP_MUST_CHECK;
// A secret key of a file. 0, or an exit code and said.
int ctl_secret_key(const struct ctl_call *call, const char *path, enum sp_key_kind kind,
		   uint8_t *ret) SP_MUST_CHECK;
// All public signing keys of a repeated option. 0, or an exit code and said.
int ctl_trusted_keys(const struct ctl_call *call, const char *option,
		     struct sp_signed_keys *ret) SP_MUST_CHECK;

#endif
