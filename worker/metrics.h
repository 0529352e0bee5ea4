// What the worker counts, in the Prometheus text format, and its admin listener:
// /metrics, /livez, /readyz. Never a user's name, an address or a destination: the only
// label that says anything of a user is `tier`. Not here: counting.
#ifndef WRK_METRICS_H
#define WRK_METRICS_H

#include "worker/worker.h"

// Opens admin.listen, if the config names one. 0; an error, which was logged.
int wrk_metrics_serve(struct wrk_worker *w) SP_MUST_CHECK;

// The families themselves, without those of the process.
void wrk_metrics_write(struct wrk_worker *w, struct sp_metrics_writer *m);

#endif
