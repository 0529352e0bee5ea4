#include "client/metrics.h"

#include <errno.h>
#include <stdlib.h>

#include "client/client.h"
#include "lib/admin.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/metrics.h"
#include "lib/version.h"

struct cli_metrics {
	struct sp_admin *admin;
};

// ---- values of one exit: a family each ----

static double get_in_use(const struct cli_uplink_exit_info *i)
{
	return i->in_use;
}

static double get_carriers(const struct cli_uplink_exit_info *i)
{
	return i->stats.carriers;
}

static double get_srtt(const struct cli_uplink_exit_info *i)
{
	return i->stats.srtt_us / 1e6;
}

static double get_streams(const struct cli_uplink_exit_info *i)
{
	return i->stats.streams;
}

static double get_flows(const struct cli_uplink_exit_info *i)
{
	return i->stats.flows;
}

static double get_replay(const struct cli_uplink_exit_info *i)
{
	return i->stats.replay_bytes;
}

static double get_dials(const struct cli_uplink_exit_info *i)
{
	return (double)i->dials;
}

static double get_failures(const struct cli_uplink_exit_info *i)
{
	return (double)i->dial_failures;
}

static double get_resumes(const struct cli_uplink_exit_info *i)
{
	return i->stats.resumes;
}

static double get_stalls(const struct cli_uplink_exit_info *i)
{
	return (double)i->stalls;
}

static double get_homes_lost(const struct cli_uplink_exit_info *i)
{
	return (double)i->home_losses;
}

static double get_up(const struct cli_uplink_exit_info *i)
{
	return (double)i->stats.bytes_tx;
}

static double get_down(const struct cli_uplink_exit_info *i)
{
	return (double)i->stats.bytes_rx;
}

static double get_again(const struct cli_uplink_exit_info *i)
{
	return (double)(i->stats.bytes_resent + i->stats.bytes_dup);
}

static double get_datagrams(const struct cli_uplink_exit_info *i)
{
	return (double)(i->stats.dgrams_tx + i->stats.dgrams_rx);
}

static double get_dropped(const struct cli_uplink_exit_info *i)
{
	return (double)i->stats.dgrams_dropped;
}

#define OF_EXIT(name_, type_, help_, get_)                                               \
	{                                                                                \
		{.name = "sallyport_client_exit_" name_,                                 \
		 .type = type_,                                                          \
		 .help = help_,                                                          \
		 .labels = {"exit"}},                                                    \
			get_                                                             \
	}

static const struct {
	struct sp_metric family;
	double (*get)(const struct cli_uplink_exit_info *i);
} exit_families[] = {
	OF_EXIT("in_use", SP_METRIC_GAUGE, "1: new streams go there", get_in_use),
	OF_EXIT("carriers", SP_METRIC_GAUGE, "Carriers attached", get_carriers),
	OF_EXIT("srtt_seconds", SP_METRIC_GAUGE,
		"Smoothed round trip of the carrier in use", get_srtt),
	OF_EXIT("streams", SP_METRIC_GAUGE, "Streams of the session", get_streams),
	OF_EXIT("flows", SP_METRIC_GAUGE, "Datagram flows of the session", get_flows),
	OF_EXIT("replay_bytes", SP_METRIC_GAUGE, "Held until the exit has taken them",
		get_replay),
	OF_EXIT("dials", SP_METRIC_COUNTER, "Dials begun", get_dials),
	OF_EXIT("dial_failures", SP_METRIC_COUNTER, "Dials that failed", get_failures),
	OF_EXIT("resumes", SP_METRIC_COUNTER, "Sessions resumed on a new carrier",
		get_resumes),
	OF_EXIT("stalls", SP_METRIC_COUNTER, "Times a carrier fell silent", get_stalls),
	OF_EXIT("homes_lost", SP_METRIC_COUNTER, "Times the exit had lost its memory",
		get_homes_lost),
	OF_EXIT("stream_bytes_up", SP_METRIC_COUNTER, "Stream bytes to the exit", get_up),
	OF_EXIT("stream_bytes_down", SP_METRIC_COUNTER, "Stream bytes from the exit",
		get_down),
	OF_EXIT("stream_bytes_again", SP_METRIC_COUNTER,
		"Stream bytes sent or received again after a cut", get_again),
	OF_EXIT("datagrams", SP_METRIC_COUNTER, "Datagrams both ways", get_datagrams),
	OF_EXIT("datagrams_dropped", SP_METRIC_COUNTER,
		"Datagrams over the budget or too old", get_dropped),
};
#define N_EXIT_FAMILIES (sizeof(exit_families) / sizeof(exit_families[0]))

static void put_exits(const struct cli_client *c, struct sp_metrics_writer *w)
{
	for (size_t f = 0; f < N_EXIT_FAMILIES; f++) {
		sp_metrics_family(w, &exit_families[f].family);
		for (unsigned e = 0; e < cli_uplink_n(c->uplink); e++) {
			struct cli_uplink_exit_info i;
			cli_uplink_exit_info(c->uplink, e, &i);
			sp_metrics_double(w, exit_families[f].get(&i), SP_LABELS(i.name));
		}
	}
}

// ---- the rest ----

static void put_one(struct sp_metrics_writer *w, const char *name,
		    enum sp_metric_type type, const char *help, uint64_t v)
{
	struct sp_metric m = {.name = name, .type = type, .help = help};
	sp_metrics_family(w, &m);
	sp_metrics_u64(w, v, NULL);
}

static void put_by_reason(const struct sp_metric *m, const uint64_t *n,
			  struct sp_metrics_writer *w)
{
	sp_metrics_family(w, m);
	for (int r = 0; r <= SP_REASON__LAST; r++)
		if (n[r])
			sp_metrics_u64(w, n[r],
				       SP_LABELS(sp_reason_word((enum sp_reason)r)));
}

static void put_failed(const struct cli_streams_counters *s, struct sp_metrics_writer *w)
{
	static const struct sp_metric failed = {
		.name = "sallyport_client_connections_failed",
		.type = SP_METRIC_COUNTER,
		.help = "Connections that were not opened, by reason",
		.labels = {"reason"},
	};
	static const struct sp_metric broken = {
		.name = "sallyport_client_connections_broken",
		.type = SP_METRIC_COUNTER,
		.help = "Open connections that ended otherwise than in order, by reason",
		.labels = {"reason"},
	};
	put_by_reason(&failed, s->failed, w);
	put_by_reason(&broken, s->broken, w);
}

static void put_lost(const struct cli_uplink_moved *n, struct sp_metrics_writer *w)
{
	static const struct sp_metric m = {
		.name = "sallyport_client_streams_lost",
		.type = SP_METRIC_COUNTER,
		.help = "Streams whose exit died, by what ended the wait for it",
		.labels = {"evidence"},
	};
	sp_metrics_family(w, &m);
	for (int i = 0; i < CLI_LOST__N; i++)
		sp_metrics_u64(w, n->lost_by[i],
			       SP_LABELS(cli_lost_word((enum cli_lost)i)));
}

static void put_redone(const struct cli_streams_counters *s, struct sp_metrics_writer *w)
{
	static const struct sp_metric m = {
		.name = "sallyport_client_dials_redone",
		.type = SP_METRIC_COUNTER,
		.help = "Streams opened anew on another exit, by how far they had come",
		.labels = {"kind"},
	};
	sp_metrics_family(w, &m);
	sp_metrics_u64(w, s->redone_unanswered, SP_LABELS("unanswered"));
	sp_metrics_u64(w, s->redone_hello, SP_LABELS("client-hello"));
	sp_metrics_u64(w, s->redone_idle, SP_LABELS("idle"));
	put_one(w, "sallyport_client_dials_redone_failed", SP_METRIC_COUNTER,
		"Streams that were open and that the other exit could not open",
		s->redo_failed);
	put_one(w, "sallyport_client_hellos_not_kept", SP_METRIC_COUNTER,
		"Bytes that could not be kept for another dial, for want of memory",
		s->not_kept);
}

static void put_resumes(const struct cli_client *c, struct sp_metrics_writer *w)
{
	static const struct sp_metric m = {
		.name = "sallyport_client_session_resumes",
		.type = SP_METRIC_COUNTER,
		.help = "Sessions resumed at their home, by cause",
		.labels = {"cause"},
	};
	static const struct sp_metric on_relay = {
		.name = "sallyport_client_relay_seconds",
		.type = SP_METRIC_COUNTER,
		.help = "Time that sessions spent on relays, when it was over",
	};
	static const struct sp_metric pause = {
		.name = "sallyport_client_pause_seconds",
		.type = SP_METRIC_HISTOGRAM,
		.help = "How long streams stood still until their session went on",
	};
	const struct cli_uplink_resumes *r = cli_uplink_resumes(c->uplink);
	sp_metrics_family(w, &m);
	for (int i = 0; i < CLI_RESUME__N; i++)
		sp_metrics_u64(
			w, r->by[i],
			SP_LABELS(cli_resume_cause_word((enum cli_resume_cause)i)));
	sp_metrics_family(w, &pause);
	sp_metrics_histogram(w, &r->pauses, NULL);
	put_one(w, "sallyport_client_network_changes", SP_METRIC_COUNTER,
		"Changes of this machine's network", r->network_changes);
	put_one(w, "sallyport_client_spare_dials", SP_METRIC_COUNTER,
		"Dials of carriers to be kept in reserve", r->spare_dials);
	put_one(w, "sallyport_client_takeovers", SP_METRIC_COUNTER,
		"Carriers that lived and took over from one that ended", r->takeovers);
	put_one(w, "sallyport_client_relay_dials", SP_METRIC_COUNTER,
		"Dials of a home through another exit", r->relay_dials);
	put_one(w, "sallyport_client_relay_dial_failures", SP_METRIC_COUNTER,
		"Those that failed", r->relay_failures);
	sp_metrics_family(w, &on_relay);
	sp_metrics_double(w, (double)r->relay_ms / 1000, NULL);
}

static void put_carriers(const struct cli_client *c, struct sp_metrics_writer *w)
{
	static const struct sp_metric m = {
		.name = "sallyport_client_carriers_ended",
		.type = SP_METRIC_COUNTER,
		.help = "Carriers that ended, dials that failed included, by reason",
		.labels = {"reason"},
	};
	const struct sp_link_counters *n = sp_link_env_counters(c->env);
	sp_metrics_family(w, &m);
	for (int r = 0; r <= SP_REASON__LAST; r++)
		if (n->ended[r])
			sp_metrics_u64(w, n->ended[r],
				       SP_LABELS(sp_reason_word((enum sp_reason)r)));
	put_one(w, "sallyport_client_carrier_bytes_up", SP_METRIC_COUNTER,
		"Bytes written to carriers", n->bytes_tx);
	put_one(w, "sallyport_client_carrier_bytes_down", SP_METRIC_COUNTER,
		"Bytes read from carriers", n->bytes_rx);
}

static void put_apps(const struct cli_client *c, struct sp_metrics_writer *w)
{
	const struct cli_proxy_counters *p = cli_proxy_counters(c->proxy);
	const struct cli_streams_counters *s = cli_streams_counters(c->streams);
	const struct cli_udp_counters *u = cli_udp_counters(c->udp);
	const struct cli_uplink_moved *m = cli_uplink_moved(c->uplink);
	put_one(w, "sallyport_client_connections", SP_METRIC_GAUGE,
		"Connections of applications", p->connections);
	put_one(w, "sallyport_client_connections_asking", SP_METRIC_GAUGE,
		"Connections whose request is not whole", p->half_open);
	put_one(w, "sallyport_client_connections_opened", SP_METRIC_COUNTER,
		"Connections whose stream was opened", s->opened);
	put_one(w, "sallyport_client_connections_moved", SP_METRIC_COUNTER,
		"Connections opened anew on another exit", s->moved);
	put_redone(s, w);
	put_one(w, "sallyport_client_lookups_asked_again", SP_METRIC_COUNTER,
		"Look-ups asked once more, since their flow had moved to another exit",
		cli_udp_counters(c->udp)->asked_again);
	put_one(w, "sallyport_client_connections_reset", SP_METRIC_COUNTER,
		"Connections that ended in a reset", s->reset);
	put_one(w, "sallyport_client_requests_refused", SP_METRIC_COUNTER,
		"Requests that were malformed or not supported",
		p->refused[0] + p->refused[1]);
	put_one(w, "sallyport_client_requests_timed_out", SP_METRIC_COUNTER,
		"Connections that did not ask in time", p->timed_out);
	put_one(w, "sallyport_client_accept_pauses", SP_METRIC_COUNTER,
		"Times that new connections had to wait", p->paused);
	put_failed(s, w);
	put_one(w, "sallyport_client_udp_associations", SP_METRIC_GAUGE,
		"UDP associations", u->associations);
	put_one(w, "sallyport_client_udp_flows", SP_METRIC_GAUGE,
		"Datagram flows of associations", u->flows);
	put_one(w, "sallyport_client_udp_dropped", SP_METRIC_COUNTER,
		"Datagrams of applications, or for them, that were dropped here",
		u->dropped_from_app + u->dropped_to_app + u->dropped_uplink);
	put_one(w, "sallyport_client_exit_changes", SP_METRIC_COUNTER,
		"Changes of the exit in use", cli_uplink_moves(c->uplink));
	put_one(w, "sallyport_client_sessions_adopted", SP_METRIC_COUNTER,
		"Sessions that another exit took over with their record", m->adopted);
	put_one(w, "sallyport_client_sessions_fresh", SP_METRIC_COUNTER,
		"Sessions that an exit made anew under their id", m->fresh);
	put_one(w, "sallyport_client_streams_parked", SP_METRIC_GAUGE,
		"Streams that wait for an exit that may be dead", m->parked);
	put_one(w, "sallyport_client_streams_resumed", SP_METRIC_COUNTER,
		"Streams that were parked and go on", m->streams_resumed);
	put_lost(m, w);
}

static void put_poll(const struct cli_client *c, struct sp_metrics_writer *w)
{
	struct cli_poll_info i;
	cli_poll_info(c->poll, &i);
	put_one(w, "sallyport_client_polls", SP_METRIC_COUNTER,
		"Questions to config endpoints", i.polls);
	put_one(w, "sallyport_client_polls_not_modified", SP_METRIC_COUNTER,
		"Answers that nothing has changed", i.not_modified);
	put_one(w, "sallyport_client_polls_fresh", SP_METRIC_COUNTER,
		"Configs taken from an endpoint", i.fresh);
	put_one(w, "sallyport_client_polls_refused", SP_METRIC_COUNTER,
		"Answers that were not signed, older, or not for this device", i.refused);
	put_one(w, "sallyport_client_polls_failed", SP_METRIC_COUNTER,
		"Questions without a config for whatever reason", i.failures);
	put_one(w, "sallyport_client_config_age_seconds", SP_METRIC_GAUGE,
		"Since an endpoint last answered",
		i.good_ms ? (sp_loop_now_ms(c->loop) - i.good_ms) / 1000
			  : (sp_loop_now_ms(c->loop) - c->started_ms) / 1000);
}

static void on_metrics(void *ctx, struct sp_metrics_writer *w)
{
	const struct cli_client *c = ctx;
	static const struct sp_metric build = {
		.name = "sallyport_client_build_info",
		.type = SP_METRIC_GAUGE,
		.help = "Always 1; what runs here",
		.labels = {"version"},
	};
	sp_metrics_family(w, &build);
	sp_metrics_u64(w, 1, SP_LABELS(sp_version()));
	put_one(w, "sallyport_client_log_lines_lost", SP_METRIC_COUNTER,
		"Log lines that were not written", sp_log_lost());
	put_exits(c, w);
	put_carriers(c, w);
	put_resumes(c, w);
	put_apps(c, w);
	if (c->poll)
		put_poll(c, w);
}

static void on_ready(void *ctx, struct sp_ready *r)
{
	const struct cli_client *c = ctx;
	bool any = false;
	for (unsigned e = 0; e < cli_uplink_n(c->uplink); e++) {
		struct cli_uplink_exit_info i;
		cli_uplink_exit_info(c->uplink, e, &i);
		any |= i.in_use && i.healthy;
	}
	sp_ready_check(r, "exit", any, any ? NULL : "the exit in use is not reached");
	sp_ready_check(r, "running", !c->ending, NULL);
}

static const struct sp_admin_ops admin_ops = {.metrics = on_metrics, .ready = on_ready};

int cli_metrics_new(struct cli_client *c, struct cli_metrics **ret)
{
	struct cli_metrics *m;
	const struct sp_target *at = &c->cfg->admin.listen;
	char why[2 * SP_WHY_MAX];
	*ret = NULL;
	if (!at->kind)
		return 0;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	int err = sp_admin_new(c->loop, at, &admin_ops, c, &m->admin);
	if (err) {
		sp_error("client", "cannot listen", "why=%s",
			 sp_conf_place_listen(&cli_config_table, c->config_path,
					      "admin.listen", at, err, why, sizeof(why)));
		free(m);
		return err;
	}
	*ret = m;
	return 0;
}

void cli_metrics_free(struct cli_metrics *m)
{
	if (!m)
		return;
	sp_admin_free(m->admin);
	free(m);
}
