// Health for operators and for Prometheus.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controller/health_internal.h"

#define P "sallyport_controller_"

static const struct sp_metric node_state = {
	P "node_state",
	SP_METRIC_GAUGE,
	"1 for the state of each worker by the verdict, 0 for the others",
	{"node", "region", "state"}};
static const struct sp_metric demotions = {
	P "demotions",
	SP_METRIC_COUNTER,
	"Workers no longer offered, by what they fell from",
	{"rung", "reason"}};
static const struct sp_metric nodes = {
	P "nodes", SP_METRIC_GAUGE, "Workers by the state of their verdict", {"state"}};
static const struct sp_metric panic = {
	P "panic", SP_METRIC_GAUGE, "1 while too little of the fleet answers", {0}};
static const struct sp_metric blind = {
	P "blind", SP_METRIC_GAUGE, "1 while no vantage has a vote", {0}};
static const struct sp_metric votes = {
	P "vantage_votes", SP_METRIC_GAUGE, "Whether a vantage has a vote", {"vantage"}};
static const struct sp_metric latency = {P "node_latency_seconds",
					 SP_METRIC_GAUGE,
					 "Mean time to a session, from all vantages",
					 {"node", "region"}};
static const struct sp_metric reports = {
	P "probe_reports", SP_METRIC_COUNTER, "Messages of vantages", {0}};
static const struct sp_metric results = {
	P "probe_results", SP_METRIC_COUNTER, "Results by what became of them", {"use"}};
static const struct sp_metric cycles = {
	P "verdict_cycles", SP_METRIC_COUNTER, "Cycles of the verdict", {0}};

static void one(struct sp_metrics_writer *w, const struct sp_metric *m, uint64_t v)
{
	sp_metrics_family(w, m);
	sp_metrics_u64(w, v, NULL);
}

static void write_nodes(struct con_health *h, struct sp_metrics_writer *w)
{
	struct con_node_view v;
	sp_metrics_family(w, &node_state);
	for (unsigned i = 0; i < con_verdict_nodes(h->verdict); i++)
		for (int s = 0; s < CON_NODE_STATES; s++)
			if (con_verdict_node(h->verdict, i, &v))
				sp_metrics_u64(w, (int)v.state == s,
					       SP_LABELS(v.name, v.region,
							 con_node_state_word((
								 enum con_node_state)s)));
	sp_metrics_family(w, &latency);
	for (unsigned i = 0; i < con_verdict_nodes(h->verdict); i++) {
		uint32_t us = con_verdict_latency_us(h->verdict, i, NULL);
		if (us && con_verdict_node(h->verdict, i, &v))
			sp_metrics_double(w, us / 1e6, SP_LABELS(v.name, v.region));
	}
}

void con_health_metrics(struct con_health *h, struct sp_metrics_writer *w)
{
	struct con_verdict_status s;
	con_verdict_status(h->verdict, &s);
	write_nodes(h, w);
	sp_metrics_family(w, &nodes);
	for (int i = 0; i < CON_NODE_STATES; i++)
		sp_metrics_u64(w, s.nodes[i],
			       SP_LABELS(con_node_state_word((enum con_node_state)i)));
	sp_metrics_family(w, &demotions);
	for (unsigned i = 0; i < HEALTH_REASONS && h->demotions[i].n; i++)
		sp_metrics_u64(w, h->demotions[i].n,
			       SP_LABELS(h->demotions[i].rung, h->demotions[i].reason));
	one(w, &panic, s.panic);
	one(w, &blind, s.blind);
	sp_metrics_family(w, &votes);
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++) {
		const char *name = con_verdict_vantage_name(h->verdict, i);
		if (name)
			sp_metrics_u64(w, (s.voters >> i) & 1, SP_LABELS(name));
	}
	one(w, &reports, h->reports);
	sp_metrics_family(w, &results);
	sp_metrics_u64(w, h->results, SP_LABELS("taken"));
	sp_metrics_u64(w, h->stale, SP_LABELS("stale"));
	sp_metrics_u64(w, h->unknown, SP_LABELS("unknown"));
	health_write_rungs(h, w);
	one(w, &cycles, h->cycles);
}

// ---- for people ----

static json_t *name_list(const struct con_health *h, uint32_t mask)
{
	json_t *list = json_array();
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++) {
		const char *name = con_verdict_vantage_name(h->verdict, i);
		if (name && (mask >> i) & 1)
			json_array_append_new(list, json_string(name));
	}
	return list;
}

// Who cannot use it now, and what each fell from: [{vantage, rung, reason}].
static json_t *failures(struct con_health *h, unsigned node, uint32_t mask, uint64_t now)
{
	json_t *list = json_array();
	struct con_sight_view s;
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++)
		for (unsigned c = 0; ((mask >> i) & 1) && c < h->node[node]->n_carriers;
		     c++) {
			if (!con_verdict_sight(h->verdict, node, i, c, now, &s) || s.ok)
				continue;
			json_array_append_new(
				list, json_pack("{s:s, s:s, s:s}", "vantage",
						con_verdict_vantage_name(h->verdict, i),
						"rung", s.rung, "reason", s.reason));
			break;
		}
	return list;
}

static void fill_node(struct con_health *h, unsigned i, json_t *into)
{
	struct con_node_view v;
	unsigned percent = 0;
	uint64_t now = sp_loop_now_ms(h->opt.loop);
	if (!con_verdict_node(h->verdict, i, &v))
		return;
	bool offered = con_verdict_offered(h->verdict, i, "", now, &percent);
	uint64_t held = v.held_until_ms > now ? v.held_until_ms - now : 0;
	json_object_set_new(into, "health", json_string(con_node_state_word(v.state)));
	json_object_set_new(into, "cause", json_string(con_node_cause_word(v.cause)));
	json_object_set_new(into, "offered", json_boolean(offered));
	json_object_set_new(into, "percent", json_integer(offered ? percent : 0));
	json_object_set_new(into, "since_s",
			    json_integer((json_int_t)((now - v.since_ms) / 1000)));
	json_object_set_new(into, "flaps", json_integer(v.flaps));
	json_object_set_new(into, "demotions", json_integer((json_int_t)v.demotions));
	json_object_set_new(into, "held_s",
			    json_integer((json_int_t)(held + 999) / 1000));
	json_object_set_new(
		into, "latency_ms",
		json_real(con_verdict_latency_us(h->verdict, i, NULL) / 1000.0));
	json_object_set_new(into, "failing_from", name_list(h, v.failing));
	json_object_set_new(into, "failures", failures(h, i, v.failing, now));
	json_object_set_new(into, "blocked_from", name_list(h, v.blocked));
	json_t *bad = json_array();
	for (unsigned c = 0; c < h->node[i]->n_carriers; c++)
		if ((v.bad_carriers >> c) & 1)
			json_array_append_new(bad, json_string(h->node[i]->carrier[c]));
	json_object_set_new(into, "bad_carriers", bad);
}

void con_health_fill(struct con_health *h, const char *worker, json_t *into)
{
	int at = health_find(h, worker);
	if (at >= 0)
		fill_node(h, (unsigned)at, into);
}

static const char *vantage_word(const struct con_verdict_status *s, unsigned i)
{
	return (s->voters >> i) & 1    ? "votes"
	       : (s->cut_off >> i) & 1 ? "cut-off"
	       : (s->astray >> i) & 1  ? "astray"
				       : "silent";
}

// How many nodes of those it told of it cannot use now.
static unsigned count_failing(struct con_health *h, unsigned vantage, unsigned *ret_seen)
{
	struct con_node_view v;
	struct con_sight_view s;
	unsigned failing = 0;
	uint64_t now = sp_loop_now_ms(h->opt.loop);
	*ret_seen = 0;
	for (unsigned i = 0; i < con_verdict_nodes(h->verdict); i++) {
		bool seen = false;
		if (!con_verdict_node(h->verdict, i, &v))
			continue;
		for (unsigned c = 0; c < h->node[i]->n_carriers; c++)
			seen |= con_verdict_sight(h->verdict, i, vantage, c, now, &s);
		*ret_seen += seen;
		failing += (v.failing >> vantage) & 1;
	}
	return failing;
}

json_t *con_health_vantages(struct con_health *h)
{
	struct con_verdict_status s;
	json_t *list = json_array();
	con_verdict_status(h->verdict, &s);
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++) {
		const char *name = con_verdict_vantage_name(h->verdict, i);
		unsigned seen = 0;
		if (!name)
			continue;
		unsigned failing = count_failing(h, i, &seen);
		json_array_append_new(
			list,
			json_pack("{s:s, s:s, s:s, s:I, s:i, s:i}", "name", name,
				  "region", con_verdict_vantage_region(h->verdict, i),
				  "state", vantage_word(&s, i), "sequence",
				  (json_int_t)h->vantage[i].sequence, "sees", (int)seen,
				  "fails", (int)failing));
	}
	return list;
}

void con_health_status(const struct con_health *h, struct con_verdict_status *ret)
{
	con_verdict_status(h->verdict, ret);
}

json_t *con_health_json(struct con_health *h, const char *node)
{
	struct con_verdict_status s;
	struct con_node_view v;
	json_t *list = json_array();
	con_verdict_status(h->verdict, &s);
	for (unsigned i = 0; i < con_verdict_nodes(h->verdict); i++) {
		if (!con_verdict_node(h->verdict, i, &v) ||
		    (node && strcmp(node, v.name) != 0 &&
		     strcmp(node, h->node[i]->node) != 0))
			continue;
		json_t *o = json_pack("{s:s, s:s}", "name", v.name, "region", v.region);
		fill_node(h, i, o);
		if (node)
			json_object_set_new(o, "views", health_views(h, i));
		json_array_append_new(list, o);
	}
	return json_pack("{s:b, s:b, s:o, s:o}", "panic", s.panic, "blind", s.blind,
			 "vantages", con_health_vantages(h), "nodes", list);
}
