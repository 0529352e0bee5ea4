// The totals of controller/usage.h on the controller's own disk: a file of lines, each
// with its checksum, to which what changed is appended, and which is written anew when it
// has grown. An emptied Redis loses nothing of it. Blocking I/O, a few lines once a
// second. Not here: who reports, Redis.
//
// What is kept for ever: one line per user, one per boot that is open and user of it, one
// per closed boot that is remembered. A torn last line is cut off; a broken line in the
// middle is left out and counted (totals are absolute: the next report says them again).
#ifndef CON_USAGE_SPOOL_H
#define CON_USAGE_SPOOL_H

#include "controller/usage.h"

struct con_usage_spool;

struct con_usage_spool_counters {
	uint64_t lines_read, lines_broken;
	uint64_t lines_written, syncs, sync_failures, rewrites;
	uint64_t bytes; // of the file
};

// Reads `path` (or makes it) into `u`, which outlives the spool. Written anew once it
// holds `rewrite_bytes` more than after the last time. 0, *ret and *ret_fresh (there was
// nothing in it); -errno, SP_E_LIMIT, SP_E_MALFORMED: not a spool; and a clause in `why`.
int con_usage_spool_open(struct con_usage *u, const char *path, uint64_t rewrite_bytes,
			 struct con_usage_spool **ret, bool *ret_fresh, char *why,
			 size_t cap) SP_MUST_CHECK;
void con_usage_spool_close(struct con_usage_spool *s); // without a sync; NULL is fine

// Notes for the next sync what is said here, of what `u` holds now.
void con_usage_spool_user(struct con_usage_spool *s, const char *user);   // base, period
void con_usage_spool_all_of(struct con_usage_spool *s, const char *user); // and entries
void con_usage_spool_entry(struct con_usage_spool *s, const char *user,
			   const char *worker, uint64_t boot,
			   const struct con_usage_sum *sum);
void con_usage_spool_closed(struct con_usage_spool *s, const char *worker, uint64_t boot);
// Everything noted is on the disk (fdatasync). 0; -errno: the disk is full or broken;
// nothing is forgotten, the next sync writes everything anew.
int con_usage_spool_sync(struct con_usage_spool *s) SP_MUST_CHECK;
const struct con_usage_spool_counters *
con_usage_spool_counters(const struct con_usage_spool *s);

#endif
