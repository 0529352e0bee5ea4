// Adopting a replay set from memory that may hold anything.
#include <string.h>

#include <sodium.h>

#include "lib/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint64_t mem[1024];
	struct sp_replay *r;
	uint8_t key[32] = {0};

	if (size > sizeof(mem) || sodium_init() < 0)
		return 0;
	memcpy(mem, data, size);
	if (sp_replay_adopt(mem, size, &r))
		return 0;
	for (uint64_t i = 0; i < 64; i++) {
		key[0] = (uint8_t)i;
		if (!sp_replay_add(r, key, i * 30000) &&
		    !sp_replay_seen(r, key, i * 30000))
			__builtin_trap();
	}
	return 0;
}
