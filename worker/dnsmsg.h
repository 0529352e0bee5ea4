// Reads a name server's response to a query for A or AAAA records (RFC 1035 section 4,
// RFC 3596): addresses and how long they, or their absence, may be kept. Pure: no I/O, no
// clock, no malloc. Not here: sending queries, matching ids (c-ares does both).
#ifndef WRK_DNSMSG_H
#define WRK_DNSMSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lib/addr.h"
#include "lib/err.h"
#include "lib/reason.h"

#define WRK_DNS_ADDRS_MAX 16 // of one name and family; the rest is dropped

struct wrk_dnsanswer {
	int family; // AF_INET or AF_INET6
	// NONE: n > 0 addresses. RESOLVE_FAILED: the name does not exist, or the servers
	// failed. NO_ADDRESS: it has none of this family. RESOLVE_TIMEOUT: no server
	// answered. NO_DESCRIPTORS, NO_MEMORY.
	enum sp_reason status;
	uint32_t ttl_s; // as received; of the absence for a negative answer
	unsigned n;
	uint8_t addr[WRK_DNS_ADDRS_MAX][16]; // the first 4 bytes for AF_INET
};

// A name in the one form in which names are compared: lower case, no final dot (RFC
// 4343). False if it is empty or longer than SP_NAME_MAX. `ret` has room for SP_NAME_MAX
// + 1.
bool wrk_dnsname_fold(const char *name, char *ret);

// Reads a whole response. Every address record of the family in the answer section
// counts: whoever asked a recursive server believes it about the name it asked for. ttl_s
// is the least of the records used and of the CNAMEs in the section (RFC 2181 section 8:
// above 2^31-1 is 0); for NXDOMAIN and no address, min(TTL, MINIMUM) of the SOA in the
// authority section, 0 if there is none (RFC 2308 section 5). A response code but NOERROR
// and NXDOMAIN is RESOLVE_FAILED with ttl_s 0. 0 and *ret; SP_E_TRUNCATED,
// SP_E_MALFORMED: *ret is untouched.
int wrk_dnsmsg_parse(const uint8_t *msg, size_t len, int family,
		     struct wrk_dnsanswer *ret) SP_MUST_CHECK;

#endif
