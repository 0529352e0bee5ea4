// Where a stream or datagram flow goes: an address or a host name, with a port; its text
// form, its wire form and socket addresses. Pure: no look-ups.
#ifndef SP_ADDR_H
#define SP_ADDR_H

#include <sys/socket.h>

#include "lib/wire.h"

// The numbers are wire format (PROTOCOL.md section 6).
enum sp_target_kind { SP_TARGET_IPV4 = 1, SP_TARGET_NAME = 3, SP_TARGET_IPV6 = 4 };

#define SP_NAME_MAX        253
#define SP_TARGET_TEXT_MAX 264 // longest text of a target with its NUL

struct sp_target {
	uint8_t kind; // enum sp_target_kind
	uint16_t port;
	union {
		uint8_t v4[4];
		uint8_t v6[16];
		char name[SP_NAME_MAX + 1];
	};
};

// Wire form: kind u8 | 4 bytes, or len u8 + name, or 16 bytes | port u16. An unknown
// kind, or a name that sp_target_set_host does not take for one (such as an address in
// text), sets r->err to SP_E_MALFORMED; a final dot of a name is dropped.
void sp_target_get(struct sp_reader *r, struct sp_target *ret);
void sp_target_put(struct sp_writer *w, const struct sp_target *t);

// "host:port", "1.2.3.4:port" or "[v6]:port". 0; SP_E_MALFORMED.
int sp_target_parse(const char *text, struct sp_target *ret) SP_MUST_CHECK;
// Text in the same form; always ends in NUL. Returns buf.
char *sp_target_format(const struct sp_target *t, char *buf, size_t cap);

// A host (address or name, no port) of `len` bytes; port is set to `port`. 0;
// SP_E_MALFORMED.
int sp_target_set_host(struct sp_target *ret, const char *host, size_t len,
		       uint16_t port) SP_MUST_CHECK;
// Letters, digits, hyphens, underscores in labels of 1..63, 253 in all; one final dot is
// allowed (RFC 1123 section 2.1, RFC 2181 section 11).
bool sp_name_is_valid(const char *name, size_t len);

// SP_E_MALFORMED for a name. *ret_len gets the address's length.
int sp_target_to_sockaddr(const struct sp_target *t, struct sockaddr_storage *ret,
			  socklen_t *ret_len) SP_MUST_CHECK;
// Any family but AF_INET and AF_INET6 gives 0.0.0.0:0; a v4-mapped address becomes IPv4.
void sp_target_from_sockaddr(const struct sockaddr *sa, struct sp_target *ret);
bool sp_target_equal(const struct sp_target *a, const struct sp_target *b);

#endif
