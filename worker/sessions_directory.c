// Sessions that come from another home, and what the directory hears of those here.
#include <string.h>

#include "lib/log.h"
#include "lib/wire.h"
#include "worker/sessions_internal.h"

static struct wrk_session *of(struct wrk_directory_session *ds)
{
	return (struct wrk_session *)((char *)ds - offsetof(struct wrk_session, dir));
}

static void describe(void *ctx, struct wrk_directory_session *ds,
		     struct wrk_directory_facts *ret)
{
	const struct wrk_session *s = of(ds);
	const struct sp_session_pass *p = sp_session_rec_pass(s->rec);
	(void)ctx;
	*ret = (struct wrk_directory_facts){
		.engine = s->engine,
		.device = s->rec->device_key,
		.serial = p->serial,
		.user = s->rec->user,
		.tier = p->tier,
		.expires_s = p->expires_s,
		.rate_bps = p->rate_bps,
		.max_sessions = p->max_sessions,
		.max_streams = p->max_streams,
		.max_flows = p->max_flows,
		.live = s->place == ATTACHED,
	};
}

static struct wrk_directory_session *find(void *ctx, const uint8_t *id)
{
	struct wrk_session *s = session_find(ctx, id);
	return s ? &s->dir : NULL;
}

// With its client here the client's word counts: only it raises the epoch.
static void refused(void *ctx, struct wrk_directory_session *ds, enum sp_reason why)
{
	struct wrk_sessions *t = ctx;
	struct wrk_session *s = of(ds);
	if (why == SP_REASON_HOME_LOST && s->place == ATTACHED)
		wrk_directory_reclaim(t->directory, ds);
	else
		session_end(s, why);
}

const struct wrk_directory_ops wrk_sessions_directory_ops = {
	.describe = describe,
	.find = find,
	.refused = refused,
};

void wrk_sessions_set_directory(struct wrk_sessions *t, struct wrk_directory *d)
{
	struct wrk_session *s;
	t->directory = d;
	for (int p = 0; d && p < ENDING; p++) // those of the process before this one
		TAILQ_FOREACH(s, &t->places[p], list)
	wrk_directory_add(d, &s->dir);
}

// ---- coming here ----

// The record's pass holds if it is the newer one: an old pass does not undo what a new
// one said. False: the record is none of this user's.
static bool merge_pass(struct sp_pass *pass, const Sallyport__Fleet__SessionRecord *r)
{
	if (strcmp(r->user, pass->user) != 0)
		return false;
	if (r->expires_s <= pass->expires_s || r->serial.len != sizeof(pass->serial) ||
	    !r->tier[0] || strlen(r->tier) >= sizeof(pass->tier))
		return true;
	memcpy(pass->serial, r->serial.data, sizeof(pass->serial));
	strcpy(pass->tier, r->tier);
	pass->expires_s = r->expires_s;
	pass->rate_bps = r->rate_bps;
	pass->max_streams = r->max_streams;
	pass->max_flows = r->max_flows;
	return true;
}

static void restore_flows(struct wrk_session *s, const Sallyport__Fleet__SessionRecord *r)
{
	for (size_t i = 0; i < r->n_flows; i++) {
		struct sp_target target;
		struct sp_reader in;
		sp_reader_init(&in, r->flows[i]->target.data, r->flows[i]->target.len);
		sp_target_get(&in, &target);
		if (in.err || sp_reader_left(&in) || !r->flows[i]->id ||
		    sp_session_restore_flow(s->engine, r->flows[i]->id, &target))
			continue;
	}
}

// Until a controller says it anew; what was said already may be less.
static void take_quota(struct wrk_session *s, const Sallyport__Fleet__SessionRecord *r)
{
	struct wrk_account *a = s->user->account;
	if (!a || !r->quota_limited)
		return;
	uint64_t left = r->quota_left > 0 ? (uint64_t)r->quota_left : 0;
	uint64_t total = a->usage->up + a->usage->down + left;
	if (!a->limited || total < a->quota)
		a->quota = total;
	a->limited = true;
}

static enum sp_reason adopt(struct wrk_sessions *t, const struct sp_hs_accept *who,
			    const struct sp_attach *at,
			    const Sallyport__Fleet__SessionRecord *record,
			    struct wrk_session **ret)
{
	struct sp_pass pass = who->pass;
	if (memcmp(record->id.data, at->session, SP_SESSION_ID_BYTES) != 0 ||
	    memcmp(record->device.data, who->device, sizeof(who->device)) != 0 ||
	    !merge_pass(&pass, record))
		return SP_REASON_NOT_YOURS;
	if (at->epoch <= record->epoch)
		return SP_REASON_STALE_EPOCH;
	enum sp_reason why = session_judge_pass(t, &pass);
	if (!why)
		why = session_check_room(t, &pass, true);
	if (!why)
		why = session_make(t, &pass, at->session, record, ret);
	if (why)
		return why;
	t->n.adopted++;
	take_quota(*ret, record);
	restore_flows(*ret, record);
	return SP_REASON_NONE;
}

enum sp_reason session_arrive(struct wrk_sessions *t, struct sp_link *l,
			      const struct sp_hs_accept *who, const struct sp_attach *at,
			      struct wrk_session **ret)
{
	bool parked = at->flags & SP_ATTACH_PARKED;
	struct wrk_directory_question q = {
		.id = at->session,
		.device = who->device,
		.user = who->pass.user,
		.epoch = at->epoch,
		.left = !parked,
	};
	struct wrk_directory_answer a = {.verdict = WRK_DIRECTORY_UNAVAILABLE};
	*ret = NULL;
	if (t->directory && (at->flags & SP_ATTACH_MOVED))
		wrk_directory_ask(t->directory, l, &q, &a);
	switch (a.verdict) {
	case WRK_DIRECTORY_WAIT:
		return SP_REASON_NONE;
	case WRK_DIRECTORY_ADOPTED:
		return adopt(t, who, at, a.record, ret);
	case WRK_DIRECTORY_REFUSED:
		return a.why;
	case WRK_DIRECTORY_FRESH:
	case WRK_DIRECTORY_UNAVAILABLE:
		break;
	}
	if (parked)
		return SP_REASON_NOT_ADOPTED; // nobody knows its home to be dead
	enum sp_reason why =
		session_check_room(t, &who->pass, at->flags & SP_ATTACH_MOVED);
	return why ? why : session_make(t, &who->pass, at->session, NULL, ret);
}
