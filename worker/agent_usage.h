// Reports users' bytes to controllers: absolute totals of each boot of the exit, as often
// as they change, until they are acknowledged; and hands on what each user has left. A
// lost, doubled or late report changes nothing. Not here: the segments' layout
// (worker/counters.h), sockets (worker/agent.c).
#ifndef AGT_USAGE_H
#define AGT_USAGE_H

#include <stdbool.h>

#include "lib/loop.h"
#include "proto/fleet.pb-c.h"
#include "proto/local.pb-c.h"
#include "worker/counters_read.h"

#define AGT_USAGE_EVERY_MS   1000
#define AGT_USAGE_ANSWER_MS  5000  // then it is reported again
#define AGT_USAGE_REFRESH_MS 30000 // what is left of users that did nothing
#define AGT_USAGE_CHUNK      256   // users of one report

struct agt_usage;

struct agt_usage_ops {
	// A report to a controller, whose answer comes to agt_usage_on_answer with this
	// call. 0, or an error: nothing was sent.
	int (*report)(void *ctx, uint64_t call, Sallyport__Fleet__UsageReport *m);
	void (*quota)(void *ctx, Sallyport__Local__Quota *m); // to the exit
	void (*done)(void *ctx, uint64_t boot); // final totals are acknowledged
};

struct agt_usage_counters {
	uint64_t reports, acknowledged, lost; // lost: no answer in time
	uint64_t unreadable;                  // reads of a segment that failed
};

// 0 and *ret; -ENOMEM.
int agt_usage_new(struct sp_loop *loop, const struct agt_usage_ops *ops, void *ctx,
		  struct agt_usage **ret) SP_MUST_CHECK;
void agt_usage_free(struct agt_usage *u); // NULL is fine
// A segment of the exit; `fd` becomes the callee's. Of the same boot again: only whether
// it has ended.
void agt_usage_add(struct agt_usage *u, uint64_t boot, bool ended, int fd);
// The exit is gone: what is there is final.
void agt_usage_end(struct agt_usage *u);
// Controllers can be reached, or not.
void agt_usage_set_up(struct agt_usage *u, bool up);
void agt_usage_on_answer(struct agt_usage *u, uint64_t call,
			 const Sallyport__Fleet__UsageAnswer *m);
// The segment in use, freshly read; NULL: there is none.
struct wrk_counters_reader *agt_usage_current(struct agt_usage *u);
size_t agt_usage_waiting(const struct agt_usage *u); // ended ones
const struct agt_usage_counters *agt_usage_counters(const struct agt_usage *u);

#endif
