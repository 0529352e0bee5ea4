#include "healthcheck/schedule.h"

// A number in [low, high).
static uint32_t spread(uint32_t low, uint32_t high, uint32_t random)
{
	return low + (uint32_t)(((uint64_t)(high - low) * random) >> 32);
}

void hck_schedule_result(struct hck_schedule *s, const struct hck_schedule_options *opt,
			 bool ok)
{
	if (ok) {
		s->failures = 0;
		s->successes += s->successes < opt->rise;
		if (s->successes >= opt->rise)
			s->suspect = false;
	} else {
		s->successes = 0;
		s->failures += s->failures < UINT32_MAX;
		s->suspect = true;
	}
}

uint32_t hck_schedule_delay_ms(const struct hck_schedule *s,
			       const struct hck_schedule_options *opt, uint32_t random)
{
	uint32_t half = opt->interval_ms / 2;
	uint32_t delay = opt->recheck_ms < half ? opt->recheck_ms : half;
	if (!s->suspect) {
		uint32_t by = (uint32_t)((uint64_t)opt->interval_ms *
					 opt->jitter_percent / 100);
		return spread(opt->interval_ms - by, opt->interval_ms + by + 1, random);
	}
	for (unsigned n = HCK_SCHEDULE_LONG;
	     n < s->failures && delay < opt->down_interval_ms; n++)
		delay *= 2;
	if (delay > opt->down_interval_ms)
		delay = opt->down_interval_ms;
	return spread(delay - delay / 8, delay + 1, random);
}

uint32_t hck_schedule_first_ms(const struct hck_schedule_options *opt, uint32_t random)
{
	return spread(0, opt->interval_ms, random);
}
