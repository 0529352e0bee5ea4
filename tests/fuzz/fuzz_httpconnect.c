// HTTP CONNECT heads: byte 0 is how the rest is split.
#include "client/httpconnect.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cli_http p;
	enum cli_http_event ev = CLI_HTTP_MORE;
	size_t step = size ? data[0] + 1u : 1, at = 1;
	cli_http_init(&p);
	while (at < size && ev == CLI_HTTP_MORE) {
		size_t n = size - at < step ? size - at : step;
		size_t used = cli_http_feed(&p, (const char *)data + at, n, &ev);
		if (used > n || (ev == CLI_HTTP_MORE && used != n))
			__builtin_trap();
		at += used;
	}
	if (ev == CLI_HTTP_REQUEST && p.target.port == 0)
		__builtin_trap();
	return 0;
}
