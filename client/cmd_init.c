// init, --check, --dump-config, --reference: what is done with files and no network.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include <sodium.h>

#include "client/commands.h"
#include "client/config.h"
#include "client/identity.h"
#include "lib/file.h"
#include "lib/key.h"

static int complain(const char *why, int status)
{
	fprintf(stderr, "sallyport: %s\n", why);
	return status;
}

// The folders above `path`, as mkdir -p.
static int make_folders(const char *path)
{
	char dir[4096];
	size_t len = strlen(path);
	if (len >= sizeof(dir))
		return -ENAMETOOLONG;
	memcpy(dir, path, len + 1);
	for (char *p = dir + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		if (mkdir(dir, 0700) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return 0;
}

static int write_default(const char *path, char *why, size_t cap)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	if (!f)
		return -ENOMEM;
	int err = sp_conf_write_default(&cli_config_table, f);
	if (fclose(f) || err) {
		free(text);
		return -ENOMEM;
	}
	err = make_folders(path);
	if (err)
		snprintf(why, cap, "%s: %s", path, strerror(-err));
	else
		err = sp_file_create(path, text, len, 0600, why, cap);
	free(text);
	return err;
}

// The device key beside the config file, unless there is one.
static int make_device_key(const char *config, char *path, size_t path_cap,
			   uint8_t *ret_public, char *why, size_t cap)
{
	uint8_t secret[32];
	const char *slash = strrchr(config, '/');
	int dir = slash ? (int)(slash - config) + 1 : 0;
	snprintf(path, path_cap, "%.*sdevice.key", dir, config);
	int err = access(path, F_OK) == 0
			  ? sp_key_load(path, SP_KEY_DEVICE, true, secret, why, cap)
			  : -ENOENT;
	if (err == -ENOENT) {
		randombytes_buf(secret, sizeof(secret));
		err = sp_key_save(path, SP_KEY_DEVICE, true, secret, why, cap);
	}
	if (!err)
		crypto_scalarmult_base(ret_public, secret);
	sodium_memzero(secret, sizeof(secret));
	return err;
}

// Whether the config that is there fetches its pass from an endpoint.
static bool has_endpoint(const char *path)
{
	struct sp_conf_errors errs = {0};
	struct cli_config *cfg = sp_conf_load(&cli_config_table, path, &errs);
	bool has = cfg && cfg->endpoints.n && cfg->token;
	cli_config_free(cfg);
	return has;
}

static void say_next(const char *config, const uint8_t *public_key)
{
	char text[SP_KEY_TEXT_MAX];
	const char *shown = sp_key_format(SP_KEY_DEVICE, false, public_key, text);
	if (has_endpoint(config))
		printf("this device's public key, which nobody has to be given: the "
		       "endpoint makes\npasses for it by the token.\n%s\n\n",
		       shown);
	else
		printf("this device's public key:\n%s\n\nwith endpoints: set in %s "
		       "what the operator gives you, keys.fleet,\nendpoints and token; "
		       "nobody needs the key.\nwithout: give the operator the key, and "
		       "set what comes back: keys.fleet, pass\nand exits.\n",
		       shown, config);
	printf("then: sallyport -c %s --check && sallyport -c %s up\n", config, config);
}

int cli_cmd_init(const struct cli_args *args)
{
	char why[SP_WHY_MAX] = "out of memory", key[4096];
	uint8_t public_key[32];
	int err = write_default(args->config, why, sizeof(why));
	if (err && err != -EEXIST)
		return complain(why, EX_CANTCREAT);
	printf(err ? "kept  %s\n" : "wrote %s\n", args->config);
	err = make_device_key(args->config, key, sizeof(key), public_key, why,
			      sizeof(why));
	if (err)
		return complain(why, EX_CANTCREAT);
	printf("key   %s\n\n", key);
	say_next(args->config, public_key);
	return EX_OK;
}

int cli_cmd_check(const struct cli_args *args)
{
	struct cli_config *cfg = cli_config_load(args->config);
	struct cli_identity id;
	char why[SP_WHY_MAX];
	if (!cfg)
		return EX_CONFIG;
	int err = cli_identity_load(cfg, false, &id, why, sizeof(why));
	cli_config_free(cfg);
	if (err == -ENOENT) {
		printf("%s: good; %s\n", args->config, why);
		return EX_OK;
	}
	if (err)
		return cli_config_refuse(args->config, why);
	const struct sp_fleet_revision *r = &id.exits->fleet->revision;
	printf("%s: good; %u exits of revision %u.%llu, pass for tier %s\n", args->config,
	       id.exits->n, r->epoch, (unsigned long long)r->sequence, id.pass.tier);
	if (id.exits->n < id.exits->fleet->n_exits)
		printf("only the first %u of %zu exits are used\n", id.exits->n,
		       id.exits->fleet->n_exits);
	cli_identity_done(&id);
	return EX_OK;
}

int cli_cmd_dump(const struct cli_args *args)
{
	struct cli_config *cfg = cli_config_load(args->config);
	if (!cfg)
		return EX_CONFIG;
	int err = sp_conf_dump(&cli_config_table, cfg, stdout);
	cli_config_free(cfg);
	return err ? EX_IOERR : EX_OK;
}

int cli_cmd_reference(const struct cli_args *args)
{
	(void)args;
	return sp_conf_write_reference(&cli_config_table, SP_CONF_MDOC, stdout) ? EX_IOERR
										: EX_OK;
}
