// config sign, show and verify.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "ctl/describe.h"
#include "ctl/io.h"
#include "ctl/out.h"
#include "ctl/parse.h"
#include "ctl/seal.h"
#include "ctl/sealed.h"
#include "ctl/verbs.h"
#include "lib/file.h"

// ---- sign ----

int ctl_seal(const struct ctl_call *call, enum sp_signed_kind kind, const uint8_t *secret,
	     const void *body, size_t body_len, const char *path, bool replace)
{
	size_t cap = body_len + SP_SIGNED_LINE_MAX;
	char *text = malloc(cap);
	if (!text)
		return ctl_fail(call, EX_OSERR, "out of memory");
	int n = sp_signed_seal_text(kind, secret, body, body_len, text, cap);
	int code = n < 0 ? ctl_fail(call, EX_SOFTWARE, "%s: cannot be signed: %s", path,
				    sp_strerror(n))
			 : ctl_write(call, path, text, (size_t)n, 0644, replace);
	free(text);
	return code;
}

// --kind. 0 and *ret, which is 0 if it was not given, or an exit code and said.
static int kind_of(const struct ctl_call *call, enum sp_signed_kind *ret)
{
	const char *word = ctl_get(call, "kind");
	*ret = 0;
	if (word && !strcmp(word, "worker"))
		*ret = SP_SIGNED_WORKER_CONFIG;
	else if (word && !strcmp(word, "client"))
		*ret = SP_SIGNED_CLIENT_CONFIG;
	else if (word)
		return ctl_fail(call, EX_USAGE, "--kind %s: want worker or client", word);
	return 0;
}

// What the output file holds already. 0 and *ret: a config of that kind; *ret_there says
// whether there is any file.
static int read_held(const struct ctl_call *call, const char *path,
		     enum sp_signed_kind kind, bool *ret_there,
		     struct sp_fleet_revision *ret)
{
	struct ctl_config c = {0};
	struct sp_signed_view view;
	uint8_t *buf;
	size_t len;
	*ret_there = access(path, F_OK) == 0;
	if (!*ret_there)
		return 0;
	int code = ctl_read(call, path, false, &buf, &len);
	if (code)
		return code;
	bool sealed = sp_signed_peek(buf, len, &view) == 0;
	if (!sealed || view.kind != kind)
		code = ctl_fail(
			call, EX_CANTCREAT,
			"%s exists and is not a signed %s; choose another name, or "
			"replace it by --force",
			path, sp_signed_kind_word(kind));
	if (!code)
		code = ctl_config_parse(call, path, kind, view.body, view.body_len, &c);
	if (!code)
		*ret = *ctl_config_revision(&c);
	ctl_config_done(&c);
	sp_file_free(buf, len);
	return code;
}

// Raises the revision (--next) or checks that it is higher than what is there.
static int settle_revision(const struct ctl_call *call, const char *path,
			   struct ctl_config *c)
{
	struct sp_fleet_revision held = {0}, *own = ctl_config_revision(c);
	bool there;
	if (ctl_has(call, "force"))
		return 0;
	int code = read_held(call, path, c->kind, &there, &held);
	if (code || !there)
		return code;
	if (ctl_has(call, "next")) {
		if (sp_fleet_revision_compare(own, &held) <= 0)
			*own = (struct sp_fleet_revision){held.epoch, held.sequence + 1};
		return 0;
	}
	if (sp_fleet_revision_compare(own, &held) > 0)
		return 0;
	return ctl_fail(call, CTL_EX_UNTRUSTED,
			"%s has revision %u.%llu already, and this one is %u.%llu; raise "
			"revision.sequence, or let --next do it",
			path, held.epoch, (unsigned long long)held.sequence, own->epoch,
			(unsigned long long)own->sequence);
}

static int check_expiry(const struct ctl_call *call, const char *path,
			const struct ctl_config *c)
{
	char a[CTL_TIME_CAP];
	uint64_t expires_s = ctl_config_expires(c);
	if (!expires_s || expires_s > call->now_s || ctl_has(call, "force"))
		return 0;
	return ctl_fail(call, EX_DATAERR,
			"%s: expires: %s is past; want a later time, or no such key",
			path, ctl_format_time(expires_s, a));
}

// The exact bytes of the file; with --next the canonical print, with the time.
static int sign_body(const struct ctl_call *call, struct ctl_config *c,
		     const uint8_t *secret, const void *json, size_t len,
		     const char *path)
{
	char *printed = NULL;
	if (ctl_has(call, "next")) {
		uint64_t expires_s = ctl_config_expires(c);
		if (!expires_s || expires_s > call->now_s)
			*ctl_config_issued(c) = call->now_s;
		printed = ctl_config_print(c);
		if (!printed)
			return ctl_fail(call, EX_OSERR, "out of memory");
		json = printed;
		len = strlen(printed);
	}
	int code = ctl_seal(call, c->kind, secret, json, len, path, true);
	free(printed);
	return code;
}

static int report(const struct ctl_call *call, const struct ctl_config *c,
		  const uint8_t *secret, const char *path)
{
	struct sp_signed_view view = {.kind = c->kind};
	const struct sp_fleet_revision *r = ctl_config_revision(c);
	char id[2 * SP_SIGNED_KEY_ID_BYTES + 1];
	sp_signed_key_id(secret + 32, view.key_id);
	for (size_t i = 0; i < SP_SIGNED_KEY_ID_BYTES; i++)
		snprintf(id + 2 * i, 3, "%02x", view.key_id[i]);
	return ctl_out(call,
		       json_pack("{s:s,s:s,s:s,s:{s:I,s:I}}", "type",
				 sp_signed_kind_word(c->kind), "file", path, "signed_by",
				 id, "revision", "epoch", (json_int_t)r->epoch,
				 "sequence", (json_int_t)r->sequence));
}

int ctl_config_sign(struct ctl_call *call)
{
	const char *path = ctl_get(call, "output"), *from = call->args[0];
	uint8_t secret[SP_SIGNED_SECRET_BYTES], *json;
	struct ctl_config c = {0};
	enum sp_signed_kind kind;
	size_t len;
	int code = kind_of(call, &kind);
	if (!code)
		code = ctl_read(call, from, false, &json, &len);
	if (code)
		return code;
	code = ctl_config_parse_file(call, from, kind, json, len, &c);
	if (!code)
		code = check_expiry(call, from, &c);
	if (!code)
		code = settle_revision(call, path, &c);
	if (!code)
		code = ctl_secret_key(call, ctl_get(call, "key"), SP_KEY_SIGNING, secret);
	if (!code) {
		code = sign_body(call, &c, secret, json, len, path);
		if (!code)
			code = report(call, &c, secret, path);
		sodium_memzero(secret, sizeof(secret));
	}
	ctl_config_done(&c);
	sp_file_free(json, len);
	return code;
}

// ---- show and verify ----

static int read_config(struct ctl_call *call, struct ctl_sealed *s)
{
	int code = ctl_sealed_read(call, call->args[0], s);
	if (!code && s->view.kind == SP_SIGNED_PASS)
		code = ctl_fail(call, EX_DATAERR,
				"%s: a pass, not a config; see pass show", s->path);
	return code;
}

static int show(struct ctl_call *call, const struct ctl_sealed *s,
		const struct ctl_config *c, bool checked)
{
	char *text = ctl_config_print(c);
	if (!text)
		return ctl_fail(call, EX_OSERR, "out of memory");
	int code = ctl_out(call, ctl_describe_config(c->kind, &s->view, text, checked));
	free(text);
	return code;
}

int ctl_config_show(struct ctl_call *call)
{
	struct ctl_sealed s = {0};
	struct ctl_config c = {0};
	int code = read_config(call, &s);
	if (!code && ctl_has(call, "body")) {
		fwrite(s.view.body, 1, s.view.body_len, call->out);
	} else if (!code) {
		code = ctl_config_parse(call, s.path, s.view.kind, s.view.body,
					s.view.body_len, &c);
		if (!code)
			code = show(call, &s, &c, false);
	}
	ctl_config_done(&c);
	ctl_sealed_done(&s);
	return code;
}

static int judge_expiry(struct ctl_call *call, const struct ctl_config *c)
{
	char a[CTL_TIME_CAP], b[CTL_TIME_CAP];
	uint64_t now_s, expires_s = ctl_config_expires(c);
	int code = ctl_time_of(call, &now_s);
	if (code || !expires_s || now_s < expires_s)
		return code;
	return ctl_fail(call, CTL_EX_UNTRUSTED, "%s: expired at %s (%s); sign a new one",
			call->args[0], ctl_format_time(expires_s, a),
			ctl_format_distance(expires_s, now_s, b));
}

int ctl_config_verify(struct ctl_call *call)
{
	struct ctl_sealed s = {0};
	struct ctl_config c = {0};
	int code = read_config(call, &s);
	if (!code)
		code = ctl_sealed_verify(call, &s);
	if (!code)
		code = ctl_config_parse(call, s.path, s.view.kind, s.view.body,
					s.view.body_len, &c);
	if (!code)
		code = judge_expiry(call, &c);
	if (!code)
		code = show(call, &s, &c, true);
	ctl_config_done(&c);
	ctl_sealed_done(&s);
	return code;
}
