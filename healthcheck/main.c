// sallyport-healthcheck: the command line.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sysexits.h>

#include <sodium.h>

#include "healthcheck/join.h"
#include "healthcheck/vantage.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/version.h"

#define CONFIG_DEFAULT "/etc/sallyport/healthcheck.yaml"

enum action { RUN, CHECK, DUMP, INIT, ENROLL, REFERENCE };

struct args {
	enum action action;
	const char *config, *token;
};

static const char usage[] =
	"usage: sallyport-healthcheck [-c FILE]                 run\n"
	"       sallyport-healthcheck [-c FILE] --check         check config and "
	"enrolment\n"
	"       sallyport-healthcheck [-c FILE] --dump-config   print what holds\n"
	"       sallyport-healthcheck [-c FILE] init            write a commented "
	"config\n"
	"       sallyport-healthcheck [-c FILE] enroll TOKEN    make keys and join the "
	"fleet;\n"
	"                                                       TOKEN -: from standard "
	"input\n"
	"       sallyport-healthcheck --help | --version\n"
	"\n"
	"  -c, --config FILE   default " CONFIG_DEFAULT "\n"
	"\n"
	"signals: HUP reads the config again; TERM and INT end it\n"
	"exit status: 0 good; 64 usage; 69 no controller, or refused; 70 internal;\n"
	"             73 cannot write; 78 config\n";

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
		if (c == 'h' || c == 'v') {
			if (c == 'h')
				fputs(usage, stdout);
			else
				printf("sallyport-healthcheck %s\n", sp_version());
			return EX_OK;
		}
		if (c == 'c')
			ret->config = optarg;
		else if (c == 'k' || c == 'd' || c == 'r')
			ret->action = c == 'k' ? CHECK : c == 'd' ? DUMP : REFERENCE;
		else
			goto wrong;
	}
	if (optind == argc)
		return -1;
	if (optind + 1 == argc && !strcmp(argv[optind], "init")) {
		ret->action = INIT;
		return -1;
	}
	if (optind + 2 == argc && !strcmp(argv[optind], "enroll")) {
		ret->action = ENROLL;
		ret->token = argv[optind + 1];
		return -1;
	}
wrong:
	fputs("sallyport-healthcheck: see sallyport-healthcheck --help\n", stderr);
	return EX_USAGE;
}

static int run(const char *path, struct hck_config *cfg, const struct hck_identity *id)
{
	struct rlimit rl;
	struct hck_vantage *v;
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &rl);
	}
	(void)prctl(PR_SET_DUMPABLE, 0); // keys stay out of cores
	sp_log_setup((enum sp_log_level)cfg->log.level,
		     (enum sp_log_format)cfg->log.format, 2);
	if (hck_vantage_new(path, cfg, id, &v)) {
		sp_conf_free(&hck_config_table, cfg);
		return EX_CONFIG;
	}
	int err = hck_vantage_run(v);
	hck_vantage_free(v);
	return err ? EX_SOFTWARE : EX_OK;
}

static int with_config(const struct args *args)
{
	struct sp_conf_errors errs = {0};
	struct hck_identity id = {0};
	char why[SP_WHY_MAX], at[2 * SP_WHY_MAX];
	struct hck_config *cfg = sp_conf_load(&hck_config_table, args->config, &errs);
	if (!cfg) {
		sp_conf_errors_print(&errs, stderr);
		return EX_CONFIG;
	}
	int status = EX_CONFIG;
	if (args->action == DUMP) {
		status = sp_conf_dump(&hck_config_table, cfg, stdout) ? EX_IOERR : EX_OK;
	} else if (hck_identity_load(cfg, &id, why, sizeof(why))) {
		fprintf(stderr, "%s\n",
			sp_conf_place(&hck_config_table, args->config, why, at,
				      sizeof(at)));
	} else if (args->action == CHECK) {
		printf("%s: good; vantage %s, %u controllers\n", args->config,
		       id.enrolled.name,
		       cfg->control.router.n ? (unsigned)cfg->control.router.n
					     : id.enrolled.n_controllers);
		status = EX_OK;
	} else {
		status = run(args->config, cfg, &id);
		hck_identity_done(&id);
		return status;
	}
	hck_identity_done(&id);
	sp_conf_free(&hck_config_table, cfg);
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
		return hck_init(args.config);
	if (args.action == ENROLL)
		return hck_enroll(args.config, args.token);
	if (args.action == REFERENCE)
		return sp_conf_write_reference(&hck_config_table, SP_CONF_MDOC, stdout)
			       ? EX_IOERR
			       : EX_OK;
	return with_config(&args);
}
