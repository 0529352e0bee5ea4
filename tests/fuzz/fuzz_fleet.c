// The bodies of both signed configs: any bytes.
#include "lib/fleet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char why[SP_FLEET_WHY_MAX];
	struct sp_fleet_worker *w;
	struct sp_fleet_client *c;
	if (sp_fleet_worker_parse(data, size, &w, why, sizeof(why)) == 0)
		sp_fleet_worker_free(w);
	if (sp_fleet_client_parse(data, size, &c, why, sizeof(why)) == 0)
		sp_fleet_client_free(c);
	return 0;
}
