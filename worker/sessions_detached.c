// What becomes of detached sessions: their streams go when they are stale or memory is
// short, they themselves when nobody came for long. Not here: what goes when the table is
// full (sessions.c).
#include <inttypes.h>

#include "lib/log.h"
#include "worker/sessions_internal.h"

#define SHORT 8 // memory is short with less than 1/8 of the pool spare

static bool memory_is_short(const struct wrk_sessions *t)
{
	return sp_arena_chunks_spare(t->opt.arena) <
	       sp_arena_chunks_pool(t->opt.arena) / SHORT;
}

static void give_up(struct wrk_session *s, enum sp_reason reason)
{
	s->streams_gone = true;
	wrk_exit_session_reset(&s->exit, reason);
}

// Each by time of entry, so the first is the stalest.
void sessions_sweep_detached(struct wrk_sessions *t)
{
	const struct wrk_sessions_limits *l = &t->opt.limits;
	uint64_t now = sp_loop_now_us(t->opt.loop);
	struct wrk_session *s;
	while ((s = TAILQ_FIRST(&t->places[DETACHED])) &&
	       now - s->since_us >= UINT64_C(1000000) * l->keep_s)
		session_free(s, SP_REASON_STALE);
	TAILQ_FOREACH(s, &t->places[DETACHED], list)
	{
		uint64_t since = now - s->since_us;
		if (s->streams_gone)
			continue;
		if (since >= UINT64_C(1000) * l->stale_ms) {
			t->n.stale++;
			give_up(s, SP_REASON_STALE);
			continue;
		}
		if (since < UINT64_C(1000) * WRK_SESSIONS_GRACE_MS || !memory_is_short(t))
			return;
		uint64_t held = sp_session_pool_bytes(s->engine);
		if (!held)
			continue; // nothing is gained by it
		t->n.pressed++;
		sp_warn_limited(
			&t->pressure_log, now / 1000, "worker",
			"memory is short: a detached session gives up its streams",
			"bytes=%" PRIu64 " detached_s=%" PRIu64, held, since / 1000000);
		give_up(s, SP_REASON_PRESSURE);
	}
}
