// Carriers over TLS 1.3 by OpenSSL. Contexts are made in carrier_tls_ctx.c.
#include "lib/carrier_tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/carrier_priv.h"

#define TLS_HANDSHAKE_RECORD 0x16 // RFC 8446, section 5.1
#define TLS_PLAIN_MAX        16384

struct tls_carrier {
	struct sp_carrier c; // first
	struct sp_tls *tls;
	SSL *ssl;
	bool judged; // accepted: the first byte was looked at
	int errnum;  // of the descriptor, while OpenSSL hands its failure up
};

static struct tls_carrier *tls_of(struct sp_carrier *c)
{
	return (struct tls_carrier *)c;
}

// ---- the descriptor, as OpenSSL sees it; no SIGPIPE ----

static int bio_read(BIO *b, char *buf, int cap)
{
	struct tls_carrier *t = BIO_get_data(b);
	ssize_t n;

	BIO_clear_retry_flags(b);
	do
		n = recv(t->c.fd, buf, (size_t)cap, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		BIO_set_retry_read(b);
	else if (n < 0)
		t->errnum = errno;
	return (int)n;
}

static int bio_write(BIO *b, const char *buf, int len)
{
	struct tls_carrier *t = BIO_get_data(b);
	ssize_t n;

	BIO_clear_retry_flags(b);
	do
		n = send(t->c.fd, buf, (size_t)len, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		BIO_set_retry_write(b);
	else if (n < 0)
		t->errnum = errno;
	return (int)n;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
	(void)b;
	(void)num;
	(void)ptr;
	return cmd == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO_METHOD *tls_bio_method_new(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(),
				     "sallyport carrier");

	if (m && BIO_meth_set_read(m, bio_read) && BIO_meth_set_write(m, bio_write) &&
	    BIO_meth_set_ctrl(m, bio_ctrl))
		return m;
	BIO_meth_free(m);
	return NULL;
}

// ---- results of OpenSSL ----

static const char *failure_text(SSL *ssl)
{
	long verify = SSL_get_verify_result(ssl);
	const char *text;

	if (!SSL_is_server(ssl) && verify != X509_V_OK)
		return X509_verify_cert_error_string(verify);
	text = ERR_reason_error_string(ERR_peek_last_error());
	return text ? text : "TLS failed";
}

// What SSL_* said, as a code of this module; 0: the peer ended its direction.
static int result(struct tls_carrier *t, int ret)
{
	switch (SSL_get_error(t->ssl, ret)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		if (t->errnum)
			return carrier_fail(&t->c, -t->errnum);
		return 0;
	default:
		t->c.error = failure_text(t->ssl);
		if (!SSL_is_server(t->ssl) && SSL_get_verify_result(t->ssl) != X509_V_OK)
			return SP_E_AUTH;
		return SP_E_PROTOCOL;
	}
}

static void drop_tls(struct tls_carrier *t)
{
	SSL_free(t->ssl);
	t->ssl = NULL;
	sp_tls_free(t->tls);
	t->tls = NULL;
}

// Accepted: looks at the first byte without taking it. What is not TLS goes on as plain
// TCP. 0: it is TLS; 1: it is not; -EAGAIN; an error.
static int judge_first_byte(struct tls_carrier *t)
{
	uint8_t first;
	ssize_t n;

	do
		n = recv(t->c.fd, &first, 1, MSG_PEEK);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -EAGAIN : carrier_fail(&t->c, -errno);
	t->judged = true;
	if (n == 1 && first == TLS_HANDSHAKE_RECORD)
		return 0;
	drop_tls(t);
	t->c.ops = &carrier_tcp_ops;
	return 1;
}

// Everything that must come before reading and writing. 0: go on; 1: plain TCP now.
static int prepare(struct tls_carrier *t)
{
	int err = carrier_tcp_handshake(&t->c);

	if (!err && SSL_is_server(t->ssl) && !t->judged)
		err = judge_first_byte(t);
	ERR_clear_error();
	t->errnum = 0;
	return err;
}

static int tls_handshake(struct sp_carrier *c)
{
	struct tls_carrier *t = tls_of(c);
	int err = prepare(t);

	if (err)
		return err == 1 ? 0 : err;
	int ret = SSL_do_handshake(t->ssl);
	if (ret == 1)
		return 0;
	err = result(t, ret);
	return err ? err : SP_E_CLOSED;
}

static ssize_t tls_read(struct sp_carrier *c, uint8_t *buf, size_t cap)
{
	struct tls_carrier *t = tls_of(c);
	int err = prepare(t);

	if (err)
		return err == 1 ? sp_carrier_read(c, buf, cap) : err;
	int n = SSL_read(t->ssl, buf, cap > INT32_MAX ? INT32_MAX : (int)cap);
	return n > 0 ? n : result(t, n);
}

// One TLS record: a call never spans two, so that records of ours keep their own.
static ssize_t tls_write(struct sp_carrier *c, const uint8_t *buf, size_t len)
{
	struct tls_carrier *t = tls_of(c);
	int err = prepare(t);

	if (err)
		return err == 1 ? sp_carrier_write(c, buf, len) : err;
	int n = SSL_write(t->ssl, buf, len > TLS_PLAIN_MAX ? TLS_PLAIN_MAX : (int)len);
	if (n > 0)
		return n;
	err = result(t, n);
	return err ? err : SP_E_CLOSED;
}

static int tls_shutdown(struct sp_carrier *c)
{
	struct tls_carrier *t = tls_of(c);

	ERR_clear_error();
	t->errnum = 0;
	// Without a finished handshake (or after a failure) there is no close_notify.
	if (SSL_is_init_finished(t->ssl)) {
		int ret = SSL_shutdown(t->ssl);
		if (ret < 0 && result(t, ret) == -EAGAIN)
			return -EAGAIN;
	}
	return shutdown(c->fd, SHUT_WR) ? carrier_fail(c, -errno) : 0;
}

static void tls_close(struct sp_carrier *c, bool reset)
{
	struct tls_carrier *t = tls_of(c);

	drop_tls(t);
	carrier_tcp_close(c, reset);
}

static const struct sp_carrier_ops tls_ops = {
	.kind = SP_CARRIER_TLS,
	.handshake = tls_handshake,
	.read = tls_read,
	.write = tls_write,
	.shutdown = tls_shutdown,
	.close = tls_close,
};

// ---- making one ----

static bool set_name(SSL *ssl, const char *name)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

	if (X509_VERIFY_PARAM_set1_ip_asc(param, name))
		return true; // an address: no SNI (RFC 6066, section 3)
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(ssl, name) && SSL_set_tlsext_host_name(ssl, name);
}

static bool set_address(SSL *ssl, const struct sockaddr *sa)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

	if (sa->sa_family == AF_INET6)
		return X509_VERIFY_PARAM_set1_ip(
			param,
			(const uint8_t *)&((const struct sockaddr_in6 *)sa)->sin6_addr,
			16);
	return X509_VERIFY_PARAM_set1_ip(
		param, (const uint8_t *)&((const struct sockaddr_in *)sa)->sin_addr, 4);
}

struct sp_carrier *carrier_tls_new(int fd, struct sp_tls *tls, const char *server_name,
				   const struct sockaddr *peer)
{
	struct tls_carrier *t = calloc(1, sizeof(*t));
	BIO *bio = NULL;

	if (!t)
		return NULL;
	t->c.ops = &tls_ops;
	t->c.fd = fd;
	t->ssl = SSL_new(tls->ctx);
	bio = BIO_new(tls->bio);
	if (!t->ssl || !bio)
		goto fail;
	if (tls->client && !tls->pinned &&
	    !(server_name ? set_name(t->ssl, server_name) : set_address(t->ssl, peer)))
		goto fail;
	if (tls->client && tls->pinned && server_name && !set_name(t->ssl, server_name))
		goto fail;
	t->tls = tls;
	tls->refs++;
	BIO_set_data(bio, t);
	BIO_set_init(bio, 1);
	SSL_set_bio(t->ssl, bio, bio);
	if (tls->client)
		SSL_set_connect_state(t->ssl);
	else
		SSL_set_accept_state(t->ssl);
	return &t->c;
fail:
	BIO_free(bio);
	SSL_free(t->ssl);
	free(t);
	return NULL;
}
