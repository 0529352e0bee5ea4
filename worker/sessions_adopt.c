// Sessions of another process of this worker, from the arena that outlived it: each with
// its user, its limits, its streams and their sockets. Their clients come back by resume.
#include <stdlib.h>

#include "worker/sessions_internal.h"

struct adopting {
	struct wrk_sessions *t;
	struct wrk_session **of; // by index of the record
	bool *owned;             // by descriptor
	int n_owned;
	struct wrk_sessions_found *n;
};

static struct wrk_session *owner(const struct adopting *ad, uint32_t record)
{
	return record < sp_arena_session_top(ad->t->opt.arena) ? ad->of[record] : NULL;
}

static void adopt_sessions(struct adopting *ad)
{
	struct sp_arena *a = ad->t->opt.arena;
	for (uint32_t i = 0; i < sp_arena_session_top(a); i++) {
		if (sp_arena_session(a, i)->state != SP_REC_LIVE)
			continue;
		uint64_t before = sp_arena_work_for(a, i);
		ad->of[i] = session_of_record(ad->t, i);
		sp_arena_work_was(a, before);
		if (ad->of[i])
			ad->n->sessions++;
		else
			ad->n->lost++;
	}
}

static void adopt_streams(struct adopting *ad)
{
	struct sp_arena *a = ad->t->opt.arena;
	for (uint32_t i = 0; i < sp_arena_stream_top(a); i++) {
		const struct sp_stream_rec *r = sp_arena_stream(a, i);
		if (r->rec_state != SP_REC_LIVE)
			continue;
		struct wrk_session *s = owner(ad, r->session);
		enum wrk_exit_taken what = WRK_EXIT_LOST;
		uint64_t before = sp_arena_work_for(a, r->session);
		if (s)
			what = wrk_exit_adopt_stream(&s->exit, s->engine, i, ad->owned,
						     ad->n_owned, &ad->n->repaired_bytes);
		sp_arena_work_was(a, before);
		ad->n->lost += what == WRK_EXIT_LOST;
		ad->n->redial += what == WRK_EXIT_REDIAL;
		ad->n->streams += what != WRK_EXIT_LOST;
	}
}

static void adopt_flows(struct adopting *ad)
{
	struct sp_arena *a = ad->t->opt.arena;
	for (uint32_t i = 0; i < sp_arena_flow_top(a); i++) {
		const struct sp_flow_rec *r = sp_arena_flow(a, i);
		if (r->rec_state != SP_REC_LIVE)
			continue;
		struct wrk_session *s = owner(ad, r->session);
		enum wrk_exit_taken what = WRK_EXIT_LOST;
		uint64_t before = sp_arena_work_for(a, r->session);
		if (s)
			what = wrk_exit_adopt_flow(&s->exit, s->engine, i, ad->owned,
						   ad->n_owned);
		sp_arena_work_was(a, before);
		ad->n->lost += what == WRK_EXIT_LOST;
		ad->n->flows += what != WRK_EXIT_LOST;
	}
}

void wrk_sessions_adopt(struct wrk_sessions *t, bool *owned, int n_owned,
			struct wrk_sessions_found *ret)
{
	struct adopting ad = {.t = t, .owned = owned, .n_owned = n_owned, .n = ret};
	*ret = (struct wrk_sessions_found){0};
	ad.of = calloc(sp_arena_session_top(t->opt.arena) + 1, sizeof(*ad.of));
	if (!ad.of)
		return;
	adopt_sessions(&ad);
	adopt_streams(&ad);
	adopt_flows(&ad);
	free(ad.of);
}
