#include "controller/role_sessions.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "controller/directory.h"
#include "controller/usage_store.h"
#include "lib/file.h"
#include "lib/text.h"

#define USERS_MAX    1000000
#define UNREACHED_MS 3000 // so long peers must have failed to reach a home
#define PEERS        2    // so many
#define LEASES_MS    500
#define WORKER       "worker:"

struct con_sessions {
	struct con_controller *c;
	struct con_directory *directory;
	struct con_usage_store *usage;
	struct sp_timer leases;
	bool load; // the disk was lost: Redis knows more
	LIST_HEAD(, waiting) waiting;
};

// ---- what the modules ask ----

static bool quota_of(struct con_controller *c, const char *user,
		     struct con_usage_quota *ret)
{
	char key[SP_STATE_KEY_MAX + 1];
	snprintf(key, sizeof(key), "user/%s", user);
	json_t *u = sp_state_get_object(con_fleet_state(c->fleet), key);
	const char *name = json_string_value(json_object_get(u, "tier"));
	snprintf(key, sizeof(key), "tier/%s", name ? name : "");
	json_t *t = sp_state_get_object(con_fleet_state(c->fleet), key);
	json_t *own = json_object_get(u, "quota_bytes");
	json_t *bytes = own ? own : json_object_get(t, "quota_bytes");
	*ret = (struct con_usage_quota){
		(uint64_t)json_integer_value(bytes),
		(uint64_t)json_integer_value(json_object_get(t, "quota_period_s"))};
	json_decref(u);
	json_decref(t);
	return ret->bytes > 0;
}

static bool on_quota(void *ctx, const char *user, struct con_usage_quota *ret)
{
	struct con_sessions *s = ctx;
	return quota_of(s->c, user, ret);
}

static bool on_quota_left(void *ctx, const char *user, int64_t *ret_left)
{
	struct con_sessions *s = ctx;
	struct con_usage_quota q;
	if (!quota_of(s->c, user, &q))
		return false;
	*ret_left = con_usage_left(con_usage_store_table(s->usage), user, q.bytes);
	return true;
}

static uint64_t heard_ms(const struct con_sessions *s, const struct con_hub_peer *p)
{
	uint64_t now = sp_loop_unix_ms(s->c->loop);
	return now > p->seen_ms ? now - p->seen_ms : 0;
}

// Whoever is heard of has its lease, at whatever controller. One that is not may still
// live: its control link is cut, or its agent is down. Only that peers fail to reach it
// as well makes it dead; being judged down does not, since many a down node is blocked
// only.
static enum con_directory_home on_home(void *ctx, const char *worker, uint64_t boot,
				       const struct con_directory_lease *lease)
{
	struct con_sessions *s = ctx;
	char name[SP_BUS_NAME_MAX];
	snprintf(name, sizeof(name), WORKER "%s", worker);
	const struct con_hub_peer *p = con_hub_find(s->c->hub, name);
	bool elsewhere = lease->known && lease->age_ms < CON_DIRECTORY_LEASE_MS;
	if (!p)
		return CON_HOME_REMOVED;
	bool here = p->boot && p->connected && heard_ms(s, p) < CON_DIRECTORY_LEASE_MS;
	if ((here && p->boot == boot) || (elsewhere && lease->boot == boot))
		return CON_HOME_ALIVE;
	if (here)
		return CON_HOME_RESTARTED;
	if (elsewhere) // perhaps of the boot before
		return CON_HOME_UNKNOWN;
	return con_health_unreached(s->c->health, worker, UNREACHED_MS) >= PEERS
		       ? CON_HOME_SILENT
		       : CON_HOME_UNKNOWN;
}

// To the other controllers: who was heard of here since the last time.
static void on_leases(void *ctx)
{
	struct con_sessions *s = ctx;
	struct con_directory_heard list[CON_DIRECTORY_LEASES_MAX];
	const struct con_hub_peer *p;
	size_t at = 0, n = 0;
	while ((p = con_hub_next(s->c->hub, &at))) {
		if (!p->connected || strncmp(p->name, WORKER, strlen(WORKER)) != 0 ||
		    heard_ms(s, p) > 2 * LEASES_MS)
			continue;
		list[n++] = (struct con_directory_heard){p->name + strlen(WORKER),
							 p->boot, heard_ms(s, p)};
		if (n == CON_DIRECTORY_LEASES_MAX) {
			con_directory_leases(s->directory, list, n);
			n = 0;
		}
	}
	con_directory_leases(s->directory, list, n);
	sp_timer_set(&s->leases, sp_loop_now_us(s->c->loop) + LEASES_MS * UINT64_C(1000));
}

static void on_directory_event(void *ctx, enum con_directory_event what,
			       const char *worker, const char *home, const char *user,
			       const uint8_t *id)
{
	static const struct {
		const char *kind;
		enum sp_log_level level;
	} kinds[] = {
		[CON_DIRECTORY_OTHER_DEVICE] = {"session-other-device", SP_LOG_WARN},
		[CON_DIRECTORY_OTHER_USER] = {"session-other-user", SP_LOG_WARN},
		[CON_DIRECTORY_ADOPTED] = {"session-adopted", SP_LOG_INFO},
	};
	struct con_sessions *s = ctx;
	char hex[33];
	con_events_add(s->c->events, kinds[what].level, kinds[what].kind, worker,
		       "session %s of %s, from %s",
		       sp_hex_encode(id, 16, hex, sizeof(hex)), user, home);
}

// ---- calls ----

struct waiting { // an answer that is due
	LIST_ENTRY(waiting) link;
	struct con_sessions *s;
	struct con_hub_call to;
};

static struct waiting *wait_for(struct con_sessions *s, const struct con_hub_call *call)
{
	struct waiting *w = malloc(sizeof(*w));
	if (!w) {
		con_hub_refuse(s->c->hub, call, "out of memory", 1000);
		return NULL;
	}
	*w = (struct waiting){.s = s, .to = *call};
	LIST_INSERT_HEAD(&s->waiting, w, link);
	return w;
}

static void waiting_free(struct waiting *w)
{
	LIST_REMOVE(w, link);
	free(w);
}

static void on_session_answer(void *ctx, const Sallyport__Fleet__SessionAnswer *m)
{
	struct waiting *w = ctx;
	Sallyport__Fleet__FromController out = SALLYPORT__FLEET__FROM_CONTROLLER__INIT;
	out.body_case = SALLYPORT__FLEET__FROM_CONTROLLER__BODY_SESSION;
	out.session = (Sallyport__Fleet__SessionAnswer *)(uintptr_t)m;
	if (w->to.call)
		(void)!con_hub_answer(w->s->c->hub, &w->to, &out);
	waiting_free(w);
}

static void on_usage_answer(void *ctx, const Sallyport__Fleet__UsageAnswer *m)
{
	struct waiting *w = ctx;
	Sallyport__Fleet__FromController out = SALLYPORT__FLEET__FROM_CONTROLLER__INIT;
	out.body_case = SALLYPORT__FLEET__FROM_CONTROLLER__BODY_USAGE;
	out.usage = (Sallyport__Fleet__UsageAnswer *)(uintptr_t)m;
	(void)!con_hub_answer(w->s->c->hub, &w->to, &out);
	waiting_free(w);
}

bool con_sessions_call(struct con_controller *c, const struct con_hub_call *call,
		       const Sallyport__Fleet__ToController *m)
{
	struct con_sessions *s = c->sessions;
	struct waiting *w;
	const char *worker = call->name + strlen(WORKER);
	switch (m->body_case) {
	case SALLYPORT__FLEET__TO_CONTROLLER__BODY_USAGE:
	case SALLYPORT__FLEET__TO_CONTROLLER__BODY_SESSION_PUT:
	case SALLYPORT__FLEET__TO_CONTROLLER__BODY_SESSION_DROP:
	case SALLYPORT__FLEET__TO_CONTROLLER__BODY_SESSION_ADOPT:
		break;
	default:
		return false;
	}
	if (strncmp(call->name, WORKER, strlen(WORKER)) != 0) {
		con_hub_refuse(c->hub, call, "only workers have sessions", 0);
		return true;
	}
	w = wait_for(s, call);
	if (!w)
		return true;
	if (m->body_case == SALLYPORT__FLEET__TO_CONTROLLER__BODY_USAGE)
		con_usage_store_report(s->usage, worker, m->usage, on_usage_answer, w);
	else if (m->body_case == SALLYPORT__FLEET__TO_CONTROLLER__BODY_SESSION_PUT)
		con_directory_put(s->directory, worker, m->session_put, on_session_answer,
				  w);
	else if (m->body_case == SALLYPORT__FLEET__TO_CONTROLLER__BODY_SESSION_DROP)
		con_directory_drop(s->directory, worker, m->session_drop,
				   on_session_answer, w);
	else
		con_directory_adopt(s->directory, worker, m->session_adopt,
				    on_session_answer, w);
	return true;
}

bool con_sessions_quota_left(struct con_controller *c, const char *user, int64_t *ret)
{
	return on_quota_left(c->sessions, user, ret);
}

// ---- Redis ----

static void on_loaded(void *ctx, bool good)
{
	struct con_sessions *s = ctx;
	s->load = !good;
	if (good)
		con_usage_store_redis_up(s->usage);
}

static void load_totals(struct con_sessions *s)
{
	const struct sp_state *state = con_fleet_state(s->c->fleet);
	size_t n = sp_state_count(state, "user/"), i = 0, at = 0;
	const char **names = calloc(n ? n : 1, sizeof(*names));
	struct sp_state_entry e;
	while (names && i < n && sp_state_next(state, "user/", &at, &e))
		names[i++] = e.key + strlen("user/");
	if (names)
		con_usage_store_load(s->usage, names, i, on_loaded, s);
	free(names);
}

void con_sessions_redis_up(struct con_controller *c)
{
	if (!c->sessions)
		return;
	if (c->sessions->load)
		load_totals(c->sessions);
	else
		con_usage_store_redis_up(c->sessions->usage);
}

// ---- operator API ----

static void fill_user(void *ctx, const char *name, json_t *into)
{
	struct con_sessions *s = ctx;
	struct con_usage_sum sum;
	int64_t left;
	(void)con_usage_get(con_usage_store_table(s->usage), name, &sum);
	json_object_set_new(into, "used_up", json_integer((json_int_t)sum.up));
	json_object_set_new(into, "used_down", json_integer((json_int_t)sum.down));
	if (on_quota_left(s, name, &left))
		json_object_set_new(into, "quota_left", json_integer(left));
}

static void list_sessions(void *ctx, struct con_api_call *call)
{
	struct con_sessions *s = ctx;
	con_sessions_list(s->c, call);
}

static const struct con_api_route routes[] = {
	{"GET", "/v1/sessions", list_sessions},
	{0},
};

// ---- the role ----

static int start(struct con_controller *c)
{
	static const struct con_directory_ops ops = {on_home, on_quota_left,
						     on_directory_event};
	char why[SP_WHY_MAX] = "", *path = con_config_state_path(c->cfg, "usage");
	struct con_sessions *s = c->sessions = calloc(1, sizeof(*s));
	if (!s || !path) {
		free(path);
		return -ENOMEM;
	}
	s->c = c;
	struct con_directory_options d = {.loop = c->loop,
					  .fleet = c->cfg->fleet,
					  .redis = con_fleet_redis(c->fleet),
					  .ops = &ops,
					  .ctx = s};
	struct con_usage_store_options u = {.loop = c->loop,
					    .path = path,
					    .fleet = c->cfg->fleet,
					    .max_users = USERS_MAX,
					    .redis = con_fleet_redis(c->fleet),
					    .quota = on_quota,
					    .ctx = s};
	sp_timer_init(&s->leases, c->loop, on_leases, s);
	sp_timer_set(&s->leases, sp_loop_now_us(c->loop) + LEASES_MS * UINT64_C(1000));
	int err = con_directory_new(&d, &s->directory);
	if (!err)
		err = con_usage_store_new(&u, &s->usage, &s->load, why, sizeof(why));
	free(path);
	if (!err)
		err = con_api_add(c->api, routes, s);
	if (!err)
		err = con_api_add_detail(c->api, "user", fill_user, s);
	if (err)
		sp_error("controller", "no directory or usage", "error=%s",
			 *why ? why : sp_strerror(err));
	return err;
}

static void stop(struct con_controller *c)
{
	struct con_sessions *s = c->sessions;
	c->sessions = NULL;
	if (!s)
		return;
	if (c->fleet) // ends every command, as the modules want it
		con_redis_reconnect(con_fleet_redis(c->fleet), "closed");
	sp_timer_done(&s->leases);
	con_usage_store_free(s->usage);
	con_directory_free(s->directory);
	while (!LIST_EMPTY(&s->waiting)) // for what nobody answers any more
		waiting_free(LIST_FIRST(&s->waiting));
	free(s);
}

// ---- metrics ----

static void put(struct sp_metrics_writer *w, const char *name, enum sp_metric_type type,
		const char *help, uint64_t v)
{
	struct sp_metric m = {.name = name, .type = type, .help = help};
	sp_metrics_family(w, &m);
	sp_metrics_u64(w, v, NULL);
}

static void put_calls(const struct con_directory_counters *n, struct sp_metrics_writer *w)
{
	static const struct sp_metric m = {
		.name = "sallyport_controller_directory_results",
		.type = SP_METRIC_COUNTER,
		.help = "Records of sessions that workers put, dropped or asked for",
		.labels = {"call", "result"}};
	const struct {
		const char *call, *result;
		uint64_t v;
	} all[] = {
		{"put", "stored", n->stored},
		{"put", "other-home", n->refused_home},
		{"put", "other-device", n->refused_device},
		{"put", "old", n->old},
		{"put", "over-limit", n->over},
		{"drop", "dropped", n->dropped},
		{"adopt", "adopted", n->adopted},
		{"adopt", "fresh", n->fresh},
		{"adopt", "not-yours", n->not_yours},
		{"adopt", "home-alive", n->alive},
		{"adopt", "stale", n->stale},
	};
	sp_metrics_family(w, &m);
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		sp_metrics_u64(w, all[i].v, SP_LABELS(all[i].call, all[i].result));
}

static void put_evidence(const struct con_directory_counters *n,
			 struct sp_metrics_writer *w)
{
	static const struct sp_metric m = {
		.name = "sallyport_controller_sessions_given",
		.type = SP_METRIC_COUNTER,
		.help = "Sessions given to another home, by what was known of theirs",
		.labels = {"evidence"}};
	sp_metrics_family(w, &m);
	for (int e = 0; e < CON_HOME__N; e++)
		if (e != CON_HOME_UNKNOWN)
			sp_metrics_u64(w, n->evidence[e],
				       SP_LABELS(con_directory_home_word(
					       (enum con_directory_home)e)));
}

static void metrics(struct con_controller *c, struct sp_metrics_writer *w)
{
	const struct con_directory_counters *d =
		con_directory_counters(c->sessions->directory);
	const struct con_usage_store_counters *u =
		con_usage_store_counters(c->sessions->usage);
	const struct con_usage_spool_counters *f =
		con_usage_store_spool(c->sessions->usage);
	put_calls(d, w);
	put_evidence(d, w);
	put(w, "sallyport_controller_lease_writes", SP_METRIC_COUNTER,
	    "Times that other controllers were told which workers are heard of here",
	    d->lease_writes);
	put(w, "sallyport_controller_directory_unavailable", SP_METRIC_COUNTER,
	    "Directory calls that Redis did not answer in time", d->unavailable);
	put(w, "sallyport_controller_directory_calls", SP_METRIC_GAUGE,
	    "Directory calls under way", d->calls);
	put(w, "sallyport_controller_usage_reports", SP_METRIC_COUNTER,
	    "Usage reports of workers", u->reports);
	put(w, "sallyport_controller_usage_reports_not_stored", SP_METRIC_COUNTER,
	    "Usage reports that could not be kept; they come again", u->not_stored);
	put(w, "sallyport_controller_usage_late", SP_METRIC_COUNTER,
	    "Users' totals of workers' boots that had ended", u->late);
	put(w, "sallyport_controller_usage_totals_raised", SP_METRIC_COUNTER,
	    "Users' totals that a report raised", u->rose);
	put(w, "sallyport_controller_usage_copies", SP_METRIC_COUNTER,
	    "Users' totals copied to Redis", u->copies);
	put(w, "sallyport_controller_usage_spool_bytes", SP_METRIC_GAUGE,
	    "Size of the file of usage", f->bytes);
	put(w, "sallyport_controller_usage_spool_syncs", SP_METRIC_COUNTER,
	    "Times that the file of usage was synced", f->syncs);
	put(w, "sallyport_controller_usage_spool_sync_failures", SP_METRIC_COUNTER,
	    "Syncs of the file of usage that failed", f->sync_failures);
	put(w, "sallyport_controller_usage_copy_failures", SP_METRIC_COUNTER,
	    "Users' totals that could not be copied to Redis", u->copy_failures);
}

const struct con_role con_role_sessions = {
	.name = "sessions", .start = start, .stop = stop, .metrics = metrics};
