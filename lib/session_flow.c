// Datagram flows: their table, queues and budgets. Nothing here is ever sent twice.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/session_internal.h"

#define QUANTUM  1514 // bytes a flow may send per turn (deficit round robin)
#define OVERHEAD 48   // of a queued datagram: even an empty one takes memory

// What a queued datagram counts against the budgets.
static uint32_t cost(const struct packet *p)
{
	return p->len + OVERHEAD;
}

static bool is_dns(const struct sp_target *t)
{
	return t->port == 53 || t->port == 853;
}

// ---- buckets of flows by the size of their queue, to find the fattest at once ----

static void fat_update(struct sp_flow *fl)
{
	int8_t b = -1;
	for (uint32_t v = fl->queued; v; v >>= 1)
		b++;
	if (b >= FAT_BUCKETS)
		b = FAT_BUCKETS - 1;
	if (b == fl->fat)
		return;
	if (fl->fat >= 0)
		TAILQ_REMOVE(&fl->s->fat[fl->fat], fl, fat_link);
	fl->fat = b;
	if (b >= 0)
		TAILQ_INSERT_TAIL(&fl->s->fat[b], fl, fat_link);
}

static struct flow_list *active_list(struct sp_flow *fl)
{
	return fl->dns ? &fl->s->flows_dns : &fl->s->flows_active;
}

static void drop_head(struct sp_flow *fl)
{
	struct packet *p = STAILQ_FIRST(&fl->packets);
	STAILQ_REMOVE_HEAD(&fl->packets, next);
	fl->queued -= cost(p);
	fl->npackets--;
	fl->s->dgram_bytes -= cost(p);
	free(p);
	if (fl->npackets == 0)
		TAILQ_REMOVE(active_list(fl), fl, sched_link);
	fat_update(fl);
}

static bool drop_from_fattest(struct sp_session *s)
{
	for (int b = FAT_BUCKETS - 1; b >= 0; b--) {
		if (TAILQ_EMPTY(&s->fat[b]))
			continue;
		drop_head(TAILQ_FIRST(&s->fat[b]));
		s->stats.dgrams_dropped++;
		return true;
	}
	return false;
}

// ---- life ----

void flow_touch(struct sp_flow *fl)
{
	fl->last_us = fl->s->now_us;
	TAILQ_REMOVE(&fl->s->lru, fl, lru);
	TAILQ_INSERT_TAIL(&fl->s->lru, fl, lru);
}

// Out of every list; nothing but freeing it is left.
static void flow_unlink(struct sp_flow *fl)
{
	struct sp_session *s = fl->s;
	while (fl->npackets)
		drop_head(fl);
	ctl_drop(s, &fl->ctl);
	TAILQ_REMOVE(&s->lru, fl, lru);
	sp_idmap_remove(&s->flows, fl->id);
	s->n_flows--;
	s->flow_changes++;
	fl->ended = true;
}

// The program may close it again, or open another, while it is told.
void flow_end(struct sp_flow *fl, enum sp_reason reason)
{
	struct sp_session *s = fl->s;
	flow_unlink(fl);
	s->opt.ops->flow_closed(s->opt.ctx, fl, reason);
	free(fl);
}

// Makes room for one more: the stalest idle flow goes, never the newest.
static void flow_make_room(struct sp_session *s)
{
	uint32_t max = max_flows(s);
	// Counted beforehand: programs that are told may open others.
	uint32_t over = s->n_flows >= max ? s->n_flows - max + 1 : 0;
	for (; over && s->n_flows; over--) {
		struct sp_flow *stalest = TAILQ_FIRST(&s->lru);
		s->stats.flows_evicted++;
		(void)session_gone(s, stalest->id, true, SP_REASON_FLOW_LIMIT);
		flow_end(stalest, SP_REASON_FLOW_LIMIT);
	}
}

static struct sp_flow *flow_new(struct sp_session *s, uint64_t id,
				const struct sp_target *target)
{
	struct sp_flow *fl = calloc(1, sizeof(*fl));
	if (!fl || sp_idmap_put(&s->flows, id, fl)) {
		free(fl);
		return NULL;
	}
	fl->s = s;
	fl->id = id;
	fl->ctl.is_flow = true;
	fl->target = *target;
	fl->dns = is_dns(target);
	fl->fat = -1;
	fl->last_us = s->now_us;
	STAILQ_INIT(&fl->packets);
	TAILQ_INSERT_TAIL(&s->lru, fl, lru);
	s->n_flows++;
	s->flow_changes++;
	return fl;
}

void flow_sweep(struct sp_session *s)
{
	uint64_t idle_us = (uint64_t)s->opt.limits.flow_idle_ms * 1000;
	struct sp_flow *fl;
	while ((fl = TAILQ_FIRST(&s->lru)) && s->now_us - fl->last_us >= idle_us) {
		(void)session_gone(s, fl->id, true, SP_REASON_IDLE);
		flow_end(fl, SP_REASON_IDLE);
	}
}

uint64_t flow_deadline(const struct sp_session *s)
{
	const struct sp_flow *fl = TAILQ_FIRST(&s->lru);
	return fl ? fl->last_us + (uint64_t)s->opt.limits.flow_idle_ms * 1000
		  : UINT64_MAX;
}

// ---- frames from the peer ----

static int flow_open_frame(struct sp_session *s, const struct sp_frame *f)
{
	if (s->opt.role != SP_ROLE_WORKER)
		return SP_E_PROTOCOL;
	if (sp_idmap_get(&s->flows, f->id))
		return 0;
	flow_make_room(s);
	struct sp_flow *fl = flow_new(s, f->id, &f->target);
	if (!fl)
		return session_gone(s, f->id, true, SP_REASON_NO_MEMORY);
	s->opt.ops->flow_open(s->opt.ctx, fl, &fl->target);
	return 0;
}

int sp_session_restore_flow(struct sp_session *s, uint64_t id,
			    const struct sp_target *target)
{
	if (sp_idmap_get(&s->flows, id))
		return 0;
	if (s->n_flows >= max_flows(s))
		return SP_E_LIMIT;
	session_refresh(s);
	struct sp_flow *fl = flow_new(s, id, target);
	if (!fl)
		return -ENOMEM;
	s->opt.ops->flow_open(s->opt.ctx, fl, &fl->target);
	return 0;
}

int flow_frame(struct sp_session *s, const struct sp_frame *f)
{
	if (f->type == SP_FRAME_FLOW)
		return flow_open_frame(s, f);
	struct sp_flow *fl = sp_idmap_get(&s->flows, f->id);
	if (f->type == SP_FRAME_FLOW_CLOSE) {
		if (fl)
			flow_end(fl, sp_reason_from_wire(f->reason));
		return 0;
	}
	if (!fl)
		return session_gone(s, f->id, true, SP_REASON_GONE);
	if (f->len > SP_DATAGRAM_MAX)
		return SP_E_MALFORMED;
	flow_touch(fl);
	s->stats.dgrams_rx++;
	s->stats.dgram_bytes_rx += f->len;
	s->opt.ops->flow_data(s->opt.ctx, fl, f->data, f->len);
	return 0;
}

// ---- output ----

bool flow_has_output(const struct sp_session *s, bool dns)
{
	return !TAILQ_EMPTY(dns ? &s->flows_dns : &s->flows_active);
}

// Puts packets of one flow while they fit and its deficit lasts; the first of all may be
// larger than the quantum. False: no room is left.
static bool flow_turn(struct sp_flow *fl, struct sp_writer *w, size_t quantum,
		      size_t *put)
{
	struct sp_session *s = fl->s;
	uint64_t age = fl->dns ? DGRAM_AGE_DNS_US : DGRAM_AGE_US;
	while (fl->npackets) {
		struct packet *p = STAILQ_FIRST(&fl->packets);
		if (s->now_us - p->queued_us > age) {
			s->stats.dgrams_dropped++;
			drop_head(fl);
			continue;
		}
		size_t need = 1 + sp_varint_len(fl->id) + sp_varint_len(p->len) + p->len;
		if ((*put && *put + need > quantum) || need > sp_writer_room(w))
			return false;
		if (fl->deficit <= 0)
			return true;
		sp_frame_put_dgram(w, fl->id, p->len);
		sp_put_bytes(w, p->data, p->len);
		*put += need;
		fl->deficit -= (int32_t)p->len;
		s->stats.dgrams_tx++;
		s->stats.dgram_bytes_tx += p->len;
		drop_head(fl);
	}
	return true;
}

size_t flow_output(struct sp_session *s, bool dns, struct sp_writer *w, size_t quantum)
{
	struct flow_list *list = dns ? &s->flows_dns : &s->flows_active;
	size_t put = 0;
	struct sp_flow *fl;
	while ((fl = TAILQ_FIRST(list))) {
		if (fl->deficit <= 0)
			fl->deficit += QUANTUM;
		if (!flow_turn(fl, w, quantum, &put))
			break;
		if (fl->npackets) { // its turn is over
			TAILQ_REMOVE(list, fl, sched_link);
			TAILQ_INSERT_TAIL(list, fl, sched_link);
		}
	}
	return put;
}

// ---- the program's side ----

int sp_session_open_flow(struct sp_session *s, const struct sp_target *target, void *user,
			 struct sp_flow **ret)
{
	if (s->dead)
		return SP_E_CLOSED;
	session_refresh(s);
	flow_make_room(s); // first: the program may open another when it is told
	struct sp_flow *fl = flow_new(s, s->next_flow, target);
	if (!fl)
		return -ENOMEM;
	s->next_flow++;
	fl->user = user;
	ctl_want(s, &fl->ctl, WANT_FLOW);
	*ret = fl;
	return 0;
}

int sp_flow_send(struct sp_flow *fl, const uint8_t *buf, size_t len)
{
	struct sp_session *s = fl->s;
	if (len > SP_DATAGRAM_MAX)
		return -EMSGSIZE;
	if (fl->ended)
		return SP_E_CLOSED;
	session_refresh(s);
	while (s->dgram_bytes + len + OVERHEAD > s->opt.limits.datagram_budget_bytes)
		if (!drop_from_fattest(s)) {
			s->stats.dgrams_dropped++;
			return SP_E_LIMIT;
		}
	struct packet *p = malloc(sizeof(*p) + len);
	if (!p) {
		s->stats.dgrams_dropped++;
		return SP_E_LIMIT;
	}
	p->len = (uint32_t)len;
	p->queued_us = s->now_us;
	memcpy(p->data, buf, len);
	STAILQ_INSERT_TAIL(&fl->packets, p, next);
	if (fl->npackets++ == 0)
		TAILQ_INSERT_TAIL(active_list(fl), fl, sched_link);
	fl->queued += cost(p);
	s->dgram_bytes += cost(p);
	fat_update(fl);
	flow_touch(fl);
	session_wake(s);
	return 0;
}

void sp_flow_close(struct sp_flow *fl, enum sp_reason reason)
{
	if (fl->ended) // it is being told of that
		return;
	(void)session_gone(fl->s, fl->id, true, reason);
	flow_unlink(fl);
	free(fl);
}

void sp_flow_set_user(struct sp_flow *fl, void *user)
{
	fl->user = user;
}

void *sp_flow_user(const struct sp_flow *fl)
{
	return fl->user;
}

struct sp_session *sp_flow_session(const struct sp_flow *fl)
{
	return fl->s;
}

void *sp_flow_ctx(const struct sp_flow *fl)
{
	return fl->s->opt.ctx;
}

uint64_t sp_flow_id(const struct sp_flow *fl)
{
	return fl->id;
}

void sp_session_each_flow(const struct sp_session *s,
			  void (*each)(void *ctx, const struct sp_flow *fl), void *ctx)
{
	const struct sp_flow *fl;
	TAILQ_FOREACH(fl, &s->lru, lru)
	each(ctx, fl);
}

uint64_t sp_session_flow_changes(const struct sp_session *s)
{
	return s->flow_changes;
}

const struct sp_target *sp_flow_target(const struct sp_flow *fl)
{
	return &fl->target;
}
