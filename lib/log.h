// The log: one line per event to stderr, logfmt or JSON, with every value quoted so that
// hostile bytes can neither forge a field nor drive a terminal. Never log a key, a token
// or a user's destination. lib/ itself logs at debug only. The sink (level, format,
// descriptor) is the one mutable global of lib/.
//
//   sp_info("exit", "listening", "address=%s carrier=%s", text, word);
//   time=2026-01-31T08:00:00.123Z level=info comp=exit msg=listening address=...
//
// The message and the fields are string literals: `key=conversions`, one space between
// fields. Conversions: %s %.*s %c %d %i %u %x with hh h l ll z j, %f %.Nf, %%; no widths.
// The compiler checks them against the arguments.
#ifndef SP_LOG_H
#define SP_LOG_H

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

enum sp_log_level { SP_LOG_DEBUG, SP_LOG_INFO, SP_LOG_WARN, SP_LOG_ERROR };
enum sp_log_format { SP_LOG_LOGFMT, SP_LOG_JSON };

#define SP_LOG_LINE_MAX  2048 // bytes of a line; fields that do not fit are left out
#define SP_LOG_VALUE_MAX 512  // bytes of a value before quoting; the rest is cut off

// Sets the sink. `fd` is borrowed; 2 in programs. If it is the journal's (JOURNAL_STREAM
// names it) each line begins with its syslog priority, "<6>". Before the first call:
// info, logfmt, fd 2.
void sp_log_setup(enum sp_log_level level, enum sp_log_format format, int fd);
// "debug", "info", "warn", "error". 0 and *ret; SP_E_MALFORMED.
int sp_log_level_parse(const char *word, enum sp_log_level *ret) SP_MUST_CHECK;
bool sp_log_on(enum sp_log_level level); // would such a line be written?
// Lines that the sink did not take (a full pipe is not waited for longer than write(2)
// itself does).
uint64_t sp_log_lost(void);

// Use the macros. `fmt`: "message\nfields".
void sp_log_write(enum sp_log_level level, const char *comp, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
// The same to a buffer, without prefix and newline; for tests and other sinks. Returns
// the length written, always < cap; cap >= 64.
size_t sp_log_format_line(char *buf, size_t cap, enum sp_log_format format,
			  uint64_t unix_ms, enum sp_log_level level, const char *comp,
			  const char *fmt, ...) __attribute__((format(printf, 7, 8)));

#define SP_LOG(level, comp, msg, ...)                                                    \
	(sp_log_on(level) ? sp_log_write(level, comp, msg "\n" __VA_ARGS__) : (void)0)
#define sp_debug(comp, msg, ...) SP_LOG(SP_LOG_DEBUG, comp, msg, __VA_ARGS__)
#define sp_info(comp, msg, ...)  SP_LOG(SP_LOG_INFO, comp, msg, __VA_ARGS__)
#define sp_warn(comp, msg, ...)  SP_LOG(SP_LOG_WARN, comp, msg, __VA_ARGS__)
#define sp_error(comp, msg, ...) SP_LOG(SP_LOG_ERROR, comp, msg, __VA_ARGS__)

// ---- where a peer can cause lines ----

// A token bucket; embed one per kind of line. Set per_second and burst (both >= 1), zero
// the rest.
struct sp_ratelimit {
	uint32_t per_second;
	uint32_t burst;
	bool used;
	uint64_t last_ms;    // of the last refill
	uint64_t milli;      // thousandths of a token
	uint64_t suppressed; // since the last line that went through
};
// Takes a token: true. None left: false, and counts it. A time that runs backwards
// refills nothing.
bool sp_ratelimit_ok(struct sp_ratelimit *rl, uint64_t now_ms);
// How many were suppressed since the last call; sets it to 0.
uint64_t sp_ratelimit_take_suppressed(struct sp_ratelimit *rl);

// A line through a limiter; it ends in suppressed=N. At least one field.
#define SP_LOG_LIMITED(rl, now_ms, level, comp, msg, fields, ...)                        \
	(sp_log_on(level) && sp_ratelimit_ok(rl, now_ms)                                 \
		 ? sp_log_write(level, comp, msg "\n" fields " suppressed=%" PRIu64,     \
				__VA_ARGS__, sp_ratelimit_take_suppressed(rl))           \
		 : (void)0)
#define sp_warn_limited(rl, now_ms, comp, msg, fields, ...)                              \
	SP_LOG_LIMITED(rl, now_ms, SP_LOG_WARN, comp, msg, fields, __VA_ARGS__)
#define sp_info_limited(rl, now_ms, comp, msg, fields, ...)                              \
	SP_LOG_LIMITED(rl, now_ms, SP_LOG_INFO, comp, msg, fields, __VA_ARGS__)

#endif
