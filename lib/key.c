#include "lib/key.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "lib/file.h"
#include "lib/text.h"

#define PREFIX "sallyport-"

static const struct {
	const char *word;
	size_t public_bytes; // 0: has no public half
	size_t secret_bytes;
} kinds[] = {
	[SP_KEY_SIGNING] = {"signing", 32, 64}, [SP_KEY_WORKER] = {"worker", 32, 32},
	[SP_KEY_DEVICE] = {"device", 32, 32},   [SP_KEY_ROUTE] = {"route", 0, 32},
	[SP_KEY_CONTROL] = {"control", 32, 32},
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

const char *sp_key_kind_word(enum sp_key_kind kind)
{
	return kinds[kind].word;
}

size_t sp_key_bytes(enum sp_key_kind kind, bool secret)
{
	return secret ? kinds[kind].secret_bytes : kinds[kind].public_bytes;
}

static const char *half(bool secret)
{
	return secret ? "secret" : "public";
}

char *sp_key_format(enum sp_key_kind kind, bool secret, const uint8_t *key, char *buf)
{
	int n = snprintf(buf, SP_KEY_TEXT_MAX, PREFIX "%s-%s:", kinds[kind].word,
			 half(secret));
	sp_base64_encode(key, sp_key_bytes(kind, secret), buf + n,
			 SP_KEY_TEXT_MAX - (size_t)n);
	return buf;
}

// Says what the text is, if it is a key of some kind, else that it is none.
static void explain(enum sp_key_kind kind, bool secret, const char *text, size_t len,
		    char *why, size_t cap)
{
	char prefix[SP_KEY_TEXT_MAX];

	for (size_t k = 0; k < N_KINDS; k++) {
		for (int s = 0; s < 2; s++) {
			int n = snprintf(prefix, sizeof(prefix),
					 PREFIX "%s-%s:", kinds[k].word, half(s));
			if (len < (size_t)n || memcmp(text, prefix, (size_t)n))
				continue;
			if (k == (size_t)kind && s == secret)
				snprintf(why, cap, "the %s %s key is damaged", half(s),
					 kinds[k].word);
			else
				snprintf(why, cap,
					 "this is a %s %s key; a %s %s key is needed",
					 half(s), kinds[k].word, half(secret),
					 kinds[kind].word);
			return;
		}
	}
	snprintf(why, cap, "not a key; a line " PREFIX "%s-%s:... is needed",
		 kinds[kind].word, half(secret));
}

int sp_key_parse(enum sp_key_kind kind, bool secret, const char *text, size_t len,
		 uint8_t *ret, char *why, size_t cap)
{
	uint8_t key[SP_KEY_BYTES_MAX];
	char prefix[SP_KEY_TEXT_MAX];
	size_t got, want = sp_key_bytes(kind, secret);
	int err = SP_E_MALFORMED;

	while (len && isspace((unsigned char)*text))
		text++, len--;
	while (len && isspace((unsigned char)text[len - 1]))
		len--;
	int n = snprintf(prefix, sizeof(prefix), PREFIX "%s-%s:", kinds[kind].word,
			 half(secret));
	if (want && len > (size_t)n && memcmp(text, prefix, (size_t)n) == 0 &&
	    sp_base64_decode(text + n, len - (size_t)n, key, sizeof(key), &got) == 0 &&
	    got == want) {
		memcpy(ret, key, want);
		err = 0;
	} else {
		explain(kind, secret, text, len, why, cap);
	}
	sodium_memzero(key, sizeof(key));
	return err;
}

int sp_key_load(const char *path, enum sp_key_kind kind, bool secret, uint8_t *ret,
		char *why, size_t cap)
{
	struct sp_file_read opt = {.max = 4096, .secret = secret};
	char text[SP_WHY_MAX];
	uint8_t *buf, key[SP_KEY_BYTES_MAX];
	size_t len;
	int refused = sp_file_read(path, &opt, &buf, &len, why, cap);

	// Of a file that others may read, say first if it is another key than is needed:
	// a public one is not to be made private.
	if (refused == -EPERM) {
		opt.secret = false;
		if (sp_file_read(path, &opt, &buf, &len, NULL, 0))
			return refused;
	} else if (refused) {
		return refused;
	}
	int err = sp_key_parse(kind, secret, (const char *)buf, len, key, text,
			       sizeof(text));
	if (err)
		snprintf(why, cap, "%s: %s", path, text);
	else if (!refused)
		memcpy(ret, key, sp_key_bytes(kind, secret));
	sodium_memzero(key, sizeof(key));
	sp_file_free(buf, len);
	return err ? err : refused;
}

int sp_key_save(const char *path, enum sp_key_kind kind, bool secret, const uint8_t *key,
		char *why, size_t cap)
{
	char text[SP_KEY_TEXT_MAX];

	sp_key_format(kind, secret, key, text);
	size_t len = strlen(text);
	text[len++] = '\n';
	int err = sp_file_create(path, text, len, secret ? 0600 : 0644, why, cap);
	sodium_memzero(text, sizeof(text));
	return err;
}
