// How far a TCP socket got, from the kernel's own counters: what lies in the records may
// be older than what the kernel did in the last system call of a process that was killed.
#ifndef WRK_OFFSETS_H
#define WRK_OFFSETS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"

struct wrk_offsets {
	uint64_t written; // bytes that we gave to the kernel, our FIN not counted
	uint64_t read;    // bytes that we took, the other side's FIN not counted
	bool sent_fin;    // shutdown was called
	bool got_fin;     // the other side's FIN is in order behind its bytes
	bool closed;      // over, by a reset or by both FINs; `written` does not hold
	int error;        // why, if the socket still knew: an errno
};

// For a socket that we connected, with SO_OOBINLINE, without TCP fast open. 0; -ENOTCONN:
// it never was; -errno: no TCP socket. An error that waits in it is taken.
int wrk_offsets_get(int fd, struct wrk_offsets *ret) SP_MUST_CHECK;

#endif
