// Enrolment: the exchange by which the holder of a token (lib/enroltoken.h) joins the
// fleet with keys made on the spot. Not here: what tokens are good for (the controllers),
// what is kept of it (lib/enrolled.h).
#ifndef SP_ENROL_H
#define SP_ENROL_H

#include <stddef.h>
#include <stdint.h>

#include "lib/bus.h"
#include "lib/enrolled.h"

struct sp_enrol_request {
	const char *token; // text
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
