// YAML as JSON, for files whose content is lists of things rather than a program's keys
// (those: lib/conf.h), and the line of any place in it. Pure: no I/O. Refused: anchors,
// aliases, tags, several documents, repeated keys, more than SP_YAML_DEPTH_MAX levels.
//
// Plain scalars: true and false are booleans, ~ and null are null, decimal numbers of up
// to 18 digits integers; every other scalar, and what is quoted, is a text.
#ifndef SP_YAML_H
#define SP_YAML_H

#include <jansson.h>
#include <stddef.h>

#define SP_YAML_DEPTH_MAX 16
#define SP_YAML_PATH_MAX  256 // of a place: "nodes[3].carriers[0].kind"

// New reference; NULL: `why` says what is wrong and *ret_line where. An empty document is
// null.
json_t *sp_yaml_load(const char *text, size_t len, unsigned *ret_line, char *why,
		     size_t cap);
// The line where the place stands, or, if it is not there, what is around it; from 1.
unsigned sp_yaml_line(const char *text, size_t len, const char *path);

#endif
