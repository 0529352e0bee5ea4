// The session object: making and freeing, control requests, time.
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/session_internal.h"

void sp_session_limits_default(struct sp_session_limits *ret)
{
	*ret = (struct sp_session_limits){
		.max_streams = 8192,
		.max_flows = 4096,
		.stream_window_bytes = 4 << 20,
		.session_window_bytes = 32 << 20,
		.datagram_budget_bytes = 512 << 10,
		.flow_idle_ms = 30000,
	};
}

struct sp_session *session_with_record(const struct sp_session_options *opt,
				       uint32_t index, uint64_t now_us)
{
	struct sp_session *s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->opt = *opt;
	s->index = index;
	s->rec = sp_arena_session(opt->arena, index);
	s->now_us = s->detached_since_us = now_us;
	s->primary = -1;
	s->next_stream = s->next_flow = 1;
	s->peer_max_streams = s->peer_max_flows = UINT32_MAX;
	sp_idmap_init(&s->streams);
	sp_idmap_init(&s->flows);
	TAILQ_INIT(&s->all);
	TAILQ_INIT(&s->sched_new);
	TAILQ_INIT(&s->sched_old);
	TAILQ_INIT(&s->dirty);
	TAILQ_INIT(&s->resume);
	TAILQ_INIT(&s->finished);
	TAILQ_INIT(&s->sent_some);
	TAILQ_INIT(&s->ctl);
	TAILQ_INIT(&s->lru);
	TAILQ_INIT(&s->flows_active);
	TAILQ_INIT(&s->flows_dns);
	for (int i = 0; i < FAT_BUCKETS; i++)
		TAILQ_INIT(&s->fat[i]);
	return s;
}

int sp_session_new(const struct sp_session_options *opt, uint64_t now_us,
		   struct sp_session **ret)
{
	uint32_t index = sp_arena_session_alloc(opt->arena);
	if (index == SP_ARENA_NONE)
		return SP_E_LIMIT;
	struct sp_session_rec *rec = sp_arena_session(opt->arena, index);
	memcpy(rec->id, opt->id, sizeof(rec->id));
	rec->adopted = opt->adopted;
	while (opt->role == SP_ROLE_WORKER && rec->incarnation == 0)
		randombytes_buf(&rec->incarnation, sizeof(rec->incarnation));
	*ret = session_with_record(opt, index, now_us);
	if (*ret)
		return 0;
	sp_arena_session_release(opt->arena, index);
	return -ENOMEM;
}

void sp_session_free(struct sp_session *s, enum sp_reason reason)
{
	if (!s)
		return;
	struct sp_arena *arena = s->opt.arena;
	uint64_t before = sp_arena_work_for(arena, s->index);
	s->dead = true;
	s->rec->state = SP_REC_FREE; // whoever takes over in the middle finds it gone
	for (unsigned i = 0; i < SP_SLOTS; i++) {
		struct slot old = s->slots[i];
		if (old.phase == PHASE_EMPTY)
			continue;
		sp_session_detach(s, i, old.link, s->now_us);
		old.ops->close(old.link, reason);
	}
	while (!TAILQ_EMPTY(&s->all)) {
		struct sp_stream *st = TAILQ_FIRST(&s->all);
		stream_end(st, reason);
		stream_destroy(st);
	}
	while (!TAILQ_EMPTY(&s->lru))
		flow_end(TAILQ_FIRST(&s->lru), reason);
	sp_idmap_done(&s->streams);
	sp_idmap_done(&s->flows);
	free(s->gone.items);
	free(s->pass);
	sp_arena_session_release(arena, s->index);
	sodium_memzero(s, sizeof(*s));
	free(s);
	sp_arena_feed(arena); // others waited for this memory
	sp_arena_work_was(arena, before);
}

uint32_t sp_session_record(const struct sp_session *s)
{
	return s->index;
}

const uint8_t *sp_session_id(const struct sp_session *s)
{
	return s->opt.id;
}

void sp_session_set_limits(struct sp_session *s, const struct sp_session_limits *limits)
{
	s->opt.limits = *limits;
}

// ---- control frames of streams and flows ----

void ctl_want(struct sp_session *s, struct ctl_state *c, uint8_t want)
{
	c->want |= want;
	if (!c->listed) {
		c->listed = true;
		TAILQ_INSERT_TAIL(&s->ctl, c, link);
	}
	session_wake(s);
}

void ctl_drop(struct sp_session *s, struct ctl_state *c)
{
	if (c->listed)
		TAILQ_REMOVE(&s->ctl, c, link);
	c->listed = false;
	c->want = c->unreported = 0;
}

bool ctl_reported(const struct sp_session *s, const struct ctl_state *c)
{
	const struct slot *sl = &s->slots[c->slot];
	return sl->phase != PHASE_EMPTY && sl->epoch == c->epoch &&
	       sl->tx_reported > c->record;
}

void ctl_sent(struct ctl_state *c, const struct slot *sl, unsigned slot, uint8_t what)
{
	bool same = c->epoch == sl->epoch && c->slot == slot;
	if (same && sl->tx_reported > c->record)
		c->unreported = 0;
	c->want &= (uint8_t)~what;
	c->unreported |= what;
	c->slot = (uint8_t)slot;
	c->epoch = sl->epoch;
	c->record = sl->tx_records;
}

static int gone_room(struct gone_list *g)
{
	if (g->end < g->cap)
		return 0;
	if (g->first > g->cap / 2) {
		memmove(g->items, g->items + g->first,
			(g->end - g->first) * sizeof(*g->items));
		g->next -= g->first;
		g->end -= g->first;
		g->first = 0;
		return 0;
	}
	uint32_t cap = g->cap ? 2 * g->cap : 8;
	struct gone *items = realloc(g->items, cap * sizeof(*items));
	if (!items)
		return -ENOMEM;
	g->items = items;
	g->cap = cap;
	return 0;
}

void gone_reported(struct gone_list *g, uint64_t records)
{
	while (g->first < g->next && g->items[g->first].record < records)
		g->first++;
	if (g->first == g->end) {
		free(g->items);
		*g = (struct gone_list){0};
	}
}

int session_gone(struct sp_session *s, uint64_t id, bool is_flow, enum sp_reason reason)
{
	struct gone_list *g = &s->gone;
	uint32_t n = g->end - g->first;
	const struct gone *last = n ? &g->items[g->end - 1] : NULL;
	if (last && last->id == id && last->is_flow == is_flow)
		return 0;
	// Datagrams say again what flow they are for, so an answer may be left out.
	if (is_flow && n >= GONE_MAX / 2)
		return 0;
	if (n >= GONE_MAX)
		return SP_E_PROTOCOL;
	if (gone_room(g))
		return -ENOMEM;
	g->items[g->end++] = (struct gone){id, 0, sp_reason_to_wire(reason), is_flow};
	session_wake(s);
	return 0;
}

// ---- output wanted ----

void slot_wake(struct slot *sl)
{
	if (sl->phase == PHASE_EMPTY || sl->woken)
		return;
	sl->woken = true;
	sl->ops->wake(sl->link);
}

void session_wake(struct sp_session *s)
{
	struct slot *sl = primary_slot(s);
	if (sl)
		slot_wake(sl);
}

// ---- time ----

static uint64_t stall_us(const struct slot *sl)
{
	uint64_t t = 3ull * sl->srtt_us + 4ull * sl->rttvar_us;
	return t > STALL_MIN_US ? t : STALL_MIN_US;
}

static uint64_t stall_at(const struct sp_session *s, const struct slot *sl)
{
	if (s->opt.role != SP_ROLE_CLIENT || !sl->waiting_since_us || sl->stall_told)
		return UINT64_MAX;
	uint64_t since = sl->waiting_since_us;
	if (sl->last_rx_us > since)
		since = sl->last_rx_us;
	return since + stall_us(sl);
}

static uint64_t ping_at(const struct sp_session *s, const struct slot *sl)
{
	if (s->opt.role != SP_ROLE_CLIENT || sl->phase != PHASE_RUN || sl->ping)
		return UINT64_MAX;
	bool live = sl - s->slots == s->primary && (s->n_live || s->n_flows);
	uint64_t from = sl->last_rx_us > sl->ping_at_us ? sl->last_rx_us : sl->ping_at_us;
	return from + (live ? sl->ping_after_us : PING_IDLE_US);
}

uint64_t slot_pass_at(const struct slot *sl)
{
	uint64_t ahead = (PASS_BURST_SENT - 1) * PASS_EACH_US;
	return sl->pass_paid_us > ahead ? sl->pass_paid_us - ahead : 0;
}

// Of several passes that come soon one after the other, the last is what is sent.
static uint64_t pass_at(const struct sp_session *s, const struct slot *sl)
{
	bool waits = sl->pass && sl->phase == PHASE_RUN && sl - s->slots == s->primary;
	return waits ? slot_pass_at(sl) : UINT64_MAX;
}

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t sp_session_deadline(const struct sp_session *s)
{
	uint64_t d = flow_deadline(s);
	for (unsigned i = 0; i < SP_SLOTS; i++) {
		const struct slot *sl = &s->slots[i];
		if (sl->phase == PHASE_EMPTY)
			continue;
		if (sl->report_due && !sl->woken)
			d = min64(d, sl->report_at_us);
		d = min64(d, stall_at(s, sl));
		d = min64(d, ping_at(s, sl));
		if (!sl->woken)
			d = min64(d, pass_at(s, sl));
	}
	if (s->primary >= 0 && !s->slots[s->primary].woken && !TAILQ_EMPTY(&s->dirty))
		d = min64(d, s->dirty_at_us);
	return d;
}

static void slot_tick(struct sp_session *s, unsigned i)
{
	struct slot *sl = &s->slots[i];
	if (sl->report_due && s->now_us >= sl->report_at_us)
		slot_wake(sl);
	if (s->now_us >= pass_at(s, sl))
		slot_wake(sl);
	if (s->now_us >= ping_at(s, sl)) {
		sl->ping = true;
		sl->ping_at_us = s->now_us;
		sl->ping_after_us = min64(2 * sl->ping_after_us, PING_MAX_US);
		slot_wake(sl);
	}
	if (s->now_us >= stall_at(s, sl)) {
		sl->stall_told = true;
		s->opt.ops->stalled(s->opt.ctx, i);
	}
}

void sp_session_tick(struct sp_session *s, uint64_t now_us)
{
	uint64_t before = sp_arena_work_for(s->opt.arena, s->index);
	s->now_us = now_us;
	session_unreserve(s);
	for (unsigned i = 0; i < SP_SLOTS; i++)
		if (s->slots[i].phase != PHASE_EMPTY)
			slot_tick(s, i);
	if (!TAILQ_EMPTY(&s->dirty) && now_us >= s->dirty_at_us)
		session_wake(s);
	flow_sweep(s);
	sp_arena_feed(s->opt.arena);
	sp_arena_work_was(s->opt.arena, before);
}

// ---- whole session ----

void sp_session_goaway(struct sp_session *s, enum sp_reason reason, uint64_t deadline_ms)
{
	s->goaway = true;
	s->goaway_reason = reason;
	s->goaway_deadline_ms = deadline_ms;
	struct slot *sl = primary_slot(s);
	if (sl) {
		sl->goaway = true;
		slot_wake(sl);
	}
}

void sp_session_stay(struct sp_session *s)
{
	s->goaway = false;
	for (unsigned i = 0; i < SP_SLOTS; i++)
		s->slots[i].goaway = false;
}

void sp_session_end(struct sp_session *s, enum sp_reason reason)
{
	s->dead = true;
	s->end_reason = reason;
	for (unsigned i = 0; i < SP_SLOTS; i++) {
		s->slots[i].ending = true;
		slot_wake(&s->slots[i]);
	}
}

int sp_session_send_pass(struct sp_session *s, const uint8_t *blob, size_t len)
{
	if (len > 2048)
		return -EMSGSIZE;
	uint8_t *copy = malloc(len ? len : 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, blob, len);
	free(s->pass);
	s->pass = copy;
	s->pass_len = len;
	struct slot *sl = primary_slot(s);
	if (sl) {
		sl->pass = true;
		slot_wake(sl);
	}
	return 0;
}

void sp_session_stats(const struct sp_session *s, struct sp_session_stats *ret)
{
	*ret = s->stats;
	ret->streams = s->n_live;
	ret->flows = s->n_flows;
	ret->detached_since_us = s->primary < 0 ? s->detached_since_us : 0;
	if (s->primary >= 0)
		ret->srtt_us = s->slots[s->primary].srtt_us;
	const struct sp_stream *st;
	TAILQ_FOREACH(st, &s->all, all)
	ret->replay_bytes += st->rec->chunks * SP_CHUNK_BYTES;
	for (unsigned i = 0; i < SP_SLOTS; i++) {
		ret->carriers += s->slots[i].phase != PHASE_EMPTY;
		if (s->slots[i].last_rx_us > ret->last_rx_us)
			ret->last_rx_us = s->slots[i].last_rx_us;
	}
}

uint64_t sp_session_pool_bytes(const struct sp_session *s)
{
	return (uint64_t)s->ring_chunks * SP_CHUNK_BYTES + s->credit_extra;
}

unsigned sp_session_free_slot(const struct sp_session *s)
{
	unsigned i = 0;
	while (i < SP_SLOTS && s->slots[i].phase != PHASE_EMPTY)
		i++;
	return i;
}

int sp_session_active_slot(const struct sp_session *s)
{
	return s->primary;
}

uint32_t sp_session_epoch(const struct sp_session *s)
{
	return s->rec->epoch;
}
