// Metrics as text: Prometheus text format 0.0.4, or OpenMetrics 1.0 if the scraper
// prefers it. Values live where they are counted; at each scrape the program writes them
// out by a static table of families. Not here: HTTP (lib/admin.h), names of metrics.
// Never a user, an address or a destination as a label.
#ifndef SP_METRICS_H
#define SP_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <event2/buffer.h>

#define SP_METRIC_LABELS_MAX 4

enum sp_metric_type { SP_METRIC_COUNTER, SP_METRIC_GAUGE, SP_METRIC_HISTOGRAM };

// A row of a program's table.
struct sp_metric {
	const char *name; // "sallyport_worker_streams_opened": a counter without _total
	enum sp_metric_type type;
	const char *help;
	const char *labels[SP_METRIC_LABELS_MAX]; // names; the first NULL ends them
};

struct sp_metrics_writer {
	struct evbuffer *out;
	bool openmetrics;
	const struct sp_metric *family; // begun last
};

// True if an Accept header prefers application/openmetrics-text to text/plain (RFC 9110
// section 12.5.1; NULL: no header).
bool sp_metrics_accepts_openmetrics(const char *accept);
const char *sp_metrics_content_type(bool openmetrics);

// `out` is borrowed and appended to.
void sp_metrics_begin(struct sp_metrics_writer *w, struct evbuffer *out,
		      bool openmetrics);
// HELP and TYPE; the samples of the family follow, all before the next family.
void sp_metrics_family(struct sp_metrics_writer *w, const struct sp_metric *m);
// A sample of the family begun last. `values`: one for each of its labels, in order;
// NULL: it has none. Any bytes; they are quoted.
void sp_metrics_u64(struct sp_metrics_writer *w, uint64_t v, const char *const *values);
void sp_metrics_double(struct sp_metrics_writer *w, double v, const char *const *values);
// For `values`: SP_LABELS("tls", "closed").
#define SP_LABELS(...) ((const char *const[]){__VA_ARGS__})

// Fixed buckets; embed.
#define SP_HISTOGRAM_BOUNDS_MAX 24
struct sp_histogram {
	const double *bounds; // ascending, without +Inf; static
	unsigned n_bounds;    // <= SP_HISTOGRAM_BOUNDS_MAX
	uint64_t
		counts[SP_HISTOGRAM_BOUNDS_MAX + 1]; // not cumulated; the last: above all
	double sum;
};
void sp_histogram_init(struct sp_histogram *h, const double *bounds, unsigned n_bounds);
void sp_histogram_observe(struct sp_histogram *h, double v); // NaN: nothing
void sp_metrics_histogram(struct sp_metrics_writer *w, const struct sp_histogram *h,
			  const char *const *values);

// The usual families about the process: CPU seconds, resident memory, start time, open
// descriptors (where the kernel can tell without listing them) and their limit.
void sp_metrics_process(struct sp_metrics_writer *w);
// After the last family.
void sp_metrics_end(struct sp_metrics_writer *w);

#endif
