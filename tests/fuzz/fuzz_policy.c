// Exit policy: 17 bytes of address and port, then rules, one a line. An IPv4 address is
// judged alike in its mapped form, and no form that holds a refused one may pass.
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

#include "lib/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool allowed(const struct sp_policy *p, const char *prefix, size_t at,
		    const uint8_t *v4, uint8_t port)
{
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	memcpy(&in6.sin6_addr, prefix, at);
	memcpy((uint8_t *)&in6.sin6_addr + at, v4, 4);
	return sp_policy_check(p, SP_PROTO_TCP, (struct sockaddr *)&in6) ==
	       SP_POLICY_ALLOWED;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char mapped[12] = "\0\0\0\0\0\0\0\0\0\0\xff\xff";
	static const char nat64[12] = "\0\x64\xff\x9b", sixtofour[2] = "\x20\x02";
	struct sp_policy *p;
	char rules[512] = "", error[SP_POLICY_ERROR_MAX], *rest = rules, *rule;
	if (size < 17 || size - 17 >= sizeof(rules) || sp_policy_new(&p))
		return 0;
	memcpy(rules, data + 17, size - 17);
	while ((rule = strsep(&rest, "\n")))
		if (sp_policy_add(p, rule, error, sizeof(error)) && !strlen(error))
			__builtin_trap();
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(data[16])};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(data[16])};
	memcpy(&in.sin_addr, data, 4);
	memcpy(&in6.sin6_addr, data, 16);
	bool v4 = sp_policy_check(p, SP_PROTO_TCP, (struct sockaddr *)&in) ==
		  SP_POLICY_ALLOWED;
	if (allowed(p, mapped, 12, data, data[16]) != v4 ||
	    (!v4 && (allowed(p, nat64, 12, data, data[16]) ||
		     allowed(p, sixtofour, 2, data, data[16]))))
		__builtin_trap();
	(void)sp_policy_check(p, SP_PROTO_UDP, (struct sockaddr *)&in6);
	sp_policy_free(p);
	return 0;
}
