#include "worker/quarantine.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "lib/log.h"
#include "lib/text.h"
#include "worker/heir.h"

#define SHORT_ID 4 // bytes of a session's id in the log: its client logs the whole
#define MAGIC    UINT64_C(0x3145535546455253) // "SREFUSE1"

_Static_assert(sizeof(struct wrk_life) <= WRK_LIFE_REFUSED, "it has its own place");
_Static_assert(WRK_LIFE_REFUSED + sizeof(struct wrk_quarantine) <= WRK_LIFE_TAKEN,
	       "it has room");

static uint64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

struct wrk_quarantine *wrk_quarantine_of(struct wrk_life *life)
{
	struct wrk_quarantine *q = (void *)((uint8_t *)life + WRK_LIFE_REFUSED);
	if (q->magic != MAGIC) {
		memset(q, 0, sizeof(*q));
		sp_arena_fence();
		q->magic = MAGIC;
	}
	return q;
}

static void refuse(struct wrk_quarantine *q, const uint8_t *id)
{
	uint32_t at = q->next++ % WRK_QUARANTINE_IDS;
	q->refused[at].until_ms = 0; // no half an id counts
	sp_arena_fence();
	memcpy(q->refused[at].id, id, sizeof(q->refused[at].id));
	sp_arena_fence();
	q->refused[at].until_ms = now_ms() + WRK_QUARANTINE_MS;
	q->sessions++;
}

// Whether there were too many.
static bool judge_drain(struct wrk_quarantine *q, const struct wrk_life *life)
{
	unsigned n = wrk_life_crashes(life, 0, WRK_CRASH_WITHIN_MS);
	if (n < WRK_CRASHES_DRAIN)
		return false;
	q->drained_until_ms = now_ms() + WRK_DRAINED_MS;
	sp_error("worker", "drained: it crashes again and again", "crashes=%u for_s=%d",
		 n, WRK_DRAINED_MS / 1000);
	return true;
}

uint32_t wrk_quarantine_judge(struct wrk_quarantine *q, const struct wrk_life *life,
			      struct sp_arena *a)
{
	uint32_t n = 0;
	unsigned most = judge_drain(q, life) ? 1 : WRK_CRASHES_OF_ONE;
	for (uint32_t i = 0; i < sp_arena_session_top(a); i++) {
		const struct sp_session_rec *r = sp_arena_session(a, i);
		if (r->state != SP_REC_LIVE)
			continue;
		unsigned crashes =
			wrk_life_crashes(life, r->incarnation, WRK_CRASH_WITHIN_MS);
		if (crashes < most)
			continue;
		char id[2 * SHORT_ID + 1];
		sp_hex_encode(r->id, SHORT_ID, id, sizeof(id));
		refuse(q, r->id);
		n++;
		sp_error("worker", "session quarantined: it crashed the worker again",
			 "session=%s incarnation=%" PRIx64 " crashes=%u for_s=%d", id,
			 r->incarnation, crashes, WRK_QUARANTINE_MS / 1000);
		uint32_t ended = sp_arena_session_purge(a, i);
		sp_info("worker", "its streams and flows are reset", "n=%u", ended);
	}
	return n;
}

bool wrk_quarantine_holds(const struct wrk_quarantine *q, const uint8_t *id)
{
	for (uint32_t i = 0; q && q->sessions && i < WRK_QUARANTINE_IDS; i++)
		if (q->refused[i].until_ms && now_ms() < q->refused[i].until_ms &&
		    !memcmp(q->refused[i].id, id, sizeof(q->refused[i].id)))
			return true;
	return false;
}

bool wrk_quarantine_drains(const struct wrk_quarantine *q)
{
	return q && q->drained_until_ms && now_ms() < q->drained_until_ms;
}
