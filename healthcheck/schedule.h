// When the next probe of one carrier begins. Pure: no clock, no randomness of its own.
// Not here: probes.
//
// Well: every interval, spread over jitter_percent of it to both sides. After a first
// failure: every recheck, until it is well again for as many probes as the verdict wants,
// or has failed for long; then ever more slowly, up to down_interval. So a death is found
// fast, and a fleet whose half is dead costs no more than one that lives.
#ifndef HCK_SCHEDULE_H
#define HCK_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#define HCK_SCHEDULE_LONG 10 // failures in a row after which it slows down

struct hck_schedule_options {
	uint32_t interval_ms;
	uint32_t recheck_ms; // never more than half of the interval is waited
	uint32_t down_interval_ms;
	unsigned jitter_percent; // of the interval
	unsigned rise;           // successes after which it is well again
};

struct hck_schedule {                 // of one carrier; zero to begin with
	unsigned failures, successes; // in a row
	bool suspect;                 // failed, and not well again
};

void hck_schedule_result(struct hck_schedule *s, const struct hck_schedule_options *opt,
			 bool ok);
// From the beginning of the last probe (or from now if that is over) to the beginning of
// the next. `random`: 32 uniform bits.
uint32_t hck_schedule_delay_ms(const struct hck_schedule *s,
			       const struct hck_schedule_options *opt, uint32_t random);
// Of the very first one: anywhere in an interval, so that vantages and nodes do not march
// in step.
uint32_t hck_schedule_first_ms(const struct hck_schedule_options *opt, uint32_t random);

#endif
