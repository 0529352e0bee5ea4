// One end of many chaos streams: sending by plan, checking what comes, pacing, pauses,
// and the time without progress where progress was due. Application and destination share
// it. Not here: how a stream comes about (app.c, dest.c), what a whole history says
// (history.py).
#ifndef CHAOS_FLOWS_H
#define CHAOS_FLOWS_H

#include <stdio.h>
#include <sys/queue.h>

#include "tests/chaos/content.h"

enum {
	FLOW_HEADER_BYTES = 48,
	FLOW_DOWN_AFTER_UP = 1, // the destination begins when it has seen our end
	FLOW_UP_AFTER_DOWN = 2, // the application begins, or ends, after the destination
	WHEEL_SLOTS = 4096,
	WHEEL_MS = 2,
	STALL_SLOTS = 200000, // of a tenth of a millisecond
};

// What both ends know of a stream: its first bytes, from the application.
struct flow_plan {
	uint32_t id;
	uint8_t kind, flags;
	uint16_t interval_ms;          // between two writes of a paced sender
	uint64_t up_total, down_total; // bytes after the header
	uint32_t unit; // not 0: request and answer of as many bytes, one at a time
	uint32_t rate; // bytes a second of each sender; 0: as it goes
	uint32_t pause_every, pause_ms; // the destination reads nothing so often, so long
	uint32_t attempt;               // of the application
};

enum flow_state { FLOW_GOING, FLOW_DONE, FLOW_FAILED };

struct flow {
	LIST_ENTRY(flow) wheel; // when it is `asleep`
	LIST_ENTRY(flow) all;
	int fd;
	bool server, asleep, live; // live: header through, streams run
	uint32_t interest;         // what epoll was told
	struct flow_plan plan;
	struct content_track rx;
	bool eof, fin;                  // theirs came, ours is sent
	uint64_t sent, total;           // ours
	uint64_t quota, quota_at_ns;    // pacing: up to which offset, when more
	uint64_t think_ns, think_at_ns; // unit, application: pause, and its end
	uint64_t pause_from, pause_until_ns;
	uint32_t pause_every, pause_ms; // own
	uint64_t wake_ns;
	uint64_t opened_ns, first_ns;     // application: asked for; the first byte came
	uint64_t due_ns;                  // progress has been due since; 0: it is not
	uint64_t stall_ns, mark_stall_ns; // the longest: ever, since the last mark
	uint32_t mark;                    // the last one that it has made progress after
	int error;
	void *own; // the program's
};

// Distribution of durations in tenths of a millisecond.
struct stalls {
	uint32_t n[STALL_SLOTS + 1];
};

struct engine {
	int epoll;
	FILE *history;
	uint64_t now_ns; // of this turn
	uint64_t wheel_ns;
	LIST_HEAD(, flow) slots[WHEEL_SLOTS];
	LIST_HEAD(, flow) flows;
	uint64_t rx_bytes, tx_bytes; // verified or not
	uint64_t live, done, failed, bad;
	bool armed;    // pauses are counted since the mark
	uint32_t mark; // counts them
	uint64_t mark_ns;
	bool stopping;
	struct stalls *first,
		*pause; // after a mark: to the first byte, the longest pause
	void (*end)(struct engine *e, struct flow *f, enum flow_state how);
	void (*ready)(struct engine *e, struct flow *f, uint32_t events); // !live
	void (*line)(struct engine *e, char *line); // of standard input
	struct flow *input;
};

uint64_t flows_now_ns(void);

// Ends the program with a line that says why. printf's arguments.
_Noreturn void flows_die(const char *what);

// history: file that is written; callbacks are the caller's to set. Raises the limit of
// descriptors.
void engine_init(struct engine *e, const char *history);

// Turns until there is no flow and `stopping`, or the end of input.
void engine_run(struct engine *e);

// Registers with epoll for these events; not live, no timer. The flow is the engine's
// list's.
void engine_add(struct engine *e, struct flow *f, uint32_t events);
void engine_watch(struct engine *e, struct flow *f, uint32_t events);
// Calls `ready` or the pump at that time, unless it is asked for another.
void engine_wake_at(struct engine *e, struct flow *f, uint64_t ns);
// Off all lists, descriptor closed. Memory stays the caller's.
void engine_drop(struct engine *e, struct flow *f);

// The plan is set: streams begin.
void flow_begin(struct engine *e, struct flow *f);
// Sends and receives what can be; calls `end` when the flow is over.
void flow_pump(struct engine *e, struct flow *f, uint32_t events);
// The application wants no more: what it has begun is ended in order.
void flow_stop(struct engine *e, struct flow *f);

void flow_plan_pack(const struct flow_plan *p, uint8_t *to); // FLOW_HEADER_BYTES
bool flow_plan_parse(const uint8_t *from, struct flow_plan *ret);

// The history's line of one end of a stream; `how`: "done", "failed", "open". `conn`
// tells connections of the same stream apart.
void flow_history(struct engine *e, const struct flow *f, const char *how, uint32_t conn);

// Counts pauses from here on, each flow's longest and the one to its first byte. at_ns:
// when what is to be measured happened.
void engine_mark(struct engine *e, uint64_t at_ns);
// Keeps what was counted since the mark; until the next one nothing is.
void engine_calm(struct engine *e);
// `mark NS` (CLOCK_MONOTONIC), `calm`, `report`. False: another command.
bool engine_obey(struct engine *e, const char *text);
// One JSON object: counters; with distributions if `all`.
void engine_report(struct engine *e, const char *event, bool all);

#endif
