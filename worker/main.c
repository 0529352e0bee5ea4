// sallyport-worker: the command line.
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/enroltoken.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/version.h"
#include "worker/agent.h"
#include "worker/config_kept.h"
#include "worker/enrol.h"
#include "worker/keeper_upgrade.h"
#include "worker/upgrade.h"
#include "worker/worker.h"

#define CONFIG_DEFAULT "/etc/sallyport/worker.yaml"

enum action { RUN, CHECK, DUMP, INIT, ENROLL, REFERENCE, ASK };

struct args {
	enum action action;
	const char *config;
	const char *token; // of ENROLL; "-": on standard input
	const char *ask;   // of the worker that runs
	bool alone;        // no keeper
	struct wrk_kept kept;
};

static const char usage[] =
	"usage: sallyport-worker [-c FILE]                 run\n"
	"       sallyport-worker [-c FILE] --check         check the config, keys,\n"
	"                                                  certificate and signed "
	"config\n"
	"       sallyport-worker [-c FILE] --reload        the worker that runs reads "
	"its "
	"config again\n"
	"       sallyport-worker [-c FILE] --upgrade       the installed program takes "
	"over "
	"from it\n"
	"       sallyport-worker [-c FILE] --dump-config   print what holds\n"
	"       sallyport-worker [-c FILE] init            write a commented config "
	"file\n"
	"       sallyport-worker [-c FILE] enroll --token TEXT\n"
	"                                                  join a fleet: make keys here, "
	"fill control.folder\n"
	"       sallyport-worker --help | --version\n"
	"\n"
	"  -c, --config FILE   default " CONFIG_DEFAULT "\n"
	"      --no-keeper     run as one process, for a debugger: flows end with it\n"
	"      --token TEXT    as sallyportctl enroll printed it; -: read it from "
	"standard "
	"input\n"
	"\n"
	"signals: HUP  as --reload\n"
	"         TERM drain: no new sessions, streams may finish; a second TERM ends at "
	"once\n"
	"exit status: 0 ended in order; 64 usage; 69 no controller answered; 70 "
	"internal,\n"
	"             or rolled back; 71 the system lacks something; 73 cannot write; 75 "
	"try\n"
	"             again; 77 refused; 78 config\n";

// -1: go on; else the exit status.
static int parse_args(int argc, char **argv, struct args *ret)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", no_argument, NULL, 'k'},
		{"dump-config", no_argument, NULL, 'd'},
		{"reload", no_argument, NULL, 'l'},
		{"upgrade", no_argument, NULL, 'u'},
		{"reference", no_argument, NULL, 'r'},
		{"token", required_argument, NULL, 't'},
		{"no-keeper", no_argument, NULL, 'n'},
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
			printf("sallyport-worker %s\n", sp_version());
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
		else if (c == 'l' || c == 'u') {
			ret->action = ASK;
			ret->ask = c == 'u' ? "upgrade" : "reload";
		} else if (c == 't')
			ret->token = optarg;
		else if (c == 'n')
			ret->alone = true;
		else
			goto wrong;
	}
	bool enroll = optind + 1 == argc && !strcmp(argv[optind], "enroll");
	if (enroll != (ret->token != NULL))
		goto wrong;
	if (enroll)
		ret->action = ENROLL;
	if (enroll || optind == argc)
		return -1;
	if (optind + 1 == argc && !strcmp(argv[optind], "init")) {
		ret->action = INIT;
		return -1;
	}
wrong:
	fputs("sallyport-worker: see sallyport-worker --help\n", stderr);
	return EX_USAGE;
}

static int write_default(const char *path)
{
	char *text = NULL, why[SP_WHY_MAX];
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	if (!f)
		return EX_OSERR;
	int err = sp_conf_write_default(&wrk_config_table, f);
	if (fclose(f) || err) {
		free(text);
		return EX_OSERR;
	}
	err = sp_file_create(path, text, len, 0640, why, sizeof(why));
	free(text);
	if (err) {
		fprintf(stderr, "sallyport-worker: %s\n", why);
		return EX_CANTCREAT;
	}
	printf("wrote %s; edit it, make keys with sallyportctl, then sallyport-worker "
	       "--check\n",
	       path);
	return EX_OK;
}

// One line of standard input. False: none.
static bool read_token(char *buf, size_t cap)
{
	if (!fgets(buf, (int)cap, stdin))
		return false;
	buf[strcspn(buf, "\r\n")] = '\0';
	return true;
}

static int enroll(const struct args *args, const struct wrk_config *cfg)
{
	char why[SP_WHY_MAX], line[SP_ENROLTOKEN_TEXT_MAX] = "";
	const char *token = args->token;
	if (!strcmp(token, "-"))
		token = read_token(line, sizeof(line)) ? line : "";
	int err = wrk_enrol(cfg, token, why, sizeof(why));
	sodium_memzero(line, sizeof(line));
	if (!err) {
		printf("enrolled as %s/%d; keys and addresses are in %s\n", cfg->node,
		       (int)cfg->worker, cfg->control.folder);
		return EX_OK;
	}
	fprintf(stderr, "sallyport-worker: %s\n", why);
	return err == SP_E_AUTH        ? EX_NOPERM
	       : err == -ETIMEDOUT     ? EX_UNAVAILABLE
	       : err == SP_E_CONFIG    ? EX_CONFIG
	       : err == SP_E_MALFORMED ? EX_USAGE
				       : EX_CANTCREAT;
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

static int run(struct args *args, struct wrk_config *cfg, struct wrk_identity *id)
{
	struct wrk_worker *w;
	prepare_process();
	sp_log_setup((enum sp_log_level)cfg->log.level,
		     (enum sp_log_format)cfg->log.format, 2);
	if (wrk_worker_new(args->config, cfg, id, args->alone ? NULL : &args->kept, &w)) {
		if (args->kept.heir)
			_exit(EX_CONFIG); // what it inherited waits for the next
		return EX_CONFIG;
	}
	int err = wrk_worker_run(w);
	if (wrk_upgrader_leaves(w))
		_exit(EX_OK); // and leaves all as it is
	wrk_worker_free(w);
	return err ? EX_SOFTWARE : EX_OK;
}

// What is in force, or, for a new program and at first, what the file says.
static struct wrk_config *load_config(struct args *args, struct sp_conf_errors *errs)
{
	struct wrk_config *kept =
		args->kept.heir ? wrk_config_kept(&args->kept, args->config) : NULL;
	if (kept && !args->kept.trial)
		return kept;
	sp_conf_free(&wrk_config_table, kept);
	return sp_conf_load(&wrk_config_table, args->config, errs);
}

static int with_config(struct args *args)
{
	struct sp_conf_errors errs = {0};
	struct wrk_identity id = {0};
	char why[SP_WHY_MAX];
	struct wrk_config *cfg = load_config(args, &errs);
	if (!cfg) {
		sp_conf_errors_print(&errs, stderr);
		wrk_trial_object(&args->kept, errs.text[0]);
		return EX_CONFIG;
	}
	int status = EX_CONFIG;
	if (args->action == ENROLL) {
		status = enroll(args, cfg);
	} else if (args->action == DUMP) {
		status = sp_conf_dump(&wrk_config_table, cfg, stdout) ? EX_IOERR : EX_OK;
	} else if (wrk_identity_load(cfg, &id, why, sizeof(why))) {
		char at[2 * SP_WHY_MAX];
		(void)sp_conf_place(&wrk_config_table, args->config, why, at, sizeof(at));
		fprintf(stderr, "%s\n", at);
		wrk_trial_object(&args->kept, at);
	} else if (args->action == CHECK) {
		if (id.fleet)
			printf("%s: good; signed config epoch %u, sequence %llu\n",
			       args->config, id.fleet->revision.epoch,
			       (unsigned long long)id.fleet->revision.sequence);
		else
			printf("%s: good; configured by the control plane as %s/%d\n",
			       args->config, cfg->node, (int)cfg->worker);
		status = EX_OK;
	} else {
		if (args->kept.heir)
			wrk_fleet_kept(&args->kept, &id);
		return run(args, cfg, &id);
	}
	wrk_identity_done(&id);
	sp_conf_free(&wrk_config_table, cfg);
	return status;
}

int main(int argc, char **argv)
{
	struct args args = {.action = RUN, .config = CONFIG_DEFAULT};
	if (argc > 1 && !strcmp(argv[1], "agent")) // started by the worker, not by people
		return sodium_init() < 0 ? EX_SOFTWARE : agt_main(argc - 1, argv + 1);
	int status = parse_args(argc, argv, &args);
	if (status >= 0)
		return status;
#ifdef __SANITIZE_THREAD__
	args.alone = true; // its runtime knows no such clone
#endif
	if (args.action == RUN && !args.alone) {
		char why[SP_WHY_MAX] = "";
		int err = wrk_keeper_run(argv, &args.kept, why, sizeof(why));
		if (err) {
			fprintf(stderr,
				"sallyport-worker: cannot keep sockets over a crash: %s; "
				"--no-keeper runs without\n",
				why);
			return EX_OSERR;
		}
	}
	if (sodium_init() < 0)
		return EX_SOFTWARE;
	if (args.action == ASK)
		return wrk_ask(args.config, args.ask);
	if (args.action == INIT)
		return write_default(args.config);
	if (args.action == REFERENCE)
		return sp_conf_write_reference(&wrk_config_table, SP_CONF_MDOC, stdout)
			       ? EX_IOERR
			       : EX_OK;
	int ended = with_config(&args);
	free(args.kept.taken);
	return ended;
}
