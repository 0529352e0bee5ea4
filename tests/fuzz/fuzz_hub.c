// Any message from a peer, or from a stranger if the first byte is odd: the peer keeps
// its name and key, and what is kept of its texts is printable.
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "controller/hub_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *no_revision(void *ctx, uint64_t sequence, size_t *ret_len)
{
	(void)ctx;
	*ret_len = 4;
	return sequence % 2 ? "text" : NULL;
}

static int snapshot(void *ctx, const char **ret, size_t *ret_len)
{
	(void)ctx;
	*ret = "snapshot";
	*ret_len = 8;
	return 0;
}

static void call(void *ctx, const struct con_hub_call *c,
		 const Sallyport__Fleet__ToController *m)
{
	(void)ctx;
	if (strcmp(c->name, "worker:a/0") != 0 || c->call != m->call)
		abort();
}

static void enrol(void *ctx, const struct con_hub_call *c, const char *address,
		  const Sallyport__Fleet__Enrol *m)
{
	(void)ctx;
	if (*c->name || strcmp(address, "::1") != 0 || !m->token || !m->node)
		abort();
}

static struct con_hub *make(struct sp_loop **ret_loop)
{
	static const struct con_hub_ops ops = {.revision = no_revision,
					       .snapshot = snapshot,
					       .call = call,
					       .enrol = enrol};
	struct sp_bus_keys keys = {{0}, {0}};
	uint8_t route_key[32] = {0}, state[SP_STATE_HASH_BYTES] = {0}, key[32] = {1};
	struct sp_position head = {1, 9, {0}};
	struct con_hub *h;
	char why[256];
	if (sodium_init() < 0 || sp_loop_new(ret_loop))
		abort();
	randombytes_buf(keys.secret_key, 32);
	crypto_scalarmult_base(keys.public_key, keys.secret_key);
	struct con_hub_options o = {.loop = *ret_loop,
				    .keys = &keys,
				    .router = "tcp://127.0.0.1:*",
				    .publisher = "tcp://127.0.0.1:*",
				    .route_key = route_key,
				    .ops = &ops};
	if (con_hub_new(&o, &h, why, sizeof(why)) ||
	    con_hub_allow(h, "worker:a/0", key, key))
		abort();
	con_hub_set_head(h, &head, state);
	return h;
}

static void must_be_printable(const char *s)
{
	for (; *s; s++)
		if (!isprint((unsigned char)*s))
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct con_hub *h;
	static struct sp_loop *loop;
	uint8_t key[32] = {1}, route[5] = {0, 1, 2, 3, 4};
	if (!h)
		h = make(&loop);
	if (size == 0)
		return 0;
	const struct sp_bus_peer from = {.domain =
						 *data % 2 ? SP_BUS_ENROL : SP_BUS_FLEET,
					 .key = key,
					 .name = "",
					 .address = "::1",
					 .route = route,
					 .route_len = sizeof(route)};
	struct hub_peer *p = h->all[0];
	p->tokens = CON_HUB_BURST;
	p->snapshot_us = 0;
	p->welcome = true; // whatever came before, as if it had said hello
	p->pub.boot = 4;
	p->route_len = sizeof(route);
	memcpy(p->route, route, sizeof(route));
	hub_on_message(h, &from, data + 1, size - 1);
	hub_fetch_serve(h);
	if (h->n != 1 || strcmp(p->name, "worker:a/0") != 0 || p->key[0] != 1 ||
	    h->n_fetches > 1)
		abort();
	must_be_printable(p->pub.program);
	must_be_printable(p->pub.bound);
	must_be_printable(p->pub.reason);
	return 0;
}
