// The proxies: listeners on loopback, and connections until their request is read; then
// they belong to client/app_stream.h or client/app_udp.h. The parsers are socks5.h and
// httpconnect.h.
//
// Limits. A request must be whole within request_ms; of connections that have not asked
// yet there are at most max_half_open, beyond that the oldest is closed; of connections
// in all there are at most max_connections, beyond that new ones wait in the kernel's
// backlog until one ends. Without free descriptors likewise.
#ifndef CLI_PROXY_H
#define CLI_PROXY_H

#include "client/app_stream.h"
#include "client/app_udp.h"
#include "client/linger.h"
#include "lib/loop.h"

enum cli_proxy_kind { CLI_PROXY_SOCKS, CLI_PROXY_HTTP };
#define CLI_PROXY_LISTENERS 8

struct cli_proxy;
struct cli_proxy_counters {
	uint64_t accepted[2];                // by enum cli_proxy_kind
	uint64_t refused[2];                 // malformed or unsupported requests
	uint64_t timed_out, evicted, paused; // paused: times that accepting stopped
	uint32_t half_open, connections;
};

struct cli_proxy_options {
	struct sp_loop *loop;
	struct cli_linger *linger;
	struct cli_streams *streams;
	struct cli_udp *udp;
	uint32_t request_ms;
	uint32_t max_half_open;
	uint32_t max_connections;
};
// 0 and *ret; -ENOMEM.
int cli_proxy_new(const struct cli_proxy_options *opt,
		  struct cli_proxy **ret) SP_MUST_CHECK;
void cli_proxy_free(struct cli_proxy *p); // NULL is fine
// Listens on `address` (no name). Its port may be 0: the kernel's choice. 0; -errno;
// SP_E_LIMIT; SP_E_MALFORMED: a name.
int cli_proxy_listen(struct cli_proxy *p, enum cli_proxy_kind kind,
		     const struct sp_target *address) SP_MUST_CHECK;
// Addresses that are listened on; NULL beyond the last.
const struct sp_target *cli_proxy_address(const struct cli_proxy *p, unsigned i,
					  enum cli_proxy_kind *ret_kind);
// A connection that was given on has ended (`closed` of streams and associations).
void cli_proxy_one_less(void *proxy);
// No new connections from now on.
void cli_proxy_stop(struct cli_proxy *p);
const struct cli_proxy_counters *cli_proxy_counters(const struct cli_proxy *p);

#endif
