#include "lib/trusted.h"

#include <stdio.h>
#include <string.h>

#include "lib/file.h"
#include "lib/key.h"

static int load(const char *entry, struct sp_signed_keys *ret, char *why, size_t cap)
{
	uint8_t key[SP_SIGNED_PUBLIC_BYTES];
	int err = strncmp(entry, "sallyport-", 10)
			  ? sp_key_load(entry, SP_KEY_SIGNING, false, key, why, cap)
			  : sp_key_parse(SP_KEY_SIGNING, false, entry, strlen(entry), key,
					 why, cap);
	if (err)
		return err;
	err = sp_signed_keys_add(ret, key);
	if (err == SP_E_LIMIT)
		snprintf(why, cap, "more than %d keys", SP_SIGNED_KEYS_MAX);
	else if (err)
		snprintf(why, cap, "not a valid key");
	return err;
}

int sp_trusted_load(const char *name, const char *want,
		    const struct sp_conf_strings *list, struct sp_signed_keys *ret,
		    char *why, size_t cap)
{
	char text[SP_WHY_MAX];
	for (size_t i = 0; i < list->n; i++) {
		if (load(list->v[i], ret, text, sizeof(text)) == 0)
			continue;
		snprintf(why, cap, "%s: entry %zu: %s; want %s", name, i + 1, text, want);
		return SP_E_CONFIG;
	}
	return 0;
}
