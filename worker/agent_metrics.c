// The agent's /metrics: its own families, then the exit's as it wrote them last, so that
// they can be read while the exit is stuck.
#include <errno.h>
#include <time.h>

#include <event2/buffer.h>

#include "worker/agent.h"

// X(name, type, label or NULL, help)
#define FAMILIES(X)                                                                      \
	X(controller_up, GAUGE, NULL, "1 while a controller answers")                    \
	X(links, COUNTER, "result", "Links to controllers by what became of them")       \
	X(config_epoch, GAUGE, NULL, "Epoch of the config that is applied")              \
	X(config_sequence, GAUGE, NULL, "Its sequence")                                  \
	X(configs, COUNTER, "result", "Configs by what the exit made of them")           \
	X(revisions_unusable, COUNTER, "reason", "Revisions that were not used at once") \
	X(fetches, COUNTER, NULL, "Times that missing revisions were asked for")         \
	X(state_differs, COUNTER, NULL, "Digests of another state at the same position") \
	X(disk_errors, COUNTER, NULL,                                                    \
	  "Writes of the last known good config that failed")                            \
	X(disk_bytes, GAUGE, NULL, "The last known good config on disk")                 \
	X(usage_reports, COUNTER, "result", "Reports of users' totals")                  \
	X(usage_segments_waiting, GAUGE, NULL,                                           \
	  "Ended boots whose totals no controller has yet")                              \
	X(counters_unreadable, COUNTER, NULL,                                            \
	  "Reads of the exit's counters that failed")                                    \
	X(directory_calls, COUNTER, "result", "Calls of the directory passed on")        \
	X(refused, COUNTER, NULL, "Messages that a controller refused")                  \
	X(malformed, COUNTER, NULL, "Messages that could not be read")                   \
	X(exit_beat_age_seconds, GAUGE, NULL, "Since the exit process wrote its counters")

enum family {
#define X(name, type, label, help) F_##name,
	FAMILIES(X)
#undef X
};

static const struct sp_metric table[] = {
#define X(name_, type_, label, help_)                                                    \
	{.name = "sallyport_agent_" #name_,                                              \
	 .type = SP_METRIC_##type_,                                                      \
	 .help = help_,                                                                  \
	 .labels = {label}},
	FAMILIES(X)
#undef X
};

static void begin(struct sp_metrics_writer *m, enum family f)
{
	sp_metrics_family(m, &table[f]);
}

static void one(struct sp_metrics_writer *m, enum family f, uint64_t v)
{
	begin(m, f);
	sp_metrics_u64(m, v, NULL);
}

static void put(struct sp_metrics_writer *m, const char *label, uint64_t v)
{
	sp_metrics_u64(m, v, SP_LABELS(label));
}

uint64_t agt_beat_age_ms(struct agt_agent *a)
{
	struct wrk_counters_reader *r = agt_usage_current(a->usage);
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	uint64_t now = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
	if (!r || !r->gauge[WRK_GAUGE_BEAT_MS] || r->gauge[WRK_GAUGE_BEAT_MS] > now)
		return UINT64_MAX;
	return now - r->gauge[WRK_GAUGE_BEAT_MS];
}

static void put_control(struct agt_agent *a, struct sp_metrics_writer *m)
{
	const struct agt_control_counters *c = agt_control_counters(a->control);
	const struct sp_position *at = agt_control_position(a->control);
	one(m, F_controller_up, a->version != 0);
	begin(m, F_links);
	put(m, "up", a->n.links);
	put(m, "lost", a->n.links_lost);
	one(m, F_config_epoch, at->epoch);
	one(m, F_config_sequence, at->sequence);
	begin(m, F_configs);
	put(m, "applied", c->applied);
	put(m, "refused", c->refused);
	begin(m, F_revisions_unusable);
	put(m, "invalid", c->invalid);
	put(m, "gap", c->gaps);
	put(m, "old", c->old);
	one(m, F_fetches, c->fetches);
	one(m, F_state_differs, c->differing);
	one(m, F_disk_errors, agt_control_disk_errors(a->control));
	one(m, F_disk_bytes, agt_control_disk_bytes(a->control));
}

static void put_usage(struct agt_agent *a, struct sp_metrics_writer *m)
{
	const struct agt_usage_counters *u = agt_usage_counters(a->usage);
	begin(m, F_usage_reports);
	put(m, "acknowledged", u->acknowledged);
	put(m, "lost", u->lost);
	one(m, F_usage_segments_waiting, agt_usage_waiting(a->usage));
	one(m, F_counters_unreadable, u->unreadable);
	begin(m, F_directory_calls);
	put(m, "sent", a->n.directory_calls);
	put(m, "unanswered", a->n.directory_unanswered);
	one(m, F_refused, a->n.refused);
	one(m, F_malformed, a->n.malformed);
}

static void on_metrics(void *ctx, struct sp_metrics_writer *m)
{
	struct agt_agent *a = ctx;
	uint64_t age = agt_beat_age_ms(a);
	put_control(a, m);
	put_usage(a, m);
	begin(m, F_exit_beat_age_seconds);
	if (age != UINT64_MAX)
		sp_metrics_double(m, (double)age / 1000, NULL);
	struct wrk_counters_reader *r = agt_usage_current(a->usage);
	enum wrk_text which = m->openmetrics ? WRK_TEXT_OPENMETRICS : WRK_TEXT_PROMETHEUS;
	if (!r)
		return;
	int err = wrk_counters_read_text(r, which);
	// Caught in the middle of writing: as it was before.
	if ((!err || err == -EAGAIN) && r->text[which].v)
		evbuffer_add(m->out, r->text[which].v, r->text[which].len);
}

static void on_ready(void *ctx, struct sp_ready *r)
{
	struct agt_agent *a = ctx;
	uint64_t age = agt_beat_age_ms(a);
	sp_ready_check(r, "config", agt_control_has_config(a->control), "no config yet");
	sp_ready_check(r, "exit", a->exit_ready && age <= AGT_HUNG_MS,
		       a->exit_draining ? "draining"
		       : a->exit_ready  ? "it does not answer"
					: "takes no sessions");
}

static const struct sp_admin_ops ops = {.metrics = on_metrics, .ready = on_ready};

void agt_metrics_serve(struct agt_agent *a)
{
	const char *text = a->hello->hello->listen;
	struct sp_target at;
	if (!*text)
		return;
	int err = sp_target_parse(text, &at);
	if (!err)
		err = sp_admin_new(a->loop, &at, &ops, a, &a->admin);
	if (err)
		sp_error("agent", "cannot listen", "key=agent.listen address=%s error=%s",
			 text, sp_strerror(err));
	else
		sp_info("agent", "listening", "admin=%s", text);
}
