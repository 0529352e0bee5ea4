// A self-signed TLS certificate, for a first try and for tests: a client pins it. Not
// here: serving it (lib/carrier.h), authorities.
#ifndef CTL_CERT_H
#define CTL_CERT_H

#include <stdint.h>

#include "lib/err.h"

// A new P-256 key and a certificate for `name` (a host name or an address), valid for
// `days` from a day before `now_s`. 0 and both as PEM (free(), the key after wiping);
// SP_E_CRYPTO.
int ctl_cert_make(const char *name, uint64_t now_s, unsigned days, char **ret_cert,
		  char **ret_key) SP_MUST_CHECK;

struct ctl_cert_info {
	char subject[256];
	uint8_t pin[32]; // SHA-256 of the certificate
	uint64_t not_before_s, expires_s;
};
// Of the first certificate in a PEM file. 0 and *ret; SP_E_CONFIG.
int ctl_cert_read(const char *path, struct ctl_cert_info *ret) SP_MUST_CHECK;

#endif
