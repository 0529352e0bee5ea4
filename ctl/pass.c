#include "ctl/pass.h"

#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "ctl/describe.h"
#include "ctl/io.h"
#include "ctl/out.h"
#include "ctl/parse.h"
#include "ctl/sealed.h"
#include "ctl/verbs.h"
#include "lib/fleet.h"

// A number of an option that has a default.
static int number(const struct ctl_call *call, const char *option, uint64_t max,
		  bool units, uint64_t *ret)
{
	const char *text = ctl_get(call, option);
	if (ctl_parse_number(text, max, units, ret))
		return ctl_fail(call, EX_USAGE, "--%s %s: want a number from 0 to %llu%s",
				option, text, (unsigned long long)max,
				units ? ", K, M or G may follow" : "");
	return 0;
}

static int fill_limits(const struct ctl_call *call, struct sp_pass *p)
{
	uint64_t sessions, streams, flows, rate;
	int code = number(call, "max-sessions", UINT16_MAX, false, &sessions);
	if (!code)
		code = number(call, "max-streams", UINT32_MAX, false, &streams);
	if (!code)
		code = number(call, "max-flows", UINT32_MAX, false, &flows);
	if (!code)
		code = number(call, "rate", INT64_MAX, true, &rate);
	if (code)
		return code;
	p->max_sessions = (uint16_t)sessions;
	p->max_streams = (uint32_t)streams;
	p->max_flows = (uint32_t)flows;
	p->rate_bps = rate;
	return 0;
}

static int fill_times(const struct ctl_call *call, struct sp_pass *p)
{
	const char *valid = ctl_get(call, "valid"), *from = ctl_get(call, "from");
	uint64_t s;
	if (ctl_parse_duration(valid, &s))
		return ctl_fail(call, EX_USAGE,
				"--valid %s: want a duration such as 90m, 25h or 30d",
				valid);
	p->not_before_s = call->now_s;
	if (from && ctl_parse_time(from, &p->not_before_s))
		return ctl_fail(call, EX_USAGE,
				"--from %s: want a time such as 2026-01-31T12:00:00Z",
				from);
	p->expires_s = p->not_before_s + s;
	return 0;
}

static int fill_groups(const struct ctl_call *call, struct sp_pass *p)
{
	size_t at = 0;
	for (const char *group; (group = ctl_next(call, "group", &at));) {
		if (!sp_fleet_name_is_valid(group))
			return ctl_fail(
				call, EX_USAGE,
				"--group %s: want 1 to %d letters, digits, '.', '_' "
				"and '-'",
				group, SP_FLEET_NAME_MAX);
		if (p->groups_n == SP_PASS_GROUPS_MAX)
			return ctl_fail(call, EX_USAGE, "--group: at most %d",
					SP_PASS_GROUPS_MAX);
		strcpy(p->groups[p->groups_n++], group);
	}
	return 0;
}

int ctl_pass_fill(const struct ctl_call *call, const char *tier, const uint8_t *device,
		  struct sp_pass *ret)
{
	const char *user = ctl_get(call, "user");
	struct sp_pass p = {0};
	uint8_t body[SP_PASS_BODY_MAX];
	if (!sp_fleet_name_is_valid(tier))
		return ctl_fail(
			call, EX_USAGE,
			"--tier %s: want 1 to %d letters, digits, '.', '_' and '-'", tier,
			SP_FLEET_NAME_MAX);
	randombytes_buf(p.serial, sizeof(p.serial));
	memcpy(p.device, device, sizeof(p.device));
	snprintf(p.user, sizeof(p.user), "%s", user);
	strcpy(p.tier, tier);
	int code = fill_limits(call, &p);
	if (!code)
		code = fill_times(call, &p);
	if (!code)
		code = ctl_has_option(call->verb, "group") ? fill_groups(call, &p) : 0;
	if (code)
		return code;
	if (strlen(user) > SP_PASS_USER_MAX || sp_pass_encode(&p, body, sizeof(body)) < 0)
		return ctl_fail(call, EX_USAGE,
				"--user %s: want 1 to %d printable ASCII characters",
				user, SP_PASS_USER_MAX);
	*ret = p;
	return 0;
}

int ctl_pass_write(const struct ctl_call *call, const struct sp_pass *pass,
		   const uint8_t *secret, const char *path, bool replace)
{
	uint8_t blob[SP_PASS_BLOB_MAX];
	int n = sp_pass_sign(pass, secret, blob, sizeof(blob));
	if (n < 0)
		return ctl_fail(call, EX_SOFTWARE, "the pass cannot be signed: %s",
				sp_strerror(n));
	return ctl_write(call, path, blob, (size_t)n, 0644, replace);
}

int ctl_pass_make(struct ctl_call *call)
{
	const char *path = ctl_get(call, "output");
	uint8_t secret[SP_SIGNED_SECRET_BYTES], device[SP_PASS_DEVICE_BYTES];
	struct sp_signed_view view;
	struct sp_pass pass;
	int code = ctl_public_key(call, "--device", ctl_get(call, "device"),
				  SP_KEY_DEVICE, device);
	if (!code)
		code = ctl_pass_fill(call, ctl_get(call, "tier"), device, &pass);
	if (!code)
		code = ctl_secret_key(call, ctl_get(call, "key"), SP_KEY_SIGNING, secret);
	if (code)
		return code;
	sp_signed_key_id(secret + 32, view.key_id);
	code = ctl_pass_write(call, &pass, secret, path, ctl_has(call, "force"));
	sodium_memzero(secret, sizeof(secret));
	if (code)
		return code;
	json_t *o = ctl_describe_pass(&view, &pass, call->now_s, true);
	json_object_set_new(o, "file", json_string(path));
	return ctl_out(call, o);
}

static int read_pass(struct ctl_call *call, struct ctl_sealed *s, struct sp_pass *ret)
{
	int code = ctl_sealed_read(call, call->args[0], s);
	if (code)
		return code;
	if (s->view.kind != SP_SIGNED_PASS)
		return ctl_fail(call, EX_DATAERR, "%s: a %s, not a pass; see config show",
				s->path, sp_signed_kind_word(s->view.kind));
	int err = sp_pass_parse(s->view.body, s->view.body_len, ret);
	if (err)
		return ctl_fail(call, EX_DATAERR, "%s: not a pass: %s", s->path,
				sp_strerror(err));
	return 0;
}

int ctl_pass_show(struct ctl_call *call)
{
	struct ctl_sealed s = {0};
	struct sp_pass pass;
	int code = read_pass(call, &s, &pass);
	if (!code)
		code = ctl_out(call,
			       ctl_describe_pass(&s.view, &pass, call->now_s, false));
	ctl_sealed_done(&s);
	return code;
}

static int judge(struct ctl_call *call, const struct sp_pass *pass)
{
	char a[CTL_TIME_CAP], b[CTL_TIME_CAP];
	uint8_t device[SP_PASS_DEVICE_BYTES];
	uint64_t now_s;
	int code = ctl_time_of(call, &now_s);
	if (code)
		return code;
	if (ctl_has(call, "device")) {
		code = ctl_public_key(call, "--device", ctl_get(call, "device"),
				      SP_KEY_DEVICE, device);
		if (code)
			return code;
		if (memcmp(device, pass->device, sizeof(device)))
			return ctl_fail(call, CTL_EX_UNTRUSTED,
					"%s: it is for another device; make one for this "
					"device's public key",
					call->args[0]);
	}
	switch (sp_pass_judge_time(pass, now_s, SP_PASS_SKEW_S)) {
	case SP_REASON_NONE:
		return 0;
	case SP_REASON_PASS_EARLY:
		return ctl_fail(call, CTL_EX_UNTRUSTED, "%s: not valid before %s (%s)",
				call->args[0], ctl_format_time(pass->not_before_s, a),
				ctl_format_distance(pass->not_before_s, now_s, b));
	default:
		return ctl_fail(call, CTL_EX_UNTRUSTED,
				"%s: expired at %s (%s); make a new one", call->args[0],
				ctl_format_time(pass->expires_s, a),
				ctl_format_distance(pass->expires_s, now_s, b));
	}
}

int ctl_pass_verify(struct ctl_call *call)
{
	struct ctl_sealed s = {0};
	struct sp_pass pass;
	uint64_t now_s;
	int code = read_pass(call, &s, &pass);
	if (!code)
		code = ctl_sealed_verify(call, &s);
	if (!code)
		code = judge(call, &pass);
	if (!code)
		code = ctl_time_of(call, &now_s);
	if (!code)
		code = ctl_out(call, ctl_describe_pass(&s.view, &pass, now_s, true));
	ctl_sealed_done(&s);
	return code;
}
