// Verbs about who may use the fleet: revoke, tokens, enrolment.
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "ctl/io.h"
#include "ctl/out.h"
#include "ctl/parse.h"
#include "ctl/remote.h"
#include "ctl/verbs.h"
#include "lib/conf.h"

int ctl_seconds(const struct ctl_call *call, const char *option, json_int_t *ret)
{
	char why[200];
	int64_t ms;
	const char *text = ctl_get(call, option);
	*ret = 0;
	if (!text)
		return 0;
	if (sp_conf_amount(SP_CONF_DURATION, text, &ms, why, sizeof(why)))
		return ctl_fail(call, EX_USAGE, "--%s: %s", option, why);
	if (ms < 1000)
		return ctl_fail(call, EX_USAGE, "--%s: want at least 1s", option);
	*ret = ms / 1000;
	return 0;
}

int ctl_take_away(struct ctl_call *call, const char *path, const char *done)
{
	json_t *reply;
	char *name = ctl_escape(call->args[0]);
	char *url = ctl_text("%s%s", path, name);
	int code = ctl_ask(call, "DELETE", url, NULL, 0, &reply);
	free(name);
	free(url);
	if (code)
		return code;
	if (call->json)
		return ctl_out(call, reply);
	fprintf(call->out, "%s %s\n", call->args[0], done);
	json_decref(reply);
	return EX_OK;
}

// ---- revoking ----

int ctl_revoke(struct ctl_call *call)
{
	static const char *const kinds[] = {"user", "device", "serial"};
	json_t *body = json_object(), *reply;
	unsigned n = 0;
	for (size_t i = 0; i < 3; i++) {
		const char *v = ctl_get(call, kinds[i]);
		n += v != NULL;
		if (v)
			json_object_set_new(body, kinds[i], json_string(v));
	}
	if (n != 1) {
		json_decref(body);
		return ctl_fail(call, EX_USAGE,
				"want one of --user, --device and --serial");
	}
	if (ctl_has(call, "keep-tokens"))
		json_object_set_new(body, "keep_tokens", json_true());
	int code =
		ctl_ask_json(call, "POST",
			     ctl_has(call, "force") ? "/v1/revoke?force=1" : "/v1/revoke",
			     body, &reply);
	if (code)
		return code;
	if (call->json)
		return ctl_out(call, reply);
	fprintf(call->out, "revoked: live sessions end within a second\n");
	json_decref(reply);
	return EX_OK;
}

// ---- tokens ----

int ctl_token_make(struct ctl_call *call)
{
	json_int_t valid_s;
	json_t *reply;
	int code = ctl_seconds(call, "valid", &valid_s);
	if (code)
		return code;
	json_t *body = json_pack("{s:s}", "user", call->args[0]);
	if (valid_s)
		json_object_set_new(body, "valid_s", json_integer(valid_s));
	code = ctl_ask_json(call, "POST", "/v1/tokens", body, &reply);
	if (code)
		return code;
	if (call->json)
		return ctl_out(call, reply);
	const char *token = json_string_value(json_object_get(reply, "token"));
	fprintf(call->out, "%s\n", token ? token : "");
	json_decref(reply);
	return EX_OK;
}

int ctl_token_drop(struct ctl_call *call)
{
	return ctl_take_away(call, "/v1/tokens/", "is nobody's any more");
}

// ---- enrolment ----

int ctl_enroll(struct ctl_call *call)
{
	const char *node = ctl_get(call, "node"), *vantage = ctl_get(call, "vantage"),
		   *region = ctl_get(call, "region");
	json_int_t valid_s;
	json_t *reply, *body;
	int code = ctl_seconds(call, "valid", &valid_s);
	if (code)
		return code;
	if (!node == !vantage)
		return ctl_fail(call, EX_USAGE, "want one of --node and --vantage");
	if (!vantage != !region)
		return ctl_fail(call, EX_USAGE, "--vantage and --region go together");
	if (vantage) {
		body = json_pack("{s:s, s:s, s:I}", "vantage", vantage, "region", region,
				 "valid_s", valid_s);
	} else {
		char *name =
			strchr(node, '/') ? ctl_text("%s", node) : ctl_text("%s/0", node);
		body = json_pack("{s:s, s:I}", "node", name, "valid_s", valid_s);
		free(name);
	}
	code = ctl_ask_json(call, "POST",
			    ctl_has(call, "force") ? "/v1/enrol?force=1" : "/v1/enrol",
			    body, &reply);
	if (code)
		return code;
	if (call->json)
		return ctl_out(call, reply);
	const char *token = json_string_value(json_object_get(reply, "token"));
	fprintf(call->out, "%s\n", token ? token : "");
	json_decref(reply);
	return EX_OK;
}
