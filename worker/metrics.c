#include "worker/metrics.h"

#include <stddef.h>
#include <string.h>

#include "lib/file.h"
#include "lib/log.h"
#include "lib/version.h"
#include "worker/heir.h"
#include "worker/keeper_upgrade.h"

// ---- the table ----

// X(name, type, label or NULL, second label or NULL, help)
#define FAMILIES(X)                                                                      \
	X(build_info, GAUGE, "version", "node", "Always 1; what runs here")              \
	X(config_epoch, GAUGE, NULL, NULL, "Epoch of the signed config in force")        \
	X(config_seq, GAUGE, NULL, NULL, "Sequence of the signed config in force")       \
	X(config_applied_timestamp_seconds, GAUGE, NULL, NULL,                           \
	  "When the config in force was taken")                                          \
	X(reloads, COUNTER, "result", NULL,                                              \
	  "Reloads in place, and any that were refused")                                 \
	X(adoptions, COUNTER, "cause", NULL,                                             \
	  "Times that a new process took over, by what ended the last one")              \
	X(adoption_seconds, HISTOGRAM, NULL, NULL,                                       \
	  "From the end of one process until the next had taken over")                   \
	X(adoption_last_seconds, GAUGE, "part", NULL,                                    \
	  "The last of these: keeper's exec, start of the process, adoption")            \
	X(adoption_repaired_bytes, COUNTER, NULL, NULL,                                  \
	  "Stream bytes that only the kernel knew of")                                   \
	X(adoption_lost, COUNTER, NULL, NULL,                                            \
	  "Sessions, streams and flows whose records could not be")                      \
	X(adoption_orphans, COUNTER, NULL, NULL, "Descriptors that no record knew")      \
	X(quarantines, COUNTER, NULL, NULL,                                              \
	  "Sessions ended because their work crashed the worker again")                  \
	X(crash_drained, GAUGE, NULL, NULL, "1 while crashes keep new sessions away")    \
	X(upgrades, COUNTER, "result", NULL,                                             \
	  "New processes of an installed program; rolled-back: the old one went on")     \
	X(upgrade_stall_seconds, HISTOGRAM, NULL, NULL,                                  \
	  "Upgrades by the time from one exit's end to the next one's work")             \
	X(ready, GAUGE, NULL, NULL, "1 while new sessions are welcome")                  \
	X(log_lines_lost, COUNTER, NULL, NULL, "Log lines that were not written")        \
	X(accepted, COUNTER, "carrier", NULL, "Connections accepted")                    \
	X(accept_no_descriptors, COUNTER, NULL, NULL,                                    \
	  "Times that accepting found no descriptor")                                    \
	X(carriers, GAUGE, "state", NULL, "Carriers by state")                           \
	X(carriers_established, COUNTER, NULL, NULL, "Carriers that authenticated")      \
	X(carriers_ended, COUNTER, "reason", NULL, "Carriers that ended")                \
	X(carrier_bytes, COUNTER, "direction", NULL, "Bytes on carriers")                \
	X(carrier_records, COUNTER, "direction", NULL, "Records on carriers")            \
	X(strangers, COUNTER, "reason", NULL,                                            \
	  "First flights that were not of the fleet")                                    \
	X(replay_keys, GAUGE, NULL, NULL, "First contacts remembered against replay")    \
	X(sessions, GAUGE, "state", NULL, "Sessions by state")                           \
	X(users, GAUGE, NULL, NULL, "Users that have sessions")                          \
	X(sessions_made, COUNTER, NULL, NULL, "Sessions made")                           \
	X(sessions_resumed, COUNTER, NULL, NULL, "Attaches to a session that existed")   \
	X(sessions_ended, COUNTER, "reason", NULL, "Sessions that ended")                \
	X(sessions_evicted, COUNTER, NULL, NULL, "Detached sessions that made room")     \
	X(detached_given_up, COUNTER, "reason", NULL,                                    \
	  "Detached sessions whose streams were reset")                                  \
	X(detached_bytes, GAUGE, NULL, NULL, "Stream bytes held for detached sessions")  \
	X(refused, COUNTER, "reason", NULL, "Authenticated clients that were refused")   \
	X(passes_renewed, COUNTER, "result", NULL, "Renewed passes of live sessions")    \
	X(streams, GAUGE, NULL, NULL, "Streams with a destination or a dial")            \
	X(streams_draining, GAUGE, NULL, NULL,                                           \
	  "Streams reset by the destination whose last bytes are on their way")          \
	X(streams_asked, COUNTER, NULL, NULL, "Streams that clients asked for")          \
	X(streams_opened, COUNTER, NULL, NULL, "Streams that reached their destination") \
	X(streams_ended, COUNTER, "reason", NULL, "Streams that ended, dials included")  \
	X(streams_refused, COUNTER, "limit", NULL, "Streams refused at a limit")         \
	X(stream_bytes, COUNTER, "tier", "direction",                                    \
	  "Bytes of streams, without framing")                                           \
	X(resent_bytes, COUNTER, NULL, NULL, "Stream bytes sent again after a cut")      \
	X(duplicate_bytes, COUNTER, NULL, NULL, "Stream bytes received again")           \
	X(flows, GAUGE, NULL, NULL, "Datagram flows")                                    \
	X(flows_asked, COUNTER, NULL, NULL, "Datagram flows that clients asked for")     \
	X(flows_opened, COUNTER, NULL, NULL, "Datagram flows that got a socket")         \
	X(flows_ended, COUNTER, "reason", NULL, "Datagram flows that ended")             \
	X(flows_evicted, COUNTER, "limit", NULL, "Stalest flows that made room")         \
	X(flow_icmp_errors, COUNTER, NULL, NULL, "ICMP errors on flows, ignored")        \
	X(datagrams, COUNTER, "tier", "direction", "Datagrams passed on")                \
	X(datagram_bytes, COUNTER, "tier", "direction", "Their bytes")                   \
	X(datagrams_dropped, COUNTER, "direction", NULL, "Datagrams dropped")            \
	X(no_descriptors, COUNTER, NULL, NULL, "Times that a dial found no descriptor")  \
	X(tier_sessions, GAUGE, "tier", NULL, "Sessions by tier")                        \
	X(replay_memory_bytes, GAUGE, NULL, NULL, "Stream bytes held for clients")       \
	X(memory_spare_bytes, GAUGE, NULL, NULL, "Memory for stream bytes that is free") \
	X(memory_pool_bytes, GAUGE, NULL, NULL, "Memory for stream bytes in all")        \
	X(dials, GAUGE, NULL, NULL, "Dials under way")                                   \
	X(dials_ended, COUNTER, "result", NULL, "Dials by result")                       \
	X(dial_attempts, COUNTER, NULL, NULL, "Connection attempts")                     \
	X(dials_refused, COUNTER, NULL, NULL, "Dials refused, too many under way")       \
	X(dial_seconds, HISTOGRAM, NULL, NULL, "From OPEN to a connected stream")        \
	X(policy_refused, COUNTER, "verdict", NULL, "Addresses the exit policy refused") \
	X(dns_lookups, COUNTER, "result", NULL, "Look-ups of names")                     \
	X(dns_queries, COUNTER, "result", NULL, "Queries to name servers")               \
	X(dns_cache, COUNTER, "result", NULL, "Look-ups in the cache")                   \
	X(dns_cache_entries, GAUGE, NULL, NULL, "Entries of the cache")                  \
	X(dns_waiting, GAUGE, NULL, NULL, "Dials that wait for a name")                  \
	X(cover_relays, GAUGE, NULL, NULL, "Connections to the cover site")              \
	X(cover_connections, COUNTER, "kind", NULL,                                      \
	  "Connections made to the cover site")                                          \
	X(cover_ended, COUNTER, "reason", NULL, "Relays that this worker ended")         \
	X(cover_bytes, COUNTER, "direction", NULL, "Bytes relayed to and from the site") \
	X(trunk_members, GAUGE, NULL, NULL, "Other workers of the fleet")                \
	X(trunks, GAUGE, "state", NULL, "Links to other workers by state")               \
	X(trunks_made, COUNTER, "by", NULL, "Trunks that came up, by who dialled")       \
	X(trunks_ended, COUNTER, "reason", NULL, "Trunks that ended")                    \
	X(trunks_misbehaved, COUNTER, NULL, NULL,                                        \
	  "Trunks that ended because the other worker broke the rules")                  \
	X(trunks_unproved, COUNTER, "reason", NULL,                                      \
	  "Trunks that another worker began and that ended without a record")            \
	X(trunk_dials, COUNTER, NULL, NULL, "Attempts to dial a trunk")                  \
	X(trunk_dials_failed, COUNTER, "reason", NULL, "Attempts that failed")           \
	X(trunk_bytes, COUNTER, "direction", NULL, "Bytes on trunks")                    \
	X(relay_carriers, GAUGE, "state", NULL,                                          \
	  "Carriers to other homes that wait for a trunk or are relayed")                \
	X(relay_taken, COUNTER, NULL, NULL, "First flights for other homes")             \
	X(relay_opened, COUNTER, NULL, NULL, "Carriers that were relayed")               \
	X(relay_refused, COUNTER, "reason", NULL,                                        \
	  "Carriers that were not relayed, as their clients were told")                  \
	X(relay_ended, COUNTER, "reason", NULL, "Relayed carriers that ended")           \
	X(relay_bytes, COUNTER, "direction", NULL, "Bytes relayed, as entry")            \
	X(relayed_opened, COUNTER, NULL, NULL, "Carriers that came over a trunk")        \
	X(relayed_refused, COUNTER, "reason", NULL,                                      \
	  "Carriers over a trunk that were refused")                                     \
	X(relay_pipes_ended, COUNTER, "reason", NULL,                                    \
	  "Carriers over trunks that ended, either way")                                 \
	X(relay_memory_bytes, GAUGE, NULL, NULL, "Memory reserved for relayed carriers") \
	X(agent_up, GAUGE, NULL, NULL, "1 while there is an agent")                      \
	X(agent_starts, COUNTER, NULL, NULL, "Times that the agent was started")         \
	X(agent_ended, COUNTER, "how", NULL, "Agents that ended; hung: killed for it")   \
	X(agent_messages_lost, COUNTER, NULL, NULL,                                      \
	  "Messages that no agent was there for, or that it did not read")               \
	X(counters_on_disk, GAUGE, NULL, NULL,                                           \
	  "1 if users' totals lie on disk, 0 if it took no file")                        \
	X(counters_segments_waiting, GAUGE, NULL, NULL,                                  \
	  "Ended boots whose totals no controller has yet")                              \
	X(counters_segments_lost, COUNTER, NULL, NULL,                                   \
	  "Ended boots given up because too many waited")

enum family {
#define X(name, type, label, label2, help) F_##name,
	FAMILIES(X)
#undef X
};

static const struct sp_metric table[] = {
#define X(name_, type_, label, label2, help_)                                            \
	{.name = "sallyport_worker_" #name_,                                             \
	 .type = SP_METRIC_##type_,                                                      \
	 .help = help_,                                                                  \
	 .labels = {label, label2}},
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

// A family by reason; only those that happened, so that a scrape stays small.
static void by_reason(struct sp_metrics_writer *m, enum family f, const uint64_t *n)
{
	begin(m, f);
	for (int r = 0; r <= SP_REASON__LAST; r++)
		if (n[r])
			put(m, sp_reason_word((enum sp_reason)r), n[r]);
}

// ---- the groups ----

static void put_upgrades(const struct wrk_upgrade *u, struct sp_metrics_writer *m)
{
	struct sp_histogram h;
	begin(m, F_upgrades);
	put(m, "ok", u->n_done);
	put(m, "rolled-back", u->n_rolled_back);
	sp_histogram_init(&h, wrk_stall_bounds, WRK_STALL_BOUNDS);
	for (int i = 0; i <= WRK_STALL_BOUNDS; i++)
		h.counts[i] = u->stalls[i];
	h.sum = (double)u->stalls_us / 1000000;
	begin(m, F_upgrade_stall_seconds);
	sp_metrics_histogram(m, &h, NULL);
}

static void put_seconds(struct sp_metrics_writer *m, const char *part, uint64_t us)
{
	sp_metrics_double(m, (double)us / 1e6, SP_LABELS(part));
}

static void put_adoptions(struct wrk_worker *w, struct sp_metrics_writer *m)
{
	const struct wrk_life *l = w->kept->life;
	const struct wrk_taken *t = wrk_taken_of(w->kept->life);
	struct sp_histogram h;
	begin(m, F_adoptions);
	put(m, "crash", l->n_crashes - l->hung);
	put(m, "hang", l->hung + l->stopped);
	put(m, "kill", l->killed);
	put(m, "upgrade", wrk_upgrade_of(w->kept->life)->n_done);
	sp_histogram_init(&h, wrk_taken_bounds, WRK_TAKEN_BOUNDS);
	memcpy(h.counts, t->seconds, sizeof(t->seconds));
	h.sum = (double)t->sum_us / 1e6;
	begin(m, F_adoption_seconds);
	sp_metrics_histogram(m, &h, NULL);
	begin(m, F_adoption_last_seconds);
	put_seconds(m, "exec", w->exec_us);
	put_seconds(m, "start",
		    w->took_over_us > w->exec_us + w->adopt_us
			    ? w->took_over_us - w->exec_us - w->adopt_us
			    : 0);
	put_seconds(m, "adopt", w->heir ? w->adopt_us : 0);
	one(m, F_adoption_repaired_bytes, t->repaired_bytes);
	one(m, F_adoption_lost, t->lost);
	one(m, F_adoption_orphans, t->orphans);
	one(m, F_quarantines, w->quarantine->sessions);
	one(m, F_crash_drained, w->crashing);
}

static void put_process(struct wrk_worker *w, struct sp_metrics_writer *m)
{
	static const struct sp_fleet_revision none;
	const struct sp_fleet_revision *r = w->id.fleet ? &w->id.fleet->revision : &none;
	char why[64];
	begin(m, F_build_info);
	sp_metrics_u64(m, 1, SP_LABELS(sp_version(), w->cfg->node));
	one(m, F_config_epoch, r->epoch);
	one(m, F_config_seq, r->sequence);
	one(m, F_config_applied_timestamp_seconds, w->config_applied_s);
	begin(m, F_reloads);
	put(m, "ok", w->reloads_ok);
	put(m, "failed", w->reloads_failed);
	if (w->kept) {
		put_adoptions(w, m);
		put_upgrades(wrk_upgrade_of(w->kept->life), m);
	}
	one(m, F_ready, wrk_worker_ready(w, why, sizeof(why)));
	one(m, F_log_lines_lost, sp_log_lost());
}

static void put_carriers(struct wrk_worker *w, struct sp_metrics_writer *m)
{
	const struct sp_link_counters *c = sp_link_env_counters(w->links);
	uint64_t accepted[2] = {0}, starved = 0;
	for (unsigned i = 0; i < w->n_ports; i++) {
		const struct wrk_listener_counters *l =
			wrk_listener_counters(w->ports[i].listener);
		accepted[w->ports[i].kind == SP_CARRIER_TLS] += l->accepted;
		starved += l->no_descriptors;
	}
	begin(m, F_accepted);
	put(m, "tcp", accepted[0]);
	put(m, "tls", accepted[1]);
	one(m, F_accept_no_descriptors, starved);
	begin(m, F_carriers);
	put(m, "half-open", c->half_open);
	put(m, "live", c->live);
	put(m, "lingering", c->lingering);
	one(m, F_carriers_established, c->established);
	by_reason(m, F_carriers_ended, c->ended);
	begin(m, F_carrier_bytes);
	put(m, "to_client", c->bytes_tx);
	put(m, "from_client", c->bytes_rx);
	begin(m, F_carrier_records);
	put(m, "to_client", c->records_tx);
	put(m, "from_client", c->records_rx);
	by_reason(m, F_strangers, c->strangers);
	one(m, F_replay_keys, sp_replay_count(w->replay));
}

static void put_sessions(struct wrk_worker *w, struct sp_metrics_writer *m)
{
	const struct wrk_sessions_counters *s = wrk_sessions_counters(w->sessions);
	begin(m, F_sessions);
	put(m, "attached", s->attached);
	put(m, "detached", s->detached);
	put(m, "ending", s->ending);
	one(m, F_users, wrk_sessions_users(w->sessions));
	one(m, F_sessions_made, s->made);
	one(m, F_sessions_resumed, s->resumed);
	by_reason(m, F_sessions_ended, s->ended);
	one(m, F_sessions_evicted, s->evicted);
	begin(m, F_detached_given_up);
	put(m, sp_reason_word(SP_REASON_STALE), s->stale);
	put(m, sp_reason_word(SP_REASON_PRESSURE), s->pressed);
	one(m, F_detached_bytes, wrk_sessions_detached_bytes(w->sessions));
	by_reason(m, F_refused, s->refused);
	begin(m, F_passes_renewed);
	put(m, "ok", s->passes_renewed);
	put(m, "rejected", s->passes_rejected);
}

static void put_streams(struct wrk_worker *w, struct sp_metrics_writer *m,
			const struct sp_session_stats *st)
{
	const struct wrk_exit_counters *x = wrk_exit_counters(w->exit);
	one(m, F_streams, x->streams);
	one(m, F_streams_draining, x->draining);
	one(m, F_streams_asked, x->streams_asked);
	one(m, F_streams_opened, x->streams_opened);
	by_reason(m, F_streams_ended, x->streams_ended);
	begin(m, F_streams_refused);
	put(m, "streams", st->streams_refused);
	put(m, "rate", wrk_sessions_counters(w->sessions)->streams_rate_limited);
	one(m, F_resent_bytes, st->bytes_resent);
	one(m, F_duplicate_bytes, st->bytes_dup);
	one(m, F_no_descriptors, x->no_descriptors);
	begin(m, F_dial_seconds);
	sp_metrics_histogram(m, &x->dial_seconds, NULL);
}

static void put_flows(struct wrk_worker *w, struct sp_metrics_writer *m,
		      const struct sp_session_stats *st)
{
	const struct wrk_exit_counters *x = wrk_exit_counters(w->exit);
	one(m, F_flows, x->flows);
	one(m, F_flows_asked, x->flows_asked);
	one(m, F_flows_opened, x->flows_opened);
	by_reason(m, F_flows_ended, x->flows_ended);
	begin(m, F_flows_evicted);
	put(m, "session", st->flows_evicted);
	put(m, "worker", x->flows_evicted);
	one(m, F_flow_icmp_errors, x->icmp_errors);
	begin(m, F_datagrams_dropped);
	put(m, "to_client", st->dgrams_dropped);
	put(m, "from_client", x->dgrams_dropped);
}

static void put_memory(struct wrk_worker *w, struct sp_metrics_writer *m,
		       const struct sp_session_stats *st)
{
	one(m, F_replay_memory_bytes, st->replay_bytes);
	one(m, F_memory_spare_bytes,
	    (uint64_t)sp_arena_chunks_spare(w->arena) * SP_CHUNK_BYTES);
	one(m, F_memory_pool_bytes,
	    (uint64_t)sp_arena_chunks_pool(w->arena) * SP_CHUNK_BYTES);
}

static void put_dials(struct wrk_worker *w, struct sp_metrics_writer *m)
{
	const struct wrk_dialer_stats *d = wrk_dialer_stats(w->dialer);
	one(m, F_dials, d->dials);
	begin(m, F_dials_ended);
	put(m, "ok", d->ended[SP_REASON_NONE]);
	for (int r = 1; r <= SP_REASON__LAST; r++)
		if (d->ended[r])
			put(m, sp_reason_word((enum sp_reason)r), d->ended[r]);
	one(m, F_dial_attempts, d->attempts);
	one(m, F_dials_refused, d->refused);
	begin(m, F_policy_refused);
	for (int v = SP_POLICY_ALLOWED + 1; v <= SP_POLICY__LAST; v++)
		if (d->policy[v])
			put(m, sp_policy_word((enum sp_policy_verdict)v), d->policy[v]);
}

static void put_dns(struct wrk_worker *w, struct sp_metrics_writer *m)
{
	struct wrk_resolve_stats d;
	wrk_resolve_stats(w->resolve, &d);
	begin(m, F_dns_lookups);
	put(m, "started", d.started - d.joined);
	put(m, "joined", d.joined);
	put(m, "refused", d.refused);
	begin(m, F_dns_queries);
	put(m, "sent", d.queries);
	put(m, "failed", d.failed);
	put(m, "timed-out", d.timed_out);
	begin(m, F_dns_cache);
	put(m, "hit", d.cache.hits);
	put(m, "miss", d.cache.misses);
	put(m, "evicted", d.cache.evictions);
	one(m, F_dns_cache_entries, d.cache.entries);
	one(m, F_dns_waiting, d.waiters);
}

static void put_cover(struct wrk_worker *w, struct sp_metrics_writer *m)
{
	const struct wrk_cover_counters *c = wrk_cover_counters(w->cover);
	one(m, F_cover_relays, c->live);
	begin(m, F_cover_connections);
	put(m, "stranger", c->relayed);
	put(m, "silent", c->waited);
	begin(m, F_cover_ended);
	put(m, "unreachable", c->unreachable);
	put(m, "evicted", c->evicted);
	put(m, "idle", c->idle);
	begin(m, F_cover_bytes);
	put(m, "to_site", c->bytes_to_site);
	put(m, "from_site", c->bytes_from_site);
}

static void put_trunks(struct wrk_worker *w, struct sp_metrics_writer *m)
{
	const struct wrk_trunks_counters *t = wrk_trunks_counters(w->trunks);
	one(m, F_trunk_members, wrk_trunks_members(w->trunks));
	begin(m, F_trunks);
	put(m, "up", t->up);
	put(m, "dialling", t->dialling);
	put(m, "proving", t->proving);
	begin(m, F_trunks_made);
	put(m, "this", t->dialled);
	put(m, "other", t->accepted);
	by_reason(m, F_trunks_ended, t->ended);
	one(m, F_trunks_misbehaved, t->misbehaved);
	by_reason(m, F_trunks_unproved, t->unproved);
	one(m, F_trunk_dials, t->dials);
	by_reason(m, F_trunk_dials_failed, t->dials_failed);
	begin(m, F_trunk_bytes);
	put(m, "out", t->bytes_tx);
	put(m, "in", t->bytes_rx);
	one(m, F_relayed_opened, t->mux.accepted);
	by_reason(m, F_relayed_refused, t->mux.refused);
	by_reason(m, F_relay_pipes_ended, t->mux.closed);
	one(m, F_relay_memory_bytes, t->memory);
}

static void put_relays(struct wrk_worker *w, struct sp_metrics_writer *m)
{
	const struct wrk_relays_counters *r = wrk_relays_counters(w->relays);
	begin(m, F_relay_carriers);
	put(m, "waiting", r->waiting);
	put(m, "relayed", r->live - r->waiting);
	one(m, F_relay_taken, r->taken);
	one(m, F_relay_opened, r->relayed);
	by_reason(m, F_relay_refused, r->refused);
	by_reason(m, F_relay_ended, r->ended);
	begin(m, F_relay_bytes);
	put(m, "to_home", r->bytes_to_home);
	put(m, "to_client", r->bytes_to_client);
}

// ---- by tier ----

struct tier_row {
	struct sp_metrics_writer *m;
	size_t to, from; // fields of struct wrk_tally
};

static void put_tier_traffic(void *ctx, const struct wrk_tally *t, uint32_t sessions)
{
	const struct tier_row *row = ctx;
	const char *base = (const char *)t;
	(void)sessions;
	sp_metrics_u64(row->m, *(const uint64_t *)(base + row->to),
		       SP_LABELS(t->tier, "to_client"));
	sp_metrics_u64(row->m, *(const uint64_t *)(base + row->from),
		       SP_LABELS(t->tier, "from_client"));
}

static void put_tier_sessions(void *ctx, const struct wrk_tally *t, uint32_t sessions)
{
	put(ctx, t->tier, sessions);
}

static void put_tiers(struct wrk_worker *w, struct sp_metrics_writer *m)
{
#define TALLY(field) offsetof(struct wrk_tally, field)
	struct {
		enum family family;
		struct tier_row row;
	} rows[] = {
		{F_stream_bytes, {m, TALLY(bytes_to_client), TALLY(bytes_from_client)}},
		{F_datagrams, {m, TALLY(dgrams_to_client), TALLY(dgrams_from_client)}},
		{F_datagram_bytes,
		 {m, TALLY(dgram_bytes_to_client), TALLY(dgram_bytes_from_client)}},
	};
	begin(m, F_tier_sessions);
	wrk_sessions_tiers(w->sessions, put_tier_sessions, m);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		begin(m, rows[i].family);
		wrk_sessions_tiers(w->sessions, put_tier_traffic, &rows[i].row);
	}
}

// ---- the listener ----

static void put_agent(struct wrk_worker *w, struct sp_metrics_writer *m)
{
	const struct wrk_agent_counters *a = wrk_agent_link_counters(w->agent);
	one(m, F_agent_up, wrk_agent_link_is_up(w->agent));
	one(m, F_agent_starts, a->started);
	begin(m, F_agent_ended);
	put(m, "died", a->died > a->hung ? a->died - a->hung : 0);
	put(m, "hung", a->hung);
	one(m, F_agent_messages_lost, a->unsent);
	one(m, F_counters_on_disk, wrk_counters_path(w->counters) != NULL);
	one(m, F_counters_segments_waiting, wrk_segments_count(w->segments));
	one(m, F_counters_segments_lost, wrk_segments_lost(w->segments));
}

void wrk_metrics_write(struct wrk_worker *w, struct sp_metrics_writer *m)
{
	struct sp_session_stats st;
	wrk_sessions_stats(w->sessions, &st);
	put_process(w, m);
	put_carriers(w, m);
	put_sessions(w, m);
	put_streams(w, m, &st);
	put_flows(w, m, &st);
	put_tiers(w, m);
	put_memory(w, m, &st);
	put_dials(w, m);
	put_dns(w, m);
	if (w->cover)
		put_cover(w, m);
	put_trunks(w, m);
	put_relays(w, m);
	if (w->agent)
		put_agent(w, m);
}

static void on_metrics(void *ctx, struct sp_metrics_writer *m)
{
	wrk_metrics_write(ctx, m);
}

static void on_ready(void *ctx, struct sp_ready *r)
{
	struct wrk_worker *w = ctx;
	char why[64];
	bool ok = wrk_worker_ready(w, why, sizeof(why));
	sp_ready_check(r, "sessions", ok, why);
}

static const struct sp_admin_ops ops = {.metrics = on_metrics, .ready = on_ready};

int wrk_metrics_serve(struct wrk_worker *w)
{
	const struct sp_target *at = &w->cfg->admin.listen;
	char text[SP_TARGET_TEXT_MAX];
	if (!at->kind)
		return 0;
	sp_target_format(at, text, sizeof(text));
	int err = sp_admin_new(w->loop, at, &ops, w, &w->admin);
	char why[2 * SP_WHY_MAX];
	if (err) {
		(void)sp_conf_place_listen(&wrk_config_table, w->config_path,
					   "admin.listen", at, err, why, sizeof(why));
		sp_error("worker", "cannot listen", "why=%s", why);
		wrk_trial_object(w->kept, why);
	} else {
		sp_info("worker", "listening", "admin=%s", text);
	}
	return err;
}
