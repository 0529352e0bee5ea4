// A token that parses prints, and the print parses to the same.
#include <stdlib.h>
#include <string.h>

#include "lib/enroltoken.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sp_enroltoken a, b;
	char text[SP_ENROLTOKEN_TEXT_MAX], why[128] = "";
	if (sp_enroltoken_parse((const char *)data, size, &a, why, sizeof(why))) {
		if (!*why)
			abort();
		return 0;
	}
	if (sp_enroltoken_format(&a, text))
		return 0; // JSON escapes may make it longer than it came
	if (sp_enroltoken_parse(text, strlen(text), &b, why, sizeof(why)) ||
	    memcmp(&a, &b, sizeof(a)) != 0)
		abort();
	return 0;
}
