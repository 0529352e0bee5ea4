// The pace of a session: streams that used it up wait in their session's list, and the
// sweep lets them go on. Round robin, since a stream that uses it up again goes to the
// end.
#include "worker/exit_internal.h"

#define BURST_MIN 65536

static int64_t burst(const struct wrk_pace *p)
{
	int64_t tenth = (int64_t)(p->rate_bps / 10);
	return tenth > BURST_MIN ? tenth : BURST_MIN;
}

static void refill(struct wrk_pace *p, uint64_t now_us)
{
	uint64_t us = now_us - p->filled_us;
	if (us > 1000000)
		us = 1000000;
	p->tokens += (int64_t)(p->rate_bps / 1000 * us / 1000);
	p->filled_us = now_us;
	if (p->tokens > burst(p))
		p->tokens = burst(p);
}

size_t exit_pace_room(struct wrk_pace *p, size_t want, uint64_t now_us)
{
	if (!p->rate_bps)
		return want;
	if (now_us - p->filled_us >= 1000)
		refill(p, now_us);
	if (p->tokens <= 0)
		return 0;
	return (uint64_t)p->tokens < want ? (size_t)p->tokens : want;
}

bool exit_pace_dgram(struct wrk_pace *p, size_t len, uint64_t now_us)
{
	if (!p->rate_bps)
		return true;
	if (now_us - p->filled_us >= 1000)
		refill(p, now_us);
	if (p->tokens <= -burst(p))
		return false;
	exit_pace_take(p, len);
	return true;
}

static void pace_session(struct wrk_exit_session *es)
{
	if (es->is_paced)
		return;
	es->is_paced = true;
	TAILQ_INSERT_TAIL(&es->x->paced, es, paced);
}

void exit_pace_wait_down(struct exit_stream *s)
{
	if (s->down_waits)
		return;
	s->down_waits = true;
	TAILQ_INSERT_TAIL(&s->session->down_wait, s, down_wait);
	pace_session(s->session);
}

void exit_pace_wait_up(struct exit_stream *s)
{
	if (s->up_waits)
		return;
	s->up_waits = true;
	TAILQ_INSERT_TAIL(&s->session->up_wait, s, up_wait);
	pace_session(s->session);
}

static struct exit_stream *next_down(struct wrk_exit_session *es)
{
	struct exit_stream *s = TAILQ_FIRST(&es->down_wait);
	TAILQ_REMOVE(&es->down_wait, s, down_wait);
	s->down_waits = false;
	return s;
}

static struct exit_stream *next_up(struct wrk_exit_session *es)
{
	struct exit_stream *s = TAILQ_FIRST(&es->up_wait);
	TAILQ_REMOVE(&es->up_wait, s, up_wait);
	s->up_waits = false;
	return s;
}

void exit_pace_forget(struct exit_stream *s)
{
	if (s->down_waits)
		TAILQ_REMOVE(&s->session->down_wait, s, down_wait);
	if (s->up_waits)
		TAILQ_REMOVE(&s->session->up_wait, s, up_wait);
	s->down_waits = s->up_waits = false;
}

static void sweep_session(struct wrk_exit_session *es, uint64_t now_us)
{
	for (int i = 0; i < EXIT_TURN_STREAMS && !TAILQ_EMPTY(&es->down_wait) &&
			exit_pace_room(&es->down, 1, now_us);
	     i++)
		exit_stream_resume_source(next_down(es));
	for (int i = 0; i < EXIT_TURN_STREAMS && !TAILQ_EMPTY(&es->up_wait) &&
			exit_pace_room(&es->up, 1, now_us);
	     i++)
		exit_stream_resume_sink(next_up(es));
}

void exit_pace_sweep(struct wrk_exit *x)
{
	uint64_t now = exit_now(x);
	struct wrk_exit_session *next, *es = TAILQ_FIRST(&x->paced);
	for (; es; es = next) {
		sweep_session(es, now);
		next = TAILQ_NEXT(es, paced);
		if (!TAILQ_EMPTY(&es->down_wait) || !TAILQ_EMPTY(&es->up_wait))
			continue;
		TAILQ_REMOVE(&x->paced, es, paced);
		es->is_paced = false;
	}
}

void wrk_exit_session_init(struct wrk_exit_session *es, struct wrk_exit *x,
			   struct wrk_tally *tally)
{
	*es = (struct wrk_exit_session){.x = x, .tally = tally};
	es->adopting = SP_ARENA_NONE;
	es->own_at = &es->own;
	es->usage = &es->own_at;
	TAILQ_INIT(&es->streams);
	TAILQ_INIT(&es->down_wait);
	TAILQ_INIT(&es->up_wait);
}

void wrk_exit_session_set_usage(struct wrk_exit_session *es,
				struct wrk_usage *const *usage)
{
	es->usage = usage;
}

void wrk_exit_session_done(struct wrk_exit_session *es)
{
	if (es->is_paced)
		TAILQ_REMOVE(&es->x->paced, es, paced);
	es->is_paced = false;
}

void wrk_exit_session_set_rate(struct wrk_exit_session *es, uint64_t rate_bps)
{
	es->down.rate_bps = es->up.rate_bps = rate_bps;
}
