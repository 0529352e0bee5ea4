#include "ctl/describe.h"

#include <inttypes.h>
#include <stdio.h>

#include "lib/fleet.h"
#include "lib/text.h"

static json_t *key_id(const uint8_t *id)
{
	char text[2 * SP_SIGNED_KEY_ID_BYTES + 1];
	return json_string(sp_hex_encode(id, SP_SIGNED_KEY_ID_BYTES, text, sizeof(text)));
}

json_t *ctl_describe_key(enum sp_key_kind kind, bool secret, const uint8_t *key)
{
	uint8_t id[SP_SIGNED_KEY_ID_BYTES];
	char text[SP_KEY_TEXT_MAX];
	sp_signed_key_id(key, id);
	json_t *o =
		json_pack("{s:s,s:s,s:s}", "type", "key", "kind", sp_key_kind_word(kind),
			  "half", secret ? "secret" : "public");
	if (kind == SP_KEY_ROUTE) {
		json_object_set_new(o, "fingerprint", key_id(id));
		return o;
	}
	json_object_set_new(o, "public",
			    json_string(sp_key_format(kind, false, key, text)));
	json_object_set_new(o, "id", key_id(id));
	if (kind == SP_KEY_WORKER) {
		snprintf(text, sizeof(text), "%016" PRIx64, sp_fleet_home_id(key));
		json_object_set_new(o, "home_id", json_string(text));
	}
	return o;
}

static const char *state_word(const struct sp_pass *pass, uint64_t now_s)
{
	// Workers judge with a tolerance, and so does verify.
	bool tolerated =
		sp_pass_judge_time(pass, now_s, SP_PASS_SKEW_S) == SP_REASON_NONE;
	switch (sp_pass_judge_time(pass, now_s, 0)) {
	case SP_REASON_NONE:
		return "valid";
	case SP_REASON_PASS_EARLY:
		return tolerated ? "not valid yet, but tolerated" : "not valid yet";
	default:
		return tolerated ? "expired, but tolerated" : "expired";
	}
}

static void add_signature(json_t *o, const struct sp_signed_view *view, bool checked)
{
	json_object_set_new(o, "signed_by", key_id(view->key_id));
	json_object_set_new(o, "signature",
			    json_string(checked ? "verified" : "not checked"));
}

json_t *ctl_describe_pass(const struct sp_signed_view *view, const struct sp_pass *pass,
			  uint64_t now_s, bool checked)
{
	char serial[2 * SP_PASS_SERIAL_BYTES + 1], device[SP_KEY_TEXT_MAX];
	sp_hex_encode(pass->serial, sizeof(pass->serial), serial, sizeof(serial));
	sp_key_format(SP_KEY_DEVICE, false, pass->device, device);
	json_t *o = json_pack(
		"{s:s,s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:i,s:I,s:I,s:I}", "type", "pass",
		"state", state_word(pass, now_s), "user", pass->user, "tier", pass->tier,
		"serial", serial, "device", device, "not_before",
		(json_int_t)pass->not_before_s, "expires", (json_int_t)pass->expires_s,
		"max_sessions", (int)pass->max_sessions, "max_streams",
		(json_int_t)pass->max_streams, "max_flows", (json_int_t)pass->max_flows,
		"rate_bps", (json_int_t)pass->rate_bps);
	json_t *groups = json_array();
	for (unsigned i = 0; i < pass->groups_n; i++)
		json_array_append_new(groups, json_string(pass->groups[i]));
	json_object_set_new(o, "groups", groups);
	add_signature(o, view, checked);
	return o;
}

json_t *ctl_describe_config(enum sp_signed_kind kind, const struct sp_signed_view *view,
			    const char *canonical, bool checked)
{
	json_t *o = json_pack("{s:s}", "type", sp_signed_kind_word(kind));
	if (view)
		add_signature(o, view, checked);
	else
		json_object_set_new(o, "signature", json_string("none"));
	json_object_set_new(o, "config", json_loads(canonical, 0, NULL));
	return o;
}
