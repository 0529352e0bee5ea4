// sallyport: the command line.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include <sodium.h>

#include "client/commands.h"
#include "lib/version.h"

static const char usage[] =
	"usage: sallyport [-c FILE] COMMAND\n"
	"\n"
	"  init      write a commented config file and make this device's key\n"
	"  up        run in the foreground\n"
	"  down      end the running client\n"
	"  reload    let the running client read its files again\n"
	"  status    [--json] what the running client does\n"
	"  probe     [EXIT] [--target HOST:PORT[/PATH]] [--expect STATUS] [--json]\n"
	"            climb to an exit, or all, rung by rung, with sessions of its own\n"
	"\n"
	"  -c, --config FILE   default $XDG_CONFIG_HOME/sallyport/sallyport.yaml\n"
	"      --check         check the config and all that it names\n"
	"      --dump-config   print what holds\n"
	"      --timeout S     of a probe's rung, default 10\n"
	"  -h, --help; --version\n"
	"\n"
	"signals of up: HUP reads the files again; TERM and INT end it\n"
	"exit status: 0 good; 1 a probe fell; 64 usage; 69 not running, or cannot "
	"start;\n"
	"             70 internal; 73 cannot write; 78 config\n";

static const struct command {
	const char *name;
	int (*run)(const struct cli_args *args);
} commands[] = {
	{"init", cli_cmd_init},
	{"up", cli_cmd_up},
	{"down", cli_cmd_down},
	{"reload", cli_cmd_reload},
	{"status", cli_cmd_status},
	{"probe", cli_cmd_probe},
	{"--check", cli_cmd_check},
	{"--dump-config", cli_cmd_dump},
	{"--reference", cli_cmd_reference},
};

enum { OPT_JSON = 256, OPT_TARGET, OPT_EXPECT, OPT_TIMEOUT, OPT_ACTION, OPT_VERSION };

static const struct option options[] = {
	{"config", required_argument, NULL, 'c'},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, OPT_VERSION},
	{"json", no_argument, NULL, OPT_JSON},
	{"target", required_argument, NULL, OPT_TARGET},
	{"expect", required_argument, NULL, OPT_EXPECT},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"foreground", no_argument, NULL, 'f'},
	{"check", no_argument, NULL, OPT_ACTION},
	{"dump-config", no_argument, NULL, OPT_ACTION},
	{"reference", no_argument, NULL, OPT_ACTION},
	{0},
};

static const char *default_config(char *buf, size_t cap)
{
	const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	if (xdg && *xdg)
		snprintf(buf, cap, "%s/sallyport/sallyport.yaml", xdg);
	else if (home && *home)
		snprintf(buf, cap, "%s/.config/sallyport/sallyport.yaml", home);
	else
		snprintf(buf, cap, "/etc/sallyport/sallyport.yaml");
	return buf;
}

static const struct command *find(const char *prefix, const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strncmp(commands[i].name, prefix, strlen(prefix)) == 0 &&
		    strcmp(commands[i].name + strlen(prefix), name) == 0)
			return &commands[i];
	return NULL;
}

static unsigned number(const char *text)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);
	return *text && !*end && v <= 3600 ? (unsigned)v : 0;
}

// The command to run; NULL: *ret_status is the program's.
static const struct command *parse(int argc, char **argv, struct cli_args *ret,
				   int *ret_status)
{
	const struct command *cmd = NULL;
	int c, i;
	*ret_status = EX_USAGE;
	while ((c = getopt_long(argc, argv, "c:h", options, &i)) >= 0) {
		if (c == 'h' || c == OPT_VERSION) {
			if (c == 'h')
				fputs(usage, stdout);
			else
				printf("sallyport %s\n", sp_version());
			*ret_status = EX_OK;
			return NULL;
		}
		if (c == 'c')
			ret->config = optarg;
		else if (c == OPT_JSON)
			ret->json = true;
		else if (c == OPT_TARGET)
			ret->target = optarg;
		else if (c == OPT_EXPECT && !(ret->expect = number(optarg)))
			return NULL;
		else if (c == OPT_TIMEOUT && !(ret->timeout_s = number(optarg)))
			return NULL;
		else if (c == OPT_ACTION)
			cmd = find("--", options[i].name);
		else if (c == '?')
			return NULL;
	}
	if (optind < argc && !cmd)
		cmd = find("", argv[optind++]);
	if (cmd && cmd->run == cli_cmd_probe && optind < argc)
		ret->exit_name = argv[optind++];
	return optind == argc ? cmd : NULL;
}

int main(int argc, char **argv)
{
	char path[4096];
	struct cli_args args = {.timeout_s = 10};
	int status;
	args.config = default_config(path, sizeof(path));
	const struct command *cmd = parse(argc, argv, &args, &status);
	if (!cmd) {
		if (status)
			fputs("sallyport: see sallyport --help\n", stderr);
		return status;
	}
	if (sodium_init() < 0)
		return EX_SOFTWARE;
	return cmd->run(&args);
}
