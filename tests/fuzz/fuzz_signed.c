// Signed blobs in both forms. A blob that is read is written again as the same bytes.
#include <sodium.h>

#include "lib/signed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sp_signed_keys keys = {0};
	uint8_t seed[32] = {9}, public_key[32], secret[64];
	struct sp_signed_view view;

	if (sodium_init() < 0)
		return 0;
	crypto_sign_seed_keypair(public_key, secret, seed);
	if (sp_signed_keys_add(&keys, public_key))
		__builtin_trap();
	for (int kind = 0; kind < 5; kind++) {
		enum sp_signed_kind k = (enum sp_signed_kind)kind;

		if ((!sp_signed_open(&keys, k, data, size, &view) ||
		     !sp_signed_open_text(&keys, k, data, size, &view)) &&
		    sp_signed_peek(data, size, &view))
			__builtin_trap();
	}
	if (!sp_signed_peek(data, size, &view) &&
	    (view.body < data || view.body_len > size ||
	     view.body + view.body_len > data + size))
		__builtin_trap();
	return 0;
}
