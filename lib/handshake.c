// What client and worker share; their sides are in handshake_client.c,
// handshake_worker.c.
#include "lib/handshake.h"

#include <assert.h>
#include <string.h>

#include <sodium.h>

#include "lib/handshake_priv.h"

#define PROLOGUE  "sallyport/1"
#define MAC_LABEL "sallyport mac1 v1"
#define PSK_LABEL "sallyport resume"

void sp_hs_keys_wipe(struct sp_hs_keys *keys)
{
	sodium_memzero(keys, sizeof(*keys));
}

void sp_hs_mac_key(const uint8_t *worker_public, uint8_t *ret)
{
	crypto_generichash_state st;

	crypto_generichash_init(&st, NULL, 0, 32);
	crypto_generichash_update(&st, (const uint8_t *)MAC_LABEL, sizeof(MAC_LABEL) - 1);
	crypto_generichash_update(&st, worker_public, 32);
	crypto_generichash_final(&st, ret, 32);
}

void sp_hs_mac(const uint8_t *key, const uint8_t *after, size_t len, uint8_t *ret)
{
	crypto_generichash(ret, SP_HS_MAC_BYTES, after, len, key, 32);
}

void sp_hs_flight_readdress(const uint8_t *worker_public, uint8_t *flight, size_t len)
{
	uint8_t key[32];

	assert(len > SP_HS_MAC_BYTES);
	sp_hs_mac_key(worker_public, key);
	sp_hs_mac(key, flight + SP_HS_MAC_BYTES, len - SP_HS_MAC_BYTES, flight);
}

// Noise prologue to `buf` (SP_HS_PROLOGUE_MAX). `ticket` NULL: first contact. Returns its
// length.
size_t sp_hs_prologue(uint8_t *buf, uint8_t ver_min, uint8_t ver_max,
		      enum sp_hs_kind kind, const uint8_t *ticket, size_t ticket_len)
{
	struct sp_writer w;

	sp_writer_init(&w, buf, SP_HS_PROLOGUE_MAX);
	sp_put_bytes(&w, PROLOGUE, sizeof(PROLOGUE) - 1);
	sp_put_u8(&w, ver_min);
	sp_put_u8(&w, ver_max);
	sp_put_u8(&w, (uint8_t)kind);
	if (ticket) {
		sp_put_u16(&w, (uint16_t)ticket_len);
		sp_put_bytes(&w, ticket, ticket_len);
	}
	assert(!w.err);
	return sp_writer_len(&w);
}

void sp_hs_pad(struct sp_writer *w, uint32_t most)
{
	size_t n = randombytes_uniform(most), room = sp_writer_room(w);

	for (n = n < room ? n : room; n; n--)
		sp_put_u8(w, 0);
}

void sp_hs_take_keys(const struct sp_noise *ns, bool client, enum sp_suite suite,
		     uint8_t version, struct sp_hs_keys *ret)
{
	uint8_t label[sizeof(PSK_LABEL)]; // the index where the NUL was

	*ret = (struct sp_hs_keys){.suite = suite, .version = version};
	if (client)
		sp_noise_split(ns, ret->tx_key, ret->rx_key);
	else
		sp_noise_split(ns, ret->rx_key, ret->tx_key);
	memcpy(label, PSK_LABEL, sizeof(label));
	for (unsigned i = 0; i < SP_HS_TICKETS; i++) {
		label[sizeof(label) - 1] = (uint8_t)i;
		sp_noise_export(ns, label, sizeof(label), ret->ticket_psk[i]);
	}
}
