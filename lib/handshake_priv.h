// What the two ends of the first flight share; for lib/handshake*.c alone.
#ifndef SP_HANDSHAKE_PRIV_H
#define SP_HANDSHAKE_PRIV_H

#include "lib/handshake.h"
#include "lib/wire.h"

#define SP_HS_MAC_BYTES    16
#define SP_HS_HEAD_BYTES   (SP_HS_MAC_BYTES + 2)  // mac1, len
#define SP_HS_OUTER_BYTES  (SP_HS_HEAD_BYTES + 3) // and ver_min, ver_max, kind
#define SP_HS_PROLOGUE_MAX (11 + 3 + 2 + SP_HS_TICKET_MAX)
#define SP_HS_FLIGHT_PAD   768 // paddings are below these, uniformly
#define SP_HS_ANSWER_PAD   512
#define SP_HS_TRUNK_PAD    240 // in place of a pass, so that a trunk's flight is as long

enum sp_hs_status {
	SP_HS_STATUS_ANSWER = 0,
	SP_HS_STATUS_TICKET_GONE = 1,
	SP_HS_STATUS_ENTRY = 2, // of an entry that does not reach the home
};

// The key of mac1 for a worker's 32-byte public key, to `ret` (32 bytes).
void sp_hs_mac_key(const uint8_t *worker_public, uint8_t *ret);
// mac1 over the `len` bytes after it, to `ret` (SP_HS_MAC_BYTES).
void sp_hs_mac(const uint8_t *key, const uint8_t *after, size_t len, uint8_t *ret);
// The Noise prologue to `buf` (SP_HS_PROLOGUE_MAX). `ticket` NULL: first contact. Its
// length.
size_t sp_hs_prologue(uint8_t *buf, uint8_t ver_min, uint8_t ver_max,
		      enum sp_hs_kind kind, const uint8_t *ticket, size_t ticket_len);
// Adds up to `most` - 1 zero bytes, uniformly, as far as there is room.
void sp_hs_pad(struct sp_writer *w, uint32_t most);
// What both ends have once Noise is through; the chaining key is not needed any more.
void sp_hs_take_keys(const struct sp_noise *ns, bool client, enum sp_suite suite,
		     uint8_t version, struct sp_hs_keys *ret);

#endif
