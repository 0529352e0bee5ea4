// Shared by conf.c, conf_value.c and conf_print.c; nobody else includes it.
#ifndef SP_CONF_INTERNAL_H
#define SP_CONF_INTERNAL_H

#include "lib/conf.h"

#define CONF_WHY_MAX 240

static inline void *conf_field(const struct sp_conf_key *k, const void *conf)
{
	return (char *)(uintptr_t)conf + k->offset;
}

static inline bool conf_is_list(const struct sp_conf_key *k)
{
	return k->type == SP_CONF_STRINGS || k->type == SP_CONF_ADDRESSES ||
	       k->type == SP_CONF_TABLES;
}

// conf_value.c
// One scalar of `len` bytes into its field, freeing what was there. Of a list: appends an
// entry. false, and `why`: what was found and the remedy; the field is as before.
bool conf_value_set(const struct sp_conf_key *k, const char *text, size_t len,
		    const char *folder, void *field, char *why);
// A new zeroed entry of a TABLES field; NULL: no memory.
void *conf_value_append(const struct sp_conf_key *k, void *field);
bool conf_value_default(const struct sp_conf_key *k, const char *folder, void *field,
			char *why);
void conf_value_clear(const struct sp_conf_key *k, void *field);
bool conf_value_equal(const struct sp_conf_key *k, const void *a, const void *b);
size_t conf_list_max(const struct sp_conf_key *k);
void conf_defaults(const struct sp_conf_table *t, const char *folder, void *conf);
void conf_clear(const struct sp_conf_table *t, void *conf);
// A number of a key's type as in the file, to buf of 32. Returns buf.
char *conf_number(const struct sp_conf_key *k, int64_t v, char *buf);
// "a duration such as 500ms, 10s, 5m or 25h", with the bounds.
void conf_expect(const struct sp_conf_key *k, char *buf, size_t cap);
const char *conf_type_word(const struct sp_conf_key *k); // "duration", "list of ..."

#endif
