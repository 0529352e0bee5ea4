// Heads of HTTP requests: what parses has texts inside the input and no control
// characters in them.
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "controller/http_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct con_http_head h;
	char *text = malloc(size + 1), wait[8];
	memcpy(text, data, size);
	int status = con_http_parse(text, size, &h);
	if (status == 0) {
		assert(h.path >= text && h.path + strlen(h.path) <= text + size);
		assert(*h.path && !strpbrk(h.path, " \r\n?"));
		for (unsigned i = 0; i < h.n_fields; i++) {
			assert(*h.field[i].name && !strpbrk(h.field[i].value, "\r\n"));
			(void)con_http_field(&h, h.field[i].name);
		}
		assert(!con_http_parameter(&h, "wait", wait, sizeof(wait)) ||
		       strlen(wait) < sizeof(wait));
	} else {
		assert(status == 400 || status == 431 || status == 505);
	}
	free(text);
	return 0;
}
