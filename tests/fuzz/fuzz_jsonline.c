// Places in JSON: whatever the text and the path, a line of the text is named.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/jsonline.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// The path, a NUL, the text.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = memchr(data, '\0', size);
	size_t lines = 1;

	if (!text)
		return 0;
	text++;
	size_t len = size - (size_t)(text - (const char *)data);
	for (size_t i = 0; i < len; i++)
		lines += text[i] == '\n';
	size_t line = ctl_json_line(text, len, (const char *)data);
	if (line < 1 || line > lines)
		abort();
	return 0;
}
