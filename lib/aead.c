#include "lib/aead.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include <openssl/evp.h>

#include <sodium.h>

#define NONCE_BYTES 12
#define REKEY_N     UINT64_MAX

static bool cpu_has_aes_gcm(void)
{
#if defined(__x86_64__) || defined(__i386__)
	return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
	unsigned long caps = getauxval(AT_HWCAP);

	return (caps & HWCAP_AES) && (caps & HWCAP_PMULL);
#else
	return false;
#endif
}

unsigned sp_aead_suites(void)
{
	unsigned mask = SP_SUITE_CHACHA20POLY1305;

	if (cpu_has_aes_gcm())
		mask |= SP_SUITE_AES256GCM;
	return mask;
}

enum sp_suite sp_aead_pick(unsigned mine, unsigned theirs)
{
	unsigned both = mine & theirs;

	if (both & SP_SUITE_AES256GCM)
		return SP_SUITE_AES256GCM;
	return (enum sp_suite)(both & SP_SUITE_CHACHA20POLY1305);
}

const char *sp_aead_suite_name(enum sp_suite suite)
{
	switch (suite) {
	case SP_SUITE_AES256GCM:
		return "aes-256-gcm";
	case SP_SUITE_CHACHA20POLY1305:
		return "chacha20-poly1305";
	}
	return "none";
}

int sp_aead_init(struct sp_aead *a, enum sp_suite suite, bool sealing, const uint8_t *key)
{
	const EVP_CIPHER *cipher;
	EVP_CIPHER_CTX *ctx;

	*a = (struct sp_aead){.suite = suite, .sealing = sealing};
	if (suite == SP_SUITE_AES256GCM)
		cipher = EVP_aes_256_gcm();
	else if (suite == SP_SUITE_CHACHA20POLY1305)
		cipher = EVP_chacha20_poly1305();
	else
		return -EINVAL;
	ctx = EVP_CIPHER_CTX_new();
	if (!ctx)
		return SP_E_CRYPTO;
	if (EVP_CipherInit_ex(ctx, cipher, NULL, key, NULL, sealing) != 1) {
		EVP_CIPHER_CTX_free(ctx);
		return SP_E_CRYPTO;
	}
	a->evp = ctx;
	return 0;
}

void sp_aead_done(struct sp_aead *a)
{
	EVP_CIPHER_CTX_free(a->evp);
	a->evp = NULL;
}

static void make_nonce(enum sp_suite suite, uint64_t n, uint8_t *ret)
{
	memset(ret, 0, NONCE_BYTES);
	for (unsigned i = 0; i < 8; i++) {
		unsigned at = suite == SP_SUITE_AES256GCM ? 7 - i : i;

		ret[4 + at] = (uint8_t)(n >> (8 * i));
	}
}

// Sets the nonce, keeping the key schedule, and feeds the additional data.
static bool begin(struct sp_aead *a, uint64_t n, const void *ad, size_t ad_len)
{
	uint8_t nonce[NONCE_BYTES];
	int len;

	if (!a->evp)
		return false;
	make_nonce(a->suite, n, nonce);
	if (EVP_CipherInit_ex(a->evp, NULL, NULL, NULL, nonce, a->sealing) != 1)
		return false;
	return !ad_len || EVP_CipherUpdate(a->evp, NULL, &len, ad, (int)ad_len) == 1;
}

// One segment is encrypted from where it lies. Several are first copied together:
// libcrypto 3.0 falls back to slow paths at segments that are no multiple of its batch
// (ChaCha20: 25 % at 12-byte headers between 4 KB segments), and the copy costs 4 % of
// AES-256-GCM.
static const uint8_t *join(const struct iovec *iov, int iovcnt, uint8_t *out,
			   size_t *ret_len)
{
	size_t at = 0;

	if (iovcnt == 1) {
		*ret_len = iov[0].iov_len;
		return iov[0].iov_base;
	}
	for (int i = 0; i < iovcnt; i++) {
		if (iov[i].iov_len && iov[i].iov_base != out + at)
			memcpy(out + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	*ret_len = at;
	return out;
}

int sp_aead_seal(struct sp_aead *a, uint64_t n, const void *ad, size_t ad_len,
		 const struct iovec *iov, int iovcnt, uint8_t *out)
{
	const uint8_t *in;
	size_t in_len;
	int len, rest;

	assert(a->sealing);
	in = join(iov, iovcnt, out, &in_len);
	if (!begin(a, n, ad, ad_len) ||
	    EVP_EncryptUpdate(a->evp, out, &len, in, (int)in_len) != 1 ||
	    EVP_EncryptFinal_ex(a->evp, out + len, &rest) != 1 ||
	    EVP_CIPHER_CTX_ctrl(a->evp, EVP_CTRL_AEAD_GET_TAG, SP_AEAD_TAG_BYTES,
				out + in_len) != 1)
		return SP_E_CRYPTO;
	return 0;
}

int sp_aead_open(struct sp_aead *a, uint64_t n, const void *ad, size_t ad_len,
		 uint8_t *buf, size_t len)
{
	size_t body = len - SP_AEAD_TAG_BYTES;
	int done, rest;

	assert(!a->sealing && len >= SP_AEAD_TAG_BYTES);
	if (!begin(a, n, ad, ad_len) ||
	    EVP_DecryptUpdate(a->evp, buf, &done, buf, (int)body) != 1 ||
	    EVP_CIPHER_CTX_ctrl(a->evp, EVP_CTRL_AEAD_SET_TAG, SP_AEAD_TAG_BYTES,
				buf + body) != 1) {
		sodium_memzero(buf, len);
		return SP_E_CRYPTO;
	}
	if (EVP_DecryptFinal_ex(a->evp, buf + done, &rest) != 1) {
		sodium_memzero(buf, len);
		return SP_E_AUTH;
	}
	return 0;
}

int sp_aead_rekey(struct sp_aead *a)
{
	uint8_t key[SP_AEAD_KEY_BYTES] = {0};
	int len, err = SP_E_CRYPTO;

	// Both suites are stream ciphers under their tag: what an opening context makes
	// of zeros is the same key stream a sealing one would give.
	if (begin(a, REKEY_N, NULL, 0) &&
	    EVP_CipherUpdate(a->evp, key, &len, key, sizeof(key)) == 1 &&
	    EVP_CipherInit_ex(a->evp, NULL, NULL, key, NULL, a->sealing) == 1)
		err = 0;
	sodium_memzero(key, sizeof(key));
	return err;
}
