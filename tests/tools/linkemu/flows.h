// The TCP connections that an emulator has seen: bytes and sequence numbers each way, and
// whether a connection is frozen. And the address translation of one end. Pure: no I/O,
// no clock. Both have a size; a stale entry makes room.
#ifndef EMU_FLOWS_H
#define EMU_FLOWS_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/tools/linkemu/packet.h"

#define EMU_FLOWS_MAX  4096 // in sets of EMU_FLOWS_WAYS; the stalest of its set makes room
#define EMU_FLOWS_WAYS 16
#define EMU_NAT_MAX    1024

// ---- what a packet or a connection must be to be meant ----

struct emu_match { // 0 in a field: any
	uint8_t proto;
	struct emu_addr src, dst;
};
bool emu_match_packet(const struct emu_match *m, const struct emu_ip *ip);

// ---- connections ----

struct emu_half {               // what one side sent
	uint64_t payload;       // bytes that were let pass, repeats too
	uint32_t next;          // sequence number after the last byte that arrived
	uint32_t ack;           // the last acknowledgement it sent
	bool arrived, said_ack; // whether the two mean anything
};

struct emu_flow {
	struct emu_addr side[2]; // side[0] was the first to be seen
	struct emu_half half[2]; // what side[i] sent
	bool frozen[2];          // nothing that side[i] sends passes
	uint64_t used;           // 0: free
};

struct emu_flows {
	uint64_t clock;
	struct emu_flow flow[EMU_FLOWS_MAX];
};

// The connection of a TCP packet, made if it is new, anew if it is a SYN of ports used
// before. *ret_side: which side sent the packet. Never NULL.
struct emu_flow *emu_flows_of(struct emu_flows *f, const struct emu_ip *ip,
			      unsigned *ret_side);
// The packet arrived at its destination.
void emu_flows_arrived(struct emu_flows *f, const struct emu_ip *ip);

// ---- address translation of one end ----

struct emu_mapping {
	uint8_t proto;
	uint16_t inside, outside; // ports
	uint32_t address;         // seen outside
	uint64_t used;            // 0: free
};

struct emu_nat {
	bool on;
	uint32_t address;   // of new mappings
	uint16_t last_port; // given
	uint64_t clock;
	struct emu_mapping map[EMU_NAT_MAX];
};

// Begins; new mappings are seen from `address`.
void emu_nat_start(struct emu_nat *n, uint32_t address);
// A packet leaves the end: its source is translated. Only TCP and UDP with ports.
void emu_nat_out(struct emu_nat *n, uint8_t *data, struct emu_ip *ip);
// A packet comes for the end, whose own address is `inside`. False: no mapping leads
// there, drop it.
bool emu_nat_in(struct emu_nat *n, uint8_t *data, struct emu_ip *ip, uint32_t inside);
// Forgets mappings (0: of all protocols; 0: of all inside ports). How many it was.
unsigned emu_nat_rebind(struct emu_nat *n, uint8_t proto, uint16_t inside);

#endif
