// probe: climbs to one exit or to all, by each of their carriers, and says how far it
// got.
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include <sodium.h>

#include "client/commands.h"
#include "client/config.h"
#include "client/identity.h"
#include "lib/file.h"
#include "lib/probe.h"

#define EX_FELL 1

// HOST:PORT or HOST:PORT/PATH.
static int parse_target(const char *text, struct sp_target *ret, const char **ret_path)
{
	char host[SP_TARGET_TEXT_MAX];
	const char *slash = strchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	*ret_path = slash ? slash : "/";
	if (len >= sizeof(host) || strpbrk(*ret_path, " \t\r\n"))
		return SP_E_MALFORMED;
	memcpy(host, text, len);
	host[len] = '\0';
	int err = sp_target_parse(host, ret);
	return !err && ret->port == 0 ? SP_E_MALFORMED : err;
}

static const char *address(const struct sp_target *t, char *buf)
{
	return t->kind ? sp_target_format(t, buf, SP_TARGET_TEXT_MAX) : "";
}

static void print_text(const struct sp_fleet_exit *x, unsigned carrier,
		       const struct sp_probe_result *r)
{
	char text[SP_TARGET_TEXT_MAX];
	printf("%s  %s %s\n", x->name, sp_carrier_kind_word(x->carriers[carrier].kind),
	       address(&r->exit, text));
	for (int i = 0; i < (int)r->reached; i++)
		printf("  %-10s %8.1f ms\n", sp_rung_word((enum sp_rung)i),
		       r->us[i] / 1000.0);
	if (r->reason != SP_REASON_NONE)
		printf("  %-10s FELL: %s: %s%s%s\n", sp_rung_word(r->reached),
		       sp_reason_word(r->reason), sp_reason_text(r->reason),
		       *r->detail ? ": " : "", r->detail);
	if (r->http_status)
		printf("  HTTP %u, by way of %s\n", r->http_status,
		       address(&r->bound, text));
	if (r->skew_ms > 1000 || r->skew_ms < -1000)
		printf("  the exit's clock is %.1f s %s\n", (double)r->skew_ms / 1000,
		       r->skew_ms > 0 ? "ahead" : "behind");
}

static json_t *make_json(const struct sp_fleet_exit *x, unsigned carrier,
			 const struct sp_probe_result *r)
{
	json_t *o = json_object(), *rungs = json_object();
	char text[SP_TARGET_TEXT_MAX];
	for (int i = 0; i < (int)r->reached; i++)
		json_object_set_new(rungs, sp_rung_word((enum sp_rung)i),
				    json_real(r->us[i] / 1000.0));
	json_object_set_new(o, "exit", json_string(x->name));
	json_object_set_new(o, "carrier",
			    json_string(sp_carrier_kind_word(x->carriers[carrier].kind)));
	json_object_set_new(o, "address", json_string(address(&r->exit, text)));
	json_object_set_new(o, "ok", json_boolean(r->reason == SP_REASON_NONE));
	json_object_set_new(o, "ms", rungs);
	if (r->reason != SP_REASON_NONE) {
		json_object_set_new(o, "fell_from",
				    json_string(sp_rung_word(r->reached)));
		json_object_set_new(o, "reason", json_string(sp_reason_word(r->reason)));
		json_object_set_new(o, "detail", json_string(r->detail));
	}
	if (r->http_status)
		json_object_set_new(o, "http_status", json_integer(r->http_status));
	if (r->bound.kind)
		json_object_set_new(o, "egress", json_string(address(&r->bound, text)));
	json_object_set_new(o, "clock_skew_ms", json_integer(r->skew_ms));
	return o;
}

static int probe_all(const struct cli_args *args, const struct cli_identity *id,
		     struct sp_probe_options *opt)
{
	json_t *list = json_array();
	unsigned tried = 0, fell = 0;
	for (unsigned e = 0; e < id->exits->n; e++) {
		const struct sp_fleet_exit *x = id->exits->exit[e].conf;
		if (args->exit_name && strcmp(args->exit_name, x->name) != 0)
			continue;
		for (unsigned k = 0; k < x->n_carriers; k++) {
			struct sp_probe_result r;
			opt->worker_public = x->public_key;
			opt->carrier = &x->carriers[k];
			opt->tls = id->exits->exit[e].tls[k];
			if (sp_probe_run(opt, &r)) {
				json_decref(list);
				return EX_SOFTWARE;
			}
			tried++;
			fell += r.reason != SP_REASON_NONE;
			if (args->json)
				json_array_append_new(list, make_json(x, k, &r));
			else
				print_text(x, k, &r);
		}
	}
	if (args->json) {
		json_dumpf(list, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
		putchar('\n');
	}
	json_decref(list);
	if (!tried) {
		fprintf(stderr, "sallyport: there is no exit named %s\n",
			args->exit_name);
		return EX_USAGE;
	}
	return fell ? EX_FELL : EX_OK;
}

int cli_cmd_probe(const struct cli_args *args)
{
	struct sp_target target;
	struct cli_identity id;
	struct sp_probe_options opt = {.expect = args->expect,
				       .top = SP_RUNG_HTTP + 1,
				       .rung_ms = args->timeout_s * 1000};
	char why[SP_WHY_MAX];
	if (args->target && parse_target(args->target, &target, &opt.path)) {
		fprintf(stderr,
			"sallyport: --target %s: want HOST:PORT or HOST:PORT/PATH\n",
			args->target);
		return EX_USAGE;
	}
	opt.target = args->target ? &target : NULL;
	struct cli_config *cfg = cli_config_load(args->config);
	if (!cfg)
		return EX_CONFIG;
	int err = cli_identity_load(cfg, false, &id, why, sizeof(why));
	cli_config_free(cfg);
	if (err)
		return cli_config_refuse(args->config, why);
	signal(SIGPIPE, SIG_IGN);
	struct sp_probe_who who = {.pass_len = id.device.pass_len};
	memcpy(who.device_secret, id.device.device_secret, sizeof(who.device_secret));
	memcpy(who.device_public, id.device.device_public, sizeof(who.device_public));
	memcpy(who.pass, id.device.pass, sizeof(who.pass));
	opt.who = &who;
	int status = probe_all(args, &id, &opt);
	sodium_memzero(&who, sizeof(who));
	cli_identity_done(&id);
	return status;
}
