// Metrics as text, and which format a scraper gets.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "lib/metrics.h"

static const struct sp_metric opened = {
	"sp_opened", SP_METRIC_COUNTER, "streams opened", {"kind", "reason"}};
static const struct sp_metric load = {
	"sp_load", SP_METRIC_GAUGE, "a \\ and\n\"b\"", {NULL}};
static const struct sp_metric dial = {
	"sp_dial_seconds", SP_METRIC_HISTOGRAM, "dials", {"family"}};

static char text[8192];

static struct sp_metrics_writer begin(bool openmetrics)
{
	struct sp_metrics_writer w;
	sp_metrics_begin(&w, evbuffer_new(), openmetrics);
	return w;
}

static const char *end(struct sp_metrics_writer *w)
{
	sp_metrics_end(w);
	ssize_t n = evbuffer_remove(w->out, text, sizeof(text) - 1);
	text[n < 0 ? 0 : n] = '\0';
	evbuffer_free(w->out);
	return text;
}

static void a_counter_is_named_as_each_format_wants_it(void **state)
{
	(void)state;
	for (int om = 0; om < 2; om++) {
		struct sp_metrics_writer w = begin(om);
		sp_metrics_family(&w, &opened);
		sp_metrics_u64(&w, UINT64_MAX, SP_LABELS("tls", "closed"));
		sp_metrics_u64(&w, 0, SP_LABELS("tcp", ""));
		assert_string_equal(
			end(&w), om ? "# HELP sp_opened streams opened\n"
				      "# TYPE sp_opened counter\n"
				      "sp_opened_total{kind=\"tls\",reason=\"closed\"} "
				      "18446744073709551615\n"
				      "sp_opened_total{kind=\"tcp\",reason=\"\"} 0\n"
				      "# EOF\n"
				    : "# HELP sp_opened_total streams opened\n"
				      "# TYPE sp_opened_total counter\n"
				      "sp_opened_total{kind=\"tls\",reason=\"closed\"} "
				      "18446744073709551615\n"
				      "sp_opened_total{kind=\"tcp\",reason=\"\"} 0\n");
	}
}

static void help_and_label_values_are_escaped(void **state)
{
	struct sp_metrics_writer w = begin(false);

	(void)state;
	sp_metrics_family(&w, &load);
	sp_metrics_double(&w, -0.5, NULL);
	sp_metrics_family(&w, &opened);
	sp_metrics_u64(&w, 1, SP_LABELS("a\"b\\c\nd", "\xc3\xa4"));
	assert_string_equal(end(&w), "# HELP sp_load a \\\\ and\\n\"b\"\n"
				     "# TYPE sp_load gauge\n"
				     "sp_load -0.5\n"
				     "# HELP sp_opened_total streams opened\n"
				     "# TYPE sp_opened_total counter\n"
				     "sp_opened_total{kind=\"a\\\"b\\\\c\\nd\",reason=\""
				     "\xc3\xa4\"} 1\n");
	w = begin(true);
	sp_metrics_family(&w, &load);
	assert_non_null(strstr(end(&w), "# HELP sp_load a \\\\ and\\n\\\"b\\\"\n"));
}

static void numbers_read_back_as_what_they_were(void **state)
{
	static const double v[] = {0,    1,    0.1, 1e300, 123456789.123456789,
				   1e-9, 1e16, 2.5, 5e-324};

	(void)state;
	for (unsigned i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		struct sp_metrics_writer w = begin(false);
		w.family = &load;
		sp_metrics_double(&w, v[i], NULL);
		const char *number = strchr(end(&w), ' ') + 1;
		double back = strtod(number, NULL);
		assert_memory_equal(&back, &v[i], sizeof(back));
	}
	struct sp_metrics_writer w = begin(false);
	w.family = &load;
	sp_metrics_double(&w, INFINITY, NULL);
	sp_metrics_double(&w, -INFINITY, NULL);
	sp_metrics_double(&w, NAN, NULL);
	sp_metrics_double(&w, 1, NULL);
	assert_string_equal(end(&w),
			    "sp_load +Inf\nsp_load -Inf\nsp_load NaN\nsp_load 1.0\n");
}

static void a_histogram_cumulates_and_a_bound_belongs_to_its_bucket(void **state)
{
	static const double bounds[] = {0.1, 1, 10};
	struct sp_metrics_writer w = begin(true);
	struct sp_histogram h;

	(void)state;
	sp_histogram_init(&h, bounds, 3);
	sp_histogram_observe(&h, 0.1);
	sp_histogram_observe(&h, 0.5);
	sp_histogram_observe(&h, 1);
	sp_histogram_observe(&h, 11);
	sp_histogram_observe(&h, NAN);
	sp_metrics_family(&w, &dial);
	sp_metrics_histogram(&w, &h, SP_LABELS("ipv4"));
	assert_string_equal(end(&w),
			    "# HELP sp_dial_seconds dials\n"
			    "# TYPE sp_dial_seconds histogram\n"
			    "sp_dial_seconds_bucket{family=\"ipv4\",le=\"0.1\"} 1\n"
			    "sp_dial_seconds_bucket{family=\"ipv4\",le=\"1.0\"} 3\n"
			    "sp_dial_seconds_bucket{family=\"ipv4\",le=\"10.0\"} 3\n"
			    "sp_dial_seconds_bucket{family=\"ipv4\",le=\"+Inf\"} 4\n"
			    "sp_dial_seconds_count{family=\"ipv4\"} 4\n"
			    "sp_dial_seconds_sum{family=\"ipv4\"} 12.6\n"
			    "# EOF\n");
}

static void the_format_is_what_the_scraper_prefers(void **state)
{
	static const struct {
		const char *accept;
		bool openmetrics;
	} v[] = {
		{NULL, false},
		{"", false},
		{"*/*", false},
		{"text/plain", false},
		{"application/openmetrics-text", true},
		{"Application/OpenMetrics-Text; version=1.0.0 ; q=0.8,text/plain;q=0.5",
		 true},
		{"application/openmetrics-text;version=1.0.0;q=0.5,application/"
		 "openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/"
		 "*;q=0.2",
		 true},
		{"text/plain;q=0.9,application/openmetrics-text;q=0.2", false},
		{"application/openmetrics-text;q=0", false},
		{"application/openmetrics-text;q=0.001", true},
		{"application/json", false},
		{";,;;,q=1,,", false},
		{"application/openmetrics-textual", false},
		{"application/openmetrics-text;q=", true},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(v) / sizeof(v[0]); i++)
		assert_int_equal(sp_metrics_accepts_openmetrics(v[i].accept),
				 v[i].openmetrics);
}

static double value_of(const char *all, const char *series)
{
	char line[128];
	snprintf(line, sizeof(line), "\n%s ", series);
	const char *p = strstr(all, line);
	assert_non_null(p);
	return strtod(p + strlen(line), NULL);
}

static void the_process_families_hold_plausible_values(void **state)
{
	struct sp_metrics_writer w = begin(false);
	struct timespec now;

	(void)state;
	clock_gettime(CLOCK_REALTIME, &now);
	sp_metrics_process(&w);
	const char *all = end(&w);
	assert_true(value_of(all, "process_resident_memory_bytes") > 100000);
	assert_true(value_of(all, "process_cpu_seconds_total") > 0);
	double age = (double)now.tv_sec - value_of(all, "process_start_time_seconds");
	assert_true(age > -2 && age < 600);
	assert_true(value_of(all, "process_max_fds") >= 3);
}

int main(void)
{
#define T(f) cmocka_unit_test(f)
	static const struct CMUnitTest tests[] = {
		T(a_counter_is_named_as_each_format_wants_it),
		T(help_and_label_values_are_escaped),
		T(numbers_read_back_as_what_they_were),
		T(a_histogram_cumulates_and_a_bound_belongs_to_its_bucket),
		T(the_format_is_what_the_scraper_prefers),
		T(the_process_families_hold_plausible_values),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
