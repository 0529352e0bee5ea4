// What verbs print: one JSON record, as JSON or as lines of text. Not here: what is in
// it (ctl/describe.h).
#ifndef CTL_OUT_H
#define CTL_OUT_H

#include <jansson.h>

#include "ctl/cli.h"

// Prints the record and takes it. As text: members by lines, names with blanks for
// underscores, lists with dashes; the numbers of times ("issued", "expires",
// "not_before") as dates. EX_OK; EX_OSERR, said: `record` is NULL (no memory).
int ctl_out(const struct ctl_call *call, json_t *record) SP_MUST_CHECK;

#endif
