// The one-time token that an operator carries to a new node: where the controller is, its
// key, for whom, and a secret,
//   sallyport-enrol:BASE64URL(JSON)
// Pure: no I/O, no clock. Not here: making and judging tokens (controller/enrol.h), using
// them (worker and vantage).
#ifndef SP_ENROLTOKEN_H
#define SP_ENROLTOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/bus.h"
#include "lib/err.h"

#define SP_ENROLTOKEN_SECRET_BYTES 32
#define SP_ENROLTOKEN_NAME_MAX     72   // "NAME/N" with its NUL
#define SP_ENROLTOKEN_TEXT_MAX     2048 // longest text with its NUL

// All texts end in NUL.
struct sp_enroltoken {
	char node[SP_ENROLTOKEN_NAME_MAX]; // worker "NAME/N", or a vantage's "NAME"
	char enrol[SP_BUS_ENDPOINT_MAX];   // where to enrol
	char router[SP_BUS_ENDPOINT_MAX], publisher[SP_BUS_ENDPOINT_MAX]; // afterwards
	uint8_t controller_key[SP_BUS_KEY_BYTES];
	uint8_t secret[SP_ENROLTOKEN_SECRET_BYTES]; // the holder's to wipe
};

// To `buf` of SP_ENROLTOKEN_TEXT_MAX; wipe it. 0; SP_E_LIMIT; -ENOMEM.
int sp_enroltoken_format(const struct sp_enroltoken *t, char *buf) SP_MUST_CHECK;
// White space around it is skipped. 0 and *ret; SP_E_MALFORMED, and `why` says in one
// clause what is wrong, without showing it; -ENOMEM.
int sp_enroltoken_parse(const char *text, size_t len, struct sp_enroltoken *ret,
			char *why, size_t cap) SP_MUST_CHECK;
bool sp_enroltoken_is_worker(const struct sp_enroltoken *t); // else a vantage

#endif
