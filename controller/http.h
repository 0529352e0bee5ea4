// HTTP/1.1 for strangers: a listener, with TLS or without, its connections and their
// limits; one request at a time on each, answered at once or held back. Not here: paths
// and what is answered (endpoint.h). Not evhttp: it has no limit of connections, none for
// the time of a whole request, it does not see a peer leave while an answer is held back,
// and it answers some mistakes by itself (docs/endpoint.md).
//
// What is given up for a new connection is the stalest one that has asked for nothing;
// if there is none, the stalest that waits, which gets its answer now.
#ifndef CON_HTTP_H
#define CON_HTTP_H

#include <openssl/ssl.h>

#include "controller/http_parse.h"
#include "lib/addr.h"
#include "lib/loop.h"

#define CON_HTTP_HEAD_BYTES 8192 // of a request; more: 431

struct con_http_limits {
	unsigned connections; // of all; fewer if descriptors are
	unsigned per_address; // an IPv4 address, an IPv6 /64
	unsigned rate, burst; // of an address: connections and requests a second
	bool loopback;        // these two also for loopback, where a proxy may be

	// For a head, from its first byte; for the first one from the start of the
	// connection, TLS's handshake included.
	uint32_t head_ms;
	uint32_t idle_ms;  // between requests
	uint32_t write_ms; // for the client to take an answer
	size_t out_bytes;  // answers not taken yet, together; more: 503
};
void con_http_limits_default(struct con_http_limits *ret);

#define CON_HTTP_STATUSES 10
struct con_http_counters {
	uint64_t accepted, requests;
	uint64_t evicted;    // for newer connections
	uint64_t over_rate;  // connections and requests
	uint64_t head_late;  // no whole request in time
	uint64_t unread;     // no answer taken in time
	uint64_t tls_failed; // handshakes
	uint64_t accept_errors;
	uint64_t answers[CON_HTTP_STATUSES]; // by con_http_status
};
extern const int con_http_status[CON_HTTP_STATUSES]; // 0: any other

struct con_http;
struct con_http_call; // a request until its answer

struct con_http_ops {
	// Answers or holds. The head is valid during this call only.
	void (*request)(void *ctx, struct con_http_call *call,
			const struct con_http_head *head);
	// A held one: its time is over, or its connection is needed: must be answered.
	void (*expired)(void *ctx, struct con_http_call *call);
	// A held one: the client has gone; the call is not there any more.
	void (*gone)(void *ctx, struct con_http_call *call);
};

struct con_http_options {
	struct sp_loop *loop;
	struct sp_target listen; // port 0: any
	SSL_CTX *tls;            // NULL: plain. A reference of its own is taken
	struct con_http_limits limits;
	const struct con_http_ops *ops; // borrowed
	void *ctx;
};
// 0 and *ret; SP_E_MALFORMED: a name, not an address; -errno of the socket; -ENOMEM.
int con_http_new(const struct con_http_options *opt, struct con_http **ret) SP_MUST_CHECK;
// Closes everything; `gone` is called for what is held. Not from a callback. NULL is
// fine.
void con_http_free(struct con_http *h);
void con_http_address(const struct con_http *h, struct sp_target *ret);
void con_http_set_tls(struct con_http *h, SSL_CTX *tls); // for new connections
const struct con_http_counters *con_http_counters(const struct con_http *h);
unsigned con_http_connections(const struct con_http *h);
unsigned con_http_held(const struct con_http *h);

struct con_http_answer {
	int status;
	const char *fields; // further header lines, each with CRLF; NULL: none
	const char *type;   // of the body; NULL: there is none
	const void *body;   // copied
	size_t len;
	bool close;
};
void con_http_answer(struct con_http_call *call, const struct con_http_answer *a);
// Holds the answer back, at most until then.
void con_http_hold(struct con_http_call *call, uint64_t until_us);
const struct sp_target *con_http_peer(const struct con_http_call *call);
// The caller's own, NULL at first in each request.
void con_http_set_data(struct con_http_call *call, void *data);
void *con_http_data(const struct con_http_call *call);

// A context for a certificate with its chain and its key, PEM files. 0 and *ret
// (SSL_CTX_free); SP_E_CONFIG: `why` says which and why; -ENOMEM.
int con_http_tls_new(const char *certificate, const char *key, SSL_CTX **ret, char *why,
		     size_t cap) SP_MUST_CHECK;

#endif
