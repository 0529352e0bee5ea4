// Messages to the service manager (sd_notify) and its watchdog. Without NOTIFY_SOCKET
// every call does nothing. Not here: what readiness means.
#ifndef SP_NOTIFY_H
#define SP_NOTIFY_H

#include "lib/loop.h"

// READY=1, at start and when a reload is done. `status`: one line for systemctl status.
void sp_notify_ready(const char *status);
// RELOADING=1 with the monotonic time, as Type=notify-reload wants it; sp_notify_ready
// ends it.
void sp_notify_reloading(void);
void sp_notify_stopping(const char *status);

struct sp_watchdog {
	struct sp_timer timer;
	uint64_t every_us; // half of WatchdogSec=; 0: the manager wants none
};
// Sends WATCHDOG=1 from the loop as often as the manager asks, if it does. So a loop that
// hangs is killed.
void sp_watchdog_init(struct sp_watchdog *w, struct sp_loop *loop);
void sp_watchdog_done(struct sp_watchdog *w);

#endif
