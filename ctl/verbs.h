// What the verbs of the table do; each returns an exit code and has said what went wrong.
#ifndef CTL_VERBS_H
#define CTL_VERBS_H

#include "ctl/cli.h"

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
int ctl_completion(struct ctl_call *call);

extern const struct ctl_program ctl_program; // the table

#endif
