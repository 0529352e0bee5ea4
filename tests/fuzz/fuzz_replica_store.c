// The last known good config on disk, snapshot and revisions with a true signature around
// any body, or, if the first byte is odd, the bytes as they are.
#include <string.h>

#include <sodium.h>

#include "lib/replica_store.h"
#include "tests/fuzz/fuzz_folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(const char *name, enum sp_signed_kind kind, const uint8_t *secret,
		const uint8_t *data, size_t size)
{
	size_t cap = size + SP_SIGNED_LINE_MAX;
	char *text = malloc(cap);
	int n = secret ? sp_signed_seal_text(kind, secret, data, size, text, cap) : 0;
	fuzz_file(name, n > 0 ? (const void *)text : data, n > 0 ? (size_t)n : size);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sp_replica r = {0};
	struct sp_replica_store *s;
	uint8_t seed[32] = {9}, public_key[32], secret[64];
	if (size < 2 || sodium_init() < 0)
		return 0;
	fuzz_quiet();
	crypto_sign_seed_keypair(public_key, secret, seed);
	if (sp_signed_keys_add(&r.keys, public_key))
		abort();
	bool raw = data[0] % 2;
	size_t half = data[1] * (size - 2) / 255;
	put("snapshot", SP_SIGNED_SNAPSHOT, raw ? NULL : secret, data + 2, half);
	put("revisions", SP_SIGNED_REVISION, raw ? NULL : secret, data + 2 + half,
	    size - 2 - half);
	if (sp_replica_store_new(fuzz_folder, &s))
		abort();
	(void)!sp_replica_store_load(s, &r);
	(void)sp_replica_store_wants_snapshot(s);
	sp_replica_store_free(s);
	sp_replica_done(&r);
	return 0;
}
