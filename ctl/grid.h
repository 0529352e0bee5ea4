// Lists as tables for people. Not here: JSON for programs (out.h).
#ifndef CTL_GRID_H
#define CTL_GRID_H

#include <jansson.h>

#include "ctl/cli.h"

enum ctl_cell {
	CTL_CELL_TEXT,    // texts, numbers; yes and no; lists by commas
	CTL_CELL_TIME,    // Unix seconds, as a distance from now
	CTL_CELL_TIME_MS, // Unix milliseconds, as a time of day
	CTL_CELL_BYTES,   // 1.5M
	CTL_CELL_SHORT,   // the first 12 characters
};

struct ctl_column { // the last has title NULL
	const char *title;
	const char *path; // of the member: "lease.kind"
	enum ctl_cell cell;
};

// Prints a heading and a row for each object of the list; columns in which nobody has
// anything are left out. Nothing in the list: `none`.
void ctl_grid(const struct ctl_call *call, const json_t *list,
	      const struct ctl_column *columns, const char *none);

#endif
