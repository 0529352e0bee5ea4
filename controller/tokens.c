#include "controller/tokens.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "lib/fleet.h"
#include "lib/text.h"

#define PREFIX       "spt_"
#define SECRET_BYTES 32
#define HASH_BYTES   32
#define ID_BYTES     8

static void hash_text(const char *text, uint8_t *ret)
{
	crypto_generichash(ret, HASH_BYTES, (const uint8_t *)text, strlen(text), NULL, 0);
}

static void key_of(const uint8_t *hash, char *ret_key, char *ret_id)
{
	char id[CON_TOKEN_ID_MAX];
	sp_hex_encode(hash, ID_BYTES, id, sizeof(id));
	snprintf(ret_key, SP_STATE_KEY_MAX + 1, "token/%s", id);
	if (ret_id)
		memcpy(ret_id, id, sizeof(id));
}

int con_token_make(const char *user, uint64_t created_s, uint64_t expires_s,
		   struct sp_changes *changes, char *ret_text, char *ret_id)
{
	uint8_t secret[SECRET_BYTES], hash[HASH_BYTES];
	char key[SP_STATE_KEY_MAX + 1], hex[2 * HASH_BYTES + 1];
	if (!sp_fleet_name_is_valid(user))
		return SP_E_MALFORMED;
	randombytes_buf(secret, sizeof(secret));
	memcpy(ret_text, PREFIX, strlen(PREFIX));
	sodium_bin2base64(ret_text + strlen(PREFIX), CON_TOKEN_TEXT_MAX - strlen(PREFIX),
			  secret, sizeof(secret),
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	sodium_memzero(secret, sizeof(secret));
	hash_text(ret_text, hash);
	key_of(hash, key, ret_id);
	json_t *o = json_pack("{s:s, s:s, s:I}", "user", user, "hash",
			      sp_hex_encode(hash, sizeof(hash), hex, sizeof(hex)),
			      "created", (json_int_t)created_s);
	int err = o ? 0 : -ENOMEM;
	if (!err && expires_s &&
	    json_object_set_new(o, "expires", json_integer((json_int_t)expires_s)))
		err = -ENOMEM;
	if (!err)
		err = sp_changes_add(changes, key, o);
	json_decref(o);
	return err;
}

bool con_token_find(const struct sp_state *state, const char *text, uint64_t now_s,
		    char *ret_user, char *ret_id)
{
	uint8_t hash[HASH_BYTES], kept[HASH_BYTES] = {0};
	char key[SP_STATE_KEY_MAX + 1];
	hash_text(text, hash);
	key_of(hash, key, ret_id);
	json_t *o = sp_state_get_object(state, key);
	const char *hex = json_string_value(json_object_get(o, "hash"));
	const char *user = json_string_value(json_object_get(o, "user"));
	json_int_t expires = json_integer_value(json_object_get(o, "expires"));
	bool found = hex && user && strlen(user) <= SP_PASS_USER_MAX &&
		     sp_hex_decode(hex, strlen(hex), kept, sizeof(kept)) == 0;
	found = sodium_memcmp(hash, kept, sizeof(kept)) == 0 && found;
	if (found && expires && now_s >= (uint64_t)expires)
		found = false;
	if (found)
		memcpy(ret_user, user, strlen(user) + 1);
	json_decref(o);
	return found;
}
