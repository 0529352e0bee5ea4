#include "lib/noise.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include <sodium.h>

enum token { END, E, S, EE, ES, SE, SS, PSK };

#define MESSAGES 2

struct pattern {
	const char *name;
	bool knows_responder; // pre-message: <- s
	bool has_psk;
	uint8_t tokens[MESSAGES][5];
};

static const struct pattern patterns[] = {
	[SP_NOISE_IK] = {"Noise_IK_25519_ChaChaPoly_SHA256",
			 true,
			 false,
			 {{E, ES, S, SS, END}, {E, EE, SE, END}}},
	[SP_NOISE_NNPSK0] = {"Noise_NNpsk0_25519_ChaChaPoly_SHA256",
			     false,
			     true,
			     {{PSK, E, END}, {E, EE, END}}},
};

// ---- symmetric state (section 5.2) ----

static void mix_hash(struct sp_noise *ns, const void *data, size_t len)
{
	crypto_hash_sha256_state st;

	crypto_hash_sha256_init(&st);
	crypto_hash_sha256_update(&st, ns->h, sizeof(ns->h));
	crypto_hash_sha256_update(&st, data, len);
	crypto_hash_sha256_final(&st, ns->h);
}

// HKDF of section 4.3 with three outputs; the third may be NULL.
static void hkdf(const uint8_t *ck, const uint8_t *ikm, size_t len, uint8_t *out1,
		 uint8_t *out2, uint8_t *out3)
{
	uint8_t temp[32], block[33];

	crypto_auth_hmacsha256(temp, ikm, len, ck);
	block[0] = 1;
	crypto_auth_hmacsha256(out1, block, 1, temp);
	memcpy(block, out1, 32);
	block[32] = 2;
	crypto_auth_hmacsha256(out2, block, 33, temp);
	if (out3) {
		memcpy(block, out2, 32);
		block[32] = 3;
		crypto_auth_hmacsha256(out3, block, 33, temp);
	}
	sodium_memzero(temp, sizeof(temp));
	sodium_memzero(block, sizeof(block));
}

static void mix_key(struct sp_noise *ns, const uint8_t *ikm)
{
	uint8_t ck[32];

	hkdf(ns->ck, ikm, 32, ck, ns->k, NULL);
	memcpy(ns->ck, ck, sizeof(ck));
	sodium_memzero(ck, sizeof(ck));
	ns->n = 0;
	ns->has_k = true;
}

static void mix_key_and_hash(struct sp_noise *ns, const uint8_t *ikm)
{
	uint8_t ck[32], temp[32];

	hkdf(ns->ck, ikm, 32, ck, temp, ns->k);
	memcpy(ns->ck, ck, sizeof(ck));
	mix_hash(ns, temp, sizeof(temp));
	sodium_memzero(ck, sizeof(ck));
	sodium_memzero(temp, sizeof(temp));
	ns->n = 0;
	ns->has_k = true;
}

static void make_nonce(uint64_t n, uint8_t nonce[12])
{
	memset(nonce, 0, 12);
	for (unsigned i = 0; i < 8; i++)
		nonce[4 + i] = (uint8_t)(n >> (8 * i));
}

// Returns the bytes written: `len`, and a tag if there is a key.
static size_t encrypt_and_hash(struct sp_noise *ns, const uint8_t *in, size_t len,
			       uint8_t *out)
{
	unsigned long long out_len = len;
	uint8_t nonce[12];

	if (ns->has_k) {
		make_nonce(ns->n++, nonce);
		crypto_aead_chacha20poly1305_ietf_encrypt(
			out, &out_len, in, len, ns->h, sizeof(ns->h), NULL, nonce, ns->k);
	} else if (len) {
		memcpy(out, in, len);
	}
	mix_hash(ns, out, out_len);
	return out_len;
}

// `len` has the tag in it if there is a key.
static int decrypt_and_hash(struct sp_noise *ns, const uint8_t *in, size_t len,
			    uint8_t *out)
{
	unsigned long long out_len;
	uint8_t nonce[12];

	if (ns->has_k) {
		make_nonce(ns->n++, nonce);
		if (crypto_aead_chacha20poly1305_ietf_decrypt(out, &out_len, NULL, in,
							      len, ns->h, sizeof(ns->h),
							      nonce, ns->k))
			return SP_E_AUTH;
	} else if (len) {
		memcpy(out, in, len);
	}
	mix_hash(ns, in, len);
	return 0;
}

static int mix_dh(struct sp_noise *ns, const uint8_t *secret, const uint8_t *public_key)
{
	uint8_t shared[32];
	int err = SP_E_CRYPTO;

	if (!crypto_scalarmult(shared, secret, public_key) &&
	    !sodium_is_zero(shared, sizeof(shared))) {
		mix_key(ns, shared);
		err = 0;
	}
	sodium_memzero(shared, sizeof(shared));
	return err;
}

// ---- handshake state (section 5.3) ----

int sp_noise_init(struct sp_noise *ns, enum sp_noise_pattern pattern,
		  enum sp_noise_role role, const void *prologue, size_t prologue_len,
		  const struct sp_noise_keys *keys)
{
	const struct pattern *p = &patterns[pattern];
	bool initiator = role == SP_NOISE_INITIATOR;
	size_t name_len = strlen(p->name);

	if ((p->knows_responder && (!keys->static_secret || !keys->static_public)) ||
	    (p->knows_responder && initiator && !keys->remote_static) ||
	    (p->has_psk && !keys->psk))
		return -EINVAL;
	memset(ns, 0, sizeof(*ns));
	ns->pattern = (uint8_t)pattern;
	ns->role = (uint8_t)role;
	if (name_len <= sizeof(ns->h))
		memcpy(ns->h, p->name, name_len);
	else
		crypto_hash_sha256(ns->h, (const uint8_t *)p->name, name_len);
	memcpy(ns->ck, ns->h, sizeof(ns->ck));
	mix_hash(ns, prologue, prologue_len);
	if (p->has_psk)
		memcpy(ns->psk, keys->psk, sizeof(ns->psk));
	if (p->knows_responder) {
		memcpy(ns->s_secret, keys->static_secret, sizeof(ns->s_secret));
		memcpy(ns->s_public, keys->static_public, sizeof(ns->s_public));
		if (initiator)
			memcpy(ns->rs, keys->remote_static, sizeof(ns->rs));
		mix_hash(ns, initiator ? ns->rs : ns->s_public, 32);
	}
	return 0;
}

void sp_noise_done(struct sp_noise *ns)
{
	sodium_memzero(ns, sizeof(*ns));
	ns->failed = true;
}

void sp_noise_set_ephemeral(struct sp_noise *ns, const uint8_t *secret)
{
	memcpy(ns->e_secret, secret, sizeof(ns->e_secret));
	ns->fixed_e = true;
}

size_t sp_noise_overhead(const struct sp_noise *ns)
{
	bool has_k = ns->has_k;
	size_t sum = 0;

	if (ns->message >= MESSAGES)
		return 0;
	for (const uint8_t *t = patterns[ns->pattern].tokens[ns->message]; *t != END;
	     t++) {
		if (*t == E)
			sum += 32;
		else if (*t == S)
			sum += 32 + (has_k ? SP_NOISE_TAG_BYTES : 0);
		else
			has_k = true;
	}
	// In a psk pattern E mixes a key too, but there PSK came before.
	return sum + (has_k ? SP_NOISE_TAG_BYTES : 0);
}

// The tokens that only mix keys: the same for writer and reader.
static int mix_token(struct sp_noise *ns, enum token token)
{
	bool initiator = ns->role == SP_NOISE_INITIATOR;

	switch (token) {
	case EE:
		return mix_dh(ns, ns->e_secret, ns->re);
	case SS:
		return mix_dh(ns, ns->s_secret, ns->rs);
	case ES:
		return initiator ? mix_dh(ns, ns->e_secret, ns->rs)
				 : mix_dh(ns, ns->s_secret, ns->re);
	case SE:
		return initiator ? mix_dh(ns, ns->s_secret, ns->re)
				 : mix_dh(ns, ns->e_secret, ns->rs);
	case PSK:
		mix_key_and_hash(ns, ns->psk);
		return 0;
	case E:
	case S:
	case END:
		break;
	}
	assert(false);
	return SP_E_CRYPTO;
}

static void mix_ephemeral(struct sp_noise *ns, const uint8_t *public_key)
{
	mix_hash(ns, public_key, 32);
	if (patterns[ns->pattern].has_psk)
		mix_key(ns, public_key);
}

static int make_ephemeral(struct sp_noise *ns)
{
	if (!ns->fixed_e)
		randombytes_buf(ns->e_secret, sizeof(ns->e_secret));
	return crypto_scalarmult_base(ns->e_public, ns->e_secret) ? SP_E_CRYPTO : 0;
}

static bool may_go_on(const struct sp_noise *ns, bool writing)
{
	bool initiators_turn = ns->message % 2 == 0;
	bool mine = initiators_turn == (ns->role == SP_NOISE_INITIATOR);

	return !ns->failed && ns->message < MESSAGES && mine == writing;
}

int sp_noise_write(struct sp_noise *ns, const void *payload, size_t len, uint8_t *out,
		   size_t cap)
{
	size_t overhead = sp_noise_overhead(ns);
	uint8_t *p = out;
	int err;

	if (!may_go_on(ns, true))
		return SP_E_PROTOCOL;
	if (len > SP_NOISE_MESSAGE_MAX - overhead || len + overhead > cap)
		return SP_E_LIMIT;
	for (const uint8_t *t = patterns[ns->pattern].tokens[ns->message]; *t != END;
	     t++) {
		err = 0;
		if (*t == E) {
			err = make_ephemeral(ns);
			memcpy(p, ns->e_public, 32);
			mix_ephemeral(ns, p);
			p += 32;
		} else if (*t == S) {
			p += encrypt_and_hash(ns, ns->s_public, 32, p);
		} else {
			err = mix_token(ns, *t);
		}
		if (err) {
			ns->failed = true;
			return err;
		}
	}
	p += encrypt_and_hash(ns, payload, len, p);
	ns->message++;
	return (int)(p - out);
}

static int read_tokens(struct sp_noise *ns, const uint8_t **msg)
{
	const uint8_t *p = *msg;
	size_t size;
	int err;

	for (const uint8_t *t = patterns[ns->pattern].tokens[ns->message]; *t != END;
	     t++) {
		err = 0;
		if (*t == E) {
			memcpy(ns->re, p, 32);
			mix_ephemeral(ns, ns->re);
			p += 32;
		} else if (*t == S) {
			size = 32 + (ns->has_k ? SP_NOISE_TAG_BYTES : 0);
			err = decrypt_and_hash(ns, p, size, ns->rs);
			p += size;
		} else {
			err = mix_token(ns, *t);
		}
		if (err)
			return err;
	}
	*msg = p;
	return 0;
}

int sp_noise_read(struct sp_noise *ns, const uint8_t *msg, size_t len, uint8_t *out,
		  size_t cap)
{
	size_t overhead = sp_noise_overhead(ns);
	const uint8_t *p = msg;
	int err;

	if (!may_go_on(ns, false))
		return SP_E_PROTOCOL;
	if (len < overhead)
		err = SP_E_TRUNCATED;
	else if (len > SP_NOISE_MESSAGE_MAX || len - overhead > cap)
		err = SP_E_LIMIT;
	else
		err = read_tokens(ns, &p);
	if (!err)
		err = decrypt_and_hash(ns, p, (size_t)(msg + len - p), out);
	if (err) {
		ns->failed = true;
		return err;
	}
	ns->message++;
	return (int)(len - overhead);
}

bool sp_noise_is_complete(const struct sp_noise *ns)
{
	return !ns->failed && ns->message == MESSAGES;
}

const uint8_t *sp_noise_remote_static(const struct sp_noise *ns)
{
	return ns->rs;
}

const uint8_t *sp_noise_remote_ephemeral(const struct sp_noise *ns)
{
	return ns->re;
}

const uint8_t *sp_noise_hash(const struct sp_noise *ns)
{
	return ns->h;
}

void sp_noise_split(const struct sp_noise *ns, uint8_t *ret_k1, uint8_t *ret_k2)
{
	assert(sp_noise_is_complete(ns));
	hkdf(ns->ck, NULL, 0, ret_k1, ret_k2, NULL);
}

void sp_noise_export(const struct sp_noise *ns, const void *label, size_t len,
		     uint8_t *ret)
{
	assert(sp_noise_is_complete(ns));
	crypto_auth_hmacsha256(ret, label, len, ns->ck);
}
