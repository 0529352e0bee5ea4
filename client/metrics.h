// The client's private listener: its metrics and its readiness.
#ifndef CLI_METRICS_H
#define CLI_METRICS_H

#include "lib/err.h"

struct cli_client;
struct cli_metrics;

// Listens on admin.listen; without that *ret is NULL. `c` outlives it. 0; an error, which
// was logged.
int cli_metrics_new(struct cli_client *c, struct cli_metrics **ret) SP_MUST_CHECK;
void cli_metrics_free(struct cli_metrics *m); // NULL is fine

#endif
