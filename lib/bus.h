// The control plane's links: ZeroMQ sockets in our event loop, CURVE on every one. A
// server publishes and answers; a client follows all publishers and talks to one server.
// Not here: what the messages say (proto/fleet.proto), who may join (the callbacks).
//
// Raw libzmq, not czmq, whose loop and actors would be a second event loop beside ours.
// Only key pairs prove who somebody is: the ZAP handler gives each connection its key as
// the User-Id, and every message is judged by it anew, so that a key that is taken away
// counts no more from then on. Routing ids and names in messages prove nothing.
#ifndef SP_BUS_H
#define SP_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "lib/loop.h"

#define SP_BUS_KEY_BYTES      32
#define SP_BUS_NAME_MAX       128 // of a peer: "worker:fra1/0"
#define SP_BUS_ENDPOINT_MAX   256 // "tcp://192.0.2.1:7201", "tcp://[2001:db8::1]:7201"
#define SP_BUS_ROUTE_MAX      255 // of a routing id
#define SP_BUS_ADDRESS_MAX    64
#define SP_BUS_SERVERS_MAX    8
#define SP_BUS_MESSAGE_MAX    (1u << 20)  // towards a server
#define SP_BUS_ENROL_MAX      (16u << 10) // towards a server's enrolment
#define SP_BUS_BLOB_MAX       (17u << 20) // towards a client: a snapshot and its envelope
#define SP_BUS_HANDSHAKE_MS   10000       // from a connection to its end of CURVE
#define SP_BUS_HEARTBEAT_MS   2000        // of clients
#define SP_BUS_DEAD_MS        6000        // without an answer: they cut the connection
#define SP_BUS_UNREAD_MS      30000       // with bytes that the peer does not take: cut
#define SP_BUS_QUEUE          4096 // messages to one peer; further ones are dropped
#define SP_BUS_QUEUE_IN       256  // of one peer that wait here; then it waits
#define SP_BUS_OWED_MAX       (24u << 20) // bytes of blobs that wait for one peer
#define SP_BUS_TOPIC_MAX      1024 // bytes of one towards a publisher; handshakes too
// Handshakes of one known key: a peer makes two to come back. More are told to come
// later.
#define SP_BUS_KEY_PER_MINUTE 60
#define SP_BUS_KEY_BURST      60

// A CURVE25519 pair. The secret is the caller's to wipe.
struct sp_bus_keys {
	uint8_t public_key[SP_BUS_KEY_BYTES], secret_key[SP_BUS_KEY_BYTES];
};

// ---- server ----

struct sp_bus_server;

enum sp_bus_domain {
	SP_BUS_FLEET, // known keys
	SP_BUS_ENROL, // any key
};

// Where a message came from, valid during the call; `route` is what an answer needs.
struct sp_bus_peer {
	enum sp_bus_domain domain;
	const uint8_t *key; // SP_BUS_KEY_BYTES, proved
	const char *name;   // FLEET: what ops.identify said; ENROL: ""
	const char *address;
	const uint8_t *route;
	size_t route_len;
};

enum sp_bus_verdict {
	SP_BUS_REFUSE, // it will not try again by itself
	SP_BUS_ADMIT,
	SP_BUS_LATER, // it is to try again
};

struct sp_bus_server_ops {
	// Whose key this is: its name to `ret` (SP_BUS_NAME_MAX). False: nobody's; the
	// connection or message is refused. Called at handshakes and for each message.
	bool (*identify)(void *ctx, const uint8_t *key, char *ret);
	// A stranger's handshake for enrolment, from this address. NULL: all refused.
	enum sp_bus_verdict (*may_enrol)(void *ctx, const char *address);
	void (*message)(void *ctx, const struct sp_bus_peer *from, const void *data,
			size_t len);
};

struct sp_bus_server_options {
	struct sp_loop *loop;
	const struct sp_bus_keys *keys; // copied
	// Endpoints: "tcp://" and a numeric address or *, a port or *: any. An IPv6 one
	// that is unspecified takes IPv4 too.
	const char *router, *publisher;
	const char *enrol; // NULL: none
	const struct sp_bus_server_ops *ops;
	void *ctx;
};

struct sp_bus_server_counters {
	uint64_t handshakes_ok, handshakes_refused; // refused: later ones too
	uint64_t handshakes_later, enrol_refused, enrol_ok, enrol_later; // of them
	uint64_t messages, messages_refused; // refused: of a key nobody has any more
	uint64_t malformed;                  // not the frames that a message has
	uint64_t sent, send_failed;          // failed: peer gone or its queue full
	uint64_t not_read;                   // not sent: SP_BUS_OWED_MAX
	uint64_t published;
	uint64_t renewed; // sockets made anew
};

// Binds. 0 and *ret; SP_E_MALFORMED, -errno (-EADDRINUSE …) and `why` names the endpoint.
int sp_bus_server_new(const struct sp_bus_server_options *opt, struct sp_bus_server **ret,
		      char *why, size_t cap) SP_MUST_CHECK;
void sp_bus_server_free(struct sp_bus_server *s); // NULL is fine
// To everyone who subscribes: a topic of one character and the data. Copies.
void sp_bus_publish(struct sp_bus_server *s, char topic, const void *data, size_t len);
// To one peer by its route. Copies. 0; -EHOSTUNREACH: it is gone; -EAGAIN: its queue is
// full.
int sp_bus_send(struct sp_bus_server *s, enum sp_bus_domain domain, const uint8_t *route,
		size_t route_len, const void *data, size_t len);
// Counts the bytes of blobs that wait for one peer.
struct sp_bus_meter;
int sp_bus_meter_new(struct sp_bus_meter **ret) SP_MUST_CHECK; // 0; -ENOMEM
void sp_bus_meter_free(struct sp_bus_meter *m); // what waits keeps it; NULL is fine
size_t sp_bus_meter_bytes(const struct sp_bus_meter *m);
// Data for many peers, in memory once however many queues it stands in; zeroed at its
// end.
struct sp_bus_blob;
// Copies. 0; -ENOMEM.
int sp_bus_blob_new(const void *data, size_t len, struct sp_bus_blob **ret) SP_MUST_CHECK;
void sp_bus_blob_free(struct sp_bus_blob *b); // queues keep it; NULL is fine
size_t sp_bus_blob_len(const struct sp_bus_blob *b);
// As sp_bus_send, without a copy. `meter`: of that peer, or NULL. -EAGAIN also if it
// would hold more than SP_BUS_OWED_MAX and there is something in it.
int sp_bus_send_blob(struct sp_bus_server *s, enum sp_bus_domain domain,
		     const uint8_t *route, size_t route_len, struct sp_bus_blob *b,
		     struct sp_bus_meter *meter);
// Cuts all links of a domain (FLEET: subscribers too) and lets them come back, each to be
// judged anew: the one way to cut off whoever holds a link with a key that is known no
// more, since libzmq closes none by itself. The ports stay open. Routes are void. 0;
// -errno: the domain is without a socket until this is called again with success.
int sp_bus_server_renew(struct sp_bus_server *s, enum sp_bus_domain domain) SP_MUST_CHECK;
// Where it listens; for port *. "": there is none.
const char *sp_bus_server_router(const struct sp_bus_server *s);
const char *sp_bus_server_publisher(const struct sp_bus_server *s);
const char *sp_bus_server_enrol(const struct sp_bus_server *s);
const struct sp_bus_server_counters *
sp_bus_server_counters(const struct sp_bus_server *s);

// ---- client ----

struct sp_bus_client;

struct sp_bus_address { // of one server
	char router[SP_BUS_ENDPOINT_MAX];
	char publisher[SP_BUS_ENDPOINT_MAX]; // "": not followed
	uint8_t key[SP_BUS_KEY_BYTES];
};

struct sp_bus_client_ops {
	// The link to server `at` stands: say hello. Also after each reconnect.
	void (*up)(void *ctx, unsigned at);
	// It went. `why`: "refused" (the server does not know our key, or is another),
	// "lost", "no answer".
	void (*down)(void *ctx, unsigned at, const char *why);
	void (*message)(void *ctx, const void *data, size_t len);
	void (*published)(void *ctx, char topic, const void *data, size_t len);
};

struct sp_bus_client_options {
	struct sp_loop *loop;
	const struct sp_bus_keys *keys;       // copied
	const struct sp_bus_address *servers; // copied
	unsigned n_servers;                   // 1 to SP_BUS_SERVERS_MAX
	// Without a link for so long: the next server; 0: 5,000. After all of them twice
	// as long, up to eightfold.
	uint32_t patience_ms;
	bool no_publishers; // DEALER only: for enrolment
	void *zmq; // libzmq context that many clients of one process share, borrowed;
		   // NULL: its own
	const struct sp_bus_client_ops *ops;
	void *ctx;
};

// Begins with a server at random. 0 and *ret; SP_E_MALFORMED: an endpoint; -ENOMEM,
// -EMFILE; `why` says which.
int sp_bus_client_new(const struct sp_bus_client_options *opt, struct sp_bus_client **ret,
		      char *why, size_t cap) SP_MUST_CHECK;
// Not from inside a callback. NULL is fine.
void sp_bus_client_free(struct sp_bus_client *c);
struct sp_bus_client_counters {
	uint64_t up, lost, refused, no_answer; // as ops.up and ops.down tell
	uint64_t sent, unsent;                 // unsent: no link, or its queue full
	uint64_t received, published;
	uint64_t malformed; // not the frames that a message has
};
const struct sp_bus_client_counters *
sp_bus_client_counters(const struct sp_bus_client *c);
// Copies. 0; -EAGAIN: there is no link now, or its queue is full: nothing was sent.
int sp_bus_client_send(struct sp_bus_client *c, const void *data,
		       size_t len) SP_MUST_CHECK;
bool sp_bus_client_is_up(const struct sp_bus_client *c);
unsigned sp_bus_client_at(const struct sp_bus_client *c); // index of the server

#endif
