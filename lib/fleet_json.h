// Reading JSON with the place of the first error, for lib/fleet*.c and
// small files of programs.
#ifndef SP_FLEET_JSON_H
#define SP_FLEET_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/fleet.h"

// Where in the document we are, and the first error; later ones are dropped.
struct fleet_cursor {
	char path[160]; // "exits[0].carriers[1]"; "": the document
	char *why;
	size_t cap;
	int err;
};

// "PATH: text" if there was no error yet. `key` NULL: the place itself, else its member.
__attribute__((format(printf, 4, 5))) void
fleet_fail(struct fleet_cursor *c, int err, const char *key, const char *fmt, ...);
// Steps into a member or an entry; what they return goes to fleet_leave.
size_t fleet_enter(struct fleet_cursor *c, const char *key);
size_t fleet_enter_index(struct fleet_cursor *c, const char *key, size_t i);
void fleet_leave(struct fleet_cursor *c, size_t mark);

// The document: an object of known format, with none but the known keys. NULL: an error.
json_t *fleet_load(struct fleet_cursor *c, const void *text, size_t len,
		   const char *const *keys);
// The same of at most `max` bytes; fleet_load takes SP_SIGNED_BODY_MAX.
json_t *fleet_load_within(struct fleet_cursor *c, const void *text, size_t len,
			  size_t max, const char *const *keys);
// False and an error if it is no object or has a key that is not in `keys` (ends in
// NULL).
bool fleet_check_keys(struct fleet_cursor *c, const json_t *o, const char *const *keys);
// revision, issued, expires.
void fleet_get_head(struct fleet_cursor *c, const json_t *o,
		    struct sp_fleet_revision *revision, uint64_t *issued_s,
		    uint64_t *expires_s);

// Members of `o`. Absent is an error if `required`, else 0, "" and NULL.
uint64_t fleet_get_uint(struct fleet_cursor *c, const json_t *o, const char *key,
			uint64_t max, bool required);
// Printable ASCII of 1 to `max` bytes; points into `o`.
const char *fleet_get_text(struct fleet_cursor *c, const json_t *o, const char *key,
			   size_t max, bool required);
// A name (sp_fleet_name_is_valid) to `ret` of SP_FLEET_NAME_MAX + 1.
void fleet_get_name(struct fleet_cursor *c, const json_t *o, const char *key,
		    bool required, char *ret);
// An object or a list of `min` to `max` entries.
json_t *fleet_get_object(struct fleet_cursor *c, const json_t *o, const char *key,
			 size_t min, size_t max, bool required);
json_t *fleet_get_list(struct fleet_cursor *c, const json_t *o, const char *key,
		       size_t min, size_t max, bool required);

// fleet_revoked.c: the three lists of what holds no more, to `f`.
void fleet_get_revoked(struct fleet_cursor *c, const json_t *o,
		       struct sp_fleet_worker *f);

// fleet_client.c: one exit of a client config; what it holds is the caller's to free
// (ca_file of each carrier).
void fleet_get_exit(struct fleet_cursor *c, const json_t *o, struct sp_fleet_exit *x);
// fleet_members.c: the list below "members".
void fleet_get_members(struct fleet_cursor *c, const json_t *o, bool required,
		       struct sp_fleet_members *ret);

// Printable ASCII only.
bool fleet_is_plain(const char *s);
// "a text", "an integer" ...
const char *fleet_type_word(const json_t *v);
// n zeroed entries (n 0: one); NULL is an error of the cursor.
void *fleet_alloc(struct fleet_cursor *c, size_t n, size_t size);

#endif
