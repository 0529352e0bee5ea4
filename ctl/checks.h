// What a doctor found: a list of checks, each with a grade and, unless it is good, a
// remedy. Not here: what is checked (doctor_local.c, doctor_fleet.c).
#ifndef CTL_CHECKS_H
#define CTL_CHECKS_H

#include <jansson.h>

#include "ctl/cli.h"

enum ctl_grade { CTL_GOOD, CTL_WARN, CTL_BAD, CTL_GRADES };

struct ctl_checks {   // zero to begin with
	json_t *list; // [{"area", "about", "grade", "text", "remedy"}]
	unsigned n[CTL_GRADES];
};

// `area`: a word such as "redis"; `about`: the thing, "" if the area says it; `remedy`:
// a sentence without its full stop, NULL for what is good. Longer texts are cut.
void ctl_check_add(struct ctl_checks *k, enum ctl_grade grade, const char *area,
		   const char *about, const char *remedy, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));
// Prints all of them as lines or JSON and frees them. The exit status: 0 all good, 1
// something is to be looked at, 2 something is broken.
int ctl_checks_end(const struct ctl_call *call, struct ctl_checks *k) SP_MUST_CHECK;

// ---- what is checked; each only adds ----

// Configs of programs of this host and what they name: validity, modes of secrets, ends
// of certificates, room on disks.
void ctl_check_config(const struct ctl_call *call, struct ctl_checks *k,
		      const char *path);

// Pure, from what a controller answered. GET /v1/doctor:
void ctl_check_controller(struct ctl_checks *k, const json_t *doctor, uint64_t now_ms);
// GET /v1/nodes, with where the fleet is:
void ctl_check_nodes(struct ctl_checks *k, const json_t *nodes, const json_t *head,
		     uint64_t now_ms);
void ctl_check_vantages(struct ctl_checks *k, const json_t *vantages); // GET /v1/vantages
void ctl_check_leases(struct ctl_checks *k, const json_t *leases, uint64_t now_s);
// A disk's room; `area` as above.
void ctl_check_room(struct ctl_checks *k, const char *area, const char *about,
		    uint64_t free_bytes, uint64_t all_bytes);

#endif
