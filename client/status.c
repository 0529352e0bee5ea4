#include "client/status.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/client.h"
#include "lib/text.h"
#include "lib/version.h"

static json_int_t num(uint64_t v)
{
	return v > INT64_MAX ? INT64_MAX : (json_int_t)v;
}

static void put(json_t *o, const char *key, uint64_t v)
{
	json_object_set_new(o, key, json_integer(num(v)));
}

static void put_text(json_t *o, const char *key, const char *v)
{
	json_object_set_new(o, key, json_string(v));
}

// ---- the document ----

static json_t *json_traffic(const struct sp_session_stats *s)
{
	json_t *o = json_object();
	put(o, "bytes_up", s->bytes_tx);
	put(o, "bytes_down", s->bytes_rx);
	put(o, "bytes_sent_again", s->bytes_resent);
	put(o, "bytes_received_again", s->bytes_dup);
	put(o, "datagrams_up", s->dgrams_tx);
	put(o, "datagrams_down", s->dgrams_rx);
	put(o, "datagrams_dropped", s->dgrams_dropped);
	put(o, "records_up", s->records_tx);
	put(o, "records_down", s->records_rx);
	return o;
}

static json_t *json_exit(const struct cli_client *c, unsigned e, uint64_t now_ms)
{
	struct cli_uplink_exit_info i;
	char hex[9];
	json_t *o = json_object();
	cli_uplink_exit_info(c->uplink, e, &i);
	put_text(o, "name", i.name);
	put_text(o, "state", i.state);
	put(o, "state_for_ms", now_ms - i.state_since_ms);
	json_object_set_new(o, "in_use", json_boolean(i.in_use));
	put_text(o, "carrier", i.carrier);
	put_text(o, "via", i.via);
	put_text(o, "address", i.address);
	put_text(o, "session",
		 i.has_session ? sp_hex_encode(i.session, 4, hex, sizeof(hex)) : "");
	put(o, "carriers", i.stats.carriers);
	json_object_set_new(o, "srtt_ms", json_real(i.stats.srtt_us / 1000.0));
	put_text(o, "came", i.came);
	put(o, "streams", i.stats.streams);
	put(o, "flows", i.stats.flows);
	put(o, "replay_bytes", i.stats.replay_bytes);
	put(o, "attaches", i.stats.attaches);
	put(o, "resumes", i.stats.resumes);
	put(o, "stalls", i.stalls);
	put(o, "dials", i.dials);
	put(o, "dial_failures", i.dial_failures);
	put(o, "homes_lost", i.home_losses);
	put(o, "sessions_ended", i.sessions_ended);
	json_object_set_new(o, "spare", json_boolean(i.spare));
	put(o, "tickets", i.tickets);
	put_text(o, "last_down", sp_reason_word(i.last_down));
	put(o, "last_down_ms_ago", i.last_down_ms ? now_ms - i.last_down_ms : 0);
	json_object_set_new(o, "traffic", json_traffic(&i.stats));
	return o;
}

static json_t *json_resumes(const struct cli_client *c)
{
	const struct cli_uplink_resumes *r = cli_uplink_resumes(c->uplink);
	json_t *o = json_object();
	for (int i = 0; i < CLI_RESUME__N; i++)
		put(o, cli_resume_cause_word((enum cli_resume_cause)i), r->by[i]);
	put(o, "network_changes", r->network_changes);
	put(o, "spare_dials", r->spare_dials);
	put(o, "takeovers", r->takeovers);
	put(o, "relay_dials", r->relay_dials);
	put(o, "relay_failures", r->relay_failures);
	put(o, "relay_ms", r->relay_ms);
	return o;
}

static json_t *json_listeners(const struct cli_client *c)
{
	json_t *list = json_array();
	const struct sp_target *t;
	enum cli_proxy_kind kind;
	char text[SP_TARGET_TEXT_MAX];
	for (unsigned i = 0; (t = cli_proxy_address(c->proxy, i, &kind)); i++) {
		json_t *o = json_object();
		put_text(o, "proxy", kind == CLI_PROXY_SOCKS ? "socks5" : "http");
		put_text(o, "address", sp_target_format(t, text, sizeof(text)));
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *json_connections(const struct cli_client *c)
{
	const struct cli_proxy_counters *p = cli_proxy_counters(c->proxy);
	const struct cli_streams_counters *s = cli_streams_counters(c->streams);
	json_t *o = json_object(), *failed = json_object();
	put(o, "all", p->connections);
	put(o, "asking", p->half_open);
	put(o, "connecting", s->connecting);
	put(o, "open", s->open);
	put(o, "opened", s->opened);
	put(o, "reset", s->reset);
	put(o, "moved", s->moved);
	put(o, "redone_unanswered", s->redone_unanswered);
	put(o, "redone_hello", s->redone_hello);
	put(o, "redone_idle", s->redone_idle);
	put(o, "redo_failed", s->redo_failed);
	put(o, "refused", p->refused[0] + p->refused[1]);
	put(o, "timed_out", p->timed_out);
	put(o, "evicted", p->evicted);
	put(o, "paused", p->paused);
	for (int r = 0; r <= SP_REASON__LAST; r++)
		if (s->failed[r])
			put(failed, sp_reason_word((enum sp_reason)r), s->failed[r]);
	json_object_set_new(o, "failed", failed);
	return o;
}

static json_t *json_udp(const struct cli_client *c)
{
	const struct cli_udp_counters *u = cli_udp_counters(c->udp);
	json_t *o = json_object();
	put(o, "associations", u->associations);
	put(o, "flows", u->flows);
	put(o, "from_apps", u->from_app);
	put(o, "to_apps", u->to_app);
	put(o, "dropped", u->dropped_from_app + u->dropped_to_app + u->dropped_uplink);
	put(o, "flows_moved", u->moved);
	put(o, "lookups_asked_again", u->asked_again);
	put(o, "evicted", u->associations_evicted);
	return o;
}

static json_t *json_poll(const struct cli_client *c, uint64_t now_ms)
{
	struct cli_poll_info i;
	json_t *o = json_object();
	cli_poll_info(c->poll, &i);
	put_text(o, "endpoint", i.endpoint);
	put_text(o, "state", i.failed ? "failing" : i.good_ms ? "good" : "asking");
	put_text(o, "why", i.failed ? i.why : "");
	if (i.good_ms)
		put(o, "good_ms_ago", now_ms - i.good_ms);
	put(o, "next_ms", i.next_ms > now_ms ? i.next_ms - now_ms : 0);
	put(o, "polls", i.polls);
	put(o, "not_modified", i.not_modified);
	put(o, "fresh", i.fresh);
	put(o, "failures", i.failures);
	json_object_set_new(o, "clock_skew_s", json_integer(i.skew_s));
	return o;
}

char *cli_status_json(const struct cli_client *c)
{
	uint64_t now_ms = sp_loop_now_ms(c->loop);
	const struct sp_fleet_revision *rev =
		&cli_uplink_exits(c->uplink)->fleet->revision;
	json_t *o = json_object(), *exits = json_array(), *r = json_object(),
	       *pass = json_object(), *moved = json_object(), *lost = json_object();
	const struct cli_uplink_moved *m = cli_uplink_moved(c->uplink);
	put_text(o, "version", sp_version());
	put(o, "pid", (uint64_t)getpid());
	put(o, "uptime_ms", now_ms - c->started_ms);
	put(r, "epoch", rev->epoch);
	put(r, "sequence", rev->sequence);
	json_object_set_new(o, "revision", r);
	put_text(pass, "user", c->pass.user);
	put_text(pass, "tier", c->pass.tier);
	put(pass, "expires", c->pass.expires_s);
	json_object_set_new(o, "pass", pass);
	if (c->poll)
		json_object_set_new(o, "poll", json_poll(c, now_ms));
	json_object_set_new(o, "listeners", json_listeners(c));
	put(o, "exit_changes", cli_uplink_moves(c->uplink));
	put(moved, "adopted", m->adopted);
	put(moved, "fresh", m->fresh);
	put(moved, "asked", m->asked);
	put(moved, "streams_lost", m->streams_lost);
	put(moved, "streams_parked", m->parked);
	put(moved, "streams_resumed", m->streams_resumed);
	for (int i = 0; i < CLI_LOST__N; i++)
		put(lost, cli_lost_word((enum cli_lost)i), m->lost_by[i]);
	json_object_set_new(moved, "lost_by", lost);
	json_object_set_new(o, "sessions_moved", moved);
	json_object_set_new(o, "resumes", json_resumes(c));
	for (unsigned e = 0; e < cli_uplink_n(c->uplink); e++)
		json_array_append_new(exits, json_exit(c, e, now_ms));
	json_object_set_new(o, "exits", exits);
	json_object_set_new(o, "connections", json_connections(c));
	json_object_set_new(o, "udp", json_udp(c));
	put(o, "reloads", c->reloads);
	put(o, "reloads_failed", c->reloads_failed);
	char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	json_decref(o);
	char *line = NULL;
	if (text && asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	free(text);
	return line;
}

// ---- for people ----

static uint64_t get(const json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

static const char *get_text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? s : "";
}

static const char *size_text(uint64_t n, char *buf, size_t cap)
{
	static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
	double v = (double)n;
	size_t u = 0;
	while (v >= 1000 && u < 4) {
		v /= 1000;
		u++;
	}
	snprintf(buf, cap, u ? "%.1f %s" : "%.0f %s", v, units[u]);
	return buf;
}

static const char *time_text(uint64_t ms, char *buf, size_t cap)
{
	uint64_t s = ms / 1000;
	if (s < 60)
		snprintf(buf, cap, "%" PRIu64 ".%" PRIu64 "s", s, ms % 1000 / 100);
	else if (s < 3600)
		snprintf(buf, cap, "%" PRIu64 "m%02" PRIu64 "s", s / 60, s % 60);
	else
		snprintf(buf, cap, "%" PRIu64 "h%02" PRIu64 "m", s / 3600, s / 60 % 60);
	return buf;
}

static void print_exit(const json_t *x, FILE *out)
{
	const json_t *t = json_object_get(x, "traffic");
	char a[24], b[24], since[24];
	fprintf(out, "%s %-12s %-10s for %-8s",
		json_is_true(json_object_get(x, "in_use")) ? "*" : " ",
		get_text(x, "name"), get_text(x, "state"),
		time_text(get(x, "state_for_ms"), since, sizeof(since)));
	if (*get_text(x, "carrier"))
		fprintf(out, " %s %s, srtt %.1f ms", get_text(x, "carrier"),
			get_text(x, "address"),
			json_number_value(json_object_get(x, "srtt_ms")));
	if (*get_text(x, "via"))
		fprintf(out, ", via %s", get_text(x, "via"));
	fprintf(out,
		"\n    session %s%s%s%s, %" PRIu64 " streams, %" PRIu64 " flows, %" PRIu64
		" resumes, %" PRIu64 " stalls, down %s, up %s\n",
		*get_text(x, "session") ? get_text(x, "session") : "-",
		*get_text(x, "came") ? " (" : "", get_text(x, "came"),
		*get_text(x, "came") ? ")" : "", get(x, "streams"), get(x, "flows"),
		get(x, "resumes"), get(x, "stalls"),
		size_text(get(t, "bytes_down"), a, sizeof(a)),
		size_text(get(t, "bytes_up"), b, sizeof(b)));
	if (strcmp(get_text(x, "last_down"), "none") != 0)
		fprintf(out, "    last carrier ended: %s, %s ago\n",
			get_text(x, "last_down"),
			time_text(get(x, "last_down_ms_ago"), a, sizeof(a)));
}

static void print_poll(const json_t *p, FILE *out)
{
	char a[24];
	fprintf(out, "config from %s: %s", get_text(p, "endpoint"), get_text(p, "state"));
	if (*get_text(p, "why"))
		fprintf(out, " (%s), next try in %s", get_text(p, "why"),
			time_text(get(p, "next_ms"), a, sizeof(a)));
	if (json_object_get(p, "good_ms_ago"))
		fprintf(out, ", answered %s ago",
			time_text(get(p, "good_ms_ago"), a, sizeof(a)));
	fprintf(out, "\n");
}

int cli_status_print(const char *json, FILE *out)
{
	json_t *o = json_loads(json, 0, NULL), *x;
	const json_t *c = json_object_get(o, "connections");
	const json_t *u = json_object_get(o, "udp");
	const json_t *r = json_object_get(o, "revision");
	char a[24];
	size_t i;
	if (!json_is_object(o)) {
		json_decref(o);
		return SP_E_MALFORMED;
	}
	fprintf(out,
		"sallyport %s, pid %" PRIu64 ", up %s, exits of revision %" PRIu64
		".%" PRIu64 "\n",
		get_text(o, "version"), get(o, "pid"),
		time_text(get(o, "uptime_ms"), a, sizeof(a)), get(r, "epoch"),
		get(r, "sequence"));
	if (json_object_get(o, "poll"))
		print_poll(json_object_get(o, "poll"), out);
	json_array_foreach(json_object_get(o, "listeners"), i, x)
		fprintf(out, "%s on %s\n", get_text(x, "proxy"), get_text(x, "address"));
	json_array_foreach(json_object_get(o, "exits"), i, x) print_exit(x, out);
	fprintf(out,
		"connections: %" PRIu64 " open, %" PRIu64 " connecting, %" PRIu64
		" opened, %" PRIu64 " moved; udp: %" PRIu64 " associations, %" PRIu64
		" flows\n",
		get(c, "open"), get(c, "connecting"), get(c, "opened"), get(c, "moved"),
		get(u, "associations"), get(u, "flows"));
	c = json_object_get(o, "sessions_moved");
	if (get(c, "streams_parked") || get(c, "streams_lost") ||
	    get(c, "streams_resumed"))
		fprintf(out,
			"streams that waited for their exit: %" PRIu64 " parked, %" PRIu64
			" resumed, %" PRIu64 " lost\n",
			get(c, "streams_parked"), get(c, "streams_resumed"),
			get(c, "streams_lost"));
	json_decref(o);
	return 0;
}
