// /metrics and /readyz of a health checker.
#include <string.h>

#include "healthcheck/vantage.h"
#include "lib/version.h"

#define P "sallyport_healthcheck_"

static const struct sp_metric build_info = {
	P "build_info", SP_METRIC_GAUGE, "The version that runs", {"version"}};
static const struct sp_metric linked = {
	P "linked", SP_METRIC_GAUGE, "Whether a controller answers", {0}};
static const struct sp_metric epoch = {
	P "config_epoch", SP_METRIC_GAUGE, "Epoch of the fleet's state held", {0}};
static const struct sp_metric sequence = {
	P "config_seq", SP_METRIC_GAUGE, "Sequence of the fleet's state held", {0}};
static const struct sp_metric refused = {P "config_refused",
					 SP_METRIC_COUNTER,
					 "Revisions and snapshots that did not hold",
					 {0}};
static const struct sp_metric disk_errors = {P "disk_errors",
					     SP_METRIC_COUNTER,
					     "Writes of the last good state that failed",
					     {0}};
static const struct sp_metric pass_expires = {P "pass_expires_timestamp_seconds",
					      SP_METRIC_GAUGE,
					      "When the pass ends; 0: there is none",
					      {0}};
static const struct sp_metric controls_ok = {
	P "controls_ok",
	SP_METRIC_GAUGE,
	"Whether this place reaches what does not depend on the fleet",
	{0}};
static const struct sp_metric controls_failures = {
	P "controls_failures", SP_METRIC_COUNTER, "Looks that no control answered", {0}};
static const struct sp_metric targets = {
	P "targets", SP_METRIC_GAUGE, "Carriers that are probed", {0}};
static const struct sp_metric skipped = {
	P "targets_skipped",
	SP_METRIC_GAUGE,
	"Carriers that cannot be probed: of nodes not enrolled, or not readable",
	{0}};
static const struct sp_metric running = {
	P "probes_running", SP_METRIC_GAUGE, "Probes under way", {0}};
static const struct sp_metric postponed = {
	P "probes_postponed",
	SP_METRIC_COUNTER,
	"Probes that waited because too many were under way",
	{0}};
static const struct sp_metric reported = {
	P "results_reported", SP_METRIC_COUNTER, "Results told to a controller", {0}};
static const struct sp_metric waiting = {
	P "results_waiting", SP_METRIC_GAUGE, "Results that wait for a controller", {0}};
static const struct sp_metric success = {P "probe_success",
					 SP_METRIC_GAUGE,
					 "Whether the last probe reached the top",
					 {"node", "region", "carrier"}};
static const struct sp_metric last_rung = {
	P "probe_last_rung",
	SP_METRIC_GAUGE,
	"1 for the rung that the last probe fell from, or top",
	{"node", "region", "carrier", "rung"}};
static const struct sp_metric duration = {P "probe_duration_seconds",
					  SP_METRIC_GAUGE,
					  "How long each rung of the last probe took",
					  {"node", "region", "carrier", "stage"}};
static const struct sp_metric probes = {
	P "probes", SP_METRIC_COUNTER, "Probes", {"node", "region", "carrier"}};
static const struct sp_metric failures = {P "probe_failures",
					  SP_METRIC_COUNTER,
					  "Probes that fell",
					  {"node", "region", "carrier"}};

static void one(struct sp_metrics_writer *w, const struct sp_metric *m, uint64_t v)
{
	sp_metrics_family(w, m);
	sp_metrics_u64(w, v, NULL);
}

static void write_durations(struct sp_metrics_writer *w, const struct hck_probed *p)
{
	const struct hck_target *t = p->target;
	for (int i = 0; p->last && i < SP_RUNGS && i < (int)p->last->reached; i++)
		sp_metrics_double(w, p->last->us[i] / 1e6,
				  SP_LABELS(t->node, t->region, t->carrier_text,
					    sp_rung_word((enum sp_rung)i)));
}

static void write_probed(const struct hck_vantage *v, struct sp_metrics_writer *w,
			 const struct sp_metric *m)
{
	struct hck_probed p;
	sp_metrics_family(w, m);
	for (unsigned i = 0; hck_prober_get(v->prober, i, &p); i++) {
		const struct hck_target *t = p.target;
		const char *const labels[] = {
			t->node, t->region, t->carrier_text,
			p.last ? sp_rung_word(p.last->ok ? SP_RUNGS : p.last->reached)
			       : ""};
		if (m == &duration)
			write_durations(w, &p);
		else if (m == &probes)
			sp_metrics_u64(w, p.probes, labels);
		else if (m == &failures)
			sp_metrics_u64(w, p.failures, labels);
		else if (p.last)
			sp_metrics_u64(w, m == &last_rung || p.last->ok, labels);
	}
}

static void write_metrics(void *ctx, struct sp_metrics_writer *w)
{
	const struct hck_vantage *v = ctx;
	const struct sp_position *at = hck_follow_position(v->follow);
	sp_metrics_family(w, &build_info);
	sp_metrics_u64(w, 1, SP_LABELS(sp_version()));
	one(w, &linked, v->linked);
	one(w, &epoch, at->epoch);
	one(w, &sequence, at->sequence);
	one(w, &refused, hck_follow_refused(v->follow));
	one(w, &disk_errors, hck_follow_disk_errors(v->follow));
	one(w, &pass_expires, v->pass_expires_s);
	one(w, &controls_ok, hck_controls_ok(v->controls));
	one(w, &controls_failures, hck_controls_failures(v->controls));
	one(w, &targets, v->targets);
	one(w, &skipped, v->skipped);
	one(w, &running, hck_prober_running(v->prober));
	one(w, &postponed, hck_prober_postponed(v->prober));
	one(w, &reported, hck_report_sent(v->report));
	one(w, &waiting, hck_report_waiting(v->report));
	write_probed(v, w, &success);
	write_probed(v, w, &last_rung);
	write_probed(v, w, &duration);
	write_probed(v, w, &probes);
	write_probed(v, w, &failures);
}

static void write_ready(void *ctx, struct sp_ready *r)
{
	const struct hck_vantage *v = ctx;
	sp_ready_check(r, "state", hck_follow_state(v->follow) != NULL,
		       "no state of the fleet yet");
	sp_ready_check(r, "pass", v->pass_expires_s != 0, "no pass yet");
	sp_ready_check(r, "controls", hck_controls_ok(v->controls),
		       "no control answers: this place is cut off");
}

const struct sp_admin_ops hck_admin_ops = {.metrics = write_metrics,
					   .ready = write_ready};
