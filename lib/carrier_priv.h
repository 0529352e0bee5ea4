// What the kinds of carriers share (carrier*.c); nobody else includes this.
#ifndef SP_CARRIER_PRIV_H
#define SP_CARRIER_PRIV_H

#include <netinet/in.h>

#include "lib/carrier.h"

// One kind. `close` closes the descriptor and gives back what the kind holds, but not the
// struct itself.
struct sp_carrier_ops {
	enum sp_carrier_kind kind;
	int (*handshake)(struct sp_carrier *c);
	ssize_t (*read)(struct sp_carrier *c, uint8_t *buf, size_t cap);
	ssize_t (*write)(struct sp_carrier *c, const uint8_t *buf, size_t len);
	int (*shutdown)(struct sp_carrier *c);
	void (*close)(struct sp_carrier *c, bool reset);
};

// Each kind's struct begins with this.
struct sp_carrier {
	const struct sp_carrier_ops *ops;
	int fd;
	bool connecting;
	int connect_err;   // -errno of a connect that failed
	const char *error; // static text, or NULL
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} peer;
	void (*ready)(void *arg);
	void *ready_arg;
};

extern const struct sp_carrier_ops carrier_tcp_ops;

// carrier.c: NULL or neither IPv4 nor IPv6: unknown
void carrier_set_peer(struct sp_carrier *c, const struct sockaddr *peer);

// carrier_tcp.c
int carrier_tcp_connect(const struct sp_carrier_dial *d, int *ret_fd) SP_MUST_CHECK;
int carrier_tcp_handshake(struct sp_carrier *c) SP_MUST_CHECK;
void carrier_tcp_close(struct sp_carrier *c, bool reset);
int carrier_fail(struct sp_carrier *c, int err); // notes the text of -errno; gives `err`

// carrier_tls.c: a carrier over `fd` and the connect under way, or accepted.
struct sp_carrier *carrier_tls_new(int fd, struct sp_tls *tls, const char *server_name,
				   const struct sockaddr *peer);

#endif
