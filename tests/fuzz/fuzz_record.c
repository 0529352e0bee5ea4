// The input as a stream of records under a known key, as it is and with true tags: byte
// 0.
#include <string.h>

#include "lib/record.h"

static void read_all(enum sp_suite suite, uint8_t *buf, size_t len)
{
	static const uint8_t key[32] = {1};
	struct sp_record_rx rx;
	size_t plain_len;
	uint8_t *plain;
	int size;

	if (sp_record_rx_init(&rx, suite, key))
		__builtin_trap();
	while ((size = sp_record_peek(buf, len)) > 0) {
		if ((size_t)size > len)
			__builtin_trap();
		if (sp_record_rx_open(&rx, buf, (size_t)size, &plain, &plain_len))
			break;
		if (plain < buf || plain + plain_len > buf + size || !plain_len)
			__builtin_trap();
		if (plain[plain_len - 1] == 0x1d && sp_record_rx_rekey(&rx))
			__builtin_trap();
		buf += size;
		len -= (size_t)size;
	}
	sp_record_rx_done(&rx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t key[32] = {1};
	static uint8_t buf[SP_RECORD_MAX * 4];
	enum sp_suite suite;
	struct sp_record_tx tx;
	size_t at = 0;

	if (size < 1 || size > SP_RECORD_MAX)
		return 0;
	suite = data[0] & 1 ? SP_SUITE_AES256GCM : SP_SUITE_CHACHA20POLY1305;
	memcpy(buf, data + 1, size - 1);
	read_all(suite, buf, size - 1);
	if (sp_record_tx_init(&tx, suite, key, 0))
		__builtin_trap();
	for (size_t i = 1; i < size;
	     i += 1 + data[i]) { // pieces as long as their first byte
		size_t len = size - i < 1u + data[i] ? size - i : 1u + data[i];
		struct iovec iov = {(void *)(uintptr_t)(data + i), len};
		int got = sp_record_tx_seal(&tx, &iov, 1, buf + at, sizeof(buf) - at);

		if (got < 0)
			break;
		at += (size_t)got;
		if (data[i + len - 1] == 0x1d && sp_record_tx_rekey(&tx, 0))
			__builtin_trap();
	}
	if (at)
		buf[size % at] ^= data[0] & 2; // sometimes damaged on the way
	read_all(suite, buf, at);
	sp_record_tx_done(&tx);
	return 0;
}
