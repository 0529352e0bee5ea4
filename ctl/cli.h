// The command line as one table: verbs, their options, what they call. Parsing, help and
// completion come from the table (ctl/table.c). Pure but for the streams it prints to.
// Not here: what a verb does.
#ifndef CTL_CLI_H
#define CTL_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sysexits.h>

#include "lib/err.h"

// Exit codes are stable: sysexits.h, and this one for a file that was read and is what it
// should be, but must not be trusted: signature, key, expiry, revision.
#define CTL_EX_UNTRUSTED 1

#define CTL_OPTIONS_MAX 24 // of one verb
#define CTL_VALUES_MAX  512

struct ctl_option {
	const char *name; // without the dashes
	char letter;      // or 0
	const char *arg;  // what its value is, NULL: a switch
	const char *def;  // of a value that is not given, or NULL
	bool required, repeat;
	const char *help;
};

struct ctl_call;
struct ctl_verb {
	const char *name;  // "print", "pass make"
	const char *alias; // or NULL
	const char *args;  // names of the positional arguments, "" if none
	unsigned min_args, max_args;
	const char *help;                 // one line, no full stop
	const struct ctl_option *options; // ends with name NULL; or NULL
	// An exit code; what went wrong has been said.
	int (*run)(struct ctl_call *call);
};

struct ctl_program {
	const char *name;
	const struct ctl_verb *verbs; // ends with name NULL
	const char *epilogue;         // of the help
};

struct ctl_call {
	const struct ctl_program *program;
	const struct ctl_verb *verb;
	FILE *out, *err;
	uint64_t now_s; // Unix time
	bool json, help;
	char **args;
	size_t n_args;
	struct {
		const struct ctl_option *option;
		const char *value;
	} values[CTL_VALUES_MAX];
	size_t n_values;
};

// Options that each verb has: --json, --help.
extern const struct ctl_option ctl_common_options[];

// Reads a command line (argv[0] is not looked at; argv is permuted) into `call`, whose
// program, out, err and now_s are set. 0; EX_USAGE: said on call->err. call->verb is NULL
// if only the help was asked for, of which --version is a part.
int ctl_cli_parse(struct ctl_call *call, int argc, char **argv) SP_MUST_CHECK;
// The whole way: parse, help, run. An exit code.
int ctl_cli_main(struct ctl_call *call, int argc, char **argv) SP_MUST_CHECK;

// The value of an option, its default, or NULL. `name` must be in the verb's table.
const char *ctl_get(const struct ctl_call *call, const char *name);
// The values of one that repeats, in order: *at is 0 at first; NULL: no more.
const char *ctl_next(const struct ctl_call *call, const char *name, size_t *at);
bool ctl_has(const struct ctl_call *call, const char *name);
// Whether the verb's table has the option.
bool ctl_has_option(const struct ctl_verb *verb, const char *name);

// A bash script that completes verbs, options and files.
void ctl_cli_completion(const struct ctl_program *program, FILE *out);

// Says what went wrong on call->err, as text or JSON, and returns `code`.
__attribute__((format(printf, 3, 4))) int ctl_fail(const struct ctl_call *call, int code,
						   const char *fmt, ...);

#endif
