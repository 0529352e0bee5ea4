// Passes: a signed statement of who a device is and what it may do (PROTOCOL.md section
// 8). Pure: no I/O, the clock is a parameter. Not here: revocation, accounting,
// enforcement.
#ifndef SP_PASS_H
#define SP_PASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "lib/reason.h"
#include "lib/signed.h"

#define SP_PASS_SERIAL_BYTES 16
#define SP_PASS_DEVICE_BYTES 32
#define SP_PASS_USER_MAX     64 // bytes of text, without the NUL
#define SP_PASS_WORD_MAX     32 // tier and each group
#define SP_PASS_GROUPS_MAX   16
#define SP_PASS_BODY_MAX     710
#define SP_PASS_BLOB_MAX     (SP_PASS_BODY_MAX + SP_SIGNED_OVERHEAD)
#define SP_PASS_SKEW_S       90 // how far clocks may be apart

// Texts are NUL-terminated, without control characters; user and tier are not empty.
struct sp_pass {
	uint8_t serial[SP_PASS_SERIAL_BYTES];
	uint8_t device[SP_PASS_DEVICE_BYTES]; // the device's X25519 public key
	uint64_t not_before_s;                // Unix time
	uint64_t expires_s;                   // Unix time, first second it does not hold
	char user[SP_PASS_USER_MAX + 1];
	char tier[SP_PASS_WORD_MAX + 1];
	uint16_t max_sessions;
	uint32_t max_streams; // live, per session
	uint32_t max_flows;   // live datagram flows, per session
	uint64_t rate_bps;    // bytes a second, 0 unlimited
	unsigned groups_n;
	char groups[SP_PASS_GROUPS_MAX][SP_PASS_WORD_MAX + 1];
};

// Body of the pass to `out`. Length; SP_E_LIMIT: over `cap`; SP_E_MALFORMED: a text or
// count that no pass may have, or expires_s <= not_before_s.
int sp_pass_encode(const struct sp_pass *pass, uint8_t *out, size_t cap) SP_MUST_CHECK;
// 0 and *ret; SP_E_VERSION: a version other than 1; SP_E_TRUNCATED, SP_E_MALFORMED.
int sp_pass_parse(const void *body, size_t len, struct sp_pass *ret) SP_MUST_CHECK;
// Encoded and signed with the 64-byte `secret`. Length of the blob; errors of _encode and
// sp_signed_seal.
int sp_pass_sign(const struct sp_pass *pass, const uint8_t *secret, uint8_t *out,
		 size_t cap) SP_MUST_CHECK;
// Verifies the signature, then parses; says nothing of time. 0 and *ret; errors of
// sp_signed_open and _parse.
int sp_pass_open(const struct sp_signed_keys *keys, const void *blob, size_t len,
		 struct sp_pass *ret) SP_MUST_CHECK;
// SP_REASON_NONE, _PASS_EARLY (now + skew < not_before) or _PASS_EXPIRED (now - skew >=
// expires). `now_s` is Unix time.
enum sp_reason sp_pass_judge_time(const struct sp_pass *pass, uint64_t now_s,
				  uint32_t skew_s);
// True if the pass names `group`.
bool sp_pass_has_group(const struct sp_pass *pass, const char *group);

#endif
