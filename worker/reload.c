// New configs: when asked for (worker/upgrade.h), local YAML, certificate and signed
// config are read and checked as a whole before anything is replaced; and from the
// control plane, which replaces what the signed config says and nothing else. What cannot
// change while the process lives, another process takes; what no process of this worker
// can is named.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/file.h"
#include "lib/log.h"
#include "worker/config_kept.h"
#include "worker/worker.h"

static void refuse(struct wrk_worker *w, const char *why, char *ret, size_t cap)
{
	w->reloads_failed++;
	sp_error("reload", "kept the old config", "why=%s",
		 sp_conf_place(&wrk_config_table, w->config_path, why, ret, cap));
}

static void refuse_yaml(struct wrk_worker *w, const struct sp_conf_errors *errs,
			char *ret, size_t cap)
{
	w->reloads_failed++;
	snprintf(ret, cap, "%s", errs->text[0]);
	for (unsigned i = 0; i < errs->n && i < SP_CONF_ERRORS_MAX; i++)
		sp_error("reload", "kept the old config", "why=%s", errs->text[i]);
}

// Whether a new process would take what this one cannot.
static bool wants_process(const struct wrk_config *old, const struct wrk_config *new)
{
	const struct sp_conf_key *key;
	return sp_conf_diff(&wrk_config_table, old, new, true, &key, 1) > 0;
}

static void name_fixed(const struct wrk_config *old, const struct wrk_config *new)
{
	const struct sp_conf_key *keys[64];
	size_t n = sp_conf_diff(&wrk_config_table, old, new, true, keys, 64);
	for (size_t i = 0; i < n && i < 64; i++)
		sp_warn("reload", "takes effect at the next start", "key=%s",
			keys[i]->name);
}

// What no reload may do. NULL: nothing stands against it.
static const char *objection(const struct wrk_worker *w, const struct wrk_config *cfg,
			     const struct wrk_identity *id)
{
	struct wrk_cover_options cover;
	uint8_t pub[32];
	if (!cfg->control.folder != !w->cfg->control.folder)
		return "config, control.folder: another source needs a restart";
	if (id->fleet &&
	    sp_fleet_revision_compare(&id->fleet->revision, &w->id.fleet->revision) < 0)
		return "config: its revision is older than the running one; sign a newer "
		       "one";
	if (memcmp(id->static_secret, w->id.static_secret, 32))
		return "keys.static: another key needs a restart, since clients know "
		       "this worker by it";
	if (crypto_scalarmult_base(pub, id->static_secret) ||
	    wrk_identity_home_id(cfg, pub) != w->keys.home_id)
		return "home_id: another id needs a restart, since clients' tickets name "
		       "this one";
	if (memcmp(id->route_key, w->id.route_key, 32))
		return "keys.route: another key needs a restart";
	if (cfg->cover.kind && wrk_worker_cover_options(cfg, id->fleet, w->loop, &cover))
		return "cover: must be an address, not a name";
	return NULL;
}

// The old certificate stays for the carriers that were made with it.
static void take_tls(struct wrk_worker *w, struct wrk_identity *new)
{
	struct wrk_retired_tls *r = w->id.tls ? malloc(sizeof(*r)) : NULL;
	if (w->id.tls && !r) { // no memory: go on with the old
		sp_tls_free(new->tls);
		new->tls = w->id.tls;
	} else if (r) {
		r->tls = w->id.tls;
		r->next = w->retired;
		w->retired = r;
	}
	w->id.tls = NULL;
}

// To everything that lives.
static void apply(struct wrk_worker *w, const struct wrk_config *cfg,
		  const struct wrk_identity *id)
{
	struct wrk_sessions_limits limits;
	struct wrk_cover_options cover;
	wrk_dialer_set_policy(w->dialer, id->policy);
	wrk_worker_session_limits(cfg, &limits);
	limits.sessions = (uint32_t)w->cfg->limits.sessions; // fixed
	w->keys.trusted = *wrk_worker_pass_keys(id);
	wrk_sessions_reload(w->sessions, &limits, id->fleet);
	wrk_exit_set_limits(w->exit, (uint32_t)cfg->limits.flows,
			    (uint32_t)cfg->limits.stream_idle_ms);
	if (w->cover && wrk_worker_cover_options(cfg, id->fleet, w->loop, &cover) == 0)
		wrk_cover_set(w->cover, &cover);
	wrk_relaying_apply(w, cfg, id->fleet);
}

static void applied(struct wrk_worker *w)
{
	const struct sp_fleet_worker *f = w->id.fleet;
	w->config_applied_s = sp_loop_unix_ms(w->loop) / 1000;
	sp_info("reload", "new config in force", "epoch=%u sequence=%" PRIu64,
		f ? f->revision.epoch : 0, f ? f->revision.sequence : 0);
}

void wrk_worker_keep_config(struct wrk_worker *w)
{
	int err = w->kept ? wrk_config_keep(w->kept, w->cfg) : 0;
	if (err)
		sp_warn("reload", "after a crash the config is read anew", "error=%s",
			sp_strerror(err));
}

static void take(struct wrk_worker *w, struct wrk_config *cfg, struct wrk_identity *id)
{
	take_tls(w, id);
	apply(w, cfg, id);
	sp_log_setup((enum sp_log_level)cfg->log.level,
		     (enum sp_log_format)cfg->log.format, 2);
	wrk_identity_done(&w->id);
	sp_conf_free(&wrk_config_table, w->cfg);
	w->id = *id;
	w->cfg = cfg;
	w->reloads_ok++;
	wrk_identity_hold(cfg, &w->id);
	wrk_worker_keep_config(w);
	applied(w);
}

// What a reload of an enrolled worker leaves as it is.
static void keep_fleet(struct wrk_worker *w, struct wrk_identity *id)
{
	sp_policy_free(id->policy);
	id->fleet = w->id.fleet;
	id->policy = w->id.policy;
	w->id.fleet = NULL;
	w->id.policy = NULL;
}

int wrk_worker_take_fleet(struct wrk_worker *w, const void *json, size_t len,
			  struct sp_fleet_revision *ret, char *why, size_t cap)
{
	struct wrk_identity next = w->id;
	int err = sp_fleet_worker_parse(json, len, &next.fleet, why, cap);
	if (err)
		return err;
	*ret = next.fleet->revision;
	if (w->id.fleet && sp_fleet_revision_compare(ret, &w->id.fleet->revision) < 0) {
		snprintf(why, cap, "older than the running one");
		err = SP_E_STALE;
	}
	if (!err)
		err = wrk_identity_policy(next.fleet, &next.policy, why, cap);
	if (err) {
		sp_fleet_worker_free(next.fleet);
		return err;
	}
	apply(w, w->cfg, &next);
	sp_fleet_worker_free(w->id.fleet);
	sp_policy_free(w->id.policy);
	w->id.fleet = next.fleet;
	w->id.policy = next.policy;
	if (w->kept && wrk_fleet_keep(w->kept, json, len))
		sp_warn("reload", "after a crash the agent must say this anew", "");
	applied(w);
	return 0;
}

// Both are taken or freed. What only a new process can take is none of it.
static enum wrk_reload decide(struct wrk_worker *w, bool upgrade, struct wrk_config *cfg,
			      struct wrk_identity *id, char *why, size_t cap)
{
	const char *no = objection(w, cfg, id);
	bool anew = w->kept && wants_process(w->cfg, cfg);
	if (no)
		refuse(w, no, why, cap);
	if (no || anew || upgrade) {
		wrk_identity_done(id);
		sp_conf_free(&wrk_config_table, cfg);
		return no ? WRK_RELOAD_REFUSED : WRK_RELOAD_UPGRADE;
	}
	name_fixed(w->cfg, cfg);
	if (cfg->control.folder)
		keep_fleet(w, id);
	take(w, cfg, id);
	return WRK_RELOAD_DONE;
}

enum wrk_reload wrk_worker_reload(struct wrk_worker *w, bool upgrade, bool is_new,
				  char *why, size_t cap)
{
	struct sp_conf_errors errs = {0};
	char text[SP_WHY_MAX];
	struct wrk_identity id;
	struct wrk_config *cfg = sp_conf_load(&wrk_config_table, w->config_path, &errs);
	if (cfg && wrk_identity_load(cfg, &id, text, sizeof(text)) == 0)
		return decide(w, upgrade || is_new, cfg, &id, why, cap);
	if (is_new) { // it says itself what it makes of it
		sp_conf_free(&wrk_config_table, cfg);
		return WRK_RELOAD_UPGRADE;
	}
	if (cfg)
		refuse(w, text, why, cap);
	else
		refuse_yaml(w, &errs, why, cap);
	sp_conf_free(&wrk_config_table, cfg);
	return WRK_RELOAD_REFUSED;
}
