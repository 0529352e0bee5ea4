// What the running client tells of itself: a JSON document for the control socket, and
// the same for people. Never a destination.
#ifndef CLI_STATUS_H
#define CLI_STATUS_H

#include <stdio.h>

#include "lib/err.h"

struct cli_client;

// JSON with a final newline, malloc'd; NULL: no memory.
char *cli_status_json(const struct cli_client *c);
// Prints such a document for people. 0; SP_E_MALFORMED: not one.
int cli_status_print(const char *json, FILE *out) SP_MUST_CHECK;

#endif
