// The one place where sockets to destinations are made, so that each has the options that
// taking a flow over after a crash relies on. Not here: listeners, carriers, DNS.
#ifndef WRK_SOCKET_H
#define WRK_SOCKET_H

#include <stdbool.h>
#include <sys/socket.h>

#include "lib/addr.h"

struct wrk_socket_options {
	bool cloexec;           // SOCK_CLOEXEC
	struct sp_target bind4; // source address; kind 0: the kernel chooses
	struct sp_target bind6;
};

// A non-blocking socket. family: AF_INET or AF_INET6; type: SOCK_STREAM or SOCK_DGRAM.
// SOCK_STREAM: SO_OOBINLINE, TCP_NODELAY, never TCP fast open; bound to the source
// address without a port until connect. AF_INET6: IPV6_V6ONLY. Returns the descriptor,
// which the caller owns, or a negated errno.
int wrk_socket_new(const struct wrk_socket_options *opt, int family,
		   int type) SP_MUST_CHECK;

#endif
