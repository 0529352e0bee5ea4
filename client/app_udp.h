// SOCKS5 UDP associations (RFC 1928 section 7): one loopback socket each, alive as long
// as the TCP connection that asked for it. An association and a destination are one
// datagram flow; when the flow's exit is given up, the next datagram opens it on the exit
// in use; that of a name server (port 53) goes there by itself, and what it was asked and
// has not answered within 5 s before is asked there once more. Datagrams come only from
// whoever sent the first one, on the address of the TCP connection; fragments are
// dropped. Not here: budgets and idle times of flows, which are the engine's.
#ifndef CLI_APP_UDP_H
#define CLI_APP_UDP_H

#include "client/uplink.h"
#include "lib/addr.h"
#include "lib/loop.h"
#include "lib/session.h"

struct cli_udp;
struct cli_udp_counters {
	uint64_t associations_opened, associations_evicted;
	uint64_t from_app, to_app; // datagrams
	uint64_t dropped_from_app; // malformed, a fragment, a stranger's, too large
	uint64_t dropped_to_app;   // the application's socket was full
	uint64_t dropped_uplink;   // no flow, or the engine's budget
	uint64_t moved;            // flows opened anew on another exit
	uint64_t asked_again;      // look-ups, once each, since their flow had moved
	uint32_t associations, flows;
};

struct cli_udp_options {
	struct sp_loop *loop;
	uint32_t max_associations; // beyond it the one that was idle longest goes
	void (*closed)(void *ctx); // an association is less; may be NULL
	void *ctx;
};
// 0 and *ret; -ENOMEM.
int cli_udp_new(const struct cli_udp_options *opt, struct cli_udp **ret) SP_MUST_CHECK;
void cli_udp_free(struct cli_udp *t); // NULL is fine
// Before anything else, once.
void cli_udp_set_uplink(struct cli_udp *t, struct cli_uplink *u);
// Sets the flow_* of the engine's calls.
void cli_udp_set_ops(struct sp_session_ops *ops);

// Look-ups that wait for their answer leave exits that are given up and are asked once
// more there (cli_uplink_ops.rehome).
void cli_udp_rehome(struct cli_udp *t);
// Makes an association for the TCP connection `control`, which becomes the callee's, and
// answers it; on an error the caller answers and keeps it. 0; -errno.
int cli_udp_add(struct cli_udp *t, int control) SP_MUST_CHECK;
// Ends every association; the exits are told.
void cli_udp_close_all(struct cli_udp *t);
const struct cli_udp_counters *cli_udp_counters(const struct cli_udp *t);

#endif
