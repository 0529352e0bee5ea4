// YAML config: whatever loads, dumps to text that loads to the same values.
#include <stdlib.h>

#include "tests/fuzz/conf_sample.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct sp_conf_errors errs;
	char *text = NULL;
	size_t len = 0;
	void *conf = sp_conf_parse(&sample_table, "fuzz", "/etc", (const char *)data,
				   size, &errs);

	if (!conf) {
		if (errs.n == 0)
			abort();
		return 0;
	}
	FILE *out = open_memstream(&text, &len);
	if (!out || sp_conf_dump(&sample_table, conf, out))
		abort();
	fclose(out);
	void *again = sp_conf_parse(&sample_table, "dump", NULL, text, len, &errs);
	if (!again || sp_conf_diff(&sample_table, conf, again, false, NULL, 0))
		abort();
	sp_conf_free(&sample_table, conf);
	sp_conf_free(&sample_table, again);
	free(text);
	return 0;
}
