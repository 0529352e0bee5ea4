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
// What every link has: limits, heartbeats, patience. 0; -errno.
int bus_socket_options(struct bus_socket *s, int64_t message_max,
		       const char *endpoint) SP_MUST_CHECK;
int bus_socket_int(struct bus_socket *s, int option, int value) SP_MUST_CHECK;

#endif
