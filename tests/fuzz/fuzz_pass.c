// Bodies of passes. One that is read is written again as the same bytes.
#include <string.h>

#include "lib/pass.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t again[SP_PASS_BODY_MAX];
	struct sp_pass pass;
	int len;

	if (sp_pass_parse(data, size, &pass))
		return 0;
	len = sp_pass_encode(&pass, again, sizeof(again));
	if (len < 0 || (size_t)len != size || memcmp(again, data, size))
		__builtin_trap();
	if (pass.groups_n && !sp_pass_has_group(&pass, pass.groups[pass.groups_n - 1]))
		__builtin_trap();
	return 0;
}
