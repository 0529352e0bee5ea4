#include "controller/fleet.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <sodium.h>

#include "controller/fleet_internal.h"
#include "lib/derive.h"

#define COMPACT_BYTES (8u << 20) // the journal grown by so much is written anew
#define TRIES_MAX     3

void con_fleet_tell(struct con_fleet *f, enum con_fleet_event what, const char *fmt, ...)
{
	char text[256];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (f->event)
		f->event(f->ctx, what, text);
}

void con_fleet_record_done(struct con_fleet_record *r)
{
	free(r->text);
	free(r->private);
	*r = (struct con_fleet_record){0};
}

// ---- revisions ----

int con_fleet_sign(struct con_fleet *f, const struct sp_position *before, uint32_t epoch,
		   const char *author, const struct sp_changes *changes,
		   const struct sp_state *state, struct con_fleet_record *ret)
{
	memcpy(ret->previous, before->hash, sizeof(ret->previous));
	return sp_revision_sign(before, epoch, sp_loop_unix_ms(f->loop), author, changes,
				state, f->secret, &ret->text, &ret->len, &ret->private,
				&ret->position);
}

int con_fleet_write(struct con_fleet *f, const struct con_fleet_record *r)
{
	struct con_journal_record jr = {.kind = CON_JOURNAL_REVISION,
					.text = r->text,
					.text_len = r->len,
					.private = r->private,
					.private_len =
						r->private ? strlen(r->private) : 0};
	int err = con_journal_append(f->journal, &jr);
	if (err) {
		f->counters.journal_errors++;
		con_fleet_tell(f, CON_FLEET_JOURNAL, "%s: %s", f->journal_path,
			       sp_strerror(err));
	}
	return err;
}

static char *copy(const char *text, size_t len)
{
	char *s = malloc(len + 1);
	if (s) {
		memcpy(s, text, len);
		s[len] = '\0';
	}
	return s;
}

int con_fleet_fold(const struct con_fleet *f, const struct sp_position *before,
		   const struct sp_state *state, const char *text, size_t len,
		   const char *private, size_t private_len, struct con_fleet_record *ret,
		   struct sp_state **ret_state)
{
	struct sp_revision rev;
	struct sp_changes changes = {0};
	struct sp_state *next = NULL;
	int err = sp_revision_open(&f->keys, text, len, &rev);
	if (err)
		return err;
	if (rev.position.sequence != before->sequence + 1 ||
	    rev.position.epoch < before->epoch ||
	    memcmp(rev.previous, before->hash, sizeof(rev.previous)) != 0)
		err = SP_E_PROTOCOL;
	if (!err && rev.has_private)
		err = private ? sp_revision_open_private(&rev, private, private_len,
							 &changes)
			      : SP_E_TRUNCATED;
	if (!err)
		err = sp_state_clone(state, &next);
	if (!err)
		err = sp_state_apply(next, &rev.changes);
	if (!err)
		err = sp_state_apply(next, &changes);
	if (!err && memcmp(sp_state_hash(next), rev.state, SP_STATE_HASH_BYTES) != 0)
		err = SP_E_PROTOCOL;
	if (!err) {
		*ret = (struct con_fleet_record){.position = rev.position, .len = len};
		memcpy(ret->previous, rev.previous, sizeof(ret->previous));
		ret->text = copy(text, len);
		ret->private = rev.has_private ? copy(private, private_len) : NULL;
		if (!ret->text || (rev.has_private && !ret->private)) {
			con_fleet_record_done(ret);
			err = -ENOMEM;
		}
	}
	sp_changes_done(&changes);
	sp_revision_done(&rev);
	if (err)
		sp_state_free(next);
	else
		*ret_state = next;
	return err;
}

// ---- bases: the whole, to begin a journal or a stream with ----

static int print_private_base(const struct con_fleet *f, const struct sp_state *state,
			      char **ret, size_t *ret_len)
{
	struct sp_state *none;
	struct sp_changes all = {0};
	int err = sp_state_new(&none);
	if (err)
		return err;
	err = sp_changes_diff(none, state, "", &all);
	sp_state_free(none);
	json_t *list = err ? NULL : sp_changes_to_json(&all, SP_CHANGES_PRIVATE);
	json_t *o = list ? json_pack("{s:o}", "private", list) : NULL;
	char *body = o ? json_dumps(o, JSON_COMPACT) : NULL;
	size_t cap = body ? strlen(body) + SP_SIGNED_LINE_MAX + 1 : 0;
	char *text = body ? malloc(cap) : NULL;
	int n = text ? sp_signed_seal_text(SP_SIGNED_SNAPSHOT, f->secret, body,
					   strlen(body), text, cap - 1)
		     : -ENOMEM;
	json_decref(o);
	free(body);
	sp_changes_done(&all);
	if (err || n < 0) {
		free(text);
		return err ? err : n;
	}
	text[n] = '\0'; // it goes to Redis as a string
	*ret = text;
	*ret_len = (size_t)n;
	return 0;
}

int con_fleet_make_base(const struct con_fleet *f, const struct sp_state *state,
			const struct sp_position *at, char **ret_text, size_t *ret_len,
			char **ret_private, size_t *ret_private_len)
{
	int err = sp_snapshot_sign(at, sp_loop_unix_ms(f->loop), state, f->secret,
				   ret_text, ret_len);
	if (err)
		return err;
	err = print_private_base(f, state, ret_private, ret_private_len);
	if (err)
		free(*ret_text);
	return err;
}

int con_fleet_open_base(const struct con_fleet *f, const char *text, size_t len,
			const char *private, size_t private_len,
			struct sp_state **ret_state, struct sp_position *ret_at)
{
	struct sp_signed_view view;
	struct sp_changes c = {0};
	struct sp_state *state;
	int err = sp_snapshot_open(&f->keys, text, len, &state, ret_at);
	if (err)
		return err;
	err = sp_signed_open_text(&f->keys, SP_SIGNED_SNAPSHOT, private, private_len,
				  &view);
	json_t *o =
		err ? NULL : json_loadb((const char *)view.body, view.body_len, 0, NULL);
	if (!err)
		err = sp_changes_from_json(json_object_get(o, "private"), &c);
	if (!err)
		err = sp_state_apply(state, &c);
	json_decref(o);
	sp_changes_done(&c);
	if (err)
		sp_state_free(state);
	else
		*ret_state = state;
	return err;
}

static void forget_snapshot(struct con_fleet *f)
{
	free(f->snapshot);
	f->snapshot = NULL;
}

void con_fleet_replace(struct con_fleet *f, struct sp_state *state,
		       const struct sp_position *at)
{
	sp_state_free(f->state);
	f->state = state;
	f->head = *at;
	forget_snapshot(f);
}

static void compact(struct con_fleet *f)
{
	struct con_journal_record r = {.kind = CON_JOURNAL_BASE};
	char *text, *private;
	if (con_journal_grown(f->journal) < COMPACT_BYTES ||
	    con_journal_grown(f->journal) < con_journal_bytes(f->journal) / 2)
		return;
	int err = con_fleet_make_base(f, f->state, &f->head, &text, &r.text_len, &private,
				      &r.private_len);
	if (!err) {
		r.text = text;
		r.private = private;
		err = con_journal_rewrite(f->journal, &r);
		free(text);
		free(private);
	}
	if (err)
		con_fleet_tell(f, CON_FLEET_JOURNAL, "%s: not written anew: %s",
			       f->journal_path, sp_strerror(err));
	else
		f->counters.compactions++;
}

// ---- what counts ----

static void to_window(struct con_fleet *f, struct con_fleet_record *r)
{
	struct con_fleet_record *slot =
		&f->window[r->position.sequence % CON_FLEET_WINDOW];
	con_fleet_record_done(slot);
	*slot = *r;
	*r = (struct con_fleet_record){0};
}

void con_fleet_accept(struct con_fleet *f, struct con_fleet_record *r,
		      struct sp_state *state)
{
	struct sp_revision rev = {0};
	struct sp_changes private = {0};
	struct con_fleet_listener *l, *next;
	struct sp_state *before = f->state;
	const char *text = r->text;
	size_t len = r->len;
	// What was signed or verified a moment ago opens, but for want of memory: then
	// listeners hear of nothing, and who follows heals by the next digest.
	int err = sp_revision_open(&f->keys, text, len, &rev);
	if (!err && rev.has_private)
		err = sp_revision_open_private(&rev, r->private, strlen(r->private),
					       &private);
	f->state = state;
	f->head = r->position;
	forget_snapshot(f);
	to_window(f, r);
	struct con_fleet_change c = {text, len, &rev, &private, before, state};
	for (l = LIST_FIRST(&f->listeners); l && !err; l = next) {
		next = LIST_NEXT(l, chain);
		l->changed(l->ctx, &c);
	}
	sp_changes_done(&private);
	sp_revision_done(&rev);
	sp_state_free(before);
}

// ---- commits ----

static void tell_commit(struct con_fleet_commit *c, int err, const char *why,
			const struct sp_position *at)
{
	con_fleet_done *done = c->done;
	c->done = NULL;
	if (done)
		done(c->ctx, err, why, at);
}

// The first of the queue is over.
static void end_first(struct con_fleet *f, int err, const char *why)
{
	struct con_fleet_commit *c = TAILQ_FIRST(&f->queue);
	TAILQ_REMOVE(&f->queue, c, queue);
	f->queued--;
	if (err)
		f->counters.refused++;
	tell_commit(c, err, why, &f->head);
	sp_changes_done(&c->changes);
	free(c);
	con_fleet_go_on(f);
}

void con_fleet_accept_pending(struct con_fleet *f)
{
	struct sp_state *state = f->next_state;
	struct con_fleet_record r = f->next;
	f->pending = false;
	f->next = (struct con_fleet_record){0};
	f->next_state = NULL;
	con_fleet_accept(f, &r, state);
	f->counters.commits++;
	end_first(f, 0, "");
	compact(f);
}

void con_fleet_drop_pending(struct con_fleet *f, bool again, int err, const char *why)
{
	struct con_fleet_commit *c = TAILQ_FIRST(&f->queue);
	int undone = con_journal_undo(f->journal);
	if (undone)
		con_fleet_tell(f, CON_FLEET_JOURNAL, "%s: %s", f->journal_path,
			       sp_strerror(undone));
	f->pending = false;
	con_fleet_record_done(&f->next);
	sp_state_free(f->next_state);
	f->next_state = NULL;
	if (again && ++c->tries < TRIES_MAX)
		con_fleet_go_on(f);
	else
		end_first(f, err, why);
}

// Most changes (enrolments, leases, users) leave every worker's config as it was.
static bool needs_check(const struct sp_changes *c)
{
	for (size_t i = 0; i < c->n; i++)
		if (sp_derive_depends_on(c->v[i].key))
			return true;
	return false;
}

// Tries the change on a copy of the state. 0 and *ret, NULL if it changes nothing.
static int try_change(struct con_fleet *f, struct con_fleet_commit *c,
		      struct sp_state **ret, char *why, size_t cap)
{
	struct sp_state *next;
	int err = sp_state_clone(f->state, &next);
	if (!err)
		err = sp_state_apply(next, &c->changes);
	if (err) {
		snprintf(why, cap, "%s", sp_strerror(err));
	} else if (sp_state_equal(next, f->state)) {
		sp_state_free(next);
		next = NULL;
	} else if (needs_check(&c->changes)) {
		err = sp_derive_check(next, why, cap);
	}
	if (err)
		sp_state_free(next);
	else
		*ret = next;
	return err;
}

static void begin_first(struct con_fleet *f)
{
	char why[SP_FLEET_WHY_MAX] = "";
	struct con_fleet_commit *c = TAILQ_FIRST(&f->queue);
	struct sp_state *next = NULL;
	int err = try_change(f, c, &next, why, sizeof(why));
	if (err || !next) {
		f->counters.unchanged += !err;
		end_first(f, err, why);
		return;
	}
	err = con_fleet_sign(f, &f->head, f->head.epoch ? f->head.epoch : 1, c->author,
			     &c->changes, next, &f->next);
	if (err == 0 && (err = con_fleet_write(f, &f->next)) != 0)
		snprintf(why, sizeof(why),
			 "the controller's journal cannot be written: %s; nothing was "
			 "changed",
			 sp_strerror(err));
	else if (err)
		snprintf(why, sizeof(why), "cannot be signed: %s", sp_strerror(err));
	if (err) {
		con_fleet_record_done(&f->next);
		sp_state_free(next);
		end_first(f, err, why);
		return;
	}
	f->next_state = next;
	f->pending = true;
	con_sync_append(f);
}

static void on_go_on(struct sp_deferred *d)
{
	struct con_fleet *f =
		(struct con_fleet *)((char *)d - offsetof(struct con_fleet, go_on));
	if (!f->pending && f->sync == CON_SYNC_DONE && !TAILQ_EMPTY(&f->queue))
		begin_first(f);
}

void con_fleet_go_on(struct con_fleet *f)
{
	sp_loop_defer(f->loop, &f->go_on);
}

static void arm_patience(struct con_fleet *f)
{
	uint64_t at = SP_LOOP_NEVER;
	struct con_fleet_commit *c;
	TAILQ_FOREACH(c, &f->queue, queue)
	if (c->done && c->until_us < at)
		at = c->until_us;
	sp_timer_set(&f->patience, at);
}

static uint64_t patience_end(const struct con_fleet *f)
{
	uint64_t ms = *f->trouble ? CON_FLEET_TROUBLE_MS : CON_FLEET_COMMIT_MS;
	return sp_loop_now_us(f->loop) + ms * 1000;
}

void con_fleet_hurry(struct con_fleet *f)
{
	struct con_fleet_commit *c;
	uint64_t until = patience_end(f);
	TAILQ_FOREACH(c, &f->queue, queue)
	if (c->done && c->until_us > until)
		c->until_us = until;
	arm_patience(f);
}

// Whoever waits too long is told; what is in the journal already stays under way.
static void on_patience(void *arg)
{
	struct con_fleet *f = arg;
	struct con_fleet_commit *c, *next;
	char why[256];
	uint64_t now = sp_loop_now_us(f->loop);
	for (c = TAILQ_FIRST(&f->queue); c; c = next) {
		next = TAILQ_NEXT(c, queue);
		if (c->until_us > now)
			continue;
		f->counters.timeouts++;
		if (f->pending && c == TAILQ_FIRST(&f->queue)) {
			snprintf(why, sizeof(why),
				 "%s; the change is in the journal and takes effect when "
				 "Redis takes it",
				 *f->trouble ? f->trouble : "Redis does not answer");
			tell_commit(c, -ETIMEDOUT, why, &f->head);
			continue;
		}
		TAILQ_REMOVE(&f->queue, c, queue);
		f->queued--;
		snprintf(why, sizeof(why), "%s; nothing was changed",
			 *f->trouble ? f->trouble : "Redis cannot be reached");
		tell_commit(c, -ENOTCONN, why, &f->head);
		sp_changes_done(&c->changes);
		free(c);
	}
	arm_patience(f);
}

int con_fleet_commit(struct con_fleet *f, struct sp_changes *changes, const char *author,
		     con_fleet_done *done, void *ctx)
{
	struct con_fleet_commit *c =
		f->queued < CON_FLEET_QUEUE_MAX ? calloc(1, sizeof(*c)) : NULL;
	if (!c)
		return -EAGAIN;
	c->changes = *changes;
	*changes = (struct sp_changes){0};
	snprintf(c->author, sizeof(c->author), "%s", author);
	c->done = done;
	c->ctx = ctx;
	c->until_us = patience_end(f);
	TAILQ_INSERT_TAIL(&f->queue, c, queue);
	f->queued++;
	arm_patience(f);
	con_fleet_go_on(f);
	return 0;
}

// ---- start and end ----

static int load_record(void *ctx, const struct con_journal_record *r, char *why,
		       size_t cap)
{
	struct con_fleet *f = ctx;
	struct con_fleet_record rec;
	struct sp_state *state;
	struct sp_position at;
	int err;
	if (r->kind == CON_JOURNAL_BASE) {
		err = con_fleet_open_base(f, r->text, r->text_len, r->private,
					  r->private_len, &state, &at);
		if (!err)
			con_fleet_replace(f, state, &at);
	} else {
		err = con_fleet_fold(f, &f->head, f->state, r->text, r->text_len,
				     r->private, r->private_len, &rec, &state);
		if (!err) {
			con_fleet_replace(f, state, &rec.position);
			to_window(f, &rec);
		}
	}
	if (err)
		snprintf(why, cap,
			 "%s: the revision after sequence %llu does not hold (%s); is "
			 "keys.signing the key it was signed with?",
			 f->journal_path, (unsigned long long)f->head.sequence,
			 sp_strerror(err));
	return err;
}

int con_fleet_new(const struct con_fleet_options *opt, struct con_fleet **ret, char *why,
		  size_t cap)
{
	uint64_t cut = 0;
	struct con_fleet *f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->loop = opt->loop;
	snprintf(f->name, sizeof(f->name), "%s", opt->name);
	memcpy(f->secret, opt->secret, sizeof(f->secret));
	f->event = opt->event;
	f->ctx = opt->ctx;
	LIST_INIT(&f->listeners);
	TAILQ_INIT(&f->queue);
	f->go_on.run = on_go_on;
	sp_timer_init(&f->patience, f->loop, on_patience, f);
	if (opt->trusted)
		f->keys = *opt->trusted;
	f->journal_path = strdup(opt->journal);
	int err = f->journal_path ? sp_state_new(&f->state) : -ENOMEM;
	if (!err)
		err = sp_signed_keys_add(&f->keys, con_fleet_public_key(f));
	if (err)
		snprintf(why, cap, "%s", sp_strerror(err));
	else
		err = con_journal_open(opt->journal, load_record, f, &f->journal, &cut,
				       why, cap);
	if (!err && cut)
		con_fleet_tell(f, CON_FLEET_CUT,
			       "%s: the last %llu bytes were never whole and are cut off",
			       opt->journal, (unsigned long long)cut);
	if (!err) {
		err = con_sync_start(f, opt->redis, opt->redis_password);
		if (err)
			snprintf(why, cap,
				 "redis: found \"%s\"; want unix:/path or an address "
				 "with a port",
				 opt->redis);
	}
	if (err)
		con_fleet_free(f);
	else
		*ret = f;
	return err;
}

void con_fleet_free(struct con_fleet *f)
{
	struct con_fleet_commit *c;
	if (!f)
		return;
	con_sync_stop(f);
	while ((c = TAILQ_FIRST(&f->queue))) {
		TAILQ_REMOVE(&f->queue, c, queue);
		tell_commit(c, -ECANCELED, "the controller ends", &f->head);
		sp_changes_done(&c->changes);
		free(c);
	}
	sp_timer_done(&f->patience);
	sp_loop_defer_cancel(&f->go_on);
	con_fleet_record_done(&f->next);
	sp_state_free(f->next_state);
	for (size_t i = 0; i < CON_FLEET_WINDOW; i++)
		con_fleet_record_done(&f->window[i]);
	sp_state_free(f->state);
	forget_snapshot(f);
	con_journal_close(f->journal);
	free(f->journal_path);
	sodium_memzero(f->secret, sizeof(f->secret));
	free(f);
}

// ---- looking ----

const struct sp_state *con_fleet_state(const struct con_fleet *f)
{
	return f->state;
}

const struct sp_position *con_fleet_head(const struct con_fleet *f)
{
	return &f->head;
}

const struct sp_signed_keys *con_fleet_keys(const struct con_fleet *f)
{
	return &f->keys;
}

const uint8_t *con_fleet_public_key(const struct con_fleet *f)
{
	return f->secret + 32;
}

const uint8_t *con_fleet_secret(const struct con_fleet *f)
{
	return f->secret;
}

bool con_fleet_is_synced(const struct con_fleet *f)
{
	return f->sync == CON_SYNC_DONE;
}

bool con_fleet_has_heard(const struct con_fleet *f)
{
	return f->heard;
}

struct con_redis *con_fleet_redis(const struct con_fleet *f)
{
	return f->redis;
}

const char *con_fleet_name(const struct con_fleet *f)
{
	return f->name;
}

const struct con_fleet_counters *con_fleet_counters(const struct con_fleet *f)
{
	return &f->counters;
}

uint64_t con_fleet_journal_bytes(const struct con_fleet *f)
{
	return con_journal_bytes(f->journal);
}

const char *con_fleet_revision(const struct con_fleet *f, uint64_t sequence,
			       size_t *ret_len)
{
	const struct con_fleet_record *r = &f->window[sequence % CON_FLEET_WINDOW];
	if (!r->text || r->position.sequence != sequence)
		return NULL;
	*ret_len = r->len;
	return r->text;
}

int con_fleet_snapshot(struct con_fleet *f, const char **ret, size_t *ret_len)
{
	if (!f->snapshot) {
		int err = sp_snapshot_sign(&f->head, sp_loop_unix_ms(f->loop), f->state,
					   f->secret, &f->snapshot, &f->snapshot_len);
		if (err)
			return err;
	}
	*ret = f->snapshot;
	*ret_len = f->snapshot_len;
	return 0;
}

// A second reading of the journal, up to a revision.
struct past {
	struct con_fleet *scratch; // state and head of it only
	uint64_t until;
};

static int load_past(void *ctx, const struct con_journal_record *r, char *why, size_t cap)
{
	struct past *p = ctx;
	if (p->scratch->head.sequence >= p->until)
		return p->scratch->head.sequence > p->until ? -ENOENT : 0;
	return load_record(p->scratch, r, why, cap);
}

int con_fleet_state_at(const struct con_fleet *f, uint64_t sequence,
		       struct sp_state **ret)
{
	char why[512];
	uint64_t cut;
	struct con_journal *j = NULL;
	struct past p = {calloc(1, sizeof(*f)), sequence};
	if (!p.scratch)
		return -ENOMEM;
	p.scratch->keys = f->keys;
	p.scratch->journal_path = f->journal_path;
	int err = sp_state_new(&p.scratch->state);
	// A record that is pending is whole, so nothing is cut off here.
	if (!err)
		err = con_journal_open(f->journal_path, load_past, &p, &j, &cut, why,
				       sizeof(why));
	con_journal_close(j);
	if (!err && p.scratch->head.sequence != sequence)
		err = -ENOENT;
	for (size_t i = 0; i < CON_FLEET_WINDOW; i++)
		con_fleet_record_done(&p.scratch->window[i]);
	if (err)
		sp_state_free(p.scratch->state);
	else
		*ret = p.scratch->state;
	free(p.scratch);
	return err;
}

void con_fleet_listen(struct con_fleet *f, struct con_fleet_listener *l)
{
	LIST_INSERT_HEAD(&f->listeners, l, chain);
}

void con_fleet_unlisten(struct con_fleet_listener *l)
{
	if (l->chain.le_prev)
		LIST_REMOVE(l, chain);
	l->chain.le_prev = NULL;
}
