// The commands of `sallyport`, one function each; main.c has their table. Each prints
// what it has to say and returns the exit status of the program (sysexits.h).
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include <stdbool.h>

struct cli_args {
	const char *config; // path
	bool json;
	const char *exit_name; // probe: which exit, or NULL: all
	const char *target;    // probe: HOST:PORT[/PATH], or NULL: no stream
	unsigned expect;       // probe: HTTP status wanted; 0: any from 200 to 399
	unsigned timeout_s;    // probe
};

int cli_cmd_init(const struct cli_args *args);  // cmd_init.c
int cli_cmd_check(const struct cli_args *args); // cmd_init.c
int cli_cmd_dump(const struct cli_args *args);
int cli_cmd_reference(const struct cli_args *args);
int cli_cmd_up(const struct cli_args *args);   // cmd_up.c
int cli_cmd_down(const struct cli_args *args); // cmd_control.c
int cli_cmd_reload(const struct cli_args *args);
int cli_cmd_status(const struct cli_args *args);
int cli_cmd_probe(const struct cli_args *args); // cmd_probe.c

#endif
