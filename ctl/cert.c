#include "ctl/cert.h"

#include <arpa/inet.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/carrier.h"

#define DAY_S 86400

static bool is_address(const char *name)
{
	uint8_t a[16];
	return inet_pton(AF_INET, name, a) == 1 || inet_pton(AF_INET6, name, a) == 1;
}

static bool set_names(X509 *x, const char *name)
{
	char alt[300];
	X509_NAME *n = X509_get_subject_name(x);
	snprintf(alt, sizeof(alt), "%s:%s", is_address(name) ? "IP" : "DNS", name);
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, alt);
	bool ok =
		e && X509_add_ext(x, e, -1) == 1 &&
		X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_ASC,
					   (const unsigned char *)name, -1, -1, 0) == 1 &&
		X509_set_issuer_name(x, n) == 1;
	X509_EXTENSION_free(e);
	return ok;
}

static bool set_serial(X509 *x)
{
	unsigned char b[16];
	if (RAND_bytes(b, sizeof(b)) != 1)
		return false;
	b[0] &= 0x7f;
	BIGNUM *n = BN_bin2bn(b, sizeof(b), NULL);
	bool ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x));
	BN_free(n);
	return ok;
}

// The text of a memory BIO, malloc'd; NULL: none.
static char *text_of(BIO *b)
{
	char *data, *text;
	long n = BIO_get_mem_data(b, &data);
	if (n <= 0 || !(text = malloc((size_t)n + 1)))
		return NULL;
	memcpy(text, data, (size_t)n);
	text[n] = '\0';
	return text;
}

int ctl_cert_make(const char *name, uint64_t now_s, unsigned days, char **ret_cert,
		  char **ret_key)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	BIO *cert_pem = BIO_new(BIO_s_mem()), *key_pem = BIO_new(BIO_s_secmem());
	char *cert = NULL, *secret = NULL;
	time_t t = (time_t)now_s;
	if (key && x && cert_pem && key_pem && X509_set_version(x, 2) == 1 &&
	    set_serial(x) && set_names(x, name) &&
	    X509_time_adj_ex(X509_getm_notBefore(x), -1, 0, &t) &&
	    X509_time_adj_ex(X509_getm_notAfter(x), (int)days, 0, &t) &&
	    X509_set_pubkey(x, key) == 1 && X509_sign(x, key, EVP_sha256()) > 0 &&
	    PEM_write_bio_X509(cert_pem, x) == 1 &&
	    PEM_write_bio_PrivateKey(key_pem, key, NULL, NULL, 0, NULL, NULL) == 1) {
		cert = text_of(cert_pem);
		secret = text_of(key_pem);
	}
	BIO_free(key_pem);
	BIO_free(cert_pem);
	X509_free(x);
	EVP_PKEY_free(key);
	if (!cert || !secret) {
		free(cert);
		free(secret);
		return SP_E_CRYPTO;
	}
	*ret_cert = cert;
	*ret_key = secret;
	return 0;
}

static uint64_t unix_time(const ASN1_TIME *t)
{
	struct tm tm;
	return ASN1_TIME_to_tm(t, &tm) == 1 ? (uint64_t)timegm(&tm) : 0;
}

int ctl_cert_read(const char *path, struct ctl_cert_info *ret)
{
	struct ctl_cert_info info = {0};
	FILE *f = fopen(path, "re");
	X509 *x = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
	if (f)
		fclose(f);
	if (!x || sp_tls_pin_of_file(path, info.pin)) {
		X509_free(x);
		return SP_E_CONFIG;
	}
	X509_NAME_oneline(X509_get_subject_name(x), info.subject, sizeof(info.subject));
	info.not_before_s = unix_time(X509_get0_notBefore(x));
	info.expires_s = unix_time(X509_get0_notAfter(x));
	X509_free(x);
	*ret = info;
	return 0;
}
