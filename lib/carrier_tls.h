// What carrier_tls.c and carrier_tls_ctx.c share; nobody else includes this.
#ifndef SP_CARRIER_TLS_H
#define SP_CARRIER_TLS_H

#include <openssl/ssl.h>

#include "lib/carrier.h"

struct sp_tls {
	unsigned refs; // the owner's and the carriers'
	SSL_CTX *ctx;
	BIO_METHOD *bio;
	bool client;
	bool pinned;
	uint8_t pin[32];
};

BIO_METHOD *tls_bio_method_new(void); // NULL: no memory

#endif
