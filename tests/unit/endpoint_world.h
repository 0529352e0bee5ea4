// What tests of the config endpoint share: a fleet's state made of a fleet file, with
// enrolled workers and bearer tokens, and a client config as its client reads it.
#ifndef ENDPOINT_WORLD_H
#define ENDPOINT_WORLD_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "controller/endpoint.h"
#include "controller/tokens.h"
#include "lib/fleet.h"
#include "lib/fleetfile.h"
#include "lib/key.h"

struct fleet_world {
	struct sp_state *state;
	struct sp_position head;
	uint8_t secret[SP_SIGNED_SECRET_BYTES];
	struct sp_signed_keys keys;
	char why[SP_FLEETFILE_WHY_MAX];
};

static const char fleet_base[] =
	"fleet: test\n"
	"endpoints: [\"https://a.example/v1/config\", \"https://b.example/v1/config\"]\n"
	"refresh: 90s\n"
	"regions: [{name: eu}, {name: us}]\n"
	"tiers:\n"
	"  - {name: free, max_sessions: 2, rate: 1M}\n"
	"  - {name: paid, groups: [fast]}\n"
	"users:\n"
	"  - {name: ann, tier: free, max_devices: 2}\n"
	"  - {name: bob, tier: paid}\n"
	"nodes:\n";

static inline void world_set(struct fleet_world *w, const char *key, const char *json)
{
	if (!json)
		assert_true(sp_state_delete(w->state, key));
	else
		assert_int_equal(sp_state_put_text(w->state, key, json, strlen(json)), 0);
	w->head.sequence++;
}

// A worker that was enrolled; its key is made of its name.
static inline void world_enrol(struct fleet_world *w, const char *worker)
{
	char key[SP_STATE_KEY_MAX + 1], json[300], text[SP_KEY_TEXT_MAX];
	uint8_t public_key[32];
	crypto_generichash(public_key, 32, (const uint8_t *)worker, strlen(worker), NULL,
			   0);
	snprintf(key, sizeof(key), "identity/%s", worker);
	snprintf(json, sizeof(json), "{\"static\":\"%s\"}",
		 sp_key_format(SP_KEY_WORKER, false, public_key, text));
	world_set(w, key, json);
}

// `n` nodes n0, n1 … of weight 100, alternating between the regions; every fourth is of
// group fast.
static inline void world_init(struct fleet_world *w, unsigned n)
{
	size_t cap = sizeof(fleet_base) + n * 200 + 1;
	char *text = malloc(cap), worker[32];
	size_t len = (size_t)snprintf(text, cap, "%s", fleet_base);
	uint8_t public_key[32];
	memset(w, 0, sizeof(*w));
	assert_true(sodium_init() >= 0);
	crypto_sign_keypair(public_key, w->secret);
	assert_int_equal(sp_signed_keys_add(&w->keys, public_key), 0);
	for (unsigned i = 0; i < n; i++)
		len += (size_t)snprintf(
			text + len, cap - len,
			"  - {name: n%u, region: %s, %scarriers: [{kind: tcp, address: "
			"\"10.%u.%u.%u:443\", listen: \"0.0.0.0:4433\"}]}\n",
			i, i % 2 ? "us" : "eu", i % 4 == 0 ? "group: fast, " : "",
			i / 65536, i / 256 % 256, i % 256);
	if (sp_fleetfile_parse("fleet.yaml", text, len, &w->state, w->why,
			       sizeof(w->why)))
		fail_msg("%s", w->why);
	free(text);
	w->head.epoch = 1;
	for (unsigned i = 0; i < n; i++) {
		snprintf(worker, sizeof(worker), "n%u/0", i);
		world_enrol(w, worker);
	}
}

static inline void world_done(struct fleet_world *w)
{
	sp_state_free(w->state);
}

// A token of the user, to `text` (CON_TOKEN_TEXT_MAX).
static inline void world_token(struct fleet_world *w, const char *user,
			       uint64_t expires_s, char *text)
{
	struct sp_changes c = {0};
	char id[CON_TOKEN_ID_MAX];
	assert_int_equal(con_token_make(user, 1, expires_s, &c, text, id), 0);
	assert_int_equal(sp_state_apply(w->state, &c), 0);
	sp_changes_done(&c);
	w->head.sequence++;
}

static inline const struct sp_state *world_state(void *ctx)
{
	return ((struct fleet_world *)ctx)->state;
}

static inline const struct sp_position *world_head(void *ctx)
{
	return &((struct fleet_world *)ctx)->head;
}

static inline char *world_device(unsigned i, char *text)
{
	uint8_t key[32];
	crypto_generichash(key, 32, (const uint8_t *)&i, sizeof(i), NULL, 0);
	return sp_key_format(SP_KEY_DEVICE, false, key, text);
}

// Reads a signed config as a client does.
static inline struct sp_fleet_client *world_open(struct fleet_world *w, const char *text,
						 size_t len)
{
	struct sp_signed_view view;
	struct sp_fleet_client *f;
	assert_int_equal(
		sp_signed_open_text(&w->keys, SP_SIGNED_CLIENT_CONFIG, text, len, &view),
		0);
	if (sp_fleet_client_parse(view.body, view.body_len, &f, w->why, sizeof(w->why)))
		fail_msg("%s", w->why);
	return f;
}

#endif
