// Config files: YAML by one table of keys per program. The loader, --check,
// --dump-config, the default file and the reference page all come from the table. Not
// here: the tables (each program's config.c), command lines, signatures.
//
// A key's name is its path: "tls.certificate" is `certificate:` below `tls:` (or the
// dotted name itself). What a file may not have: unknown or repeated keys, anchors,
// aliases, tags, several documents, more than SP_CONF_FILE_MAX bytes.
#ifndef SP_CONF_H
#define SP_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "lib/addr.h"
#include "lib/err.h"

#define SP_CONF_FILE_MAX   (1u << 20)
#define SP_CONF_LIST_MAX   256 // entries of a list, unless the key says less
#define SP_CONF_ERRORS_MAX 20  // texts kept
#define SP_CONF_ERROR_MAX  400 // bytes of one
#define SP_CONF_NAME_MAX   96  // of a key's path, with its NUL

// What the field at `offset` is.
enum sp_conf_type {
	SP_CONF_BOOL,     // bool: true, false
	SP_CONF_INT,      // int64_t
	SP_CONF_DURATION, // int64_t of ms: 500ms, 10s, 5m, 25h, 7d
	SP_CONF_SIZE,     // int64_t of bytes: 1500, 64K, 4M, 2G
	SP_CONF_STRING,   // char *, NULL: not set; owned by the config
	SP_CONF_PATH,     // the same; a relative one counts from the config file's folder
	SP_CONF_ADDRESS,  // struct sp_target; kind 0: not set
	SP_CONF_ENUM,     // int, an index into `words`
	SP_CONF_STRINGS,  // struct sp_conf_strings
	SP_CONF_ADDRESSES, // struct sp_conf_addresses
	SP_CONF_TABLES,    // struct sp_conf_tables: each entry has keys of its own
};
struct sp_conf_strings {
	char **v;
	size_t n;
};
struct sp_conf_addresses {
	struct sp_target *v;
	size_t n;
};
struct sp_conf_tables {
	void *v; // n structs of items->struct_bytes
	size_t n;
};

struct sp_conf_table;
struct sp_conf_key {
	const char *name; // path, SP_CONF_NAME_MAX
	enum sp_conf_type type;
	size_t offset;
	// Text as in the file; entries of a list by commas; NULL: zero, NULL, empty.
	const char *def;
	// Bounds of numbers in ms or bytes where that is the unit, of the length of
	// strings and of the entries of lists. Both 0: any (numbers: >= 0).
	int64_t min, max;
	const char *unit;                  // of an INT, for people; or NULL
	const char *const *words;          // ENUM: ends in NULL
	const struct sp_conf_table *items; // TABLES
	// STRINGS: entries that do not begin with this are paths, as PATH; NULL: none is.
	const char *not_a_path;
	const char *example; // for the default file, where there is no def
	bool reloadable;
	bool required;    // must be in the file
	const char *help; // one line, no full stop
};
struct sp_conf_table {
	const char *title; // "Sallyport worker"; in tables of entries: what one is
	const struct sp_conf_key *keys;
	size_t n_keys;
	size_t struct_bytes;
	// What no single key shows. true, or false and in `why` one clause that names the
	// keys, the one to change first. NULL: nothing.
	bool (*check)(const void *conf, char *why, size_t cap);
};

struct sp_conf_errors {
	unsigned n; // found; the first SP_CONF_ERRORS_MAX are kept
	char text[SP_CONF_ERRORS_MAX]
		 [SP_CONF_ERROR_MAX]; // "file:line: key: what; remedy"
};
void sp_conf_errors_print(const struct sp_conf_errors *errs, FILE *out);

// Reads a file. The program's struct, malloc'd, free with sp_conf_free; NULL: *errs says
// why, at least once.
void *sp_conf_load(const struct sp_conf_table *t, const char *path,
		   struct sp_conf_errors *errs) SP_MUST_CHECK;
// The same from memory. `name` stands for the file in errors; paths count from `folder`,
// NULL: they stay as they are.
void *sp_conf_parse(const struct sp_conf_table *t, const char *name, const char *folder,
		    const char *text, size_t len,
		    struct sp_conf_errors *errs) SP_MUST_CHECK;
// Where a mistake stands that shows only later, in what a key names: "path:line: why" to
// ret, cut to cap, with the line of the key that `why` begins with; without a line if
// that key is not in the file. Reads the file once more. Returns ret.
const char *sp_conf_place(const struct sp_conf_table *t, const char *path,
			  const char *why, char *ret, size_t cap);
// The same of an address below `key` at which listening failed with -errno `err`.
const char *sp_conf_place_listen(const struct sp_conf_table *t, const char *path,
				 const char *key, const struct sp_target *at, int err,
				 char *ret, size_t cap);
// Wipes and frees. NULL is fine.
void sp_conf_free(const struct sp_conf_table *t, void *conf);

// Keys whose values differ between two configs of the table: up to `cap` of them to
// `ret`. `fixed_only`: only those that a reload cannot change. Returns how many there
// are.
size_t sp_conf_diff(const struct sp_conf_table *t, const void *a, const void *b,
		    bool fixed_only, const struct sp_conf_key **ret, size_t cap);

// Effective values as YAML that loads to the same config. 0; -EIO.
int sp_conf_dump(const struct sp_conf_table *t, const void *conf,
		 FILE *out) SP_MUST_CHECK;
// A commented file with all keys: what is required stands there with its example, the
// rest is commented out at its default. 0; -EIO.
int sp_conf_write_default(const struct sp_conf_table *t, FILE *out) SP_MUST_CHECK;
// The reference: a Markdown table, or the items of an mdoc list for a man page.
enum sp_conf_reference { SP_CONF_MARKDOWN, SP_CONF_MDOC };
int sp_conf_write_reference(const struct sp_conf_table *t, enum sp_conf_reference form,
			    FILE *out) SP_MUST_CHECK;

// One duration (to ms) or size (to bytes) in the form that files have, such as 25h or 4M.
// 0 and *ret; SP_E_MALFORMED and in `why` what was found and what is wanted.
int sp_conf_amount(enum sp_conf_type type, const char *text, int64_t *ret, char *why,
		   size_t cap) SP_MUST_CHECK;

// For the unit test of each program's table: 0 if names are unique and fit, every default
// and example parses and lies within its bounds, enums have words, tables items, all have
// help; else SP_E_CONFIG and `why`.
int sp_conf_check_table(const struct sp_conf_table *t, char *why,
			size_t cap) SP_MUST_CHECK;

#endif
