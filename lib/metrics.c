#include "lib/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// ---- negotiation ----

// Trims blanks. *len is updated.
static const char *trim(const char *p, size_t *len)
{
	while (*len && (*p == ' ' || *p == '\t'))
		p++, --*len;
	while (*len && (p[*len - 1] == ' ' || p[*len - 1] == '\t'))
		--*len;
	return p;
}

static bool is_word(const char *p, size_t len, const char *word)
{
	return len == strlen(word) && strncasecmp(p, word, len) == 0;
}

// Thousandths: "1", "0.5", "0.333"; anything else counts as 1.
static unsigned quality(const char *p, size_t len)
{
	unsigned q = 0, scale = 1000;
	if (len == 0 || (*p != '0' && *p != '1'))
		return 1000;
	q = (unsigned)(*p - '0') * 1000;
	for (size_t i = 2; i < len && scale > 1 && p[i] >= '0' && p[i] <= '9'; i++) {
		scale /= 10;
		q += (unsigned)(p[i] - '0') * scale;
	}
	return q > 1000 ? 1000 : q;
}

// One member of the list: "type/subtype; parameter; q=0.5".
static void weigh(const char *p, size_t len, unsigned *openmetrics, unsigned *plain)
{
	unsigned q = 1000;
	size_t type_len = 0;
	const char *type = NULL, *end = p + len;

	while (p < end) {
		size_t n = strcspn(p, ";,");
		const char *next = p + n + 1;
		const char *part = trim(p, &n);
		if (!type) {
			type = part;
			type_len = n;
		} else if (n > 2 && strncasecmp(part, "q=", 2) == 0) {
			q = quality(part + 2, n - 2);
		}
		p = next;
	}
	if (!type)
		return;
	if (is_word(type, type_len, "application/openmetrics-text"))
		*openmetrics = q;
	else if (is_word(type, type_len, "text/plain") ||
		 is_word(type, type_len, "text/*") || is_word(type, type_len, "*/*"))
		*plain = q > *plain ? q : *plain;
}

bool sp_metrics_accepts_openmetrics(const char *accept)
{
	unsigned openmetrics = 0, plain = 0;

	for (const char *p = accept; p && *p; p += *p == ',') {
		size_t len = strcspn(p, ",");
		weigh(p, len, &openmetrics, &plain);
		p += len;
	}
	return openmetrics > 0 && openmetrics >= plain;
}

const char *sp_metrics_content_type(bool openmetrics)
{
	return openmetrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
			   : "text/plain; version=0.0.4; charset=utf-8";
}

// ---- writing ----

static void put(struct sp_metrics_writer *w, const char *text)
{
	evbuffer_add(w->out, text, strlen(text));
}

// Backslash, newline and, where the text stands in quotes, the quote.
static void put_escaped(struct sp_metrics_writer *w, const char *text, bool quote)
{
	for (;;) {
		size_t n = strcspn(text, quote ? "\\\n\"" : "\\\n");
		evbuffer_add(w->out, text, n);
		text += n;
		if (!*text)
			return;
		put(w, *text == '\n' ? "\\n" : *text == '"' ? "\\\"" : "\\\\");
		text++;
	}
}

void sp_metrics_begin(struct sp_metrics_writer *w, struct evbuffer *out, bool openmetrics)
{
	*w = (struct sp_metrics_writer){.out = out, .openmetrics = openmetrics};
}

void sp_metrics_family(struct sp_metrics_writer *w, const struct sp_metric *m)
{
	static const char *const words[] = {"counter", "gauge", "histogram"};
	// 0.0.4 names a family as its samples, OpenMetrics without their suffix.
	const char *suffix =
		m->type == SP_METRIC_COUNTER && !w->openmetrics ? "_total" : "";

	w->family = m;
	evbuffer_add_printf(w->out, "# HELP %s%s ", m->name, suffix);
	put_escaped(w, m->help, w->openmetrics);
	evbuffer_add_printf(w->out, "\n# TYPE %s%s %s\n", m->name, suffix,
			    words[m->type]);
}

static void put_label(struct sp_metrics_writer *w, bool first, const char *name,
		      const char *value)
{
	put(w, first ? "{" : ",");
	put(w, name);
	put(w, "=\"");
	put_escaped(w, value, true);
	put(w, "\"");
}

// Name and labels, `le` as the last if it is not NULL.
static void put_series(struct sp_metrics_writer *w, const char *suffix,
		       const char *const *values, const char *le)
{
	const struct sp_metric *m = w->family;
	unsigned n = 0;

	put(w, m->name);
	put(w, suffix);
	for (; n < SP_METRIC_LABELS_MAX && m->labels[n]; n++) {
		assert(values && values[n]);
		put_label(w, n == 0, m->labels[n], values[n]);
	}
	if (le)
		put_label(w, n++ == 0, "le", le);
	put(w, n ? "} " : " ");
}

static const char *sample_suffix(const struct sp_metrics_writer *w)
{
	return w->family->type == SP_METRIC_COUNTER ? "_total" : "";
}

void sp_metrics_u64(struct sp_metrics_writer *w, uint64_t v, const char *const *values)
{
	put_series(w, sample_suffix(w), values, NULL);
	evbuffer_add_printf(w->out, "%" PRIu64 "\n", v);
}

// The shortest form that reads back as the same number, with a point or exponent.
static const char *number(double v, char buf[40])
{
	if (isnan(v))
		return "NaN";
	if (isinf(v))
		return v < 0 ? "-Inf" : "+Inf";
	snprintf(buf, 40, "%.15g", v);
	if (strtod(buf, NULL) < v || strtod(buf, NULL) > v)
		snprintf(buf, 40, "%.17g", v);
	if (!strpbrk(buf, ".e"))
		strcat(buf, ".0");
	return buf;
}

void sp_metrics_double(struct sp_metrics_writer *w, double v, const char *const *values)
{
	char buf[40];
	put_series(w, sample_suffix(w), values, NULL);
	put(w, number(v, buf));
	put(w, "\n");
}

void sp_histogram_init(struct sp_histogram *h, const double *bounds, unsigned n_bounds)
{
	assert(n_bounds <= SP_HISTOGRAM_BOUNDS_MAX);
	*h = (struct sp_histogram){.bounds = bounds, .n_bounds = n_bounds};
}

void sp_histogram_observe(struct sp_histogram *h, double v)
{
	unsigned i = 0;
	if (isnan(v))
		return;
	while (i < h->n_bounds && v > h->bounds[i])
		i++;
	h->counts[i]++;
	h->sum += v;
}

void sp_metrics_histogram(struct sp_metrics_writer *w, const struct sp_histogram *h,
			  const char *const *values)
{
	uint64_t count = 0;
	char buf[40];

	for (unsigned i = 0; i <= h->n_bounds; i++) {
		count += h->counts[i];
		put_series(w, "_bucket", values,
			   number(i < h->n_bounds ? h->bounds[i] : INFINITY, buf));
		evbuffer_add_printf(w->out, "%" PRIu64 "\n", count);
	}
	put_series(w, "_count", values, NULL);
	evbuffer_add_printf(w->out, "%" PRIu64 "\n", count);
	put_series(w, "_sum", values, NULL);
	put(w, number(h->sum, buf));
	put(w, "\n");
}

// ---- the process ----

enum { P_CPU, P_RSS, P_START, P_FDS, P_MAX_FDS };
static const struct sp_metric process[] = {
	[P_CPU] = {"process_cpu_seconds",
		   SP_METRIC_COUNTER,
		   "CPU time used, user and system",
		   {NULL}},
	[P_RSS] = {"process_resident_memory_bytes",
		   SP_METRIC_GAUGE,
		   "Memory that is resident",
		   {NULL}},
	[P_START] = {"process_start_time_seconds",
		     SP_METRIC_GAUGE,
		     "When the process began, Unix time",
		     {NULL}},
	[P_FDS] = {"process_open_fds",
		   SP_METRIC_GAUGE,
		   "Descriptors that are open",
		   {NULL}},
	[P_MAX_FDS] = {"process_max_fds",
		       SP_METRIC_GAUGE,
		       "Most descriptors that may be open",
		       {NULL}},
};

static double seconds(clockid_t id)
{
	struct timespec ts = {0};
	clock_gettime(id, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

// Field `n` (from 1) of /proc/self/stat or statm; 0 if it cannot be read.
static uint64_t proc_field(const char *path, unsigned n)
{
	char buf[1024], *p = buf, *save;
	FILE *f = fopen(path, "re");

	size_t len = f ? fread(buf, 1, sizeof(buf) - 1, f) : 0;
	if (f)
		fclose(f);
	buf[len] = '\0';
	char *name_end = strrchr(buf, ')'); // the name may hold blanks
	if (name_end) {
		p = name_end + 1;
		n -= 2;
	}
	for (p = strtok_r(p, " ", &save); p && n > 1; n--)
		p = strtok_r(NULL, " ", &save);
	return p ? strtoull(p, NULL, 10) : 0;
}

static double start_time(void)
{
	double since_boot =
		(double)proc_field("/proc/self/stat", 22) / (double)sysconf(_SC_CLK_TCK);
	double start = seconds(CLOCK_REALTIME) - seconds(CLOCK_BOOTTIME) + since_boot;
	return round(start * 10) / 10; // the same at every scrape
}

void sp_metrics_process(struct sp_metrics_writer *w)
{
	struct rlimit nofile;
	struct stat st;

	sp_metrics_family(w, &process[P_CPU]);
	sp_metrics_double(w, seconds(CLOCK_PROCESS_CPUTIME_ID), NULL);
	sp_metrics_family(w, &process[P_RSS]);
	sp_metrics_u64(
		w, proc_field("/proc/self/statm", 2) * (uint64_t)sysconf(_SC_PAGESIZE),
		NULL);
	sp_metrics_family(w, &process[P_START]);
	sp_metrics_double(w, start_time(), NULL);
	// Linux 6.2 gives their number as the size; listing 100,000 would stop the loop.
	if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0) {
		sp_metrics_family(w, &process[P_FDS]);
		sp_metrics_u64(w, (uint64_t)st.st_size, NULL);
	}
	if (getrlimit(RLIMIT_NOFILE, &nofile) == 0) {
		sp_metrics_family(w, &process[P_MAX_FDS]);
		sp_metrics_u64(w, nofile.rlim_cur, NULL);
	}
}

void sp_metrics_end(struct sp_metrics_writer *w)
{
	if (w->openmetrics)
		put(w, "# EOF\n");
}
