// AEAD of the record layer on libcrypto: AES-256-GCM and ChaCha20-Poly1305, one context
// per direction with the key schedule done once. Pure: no I/O, no clock; malloc only in
// _init. Not here: record framing and nonce counting (lib/record.h), Noise (lib/noise.h,
// libsodium).
//
// `n` is the record number; the 12-byte nonce is made of it as PROTOCOL.md section 5
// says.
#ifndef SP_AEAD_H
#define SP_AEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "lib/err.h"

#define SP_AEAD_KEY_BYTES 32
#define SP_AEAD_TAG_BYTES 16

// Values are the bits of `suites` on the wire.
enum sp_suite {
	SP_SUITE_AES256GCM = 1,
	SP_SUITE_CHACHA20POLY1305 = 2,
};

// Mask of the suites this machine should offer: ChaCha20-Poly1305 always, AES-256-GCM
// only where the CPU has AES and carry-less multiplication (AES-NI + PCLMULQDQ; ARMv8 AES
// + PMULL).
unsigned sp_aead_suites(void);
// The suite for two masks: AES-256-GCM if both have it, else ChaCha20-Poly1305; 0 if that
// is not in common either.
enum sp_suite sp_aead_pick(unsigned mine, unsigned theirs);
// "aes-256-gcm", "chacha20-poly1305"; never NULL.
const char *sp_aead_suite_name(enum sp_suite suite);

struct sp_aead {
	void *evp; // EVP_CIPHER_CTX; NULL after _done
	enum sp_suite suite;
	bool sealing;
};

// `key`: 32 bytes, copied. 0; SP_E_CRYPTO; -EINVAL: no such suite. On failure *a holds
// nothing.
int sp_aead_init(struct sp_aead *a, enum sp_suite suite, bool sealing,
		 const uint8_t *key) SP_MUST_CHECK;
// Wipes and frees. Works on a zeroed struct and twice.
void sp_aead_done(struct sp_aead *a);

// Encrypts the concatenation of the segments to `out`: their sum + 16 bytes. A segment
// may lie in `out` only at exactly the place its ciphertext goes to. 0; SP_E_CRYPTO.
int sp_aead_seal(struct sp_aead *a, uint64_t n, const void *ad, size_t ad_len,
		 const struct iovec *iov, int iovcnt, uint8_t *out) SP_MUST_CHECK;
// Decrypts `len` bytes (ciphertext and tag, len >= 16) in place; the plaintext is the
// first len - 16. 0; SP_E_AUTH: the buffer then holds nothing of use; SP_E_CRYPTO.
int sp_aead_open(struct sp_aead *a, uint64_t n, const void *ad, size_t ad_len,
		 uint8_t *buf, size_t len) SP_MUST_CHECK;
// Replaces the key by the first 32 bytes of AEAD(k, n = 2^64-1, no ad, 32 zero bytes)
// (Noise revision 34, section 4.2 REKEY). 0; SP_E_CRYPTO: the context is unusable then.
int sp_aead_rekey(struct sp_aead *a) SP_MUST_CHECK;

#endif
