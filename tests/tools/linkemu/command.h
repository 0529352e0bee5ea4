// The commands of the link emulator: one line in, one line out. Pure: no I/O, no clock.
#ifndef EMU_COMMAND_H
#define EMU_COMMAND_H

#include "tests/tools/linkemu/world.h"

#define EMU_LINE_MAX 4096 // bytes of a command or an answer, with the end

// Carries out a line (changed while it is read) and writes the answer, without the line's
// end, into answer[EMU_LINE_MAX]: "ok ..." or "error ...". Time in ns. False: it was
// `quit`.
bool emu_command(struct emu_world *w, char *line, uint64_t now_ns, char *answer);

// What all commands are, for --help.
extern const char emu_command_help[];

#endif
