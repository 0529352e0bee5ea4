// Both handshakes, read by responder and initiator: byte 0 says which.
#include <sodium.h>

#include "lib/noise.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t secret[32] = {1, 2, 3};
	uint8_t public_key[32], msg[256], out[4096];
	struct sp_noise_keys keys = {secret, public_key, public_key, secret};
	struct sp_noise ns;

	if (size < 1 || size > sizeof(out) || sodium_init() < 0)
		return 0;
	crypto_scalarmult_base(public_key, secret);
	if (sp_noise_init(&ns, data[0] & 1 ? SP_NOISE_NNPSK0 : SP_NOISE_IK,
			  data[0] & 2 ? SP_NOISE_INITIATOR : SP_NOISE_RESPONDER, "p", 1,
			  &keys))
		return 0;
	sp_noise_set_ephemeral(&ns, secret);
	if ((data[0] & 2) && sp_noise_write(&ns, NULL, 0, msg, sizeof(msg)) < 0)
		__builtin_trap();
	if (sp_noise_read(&ns, data + 1, size - 1, out, sizeof(out)) > (int)size)
		__builtin_trap();
	sp_noise_done(&ns);
	return 0;
}
