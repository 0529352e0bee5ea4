// SOCKS5: byte 0 is how the rest is split; any bytes, and the UDP header.
#include "client/socks5.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cli_socks5 p;
	struct sp_target t;
	enum cli_socks5_event ev = CLI_SOCKS5_MORE;
	size_t step = size ? data[0] + 1u : 1, at = 1;
	uint8_t head[CLI_SOCKS5_HEADER_MAX];
	cli_socks5_init(&p);
	while (at < size && ev <= CLI_SOCKS5_METHOD) {
		size_t n = size - at < step ? size - at : step;
		size_t used = cli_socks5_feed(&p, data + at, n, &ev);
		if (used > n || (ev == CLI_SOCKS5_MORE && used != n))
			__builtin_trap();
		at += used;
	}
	if (size && cli_socks5_udp_parse(data + 1, size - 1, &t) > 0) {
		struct sp_target back;
		size_t n = cli_socks5_udp_header(&t, head);
		if (cli_socks5_udp_parse(head, n, &back) != (int)n ||
		    !sp_target_equal(&t, &back))
			__builtin_trap();
	}
	return 0;
}
