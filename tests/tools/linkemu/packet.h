// IPv4 packets of the link emulator: what is in one, and the few changes made to one
// (addresses and ports for a NAT, a made RST). Pure: no I/O, no clock, no malloc.
// Not here: IPv6, and ports of fragments.
#ifndef EMU_PACKET_H
#define EMU_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EMU_PACKET_MAX 1600 // bytes of one packet; the devices' MTU is 1500
#define EMU_RST_LEN    40   // bytes of a made RST

enum {
	EMU_ICMP = 1,
	EMU_TCP = 6,
	EMU_UDP = 17,
};

enum {
	EMU_FIN = 1,
	EMU_SYN = 2,
	EMU_RST = 4,
	EMU_ACK = 16,
};

struct emu_addr { // host byte order; 0: none
	uint32_t ip;
	uint16_t port;
};

struct emu_ip { // what a packet says; ports are 0 where it has none
	uint8_t proto;
	struct emu_addr src, dst;
	uint16_t l4;      // where the part after the IP header begins
	uint16_t payload; // bytes after the TCP header; TCP only, as all that follows
	uint8_t flags;
	uint32_t seq, ack;
};

// Reads the packet data[len]. 0, or -EBADMSG: no IPv4, or cut short; `ret` untouched.
int emu_packet_parse(const uint8_t *data, size_t len, struct emu_ip *ret);

// Replaces source or destination in place, with checksums put right (RFC 1624); `ip` is
// what emu_packet_parse said of data and is kept up to date. Ports only where there are.
void emu_packet_set_src(uint8_t *data, struct emu_ip *ip, struct emu_addr to);
void emu_packet_set_dst(uint8_t *data, struct emu_ip *ip, struct emu_addr to);

// Makes an RST from src to dst in data[EMU_RST_LEN]: sequence number `seq`, and, if
// `with_ack`, the acknowledgement `ack`.
void emu_packet_rst(uint8_t *data, struct emu_addr src, struct emu_addr dst, uint32_t seq,
		    bool with_ack, uint32_t ack);

// The sum that a right packet's checksums have: 0. For tests. `proto` 0: of the IP
// header.
uint16_t emu_packet_sum(const uint8_t *data, size_t len, bool ip_header);

#endif
