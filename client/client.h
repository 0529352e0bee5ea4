// The running client: everything that `sallyport up` holds, put together, reloaded and
// taken apart in order. Not here: the command line (main.c), what a status looks like
// (status.h).
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include "client/app_stream.h"
#include "client/app_udp.h"
#include "client/config.h"
#include "client/control.h"
#include "client/identity.h"
#include "client/linger.h"
#include "client/netwatch.h"
#include "client/poll.h"
#include "client/proxy.h"
#include "client/uplink.h"
#include "lib/notify.h"

struct cli_client { // for client.c, and for status.c and metrics.c to read
	const char *config_path;
	char last[64]; // cli_config.last
	struct cli_config *cfg;
	struct sp_pass pass;
	struct sp_signed_keys trusted;
	struct sp_loop *loop;
	struct sp_session_clock *clock;
	struct sp_link_env *env;
	struct sp_arena *arena;
	struct cli_linger *linger;
	struct cli_streams *streams;
	struct cli_udp *udp;
	struct cli_uplink *uplink;
	struct cli_proxy *proxy;
	struct cli_control *control;
	struct cli_metrics *metrics;
	struct cli_netwatch *netwatch; // or NULL: this system tells nothing
	struct cli_poll *poll;         // NULL: exits and pass are files
	struct sp_watchdog watchdog;
	struct sp_timer end;
	bool ending;
	int lock_fd;
	uint64_t started_ms;
	uint64_t reloads, reloads_failed;
};

// Listens and begins to dial. `cfg` and what `id` holds become the client's if it stands.
// 0 and *ret; an error, which was logged.
int cli_client_new(const char *config_path, struct cli_config *cfg,
		   struct cli_identity *id, struct cli_client **ret) SP_MUST_CHECK;
// Until SIGTERM, SIGINT or `down`. 0; -EIO.
int cli_client_run(struct cli_client *c) SP_MUST_CHECK;
void cli_client_free(struct cli_client *c); // NULL and half-built ones are fine

#endif
