// Values of the command line: durations, times, numbers with units, lists of KEY=VALUE.
// Pure. Not here: which option takes what.
#ifndef CTL_PARSE_H
#define CTL_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

// "90s", "25h", "7d", "2w" in seconds, more than none and at most ten years. 0;
// SP_E_MALFORMED.
int ctl_parse_duration(const char *text, uint64_t *ret_s) SP_MUST_CHECK;
// RFC 3339 in UTC ("2026-01-31T12:00:00Z"), or seconds since 1970. 0; SP_E_MALFORMED.
int ctl_parse_time(const char *text, uint64_t *ret_s) SP_MUST_CHECK;
// Decimal digits, at most `max`; `units`: K, M and G (1024 each) may follow. 0;
// SP_E_MALFORMED.
int ctl_parse_number(const char *text, uint64_t max, bool units,
		     uint64_t *ret) SP_MUST_CHECK;

#define CTL_TIME_CAP 48
// RFC 3339 in UTC to buf of CTL_TIME_CAP. Returns buf.
char *ctl_format_time(uint64_t time_s, char *buf);
// "in 24 h 59 min", "3 min ago", to buf of CTL_TIME_CAP. Returns buf.
char *ctl_format_distance(uint64_t time_s, uint64_t now_s, char *buf);

// One KEY=VALUE of a list with commas between, at *at of `text` (changed: NULs are put
// behind key and value). *ret_key is NULL where there is no '='. False: no more.
bool ctl_parse_item(char **at, char **ret_key, char **ret_value);

#endif
