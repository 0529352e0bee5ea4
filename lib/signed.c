#include "lib/signed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/wire.h"

#define MAGIC      "SPB1"
#define CONTEXT    "sallyport signed blob v1"
#define TEXT_MAGIC "sallyport-signed 1 "
#define SIG_BYTES  crypto_sign_BYTES
#define SIG_BASE64 88 // characters of SIG_BYTES in base64 with padding
#define VARIANT    sodium_base64_VARIANT_ORIGINAL

_Static_assert(SP_SIGNED_SECRET_BYTES == crypto_sign_SECRETKEYBYTES,
	       "libsodium's secret key");
_Static_assert(SP_SIGNED_OVERHEAD == 4 + 1 + SP_SIGNED_KEY_ID_BYTES + 4 + SIG_BYTES,
	       "layout of the binary form");

const char *sp_signed_kind_word(enum sp_signed_kind kind)
{
	switch (kind) {
	case SP_SIGNED_PASS:
		return "pass";
	case SP_SIGNED_WORKER_CONFIG:
		return "worker-config";
	case SP_SIGNED_CLIENT_CONFIG:
		return "client-config";
	case SP_SIGNED_REVISION:
		return "revision";
	case SP_SIGNED_SNAPSHOT:
		return "snapshot";
	}
	return "unknown";
}

static size_t body_max(enum sp_signed_kind kind)
{
	return kind == SP_SIGNED_SNAPSHOT ? SP_SIGNED_SNAPSHOT_MAX : SP_SIGNED_BODY_MAX;
}

void sp_signed_key_id(const uint8_t *public_key, uint8_t *ret_id)
{
	uint8_t hash[32];

	crypto_generichash(hash, sizeof(hash), public_key, SP_SIGNED_PUBLIC_BYTES, NULL,
			   0);
	memcpy(ret_id, hash, SP_SIGNED_KEY_ID_BYTES);
}

static const uint8_t *find_key(const struct sp_signed_keys *keys, const uint8_t *id)
{
	for (unsigned i = 0; i < keys->n; i++)
		if (!memcmp(keys->key[i].id, id, SP_SIGNED_KEY_ID_BYTES))
			return keys->key[i].public_key;
	return NULL;
}

int sp_signed_keys_add(struct sp_signed_keys *keys, const uint8_t *public_key)
{
	uint8_t id[SP_SIGNED_KEY_ID_BYTES];
	const uint8_t *same;

	if (!crypto_core_ed25519_is_valid_point(public_key))
		return SP_E_MALFORMED;
	sp_signed_key_id(public_key, id);
	same = find_key(keys, id);
	if (same)
		return memcmp(same, public_key, SP_SIGNED_PUBLIC_BYTES) ? SP_E_MALFORMED
									: 0;
	if (keys->n == SP_SIGNED_KEYS_MAX)
		return SP_E_LIMIT;
	memcpy(keys->key[keys->n].id, id, sizeof(id));
	memcpy(keys->key[keys->n].public_key, public_key, SP_SIGNED_PUBLIC_BYTES);
	keys->n++;
	return 0;
}

// What the signature is over, on the heap; NULL without memory.
static uint8_t *make_message(enum sp_signed_kind kind, const void *body, size_t body_len,
			     size_t *ret_len)
{
	size_t head = sizeof(CONTEXT) - 1;
	uint8_t *m = malloc(head + 1 + body_len);

	if (!m)
		return NULL;
	memcpy(m, CONTEXT, head);
	m[head] = (uint8_t)kind;
	if (body_len)
		memcpy(m + head + 1, body, body_len);
	*ret_len = head + 1 + body_len;
	return m;
}

static int sign(enum sp_signed_kind kind, const uint8_t *secret, const void *body,
		size_t body_len, uint8_t *ret_id, uint8_t *ret_sig)
{
	uint8_t *message;
	size_t len;

	if (body_len > body_max(kind))
		return SP_E_LIMIT;
	message = make_message(kind, body, body_len, &len);
	if (!message)
		return -ENOMEM;
	crypto_sign_detached(ret_sig, NULL, message, len, secret);
	free(message);
	sp_signed_key_id(secret + 32, ret_id);
	return 0;
}

int sp_signed_seal(enum sp_signed_kind kind, const uint8_t *secret, const void *body,
		   size_t body_len, uint8_t *out, size_t cap)
{
	uint8_t id[SP_SIGNED_KEY_ID_BYTES], sig[SIG_BYTES];
	struct sp_writer w;
	int err;

	if (body_len > SP_SIGNED_BODY_MAX || body_len + SP_SIGNED_OVERHEAD > cap)
		return SP_E_LIMIT;
	err = sign(kind, secret, body, body_len, id, sig);
	if (err)
		return err;
	sp_writer_init(&w, out, cap);
	sp_put_bytes(&w, MAGIC, 4);
	sp_put_u8(&w, (uint8_t)kind);
	sp_put_bytes(&w, id, sizeof(id));
	sp_put_u32(&w, (uint32_t)body_len);
	sp_put_bytes(&w, body, body_len);
	sp_put_bytes(&w, sig, sizeof(sig));
	return w.err ? w.err : (int)sp_writer_len(&w);
}

int sp_signed_seal_text(enum sp_signed_kind kind, const uint8_t *secret, const void *body,
			size_t body_len, char *out, size_t cap)
{
	uint8_t id[SP_SIGNED_KEY_ID_BYTES], sig[SIG_BYTES];
	char id_hex[2 * sizeof(id) + 1], sig_text[SIG_BASE64 + 1];
	const char *word = sp_signed_kind_word(kind);
	struct sp_writer w;
	int err;

	err = sign(kind, secret, body, body_len, id, sig);
	if (err)
		return err;
	sodium_bin2hex(id_hex, sizeof(id_hex), id, sizeof(id));
	sodium_bin2base64(sig_text, sizeof(sig_text), sig, sizeof(sig), VARIANT);
	sp_writer_init(&w, out, cap);
	sp_put_bytes(&w, TEXT_MAGIC, strlen(TEXT_MAGIC));
	sp_put_bytes(&w, word, strlen(word));
	sp_put_u8(&w, ' ');
	sp_put_bytes(&w, id_hex, strlen(id_hex));
	sp_put_u8(&w, ' ');
	sp_put_bytes(&w, sig_text, strlen(sig_text));
	sp_put_u8(&w, '\n');
	sp_put_bytes(&w, body, body_len);
	return w.err ? w.err : (int)sp_writer_len(&w);
}

static int parse_binary(const uint8_t *buf, size_t len, struct sp_signed_view *ret,
			uint8_t *ret_sig)
{
	struct sp_reader r;
	const uint8_t *magic;
	uint32_t body_len;

	sp_reader_init(&r, buf, len);
	magic = sp_get_bytes(&r, 4);
	ret->kind = (enum sp_signed_kind)sp_get_u8(&r);
	sp_get_copy(&r, ret->key_id, sizeof(ret->key_id));
	body_len = sp_get_u32(&r);
	if (!magic || memcmp(magic, MAGIC, 4) || body_len > SP_SIGNED_BODY_MAX)
		return SP_E_MALFORMED;
	ret->body = sp_get_bytes(&r, body_len);
	ret->body_len = body_len;
	sp_get_copy(&r, ret_sig, SIG_BYTES);
	return sp_reader_finish(&r) ? SP_E_MALFORMED : 0;
}

// Steps over the word `text` and one separator; false if it is not there.
static bool skip(const char **p, const char *end, const char *text, char separator)
{
	size_t len = strlen(text);

	if ((size_t)(end - *p) <= len || memcmp(*p, text, len) || (*p)[len] != separator)
		return false;
	*p += len + 1;
	return true;
}

static bool parse_kind(const char **p, const char *end, enum sp_signed_kind *ret)
{
	static const enum sp_signed_kind kinds[] = {
		SP_SIGNED_PASS, SP_SIGNED_WORKER_CONFIG, SP_SIGNED_CLIENT_CONFIG,
		SP_SIGNED_REVISION, SP_SIGNED_SNAPSHOT};

	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (skip(p, end, sp_signed_kind_word(kinds[i]), ' ')) {
			*ret = kinds[i];
			return true;
		}
	}
	return false;
}

// Both compare with what they would write themselves, so that one blob has one text:
// libsodium 1.0.18 takes upper case, and base64 digits with their high bit set.
static int parse_hex(const char *p, uint8_t *ret_id)
{
	char again[2 * SP_SIGNED_KEY_ID_BYTES + 1];
	size_t got;

	if (sodium_hex2bin(ret_id, SP_SIGNED_KEY_ID_BYTES, p, 2 * SP_SIGNED_KEY_ID_BYTES,
			   NULL, &got, NULL) ||
	    got != SP_SIGNED_KEY_ID_BYTES)
		return SP_E_MALFORMED;
	sodium_bin2hex(again, sizeof(again), ret_id, SP_SIGNED_KEY_ID_BYTES);
	return memcmp(again, p, sizeof(again) - 1) ? SP_E_MALFORMED : 0;
}

static int parse_base64(const char *p, uint8_t *ret_sig)
{
	char again[SIG_BASE64 + 1];
	size_t got;

	if (sodium_base642bin(ret_sig, SIG_BYTES, p, SIG_BASE64, NULL, &got, NULL,
			      VARIANT) ||
	    got != SIG_BYTES)
		return SP_E_MALFORMED;
	sodium_bin2base64(again, sizeof(again), ret_sig, SIG_BYTES, VARIANT);
	return memcmp(again, p, SIG_BASE64) ? SP_E_MALFORMED : 0;
}

static int parse_text(const uint8_t *buf, size_t len, struct sp_signed_view *ret,
		      uint8_t *ret_sig)
{
	const char *p = (const char *)buf, *end;
	size_t line = len < SP_SIGNED_LINE_MAX ? len : SP_SIGNED_LINE_MAX;

	end = line ? memchr(p, '\n', line) : NULL;
	if (!end)
		return SP_E_MALFORMED;
	end++;
	if (!skip(&p, end, "sallyport-signed", ' ') || !skip(&p, end, "1", ' ') ||
	    !parse_kind(&p, end, &ret->kind) ||
	    (size_t)(end - p) != 2 * SP_SIGNED_KEY_ID_BYTES + 1 + SIG_BASE64 + 1 ||
	    p[2 * SP_SIGNED_KEY_ID_BYTES] != ' ')
		return SP_E_MALFORMED;
	if (parse_hex(p, ret->key_id) ||
	    parse_base64(p + 2 * SP_SIGNED_KEY_ID_BYTES + 1, ret_sig))
		return SP_E_MALFORMED;
	ret->body = (const uint8_t *)end;
	ret->body_len = len - (size_t)(ret->body - buf);
	return ret->body_len > body_max(ret->kind) ? SP_E_MALFORMED : 0;
}

static int verify(const struct sp_signed_keys *keys, enum sp_signed_kind kind,
		  const struct sp_signed_view *view, const uint8_t *sig)
{
	const uint8_t *public_key;
	uint8_t *message;
	size_t len;
	int bad;

	if (view->kind != kind)
		return SP_E_MALFORMED;
	public_key = find_key(keys, view->key_id);
	if (!public_key)
		return SP_E_KEY;
	message = make_message(kind, view->body, view->body_len, &len);
	if (!message)
		return -ENOMEM;
	bad = crypto_sign_verify_detached(sig, message, len, public_key);
	free(message);
	return bad ? SP_E_SIGNATURE : 0;
}

int sp_signed_open(const struct sp_signed_keys *keys, enum sp_signed_kind kind,
		   const void *buf, size_t len, struct sp_signed_view *ret)
{
	struct sp_signed_view view;
	uint8_t sig[SIG_BYTES];
	int err = parse_binary(buf, len, &view, sig);

	if (!err)
		err = verify(keys, kind, &view, sig);
	if (!err)
		*ret = view;
	return err;
}

int sp_signed_open_text(const struct sp_signed_keys *keys, enum sp_signed_kind kind,
			const void *buf, size_t len, struct sp_signed_view *ret)
{
	struct sp_signed_view view;
	uint8_t sig[SIG_BYTES];
	int err = parse_text(buf, len, &view, sig);

	if (!err)
		err = verify(keys, kind, &view, sig);
	if (!err)
		*ret = view;
	return err;
}

int sp_signed_peek(const void *buf, size_t len, struct sp_signed_view *ret)
{
	struct sp_signed_view view;
	uint8_t sig[SIG_BYTES];
	int err = parse_binary(buf, len, &view, sig);

	if (err)
		err = parse_text(buf, len, &view, sig);
	if (!err)
		*ret = view;
	return err;
}
