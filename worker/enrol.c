#include "worker/enrol.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/enrol.h"
#include "lib/enrolled.h"
#include "lib/enroltoken.h"
#include "lib/file.h"
#include "lib/key.h"
#include "lib/version.h"

#define FILE_NAME_MAX 4200

static const char *at(const struct wrk_config *cfg, const char *name, char *ret)
{
	snprintf(ret, FILE_NAME_MAX, "%s/%s", cfg->control.folder, name);
	return ret;
}

static int make_folder(const char *path, mode_t mode, char *why, size_t cap)
{
	if (mkdir(path, mode) == 0 || errno == EEXIST)
		return 0;
	int err = -errno;
	snprintf(why, cap, "control.folder: cannot make %s: %s; make the folder above it",
		 path, sp_strerror(err));
	return err;
}

// The agent's own folder is its user's, if that is another.
static int make_folders(const struct wrk_config *cfg, uid_t *ret_uid, gid_t *ret_gid,
			char *why, size_t cap)
{
	char path[FILE_NAME_MAX];
	const struct passwd *pw = NULL;
	int err = make_folder(cfg->control.folder, 0755, why, cap);
	if (!err)
		err = make_folder(at(cfg, "agent", path), 0700, why, cap);
	if (err)
		return err;
	*ret_uid = geteuid();
	*ret_gid = getegid();
	if (!cfg->agent.user || geteuid() != 0)
		return 0;
	pw = getpwnam(cfg->agent.user);
	if (!pw || chown(path, pw->pw_uid, pw->pw_gid)) {
		snprintf(why, cap, "agent.user: no user %s; add it (adduser --system %s)",
			 cfg->agent.user, cfg->agent.user);
		return SP_E_CONFIG;
	}
	*ret_uid = pw->pw_uid;
	*ret_gid = pw->pw_gid;
	return 0;
}

// The key in the file, or a new one that is written there.
static int keep_key(const char *path, enum sp_key_kind kind, uint8_t *ret, char *why,
		    size_t cap)
{
	if (access(path, F_OK) == 0)
		return sp_key_load(path, kind, true, ret, why, cap);
	randombytes_buf(ret, 32);
	return sp_key_save(path, kind, true, ret, why, cap);
}

// Before the token is spent.
static int check_token(const struct wrk_config *cfg, const char *text, char *why,
		       size_t cap)
{
	struct sp_enroltoken t;
	char name[SP_ENROLTOKEN_NAME_MAX + 16];
	char clause[SP_WHY_MAX];
	int err = sp_enroltoken_parse(text, strlen(text), &t, clause, sizeof(clause));
	if (err) {
		snprintf(why, cap, "the token: %s", clause);
		return err;
	}
	sodium_memzero(t.secret, sizeof(t.secret));
	snprintf(name, sizeof(name), "%s/%d", cfg->node, (int)cfg->worker);
	if (!strcmp(name, t.node))
		return 0;
	snprintf(why, cap,
		 "the token is for %s, but node and worker in the config say %s; change "
		 "one of them",
		 t.node, name);
	return SP_E_CONFIG;
}

static int check_fresh(const struct wrk_config *cfg, char *why, size_t cap)
{
	struct sp_enrolled e;
	int err = sp_enrolled_load(cfg->control.folder, &e, why, cap);
	if (err == -ENOENT)
		return 0;
	if (!err)
		snprintf(why, cap,
			 "control.folder: %s was enrolled as %s already; use another "
			 "folder, or remove that one",
			 cfg->control.folder, e.name);
	return err ? err : -EEXIST;
}

// The one that is there from an attempt that came so far must be the same.
static int keep_route(const char *path, const uint8_t *route, char *why, size_t cap)
{
	uint8_t there[32];
	if (access(path, F_OK))
		return sp_key_save(path, SP_KEY_ROUTE, true, route, why, cap);
	int err = sp_key_load(path, SP_KEY_ROUTE, true, there, why, cap);
	if (!err && sodium_memcmp(there, route, sizeof(there))) {
		snprintf(why, cap, "%s is another fleet's; remove it", path);
		err = -EEXIST;
	}
	sodium_memzero(there, sizeof(there));
	return err;
}

static int join(const struct wrk_config *cfg, const char *token,
		const struct sp_bus_keys *control, const uint8_t *static_public,
		char *why, size_t cap)
{
	struct sp_enrolled e;
	uint8_t route[32];
	char path[FILE_NAME_MAX], program[96];
	snprintf(program, sizeof(program), "sallyport-worker %s", sp_version());
	struct sp_enrol_request req = {.token = token,
				       .program = program,
				       .control = control,
				       .own_public = static_public};
	int err = sp_enrol_run(&req, &e, route, why, cap);
	if (!err && sodium_is_zero(route, sizeof(route))) {
		snprintf(why, cap,
			 "the controller gave no route key; is the token one "
			 "for a worker?");
		err = SP_E_PROTOCOL;
	}
	if (!err)
		err = keep_route(at(cfg, "route.key", path), route, why, cap);
	sodium_memzero(route, sizeof(route));
	// Last: with it the folder is an enrolled worker's.
	return err ? err : sp_enrolled_save(cfg->control.folder, &e, why, cap);
}

int wrk_enrol(const struct wrk_config *cfg, const char *token, char *why, size_t cap)
{
	struct sp_bus_keys control = {0};
	uint8_t secret[32] = {0}, pub[32];
	char path[FILE_NAME_MAX];
	uid_t uid;
	gid_t gid;
	if (!cfg->control.folder) {
		snprintf(why, cap,
			 "the config has no control.folder to enrol into; "
			 "name one instead of config");
		return SP_E_CONFIG;
	}
	int err = check_token(cfg, token, why, cap);
	if (!err)
		err = check_fresh(cfg, why, cap);
	if (!err)
		err = make_folders(cfg, &uid, &gid, why, cap);
	if (!err)
		err = keep_key(at(cfg, "static.key", path), SP_KEY_WORKER, secret, why,
			       cap);
	if (!err)
		err = keep_key(at(cfg, "agent/control.key", path), SP_KEY_CONTROL,
			       control.secret_key, why, cap);
	if (!err && chown(path, uid, gid)) {
		err = -errno;
		snprintf(why, cap, "%s: cannot give it to its user: %s", path,
			 sp_strerror(err));
	}
	if (!err && (crypto_scalarmult_base(pub, secret) ||
		     crypto_scalarmult_base(control.public_key, control.secret_key))) {
		snprintf(why, cap, "the keys could not be made");
		err = SP_E_CRYPTO;
	}
	if (!err)
		err = join(cfg, token, &control, pub, why, cap);
	sodium_memzero(&control, sizeof(control));
	sodium_memzero(secret, sizeof(secret));
	return err;
}
