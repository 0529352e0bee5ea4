// Passes made from the command line's values. Not here: what a pass is (lib/pass.h).
#ifndef CTL_PASS_H
#define CTL_PASS_H

#include "ctl/cli.h"
#include "lib/pass.h"

// The pass that --user, --valid, --from, --max-sessions, --max-streams, --max-flows,
// --rate and --group of the verb name, with a random serial. 0, or an exit code and said.
int ctl_pass_fill(const struct ctl_call *call, const char *tier, const uint8_t *device,
		  struct sp_pass *ret) SP_MUST_CHECK;
// Signs and writes it. 0, or an exit code and said.
int ctl_pass_write(const struct ctl_call *call, const struct sp_pass *pass,
		   const uint8_t *secret, const char *path, bool replace) SP_MUST_CHECK;

#endif
