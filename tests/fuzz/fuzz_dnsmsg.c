// DNS responses: the first byte chooses the family, the rest is the message.
#include "worker/dnsmsg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wrk_dnsanswer a;
	if (size == 0)
		return 0;
	if (wrk_dnsmsg_parse(data + 1, size - 1, data[0] & 1 ? AF_INET6 : AF_INET, &a))
		return 0;
	if (a.n > WRK_DNS_ADDRS_MAX || (a.n > 0) != (a.status == SP_REASON_NONE) ||
	    a.ttl_s > INT32_MAX)
		__builtin_trap();
	return 0;
}
