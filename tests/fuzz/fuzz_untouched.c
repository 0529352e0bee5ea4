// What an application wrote first: any bytes, in pieces; what is taken for a ClientHello
// has its lengths right, and is none any more with a byte more or less.
#include <string.h>

#include "client/untouched.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t more[CLI_UNTOUCHED_MAX + 1];
	struct cli_untouched_budget budget = {.max = CLI_UNTOUCHED_MAX};
	struct cli_untouched k = {0};
	size_t half = size / 2;
	struct iovec iov[2] = {{(void *)(uintptr_t)data, half},
			       {(void *)(uintptr_t)(data + half), size - half}};
	bool hello = cli_untouched_is_hello(data, size);
	if (hello &&
	    (size < 43 || data[0] != 22 || size - 5 != data[3] * 256u + data[4] ||
	     cli_untouched_is_hello(data, size - 1)))
		__builtin_trap();
	if (hello && size < CLI_UNTOUCHED_MAX) {
		memcpy(more, data, size);
		if (cli_untouched_is_hello(more, size + 1))
			__builtin_trap();
	}
	if (half)
		cli_untouched_write(&k, &budget, iov, size);
	if (half && size <= CLI_UNTOUCHED_MAX && cli_untouched_may_redo(&k) != hello)
		__builtin_trap();
	cli_untouched_touch(&k, &budget);
	if (budget.bytes)
		__builtin_trap();
	return 0;
}
