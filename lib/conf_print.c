#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/conf_internal.h"

static void print_quoted(const char *text, FILE *out)
{
	putc('"', out);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putc('\\', out);
		putc(*text, out);
	}
	putc('"', out);
}

static void indent(unsigned depth, FILE *out)
{
	fprintf(out, "%*s", (int)depth * 2, "");
}

// How many leading parts "a.b." two paths have in common; *ret_len gets their length.
static unsigned common_groups(const char *a, const char *b, size_t *ret_len)
{
	unsigned n = 0;
	*ret_len = 0;
	for (size_t i = 0; a[i] && a[i] == b[i]; i++) {
		if (a[i] == '.') {
			n++;
			*ret_len = i + 1;
		}
	}
	return n;
}

// Opens the groups of `name` that `last` was not in. Returns the depth of the key itself;
// *ret_leaf gets its last part.
static unsigned open_groups(const char *last, const char *name, unsigned base, FILE *out,
			    const char **ret_leaf)
{
	size_t at;
	unsigned depth = common_groups(last, name, &at) + base;
	const char *dot;

	for (; (dot = strchr(name + at, '.')); at = (size_t)(dot - name) + 1) {
		indent(depth++, out);
		fprintf(out, "%.*s:\n", (int)(dot - name - (ptrdiff_t)at), name + at);
	}
	*ret_leaf = name + at;
	return depth;
}

static void dump_object(const struct sp_conf_table *t, const void *conf, unsigned depth,
			bool entry, FILE *out);

static void dump_list(const struct sp_conf_key *k, const void *field, unsigned depth,
		      FILE *out)
{
	const struct sp_conf_strings *s = field;
	const struct sp_conf_addresses *a = field;
	const struct sp_conf_tables *t = field;
	char text[SP_TARGET_TEXT_MAX];

	if (t->n == 0) { // the three begin alike
		fprintf(out, " []\n");
		return;
	}
	putc('\n', out);
	for (size_t i = 0; i < t->n; i++) {
		indent(depth + 1, out);
		fprintf(out, "- ");
		if (k->type == SP_CONF_STRINGS) {
			print_quoted(s->v[i], out);
		} else if (k->type == SP_CONF_ADDRESSES) {
			print_quoted(sp_target_format(&a->v[i], text, sizeof(text)), out);
		} else {
			dump_object(k->items, (char *)t->v + i * k->items->struct_bytes,
				    depth + 2, true, out);
			continue;
		}
		putc('\n', out);
	}
}

static bool is_set(const struct sp_conf_key *k, const void *field)
{
	if (conf_is_list(k)) // the three begin alike; an empty one may not be written
		return k->min == 0 || ((const struct sp_conf_strings *)field)->n;
	if (k->type == SP_CONF_STRING || k->type == SP_CONF_PATH)
		return *(char *const *)field;
	return k->type != SP_CONF_ADDRESS || ((const struct sp_target *)field)->kind;
}

static void dump_value(const struct sp_conf_key *k, const void *field, unsigned depth,
		       FILE *out)
{
	char text[SP_TARGET_TEXT_MAX];

	if (conf_is_list(k)) {
		dump_list(k, field, depth, out);
		return;
	}
	putc(' ', out);
	switch (k->type) {
	case SP_CONF_BOOL:
		fputs(*(const bool *)field ? "true" : "false", out);
		break;
	case SP_CONF_INT:
	case SP_CONF_DURATION:
	case SP_CONF_SIZE:
		fputs(conf_number(k, *(const int64_t *)field, text), out);
		break;
	case SP_CONF_STRING:
	case SP_CONF_PATH:
		print_quoted(*(char *const *)field, out);
		break;
	case SP_CONF_ADDRESS:
		print_quoted(sp_target_format(field, text, sizeof(text)), out);
		break;
	case SP_CONF_ENUM:
		fputs(k->words[*(const int *)field], out);
		break;
	case SP_CONF_STRINGS:
	case SP_CONF_ADDRESSES:
	case SP_CONF_TABLES:
		break;
	}
	putc('\n', out);
}

// `entry`: the first line goes on behind "- ".
static void dump_object(const struct sp_conf_table *t, const void *conf, unsigned depth,
			bool entry, FILE *out)
{
	const char *last = "", *leaf;

	for (size_t i = 0; i < t->n_keys; i++) {
		const struct sp_conf_key *k = &t->keys[i];
		const void *field = conf_field(k, conf);
		unsigned at = depth;
		if (!is_set(k, field))
			continue;
		if (entry) { // entries use dotted names
			leaf = k->name;
			if (*last)
				indent(depth, out);
		} else {
			at = open_groups(last, k->name, depth, out, &leaf);
			indent(at, out);
		}
		fprintf(out, "%s:", leaf);
		dump_value(k, field, at, out);
		last = k->name;
	}
	if (entry && !*last)
		fprintf(out, "{}\n");
}

static int done(FILE *out)
{
	return fflush(out) || ferror(out) ? -EIO : 0;
}

int sp_conf_dump(const struct sp_conf_table *t, const void *conf, FILE *out)
{
	dump_object(t, conf, 0, false, out);
	return done(out);
}

// "duration, 1s to 1h", "number of streams, 1 to 64", "tls | tcp"
static void describe(const struct sp_conf_key *k, char *buf, size_t cap)
{
	char lo[32], hi[32];
	size_t len;

	if (k->type == SP_CONF_ENUM) {
		conf_expect(k, buf, cap);
		return;
	}
	len = (size_t)snprintf(buf, cap, "%s", conf_type_word(k));
	if (k->unit)
		len += (size_t)snprintf(buf + len, cap - len, " of %s", k->unit);
	if (k->max <= 0 || len >= cap)
		return;
	if (k->type == SP_CONF_INT || k->type == SP_CONF_DURATION ||
	    k->type == SP_CONF_SIZE)
		snprintf(buf + len, cap - len, ", %s to %s", conf_number(k, k->min, lo),
			 conf_number(k, k->max, hi));
	else
		snprintf(buf + len, cap - len, ", at most %lld", (long long)k->max);
}

// The text behind the colon in the default file.
static void print_default(const struct sp_conf_key *k, const char *text, FILE *out)
{
	bool quoted = k->type == SP_CONF_STRING || k->type == SP_CONF_PATH ||
		      k->type == SP_CONF_ADDRESS;

	if (!conf_is_list(k)) {
		putc(' ', out);
		quoted ? print_quoted(text, out) : (void)fputs(text, out);
		return;
	}
	fputs(" [", out);
	for (const char *p = text; *p; p += strspn(p, ", ")) {
		char item[256];
		size_t len = strcspn(p, ",");
		snprintf(item, sizeof(item), "%.*s", (int)len, p);
		if (p != text)
			fputs(", ", out);
		print_quoted(item, out);
		p += len;
	}
	putc(']', out);
}

static void default_object(const struct sp_conf_table *t, unsigned depth, bool commented,
			   FILE *out);

// The example entry of a list of tables.
static void default_tables(const struct sp_conf_key *k, unsigned depth, bool commented,
			   FILE *out)
{
	indent(depth + 1, out);
	fprintf(out, "%s-\n", commented ? "#" : "");
	default_object(k->items, depth + 2, commented, out);
}

static void default_key(const struct sp_conf_key *k, const char *leaf, unsigned depth,
			bool commented, FILE *out)
{
	const char *text = k->def && *k->def ? k->def : k->example ? k->example : "";
	char what[CONF_WHY_MAX];

	describe(k, what, sizeof(what));
	putc('\n', out);
	indent(depth, out);
	fprintf(out, "# %s (%s%s%s)\n", k->help, what, k->required ? "; required" : "",
		k->reloadable ? "" : "; needs a restart");
	commented = commented || !k->required;
	indent(depth, out);
	fprintf(out, "%s%s:", commented ? "#" : "", leaf);
	if (k->type == SP_CONF_TABLES) {
		putc('\n', out);
		default_tables(k, depth, commented, out);
		return;
	}
	print_default(k, text, out);
	putc('\n', out);
}

static void default_object(const struct sp_conf_table *t, unsigned depth, bool commented,
			   FILE *out)
{
	const char *last = "", *leaf;

	for (size_t i = 0; i < t->n_keys; i++) {
		const struct sp_conf_key *k = &t->keys[i];
		unsigned at = depth;
		if (depth) {
			leaf = k->name;
		} else {
			size_t len;
			common_groups(last, k->name, &len);
			if (strchr(k->name + len, '.'))
				putc('\n', out);
			at = open_groups(last, k->name, depth, out, &leaf);
		}
		default_key(k, leaf, at, commented, out);
		last = k->name;
	}
}

int sp_conf_write_default(const struct sp_conf_table *t, FILE *out)
{
	fprintf(out,
		"# %s: configuration.\n"
		"# A line that is commented out shows the default (or an example where "
		"there is none).\n"
		"# Durations: 500ms 10s 5m 25h 7d. Sizes: 1500 64K 4M 2G. "
		"Relative paths count from this folder.\n",
		t->title);
	default_object(t, 0, false, out);
	return done(out);
}

static void markdown(const struct sp_conf_table *t, const char *prefix, FILE *out)
{
	char what[CONF_WHY_MAX], name[SP_CONF_NAME_MAX * 2];

	for (size_t i = 0; i < t->n_keys; i++) {
		const struct sp_conf_key *k = &t->keys[i];
		describe(k, what, sizeof(what));
		bool has_def = k->def && *k->def;
		fprintf(out, "| `%s%s` | %s | %s%s%s | %s | %s |\n", prefix, k->name,
			what, has_def ? "`" : "",
			has_def       ? k->def
			: k->required ? "required"
				      : "none",
			has_def ? "`" : "", k->reloadable ? "yes" : "no", k->help);
		if (k->type == SP_CONF_TABLES) {
			snprintf(name, sizeof(name), "%s%s[].", prefix, k->name);
			markdown(k->items, name, out);
		}
	}
}

// Text for roff: a dot or quote at the start of a line, and backslashes.
static void print_roff(const char *text, FILE *out)
{
	if (*text == '.' || *text == '\'')
		fputs("\\&", out);
	for (; *text; text++)
		*text == '\\' ? fputs("\\e", out) : putc(*text, out);
}

static void mdoc(const struct sp_conf_table *t, const char *prefix, FILE *out)
{
	char what[CONF_WHY_MAX], name[SP_CONF_NAME_MAX * 2];

	for (size_t i = 0; i < t->n_keys; i++) {
		const struct sp_conf_key *k = &t->keys[i];
		describe(k, what, sizeof(what));
		fprintf(out, ".It Ic %s%s\n", prefix, k->name);
		print_roff(k->help, out);
		fputs(".\n", out);
		print_roff(what, out);
		if (k->def && *k->def) {
			fputs("; default ", out);
			print_roff(k->def, out);
		}
		fprintf(out, "%s%s.\n", k->required ? "; required" : "",
			k->reloadable ? "" : "; needs a restart");
		if (k->type == SP_CONF_TABLES) {
			snprintf(name, sizeof(name), "%s%s[].", prefix, k->name);
			mdoc(k->items, name, out);
		}
	}
}

int sp_conf_write_reference(const struct sp_conf_table *t, enum sp_conf_reference form,
			    FILE *out)
{
	if (form == SP_CONF_MDOC) {
		mdoc(t, "", out);
		return done(out);
	}
	fprintf(out, "| key | value | default | reload | what it is |\n"
		     "|---|---|---|---|---|\n");
	markdown(t, "", out);
	return done(out);
}

static bool bad(const struct sp_conf_key *k, char *why, size_t cap, const char *what)
{
	snprintf(why, cap, "%s: %s", k->name, what);
	return false;
}

static bool check_value(const struct sp_conf_key *k, const char *text, const char *which,
			char *why, size_t cap)
{
	struct sp_conf_key tried = *k;
	char reason[CONF_WHY_MAX];
	union { // any field
		int64_t number;
		struct sp_target target;
		struct sp_conf_tables list;
	} field = {0};

	tried.def = text;
	bool ok = conf_value_default(&tried, NULL, &field, reason);
	conf_value_clear(k, &field);
	if (!ok)
		snprintf(why, cap, "%s: %s: %s", k->name, which, reason);
	return ok;
}

static bool check_key(const struct sp_conf_table *t, const struct sp_conf_key *k,
		      char *why, size_t cap)
{
	for (const struct sp_conf_key *other = t->keys; other != k; other++)
		if (strcmp(other->name, k->name) == 0)
			return bad(k, why, cap, "stands twice in the table");
	if (!*k->name || strlen(k->name) >= SP_CONF_NAME_MAX)
		return bad(k, why, cap, "name too short or too long");
	if (!k->help || !*k->help || k->help[strlen(k->help) - 1] == '.')
		return bad(k, why, cap, "help is one line without a full stop");
	if (k->max < k->min)
		return bad(k, why, cap, "max lies below min");
	if (k->type == SP_CONF_ENUM && (!k->words || !k->words[0]))
		return bad(k, why, cap, "an enum needs words");
	if (k->type == SP_CONF_TABLES)
		return k->items ? sp_conf_check_table(k->items, why, cap) == 0
				: bad(k, why, cap, "a list of tables needs items");
	if (k->required && !k->example)
		return bad(k, why, cap, "a required key needs an example");
	if (k->def && !check_value(k, k->def, "default", why, cap))
		return false;
	return !k->example || check_value(k, k->example, "example", why, cap);
}

int sp_conf_check_table(const struct sp_conf_table *t, char *why, size_t cap)
{
	for (size_t i = 0; i < t->n_keys; i++)
		if (!check_key(t, &t->keys[i], why, cap))
			return SP_E_CONFIG;
	return 0;
}
