// This place's own controls: URLs that do not depend on the fleet, looked at directly,
// over and over. With none of them in reach this place is cut off, and what it sees of
// nodes says nothing. Not here: what follows (report.h, the verdict).
#ifndef HCK_CONTROLS_H
#define HCK_CONTROLS_H

#include "healthcheck/targets.h"
#include "lib/fetch.h"

struct hck_controls;
struct hck_controls_options {
	struct sp_loop *loop;
	struct sp_fetch_env *fetch;
	void (*changed)(void *ctx, bool ok); // from the loop
	void *ctx;
};
int hck_controls_new(const struct hck_controls_options *opt,
		     struct hck_controls **ret) SP_MUST_CHECK; // 0; -ENOMEM
void hck_controls_free(struct hck_controls *c);                // NULL is fine
// n URLs, copied; 0: nothing to look at, and all is well.
void hck_controls_set(struct hck_controls *c, const char urls[][HCK_URL_MAX], unsigned n,
		      const char *ca_file, uint32_t interval_ms, uint32_t deadline_ms);
// Now, unless that is under way: a probe failed.
void hck_controls_look(struct hck_controls *c);
// As of the last look at all of them: one answered, or there is none.
bool hck_controls_ok(const struct hck_controls *c);
unsigned hck_controls_n(const struct hck_controls *c);
uint64_t hck_controls_failures(const struct hck_controls *c); // looks at all of them

#endif
