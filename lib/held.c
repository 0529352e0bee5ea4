#include "lib/held.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "lib/file.h"

int sp_held_load(const char *path, struct sp_fleet_revision *ret, char *why, size_t cap)
{
	struct sp_file_read how = {.max = 64};
	struct sp_fleet_revision rev = {0};
	uint8_t *buf = NULL;
	size_t len = 0;
	int used = 0, err = sp_file_read(path, &how, &buf, &len, why, cap);
	if (err == -ENOENT) {
		*ret = rev;
		return 0;
	}
	if (err)
		return err;
	if (sscanf((const char *)buf, "%" SCNu32 ".%" SCNu64 "\n%n", &rev.epoch,
		   &rev.sequence, &used) != 2 ||
	    (size_t)used != len) {
		snprintf(why, cap, "%s: not a revision; remove it to accept any", path);
		err = SP_E_MALFORMED;
	} else {
		*ret = rev;
	}
	sp_file_free(buf, len);
	return err;
}

int sp_held_save(const char *path, const struct sp_fleet_revision *rev, char *why,
		 size_t cap)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "%" PRIu32 ".%" PRIu64 "\n", rev->epoch,
			 rev->sequence);
	return sp_file_write(path, text, (size_t)n, 0600, why, cap);
}
