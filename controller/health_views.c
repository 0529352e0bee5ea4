// What each vantage told of a node last, for operators: rung, reason, time of each rung.
// Nothing is judged by it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controller/health_internal.h"
#include "lib/probe.h"

static_assert(HEALTH_RUNGS_MAX >= SP_RUNGS, "a rung's time finds no place");

void health_drop_probes(struct health_node *n)
{
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++) {
		free(n->probe[i]);
		n->probe[i] = NULL;
	}
}

// A vantage's words: JSON and terminals want printable text.
static void copy_clean(char *to, size_t cap, const char *from)
{
	size_t n = 0;
	for (; from[n] && n < cap - 1; n++)
		to[n] = from[n] >= 0x20 && from[n] < 0x7f ? from[n] : '?';
	to[n] = '\0';
}

void health_keep_probe(struct health_node *n, unsigned vantage, unsigned carrier,
		       const Sallyport__Fleet__Probe *p)
{
	if (!n->probe[vantage])
		n->probe[vantage] = calloc(n->n_carriers, sizeof(*n->probe[vantage]));
	if (!n->probe[vantage])
		return;
	struct health_probe *to = &n->probe[vantage][carrier];
	to->took_ms = p->took_ms;
	to->rungs = 0;
	for (; to->rungs < p->n_rung_us && to->rungs < SP_RUNGS; to->rungs++)
		to->rung_us[to->rungs] = p->rung_us[to->rungs];
	copy_clean(to->detail, sizeof(to->detail), p->detail);
}

void health_count_probe(struct con_health *h, const Sallyport__Fleet__Probe *p)
{
	int rung = 0;
	while (rung < SP_RUNGS && strcmp(p->rung, sp_rung_word((enum sp_rung)rung)) != 0)
		rung++;
	if (p->ok)
		rung = SP_RUNGS; // wherever its ladder ends
	else if (rung == SP_RUNGS)
		rung = SP_RUNGS + 1;
	h->reached[rung]++;
}

void health_write_rungs(const struct con_health *h, struct sp_metrics_writer *w)
{
	static const struct sp_metric m = {
		"sallyport_controller_probes",
		SP_METRIC_COUNTER,
		"Probes of vantages, by the rung that they fell from",
		{"rung"}};
	sp_metrics_family(w, &m);
	for (int i = 0; i < SP_RUNGS; i++)
		sp_metrics_u64(w, h->reached[i],
			       SP_LABELS(sp_rung_word((enum sp_rung)i)));
	sp_metrics_u64(w, h->reached[SP_RUNGS], SP_LABELS("top"));
	sp_metrics_u64(w, h->reached[SP_RUNGS + 1], SP_LABELS("other"));
}

static json_t *rung_times(const struct health_probe *p)
{
	json_t *o = json_object();
	for (unsigned r = 0; p && r < p->rungs; r++)
		json_object_set_new(o, sp_rung_word((enum sp_rung)r),
				    json_real(p->rung_us[r] / 1000.0));
	return o;
}

static json_t *view(const struct con_health *h, unsigned node, unsigned vantage,
		    unsigned carrier, const struct con_sight_view *s)
{
	const struct health_node *n = h->node[node];
	const struct health_probe *p =
		n->probe[vantage] ? &n->probe[vantage][carrier] : NULL;
	struct con_verdict_status st;
	uint64_t now = sp_loop_now_ms(h->opt.loop);
	char rung[CON_VERDICT_WORD_MAX], reason[CON_VERDICT_WORD_MAX];
	con_verdict_status(h->verdict, &st);
	copy_clean(rung, sizeof(rung), s->rung);
	copy_clean(reason, sizeof(reason), s->reason);
	return json_pack(
		"{s:s, s:s, s:b, s:b, s:b, s:i, s:s, s:s, s:s, s:I, s:I, s:f, "
		"s:I, s:o}",
		"vantage", con_verdict_vantage_name(h->verdict, vantage), "carrier",
		n->carrier[carrier], "ok", s->ok, "votes", (st.voters >> vantage) & 1,
		"contested", s->contested, "row", (int)s->row, "rung", rung, "reason",
		reason, "detail", p ? p->detail : "", "since_s",
		(json_int_t)((now - s->since_ms) / 1000), "age_ms",
		(json_int_t)(now - s->last_ms), "latency_ms", s->latency_us / 1000.0,
		"took_ms", (json_int_t)(p ? p->took_ms : 0), "rungs_ms", rung_times(p));
}

json_t *health_views(const struct con_health *h, unsigned node)
{
	json_t *list = json_array();
	struct con_sight_view s;
	uint64_t now = sp_loop_now_ms(h->opt.loop);
	for (unsigned i = 0; i < CON_VANTAGES_MAX; i++)
		for (unsigned c = 0; c < h->node[node]->n_carriers; c++)
			if (con_verdict_sight(h->verdict, node, i, c, now, &s))
				json_array_append_new(list, view(h, node, i, c, &s));
	return list;
}
