// The control socket: a unix socket for this user and root alone, where `sallyport
// status`, `down` and `reload` ask. One line in, one answer out, then the end. Both
// sides.
#ifndef CLI_CONTROL_H
#define CLI_CONTROL_H

#include <stddef.h>

#include "lib/err.h"
#include "lib/loop.h"

#define CLI_CONTROL_CLIENTS 16 // at once; beyond, the oldest is closed

struct cli_control_ops {
	// JSON, malloc'd; NULL: no memory.
	char *(*status)(void *ctx);
	// 0, or an error and a text.
	int (*reload)(void *ctx, char *why, size_t cap);
	void (*down)(void *ctx); // the answer is the end of the program
};

struct cli_control;
// Listens at `path`, where a dead socket is replaced (the caller holds a lock that says
// nobody else lives here). 0 and *ret; -errno, -ENOMEM.
int cli_control_new(struct sp_loop *loop, const char *path,
		    const struct cli_control_ops *ops, void *ctx,
		    struct cli_control **ret) SP_MUST_CHECK;
void cli_control_free(struct cli_control *c); // and removes the socket; NULL is fine

// The other side, blocking: sends `request` (no newline) and reads the answer to its end.
// 0, *ret malloc'd with a NUL behind it; -ECONNREFUSED, -ENOENT: nobody is there;
// -ETIMEDOUT; -errno.
int cli_control_ask(const char *path, const char *request, unsigned timeout_s, char **ret,
		    size_t *ret_len) SP_MUST_CHECK;

#endif
