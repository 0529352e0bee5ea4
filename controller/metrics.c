// Metrics of the chain of revisions, of Redis and of the operator API. Other roles write
// their own families.
#include "controller/controller.h"
#include "lib/version.h"

// X(name, type, label or NULL, help)
#define FAMILIES(X)                                                                      \
	X(build_info, GAUGE, "version", "Always 1; what runs here")                      \
	X(config_epoch, GAUGE, NULL, "Epoch of the newest revision")                     \
	X(config_seq, GAUGE, NULL, "Sequence of the newest revision")                    \
	X(synced, GAUGE, NULL, "1 while Redis stands where the journal does")            \
	X(commits, COUNTER, "result", "Changes asked for, by how they ended")            \
	X(commit_conflicts, COUNTER, NULL, "Appends that found Redis elsewhere")         \
	X(redis_seeded, COUNTER, NULL, "Times that Redis was filled anew")               \
	X(redis_followed, COUNTER, NULL, "Revisions taken from Redis")                   \
	X(redis_up, GAUGE, NULL, "1 while the connection to Redis stands")               \
	X(redis_commands, COUNTER, NULL, "Commands sent to Redis")                       \
	X(redis_errors, COUNTER, "kind", "Commands without a good answer")               \
	X(redis_connects, COUNTER, NULL, "Connections made to Redis")                    \
	X(redis_command_seconds, HISTOGRAM, NULL,                                        \
	  "From sending a command to its answer")                                        \
	X(journal_bytes, GAUGE, NULL, "Size of the journal")                             \
	X(journal_errors, COUNTER, NULL, "Writes to the journal that failed")            \
	X(journal_compactions, COUNTER, NULL, "Times that the journal was written anew") \
	X(state_entries, GAUGE, "kind", "Entries of the fleet's state")                  \
	X(events, COUNTER, NULL, "Events since the start")                               \
	X(api_calls, COUNTER, NULL, "Calls of the operator API")                         \
	X(api_calls_failed, COUNTER, NULL, "Of these, answered by a problem")            \
	X(log_lines_lost, COUNTER, NULL, "Log lines that were not written")

enum family {
#define X(name, type, label, help) F_##name,
	FAMILIES(X)
#undef X
};

static const struct sp_metric table[] = {
#define X(name_, type_, label, help_)                                                    \
	{.name = "sallyport_controller_" #name_,                                         \
	 .type = SP_METRIC_##type_,                                                      \
	 .help = help_,                                                                  \
	 .labels = {label}},
	FAMILIES(X)
#undef X
};

static void one(struct sp_metrics_writer *m, enum family f, uint64_t v)
{
	sp_metrics_family(m, &table[f]);
	sp_metrics_u64(m, v, NULL);
}

static void put(struct sp_metrics_writer *m, const char *label, uint64_t v)
{
	sp_metrics_u64(m, v, SP_LABELS(label));
}

static void put_chain(struct con_controller *c, struct sp_metrics_writer *m)
{
	const struct con_fleet_counters *f = con_fleet_counters(c->fleet);
	const struct sp_position *head = con_fleet_head(c->fleet);
	one(m, F_config_epoch, head->epoch);
	one(m, F_config_seq, head->sequence);
	one(m, F_synced, con_fleet_is_synced(c->fleet));
	sp_metrics_family(m, &table[F_commits]);
	put(m, "done", f->commits);
	put(m, "unchanged", f->unchanged);
	put(m, "refused", f->refused);
	put(m, "timeout", f->timeouts);
	one(m, F_commit_conflicts, f->conflicts);
	one(m, F_redis_seeded, f->seeded);
	one(m, F_redis_followed, f->followed);
	one(m, F_journal_bytes, con_fleet_journal_bytes(c->fleet));
	one(m, F_journal_errors, f->journal_errors);
	one(m, F_journal_compactions, f->compactions);
}

static void put_redis(struct con_controller *c, struct sp_metrics_writer *m)
{
	struct con_redis *redis = con_fleet_redis(c->fleet);
	const struct con_redis_counters *r = con_redis_counters(redis);
	one(m, F_redis_up, con_redis_is_up(redis));
	one(m, F_redis_commands, r->commands);
	sp_metrics_family(m, &table[F_redis_errors]);
	put(m, "error", r->errors);
	put(m, "late", r->late);
	put(m, "not_sent", r->refused);
	one(m, F_redis_connects, r->connects);
	sp_metrics_family(m, &table[F_redis_command_seconds]);
	sp_metrics_histogram(m, &r->seconds, NULL);
}

static void put_state(struct con_controller *c, struct sp_metrics_writer *m)
{
	static const struct {
		const char *prefix, *label;
	} kinds[] = {{"node/", "node"},      {"identity/", "identity"},
		     {"user/", "user"},      {"tier/", "tier"},
		     {"token/", "token"},    {"lease/", "lease"},
		     {"revoked/", "revoked"}};
	sp_metrics_family(m, &table[F_state_entries]);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		put(m, kinds[i].label,
		    sp_state_count(con_fleet_state(c->fleet), kinds[i].prefix));
}

static void put_metrics(struct con_controller *c, struct sp_metrics_writer *m)
{
	const struct con_api_counters *a = con_api_counters(c->api);
	sp_metrics_family(m, &table[F_build_info]);
	put(m, sp_version(), 1);
	put_chain(c, m);
	put_redis(c, m);
	put_state(c, m);
	one(m, F_events, con_events_last(c->events));
	one(m, F_api_calls, a->calls);
	one(m, F_api_calls_failed, a->failed);
	one(m, F_log_lines_lost, sp_log_lost());
}

const struct con_role con_role_metrics = {.name = "metrics", .metrics = put_metrics};
