// Reading a segment of counters that another process writes: copies first, looks then, so
// that nothing changes between a check and its use; whatever stands in it, nothing beyond
// its bounds is touched. Not here: the layout and the writer (worker/counters.h).
#ifndef WRK_COUNTERS_READ_H
#define WRK_COUNTERS_READ_H

#include "worker/counters.h"

struct wrk_counters_reader {
	int fd; // owned; -1: none
	uint64_t boot;
	uint64_t gauge[WRK_GAUGES]; // of the last read
	struct wrk_counters_user *users;
	uint32_t n_users;
	uint64_t skipped; // slots with a name that cannot be
	struct {
		char *v; // malloc'd; NULL: none yet
		size_t len;
	} text[WRK_TEXTS];
};

// `fd` becomes the reader's in every case. 0; SP_E_MALFORMED: no such segment;
// SP_E_LIMIT: too large; SP_E_VERSION; -ENOMEM, -errno.
int wrk_counters_reader_init(struct wrk_counters_reader *r, int fd) SP_MUST_CHECK;
// Works on what an init that failed left.
void wrk_counters_reader_done(struct wrk_counters_reader *r);
// Copies gauges and users. 0; errors as above, then what was read before stays.
int wrk_counters_read(struct wrk_counters_reader *r) SP_MUST_CHECK;
// Copies a text. 0; -EAGAIN: its writer stopped in the middle, the last good copy stays;
// errors as above.
int wrk_counters_read_text(struct wrk_counters_reader *r,
			   enum wrk_text which) SP_MUST_CHECK;

#endif
