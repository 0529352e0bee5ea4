// A self-signed certificate and its key in files of a fresh directory, for tests.
#ifndef TLS_FILES_H
#define TLS_FILES_H

#include <assert.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TLS_NAME "exit.example.net"

struct tls_files {
	char dir[64], cert[80], key[80];
};

static inline void tls_files_make(struct tls_files *f)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	X509V3_CTX ctx;
	X509_EXTENSION *san;
	FILE *out;

	strcpy(f->dir, "/tmp/sallyport-test-XXXXXX");
	assert(key && x && mkdtemp(f->dir));
	snprintf(f->cert, sizeof(f->cert), "%s/cert.pem", f->dir);
	snprintf(f->key, sizeof(f->key), "%s/key.pem", f->dir);
	X509_set_version(x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
	X509_gmtime_adj(X509_getm_notBefore(x), -3600);
	X509_gmtime_adj(X509_getm_notAfter(x), 86400);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
				   (const unsigned char *)TLS_NAME, -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	X509_set_pubkey(x, key);
	X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
	san = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_alt_name,
				  "DNS:" TLS_NAME ",IP:127.0.0.1");
	assert(san && X509_add_ext(x, san, -1));
	X509_EXTENSION_free(san);
	assert(X509_sign(x, key, EVP_sha256()));
	out = fopen(f->cert, "w");
	assert(out && PEM_write_X509(out, x));
	fclose(out);
	out = fopen(f->key, "w");
	assert(out && PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL));
	fclose(out);
	X509_free(x);
	EVP_PKEY_free(key);
}

static inline void tls_files_remove(const struct tls_files *f)
{
	unlink(f->cert);
	unlink(f->key);
	rmdir(f->dir);
}

#endif
