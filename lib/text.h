// Bytes as text and back: base64 and hex, canonical forms only; and the nearest word to a
// mistyped one. Pure: no I/O, no clock, no malloc. Constant-time in the bytes
// (libsodium), so fit for keys.
#ifndef SP_TEXT_H
#define SP_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

// Characters of `n` bytes in base64 with padding, and with the final NUL.
#define SP_BASE64_LEN(n) (((n) + 2) / 3 * 4)
#define SP_BASE64_CAP(n) (SP_BASE64_LEN(n) + 1)

// RFC 4648 section 4, with padding, to `buf` of at least SP_BASE64_CAP(len). Returns buf.
char *sp_base64_encode(const void *bytes, size_t len, char *buf, size_t cap);
// All `text_len` characters, no white space, padding required, no stray bits in the last
// digit: what sp_base64_encode would write and nothing else. 0 and *ret_len <= cap;
// SP_E_MALFORMED; SP_E_LIMIT: longer than cap.
int sp_base64_decode(const char *text, size_t text_len, void *ret, size_t cap,
		     size_t *ret_len) SP_MUST_CHECK;

// Lower case, to `buf` of at least 2 * len + 1. Returns buf.
char *sp_hex_encode(const void *bytes, size_t len, char *buf, size_t cap);
// Exactly `len` bytes from 2 * len digits of either case. 0; SP_E_MALFORMED.
int sp_hex_decode(const char *text, size_t text_len, void *ret, size_t len) SP_MUST_CHECK;

// The edits (insert, delete, replace a character, swap two neighbours) that turn `a` into
// `b` (optimal string alignment); words longer than 63 characters are 64 apart.
unsigned sp_text_distance(const char *a, const char *b);

#endif
