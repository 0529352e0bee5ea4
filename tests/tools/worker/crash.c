// A worker whose taking over crashes: a part of it in the place of wrk_sessions_adopt.
#include <stdlib.h>

#include "worker/sessions.h"

void __wrap_wrk_sessions_adopt(struct wrk_sessions *t, bool *owned, int n_owned,
			       struct wrk_sessions_found *ret);

void __wrap_wrk_sessions_adopt(struct wrk_sessions *t, bool *owned, int n_owned,
			       struct wrk_sessions_found *ret)
{
	(void)t, (void)owned, (void)n_owned, (void)ret;
	abort();
}
