// The TLS of the config endpoint: as a web server has it.
#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

#include "controller/http.h"

static const unsigned char alpn[] = "\x08http/1.1";

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
		       const unsigned char *in, unsigned in_len, void *arg)
{
	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto((unsigned char **)out, out_len, alpn, sizeof(alpn) - 1,
				  in, in_len) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	return SSL_TLSEXT_ERR_OK;
}

static int failed(SSL_CTX *ctx, const char *what, const char *path, char *why, size_t cap)
{
	unsigned long e = ERR_peek_error(); // the first: the cause
	const char *text = ERR_SYSTEM_ERROR(e) ? strerror(ERR_GET_REASON(e))
					       : ERR_reason_error_string(e);
	if (cap)
		snprintf(why, cap, "%s %s: %s", what, path, text ? text : "failed");
	ERR_clear_error();
	SSL_CTX_free(ctx);
	return SP_E_CONFIG;
}

int con_http_tls_new(const char *certificate, const char *key, SSL_CTX **ret, char *why,
		     size_t cap)
{
	ERR_clear_error();
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	if (!ctx || !SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION)) {
		SSL_CTX_free(ctx);
		return -ENOMEM;
	}
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_RENEGOTIATION |
					 SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_alpn_select_cb(ctx, select_alpn, NULL);
	if (SSL_CTX_use_certificate_chain_file(ctx, certificate) != 1)
		return failed(ctx, "certificate", certificate, why, cap);
	if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
		return failed(ctx, "key", key, why, cap);
	if (SSL_CTX_check_private_key(ctx) != 1)
		return failed(ctx, "key", key, why, cap);
	*ret = ctx;
	return 0;
}
