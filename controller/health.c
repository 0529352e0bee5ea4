#include "controller/health.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controller/health_internal.h"
#include "lib/carrier.h"
#include "lib/probe.h"

#define CHANGES_MAX 256 // events of one cycle; one more tells of how many others

static uint64_t now_ms(const struct con_health *h)
{
	return sp_loop_now_ms(h->opt.loop);
}

char *health_names(const struct con_health *h, uint32_t mask, char *buf, size_t cap)
{
	size_t at = 0;
	buf[0] = '\0';
	for (unsigned i = 0; i < CON_VANTAGES_MAX && at < cap; i++) {
		const char *name = con_verdict_vantage_name(h->verdict, i);
		if (!((mask >> i) & 1) || !name)
			continue;
		int n = snprintf(buf + at, cap - at, "%s%s", at ? "," : "", name);
		at += n > 0 ? (size_t)n : 0;
	}
	return buf;
}

// Who asks goes through all of them in order, so the next is tried first.
int health_find(struct con_health *h, const char *worker)
{
	struct con_node_view v;
	for (unsigned i = 0; i < 2; i++)
		if (con_verdict_node(h->verdict, h->hint + i, &v) &&
		    strcmp(v.name, worker) == 0) {
			h->hint += i;
			return (int)h->hint;
		}
	int at = con_verdict_find_node(h->verdict, worker);
	if (at >= 0)
		h->hint = (unsigned)at;
	return at;
}

static struct health_node *node_at(struct con_health *h, unsigned i)
{
	if (i >= h->n_nodes) {
		struct health_node **grown =
			realloc(h->node, (i + 1) * sizeof(h->node[0]));
		if (!grown)
			return NULL;
		memset(grown + h->n_nodes, 0, (i + 1 - h->n_nodes) * sizeof(h->node[0]));
		h->node = grown;
		h->n_nodes = i + 1;
	}
	if (!h->node[i])
		h->node[i] = calloc(1, sizeof(*h->node[i]));
	return h->node[i];
}

// ---- from the state ----

static bool is_leased(struct con_health *h, const char *node)
{
	char key[SP_STATE_KEY_MAX + 1];
	snprintf(key, sizeof(key), "lease/%s", node);
	json_t *o = sp_state_get_object(h->state, key);
	json_int_t until = json_integer_value(json_object_get(o, "until"));
	bool leased = o && (until <= 0 ||
			    (uint64_t)until > sp_loop_unix_ms(h->opt.loop) / 1000);
	json_decref(o);
	return leased;
}

static void set_draining(struct con_health *h)
{
	bool leases = sp_state_count(h->state, "lease/") > 0; // mostly none
	for (unsigned i = 0; i < h->n_nodes; i++) {
		const struct health_node *n = h->node[i];
		if (n && n->used)
			con_verdict_set_draining(
				h->verdict, i,
				n->draining || (leases && is_leased(h, n->node)));
	}
}

static unsigned read_carriers(const json_t *node, struct health_node *n)
{
	json_t *v;
	size_t i;
	unsigned count = 0;
	json_array_foreach(json_object_get(node, "carriers"), i, v)
	{
		const char *kind = json_string_value(json_object_get(v, "kind"));
		const char *at = json_string_value(json_object_get(v, "address"));
		char text[SP_TARGET_TEXT_MAX];
		struct sp_target t;
		if (count == CON_VERDICT_CARRIERS_MAX)
			break;
		if (kind && at && sp_target_parse(at, &t) == 0)
			snprintf(n->carrier[count++], HEALTH_CARRIER_MAX, "%s %s", kind,
				 sp_target_format(&t, text, sizeof(text)));
	}
	return count;
}

// A worker whose entry or identity is new or another; gone if either is.
static void set_worker(struct con_health *h, const char *worker, uint64_t sequence)
{
	char node_key[SP_STATE_KEY_MAX + 1], id_key[SP_STATE_KEY_MAX + 1];
	int at = con_verdict_find_node(h->verdict, worker);
	snprintf(node_key, sizeof(node_key), "node/%s", worker);
	snprintf(id_key, sizeof(id_key), "identity/%s", worker);
	json_t *o = sp_state_get_object(h->state, node_key);
	const char *region = json_string_value(json_object_get(o, "region"));
	if (!o || !sp_state_get(h->state, id_key, NULL)) {
		if (at >= 0) {
			con_verdict_remove_node(h->verdict, (unsigned)at);
			health_drop_probes(h->node[at]);
			h->node[at]->used = false;
		}
		json_decref(o);
		return;
	}
	struct health_node fresh = {.used = true, .sequence = sequence};
	unsigned i = 0;
	bool is_new = at < 0;
	fresh.n_carriers = read_carriers(o, &fresh);
	sp_worker_node(worker, fresh.node);
	int err = con_verdict_add_node(h->verdict, worker, region ? region : "",
				       fresh.n_carriers, now_ms(h), &i);
	json_decref(o);
	struct health_node *n = err ? NULL : node_at(h, i);
	if (!n) {
		sp_error("health", "a worker is not judged", "worker=%s error=%s", worker,
			 sp_strerror(err ? err : -ENOMEM));
		return;
	}
	fresh.boot = is_new ? 0 : n->boot;
	fresh.draining = is_new ? false : n->draining;
	health_drop_probes(n);
	*n = fresh;
	con_verdict_forget(h->verdict, i, now_ms(h));
}

static void set_vantage(struct con_health *h, const char *name, const char *json,
			size_t len)
{
	unsigned i = 0;
	int at = con_verdict_find_vantage(h->verdict, name);
	if (!json) {
		if (at >= 0) {
			con_verdict_remove_vantage(h->verdict, (unsigned)at);
			h->vantage[at] = (struct health_vantage){0};
		}
		return;
	}
	json_t *o = json_loadb(json, len, 0, NULL);
	const char *region = json_string_value(json_object_get(o, "region"));
	int err = con_verdict_add_vantage(h->verdict, name, region ? region : "", &i);
	json_decref(o);
	if (err)
		sp_error("health", "a vantage is not heard: there are too many",
			 "vantage=%s", name);
	else if (at < 0)
		h->vantage[i] = (struct health_vantage){0};
}

static void number(const json_t *o, const char *key, unsigned least, unsigned most,
		   unsigned *ret)
{
	json_t *v = json_object_get(o, key);
	json_int_t n = json_integer_value(v);
	if (json_is_integer(v) && n >= least && n <= most)
		*ret = (unsigned)n;
}

static void set_options(struct con_health *h)
{
	struct con_verdict_options v;
	json_t *fleet = sp_state_get_object(h->state, "fleet");
	const json_t *o = json_object_get(fleet, "health");
	unsigned day = 86400000;
	con_verdict_options_default(&v);
	h->cycle_ms = CON_HEALTH_CYCLE_MS;
	number(o, "fall", 1, CON_VERDICT_STREAK_MAX, &v.fall);
	number(o, "rise", 1, CON_VERDICT_STREAK_MAX, &v.rise);
	number(o, "quorum", 0, CON_VANTAGES_MAX, &v.quorum);
	number(o, "cap_percent", 0, 100, &v.cap_percent);
	number(o, "panic_percent", 0, 100, &v.panic_percent);
	number(o, "hold_down_ms", 0, day, &v.hold_ms);
	number(o, "hold_down_max_ms", 0, day, &v.hold_max_ms);
	number(o, "slow_start_ms", 0, day, &v.slow_start_ms);
	number(o, "cycle_ms", 10, 60000, &h->cycle_ms);
	json_decref(fleet);
	if (con_verdict_set_options(h->verdict, &v))
		sp_error("health", "the fleet's options of the verdict do not hold", "");
}

static bool matters(const char *key)
{
	static const char *const kinds[] = {"node/", "identity/", "lease/", "vantage/"};
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strncmp(key, kinds[i], strlen(kinds[i])) == 0)
			return true;
	return strcmp(key, "fleet") == 0;
}

void con_health_set(struct con_health *h, const char *key, const char *json, size_t len,
		    uint64_t sequence)
{
	if (!matters(key))
		return;
	if (!json)
		(void)sp_state_delete(h->state, key);
	else if (sp_state_put_text(h->state, key, json, len))
		return;
	if (strncmp(key, "node/", 5) == 0)
		set_worker(h, key + 5, sequence);
	else if (strncmp(key, "identity/", 9) == 0)
		set_worker(h, key + 9, sequence);
	else if (strncmp(key, "vantage/", 8) == 0)
		set_vantage(h, key + 8, json, len);
	else if (strcmp(key, "fleet") == 0)
		set_options(h);
}

static void hurry(struct con_health *h)
{
	uint64_t at = sp_loop_now_us(h->opt.loop) + 1000 * CON_HEALTH_HURRY_MS;
	if (at < h->cycle.at_us)
		sp_timer_set(&h->cycle, at);
}

void con_health_settle(struct con_health *h)
{
	set_draining(h);
	hurry(h);
}

// What is gone goes, what is another is set; the rest is left as it is.
void con_health_set_state(struct con_health *h, const struct sp_state *state,
			  uint64_t sequence)
{
	struct sp_changes diff = {0};
	if (sp_changes_diff(h->state, state, "", &diff)) {
		sp_error("health", "out of memory; the fleet is judged as it was", "");
		return;
	}
	for (size_t i = 0; i < diff.n; i++)
		con_health_set(h, diff.v[i].key, diff.v[i].json,
			       diff.v[i].json ? strlen(diff.v[i].json) : 0, sequence);
	sp_changes_done(&diff);
	con_health_settle(h);
}

// ---- from vantages and workers ----

static int find_carrier(const struct health_node *n, const char *text)
{
	for (unsigned i = 0; i < n->n_carriers; i++)
		if (strcmp(n->carrier[i], text) == 0)
			return (int)i;
	return -ENOENT;
}

// From its beginning to a session: what a client waits for.
static uint32_t latency(const Sallyport__Fleet__Probe *p)
{
	enum { RUNGS = 5 }; // resolve, connect, carrier, handshake, session
	uint64_t sum = 0;
	if (p->n_rung_us < RUNGS)
		return 0;
	for (unsigned i = 0; i < RUNGS; i++)
		sum += p->rung_us[i];
	return sum < UINT32_MAX ? (uint32_t)sum : UINT32_MAX;
}

// Its handshake stood, so that it is the node that lives.
static bool answered(const Sallyport__Fleet__Probe *p)
{
	return p->n_rung_us > SP_RUNG_HANDSHAKE;
}

static void take_probe(struct con_health *h, unsigned vantage,
		       const Sallyport__Fleet__Probe *p, uint64_t sequence)
{
	int node = health_find(h, p->node);
	struct health_node *n = node < 0 ? NULL : h->node[node];
	int carrier = n ? find_carrier(n, p->carrier) : -ENOENT;
	uint64_t now = now_ms(h);
	if (carrier < 0 || p->age_ms > now || p->took_ms > now - p->age_ms) {
		h->unknown++;
		return;
	}
	uint64_t *last = &n->last_ended_ms[vantage][carrier];
	if (sequence < n->sequence || *last == p->ended_ms) {
		h->stale++; // of what the node was, or told twice
		return;
	}
	*last = p->ended_ms;
	struct con_probe_result r = {
		.carrier = (unsigned)carrier,
		.ok = p->ok,
		.answered = answered(p),
		.ended_ms = now - p->age_ms,
		.latency_us = latency(p),
		.rung = p->rung,
		.reason = p->reason,
	};
	r.began_ms = r.ended_ms - p->took_ms;
	health_keep_probe(n, vantage, (unsigned)carrier, p);
	int err = con_verdict_result(h->verdict, vantage, (unsigned)node, &r);
	h->stale += err == SP_E_STALE;
	h->results += !err;
	if (!err)
		health_count_probe(h, p);
}

void con_health_report(struct con_health *h, const char *vantage,
		       const Sallyport__Fleet__ProbeReport *r)
{
	int v = con_verdict_find_vantage(h->verdict, vantage);
	size_t n =
		r->n_probes < CON_HEALTH_PROBES_MAX ? r->n_probes : CON_HEALTH_PROBES_MAX;
	if (v < 0) {
		h->unknown++;
		return;
	}
	h->reports++;
	h->vantage[v].boot = r->boot;
	h->vantage[v].sequence = r->applied ? r->applied->sequence : 0;
	h->vantage[v].spoke = true;
	con_verdict_heard(h->verdict, (unsigned)v, r->controls_ok, now_ms(h));
	for (size_t i = 0; i < n; i++)
		take_probe(h, (unsigned)v, r->probes[i], h->vantage[v].sequence);
	if (n)
		hurry(h);
}

void con_health_worker(struct con_health *h, const char *worker, uint64_t boot,
		       const Sallyport__Fleet__Telemetry *t)
{
	int at = health_find(h, worker);
	struct health_node *n = at < 0 ? NULL : h->node[at];
	if (!n)
		return;
	if (boot && boot != n->boot) {
		if (n->boot) // what was seen of the life before says nothing
			con_verdict_forget(h->verdict, (unsigned)at, now_ms(h));
		n->boot = boot;
		n->streams = n->failures = 0;
	}
	if (!t)
		return;
	if (t->draining != n->draining) {
		n->draining = t->draining;
		con_health_settle(h);
	}
	if (t->streams_opened >= n->streams && t->dial_failures >= n->failures)
		con_verdict_passive(h->verdict, (unsigned)at,
				    t->streams_opened - n->streams,
				    t->dial_failures - n->failures, now_ms(h));
	n->streams = t->streams_opened;
	n->failures = t->dial_failures;
}

// ---- cycles ----

static void count_demotion(struct con_health *h, const struct con_node_change *c)
{
	unsigned i = 0;
	while (i < HEALTH_REASONS - 1 && h->demotions[i].n &&
	       (strcmp(h->demotions[i].rung, c->rung) != 0 ||
		strcmp(h->demotions[i].reason, c->reason) != 0))
		i++;
	if (!h->demotions[i].n) { // the last stands for all that find no place
		bool last = i == HEALTH_REASONS - 1;
		snprintf(h->demotions[i].rung, CON_VERDICT_WORD_MAX, "%s",
			 last ? "other" : c->rung);
		snprintf(h->demotions[i].reason, CON_VERDICT_WORD_MAX, "%s",
			 last ? "other" : c->reason);
	}
	h->demotions[i].n++;
}

static void tell_change(struct con_health *h, const struct con_node_change *c)
{
	struct con_node_view v;
	char kind[CON_EVENT_WORD_MAX], names[128];
	bool bad = c->to == CON_NODE_DOWN || c->to == CON_NODE_DEGRADED;
	if (!con_verdict_node(h->verdict, c->node, &v))
		return;
	snprintf(kind, sizeof(kind), "node-%s", con_node_state_word(c->to));
	if (*c->rung)
		con_events_add(h->opt.events, bad ? SP_LOG_WARN : SP_LOG_INFO, kind,
			       v.name,
			       "was %s, cause %s, rung %s, reason %s, seen from %s",
			       con_node_state_word(c->from),
			       con_node_cause_word(c->cause), c->rung, c->reason,
			       health_names(h, c->vantages, names, sizeof(names)));
	else
		con_events_add(h->opt.events, bad ? SP_LOG_WARN : SP_LOG_INFO, kind,
			       v.name, "was %s, cause %s", con_node_state_word(c->from),
			       con_node_cause_word(c->cause));
}

// Every demotion counts; of very many at once not each is an event of its own.
static void tell_changes(struct con_health *h, const struct con_node_change *c, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (c[i].to == CON_NODE_DOWN && c[i].from != CON_NODE_QUARANTINED)
			count_demotion(h, &c[i]);
		if (i < CHANGES_MAX)
			tell_change(h, &c[i]);
	}
	if (n > CHANGES_MAX)
		con_events_add(h->opt.events, SP_LOG_WARN, "nodes-changed", "",
			       "%zu further nodes are in another state at once",
			       n - CHANGES_MAX);
}

static void tell_vantages(struct con_health *h, uint32_t was, uint32_t is,
			  enum sp_log_level level, const char *kind, const char *text)
{
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++) {
		const char *name = con_verdict_vantage_name(h->verdict, i);
		if (name && h->vantage[i].spoke && ((is & ~was) >> i) & 1)
			con_events_add(h->opt.events, level, kind, name, "%s", text);
	}
}

static void tell_status(struct con_health *h)
{
	struct con_verdict_status s;
	con_verdict_status(h->verdict, &s);
	if (s.panic && !h->was.panic)
		con_events_add(h->opt.events, SP_LOG_ERROR, "panic", "",
			       "less than the panic threshold of the fleet answers: all "
			       "nodes are offered");
	if (!s.panic && h->was.panic)
		con_events_add(h->opt.events, SP_LOG_INFO, "panic-over", "",
			       "enough of the fleet answers again");
	if (s.blind && !h->was.blind)
		con_events_add(h->opt.events, SP_LOG_ERROR, "blind", "",
			       "no vantage has a vote: verdicts stand still");
	if (!s.blind && h->was.blind)
		con_events_add(h->opt.events, SP_LOG_INFO, "blind-over", "",
			       "a vantage has a vote");
	tell_vantages(h, h->was.silent, s.silent, SP_LOG_WARN, "vantage-silent",
		      "says nothing; it has no vote");
	tell_vantages(h, h->was.cut_off, s.cut_off, SP_LOG_WARN, "vantage-cut-off",
		      "reaches none of its controls; it has no vote");
	tell_vantages(h, h->was.astray, s.astray, SP_LOG_WARN, "vantage-astray",
		      "fails more than half of the fleet; it has no vote");
	tell_vantages(h, h->was.voters, s.voters, SP_LOG_INFO, "vantage-votes",
		      "has a vote");
	h->was = s;
}

static void on_cycle(void *ctx)
{
	struct con_health *h = ctx;
	size_t cap = con_verdict_nodes(h->verdict);
	struct con_node_change *c = malloc((cap + 1) * sizeof(*c));
	sp_timer_set(&h->cycle,
		     sp_loop_now_us(h->opt.loop) + UINT64_C(1000) * h->cycle_ms);
	if (!c)
		return; // the next cycle has the same facts
	h->cycles++;
	set_draining(h); // leases end by the clock
	struct con_verdict_status was = h->was;
	size_t n = con_verdict_cycle(h->verdict, now_ms(h), c, cap);
	tell_changes(h, c, n);
	free(c);
	tell_status(h);
	if (n || was.panic != h->was.panic || was.voters != h->was.voters) {
		struct con_health_listener *l;
		LIST_FOREACH(l, &h->listeners, chain)
		l->changed(l->ctx);
	}
}

// ---- what follows ----

bool con_health_offered(struct con_health *h, const char *worker, const char *region,
			unsigned *ret_percent)
{
	int at = health_find(h, worker);
	return at >= 0 && con_verdict_offered(h->verdict, (unsigned)at, region, now_ms(h),
					      ret_percent);
}

uint32_t con_health_latency_us(struct con_health *h, const char *worker,
			       const char *region)
{
	int at = health_find(h, worker);
	return at < 0 ? 0 : con_verdict_latency_us(h->verdict, (unsigned)at, region);
}

bool con_health_is_down(struct con_health *h, const char *worker)
{
	struct con_node_view v;
	int at = health_find(h, worker);
	return at >= 0 && con_verdict_node(h->verdict, (unsigned)at, &v) &&
	       (v.state == CON_NODE_DOWN || v.state == CON_NODE_QUARANTINED);
}

unsigned con_health_unreached(struct con_health *h, const char *worker, uint32_t for_ms)
{
	int at = health_find(h, worker);
	return at < 0 ? 0
		      : con_verdict_unreached(h->verdict, (unsigned)at, for_ms,
					      now_ms(h));
}

// ---- life ----

void con_health_listen(struct con_health *h, struct con_health_listener *l)
{
	LIST_INSERT_HEAD(&h->listeners, l, chain);
}

void con_health_unlisten(struct con_health_listener *l)
{
	if (l->chain.le_prev)
		LIST_REMOVE(l, chain);
	l->chain.le_prev = NULL;
}

int con_health_new(const struct con_health_options *opt, struct con_health **ret)
{
	struct con_verdict_options v;
	struct con_health *h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	h->opt = *opt;
	LIST_INIT(&h->listeners);
	h->cycle_ms = CON_HEALTH_CYCLE_MS;
	sp_timer_init(&h->cycle, opt->loop, on_cycle, h);
	con_verdict_options_default(&v);
	int err = con_verdict_new(&v, &h->verdict);
	if (!err)
		err = sp_state_new(&h->state);
	if (err) {
		con_health_free(h);
		return err;
	}
	sp_timer_set(&h->cycle, sp_loop_now_us(opt->loop));
	*ret = h;
	return 0;
}

void con_health_free(struct con_health *h)
{
	if (!h)
		return;
	sp_timer_done(&h->cycle);
	for (unsigned i = 0; i < h->n_nodes; i++) {
		if (h->node[i])
			health_drop_probes(h->node[i]);
		free(h->node[i]);
	}
	free(h->node);
	sp_state_free(h->state);
	con_verdict_free(h->verdict);
	free(h);
}
