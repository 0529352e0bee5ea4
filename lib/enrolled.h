// What an enrolment left in the state folder of a worker or a vantage: fleet.json,
// written once. Not here: the secret keys beside it, enrolling (lib/enrol.h).
#ifndef SP_ENROLLED_H
#define SP_ENROLLED_H

#include "lib/fleet.h"

#define SP_ENROLLED_NAME_MAX       72 // "NODE/N" with its NUL
#define SP_CONTROLLERS_MAX         8
#define SP_CONTROLLER_ENDPOINT_MAX 256 // with its NUL
#define SP_CONTROL_KEY_BYTES       32

struct sp_controller {
	char router[SP_CONTROLLER_ENDPOINT_MAX], publisher[SP_CONTROLLER_ENDPOINT_MAX];
};

struct sp_enrolled {
	char name[SP_ENROLLED_NAME_MAX];
	struct sp_signed_keys signing; // who may sign revisions
	uint8_t controller_key[SP_CONTROL_KEY_BYTES];
	struct sp_controller controllers[SP_CONTROLLERS_MAX];
	unsigned n_controllers;
};

// Reads `folder`/fleet.json. 0 and *ret; -ENOENT: not enrolled; SP_E_CONFIG, -errno;
// `why` says it in one clause with the remedy.
int sp_enrolled_load(const char *folder, struct sp_enrolled *ret, char *why,
		     size_t cap) SP_MUST_CHECK;
// Writes it; never replaces one. 0; -EEXIST, -ENOMEM, -errno and `why`.
int sp_enrolled_save(const char *folder, const struct sp_enrolled *e, char *why,
		     size_t cap) SP_MUST_CHECK;

#endif
