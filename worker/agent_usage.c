#include "worker/agent_usage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "lib/log.h"

#define SEGMENTS_MAX 300 // more than a worker keeps (worker/segments.h)

struct mark { // what a controller is known to have of a user, by its slot
	uint64_t up, down;
	uint64_t at_us; // 0: never
};

struct segment {
	TAILQ_ENTRY(segment) link;
	struct wrk_counters_reader r;
	bool ended;
	struct mark *marks;
	uint32_t n_marks;
};

// A report that is under way: one at a time.
struct pending {
	uint64_t call; // 0: none
	uint64_t since_us;
	struct segment *of;
	bool last; // with it all of an ended segment is known
	uint32_t n, index[AGT_USAGE_CHUNK];
	struct wrk_usage told[AGT_USAGE_CHUNK];
};

struct agt_usage {
	struct sp_loop *loop;
	const struct agt_usage_ops *ops;
	void *ctx;
	struct agt_usage_counters n;
	TAILQ_HEAD(segment_list, segment) segments; // ended ones before the one in use
	size_t count;
	struct pending p;
	struct sp_timer timer;
	uint64_t calls;
	bool up;
	bool turn; // the segment in use is reported once a tick
};

static uint64_t now_us(struct agt_usage *u)
{
	return sp_loop_now_us(u->loop);
}

static struct segment *find(struct agt_usage *u, uint64_t boot)
{
	struct segment *g;
	TAILQ_FOREACH(g, &u->segments, link)
	if (g->r.boot == boot)
		return g;
	return NULL;
}

static void drop(struct agt_usage *u, struct segment *g)
{
	if (u->p.of == g)
		u->p.call = 0;
	TAILQ_REMOVE(&u->segments, g, link);
	u->count--;
	wrk_counters_reader_done(&g->r);
	free(g->marks);
	free(g);
}

void agt_usage_add(struct agt_usage *u, uint64_t boot, bool ended, int fd)
{
	struct segment *g = find(u, boot);
	if (g) {
		g->ended |= ended;
		close(fd);
		return;
	}
	g = u->count < SEGMENTS_MAX ? calloc(1, sizeof(*g)) : NULL;
	if (!g) {
		close(fd);
		return;
	}
	int err = wrk_counters_reader_init(&g->r, fd);
	if (!err && g->r.boot != boot)
		err = SP_E_MALFORMED;
	if (err) {
		u->n.unreadable++;
		sp_warn("usage", "a segment cannot be read", "boot=%" PRIx64 " error=%s",
			boot, sp_strerror(err));
		wrk_counters_reader_done(&g->r);
		free(g);
		return;
	}
	g->ended = ended;
	TAILQ_INSERT_TAIL(&u->segments, g, link);
	u->count++;
}

// ---- a report ----

// Slots are read again each time and never move; marks grow with them.
static bool read_segment(struct agt_usage *u, struct segment *g)
{
	int err = wrk_counters_read(&g->r);
	if (err) {
		u->n.unreadable++;
		return false;
	}
	if (g->r.n_users <= g->n_marks)
		return true;
	struct mark *grown = realloc(g->marks, g->r.n_users * sizeof(*grown));
	if (!grown)
		return false;
	memset(grown + g->n_marks, 0, (g->r.n_users - g->n_marks) * sizeof(*grown));
	g->marks = grown;
	g->n_marks = g->r.n_users;
	return true;
}

static bool is_due(struct agt_usage *u, const struct segment *g, uint32_t i)
{
	const struct wrk_counters_user *user = &g->r.users[i];
	const struct mark *m = &g->marks[i];
	if (!m->at_us || user->usage.up != m->up || user->usage.down != m->down)
		return true;
	return !g->ended && user->live &&
	       now_us(u) - m->at_us >= UINT64_C(1000) * AGT_USAGE_REFRESH_MS;
}

static void send_report(struct agt_usage *u, struct segment *g)
{
	Sallyport__Fleet__UsageReport m = SALLYPORT__FLEET__USAGE_REPORT__INIT;
	Sallyport__Fleet__Usage rows[AGT_USAGE_CHUNK];
	Sallyport__Fleet__Usage *list[AGT_USAGE_CHUNK];
	struct pending *p = &u->p;
	for (uint32_t i = 0; i < p->n; i++) {
		sallyport__fleet__usage__init(&rows[i]);
		rows[i].user = g->r.users[p->index[i]].name;
		rows[i].bytes_up = p->told[i].up;
		rows[i].bytes_down = p->told[i].down;
		list[i] = &rows[i];
	}
	m.boot = g->r.boot;
	m.final = g->ended;
	m.n_users = p->n;
	m.users = list;
	if (u->ops->report(u->ctx, ++u->calls, &m))
		return;
	u->n.reports++;
	p->call = u->calls;
	p->of = g;
	p->since_us = now_us(u);
}

// False: nothing of it is due.
static bool report_segment(struct agt_usage *u, struct segment *g)
{
	struct pending *p = &u->p;
	if (!read_segment(u, g))
		return false;
	p->n = 0;
	p->last = true;
	for (uint32_t i = 0; i < g->r.n_users; i++) {
		if (!is_due(u, g, i))
			continue;
		if (p->n == AGT_USAGE_CHUNK) {
			p->last = false;
			break;
		}
		p->index[p->n] = i;
		p->told[p->n++] = g->r.users[i].usage;
	}
	if (!p->n && !g->ended)
		return false;
	send_report(u, g);
	return true;
}

// The one in use first, since quotas hang on it, but once a tick; then those that ended.
static void report_next(struct agt_usage *u)
{
	struct segment *g;
	if (!u->up || u->p.call)
		return;
	TAILQ_FOREACH(g, &u->segments, link)
	if (!g->ended && u->turn && report_segment(u, g))
		return;
	u->turn = false;
	TAILQ_FOREACH(g, &u->segments, link)
	if (g->ended && report_segment(u, g))
		return;
}

static void on_timer(void *ctx)
{
	struct agt_usage *u = ctx;
	if (u->p.call &&
	    now_us(u) - u->p.since_us >= UINT64_C(1000) * AGT_USAGE_ANSWER_MS) {
		u->p.call = 0;
		u->n.lost++;
	}
	u->turn = true;
	report_next(u);
	sp_timer_set(&u->timer, now_us(u) + UINT64_C(1000) * AGT_USAGE_EVERY_MS);
}

// ---- its answer ----

// What is left counts from what the report said.
static void pass_quotas(struct agt_usage *u, const Sallyport__Fleet__UsageAnswer *m)
{
	Sallyport__Local__Quota q = SALLYPORT__LOCAL__QUOTA__INIT;
	Sallyport__Local__UserQuota rows[AGT_USAGE_CHUNK];
	Sallyport__Local__UserQuota *list[AGT_USAGE_CHUNK];
	const struct pending *p = &u->p;
	const struct segment *g = p->of;
	for (size_t i = 0; i < m->n_users && q.n_users < AGT_USAGE_CHUNK; i++) {
		const Sallyport__Fleet__QuotaLeft *left = m->users[i];
		for (uint32_t j = 0; j < p->n; j++) {
			uint32_t k =
				(uint32_t)(i + j) % p->n; // the same order, as a rule
			Sallyport__Local__UserQuota *row = &rows[q.n_users];
			if (p->index[k] >= g->r.n_users ||
			    strcmp(left->user, g->r.users[p->index[k]].name))
				continue;
			uint64_t used = p->told[k].up + p->told[k].down;
			sallyport__local__user_quota__init(row);
			row->user = left->user;
			row->limited = left->limited;
			row->total = left->bytes >= 0 ? used + (uint64_t)left->bytes
				     : used > (uint64_t)-left->bytes
					     ? used - (uint64_t)-left->bytes
					     : 0;
			list[q.n_users++] = row;
			break;
		}
	}
	q.boot = g->r.boot;
	q.users = list;
	if (q.n_users && !g->ended)
		u->ops->quota(u->ctx, &q);
}

void agt_usage_on_answer(struct agt_usage *u, uint64_t call,
			 const Sallyport__Fleet__UsageAnswer *m)
{
	struct pending *p = &u->p;
	struct segment *g = p->of;
	if (!p->call || call != p->call || m->boot != g->r.boot)
		return;
	pass_quotas(u, m);
	p->call = 0;
	// Not stored yet: it is said again with the next turn.
	if (m->stored) {
		u->n.acknowledged++;
		for (uint32_t i = 0; i < p->n; i++)
			g->marks[p->index[i]] =
				(struct mark){p->told[i].up, p->told[i].down, now_us(u)};
		if (p->last && g->ended) {
			u->ops->done(u->ctx, g->r.boot);
			drop(u, g);
		} else if (p->last) {
			u->turn = false;
		}
		report_next(u);
	}
}

// ---- the whole ----

int agt_usage_new(struct sp_loop *loop, const struct agt_usage_ops *ops, void *ctx,
		  struct agt_usage **ret)
{
	struct agt_usage *u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	u->loop = loop;
	u->ops = ops;
	u->ctx = ctx;
	TAILQ_INIT(&u->segments);
	sp_timer_init(&u->timer, loop, on_timer, u);
	sp_timer_set(&u->timer, sp_loop_now_us(loop));
	*ret = u;
	return 0;
}

void agt_usage_free(struct agt_usage *u)
{
	if (!u)
		return;
	while (!TAILQ_EMPTY(&u->segments))
		drop(u, TAILQ_FIRST(&u->segments));
	sp_timer_done(&u->timer);
	free(u);
}

void agt_usage_end(struct agt_usage *u)
{
	struct segment *g;
	TAILQ_FOREACH(g, &u->segments, link)
	g->ended = true;
	u->p.call = 0; // a report that is under way did not say so
	report_next(u);
}

void agt_usage_set_up(struct agt_usage *u, bool up)
{
	if (!up)
		u->p.call = 0;
	u->up = u->turn = up;
	report_next(u);
}

struct wrk_counters_reader *agt_usage_current(struct agt_usage *u)
{
	struct segment *g, *last = NULL;
	TAILQ_FOREACH(g, &u->segments, link)
	if (!g->ended)
		last = g;
	return last && read_segment(u, last) ? &last->r : NULL;
}

size_t agt_usage_waiting(const struct agt_usage *u)
{
	const struct segment *g;
	size_t n = 0;
	TAILQ_FOREACH(g, &u->segments, link)
	n += g->ended;
	return n;
}

const struct agt_usage_counters *agt_usage_counters(const struct agt_usage *u)
{
	return &u->n;
}
