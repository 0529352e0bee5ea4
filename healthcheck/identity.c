// What the state folder holds of an enrolment.
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "healthcheck/vantage.h"
#include "lib/file.h"
#include "lib/key.h"

static int load_key(const char *folder, const char *name, enum sp_key_kind kind,
		    uint8_t *ret_secret, uint8_t *ret_public, char *why, size_t cap)
{
	char path[4200], text[SP_WHY_MAX];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	if (sp_key_load(path, kind, true, ret_secret, text, sizeof(text)) ||
	    crypto_scalarmult_base(ret_public, ret_secret)) {
		snprintf(why, cap, "control.folder: %.400s", text);
		return SP_E_CONFIG;
	}
	return 0;
}

int hck_identity_load(const struct hck_config *cfg, struct hck_identity *ret, char *why,
		      size_t cap)
{
	const char *folder = cfg->control.folder;
	struct hck_identity id = {0};
	char text[SP_WHY_MAX];
	int err = sp_enrolled_load(folder, &id.enrolled, text, sizeof(text));
	if (err)
		snprintf(why, cap, "control.folder: %.400s", text);
	if (!err)
		err = load_key(folder, "control.key", SP_KEY_CONTROL,
			       id.control.secret_key, id.control.public_key, why, cap);
	if (!err)
		err = load_key(folder, "device.key", SP_KEY_DEVICE, id.device_secret,
			       id.device_public, why, cap);
	if (!err)
		*ret = id;
	sodium_memzero(&id, sizeof(id));
	return err ? SP_E_CONFIG : 0;
}

void hck_identity_done(struct hck_identity *id)
{
	sodium_memzero(id, sizeof(*id));
}
