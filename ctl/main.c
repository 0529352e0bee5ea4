// sallyportctl: the operator's tool. Here: process set-up only; the table is in table.c.
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include <sodium.h>

#include "ctl/verbs.h"

int main(int argc, char **argv)
{
	struct ctl_call *call = calloc(1, sizeof(*call));
	if (!call || sodium_init() < 0) {
		fputs("sallyportctl: libsodium does not start\n", stderr);
		free(call);
		return EX_OSERR;
	}
	(void)prctl(PR_SET_DUMPABLE, 0);
	call->program = &ctl_program;
	call->out = stdout;
	call->err = stderr;
	call->now_s = (uint64_t)time(NULL);
	int code = ctl_cli_main(call, argc, argv);
	free(call);
	return code;
}
