// Connections that have been answered for the last time: ended in order, so that the
// answer arrives (closing a socket with something unread is a reset, which would destroy
// it), then closed. Each is read and discarded until the peer ends, two seconds or 256
// KiB; there are at most CLI_LINGER_MAX, beyond that the oldest is closed at once.
#ifndef CLI_LINGER_H
#define CLI_LINGER_H

#include "lib/loop.h"

#define CLI_LINGER_MAX 256

struct cli_linger;
int cli_linger_new(struct sp_loop *loop,
		   struct cli_linger **ret) SP_MUST_CHECK; // 0; -ENOMEM
void cli_linger_free(struct cli_linger *t);                // closes all; NULL is fine
// Ends our direction of `fd`, which becomes the callee's in every case.
void cli_linger_add(struct cli_linger *t, int fd);

#endif
