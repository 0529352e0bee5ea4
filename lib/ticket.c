#include "lib/ticket.h"

#include <assert.h>

#include <sodium.h>

#include "lib/wire.h"

#define NONCE crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG   crypto_aead_xchacha20poly1305_ietf_ABYTES
#define HINT  16 // plaintext: home id, time of issue
#define BODY  96 // plaintext

_Static_assert(SP_TICKET_HINT_BYTES == NONCE + HINT + TAG, "layout of the hint");
_Static_assert(SP_TICKET_BYTES == SP_TICKET_HINT_BYTES + NONCE + BODY + TAG, "layout");
_Static_assert(SP_TICKET_KEY_BYTES == crypto_aead_xchacha20poly1305_ietf_KEYBYTES, "key");

static void seal(const uint8_t *key, const uint8_t *plain, size_t len, const uint8_t *ad,
		 size_t ad_len, uint8_t *out)
{
	randombytes_buf(out, NONCE);
	crypto_aead_xchacha20poly1305_ietf_encrypt(out + NONCE, NULL, plain, len, ad,
						   ad_len, NULL, out, key);
}

// `len`: of the plaintext.
static int open_sealed(const uint8_t *key, const uint8_t *in, size_t len,
		       const uint8_t *ad, size_t ad_len, uint8_t *plain)
{
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(plain, NULL, NULL, in + NONCE,
						       len + TAG, ad, ad_len, in, key))
		return SP_E_AUTH;
	return 0;
}

void sp_ticket_seal(const uint8_t *route_key, const uint8_t *boot_key, uint64_t home_id,
		    const struct sp_ticket_body *body, uint8_t *out)
{
	uint8_t hint[HINT], plain[BODY];
	struct sp_writer w;

	sp_writer_init(&w, hint, sizeof(hint));
	sp_put_u64(&w, home_id);
	sp_put_u64(&w, body->issued_s);
	assert(!w.err && sp_writer_len(&w) == HINT);
	seal(route_key, hint, HINT, NULL, 0, out);

	sp_writer_init(&w, plain, sizeof(plain));
	sp_put_bytes(&w, body->session, sizeof(body->session));
	sp_put_bytes(&w, body->psk, sizeof(body->psk));
	sp_put_bytes(&w, body->device, sizeof(body->device));
	sp_put_u64(&w, body->pass_expires_s);
	sp_put_u64(&w, body->issued_s);
	assert(!w.err && sp_writer_len(&w) == BODY);
	seal(boot_key, plain, BODY, out, SP_TICKET_HINT_BYTES,
	     out + SP_TICKET_HINT_BYTES);
	sodium_memzero(plain, sizeof(plain));
}

int sp_ticket_open_hint(const uint8_t *route_key, const uint8_t *ticket, size_t len,
			struct sp_ticket_hint *ret)
{
	uint8_t hint[HINT];
	struct sp_reader r;

	if (len != SP_TICKET_BYTES)
		return SP_E_MALFORMED;
	if (open_sealed(route_key, ticket, HINT, NULL, 0, hint))
		return SP_E_AUTH;
	sp_reader_init(&r, hint, sizeof(hint));
	ret->home_id = sp_get_u64(&r);
	ret->issued_s = sp_get_u64(&r);
	return 0;
}

int sp_ticket_open_body(const uint8_t *boot_key, const uint8_t *ticket, size_t len,
			struct sp_ticket_body *ret)
{
	uint8_t plain[BODY];
	struct sp_reader r;

	if (len != SP_TICKET_BYTES)
		return SP_E_MALFORMED;
	if (open_sealed(boot_key, ticket + SP_TICKET_HINT_BYTES, BODY, ticket,
			SP_TICKET_HINT_BYTES, plain))
		return SP_E_AUTH;
	sp_reader_init(&r, plain, sizeof(plain));
	sp_get_copy(&r, ret->session, sizeof(ret->session));
	sp_get_copy(&r, ret->psk, sizeof(ret->psk));
	sp_get_copy(&r, ret->device, sizeof(ret->device));
	ret->pass_expires_s = sp_get_u64(&r);
	ret->issued_s = sp_get_u64(&r);
	sodium_memzero(plain, sizeof(plain));
	return 0;
}
