#include "ctl/sealed.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/io.h"
#include "ctl/jsonline.h"
#include "ctl/parse.h"
#include "lib/file.h"
#include "lib/text.h"

int ctl_sealed_read(const struct ctl_call *call, const char *path, struct ctl_sealed *ret)
{
	struct ctl_sealed s = {.path = path};
	int code = ctl_read(call, path, false, &s.buf, &s.len);
	if (code)
		return code;
	if (sp_signed_peek(s.buf, s.len, &s.view)) {
		ctl_sealed_done(&s);
		return ctl_fail(call, EX_DATAERR,
				"%s: not a whole signed file; get it again from where it "
				"was signed",
				path);
	}
	*ret = s;
	return 0;
}

void ctl_sealed_done(struct ctl_sealed *s)
{
	sp_file_free(s->buf, s->len);
	s->buf = NULL;
}

int ctl_sealed_verify(const struct ctl_call *call, const struct ctl_sealed *s)
{
	char id[2 * SP_SIGNED_KEY_ID_BYTES + 1];
	struct sp_signed_keys keys = {0};
	struct sp_signed_view view = {0};
	int code = ctl_trusted_keys(call, "fleet-key", &keys);
	if (code)
		return code;
	bool binary = s->len >= 4 && !memcmp(s->buf, "SPB1", 4);
	int err = (binary ? sp_signed_open : sp_signed_open_text)(&keys, s->view.kind,
								  s->buf, s->len, &view);
	switch (err) {
	case 0:
		return 0;
	case SP_E_KEY:
		return ctl_fail(
			call, CTL_EX_UNTRUSTED,
			"%s: signed by key %s, which is not the --fleet-key; it is "
			"of another fleet, or name that key too",
			s->path,
			sp_hex_encode(s->view.key_id, sizeof(s->view.key_id), id,
				      sizeof(id)));
	case SP_E_SIGNATURE:
		return ctl_fail(
			call, CTL_EX_UNTRUSTED,
			"%s: the signature does not match: the file was changed or "
			"damaged; get it again from where it was signed",
			s->path);
	default:
		return ctl_fail(call, EX_DATAERR, "%s: %s", s->path, sp_strerror(err));
	}
}

// ---- configs ----

static int parse(enum sp_signed_kind kind, const void *json, size_t len,
		 struct ctl_config *ret, char *why, size_t cap)
{
	struct ctl_config c = {.kind = kind};
	int err = kind == SP_SIGNED_WORKER_CONFIG
			  ? sp_fleet_worker_parse(json, len, &c.worker, why, cap)
			  : sp_fleet_client_parse(json, len, &c.client, why, cap);
	if (!err)
		*ret = c;
	return err == -ENOMEM ? EX_OSERR : err ? EX_DATAERR : 0;
}

int ctl_config_parse(const struct ctl_call *call, const char *path,
		     enum sp_signed_kind kind, const void *json, size_t len,
		     struct ctl_config *ret)
{
	char why[SP_FLEET_WHY_MAX];
	int code = parse(kind, json, len, ret, why, sizeof(why));
	return code ? ctl_fail(call, code, "%s: %s", path, why) : 0;
}

int ctl_config_parse_file(const struct ctl_call *call, const char *path,
			  enum sp_signed_kind kind, const void *json, size_t len,
			  struct ctl_config *ret)
{
	char why[SP_FLEET_WHY_MAX];
	json_error_t e;
	json_t *o = json_loadb(json, len, JSON_REJECT_DUPLICATES, &e);
	if (!o)
		return ctl_fail(call, EX_DATAERR, "%s:%d: not whole JSON: %s", path,
				e.line, e.text);
	if (!kind && json_object_get(o, "exits"))
		kind = SP_SIGNED_CLIENT_CONFIG;
	else if (!kind &&
		 (json_object_get(o, "tiers") || json_object_get(o, "pass_keys")))
		kind = SP_SIGNED_WORKER_CONFIG;
	json_decref(o);
	if (!kind)
		return ctl_fail(call, EX_DATAERR,
				"%s: neither a worker nor a client config in JSON: the "
				"first has tiers, the second exits",
				path);
	int code = parse(kind, json, len, ret, why, sizeof(why));
	return code ? ctl_fail(call, code, "%s:%zu: %s", path,
			       ctl_json_line(json, len, why), why)
		    : 0;
}

void ctl_config_done(struct ctl_config *c)
{
	sp_fleet_worker_free(c->worker);
	sp_fleet_client_free(c->client);
	*c = (struct ctl_config){0};
}

struct sp_fleet_revision *ctl_config_revision(const struct ctl_config *c)
{
	return c->worker ? &c->worker->revision : &c->client->revision;
}

uint64_t *ctl_config_issued(const struct ctl_config *c)
{
	return c->worker ? &c->worker->issued_s : &c->client->issued_s;
}

uint64_t ctl_config_expires(const struct ctl_config *c)
{
	return c->worker ? c->worker->expires_s : c->client->expires_s;
}

char *ctl_config_print(const struct ctl_config *c)
{
	return c->worker ? sp_fleet_worker_print(c->worker)
			 : sp_fleet_client_print(c->client);
}

int ctl_time_of(const struct ctl_call *call, uint64_t *ret_s)
{
	const char *text = ctl_has_option(call->verb, "at") ? ctl_get(call, "at") : NULL;
	*ret_s = call->now_s;
	if (text && ctl_parse_time(text, ret_s))
		return ctl_fail(call, EX_USAGE,
				"--at %s: want a time such as 2026-01-31T12:00:00Z",
				text);
	return 0;
}
