// base64, hex and key lines: what is accepted is exactly what would be written.
#include <stdlib.h>
#include <string.h>

#include "lib/key.h"
#include "lib/text.h"

static void same(const char *again, const uint8_t *data, size_t size)
{
	if (strlen(again) != size || memcmp(again, data, size))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t bytes[4096];
	static char again[SP_BASE64_CAP(sizeof(bytes))];
	const char *text = (const char *)data;
	char why[128];
	size_t len;

	if (size < sizeof(bytes) &&
	    sp_base64_decode(text, size, bytes, sizeof(bytes), &len) == 0)
		same(sp_base64_encode(bytes, len, again, sizeof(again)), data, size);
	if (size < sizeof(bytes) && sp_hex_decode(text, size, bytes, size / 2) == 0 &&
	    strlen(sp_hex_encode(bytes, size / 2, again, sizeof(again))) != size)
		abort();
	for (int k = SP_KEY_SIGNING; k <= SP_KEY_ROUTE; k++)
		if (sp_key_parse((enum sp_key_kind)k, true, text, size, bytes, why,
				 sizeof(why)) == 0)
			sp_key_format((enum sp_key_kind)k, true, bytes, again);
	return 0;
}
