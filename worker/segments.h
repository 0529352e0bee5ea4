// Segments of counters whose boot has ended, kept until a controller has their totals: in
// the worker's state folder, which one worker at a time may use, or in memory. Not here:
// what is in them (worker/counters_read.h), the one in use (worker/counters.h).
#ifndef WRK_SEGMENTS_H
#define WRK_SEGMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define WRK_SEGMENTS_MAX 256 // beyond, the oldest is given up, which is logged

struct wrk_segments;

// Locks the folder and takes what lies in it; empty segments are removed. 0 and *ret;
// -EBUSY: another worker uses the folder; -ENOMEM, -errno.
int wrk_segments_open(const char *folder, struct wrk_segments **ret) SP_MUST_CHECK;
void wrk_segments_free(struct wrk_segments *s); // files stay; NULL is fine
// `fd` and `path` (malloc'd, NULL: none) become the list's.
void wrk_segments_add(struct wrk_segments *s, uint64_t boot, int fd, char *path);
// By age; `*at` is 0 to begin with. False: no more. `*ret_fd` is borrowed.
bool wrk_segments_next(const struct wrk_segments *s, size_t *at, uint64_t *ret_boot,
		       int *ret_fd);
// Its totals are known: removes it. False: no such.
bool wrk_segments_drop(struct wrk_segments *s, uint64_t boot);
size_t wrk_segments_count(const struct wrk_segments *s);
uint64_t wrk_segments_lost(const struct wrk_segments *s); // given up

#endif
