// In which line of a JSON text a member stands, for errors. Pure. Not here: judging JSON
// (jansson does, and gives no places of what it has read).
#ifndef CTL_JSONLINE_H
#define CTL_JSONLINE_H

#include <stddef.h>

// The line, from 1, of the member that `path` names ("tiers.default.max_streams",
// "exits[2].name"; it ends at a colon or NUL), or of the innermost one around it that is
// there. The text is whole JSON; of any other a line of it.
size_t ctl_json_line(const char *text, size_t len, const char *path);

#endif
