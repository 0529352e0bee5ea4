// How long streams stood still: from the last record that came before a carrier fell
// silent, or from its end, until the session goes on.
#include "client/uplink_internal.h"

void pause_begin(struct stay *y, uint64_t since_us)
{
	struct sp_session_stats st = {0};
	if (y->session)
		sp_session_stats(y->session, &st);
	if (!y->paused_since_us && st.streams)
		y->paused_since_us = since_us;
}

void pause_end(struct stay *y)
{
	uint64_t now_us = sp_loop_now_us(y->u->opt.loop);
	if (y->paused_since_us && now_us > y->paused_since_us)
		sp_histogram_observe(&y->u->resumes.pauses,
				     (double)(now_us - y->paused_since_us) / 1e6);
	y->paused_since_us = 0;
}

void pause_init(struct cli_uplink *u)
{
	static const double bounds[] = {0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1,
					1.5,  2.5, 5,    10,   30,  120};
	sp_histogram_init(&u->resumes.pauses, bounds, sizeof(bounds) / sizeof(bounds[0]));
}
