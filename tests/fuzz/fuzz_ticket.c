// The input as a ticket under keys of zeros, and as a body that is sealed and opened
// again.
#include <string.h>

#include <sodium.h>

#include "lib/ticket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t key[32];
	uint8_t ticket[SP_TICKET_BYTES];
	struct sp_ticket_body body = {0}, again;
	struct sp_ticket_hint hint;

	if (size < 1 || sodium_init() < 0)
		return 0;
	if (sp_ticket_open_hint(key, data, size, &hint) == 0 && size != SP_TICKET_BYTES)
		__builtin_trap();
	if (sp_ticket_open_body(key, data, size, &body) == 0 && size != SP_TICKET_BYTES)
		__builtin_trap();
	memcpy(&body, data, size < sizeof(body) ? size : sizeof(body));
	sp_ticket_seal(key, key, 7, &body, ticket);
	if (sp_ticket_open_hint(key, ticket, sizeof(ticket), &hint) ||
	    hint.home_id != 7 ||
	    sp_ticket_open_body(key, ticket, sizeof(ticket), &again) ||
	    memcmp(&body, &again, sizeof(body)))
		__builtin_trap();
	return 0;
}
