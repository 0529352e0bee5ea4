#include "controller/clients.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <sodium.h>

#include "controller/tokens.h"
#include "lib/fleet.h"
#include "lib/idmap.h"
#include "lib/key.h"
#include "lib/text.h"

#define DIGEST 32
#define NEVER  UINT64_MAX

// A good token that was shown, with what it may still ask. Lives with its clients.
struct token {
	uint8_t digest[DIGEST]; // keyed, of its text
	char id[CON_TOKEN_ID_MAX], user[SP_PASS_USER_MAX + 1];
	uint64_t expires_s;
	struct sp_ratelimit bucket;
	unsigned n_clients;
};

struct con_client {
	uint8_t digest[DIGEST]; // keyed, of token, device and region as they came
	struct token *token;
	TAILQ_ENTRY(con_client) link; // the stalest first
	unsigned holds;
	bool has_device;
	uint8_t device[SP_PASS_DEVICE_BYTES]; // without one: a stand-in for the order
	unsigned region;
	// as of the last refresh
	bool good;
	uint64_t generation, until_s, slot_s;
	enum con_refusal refusal;
	struct con_view_list list;
	char etag[CON_CLIENT_ETAG_MAX];
};
TAILQ_HEAD(clients, con_client);

struct con_clients {
	struct con_clients_options opt;
	struct con_view *view;
	uint8_t key[crypto_generichash_KEYBYTES]; // of digests
	struct sp_idmap tokens, clients;          // by the first bytes of digests
	struct clients order;
	size_t n;
	uint64_t generation; // of everything that answers are made of
	char *fleet;         // members of a config that come from state "fleet"
	uint8_t fleet_digest[16];
};

// ---- what all share ----

// From state "fleet": where to ask, and how often.
static int read_fleet(struct con_clients *cs)
{
	json_t *fleet = sp_state_get_object(cs->opt.state(cs->opt.ctx), "fleet");
	json_t *o = json_object();
	json_t *urls = json_object_get(fleet, "endpoints");
	json_t *refresh = json_object_get(fleet, "refresh_s");
	int bad = !o || (urls && json_object_set(o, "endpoints", urls)) ||
		  json_object_set_new(
			  o, "refresh_s",
			  json_integer(refresh ? json_integer_value(refresh) : 60));
	char *text = bad ? NULL : json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(o);
	json_decref(fleet);
	if (!text)
		return -ENOMEM;
	free(cs->fleet);
	cs->fleet = text;
	crypto_generichash(cs->fleet_digest, sizeof(cs->fleet_digest), (uint8_t *)text,
			   strlen(text), NULL, 0);
	return 0;
}

static int read_state(struct con_clients *cs)
{
	struct sp_state_entry e;
	int err = read_fleet(cs);
	for (size_t at = 0;
	     !err && sp_state_next(cs->opt.state(cs->opt.ctx), "", &at, &e);)
		if ((err = con_view_set(cs->view, e.key, e.json, e.json_len)) ==
		    SP_E_MALFORMED)
			err = 0; // that node is not offered
	return err;
}

int con_clients_new(const struct con_clients_options *opt, uint64_t now_s,
		    struct con_clients **ret)
{
	struct con_clients *cs = calloc(1, sizeof(*cs));
	if (!cs)
		return -ENOMEM;
	cs->opt = *opt;
	cs->generation = 1;
	TAILQ_INIT(&cs->order);
	sp_idmap_init(&cs->tokens);
	sp_idmap_init(&cs->clients);
	randombytes_buf(cs->key, sizeof(cs->key));
	int err = con_view_new(opt->judge, opt->ctx, &cs->view);
	if (!err)
		err = read_state(cs);
	if (err) {
		con_clients_free(cs);
		return err;
	}
	(void)con_view_refresh(cs->view, now_s);
	*ret = cs;
	return 0;
}

static bool matters(const char *key)
{
	static const char *const kinds[] = {"node/", "identity/", "lease/", "region/",
					    "tier/", "user/",     "token/", "revoked/",
					    "fleet", NULL};
	for (const char *const *k = kinds; *k; k++)
		if (strncmp(key, *k, strlen(*k)) == 0)
			return true;
	return false;
}

bool con_clients_changed(struct con_clients *cs, const struct sp_changes *changes,
			 uint64_t now_s)
{
	bool changed = false;
	for (size_t i = 0; i < changes->n; i++) {
		const struct sp_change *c = &changes->v[i];
		if (!matters(c->key))
			continue;
		changed = true;
		if (strcmp(c->key, "fleet") == 0)
			(void)!read_fleet(cs);
		int err = con_view_set(cs->view, c->key, c->json,
				       c->json ? strlen(c->json) : 0);
		if (err)
			sp_warn("endpoint", "a node is not offered", "key=%s error=%s",
				c->key, sp_strerror(err));
	}
	if (changed) {
		(void)con_view_refresh(cs->view, now_s);
		cs->generation++;
	}
	return changed;
}

bool con_clients_judge(struct con_clients *cs, uint64_t now_s)
{
	bool changed = con_view_refresh(cs->view, now_s);
	cs->generation += changed;
	return changed;
}

void con_clients_poke(struct con_clients *cs)
{
	cs->generation++;
}

const struct con_view *con_clients_view(const struct con_clients *cs)
{
	return cs->view;
}

size_t con_clients_count(const struct con_clients *cs)
{
	return cs->n;
}

// ---- tokens ----

static uint64_t digest_id(const uint8_t *digest)
{
	uint64_t id;
	memcpy(&id, digest, sizeof(id));
	return id;
}

// Whether the state still has it. `ret_expires_s` may be NULL.
static bool token_holds(const struct con_clients *cs, const struct token *t,
			uint64_t *ret_expires_s)
{
	char key[SP_STATE_KEY_MAX + 1];
	snprintf(key, sizeof(key), "token/%s", t->id);
	json_t *o = sp_state_get_object(cs->opt.state(cs->opt.ctx), key);
	const char *user = json_string_value(json_object_get(o, "user"));
	json_int_t expires = json_integer_value(json_object_get(o, "expires"));
	bool holds = user && strcmp(user, t->user) == 0;
	if (holds && ret_expires_s)
		*ret_expires_s = expires > 0 ? (uint64_t)expires : NEVER;
	json_decref(o);
	return holds;
}

// The good token of this text; NULL: none. New ones have no client yet.
static struct token *token_get(struct con_clients *cs, const char *text, uint64_t now_s)
{
	struct token found = {0}, *t;
	crypto_generichash(found.digest, DIGEST, (const uint8_t *)text, strlen(text),
			   cs->key, sizeof(cs->key));
	t = sp_idmap_get(&cs->tokens, digest_id(found.digest));
	if (t && sodium_memcmp(t->digest, found.digest, DIGEST) == 0)
		return t;
	if (t || !con_token_find(cs->opt.state(cs->opt.ctx), text, now_s, found.user,
				 found.id))
		return NULL;
	t = malloc(sizeof(*t));
	if (!t || sp_idmap_put(&cs->tokens, digest_id(found.digest), t)) {
		free(t);
		return NULL;
	}
	*t = found;
	t->bucket.per_second = cs->opt.token_rate;
	t->bucket.burst = cs->opt.token_burst;
	return t;
}

static void token_leave(struct con_clients *cs, struct token *t)
{
	if (t->n_clients)
		return;
	sp_idmap_remove(&cs->tokens, digest_id(t->digest));
	sodium_memzero(t, sizeof(*t));
	free(t);
}

// ---- clients ----

static void client_drop(struct con_clients *cs, struct con_client *c)
{
	TAILQ_REMOVE(&cs->order, c, link);
	sp_idmap_remove(&cs->clients, digest_id(c->digest));
	cs->n--;
	c->token->n_clients--;
	token_leave(cs, c->token);
	free(c);
}

void con_clients_free(struct con_clients *cs)
{
	struct con_client *c;
	if (!cs)
		return;
	while ((c = TAILQ_FIRST(&cs->order)))
		client_drop(cs, c);
	sp_idmap_done(&cs->tokens);
	sp_idmap_done(&cs->clients);
	con_view_free(cs->view);
	free(cs->fleet);
	sodium_memzero(cs->key, sizeof(cs->key));
	free(cs);
}

static void make_room(struct con_clients *cs)
{
	struct con_client *c = TAILQ_FIRST(&cs->order);
	while (c && c->holds)
		c = TAILQ_NEXT(c, link);
	if (c)
		client_drop(cs, c);
}

static struct con_client *client_new(struct con_clients *cs, struct token *t,
				     const uint8_t *digest,
				     const struct con_client_key *key)
{
	struct con_client *c = calloc(1, sizeof(*c));
	if (cs->n >= CON_CLIENTS_MAX)
		make_room(cs);
	if (!c || sp_idmap_put(&cs->clients, digest_id(digest), c)) {
		free(c);
		token_leave(cs, t);
		return NULL;
	}
	memcpy(c->digest, digest, DIGEST);
	c->token = t;
	t->n_clients++;
	cs->n++;
	TAILQ_INSERT_TAIL(&cs->order, c, link);
	c->has_device =
		key->device && sp_key_parse(SP_KEY_DEVICE, false, key->device,
					    strlen(key->device), c->device, NULL, 0) == 0;
	if (!c->has_device)
		crypto_generichash(c->device, sizeof(c->device), (uint8_t *)t->id,
				   strlen(t->id), NULL, 0);
	c->region = con_view_region(cs->view, key->region ? key->region : "");
	return c;
}

static void client_digest(const struct con_clients *cs, const struct token *t,
			  const struct con_client_key *key, uint8_t *ret)
{
	crypto_generichash_state h;
	const char *device = key->device ? key->device : "";
	const char *region = key->region ? key->region : "";
	crypto_generichash_init(&h, cs->key, sizeof(cs->key), DIGEST);
	crypto_generichash_update(&h, t->digest, DIGEST);
	crypto_generichash_update(&h, (const uint8_t *)device, strlen(device) + 1);
	crypto_generichash_update(&h, (const uint8_t *)region, strlen(region) + 1);
	crypto_generichash_final(&h, ret, DIGEST);
}

struct con_client *con_clients_find(struct con_clients *cs,
				    const struct con_client_key *key, uint64_t now_s)
{
	uint8_t digest[DIGEST];
	struct token *t = token_get(cs, key->token ? key->token : "", now_s);
	if (!t)
		return NULL;
	client_digest(cs, t, key, digest);
	struct con_client *c = sp_idmap_get(&cs->clients, digest_id(digest));
	if (c && memcmp(c->digest, digest, DIGEST) != 0)
		return NULL; // two of 2^64: cannot be both
	if (!c && !(c = client_new(cs, t, digest, key)))
		return NULL;
	TAILQ_REMOVE(&cs->order, c, link);
	TAILQ_INSERT_TAIL(&cs->order, c, link);
	if (con_client_refresh(cs, c, now_s))
		return c;
	if (!c->holds)
		client_drop(cs, c);
	return NULL;
}

void con_client_hold(struct con_client *c)
{
	c->holds++;
}

void con_client_release(struct con_client *c)
{
	c->holds--;
}

bool con_client_may_ask(const struct con_clients *cs, struct con_client *c,
			uint64_t now_ms)
{
	return !cs->opt.token_rate || sp_ratelimit_ok(&c->token->bucket, now_ms);
}

// ---- answers ----

static void make_etag(const struct con_clients *cs, struct con_client *c,
		      const uint8_t *serial)
{
	crypto_generichash_state h;
	uint8_t tag[16], refusal = (uint8_t)c->refusal;
	char hex[2 * sizeof(tag) + 1];
	crypto_generichash_init(&h, NULL, 0, sizeof(tag));
	crypto_generichash_update(&h, cs->fleet_digest, sizeof(cs->fleet_digest));
	crypto_generichash_update(&h, (uint8_t *)&c->list.digest, sizeof(c->list.digest));
	crypto_generichash_update(&h, &refusal, 1);
	if (!refusal)
		crypto_generichash_update(&h, serial, SP_PASS_SERIAL_BYTES);
	crypto_generichash_final(&h, tag, sizeof(tag));
	snprintf(c->etag, sizeof(c->etag), "\"%s\"",
		 sp_hex_encode(tag, sizeof(tag), hex, sizeof(hex)));
}

static enum con_refusal judge(struct con_clients *cs, const struct con_client *c,
			      const struct con_grant *g, uint64_t now_s)
{
	const char *user = c->token->user;
	bool over = cs->opt.over_quota && cs->opt.over_quota(cs->opt.ctx, user);
	if (!c->has_device)
		return CON_REFUSAL_DEVICE;
	enum con_refusal r =
		con_grant_judge(g, cs->opt.state(cs->opt.ctx), c->device, over, now_s);
	if (!r &&
	    con_devices_admit(cs->opt.devices, user, c->device, g->max_devices, now_s))
		r = CON_REFUSAL_DEVICES;
	return r;
}

static bool compute(struct con_clients *cs, struct con_client *c, uint64_t now_s)
{
	const struct sp_state *state = cs->opt.state(cs->opt.ctx);
	struct con_grant g;
	struct sp_pass pass;
	uint64_t expires_s;
	if (!token_holds(cs, c->token, &expires_s) || now_s >= expires_s ||
	    con_grant_read(state, c->token->user, &g))
		return false;
	c->until_s = expires_s;
	c->refusal = judge(cs, c, &g, now_s);
	if (g.user_expires_s > now_s && g.user_expires_s < c->until_s)
		c->until_s = g.user_expires_s;
	c->slot_s = con_pass_slot(c->device, now_s);
	if (c->slot_s + CON_PASS_SLOT_S < c->until_s)
		c->until_s = c->slot_s + CON_PASS_SLOT_S;
	struct con_view_client who = {.device = c->device,
				      .region = c->region,
				      .n_groups = g.pass.groups_n,
				      .groups = (const void *)g.pass.groups};
	con_view_select(cs->view, &who, &c->list);
	if (!c->refusal)
		con_pass_fill(&g, state, c->device, c->slot_s, &pass);
	make_etag(cs, c, pass.serial);
	return true;
}

bool con_client_refresh(struct con_clients *cs, struct con_client *c, uint64_t now_s)
{
	if (c->generation == cs->generation && now_s < c->until_s)
		return c->good;
	c->good = compute(cs, c, now_s);
	c->generation = cs->generation;
	if (!c->good)
		c->until_s = NEVER; // until something changes
	return c->good;
}

const char *con_client_etag(const struct con_client *c)
{
	return c->etag;
}

uint64_t con_client_until(const struct con_client *c)
{
	return c->until_s;
}

bool con_client_has_exits(const struct con_client *c)
{
	return c->list.n > 0;
}

enum con_refusal con_client_refusal(const struct con_client *c)
{
	return c->refusal;
}

// "pass" or "pass_refused", a member of a config. `cap` bytes.
static int print_pass(struct con_clients *cs, const struct con_client *c, char *buf,
		      size_t cap)
{
	const struct sp_state *state = cs->opt.state(cs->opt.ctx);
	char text[SP_BASE64_CAP(SP_PASS_BLOB_MAX)];
	uint8_t blob[SP_PASS_BLOB_MAX];
	struct con_grant g;
	struct sp_pass pass;
	if (c->refusal) {
		snprintf(buf, cap, "\"pass_refused\":\"%s\"",
			 con_refusal_word(c->refusal));
		return 0;
	}
	int err = con_grant_read(state, c->token->user, &g);
	if (err)
		return err;
	con_pass_fill(&g, state, c->device, c->slot_s, &pass);
	int n = sp_pass_sign(&pass, cs->opt.secret, blob, sizeof(blob));
	if (n < 0)
		return n;
	snprintf(buf, cap, "\"pass\":\"%s\"",
		 sp_base64_encode(blob, (size_t)n, text, sizeof(text)));
	return 0;
}

// The body: what is the client's own, then exits as the view has them ready.
static int print_config(struct con_clients *cs, const struct con_client *c,
			uint64_t now_s, char **ret, size_t *ret_len)
{
	const struct sp_position *head = cs->opt.head(cs->opt.ctx);
	char pass[SP_BASE64_CAP(SP_PASS_BLOB_MAX) + 32];
	size_t len, n, cap = strlen(cs->fleet) + sizeof(pass) + 400;
	int err = print_pass(cs, c, pass, sizeof(pass));
	if (err)
		return err;
	for (unsigned i = 0; i < c->list.n; i++) {
		con_view_exit(cs->view, c->list.exit[i], &len);
		cap += len + 1;
	}
	char *p = malloc(cap);
	if (!p)
		return -ENOMEM;
	n = (size_t)snprintf(p, cap,
			     "{\"format\":%d,\"revision\":{\"epoch\":%u,\"sequence\":%llu"
			     "},\"issued\":%llu,\"server_time\":%llu,%s,%.*s,\"exits\":[",
			     SP_FLEET_FORMAT, head->epoch,
			     (unsigned long long)head->sequence,
			     (unsigned long long)now_s, (unsigned long long)now_s, pass,
			     (int)strlen(cs->fleet) - 2, cs->fleet + 1);
	for (unsigned i = 0; i < c->list.n; i++) {
		const char *json = con_view_exit(cs->view, c->list.exit[i], &len);
		p[n] = ',';
		n += i > 0;
		memcpy(p + n, json, len);
		n += len;
	}
	memcpy(p + n, "]}\n", 3);
	*ret = p;
	*ret_len = n + 3;
	return 0;
}

int con_client_config(struct con_clients *cs, struct con_client *c, uint64_t now_s,
		      char **ret, size_t *ret_len)
{
	char *body;
	size_t len;
	int err = print_config(cs, c, now_s, &body, &len);
	if (err)
		return err;
	char *text = malloc(len + SP_SIGNED_LINE_MAX);
	int n = text ? sp_signed_seal_text(SP_SIGNED_CLIENT_CONFIG, cs->opt.secret, body,
					   len, text, len + SP_SIGNED_LINE_MAX)
		     : -ENOMEM;
	free(body);
	if (n < 0) {
		free(text);
		return n;
	}
	*ret = text;
	*ret_len = (size_t)n;
	return 0;
}
