// Fleet configs made from the command line's values. Each is checked by lib/fleet before
// it is given away. Not here: signing (ctl/seal.h).
#ifndef CTL_TEMPLATE_H
#define CTL_TEMPLATE_H

#include <jansson.h>

#include "ctl/cli.h"

// A worker config by --tier, --allow, --deny and --group of the verb, passes signed by
// the `pass_keys` (a list of texts; taken); `members` (a list; taken; NULL: none) are the
// fleet's workers, as exits of a client config. 0 and *ret (canonical, free()), or an
// exit code and said.
int ctl_template_worker(const struct ctl_call *call, json_t *pass_keys, json_t *members,
			char **ret) SP_MUST_CHECK;
// A client config of the `exits` (a list; taken). The same.
int ctl_template_client(const struct ctl_call *call, json_t *exits,
			char **ret) SP_MUST_CHECK;
// The name of the first tier: the text before the first comma. free().
char *ctl_first_tier(const struct ctl_call *call);

// The pin of a value: 64 hexadecimal digits, or a PEM file with the certificate. 0 and
// *ret (free()), or an exit code and said.
int ctl_template_pin(const struct ctl_call *call, const char *value,
		     char **ret) SP_MUST_CHECK;

#endif
