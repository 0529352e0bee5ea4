// The cover site: whoever is not one of ours is relayed to it, bytes intact and in both
// directions, and meets its answers, its timers and its way of closing. Not here: who is
// a stranger (lib/link.h).
//
// FIN goes on as FIN, each direction by itself; RST as RST, once what came before it has
// arrived. Buffers are 16 KB a direction and exist only while one side is slower. There
// is no timeout here but `idle_ms`, which should be far beyond the site's own. Beyond
// `max_relays` the one without traffic for the longest is closed. A site that cannot be
// reached resets the client.
#ifndef WRK_COVER_H
#define WRK_COVER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lib/carrier.h"
#include "lib/link.h"
#include "lib/loop.h"

struct wrk_cover;

struct wrk_cover_counters {
	uint64_t relayed;     // strangers
	uint64_t waited;      // connected for silent clients
	uint64_t unreachable; // the site could not be connected to
	uint64_t evicted;     // over max_relays
	uint64_t idle;        // over idle_ms
	uint64_t bytes_to_site, bytes_from_site;
	uint32_t live; // both kinds
};

struct wrk_cover_options {
	struct sp_loop *loop;
	struct sockaddr_storage site; // plain TCP
	socklen_t site_len;
	uint32_t max_relays;
	uint32_t idle_ms; // without a byte in either direction (1 h)
};
// 0 and *ret; -ENOMEM.
int wrk_cover_new(const struct wrk_cover_options *opt,
		  struct wrk_cover **ret) SP_MUST_CHECK;
// Closes what is relayed. NULL is fine. Links go first (sp_link_env_free).
void wrk_cover_free(struct wrk_cover *cover);
// For those that come from now on.
void wrk_cover_set(struct wrk_cover *cover, const struct wrk_cover_options *opt);
const struct wrk_cover_counters *wrk_cover_counters(const struct wrk_cover *cover);

// For sp_link_worker_ops.stranger, tls: relays the carrier, which becomes the callee's,
// as does `waiting`. The `len` bytes (<= 16384) go to the site first.
void wrk_cover_relay(struct wrk_cover *cover, struct sp_carrier *c, const uint8_t *buf,
		     size_t len, void *waiting);
// For .silent: connects to the site now. A handle, or NULL: no memory. Calls
// sp_link_estrange(link) when the site sends something or ends.
void *wrk_cover_wait(struct wrk_cover *cover, struct sp_link *link);
// For .silent_over.
void wrk_cover_wait_over(struct wrk_cover *cover, void *waiting);

#endif
