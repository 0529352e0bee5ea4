#include "ctl/grid.h"

#include <string.h>
#include <time.h>

#include "ctl/parse.h"

#define COLUMNS_MAX 16
#define CELL_MAX    64

static const json_t *find(const json_t *o, const char *path)
{
	char word[64];
	while (o && *path) {
		size_t n = strcspn(path, ".");
		snprintf(word, sizeof(word), "%.*s", (int)n, path);
		o = json_object_get(o, word);
		path += n + (path[n] == '.');
	}
	return o;
}

static void format_bytes(double v, char *buf)
{
	static const char units[] = " KMGTP";
	unsigned u = 0;
	for (; v >= 1000 && u < 5; u++)
		v /= 1000;
	if (u == 0)
		snprintf(buf, CELL_MAX, "%.0f", v);
	else
		snprintf(buf, CELL_MAX, v < 10 ? "%.1f%c" : "%.0f%c", v, units[u]);
}

static void format_number(const struct ctl_call *call, json_int_t n, enum ctl_cell cell,
			  char *buf)
{
	char distance[CTL_TIME_CAP];
	struct tm tm;
	time_t s = (time_t)(n / 1000);
	if (cell == CTL_CELL_TIME && n > 0) {
		snprintf(buf, CELL_MAX, "%s",
			 ctl_format_distance((uint64_t)n, call->now_s, distance));
	} else if (cell == CTL_CELL_TIME_MS && n > 0 && gmtime_r(&s, &tm)) {
		size_t len = strftime(buf, CELL_MAX, "%m-%d %H:%M:%S", &tm);
		snprintf(buf + len, CELL_MAX - len, ".%03d", (int)(n % 1000));
	} else if (cell == CTL_CELL_BYTES) {
		format_bytes((double)n, buf);
	} else if (cell == CTL_CELL_TEXT || cell == CTL_CELL_SHORT) {
		snprintf(buf, CELL_MAX, "%lld", (long long)n);
	}
}

// A terminal gets no control characters.
static void add_text(char *buf, const char *text, size_t max)
{
	size_t at = strlen(buf);
	for (; *text && at < CELL_MAX - 1 && max; text++, max--)
		buf[at++] = (unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text;
	buf[at] = '\0';
}

static const char *cell(const struct ctl_call *call, const json_t *row,
			const struct ctl_column *c, char *buf)
{
	const json_t *v = find(row, c->path), *e;
	size_t i;
	buf[0] = '\0';
	if (json_is_integer(v)) {
		format_number(call, json_integer_value(v), c->cell, buf);
	} else if (json_is_real(v)) {
		snprintf(buf, CELL_MAX, "%.1f", json_real_value(v));
	} else if (json_is_string(v)) {
		add_text(buf, json_string_value(v),
			 c->cell == CTL_CELL_SHORT ? 12 : CELL_MAX);
	} else if (json_is_boolean(v)) {
		add_text(buf, json_is_true(v) ? "yes" : "no", CELL_MAX);
	} else if (json_is_array(v)) {
		json_array_foreach((json_t *)(uintptr_t)v, i, e)
		{
			add_text(buf, i ? "," : "", CELL_MAX);
			if (json_is_string(e))
				add_text(buf, json_string_value(e), CELL_MAX);
		}
	}
	return buf;
}

void ctl_grid(const struct ctl_call *call, const json_t *list,
	      const struct ctl_column *columns, const char *none)
{
	size_t width[COLUMNS_MAX] = {0}, i, n = 0;
	char buf[CELL_MAX];
	const json_t *row;
	while (columns[n].title && n < COLUMNS_MAX)
		n++;
	if (json_array_size(list) == 0) {
		fprintf(call->out, "%s\n", none);
		return;
	}
	json_array_foreach((json_t *)(uintptr_t)list, i, row)
	{
		for (size_t c = 0; c < n; c++) {
			size_t w = strlen(cell(call, row, &columns[c], buf));
			width[c] = w > width[c] ? w : width[c];
		}
	}
	size_t last = 0;
	for (size_t c = 0; c < n; c++) {
		size_t w = strlen(columns[c].title);
		if (width[c])
			last = c;
		if (width[c] && w > width[c])
			width[c] = w;
	}
	for (size_t c = 0; c <= last; c++)
		if (width[c])
			fprintf(call->out, "%-*s%s", c == last ? 0 : (int)width[c],
				columns[c].title, c == last ? "\n" : "  ");
	json_array_foreach((json_t *)(uintptr_t)list, i, row)
	{
		for (size_t c = 0; c <= last; c++)
			if (width[c])
				fprintf(call->out, "%-*s%s",
					c == last ? 0 : (int)width[c],
					cell(call, row, &columns[c], buf),
					c == last ? "\n" : "  ");
	}
}
