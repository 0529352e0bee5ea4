#include "controller/passes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "lib/fleet.h"
#include "lib/text.h"

#define STREAMS_MAX (1u << 20) // "no limit but the worker's own", as a number
#define SERIALS     16         // revoked ones that are passed over

const char *con_refusal_word(enum con_refusal r)
{
	switch (r) {
	case CON_REFUSAL_NONE:
	case CON_REFUSALS:
		break;
	case CON_REFUSAL_DISABLED:
		return "disabled";
	case CON_REFUSAL_EXPIRED:
		return "expired";
	case CON_REFUSAL_QUOTA:
		return "quota";
	case CON_REFUSAL_DEVICES:
		return "devices";
	case CON_REFUSAL_DEVICE:
		return "device";
	case CON_REFUSAL_REVOKED:
		return "revoked";
	case CON_REFUSAL_TIER:
		return "tier";
	}
	return "none";
}

static uint64_t get(const json_t *o, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(o, key));
	return v > 0 ? (uint64_t)v : 0;
}

static uint64_t least(uint64_t v, uint64_t max)
{
	return v && v < max ? v : max;
}

static void read_tier(const json_t *tier, struct sp_pass *p)
{
	json_t *g;
	size_t i;
	p->max_sessions = (uint16_t)least(get(tier, "max_sessions"), UINT16_MAX);
	p->max_streams = (uint32_t)least(get(tier, "max_streams"), STREAMS_MAX);
	p->max_flows = (uint32_t)least(get(tier, "max_flows"), STREAMS_MAX);
	p->rate_bps = get(tier, "rate_bps");
	json_array_foreach(json_object_get(tier, "groups"), i, g)
	{
		const char *name = json_string_value(g);
		if (name && strlen(name) <= SP_PASS_WORD_MAX &&
		    p->groups_n < SP_PASS_GROUPS_MAX)
			strcpy(p->groups[p->groups_n++], name);
	}
}

int con_grant_read(const struct sp_state *state, const char *user, struct con_grant *ret)
{
	char key[SP_STATE_KEY_MAX + 1];
	struct con_grant g = {.refusal = CON_REFUSAL_NONE};
	if (!sp_fleet_name_is_valid(user))
		return -ENOENT;
	snprintf(key, sizeof(key), "user/%s", user);
	if (!sp_state_get(state, key, NULL))
		return -ENOENT;
	json_t *u = sp_state_get_object(state, key);
	if (!u)
		return -ENOMEM;
	const char *tier_name = json_string_value(json_object_get(u, "tier"));
	snprintf(key, sizeof(key), "tier/%s", tier_name ? tier_name : "");
	json_t *tier = sp_state_get_object(state, key);
	snprintf(key, sizeof(key), "revoked/user/%s", user);
	json_t *revoked = sp_state_get_object(state, key);
	strcpy(g.pass.user, user);
	if (!tier || !sp_fleet_name_is_valid(tier_name)) {
		g.refusal = CON_REFUSAL_TIER;
	} else {
		strcpy(g.pass.tier, tier_name);
		read_tier(tier, &g.pass);
	}
	if (json_is_true(json_object_get(u, "disabled")))
		g.refusal = CON_REFUSAL_DISABLED;
	g.user_expires_s = get(u, "expires");
	g.max_devices = (unsigned)least(get(u, "max_devices"), 10000);
	g.before_s = get(revoked, "before");
	json_decref(u);
	json_decref(tier);
	json_decref(revoked);
	*ret = g;
	return 0;
}

static bool is_revoked(const struct sp_state *state, const char *kind, const uint8_t *id,
		       size_t len)
{
	char key[SP_STATE_KEY_MAX + 1], hex[2 * SP_PASS_DEVICE_BYTES + 1];
	snprintf(key, sizeof(key), "revoked/%s/%s", kind,
		 sp_hex_encode(id, len, hex, sizeof(hex)));
	return sp_state_get(state, key, NULL);
}

enum con_refusal con_grant_judge(const struct con_grant *g, const struct sp_state *state,
				 const uint8_t *device, bool over, uint64_t now_s)
{
	if (g->refusal)
		return g->refusal;
	if (g->user_expires_s && now_s >= g->user_expires_s)
		return CON_REFUSAL_EXPIRED;
	if (over)
		return CON_REFUSAL_QUOTA;
	if (is_revoked(state, "device", device, SP_PASS_DEVICE_BYTES))
		return CON_REFUSAL_REVOKED;
	return CON_REFUSAL_NONE;
}

uint64_t con_pass_slot(const uint8_t *device, uint64_t now_s)
{
	uint8_t hash[16];
	crypto_generichash(hash, sizeof(hash), device, SP_PASS_DEVICE_BYTES, NULL, 0);
	uint64_t offset =
		((uint64_t)hash[0] << 16 | hash[1] << 8 | hash[2]) % CON_PASS_SLOT_S;
	return now_s - (now_s - offset) % CON_PASS_SLOT_S;
}

// A hash of what the pass says: the same at every controller. One that was revoked is
// passed over, so that the holder is not without a pass until the next hour.
static void make_serial(struct sp_pass *p, const struct sp_state *state)
{
	uint8_t body[SP_PASS_BODY_MAX + 1] = {0};
	memset(p->serial, 0, sizeof(p->serial));
	int n = sp_pass_encode(p, body, SP_PASS_BODY_MAX);
	for (unsigned i = 0; n > 0 && i < SERIALS; i++) {
		body[n] = (uint8_t)i;
		crypto_generichash(p->serial, sizeof(p->serial), body, (size_t)n + 1,
				   NULL, 0);
		if (!is_revoked(state, "serial", p->serial, sizeof(p->serial)))
			break;
	}
}

void con_pass_fill(const struct con_grant *g, const struct sp_state *state,
		   const uint8_t *device, uint64_t slot_s, struct sp_pass *ret)
{
	*ret = g->pass;
	memcpy(ret->device, device, sizeof(ret->device));
	ret->not_before_s = slot_s > g->before_s ? slot_s : g->before_s;
	ret->expires_s = slot_s + CON_PASS_VALID_S;
	if (g->user_expires_s && ret->expires_s > g->user_expires_s)
		ret->expires_s = g->user_expires_s;
	make_serial(ret, state);
}
