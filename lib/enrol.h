// Enrolment: the one-time token that an operator hands over, and the exchange by which
// whoever holds it joins the fleet with keys made on the spot. Not here: what tokens are
// good for (the controllers), what is kept of it (lib/enrolled.h).
#ifndef SP_ENROL_H
#define SP_ENROL_H

#include <stddef.h>
#include <stdint.h>

#include "lib/bus.h"
#include "lib/enrolled.h"

#define SP_ENROL_SECRET_BYTES 24
#define SP_ENROL_TOKEN_MAX    2048 // longest text with its NUL

struct sp_enrol_token {
	char enrol[SP_BUS_ENDPOINT_MAX]; // where to join
	char router[SP_BUS_ENDPOINT_MAX], publisher[SP_BUS_ENDPOINT_MAX];
	uint8_t controller_key[SP_BUS_KEY_BYTES];
	char name[SP_ENROLLED_NAME_MAX]; // worker "NAME/N", vantage "NAME"
	uint8_t secret[SP_ENROL_SECRET_BYTES];
};

// "sallyport-enrol:BASE64URL(JSON)" to `buf` of SP_ENROL_TOKEN_MAX. 0; SP_E_LIMIT;
// -ENOMEM.
int sp_enrol_token_format(const struct sp_enrol_token *t, char *buf,
			  size_t cap) SP_MUST_CHECK;
// Of `len` bytes, white space around it is fine. 0 and *ret; SP_E_MALFORMED; -ENOMEM.
int sp_enrol_token_parse(const char *text, size_t len,
			 struct sp_enrol_token *ret) SP_MUST_CHECK;

struct sp_enrol_request {
	const char *token; // the text
	const char *program;
	const struct sp_bus_keys *control; // own
	const uint8_t *own_public;         // 32 bytes: worker static or device key
	uint32_t timeout_ms;               // 0: 15 s
};
// Blocking, with a loop of its own. 0, *ret (for sp_enrolled_save) and, if it is not
// NULL, the route key to ret_route (32 bytes; zeros if none came); SP_E_MALFORMED: no
// token, or an answer that makes no sense; SP_E_AUTH: refused; -ETIMEDOUT; others; `why`
// says it in one clause with the remedy.
int sp_enrol_run(const struct sp_enrol_request *req, struct sp_enrolled *ret,
		 uint8_t *ret_route, char *why, size_t cap) SP_MUST_CHECK;

#endif
