// The values that commands of the link emulator have: addresses, times, rates, sizes,
// chances. Pure. Not here: what a command does with them.
#ifndef EMU_VALUES_H
#define EMU_VALUES_H

#include "tests/tools/linkemu/path.h"

// "10.1.0.1", "10.1.0.1:80", ":80", "*". 0; -EINVAL, `ret` untouched.
int emu_parse_addr(const char *text, struct emu_addr *ret);
// "1000", "16k", "1m". False: no such number; `ret` untouched.
bool emu_parse_count(const char *text, uint64_t *ret);
// One KEY=VALUE of `link` and `path`, as the help has them. False: not known or out of
// range; `s` is of no use then.
bool emu_parse_setting(struct emu_path_settings *s, const char *key, const char *value);

#endif
