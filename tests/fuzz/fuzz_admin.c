// The private listener's request head and its Accept field.
#include <stdlib.h>
#include <string.h>

#include "lib/admin_request.h"
#include "lib/metrics.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sp_admin_request r;
	int status = sp_admin_request_parse((const char *)data, size, &r);

	if (status == 0) {
		if (!memchr(r.path, 0, sizeof(r.path)) ||
		    !memchr(r.accept, 0, sizeof(r.accept)) || (r.is_get && r.is_head))
			abort();
		sp_metrics_accepts_openmetrics(r.accept);
	} else if (status != 400 && status != 505) {
		abort();
	}
	return 0;
}
