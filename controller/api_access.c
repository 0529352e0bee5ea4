#include "controller/api_access.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "controller/tokens.h"
#include "lib/fleet.h"
#include "lib/key.h"
#include "lib/text.h"

#define TOKEN_MAX_S (10 * 366 * 86400LL)

static uint64_t now_s(const struct con_api_fleet *f)
{
	return sp_loop_unix_ms(f->loop) / 1000;
}

static int add_revoked(struct sp_changes *c, const char *what, const char *id,
		       uint64_t now)
{
	char key[SP_STATE_KEY_MAX + 1];
	snprintf(key, sizeof(key), "revoked/%s/%s", what, id);
	// A pass that was made in this very second is void too.
	json_t *o = json_pack("{s:I, s:I}", "before", (json_int_t)now + 1, "until",
			      (json_int_t)now + CON_REVOKED_KEPT_S);
	int err = o ? sp_changes_add(c, key, o) : -ENOMEM;
	json_decref(o);
	return err;
}

int con_access_revoke_user(struct sp_changes *c, const char *user, uint64_t now)
{
	return add_revoked(c, "user", user, now);
}

// ---- revoking ----

// A user's tokens go with the passes, else the next pass is a request away.
static int drop_tokens(const struct sp_state *s, const char *user, struct sp_changes *c)
{
	struct sp_state_entry e;
	int err = 0;
	for (size_t at = 0; !err && sp_state_next(s, "token/", &at, &e);) {
		json_t *o = json_loadb(e.json, e.json_len, 0, NULL);
		const char *whose = json_string_value(json_object_get(o, "user"));
		if (whose && strcmp(whose, user) == 0)
			err = sp_changes_add(c, e.key, NULL);
		json_decref(o);
	}
	return err;
}

static bool revoke_user(struct con_api_fleet *f, struct con_api_call *call,
			const char *user, bool keep_tokens, struct sp_changes *c)
{
	char key[SP_STATE_KEY_MAX + 1];
	const struct sp_state *s = con_fleet_state(f->fleet);
	snprintf(key, sizeof(key), "user/%s", user);
	if (!sp_fleet_name_is_valid(user) ||
	    (!sp_state_get(s, key, NULL) && !con_api_flag(call, "force"))) {
		con_api_problem(call, 404, "no-such-user",
				"there is no user \"%s\"; --force revokes passes of one "
				"that is gone",
				user);
		return false;
	}
	int err = con_access_revoke_user(c, user, now_s(f));
	if (!err && !keep_tokens)
		err = drop_tokens(s, user, c);
	if (err)
		con_api_error(call, err, "");
	return !err;
}

static bool revoke_device(struct con_api_fleet *f, struct con_api_call *call,
			  const char *text, struct sp_changes *c)
{
	uint8_t key[32];
	char hex[65], why[200];
	if (sp_key_parse(SP_KEY_DEVICE, false, text, strlen(text), key, why,
			 sizeof(why))) {
		con_api_problem(call, 400, "body", "device: %s", why);
		return false;
	}
	int err = add_revoked(
		c, "device", sp_hex_encode(key, sizeof(key), hex, sizeof(hex)), now_s(f));
	if (err)
		con_api_error(call, err, "");
	return !err;
}

static bool revoke_serial(struct con_api_fleet *f, struct con_api_call *call,
			  const char *text, struct sp_changes *c)
{
	uint8_t serial[SP_PASS_SERIAL_BYTES];
	char hex[2 * SP_PASS_SERIAL_BYTES + 1];
	if (sp_hex_decode(text, strlen(text), serial, sizeof(serial))) {
		con_api_problem(call, 400, "body", "serial: want %d hexadecimal digits",
				2 * SP_PASS_SERIAL_BYTES);
		return false;
	}
	int err = add_revoked(c, "serial",
			      sp_hex_encode(serial, sizeof(serial), hex, sizeof(hex)),
			      now_s(f));
	if (err)
		con_api_error(call, err, "");
	return !err;
}

static void revoke(void *ctx, struct con_api_call *call)
{
	struct con_api_fleet *f = ctx;
	struct sp_changes c = {0};
	json_t *body = con_api_object(call);
	if (!body)
		return;
	const char *user = json_string_value(json_object_get(body, "user"));
	const char *device = json_string_value(json_object_get(body, "device"));
	const char *serial = json_string_value(json_object_get(body, "serial"));
	bool keep = json_is_true(json_object_get(body, "keep_tokens"));
	bool good = false;
	if (!!user + !!device + !!serial != 1)
		con_api_problem(call, 400, "body", "want one of user, device and serial");
	else if (user)
		good = revoke_user(f, call, user, keep, &c);
	else if (device)
		good = revoke_device(f, call, device, &c);
	else
		good = revoke_serial(f, call, serial, &c);
	if (good)
		con_api_commit(f->fleet, call, &c, NULL);
	sp_changes_done(&c);
}

// ---- tokens ----

static void make_token(void *ctx, struct con_api_call *call)
{
	struct con_api_fleet *f = ctx;
	struct sp_changes c = {0};
	char key[SP_STATE_KEY_MAX + 1], text[CON_TOKEN_TEXT_MAX], id[CON_TOKEN_ID_MAX];
	json_t *body = con_api_object(call);
	const char *user = body ? con_api_member(call, "user", true) : NULL;
	if (!user)
		return;
	json_t *v = json_object_get(body, "valid_s");
	if (v && (!json_is_integer(v) || json_integer_value(v) <= 0 ||
		  json_integer_value(v) > TOKEN_MAX_S)) {
		con_api_problem(call, 400, "body", "valid_s: want 1 to %lld seconds",
				TOKEN_MAX_S);
		return;
	}
	snprintf(key, sizeof(key), "user/%s", user);
	if (!sp_fleet_name_is_valid(user) ||
	    !sp_state_get(con_fleet_state(f->fleet), key, NULL)) {
		con_api_problem(call, 404, "no-such-user",
				"there is no user \"%s\"; apply a fleet file with it",
				user);
		return;
	}
	uint64_t now = now_s(f);
	uint64_t expires = v ? now + (uint64_t)json_integer_value(v) : 0;
	int err = con_token_make(user, now, expires, &c, text, id);
	if (err) {
		con_api_error(call, err, "");
	} else {
		con_api_commit(f->fleet, call, &c,
			       json_pack("{s:s, s:s, s:s, s:I}", "token", text, "id", id,
					 "user", user, "expires", (json_int_t)expires));
	}
	sodium_memzero(text, sizeof(text));
	sp_changes_done(&c);
}

static void drop_token(void *ctx, struct con_api_call *call)
{
	struct con_api_fleet *f = ctx;
	struct sp_changes c = {0};
	char key[SP_STATE_KEY_MAX + 1];
	snprintf(key, sizeof(key), "token/%s", con_api_tail(call));
	if (!sp_state_get(con_fleet_state(f->fleet), key, NULL)) {
		con_api_problem(call, 404, "no-such-token", "there is no token %s",
				con_api_tail(call));
		return;
	}
	int err = sp_changes_add(&c, key, NULL);
	if (err)
		con_api_error(call, err, "");
	else
		con_api_commit(f->fleet, call, &c, NULL);
	sp_changes_done(&c);
}

static const struct con_api_route routes[] = {
	{"POST", "/v1/revoke", revoke},
	{"POST", "/v1/tokens", make_token},
	{"DELETE", "/v1/tokens/*", drop_token},
	{0},
};

int con_api_access_add(struct con_api_fleet *f)
{
	return con_api_add(f->api, routes, f);
}
