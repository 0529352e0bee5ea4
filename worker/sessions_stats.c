// What the session table tells of itself, for metrics and telemetry.
#include "worker/sessions_internal.h"

void session_add_stats(struct sp_session_stats *sum, const struct sp_session_stats *s)
{
	sum->bytes_tx += s->bytes_tx;
	sum->bytes_rx += s->bytes_rx;
	sum->bytes_resent += s->bytes_resent;
	sum->bytes_dup += s->bytes_dup;
	sum->dgrams_tx += s->dgrams_tx;
	sum->dgrams_rx += s->dgrams_rx;
	sum->dgram_bytes_tx += s->dgram_bytes_tx;
	sum->dgram_bytes_rx += s->dgram_bytes_rx;
	sum->dgrams_dropped += s->dgrams_dropped;
	sum->records_tx += s->records_tx;
	sum->records_rx += s->records_rx;
	sum->streams_refused += s->streams_refused;
	sum->flows_evicted += s->flows_evicted;
	sum->attaches += s->attaches;
	sum->resumes += s->resumes;
}

uint32_t wrk_sessions_live_streams(const struct wrk_sessions *t)
{
	return wrk_exit_counters(t->opt.exit)->streams;
}

uint32_t wrk_sessions_users(const struct wrk_sessions *t)
{
	return wrk_users_count(t->users);
}

const struct wrk_sessions_counters *wrk_sessions_counters(const struct wrk_sessions *t)
{
	return &t->n;
}

void wrk_sessions_stats(const struct wrk_sessions *t, struct sp_session_stats *ret)
{
	const struct wrk_session *s;
	*ret = t->gone;
	for (int p = 0; p < PLACES; p++)
		TAILQ_FOREACH(s, &t->places[p], list)
		{
			struct sp_session_stats one;
			sp_session_stats(s->engine, &one);
			session_add_stats(ret, &one);
			ret->replay_bytes += one.replay_bytes;
			ret->carriers += one.carriers;
			ret->streams += one.streams;
			ret->flows += one.flows;
		}
}

uint64_t wrk_sessions_detached_bytes(const struct wrk_sessions *t)
{
	const struct wrk_session *s;
	uint64_t sum = 0;
	TAILQ_FOREACH(s, &t->places[DETACHED], list)
	{
		struct sp_session_stats one;
		sp_session_stats(s->engine, &one);
		sum += one.replay_bytes;
	}
	return sum;
}

void wrk_sessions_tiers(const struct wrk_sessions *t,
			void (*each)(void *ctx, const struct wrk_tally *tally,
				     uint32_t sessions),
			void *ctx)
{
	const struct tier *tier;
	TAILQ_FOREACH(tier, &t->tiers, link)
	each(ctx, &tier->tally, tier->sessions);
}
