// SOCKS version 5 (RFC 1928), the server's side: what a client says is read here, and
// what it is answered is written here. Pure: no I/O, no clock, no malloc. Not here: what
// to do with a request (client/proxy.h).
//
// Only "no authentication" is offered: the listeners are on loopback.
#ifndef CLI_SOCKS5_H
#define CLI_SOCKS5_H

#include "lib/addr.h"
#include "lib/reason.h"

#define CLI_SOCKS5_REPLY_MAX  22  // reply with an address
#define CLI_SOCKS5_HEADER_MAX 262 // header of a UDP datagram

enum cli_socks5_command {
	CLI_SOCKS5_CONNECT = 1,
	CLI_SOCKS5_BIND = 2,
	CLI_SOCKS5_UDP_ASSOCIATE = 3,
};
enum cli_socks5_code { // REP, section 6
	CLI_SOCKS5_OK = 0,
	CLI_SOCKS5_GENERAL = 1,
	CLI_SOCKS5_NOT_ALLOWED = 2,
	CLI_SOCKS5_NETWORK_UNREACHABLE = 3,
	CLI_SOCKS5_HOST_UNREACHABLE = 4,
	CLI_SOCKS5_REFUSED = 5,
	CLI_SOCKS5_TTL_EXPIRED = 6,
	CLI_SOCKS5_COMMAND = 7,
	CLI_SOCKS5_ADDRESS_TYPE = 8,
};

enum cli_socks5_event {
	CLI_SOCKS5_MORE,      // everything was read, more is needed
	CLI_SOCKS5_METHOD,    // answer 05 00 and go on feeding
	CLI_SOCKS5_NO_METHOD, // answer 05 ff and close
	CLI_SOCKS5_REQUEST,   // command, target hold; the reply is the caller's
	CLI_SOCKS5_REFUSE,    // answer with `code` and close
	CLI_SOCKS5_NOT_SOCKS, // another protocol or version: close
};

struct cli_socks5 {
	uint8_t phase;
	uint8_t command; // enum cli_socks5_command, of a REQUEST
	uint8_t code;    // enum cli_socks5_code, of a REFUSE
	uint16_t have;
	uint8_t buf[CLI_SOCKS5_HEADER_MAX];
	struct sp_target target; // of a REQUEST; for UDP ASSOCIATE where the client will
				 // send from
};

void cli_socks5_init(struct cli_socks5 *p);
// Reads from `buf` up to the next event, in any split of the stream. Returns how many
// bytes it used: all of them for MORE, none beyond the event otherwise (what follows a
// request is the application's). After an event that ends in a close, do not feed.
size_t cli_socks5_feed(struct cli_socks5 *p, const uint8_t *buf, size_t len,
		       enum cli_socks5_event *ret_event);

// A reply with `code` and `bound` (an address; NULL or a name: 0.0.0.0:0) to `buf`, of
// CLI_SOCKS5_REPLY_MAX. Its length.
size_t cli_socks5_reply(enum cli_socks5_code code, const struct sp_target *bound,
			uint8_t *buf);
// What a failed stream's reason is in SOCKS.
enum cli_socks5_code cli_socks5_code(enum sp_reason reason);

// Header of a UDP datagram (section 7). Length of the header, > 0, and *ret_target;
// SP_E_PROTOCOL: a fragment; SP_E_TRUNCATED, SP_E_MALFORMED.
int cli_socks5_udp_parse(const uint8_t *buf, size_t len,
			 struct sp_target *ret_target) SP_MUST_CHECK;
// Writes the header for `target` to `buf`, of CLI_SOCKS5_HEADER_MAX. Its length.
size_t cli_socks5_udp_header(const struct sp_target *target, uint8_t *buf);

#endif
