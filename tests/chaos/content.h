// What the bytes of a chaos stream are, and what a receiver makes of those that came.
// Pure: no I/O, no clock. Eight bytes at a multiple of eight are a bijection of (stream,
// direction, offset), so bytes at the wrong place say where they belong.
#ifndef CHAOS_CONTENT_H
#define CHAOS_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	CONTENT_UP = 0, // from the application to the destination
	CONTENT_DOWN = 1,
	CONTENT_RUNS = 32,         // that a receiver remembers
	CONTENT_IDS = 1 << 24,     // a stream's number is below
	CONTENT_FOREIGN_NONE = -1, // bytes that belong nowhere
};

// Bytes that came one after the other and belong one after the other: content offsets
// [from, to) of stream `id`. id is CONTENT_FOREIGN_NONE if they belong nowhere; then only
// to - from means something.
struct content_run {
	int64_t id;
	int dir;
	uint64_t from, to;
};

// A receiver of one direction of one stream.
struct content_track {
	uint32_t id;
	int dir;
	uint64_t bytes;  // that came
	unsigned n_runs; // beyond CONTENT_RUNS only counted
	struct content_run runs[CONTENT_RUNS];
};

// Writes the `len` bytes at `offset` of a direction of a stream.
void content_fill(uint32_t id, int dir, uint64_t offset, uint8_t *buf, size_t len);

void content_track_init(struct content_track *t, uint32_t id, int dir);

// Takes the bytes that came next. True: they are the ones that were due.
bool content_track_take(struct content_track *t, const uint8_t *buf, size_t len);

// Whether all that came is [0, bytes), each once and in order.
bool content_track_good(const struct content_track *t);

#endif
