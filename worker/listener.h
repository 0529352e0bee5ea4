// A listening TCP socket: accepts in bounded batches and hands descriptors on. Not here:
// carriers, links, whom to serve.
//
// Out of descriptors or memory it stops accepting and tries again after a while that
// doubles from 10 ms to 1 s: clients wait in the kernel's queue meanwhile, nothing spins,
// nobody is accepted only to be closed.
#ifndef WRK_LISTENER_H
#define WRK_LISTENER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lib/err.h"
#include "lib/loop.h"

struct wrk_listener;

struct wrk_listener_counters {
	uint64_t accepted;
	uint64_t aborted;        // gone before accept gave them
	uint64_t no_descriptors; // times accept found none (EMFILE, ENFILE)
	uint64_t no_memory;      // ENOBUFS, ENOMEM
	bool paused;             // waiting to try again
};

struct wrk_listener_options {
	struct sp_loop *loop;
	// A new connection; non-blocking, close-on-exec; the callee's. `peer` is the
	// source address.
	void (*accepted)(void *ctx, int fd, const struct sockaddr *peer);
	// May be NULL: descriptors are exhausted. True: one was freed, try again at once.
	bool (*starved)(void *ctx);
	void *ctx;
};

// A bound, listening socket (SO_REUSEADDR; IPv6 takes IPv6 only), non-blocking and
// close-on-exec. The descriptor; -errno.
int wrk_listener_bind(const struct sockaddr *addr, socklen_t len,
		      int backlog) SP_MUST_CHECK;
// Accepts from a listening descriptor, which becomes the listener's in every case. 0 and
// *ret; -ENOMEM.
int wrk_listener_new(int fd, const struct wrk_listener_options *opt,
		     struct wrk_listener **ret) SP_MUST_CHECK;
void wrk_listener_free(struct wrk_listener *l); // closes; NULL is fine
// Stops accepting for good; the socket stays open but refuses nobody until it is freed.
void wrk_listener_stop(struct wrk_listener *l);
int wrk_listener_fd(const struct wrk_listener *l);
const struct wrk_listener_counters *wrk_listener_counters(const struct wrk_listener *l);
// The address it is bound to (a port 0 is known then). 0; -errno.
int wrk_listener_address(const struct wrk_listener *l, struct sockaddr_storage *ret,
			 socklen_t *ret_len) SP_MUST_CHECK;

#endif
