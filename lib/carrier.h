// A carrier: a reliable, ordered byte pipe to the other end, behind one small table of
// functions: tcp (carrier_tcp.c), tls (carrier_tls.c), in-memory for tests
// (carrier_mem.c), and relayed, which a program makes of functions of its own
// (carrier_pipe.c). Descriptors are non-blocking and close-on-exec. Not here: the event
// loop, first flights, records (lib/link.h).
//
// Readiness is edge-triggered: after -EAGAIN a reader or writer waits for the next event
// of the descriptor, readable or writable alike (TLS may want either), then tries again.
#ifndef SP_CARRIER_H
#define SP_CARRIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "lib/err.h"

enum sp_carrier_kind {
	SP_CARRIER_TCP = 1,
	SP_CARRIER_TLS = 2,
	SP_CARRIER_MEM = 3,
	SP_CARRIER_RELAY = 4, // over a trunk, from another worker
};
// "tcp", "tls". 0 and *ret; SP_E_MALFORMED.
int sp_carrier_kind_parse(const char *word, enum sp_carrier_kind *ret) SP_MUST_CHECK;
const char *sp_carrier_kind_word(enum sp_carrier_kind kind); // never NULL

// ---- TLS contexts: one per certificate or trust, shared by many carriers ----

struct sp_tls;

// TLS 1.3 only, ALPN http/1.1. PEM files: certificate with its chain, and its key. 0 and
// *ret; SP_E_CONFIG: `ret_why` (or NULL) gets a text of what is wrong; -ENOMEM.
int sp_tls_server_new(const char *cert_file, const char *key_file, struct sp_tls **ret,
		      char *ret_why, size_t why_cap) SP_MUST_CHECK;

struct sp_tls_client_options {
	const char *ca_file; // PEM; NULL: the system's authorities
	// 32 bytes: SHA-256 of the server's certificate (DER), which is then the only
	// thing that is checked; or NULL.
	const uint8_t *pin;
};
int sp_tls_client_new(const struct sp_tls_client_options *opt, struct sp_tls **ret,
		      char *ret_why, size_t why_cap) SP_MUST_CHECK;
// NULL is fine. Carriers made with it go on, so it can be replaced while they live.
void sp_tls_free(struct sp_tls *tls);
// SHA-256 of the (first) certificate in a PEM file, for a pin. 0; SP_E_CONFIG.
int sp_tls_pin_of_file(const char *cert_file, uint8_t *ret_pin) SP_MUST_CHECK;

// ---- making carriers ----

struct sp_carrier;

struct sp_carrier_dial {
	enum sp_carrier_kind kind; // TCP or TLS; with `ready` it is not looked at
	struct sockaddr_storage addr;
	socklen_t addr_len;
	const char *server_name;  // tls: SNI and the name in the certificate; or NULL:
				  // no SNI, and the certificate must name the address
	struct sp_tls *tls;       // tls: from sp_tls_client_new; outlives the carrier
	struct sp_carrier *ready; // one that stands already (in-memory), or NULL
};
// Starts to connect. 0 and *ret; -errno of socket or connect (the peer may refuse at
// once); -EINVAL; -ENOMEM. `ready` becomes the callee's in every case.
int sp_carrier_connect(const struct sp_carrier_dial *d,
		       struct sp_carrier **ret) SP_MUST_CHECK;
// A descriptor from accept(); becomes the callee's in every case. `tls` is the server's
// context, NULL: kind tcp. `peer` is copied; NULL: unknown. 0 and *ret; -ENOMEM.
int sp_carrier_accepted(int fd, const struct sockaddr *peer, struct sp_tls *tls,
			struct sp_carrier **ret) SP_MUST_CHECK;

// Sets the options of a carrier in use: buffers kept short (TCP_NOTSENT_LOWAT), BBR where
// there is one, TCP_USER_TIMEOUT 30 s, keepalive. For dialled ones, and for accepted ones
// once the client has proven itself: a stranger must not see them.
void sp_carrier_tune(struct sp_carrier *c);
// At most this many bytes wait unsent in the kernel before the carrier is writable again
// (TCP_NOTSENT_LOWAT); sp_carrier_tune sets 16 KB.
void sp_carrier_set_lowat(struct sp_carrier *c, int bytes);
// The same by rate: a fifth of a millisecond's worth, from SP_CARRIER_LOWAT_MIN to _MAX.
// What waits in the kernel delays what is urgent by its size over the rate; 16 KB is
// little on a slow path, on a fast one it only costs system calls.
#define SP_CARRIER_LOWAT_MIN (16 << 10)
#define SP_CARRIER_LOWAT_MAX (128 << 10)
struct sp_carrier_rate { // zero to begin with
	uint64_t since_us, bytes;
	uint32_t lowat;
};
// `written` bytes were taken by the carrier now.
void sp_carrier_follow_rate(struct sp_carrier *c, struct sp_carrier_rate *r,
			    size_t written, uint64_t now_us);

// ---- the pipe ----

// Goes on with connect and TLS handshake. 0: done; -EAGAIN; else it failed: SP_E_AUTH
// (the server's certificate), SP_E_PROTOCOL (TLS), SP_E_CLOSED (the peer ended it),
// -errno. Accepted on a tls port: if the first byte does not begin a TLS handshake,
// nothing is consumed and the carrier becomes one of kind TCP (see sp_carrier_kind).
int sp_carrier_handshake(struct sp_carrier *c) SP_MUST_CHECK;
// Reads what is there. Bytes (> 0); 0: the peer ended its direction; -EAGAIN; -ECONNRESET
// and other errors. tls: of one TLS record at most. Does the handshake if it is not done.
ssize_t sp_carrier_read(struct sp_carrier *c, uint8_t *buf, size_t cap) SP_MUST_CHECK;
// Bytes taken (> 0, may be fewer than `len`; tls: one TLS record at most); -EAGAIN; an
// error. After -EAGAIN the next call must begin with the same bytes. len > 0.
ssize_t sp_carrier_write(struct sp_carrier *c, const uint8_t *buf,
			 size_t len) SP_MUST_CHECK;
// Ends this end's direction (close_notify, FIN) after what was written; the other goes
// on. 0; -EAGAIN: call again; an error.
int sp_carrier_shutdown(struct sp_carrier *c) SP_MUST_CHECK;
// Closes and frees. NULL is fine.
void sp_carrier_free(struct sp_carrier *c);
// The same, as a reset (RST), whatever is unsent.
void sp_carrier_reset(struct sp_carrier *c);

// ---- looking at it ----

enum sp_carrier_kind sp_carrier_kind(const struct sp_carrier *c);
int sp_carrier_fd(const struct sp_carrier *c); // -1: in-memory, relayed
// Bytes written that the peer's kernel has not acknowledged; 0 if unknown.
size_t sp_carrier_unacked(const struct sp_carrier *c);
const struct sockaddr *sp_carrier_peer(const struct sp_carrier *c); // AF_UNSPEC: unknown
// What the last failure was, for a log line; "" if there was none. Valid until the next
// call.
const char *sp_carrier_error(const struct sp_carrier *c);
// In-memory and relayed carriers have no descriptor: `ready` is called when reading or
// writing may go on (from inside the other end's calls: only note it). NULL: nobody.
void sp_carrier_on_ready(struct sp_carrier *c, void (*ready)(void *arg), void *arg);

// ---- of a program's own functions: kind RELAY ----

struct sp_carrier_pipe_ops {
	// As sp_carrier_read, _write and _shutdown, without a handshake.
	ssize_t (*read)(void *ctx, uint8_t *buf, size_t cap);
	ssize_t (*write)(void *ctx, const uint8_t *buf, size_t len);
	int (*shutdown)(void *ctx);
	// The carrier is being freed: the last call.
	void (*close)(void *ctx, bool reset);
};
// `peer` is copied; NULL: unknown. 0 and *ret; -ENOMEM: `close` is not called.
int sp_carrier_pipe_new(const struct sp_carrier_pipe_ops *ops, void *ctx,
			const struct sockaddr *peer,
			struct sp_carrier **ret) SP_MUST_CHECK;
// After -EAGAIN: reading or writing may go on.
void sp_carrier_pipe_ready(struct sp_carrier *c);

// ---- in-memory pairs, for tests ----

struct sp_carrier_script {   // zeros: none of it
	size_t read_max;     // most bytes one read gives
	size_t write_max;    // most bytes one write takes
	size_t queue_bytes;  // how much may lie unread (64 KiB)
	uint64_t cut_at;     // resets both ends after so many bytes written by this end
	unsigned again_each; // every n-th read and write gives -EAGAIN first
};
// 0 and both ends in ret[2]; scripts may be NULL. Each end is freed by sp_carrier_free.
int sp_carrier_mem_pair(const struct sp_carrier_script *first,
			const struct sp_carrier_script *second,
			struct sp_carrier *ret[2]) SP_MUST_CHECK;

#endif
