// The chain of exits from the signed client config: read, verified, and made ready for
// dialling (trust for tls). Not here: which one is used (client/chain.h), sessions.
#ifndef CLI_EXITS_H
#define CLI_EXITS_H

#include <stddef.h>
#include <stdint.h>

#include "client/chain.h"
#include "lib/carrier.h"
#include "lib/fleet.h"
#include "lib/signed.h"

struct cli_exit {
	const struct sp_fleet_exit *conf;
	struct sp_tls *tls[SP_FLEET_CARRIERS_MAX]; // NULL for tcp
};

struct cli_exits {
	struct sp_fleet_client *fleet;
	unsigned n; // the first CLI_CHAIN_MAX of the config at most
	struct cli_exit exit[CLI_CHAIN_MAX];
};

struct cli_exits_options {
	const struct sp_signed_keys *keys;    // who may sign it
	const struct sp_fleet_revision *held; // an older one is refused; may be NULL
	uint64_t now_s; // Unix; 0: whether it is expired is not looked at
};
// 0 and *ret (free with cli_exits_free); or an error with a clause in `why` that names
// the file: SP_E_STALE: older than the one held; SP_E_EXPIRED; SP_E_SIGNATURE, SP_E_KEY,
// SP_E_MALFORMED, SP_E_CONFIG, SP_E_LIMIT, -errno.
int cli_exits_load(const char *path, const struct cli_exits_options *opt,
		   struct cli_exits **ret, char *why, size_t cap) SP_MUST_CHECK;
// Only when no carrier made with it is left. NULL is fine.
void cli_exits_free(struct cli_exits *x);

#endif
