// The roles that everything else stands on: the fleet's chain with its events, and the
// operator API with its own routes.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controller/api_access.h"
#include "controller/controller.h"
#include "controller/role_sessions.h"
#include "lib/file.h"

// ---- fleet ----

static void on_fleet_event(void *ctx, enum con_fleet_event what, const char *text)
{
	static const struct {
		const char *kind;
		enum sp_log_level level;
	} kinds[] = {
		[CON_FLEET_SYNCED] = {"redis-synced", SP_LOG_INFO},
		[CON_FLEET_AWAY] = {"redis-away", SP_LOG_WARN},
		[CON_FLEET_SEEDED] = {"redis-seeded", SP_LOG_WARN},
		[CON_FLEET_FOLLOWED] = {"redis-followed", SP_LOG_INFO},
		[CON_FLEET_DISTRUST] = {"redis-distrusted", SP_LOG_ERROR},
		[CON_FLEET_JOURNAL] = {"journal-error", SP_LOG_ERROR},
		[CON_FLEET_CUT] = {"journal-cut", SP_LOG_WARN},
	};
	struct con_controller *c = ctx;
	con_events_add(c->events, kinds[what].level, kinds[what].kind, "", "%s", text);
	if (what == CON_FLEET_SYNCED)
		con_sessions_redis_up(c);
}

// What an operator's verb did to one key, as an event. Private keys: users' names are no
// secret here, hashes are not shown.
static void tell_change(struct con_controller *c, const struct con_fleet_change *f,
			const struct sp_change *ch)
{
	static const struct {
		const char *prefix, *made, *gone;
		enum sp_log_level level;
	} kinds[] = {
		{"lease/", "lease", "lease-ended", SP_LOG_INFO},
		{"revoked/", "revoked", NULL, SP_LOG_WARN},
		{"token/", "token-made", "token-dropped", SP_LOG_INFO},
		{"enrol/", "enrolment-open", "enrolment-closed", SP_LOG_INFO},
		{"identity/", "enrolled", "identity-dropped", SP_LOG_INFO},
		{"vantage/", "vantage-enrolled", "vantage-dropped", SP_LOG_INFO},
	};
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		size_t len = strlen(kinds[i].prefix);
		const char *kind = ch->json ? kinds[i].made : kinds[i].gone;
		if (strncmp(ch->key, kinds[i].prefix, len) != 0 || !kind)
			continue;
		json_t *o = ch->json ? json_loads(ch->json, 0, NULL) : NULL;
		if (json_is_true(json_object_get(o, "used"))) {
			json_decref(o); // a one-time token: its "enrolled" tells
			return;
		}
		const char *more = json_string_value(json_object_get(o, "kind"));
		const char *user = json_string_value(json_object_get(o, "user"));
		con_events_add(c->events, kinds[i].level, kind, ch->key + len,
			       "%s%sby %s",
			       more   ? more
			       : user ? user
				      : "",
			       more || user ? " " : "", f->revision->author);
		json_decref(o);
	}
}

static void on_changed(void *ctx, const struct con_fleet_change *f)
{
	struct con_controller *c = ctx;
	con_events_add(c->events, SP_LOG_INFO, "revision", f->revision->author,
		       "%zu public and %zu private changes", f->revision->changes.n,
		       f->private->n);
	for (size_t i = 0; i < f->revision->changes.n; i++)
		tell_change(c, f, &f->revision->changes.v[i]);
	for (size_t i = 0; i < f->private->n; i++)
		tell_change(c, f, &f->private->v[i]);
}

static int start_fleet(struct con_controller *c)
{
	char why[SP_WHY_MAX] = "";
	char *journal = con_config_state_path(c->cfg, "journal");
	struct con_fleet_options o = {
		.loop = c->loop,
		.name = c->cfg->fleet,
		.journal = journal,
		.secret = c->id.signing,
		.trusted = &c->id.trusted,
		.redis = c->cfg->redis.address,
		.redis_password = c->id.redis_password,
		.event = on_fleet_event,
		.ctx = c,
	};
	int err = journal ? con_fleet_new(&o, &c->fleet, why, sizeof(why)) : -ENOMEM;
	free(journal);
	if (err) {
		sp_error("controller", "no chain of revisions", "error=%s",
			 *why ? why : sp_strerror(err));
		return err;
	}
	con_events_set_head(c->events, con_fleet_head(c->fleet));
	c->fleet_listener.changed = on_changed;
	c->fleet_listener.ctx = c;
	con_fleet_listen(c->fleet, &c->fleet_listener);
	return 0;
}

static void stop_fleet(struct con_controller *c)
{
	if (c->fleet)
		con_fleet_unlisten(&c->fleet_listener);
	if (c->events)
		con_events_set_head(c->events, NULL);
	con_fleet_free(c->fleet);
	c->fleet = NULL;
	con_leases_free(c->leases); // a commit of its own may have waited
	c->leases = NULL;
}

// Changes wait for Redis, the rest does not: a controller without it is ready.
static void fleet_ready(struct con_controller *c, struct sp_ready *r)
{
	sp_ready_check(r, "config", con_fleet_head(c->fleet)->sequence > 0,
		       "no fleet file was applied yet");
}

const struct con_role con_role_fleet = {
	.name = "fleet", .start = start_fleet, .stop = stop_fleet, .ready = fleet_ready};

// ---- operator API ----

static int start_api(struct con_controller *c)
{
	char why[SP_WHY_MAX] = "", at[2 * SP_WHY_MAX];
	int err = con_api_new(c->loop, c->cfg->api.socket, c->cfg->api.group, &c->api,
			      why, sizeof(why));
	if (err) {
		sp_error("controller", "no operator API", "error=%s",
			 sp_conf_place(&con_config_table, c->config_path, why, at,
				       sizeof(at)));
		return err;
	}
	c->api_fleet = (struct con_api_fleet){
		.api = c->api,
		.fleet = c->fleet,
		.events = c->events,
		.loop = c->loop,
		.pass_keys = *con_fleet_keys(c->fleet),
		.started_ms = c->started_unix_ms,
	};
	err = con_api_fleet_add(&c->api_fleet);
	if (!err)
		err = con_api_access_add(&c->api_fleet);
	if (!err)
		err = con_leases_new(c->loop, c->fleet, c->api, &c->leases);
	return err;
}

static void stop_api(struct con_controller *c)
{
	con_api_free(c->api);
	c->api = NULL;
}

const struct con_role con_role_api = {
	.name = "api", .start = start_api, .stop = stop_api};
