#include "lib/replica.h"

#include <string.h>

void sp_replica_done(struct sp_replica *r)
{
	sp_state_free(r->state);
	r->state = NULL;
	r->position = (struct sp_position){0};
}

void sp_staged_done(struct sp_staged *s)
{
	sp_state_free(s->state);
	*s = (struct sp_staged){0};
}

static int follow(const struct sp_replica *r, const struct sp_revision *rev,
		  struct sp_staged *ret)
{
	struct sp_state *next = NULL;
	int err = r->state ? sp_state_clone(r->state, &next) : sp_state_new(&next);
	if (!err)
		err = sp_state_apply(next, &rev->changes);
	if (!err && memcmp(sp_state_hash(next), rev->state, SP_STATE_HASH_BYTES) != 0)
		err = SP_E_PROTOCOL;
	if (err) {
		sp_state_free(next);
		return err;
	}
	ret->state = next;
	ret->position = rev->position;
	return 0;
}

int sp_replica_stage_revision(const struct sp_replica *r, const void *text, size_t len,
			      struct sp_staged *ret)
{
	struct sp_revision rev;
	int err = sp_revision_open(&r->keys, text, len, &rev);
	if (err)
		return err;
	if (sp_position_compare(&rev.position, &r->position) <= 0)
		err = SP_E_STALE;
	else if (rev.position.sequence != r->position.sequence + 1 ||
		 memcmp(rev.previous, r->position.hash, sizeof(rev.previous)) != 0)
		err = SP_E_AGAIN;
	else
		err = follow(r, &rev, ret);
	sp_revision_done(&rev);
	return err;
}

int sp_replica_stage_snapshot(const struct sp_replica *r, const void *text, size_t len,
			      struct sp_staged *ret)
{
	struct sp_staged s = {0};
	int err = sp_snapshot_open(&r->keys, text, len, &s.state, &s.position);
	if (err)
		return err;
	if (r->state && sp_position_compare(&s.position, &r->position) <= 0) {
		sp_staged_done(&s);
		return SP_E_STALE;
	}
	*ret = s;
	return 0;
}

void sp_replica_take(struct sp_replica *r, struct sp_staged *s)
{
	sp_state_free(r->state);
	r->state = s->state;
	r->position = s->position;
	*s = (struct sp_staged){0};
}
