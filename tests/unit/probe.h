// A prober: a TCP or TLS client that sends, records what comes back and how it ends. It
// is stepped from the test's loop.
#ifndef PROBE_H
#define PROBE_H

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum probe_end { PROBE_OPEN, PROBE_FIN, PROBE_RST };

struct probe {
	int fd;
	SSL *ssl; // NULL: plain
	const uint8_t *out;
	size_t out_len, out_off;
	size_t record;  // at most so many bytes in a write; 0: all at once
	bool fin_after; // half-close once all is sent
	bool fin_sent;
	uint8_t *in;
	size_t in_len, in_cap;
	enum probe_end end;
	bool close_notify; // came before the FIN
};

static inline void probe_start(struct probe *p, const struct sockaddr_in *to, bool tls)
{
	static SSL_CTX *ctx;
	int one = 1;

	memset(p, 0, sizeof(*p));
	p->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert(p->fd >= 0);
	setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(p->fd, (const struct sockaddr *)to, sizeof(*to)))
		assert(errno == EINPROGRESS);
	if (!tls)
		return;
	if (!ctx)
		ctx = SSL_CTX_new(TLS_client_method());
	p->ssl = SSL_new(ctx);
	SSL_set_options(p->ssl, SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_set_mode(p->ssl,
		     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_set_fd(p->ssl, p->fd);
	SSL_set_connect_state(p->ssl);
}

static inline void probe_failed(struct probe *p)
{
	if (errno == ECONNRESET || errno == EPIPE || errno == ECONNREFUSED)
		p->end = PROBE_RST;
}

static inline void probe_write(struct probe *p)
{
	while (p->out_off < p->out_len && !p->end) {
		size_t len = p->out_len - p->out_off;
		ssize_t n;
		if (p->record && len > p->record)
			len = p->record;
		ERR_clear_error();
		errno = 0;
		n = p->ssl ? SSL_write(p->ssl, p->out + p->out_off, (int)len)
			   : send(p->fd, p->out + p->out_off, len, MSG_NOSIGNAL);
		if (n <= 0)
			return; // reading tells of a reset
		p->out_off += (size_t)n;
	}
	if (p->out_off < p->out_len || !p->fin_after || p->fin_sent)
		return;
	if (p->ssl && !SSL_is_init_finished(p->ssl))
		return;
	if (p->ssl)
		(void)SSL_shutdown(p->ssl);
	p->fin_sent = !shutdown(p->fd, SHUT_WR) || p->fin_sent;
}

static inline void probe_read(struct probe *p)
{
	while (!p->end) {
		ssize_t n;
		if (p->in_len + 65536 > p->in_cap) {
			p->in_cap = p->in_cap ? 2 * p->in_cap : 262144;
			p->in = realloc(p->in, p->in_cap);
			assert(p->in);
		}
		ERR_clear_error();
		errno = 0;
		n = p->ssl ? SSL_read(p->ssl, p->in + p->in_len, 65536)
			   : recv(p->fd, p->in + p->in_len, 65536, 0);
		if (n > 0) {
			p->in_len += (size_t)n;
		} else if (p->ssl &&
			   SSL_get_error(p->ssl, (int)n) == SSL_ERROR_ZERO_RETURN) {
			p->close_notify = true;
			p->end = PROBE_FIN;
		} else if (n == 0 && !p->ssl) {
			p->end = PROBE_FIN;
		} else {
			probe_failed(p);
			return;
		}
	}
}

// Moves what can be moved; true once the other side has ended its direction.
static inline bool probe_step(struct probe *p)
{
	probe_write(p);
	probe_read(p);
	return p->end != PROBE_OPEN;
}

static inline void probe_done(struct probe *p)
{
	SSL_free(p->ssl);
	if (p->fd >= 0)
		close(p->fd);
	free(p->in);
	memset(p, 0, sizeof(*p));
	p->fd = -1;
}

#endif
