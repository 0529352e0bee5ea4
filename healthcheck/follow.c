#include "healthcheck/follow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/log.h"
#include "lib/replica_store.h"

#define JITTER_MS  300   // before what is missing is asked for
#define ANSWER_MS  5000  // a controller's
#define RETRY_MS   30000 // what was refused
#define COMPACT_MS 60000 // between two askings for a snapshot for the disk's sake

struct hck_follow {
	struct hck_follow_options opt;
	struct sp_replica replica;
	struct sp_replica_store *store;
	bool up;
	struct sp_position head, bad;
	uint64_t asked_us, retry_us, compact_us, refused;
	struct sp_timer fetch;
};

static uint64_t now_us(const struct hck_follow *f)
{
	return sp_loop_now_us(f->opt.loop);
}

void hck_position_put(const struct sp_position *p, Sallyport__Fleet__Position *ret)
{
	sallyport__fleet__position__init(ret);
	ret->epoch = p->epoch;
	ret->sequence = p->sequence;
	ret->hash.len = sizeof(p->hash);
	ret->hash.data = (uint8_t *)(uintptr_t)p->hash;
}

static void see_head(struct hck_follow *f, const Sallyport__Fleet__Position *m)
{
	struct sp_position p = {0};
	if (!m || m->hash.len != sizeof(p.hash))
		return;
	p.epoch = m->epoch;
	p.sequence = m->sequence;
	memcpy(p.hash, m->hash.data, sizeof(p.hash));
	if (sp_position_compare(&p, &f->head) > 0)
		f->head = p;
}

// ---- asking ----

static bool is_behind(const struct hck_follow *f)
{
	return sp_position_compare(&f->head, &f->replica.position) > 0 &&
	       (!sp_position_same(&f->head, &f->bad) || now_us(f) >= f->retry_us);
}

static bool wants_snapshot(const struct hck_follow *f)
{
	return f->replica.state && sp_replica_store_wants_snapshot(f->store) &&
	       now_us(f) >= f->compact_us;
}

static void want(struct hck_follow *f, uint32_t jitter_ms)
{
	bool asked = f->asked_us && now_us(f) < f->asked_us + 1000ull * ANSWER_MS;
	if (!f->up || asked || (!is_behind(f) && !wants_snapshot(f)))
		return;
	if (f->fetch.at_us == SP_LOOP_NEVER)
		sp_timer_set(&f->fetch,
			     now_us(f) + 1000ull * randombytes_uniform(jitter_ms + 1));
}

static void on_fetch(void *ctx)
{
	struct hck_follow *f = ctx;
	Sallyport__Fleet__ToController m = SALLYPORT__FLEET__TO_CONTROLLER__INIT;
	Sallyport__Fleet__Fetch body = SALLYPORT__FLEET__FETCH__INIT;
	Sallyport__Fleet__Position at;
	if (!f->up || (!is_behind(f) && !wants_snapshot(f)))
		return;
	hck_position_put(&f->replica.position, &at);
	body.applied = &at;
	body.snapshot = wants_snapshot(f);
	if (body.snapshot)
		f->compact_us = now_us(f) + 1000ull * COMPACT_MS;
	m.body_case = SALLYPORT__FLEET__TO_CONTROLLER__BODY_FETCH;
	m.fetch = &body;
	if (f->opt.send(f->opt.ctx, &m) == 0)
		f->asked_us = now_us(f);
}

static void send_ack(struct hck_follow *f, const char *reason)
{
	Sallyport__Fleet__ToController m = SALLYPORT__FLEET__TO_CONTROLLER__INIT;
	Sallyport__Fleet__Ack ack = SALLYPORT__FLEET__ACK__INIT;
	Sallyport__Fleet__Position at, no;
	hck_position_put(&f->replica.position, &at);
	ack.position = &at;
	if (f->replica.state)
		ack.state = (ProtobufCBinaryData){
			SP_STATE_HASH_BYTES,
			(uint8_t *)(uintptr_t)sp_state_hash(f->replica.state)};
	if (reason) {
		hck_position_put(&f->head, &no);
		ack.refused = &no;
		ack.reason = (char *)(uintptr_t)reason;
	}
	m.body_case = SALLYPORT__FLEET__TO_CONTROLLER__BODY_ACK;
	m.ack = &ack;
	if (f->up)
		(void)f->opt.send(f->opt.ctx, &m);
}

static void refuse(struct hck_follow *f, int err)
{
	f->refused++;
	f->bad = f->head;
	f->retry_us = now_us(f) + 1000ull * RETRY_MS;
	sp_error("follow", "what a controller sent is refused; the old state stays",
		 "why=%s", sp_strerror(err));
	send_ack(f, sp_strerror(err));
}

// ---- taking ----

static int take_revision(struct hck_follow *f, const void *text, size_t len)
{
	struct sp_staged s = {0};
	int err = sp_replica_stage_revision(&f->replica, text, len, &s);
	if (err)
		return err;
	sp_replica_take(&f->replica, &s);
	int disk = sp_replica_store_append(f->store, text, len);
	if (disk)
		sp_debug("follow", "not on disk", "error=%s", sp_strerror(disk));
	return 0;
}

static void take_all(struct hck_follow *f, const ProtobufCBinaryData *texts, size_t n)
{
	struct sp_position before = f->replica.position;
	int err = 0;
	for (size_t i = 0; i < n && (!err || err == SP_E_STALE); i++)
		err = take_revision(f, texts[i].data, texts[i].len);
	if (!sp_position_same(&before, &f->replica.position)) {
		send_ack(f, NULL);
		f->opt.changed(f->opt.ctx);
	}
	if (err && err != SP_E_STALE && err != SP_E_AGAIN)
		refuse(f, err);
	want(f, JITTER_MS);
}

static void on_revision(struct hck_follow *f, const void *data, size_t len)
{
	ProtobufCBinaryData text = {len, (uint8_t *)(uintptr_t)data};
	struct sp_revision r;
	if (sp_revision_open(&f->replica.keys, data, len, &r)) {
		f->refused++;
		return;
	}
	if (sp_position_compare(&r.position, &f->head) > 0)
		f->head = r.position;
	sp_revision_done(&r);
	take_all(f, &text, 1);
}

void hck_follow_published(struct hck_follow *f, char topic, const void *data, size_t len)
{
	Sallyport__Fleet__Digest *d;
	if (topic == 'R') {
		on_revision(f, data, len);
		return;
	}
	if (topic != 'D' || !(d = sallyport__fleet__digest__unpack(NULL, len, data)))
		return;
	see_head(f, d->head);
	sallyport__fleet__digest__free_unpacked(d, NULL);
	want(f, JITTER_MS);
}

void hck_follow_revisions(struct hck_follow *f, const Sallyport__Fleet__Revisions *m)
{
	f->asked_us = 0;
	take_all(f, m->blob, m->n_blob);
}

// Judged by itself: the same position may have been asked for, for the disk alone.
void hck_follow_snapshot(struct hck_follow *f, const Sallyport__Fleet__Snapshot *m)
{
	struct sp_replica none = {.keys = f->replica.keys};
	struct sp_staged s = {0};
	f->asked_us = 0;
	int err = sp_replica_stage_snapshot(&none, m->blob.data, m->blob.len, &s);
	if (err) {
		refuse(f, err);
		return;
	}
	int order = sp_position_compare(&s.position, &f->replica.position);
	bool same =
		f->replica.state && sp_position_same(&s.position, &f->replica.position);
	if (same || !f->replica.state || order > 0) {
		int disk = sp_replica_store_replace(f->store, m->blob.data, m->blob.len);
		if (disk)
			sp_debug("follow", "not on disk", "error=%s", sp_strerror(disk));
	}
	if (!same && (!f->replica.state || order > 0)) {
		sp_replica_take(&f->replica, &s);
		send_ack(f, NULL);
		f->opt.changed(f->opt.ctx);
	}
	sp_staged_done(&s);
	want(f, JITTER_MS);
}

// ---- life ----

void hck_follow_up(struct hck_follow *f, const Sallyport__Fleet__Position *head)
{
	f->up = true;
	f->asked_us = 0;
	see_head(f, head);
	want(f, JITTER_MS);
}

void hck_follow_down(struct hck_follow *f)
{
	f->up = false;
	sp_timer_set(&f->fetch, SP_LOOP_NEVER);
}

int hck_follow_new(const struct hck_follow_options *opt, struct hck_follow **ret)
{
	struct hck_follow *f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->opt = *opt;
	f->replica.keys = opt->keys;
	sp_timer_init(&f->fetch, opt->loop, on_fetch, f);
	int err = sp_replica_store_new(opt->folder, &f->store);
	if (!err)
		err = sp_replica_store_load(f->store, &f->replica);
	if (err) {
		hck_follow_free(f);
		return err;
	}
	*ret = f;
	return 0;
}

void hck_follow_free(struct hck_follow *f)
{
	if (!f)
		return;
	sp_timer_done(&f->fetch);
	sp_replica_done(&f->replica);
	sp_replica_store_free(f->store);
	free(f);
}

const struct sp_state *hck_follow_state(const struct hck_follow *f)
{
	return f->replica.state;
}

const struct sp_position *hck_follow_position(const struct hck_follow *f)
{
	return &f->replica.position;
}

uint64_t hck_follow_refused(const struct hck_follow *f)
{
	return f->refused;
}

uint64_t hck_follow_disk_errors(const struct hck_follow *f)
{
	return sp_replica_store_errors(f->store);
}
