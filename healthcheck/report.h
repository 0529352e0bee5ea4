// What is told to a controller: the newest result of each carrier, at once when it is a
// failure or another than before, else within REPORT_MS; and a sign of life each second.
// While no controller answers the newest are kept. Not here: sockets, probes.
#ifndef HCK_REPORT_H
#define HCK_REPORT_H

#include "healthcheck/prober.h"
#include "healthcheck/targets.h"
#include "lib/revision.h"
#include "proto/fleet.pb-c.h"

struct hck_report;
struct hck_report_options {
	struct sp_loop *loop;
	uint64_t boot;
	int (*send)(void *ctx, Sallyport__Fleet__ToController *m);
	const struct sp_position *(*position)(void *ctx); // of the state probed by
	bool (*controls_ok)(void *ctx);
	void *ctx;
};
int hck_report_new(const struct hck_report_options *opt,
		   struct hck_report **ret) SP_MUST_CHECK; // 0; -ENOMEM
void hck_report_free(struct hck_report *r);                // NULL is fine
// Copied. 0; -ENOMEM: it is not told.
int hck_report_add(struct hck_report *r, const struct hck_target *target,
		   const struct hck_result *result) SP_MUST_CHECK;
// Other carriers than these are forgotten.
void hck_report_keep(struct hck_report *r, const struct hck_targets *targets);
// A controller is there: all that is new goes out. Gone: nothing does.
void hck_report_up(struct hck_report *r, bool up);
// The state of the controls is another.
void hck_report_now(struct hck_report *r);
uint64_t hck_report_sent(const struct hck_report *r); // results
size_t hck_report_waiting(const struct hck_report *r);

#endif
