// One ZeroMQ socket in the loop, for lib/bus*.c alone. Its descriptor tells changes only,
// so whoever sent or received on it looks again at the end of the turn.
#ifndef SP_BUS_INTERNAL_H
#define SP_BUS_INTERNAL_H

#include <event2/event_struct.h>
#include <zmq.h>

#include "lib/bus.h"

#define BUS_TURN_MAX 128 // messages of one socket in one turn

struct bus_socket { // zero: closed
	void *zmq;
	struct sp_loop *loop;
	struct event ev;
	struct sp_deferred again;
	// Takes one message. False: there is none.
	bool (*take)(void *owner);
	void *owner;
};

// 0; -errno.
int bus_socket_open(struct bus_socket *s, struct sp_loop *loop, void *zmq_ctx, int type,
		    bool (*take)(void *owner), void *owner) SP_MUST_CHECK;
void bus_socket_close(struct bus_socket *s);
// After bind or connect. 0; -errno.
int bus_socket_watch(struct bus_socket *s) SP_MUST_CHECK;
// Look again at the end of this turn.
void bus_socket_again(struct bus_socket *s);
// Reads what is left of a message.
void bus_skip_frames(void *zmq, bool more);
const char *bus_domain_word(enum sp_bus_domain domain); // "fleet", "enrol"

struct bus_zap { // judge and owner set, the rest zero
	struct bus_socket socket;
	enum sp_bus_verdict (*judge)(void *owner, enum sp_bus_domain domain,
				     const uint8_t *key, const char *address);
	void *owner;
};
// Before any socket that it is to judge for. 0; -errno.
int bus_zap_open(struct bus_zap *z, struct sp_loop *loop, void *zmq_ctx) SP_MUST_CHECK;

// libzmq draws the first of a ROUTER's own routing ids, and the jitter of its reconnects,
// from rand(), which nobody seeds. Before a socket is made.
//
// A peer that claims a routing id which the ROUTER gives out next makes libzmq 4.3.4
// abort (socket_base.cpp: "Assertion failed: ok"), so those must not be guessed.
void bus_seed(void);

// A listening socket of our own, so that the port stays ours while a ZeroMQ socket on it
// is made anew. `endpoint`: see sp_bus_server_options. 0 and *ret; SP_E_MALFORMED;
// -errno.
int bus_listen(const char *endpoint, int *ret) SP_MUST_CHECK;
// Binds `s` to a copy of `fd`. 0; -errno.
int bus_socket_bind_fd(struct bus_socket *s, int fd, const char *endpoint) SP_MUST_CHECK;

// A message of the blob's data; meter NULL: nobody counts. 0; -ENOMEM.
int bus_blob_message(struct sp_bus_blob *b, struct sp_bus_meter *meter,
		     zmq_msg_t *ret) SP_MUST_CHECK;

// What every link has: limits, keepalive, patience. 0; -errno.
int bus_socket_options(struct bus_socket *s, int64_t message_max,
		       const char *endpoint) SP_MUST_CHECK;
int bus_socket_int(struct bus_socket *s, int option, int value) SP_MUST_CHECK;

#endif
