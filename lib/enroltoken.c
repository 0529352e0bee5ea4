#include "lib/enroltoken.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "lib/state.h"
#include "lib/text.h"

#define PREFIX   "sallyport-enrol:"
#define JSON_MAX (SP_ENROLTOKEN_TEXT_MAX * 3 / 4)
#define BASE64   sodium_base64_VARIANT_URLSAFE_NO_PADDING

static const struct {
	const char *key;
	size_t at, cap;
} texts[] = {
#define TEXT(name_)                                                                      \
	{                                                                                \
#name_, offsetof(struct sp_enroltoken, name_),                           \
			sizeof(((struct sp_enroltoken *)NULL)->name_)                    \
	}
	TEXT(node),
	TEXT(enrol),
	TEXT(router),
	TEXT(publisher),
#undef TEXT
};
#define N_TEXTS (sizeof(texts) / sizeof(texts[0]))

int sp_enroltoken_format(const struct sp_enroltoken *t, char *buf)
{
	char hex[2 * SP_BUS_KEY_BYTES + 1], json[JSON_MAX];
	char secret[sodium_base64_ENCODED_LEN(SP_ENROLTOKEN_SECRET_BYTES, BASE64)];
	int err = -ENOMEM;

	sodium_bin2base64(secret, sizeof(secret), t->secret, sizeof(t->secret), BASE64);
	json_t *o = json_pack(
		"{s:s, s:s}", "controller",
		sp_hex_encode(t->controller_key, SP_BUS_KEY_BYTES, hex, sizeof(hex)),
		"secret", secret);
	for (size_t i = 0; o && i < N_TEXTS; i++)
		if (json_object_set_new(o, texts[i].key,
					json_string((const char *)t + texts[i].at)))
			goto out;
	if (!o)
		goto out;
	size_t n = json_dumpb(o, json, sizeof(json), JSON_COMPACT | JSON_SORT_KEYS);
	err = SP_E_LIMIT;
	if (n == 0 || n > sizeof(json) ||
	    strlen(PREFIX) + sodium_base64_encoded_len(n, BASE64) >
		    SP_ENROLTOKEN_TEXT_MAX)
		goto out;
	memcpy(buf, PREFIX, strlen(PREFIX));
	sodium_bin2base64(buf + strlen(PREFIX), SP_ENROLTOKEN_TEXT_MAX - strlen(PREFIX),
			  (const uint8_t *)json, n, BASE64);
	err = 0;
out:
	sodium_memzero(secret, sizeof(secret));
	sodium_memzero(json, sizeof(json));
	json_decref(o);
	return err;
}

// ---- reading ----

static bool is_plain(const char *s)
{
	for (; *s; s++)
		if (!isgraph((unsigned char)*s))
			return false;
	return true;
}

// A word of a state key (lib/state.h), once with "/N" behind it.
static bool is_name(const char *s)
{
	const char *slash = strchr(s, '/');
	return sp_state_key_is_valid(s) && (!slash || !strchr(slash + 1, '/'));
}

static bool take_text(const json_t *o, size_t i, struct sp_enroltoken *t)
{
	const char *s = json_string_value(json_object_get(o, texts[i].key));
	if (!s || !*s || strlen(s) >= texts[i].cap || !is_plain(s))
		return false;
	memcpy((char *)t + texts[i].at, s, strlen(s) + 1);
	return true;
}

static const char *take_all(const json_t *o, struct sp_enroltoken *t)
{
	const char *key = json_string_value(json_object_get(o, "controller"));
	const char *secret = json_string_value(json_object_get(o, "secret"));
	size_t n = 0;

	for (size_t i = 0; i < N_TEXTS; i++)
		if (!take_text(o, i, t))
			return "it does not say who may join where";
	if (!is_name(t->node))
		return "it is for a name that is none";
	if (!key || sp_hex_decode(key, strlen(key), t->controller_key, SP_BUS_KEY_BYTES))
		return "the controller's key is damaged";
	if (!secret ||
	    sodium_base642bin(t->secret, sizeof(t->secret), secret, strlen(secret), NULL,
			      &n, NULL, BASE64) ||
	    n != sizeof(t->secret))
		return "its secret is damaged";
	return NULL;
}

// Of the text without white space.
static const char *parse(const char *text, size_t len, struct sp_enroltoken *t)
{
	uint8_t json[JSON_MAX];
	size_t n = 0, prefix = strlen(PREFIX);
	const char *wrong = "it is cut off or damaged";

	if (len < prefix || memcmp(text, PREFIX, prefix) != 0)
		return "not a token; one begins with " PREFIX;
	if (len < SP_ENROLTOKEN_TEXT_MAX &&
	    sodium_base642bin(json, sizeof(json), text + prefix, len - prefix, NULL, &n,
			      NULL, BASE64) == 0) {
		json_t *o = json_loadb((char *)json, n, JSON_REJECT_DUPLICATES, NULL);
		if (json_is_object(o))
			wrong = take_all(o, t);
		json_decref(o);
	}
	sodium_memzero(json, sizeof(json));
	return wrong;
}

int sp_enroltoken_parse(const char *text, size_t len, struct sp_enroltoken *ret,
			char *why, size_t cap)
{
	struct sp_enroltoken t = {0};

	while (len && isspace((unsigned char)*text))
		text++, len--;
	while (len && isspace((unsigned char)text[len - 1]))
		len--;
	const char *wrong = parse(text, len, &t);
	if (!wrong)
		*ret = t;
	else if (cap)
		snprintf(why, cap, "%s", wrong);
	sodium_memzero(&t, sizeof(t));
	return wrong ? SP_E_MALFORMED : 0;
}

bool sp_enroltoken_is_worker(const struct sp_enroltoken *t)
{
	return strchr(t->node, '/') != NULL;
}
