// The Noise Protocol Framework (revision 34) with 25519, ChaChaPoly and SHA256: the
// patterns IK and NNpsk0, on libsodium. Pure but for the random ephemeral; no malloc, no
// I/O. Not here: our payloads and framing (lib/handshake.h), transport records
// (lib/record.h).
#ifndef SP_NOISE_H
#define SP_NOISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define SP_NOISE_KEY_BYTES   32
#define SP_NOISE_HASH_BYTES  32
#define SP_NOISE_TAG_BYTES   16
#define SP_NOISE_MESSAGE_MAX 65535

enum sp_noise_pattern { SP_NOISE_IK, SP_NOISE_NNPSK0 };
enum sp_noise_role { SP_NOISE_INITIATOR, SP_NOISE_RESPONDER };

// 32 bytes each; NULL where the pattern and role do not use it.
struct sp_noise_keys {
	const uint8_t *static_secret; // IK, both
	const uint8_t *static_public; // IK, both
	const uint8_t *remote_static; // IK, initiator
	const uint8_t *psk;           // NNpsk0, both
};

struct sp_noise {
	uint8_t ck[SP_NOISE_HASH_BYTES];
	uint8_t h[SP_NOISE_HASH_BYTES];
	uint8_t k[SP_NOISE_KEY_BYTES];
	uint8_t s_secret[SP_NOISE_KEY_BYTES], s_public[SP_NOISE_KEY_BYTES];
	uint8_t e_secret[SP_NOISE_KEY_BYTES], e_public[SP_NOISE_KEY_BYTES];
	uint8_t rs[SP_NOISE_KEY_BYTES], re[SP_NOISE_KEY_BYTES];
	uint8_t psk[SP_NOISE_KEY_BYTES];
	uint64_t n;
	uint8_t pattern, role, message; // message: how many are done, 0..2
	bool has_k, fixed_e, failed;
};

// Copies the keys. 0; -EINVAL: a key that pattern and role need is NULL.
int sp_noise_init(struct sp_noise *ns, enum sp_noise_pattern pattern,
		  enum sp_noise_role role, const void *prologue, size_t prologue_len,
		  const struct sp_noise_keys *keys) SP_MUST_CHECK;
void sp_noise_done(struct sp_noise *ns); // wipes everything
// For tests with published vectors only: use this 32-byte secret as the ephemeral.
void sp_noise_set_ephemeral(struct sp_noise *ns, const uint8_t *secret);

// Bytes that the next message has over its payload.
size_t sp_noise_overhead(const struct sp_noise *ns);
// Writes the next message with `payload`, which must not overlap `out`. Its length;
// SP_E_LIMIT: over `cap` or 65,535, nothing happened; SP_E_PROTOCOL: not this side's
// turn; SP_E_CRYPTO: the peer's key gives an all-zero shared secret.
int sp_noise_write(struct sp_noise *ns, const void *payload, size_t len, uint8_t *out,
		   size_t cap) SP_MUST_CHECK;
// Reads the next message and writes its payload to `out` (cap >= len - overhead), which
// must not overlap `msg`. The payload's length; SP_E_TRUNCATED; SP_E_LIMIT: `cap` too
// small; SP_E_AUTH: it does not decrypt; SP_E_CRYPTO: an all-zero shared secret;
// SP_E_PROTOCOL. After an error the state is dead.
int sp_noise_read(struct sp_noise *ns, const uint8_t *msg, size_t len, uint8_t *out,
		  size_t cap) SP_MUST_CHECK;

bool sp_noise_is_complete(const struct sp_noise *ns);
// The peer's static key, 32 bytes; meaningful for the responder of IK after the first
// read.
const uint8_t *sp_noise_remote_static(const struct sp_noise *ns);
const uint8_t *sp_noise_remote_ephemeral(const struct sp_noise *ns);
const uint8_t *sp_noise_hash(const struct sp_noise *ns); // h, 32 bytes
// Split(): k1 is the initiator's sending key, k2 the responder's; 32 bytes each. The
// handshake must be complete.
void sp_noise_split(const struct sp_noise *ns, uint8_t *ret_k1, uint8_t *ret_k2);
// HMAC-SHA256(ck, label): 32 bytes bound to the whole handshake. It must be complete.
void sp_noise_export(const struct sp_noise *ns, const void *label, size_t len,
		     uint8_t *ret);

#endif
