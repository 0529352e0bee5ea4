// Which sessions may not come back: those whose work crashed their exit twice within a
// minute. The client's bytes that did it would be sent again after each crash. Such a
// session ends alone, its id is refused for a while; and a worker that crashes often
// takes no new sessions. What is known of it outlives the process, beside the life's
// record (worker/keeper.h), which counts the crashes. Not here: what is told to clients.
#ifndef WRK_QUARANTINE_H
#define WRK_QUARANTINE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/arena.h"
#include "worker/keeper.h"

#define WRK_CRASH_WITHIN_MS 60000
#define WRK_CRASHES_OF_ONE  2 // crashes of the same mark: quarantine
#define WRK_CRASHES_DRAIN   5 // crashes of any: no new sessions; then 1 is enough
#define WRK_DRAINED_MS      600000
#define WRK_QUARANTINE_MS   600000
#define WRK_QUARANTINE_IDS  64 // beyond, the oldest is forgotten

struct wrk_quarantine {
	uint64_t magic;
	uint64_t sessions;         // quarantined so far
	uint64_t drained_until_ms; // CLOCK_BOOTTIME, or 0
	uint32_t next;             // place of the next id
	struct {
		uint8_t id[16];
		uint64_t until_ms; // CLOCK_BOOTTIME
	} refused[WRK_QUARANTINE_IDS];
};

// What lies there for the worker of this life; made if nothing does.
struct wrk_quarantine *wrk_quarantine_of(struct wrk_life *life);
// Once for each process, before sessions are taken over: ends those in the arena that
// crashed it again. Their sockets have no owner then. What it met with goes to the log.
// Returns how many.
uint32_t wrk_quarantine_judge(struct wrk_quarantine *q, const struct wrk_life *life,
			      struct sp_arena *a);
// Whether a session of this id (16 bytes) is refused now. NULL: no.
bool wrk_quarantine_holds(const struct wrk_quarantine *q, const uint8_t *id);
// Whether crashes have drained the worker, and it still is. NULL: no.
bool wrk_quarantine_drains(const struct wrk_quarantine *q);

#endif
