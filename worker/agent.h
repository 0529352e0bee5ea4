// The agent: a process beside the exit that speaks with controllers, so that the exit
// never does. It joins the links (to the exit, to controllers) with what follows the
// config (agent_control.h), reports usage (agent_usage.h) and shows metrics
// (agent_metrics.c). It ends with its link to the exit, after it has reported the last
// totals or AGT_END_MS. Not here: traffic, sessions.
#ifndef AGT_AGENT_H
#define AGT_AGENT_H

#include "lib/admin.h"
#include "lib/bus.h"
#include "lib/log.h"
#include "worker/agent_control.h"
#include "worker/agent_usage.h"
#include "worker/local.h"

#define AGT_LINK_FD 3
#define AGT_PING_MS 1000
#define AGT_END_MS  2000
#define AGT_HUNG_MS 5000 // the exit's last beat so long ago: it is not ready
#define AGT_ASKED_MAX                                                                    \
	4096 // directory calls that wait for an answer; the oldest gives way

struct agt_agent_counters {
	uint64_t links, links_lost;                     // to controllers
	uint64_t refused;                               // controllers' refusals
	uint64_t malformed;                             // messages, from either side
	uint64_t directory_calls, directory_unanswered; // for want of a link
};

struct agt_asked {
	uint64_t call, exit_call;
};

struct agt_agent {
	struct sp_loop *loop;
	int sock;
	struct event readable;
	Sallyport__Local__FromExit *hello; // the first message; owned
	struct sp_bus_client *bus;
	struct agt_control *control;
	struct agt_usage *usage;
	struct sp_admin *admin;
	struct sp_timer ping, end;
	struct agt_agent_counters n;
	struct agt_asked asked[AGT_ASKED_MAX];
	uint64_t calls;
	struct sp_ratelimit refused_log;
	uint32_t version; // of the protocol with this controller; 0: not agreed
	bool exit_ready, exit_draining, drain_told, ending;
	uint64_t drain_until_ms;
	uint8_t buf[WRK_LOCAL_PACKET_MAX];
};

// The process: `sallyport-worker agent`. Returns its exit status.
int agt_main(int argc, char **argv);

// agent_metrics.c: opens the admin listener that the exit's hello names, if it does.
void agt_metrics_serve(struct agt_agent *a);
// Milliseconds since the exit wrote its counters; UINT64_MAX: not known.
uint64_t agt_beat_age_ms(struct agt_agent *a);

#endif
