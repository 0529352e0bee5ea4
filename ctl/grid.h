// Lists as tables for people. Not here: JSON for programs (out.h).
#ifndef CTL_GRID_H
#define CTL_GRID_H

#include <jansson.h>

#include "ctl/cli.h"

enum ctl_cell {
	CTL_CELL_TEXT,     // texts, numbers; yes and no; lists by commas
	CTL_CELL_TIME,     // Unix seconds, as a distance from now
	CTL_CELL_TIME_MS,  // Unix milliseconds, as a time of day
	CTL_CELL_AGE,      // seconds: 12s, 5m, 3h, 9d
	CTL_CELL_AGE_MS,   // milliseconds, likewise
	CTL_CELL_SINCE,    // Unix seconds, as the age since then
	CTL_CELL_SINCE_MS, // Unix milliseconds, likewise
	CTL_CELL_BYTES,    // 1.5M
	CTL_CELL_SHORT,    // the first 12 characters
	CTL_CELL_POSITION, // an object with epoch and sequence: 1/23
	CTL_CELL_FAILURES, // a list of {vantage, rung, reason}: ams handshake/timeout
	CTL_CELL_TIMES,    // an object of milliseconds: connect 0.3 carrier 1.2
};

struct ctl_column { // the last has title NULL
	const char *title;
	const char *path; // of the member: "lease.kind"; "": the row itself
	enum ctl_cell cell;
	unsigned width; // at least, if it is there at all
};

// Prints a heading and a row for each object of the list; columns in which nobody has
// anything are left out. All but the last column are cut at 40 characters. Nothing in the
// list: `none`.
void ctl_grid(const struct ctl_call *call, const json_t *list,
	      const struct ctl_column *columns, const char *none);
// The rows alone, each column as wide as it says at least: of a list that goes on.
void ctl_grid_rows(const struct ctl_call *call, const json_t *list,
		   const struct ctl_column *columns);
// "12s", "5m", "3h", "9d" to buf of CTL_AGE_CAP. Returns buf.
#define CTL_AGE_CAP 24
char *ctl_format_age(uint64_t seconds, char *buf);

#endif
