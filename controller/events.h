// What happened in the fleet: the last events in memory for operators, each also a line
// of the log, with the place in the chain of revisions at which it happened. Not here:
// metrics.
//
// The ring holds CON_EVENTS_MAX; the oldest make room. Numbers go on, so that whoever
// asks for what is after one sees a gap.
#ifndef CON_EVENTS_H
#define CON_EVENTS_H

#include <jansson.h>

#include "lib/log.h"
#include "lib/loop.h"
#include "lib/revision.h"

#define CON_EVENTS_MAX      4096
#define CON_EVENT_TEXT_MAX  256
#define CON_EVENT_WORD_MAX  32
#define CON_EVENT_ABOUT_MAX 96

struct con_events;

// 0 and *ret; -ENOMEM.
int con_events_new(struct sp_loop *loop, struct con_events **ret) SP_MUST_CHECK;
void con_events_free(struct con_events *e); // NULL is fine
// Where the chain stands: borrowed, read at every event. NULL: nowhere.
void con_events_set_head(struct con_events *e, const struct sp_position *head);

// `kind`: a word such as "node-down"; `about`: the node, user, …; "": none. Longer texts
// are cut. Never a secret.
void con_events_add(struct con_events *e, enum sp_log_level level, const char *kind,
		    const char *about, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
// The number of the last event; 0: none yet.
uint64_t con_events_last(const struct con_events *e);
// Which events a list is of; zero: all.
struct con_events_filter {
	const char *kind;  // of this kind only; or NULL
	const char *about; // about this thing, "fra1", or a part of it, "fra1/0"; or NULL
	uint64_t since_ms; // Unix: not before
};
// Up to `limit` events after number `after`, the oldest first, as a list of objects
// {number, time_ms, level, kind, about, text, epoch, sequence}; of those that `want` lets
// through (NULL: all). `latest`: the last ones instead of the first. New reference; NULL:
// no memory.
json_t *con_events_list(const struct con_events *e, uint64_t after, size_t limit,
			bool latest, const struct con_events_filter *want);

#endif
