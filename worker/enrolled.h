// What an enrolment left in a worker's state folder: fleet.json, written once. Not here:
// the secret keys beside it, enrolling (worker/enrol.h).
#ifndef WRK_ENROLLED_H
#define WRK_ENROLLED_H

#include "lib/fleet.h"

#define WRK_WORKER_NAME_MAX   72 // "NODE/N" with its NUL
#define WRK_CONTROLLERS_MAX   8
#define WRK_ENDPOINT_MAX      256 // with its NUL
#define WRK_CONTROL_KEY_BYTES 32

struct wrk_controller {
	char router[WRK_ENDPOINT_MAX], publisher[WRK_ENDPOINT_MAX];
};

struct wrk_enrolled {
	char name[WRK_WORKER_NAME_MAX];
	struct sp_signed_keys signing; // who may sign revisions
	uint8_t controller_key[WRK_CONTROL_KEY_BYTES];
	struct wrk_controller controllers[WRK_CONTROLLERS_MAX];
	unsigned n_controllers;
};

// Reads `folder`/fleet.json. 0 and *ret; -ENOENT: not enrolled; SP_E_CONFIG, -errno;
// `why` says it in one clause with the remedy.
int wrk_enrolled_load(const char *folder, struct wrk_enrolled *ret, char *why,
		      size_t cap) SP_MUST_CHECK;
// Writes it; never replaces one. 0; -EEXIST, -ENOMEM, -errno and `why`.
int wrk_enrolled_save(const char *folder, const struct wrk_enrolled *e, char *why,
		      size_t cap) SP_MUST_CHECK;

#endif
