#include "client/exits.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/file.h"

static int fail(int err, char *why, size_t cap, const char *path, const char *text)
{
	snprintf(why, cap, "%s: %s", path, text);
	return err;
}

static const char *signature_text(int err)
{
	switch (err) {
	case SP_E_KEY:
		return "it is signed by a key that is not among keys.fleet; ask the "
		       "operator "
		       "for exits of this fleet";
	case SP_E_SIGNATURE:
		return "its signature is wrong: the file was changed or damaged; get it "
		       "again";
	default:
		return "not a signed client config; the operator makes one by "
		       "sallyportctl "
		       "config sign";
	}
}

static int check_revision(const struct sp_fleet_client *f,
			  const struct cli_exits_options *opt, char *text, size_t cap)
{
	if (opt->held && sp_fleet_revision_compare(&f->revision, opt->held) < 0) {
		snprintf(text, cap,
			 "its revision %" PRIu32 ".%" PRIu64 " is older than %" PRIu32
			 ".%" PRIu64
			 ", which is held already; ask the operator for the newest",
			 f->revision.epoch, f->revision.sequence, opt->held->epoch,
			 opt->held->sequence);
		return SP_E_STALE;
	}
	if (opt->now_s && f->expires_s && opt->now_s >= f->expires_s) {
		snprintf(text, cap,
			 "it expired; ask the operator for a new one (and look at this "
			 "machine's clock)");
		return SP_E_EXPIRED;
	}
	return 0;
}

static int make_trust(struct cli_exits *x, char *text, size_t cap)
{
	for (unsigned e = 0; e < x->n; e++) {
		const struct sp_fleet_exit *conf = x->exit[e].conf;
		for (size_t k = 0; k < conf->n_carriers; k++) {
			const struct sp_fleet_carrier *c = &conf->carriers[k];
			struct sp_tls_client_options tls = {
				.ca_file = c->ca_file, .pin = c->pinned ? c->pin : NULL};
			char what[256] = "";
			if (c->kind != SP_CARRIER_TLS)
				continue;
			int err = sp_tls_client_new(&tls, &x->exit[e].tls[k], what,
						    sizeof(what));
			if (err) {
				snprintf(text, cap, "exit %s, carrier %zu: %s",
					 conf->name, k, what);
				return err;
			}
		}
	}
	return 0;
}

int cli_exits_load(const char *path, const struct cli_exits_options *opt,
		   struct cli_exits **ret, char *why, size_t cap)
{
	struct sp_file_read how = {.max = SP_SIGNED_BODY_MAX + SP_SIGNED_LINE_MAX};
	struct sp_signed_view view;
	struct cli_exits *x = NULL;
	uint8_t *buf = NULL;
	size_t len = 0;
	char text[512];

	int err = sp_file_read(path, &how, &buf, &len, why, cap);
	if (err) {
		size_t n = strlen(why);
		snprintf(why + n, cap - n, "; ask the operator for one");
		return err;
	}
	err = sp_signed_open_text(opt->keys, SP_SIGNED_CLIENT_CONFIG, buf, len, &view);
	if (err) {
		err = fail(err, why, cap, path, signature_text(err));
		goto out;
	}
	x = calloc(1, sizeof(*x));
	if (!x) {
		err = fail(-ENOMEM, why, cap, path, "out of memory");
		goto out;
	}
	err = sp_fleet_client_parse(view.body, view.body_len, &x->fleet, text,
				    sizeof(text));
	if (!err)
		err = check_revision(x->fleet, opt, text, sizeof(text));
	if (!err) {
		x->n = x->fleet->n_exits < CLI_CHAIN_MAX ? (unsigned)x->fleet->n_exits
							 : CLI_CHAIN_MAX;
		for (unsigned e = 0; e < x->n; e++)
			x->exit[e].conf = &x->fleet->exits[e];
		err = make_trust(x, text, sizeof(text));
	}
	if (err)
		(void)fail(err, why, cap, path, text);
out:
	sp_file_free(buf, len);
	if (err)
		cli_exits_free(x);
	else
		*ret = x;
	return err;
}

void cli_exits_free(struct cli_exits *x)
{
	if (!x)
		return;
	for (unsigned e = 0; e < x->n; e++)
		for (size_t k = 0; k < SP_FLEET_CARRIERS_MAX; k++)
			sp_tls_free(x->exit[e].tls[k]);
	sp_fleet_client_free(x->fleet);
	free(x);
}
