#include "lib/conf.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include <sodium.h>

#include "lib/conf_internal.h"
#include "lib/file.h"
#include "lib/text.h"

#define DEPTH_MAX 32 // of what is skipped; known keys are less deep

// One load. `ev` is the event under inspection; once `fatal` is set no further one comes.
struct load {
	yaml_parser_t parser;
	yaml_event_t ev;
	const char *name;   // of the file
	const char *folder; // or NULL
	struct sp_conf_errors *errs;
	bool fatal;
	const struct sp_conf_key *wanted; // of the file itself; where it stands to:
	size_t wanted_line;
};

// One mapping that is being read: the whole file, or an entry of a TABLES list.
struct object {
	const struct sp_conf_table *table;
	void *conf;
	size_t *seen;       // line of each key, 0: not there
	size_t line;        // where it begins
	const char *prefix; // of its keys in errors: "exits[2]."
};

__attribute__((format(printf, 3, 4))) static void complain(struct load *l, size_t line,
							   const char *fmt, ...)
{
	struct sp_conf_errors *e = l->errs;
	va_list ap;
	if (e->n < SP_CONF_ERRORS_MAX) {
		char *text = e->text[e->n];
		int n = line ? snprintf(text, SP_CONF_ERROR_MAX, "%s:%zu: ", l->name,
					line)
			     : snprintf(text, SP_CONF_ERROR_MAX, "%s: ", l->name);
		va_start(ap, fmt);
		if (n > 0 && n < SP_CONF_ERROR_MAX)
			vsnprintf(text + n, SP_CONF_ERROR_MAX - (size_t)n, fmt, ap);
		va_end(ap);
	}
	e->n++;
}

static size_t line_of(const struct load *l)
{
	return l->ev.start_mark.line + 1;
}

static void stop(struct load *l, const char *what)
{
	complain(l, line_of(l), "%s", what);
	l->fatal = true;
}

// Anchors and tags are refused wherever they stand: nothing here needs them, and an alias
// makes a small file a large one.
static void refuse_extras(struct load *l)
{
	const yaml_char_t *anchor = NULL, *tag = NULL;

	if (l->ev.type == YAML_ALIAS_EVENT) {
		stop(l, "aliases (*name) are not known here; write the value out, or put "
			"it in quotes");
		return;
	}
	if (l->ev.type == YAML_SCALAR_EVENT) {
		anchor = l->ev.data.scalar.anchor;
		tag = l->ev.data.scalar.tag;
	} else if (l->ev.type == YAML_SEQUENCE_START_EVENT) {
		anchor = l->ev.data.sequence_start.anchor;
		tag = l->ev.data.sequence_start.tag;
	} else if (l->ev.type == YAML_MAPPING_START_EVENT) {
		anchor = l->ev.data.mapping_start.anchor;
		tag = l->ev.data.mapping_start.tag;
	}
	if (anchor)
		stop(l, "anchors (&name) are not known here; remove it, or put the value "
			"in quotes");
	else if (tag)
		stop(l, "tags (!name) are not known here; remove it, or put the value in "
			"quotes");
}

// Steps to the next event. The end of the stream if the load is over.
static yaml_event_type_t step(struct load *l)
{
	const yaml_parser_t *p = &l->parser;

	if (l->fatal)
		return YAML_STREAM_END_EVENT;
	yaml_event_delete(&l->ev);
	if (!yaml_parser_parse(&l->parser, &l->ev)) {
		memset(&l->ev, 0, sizeof(l->ev));
		bool encoding = p->error == YAML_READER_ERROR;
		complain(l, encoding ? 0 : p->problem_mark.line + 1, "not YAML: %s%s%s",
			 p->problem ? p->problem : "no memory", p->context ? " " : "",
			 p->context ? p->context : "");
		l->fatal = true;
	} else {
		refuse_extras(l);
	}
	return l->fatal ? YAML_STREAM_END_EVENT : l->ev.type;
}

// Past the value that the event under inspection begins.
static void skip(struct load *l)
{
	unsigned depth = 0;
	yaml_event_type_t type = l->ev.type;

	for (;;) {
		if (type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT)
			depth++;
		else if (type == YAML_MAPPING_END_EVENT ||
			 type == YAML_SEQUENCE_END_EVENT)
			depth--;
		if (depth > DEPTH_MAX)
			stop(l, "nested too deeply");
		if (depth == 0 || l->fatal)
			return;
		type = step(l);
	}
}

static const char *scalar(const struct load *l, size_t *ret_len)
{
	*ret_len = l->ev.data.scalar.length;
	return (const char *)l->ev.data.scalar.value;
}

// Nothing behind the colon, or a word for it.
static bool is_null(const struct load *l)
{
	size_t len;
	const char *text = scalar(l, &len);
	return l->ev.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
	       (len == 0 || strcmp(text, "~") == 0 || strcmp(text, "null") == 0);
}

static const struct sp_conf_key *find(const struct sp_conf_table *t, const char *path)
{
	for (size_t i = 0; i < t->n_keys; i++)
		if (strcmp(t->keys[i].name, path) == 0)
			return &t->keys[i];
	return NULL;
}

static bool is_group(const struct sp_conf_table *t, const char *path)
{
	size_t len = strlen(path);
	for (size_t i = 0; i < t->n_keys; i++)
		if (strncmp(t->keys[i].name, path, len) == 0 &&
		    t->keys[i].name[len] == '.')
			return true;
	return false;
}

// The key that a text begins with, or NULL.
static const struct sp_conf_key *find_leading(const struct sp_conf_table *t,
					      const char *why)
{
	char name[SP_CONF_NAME_MAX];
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(why, ": "), why);
	return find(t, name);
}

// What was meant: the same word in another group, or a key or group at most a third of it
// away. To `ret`; false: nothing is near.
static bool nearest(const struct sp_conf_table *t, const char *path,
		    char ret[static SP_CONF_NAME_MAX])
{
	unsigned least = (unsigned)strlen(path) / 3 + 1;
	const char *last = strrchr(path, '.');
	bool found = false;
	last = last ? last + 1 : path;

	for (size_t i = 0; i < t->n_keys; i++) {
		char name[SP_CONF_NAME_MAX];
		snprintf(name, sizeof(name), "%s", t->keys[i].name);
		char *tail = strrchr(name, '.');
		bool same = strcmp(tail ? tail + 1 : name, last) == 0;
		for (;;) { // the key, then the groups that it is in
			unsigned d = sp_text_distance(name, path);
			if (same && d > 1)
				d = 1;
			if (d < least) {
				least = d;
				found = true;
				memcpy(ret, name, sizeof(name));
			}
			if (!(tail = strrchr(name, '.')))
				break;
			*tail = '\0';
			same = false;
		}
	}
	return found;
}

static void unknown(struct load *l, const struct object *o, const char *path)
{
	char near[SP_CONF_NAME_MAX];
	bool read = l->errs->n < SP_CONF_ERRORS_MAX; // else nobody reads it
	if (read && nearest(o->table, path, near))
		complain(l, line_of(l), "%s%s: unknown key; did you mean %s?", o->prefix,
			 path, near);
	else
		complain(l, line_of(l), "%s%s: unknown key; remove it", o->prefix, path);
}

static void load_object(struct load *l, struct object *o);

static void load_entry(struct load *l, const struct object *o,
		       const struct sp_conf_key *k, size_t index)
{
	char prefix[SP_CONF_NAME_MAX * 2];
	struct object entry = {.table = k->items, .prefix = prefix, .line = line_of(l)};

	if (k->type != SP_CONF_TABLES || l->ev.type != YAML_MAPPING_START_EVENT) {
		char expect[CONF_WHY_MAX];
		conf_expect(k, expect, sizeof(expect));
		complain(l, line_of(l), "%s%s: an entry of a wrong form; give %s",
			 o->prefix, k->name, expect);
		skip(l);
		return;
	}
	snprintf(prefix, sizeof(prefix), "%s%s[%zu].", o->prefix, k->name, index);
	entry.conf = conf_value_append(k, conf_field(k, o->conf));
	if (!entry.conf) {
		stop(l, "no memory");
		return;
	}
	load_object(l, &entry);
}

static void set_scalar(struct load *l, const struct object *o,
		       const struct sp_conf_key *k)
{
	char why[CONF_WHY_MAX];
	size_t len;
	const char *text = scalar(l, &len);
	if (!conf_value_set(k, text, len, l->folder, conf_field(k, o->conf), why))
		complain(l, line_of(l), "%s%s: %s", o->prefix, k->name, why);
}

static void load_list(struct load *l, const struct object *o, const struct sp_conf_key *k)
{
	size_t n = 0, line = line_of(l);
	yaml_event_type_t type;

	conf_value_clear(k, conf_field(k, o->conf));
	while ((type = step(l)) != YAML_SEQUENCE_END_EVENT && !l->fatal) {
		if (n++ >= conf_list_max(k))
			skip(l);
		else if (type == YAML_SCALAR_EVENT && k->type != SP_CONF_TABLES)
			set_scalar(l, o, k);
		else
			load_entry(l, o, k, n - 1);
	}
	if (n > conf_list_max(k))
		complain(l, line, "%s%s: %zu entries; at most %zu are possible",
			 o->prefix, k->name, n, conf_list_max(k));
	else if (n < (size_t)k->min)
		complain(l, line, "%s%s: %zu entries; at least %zu are needed", o->prefix,
			 k->name, n, (size_t)k->min);
}

static void load_value(struct load *l, const struct object *o,
		       const struct sp_conf_key *k)
{
	size_t *seen = &o->seen[k - o->table->keys];
	bool is_scalar = l->ev.type == YAML_SCALAR_EVENT;
	char expect[CONF_WHY_MAX];

	if (*seen) {
		complain(l, line_of(l),
			 "%s%s: stands in line %zu already; remove one of the two",
			 o->prefix, k->name, *seen);
		skip(l);
		return;
	}
	*seen = line_of(l);
	if (k == l->wanted)
		l->wanted_line = *seen;
	if (conf_is_list(k) && l->ev.type == YAML_SEQUENCE_START_EVENT) {
		load_list(l, o, k);
		return;
	}
	if (!conf_is_list(k) && is_scalar && !is_null(l)) {
		set_scalar(l, o, k);
		return;
	}
	conf_expect(k, expect, sizeof(expect));
	if (is_scalar && is_null(l))
		complain(l, line_of(l), "%s%s: has no value; give %s, or remove the line",
			 o->prefix, k->name, expect);
	else
		complain(l, line_of(l), "%s%s: a %s is not what belongs here; give %s",
			 o->prefix, k->name,
			 is_scalar                                 ? "single value"
			 : l->ev.type == YAML_SEQUENCE_START_EVENT ? "list"
								   : "group of keys",
			 expect);
	skip(l);
}

static void load_keys(struct load *l, const struct object *o, const char *group);

// One key of the mapping and its value.
static void load_pair(struct load *l, const struct object *o, const char *group)
{
	char path[SP_CONF_NAME_MAX];
	size_t len;

	if (l->ev.type != YAML_SCALAR_EVENT) {
		stop(l, "a key must be a word");
		return;
	}
	const char *word = scalar(l, &len);
	int n = snprintf(path, sizeof(path), "%s%s%s", group, *group ? "." : "", word);
	for (char *p = path; *p; p++) // for the error text
		if ((unsigned char)*p <= ' ' || *p == 0x7f)
			*p = '?';
	const struct sp_conf_key *k = NULL;
	bool fits = n > 0 && (size_t)n < sizeof(path) && strlen(word) == len;
	if (fits)
		k = find(o->table, path);
	bool is_a_group = fits && !k && is_group(o->table, path);
	if (!k && !is_a_group)
		unknown(l, o, path);
	yaml_event_type_t type = step(l);
	if (l->fatal)
		return;
	if (k) {
		load_value(l, o, k);
	} else if (is_a_group && type == YAML_MAPPING_START_EVENT) {
		load_keys(l, o, path);
	} else if (is_a_group && !(type == YAML_SCALAR_EVENT && is_null(l))) {
		complain(l, line_of(l),
			 "%s%s: is a group; write its keys below it, indented", o->prefix,
			 path);
		skip(l);
	} else {
		skip(l);
	}
}

static void load_keys(struct load *l, const struct object *o, const char *group)
{
	while (step(l) != YAML_MAPPING_END_EVENT && !l->fatal)
		load_pair(l, o, group);
}

static void check_required(struct load *l, const struct object *o)
{
	for (size_t i = 0; i < o->table->n_keys; i++) {
		const struct sp_conf_key *k = &o->table->keys[i];
		if (k->required && !o->seen[i])
			complain(l, o->line, "%s%s: is missing; add it: %s", o->prefix,
				 k->name, k->help);
	}
}

// The mapping under inspection, or nothing if the file is empty.
static void load_object(struct load *l, struct object *o)
{
	unsigned before = l->errs->n;
	char why[CONF_WHY_MAX];

	o->seen = calloc(o->table->n_keys + 1, sizeof(*o->seen));
	if (!o->seen) {
		stop(l, "no memory");
		return;
	}
	conf_defaults(o->table, l->folder, o->conf);
	if (l->ev.type == YAML_MAPPING_START_EVENT)
		load_keys(l, o, "");
	if (!l->fatal)
		check_required(l, o);
	if (l->errs->n == before && o->table->check &&
	    !o->table->check(o->conf, why, sizeof(why))) {
		const struct sp_conf_key *k = find_leading(o->table, why);
		size_t line = k ? o->seen[k - o->table->keys] : 0;
		complain(l, line ? line : o->line, "%s%s", o->prefix, why);
	}
	free(o->seen);
}

static void load_file(struct load *l, const struct sp_conf_table *t, void *conf)
{
	struct object o = {.table = t, .conf = conf, .prefix = "", .line = 1};

	step(l); // stream start
	yaml_event_type_t type = step(l);
	if (type == YAML_DOCUMENT_START_EVENT)
		type = step(l);
	if (l->fatal)
		return;
	if (type != YAML_MAPPING_START_EVENT && type != YAML_STREAM_END_EVENT &&
	    !(type == YAML_SCALAR_EVENT && is_null(l))) {
		stop(l, "a config file consists of lines `key: value`");
		return;
	}
	bool empty = type == YAML_STREAM_END_EVENT;
	load_object(l, &o);
	if (empty || l->fatal)
		return;
	step(l); // document end
	if (step(l) != YAML_STREAM_END_EVENT && !l->fatal)
		stop(l, "a second document begins here; a config file is one");
}

static void *parse(struct load *l, const struct sp_conf_table *t, const char *text,
		   size_t len)
{
	void *conf = calloc(1, t->struct_bytes);

	l->errs->n = 0;
	if (!conf || !yaml_parser_initialize(&l->parser)) {
		complain(l, 0, "no memory");
		free(conf);
		return NULL;
	}
	if (len > SP_CONF_FILE_MAX) {
		complain(l, 0, "longer than the limit of %u bytes", SP_CONF_FILE_MAX);
	} else {
		yaml_parser_set_encoding(&l->parser, YAML_UTF8_ENCODING);
		yaml_parser_set_input_string(&l->parser, (const yaml_char_t *)text, len);
		load_file(l, t, conf);
		yaml_event_delete(&l->ev);
	}
	yaml_parser_delete(&l->parser);
	if (l->errs->n) {
		sp_conf_free(t, conf);
		return NULL;
	}
	return conf;
}

void *sp_conf_parse(const struct sp_conf_table *t, const char *name, const char *folder,
		    const char *text, size_t len, struct sp_conf_errors *errs)
{
	struct load l = {.name = name, .folder = folder, .errs = errs};
	return parse(&l, t, text, len);
}

void *sp_conf_load(const struct sp_conf_table *t, const char *path,
		   struct sp_conf_errors *errs)
{
	const struct sp_file_read opt = {.max = SP_CONF_FILE_MAX};
	char *folder = strdup(path), *slash = folder ? strrchr(folder, '/') : NULL;
	void *conf = NULL;
	uint8_t *buf;
	size_t len, cap = sizeof(errs->text[0]);
	char *why = errs->text[0];
	int err = folder ? sp_file_read(path, &opt, &buf, &len, why, cap) : -ENOMEM;

	errs->n = 0;
	if (err) {
		if (!folder)
			strcpy(why, "no memory");
		else if (err == -ENOENT)
			snprintf(why, cap,
				 "%s: %s; make it by init, or name another by -c", path,
				 strerror(ENOENT));
		errs->n = 1;
	} else {
		if (slash)
			slash[slash == folder] = '\0';
		conf = sp_conf_parse(t, path, slash ? folder : NULL, (char *)buf, len,
				     errs);
		sp_file_free(buf, len);
	}
	free(folder);
	return conf;
}

const char *sp_conf_place(const struct sp_conf_table *t, const char *path,
			  const char *why, char *ret, size_t cap)
{
	const struct sp_file_read opt = {.max = SP_CONF_FILE_MAX};
	struct sp_conf_errors errs;
	struct load l = {.name = path, .errs = &errs, .wanted = find_leading(t, why)};
	uint8_t *buf;
	size_t len;

	if (l.wanted && !sp_file_read(path, &opt, &buf, &len, ret, cap)) {
		sp_conf_free(t, parse(&l, t, (char *)buf, len));
		sp_file_free(buf, len);
	}
	if (l.wanted_line)
		snprintf(ret, cap, "%s:%zu: %s", path, l.wanted_line, why);
	else
		snprintf(ret, cap, "%s: %s", path, why);
	return ret;
}

const char *sp_conf_place_listen(const struct sp_conf_table *t, const char *path,
				 const char *key, const struct sp_target *at, int err,
				 char *ret, size_t cap)
{
	char why[SP_WHY_MAX], text[SP_TARGET_TEXT_MAX];
	const char *remedy = "name another address";

	if (err == -EADDRINUSE)
		remedy = "end the program that listens there, or name another port";
	else if (err == -EACCES)
		remedy = "start it with CAP_NET_BIND_SERVICE (the systemd unit does), or "
			 "name a port from 1024 up";
	else if (err == -EADDRNOTAVAIL)
		remedy = "name an address of this machine";
	snprintf(why, sizeof(why), "%s: %s: %s; %s", key,
		 sp_target_format(at, text, sizeof(text)), sp_strerror(err), remedy);
	return sp_conf_place(t, path, why, ret, cap);
}

void sp_conf_free(const struct sp_conf_table *t, void *conf)
{
	if (!conf)
		return;
	conf_clear(t, conf);
	sodium_memzero(conf, t->struct_bytes);
	free(conf);
}

size_t sp_conf_diff(const struct sp_conf_table *t, const void *a, const void *b,
		    bool fixed_only, const struct sp_conf_key **ret, size_t cap)
{
	size_t n = 0;
	for (size_t i = 0; i < t->n_keys; i++) {
		const struct sp_conf_key *k = &t->keys[i];
		if ((fixed_only && k->reloadable) ||
		    conf_value_equal(k, conf_field(k, a), conf_field(k, b)))
			continue;
		if (n < cap)
			ret[n] = k;
		n++;
	}
	return n;
}

void sp_conf_errors_print(const struct sp_conf_errors *errs, FILE *out)
{
	unsigned kept = errs->n < SP_CONF_ERRORS_MAX ? errs->n : SP_CONF_ERRORS_MAX;
	for (unsigned i = 0; i < kept; i++)
		fprintf(out, "%s\n", errs->text[i]);
	if (errs->n > kept)
		fprintf(out, "and %u more\n", errs->n - kept);
}
