#include "healthcheck/join.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include <sodium.h>

#include "healthcheck/config.h"
#include "lib/enrol.h"
#include "lib/enroltoken.h"
#include "lib/file.h"
#include "lib/key.h"
#include "lib/version.h"

static int complain(const char *why, int status)
{
	fprintf(stderr, "sallyport-healthcheck: %s\n", why);
	return status;
}

int hck_init(const char *config)
{
	char *text = NULL, why[SP_WHY_MAX];
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	if (!f)
		return EX_OSERR;
	int err = sp_conf_write_default(&hck_config_table, f);
	if (fclose(f) || err) {
		free(text);
		return EX_OSERR;
	}
	err = sp_file_create(config, text, len, 0640, why, sizeof(why));
	free(text);
	if (err)
		return complain(why, EX_CANTCREAT);
	printf("wrote %s; edit it, then: sallyport-healthcheck -c %s enroll TOKEN\n",
	       config, config);
	return EX_OK;
}

// The key of the folder, made if there is none. 0, both halves; an error and `why`.
static int own_key(const char *folder, const char *name, enum sp_key_kind kind,
		   uint8_t *ret_secret, uint8_t *ret_public, char *why, size_t cap)
{
	char path[4200];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	int err = access(path, F_OK) == 0
			  ? sp_key_load(path, kind, true, ret_secret, why, cap)
			  : -ENOENT;
	if (err == -ENOENT) {
		randombytes_buf(ret_secret, 32);
		err = sp_key_save(path, kind, true, ret_secret, why, cap);
	}
	if (!err && crypto_scalarmult_base(ret_public, ret_secret))
		err = SP_E_CRYPTO;
	return err;
}

static int join(const char *folder, const char *token, char *why, size_t cap)
{
	struct sp_bus_keys control;
	uint8_t device_secret[32], device_public[32];
	char program[96];
	struct sp_enrolled e;
	snprintf(program, sizeof(program), "sallyport-healthcheck %s", sp_version());
	int err = own_key(folder, "control.key", SP_KEY_CONTROL, control.secret_key,
			  control.public_key, why, cap);
	if (!err)
		err = own_key(folder, "device.key", SP_KEY_DEVICE, device_secret,
			      device_public, why, cap);
	sodium_memzero(device_secret, sizeof(device_secret));
	struct sp_enrol_request req = {.token = token,
				       .program = program,
				       .control = &control,
				       .own_public = device_public};
	if (!err)
		err = sp_enrol_run(&req, &e, NULL, why, cap);
	sodium_memzero(&control, sizeof(control));
	if (!err)
		err = sp_enrolled_save(folder, &e, why, cap);
	return err;
}

static char *read_token(const char *token)
{
	char buf[SP_ENROLTOKEN_TEXT_MAX + 2];
	if (strcmp(token, "-") != 0)
		return strdup(token);
	return fgets(buf, sizeof(buf), stdin) ? strdup(buf) : NULL;
}

int hck_enroll(const char *config, const char *token)
{
	struct sp_conf_errors errs = {0};
	struct hck_config *cfg = sp_conf_load(&hck_config_table, config, &errs);
	char path[4200], why[SP_WHY_MAX] = "out of memory";
	if (!cfg) {
		sp_conf_errors_print(&errs, stderr);
		return EX_CONFIG;
	}
	const char *folder = cfg->control.folder;
	char *text = read_token(token);
	int err = text ? 0 : -ENOMEM;
	if (!err && mkdir(folder, 0700) < 0 && errno != EEXIST) {
		err = -errno;
		snprintf(why, sizeof(why), "%.300s: %s", folder, strerror(errno));
	}
	snprintf(path, sizeof(path), "%s/fleet.json", folder);
	if (!err && access(path, F_OK) == 0) {
		err = -EEXIST;
		snprintf(why, sizeof(why),
			 "%.300s is there: this place is enrolled; remove the folder to "
			 "begin anew",
			 path);
	}
	if (!err)
		err = join(folder, text, why, sizeof(why));
	if (!err)
		printf("enrolled; keys and fleet.json are in %s\n", folder);
	if (text)
		sodium_memzero(text, strlen(text));
	free(text);
	sp_conf_free(&hck_config_table, cfg);
	return err ? complain(why, err == SP_E_AUTH || err == -ETIMEDOUT ? EX_UNAVAILABLE
									 : EX_CANTCREAT)
		   : EX_OK;
}
