// What a quickstart knows while it writes a fleet's files, and the YAML configs of it.
// Not here: the files (ctl/quickstart.c).
#ifndef CTL_QUICKSTART_H
#define CTL_QUICKSTART_H

#include "ctl/cli.h"
#include "ctl/keys.h"
#include "lib/addr.h"
#include "lib/carrier.h"
#include "lib/fleet.h"
#include "lib/pass.h"

#define CTL_QUICK_WORKERS_MAX  64
#define CTL_QUICK_CARRIERS_MAX 4

struct ctl_quick_carrier {
	enum sp_carrier_kind kind;
	struct sp_target dial, listen;
};
struct ctl_quick_worker {
	char name[SP_FLEET_NAME_MAX + 1], region[SP_FLEET_NAME_MAX + 1];
	struct ctl_quick_carrier carriers[CTL_QUICK_CARRIERS_MAX];
	size_t n_carriers;
	struct sp_target admin; // kind 0: none
	struct ctl_keypair key;
	char *folder; // below dir
	char *pin;    // of its certificate, NULL: it has none
};
struct ctl_quick {
	const struct ctl_call *call;
	const char *dir;
	struct ctl_keypair signing, route, device;
	struct ctl_quick_worker workers[CTL_QUICK_WORKERS_MAX];
	size_t n_workers;
	char *worker_json, *exits_json;
	struct sp_pass pass;
};

// --carrier and every --worker into `q`. 0, or an exit code and said.
int ctl_quick_workers(const struct ctl_call *call, struct ctl_quick *q) SP_MUST_CHECK;

// quickstart_yaml.c
// Checks the values that go into the YAML: --cover, --socks, --http, --dns, --worker-set,
// --client-set. 0, or an exit code and said.
int ctl_quick_check(const struct ctl_quick *q) SP_MUST_CHECK;
// The configs; free().
char *ctl_quick_worker_yaml(const struct ctl_quick *q, const struct ctl_quick_worker *w);
char *ctl_quick_client_yaml(const struct ctl_quick *q);

#endif
