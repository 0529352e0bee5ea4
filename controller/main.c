// sallyport-controller: the command line.
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sysexits.h>

#include <sodium.h>

#include "controller/controller.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/version.h"

#define CONFIG_DEFAULT "/etc/sallyport/controller.yaml"

enum action { RUN, CHECK, DUMP, INIT, REFERENCE };

struct args {
	enum action action;
	const char *config;
};

static const char usage[] =
	"usage: sallyport-controller [-c FILE]                 run\n"
	"       sallyport-controller [-c FILE] --check         check the config and "
	"keys\n"
	"       sallyport-controller [-c FILE] --dump-config   print what holds\n"
	"       sallyport-controller [-c FILE] init            write a commented config "
	"file\n"
	"       sallyport-controller --help | --version\n"
	"\n"
	"  -c, --config FILE   default " CONFIG_DEFAULT "\n"
	"\n"
	"signals: TERM ends it; workers, sessions and their users do not notice\n"
	"exit status: 0 ended in order; 64 usage; 70 internal; 73 cannot write; 78 "
	"config\n";

// -1: go on; else the exit status.
static int parse_args(int argc, char **argv, struct args *ret)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", no_argument, NULL, 'k'},
		{"dump-config", no_argument, NULL, 'd'},
		{"reference", no_argument, NULL, 'r'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{0},
	};
	int c;
	while ((c = getopt_long(argc, argv, "c:h", options, NULL)) >= 0) {
		if (c == 'h') {
			fputs(usage, stdout);
			return EX_OK;
		}
		if (c == 'v') {
			printf("sallyport-controller %s\n", sp_version());
			return EX_OK;
		}
		if (c == 'c')
			ret->config = optarg;
		else if (c == 'k')
			ret->action = CHECK;
		else if (c == 'd')
			ret->action = DUMP;
		else if (c == 'r')
			ret->action = REFERENCE;
		else
			goto wrong;
	}
	if (optind == argc)
		return -1;
	if (optind + 1 == argc && !strcmp(argv[optind], "init")) {
		ret->action = INIT;
		return -1;
	}
wrong:
	fputs("sallyport-controller: see sallyport-controller --help\n", stderr);
	return EX_USAGE;
}

static int write_default(const char *path)
{
	char *text = NULL, why[SP_WHY_MAX];
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	if (!f)
		return EX_OSERR;
	int err = sp_conf_write_default(&con_config_table, f);
	if (fclose(f) || err) {
		free(text);
		return EX_OSERR;
	}
	err = sp_file_create(path, text, len, 0640, why, sizeof(why));
	free(text);
	if (err) {
		fprintf(stderr, "sallyport-controller: %s\n", why);
		return EX_CANTCREAT;
	}
	printf("wrote %s; edit it, make its keys (sallyportctl keys signing, keys "
	       "control, "
	       "keys route), then sallyport-controller --check\n",
	       path);
	return EX_OK;
}

// Raises the limit of descriptors to what is allowed, and keeps secrets out of cores.
static void prepare_process(void)
{
	struct rlimit rl;
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &rl);
	}
	(void)prctl(PR_SET_DUMPABLE, 0);
}

static int run(const char *path, struct con_config *cfg, struct con_identity *id)
{
	struct con_controller *c;
	prepare_process();
	sp_log_setup((enum sp_log_level)cfg->log.level,
		     (enum sp_log_format)cfg->log.format, 2);
	if (con_controller_new(path, cfg, id, &c))
		return EX_CONFIG;
	int err = con_controller_run(c);
	con_controller_free(c);
	return err ? EX_SOFTWARE : EX_OK;
}

static int with_config(const struct args *args)
{
	struct sp_conf_errors errs = {0};
	struct con_identity id = {0};
	char why[SP_WHY_MAX];
	struct con_config *cfg = sp_conf_load(&con_config_table, args->config, &errs);
	if (!cfg) {
		sp_conf_errors_print(&errs, stderr);
		return EX_CONFIG;
	}
	int status = EX_CONFIG;
	if (args->action == DUMP) {
		status = sp_conf_dump(&con_config_table, cfg, stdout) ? EX_IOERR : EX_OK;
	} else if (con_identity_load(cfg, &id, why, sizeof(why))) {
		char at[2 * SP_WHY_MAX];
		fprintf(stderr, "%s\n",
			sp_conf_place(&con_config_table, args->config, why, at,
				      sizeof(at)));
	} else if (args->action == CHECK) {
		printf("%s: good; fleet %s\n", args->config, cfg->fleet);
		status = EX_OK;
	} else {
		return run(args->config, cfg, &id);
	}
	con_identity_done(&id);
	sp_conf_free(&con_config_table, cfg);
	return status;
}

int main(int argc, char **argv)
{
	struct args args = {.action = RUN, .config = CONFIG_DEFAULT};
	int status = parse_args(argc, argv, &args);
	if (status >= 0)
		return status;
	if (sodium_init() < 0)
		return EX_SOFTWARE;
	if (args.action == INIT)
		return write_default(args.config);
	if (args.action == REFERENCE)
		return sp_conf_write_reference(&con_config_table, SP_CONF_MDOC, stdout)
			       ? EX_IOERR
			       : EX_OK;
	return with_config(&args);
}
