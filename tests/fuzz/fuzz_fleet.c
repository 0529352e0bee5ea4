// The bodies of both signed configs, and lists of members: any bytes. What parses must
// print, and the print must parse and print as itself.
#include <stdlib.h>
#include <string.h>

#include "lib/fleet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *worker(const void *data, size_t size)
{
	char why[SP_FLEET_WHY_MAX];
	struct sp_fleet_worker *f;
	if (sp_fleet_worker_parse(data, size, &f, why, sizeof(why)))
		return NULL;
	char *text = sp_fleet_worker_print(f);
	sp_fleet_worker_free(f);
	return text;
}

static char *client(const void *data, size_t size)
{
	char why[SP_FLEET_WHY_MAX];
	struct sp_fleet_client *f;
	if (sp_fleet_client_parse(data, size, &f, why, sizeof(why)))
		return NULL;
	char *text = sp_fleet_client_print(f);
	sp_fleet_client_free(f);
	return text;
}

static void members(const void *data, size_t size)
{
	struct sp_fleet_members m;
	if (sp_fleet_members_parse(data, size, &m, NULL, 0))
		return;
	for (size_t i = 0; i < m.n; i++)
		if (!m.v[i].n_carriers || (i && m.v[i].home_id <= m.v[i - 1].home_id))
			abort();
	sp_fleet_members_done(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	members(data, size);
	for (int i = 0; i < 2; i++) {
		char *(*print)(const void *, size_t) = i ? client : worker;
		char *one = print(data, size);
		char *two = one ? print(one, strlen(one)) : NULL;
		if (one && (!two || strcmp(one, two)))
			abort();
		free(one);
		free(two);
	}
	return 0;
}
