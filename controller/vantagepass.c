#include "controller/vantagepass.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "lib/derive.h"
#include "lib/key.h"

#define SESSIONS 8192 // as many as a vantage probes at most
#define STREAMS  64

int con_vantage_pass(const struct sp_state *state, const char *name,
		     const uint8_t *device, const uint8_t *secret, uint64_t now_s,
		     uint8_t *out)
{
	char key[SP_STATE_KEY_MAX + 1], why[128];
	uint8_t known[SP_PASS_DEVICE_BYTES];
	struct sp_pass p = {.not_before_s = now_s - SP_PASS_SKEW_S,
			    .expires_s = now_s + CON_VANTAGE_PASS_S,
			    .tier = SP_DERIVE_VANTAGE_TIER,
			    .max_sessions = SESSIONS,
			    .max_streams = STREAMS,
			    .max_flows = STREAMS};
	if (snprintf(key, sizeof(key), "vantage/%s", name) >= (int)sizeof(key))
		return -ENOENT;
	json_t *o = sp_state_get_object(state, key);
	const char *text = json_string_value(json_object_get(o, "device"));
	int err = !o     ? -ENOENT
		  : text ? sp_key_parse(SP_KEY_DEVICE, false, text, strlen(text), known,
					why, sizeof(why))
			 : SP_E_MALFORMED;
	json_decref(o);
	if (!err && memcmp(known, device, sizeof(known)) != 0)
		err = SP_E_KEY;
	if (err)
		return err;
	snprintf(p.user, sizeof(p.user), "vantage:%.50s", name);
	memcpy(p.device, device, sizeof(p.device));
	randombytes_buf(p.serial, sizeof(p.serial));
	return sp_pass_sign(&p, secret, out, SP_PASS_BLOB_MAX);
}
