#include "ctl/grid.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "ctl/parse.h"

#define COLUMNS_MAX 16
#define CELL_MAX    600
#define CUT         40 // of every column but the last

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

char *ctl_format_age(uint64_t seconds, char *buf)
{
	static const struct {
		uint64_t from, unit;
		char letter;
	} steps[] = {{2 * 86400, 86400, 'd'}, {2 * 3600, 3600, 'h'}, {120, 60, 'm'}};
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		if (seconds >= steps[i].from) {
			snprintf(buf, CTL_AGE_CAP, "%" PRIu64 "%c",
				 seconds / steps[i].unit, steps[i].letter);
			return buf;
		}
	snprintf(buf, CTL_AGE_CAP, "%" PRIu64 "s", seconds);
	return buf;
}

static void format_clock(json_int_t ms, char *buf)
{
	struct tm tm;
	time_t s = (time_t)(ms / 1000);
	if (!gmtime_r(&s, &tm))
		return;
	size_t len = strftime(buf, CELL_MAX, "%m-%d %H:%M:%S", &tm);
	snprintf(buf + len, CELL_MAX - len, ".%03d", (int)(ms % 1000));
}

static uint64_t age(uint64_t now, json_int_t then)
{
	return then > 0 && (uint64_t)then < now ? now - (uint64_t)then : 0;
}

static void format_number(const struct ctl_call *call, json_int_t n, enum ctl_cell cell,
			  char *buf)
{
	switch (cell) {
	case CTL_CELL_TIME:
		if (n > 0)
			ctl_format_distance((uint64_t)n, call->now_s, buf);
		break;
	case CTL_CELL_TIME_MS:
		if (n > 0)
			format_clock(n, buf);
		break;
	case CTL_CELL_AGE:
		ctl_format_age(n > 0 ? (uint64_t)n : 0, buf);
		break;
	case CTL_CELL_AGE_MS:
		ctl_format_age(n > 0 ? (uint64_t)n / 1000 : 0, buf);
		break;
	case CTL_CELL_SINCE:
		if (n > 0)
			ctl_format_age(age(call->now_s, n), buf);
		break;
	case CTL_CELL_SINCE_MS:
		if (n > 0)
			ctl_format_age(age(call->now_s, n / 1000), buf);
		break;
	case CTL_CELL_BYTES:
		format_bytes((double)n, buf);
		break;
	case CTL_CELL_TEXT:
	case CTL_CELL_SHORT:
	case CTL_CELL_POSITION:
	case CTL_CELL_FAILURES:
	case CTL_CELL_TIMES:
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

static void add_member(char *buf, const char *separator, const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));
	add_text(buf, separator, CELL_MAX);
	add_text(buf, text ? text : "", CELL_MAX);
}

static void format_list(const json_t *list, enum ctl_cell kind, char *buf)
{
	const json_t *e;
	size_t i;
	json_array_foreach((json_t *)(uintptr_t)list, i, e)
	{
		if (kind == CTL_CELL_FAILURES) {
			add_member(buf, i ? ", " : "", e, "vantage");
			add_member(buf, " ", e, "rung");
			add_member(buf, "/", e, "reason");
		} else if (json_is_string(e)) {
			add_text(buf, i ? "," : "", CELL_MAX);
			add_text(buf, json_string_value(e), CELL_MAX);
		}
	}
}

static void format_object(const json_t *o, enum ctl_cell kind, char *buf)
{
	const char *key;
	const json_t *v;
	json_int_t sequence = json_integer_value(json_object_get(o, "sequence"));
	char number[32];
	if (kind == CTL_CELL_POSITION && sequence)
		snprintf(buf, CELL_MAX, "%lld/%lld",
			 (long long)json_integer_value(json_object_get(o, "epoch")),
			 (long long)sequence);
	if (kind != CTL_CELL_TIMES)
		return;
	json_object_foreach((json_t *)(uintptr_t)o, key, v)
	{
		add_text(buf, *buf ? " " : "", CELL_MAX);
		add_text(buf, key, CELL_MAX);
		snprintf(number, sizeof(number), " %.1f", json_number_value(v));
		add_text(buf, number, CELL_MAX);
	}
}

static const char *cell(const struct ctl_call *call, const json_t *row,
			const struct ctl_column *c, char *buf)
{
	const json_t *v = find(row, c->path);
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
		format_list(v, c->cell, buf);
	} else if (json_is_object(v)) {
		format_object(v, c->cell, buf);
	}
	if (c[1].title && strlen(buf) > CUT)
		memcpy(buf + CUT - 2, "..", 3);
	return buf;
}

// ---- tables ----

struct layout {
	size_t n, last; // columns; the last that is shown
	size_t width[COLUMNS_MAX];
};

static size_t count(const struct ctl_column *columns)
{
	size_t n = 0;
	while (columns[n].title && n < COLUMNS_MAX)
		n++;
	return n;
}

static void lay_out(const struct ctl_call *call, const json_t *list,
		    const struct ctl_column *columns, struct layout *l)
{
	char buf[CELL_MAX];
	const json_t *row;
	size_t i;
	*l = (struct layout){.n = count(columns)};
	json_array_foreach((json_t *)(uintptr_t)list, i, row)
	{
		for (size_t c = 0; c < l->n; c++) {
			size_t w = strlen(cell(call, row, &columns[c], buf));
			l->width[c] = w > l->width[c] ? w : l->width[c];
		}
	}
	for (size_t c = 0; c < l->n; c++) {
		size_t w = strlen(columns[c].title);
		if (!l->width[c])
			continue;
		l->last = c;
		l->width[c] = w > l->width[c] ? w : l->width[c];
		if (columns[c].width > l->width[c])
			l->width[c] = columns[c].width;
	}
}

// Blanks before a cell are printed with it, so that no line ends with blanks.
static void print_cell(const struct ctl_call *call, const struct layout *l, size_t c,
		       const char *text, size_t *blanks)
{
	if (l->width[c] && *text) {
		fprintf(call->out, "%*s%s", (int)*blanks, "", text);
		*blanks = 0;
	}
	size_t len = l->width[c] ? strlen(text) : 0;
	if (c == l->last)
		fputs("\n", call->out);
	else if (l->width[c])
		*blanks += 2 + (l->width[c] > len ? l->width[c] - len : 0);
}

static void print_rows(const struct ctl_call *call, const json_t *list,
		       const struct ctl_column *columns, const struct layout *l)
{
	char buf[CELL_MAX];
	const json_t *row;
	size_t i;
	json_array_foreach((json_t *)(uintptr_t)list, i, row)
	{
		size_t blanks = 0;
		for (size_t c = 0; c <= l->last; c++)
			print_cell(call, l, c, cell(call, row, &columns[c], buf),
				   &blanks);
	}
}

void ctl_grid(const struct ctl_call *call, const json_t *list,
	      const struct ctl_column *columns, const char *none)
{
	struct layout l;
	if (json_array_size(list) == 0) {
		fprintf(call->out, "%s\n", none);
		return;
	}
	size_t blanks = 0;
	lay_out(call, list, columns, &l);
	for (size_t c = 0; c <= l.last; c++)
		print_cell(call, &l, c, columns[c].title, &blanks);
	print_rows(call, list, columns, &l);
}

void ctl_grid_rows(const struct ctl_call *call, const json_t *list,
		   const struct ctl_column *columns)
{
	struct layout l = {.n = count(columns)};
	l.last = l.n - 1;
	for (size_t c = 0; c < l.n; c++)
		l.width[c] = columns[c].width ? columns[c].width : 1;
	print_rows(call, list, columns, &l);
}
