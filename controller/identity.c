#include "controller/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/file.h"
#include "lib/key.h"
#include "lib/trusted.h"

#define PASSWORD_MAX 1024

static int load_key(const char *name, const char *path, enum sp_key_kind kind,
		    uint8_t *ret, char *why, size_t cap)
{
	char text[SP_WHY_MAX];
	if (sp_key_load(path, kind, true, ret, text, sizeof(text)) == 0)
		return 0;
	snprintf(why, cap, "%s: %s; sallyportctl keys %s makes one", name, text,
		 sp_key_kind_word(kind));
	return SP_E_CONFIG;
}

static int load_password(const char *path, char **ret, char *why, size_t cap)
{
	struct sp_file_read opt = {.max = PASSWORD_MAX, .secret = true};
	char text[SP_WHY_MAX];
	uint8_t *buf;
	size_t len;
	if (!path)
		return 0;
	if (sp_file_read(path, &opt, &buf, &len, text, sizeof(text))) {
		snprintf(why, cap, "redis.password_file: %s", text);
		return SP_E_CONFIG;
	}
	while (len && (buf[len - 1] == '\n' || buf[len - 1] == '\r'))
		len--;
	*ret = len && !memchr(buf, '\0', len) ? strndup((char *)buf, len) : NULL;
	sp_file_free(buf, len);
	if (!*ret)
		snprintf(why, cap, "redis.password_file: %s: holds no password", path);
	return *ret ? 0 : SP_E_CONFIG;
}

int con_identity_load(const struct con_config *cfg, struct con_identity *ret, char *why,
		      size_t cap)
{
	struct con_identity id = {0};
	int err = load_key("keys.signing", cfg->keys.signing, SP_KEY_SIGNING, id.signing,
			   why, cap);
	if (!err)
		err = load_key("keys.control", cfg->keys.control, SP_KEY_CONTROL,
			       id.control.secret_key, why, cap);
	if (!err)
		err = load_key("keys.route", cfg->keys.route, SP_KEY_ROUTE, id.route, why,
			       cap);
	if (!err &&
	    crypto_scalarmult_base(id.control.public_key, id.control.secret_key)) {
		snprintf(why, cap, "keys.control: not a usable key");
		err = SP_E_CONFIG;
	}
	if (!err)
		err = sp_trusted_load("keys.trusted",
				      "the signing.pub of another controller",
				      &cfg->keys.trusted, &id.trusted, why, cap);
	if (!err)
		err = load_password(cfg->redis.password_file, &id.redis_password, why,
				    cap);
	if (err)
		con_identity_done(&id);
	else
		*ret = id;
	return err;
}

void con_identity_done(struct con_identity *id)
{
	if (id->redis_password)
		sodium_memzero(id->redis_password, strlen(id->redis_password));
	free(id->redis_password);
	sodium_memzero(id, sizeof(*id));
}
