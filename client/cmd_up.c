// up: the client runs in the foreground, under a service manager or a terminal.
#include <errno.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sysexits.h>

#include "client/client.h"
#include "client/commands.h"
#include "lib/file.h"
#include "lib/log.h"

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

int cli_cmd_up(const struct cli_args *args)
{
	struct cli_config *cfg = cli_config_load(args->config);
	struct cli_identity id = {0};
	struct cli_client *c = NULL;
	char why[SP_WHY_MAX];
	if (!cfg)
		return EX_CONFIG;
	int err = cli_identity_load(cfg, true, &id, why, sizeof(why));
	if (err) {
		cli_config_free(cfg);
		if (err != -EINTR)
			return cli_config_refuse(args->config, why);
		sp_info("client", "stopped", "why=%s", why);
		return 0;
	}
	prepare_process();
	sp_log_setup((enum sp_log_level)cfg->log.level,
		     (enum sp_log_format)cfg->log.format, 2);
	err = cli_client_new(args->config, cfg, &id, &c);
	cli_identity_done(&id);
	if (err) {
		cli_config_free(cfg);
		return EX_UNAVAILABLE;
	}
	err = cli_client_run(c);
	cli_client_free(c);
	return err ? EX_SOFTWARE : EX_OK;
}
