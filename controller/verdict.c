#include "controller/verdict.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controller/verdict_internal.h"
#include "lib/reason.h"

#define BIT(state) (1u << CON_NODE_##state)

// To which states each may go.
static const unsigned allowed[CON_NODE_STATES] = {
	[CON_NODE_UNKNOWN] = BIT(HEALTHY) | BIT(DEGRADED) | BIT(DRAINING) | BIT(DOWN),
	[CON_NODE_HEALTHY] = BIT(DEGRADED) | BIT(DRAINING) | BIT(DOWN),
	[CON_NODE_DEGRADED] = BIT(HEALTHY) | BIT(DRAINING) | BIT(DOWN),
	[CON_NODE_DRAINING] = BIT(UNKNOWN) | BIT(HEALTHY) | BIT(DEGRADED) | BIT(DOWN),
	[CON_NODE_DOWN] = BIT(HEALTHY) | BIT(DEGRADED) | BIT(DRAINING) | BIT(QUARANTINED),
	[CON_NODE_QUARANTINED] = BIT(HEALTHY) | BIT(DEGRADED) | BIT(DRAINING) | BIT(DOWN),
};

const char *con_node_state_word(enum con_node_state state)
{
	static const char *const words[CON_NODE_STATES] = {
		"unknown", "healthy", "degraded", "draining", "down", "quarantined"};
	return state < CON_NODE_STATES ? words[state] : "unknown";
}

const char *con_node_cause_word(enum con_node_cause cause)
{
	static const char *const words[CON_CAUSES] = {
		"none", "dead", "carrier", "blocked", "capped", "lease", "risen"};
	return cause < CON_CAUSES ? words[cause] : "none";
}

void con_verdict_options_default(struct con_verdict_options *ret)
{
	*ret = (struct con_verdict_options){
		.fall = 3,
		.rise = 2,
		.evidence = 8,
		.hold_ms = 30000,
		.hold_max_ms = 300000,
		.forget_ms = 600000,
		.cap_percent = 30,
		.panic_percent = 50,
		.silent_ms = 5000,
		.old_ms = 90000,
		.contest_ms = 60000,
		.slack_ms = 250,
		.reset_ms = 10000,
		.fresh_ms = 10000,
		.slow_start_ms = 60000,
		.slow_start_percent = 10,
		.passive_min = 20,
		.passive_percent = 50,
	};
}

static bool options_hold(const struct con_verdict_options *o)
{
	return o->fall >= 1 && o->fall <= CON_VERDICT_STREAK_MAX && o->rise >= 1 &&
	       o->rise <= CON_VERDICT_STREAK_MAX &&
	       o->evidence <= CON_VERDICT_STREAK_MAX && o->cap_percent <= 100 &&
	       o->panic_percent <= 100 && o->slow_start_percent <= 100 &&
	       o->passive_percent <= 100;
}

int con_verdict_new(const struct con_verdict_options *opt, struct con_verdict **ret)
{
	if (!options_hold(opt))
		return -EINVAL;
	struct con_verdict *v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	v->opt = *opt;
	sp_idmap_init(&v->by_name);
	randombytes_buf(v->name_key, sizeof(v->name_key));
	*ret = v;
	return 0;
}

static void node_free(struct con_node *n)
{
	for (unsigned i = 0; n && i < CON_VANTAGES_MAX; i++)
		free(n->sight[i]);
	free(n);
}

void con_verdict_free(struct con_verdict *v)
{
	if (!v)
		return;
	for (unsigned i = 0; i < v->n_nodes; i++)
		node_free(v->node[i]);
	sp_idmap_done(&v->by_name);
	free(v->node);
	free(v->region);
	free(v);
}

int con_verdict_set_options(struct con_verdict *v, const struct con_verdict_options *opt)
{
	if (!options_hold(opt))
		return -EINVAL;
	v->opt = *opt;
	return 0;
}

// ---- who there is ----

static int name_fits(const char *name)
{
	return *name && strlen(name) <= CON_VERDICT_NAME_MAX ? 0 : SP_E_LIMIT;
}

int con_verdict_find_vantage(const struct con_verdict *v, const char *name)
{
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++)
		if (*v->vantage[i].name && strcmp(v->vantage[i].name, name) == 0)
			return (int)i;
	return -ENOENT;
}

int con_verdict_add_vantage(struct con_verdict *v, const char *name, const char *region,
			    unsigned *ret)
{
	int at = con_verdict_find_vantage(v, name);
	if (name_fits(name) || strlen(region) > CON_VERDICT_NAME_MAX)
		return SP_E_LIMIT;
	for (unsigned i = 0; at < 0 && i < CON_VANTAGES_MAX; i++)
		if (!*v->vantage[i].name)
			at = (int)i;
	if (at < 0)
		return SP_E_LIMIT;
	strcpy(v->vantage[at].name, name);
	strcpy(v->vantage[at].region, region);
	*ret = (unsigned)at;
	return 0;
}

void con_verdict_remove_vantage(struct con_verdict *v, unsigned vantage)
{
	if (vantage >= CON_VANTAGES_MAX)
		return;
	for (unsigned i = 0; i < v->n_nodes; i++) {
		if (!v->node[i])
			continue;
		free(v->node[i]->sight[vantage]);
		v->node[i]->sight[vantage] = NULL;
	}
	v->vantage[vantage] = (struct con_vantage){0};
}

static int find_region(struct con_verdict *v, const char *name, unsigned *ret)
{
	for (unsigned i = 0; i < v->n_regions; i++)
		if (strcmp(v->region[i].name, name) == 0) {
			*ret = i;
			return 0;
		}
	if (strlen(name) > CON_VERDICT_NAME_MAX)
		return SP_E_LIMIT;
	struct con_region *more =
		realloc(v->region, (v->n_regions + 1) * sizeof(v->region[0]));
	if (!more)
		return -ENOMEM;
	v->region = more;
	v->region[v->n_regions] = (struct con_region){0};
	strcpy(v->region[v->n_regions].name, name);
	*ret = v->n_regions++;
	return 0;
}

static uint64_t hash_name(const struct con_verdict *v, const char *name)
{
	uint64_t id;
	crypto_shorthash((uint8_t *)&id, (const uint8_t *)name, strlen(name),
			 v->name_key);
	return id;
}

// Every change of the fleet asks for each node of it.
int con_verdict_find_node(const struct con_verdict *v, const char *name)
{
	const struct con_node *n = sp_idmap_get(&v->by_name, hash_name(v, name));
	return n && strcmp(n->name, name) == 0 ? (int)n->index : -ENOENT;
}

// An index that is free, the list made longer if there is none.
static int free_index(struct con_verdict *v)
{
	for (unsigned i = 0; i < v->n_nodes; i++)
		if (!v->node[i])
			return (int)i;
	if (v->n_nodes == CON_VERDICT_NODES_MAX)
		return SP_E_LIMIT;
	struct con_node **more = realloc(v->node, (v->n_nodes + 1) * sizeof(v->node[0]));
	if (!more)
		return -ENOMEM;
	v->node = more;
	v->node[v->n_nodes] = NULL;
	return (int)v->n_nodes++;
}

static int put_node(struct con_verdict *v, struct con_node *n)
{
	uint64_t id = hash_name(v, n->name);
	if (sp_idmap_get(&v->by_name, id)) // another name: once in 2^64
		return SP_E_LIMIT;
	int err = sp_idmap_put(&v->by_name, id, n);
	if (!err)
		v->node[n->index] = n;
	return err;
}

int con_verdict_add_node(struct con_verdict *v, const char *name, const char *region,
			 unsigned carriers, uint64_t now_ms, unsigned *ret)
{
	unsigned r = 0;
	int at = con_verdict_find_node(v, name);
	if (name_fits(name) || carriers > CON_VERDICT_CARRIERS_MAX)
		return SP_E_LIMIT;
	int err = find_region(v, region, &r);
	if (err)
		return err;
	if (at < 0) {
		at = free_index(v);
		if (at < 0)
			return at;
		struct con_node *n = calloc(1, sizeof(*n));
		if (!n)
			return -ENOMEM;
		strcpy(n->name, name);
		n->index = (unsigned)at;
		n->since_ms = n->added_ms = n->passive_began_ms = now_ms;
		err = put_node(v, n);
		if (err) {
			free(n);
			return err;
		}
	}
	v->node[at]->region = r;
	v->node[at]->carriers = carriers;
	*ret = (unsigned)at;
	return 0;
}

void con_verdict_remove_node(struct con_verdict *v, unsigned node)
{
	if (node >= v->n_nodes || !v->node[node])
		return;
	sp_idmap_remove(&v->by_name, hash_name(v, v->node[node]->name));
	node_free(v->node[node]);
	v->node[node] = NULL;
}

void con_verdict_heard(struct con_verdict *v, unsigned vantage, bool controls_ok,
		       uint64_t now_ms)
{
	if (vantage >= CON_VANTAGES_MAX)
		return;
	v->vantage[vantage].heard = true;
	v->vantage[vantage].heard_ms = now_ms;
	v->vantage[vantage].controls_ok = controls_ok;
}

// That it was draining says nothing of what it is now; whatever else was seen does.
static void forget_refusals(struct con_node *n)
{
	const char *word = sp_reason_word(SP_REASON_DRAINING);
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++)
		for (unsigned c = 0; n->sight[i] && c < CON_VERDICT_CARRIERS_MAX; c++)
			if (strcmp(n->sight[i]->track[c].reason, word) == 0)
				n->sight[i]->track[c] = (struct con_track){0};
}

void con_verdict_set_draining(struct con_verdict *v, unsigned node, bool draining)
{
	struct con_node *n = node < v->n_nodes ? v->node[node] : NULL;
	if (n && n->draining && !draining)
		forget_refusals(n);
	if (n)
		n->draining = draining;
}

// ---- a cycle ----

static bool is_offered(enum con_node_state s)
{
	return s == CON_NODE_UNKNOWN || s == CON_NODE_HEALTHY || s == CON_NODE_DEGRADED;
}

static bool is_demoted(enum con_node_state s)
{
	return s == CON_NODE_DOWN || s == CON_NODE_QUARANTINED;
}

// Fewer than panic_percent alive: at once; enough of them again: after a while.
static void judge_panic(struct con_verdict *v, uint64_t now)
{
	unsigned all = 0, alive = 0;
	for (unsigned i = 0; i < v->n_nodes; i++) {
		const struct con_node *n = v->node[i];
		if (!n || n->draining)
			continue;
		all++;
		alive += !n->op.raw_dead && !n->op.dead &&
			 (n->state != CON_NODE_DOWN || n->op.alive);
	}
	bool well = all < 2 || alive * 100 >= v->opt.panic_percent * all;
	if (well && !v->well)
		v->well_since_ms = now;
	v->well = well;
	if (!well)
		v->status.panic = true;
	else if (now >= v->well_since_ms + v->opt.silent_ms)
		v->status.panic = false;
}

static void count_regions(struct con_verdict *v)
{
	for (unsigned i = 0; i < v->n_regions; i++)
		v->region[i].size = v->region[i].demoted = v->region[i].healthy = 0;
	for (unsigned i = 0; i < v->n_nodes; i++) {
		const struct con_node *n = v->node[i];
		if (!n || n->draining)
			continue;
		struct con_region *r = &v->region[n->region];
		r->size++;
		r->demoted += is_demoted(n->state);
		r->healthy += (n->state == CON_NODE_HEALTHY ||
			       n->state == CON_NODE_DEGRADED || n->op.alive) &&
			      !is_demoted(n->state) && !n->op.dead && !n->op.raw_dead;
	}
}

static void propose(struct con_node *n, enum con_node_state state,
		    enum con_node_cause cause)
{
	n->next = state;
	n->next_cause = cause;
}

// One that is not dead: healthy, or what is wrong with it.
static void propose_offered(struct con_node *n, enum con_node_cause cause)
{
	if (n->op.bad_carriers)
		propose(n, CON_NODE_DEGRADED, CON_CAUSE_CARRIER);
	else if (n->op.blocked)
		propose(n, CON_NODE_DEGRADED, CON_CAUSE_BLOCKED);
	else
		propose(n, CON_NODE_HEALTHY, cause);
}

// Everything but demotions, which depend on these.
static void propose_rise(struct con_verdict *v, struct con_node *n, uint64_t now)
{
	struct con_region *r = &v->region[n->region];
	propose(n, n->state, n->cause);
	if (n->draining) {
		propose(n, CON_NODE_DRAINING, CON_CAUSE_LEASE);
		return;
	}
	switch (n->state) {
	case CON_NODE_DRAINING:
		propose(n, CON_NODE_UNKNOWN, CON_CAUSE_NONE);
		break;
	case CON_NODE_UNKNOWN:
	case CON_NODE_DEGRADED:
		if (n->op.alive)
			propose_offered(n, CON_CAUSE_NONE);
		break;
	case CON_NODE_HEALTHY:
		if (!n->op.dead)
			propose_offered(n, n->cause);
		break;
	case CON_NODE_DOWN:
	case CON_NODE_QUARANTINED:
		if (n->op.dead || (n->state == CON_NODE_DOWN && !n->op.alive))
			break;
		if (now < n->held_until_ms && r->healthy) {
			propose(n, CON_NODE_QUARANTINED, CON_CAUSE_RISEN);
			break;
		}
		if (!n->op.alive)
			break;
		propose_offered(n, CON_CAUSE_RISEN);
		r->demoted--;
		r->healthy++;
		break;
	case CON_NODE_STATES:
		assert(false);
	}
}

static void propose_fall(struct con_verdict *v, struct con_node *n)
{
	struct con_region *r = &v->region[n->region];
	unsigned cap = r->size * v->opt.cap_percent / 100;
	if (n->draining || !n->op.dead || n->state == CON_NODE_DOWN)
		return;
	if (n->state == CON_NODE_QUARANTINED) {
		propose(n, CON_NODE_DOWN, CON_CAUSE_DEAD);
	} else if (v->status.panic || !r->healthy || r->demoted >= (cap ? cap : 1)) {
		propose(n, CON_NODE_DEGRADED, CON_CAUSE_CAPPED);
	} else {
		propose(n, CON_NODE_DOWN, CON_CAUSE_DEAD);
		r->demoted++;
	}
}

static void demoted(const struct con_verdict *v, struct con_node *n, uint64_t now)
{
	const struct con_verdict_options *o = &v->opt;
	bool recent = n->flaps && now < n->fell_ms + o->forget_ms;
	n->flaps = recent ? n->flaps + 1 : 1;
	n->fell_ms = now;
	n->demotions += is_offered(n->state);
	uint64_t hold = (uint64_t)o->hold_ms * n->flaps;
	n->held_until_ms = now + (hold < o->hold_max_ms ? hold : o->hold_max_ms);
}

static void set_state(struct con_verdict *v, struct con_node *n, uint64_t now)
{
	assert(n->next == n->state || (allowed[n->state] & (1u << n->next)));
	if (n->next != n->state) {
		n->since_ms = now;
		if (n->next == CON_NODE_DOWN)
			demoted(v, n, now);
		if (is_demoted(n->state) && is_offered(n->next)) {
			n->returned = true;
			n->returned_ms = now;
		}
	}
	n->state = n->next;
	n->cause = n->next_cause;
}

static void describe(const struct con_verdict *v, unsigned i, struct con_node_change *ret)
{
	const struct con_node *n = v->node[i];
	*ret = (struct con_node_change){
		.node = i, .from = n->state, .to = n->next, .cause = n->next_cause};
	if (n->next_cause == CON_CAUSE_DEAD || n->next_cause == CON_CAUSE_CAPPED ||
	    n->next_cause == CON_CAUSE_BLOCKED || n->next_cause == CON_CAUSE_CARRIER) {
		ret->vantages = n->next_cause == CON_CAUSE_BLOCKED ? n->op.blocked
								   : n->op.failing;
		con_verdict_main_failure(v, n, ret->vantages, ret);
	}
}

size_t con_verdict_cycle(struct con_verdict *v, uint64_t now_ms,
			 struct con_node_change *ret, size_t cap)
{
	size_t found = 0;
	if (!v->began_ms)
		v->began_ms = now_ms;
	con_verdict_weigh_vantages(v, now_ms);
	for (unsigned i = 0; i < v->n_nodes; i++)
		if (v->node[i])
			con_verdict_form_opinion(v, v->node[i], now_ms);
	judge_panic(v, now_ms);
	count_regions(v);
	for (unsigned i = 0; i < v->n_nodes; i++)
		if (v->node[i])
			propose_rise(v, v->node[i], now_ms);
	for (unsigned i = 0; i < v->n_nodes; i++)
		if (v->node[i])
			propose_fall(v, v->node[i]);
	memset(v->status.nodes, 0, sizeof(v->status.nodes));
	for (unsigned i = 0; i < v->n_nodes; i++) {
		struct con_node *n = v->node[i];
		if (!n)
			continue;
		if (n->next != n->state || n->next_cause != n->cause) {
			if (found < cap)
				describe(v, i, &ret[found]);
			found++;
			set_state(v, n, now_ms);
		}
		v->status.nodes[n->state]++;
	}
	return found;
}

// ---- looking at it ----

void con_verdict_status(const struct con_verdict *v, struct con_verdict_status *ret)
{
	*ret = v->status;
}

unsigned con_verdict_nodes(const struct con_verdict *v)
{
	return v->n_nodes;
}

bool con_verdict_node(const struct con_verdict *v, unsigned node,
		      struct con_node_view *ret)
{
	const struct con_node *n = node < v->n_nodes ? v->node[node] : NULL;
	if (!n)
		return false;
	*ret = (struct con_node_view){
		.name = n->name,
		.region = v->region[n->region].name,
		.state = n->state,
		.cause = n->cause,
		.failing = n->op.failing,
		.blocked = n->op.blocked,
		.bad_carriers = n->op.bad_carriers,
		.flaps = n->flaps,
		.since_ms = n->since_ms,
		.held_until_ms = n->held_until_ms,
		.demotions = n->demotions,
	};
	return true;
}

// More than half of the vantages in the region that vote cannot reach it.
static bool is_blocked_in(const struct con_verdict *v, const struct con_node *n,
			  const char *region)
{
	unsigned all = 0, blocked = 0;
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++) {
		if (!(v->status.voters & (UINT32_C(1) << i)) || !n->sight[i] ||
		    strcmp(v->vantage[i].region, region) != 0)
			continue;
		all++;
		blocked += (n->op.blocked >> i) & 1;
	}
	return blocked * 2 > all;
}

static unsigned percent_of(const struct con_verdict *v, const struct con_node *n,
			   uint64_t now)
{
	unsigned least = v->opt.slow_start_percent;
	uint64_t age = now > n->returned_ms ? now - n->returned_ms : 0;
	if (n->state == CON_NODE_DEGRADED && n->cause == CON_CAUSE_CAPPED)
		return least;
	if (!n->returned || age >= v->opt.slow_start_ms)
		return 100;
	unsigned grown = (unsigned)(age * 100 / v->opt.slow_start_ms);
	return grown > least ? grown : least;
}

bool con_verdict_offered(const struct con_verdict *v, unsigned node, const char *region,
			 uint64_t now_ms, unsigned *ret_percent)
{
	const struct con_node *n = node < v->n_nodes ? v->node[node] : NULL;
	if (!n || n->draining || n->state == CON_NODE_DRAINING)
		return false;
	if (!v->status.panic &&
	    (!is_offered(n->state) || (region && *region && is_blocked_in(v, n, region))))
		return false;
	*ret_percent = percent_of(v, n, now_ms);
	return true;
}

unsigned con_verdict_vantages(const struct con_verdict *v)
{
	(void)v;
	return CON_VANTAGES_MAX;
}

const char *con_verdict_vantage_name(const struct con_verdict *v, unsigned vantage)
{
	return vantage < CON_VANTAGES_MAX && *v->vantage[vantage].name
		       ? v->vantage[vantage].name
		       : NULL;
}

const char *con_verdict_vantage_region(const struct con_verdict *v, unsigned vantage)
{
	return vantage < CON_VANTAGES_MAX ? v->vantage[vantage].region : "";
}
