// Answers to fetches: the revisions that a peer misses, or a snapshot that all who ask
// share; in turn, and at a stated rate.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controller/hub_internal.h"

#define TICK_US        UINT64_C(5000)
#define SLICE_MAX      64                // answers of one turn
#define SNAPSHOT_AGAIN UINT64_C(1000000) // us, for the same peer

void hub_snapshot_forget(struct con_hub *h)
{
	sp_bus_blob_free(h->snapshot);
	h->snapshot = NULL;
}

static int make_snapshot(struct con_hub *h)
{
	Sallyport__Fleet__FromController m = SALLYPORT__FLEET__FROM_CONTROLLER__INIT;
	Sallyport__Fleet__Snapshot s = SALLYPORT__FLEET__SNAPSHOT__INIT;
	const char *text;
	size_t len;
	int err = h->ops->snapshot(h->ctx, &text, &len);
	if (err)
		return err;
	s.blob.data = (uint8_t *)(uintptr_t)text;
	s.blob.len = len;
	m.version = CON_HUB_VERSION;
	m.body_case = SALLYPORT__FLEET__FROM_CONTROLLER__BODY_SNAPSHOT;
	m.snapshot = &s;
	size_t n = sallyport__fleet__from_controller__get_packed_size(&m);
	uint8_t *buf = malloc(n);
	if (!buf)
		return -ENOMEM;
	sallyport__fleet__from_controller__pack(&m, buf);
	err = sp_bus_blob_new(buf, n, &h->snapshot);
	free(buf);
	h->n_of.snapshots_made += err == 0;
	return err;
}

// Returns the bytes it cost.
static size_t send_snapshot(struct con_hub *h, struct hub_peer *p,
			    const struct con_hub_call *to)
{
	uint64_t now = sp_loop_now_us(h->loop);
	int err = 0;
	if (p->snapshot_us && now < p->snapshot_us + SNAPSHOT_AGAIN) {
		h->n_of.answers[ANSWER_NONE]++;
		con_hub_refuse(h, to, "one snapshot a second", 1000);
		return 0;
	}
	if (!h->snapshot)
		err = make_snapshot(h);
	if (err) {
		h->n_of.answers[ANSWER_NONE]++;
		hub_event(h, CON_HUB_SNAPSHOT, NULL, sp_strerror(err));
		con_hub_refuse(h, to, "no snapshot can be made", 5000);
		return 0;
	}
	p->snapshot_us = now;
	h->n_of.answers[ANSWER_SNAPSHOT]++;
	if (to->call) { // numbered: a copy of its own
		Sallyport__Fleet__FromController m =
			SALLYPORT__FLEET__FROM_CONTROLLER__INIT;
		Sallyport__Fleet__Snapshot s = SALLYPORT__FLEET__SNAPSHOT__INIT;
		const char *text;
		if (h->ops->snapshot(h->ctx, &text, &s.blob.len))
			return 0;
		s.blob.data = (uint8_t *)(uintptr_t)text;
		m.body_case = SALLYPORT__FLEET__FROM_CONTROLLER__BODY_SNAPSHOT;
		m.snapshot = &s;
		return con_hub_answer(h, to, &m) ? 0 : s.blob.len;
	}
	if (sp_bus_send_blob(h->bus, to->domain, to->route, to->route_len, h->snapshot,
			     p->meter))
		return 0; // gone, or it does not read: counted there
	return sp_bus_blob_len(h->snapshot);
}

// The texts after `from` up to the head, to `ret`, at most HUB_MARKS. False: not all are
// at hand, or they are too long for one answer.
static bool collect(struct con_hub *h, const struct sp_position *from,
		    ProtobufCBinaryData *ret, size_t *ret_n)
{
	const struct hub_mark *at = hub_mark(h, from->sequence);
	size_t n = 0, total = 0;
	if (!at || memcmp(at->hash, from->hash, sizeof(at->hash)) != 0 ||
	    h->head.sequence - from->sequence > HUB_MARKS)
		return false;
	for (uint64_t s = from->sequence + 1; s <= h->head.sequence; s++, n++) {
		const char *text = h->ops->revision(h->ctx, s, &ret[n].len);
		if (!text)
			return false;
		ret[n].data = (uint8_t *)(uintptr_t)text;
		total += ret[n].len;
		if (total > CON_HUB_DELTAS_MAX)
			return false;
	}
	*ret_n = n;
	return true;
}

static size_t send_revisions(struct con_hub *h, const struct con_hub_call *to,
			     ProtobufCBinaryData *texts, size_t n)
{
	Sallyport__Fleet__FromController m = SALLYPORT__FLEET__FROM_CONTROLLER__INIT;
	Sallyport__Fleet__Revisions r = SALLYPORT__FLEET__REVISIONS__INIT;
	size_t total = 0;
	r.n_blob = n;
	r.blob = texts;
	m.body_case = SALLYPORT__FLEET__FROM_CONTROLLER__BODY_REVISIONS;
	m.revisions = &r;
	for (size_t i = 0; i < n; i++)
		total += texts[i].len;
	h->n_of.answers[n ? ANSWER_REVISIONS : ANSWER_CURRENT]++;
	(void)con_hub_answer(h, to, &m); // gone, or it does not read: counted there
	return total;
}

static size_t answer(struct con_hub *h, struct hub_peer *p)
{
	ProtobufCBinaryData texts[HUB_MARKS];
	struct con_hub_call to;
	size_t n = 0;
	hub_call_of(p, p->fetch_call, &to);
	if (h->head.sequence == 0 || sp_position_compare(&p->from, &h->head) > 0) {
		h->n_of.answers[ANSWER_NONE]++;
		con_hub_refuse(h, &to,
			       h->head.sequence ? "this controller is behind"
						: "there is no revision yet",
			       1000);
		return 0;
	}
	if (!p->whole && p->from.sequence && collect(h, &p->from, texts, &n))
		return send_revisions(h, &to, texts, n);
	return send_snapshot(h, p, &to);
}

static void refill(struct con_hub *h, uint64_t now)
{
	int64_t most = (int64_t)h->fetch_rate / 50 + 1; // 20 ms
	uint64_t passed = now - h->fetch_us;
	if (passed > 1000000)
		h->fetch_left += h->fetch_rate;
	else
		h->fetch_left += (int64_t)(passed * h->fetch_rate / 1000000);
	if (h->fetch_left > most)
		h->fetch_left = most;
	h->fetch_us = now;
}

void hub_fetch_serve(void *hub)
{
	struct con_hub *h = hub;
	uint64_t now = sp_loop_now_us(h->loop);
	struct hub_peer *p;
	refill(h, now);
	for (int i = 0; i < SLICE_MAX && h->fetch_left > 0; i++) {
		p = TAILQ_FIRST(&h->fetches);
		if (!p)
			return;
		hub_fetch_drop(h, p);
		size_t cost = answer(h, p);
		h->n_of.fetch_bytes += cost;
		h->fetch_left -= (int64_t)cost;
	}
	if (!TAILQ_EMPTY(&h->fetches))
		sp_timer_set(&h->serve, now + TICK_US);
}

void hub_fetch_drop(struct con_hub *h, struct hub_peer *p)
{
	if (!p->queued)
		return;
	TAILQ_REMOVE(&h->fetches, p, fetch);
	p->queued = false;
	h->n_fetches--;
}

void hub_fetch(struct con_hub *h, struct hub_peer *p, uint64_t call,
	       const Sallyport__Fleet__Fetch *m)
{
	struct sp_position from;
	h->n_of.fetches++;
	if (!hub_position_get(m->applied, &from)) {
		h->n_of.malformed++;
		hub_event(h, CON_HUB_MALFORMED, p, "a fetch from no place");
		return;
	}
	p->from = from; // the last of a peer's fetches holds, in the place of the first
	p->whole = m->snapshot;
	p->fetch_call = call;
	if (p->queued)
		return;
	TAILQ_INSERT_TAIL(&h->fetches, p, fetch);
	p->queued = true;
	h->n_fetches++;
	if (h->serve.at_us == SP_LOOP_NEVER)
		sp_timer_set(&h->serve, sp_loop_now_us(h->loop));
}
