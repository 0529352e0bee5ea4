// What the verbs of the table do; each returns an exit code and has said what went wrong.
#ifndef CTL_VERBS_H
#define CTL_VERBS_H

#include <jansson.h>

#include "ctl/cli.h"

#define CTL_LEASE_DEFAULT_S 3600

int ctl_keys_make(struct ctl_call *call); // the kind is the verb's second word
int ctl_keys_show(struct ctl_call *call);

int ctl_pass_make(struct ctl_call *call);
int ctl_pass_show(struct ctl_call *call);
int ctl_pass_verify(struct ctl_call *call);

int ctl_config_sign(struct ctl_call *call);
int ctl_config_show(struct ctl_call *call);
int ctl_config_verify(struct ctl_call *call);
int ctl_config_init(struct ctl_call *call); // the kind is the argument

int ctl_print(struct ctl_call *call);
int ctl_quickstart(struct ctl_call *call);
// Of the operator API: fleet.c, lists.c, health.c, doctor.c, leases.c, access.c.
int ctl_apply(struct ctl_call *call);
int ctl_diff(struct ctl_call *call);
int ctl_rollback(struct ctl_call *call);
int ctl_status(struct ctl_call *call);
int ctl_health(struct ctl_call *call);
int ctl_doctor(struct ctl_call *call);
int ctl_get_list(struct ctl_call *call); // the kind is the verb's second word
int ctl_get_events(struct ctl_call *call);
int ctl_lease(struct ctl_call *call); // cordon, drain: the verb's name
int ctl_undrain(struct ctl_call *call);
int ctl_revoke(struct ctl_call *call);
int ctl_token_make(struct ctl_call *call);
int ctl_token_drop(struct ctl_call *call);
int ctl_enroll(struct ctl_call *call);

int ctl_completion(struct ctl_call *call);

// What several of them need:
// Seconds of an option such as 90m; 0: it was not given. 0, or an exit code and said.
int ctl_seconds(const struct ctl_call *call, const char *option,
		json_int_t *ret) SP_MUST_CHECK;
// DELETE of what the argument names below `path`; says `done`. An exit code.
int ctl_take_away(struct ctl_call *call, const char *path,
		  const char *done) SP_MUST_CHECK;
// Says in the member "standing" of a node, worker or lease what is left there: "empty",
// "draining, 12 streams left"; of one that is cordoned that it is.
void ctl_tell_standing(json_t *o);

extern const struct ctl_program ctl_program; // the table

#endif
