// One direction of an emulated link: a queue with a limit, a line with a rate behind it,
// then a delay; and what goes wrong on the way, from a seed. Pure: no I/O, no clock; the
// time of each call is the caller's, in ns, and never goes back.
//
// A packet that comes in is lost by chance, or refused by a full queue (drop tail), or
// waits for its turn. The head of the queue takes 8 * bytes / rate; then it is delayed.
// All that is set applies to what comes or waits afterwards, not to what is on its way.
#ifndef EMU_PATH_H
#define EMU_PATH_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/tools/linkemu/packet.h"

#define EMU_NEVER           UINT64_MAX
#define EMU_CHANCE_ALWAYS   (UINT64_C(1) << 32)
#define EMU_PATH_HELD_MAX   65536 // packets in one path; the next one is dropped
#define EMU_QUEUE_UNLIMITED UINT32_MAX

struct emu_packet {
	struct emu_packet *next;
	uint64_t due_ns; // in the delay: when it arrives
	uint64_t order;  // among those due at once
	uint64_t arrived_ns;
	uint32_t len;
	uint8_t data[EMU_PACKET_MAX];
};

// Packets that are not in use are kept for the next ones.
struct emu_pool {
	struct emu_packet *free;
};
struct emu_packet *emu_pool_get(struct emu_pool *p); // NULL: out of memory
void emu_pool_put(struct emu_pool *p, struct emu_packet *k);
void emu_pool_done(struct emu_pool *p);

struct emu_path_settings {
	uint64_t delay_ns;
	uint64_t jitter_ns;   // delay is even over +- this, order is kept
	uint64_t rate_bps;    // bits of IP packets a second; 0: no limit
	uint32_t queue_bytes; // with what is being sent; a queue takes one packet always
	uint32_t queue_packets;
	uint64_t late_ns; // how much later a reordered packet comes
	// chances, EMU_CHANCE_ALWAYS: certain
	uint64_t loss, duplicate, reorder;
	bool down; // drops all
};
// No delay, no limit but EMU_PATH_HELD_MAX, nothing goes wrong.
void emu_path_settings_default(struct emu_path_settings *ret);

struct emu_path_counters { // packets, where not said otherwise
	uint64_t in, out, out_bytes;
	uint64_t lost, tail, down; // dropped: by chance, the queue full, the link down
	uint64_t duplicated, reordered;
	uint64_t queue_max_bytes;
};

struct emu_path; // opaque

// An idle path; `seed` decides all chances. `pool` must live longer. 0; -ENOMEM.
int emu_path_new(struct emu_pool *pool, uint64_t seed, struct emu_path **ret);
void emu_path_free(struct emu_path *p); // NULL is fine

const struct emu_path_settings *emu_path_settings(const struct emu_path *p);
const struct emu_path_counters *emu_path_counters(const struct emu_path *p);
// From now on. Going down also throws away what is on its way.
void emu_path_set(struct emu_path *p, const struct emu_path_settings *to,
		  uint64_t now_ns);

// A packet comes in; the path owns it from then on, whatever becomes of it.
void emu_path_put(struct emu_path *p, struct emu_packet *k, uint64_t now_ns);
// The next packet that has arrived by now, the caller's to give back; NULL: none.
struct emu_packet *emu_path_get(struct emu_path *p, uint64_t now_ns);
// When the next one may arrive, as things stand, and not later; EMU_NEVER.
uint64_t emu_path_due(struct emu_path *p, uint64_t now_ns);
// What waits or is on its way.
uint32_t emu_path_held(const struct emu_path *p);

#endif
