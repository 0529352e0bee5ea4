// fleet.json as an enrolment may have left it: what is taken can be written, and is the
// same again.
#include <string.h>

#include "lib/enrolled.h"
#include "tests/fuzz/fuzz_folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sp_enrolled e = {0}, again = {0};
	char why[1024];
	const char *path = fuzz_file("fleet.json", data, size);
	if (sp_enrolled_load(fuzz_folder, &e, why, sizeof(why)))
		return 0;
	if (unlink(path) || sp_enrolled_save(fuzz_folder, &e, why, sizeof(why)) ||
	    sp_enrolled_load(fuzz_folder, &again, why, sizeof(why)))
		abort();
	if (strcmp(e.name, again.name) != 0 || e.n_controllers != again.n_controllers ||
	    e.signing.n != again.signing.n ||
	    memcmp(e.controller_key, again.controller_key, sizeof(e.controller_key)) != 0)
		abort();
	return 0;
}
