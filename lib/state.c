#include "lib/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#define JSON_FORM (JSON_COMPACT | JSON_SORT_KEYS)

struct entry { // shared by states, never changed
	unsigned refs;
	size_t json_len;
	char *json; // within text
	uint8_t hash[SP_STATE_HASH_BYTES];
	char key[]; // NUL, then the value, NUL
};

struct sp_state {
	struct entry **v; // sorted by key
	size_t n, cap;
	uint8_t hash[SP_STATE_HASH_BYTES];
};

// ---- entries ----

static struct entry *entry_new(const char *key, const char *json, size_t json_len)
{
	size_t key_len = strlen(key);
	struct entry *e = malloc(sizeof(*e) + key_len + 1 + json_len + 1);
	if (!e)
		return NULL;
	e->refs = 1;
	e->json_len = json_len;
	e->json = e->key + key_len + 1;
	memcpy(e->key, key, key_len + 1);
	memcpy(e->json, json, json_len);
	e->json[json_len] = '\0';
	crypto_generichash(e->hash, sizeof(e->hash), (const uint8_t *)e->key,
			   key_len + 1 + json_len, NULL, 0);
	return e;
}

static void entry_put(struct entry *e)
{
	if (--e->refs == 0)
		free(e);
}

// Adds or takes out: the same.
static void mix(struct sp_state *s, const struct entry *e)
{
	if (sp_state_key_is_private(e->key))
		return;
	for (size_t i = 0; i < SP_STATE_HASH_BYTES; i++)
		s->hash[i] ^= e->hash[i];
}

// ---- the map ----

int sp_state_new(struct sp_state **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

int sp_state_clone(const struct sp_state *s, struct sp_state **ret)
{
	struct sp_state *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	*c = *s;
	c->cap = s->n ? s->n : 1;
	c->v = malloc(c->cap * sizeof(c->v[0]));
	if (!c->v) {
		free(c);
		return -ENOMEM;
	}
	for (size_t i = 0; i < s->n; i++) {
		c->v[i] = s->v[i];
		c->v[i]->refs++;
	}
	*ret = c;
	return 0;
}

void sp_state_free(struct sp_state *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n; i++)
		entry_put(s->v[i]);
	free(s->v);
	free(s);
}

static bool is_key_char(char ch)
{
	return (ch >= '0' && ch <= '9') || (ch >= 'A' && ch <= 'Z') ||
	       (ch >= 'a' && ch <= 'z') || (ch && strchr("._-+=:", ch));
}

bool sp_state_key_is_valid(const char *key)
{
	size_t len = strlen(key), words = 1;
	if (len == 0 || len > SP_STATE_KEY_MAX || key[0] == '/' || key[len - 1] == '/')
		return false;
	for (const char *p = key; *p; p++) {
		if (*p == '/' && p[1] != '/')
			words++;
		else if (!is_key_char(*p))
			return false;
	}
	return words <= 4;
}

bool sp_state_key_is_private(const char *key)
{
	static const char *const kinds[] = {"user/", "token/", "enrol/", "vantage/"};
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strncmp(key, kinds[i], strlen(kinds[i])) == 0)
			return true;
	return false;
}

// Where `key` stands, or would.
static size_t find(const struct sp_state *s, const char *key, bool *ret_there)
{
	size_t lo = 0, hi = s->n;
	*ret_there = false;
	// Entries mostly come in order.
	if (s->n && strcmp(s->v[s->n - 1]->key, key) < 0)
		return s->n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = strcmp(s->v[mid]->key, key);
		if (c == 0) {
			*ret_there = true;
			return mid;
		}
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int make_room(struct sp_state *s)
{
	if (s->n < s->cap)
		return 0;
	if (s->n >= SP_STATE_ENTRIES_MAX)
		return SP_E_LIMIT;
	size_t cap = s->cap ? 2 * s->cap : 16;
	struct entry **v = realloc(s->v, cap * sizeof(v[0]));
	if (!v)
		return -ENOMEM;
	s->v = v;
	s->cap = cap;
	return 0;
}

// `json` is canonical.
static int put_canonical(struct sp_state *s, const char *key, const char *json,
			 size_t len)
{
	bool there;
	if (!sp_state_key_is_valid(key))
		return SP_E_MALFORMED;
	if (len > SP_STATE_VALUE_MAX)
		return SP_E_LIMIT;
	size_t at = find(s, key, &there);
	int err = there ? 0 : make_room(s);
	if (err)
		return err;
	struct entry *e = entry_new(key, json, len);
	if (!e)
		return -ENOMEM;
	if (there) {
		mix(s, s->v[at]);
		entry_put(s->v[at]);
	} else {
		memmove(&s->v[at + 1], &s->v[at], (s->n - at) * sizeof(s->v[0]));
		s->n++;
	}
	s->v[at] = e;
	mix(s, e);
	return 0;
}

int sp_state_put(struct sp_state *s, const char *key, const json_t *object)
{
	if (!json_is_object(object))
		return SP_E_MALFORMED;
	char *text = json_dumps(object, JSON_FORM);
	if (!text)
		return -ENOMEM;
	int err = put_canonical(s, key, text, strlen(text));
	free(text);
	return err;
}

int sp_state_put_text(struct sp_state *s, const char *key, const char *json, size_t len)
{
	if (len > SP_STATE_VALUE_MAX)
		return SP_E_LIMIT;
	json_t *o = json_loadb(json, len, JSON_REJECT_DUPLICATES, NULL);
	int err = o ? sp_state_put(s, key, o) : SP_E_MALFORMED;
	json_decref(o);
	return err;
}

bool sp_state_delete(struct sp_state *s, const char *key)
{
	bool there;
	size_t at = find(s, key, &there);
	if (!there)
		return false;
	mix(s, s->v[at]);
	entry_put(s->v[at]);
	s->n--;
	memmove(&s->v[at], &s->v[at + 1], (s->n - at) * sizeof(s->v[0]));
	return true;
}

const char *sp_state_get(const struct sp_state *s, const char *key, size_t *ret_len)
{
	bool there;
	size_t at = find(s, key, &there);
	if (!there)
		return NULL;
	if (ret_len)
		*ret_len = s->v[at]->json_len;
	return s->v[at]->json;
}

json_t *sp_state_get_object(const struct sp_state *s, const char *key)
{
	size_t len;
	const char *text = sp_state_get(s, key, &len);
	return text ? json_loadb(text, len, 0, NULL) : NULL;
}

bool sp_state_next(const struct sp_state *s, const char *prefix, size_t *at,
		   struct sp_state_entry *ret)
{
	bool there;
	if (*at == 0)
		*at = find(s, prefix, &there) + 1;
	size_t i = *at - 1;
	if (i >= s->n || strncmp(s->v[i]->key, prefix, strlen(prefix)) != 0)
		return false;
	*ret = (struct sp_state_entry){s->v[i]->key, s->v[i]->json, s->v[i]->json_len};
	(*at)++;
	return true;
}

size_t sp_state_count(const struct sp_state *s, const char *prefix)
{
	struct sp_state_entry e;
	size_t at = 0, n = 0;
	if (!*prefix)
		return s->n;
	while (sp_state_next(s, prefix, &at, &e))
		n++;
	return n;
}

const uint8_t *sp_state_hash(const struct sp_state *s)
{
	return s->hash;
}

static bool same(const struct entry *a, const struct entry *b)
{
	return a == b || (strcmp(a->key, b->key) == 0 && a->json_len == b->json_len &&
			  memcmp(a->json, b->json, a->json_len) == 0);
}

bool sp_state_equal(const struct sp_state *a, const struct sp_state *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!same(a->v[i], b->v[i]))
			return false;
	return true;
}

// ---- changes ----

// Takes over `json`.
static int add_text(struct sp_changes *c, const char *key, char *json)
{
	if (c->n == c->cap) {
		size_t cap = c->cap ? 2 * c->cap : 16;
		struct sp_change *v = realloc(c->v, cap * sizeof(v[0]));
		if (!v) {
			free(json);
			return -ENOMEM;
		}
		c->v = v;
		c->cap = cap;
	}
	struct sp_change *at = &c->v[c->n];
	at->key = strdup(key);
	if (!at->key) {
		free(json);
		return -ENOMEM;
	}
	at->json = json;
	c->n++;
	return 0;
}

int sp_changes_add(struct sp_changes *c, const char *key, const json_t *object)
{
	char *json = NULL;
	if (!sp_state_key_is_valid(key) || (object && !json_is_object(object)))
		return SP_E_MALFORMED;
	if (object) {
		json = json_dumps(object, JSON_FORM);
		if (!json)
			return -ENOMEM;
		if (strlen(json) > SP_STATE_VALUE_MAX) {
			free(json);
			return SP_E_LIMIT;
		}
	}
	return add_text(c, key, json);
}

void sp_changes_done(struct sp_changes *c)
{
	for (size_t i = 0; i < c->n; i++) {
		free(c->v[i].key);
		free(c->v[i].json);
	}
	free(c->v);
	*c = (struct sp_changes){0};
}

static int add_copy(struct sp_changes *c, const struct sp_state_entry *e, bool put)
{
	char *json = NULL;
	if (put && !(json = strdup(e->json)))
		return -ENOMEM;
	return add_text(c, e->key, json);
}

int sp_changes_diff(const struct sp_state *from, const struct sp_state *to,
		    const char *prefix, struct sp_changes *ret)
{
	struct sp_state_entry a, b;
	size_t at_a = 0, at_b = 0;
	bool has_a = sp_state_next(from, prefix, &at_a, &a);
	bool has_b = sp_state_next(to, prefix, &at_b, &b);
	int err = 0;
	while (!err && (has_a || has_b)) {
		int c = !has_a ? 1 : !has_b ? -1 : strcmp(a.key, b.key);
		if (c < 0)
			err = add_copy(ret, &a, false);
		else if (c > 0 || strcmp(a.json, b.json) != 0)
			err = add_copy(ret, &b, true);
		if (c <= 0)
			has_a = sp_state_next(from, prefix, &at_a, &a);
		if (c >= 0)
			has_b = sp_state_next(to, prefix, &at_b, &b);
	}
	return err;
}

int sp_state_apply(struct sp_state *s, const struct sp_changes *c)
{
	int err = 0;
	for (size_t i = 0; i < c->n && !err; i++) {
		const struct sp_change *ch = &c->v[i];
		if (ch->json)
			err = put_canonical(s, ch->key, ch->json, strlen(ch->json));
		else
			(void)sp_state_delete(s, ch->key);
	}
	return err;
}

static json_t *change_to_json(const struct sp_change *ch)
{
	json_t *value = ch->json ? json_loads(ch->json, 0, NULL) : json_null();
	json_t *o = json_object();
	int bad = json_object_set_new(o, "key", json_string(ch->key));
	bad |= json_object_set_new(o, "value", value); // takes a NULL as an error
	if (!bad)
		return o;
	json_decref(o);
	return NULL;
}

json_t *sp_changes_to_json(const struct sp_changes *c, enum sp_changes_which which)
{
	json_t *list = json_array();
	for (size_t i = 0; list && i < c->n; i++) {
		bool private = sp_state_key_is_private(c->v[i].key);
		if (which != SP_CHANGES_ALL && private != (which == SP_CHANGES_PRIVATE))
			continue;
		if (json_array_append_new(list, change_to_json(&c->v[i]))) {
			json_decref(list);
			list = NULL;
		}
	}
	return list;
}

int sp_changes_from_json(const json_t *list, struct sp_changes *ret)
{
	size_t i;
	json_t *o;
	if (!json_is_array(list))
		return SP_E_MALFORMED;
	json_array_foreach(list, i, o)
	{
		const char *key = json_string_value(json_object_get(o, "key"));
		const json_t *value = json_object_get(o, "value");
		if (!key || !value || json_object_size(o) != 2)
			return SP_E_MALFORMED;
		int err = sp_changes_add(ret, key, json_is_null(value) ? NULL : value);
		if (err)
			return err;
	}
	return 0;
}
