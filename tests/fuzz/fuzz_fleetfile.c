// Fleet files of any bytes; what is taken has canonical entries that a diff finds equal.
#include "lib/derive.h"
#include "lib/fleetfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char why[SP_FLEETFILE_WHY_MAX];
	struct sp_changes c = {0};
	struct sp_state *s;

	if (sp_fleetfile_parse("fuzz", (const char *)data, size, &s, why, sizeof(why)))
		return 0;
	if (sp_fleetfile_diff(s, s, &c) || c.n)
		__builtin_trap();
	(void)!sp_derive_check(s, why, sizeof(why));
	sp_state_free(s);
	return 0;
}
