// status, reload, down: questions to the running client.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "client/commands.h"
#include "client/config.h"
#include "client/control.h"
#include "client/status.h"

#define ASK_S 10

// 0 and *ret; else it was said why not, and *ret_status is the program's.
static int ask(const struct cli_args *args, const char *request, char **ret,
	       int *ret_status)
{
	struct cli_config *cfg = cli_config_load(args->config);
	char path[4096];
	size_t len;
	*ret_status = EX_CONFIG;
	if (!cfg)
		return -EINVAL;
	cli_config_control(cfg, path, sizeof(path));
	cli_config_free(cfg);
	int err = cli_control_ask(path, request, ASK_S, ret, &len);
	*ret_status = EX_UNAVAILABLE;
	if (err == -ENOENT || err == -ECONNREFUSED)
		fprintf(stderr, "sallyport: not running (nobody at %s)\n", path);
	else if (err)
		fprintf(stderr, "sallyport: %s: %s\n", path, sp_strerror(err));
	return err;
}

int cli_cmd_status(const struct cli_args *args)
{
	char *answer;
	int status;
	if (ask(args, "status", &answer, &status))
		return status;
	int err =
		args->json ? fputs(answer, stdout) < 0 : cli_status_print(answer, stdout);
	free(answer);
	return err ? EX_PROTOCOL : EX_OK;
}

int cli_cmd_reload(const struct cli_args *args)
{
	char *answer;
	int status;
	if (ask(args, "reload", &answer, &status))
		return status;
	bool ok = strcmp(answer, "ok\n") == 0;
	fprintf(ok ? stdout : stderr, "%s", answer);
	free(answer);
	return ok ? EX_OK : EX_CONFIG;
}

int cli_cmd_down(const struct cli_args *args)
{
	char *answer;
	int status;
	if (ask(args, "down", &answer, &status))
		return status;
	free(answer);
	return EX_OK;
}
