// TLS contexts: the operator's certificate on one side, whom to trust on the other.
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/carrier_tls.h"

static const unsigned char alpn[] = "\x08http/1.1";

#define ALPN_BYTES (sizeof(alpn) - 1)

// "what: why of OpenSSL" into the caller's text.
static int config_error(char *ret_why, size_t cap, const char *what, const char *arg)
{
	unsigned long e = ERR_peek_error(); // the first: the cause
	// OpenSSL has no text for errors of the system.
	const char *why = ERR_SYSTEM_ERROR(e) ? strerror(ERR_GET_REASON(e))
					      : ERR_reason_error_string(e);

	if (ret_why && cap)
		snprintf(ret_why, cap, "%s%s%s: %s", what, arg ? " " : "", arg ? arg : "",
			 why ? why : "failed");
	ERR_clear_error();
	return SP_E_CONFIG;
}

// As a web server does it: what the client does not offer ends in an alert (RFC 7301,
// section 3.2).
static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
		       const unsigned char *in, unsigned in_len, void *arg)
{
	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto((unsigned char **)out, out_len, alpn, ALPN_BYTES, in,
				  in_len) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	return SSL_TLSEXT_ERR_OK;
}

static int pin_of(X509 *cert, uint8_t *ret_pin)
{
	unsigned len = 32;

	return cert && X509_digest(cert, EVP_sha256(), ret_pin, &len) && len == 32
		       ? 0
		       : SP_E_CONFIG;
}

static int verify_pin(X509_STORE_CTX *store, void *arg)
{
	const struct sp_tls *tls = arg;
	uint8_t got[32];

	if (!pin_of(X509_STORE_CTX_get0_cert(store), got) &&
	    !sodium_memcmp(got, tls->pin, sizeof(got)))
		return 1;
	X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
	return 0;
}

static struct sp_tls *tls_new(bool client)
{
	struct sp_tls *tls = calloc(1, sizeof(*tls));

	if (!tls)
		return NULL;
	ERR_clear_error();
	tls->refs = 1;
	tls->client = client;
	tls->bio = tls_bio_method_new();
	tls->ctx = SSL_CTX_new(client ? TLS_client_method() : TLS_server_method());
	if (!tls->bio || !tls->ctx ||
	    !SSL_CTX_set_min_proto_version(tls->ctx, TLS1_3_VERSION)) {
		sp_tls_free(tls);
		return NULL;
	}
	SSL_CTX_set_mode(tls->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
					   SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					   SSL_MODE_RELEASE_BUFFERS);
	// A FIN without close_notify is an end like any other here: records authenticate
	// what matters, and the cover site's clients often leave it out.
	SSL_CTX_set_options(tls->ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_read_ahead(tls->ctx, 1);
	return tls;
}

int sp_tls_server_new(const char *cert_file, const char *key_file, struct sp_tls **ret,
		      char *ret_why, size_t why_cap)
{
	struct sp_tls *tls = tls_new(false);
	int err = 0;

	if (!tls)
		return -ENOMEM;
	SSL_CTX_set_alpn_select_cb(tls->ctx, select_alpn, NULL);
	if (SSL_CTX_use_certificate_chain_file(tls->ctx, cert_file) != 1)
		err = config_error(ret_why, why_cap, "certificate", cert_file);
	else if (SSL_CTX_use_PrivateKey_file(tls->ctx, key_file, SSL_FILETYPE_PEM) != 1)
		err = config_error(ret_why, why_cap, "key", key_file);
	else if (SSL_CTX_check_private_key(tls->ctx) != 1)
		err = config_error(ret_why, why_cap, "certificate and key", NULL);
	if (err) {
		sp_tls_free(tls);
		return err;
	}
	*ret = tls;
	return 0;
}

static int set_trust(struct sp_tls *tls, const struct sp_tls_client_options *opt,
		     char *ret_why, size_t why_cap)
{
	SSL_CTX_set_verify(tls->ctx, SSL_VERIFY_PEER, NULL);
	if (opt->pin) {
		tls->pinned = true;
		memcpy(tls->pin, opt->pin, sizeof(tls->pin));
		SSL_CTX_set_cert_verify_callback(tls->ctx, verify_pin, tls);
		return 0;
	}
	if (opt->ca_file && !SSL_CTX_load_verify_file(tls->ctx, opt->ca_file))
		return config_error(ret_why, why_cap, "authorities", opt->ca_file);
	if (!opt->ca_file && !SSL_CTX_set_default_verify_paths(tls->ctx))
		return config_error(ret_why, why_cap, "the system's authorities", NULL);
	return 0;
}

int sp_tls_client_new(const struct sp_tls_client_options *opt, struct sp_tls **ret,
		      char *ret_why, size_t why_cap)
{
	struct sp_tls *tls = tls_new(true);
	int err;

	if (!tls)
		return -ENOMEM;
	err = set_trust(tls, opt, ret_why, why_cap);
	if (!err && SSL_CTX_set_alpn_protos(tls->ctx, alpn, ALPN_BYTES))
		err = -ENOMEM;
	if (err) {
		sp_tls_free(tls);
		return err;
	}
	*ret = tls;
	return 0;
}

void sp_tls_free(struct sp_tls *tls)
{
	if (!tls || --tls->refs)
		return;
	SSL_CTX_free(tls->ctx);
	BIO_meth_free(tls->bio);
	free(tls);
}

int sp_tls_pin_of_file(const char *cert_file, uint8_t *ret_pin)
{
	FILE *f = fopen(cert_file, "re");
	X509 *cert = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
	int err = pin_of(cert, ret_pin);

	if (f)
		fclose(f);
	X509_free(cert);
	ERR_clear_error();
	return err;
}
