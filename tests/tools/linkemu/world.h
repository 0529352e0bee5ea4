// The world of the link emulator: ends, the path from each to each other, and what is
// done to packets between them: blackholes, freezes, translation, made RSTs. Pure: no
// I/O, no clock; packets and times go in, packets for an end come out. Times in ns.
//
// A packet that leaves end A: translated if A is behind a NAT; its end B found by its
// destination; counted with its connection; dropped if a rule or a freeze says so; put
// into the path A > B. What arrives is translated for B and handed out. Rules, freezes
// and connections know addresses as seen outside of a NAT.
#ifndef EMU_WORLD_H
#define EMU_WORLD_H

#include "tests/tools/linkemu/flows.h"
#include "tests/tools/linkemu/path.h"

#define EMU_ENDS_MAX  8
#define EMU_RULES_MAX 64
#define EMU_NAME_MAX  16

enum emu_rule_kind {
	EMU_RULE_NONE,
	EMU_RULE_BLOCK,
	EMU_RULE_FREEZE,
};

struct emu_rule {
	enum emu_rule_kind kind;
	int from, to; // ends; -1: any
	struct emu_match match;
	uint64_t bytes; // freeze: payload a connection may carry that way
	bool one_way;   // freeze: only that way
	uint64_t hits;  // packets dropped (block), connections frozen (freeze)
};

struct emu_end {
	char name[EMU_NAME_MAX];
	uint32_t address;
	struct emu_nat *nat;
	uint64_t strays; // packets from it or for it with nowhere to go
};

struct emu_world {
	struct emu_pool pool;
	uint64_t seed;
	int n;
	struct emu_end end[EMU_ENDS_MAX];
	struct emu_path *path[EMU_ENDS_MAX][EMU_ENDS_MAX];
	struct emu_rule rule[EMU_RULES_MAX];
	struct emu_flows *flows;
	uint64_t blocked, frozen; // packets dropped
	// Hands over a packet for `end`; not kept.
	void (*deliver)(void *ctx, int end, const uint8_t *data, size_t len);
	void *ctx;
};

// Each path's chances follow from `seed` and the two ends. 0; -ENOMEM.
int emu_world_init(struct emu_world *w, uint64_t seed,
		   void (*deliver)(void *ctx, int end, const uint8_t *data, size_t len),
		   void *ctx);
void emu_world_done(struct emu_world *w);

// Adds an end. Its number; -ENOSPC, -EINVAL (a bad or used name, a used address),
// -ENOMEM.
int emu_world_add(struct emu_world *w, const char *name, uint32_t address);
int emu_world_find(const struct emu_world *w, const char *name); // -1: no such end

// A packet, from the pool, leaves `end`. The world owns it from then on.
void emu_world_put(struct emu_world *w, int end, struct emu_packet *k, uint64_t now_ns);
// Delivers all that has arrived by now. When there is more to do; EMU_NEVER.
uint64_t emu_world_run(struct emu_world *w, uint64_t now_ns);

// Adds a rule. Its number from 1; -ENOSPC.
int emu_world_rule(struct emu_world *w, const struct emu_rule *rule);
// Takes one away (0: all of a kind). How many it was. A freeze that goes thaws nothing:
// a connection that was forgotten by a box on the way stays forgotten.
unsigned emu_world_unrule(struct emu_world *w, enum emu_rule_kind kind, unsigned number);

// Sends RSTs for connections between ends a and b (-1: any) that match in one of their
// directions, to both sides or to end `only` (-1: both). How many connections it was.
unsigned emu_world_rst(struct emu_world *w, int a, int b, const struct emu_match *m,
		       int only);

// Which end has this address, also as seen outside of a NAT; -1: none.
int emu_world_end_of(const struct emu_world *w, uint32_t address);

#endif
