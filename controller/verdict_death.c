// Whether vantages have heard nothing of a node for long enough that, with its lease
// gone, its sessions may go on elsewhere. Stricter than the verdict, which takes a node
// out of what is offered: that can be undone, a stream that was reset cannot.
#include "controller/verdict_internal.h"

// What one vantage says. Mute: since when, and until when at least, on every carrier.
struct word {
	bool mute;
	uint64_t from_ms, to_ms;
	uint64_t spoke_ms; // the last word of the node
};

static void hear(const struct con_node *n, const struct con_sight *s, struct word *ret)
{
	bool known = false;
	*ret = (struct word){.mute = true, .to_ms = UINT64_MAX};
	for (unsigned c = 0; s && c < n->carriers; c++) {
		const struct con_track *t = &s->track[c];
		if (!t->n)
			continue;
		known = true;
		ret->mute &= t->mute_to_ms != 0;
		if (t->spoke_ms > ret->spoke_ms)
			ret->spoke_ms = t->spoke_ms;
		if (t->mute_from_ms > ret->from_ms)
			ret->from_ms = t->mute_from_ms;
		if (t->mute_to_ms < ret->to_ms)
			ret->to_ms = t->mute_to_ms;
	}
	ret->mute &= known;
}

unsigned con_verdict_unreached(const struct con_verdict *v, unsigned node,
			       uint32_t for_ms, uint64_t now_ms)
{
	const struct con_node *n = node < v->n_nodes ? v->node[node] : NULL;
	struct word word[CON_VANTAGES_MAX];
	uint64_t spoke_ms = 0;
	unsigned found = 0;
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++) {
		struct word *w = &word[i];
		*w = (struct word){0};
		if (!n || !(v->status.voters & (UINT32_C(1) << i)))
			continue;
		hear(n, n->sight[i], w);
		if (!w->mute && w->spoke_ms && now_ms <= w->spoke_ms + v->opt.old_ms)
			return 0;
		if (w->spoke_ms > spoke_ms)
			spoke_ms = w->spoke_ms;
	}
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++) {
		const struct word *w = &word[i];
		uint64_t from_ms = w->from_ms > spoke_ms ? w->from_ms : spoke_ms;
		found += w->mute && w->to_ms >= from_ms + for_ms &&
			 now_ms <= w->to_ms + v->opt.old_ms;
	}
	return found;
}
