// Records: `len u16 | ciphertext` over an ordered carrier, one key and one counter per
// direction (PROTOCOL.md section 5). Pure: no I/O, the clock is a parameter; malloc only
// in _init. Not here: what the plaintext means (frames), when bytes are sent
// (lib/link.h).
//
// After the first error a direction is dead: every later call fails too, the carrier
// ends.
#ifndef SP_RECORD_H
#define SP_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "lib/aead.h"
#include "lib/err.h"

#define SP_RECORD_MAX         16384 // a record with its length
#define SP_RECORD_OVERHEAD    18    // length and tag
#define SP_RECORD_PLAIN_MAX   16366 // plaintext of one record
#define SP_RECORD_PLAIN_MIN   1
#define SP_RECORD_REKEY_BYTES (UINT64_C(1) << 30) // plaintext under one key
#define SP_RECORD_REKEY_MS    120000              // age of a key that is in use
#define SP_RECORD_STOP        (UINT64_MAX - 1)    // this record number is never used

struct sp_record_tx {
	struct sp_aead aead;
	uint64_t n;            // number of the next record = records sealed
	uint64_t bytes;        // plaintext sealed, all keys
	uint64_t key_bytes;    // plaintext sealed under the present key
	uint64_t key_since_ms; // when the present key began
	uint32_t rekeys;
	bool dead;
};

// `key`: 32 bytes, copied. `now_ms`: any monotonic clock. 0; SP_E_CRYPTO; -EINVAL.
int sp_record_tx_init(struct sp_record_tx *tx, enum sp_suite suite, const uint8_t *key,
		      uint64_t now_ms) SP_MUST_CHECK;
void sp_record_tx_done(struct sp_record_tx *tx); // wipes; a zeroed struct is fine
// Seals the segments (sum 1..SP_RECORD_PLAIN_MAX) as one record at `out`. Segments must
// not overlap `out`. Returns the record's size, sum + 18; SP_E_LIMIT: sum out of range or
// over `cap`, nothing happened; SP_E_CRYPTO; SP_E_CLOSED: record numbers are used up, or
// dead.
int sp_record_tx_seal(struct sp_record_tx *tx, const struct iovec *iov, int iovcnt,
		      uint8_t *out, size_t cap) SP_MUST_CHECK;
// True when a REKEY frame should end the next record: after 1 GiB or 120 s under one key.
bool sp_record_tx_rekey_due(const struct sp_record_tx *tx, uint64_t now_ms);
// Call after sealing the record whose last frame is REKEY. 0; SP_E_CRYPTO: dead.
int sp_record_tx_rekey(struct sp_record_tx *tx, uint64_t now_ms) SP_MUST_CHECK;

struct sp_record_rx {
	struct sp_aead aead;
	uint64_t n;     // number of the next record = records opened
	uint64_t bytes; // plaintext opened, all keys
	uint32_t rekeys;
	bool dead;
};

int sp_record_rx_init(struct sp_record_rx *rx, enum sp_suite suite,
		      const uint8_t *key) SP_MUST_CHECK;
void sp_record_rx_done(struct sp_record_rx *rx);
// Size (19..SP_RECORD_MAX, with its length) of the record that begins `buf`, if all of it
// is in the first `len` bytes; SP_E_AGAIN: not yet; SP_E_MALFORMED: an impossible length.
int sp_record_peek(const uint8_t *buf, size_t len) SP_MUST_CHECK;
// Opens the whole record of `size` bytes (from sp_record_peek) in place. 0, *ret_plain
// points into `record`, *ret_len 1..SP_RECORD_PLAIN_MAX; SP_E_AUTH, SP_E_MALFORMED,
// SP_E_CRYPTO, SP_E_CLOSED: the carrier must end.
int sp_record_rx_open(struct sp_record_rx *rx, uint8_t *record, size_t size,
		      uint8_t **ret_plain, size_t *ret_len) SP_MUST_CHECK;
// Call after opening a record whose last frame is REKEY. 0; SP_E_CRYPTO: dead.
int sp_record_rx_rekey(struct sp_record_rx *rx) SP_MUST_CHECK;

#endif
