#include "worker/agent_control.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/derive.h"
#include "lib/log.h"
#include "lib/replica_store.h"

#define RETELL_MS  1000  // members that the exit did not take
#define COMPACT_MS 60000 // between two askings for a snapshot

struct text {
	char *v;
	size_t len;
};

// What the exit has been offered and has not answered.
struct offer {
	uint64_t call; // 0: none
	struct sp_staged staged;
	bool snapshot; // else revisions
	struct text *texts;
	size_t n;
	bool known; // on disk already: the last known good one
};

struct agt_control {
	struct agt_control_options opt;
	struct agt_control_counters n;
	struct sp_replica replica;
	struct sp_replica_store *store;
	struct offer offer;
	bool up, has_config;
	uint64_t calls;
	struct sp_position head;    // of controllers, as far as it is known
	struct sp_position refused; // not tried again until retry_us
	uint64_t retry_us, compact_us, fetched_us;
	uint8_t members[32]; // hash of those that the exit was told
	struct sp_timer fetch, patience, lease, retell;
};

static uint64_t now_us(struct agt_control *c)
{
	return sp_loop_now_us(c->opt.loop);
}

void agt_control_put_position(const struct sp_position *p,
			      Sallyport__Fleet__Position *ret)
{
	sallyport__fleet__position__init(ret);
	ret->epoch = p->epoch;
	ret->sequence = p->sequence;
	ret->hash.len = sizeof(p->hash);
	ret->hash.data = (uint8_t *)(uintptr_t)p->hash;
}

// False: none that could be one.
static bool get_position(const Sallyport__Fleet__Position *m, struct sp_position *ret)
{
	if (!m || (m->hash.len && m->hash.len != sizeof(ret->hash)))
		return false;
	*ret = (struct sp_position){.epoch = m->epoch, .sequence = m->sequence};
	if (m->hash.len)
		memcpy(ret->hash, m->hash.data, sizeof(ret->hash));
	return true;
}

// ---- acknowledging ----

static void send_ack(struct agt_control *c, const struct sp_position *refused,
		     const char *reason)
{
	Sallyport__Fleet__ToController m = SALLYPORT__FLEET__TO_CONTROLLER__INIT;
	Sallyport__Fleet__Ack ack = SALLYPORT__FLEET__ACK__INIT;
	Sallyport__Fleet__Position at, no;
	char text[SP_FLEET_WHY_MAX];
	agt_control_put_position(&c->replica.position, &at);
	ack.position = &at;
	if (c->replica.state)
		ack.state = (ProtobufCBinaryData){
			SP_STATE_HASH_BYTES,
			(uint8_t *)(uintptr_t)sp_state_hash(c->replica.state)};
	if (refused) {
		agt_control_put_position(refused, &no);
		snprintf(text, sizeof(text), "%s", reason);
		ack.refused = &no;
		ack.reason = text;
	}
	m.body_case = SALLYPORT__FLEET__TO_CONTROLLER__BODY_ACK;
	m.ack = &ack;
	if (c->up)
		(void)c->opt.ops->send(c->opt.ctx, &m);
}

// The position stays; nothing of it is tried again for a while.
static void refuse(struct agt_control *c, const struct sp_position *what, const char *why)
{
	c->n.refused++;
	c->refused = *what;
	c->retry_us = now_us(c) + UINT64_C(1000) * AGT_CONTROL_RETRY_MS;
	sp_error("control", "config refused; the old one stays",
		 "epoch=%u sequence=%" PRIu64 " at_epoch=%u at_sequence=%" PRIu64
		 " why=%s",
		 what->epoch, what->sequence, c->replica.position.epoch,
		 c->replica.position.sequence, why);
	send_ack(c, what, why);
}

// ---- fetching ----

static bool is_behind(struct agt_control *c)
{
	if (sp_position_compare(&c->head, &c->replica.position) <= 0)
		return false;
	return !sp_position_same(&c->head, &c->refused) || now_us(c) >= c->retry_us;
}

static bool wants_snapshot(struct agt_control *c)
{
	return c->replica.state && sp_replica_store_wants_snapshot(c->store) &&
	       now_us(c) >= c->compact_us;
}

// Within `ms`, at random: a revision that everyone missed is not asked for by everyone at
// once.
static void want_fetch(struct agt_control *c, uint32_t ms)
{
	uint64_t at = now_us(c) + randombytes_uniform(ms * 1000 + 1);
	if (!c->up || c->offer.call || (!is_behind(c) && !wants_snapshot(c)))
		return;
	// One answer is awaited at a time.
	if (c->fetched_us && now_us(c) < c->fetched_us + 1000ull * AGT_CONTROL_ANSWER_MS)
		return;
	if (c->fetch.at_us == SP_LOOP_NEVER)
		sp_timer_set(&c->fetch, at);
}

static void on_fetch(void *ctx)
{
	struct agt_control *c = ctx;
	Sallyport__Fleet__ToController m = SALLYPORT__FLEET__TO_CONTROLLER__INIT;
	Sallyport__Fleet__Fetch f = SALLYPORT__FLEET__FETCH__INIT;
	Sallyport__Fleet__Position at;
	if (!c->up || c->offer.call || (!is_behind(c) && !wants_snapshot(c)))
		return;
	agt_control_put_position(&c->replica.position, &at);
	f.applied = &at;
	f.snapshot = wants_snapshot(c);
	if (f.snapshot)
		c->compact_us = now_us(c) + UINT64_C(1000) * COMPACT_MS;
	m.body_case = SALLYPORT__FLEET__TO_CONTROLLER__BODY_FETCH;
	m.fetch = &f;
	c->n.fetches++;
	if (c->opt.ops->send(c->opt.ctx, &m) == 0)
		c->fetched_us = now_us(c);
}

static void see_head(struct agt_control *c, const struct sp_position *head)
{
	if (sp_position_compare(head, &c->head) > 0)
		c->head = *head;
}

// ---- leases ----

static void look_at_lease(struct agt_control *c)
{
	char node[SP_FLEET_NAME_MAX + 1], key[SP_STATE_KEY_MAX + 1];
	uint64_t now_ms = sp_loop_unix_ms(c->opt.loop);
	snprintf(key, sizeof(key), "lease/%s", sp_worker_node(c->opt.worker, node));
	json_t *o = c->replica.state ? sp_state_get_object(c->replica.state, key) : NULL;
	const char *kind = json_string_value(json_object_get(o, "kind"));
	json_int_t until_s = json_integer_value(json_object_get(o, "until"));
	uint64_t until_ms = until_s > 0 ? (uint64_t)until_s * 1000 : 0;
	bool drain = kind && !strcmp(kind, "drain") && until_ms > now_ms;
	json_decref(o);
	c->opt.ops->lease(c->opt.ctx, drain, drain ? until_ms : 0);
	sp_timer_set(&c->lease, drain ? now_us(c) + 1000 * (until_ms - now_ms) + 1000
				      : SP_LOOP_NEVER);
}

static void on_lease(void *ctx)
{
	look_at_lease(ctx);
}

// ---- members ----

// Who the other workers are, if that is not what the exit knows.
static void tell_members(void *ctx)
{
	struct agt_control *c = ctx;
	uint8_t hash[sizeof(c->members)];
	char *json;
	size_t len;
	if (!c->replica.state)
		return;
	sp_derive_members_hash(c->replica.state, hash);
	if (!memcmp(hash, c->members, sizeof(hash)))
		return;
	int err = sp_derive_members(c->replica.state, &json, &len);
	if (!err) {
		err = c->opt.ops->members(c->opt.ctx, json, len);
		free(json);
	}
	if (err)
		sp_timer_set(&c->retell, now_us(c) + UINT64_C(1000) * RETELL_MS);
	else
		memcpy(c->members, hash, sizeof(hash));
}

// ---- offers ----

static void offer_done(struct offer *o)
{
	for (size_t i = 0; i < o->n; i++)
		free(o->texts[i].v);
	free(o->texts);
	sp_staged_done(&o->staged);
	*o = (struct offer){0};
}

// Derives and parses as the exit will, so that what it cannot use is refused here with
// the better words. 0 and the JSON; errors with `why`.
static int check(struct agt_control *c, const struct sp_staged *s, char **ret_json,
		 size_t *ret_len, char *why, size_t cap)
{
	struct sp_fleet_worker *f;
	int err = sp_derive_worker(s->state, c->opt.worker, &s->position,
				   sp_loop_unix_ms(c->opt.loop) / 1000, ret_json, ret_len,
				   why, cap);
	if (err)
		return err;
	err = sp_fleet_worker_parse(*ret_json, *ret_len, &f, why, cap);
	if (err)
		free(*ret_json);
	else
		sp_fleet_worker_free(f);
	return err;
}

// Takes what `o` holds, in every case.
static void make_offer(struct agt_control *c, struct offer *o)
{
	char why[SP_FLEET_WHY_MAX] = "";
	char *json;
	size_t len;
	int err = check(c, &o->staged, &json, &len, why, sizeof(why));
	if (err) {
		refuse(c, &o->staged.position, *why ? why : sp_strerror(err));
		offer_done(o);
		return;
	}
	o->call = ++c->calls;
	c->offer = *o;
	err = c->opt.ops->offer(c->opt.ctx, o->call, json, len, &o->staged.position);
	free(json);
	if (err) {
		sp_warn("control", "the exit cannot be reached", "error=%s",
			sp_strerror(err));
		offer_done(&c->offer);
		return;
	}
	sp_timer_set(&c->patience, now_us(c) + UINT64_C(1000) * AGT_CONTROL_APPLY_MS);
}

static void on_patience(void *ctx)
{
	struct agt_control *c = ctx;
	sp_warn("control", "the exit did not answer in time", "");
	offer_done(&c->offer);
	want_fetch(c, AGT_CONTROL_JITTER_MS);
}

static void keep(struct agt_control *c, const struct offer *o)
{
	int err = 0;
	for (size_t i = 0; i < o->n && !err && !o->known; i++)
		err = o->snapshot ? sp_replica_store_replace(c->store, o->texts[i].v,
							     o->texts[i].len)
				  : sp_replica_store_append(c->store, o->texts[i].v,
							    o->texts[i].len);
}

void agt_control_result(struct agt_control *c, uint64_t call, const char *reason)
{
	struct offer o = c->offer;
	if (!call || call != o.call)
		return;
	c->offer = (struct offer){0};
	sp_timer_set(&c->patience, SP_LOOP_NEVER);
	if (*reason) {
		refuse(c, &o.staged.position, reason);
	} else {
		sp_replica_take(&c->replica, &o.staged);
		c->n.applied++;
		c->has_config = true;
		sp_info("control", "config applied", "epoch=%u sequence=%" PRIu64,
			c->replica.position.epoch, c->replica.position.sequence);
		// First what others wait for; the disk may be slow.
		send_ack(c, NULL, NULL);
		look_at_lease(c);
		tell_members(c);
		keep(c, &o);
	}
	offer_done(&o);
	want_fetch(c, AGT_CONTROL_JITTER_MS);
}

// ---- what comes ----

static bool copy_text(struct offer *o, const void *text, size_t len)
{
	struct text *grown = realloc(o->texts, (o->n + 1) * sizeof(*grown));
	char *copy = grown ? malloc(len + 1) : NULL;
	if (grown)
		o->texts = grown;
	if (!copy)
		return false;
	memcpy(copy, text, len);
	o->texts[o->n++] = (struct text){copy, len};
	return true;
}

// A revision follows what was staged so far.
static int stage(struct agt_control *c, struct offer *o, const void *text, size_t len)
{
	struct sp_staged next = {0};
	struct sp_replica at = c->replica;
	if (o->staged.state) {
		at.state = o->staged.state;
		at.position = o->staged.position;
	}
	int err = sp_replica_stage_revision(&at, text, len, &next);
	if (!err && !copy_text(o, text, len))
		err = -ENOMEM;
	if (err) {
		sp_staged_done(&next);
		return err;
	}
	sp_staged_done(&o->staged);
	o->staged = next;
	return 0;
}

static void take_texts(struct agt_control *c, const ProtobufCBinaryData *texts, size_t n)
{
	struct offer o = {0};
	int err = 0;
	if (c->offer.call) // asked for again when that is settled
		return;
	for (size_t i = 0; i < n; i++) {
		err = stage(c, &o, texts[i].data, texts[i].len);
		if (err == SP_E_STALE)
			c->n.old++;
		else if (err)
			break;
	}
	if (err == SP_E_AGAIN) {
		c->n.gaps++;
	} else if (err && err != SP_E_STALE) {
		c->n.invalid++;
		refuse(c, &c->head, sp_strerror(err));
	}
	if (o.n)
		make_offer(c, &o);
	else
		offer_done(&o);
	if (err == SP_E_AGAIN)
		want_fetch(c, AGT_CONTROL_JITTER_MS);
}

// A revision that is published: whether or not it can be used, there is something newer.
static void on_revision(struct agt_control *c, const void *data, size_t len)
{
	ProtobufCBinaryData text = {len, (uint8_t *)(uintptr_t)data};
	struct sp_revision r;
	if (sp_revision_open(&c->replica.keys, data, len, &r)) {
		c->n.invalid++;
		sp_warn("control", "what was published is no revision of this fleet", "");
		return;
	}
	see_head(c, &r.position);
	sp_revision_done(&r);
	take_texts(c, &text, 1);
}

static void on_digest(struct agt_control *c, const void *data, size_t len)
{
	struct sp_position head;
	Sallyport__Fleet__Digest *d = sallyport__fleet__digest__unpack(NULL, len, data);
	if (!d || !get_position(d->head, &head)) {
		c->n.invalid++;
		sallyport__fleet__digest__free_unpacked(d, NULL);
		return;
	}
	see_head(c, &head);
	if (c->replica.state && sp_position_same(&head, &c->replica.position) &&
	    d->state.len == SP_STATE_HASH_BYTES &&
	    memcmp(d->state.data, sp_state_hash(c->replica.state), SP_STATE_HASH_BYTES)) {
		if (c->n.differing++ == 0)
			sp_error("control", "another state at the same position",
				 "epoch=%u sequence=%" PRIu64, head.epoch, head.sequence);
	}
	sallyport__fleet__digest__free_unpacked(d, NULL);
	want_fetch(c, AGT_CONTROL_JITTER_MS);
}

void agt_control_on_published(struct agt_control *c, char topic, const void *data,
			      size_t len)
{
	if (topic == 'R')
		on_revision(c, data, len);
	else if (topic == 'D')
		on_digest(c, data, len);
}

void agt_control_on_revisions(struct agt_control *c, const Sallyport__Fleet__Revisions *m)
{
	c->fetched_us = 0;
	take_texts(c, m->blob, m->n_blob);
}

// Judged by itself, since the same position may be asked for, for the disk alone.
void agt_control_on_snapshot(struct agt_control *c, const Sallyport__Fleet__Snapshot *m)
{
	struct sp_replica none = {.keys = c->replica.keys};
	struct offer o = {.snapshot = true};
	c->fetched_us = 0;
	if (c->offer.call)
		return;
	int err = sp_replica_stage_snapshot(&none, m->blob.data, m->blob.len, &o.staged);
	if (!err && !copy_text(&o, m->blob.data, m->blob.len))
		err = -ENOMEM;
	if (err) {
		c->n.invalid++;
		refuse(c, &c->head, sp_strerror(err));
		offer_done(&o);
		return;
	}
	see_head(c, &o.staged.position);
	if (c->replica.state &&
	    sp_position_same(&o.staged.position, &c->replica.position)) {
		if (sp_replica_store_wants_snapshot(c->store))
			keep(c, &o);
		offer_done(&o);
	} else if (sp_position_compare(&o.staged.position, &c->replica.position) <= 0) {
		c->n.old++;
		offer_done(&o);
	} else {
		make_offer(c, &o);
	}
}

// ---- the link ----

void agt_control_up(struct agt_control *c, const Sallyport__Fleet__Position *head)
{
	struct sp_position p;
	c->up = true;
	c->fetched_us = 0;
	if (get_position(head, &p))
		see_head(c, &p);
	want_fetch(c, AGT_CONTROL_JITTER_MS);
}

void agt_control_down(struct agt_control *c)
{
	c->up = false;
	sp_timer_set(&c->fetch, SP_LOOP_NEVER);
}

int agt_control_new(const struct agt_control_options *opt, struct agt_control **ret)
{
	struct agt_control *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->opt = *opt;
	c->replica.keys = opt->keys;
	sp_timer_init(&c->fetch, opt->loop, on_fetch, c);
	sp_timer_init(&c->patience, opt->loop, on_patience, c);
	sp_timer_init(&c->lease, opt->loop, on_lease, c);
	sp_timer_init(&c->retell, opt->loop, tell_members, c);
	int err = sp_replica_store_new(opt->folder, &c->store);
	if (!err)
		err = sp_replica_store_load(c->store, &c->replica);
	if (err) {
		agt_control_free(c);
		return err;
	}
	*ret = c;
	return 0;
}

void agt_control_free(struct agt_control *c)
{
	if (!c)
		return;
	sp_timer_done(&c->fetch);
	sp_timer_done(&c->patience);
	sp_timer_done(&c->lease);
	sp_timer_done(&c->retell);
	offer_done(&c->offer);
	sp_replica_done(&c->replica);
	sp_replica_store_free(c->store);
	free(c);
}

void agt_control_begin(struct agt_control *c)
{
	struct offer o = {.known = true};
	if (!c->replica.state)
		return;
	sp_info("control", "the last known good config", "epoch=%u sequence=%" PRIu64,
		c->replica.position.epoch, c->replica.position.sequence);
	o.staged.position = c->replica.position;
	if (sp_state_clone(c->replica.state, &o.staged.state) == 0)
		make_offer(c, &o);
}

const struct sp_position *agt_control_position(const struct agt_control *c)
{
	return &c->replica.position;
}

bool agt_control_has_config(const struct agt_control *c)
{
	return c->has_config;
}

const struct agt_control_counters *agt_control_counters(const struct agt_control *c)
{
	return &c->n;
}

uint64_t agt_control_disk_errors(const struct agt_control *c)
{
	return sp_replica_store_errors(c->store);
}

uint64_t agt_control_disk_bytes(const struct agt_control *c)
{
	return sp_replica_store_bytes(c->store);
}
