// Carriers that fall silent after some bytes each, as where a box on the path lets a
// connection carry 16 KB and then drops it without a word: noticing that, and how many
// bytes a carrier may carry before the next one is dialled beside it. Pure: no I/O, no
// clock, no malloc. Not here: the dials (client/uplink.c).
#ifndef CLI_FREEZE_H
#define CLI_FREEZE_H

#include <stdbool.h>
#include <stdint.h>

#define CLI_FREEZE_MIN_BYTES 2048   // less says nothing of a limit
#define CLI_FREEZE_MAX_BYTES 131072 // more is no such limit
#define CLI_FREEZE_TIMES     2      // like silences in a row that make it one
#define CLI_FREEZE_KEPT_MS   300000 // then it is found out anew

struct cli_freeze { // embed; zero: nothing was noticed
	unsigned in_row;
	uint64_t least;    // bytes that a carrier had carried when it fell silent
	uint64_t until_ms; // the limit is believed in
};

// A carrier fell silent after `bytes`. True: from now on there is a budget.
bool cli_freeze_silent(struct cli_freeze *f, uint64_t bytes, uint64_t now_ms);
// A living carrier has carried `bytes`: four times the limit disproves it.
void cli_freeze_carried(struct cli_freeze *f, uint64_t bytes);
// Bytes after which a carrier's successor is due; 0: no limit is known.
uint64_t cli_freeze_budget(const struct cli_freeze *f, uint64_t now_ms);

#endif
