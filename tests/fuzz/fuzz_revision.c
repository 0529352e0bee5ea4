// Revisions and snapshots with a true signature around any body; what opens is staged.
#include <stdlib.h>

#include <sodium.h>

#include "lib/replica.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sp_replica r = {0};
	struct sp_staged s = {0};
	uint8_t seed[32] = {9}, public_key[32], secret[64];
	size_t cap = size + SP_SIGNED_LINE_MAX;
	char *text = malloc(cap);

	if (!text || sodium_init() < 0)
		return 0;
	crypto_sign_seed_keypair(public_key, secret, seed);
	if (sp_signed_keys_add(&r.keys, public_key))
		__builtin_trap();
	int n = sp_signed_seal_text(SP_SIGNED_REVISION, secret, data, size, text, cap);
	if (n > 0 && sp_replica_stage_revision(&r, text, (size_t)n, &s) == 0)
		sp_replica_take(&r, &s);
	n = sp_signed_seal_text(SP_SIGNED_SNAPSHOT, secret, data, size, text, cap);
	if (n > 0 && sp_replica_stage_snapshot(&r, text, (size_t)n, &s) == 0)
		sp_staged_done(&s);
	sp_replica_done(&r);
	free(text);
	return 0;
}
