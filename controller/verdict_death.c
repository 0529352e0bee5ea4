// Whether vantages have failed to reach a node for long enough that, with its lease gone,
// its sessions may go on elsewhere. Stricter than the verdict, which takes a node out of
// what is offered: that can be undone, a stream that was reset cannot.
#include "controller/verdict_internal.h"

static uint64_t newest(const struct con_track *t)
{
	return t->at[(t->n - 1) % CON_VERDICT_STREAK_MAX];
}

// What one vantage says. Failing: since when, and until when at least, on every carrier.
struct word {
	bool known, failing;
	uint64_t from_ms, to_ms;
	uint64_t ok_ms; // the last success that still stands
};

static void hear(const struct con_node *n, const struct con_sight *s, struct word *ret)
{
	*ret = (struct word){.failing = true, .to_ms = UINT64_MAX};
	for (unsigned c = 0; s && c < n->carriers; c++) {
		const struct con_track *t = &s->track[c];
		if (!t->n)
			continue;
		ret->known = true;
		if (t->ok) {
			ret->failing = false;
			if (newest(t) > ret->ok_ms)
				ret->ok_ms = newest(t);
			continue;
		}
		if (t->probed_ms > ret->from_ms)
			ret->from_ms = t->probed_ms;
		if (newest(t) < ret->to_ms)
			ret->to_ms = newest(t);
	}
	ret->failing &= ret->known;
}

unsigned con_verdict_unreached(const struct con_verdict *v, unsigned node,
			       uint32_t for_ms, uint64_t now_ms)
{
	const struct con_node *n = node < v->n_nodes ? v->node[node] : NULL;
	uint64_t first_ms = UINT64_MAX, ok_ms = 0;
	unsigned found = 0;
	for (unsigned i = 0; n && i < CON_VANTAGES_MAX; i++) {
		struct word w;
		if (!(v->status.voters & (UINT32_C(1) << i)))
			continue;
		hear(n, n->sight[i], &w);
		if (w.ok_ms > ok_ms)
			ok_ms = w.ok_ms;
		if (!w.failing || w.to_ms < w.from_ms + for_ms ||
		    now_ms > w.to_ms + v->opt.old_ms)
			continue;
		found++;
		if (w.from_ms < first_ms)
			first_ms = w.from_ms;
	}
	return ok_ms >= first_ms ? 0 : found;
}
