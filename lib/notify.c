#include "lib/notify.h"

#include <inttypes.h>
#include <systemd/sd-daemon.h>
#include <time.h>

void sp_notify_ready(const char *status)
{
	sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void sp_notify_reloading(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
		   (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000);
}

void sp_notify_stopping(const char *status)
{
	sd_notifyf(0, "STOPPING=1\nSTATUS=%s", status);
}

static void watchdog_fire(void *ctx)
{
	struct sp_watchdog *w = ctx;
	sd_notify(0, "WATCHDOG=1");
	sp_timer_set(&w->timer, sp_loop_now_us(w->timer.loop) + w->every_us);
}

void sp_watchdog_init(struct sp_watchdog *w, struct sp_loop *loop)
{
	uint64_t usec = 0;

	w->every_us = sd_watchdog_enabled(0, &usec) > 0 ? usec / 2 : 0;
	sp_timer_init(&w->timer, loop, watchdog_fire, w);
	if (w->every_us)
		watchdog_fire(w);
}

void sp_watchdog_done(struct sp_watchdog *w)
{
	sp_timer_done(&w->timer);
}
