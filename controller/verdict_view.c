// What vantages know, who of them is believed, and what follows for one node.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controller/verdict_internal.h"

#define PASSIVE_WINDOW_MS 10000

static uint32_t bit(unsigned i)
{
	return UINT32_C(1) << i;
}

static uint64_t ago(uint64_t now, uint64_t ms)
{
	return now > ms ? now - ms : 0;
}

static uint64_t latest(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

// ---- one carrier, one vantage ----

static uint64_t track_newest(const struct con_track *t)
{
	return t->n ? t->at[(t->n - 1) % CON_VERDICT_STREAK_MAX] : 0;
}

// How many of the last results, all of this kind, came at `since` or later.
static unsigned track_count(const struct con_track *t, bool ok, uint64_t since)
{
	unsigned kept = t->n < CON_VERDICT_STREAK_MAX ? t->n : CON_VERDICT_STREAK_MAX;
	unsigned n = 0;
	if (t->ok != ok)
		return 0;
	while (n < kept && t->at[(t->n - 1 - n) % CON_VERDICT_STREAK_MAX] >= since)
		n++;
	return n;
}

static void track_add(struct con_track *t, const struct con_probe_result *r)
{
	if (t->n == 0 || t->ok != r->ok) {
		t->ok = r->ok;
		t->n = 0;
		t->began_ms = r->ended_ms;
	}
	if (r->ok || r->answered) {
		t->mute_from_ms = t->mute_to_ms = 0;
		t->spoke_ms = r->ended_ms;
	} else {
		if (!t->mute_to_ms)
			t->mute_from_ms = r->began_ms;
		t->mute_to_ms = r->ended_ms;
	}
	t->at[t->n++ % CON_VERDICT_STREAK_MAX] = r->ended_ms;
	if (t->n >= UINT32_MAX - CON_VERDICT_STREAK_MAX) // the ring's phase is kept
		t->n = 2 * CON_VERDICT_STREAK_MAX;
	strncpy(t->rung, r->rung ? r->rung : "", sizeof(t->rung) - 1);
	strncpy(t->reason, r->reason ? r->reason : "", sizeof(t->reason) - 1);
}

// ---- one node, one vantage: as good as its best carrier ----

static bool sight_known(const struct con_node *n, const struct con_sight *s,
			uint64_t since)
{
	for (unsigned c = 0; s && c < n->carriers; c++)
		if (s->track[c].n && track_newest(&s->track[c]) >= since)
			return true;
	return false;
}

// Failures in a row at `since` or later, of the carrier that fails least; with `whole`
// the whole row, however long.
static unsigned sight_failures(const struct con_node *n, const struct con_sight *s,
			       uint64_t since, bool whole)
{
	unsigned least = UINT32_MAX;
	for (unsigned c = 0; c < n->carriers; c++) {
		const struct con_track *t = &s->track[c];
		if (!t->n)
			continue;
		unsigned k = t->ok ? 0 : whole ? t->n : track_count(t, false, since);
		least = k < least ? k : least;
	}
	return least == UINT32_MAX ? 0 : least;
}

static unsigned sight_successes(const struct con_node *n, const struct con_sight *s,
				uint64_t since)
{
	unsigned most = 0;
	for (unsigned c = 0; c < n->carriers; c++) {
		unsigned k = track_count(&s->track[c], true, since);
		most = k > most ? k : most;
	}
	return most;
}

// When the last carrier began to fail.
static uint64_t sight_fell_ms(const struct con_node *n, const struct con_sight *s)
{
	uint64_t at = 0;
	for (unsigned c = 0; c < n->carriers; c++)
		if (s->track[c].n)
			at = latest(at, s->track[c].began_ms);
	return at;
}

static uint64_t sight_last_ok_ms(const struct con_node *n, const struct con_sight *s)
{
	uint64_t at = 0;
	for (unsigned c = 0; c < n->carriers; c++)
		if (s->track[c].n && s->track[c].ok)
			at = latest(at, track_newest(&s->track[c]));
	return at;
}

int con_verdict_result(struct con_verdict *v, unsigned vantage, unsigned node,
		       const struct con_probe_result *r)
{
	struct con_node *n = node < v->n_nodes ? v->node[node] : NULL;
	if (!n || vantage >= CON_VANTAGES_MAX || !*v->vantage[vantage].name)
		return -ENOENT;
	if (r->carrier >= n->carriers)
		return -EINVAL;
	if (r->began_ms < n->since_result_ms)
		return SP_E_STALE;
	struct con_sight *s = n->sight[vantage];
	if (!s) {
		s = calloc(1,
			   sizeof(*s) + CON_VERDICT_CARRIERS_MAX * sizeof(s->track[0]));
		if (!s)
			return -ENOMEM;
		n->sight[vantage] = s;
	}
	struct con_track *t = &s->track[r->carrier];
	if (t->n && r->ended_ms <= track_newest(t))
		return SP_E_STALE;
	track_add(t, r);
	if (r->ok && r->latency_us)
		s->latency_us = s->latency_us ? s->latency_us - s->latency_us / 8 +
							r->latency_us / 8
					      : r->latency_us;
	return 0;
}

void con_verdict_forget(struct con_verdict *v, unsigned node, uint64_t now_ms)
{
	struct con_node *n = node < v->n_nodes ? v->node[node] : NULL;
	if (!n || (n->was_reset && now_ms < n->reset_ms + v->opt.reset_ms))
		return;
	n->was_reset = true;
	n->reset_ms = n->since_result_ms = now_ms;
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++)
		for (unsigned c = 0; n->sight[i] && c < CON_VERDICT_CARRIERS_MAX; c++)
			n->sight[i]->track[c] = (struct con_track){0};
}

void con_verdict_passive(struct con_verdict *v, unsigned node, uint64_t good,
			 uint64_t failed, uint64_t now_ms)
{
	struct con_node *n = node < v->n_nodes ? v->node[node] : NULL;
	if (!n || !v->opt.passive_min)
		return;
	n->passive_good += good;
	n->passive_failed += failed;
	uint64_t all = n->passive_good + n->passive_failed;
	if (all >= v->opt.passive_min) {
		n->passive_bad = n->passive_failed * 100 >= all * v->opt.passive_percent;
		n->passive_until_ms = now_ms + v->opt.silent_ms;
	}
	if (all >= v->opt.passive_min ||
	    now_ms >= n->passive_began_ms + PASSIVE_WINDOW_MS) {
		n->passive_good = n->passive_failed = 0;
		n->passive_began_ms = now_ms;
	}
}

// ---- who votes ----

// A vantage that cannot use more than half of what is not known to be down has lost its
// own way. One failure is half a node: a lost probe is common, two in a row are not.
static bool is_astray(const struct con_verdict *v, unsigned vantage, uint64_t now)
{
	unsigned seen = 0, failing = 0, doubtful = 0;
	for (unsigned i = 0; i < v->n_nodes; i++) {
		const struct con_node *n = v->node[i];
		if (!n || n->draining || n->state == CON_NODE_DOWN ||
		    n->state == CON_NODE_QUARANTINED ||
		    !sight_known(n, n->sight[vantage], ago(now, v->opt.old_ms)))
			continue;
		unsigned k = sight_failures(n, n->sight[vantage], 0, false);
		seen++;
		failing += k >= 2;
		doubtful += k == 1;
	}
	return 2 * (failing + doubtful / 2) > seen;
}

void con_verdict_weigh_vantages(struct con_verdict *v, uint64_t now)
{
	struct con_verdict_status *st = &v->status;
	bool known = false;
	st->voters = st->silent = st->cut_off = st->astray = 0;
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++) {
		struct con_vantage *w = &v->vantage[i];
		if (!*w->name)
			continue;
		bool silent = !w->heard || w->heard_ms < ago(now, v->opt.silent_ms);
		bool astray = !silent && w->controls_ok && is_astray(v, i, now);
		bool votes = !silent && w->controls_ok && !astray;
		known |= w->heard;
		w->present = !silent && w->controls_ok;
		if (votes && !w->votes)
			w->voting_since_ms = now;
		w->votes = votes;
		st->silent |= silent ? bit(i) : 0;
		st->cut_off |= !silent && !w->controls_ok ? bit(i) : 0;
		st->astray |= astray ? bit(i) : 0;
		st->voters |= votes ? bit(i) : 0;
	}
	st->blind = known && !st->voters;
}

static unsigned quorum(const struct con_verdict *v, unsigned n)
{
	unsigned majority = n / 2 + 1;
	if (!v->opt.quorum)
		return majority;
	return v->opt.quorum < n ? v->opt.quorum : n;
}

// ---- one node ----

// A vantage that fails while as many others as fail have successes since it began to is
// refuted: what it sees is between it and the node. It is not heard for a while, so that
// one that lies, or a path that loses much, adds nothing to the chance of the others.
static void contest(const struct con_verdict *v, struct con_node *n, uint32_t voters,
		    uint64_t now)
{
	unsigned bad = 0;
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++)
		bad += (voters & bit(i)) &&
		       sight_failures(n, n->sight[i], 0, true) >= v->opt.fall;
	for (unsigned i = 0; bad && i < CON_VANTAGES_MAX; i++) {
		unsigned good = 0;
		if (!(voters & bit(i)) ||
		    sight_failures(n, n->sight[i], 0, true) < v->opt.fall)
			continue;
		uint64_t fell = sight_fell_ms(n, n->sight[i]);
		for (unsigned g = 0; g < CON_VANTAGES_MAX; g++)
			good += (voters & bit(g)) &&
				sight_successes(n, n->sight[g], fell) >= v->opt.fall;
		if (good >= bad)
			n->sight[i]->contested_until_ms = now + v->opt.contest_ms;
	}
}

struct count {
	unsigned voters, bad, good, failures;
};

// How many failures a death takes.
static unsigned evidence(const struct con_verdict *v)
{
	unsigned known = 0;
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++)
		known += *v->vantage[i].name != '\0';
	unsigned n = v->opt.fall * known;
	n = n < v->opt.evidence ? n : v->opt.evidence;
	return n > v->opt.fall ? n : v->opt.fall;
}

// Those who are not contested; failures count since anybody of them had a success, and of
// each no more than its share of what a bare quorum must have: one that tells ten for
// every one of the others is not ten.
static struct count count_heard(const struct con_verdict *v, const struct con_node *n,
				uint32_t heard)
{
	struct count k = {.voters = (unsigned)__builtin_popcount(heard)};
	uint64_t since = ago(n->op.last_ok_ms, v->opt.slack_ms);
	unsigned rise = n->state == CON_NODE_UNKNOWN ? 1 : v->opt.rise;
	unsigned least = quorum(v, k.voters);
	unsigned share = least ? (evidence(v) + least - 1) / least : 0;
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++) {
		if (!(heard & bit(i)))
			continue;
		unsigned f = sight_failures(n, n->sight[i],
					    latest(since, v->vantage[i].voting_since_ms),
					    false);
		k.failures += f < share ? f : share;
		k.bad += f >= v->opt.fall;
		k.good += sight_successes(n, n->sight[i], 0) >= rise;
	}
	return k;
}

// Enough of all who vote, contested or not, have failed for three times as long: no
// single vantage that says all is well can keep a dead node.
static bool is_dead_for_long(const struct con_verdict *v, const struct con_node *n,
			     uint32_t voters)
{
	unsigned all = 0, bad = 0;
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++) {
		if (!(voters & bit(i)))
			continue;
		all++;
		bad += sight_failures(n, n->sight[i], 0, true) >= 3 * v->opt.fall &&
		       sight_failures(n, n->sight[i], v->vantage[i].voting_since_ms,
				      false) >= v->opt.fall;
	}
	return all && bad >= quorum(v, all);
}

// Soon after the verdict or the node began, or the node changed: whether somebody who may
// vote has yet to see it. Else whoever is fastest to tell would be all who vote.
static bool is_awaited(const struct con_verdict *v, const struct con_node *n,
		       uint64_t now)
{
	uint64_t since = latest(v->began_ms, latest(n->added_ms, n->since_result_ms));
	if (now >= since + v->opt.fresh_ms)
		return false;
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++) {
		const struct con_vantage *w = &v->vantage[i];
		if (*w->name && (w->votes || !w->heard) &&
		    !sight_known(n, n->sight[i], 0))
			return true;
	}
	return false;
}

static bool is_dead(const struct con_verdict *v, const struct con_node *n,
		    const struct count *k, uint32_t voters, uint64_t now)
{
	bool passive = n->passive_bad && now < n->passive_until_ms;
	if (is_awaited(v, n, now))
		return false;
	unsigned bad = k->bad + passive, all = k->voters + passive;
	unsigned failures = k->failures + (passive ? v->opt.fall : 0);
	return (k->bad && bad >= quorum(v, all) && failures >= evidence(v)) ||
	       is_dead_for_long(v, n, voters);
}

static uint32_t bad_carriers(const struct con_verdict *v, const struct con_node *n,
			     uint32_t heard)
{
	uint32_t mask = 0;
	for (unsigned c = 0; c < n->carriers; c++) {
		unsigned all = 0, bad = 0;
		for (unsigned i = 0; i < CON_VANTAGES_MAX; i++) {
			const struct con_track *t;
			if (!(heard & bit(i)) || !(t = &n->sight[i]->track[c])->n)
				continue;
			all++;
			bad += !t->ok && t->n >= 2 * v->opt.fall;
		}
		mask |= all && bad >= quorum(v, all) ? bit(c) : 0;
	}
	return mask;
}

void con_verdict_form_opinion(struct con_verdict *v, struct con_node *n, uint64_t now)
{
	uint32_t voters = 0, heard = 0;
	unsigned present = 0, raw_bad = 0;
	n->op = (struct con_opinion){0};
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++) {
		struct con_sight *s = n->sight[i];
		if (!v->vantage[i].present || !sight_known(n, s, ago(now, v->opt.old_ms)))
			continue;
		unsigned failures = sight_failures(n, s, 0, false);
		present++;
		raw_bad += failures >= v->opt.fall;
		n->op.failing |= failures ? bit(i) : 0;
		voters |= v->vantage[i].votes ? bit(i) : 0;
	}
	contest(v, n, voters, now);
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++) {
		if (!(voters & bit(i)) || now < n->sight[i]->contested_until_ms)
			continue;
		heard |= bit(i);
		n->op.last_ok_ms =
			latest(n->op.last_ok_ms, sight_last_ok_ms(n, n->sight[i]));
	}
	struct count k = count_heard(v, n, heard);
	n->op.raw_dead = present && raw_bad >= quorum(v, present);
	n->op.dead = is_dead(v, n, &k, voters, now);
	n->op.alive = !n->op.dead && k.voters && k.good >= quorum(v, k.voters);
	if (n->op.dead)
		return;
	n->op.bad_carriers = bad_carriers(v, n, heard);
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++)
		if ((voters & ~heard & bit(i)) &&
		    sight_failures(n, n->sight[i], 0, true) >= 2 * v->opt.fall)
			n->op.blocked |= bit(i);
}

void con_verdict_main_failure(const struct con_verdict *v, const struct con_node *n,
			      uint32_t mask, struct con_node_change *ret)
{
	const struct con_track *list[CON_VANTAGES_MAX], *best = NULL;
	unsigned count = 0, most = 0;
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++)
		for (unsigned c = 0; (mask & bit(i)) && n->sight[i] && c < n->carriers;
		     c++)
			if (n->sight[i]->track[c].n && !n->sight[i]->track[c].ok) {
				list[count++] = &n->sight[i]->track[c];
				break;
			}
	for (unsigned a = 0; a < count; a++) {
		unsigned same = 0;
		for (unsigned b = 0; b < count; b++)
			same += strcmp(list[a]->rung, list[b]->rung) == 0 &&
				strcmp(list[a]->reason, list[b]->reason) == 0;
		if (same > most) {
			most = same;
			best = list[a];
		}
	}
	(void)v;
	if (best) {
		memcpy(ret->rung, best->rung, sizeof(ret->rung));
		memcpy(ret->reason, best->reason, sizeof(ret->reason));
	}
}

uint32_t con_verdict_latency_us(const struct con_verdict *v, unsigned node,
				const char *region)
{
	const struct con_node *n = node < v->n_nodes ? v->node[node] : NULL;
	uint64_t sum = 0, all = 0;
	unsigned k = 0, k_all = 0;
	for (unsigned i = 0; n && i < CON_VANTAGES_MAX; i++) {
		if (!n->sight[i] || !n->sight[i]->latency_us)
			continue;
		all += n->sight[i]->latency_us;
		k_all++;
		if (region && *region && strcmp(v->vantage[i].region, region) == 0) {
			sum += n->sight[i]->latency_us;
			k++;
		}
	}
	return k ? (uint32_t)(sum / k) : k_all ? (uint32_t)(all / k_all) : 0;
}

bool con_verdict_sight(const struct con_verdict *v, unsigned node, unsigned vantage,
		       unsigned carrier, uint64_t now_ms, struct con_sight_view *ret)
{
	const struct con_node *n = node < v->n_nodes ? v->node[node] : NULL;
	const struct con_sight *s =
		n && vantage < CON_VANTAGES_MAX && *v->vantage[vantage].name
			? n->sight[vantage]
			: NULL;
	if (!s || carrier >= n->carriers || !s->track[carrier].n)
		return false;
	const struct con_track *t = &s->track[carrier];
	*ret = (struct con_sight_view){
		.ok = t->ok,
		.row = t->n,
		.since_ms = t->began_ms,
		.last_ms = track_newest(t),
		.latency_us = s->latency_us,
		.contested = now_ms < s->contested_until_ms,
		.rung = t->rung,
		.reason = t->reason,
	};
	return true;
}
