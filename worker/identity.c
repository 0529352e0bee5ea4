#include "worker/identity.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <sodium.h>

#include "lib/enrolled.h"
#include "lib/file.h"
#include "lib/held.h"
#include "lib/key.h"
#include "lib/log.h"
#include "lib/text.h"
#include "lib/trusted.h"

static int fail(char *why, size_t cap, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(char *why, size_t cap, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(why, cap, fmt, ap);
	va_end(ap);
	return SP_E_CONFIG;
}

static int load_key(const char *name, const char *path, enum sp_key_kind kind,
		    uint8_t *ret, char *why, size_t cap)
{
	char text[SP_WHY_MAX];
	if (sp_key_load(path, kind, true, ret, text, sizeof(text)))
		return fail(why, cap, "%s: %s; sallyportctl makes keys", name, text);
	return 0;
}

int wrk_identity_policy(const struct sp_fleet_worker *f, struct sp_policy **ret,
			char *why, size_t cap)
{
	char text[SP_POLICY_ERROR_MAX];
	struct sp_policy *p;
	if (sp_policy_new(&p))
		return fail(why, cap, "no memory for the exit policy");
	for (size_t i = 0; i < f->n_rules; i++)
		if (sp_policy_add(p, f->rules[i], text, sizeof(text))) {
			sp_policy_free(p);
			return fail(why, cap, "policy rule %zu: %s", i + 1, text);
		}
	*ret = p;
	return 0;
}

static char *held_path(const struct wrk_config *cfg, char *buf, size_t cap)
{
	snprintf(buf, cap, "%s/revision", cfg->state_dir);
	return buf;
}

// Not older than what was in force once, where there is a folder to know it by.
static int check_held(const struct wrk_config *cfg, const struct wrk_identity *id,
		      char *why, size_t cap)
{
	const struct sp_fleet_revision *now = &id->fleet->revision;
	struct sp_fleet_revision held;
	char path[PATH_MAX], text[SP_WHY_MAX];
	if (!cfg->state_dir)
		return 0;
	if (sp_held_load(held_path(cfg, path, sizeof(path)), &held, text, sizeof(text)))
		return fail(why, cap, "state_dir: %s", text);
	if (sp_fleet_revision_compare(now, &held) >= 0)
		return 0;
	return fail(why, cap,
		    "config: %s: its revision %" PRIu32 ".%" PRIu64
		    " is older than %" PRIu32 ".%" PRIu64
		    ", which was in force; sign a newer one",
		    cfg->config, now->epoch, now->sequence, held.epoch, held.sequence);
}

void wrk_identity_hold(const struct wrk_config *cfg, const struct wrk_identity *id)
{
	struct sp_fleet_revision held;
	char path[PATH_MAX], why[SP_WHY_MAX] = "";
	if (!cfg->state_dir || !id->fleet)
		return;
	held_path(cfg, path, sizeof(path));
	if (sp_held_load(path, &held, why, sizeof(why)) == 0 &&
	    sp_fleet_revision_compare(&id->fleet->revision, &held) == 0)
		return;
	if (mkdir(cfg->state_dir, 0700) < 0 && errno != EEXIST)
		snprintf(why, sizeof(why), "%s: %s", cfg->state_dir, strerror(errno));
	else if (sp_held_save(path, &id->fleet->revision, why, sizeof(why)) == 0)
		return;
	sp_warn("worker", "the revision in force is not on the disk; traffic goes on",
		"why=%s", why);
}

static int load_fleet(const struct wrk_config *cfg, struct wrk_identity *id, char *why,
		      size_t cap)
{
	struct sp_file_read opt = {.max = SP_SIGNED_BODY_MAX + SP_SIGNED_LINE_MAX};
	struct sp_signed_view view;
	char text[SP_WHY_MAX];
	uint8_t *buf;
	size_t len;
	if (sp_file_read(cfg->config, &opt, &buf, &len, text, sizeof(text)))
		return fail(why, cap, "config: %s (sallyportctl signs one)", text);
	int err = sp_signed_open_text(&id->trusted, SP_SIGNED_WORKER_CONFIG, buf, len,
				      &view);
	if (err)
		fail(why, cap,
		     "config: %s: %s; sign it with sallyportctl by a key in keys.fleet",
		     cfg->config,
		     err == SP_E_SIGNATURE ? "the signature does not match the text"
		     : err == SP_E_KEY     ? "another key has signed it"
					   : "not a signed worker config");
	else if ((err = sp_fleet_worker_parse(view.body, view.body_len, &id->fleet, text,
					      sizeof(text))))
		fail(why, cap, "config: %s: %s", cfg->config, text);
	sp_file_free(buf, len);
	if (!err &&
	    (err = wrk_identity_policy(id->fleet, &id->policy, text, sizeof(text))))
		fail(why, cap, "config: %s: %s", cfg->config, text);
	return err ? SP_E_CONFIG : 0;
}

static int load_tls(const struct wrk_config *cfg, struct wrk_identity *id, char *why,
		    size_t cap)
{
	char text[SP_WHY_MAX] = "";
	if (!cfg->listen.tls.n)
		return 0;
	if (sp_tls_server_new(cfg->tls.certificate, cfg->tls.key, &id->tls, text,
			      sizeof(text)))
		return fail(why, cap,
			    "tls.certificate: %s, tls.key: %s: %s; both must exist, be "
			    "readable and match",
			    cfg->tls.certificate, cfg->tls.key, text);
	return 0;
}

// Of an enrolled worker: keys from its state folder. What it enforces is not known until
// its agent says it; so long nobody is admitted.
static int load_enrolled(const struct wrk_config *cfg, struct wrk_identity *id, char *why,
			 size_t cap)
{
	struct sp_enrolled e;
	char path[4200], name[SP_ENROLLED_NAME_MAX + 32], text[SP_WHY_MAX];
	const char *folder = cfg->control.folder;
	if (sp_enrolled_load(folder, &e, text, sizeof(text)))
		return fail(why, cap, "control.folder: %s", text);
	snprintf(name, sizeof(name), "%s/%d", cfg->node, (int)cfg->worker);
	if (strcmp(name, e.name))
		return fail(
			why, cap,
			"node, worker: they say %s, but %s was enrolled as %s; change "
			"them, or enrol with another folder",
			name, folder, e.name);
	id->trusted = e.signing;
	snprintf(path, sizeof(path), "%s/static.key", folder);
	if (load_key("control.folder", path, SP_KEY_WORKER, id->static_secret, why, cap))
		return SP_E_CONFIG;
	snprintf(path, sizeof(path), "%s/route.key", folder);
	if (load_key("control.folder", path, SP_KEY_ROUTE, id->route_key, why, cap))
		return SP_E_CONFIG;
	if (sp_policy_new(&id->policy))
		return fail(why, cap, "control.folder: no memory for the exit policy");
	return load_tls(cfg, id, why, cap);
}

static int load_files(const struct wrk_config *cfg, struct wrk_identity *id, char *why,
		      size_t cap)
{
	int err = load_key("keys.static", cfg->keys.secret, SP_KEY_WORKER,
			   id->static_secret, why, cap);
	if (!err)
		err = load_key("keys.route", cfg->keys.route, SP_KEY_ROUTE, id->route_key,
			       why, cap);
	if (!err)
		err = sp_trusted_load("keys.fleet",
				      "the operator's signing.pub, or the key itself",
				      &cfg->keys.fleet, &id->trusted, why, cap);
	if (!err)
		err = load_tls(cfg, id, why, cap);
	if (!err)
		err = load_fleet(cfg, id, why, cap);
	return err ? err : check_held(cfg, id, why, cap);
}

int wrk_identity_load(const struct wrk_config *cfg, struct wrk_identity *ret, char *why,
		      size_t cap)
{
	struct wrk_identity id = {0};
	int err = cfg->control.folder ? load_enrolled(cfg, &id, why, cap)
				      : load_files(cfg, &id, why, cap);
	if (err)
		wrk_identity_done(&id);
	else
		*ret = id;
	return err;
}

void wrk_identity_done(struct wrk_identity *id)
{
	sp_fleet_worker_free(id->fleet);
	sp_policy_free(id->policy);
	sp_tls_free(id->tls);
	sodium_memzero(id, sizeof(*id));
}

uint64_t wrk_identity_home_id(const struct wrk_config *cfg, const uint8_t *static_public)
{
	uint8_t id[8];
	uint64_t v = 0;
	if (cfg->home_id && sp_hex_decode(cfg->home_id, 16, id, sizeof(id)) == 0)
		for (size_t i = 0; i < sizeof(id); i++)
			v = v << 8 | id[i];
	return v ? v : sp_fleet_home_id(static_public);
}
