#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/conf_internal.h"

struct unit {
	const char *word;
	int64_t factor;
};
// The largest first.
static const struct unit durations[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000},
					{"s", 1000},     {"ms", 1},      {NULL, 0}};
static const struct unit sizes[] = {
	{"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"", 1}, {NULL, 0}};
static const struct unit plain[] = {{"", 1}, {NULL, 0}};

static const struct unit *units_of(const struct sp_conf_key *k)
{
	if (k->type == SP_CONF_DURATION)
		return durations;
	return k->type == SP_CONF_SIZE ? sizes : plain;
}

char *conf_number(const struct sp_conf_key *k, int64_t v, char *buf)
{
	const struct unit *u = units_of(k);
	if (v == 0 && k->type == SP_CONF_DURATION)
		u = &durations[3];
	while (u[1].word && v % u->factor)
		u++;
	if (v == 0 && k->type == SP_CONF_SIZE)
		u = &sizes[3];
	snprintf(buf, 32, "%" PRId64 "%s", v / u->factor, u->word);
	return buf;
}

const char *conf_type_word(const struct sp_conf_key *k)
{
	switch (k->type) {
	case SP_CONF_BOOL:
		return "true or false";
	case SP_CONF_INT:
		return "number";
	case SP_CONF_DURATION:
		return "duration";
	case SP_CONF_SIZE:
		return "size";
	case SP_CONF_STRING:
		return "text";
	case SP_CONF_PATH:
		return "path";
	case SP_CONF_ADDRESS:
		return "address";
	case SP_CONF_ENUM:
		return "word";
	case SP_CONF_STRINGS:
		return "list of texts";
	case SP_CONF_ADDRESSES:
		return "list of addresses";
	case SP_CONF_TABLES:
		return "list of entries";
	}
	return "";
}

static bool is_bounded(const struct sp_conf_key *k)
{
	return k->min || k->max;
}

size_t conf_list_max(const struct sp_conf_key *k)
{
	return k->max > 0 ? (size_t)k->max : SP_CONF_LIST_MAX;
}

static void expect_words(const struct sp_conf_key *k, char *buf, size_t cap)
{
	size_t len = (size_t)snprintf(buf, cap, "one of");
	for (size_t i = 0; k->words[i] && len < cap; i++)
		len += (size_t)snprintf(buf + len, cap - len, "%s %s", i ? "," : "",
					k->words[i]);
}

void conf_expect(const struct sp_conf_key *k, char *buf, size_t cap)
{
	static const char *const what[] = {
		[SP_CONF_BOOL] = "true or false",
		[SP_CONF_INT] = "a whole number",
		[SP_CONF_DURATION] = "a duration such as 500ms, 10s, 5m or 25h",
		[SP_CONF_SIZE] = "a size in bytes such as 1500, 64K or 4M",
		[SP_CONF_STRING] = "text",
		[SP_CONF_PATH] = "a path",
		[SP_CONF_ADDRESS] = "an address such as 192.0.2.1:443, [2001:db8::1]:443 "
				    "or host.example:443",
		[SP_CONF_STRINGS] = "a list of texts, [a, b]",
		[SP_CONF_ADDRESSES] = "a list of addresses, [192.0.2.1:443, "
				      "\"[2001:db8::1]:443\"]",
		[SP_CONF_TABLES] = "a list of entries, each with keys of its own",
	};
	char lo[32], hi[32];

	if (k->type == SP_CONF_ENUM) {
		expect_words(k, buf, cap);
		return;
	}
	bool number = k->type == SP_CONF_INT || k->type == SP_CONF_DURATION ||
		      k->type == SP_CONF_SIZE;
	if (number && is_bounded(k))
		snprintf(buf, cap, "%s from %s to %s", what[k->type],
			 conf_number(k, k->min, lo), conf_number(k, k->max, hi));
	else
		snprintf(buf, cap, "%s", what[k->type]);
}

// "<found> is not ...; give <what is expected>"
static bool refuse(const struct sp_conf_key *k, const char *text, size_t len,
		   const char *problem, char *why)
{
	char expect[CONF_WHY_MAX / 2 + 40];
	conf_expect(k, expect, sizeof(expect));
	snprintf(why, CONF_WHY_MAX, "\"%.*s%s\" %s; give %s", len > 40 ? 40 : (int)len,
		 text, len > 40 ? "..." : "", problem, expect);
	return false;
}

static bool parse_number(const struct sp_conf_key *k, const char *text, size_t len,
			 int64_t *ret, char *why)
{
	const struct unit *u = units_of(k);
	size_t digits = strspn(text, "0123456789"), sign = text[0] == '-';
	int64_t v;

	digits = strspn(text + sign, "0123456789");
	if (digits == 0)
		return refuse(k, text, len, "is not a number", why);
	errno = 0;
	v = strtoll(text, NULL, 10);
	const char *word = text + sign + digits;
	while (u->word && strcmp(u->word, word))
		u++;
	if (!u->word && k->type == SP_CONF_DURATION && !*word && v != 0)
		return refuse(k, text, len, "has no unit", why);
	if (!u->word && *word)
		return refuse(k, text, len,
			      k->type == SP_CONF_INT ? "is not a whole number"
						     : "has an unknown unit",
			      why);
	if (errno || __builtin_mul_overflow(v, u->word ? u->factor : 1, &v))
		return refuse(k, text, len, "is too large", why);
	if (is_bounded(k) ? v < k->min : v < 0)
		return refuse(k, text, len, "is too small", why);
	if (is_bounded(k) && v > k->max)
		return refuse(k, text, len, "is too large", why);
	*ret = v;
	return true;
}

static bool parse_bool(const struct sp_conf_key *k, const char *text, size_t len,
		       bool *ret, char *why)
{
	bool yes = strcmp(text, "true") == 0;
	if (!yes && strcmp(text, "false"))
		return refuse(k, text, len, "is neither", why);
	*ret = yes;
	return true;
}

static bool parse_enum(const struct sp_conf_key *k, const char *text, size_t len,
		       int *ret, char *why)
{
	for (int i = 0; k->words[i]; i++) {
		if (strcmp(k->words[i], text) == 0) {
			*ret = i;
			return true;
		}
	}
	return refuse(k, text, len, "is not known here", why);
}

static bool parse_address(const struct sp_conf_key *k, const char *text, size_t len,
			  struct sp_target *ret, char *why)
{
	if (sp_target_parse(text, ret))
		return refuse(k, text, len, "is not an address with a port", why);
	return true;
}

// A copy; NULL and `why`.
static char *parse_text(const struct sp_conf_key *k, const char *text, size_t len,
			const char *folder, char *why)
{
	bool list = k->type == SP_CONF_STRINGS; // its bounds are of the entries
	char *copy = NULL;

	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
			refuse(k, text, i, "is followed by a control character", why);
			return NULL;
		}
	}
	if (!list && is_bounded(k) && (int64_t)len < k->min) {
		refuse(k, text, len, len ? "is too short" : "is empty", why);
		return NULL;
	}
	if (len > (!list && k->max > 0 ? (size_t)k->max : 4096)) {
		refuse(k, text, len, "is too long", why);
		return NULL;
	}
	if (k->type == SP_CONF_PATH && len == 0) {
		refuse(k, text, len, "is empty", why);
		return NULL;
	}
	bool path = k->type == SP_CONF_PATH ||
		    (k->not_a_path &&
		     strncmp(text, k->not_a_path, strlen(k->not_a_path)) != 0);
	if (path && folder && text[0] != '/') {
		if (asprintf(&copy, "%s/%s", folder, text) < 0)
			copy = NULL;
	} else {
		copy = strdup(text);
	}
	if (!copy)
		snprintf(why, CONF_WHY_MAX, "no memory");
	return copy;
}

// Room for one more entry of `bytes`; NULL: no memory. *n is not changed.
static void *grow(void **v, size_t n, size_t bytes)
{
	void *bigger = reallocarray(*v, n + 1, bytes);
	if (!bigger)
		return NULL;
	*v = bigger;
	memset((char *)bigger + n * bytes, 0, bytes);
	return (char *)bigger + n * bytes;
}

void *conf_value_append(const struct sp_conf_key *k, void *field)
{
	struct sp_conf_tables *f = field;
	void *item = grow(&f->v, f->n, k->items->struct_bytes);
	if (item)
		f->n++;
	return item;
}

static bool append_string(const struct sp_conf_key *k, struct sp_conf_strings *f,
			  const char *text, size_t len, const char *folder, char *why)
{
	char *copy = parse_text(k, text, len, folder, why);
	char **slot = copy ? grow((void **)&f->v, f->n, sizeof(*f->v)) : NULL;
	if (!slot) {
		if (copy)
			snprintf(why, CONF_WHY_MAX, "no memory");
		free(copy);
		return false;
	}
	*slot = copy;
	f->n++;
	return true;
}

static bool append_address(const struct sp_conf_key *k, struct sp_conf_addresses *f,
			   const char *text, size_t len, char *why)
{
	struct sp_target t;
	if (!parse_address(k, text, len, &t, why))
		return false;
	struct sp_target *slot = grow((void **)&f->v, f->n, sizeof(*f->v));
	if (!slot) {
		snprintf(why, CONF_WHY_MAX, "no memory");
		return false;
	}
	*slot = t;
	f->n++;
	return true;
}

bool conf_value_set(const struct sp_conf_key *k, const char *text, size_t len,
		    const char *folder, void *field, char *why)
{
	char *copy;

	if (strlen(text) != len)
		return refuse(k, text, strlen(text), "is followed by a NUL byte", why);
	switch (k->type) {
	case SP_CONF_BOOL:
		return parse_bool(k, text, len, field, why);
	case SP_CONF_INT:
	case SP_CONF_DURATION:
	case SP_CONF_SIZE:
		return parse_number(k, text, len, field, why);
	case SP_CONF_STRING:
	case SP_CONF_PATH:
		copy = parse_text(k, text, len, folder, why);
		if (copy) {
			conf_value_clear(k, field);
			*(char **)field = copy;
		}
		return copy;
	case SP_CONF_ADDRESS:
		return parse_address(k, text, len, field, why);
	case SP_CONF_ENUM:
		return parse_enum(k, text, len, field, why);
	case SP_CONF_STRINGS:
		return append_string(k, field, text, len, folder, why);
	case SP_CONF_ADDRESSES:
		return append_address(k, field, text, len, why);
	case SP_CONF_TABLES:
		return refuse(k, text, len, "is not an entry", why);
	}
	return false;
}

bool conf_value_default(const struct sp_conf_key *k, const char *folder, void *field,
			char *why)
{
	char item[256];

	if (!k->def)
		return true;
	if (!conf_is_list(k))
		return conf_value_set(k, k->def, strlen(k->def), folder, field, why);
	for (const char *p = k->def; *p; p += strspn(p, ", ")) {
		size_t len = strcspn(p, ",");
		snprintf(item, sizeof(item), "%.*s", (int)len, p);
		if (!conf_value_set(k, item, strlen(item), folder, field, why))
			return false;
		p += len;
	}
	return true;
}

void conf_value_clear(const struct sp_conf_key *k, void *field)
{
	struct sp_conf_strings *strings = field;
	struct sp_conf_addresses *addresses = field;
	struct sp_conf_tables *tables = field;
	char **text = field;

	switch (k->type) {
	case SP_CONF_STRING:
	case SP_CONF_PATH:
		if (*text)
			sodium_memzero(*text, strlen(*text));
		free(*text);
		*text = NULL;
		break;
	case SP_CONF_STRINGS:
		for (size_t i = 0; i < strings->n; i++)
			free(strings->v[i]);
		free(strings->v);
		*strings = (struct sp_conf_strings){0};
		break;
	case SP_CONF_ADDRESSES:
		free(addresses->v);
		*addresses = (struct sp_conf_addresses){0};
		break;
	case SP_CONF_TABLES:
		for (size_t i = 0; i < tables->n; i++)
			conf_clear(k->items,
				   (char *)tables->v + i * k->items->struct_bytes);
		free(tables->v);
		*tables = (struct sp_conf_tables){0};
		break;
	case SP_CONF_BOOL:
	case SP_CONF_INT:
	case SP_CONF_DURATION:
	case SP_CONF_SIZE:
	case SP_CONF_ADDRESS:
	case SP_CONF_ENUM:
		break;
	}
}

void conf_defaults(const struct sp_conf_table *t, const char *folder, void *conf)
{
	char why[CONF_WHY_MAX];
	for (size_t i = 0; i < t->n_keys; i++)
		(void)conf_value_default(&t->keys[i], folder,
					 conf_field(&t->keys[i], conf), why);
}

void conf_clear(const struct sp_conf_table *t, void *conf)
{
	for (size_t i = 0; i < t->n_keys; i++)
		conf_value_clear(&t->keys[i], conf_field(&t->keys[i], conf));
}

static bool tables_equal(const struct sp_conf_table *t, const struct sp_conf_tables *a,
			 const struct sp_conf_tables *b)
{
	for (size_t i = 0; i < a->n; i++)
		if (sp_conf_diff(t, (char *)a->v + i * t->struct_bytes,
				 (char *)b->v + i * t->struct_bytes, false, NULL, 0))
			return false;
	return true;
}

static bool strings_equal(const struct sp_conf_strings *a,
			  const struct sp_conf_strings *b)
{
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->v[i], b->v[i]))
			return false;
	return true;
}

static bool addresses_equal(const struct sp_conf_addresses *a,
			    const struct sp_conf_addresses *b)
{
	for (size_t i = 0; i < a->n; i++)
		if (!sp_target_equal(&a->v[i], &b->v[i]))
			return false;
	return true;
}

static size_t list_len(const struct sp_conf_key *k, const void *field)
{
	if (k->type == SP_CONF_STRINGS)
		return ((const struct sp_conf_strings *)field)->n;
	if (k->type == SP_CONF_ADDRESSES)
		return ((const struct sp_conf_addresses *)field)->n;
	return ((const struct sp_conf_tables *)field)->n;
}

bool conf_value_equal(const struct sp_conf_key *k, const void *a, const void *b)
{
	const char *sa, *sb;

	if (conf_is_list(k) && list_len(k, a) != list_len(k, b))
		return false;
	switch (k->type) {
	case SP_CONF_BOOL:
		return *(const bool *)a == *(const bool *)b;
	case SP_CONF_INT:
	case SP_CONF_DURATION:
	case SP_CONF_SIZE:
		return *(const int64_t *)a == *(const int64_t *)b;
	case SP_CONF_STRING:
	case SP_CONF_PATH:
		sa = *(char *const *)a;
		sb = *(char *const *)b;
		return sa && sb ? strcmp(sa, sb) == 0 : sa == sb;
	case SP_CONF_ADDRESS:
		return sp_target_equal(a, b);
	case SP_CONF_ENUM:
		return *(const int *)a == *(const int *)b;
	case SP_CONF_STRINGS:
		return strings_equal(a, b);
	case SP_CONF_ADDRESSES:
		return addresses_equal(a, b);
	case SP_CONF_TABLES:
		return tables_equal(k->items, a, b);
	}
	return false;
}

int sp_conf_amount(enum sp_conf_type type, const char *text, int64_t *ret, char *why,
		   size_t cap)
{
	const struct sp_conf_key k = {.name = "amount", .type = type};
	char what[CONF_WHY_MAX];
	if (conf_value_set(&k, text, strlen(text), NULL, ret, what))
		return 0;
	if (cap)
		snprintf(why, cap, "%s", what);
	return SP_E_MALFORMED;
}
