// The exit's part in the control plane, when the local config names control.folder: what
// it tells its agent and what it does at the agent's word: configs, leases, quotas,
// counters. Not here: the process and its link (worker/agent_link.h), sessions'
// records (worker/directory.h), the agent (worker/agent.h).
#ifndef WRK_CONTROL_H
#define WRK_CONTROL_H

#include "lib/err.h"

struct wrk_worker;
struct wrk_control;

// All do nothing without control.folder. Takes the folder and makes the counters; before
// there are sessions. 0; an error, which was logged.
int wrk_control_open(struct wrk_worker *w) SP_MUST_CHECK;
// Starts the agent; when the ports are open. 0; an error, which was logged.
int wrk_control_start(struct wrk_worker *w) SP_MUST_CHECK;
// Counters as they are now, since this process is about to end.
void wrk_control_flush(struct wrk_worker *w);
// Lets the agent go; sessions, which count, are gone by then.
void wrk_control_free(struct wrk_worker *w);

#endif
