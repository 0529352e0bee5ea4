#include "lib/revision.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/text.h"

#define JSON_FORM  (JSON_COMPACT | JSON_SORT_KEYS)
#define SALT_BYTES 16

static const uint8_t zero_hash[SP_REVISION_HASH_BYTES];

int sp_position_compare(const struct sp_position *a, const struct sp_position *b)
{
	if (a->epoch != b->epoch)
		return a->epoch < b->epoch ? -1 : 1;
	if (a->sequence != b->sequence)
		return a->sequence < b->sequence ? -1 : 1;
	return 0;
}

bool sp_position_same(const struct sp_position *a, const struct sp_position *b)
{
	return sp_position_compare(a, b) == 0 &&
	       memcmp(a->hash, b->hash, sizeof(a->hash)) == 0;
}

void sp_revision_done(struct sp_revision *r)
{
	sp_changes_done(&r->changes);
	*r = (struct sp_revision){0};
}

static void hash_text(const void *text, size_t len, uint8_t *ret)
{
	crypto_generichash(ret, SP_REVISION_HASH_BYTES, text, len, NULL, 0);
}

// ---- making ----

static json_t *hex(const uint8_t *bytes, size_t len)
{
	char text[2 * 64 + 1];
	return json_string(sp_hex_encode(bytes, len, text, sizeof(text)));
}

// Text of `o`, which is released, signed. Both kinds.
static int seal(enum sp_signed_kind kind, json_t *o, const uint8_t *secret,
		char **ret_text, size_t *ret_len)
{
	char *body = o ? json_dumps(o, JSON_FORM) : NULL;
	json_decref(o);
	if (!body)
		return -ENOMEM;
	size_t cap = strlen(body) + SP_SIGNED_LINE_MAX + 1;
	char *text = malloc(cap);
	int n = text ? sp_signed_seal_text(kind, secret, body, strlen(body), text, cap)
		     : -ENOMEM;
	free(body);
	if (n < 0) {
		free(text);
		return n;
	}
	text[n] = '\0';
	*ret_text = text;
	*ret_len = (size_t)n;
	return 0;
}

// Salted, since its hash is public.
static int print_private(const struct sp_changes *changes, char **ret)
{
	uint8_t salt[SALT_BYTES];
	json_t *list = sp_changes_to_json(changes, SP_CHANGES_PRIVATE);
	*ret = NULL;
	if (!list)
		return -ENOMEM;
	if (json_array_size(list) == 0) {
		json_decref(list);
		return 0;
	}
	randombytes_buf(salt, sizeof(salt));
	json_t *o =
		json_pack("{s:o, s:o}", "changes", list, "salt", hex(salt, sizeof(salt)));
	*ret = o ? json_dumps(o, JSON_FORM) : NULL;
	json_decref(o);
	return *ret ? 0 : -ENOMEM;
}

int sp_revision_sign(const struct sp_position *before, uint32_t epoch, uint64_t issued_ms,
		     const char *author, const struct sp_changes *changes,
		     const struct sp_state *state, const uint8_t *secret, char **ret_text,
		     size_t *ret_len, char **ret_private,
		     struct sp_position *ret_position)
{
	uint8_t hash[SP_REVISION_HASH_BYTES];
	char *private;
	int err = print_private(changes, &private);
	if (err)
		return err;
	json_t *o = json_pack("{s:i, s:I, s:I, s:I, s:s, s:o, s:o, s:o}", "format",
			      SP_REVISION_FORMAT, "epoch", (json_int_t)epoch, "sequence",
			      (json_int_t)before->sequence + 1, "issued_ms",
			      (json_int_t)issued_ms, "author", author, "previous",
			      hex(before->hash, sizeof(before->hash)), "state",
			      hex(sp_state_hash(state), SP_STATE_HASH_BYTES), "changes",
			      sp_changes_to_json(changes, SP_CHANGES_PUBLIC));
	if (private && o) {
		hash_text(private, strlen(private), hash);
		if (json_object_set_new(o, "private", hex(hash, sizeof(hash)))) {
			json_decref(o);
			o = NULL;
		}
	}
	err = seal(SP_SIGNED_REVISION, o, secret, ret_text, ret_len);
	if (err) {
		free(private);
		return err;
	}
	*ret_private = private;
	ret_position->epoch = epoch;
	ret_position->sequence = before->sequence + 1;
	hash_text(*ret_text, *ret_len, ret_position->hash);
	return 0;
}

int sp_snapshot_sign(const struct sp_position *position, uint64_t issued_ms,
		     const struct sp_state *state, const uint8_t *secret, char **ret_text,
		     size_t *ret_len)
{
	struct sp_state_entry e;
	size_t at = 0;
	json_t *entries = json_object();
	int bad = !entries;
	while (!bad && sp_state_next(state, "", &at, &e))
		if (!sp_state_key_is_private(e.key))
			bad = json_object_set_new(
				entries, e.key, json_loadb(e.json, e.json_len, 0, NULL));
	if (bad) {
		json_decref(entries);
		return -ENOMEM;
	}
	json_t *o = json_pack(
		"{s:i, s:I, s:I, s:I, s:o, s:o, s:o}", "format", SP_REVISION_FORMAT,
		"epoch", (json_int_t)position->epoch, "sequence",
		(json_int_t)position->sequence, "issued_ms", (json_int_t)issued_ms,
		"hash", hex(position->hash, sizeof(position->hash)), "state",
		hex(sp_state_hash(state), SP_STATE_HASH_BYTES), "entries", entries);
	return seal(SP_SIGNED_SNAPSHOT, o, secret, ret_text, ret_len);
}

// ---- reading ----

static int get_hash(const json_t *o, const char *key, uint8_t *ret)
{
	const char *text = json_string_value(json_object_get(o, key));
	if (!text || strlen(text) != (size_t)2 * SP_REVISION_HASH_BYTES)
		return SP_E_MALFORMED;
	return sp_hex_decode(text, strlen(text), ret, SP_REVISION_HASH_BYTES);
}

static int get_number(const json_t *o, const char *key, uint64_t max, uint64_t *ret)
{
	const json_t *v = json_object_get(o, key);
	if (!json_is_integer(v) || json_integer_value(v) < 0 ||
	    (uint64_t)json_integer_value(v) > max)
		return SP_E_MALFORMED;
	*ret = (uint64_t)json_integer_value(v);
	return 0;
}

// What both kinds have. 0 and *ret_body, a new reference.
static int open_body(const struct sp_signed_keys *keys, enum sp_signed_kind kind,
		     const void *text, size_t len, struct sp_position *ret,
		     json_t **ret_body)
{
	struct sp_signed_view view;
	uint64_t format, epoch, sequence;
	int err = sp_signed_open_text(keys, kind, text, len, &view);
	if (err)
		return err;
	json_t *o = json_loadb((const char *)view.body, view.body_len,
			       JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(o) || get_number(o, "format", UINT32_MAX, &format))
		err = SP_E_MALFORMED;
	else if (format != SP_REVISION_FORMAT)
		err = SP_E_VERSION;
	else if (get_number(o, "epoch", UINT32_MAX, &epoch) ||
		 get_number(o, "sequence", INT64_MAX, &sequence) || sequence == 0)
		err = SP_E_MALFORMED;
	if (err) {
		json_decref(o);
		return err;
	}
	ret->epoch = (uint32_t)epoch;
	ret->sequence = sequence;
	*ret_body = o;
	return 0;
}

static int get_author(const json_t *o, char *ret)
{
	const char *text = json_string_value(json_object_get(o, "author"));
	size_t len = text ? strlen(text) : 0;
	if (!text || len > SP_REVISION_AUTHOR_MAX)
		return SP_E_MALFORMED;
	for (size_t i = 0; i < len; i++)
		if (text[i] < 0x20 || text[i] >= 0x7f)
			return SP_E_MALFORMED;
	memcpy(ret, text, len + 1);
	return 0;
}

static int read_revision(const json_t *o, struct sp_revision *r)
{
	int err = get_hash(o, "previous", r->previous);
	if (!err)
		err = get_hash(o, "state", r->state);
	if (!err)
		err = get_number(o, "issued_ms", INT64_MAX, &r->issued_ms);
	if (!err)
		err = get_author(o, r->author);
	r->has_private = json_object_get(o, "private");
	if (!err && r->has_private)
		err = get_hash(o, "private", r->private_hash);
	if (!err)
		err = sp_changes_from_json(json_object_get(o, "changes"), &r->changes);
	for (size_t i = 0; i < r->changes.n && !err; i++)
		if (sp_state_key_is_private(r->changes.v[i].key))
			err = SP_E_MALFORMED;
	return err;
}

int sp_revision_open(const struct sp_signed_keys *keys, const void *text, size_t len,
		     struct sp_revision *ret)
{
	json_t *o;
	struct sp_revision r = {0};
	int err = open_body(keys, SP_SIGNED_REVISION, text, len, &r.position, &o);
	if (err)
		return err;
	err = read_revision(o, &r);
	json_decref(o);
	if (err) {
		sp_revision_done(&r);
		return err;
	}
	hash_text(text, len, r.position.hash);
	*ret = r;
	return 0;
}

int sp_revision_open_private(const struct sp_revision *r, const void *text, size_t len,
			     struct sp_changes *ret)
{
	uint8_t hash[SP_REVISION_HASH_BYTES];
	struct sp_changes c = {0};
	hash_text(text, len, hash);
	if (!r->has_private || memcmp(hash, r->private_hash, sizeof(hash)) != 0)
		return SP_E_SIGNATURE;
	json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	int err = o ? sp_changes_from_json(json_object_get(o, "changes"), &c)
		    : SP_E_MALFORMED;
	json_decref(o);
	for (size_t i = 0; i < c.n && !err; i++)
		if (!sp_state_key_is_private(c.v[i].key))
			err = SP_E_MALFORMED;
	if (err)
		sp_changes_done(&c);
	else
		*ret = c;
	return err;
}

static int read_entries(json_t *entries, struct sp_state *s)
{
	const char *key;
	json_t *value;
	int err = json_is_object(entries) ? 0 : SP_E_MALFORMED;
	json_object_foreach(entries, key, value)
	{
		if (sp_state_key_is_private(key))
			return SP_E_MALFORMED;
		if ((err = sp_state_put(s, key, value)))
			return err;
	}
	return err;
}

int sp_snapshot_open(const struct sp_signed_keys *keys, const void *text, size_t len,
		     struct sp_state **ret_state, struct sp_position *ret_position)
{
	json_t *o;
	struct sp_position at = {0};
	struct sp_state *s = NULL;
	uint8_t state[SP_STATE_HASH_BYTES];
	int err = open_body(keys, SP_SIGNED_SNAPSHOT, text, len, &at, &o);
	if (err)
		return err;
	err = get_hash(o, "hash", at.hash);
	if (!err)
		err = get_hash(o, "state", state);
	if (!err)
		err = sp_state_new(&s);
	if (!err)
		err = read_entries(json_object_get(o, "entries"), s);
	if (!err && (memcmp(state, sp_state_hash(s), sizeof(state)) != 0 ||
		     memcmp(at.hash, zero_hash, sizeof(zero_hash)) == 0))
		err = SP_E_MALFORMED;
	json_decref(o);
	if (err) {
		sp_state_free(s);
		return err;
	}
	*ret_state = s;
	*ret_position = at;
	return 0;
}
