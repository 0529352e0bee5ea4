// The controller's journal as a disk may give it back: any bytes behind its first line.
// What it takes is taken again, and as many records of it.
#include <string.h>

#include "controller/journal.h"
#include "tests/fuzz/fuzz_folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int count(void *ctx, const struct con_journal_record *r, char *why, size_t cap)
{
	(void)why;
	(void)cap;
	if (!r->text || (r->private == NULL) != (r->private_len == 0))
		abort();
	*(size_t *)ctx += 1 + r->text_len + r->private_len;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct con_journal *j;
	char why[512];
	uint64_t cut;
	size_t first = 0, again = 0;
	const char *path = fuzz_file("file", data, size);
	if (con_journal_open(path, count, &first, &j, &cut, why, sizeof(why)))
		return 0;
	con_journal_close(j);
	if (cut > size ||
	    con_journal_open(path, count, &again, &j, &cut, why, sizeof(why)))
		abort();
	if (again != first || cut)
		abort();
	con_journal_close(j);
	return 0;
}
