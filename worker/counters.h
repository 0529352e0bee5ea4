// Counters of one boot of the exit in memory that outlives it: totals and gauges, users'
// bytes, and the rendered metrics, in a file (or in a memfd where the disk is full). The
// exit stores to it by plain writes to mapped memory; its agent reads copies. Here: the
// writer with its accounts; the layout, for counters_read.c. Not here: reading it
// (worker/counters_read.h), segments of boots that ended (worker/segments.h).
//
// A user gets a slot at the first session of a boot and keeps it, so that the totals of
// (boot, user) never fall. With all slots taken the segment ends as if its boot did, and
// a new one with a boot id of its own begins with those users that have sessions.
#ifndef WRK_COUNTERS_H
#define WRK_COUNTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "lib/pass.h"
#include "worker/exit.h"

// ---- layout: host byte order, offsets by the header ----

#define WRK_COUNTERS_MAGIC      UINT64_C(0x31524e5443505353) // "SSPCTNR1"
#define WRK_COUNTERS_VERSION    1
#define WRK_COUNTERS_HEAD_BYTES 4096
#define WRK_COUNTERS_TEXT_BYTES 131072 // of each form of the metrics
#define WRK_COUNTERS_USERS_MAX  65536

enum wrk_gauge { // absolute; never renumber
	WRK_GAUGE_SESSIONS,
	WRK_GAUGE_STREAMS,
	WRK_GAUGE_FLOWS,
	WRK_GAUGE_DRAINING,
	WRK_GAUGE_READY,
	WRK_GAUGE_SESSIONS_MADE,
	WRK_GAUGE_SESSIONS_REFUSED,
	WRK_GAUGE_SESSIONS_ADOPTED,
	WRK_GAUGE_STREAMS_OPENED,
	WRK_GAUGE_DIAL_FAILURES,
	WRK_GAUGE_BYTES_UP,
	WRK_GAUGE_BYTES_DOWN,
	WRK_GAUGE_BEAT_MS, // CLOCK_BOOTTIME, when these were written
	WRK_GAUGES
};

enum wrk_text { WRK_TEXT_PROMETHEUS, WRK_TEXT_OPENMETRICS, WRK_TEXTS };

struct wrk_counters_head {
	uint64_t magic;
	uint32_t version;
	uint32_t users_max;
	uint64_t boot;
	uint64_t made_ms;       // Unix
	_Atomic uint32_t users; // slots in use
	uint32_t gauges;        // WRK_GAUGES of the writer
	struct {
		_Atomic uint32_t turn; // odd while it is written
		uint32_t len;
	} text[WRK_TEXTS];
	uint64_t gauge[64];
};

struct wrk_counters_user {
	char name[SP_PASS_USER_MAX + 8]; // with its NUL
	uint32_t live;                   // sessions
	uint32_t spare;
	struct wrk_usage usage;
};

size_t wrk_counters_bytes(uint32_t users_max); // of a whole segment
size_t wrk_counters_text_at(enum wrk_text which);
size_t wrk_counters_user_at(uint32_t i);

// ---- the writer ----

struct wrk_counters;

// A user of this exit: where to count, and what is left.
struct wrk_account {
	struct wrk_usage *usage; // changes when a new segment begins
	bool limited;
	uint64_t quota; // total of up and down at which it is used up
};

struct wrk_counters_options {
	const char *folder; // NULL, or no room there: a memfd
	uint32_t users;     // slots, at most WRK_COUNTERS_USERS_MAX
	uint64_t boot;
	// A new segment has begun; the old one's totals are final. `fd` (read-only) and
	// `path` (malloc'd, or NULL) of the old one are the callee's.
	void (*ended)(void *ctx, uint64_t boot, int fd, char *path);
	void *ctx;
};

// 0 and *ret; -ENOMEM, -errno: not even a memfd.
int wrk_counters_new(const struct wrk_counters_options *opt,
		     struct wrk_counters **ret) SP_MUST_CHECK;
// The segment stays where it is. No account may be used any more. NULL is fine.
void wrk_counters_free(struct wrk_counters *c);
uint64_t wrk_counters_boot(const struct wrk_counters *c);    // of the segment in use
int wrk_counters_fd(const struct wrk_counters *c);           // read-only; borrowed
const char *wrk_counters_path(const struct wrk_counters *c); // NULL: a memfd

// The user's account for as long as it has sessions here, at least until the next call of
// this. NULL: no memory, or WRK_COUNTERS_USERS_MAX users have sessions.
struct wrk_account *wrk_counters_account(struct wrk_counters *c, const char *user);
// NULL: not known in this segment.
struct wrk_account *wrk_counters_find(struct wrk_counters *c, const char *user);
// Counts a session more (1) or less (-1).
void wrk_counters_session(struct wrk_counters *c, struct wrk_account *a, int by);
// True if it had no quota left.
bool wrk_account_is_over(const struct wrk_account *a);

void wrk_counters_set(struct wrk_counters *c, enum wrk_gauge gauge, uint64_t v);
// 0; SP_E_LIMIT: longer than WRK_COUNTERS_TEXT_BYTES, the old text stays.
int wrk_counters_set_text(struct wrk_counters *c, enum wrk_text which, const void *text,
			  size_t len) SP_MUST_CHECK;

#endif
