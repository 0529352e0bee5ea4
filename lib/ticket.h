// Tickets: what a client shows to resume a session without a pass or a look-up. A route
// hint sealed under the fleet's route key, so that any entry finds the home, and a body
// sealed under the home's boot key (PROTOCOL.md section 8). XChaCha20-Poly1305, random
// nonces. Pure: no I/O, no clock. Not here: lifetime policy, single use (the client's
// duty).
#ifndef SP_TICKET_H
#define SP_TICKET_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define SP_TICKET_KEY_BYTES  32
#define SP_TICKET_HINT_BYTES 56  // nonce, home id, time of issue, tag
#define SP_TICKET_BYTES      192 // whole ticket

struct sp_ticket_hint {
	uint64_t home_id;
	uint64_t issued_s; // Unix time
};
struct sp_ticket_body {
	uint8_t session[16];
	uint8_t psk[32];
	uint8_t device[32]; // the device's public key
	uint64_t pass_expires_s;
	uint64_t issued_s;
};

// Seals to `out`, SP_TICKET_BYTES long. body->issued_s goes into the hint too. Keys: 32
// bytes.
void sp_ticket_seal(const uint8_t *route_key, const uint8_t *boot_key, uint64_t home_id,
		    const struct sp_ticket_body *body, uint8_t *out);
// 0 and *ret; SP_E_MALFORMED: not the size of a ticket; SP_E_AUTH: not of this fleet.
int sp_ticket_open_hint(const uint8_t *route_key, const uint8_t *ticket, size_t len,
			struct sp_ticket_hint *ret) SP_MUST_CHECK;
// 0 and *ret (wipe it after use); SP_E_MALFORMED; SP_E_AUTH: not made under this boot
// key.
int sp_ticket_open_body(const uint8_t *boot_key, const uint8_t *ticket, size_t len,
			struct sp_ticket_body *ret) SP_MUST_CHECK;

#endif
