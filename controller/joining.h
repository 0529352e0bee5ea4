// Nodes on their way into the fleet: enrolments as they come from strangers, within
// budgets and in turn, judged, committed and answered. A part of the role bus. Not here:
// what is judged (controller/enrol.h), the links (controller/hub.h).
#ifndef CON_JOINING_H
#define CON_JOINING_H

#include "controller/controller.h"
#include "controller/hub.h"

// Handshakes and messages of strangers: of one source; of all together, likewise of this
// host. Beyond: to be tried again.
#define CON_JOINING_PER_MINUTE     60
#define CON_JOINING_BURST          60
#define CON_JOINING_ALL_PER_SECOND 200
#define CON_JOINING_ALL_BURST      8000
#define CON_JOINING_SOURCES        4096
#define CON_JOINING_COMMITS_MAX    64   // in the fleet's queue; others wait
#define CON_JOINING_WAIT_MAX       2048 // a further one is refused
#define CON_JOINING_LINES          2    // refusals told in a second; all are counted

struct con_joining;

// 0 and *ret; -ENOMEM.
int con_joining_new(struct con_controller *c, struct con_joining **ret) SP_MUST_CHECK;
// What is on its way into the state goes on, and is answered no more. NULL is fine.
void con_joining_free(struct con_joining *j);

// For the hub's ops of the same names.
enum sp_bus_verdict con_joining_may_enrol(struct con_joining *j, const char *address);
void con_joining_enrol(struct con_joining *j, const struct con_hub_call *call,
		       const char *address, const Sallyport__Fleet__Enrol *m);

void con_joining_metrics(const struct con_joining *j, struct sp_metrics_writer *w);

#endif
