#include "client/freeze.h"

#include <stdbool.h>

bool cli_freeze_silent(struct cli_freeze *f, uint64_t bytes, uint64_t now_ms)
{
	bool had = cli_freeze_budget(f, now_ms) != 0;
	if (bytes < CLI_FREEZE_MIN_BYTES || bytes > CLI_FREEZE_MAX_BYTES) {
		*f = (struct cli_freeze){0};
		return false;
	}
	if (!f->in_row || bytes > 2 * f->least || 2 * bytes < f->least)
		*f = (struct cli_freeze){.least = bytes};
	if (bytes < f->least)
		f->least = bytes;
	f->in_row++;
	if (f->in_row >= CLI_FREEZE_TIMES)
		f->until_ms = now_ms + CLI_FREEZE_KEPT_MS;
	return !had && f->in_row >= CLI_FREEZE_TIMES;
}

void cli_freeze_carried(struct cli_freeze *f, uint64_t bytes)
{
	if (f->in_row && bytes > 4 * f->least)
		*f = (struct cli_freeze){0};
}

// Half of what went through: the other half still passes while the next one comes.
uint64_t cli_freeze_budget(const struct cli_freeze *f, uint64_t now_ms)
{
	return f->in_row >= CLI_FREEZE_TIMES && now_ms < f->until_ms ? f->least / 2 : 0;
}
