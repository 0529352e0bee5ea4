// Packets between the exit process and its agent: one protobuf message each over a
// non-blocking SOCK_SEQPACKET socket, with at most one descriptor beside it; and sealed
// memfds for what is larger than a packet. Not here: what messages mean (proto/
// local.proto), processes (worker/agent_link.h).
#ifndef WRK_LOCAL_H
#define WRK_LOCAL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <protobuf-c/protobuf-c.h>

#include "lib/err.h"

#define WRK_LOCAL_PACKET_MAX 65536
#define WRK_LOCAL_MEMFD_MAX  (2u << 20)

// Sends `m` and, if it is not -1, the descriptor, which stays the caller's. 0; -EAGAIN:
// the other side does not read; SP_E_LIMIT: over WRK_LOCAL_PACKET_MAX; -EPIPE, -errno.
int wrk_local_send(int sock, const ProtobufCMessage *m, int fd) SP_MUST_CHECK;
// Receives one packet to `buf` of WRK_LOCAL_PACKET_MAX. Its length (> 0) and *ret_fd: a
// close-on-exec descriptor that is the caller's, or -1; 0: the other side closed;
// -EAGAIN; SP_E_LIMIT: a longer packet, dropped; -errno.
ssize_t wrk_local_receive(int sock, uint8_t *buf, int *ret_fd) SP_MUST_CHECK;

// A memfd of these bytes that nobody can change any more; read-only is enough to read it.
// The descriptor; -errno.
int wrk_local_memfd(const char *name, const void *bytes, size_t len) SP_MUST_CHECK;
// Copies what a sealed memfd holds; `fd` stays the caller's. 0, *ret (malloc'd, a NUL
// behind it, free()) and *ret_len; SP_E_PROTOCOL: no memfd, or not sealed against
// changes; SP_E_LIMIT: over `max`; -ENOMEM, -errno.
int wrk_local_memfd_read(int fd, size_t max, uint8_t **ret,
			 size_t *ret_len) SP_MUST_CHECK;

#endif
